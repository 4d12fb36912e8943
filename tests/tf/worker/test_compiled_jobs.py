"""Jobs whose model is compiled: a bad row is as bad as it is uncompiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import DataError, ModelError
from jobs.job import Job
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight

IN_PROCESS = RunOptions(in_process=True)
REJECT = {"on_bad_row": "reject", "max_rejected_rows": "50%", "batch_rows": 32}
MakeJob = Callable[..., Job]


@pytest.fixture
def job(tmp_path: Path, compiled: Path) -> MakeJob:
    """job(table, signature, limits=..., **model): of the model `lookups`, one file, the column 'row' kept."""

    def make(table: pa.Table, signature: str, limits: Any = REJECT, url: str = "lookups", **model: Any) -> Job:
        path = tmp_path / "in.parquet"
        pq.write_table(table, path, row_group_size=64)
        document = {
            "model": {"url": str(compiled / url), "signature": signature, **model},
            "input": {"url": str(path)},
            "columns": {"keep": ["row"]},
            "output": {"url": str(tmp_path / f"out{len(list(tmp_path.iterdir()))}")},
            "limits": limits,
        }
        return Job.model_validate(document)

    return make


def ids(rows: int = 100) -> pa.Table:
    """Row 3 names row 99 of a table of 10, row 70 has a word too many; row 5 counts from the end, as Keras does."""
    id, words = np.arange(rows) % 10, np.zeros((rows, 5), np.int32)
    id[3], words[70, 4], words[5] = 99, 10, -1
    lists = pa.FixedSizeListArray.from_arrays(pa.array(words.reshape(-1)), 5)
    return pa.table({"row": range(rows), "id": id, "word": lists})


@pytest.mark.parametrize("xla", [False, True])
def test_ids_beyond_a_table_are_rejected_whether_compiled_or_not(xla: bool, job: MakeJob) -> None:
    result = launch(job(ids(), "pick", xla=xla), IN_PROCESS)
    assert result.codes == {"ROW_RANGE": 2}
    assert [(row["row"], row["column"]) for row in result.rejects().to_pylist()] == [(3, "id"), (6, "word")]
    scored = {row["row"]: row["id"] for row in result.dataset().to_table().to_pylist()}
    assert scored == {row: row % 10 for row in range(100) if row not in (3, 70)}


def test_the_first_id_beyond_a_table_ends_a_job_that_rejects_nothing(job: MakeJob) -> None:
    with pytest.raises(DataError, match=r"ROW_RANGE: .* found 99; expected 0 to 9: rows of 'ten' \[.* row 3\]"):
        launch(job(ids(), "pick", {}, xla=True), IN_PROCESS)


def test_a_plan_says_which_ids_there_are(job: MakeJob) -> None:
    rows = preflight(job(ids(), "pick")).binding.describe()
    notes = {row["tensor"]: row["note"] for row in rows if row["role"] == "input"}
    assert notes["id"] == "0 to 9: rows of 'ten'"
    assert notes["word"].startswith("-10 to 9: rows of 'words/embeddings")


def test_what_compiling_changes_is_a_warning_of_a_job_that_compiles(job: MakeJob) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8, np.float32)), 4)
    table = pa.table({"row": range(2), "x": lists})
    assert preflight(job(table, "flow", url="flow")).warnings == []
    (warning,) = preflight(job(table, "flow", url="flow", xla=True)).warnings
    assert "nothing is checked (Assert)" in warning
    assert preflight(job(ids(), "pick", xla=True)).warnings == [], "its look-ups are checked before each call"


@pytest.mark.filterwarnings("ignore:compiled by XLA")
def test_a_row_that_only_the_compiled_model_answers_ends_a_job_that_compares(job: MakeJob) -> None:
    d = [1 + row % 5 for row in range(100)]
    d[70] = 0
    table = pa.table({"row": range(100), "d": pa.array(d, pa.int32())})
    limits = {"compare_uncompiled": 80, "batch_rows": 32}
    with pytest.raises(
        ModelError, match=r"uncompiled .* Integer division by zero .* row group 1 row 6\]; run it without"
    ):
        launch(job(table, "divide", limits, url="refusals", xla=True), IN_PROCESS)


def shapes(rows: int, name: str, values: list[int]) -> pa.Table:
    """x: 20 ones a row."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows * 20, np.float32)), 20)
    return pa.table({"row": range(rows), "x": lists, name: pa.array(values, pa.int32())})


@pytest.mark.filterwarnings("ignore:compiled by XLA", "ignore:it is not proved")  # its good rows are equal
@pytest.mark.parametrize(("engine", "bad"), [("session", 0), ("session", 200), ("eager", 200)])
def test_a_row_with_which_xla_cannot_compile_is_a_bad_row(engine: str, bad: int, job: MakeJob) -> None:
    k = [3] * 256
    k[bad] = 50
    limits = REJECT | {"batch_rows": 256}
    result = launch(job(shapes(256, "k", k), "top", limits, "shapes", xla=True, engine=engine), IN_PROCESS)
    assert result.codes == {"MODEL_ROW": 1}
    (rejected,) = result.rejects().to_pylist()
    assert (64 * rejected["row_group"] + rejected["row"], result.rows) == (bad, 255)
    assert "with XLA: input must have at least k columns. Had 20, needed 50" in rejected["message"]


def test_a_model_that_xla_compiles_for_no_row_is_refused(job: MakeJob) -> None:
    table = shapes(100, "unused", [0] * 100)
    with pytest.raises(
        ModelError, match=r"cannot compile signature 'never' .* run it without: `model: \{xla: false\}`"
    ):
        launch(job(table, "never", url="shapes", xla=True), IN_PROCESS)


@pytest.mark.filterwarnings("ignore:compiled by XLA", "ignore:it is not proved")
def test_compilations_for_values_are_counted_and_told(job: MakeJob) -> None:
    values = [row // 64 % 3 + 1 for row in range(256)]
    found = preflight(job(shapes(256, "n", values), "masked", url="shapes", xla=True))
    assert [story.partition(":")[0] for story in found.warnings] == [
        "compiled by XLA, the value of input 'n' decides a shape (Range, StridedSlice)"
    ]
    result = launch(
        job(shapes(256, "n", values), "masked", REJECT | {"batch_rows": 64}, "shapes", xla=True), IN_PROCESS
    )
    assert [row["y"] for row in result.dataset().to_table().to_pylist()] == values
    (worker,) = result.report["workers"].values()
    assert (worker["compilations"], worker["compiled_shapes"]) == (3, 1)
    assert "XLA: compiled 3 times (" in result.summary()
