"""The output directory: every promise that readers and later drivers rely on, on each kind of store."""

from __future__ import annotations

import dataclasses
import json
import pickle
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from three_shards import (
    IDENTITY,
    PLAN,
    SCHEMA,
    attempt_of,
    finish_all,
    killed,
    opened,
    plan_of,
    rows,
    snapshot,
    work,
)

from connectors.formats.registry import SOURCES, make_source
from connectors.output.directory import Claim, Losses, OutputDirectory, open_dataset, read_status
from connectors.output.verification import verify
from connectors.store.probe import Mode
from connectors.store.store import Store
from jobs.attempt import Advice, Failure, Measured, Receipt, Success
from jobs.errors import BusyError, InternalError, OutputError, StorageError, SupersededError
from jobs.numerics import Numerics
from jobs.plan import Plan
from jobs.section.output import Output
from jobs.versions import installed


@pytest.fixture(params=["parquet", "arrow"])
def out(request: pytest.FixtureRequest, place: Any) -> Output:
    return Output(url=f"{place.url}/out", options=place.options, format=request.param)


# the whole way


def test_a_job_from_its_claim_to_its_success(out: Output) -> None:
    directory = opened(out)
    assert directory.claim(PLAN) == Claim("new", 1)
    assert directory.published(PLAN) == {}
    receipts = [work(directory, shard) for shard in (2, 0, 1)]
    for receipt in receipts:
        directory.record(Success(receipt), [])
    directory.finish(PLAN, receipts, 1)
    names = directory.store.names("")
    suffix = directory.part_name(0).rpartition(".")[2]
    assert names == ["_SUCCESS", "_run/", *[f"part-{i:05d}-of-00003-{PLAN.id[:8]}.{suffix}" for i in range(3)]]
    success = json.loads(directory.store.read("_SUCCESS") or b"")
    manifest = json.loads(directory.store.read(success["manifest"]) or b"")
    assert (success["plan_id"], success["epoch"], success["rows_out"], success["parts"]) == (PLAN.id, 1, 15, 3)
    assert [(part["name"], part["rows_out"]) for part in manifest["parts"]] == list(
        zip(names[2:], (4, 5, 6), strict=True)
    )
    assert directory.store.sizes("")[names[2]] == manifest["parts"][0]["size"]


def test_each_run_leaves_its_report_for_good_and_the_latest_one_has_a_name_of_its_own(out: Output) -> None:
    for epoch in (1, 2):
        directory = opened(out)
        assert directory.claim(PLAN).epoch == epoch
        directory.reports.leave(epoch, {"epoch": epoch}, f"<p>own {epoch}</p>", f"<p>latest {epoch}</p>")
        directory.end(epoch, "interrupted")
    folder, read = f"_run/{PLAN.id[:8]}", directory.store.read
    assert json.loads(read(f"{folder}/report.json") or b"") == {"epoch": 2}
    assert read(f"{folder}/report.html") == b"<p>latest 2</p>"
    assert directory.store.names(f"{folder}/reports") == [
        f"{epoch:06d}.{suffix}" for epoch in (1, 2) for suffix in ("html", "json")
    ]
    assert (json.loads(read(f"{folder}/reports/000001.json") or b""), read(f"{folder}/reports/000001.html")) == (
        {"epoch": 1},
        b"<p>own 1</p>",
    )
    assert directory.reports.url == directory.store.child(f"{folder}/report.html")
    assert directory.reports.page(1) == directory.store.child(f"{folder}/reports/000001.html")
    assert [name for name in directory.store.names(folder) if name.startswith(".")] == []
    assert directory.store.names(f"{folder}/staging") == []


def test_the_runs_before_one_are_told_also_one_that_was_killed_before_it_left_a_report(out: Output) -> None:
    for _ in range(2):
        directory = opened(out)
        directory.claim(PLAN, takeover=True)
    directory.reports.leave(2, {"epoch": 2}, "own", "latest")
    told = directory.reports.before(3)
    assert [(one.epoch, one.page) for one in told] == [(2, "000002.html"), (1, "")]
    assert told[1].document["started"]
    assert (directory.reports.before(1), directory.reports.page(1)) == ([], "")


