"""Counts and durations -> what a person sees while a job runs, and at its end.

Owns the words and the displays; refuses to know how the numbers came about.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from html import escape
from typing import Any, Protocol, TextIO, cast

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.notebook import progress_bar
from runner.measure.snapshot import Snapshot
from runner.report.console import Console, printable
from runner.report.text import progress_line, progress_parts, waited_line, waiting_line

_log = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0
_TOLD_S = 1.0  # what took less is not told when it is over
_BAR = 20  # columns


class Display(Protocol):
    """Shows snapshots while it is open; closing it leaves the last one on the screen."""

    def say(self, line: str) -> None:
        """A line that stays."""
        ...

    def wait(self, what: str, seconds: float, over: bool) -> None:
        """What is waited for, 'starting a local Ray', before there is a snapshot; for how long, whether it is over."""
        ...

    def show(self, at: Snapshot) -> None: ...

    def close(self) -> None: ...


class TerminalDisplay:
    """A live line; in a narrow terminal as many as it takes, broken between facts, so that none is cut."""

    def __init__(self, console: Console) -> None:
        self._live = Live(Text("starting"), console=console, refresh_per_second=5)
        self._live.start()

    def say(self, line: str) -> None:
        self._live.console.print(Text(printable(line)), soft_wrap=True)

    def wait(self, what: str, seconds: float, over: bool) -> None:
        if not over:
            self._live.update(Text(printable(waiting_line(what, seconds)), no_wrap=True))
        elif seconds >= _TOLD_S:
            self.say(waited_line(what, seconds))

    def show(self, at: Snapshot) -> None:
        row = Table.grid(padding=(0, 1))
        width = self._live.console.width - _BAR - 2  # a terminal may wrap what fills its last column
        row.add_row(ProgressBar(total=1.0, completed=at.share, width=_BAR), Text(_broken(at, width)))
        self._live.update(row)

    def close(self) -> None:
        self._live.stop()


def _broken(at: Snapshot, width: int) -> str:
    """The line of progress, broken before what would not fit into `width` letters."""
    lines = [""]
    for part in progress_parts(at):
        longer = f"{lines[-1]} · {part}" if lines[-1] else part
        if len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(part)
    return "\n".join(lines)


class LogDisplay:
    """A line every 10 s, and one at the end."""

    def __init__(
        self, stream: TextIO, every_s: float = _LOG_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._every_s, self._clock = stream, every_s, clock
        self._said = clock()
        self._last: Snapshot | None = None

    def say(self, line: str) -> None:
        print(printable(line), file=self._stream, flush=True)

    def wait(self, what: str, seconds: float, over: bool) -> None:
        if over and seconds >= _TOLD_S:
            self.say(waited_line(what, seconds))
        elif not over and self._clock() - self._said >= self._every_s:
            self._said = self._clock()
            self.say(waiting_line(what, seconds))

    def show(self, at: Snapshot) -> None:
        self._last = at
        if self._clock() - self._said >= self._every_s:
            self._say(at)

    def close(self) -> None:
        if self._last is not None:
            self._say(self._last)
            self._last = None

    def _say(self, at: Snapshot) -> None:
        self._said = self._clock()
        self.say(progress_line(at))


class NotebookDisplay:
    """A bar that is redrawn in place, at most twice a second. first: HTML that is shown before it."""

    def __init__(self, first: str = "starting") -> None:
        from IPython.display import HTML, display  # only where a notebook runs

        self._html = HTML
        self._handle = display(HTML(first), display_id=True)
        self._drawn = float("-inf")
        self._last: Snapshot | None = None
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        self._lines.append(line)
        self._write("")

    def wait(self, what: str, seconds: float, over: bool) -> None:
        if not over:
            self._write(waiting_line(what, seconds))
        elif seconds >= _TOLD_S:
            self.say(waited_line(what, seconds))

    def show(self, at: Snapshot) -> None:
        self._last = at
        if time.monotonic() - self._drawn >= 0.5:
            self._draw(at)

    def close(self) -> None:
        if self._last is not None:
            self._draw(self._last)

    def end(self, html: str) -> None:
        """Show how it ended, in place of the bar; where that cannot be, the run has ended all the same."""
        with suppress(Exception):
            self._handle.update(self._html(html))

    def _draw(self, at: Snapshot) -> None:
        self._drawn = time.monotonic()
        self._write(progress_line(at), progress_bar(at.share))

    def _write(self, line: str, bar: str = "") -> None:
        lines = "".join(f"<div>{escape(one)}</div>" for one in self._lines)
        self._handle.update(self._html(f"{lines}<div>{bar} {escape(line)}</div>"))


class Shown:
    """A display that ends nothing: what goes wrong with it is told once, in the log, and dropped."""

    def __init__(self, opened: Callable[[], Display]) -> None:
        self._display: Display = NoDisplay()
        self._told = False
        with self._harmless():
            self._display = opened()

    def say(self, line: str) -> None:
        with self._harmless():
            self._display.say(line)

    def wait(self, what: str, seconds: float, over: bool) -> None:
        with self._harmless():
            self._display.wait(what, seconds, over)

    def show(self, at: Snapshot) -> None:
        with self._harmless():
            self._display.show(at)

    def close(self) -> None:
        with self._harmless():
            self._display.close()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._told:
                self._told = True
                _log.warning("the progress cannot be shown: %s: %s; the run goes on", type(error).__name__, error)


class _Unfailing:
    """A stream of somebody else's whose errors of writing are dropped: rich would end the process for a broken pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class NoDisplay:
    def say(self, line: str) -> None: ...

    def wait(self, what: str, seconds: float, over: bool) -> None: ...

    def show(self, at: Snapshot) -> None: ...

    def close(self) -> None: ...


def display_for(stream: TextIO | None = None) -> Display:
    """A live line in a terminal, a bar in a notebook, log lines elsewhere. stream: None: standard error, if any."""
    if in_notebook():
        return NotebookDisplay()
    if (given := stream or sys.stderr) is None:
        return NoDisplay()
    told = cast(TextIO, _Unfailing(given))
    console = Console(file=told)
    return TerminalDisplay(console) if console.is_terminal else LogDisplay(told)


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel; that `ipykernel` is imported does not say so."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
