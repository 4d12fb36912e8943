"""Jobs whose rows are a table, or lie in partitions: run, and continued after the table moved on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from delta_tables import added, commit, created, field, without
from deltalake import DeltaTable, write_deltalake
from iceberg_tables import catalog, properties
from rich.console import Console

import runner
from jobs.errors import InputError, OutputError, StoppedError
from jobs.job import Job
from runner.cli.view.plan import plan_document, render_plan
from runner.driver.launch import RunOptions, Stopper, launch
from runner.preflight.preflight import preflight

ROWS = pa.table({"x": pa.array(range(12), pa.float32()), "day": ["a"] * 4 + ["b"] * 4 + ["c"] * 4})


def job(model: Path, output: Path, **given: Any) -> Job:
    return Job.model_validate(
        {
            "model": {"url": str(model)},
            "input": given,
            "columns": {"keep": ["day"]},
            "output": {"url": str(output)},
            "limits": {"shard_rows": 4, "batch_rows": 4},
        }
    )


def scored(output: Path) -> list[dict[str, Any]]:
    return sorted(pq.read_table(output).to_pylist(), key=lambda row: row["y"])


EXPECTED = [{"day": row["day"], "y": row["x"] / 2 + 2} for row in ROWS.to_pylist()]


def stopped(wanted: Job) -> None:
    """Run it, of which one shard of three is done then."""
    stopper = Stopper()
    with pytest.raises(StoppedError):
        launch(
            wanted,
            RunOptions(in_process=True),
            stopper=stopper,
            watch=lambda at: at.shards_done >= 1 and stopper.stop(StoppedError("by the test")),
        )
    for number in (1, 2):  # it may have done them all meanwhile
        output = Path(wanted.output.url)
        for path in (*output.glob(f"part-{number:05d}-*"), *output.glob(f"_run/*/receipts/{number:05d}.json")):
            path.unlink()


def test_a_delta_table_is_scored_and_a_resume_reads_the_rows_that_it_began_with(
    tmp_path: Path, half_plus_two: Path
) -> None:
    write_deltalake(tmp_path / "t", ROWS, partition_by=["day"])
    wanted = job(half_plus_two, tmp_path / "out", delta=str(tmp_path / "t"))
    stopped(wanted)
    DeltaTable(tmp_path / "t").delete("x < 9")  # the next version is another table
    warned: list[str] = []
    result = launch(wanted, RunOptions(in_process=True), warn=warned.append)
    assert (result.rows, result.rows_run) == (12, 8)
    assert [story for story in warned if "begun with version 0 of the Delta table" in story]
    assert scored(tmp_path / "out") == EXPECTED
    assert runner.verify(tmp_path / "out").holds
    # What is finished is finished; the newest version is another job, and --overwrite begins it.
    with pytest.raises(OutputError, match=r"input\.version: 0 then, 1 now"):
        launch(wanted, RunOptions(in_process=True))
    assert launch(wanted, RunOptions(in_process=True, overwrite=True)).rows == 3
    assert scored(tmp_path / "out") == EXPECTED[9:]


def test_an_output_that_was_begun_is_begun_anew_with_the_latest_version_when_overwritten(
    tmp_path: Path, half_plus_two: Path
) -> None:
    write_deltalake(tmp_path / "t", ROWS, partition_by=["day"])
    wanted = job(half_plus_two, tmp_path / "out", delta=str(tmp_path / "t"))
    stopped(wanted)
    write_deltalake(tmp_path / "t", ROWS, mode="append")
    assert launch(wanted, RunOptions(in_process=True, overwrite=True)).rows == 24


def test_an_iceberg_table_is_scored_and_a_resume_reads_the_snapshot_and_the_names_that_it_began_with(
    tmp_path: Path, half_plus_two: Path
) -> None:
    table = catalog(tmp_path).create_table("ns.t", schema=ROWS.rename_columns(["x", "d"]).schema)
    for first in (0, 4, 8):
        table.append(ROWS.rename_columns(["x", "d"]).slice(first, 4))
    with table.update_schema() as change:  # makes no snapshot
        change.rename_column("d", "day")
    given: dict[str, Any] = {"iceberg": "cat.ns.t", "catalog": properties(tmp_path)}
    wanted = job(half_plus_two, tmp_path / "out", **given)
    stopped(wanted)
    with table.update_schema() as change:
        change.rename_column("day", "weekday")
    table.delete("x < 9")
    warned: list[str] = []
    result = launch(wanted, RunOptions(in_process=True), warn=warned.append)
    assert (result.rows, result.rows_run) == (12, 8)
    assert [story for story in warned if "goes on with it" in story]
    assert scored(tmp_path / "out") == EXPECTED
    with pytest.raises(InputError, match="cannot read snapshot 7 of"):
        launch(job(half_plus_two, tmp_path / "other", **given, snapshot=7), RunOptions(in_process=True))


def test_a_version_that_is_gone_ends_with_2_and_nothing_written(tmp_path: Path, half_plus_two: Path) -> None:
    write_deltalake(tmp_path / "t", ROWS)
    with pytest.raises(InputError) as error:
        launch(job(half_plus_two, tmp_path / "out", delta=str(tmp_path / "t"), version=3), RunOptions(in_process=True))
    assert (error.value.exit_code, error.value.facts["code"]) == (2, "TABLE_GONE")
    assert not (tmp_path / "out").exists()


def test_a_plan_tells_which_version_of_a_table_is_read(tmp_path: Path, half_plus_two: Path) -> None:
    write_deltalake(tmp_path / "t", ROWS)
    write_deltalake(tmp_path / "t", ROWS, mode="append")
    ready = preflight(job(half_plus_two, tmp_path / "out", delta=str(tmp_path / "t")))
    assert plan_document(ready)["table"] == {"delta": str(tmp_path / "t"), "version": 1}
    with (console := Console(width=400)).capture() as shown:
        console.print(render_plan(ready))
    assert f"version 1 of the Delta table '{tmp_path / 't'}'" in shown.get()
    table = catalog(tmp_path).create_table("ns.t", schema=ROWS.schema)
    table.append(ROWS)
    given: dict[str, Any] = {"iceberg": "cat.ns.t", "catalog": properties(tmp_path)}
    ready = preflight(job(half_plus_two, tmp_path / "out", **given))
    assert plan_document(ready)["table"] == {"iceberg": "cat.ns.t", "snapshot": table.current_snapshot().snapshot_id}


def test_names_of_folders_feed_a_model_and_are_kept(tmp_path: Path, half_plus_two: Path) -> None:
    for number in range(3):
        (tmp_path / "in" / f"x={number}" / f"day=d%20{number}").mkdir(parents=True)
        pq.write_table(pa.table({"id": [number]}), tmp_path / "in" / f"x={number}" / f"day=d%20{number}" / "a.parquet")
    given: dict[str, Any] = {"url": str(tmp_path / "in"), "partitions": "hive"}
    result = launch(job(half_plus_two, tmp_path / "out", **given, schema={"x": "float"}), RunOptions(in_process=True))
    assert result.rows == 3
    assert scored(tmp_path / "out") == [{"day": f"d {number}", "y": number / 2 + 2} for number in range(3)]


def test_a_condition_meets_the_rows_that_a_table_still_has(tmp_path: Path, half_plus_two: Path) -> None:
    columns = [field("x", "float"), field("day", "string")]
    first = added(tmp_path / "t", "a.parquet", ROWS)  # two rows a row group
    commit(tmp_path / "t", *created(columns, ["deletionVectors"]), first)
    commit(tmp_path / "t", *without(first, [0, 5, 11]))
    given = {"delta": str(tmp_path / "t"), "where": "day <> 'a' and x < 10.5"}
    result = launch(job(half_plus_two, tmp_path / "out", **given), RunOptions(in_process=True))
    assert [row["y"] for row in scored(tmp_path / "out")] == [4.0, 5.0, 5.5, 6.0, 6.5, 7.0]
    assert result.rows == 6
    assert runner.verify(tmp_path / "out").holds


def test_an_output_in_a_table_is_refused(tmp_path: Path, half_plus_two: Path) -> None:
    write_deltalake(tmp_path / "t", ROWS)
    with pytest.raises(OutputError, match="it lies in the table"):
        launch(job(half_plus_two, tmp_path / "t" / "out", delta=str(tmp_path / "t")), RunOptions(in_process=True))