def test_the_one_report_that_an_older_version_kept_gets_a_name_before_another_takes_its_place(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    folder = f"_run/{PLAN.id[:8]}"
    directory.store.create(f"{folder}/report.json", b'{"epoch": 1}')
    directory.store.create(f"{folder}/report.html", b"<p>old</p>")
    assert directory.reports.page(1) == directory.reports.url
    directory.end(1, "interrupted")
    later = opened(out)
    later.claim(PLAN)
    assert [one.page for one in later.reports.before(2)] == ["000001.html"]
    later.reports.leave(2, {"epoch": 2}, "own", "latest")
    assert later.store.read(f"{folder}/reports/000001.html") == b"<p>old</p>"
    assert later.reports.page(1) == later.store.child(f"{folder}/reports/000001.html")


def test_a_receipt_says_what_was_written(out: Output) -> None:
    directory = opened(out)
    receipt = work(directory, 1)
    assert dataclasses.replace(receipt, size=0, sha256="") == Receipt(
        *(1, "e1-a1-000000000000", 1, 1, directory.part_name(1), 0, "", 5, 5, 0, "worker-1"), versions=installed()
    )
    assert receipt.size == directory.store.sizes("")[receipt.part]
    assert len(receipt.sha256) == 64


def test_a_part_says_what_changed_its_numbers_and_its_receipt_is_rebuilt_with_it(out: Output) -> None:
    directory = opened(out)
    numerics = Numerics("2.21.0", True, threads=2, environment=(("XLA_FLAGS", "--a"),))
    with directory.open_part(attempt_of(1), SCHEMA, "digest", "w") as part:
        part.write(rows(5))
        receipt = part.publish(numerics=numerics)
    assert receipt.numerics == numerics
    rebuilt = directory.adopt(1)
    assert rebuilt is not None
    assert rebuilt.numerics == numerics


def test_versions_stand_in_the_epoch_each_part_and_the_manifest_and_not_in_the_plan(out: Output) -> None:
    directory, ours = opened(out), installed().document()
    finish_all(directory)
    documents = {name: content or b"" for name, content in snapshot(directory).items() if name.endswith(".json")}
    (epoch,) = [json.loads(content) for name, content in documents.items() if "/epochs/" in name]
    (listed,) = [json.loads(content) for name, content in documents.items() if "/manifest-" in name]
    (planned,) = [content for name, content in documents.items() if name.endswith("/plan.json")]
    assert (epoch["versions"], listed["versions"]) == (ours, [ours])
    assert b"versions" not in planned
    rebuilt = directory.adopt(1)
    assert rebuilt is not None
    assert rebuilt.versions == installed()


def test_the_numerics_of_the_first_worker_are_those_of_the_plan(out: Output) -> None:
    first, second = Numerics("2.21.0", threads=1), Numerics("2.21.0", threads=2)
    assert opened(out).first_numerics(first) == first
    assert opened(out).first_numerics(second) == first


def test_what_is_published_is_a_table_while_the_job_runs(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    parts = [directory.url(work(directory, shard).part) for shard in (0, 2)]
    with directory.open_part(attempt_of(1), SCHEMA, "digest", "w") as part:
        part.write(rows(3))
        found = open_dataset(parts, out.options).to_table()["id"].to_pylist()
    assert found == [0, 1, 0, 1, 0, 1, 0, 1, 2, 3]


def test_a_directory_travels_to_its_workers(out: Output) -> None:
    directory = opened(out)
    sent = pickle.loads(pickle.dumps(directory))  # noqa: S301 (our own bytes)
    work(sent, 0)
    assert directory.adopt(0) is not None


def test_a_relative_output_means_the_same_place_on_every_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = opened(Output(url="out"))
    (tmp_path / "elsewhere").mkdir()
    sent = pickle.dumps(directory)
    monkeypatch.chdir(tmp_path / "elsewhere")
    work(pickle.loads(sent), 0)  # noqa: S301 (our own bytes)
    assert (tmp_path / "out" / directory.part_name(0)).is_file()


# nothing is ever half there


def test_an_exception_while_writing_leaves_nothing(out: Output) -> None:
    directory = opened(out)
    with (  # noqa: PT012 (the part is written inside)
        pytest.raises(ZeroDivisionError),
        directory.open_part(attempt_of(0), SCHEMA, "digest", "w") as part,
    ):
        part.write(rows(4))
        raise ZeroDivisionError
    assert snapshot(directory) == {}


def test_a_part_that_is_never_published_leaves_nothing(out: Output) -> None:
    directory = opened(out)
    with directory.open_part(attempt_of(0), SCHEMA, "digest", "w") as part:
        part.write(rows(4))
    assert snapshot(directory) == {}


@pytest.mark.parametrize("count", [3, 5])
def test_a_part_with_other_rows_than_planned_is_not_published(out: Output, count: int) -> None:
    directory = opened(out)
    with (  # noqa: PT012 (the part is written inside)
        pytest.raises(InternalError, match=f"shard 0: {count} rows written, 4 planned"),
        directory.open_part(attempt_of(0), SCHEMA, "digest", "w") as part,
    ):
        part.write(rows(count))
        part.publish()
    assert snapshot(directory) == {}


@pytest.mark.parametrize(
    "harm", [lambda spool: spool.write_bytes(b"junk"), lambda spool: spool.write_bytes(spool.read_bytes()[:-9])]
)
def test_a_spool_that_does_not_read_back_is_not_published(out: Output, harm: Callable[[Path], None]) -> None:
    directory = opened(out)
    with (  # noqa: PT012 (the part is written inside)
        pytest.raises(StorageError, match="does not read back"),
        directory.open_part(attempt_of(0), SCHEMA, "digest", "w") as part,
    ):
        part.write(rows(4))
        closed = part._writer.close

        def close_and_harm(header: dict[str, object]) -> int:
            count = closed(header)
            harm(part._spool)
            return count

        part._writer.close = close_and_harm  # type: ignore[method-assign]
        part.publish()
    assert snapshot(directory) == {}


@pytest.mark.parametrize("mode", ["direct", "staged"])
def test_what_an_attempt_writes_has_the_suffix_of_no_format_until_it_is_a_part(out: Output, mode: Mode) -> None:
    """Readers that look into all folders would count its rows, while it is written and after it was killed."""
    directory = OutputDirectory(out, PLAN.id, len(PLAN.shards), mode)
    rejected = Losses(pa.schema([("row", pa.int64())]), [pa.record_batch({"row": [3]})], {"ROW_NULL": 1})
    with directory.open_part(attempt_of(0), SCHEMA, "digest", "w") as part:
        part.write(rows(3))
        written = set(snapshot(directory, "_run"))
        part.publish(rejected)
    written |= set(snapshot(directory, "_run"))
    suffixes = tuple(suffix for name in SOURCES for suffix in make_source(name).suffixes)
    assert any("/rejects/" in name for name in written)
    assert any("/staging/" in name for name in written) == (mode == "staged" or directory.store.scheme == "file")
    assert not [name for name in written if name.endswith(suffixes)]


# first wins, everyone else adopts


def test_a_second_attempt_adopts_the_part_of_the_first(out: Output) -> None:
    directory = opened(out)
    first = work(directory, 0, "a" * 12)
    before = snapshot(directory)
    second = work(directory, 0, "b" * 12, number=2)
    assert second == dataclasses.replace(first, sha256="", adopted=True)
    assert snapshot(directory) == before


def test_attempts_that_publish_in_the_same_instant_agree_on_one_part(out: Output) -> None:
    barrier = threading.Barrier(8)

    def race(number: int) -> Receipt:
        directory, tried = opened(out), attempt_of(0, f"{number:012x}", number)
        with directory.open_part(tried, SCHEMA, "digest", f"worker-{number}") as part:
            part.write(rows(4))
            barrier.wait(30)
            return part.publish()

    with ThreadPoolExecutor(8) as threads:
        receipts = list(threads.map(race, range(8)))
    assert sum(not receipt.adopted for receipt in receipts) == 1
    assert len({receipt.attempt for receipt in receipts}) == 1


def test_a_part_whose_report_was_lost_is_adopted(out: Output) -> None:
    directory = opened(out)
    assert directory.adopt(0) is None
    lost = work(directory, 0)
    assert directory.adopt(0) == dataclasses.replace(lost, sha256="", adopted=True)


def test_an_own_part_whose_answer_was_lost_is_own(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = opened(out)
    publish = directory.store.publish

    def lost(spool: Path, path: str, staging: str) -> bool:
        assert publish(spool, path, staging) is True
        return False  # the client tried again by itself, and met its own object

    monkeypatch.setattr(directory.store, "publish", lost)
    receipt = work(directory, 0)
    assert (receipt.adopted, len(receipt.sha256)) == (False, 64)


@pytest.mark.parametrize("content", [b"junk", b""])
def test_a_foreign_object_at_a_final_name_fails_the_job_and_stays(out: Output, place: Any, content: bytes) -> None:
    directory = opened(out)
    name = directory.part_name(0)
    place.put(f"out/{name}", content)
    with pytest.raises(OutputError, match=name):
        work(directory, 0)
    with pytest.raises(OutputError, match=name):
        directory.adopt(0)
    assert snapshot(directory) == {name: content}


def test_a_part_of_another_plan_at_a_final_name_is_not_adopted(out: Output, place: Any) -> None:
    other = opened(out, plan_of({"model": {"digest": "bb"}}))
    work(other, 0)
    directory = opened(out)
    place.put(f"out/{directory.part_name(0)}", other.store.read(other.part_name(0)) or b"")
    with pytest.raises(OutputError, match="it is not a part of plan"):
        directory.adopt(0)


# claim and resume


def test_a_resumed_job_knows_what_is_done(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipt = work(directory, 1)
    directory.record(Success(receipt), [])
    killed(directory)
    again = opened(out)
    assert again.claim(PLAN) == Claim("resumed", 2)
    assert again.published(PLAN) == {1: receipt}


def test_a_receipt_is_stored_with_what_its_worker_measured_and_advised_and_read_without(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipt = work(directory, 1)
    directory.record(Success(receipt, Measured({"run": 0.5}, {"cpus": 2}), Advice({"x[]": 50}, "tired")), [])
    stored = json.loads(directory.store.read(f"_run/{PLAN.id[:8]}/receipts/00001.json") or b"")
    assert (stored["seconds"], stored["figures"]) == ({"run": 0.5}, {"cpus": 2})
    assert (stored["safe_rows"], stored["recycle"], stored["failures"]) == ({"x[]": 50}, "tired", [])
    assert directory.published(PLAN) == {1: receipt}


def test_receipts_that_are_lost_or_torn_are_rebuilt_from_the_parts(out: Output, place: Any) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipts = {shard: work(directory, shard) for shard in range(3)}
    directory.record(Success(receipts[1]), [])
    directory.record(Success(receipts[2]), [])
    folder = f"out/_run/{PLAN.id[:8]}/receipts"
    place.put(f"{folder}/00001.json", b'{"shard": 1, "atte')
    edited = Success(receipts[2]).document() | {"rows_in": 7, "rows_out": 7}
    place.put(f"{folder}/00002.json", json.dumps(edited).encode())
    rebuilt = {s: dataclasses.replace(r, sha256="", adopted=True) for s, r in receipts.items()}
    assert directory.published(PLAN) == rebuilt
    directory.finish(PLAN, directory.published(PLAN), 1)


@pytest.mark.parametrize(
    "change",
    [
        {"shard": 2},
        {"part": "part-x"},
        {"size": 1},
        {"unknown": 1},
        {"attempt": "e1-a1-ffffffffffff"},
        {"rows_out": 3, "rows_rejected": 1, "codes": {"ROW_NULL": 1}, "reject_file": "_run/x"},
        {"codes": {"ROW_NULL": 1}},
        {"bad_files": {"/in/a": 2}},
        {"nan_rows": 1},
        {"nonfinite_rows": 1},
        {"unseen_rows": 1},
        {"changed_rows": 1},
        {"worker": "another"},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_receipt_that_contradicts_its_part_is_rebuilt(out: Output, place: Any, change: dict[str, Any]) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipt = work(directory, 0)
    path = f"out/_run/{PLAN.id[:8]}/receipts/00000.json"
    place.put(path, json.dumps(Success(receipt).document() | change).encode())
    assert directory.published(PLAN) == {0: dataclasses.replace(receipt, sha256="", adopted=True)}


def test_a_part_whose_header_does_not_fit_its_rows_is_not_adopted(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = opened(out)
    work(directory, 0)
    read = directory._parts.encoder.read_header
    monkeypatch.setattr(directory._parts.encoder, "read_header", lambda store, path: (read(store, path)[0], 3))
    with pytest.raises(OutputError, match="it is not a part of plan"):
        directory.adopt(0)


def test_what_killed_attempts_left_is_cleared_when_the_job_is_finished(out: Output, place: Any) -> None:
    if place.kind == "s3":
        pytest.skip("nothing is staged on an object store, and nothing is deleted there")
    staged = f"_run/{PLAN.id[:8]}/staging/e1-a1-{'d' * 12}/part"
    place.put(f"out/{staged}", b"half")
    place.put("out/_run/00000000/staging/a1/part", b"of another plan")
    directory = opened(out)
    finish_all(directory)
    assert [name for name in snapshot(directory) if "staging" in name] == ["_run/00000000/staging/a1/part"]


def test_what_a_driver_left_that_was_killed_as_it_wrote_its_report_is_cleared_by_the_next_look_at_the_finished_job(
    out: Output, place: Any
) -> None:
    if place.kind == "s3":
        pytest.skip("nothing is staged on an object store, and nothing is deleted there")
    directory, folder = opened(out), f"_run/{PLAN.id[:8]}/staging/report"
    finish_all(directory)
    place.put(f"out/{folder}/000001.html", b"half")
    assert opened(out).claim(PLAN).state == "finished"
    assert directory.store.names(folder) == ["000001.html"], "its driver lives and may yet need it"
    assert opened(killed(directory).output).claim(PLAN).state == "finished"
    assert directory.store.names(folder.rpartition("/")[0]) == []


@pytest.mark.parametrize("folder", ["", "epochs/", "receipts/", "reports/"])
@pytest.mark.parametrize("done", [False, True], ids=["in-the-middle", "finished"])
def test_a_document_that_a_killed_driver_was_writing_is_removed_by_the_next_one(
    out: Output, place: Any, folder: str, done: bool
) -> None:
    if place.kind == "s3":
        pytest.skip("an object is there whole or not at all")
    directory, name = opened(out), f"_run/{PLAN.id[:8]}/{folder}.000001.json.{'a' * 12}"
    finish_all(directory) if done else directory.claim(PLAN)
    place.put(f"out/{name}", b"{")
    if done:
        assert opened(out).claim(PLAN).state == "finished"
    else:
        with pytest.raises(BusyError):
            opened(out).claim(PLAN)
    assert name in snapshot(directory), "its driver lives, and may be writing it"
    opened(killed(directory).output).claim(PLAN)
    assert name not in snapshot(directory)


def test_a_receipt_without_its_part_does_not_count(out: Output, place: Any) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipt = work(directory, 0)
    directory.record(Success(receipt), [])
    directory.record(Success(dataclasses.replace(receipt, shard=1, part=directory.part_name(1))), [])
    assert list(directory.published(PLAN)) == [0]


def test_a_finished_job_is_finished_and_nothing_changes(out: Output) -> None:
    directory = opened(out)
    finish_all(directory)
    before = snapshot(directory)
    again = opened(out)
    assert again.claim(PLAN) == Claim("finished", 1)
    assert list(again.published(PLAN)) == [0, 1, 2]
    assert work(again, 0, "f" * 12, number=2).adopted, "an attempt thought dead wakes up"
    assert snapshot(directory) == before


@pytest.mark.parametrize("when", ["before it is finished", "afterwards"])
def test_a_plan_that_somebody_deleted_is_there_again_before_the_job_is_called_finished(out: Output, when: str) -> None:
    directory = opened(out)
    if when == "afterwards":
        finish_all(directory)
        directory.store.remove(f"_run/{PLAN.id[:8]}/plan.json")
        assert opened(out).claim(PLAN).state == "finished"
    else:
        directory.claim(PLAN)
        receipts = [work(directory, shard) for shard in range(3)]
        directory.store.remove_folder("_run")
        directory.finish(PLAN, receipts, 1)
    assert verify(out).problems == ()
    assert read_status(out).state == "finished"


def test_a_plan_that_is_deleted_between_two_looks_is_written_again(
    out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipts = [work(directory, shard) for shard in range(3)]
    name, create, tries = f"_run/{PLAN.id[:8]}/plan.json", directory.store.create, []

    def refused_and_deleted(path: str, content: bytes) -> bool:
        made = create(path, content)
        if path == name and not tries:
            directory.store.remove(name)
        tries.extend([path] * (path == name))
        return made

    monkeypatch.setattr(directory.store, "create", refused_and_deleted)
    directory.finish(PLAN, receipts, 1)
    assert len(tries) == 2
    assert verify(out).problems == ()


def test_a_plan_that_somebody_changed_while_the_job_ran_ends_it(out: Output, place: Any) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipts = [work(directory, shard) for shard in range(3)]
    place.put(f"out/_run/{PLAN.id[:8]}/plan.json", b"{}")
    with pytest.raises(OutputError, match=r"plan\.json' was changed after it was written"):
        directory.finish(PLAN, receipts, 1)
    assert "_SUCCESS" not in directory.store.names("")


def test_a_reject_file_that_is_gone_ends_the_job(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipts = [work(directory, shard) for shard in (1, 2)]
    with directory.open_part(attempt_of(0), SCHEMA, "digest", "w") as part:
        part.write(rows(3))
        receipts.append(part.publish(Losses(SCHEMA, [rows(1)], {"ROW_NULL": 1})))
    rejects = directory.store.read(receipts[-1].reject_file) or b""
    directory.store.remove(receipts[-1].reject_file)
    with pytest.raises(OutputError, match=f"{receipts[-1].reject_file}' is gone, which held 1 row; restore it"):
        directory.finish(PLAN, receipts, 1)
    assert "_SUCCESS" not in directory.store.names("")
    directory.store.create(receipts[-1].reject_file, rejects)
    directory.finish(PLAN, receipts, 1)
    assert verify(out).problems == ()


@pytest.mark.parametrize("name", ["data.parquet", "X.PQ", "part-foreign.csv"])
def test_a_table_of_somebody_else_is_refused_before_and_after_as_verify_does(
    out: Output, place: Any, name: str
) -> None:
    place.put(f"out/{name}", b"a table")
    with pytest.raises(OutputError, match=f"holds '{name}', which is not of this job .* or move that file away"):
        opened(out).claim(PLAN)
    directory = opened(out)
    assert snapshot(directory) == {name: b"a table"}
    directory.store.remove(name)
    directory.claim(PLAN)
    receipts = [work(directory, shard) for shard in range(3)]
    place.put(f"out/{name}", b"a table")
    with pytest.raises(OutputError, match=f"'{name}' was not written by this job; move away what"):
        directory.finish(PLAN, receipts, 1)
    assert [(one.kind, one.name) for one in verify(out).problems if one.kind != "unfinished"] == [("foreign", name)]
    directory.store.remove(name)
    directory.finish(PLAN, receipts, 1)
    assert verify(out).problems == ()


@pytest.mark.parametrize("name", ["_data.parquet", "README.md", "folder/data.parquet"])
def test_files_that_nobody_takes_for_a_part_may_lie_beside_the_parts(out: Output, place: Any, name: str) -> None:
    place.put(f"out/{name}", b"1")
    finish_all(opened(out))
    assert verify(out).problems == ()


def test_what_is_refused_after_an_overwrite_is_refused_before_anything_is_removed(out: Output, place: Any) -> None:
    directory = opened(out)
    finish_all(directory)
    place.put("out/data.parquet", b"a table")
    before = snapshot(directory)
    with pytest.raises(OutputError, match=r"holds 'data\.parquet'"):
        opened(out).claim(PLAN, overwrite=True)
    assert snapshot(directory) == before


def test_a_driver_that_another_one_keeps_out_leaves_nothing_in_its_own_way(out: Output) -> None:
    """`--overwrite` takes an epoch of every plan that is here, one after the other."""
    first, second = opened(out), opened(out, plan_of(size=11))
    plans = sorted([(PLAN, first), (plan_of(size=11), second)], key=lambda pair: pair[0].id)
    (free, earlier), (busy, later) = plans
    earlier.epochs.end(earlier.claim(free).epoch, "failed")
    epoch = later.claim(busy).epoch
    for _ in range(2):
        with pytest.raises(BusyError, match=f"driver {epoch} on host") as refused:
            opened(out, free).claim(free, overwrite=True)
    assert refused.value.exit_code == 75
    assert {"epoch": epoch, "plan_id": busy.id[:8]}.items() <= refused.value.facts.items()
    later.epochs.end(epoch, "interrupted")
    assert opened(out, free).claim(free, overwrite=True).state == "new"


def test_an_output_on_a_store_that_refuses_only_single_requests_is_direct(
    s3_options: Any, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Output(url=f"s3://b-{uuid.uuid4().hex}/out", options=s3_options)
    monkeypatch.setattr(s3_server, "completion", 200)
    directory = opened(out)
    claim = directory.claim(PLAN)
    assert (claim.mode, claim.warning) == ("whole", "")
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_, **__: 1)  # what the client would send in parts
    s3_server.asked.clear()
    worker = opened(out)  # it learns from the driver's document how parts go up
    receipts = [work(worker, shard) for shard in range(3)]
    assert worker.mode == "whole"
    assert not [asked for asked in s3_server.asked if asked.startswith("POST") and "/part-" in asked]
    assert not any(receipt.staged for receipt in receipts)
    directory.finish(PLAN, receipts, 1)
    assert opened(killed(directory).output).claim(PLAN).state == "finished"
    assert verify(out).problems == ()


OTHERS = [
    (plan_of({**IDENTITY, "model": {"digest": "bb"}}), "model.digest: 'aa' then, 'bb' now"),
    (plan_of({**IDENTITY, "columns": {"keep": []}}), r"columns.keep: \['id'\] then, \[\] now"),
    (plan_of(size=12), "input file '/in/a' changed: size 10 then, 12 now"),
]


@pytest.mark.parametrize(("other", "said"), OTHERS)
def test_another_job_is_refused_naming_what_differs(out: Output, other: Plan, said: str) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    work(directory, 0)
    before = snapshot(directory)
    with pytest.raises(OutputError, match=f"of another job: {said}; choose another output url"):
        opened(out, other).claim(other)
    assert snapshot(directory) == before


def test_another_job_is_refused_by_what_finished_here(out: Output) -> None:
    other, said = OTHERS[0]
    directory = opened(out)
    finish_all(directory)
    with pytest.raises(OutputError, match=said):
        opened(out, other).claim(other)


def test_a_plan_that_wrote_no_part_is_not_in_the_way(out: Output) -> None:
    other = OTHERS[0][0]
    opened(out).claim(PLAN)
    assert opened(out, other).claim(other) == Claim("new", 1)


@pytest.mark.parametrize("name", ["part-0.parquet", "part-00000-of-00003-deadbeef.parquet", "part-r-1/x.parquet"])
def test_parts_of_unknown_origin_are_refused(out: Output, place: Any, name: str) -> None:
    place.put(f"out/{name}", b"1")
    with pytest.raises(OutputError, match=name.split("/")[0]):
        opened(out).claim(PLAN)


def test_other_files_are_left_alone(out: Output, place: Any) -> None:
    place.put("out/README.txt", b"mine")
    directory = opened(out)
    finish_all(directory)
    assert directory.store.read("README.txt") == b"mine"


def test_a_success_marker_of_another_program_is_refused(out: Output, place: Any) -> None:
    place.put("out/_SUCCESS", b"")
    with pytest.raises(OutputError, match="'_SUCCESS' was not written by this runner"):
        opened(out).claim(PLAN)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda text: text[:-20], "it is torn or empty"),
        (lambda text: b"", "it is torn or empty"),
        (lambda text: b"[" * 5000 + b"]" * 5000, "it is torn or empty"),
        (lambda text: text.replace(b'"aa"', b'"bb"'), "model.digest: 'bb' then, 'aa' now"),
    ],
)
def test_an_edited_or_torn_plan_is_refused(out: Output, place: Any, edit: Callable[[bytes], bytes], said: str) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    path = f"_run/{PLAN.id[:8]}/plan.json"
    place.put(f"out/{path}", edit(directory.store.read(path) or b""))
    with pytest.raises(OutputError, match=f"plan.json' was changed after it was written: {said}"):
        directory.claim(PLAN)


def test_two_drivers_never_share_an_epoch(out: Output) -> None:
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda _: opened(out).claim(PLAN, takeover=True), range(8)))
    assert sorted(claim.epoch for claim in claims) == list(range(1, 9))
    assert [claim.state for claim in claims].count("new") == 1


def test_an_output_that_cannot_be_written_is_refused_when_it_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(OutputError, match="file/out"):
        opened(Output(url=str(tmp_path / "file" / "out"))).claim(PLAN)


def test_an_output_over_http_is_refused() -> None:
    with pytest.raises(OutputError, match="no writing over https"):
        opened(Output(url="https://host/out"))


# finish


def test_an_output_with_a_missing_part_is_not_finished(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipts = [work(directory, shard) for shard in range(2)]
    with pytest.raises(InternalError, match="shard 2 has 0 receipts"):
        directory.finish(PLAN, receipts, 1)
    claimed = dataclasses.replace(receipts[0], shard=2, part=directory.part_name(2), rows_in=6, rows_out=6)
    with pytest.raises(OutputError, match=f"{directory.part_name(2)}' is missing"):
        directory.finish(PLAN, [*receipts, claimed], 1)
    assert "_SUCCESS" not in directory.store.names("")


def test_an_output_with_a_foreign_part_is_not_finished(out: Output, place: Any) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipts = [work(directory, shard) for shard in range(3)]
    place.put("out/part-extra.parquet", b"1")
    with pytest.raises(OutputError, match=r"'part-extra\.parquet' was not written by this job"):
        directory.finish(PLAN, receipts, 1)
    assert "_SUCCESS" not in directory.store.names("")


def test_a_part_that_changed_its_size_is_not_finished(out: Output, place: Any) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    receipts = [work(directory, shard) for shard in range(3)]
    place.put(f"out/{directory.part_name(1)}", b"1")
    with pytest.raises(OutputError, match="has another size than its receipt says"):
        directory.finish(PLAN, receipts, 1)


def test_a_driver_that_died_before_success_is_finished_by_the_next(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    for shard in range(3):
        directory.record(Success(work(directory, shard)), [])
    again = killed(directory) and opened(out)
    claim = again.claim(PLAN)
    again.finish(PLAN, again.done(PLAN), claim.epoch)
    before = snapshot(directory)
    with pytest.raises(SupersededError):  # the old one wakes up
        directory.finish(PLAN, directory.published(PLAN), 1)
    assert snapshot(directory) == before
    assert opened(out).claim(PLAN) == Claim("finished", 2)


# status


def test_the_status_of_a_job_from_nothing_to_finished(out: Output) -> None:
    assert read_status(out).state == "absent"
    directory = opened(out)
    claim = directory.claim(PLAN)
    failure = Failure(0, "e1-a1-x", 1, "worker-2", StorageError("timed out"))
    running = Failure(1, "e1-a1-y", 1, "worker-1", StorageError("reset"))
    receipt = work(directory, 0)
    directory.record(Success(receipt), [failure])
    directory.renew(claim.epoch, {"heartbeat": "2026-01-01", "failures": [failure.document(), running.document()]})
    status = read_status(out)
    assert (status.state, status.plan_id, status.epoch, status.heartbeat) == ("running", PLAN.id, 1, "2026-01-01")
    assert (status.shards_done, status.shards, status.rows_done, status.rows) == (1, 3, 4, 15)
    assert (status.bytes, status.retries) == (receipt.size, 2)
    assert [one["message"] for one in status.failures] == ["timed out", "reset"]
    assert status.pid > 0
    json.dumps(status.document())
    directory.finish(PLAN, [receipt, work(directory, 1), work(directory, 2)], 1)
    assert read_status(out).state == "finished"
    assert read_status(out).rows_done == 15


def test_a_glance_at_a_finished_job_reads_no_receipt_and_no_manifest(
    out: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_all(opened(out))
    read, seen = Store.read, list[str]()
    monkeypatch.setattr(Store, "read", lambda store, name: (seen.append(name), read(store, name))[1])
    assert read_status(out, causes=False).rows_done == 15
    assert not [name for name in seen if "manifest" in name or "receipts" in name], seen
    read_status(out)
    assert any("receipts" in name for name in seen)


def test_the_status_of_a_job_without_its_plan_says_so(out: Output, place: Any) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    place.put(f"out/_run/{PLAN.id[:8]}/plan.json", b"{")
    with pytest.raises(OutputError, match=r"plan\.json' is missing or not whole"):
        read_status(out)


def test_a_receipt_that_cannot_be_noted_fails_nothing(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = opened(out)
    receipt = work(directory, 0)

    def down(path: str, content: bytes) -> None:
        raise StorageError("503")

    monkeypatch.setattr(directory.store, "replace", down)
    directory.record(Success(receipt), [])
    directory.renew(1, {})
    assert list(directory.published(PLAN)) == [0]
