"""A driver that finds another one in its output, and waits: with a clock that the test moves, on a real folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from three_shards import PLAN, opened, plan_of, snapshot, work

from connectors.output.directory import Claim, OutputDirectory
from connectors.output.epoch import FRESH_S, Process
from jobs.attempt import Success
from jobs.errors import BusyError, JobError, RunnerError, StoppedError
from jobs.section.output import Output
from runner.driver.launch import RunOptions
from runner.driver.waiting import Waiting

ELSEWHERE = Process("another-host", 7, "b", "n", "1")


@pytest.fixture
def out(tmp_path: Path) -> Output:
    return Output(url=str(tmp_path / "out"))


@pytest.fixture
def rival(out: Output) -> OutputDirectory:
    """A driver on another host that writes for the same plan."""
    directory = opened(out)
    directory.epochs.process = ELSEWHERE
    directory.claim(PLAN)
    return directory


class Clock:
    """Time passes where somebody sleeps: for the driver that waits, and for the documents of all others."""

    def __init__(self, out: Output) -> None:
        self.now, self.naps = 0.0, list[float]()
        self.told = list[tuple[float, str, str, dict[str, Any]]]()
        self.steps: dict[float, Callable[[], object]] = {}  # what happens once so many seconds have passed
        self.asked: RunnerError | None = None
        self._out = Path(out.url)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.naps.append(seconds)
        for file in self._out.glob("_run/*/epochs/*.json"):
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - seconds))
        for at in [at for at in self.steps if at <= self.now]:
            self.steps.pop(at)()

    def waiting(self, allowed_s: float) -> Waiting:
        def tell(event: str, story: str, **facts: Any) -> None:
            self.told.append((self.now, event, story, facts))

        return Waiting(allowed_s, tell, lambda: self.asked, lambda: self.now, self.sleep)

    def claim(self, out: Output, allowed_s: float = 360.0, *, overwrite: bool = False) -> Claim:
        return self.waiting(allowed_s).claim(opened(out), PLAN, overwrite=overwrite, takeover=False)


@pytest.fixture
def clock(out: Output) -> Clock:
    return Clock(out)


def test_a_driver_that_is_silent_is_waited_for_and_then_followed(
    out: Output, rival: OutputDirectory, clock: Clock
) -> None:
    assert clock.claim(out) == Claim("resumed", 2)
    assert FRESH_S - 3 <= clock.now <= FRESH_S + 3
    assert [event for _, event, _, _ in clock.told] == ["waiting_for_driver"] * 5 + ["driver_gone"]
    at, _, story, facts = clock.told[0]
    assert at == 0.0
    assert story.startswith("waiting, for 6 min 00 s at most: driver 1 on host 'another-host' (pid 7, since ")
    assert facts == {"driver": 1, "left_s": 360.0, "plan_id": PLAN.id, "host": "another-host", "pid": 7}
    assert [round(one[0]) for one in clock.told[1:-1]] == [60, 120, 180, 240], "once a minute"
    assert clock.told[-1][2].endswith("is gone, or was silent for long: this one goes on")


def test_a_driver_that_says_that_it_ended_is_followed_within_seconds(
    out: Output, rival: OutputDirectory, clock: Clock
) -> None:
    clock.steps[20.0] = lambda: rival.end(1, "failed")
    assert clock.claim(out) == Claim("resumed", 2)
    assert clock.now <= 22.0
    assert clock.told[-1][1:3] == ("driver_gone", f"{_writer(rival)} ended (failed): this one goes on")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("says_so", [False, True])
def test_what_the_other_driver_finished_meanwhile_is_done(
    out: Output, rival: OutputDirectory, clock: Clock, overwrite: bool, says_so: bool
) -> None:
    """With `--overwrite` too: it began anew for the same plan. And where it was killed behind `_SUCCESS`."""
    done: list[dict[str, bytes | None]] = []

    def finish() -> None:
        receipts = {shard: work(rival, shard) for shard in range(3)}
        for receipt in receipts.values():
            rival.record(Success(receipt), [])
        rival.finish(PLAN, receipts, 1)
        if says_so:
            rival.end(1, "finished")
        done.append(parts(rival))

    clock.steps[30.0] = finish
    assert clock.claim(out, overwrite=overwrite).state == "finished"
    assert [parts(rival)] == done


def parts(directory: OutputDirectory) -> dict[str, bytes | None]:
    return {name: content for name, content in snapshot(directory).items() if not name.startswith("_run/")}


def test_a_driver_that_goes_on_for_longer_ends_the_waiting_with_75(
    out: Output, rival: OutputDirectory, clock: Clock
) -> None:
    def renew() -> None:
        rival.renew(1, {})
        clock.steps[clock.now + 30] = renew

    clock.steps[30.0] = renew
    with pytest.raises(BusyError, match=r"^waited 6 min 40 s for another driver in vain: .*\(pid 7") as ended:
        clock.claim(out, 400.0)
    assert (clock.now, ended.value.exit_code, ended.value.retry) == (400.0, 75, True)
    assert rival.epochs.numbers() == [1]


def test_one_more_driver_that_comes_first_is_waited_for_within_the_same_time(
    out: Output, rival: OutputDirectory, clock: Clock
) -> None:
    third = opened(out)
    third.epochs.process = Process("third-host", 9)

    def overtaken() -> None:
        third.claim(PLAN, takeover=True)
        clock.steps[clock.now + 30] = lambda: third.end(2, "interrupted")

    clock.steps[10.0] = overtaken
    assert clock.claim(out, 60.0) == Claim("resumed", 3)
    assert clock.now <= 45.0
    said = [story for _, _, story, _ in clock.told]
    assert said[1] == "driver 1 writes no more: another one took over"
    assert "driver 2 on host 'third-host'" in said[2]


def test_overwriting_waits_for_a_driver_of_another_plan_and_removes_nothing_before(out: Output, clock: Clock) -> None:
    other = plan_of(size=11)
    writer = opened(out, other)
    writer.epochs.process = ELSEWHERE
    epoch = writer.claim(other).epoch
    clock.steps[4.0] = lambda: writer.end(epoch, "interrupted")
    assert clock.claim(out, overwrite=True).state == "new"


def test_a_request_to_stop_ends_the_waiting_at_once(out: Output, rival: OutputDirectory, clock: Clock) -> None:
    def ask() -> None:
        clock.asked = StoppedError("the job was cancelled")

    clock.steps[10.1] = ask
    with pytest.raises(StoppedError, match="cancelled"):
        clock.claim(out)
    assert clock.now <= 10.5
    assert max(clock.naps) <= 0.25
    assert rival.epochs.numbers() == [1]


def test_nobody_waits_unasked(out: Output, rival: OutputDirectory, clock: Clock) -> None:
    with pytest.raises(BusyError, match="--wait-for-driver 6m"):
        clock.claim(out, 0.0)
    assert (clock.naps, clock.told) == ([], [])


@pytest.mark.parametrize("allowed_s", [-1.0, math.nan, math.inf])
def test_the_time_to_wait_is_bounded(allowed_s: float) -> None:
    with pytest.raises(JobError, match="expected a number of seconds"):
        RunOptions(wait_for_driver_s=allowed_s)


def test_to_wait_and_to_take_over_are_two_wishes() -> None:
    with pytest.raises(JobError, match="one of the two"):
        RunOptions(wait_for_driver_s=60.0, takeover=True)


def _writer(directory: OutputDirectory) -> str:
    return directory.epochs.heartbeat(1).writer()
