"""A process of our own that may die: called over a pipe, and watched for time and memory.

Knows nothing of models and rows. The invariants: `ask` returns an answer or raises, within its patience; a child never
outlives its parent by more than a second; what it prints is bounded, and told where it died.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Literal

from runner.engine.quiet import bound, last_words, open_notes, tail
from runner.worker.room import mebibytes, resident_bytes

_LOOK_S = 0.05  # how often its memory is looked at: a process fills some 100 MiB in that time
_START_S = 120.0  # to import and load on a busy machine

# The path first: where the packages are, only the parent knows for sure.
_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from importlib import import_module;"
    " from runner.worker.child import serve; module, name = sys.argv[2].split(':');"
    " serve(int(sys.argv[3]), getattr(import_module(module), name))"
)

How = Literal["process_abort", "timeout", "oom"]


class ChildEnded(Exception):
    """It died, or was ended because it hung or grew.

    how: a code of reject files. words: what it said last, "" where that is nothing.
    """

    def __init__(self, how: How, story: str, words: str = "") -> None:
        super().__init__(how, story, words)
        self.how, self.story, self.words = how, story, words


class Child:
    """target: 'module:function' whose result answers: target(connection's first message) -> (message -> answer).

    memory: bytes that it may hold; None: as much as there is.
    """

    def __init__(self, target: str, first: Any, memory: int | None = None, start_s: float = _START_S) -> None:
        """raises: ChildEnded where it does not come up; whatever `target` raised."""
        self._memory = memory
        ours, theirs = socket.socketpair()
        self._notes = open_notes()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, json.dumps(sys.path), target, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._notes,
                stderr=self._notes,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        finally:
            theirs.close()
        from multiprocessing.connection import Connection  # a tenth of a second that only an isolated worker spends

        self._connection = Connection(ours.detach())
        try:
            self.ask(first, start_s)
        except BaseException:
            self.close()
            raise

    def ask(self, message: Any, patience_s: float) -> Any:
        """The answer to `message`. raises: what it raised there; ChildEnded where there is no answer."""
        bound(self._notes.fileno())
        try:
            self._connection.send(message)
            answer = self._await(patience_s)
        except (OSError, EOFError):
            raise self._ended() from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._connection.close()
        self._notes.close()

    def _await(self, patience_s: float) -> Any:
        deadline = time.monotonic() + patience_s
        while not self._connection.poll(_LOOK_S):
            bound(self._notes.fileno())
            held = resident_bytes(self._process.pid)
            if self._memory is not None and held > self._memory:
                self.close()
                raise ChildEnded("oom", f"held {mebibytes(held)}, {mebibytes(self._memory)} are allowed; it was ended")
            if time.monotonic() > deadline:
                self.close()
                raise ChildEnded("timeout", f"gave no answer for {patience_s:g} s; it was ended")
        return self._connection.recv()

    def _ended(self) -> ChildEnded:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed its end and lives on
            code = -signal.SIGKILL
        words = last_words(tail(self._notes.fileno()))
        self.close()
        if code == -signal.SIGKILL:
            return ChildEnded("oom", "was killed by SIGKILL, as a system that runs out of memory does")
        if code < 0:
            return ChildEnded("process_abort", f"was ended by {_signal_name(-code)}", words)
        return ChildEnded("process_abort", f"ended by itself with exit code {code}", words)


def serve(descriptor: int, target: Any) -> None:
    """The life of a child: answer until the parent is gone."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    from multiprocessing.connection import Connection

    connection = Connection(descriptor)
    answer = None
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if answer is None:
                answer, result = target(message), None
            else:
                result = answer(message)
        except Exception as error:
            result = error
        connection.send(result)


def _follow(parent: int) -> None:
    """End with the parent, even in the middle of a call that never returns."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
