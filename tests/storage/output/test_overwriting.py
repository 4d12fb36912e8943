"""`--overwrite`: what goes, what of it goes on when the same command is run again, and a crash at each step of it."""

from __future__ import annotations

from typing import Any

import pytest
from three_shards import PLAN, killed, opened, plan_of, snapshot, work

from connectors.output.directory import OutputDirectory, read_status
from connectors.output.verification import verify
from connectors.store.store import Store
from jobs.attempt import Success
from jobs.errors import BusyError, OutputError, SupersededError
from jobs.section.output import Output

OTHER = plan_of({"model": {"digest": "bb"}})


class Dead(BaseException):
    """The process is gone."""


@pytest.fixture(params=["parquet", "arrow", "tfrecord"])
def out(request: pytest.FixtureRequest, place: Any) -> Output:
    return Output(url=f"{place.url}/out", options=place.options, format=request.param)


def record(directory: OutputDirectory, shard: int, nonce: str = "0" * 12) -> str:
    """A shard that is done; returns its attempt."""
    receipt = directory.record(Success(work(directory, shard, nonce)), [])
    return receipt.attempt


def finished(out: Output, nonce: str = "f" * 12, overwrite: bool = False) -> None:
    directory = opened(out)
    epoch = directory.claim(PLAN, overwrite=overwrite).epoch
    receipts = directory.published(PLAN)
    receipts |= {shard: work(directory, shard, f"{nonce[1:]}{shard}") for shard in range(3) if shard not in receipts}
    for receipt in receipts.values():
        directory.record(Success(receipt), [])
    directory.finish(PLAN, receipts, epoch)
    directory.end(epoch, "finished")


def parts(directory: OutputDirectory) -> list[str]:
    return [name for name in directory.store.names("") if name.startswith("part-")]


def test_an_overwrite_that_was_interrupted_goes_on(out: Output) -> None:
    finished(out)
    first = opened(out)
    assert first.claim(PLAN, overwrite=True).state == "new"
    assert parts(first) == []
    attempt = record(first, 1, "1" * 12)
    killed(first)
    again = opened(out)
    assert again.claim(PLAN, overwrite=True).state == "resumed"
    assert {shard: receipt.attempt for shard, receipt in again.published(PLAN).items()} == {1: attempt}
    killed(again)
    finished(out, "2" * 12, overwrite=True)
    assert opened(out).published(PLAN)[1].attempt == attempt
    assert verify(out, deep=True).problems == ()


def test_an_overwrite_that_finished_is_computed_once_more(out: Output) -> None:
    finished(out, overwrite=True)
    directory = opened(out)
    assert directory.claim(PLAN, overwrite=True).state == "new"
    assert parts(directory) == []
    assert read_status(out).rows_done == 0


def test_what_was_begun_without_it_is_removed_and_what_goes_on_without_it_is_kept(out: Output) -> None:
    plain = opened(out)
    plain.claim(PLAN)
    record(plain, 0)
    killed(plain)
    directory = opened(out)
    assert directory.claim(PLAN, overwrite=True).state == "new"
    assert parts(directory) == []
    record(directory, 1, "1" * 12)
    killed(directory)
    plain = opened(out)
    assert plain.claim(PLAN).state == "resumed"
    record(plain, 2, "2" * 12)
    killed(plain)
    directory = opened(out)
    assert directory.claim(PLAN, overwrite=True).state == "resumed"
    assert parts(directory) == [directory.part_name(1), directory.part_name(2)]


def test_what_another_job_wrote_meanwhile_goes_and_its_own_overwrite_begins_anew(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN, overwrite=True)
    record(directory, 1)
    killed(directory)
    other = opened(out, OTHER)
    with pytest.raises(OutputError, match="of another job"):
        other.claim(OTHER)
    assert other.claim(OTHER, overwrite=True).state == "new"
    assert parts(other) == []
    other.end(other.epochs.held, "failed")
    directory = opened(out)
    assert directory.claim(PLAN, overwrite=True).state == "new", "its own parts were removed by another one"


@pytest.mark.parametrize("step", range(8))  # _SUCCESS, three parts, their receipts, and what the first worker was
def test_a_crash_in_the_middle_of_the_clearing_keeps_nothing_of_before(
    out: Output, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every other time --overwrite began it once: what is left of that is older than the second one all the same.
    finished(out, overwrite=bool(step % 2))
    removed = 0

    def remove(self: Store, path: str) -> None:
        nonlocal removed
        if removed == step:
            raise Dead
        removed += 1
        real(self, path)

    real = Store.remove
    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", remove)
        patch.setattr("connectors.output.epoch.Epochs.end", lambda *_: None)  # the dead say nothing
        with pytest.raises(Dead):
            opened(out).claim(PLAN, overwrite=True)
    assert "_SUCCESS" not in opened(out).store.names("") or step == 0
    killed(opened(out))
    directory = opened(out)
    assert directory.claim(PLAN, overwrite=True).state == "new"
    assert parts(directory) == []
    assert directory.store.names(f"_run/{PLAN.id[:8]}/receipts") == []
    record(directory, 0)
    killed(directory)
    assert opened(out).claim(PLAN, overwrite=True).state == "resumed"


def test_a_driver_that_is_superseded_while_it_clears_removes_nothing_more(
    out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(out)
    newer = opened(out)

    def remove(self: Store, path: str) -> None:
        if path.startswith("part-") and not newer.epochs.held:
            newer.claim(PLAN, overwrite=True, takeover=True)
            record(newer, 2, "2" * 12)
        real(self, path)

    real = Store.remove
    monkeypatch.setattr(Store, "remove", remove)
    with pytest.raises(SupersededError):
        opened(out).claim(PLAN, overwrite=True)
    assert parts(newer) == [newer.part_name(2)]


def test_nothing_is_touched_where_a_driver_of_any_plan_writes(out: Output) -> None:
    finished(out)
    opened(out, OTHER).epochs.begin(takeover=False)
    before = snapshot(opened(out))
    with pytest.raises(BusyError, match="writes there"):
        opened(out).claim(PLAN, overwrite=True)
    after = snapshot(opened(out))
    assert {name for name in after if not name.endswith("clock.json")} == before.keys()


def test_a_damaged_plan_and_a_torn_part_are_replaced(out: Output, place: Any) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    record(directory, 0)
    killed(directory)
    place.put(f"out/{directory.part_name(0)}", b"torn")
    place.put(f"out/_run/{PLAN.id[:8]}/plan.json", b"{}")
    with pytest.raises(OutputError, match="torn or empty"):
        opened(out).claim(PLAN)
    directory = opened(out)
    assert directory.claim(PLAN, overwrite=True).state == "new"
    assert parts(directory) == []
    directory.end(directory.epochs.held, "interrupted")
    finished(out)
    assert verify(out, deep=True).problems == ()
