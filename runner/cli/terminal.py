"""The streams of the terminal: one console, one form of JSON, of errors and of warnings.

Refuses to know what is printed. The invariants: standard output is the answer of a command and nothing else; a stream
that cannot be written to changes nothing of what a command does.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
from collections.abc import Callable
from functools import cache, wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO

import typer

from connectors.secret import redact
from jobs.errors import OutputError
from runner.report.console import Console, json_text, printable

if TYPE_CHECKING:
    from runner.report.event_log import EventLog

_PIPED_WIDTH = 140  # letters in a line where standard output is no terminal
_MOST_LETTERS = 8_000  # of a paragraph: a name in it may be a whole file

P = ParamSpec("P")


class _Unfailing(io.FileIO):
    """An open file that people read. The first error of writing is kept; none is raised.

    Below all buffers, so that those are emptied, and the interpreter finds nothing left to write when it ends.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            while (written := super().write(data)) is None:  # it is full, and was set not to block
                room = select.poll()
                room.register(self, select.POLLOUT)
                room.poll()
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes
        return written

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:  # a network's disk may be full only then
            self.error = self.error or error


def printer(descriptor: int, encoding: str = "utf-8", *, owned: bool = False, by_line: bool = True) -> TextIO:
    """A stream for people: no error of writing is raised, and a letter that its encoding lacks is escaped.

    owned:   closing it closes the descriptor.
    by_line: whether each line is written at once.
    """
    buffer = io.BufferedWriter(_Unfailing(descriptor, "w", closefd=owned))
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=by_line)


def take_streams() -> None:
    """Make standard output and error such streams. One that is closed is opened on nothing.

    Else the next file that is opened, a part for one, gets its number, and what libraries print goes there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            os.set_inheritable(descriptor, True)
    out, err = (getattr(stream, "encoding", "utf-8") for stream in (sys.stdout, sys.stderr))
    sys.stdout, sys.stderr = printer(1, out, by_line=os.isatty(1)), printer(2, err)


def unread() -> bool:
    """Whether standard output takes no more: its reader has gone, or its terminal, or its disk is full."""
    return _failure(sys.stdout) is not None


def answering(command: Callable[P, None]) -> Callable[P, None]:
    """A command that does nothing but answer: where the answer cannot be written, it fails.

    A reader that has gone (`| head`) has what it wanted.
    """

    @wraps(command)
    def answer(*arguments: P.args, **values: P.kwargs) -> None:
        ended: typer.Exit | None = None
        try:
            command(*arguments, **values)
        except typer.Exit as exit_:  # an exit code is an answer too
            ended = exit_
        error = _failure(sys.stdout)
        if error is not None and error.errno != errno.EPIPE:
            raise OutputError(f"cannot print the answer: {error.strerror}; it is not all there: print it elsewhere")
        if ended is not None:
            raise ended

    return answer


def _failure(stream: TextIO) -> OSError | None:
    stream.flush()
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Unfailing) else None


def console(piped_width: int | None = _PIPED_WIDTH) -> Console:
    """Standard output. piped_width: letters in a line where it is no terminal; None: what rich takes for it."""
    return Console(width=None if sys.stdout.isatty() else piped_width)


def print_json(document: object, default: Callable[[Any], Any] | None = None) -> None:
    """The answer of a command for scripts. default: what stands for a value that JSON has no word for."""
    print(json_text(document, 2, default))  # noqa: T201


def _words() -> list[str]:
    """What was typed, up to a `--`, behind which nothing is a flag."""
    words = sys.argv[1:]
    return words[: words.index("--")] if "--" in words else words


def wants_json() -> bool:
    """Whether `--json` was typed; also where the rest of the command line is wrong."""
    return "--json" in _words()


@cache
def event_log() -> EventLog | None:
    """The log of this command where `--log-format json` was typed, None elsewhere.

    On a descriptor of its own: loading a model in this process redirects the shared one for a moment.
    """
    words = _words()
    if "--log-format=json" not in words and ("--log-format", "json") not in pairwise(words):
        return None
    from runner.report.event_log import EventLog  # for a command that runs

    return EventLog(printer(os.dup(2), sys.stderr.encoding))  # open until the process ends


class _Heard(logging.Handler):
    """The warnings that our modules log. tell: what is done with one."""

    tell: Callable[[str], None]

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(redact(self.format(record)))


_HEARD = _Heard(logging.WARNING)


def hear(tell: Callable[[str], None] | None = None) -> None:
    """From now on, what our modules log goes to `tell`; None: to `say`. With an event log, what others log too."""
    _HEARD.tell = tell or (lambda story: say(story, "warning: "))
    for name in ("jobs", "connectors", "runner"):
        logger = logging.getLogger(name)
        logger.propagate = False  # absl, for one, has a handler on the root
        if _HEARD not in logger.handlers:
            logger.addHandler(_HEARD)
    if event_log() is not None and _HEARD not in logging.root.handlers:
        logging.captureWarnings(True)
        logging.root.addHandler(_HEARD)


def say(message: str, prefix: str = "error: ") -> None:
    """A paragraph on standard error, or an event of the log. prefix: 'error: ', 'warning: ' or ''.

    What others chose may stand in it: further lines are indented, so that none looks like one of ours.
    """
    if len(message) > _MOST_LETTERS:
        message = f"{message[:_MOST_LETTERS]}... ({len(message) - _MOST_LETTERS:,} more letters)"
    if (log := event_log()) is not None:
        log.warn(message)
        return
    first, *more = printable(message, lines=True).splitlines() or [""]
    lines = [first, *(line if line.startswith("  ") else f"  {line}" for line in more)]
    stderr = Console(stderr=True, soft_wrap=True, highlight=False)
    colour = "bold yellow" if prefix == "warning: " else "bold red"
    stderr.print(f"[{colour}]{prefix}[/]" if prefix else "", end="")
    stderr.print("\n".join(lines), markup=False)
