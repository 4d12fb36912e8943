"""Parts without a commit header: their receipts are the record, and the promises are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from three_shards import PLAN, killed, opened, plan_of, snapshot
from three_shards import work as work_as

from connectors.formats.tfrecord.record import framed
from connectors.output.directory import OutputDirectory, open_dataset
from connectors.output.verification import verify
from jobs.attempt import Receipt, Success
from jobs.errors import OutputError, SupersededError
from jobs.section.output import Output


@pytest.fixture
def out(place: Any) -> Output:
    return Output(url=f"{place.url}/out", options=place.options, format="tfrecord")


def work(directory: OutputDirectory, shard: int, letter: str = "a") -> Receipt:
    """No two attempts have one name, and what they stage lies under it."""
    return work_as(directory, shard, f"{letter * 11}{shard}")


def finish_all(directory: OutputDirectory) -> None:
    claim = directory.claim(PLAN)
    receipts = {shard: directory.record(Success(work(directory, shard)), []) for shard in range(3)}
    directory.finish(PLAN, receipts, claim.epoch)


def test_parts_are_staged_recorded_and_promoted_and_the_output_holds(out: Output) -> None:
    directory = opened(out)
    claim = directory.claim(PLAN)
    assert directory.mode == "staged"
    assert "tfrecord files carry no commit header" in claim.warning
    receipts = {}
    for shard in range(3):
        receipt = work(directory, shard)
        assert receipt.staged
        assert directory.adopt(shard) is None  # not before it is recorded
        receipts[shard] = directory.record(Success(receipt), [])
    directory.finish(PLAN, receipts, claim.epoch)
    names = directory.store.names("")
    assert names == ["_SUCCESS", "_run/", *(f"part-{i:05d}-of-00003-{PLAN.id[:8]}.tfrecord" for i in range(3))]
    for deep in (False, True):
        found = verify(out, deep=deep)
        assert found.problems == ()
        assert (found.holds, found.rows_found) == (True, 15)
    before = snapshot(directory)
    assert opened(out).claim(PLAN).state == "finished"
    assert snapshot(directory) == before


def test_a_worker_stages_what_the_driver_says(out: Output) -> None:
    opened(out).claim(PLAN)
    assert work(opened(out), 1).staged  # a worker is another process


def test_a_resumed_job_promotes_what_was_recorded_and_recomputes_the_rest(out: Output, monkeypatch: Any) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    directory.record(Success(work(directory, 0)), [])
    second = work(directory, 1)
    promote = directory.store.promote
    monkeypatch.setattr(directory.store, "promote", lambda staged, path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # the driver dies between the receipt and the name
        directory.record(Success(second), [])
    monkeypatch.setattr(directory.store, "promote", promote)
    resumed = opened(out)
    killed(directory)
    claim = resumed.claim(PLAN)
    assert (claim.state, resumed.mode) == ("resumed", "staged")
    done = resumed.done(PLAN)
    assert sorted(done) == [0, 1]
    done[2] = resumed.record(Success(work(resumed, 2, "b")), [])
    resumed.finish(PLAN, done, claim.epoch)
    assert verify(out, deep=True).holds


def test_the_first_receipt_of_a_shard_counts(out: Output) -> None:
    directory = opened(out)
    claim = directory.claim(PLAN)
    first, second = work(directory, 0, "a"), work(directory, 0, "b")
    counts = directory.record(Success(first), [])
    again = directory.record(Success(second), [])
    assert counts.attempt == again.attempt == first.attempt
    adopted = directory.adopt(0)
    assert adopted is not None
    assert (adopted.attempt, adopted.rows_out, adopted.adopted) == (first.attempt, 4, True)
    receipts = {0: again, **{shard: directory.record(Success(work(directory, shard)), []) for shard in (1, 2)}}
    directory.finish(PLAN, receipts, claim.epoch)
    assert verify(out).holds


@pytest.mark.parametrize("content", [b"junk", b""])
def test_a_foreign_object_at_a_final_name_fails_the_job_and_stays(out: Output, place: Any, content: bytes) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    name = directory.part_name(0)
    place.put(f"out/{name}", content)
    with pytest.raises(OutputError, match=name):
        directory.record(Success(work(directory, 0)), [])
    assert directory.store.read(name) == content


def test_a_part_that_was_exchanged_is_found(out: Output, place: Any) -> None:
    directory = opened(out)
    finish_all(directory)
    name = directory.part_name(1)
    place.put(f"out/{name}", directory.store.read(directory.part_name(2)) or b"")
    found = verify(out)
    assert [(problem.kind, problem.name) for problem in found.problems if problem.kind != "missing"] == [
        ("altered", name)
    ]


def test_another_file_with_as_many_rows_is_not_taken_for_a_part(out: Output, place: Any) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    directory.record(Success(work(directory, 1)), [])
    name = directory.part_name(1)
    place.put(f"out/{name}", framed(pa.array([b"a record of another size"] * 5, pa.large_binary())).to_pybytes())
    with pytest.raises(OutputError, match="it is not a part of plan"):
        directory.adopt(1)


def test_overwrite_removes_what_an_earlier_job_wrote_and_nothing_else(out: Output, place: Any) -> None:
    directory = opened(out)
    finish_all(directory)
    killed(directory)
    foreign = f"part-00000-of-00003-{'f' * 8}.tfrecord"
    place.put(f"out/{foreign}", opened(out).store.read(opened(out).part_name(0)) or b"")
    other = plan_of({"model": {"digest": "bb"}})
    with pytest.raises(OutputError):
        opened(out, other).claim(other)
    with pytest.raises(OutputError, match=foreign):  # it carries nothing that says it is ours
        opened(out, other).claim(other, overwrite=True)
    assert foreign in opened(out).store.names("")


def test_an_unfinished_output_is_cleared_by_its_receipts(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    directory.record(Success(work(directory, 0)), [])
    killed(directory)
    other = plan_of({"model": {"digest": "bb"}})
    fresh = OutputDirectory(out, other.id, len(other.shards))
    assert fresh.claim(other, overwrite=True).state == "new"
    assert directory.part_name(0) not in fresh.store.names("")


def test_a_dataset_of_them_says_who_reads_it(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"read it with tf\.data\.TFRecordDataset"):
        open_dataset([str(tmp_path / "part.tfrecord")])


def test_the_receipt_says_what_a_header_would(out: Output) -> None:
    directory = opened(out)
    finish_all(directory)
    receipt = json.loads(directory.store.read(f"_run/{PLAN.id[:8]}/receipts/00001.json") or b"")
    assert (receipt["rows_in"], receipt["rows_out"], len(receipt["sha256"])) == (5, 5, 64)


def test_a_receipt_that_says_of_rows_that_they_were_rejected_is_compared_with_the_records(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    directory.record(Success(work(directory, 0)), [])
    name = f"_run/{PLAN.id[:8]}/receipts/00000.json"
    receipt = json.loads(directory.store.read(name) or b"")
    edited = receipt | {"rows_out": 3, "rows_rejected": 1, "codes": {"ROW_NULL": 1}}
    directory.store.replace(name, json.dumps(edited).encode())
    with pytest.raises(OutputError, match="it is not a part of plan"):
        directory.published(PLAN)


def test_a_driver_that_was_taken_over_gives_no_part_its_name(out: Output) -> None:
    old, rival = opened(out), opened(out)
    old.claim(PLAN)
    staged = work(old, 0)
    claim = rival.claim(PLAN, takeover=True)
    with pytest.raises(SupersededError, match="took over"):
        old.record(Success(staged), [])
    assert [name for name in rival.store.names("") if name.startswith("part-")] == []
    receipts = {shard: rival.record(Success(work(rival, shard, "b")), []) for shard in range(3)}
    rival.finish(PLAN, receipts, claim.epoch)
    before = snapshot(rival)
    old.record(Success(staged), [])  # it is there
    assert snapshot(rival) == before
    assert verify(out).problems == ()


def test_a_staged_part_of_an_earlier_driver_gets_its_name_from_the_driver_of_today_alone(out: Output) -> None:
    first = opened(out)
    first.claim(PLAN)
    first._receipts.commit(Success(work(first, 0)), [])  # killed before it promotes
    old, rival = opened(killed(first).output), opened(out)
    old.claim(PLAN, takeover=True)
    rival.claim(PLAN, takeover=True)
    with pytest.raises(SupersededError):
        old.done(PLAN)
    assert list(rival.done(PLAN)) == [0]
