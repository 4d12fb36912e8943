"""The two ends of the terminal: what was typed; and one console, one form of JSON, one form of errors and warnings.

Refuses to know what is printed. The invariant: standard output is the answer of a command and nothing else.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from connectors.secret import redact

_PIPED_WIDTH = 140  # letters in a line where standard output is no terminal


def console(piped_width: int | None = _PIPED_WIDTH) -> Console:
    """Standard output. piped_width: letters in a line where it is no terminal; None: what rich takes for it."""
    return Console(width=None if sys.stdout.isatty() else piped_width)


def print_json(document: object, default: Callable[[Any], Any] | None = None) -> None:
    """The answer of a command for scripts. default: what stands for a value that JSON has no word for."""
    print(json.dumps(document, indent=2, ensure_ascii=False, default=default))  # noqa: T201


def typed() -> str:
    """The command that runs, as one types it in a shell."""
    import shlex  # `--help` does without it

    return shlex.join(["runner", *sys.argv[1:]])


class _Heard(logging.Handler):
    """The warnings that our modules log. tell: what is done with one."""

    tell: Callable[[str], None]

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(redact(self.format(record)))


_HEARD = _Heard(logging.WARNING)


def hear(tell: Callable[[str], None] | None = None) -> None:
    """From now on, what our modules log goes to `tell`; None: as paragraphs to standard error."""
    _HEARD.tell = tell or (lambda story: say(story, "warning: "))
    for name in ("jobs", "connectors", "runner"):
        logger = logging.getLogger(name)
        logger.propagate = False  # absl, for one, has a handler on the root
        if _HEARD not in logger.handlers:
            logger.addHandler(_HEARD)


def say(message: str, prefix: str = "error: ") -> None:
    """A paragraph on standard error. prefix: 'error: ', 'warning: ' or ''."""
    stderr = Console(stderr=True, soft_wrap=True, highlight=False)
    colour = "bold yellow" if prefix == "warning: " else "bold red"
    stderr.print(f"[{colour}]{prefix}[/]" if prefix else "", end="")
    stderr.print(message, markup=False)
