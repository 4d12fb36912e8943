"""Follow a run from its output alone: no driver, no Ray, from any machine that can read it.

Owns the rate and the end as the documents on storage show them; refuses to know how a status is read. The invariant:
looking changes nothing, and a watch ends when the run does, whatever became of its driver.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from connectors.output.status import Status, read_status
from jobs.errors import OutputError, RunnerError
from jobs.notebook import facts
from jobs.section.output import Output
from jobs.words import counted
from runner.report.text import byte_count, duration, rate
from runner.report.wording import python_words

_EVERY_S = 2.0
_BEGIN_S = 60.0  # how long a run may take until it writes: it starts Ray, and looks at each file first
_WINDOW_S = 60.0  # the rate is that of the last minute


class Watch:
    """A run as seen from its output. Iterating looks again every `every_s` seconds, until it has ended."""

    def __init__(
        self,
        output: Output,
        every_s: float = _EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.output, self._every_s, self._clock, self._sleep = output, every_s, clock, sleep
        self._seen: dict[str, dict[str, Any]] = {}
        self._rows: deque[tuple[float, int]] = deque()
        self.status = self.look()

    def look(self) -> Status:
        """The run as it is now. raises: OutputError where the output cannot be read."""
        self.status, now = read_status(self.output, self._seen), self._clock()
        self._rows.append((now, self.status.rows_seen))
        while now - self._rows[0][0] > _WINDOW_S:
            self._rows.popleft()
        return self.status

    @property
    def rows_per_s(self) -> float:
        """Of the last minute; what the driver said of itself until anything was seen to grow."""
        (then, before), (now, rows) = self._rows[0], self._rows[-1]
        return (rows - before) / (now - then) if rows > before and now > then else self.status.rows_per_s

    @property
    def eta_s(self) -> float | None:
        """None while it is not known: the rate of before says nothing of a run that waits and does not grow."""
        left = self.status.rows - self.status.rows_seen
        waits = self.status.waits_for and self._rows[0][1] == self._rows[-1][1]
        known = self.status.state == "running" and left and self.rows_per_s and not waits
        return left / self.rows_per_s if known else None

    @property
    def ended(self) -> bool:
        """Finished, or without a driver that could finish it. A run that has not begun has not ended."""
        return self.status.state in ("finished", "incomplete") or (
            self.status.state == "stopped" and self.status.epoch > 0
        )

    @property
    def line(self) -> str:
        """`1,200 of 4,000 rows · 30% · 120 rows/s · ETA 23.3 s · shards 3 of 8 · 0 retried · driver 1 on 'a' ...`"""
        at = self.status
        if at.state == "absent":
            return f"nothing is written in {at.output} yet"
        parts = [
            f"{at.rows_seen:,} of {counted(at.rows, 'row')}",
            f"{at.share:.0%}",
            rate(self.rows_per_s) if at.state == "running" and self.rows_per_s else "",
            f"ETA {duration(self.eta_s)}" if self.eta_s is not None else "",
            f"shards {at.shards_done} of {at.shards}",
            f"{at.retries} retried",
            f"{counted(at.rows_left_out, 'row')} left out" if at.rows_left_out else "",
            f"{counted(at.rows_rejected, 'row')} rejected" if at.rows_rejected else "",
            at.waits_for if at.state == "running" else "",
            _writer(at),
        ]
        return " · ".join(part for part in parts if part)

    @property
    def end(self) -> str:
        """What became of a run that has ended, and how to continue."""
        at = self.status
        if at.state == "finished":
            rows = at.rows_done - at.rows_rejected - at.rows_left_out
            return f"finished: {counted(rows, 'row')} in {counted(at.shards, 'part')} ({byte_count(at.bytes)})"
        if at.state == "incomplete":
            return f"incomplete: {at.damage}; to repair: run the same job with --repair"
        who = f"driver {at.epoch} on '{at.host}' (pid {at.pid})"
        how = f"was lost, last heard {at.heartbeat}" if at.lost else f"ended: {at.ended}"
        done = f"{at.rows_done:,} of {counted(at.rows, 'row is', 'rows are')} written"
        return f"{who} {how}; {done}; to continue: {at.command or 'run the same job again'}"

    def __iter__(self) -> Iterator[Status]:
        yield self.status
        while not self.ended:
            self._sleep(self._every_s)
            yield self.look()

    @python_words("interrupted; the run that was waited for goes on")
    def wait(self, timeout_s: float | None = None, begin_s: float = _BEGIN_S) -> Status:
        """The status at the end.

        timeout_s: how long to wait; None: as long as it runs.
        begin_s:   how long an output may hold nothing: a run that has just been started writes nothing yet.
        raises:    OutputError where nothing is written there after `begin_s`; RunnerError where the run ended and not
                   everything was written; TimeoutError.
        """
        began = self._clock()
        for _ in self:
            waited = self._clock() - began
            if timeout_s is not None and not self.ended and waited >= timeout_s:
                what = "no run has begun" if self.status.state == "absent" else "the job still runs"
                raise TimeoutError(f"{what} after {timeout_s:g} s: {self.line}")
            if self.status.state == "absent" and waited >= begin_s:
                raise OutputError(
                    f"cannot wait for a run in '{self.status.output}': nothing was written there within {begin_s:g} s;"
                    " expected the output of a run that has begun: look at the address, or wait longer for the"
                    " beginning with `begin_s`"
                )
        if self.status.state != "finished":
            raise RunnerError(self.end)
        return self.status

    def __repr__(self) -> str:
        return f"<Watch of {self.status.output}: {self.end if self.ended else self.line}>"

    def _repr_html_(self) -> str:
        shown = {"output": self.status.output, "state": self.status.state, "progress": self.line}
        return facts("Run", shown | ({"end": self.end} if self.ended else {}), share=self.status.share)


def _writer(at: Status) -> str:
    if not at.epoch or at.state in ("finished", "incomplete"):
        return ""
    heard = f", heard {duration(at.heartbeat_age_s)} ago" if at.heartbeat_age_s is not None else ""
    return f"driver {at.epoch} on '{at.host}' (pid {at.pid}{heard})"
