"""Health: what replaces a process, at once or between two shards, and that a reason stays."""

from __future__ import annotations

import pytest

from jobs.errors import DataError, DeviceError, MemoryLimitError, StoppedError, WorkerError
from runner.batch.headroom import TIRED, Headroom
from runner.worker.health import Health
from runner.worker.room import MemoryLimit


class Held(MemoryLimit):
    """A process that holds too much from time to time."""

    def __init__(self) -> None:
        super().__init__(None)
        self.story = ""

    def excess(self) -> str:
        return self.story


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def headroom() -> Headroom:
    return Headroom(128)


@pytest.fixture
def health(held: Held, headroom: Headroom) -> Health:
    return Health("w1", held, headroom)


def test_a_healthy_process_goes_on(health: Health) -> None:
    health.note(DataError("a bad row", code="ROW_NULL"))
    health.note(StoppedError("interrupted"))
    health.look()
    assert (health.after_shard(), health.refusal(), health.broken) == ("", None, False)


def test_memory_that_ran_out_replaces_it_between_two_shards(health: Health) -> None:
    health.note(MemoryLimitError("did not fit"))
    health.look()  # what runs beside it goes on
    refusal = health.refusal()
    assert isinstance(refusal, WorkerError)
    assert refusal.message == "worker w1 is to be replaced: it failed: did not fit"
    assert not health.broken


def test_a_device_that_failed_replaces_it_at_once(health: Health) -> None:
    health.note(DeviceError("INTERNAL: launch failed", code="INTERNAL"))
    assert health.broken
    with pytest.raises(WorkerError, match=r"^worker w1 is to be replaced: it failed: INTERNAL: launch failed$"):
        health.look()


def test_a_reason_stays_when_what_gave_it_is_gone(health: Health, held: Held) -> None:
    held.story = "it held 95 MiB of 100 MiB"
    assert health.after_shard() == "it held 95 MiB of 100 MiB"
    held.story = ""
    assert health.after_shard() == "it held 95 MiB of 100 MiB"
    health.note(MemoryLimitError("did not fit"))
    assert health.reason == "it held 95 MiB of 100 MiB", "the first reason is the one that is told"


def test_memory_that_ran_out_several_times_replaces_it_although_the_rows_fit_at_last(
    health: Health, headroom: Headroom
) -> None:
    for _ in range(TIRED):
        assert health.after_shard() == ""
        headroom.exceeded({}, 64)
    assert health.after_shard() == f"memory ran out {TIRED} times in it"
