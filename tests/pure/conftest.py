"""Plans and schedules for the tests that need neither Ray nor TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from jobs.plan import InputFile, Plan, RowGroup, plan
from jobs.schedule.event import Action, Event
from jobs.schedule.schedule import Schedule
from jobs.section.limits import Limits


@pytest.fixture(scope="session", autouse=True)
def every_event_keeps_the_invariants() -> Iterator[None]:
    """Every Schedule in these tests, whoever drives it, is validated after each event."""
    handle = Schedule.handle

    def validated(self: Schedule, event: Event) -> list[Action]:
        actions = handle(self, event)
        self.validate()
        return actions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Schedule, "handle", validated)
        yield


@pytest.fixture(scope="session")
def plan_of() -> Callable[[Sequence[int]], Plan]:
    """plan_of([30, 10]): a plan of one shard per number, with so many bytes, of 10 rows each."""

    def make(sizes: Sequence[int]) -> Plan:
        files = [InputFile(f"in/{index:05}", size, "v", (RowGroup(10, size),)) for index, size in enumerate(sizes)]
        return plan(files, Limits(shard_bytes=1), {})

    return make
