"""`--repair`: what is missing or damaged of an output is found and goes, all else stays, and a crash harms nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from three_shards import PLAN, attempt_of, killed, opened, plan_of, rows, snapshot

from connectors.output.directory import Losses, OutputDirectory, read_status
from connectors.output.outlook import Terms
from connectors.output.verification import verify
from connectors.store.store import Store
from jobs.attempt import Receipt, Success
from jobs.errors import BusyError, OutputError, SupersededError
from jobs.section.output import Output

SCHEMA = rows(1).schema
REJECTING = 1  # the shard that rejects a row


class Dead(BaseException):
    """The process is gone."""


@pytest.fixture(params=["parquet", "arrow", "tfrecord"])
def out(request: pytest.FixtureRequest, place: Any) -> Output:
    return Output(url=f"{place.url}/out", options=place.options, format=request.param)


def compute(directory: OutputDirectory, shard: int, nonce: str) -> Receipt:
    tried = attempt_of(shard, f"{nonce[1:]}{shard}")
    bad = rows(1) if shard == REJECTING else None
    with directory.open_part(tried, SCHEMA, "digest", "worker-1") as part:
        part.write(rows(tried.rows - (1 if bad is not None else 0)))
        return part.publish(Losses(SCHEMA, [bad], {"ROW_NULL": 1}) if bad is not None else None)


def run(out: Output, nonce: str, **how: bool) -> tuple[str, list[int]]:
    """How the directory was claimed, and which shards were computed."""
    directory = opened(out)
    claim = directory.claim(PLAN, **how)
    if claim.state == "finished":
        directory.finished(PLAN)
        return claim.state, []
    done = directory.done(PLAN)
    left = [shard for shard in range(3) if shard not in done]
    for shard in left:
        done[shard] = directory.record(Success(compute(directory, shard, nonce)), [])
    directory.finish(PLAN, done, claim.epoch)
    directory.end(claim.epoch, "finished")
    return claim.state, left


@pytest.fixture
def finished(out: Output) -> OutputDirectory:
    run(out, "f" * 12)
    return opened(out)


def lose(directory: OutputDirectory, shard: int) -> None:
    directory.store.remove(directory.part_name(shard))


def cut(directory: OutputDirectory, shard: int) -> None:
    name = directory.part_name(shard)
    directory.store.replace(name, (directory.store.read(name) or b"")[:-20])


def flip(directory: OutputDirectory, shard: int) -> None:
    """A bit that only who reads the rows sees; of TFRecord files, whose records are counted by reading, any bit."""
    name = directory.part_name(shard)
    content = directory.store.read(name) or b""
    for at in range(8, 60):
        flipped = bytearray(content)
        flipped[at] ^= 1
        directory.store.replace(name, bytes(flipped))
        if name not in {problem.name for problem in verify(directory.output).problems}:
            return
    assert name.endswith(".tfrecord"), "each bit is seen without reading the rows"


def lose_rejects(directory: OutputDirectory, shard: int) -> None:
    folder = f"_run/{PLAN.id[:8]}/rejects"
    for name in directory.store.names(folder):
        directory.store.remove(f"{folder}/{name}")


DAMAGES = {"lost": lose, "cut": cut, "flipped": flip, "without its reject file": lose_rejects}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_missing_or_damaged_is_computed_again_and_nothing_else(
    out: Output, finished: OutputDirectory, damage: str
) -> None:
    before = {shard: receipt.attempt for shard, receipt in finished.published(PLAN).items()}
    DAMAGES[damage](finished, REJECTING)
    assert not verify(out, deep=True).holds
    told = opened(out).outlook(PLAN, Terms(repair=True))
    assert (told.state, told.shards_done, told.lost) == ("resumed", 2, 1)
    assert run(out, "e" * 12, repair=True) == ("resumed", [REJECTING])
    proof = verify(out, deep=True)
    assert (proof.problems, proof.rows_found, proof.rows_rejected, proof.unchecked) == ((), 14, 1, 0)
    after = {shard: receipt.attempt for shard, receipt in opened(out).published(PLAN).items()}
    assert {shard for shard in after if after[shard] != before[shard]} == {REJECTING}
    success = json.loads(finished.store.read("_SUCCESS") or b"")
    assert (success["epoch"], success["manifest"]) == (2, f"_run/{PLAN.id[:8]}/manifest-000002.json")
    assert (success["rows_out"], success["rows_rejected"]) == (14, 1)
    assert len(finished.store.names(f"_run/{PLAN.id[:8]}/rejects")) == 1
    status = read_status(out)
    assert (status.state, status.rows_rejected, status.codes) == ("finished", 1, {"ROW_NULL": 1})
    assert run(out, "d" * 12, repair=True) == ("finished", [])


def test_what_is_whole_is_not_touched(out: Output, finished: OutputDirectory) -> None:
    before = snapshot(finished)
    assert opened(out).outlook(PLAN, Terms(repair=True)).state == "finished"
    assert run(out, "e" * 12, repair=True) == ("finished", [])
    assert snapshot(finished) == before


def test_a_run_that_finds_another_manifest_names_the_repair(out: Output, finished: OutputDirectory) -> None:
    finished.store.remove(f"_run/{PLAN.id[:8]}/manifest-000001.json")
    with pytest.raises(OutputError, match="is not there; restore it, or write it again with --repair"):
        run(out, "e" * 12)


@pytest.mark.parametrize("document", ["manifest-000001.json", "plan.json"])
@pytest.mark.parametrize("content", [None, b'{"v": 2}'])
def test_documents_that_were_changed_or_lost_are_written_again(
    out: Output, finished: OutputDirectory, document: str, content: bytes | None
) -> None:
    name = f"_run/{PLAN.id[:8]}/{document}"
    if content is None:
        finished.store.remove(name)
    else:
        finished.store.replace(name, content)
    assert run(out, "e" * 12, repair=True)[1] == []
    assert verify(out, deep=True).problems == ()


def test_a_part_that_is_damaged_before_all_is_done_is_computed_again(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    for shard in (0, REJECTING):
        directory.record(Success(compute(directory, shard, "f" * 12)), [])
    killed(directory)
    cut(directory, 0)
    with pytest.raises(OutputError, match="--repair"):
        run(out, "e" * 12)
    killed(directory)
    told = opened(out).outlook(PLAN, Terms(repair=True))
    assert (told.state, told.shards_done, told.lost) == ("resumed", 2, 1), "the run before did the third one"
    assert run(out, "d" * 12, repair=True) == ("resumed", [0])
    assert verify(out, deep=True).problems == ()


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("again", [{}, {"repair": True}], ids=["run", "repair"])
def test_a_crash_at_each_removal_leaves_what_the_next_run_mends_or_refuses(
    out: Output, finished: OutputDirectory, step: int, again: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(finished, 0)
    flip(finished, 2)
    removed: list[str] = []

    def remove(self: Store, path: str) -> None:
        if len(removed) == step:
            raise Dead
        removed.append(path)
        real(self, path)

    real = Store.remove
    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", remove)
        patch.setattr("connectors.output.epoch.Epochs.end", lambda *_: None)  # the dead say nothing
        try:
            opened(out).claim(PLAN, repair=True)
        except Dead:
            assert "_SUCCESS" in finished.store.names("")
    killed(finished)
    if not again and "_SUCCESS" in finished.store.names(""):
        assert read_status(out).state == "incomplete"
        with pytest.raises(OutputError, match="--repair"):
            run(out, "e" * 12)
        again = {"repair": True}
    assert run(out, "d" * 12, **again) == ("resumed", [0, 2])
    assert verify(out, deep=True).problems == ()


def test_a_repair_that_is_superseded_removes_nothing_more(
    out: Output, finished: OutputDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(finished, 0)
    cut(finished, 2)

    def remove(self: Store, path: str) -> None:
        real(self, path)
        monkeypatch.undo()
        assert run(out, "e" * 12, repair=True, takeover=True) == ("resumed", [0, 2])

    real = Store.remove
    monkeypatch.setattr(Store, "remove", remove)
    with pytest.raises(SupersededError):
        opened(out).claim(PLAN, repair=True)
    assert verify(out, deep=True).problems == ()


def test_a_repair_is_refused_where_another_driver_repairs(out: Output, finished: OutputDirectory) -> None:
    lose(finished, 0)
    opened(out).claim(PLAN, repair=True)
    with pytest.raises(BusyError, match="driver 2"):
        opened(out).claim(PLAN, repair=True)


def test_what_is_of_another_plan_cannot_be_repaired(out: Output, finished: OutputDirectory) -> None:
    lose(finished, 0)
    changed = plan_of(size=11)
    before = snapshot(finished)
    with pytest.raises(OutputError, match=r"cannot repair .* is of another plan: input file '/in/a' changed: size 10"):
        opened(out, changed).claim(changed, repair=True)
    assert snapshot(finished) == before


def test_a_file_of_somebody_else_at_the_name_of_a_part_stays(out: Output, place: Any) -> None:
    place.put(f"out/{opened(out).part_name(0)}", b"mine")
    with pytest.raises(OutputError, match="nothing tells that it is of this job, and it stays as it is"):
        opened(out).claim(PLAN, repair=True)
    assert opened(out).store.read(opened(out).part_name(0)) == b"mine"


def test_status_says_what_is_missing_and_not_that_all_is_finished(out: Output, finished: OutputDirectory) -> None:
    cut(finished, 2)
    status = read_status(out)
    assert status.state == "incomplete"
    assert "were written" in status.damage
    lose(finished, 0)
    status = read_status(out)
    assert (status.state, status.damage) == ("incomplete", "1 of 3 parts are missing (of shards 0)")
    assert status.share < 1
