"""A worker meets bad rows with real models: what is set aside, what is written, and what its part says of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.output.directory import OutputDirectory
from connectors.output.reject import read_rejected
from connectors.output.status import read_status
from connectors.output.verification import verify
from jobs.attempt import Attempt, Failure, Success, attempt
from jobs.errors import DataError, InputError
from jobs.job import Job
from jobs.section.output import Output
from runner.driver.launch import RunOptions, launch
from runner.engine import EngineOptions
from runner.preflight.preflight import Preflight, preflight
from runner.worker.worker import Worker

IN_PROCESS = RunOptions(in_process=True)
REJECT = {"on_bad_row": "reject", "max_rejected_rows": "50%", "shard_rows": 100, "batch_rows": 32}


@pytest.fixture
def job(tmp_path: Path, half_plus_two: Path) -> Callable[..., Job]:
    """job(x, limits=..., signature=...): one file of x in row groups of 50, ids from 0, and text to keep."""

    def make(x: Any, limits: Any = REJECT, signature: str = "serving_default", **sections: Any) -> Job:
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        values = pa.array(x) if isinstance(x, list) else x
        ids = pa.array(range(len(values)), pa.int64())
        table = pa.table({"id": ids, "text": ids.cast(pa.string()), "x": values})
        path = folder / "numbers.parquet"
        if not path.exists() or not pq.read_table(path).equals(table):  # a file that is written again has changed
            pq.write_table(table, path, row_group_size=50)
        document: dict[str, Any] = {
            "model": {"url": str(half_plus_two), "signature": signature},
            "input": {"url": str(folder)},
            "columns": {"keep": ["id", "text"]},
            "output": {"url": str(tmp_path / "out")},
            "limits": limits,
        }
        return Job.model_validate(document | sections)

    return make


def numbers(rows: int = 200) -> list[float | None]:
    return [float(row) for row in range(rows)]


def scored(folder: Path) -> dict[int, float]:
    table = pa.concat_tables(pq.read_table(part) for part in sorted(folder.glob("part-*")))
    ids = table["id"].to_pylist()
    assert ids == sorted(ids), "rows keep the order of the input"
    return dict(zip(ids, table["y"].to_pylist(), strict=True))


def test_rejected_rows_are_in_the_reject_file_and_all_others_in_the_part(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    x = numbers()
    x[3] = x[77] = None
    x[120], x[121] = -1.0, -2.0
    result = launch(job(x, signature="picky"), IN_PROCESS)
    assert (result.rows, result.rows_rejected) == (196, 4)
    assert result.codes == {"ROW_NULL": 2, "MODEL_ROW": 2}
    assert "rejected: 4 rows (2 ROW_NULL, 2 MODEL_ROW); see: runner rejects" in result.summary()
    assert scored(tmp_path / "out") == {row: row / 2 + 2 for row in range(200) if row not in (3, 77, 120, 121)}
    rows = result.rejects().to_pylist()
    assert [(row["row_group"], row["row"], row["code"], row["column"]) for row in rows] == [
        (0, 3, "ROW_NULL", "x"),
        (1, 27, "ROW_NULL", "x"),
        (2, 20, "MODEL_ROW", None),
        (2, 21, "MODEL_ROW", None),
    ]
    assert [row["kept"] for row in rows][1:3] == [{"id": 77, "text": "77"}, {"id": 120, "text": "120"}]
    assert all(row["file"].endswith("numbers.parquet") for row in rows)
    assert "negative" in rows[2]["message"]
    assert "input" not in rows[0], "what was read is copied only where it is asked for"
    for deep in (False, True):
        proof = verify(Output(url=str(tmp_path / "out")), deep=deep)
        assert proof.problems == ()
        assert (proof.rows_found, proof.rows_rejected) == (196, 4)
    again = launch(job(x, signature="picky"), IN_PROCESS)
    assert (again.rows_run, again.rows_rejected, again.codes) == (0, 4, result.codes), "a finished job says it again"


def test_the_input_row_goes_along_where_that_is_asked_for(job: Callable[..., Job], tmp_path: Path) -> None:
    x = numbers()
    x[3] = None
    launch(job(x, REJECT | {"reject_input": True}), IN_PROCESS)
    (row,) = pa.concat_tables(read_rejected(Output(url=str(tmp_path / "out"))).tables()).to_pylist()
    assert row["input"] == {"x": None, "id": 3, "text": "3"}


def test_a_reject_file_that_is_changed_or_gone_is_found(job: Callable[..., Job], tmp_path: Path) -> None:
    x = numbers()
    x[3] = None
    launch(job(x), IN_PROCESS)
    (file,) = (tmp_path / "out").glob("_run/*/rejects/*.rejects")
    content = file.read_bytes()
    pq.write_table(pq.read_table(file), file)
    (problem,) = verify(Output(url=str(tmp_path / "out"))).problems
    assert "is of another attempt" in problem.story
    file.unlink()
    (problem,) = verify(Output(url=str(tmp_path / "out"))).problems
    assert (problem.kind, "its reject file cannot be read" in problem.story) == ("altered", True)
    file.write_bytes(content)
    assert verify(Output(url=str(tmp_path / "out"))).holds


def test_a_budget_that_is_used_up_is_exit_65_and_a_larger_one_continues(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    x = numbers()
    x[3] = x[103] = x[104] = None
    with pytest.raises(DataError, match=r"3 rows were rejected \(3 ROW_NULL\)") as caught:
        launch(job(x, REJECT | {"max_rejected_rows": 2}), IN_PROCESS)
    assert caught.value.exit_code == 65
    assert len(list((tmp_path / "out").glob("part-*"))) == 2
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    with pytest.raises(DataError, match="3 rows were rejected"):
        launch(job(x, REJECT | {"max_rejected_rows": 2}), IN_PROCESS)
    result = launch(job(x, REJECT | {"max_rejected_rows": 3}), IN_PROCESS)
    assert (result.rows, result.rows_rejected, result.rows_run) == (197, 3, 0)


def test_without_a_budget_the_first_bad_row_fails_the_job_and_says_which_key_to_change(job: Callable[..., Job]) -> None:
    x = numbers()
    x[3] = None
    with pytest.raises(DataError, match=r"`limits.max_rejected_rows: 0` allows 0.* row group 0 row 3"):
        launch(job(x, {"on_bad_row": "reject"}), IN_PROCESS)


def test_a_job_whose_rows_are_all_bad_fails_whatever_its_budget(job: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all 200 rows were rejected") as caught:
        launch(job(pa.nulls(200, pa.float32()), REJECT | {"max_rejected_rows": "100%"}), IN_PROCESS)
    assert (caught.value.exit_code, caught.value.facts["code"]) == (65, "ALL_REJECTED")
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_a_model_of_a_fixed_batch_loses_its_bad_rows_only(job: Callable[..., Job], tmp_path: Path) -> None:
    x = numbers()
    x[17] = x[60] = None
    result = launch(job(x, signature="sixteen"), IN_PROCESS)
    assert result.codes == {"ROW_NULL": 2}
    assert scored(tmp_path / "out") == {row: row / 2 + 2 for row in range(200) if row not in (17, 60)}
    rows = pa.concat_tables(read_rejected(Output(url=str(tmp_path / "out"))).tables()).to_pylist()
    assert [(row["row_group"], row["row"]) for row in rows] == [(0, 17), (1, 10)], "batches span row groups"


def test_what_is_not_finite_passes_or_is_rejected_and_what_becomes_nan_is_counted(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    x = numbers()
    x[5], x[6] = float("nan"), float("inf")
    kept = launch(job(x), IN_PROCESS)
    assert kept.rejects().num_rows == 0
    assert (kept.rows, kept.nan_rows, kept.rows_rejected) == (200, 1, 0)
    assert (kept.nonfinite_rows, kept.unseen_rows) == (2, 0)
    assert "NaN: in 1 of the rows written" in kept.summary()
    assert "inputs: NaN or infinity in 2 of the rows written\n" in kept.summary()
    strict = job(x, REJECT | {"nonfinite": "reject"}, output={"url": str(tmp_path / "strict")})
    assert launch(strict, IN_PROCESS).codes == {"ROW_NONFINITE": 2}
    strict = job(x, REJECT | {"nan_output": "reject"}, output={"url": str(tmp_path / "no-nan")})
    assert launch(strict, IN_PROCESS).codes == {"MODEL_NAN": 1}


def test_inputs_that_nothing_in_the_output_shows_are_counted_wherever_the_run_is_looked_at(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    x = numbers(60)
    x[5], x[17], x[40] = float("nan"), None, float("inf")  # the model has no output of floating point
    rule = {"inputs": {"x": {"column": "x", "null": "nan"}}}
    hiding = job(x, {"shard_rows": 50}, "label", columns={**rule, "keep": ["id"]})
    warned: list[str] = []
    result = launch(hiding, IN_PROCESS, warn=warned.append)
    assert [story.partition(" on this machine")[0] for story in warned] == ["a NaN in 'x' does not reach 'positive'"]
    assert (result.rows, result.nan_rows, result.nonfinite_rows, result.unseen_rows) == (60, 0, 3, 3)
    said = "NaN or infinity in 3 of the rows written; the outputs of 3 of them are finite"
    assert said in result.summary()
    status = read_status(Output(url=str(tmp_path / "out")))
    assert (status.nonfinite_rows, status.unseen_rows) == (3, 3)
    (folder,) = (tmp_path / "out" / "_run").iterdir()
    manifest = json.loads((folder / "manifest-000001.json").read_text())
    assert [(part.get("nonfinite_rows"), part.get("unseen_rows")) for part in manifest["parts"]] == [
        (3, 3),
        (None, None),
    ]
    assert said in (folder / "report.html").read_text()
    assert json.loads((folder / "report.json").read_text())["unseen_rows"] == 3
    assert verify(Output(url=str(tmp_path / "out"))).holds
    again = launch(hiding, IN_PROCESS)  # from the manifest alone
    assert (again.rows_run, again.nonfinite_rows, again.unseen_rows) == (0, 3, 3)


def test_kept_text_that_is_no_utf_8_is_a_bad_row(job: Callable[..., Job], tmp_path: Path) -> None:
    wanted = job(numbers())
    torn = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff"))
    table = pa.table({"id": [0, 1], "text": torn, "x": pa.array([0.0, 1.0], pa.float32())})
    pq.write_table(table, tmp_path / "in" / "numbers.parquet")
    assert launch(wanted, IN_PROCESS).codes == {"ROW_UTF8": 1}
    assert scored(tmp_path / "out") == {0: 2.0}
    (row,) = pa.concat_tables(read_rejected(Output(url=str(tmp_path / "out"))).tables()).to_pylist()
    assert row["kept"] == {"id": 1, "text": "\\xff"}, "what is said of it can be read"


def test_a_row_that_is_too_large_is_rejected(job: Callable[..., Job], tmp_path: Path) -> None:
    wanted = job(numbers(), REJECT | {"max_row_bytes": 1000})
    table = pa.table({"id": [0, 1], "text": ["a", "b" * 2**20], "x": pa.array([0.0, 1.0], pa.float32())})
    pq.write_table(table, tmp_path / "in" / "numbers.parquet")
    assert launch(wanted, IN_PROCESS).codes == {"ROW_TOO_BIG": 1}


# Only what was rejected


def test_rows_that_were_repaired_are_scored_alone_into_a_new_output(job: Callable[..., Job], tmp_path: Path) -> None:
    x = numbers()
    x[3] = x[77] = None
    x[78] = -5.0
    first = launch(job(x, signature="picky"), IN_PROCESS)
    x[3], x[77] = 1000.0, 1001.0
    again = {"input": {"url": str(tmp_path / "in"), "only_rejects": str(tmp_path / "out")}}
    new = {"output": {"url": str(tmp_path / "again")}}
    result = launch(job(x, signature="picky", **again, **new), IN_PROCESS)
    assert (result.rows, result.rows_rejected, first.rows_rejected) == (2, 1, 3)
    assert scored(tmp_path / "again") == {3: 502.0, 77: 502.5}
    (row,) = pa.concat_tables(read_rejected(Output(url=str(tmp_path / "again"))).tables()).to_pylist()
    assert (row["row_group"], row["row"], row["kept"]["id"]) == (1, 28, 78), "places are those of the file"
    assert verify(Output(url=str(tmp_path / "again")), deep=True).holds
    x[78] = 6.0
    third = {"input": {"url": str(tmp_path / "in"), "only_rejects": str(tmp_path / "again")}}
    launch(job(x, signature="picky", **third, output={"url": str(tmp_path / "third")}), IN_PROCESS)
    assert scored(tmp_path / "third") == {78: 5.0}
    plans = {preflight(job(x, signature="picky", **more)).plan.id for more in ({}, again, third)}
    assert len(plans) == 3, "what is scored is part of the plan"


def test_rejects_of_a_file_with_other_row_groups_are_refused(job: Callable[..., Job], tmp_path: Path) -> None:
    x = numbers()
    x[3] = None
    launch(job(x), IN_PROCESS)
    again = {"input": {"url": str(tmp_path / "in"), "only_rejects": str(tmp_path / "out")}}
    with pytest.raises(InputError, match="1 file has other rows or row groups now"):
        preflight(job(x[:-1], **again))
    launch(job(numbers(), output={"url": str(tmp_path / "clean")}), IN_PROCESS)
    with pytest.raises(InputError, match="nothing to score"):
        preflight(job(x, input={"url": str(tmp_path / "in"), "only_rejects": str(tmp_path / "clean")}))


# Bad files


@pytest.fixture
def folder(tmp_path: Path, write_numbers: Callable[..., Path]) -> Path:
    return write_numbers(tmp_path / "in", files=3, rows=100, row_group=50)


@pytest.fixture
def ready(folder: Path, tmp_path: Path, half_plus_two: Path) -> Callable[..., Job]:
    def make(**limits: Any) -> Job:
        return Job.model_validate(
            {
                "model": {"url": str(half_plus_two)},
                "input": {"url": str(folder)},
                "columns": {"keep": ["id"]},
                "output": {"url": str(tmp_path / "out")},
                "limits": {"shard_rows": 100} | limits,
            }
        )

    return make


def flip(path: Path) -> None:
    """A bit of the first page of x in the last row group."""
    chunk = pq.read_metadata(path).row_group(1).column(1)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    path.write_bytes(bytes(content))


def checksummed(folder: Path) -> None:
    for path in folder.glob("*.parquet"):
        pq.write_table(pq.read_table(path), path, row_group_size=50, write_page_checksum=True, use_dictionary=False)


def test_a_file_that_is_bad_when_the_plan_is_made_is_left_out_counted_and_named(
    ready: Callable[..., Job], folder: Path, tmp_path: Path
) -> None:
    bad = folder / "numbers-000.parquet"
    good, content = folder / "numbers-001.parquet", bad.read_bytes()
    bad.write_bytes(content[:-20])
    said: list[str] = []
    job = ready(on_bad_file="skip", max_bad_files=1)
    result = launch(job, IN_PROCESS, warn=said.append)
    assert (result.rows, list(result.bad_files.values())) == (200, ["FILE_TRUNCATED"])
    assert len(said) == 1
    assert "numbers-000.parquet" in said[0]
    assert sorted(scored(tmp_path / "out")) == list(range(100, 300))
    proof = verify(Output(url=str(tmp_path / "out")))
    assert proof.holds
    assert list(proof.files_skipped.values()) == ["FILE_TRUNCATED"]
    good.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"cannot read 2 of 3 input files.*\n.*\n.*\n`limits.max_bad_files: 1` allows 1"
    ):
        preflight(job)
    (folder / "numbers-002.parquet").write_bytes(b"nonsense, and more of it")
    with pytest.raises(DataError, match="one at least must be good"):
        preflight(ready(on_bad_file="skip", max_bad_files="100%"))


def test_a_row_group_that_cannot_be_read_is_rejected_whole_and_its_file_named(
    ready: Callable[..., Job], folder: Path, tmp_path: Path
) -> None:
    checksummed(folder)
    flip(folder / "numbers-001.parquet")
    with pytest.raises(DataError) as caught:
        launch(ready(), IN_PROCESS)
    assert caught.value.facts["code"] == "PAGE_CRC"
    result = launch(ready(on_bad_file="skip", max_bad_files="40%"), RunOptions(in_process=True, overwrite=True))
    assert (result.rows, result.codes, list(result.bad_files.values())) == (250, {"PAGE_CRC": 50}, ["50 rows not read"])
    assert sorted(scored(tmp_path / "out")) == [*range(150), *range(200, 300)]
    found = pa.concat_tables(read_rejected(Output(url=str(tmp_path / "out"))).tables())
    assert found["row"].to_pylist() == list(range(50))
    assert found["kept"].null_count == 50, "nobody knows them"
    assert verify(Output(url=str(tmp_path / "out")), deep=True).holds


def test_bad_files_found_while_running_are_held_against_the_budget(ready: Callable[..., Job], folder: Path) -> None:
    checksummed(folder)
    flip(folder / "numbers-001.parquet")
    flip(folder / "numbers-002.parquet")
    with pytest.raises(DataError, match="2 of 3 input files are bad") as caught:
        launch(ready(on_bad_file="skip", max_bad_files=1), IN_PROCESS)
    assert caught.value.exit_code == 65


def test_a_file_that_changed_since_the_plan_is_not_skipped(ready: Callable[..., Job], folder: Path) -> None:
    found: Preflight = preflight(ready(on_bad_file="skip", max_bad_files="100%"))
    output = OutputDirectory(found.job.output, found.plan.id, len(found.plan.shards))
    output.claim(found.plan)
    (folder / "numbers-000.parquet").write_bytes(b"")
    tried: Attempt = attempt(found.plan, found.plan.shards[0], 1, 1, "0" * 12)
    failed = Worker(found.spec(output.output), "w1", EngineOptions(threads=1)).attempt(tried)
    assert isinstance(failed, Failure)
    assert failed.error.facts["code"] == "FILE_CHANGED"


def test_a_row_group_beyond_the_limit_is_refused_before_it_is_decoded(ready: Callable[..., Job]) -> None:
    with pytest.raises(InputError, match=r"`limits.max_row_group_bytes` allows 100") as caught:
        preflight(ready(max_row_group_bytes=100))
    assert (caught.value.facts["code"], caught.value.exit_code) == ("ROWGROUP_TOO_BIG", 2)


def test_reject_files_that_no_part_names_are_gone_when_the_job_is_done(job: Callable[..., Job], tmp_path: Path) -> None:
    x = numbers()
    x[3] = None
    wanted = job(x)
    found = preflight(wanted)
    stray = tmp_path / "out" / "_run" / found.plan.id[:8] / "rejects" / f"00000-e1-a1-{'0' * 12}.rejects"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of an attempt that died")
    launch(wanted, IN_PROCESS)
    assert not stray.exists()
    assert len(list(stray.parent.iterdir())) == 1


def test_rejects_are_kept_in_staged_mode_too(job: Callable[..., Job], tmp_path: Path) -> None:
    x = numbers()
    x[3] = None
    found = preflight(job(x))
    claimed = OutputDirectory(found.job.output, found.plan.id, len(found.plan.shards))
    claimed.claim(found.plan)
    claimed.epochs.note(1, {"mode": "staged"})  # what a store without atomic names makes of it
    output = OutputDirectory(found.job.output, found.plan.id, len(found.plan.shards), "staged")
    worker = Worker(found.spec(output.output), "w1", EngineOptions(threads=1))
    receipts = []
    for shard in found.plan.shards:
        success = worker.attempt(attempt(found.plan, shard, 1, 1, f"{shard.index:012x}"))
        assert isinstance(success, Success)
        assert success.receipt.staged
        receipts.append(output.record(success, []))
    output.finish(found.plan, receipts, 1)
    assert read_rejected(Output(url=str(tmp_path / "out"))).codes() == {"ROW_NULL": 1}
    assert verify(Output(url=str(tmp_path / "out")), deep=True).holds


def test_rows_that_an_unsafe_cast_changed_are_counted_wherever_the_run_is_looked_at(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    x: list[Any] = [float(at) for at in range(60)]
    x[5], x[17] = 2.0**24 + 1, 1e300
    rule = {"inputs": {"x": {"column": "x", "cast": "unsafe"}}, "keep": {"number": "id"}}
    unsafe = job(x, {"shard_rows": 50}, columns=rule)
    result = launch(unsafe, IN_PROCESS)
    said = "`cast: unsafe` changed values in 2 of the rows written"
    assert (result.rows, result.changed_rows, result.report["changed_rows"]) == (60, 2, 2)
    assert f"changed: {said}" in result.summary().splitlines()
    assert result.dataset().to_table()["number"].to_pylist() == list(range(60))
    assert read_status(Output(url=str(tmp_path / "out"))).changed_rows == 2
    (folder,) = (tmp_path / "out" / "_run").iterdir()
    manifest = json.loads((folder / "manifest-000001.json").read_text())
    assert [part.get("changed_rows") for part in manifest["parts"]] == [2, None]
    assert said in (folder / "report.html").read_text()
    assert json.loads((folder / "report.json").read_text())["changed_rows"] == 2
    (folder / "receipts" / "00000.json").unlink()  # the header of the part tells it too
    (tmp_path / "out" / "_SUCCESS").unlink()
    again = launch(unsafe, IN_PROCESS)
    assert (again.rows_run, again.changed_rows) == (0, 2)
