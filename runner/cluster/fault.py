"""What Ray's errors mean for us, and how long its silence is borne.

Owns the reading of their types and texts; refuses to know workers and what follows. The invariant: an interruption of
the driver is never taken for a failure of Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from runner.cluster.quiet import RayActorError


def raise_interruption(error: Exception) -> None:
    """A signal handler raises wherever the main thread is: what it raises is no Exception, and no failure of Ray's.

    Ray's core may wrap it: "SystemError: ... returned a result with an exception set".
    raises: what is wrapped; nothing where `error` is Ray's own.
    """
    for wrapped in (error.__cause__, error.__context__):
        if wrapped is not None and not isinstance(wrapped, Exception):
            raise wrapped


def cause(error: Exception) -> str:
    """Ray's reason in one line; its own message runs over a page."""
    if isinstance(error, RayActorError):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        for line in lines:
            if "unexpectedly exit" in line or ("node" in line.lower() and "died" in line.lower()):
                return line
        return lines[0] if lines else type(error).__name__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def bounded(call: Callable[[], None], seconds: float) -> bool:
    """`call`, for so long at most; then it goes on alone. Its errors do not matter: what it ends is gone already.

    returns: whether it has ended.
    """

    def run() -> None:
        with suppress(Exception):
            call()

    thread = threading.Thread(target=run, name="ray-bounded", daemon=True)
    with suppress(RuntimeError):  # this process may start no more threads, and nothing else bounds a call
        thread.start()
        thread.join(seconds)
        return not thread.is_alive()
    return False
