"""Counts and durations -> what a person sees while a job runs, and at its end.

Owns the words and the displays; refuses to know how the numbers came about.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.html import progress_bar
from runner.measure.stage import COMPUTE

_LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at one moment. rows_before: done by earlier runs of the same job. waits_for: room in the cluster, or ""."""

    rows_total: int
    rows_done: int
    rows_before: int
    seconds: float
    shards_total: int
    shards_done: int
    shards_running: int
    retries: int
    workers_ready: int
    workers: int
    waits_for: str = ""

    @property
    def rows_per_s(self) -> float:
        return (self.rows_done - self.rows_before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        return (self.rows_total - self.rows_done) / self.rows_per_s if self.rows_per_s > 0 else None

    @property
    def share(self) -> float:
        """Done, from 0 to 1; by shards where there are no rows."""
        done, total = (self.rows_done, self.rows_total) if self.rows_total else (self.shards_done, self.shards_total)
        return done / total if total else 1.0

    def document(self) -> dict[str, Any]:
        return asdict(self) | {"rows_per_s": round(self.rows_per_s, 1)}


def progress_line(at: Snapshot) -> str:
    """`1,200 of 4,000 rows · 30% · 120 rows/s · ETA 2 s · shards 3 done, 2 running, 0 retried of 8 · 2 of 2 workers`"""
    eta = f"ETA {duration(at.eta_s)}" if at.eta_s is not None and at.share < 1 else ""
    parts = [
        f"{at.rows_done:,} of {at.rows_total:,} rows",
        f"{at.share:.0%}",
        f"{rate(at.rows_per_s)}" if at.rows_done > at.rows_before else "",
        eta,
        f"shards {at.shards_done} done, {at.shards_running} running, {at.retries} retried of {at.shards_total}",
        f"{at.workers_ready} of {at.workers} workers ready",
        at.waits_for if at.workers_ready < at.workers else "",
    ]
    return " · ".join(part for part in parts if part)


def rate(rows_per_s: float) -> str:
    return f"{rows_per_s / 1e6:.2f} M rows/s" if rows_per_s >= 1e6 else f"{rows_per_s:,.0f} rows/s"


def duration(seconds: float) -> str:
    """`8.1 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return (
        f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {round(seconds) % 60:02d} s"
    )


def byte_count(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


class Display(Protocol):
    """Shows snapshots while it is open; closing it leaves the last one on the screen."""

    def show(self, at: Snapshot) -> None: ...

    def close(self) -> None: ...


class TerminalDisplay:
    """One live line."""

    def __init__(self, console: Console) -> None:
        self._live = Live(Text("starting"), console=console, refresh_per_second=5)
        self._live.start()

    def show(self, at: Snapshot) -> None:
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=1.0, completed=at.share, width=20), Text(progress_line(at), no_wrap=True))
        self._live.update(row)

    def close(self) -> None:
        self._live.stop()


class LogDisplay:
    """A line every 10 s, and one at the end."""

    def __init__(
        self, stream: TextIO, every_s: float = _LOG_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._every_s, self._clock = stream, every_s, clock
        self._said = clock()
        self._last: Snapshot | None = None

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
        print(progress_line(at), file=self._stream, flush=True)  # this is the log


class NotebookDisplay:
    """A bar that is redrawn in place, at most twice a second."""

    def __init__(self) -> None:
        from IPython.display import HTML, display  # only where a notebook runs

        self._html = HTML
        self._handle = display(HTML("starting"), display_id=True)
        self._drawn = float("-inf")
        self._last: Snapshot | None = None

    def show(self, at: Snapshot) -> None:
        self._last = at
        if time.monotonic() - self._drawn >= 0.5:
            self._draw(at)

    def close(self) -> None:
        if self._last is not None:
            self._draw(self._last)

    def end(self, html: str) -> None:
        """Show how it ended, in place of the bar."""
        self._handle.update(self._html(html))

    def _draw(self, at: Snapshot) -> None:
        self._drawn = time.monotonic()
        self._handle.update(self._html(f"<div>{progress_bar(at.share)} {escape(progress_line(at))}</div>"))


class NoDisplay:
    def show(self, at: Snapshot) -> None: ...

    def close(self) -> None: ...


def display_for(stream: TextIO | None = None) -> Display:
    """A live line in a terminal, a bar in a notebook, log lines elsewhere."""
    if in_notebook():
        return NotebookDisplay()
    console = Console(file=stream or sys.stderr)
    return TerminalDisplay(console) if console.is_terminal else LogDisplay(stream or sys.stderr)


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel; that `ipykernel` is imported does not say so."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def account_lines(account: Mapping[str, Any]) -> list[str]:
    """The account of a run (see `runner.measure.account`) for the end of a summary: speed, time, bottleneck."""
    speed = account["speed"]
    of = [
        f"{speed[share]:.0%} of what {who} can do ({rate(speed[ceiling])})"
        for share, ceiling, who in (
            ("of_compute", "compute_rows_per_s", "the model alone"),
            ("of_machine", "machine_rows_per_s", "the cores"),
        )
        if speed[ceiling]
    ]
    lines = [f"while working: {rate(speed['rows_per_s'])}" + (f", {' and '.join(of)}" if of else "")]
    if sentence := stage_sentence(account["stage_seconds"]):
        lines.append(f"workers' time: {sentence}")
    found = account["bottleneck"]
    return [*lines, "; ".join(filter(None, (found["sentence"], found["suggestion"])))]


def stage_sentence(seconds: Mapping[str, float]) -> str:
    """Where the time of the workers went, largest first: `run 61 %, wait_read 20 %, ...` of the compute thread."""
    compute = {name: seconds.get(name, 0.0) for name in ("idle", *COMPUTE)}
    whole = sum(compute.values())
    if whole == 0:
        return ""
    ranked = sorted(compute.items(), key=lambda pair: -pair[1])
    shares = ", ".join(f"{name} {value / whole:.0%}" for name, value in ranked if value / whole >= 0.005)
    others = {name: seconds.get(name, 0.0) for name in ("read", "decode", "encode", "publish")}
    beside = ", ".join(f"{name} {duration(value)}" for name, value in others.items() if value)
    return f"{shares} (beside it: {beside})"
