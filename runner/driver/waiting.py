"""A driver that finds another one in its output waits for it: until that one ends, or is silent, or time is up.

Owns how long, and what is said meanwhile; refuses to know how an output is claimed. The invariant: it ends by itself
within the time that was allowed, and within a quarter of a second where somebody asks it to stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from connectors.output.directory import Claim, OutputDirectory
from connectors.output.epoch import Epochs, Heartbeat
from connectors.output.layout import SUCCESS, Layout, decode
from jobs.errors import BusyError, RunnerError
from jobs.plan import Plan
from runner.report.text import duration

_LOOK_S = 2.0  # between two looks at the other driver
_SLICE_S = 0.25  # of a pause: how soon a request to stop is heard
_SAY_S = 60.0  # between two lines that say that it goes on


class Tell(Protocol):
    """Called with what a person should know: the name of the event, the story, and the facts of it."""

    def __call__(self, event: str, story: str, **facts: Any) -> None: ...


@dataclass
class Waiting:
    """Claims an output, and waits for a driver that is in the way. allowed_s: at most; 0: not at all."""

    allowed_s: float
    tell: Tell
    stop_requested: Callable[[], RunnerError | None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def claim(
        self, output: OutputDirectory, plan: Plan, *, overwrite: bool, takeover: bool, repair: bool = False
    ) -> Claim:
        """As `OutputDirectory.claim`. What the other driver finished of this very plan meanwhile is not overwritten.

        raises: BusyError where it still writes when the time is over; the error that asked to stop.
        """
        until = self.clock() + self.allowed_s
        while True:
            try:
                return output.claim(plan, overwrite=overwrite, takeover=takeover, repair=repair)
            except BusyError as busy:
                if not self.allowed_s:
                    raise
                if self.clock() >= until:
                    waited = f"waited {duration(self.allowed_s)} for another driver in vain"
                    raise BusyError(f"{waited}: {busy.message}", **busy.facts) from None
                self._wait(output, busy, until)
                overwrite = overwrite and not _complete(output, busy)

    def _wait(self, output: OutputDirectory, busy: BusyError, until: float) -> None:
        """Until the driver that is in the way is so no more, or the time is over."""
        epochs = Epochs(output.store, Layout(str(busy.facts["plan_id"])))
        began, said = self.clock(), -math.inf
        while (now := self.clock()) < until:
            last = epochs.latest()
            if last is None or last.epoch != busy.facts["epoch"] or not last.alive or _complete(output, busy):
                self.tell("driver_gone", _end(last, int(busy.facts["epoch"])), waited_s=round(now - began, 1))
                return
            if now - said >= _SAY_S:
                said = now
                left = round(until - now, 1)
                story = (
                    f"waiting, for {duration(left)} at most: {last.writer()} writes there, last heard {last.heard()}"
                )
                facts = {name: busy.facts[name] for name in ("plan_id", "host", "pid")}
                self.tell("waiting_for_driver", story, driver=last.epoch, left_s=left, **facts)
            self._pause(min(_LOOK_S, until - now))

    def _pause(self, seconds: float) -> None:
        while seconds > 0:
            if (reason := self.stop_requested()) is not None:
                raise reason
            self.sleep(min(_SLICE_S, seconds))
            seconds -= _SLICE_S


def _complete(output: OutputDirectory, busy: BusyError) -> bool:
    """Whether the driver in the way has the plan that this one wants, and finished it."""
    ours = output.epochs.names
    if Layout(str(busy.facts["plan_id"])).plan8 != ours.plan8:
        return False
    return (decode(output.store.read(SUCCESS)) or {}).get("plan_id") == ours.plan_id


def _end(last: Heartbeat | None, epoch: int) -> str:
    if last is None or last.epoch != epoch:
        return f"driver {epoch} writes no more: another one took over"
    ended = last.document.get("ended")
    how = f"ended ({ended})" if ended else "is gone, or was silent for long"
    return f"{last.writer()} {how}: this one goes on"
