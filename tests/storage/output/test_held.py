"""Rows of a process as an input: one file for the same rows, whatever held them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from connectors.output import held as module
from connectors.output.held import put
from connectors.output.status import read_status
from jobs.errors import InputError, JobError
from jobs.job import Job
from jobs.load import job_document
from jobs.section.input import Held, Input
from jobs.section.output import Output

TABLE = pa.table(
    {
        "id": pa.array(range(10), pa.int64()),
        "x": pa.array([[row, 1.5] for row in range(10)], pa.list_(pa.float32(), 2)),
        "text": [f"t{row}" for row in range(10)],
        "kind": pa.array(["a", "b"] * 5).dictionary_encode(),
    }
)


@pytest.fixture
def out(tmp_path: Path) -> Output:
    return Output(url=str(tmp_path / "out"))


def rows(url: str) -> pa.Table:
    with pa.OSFile(url) as file:
        return pa.ipc.open_file(file).read_all()


@pytest.mark.parametrize(
    "source",
    [
        lambda: pa.concat_tables([TABLE.slice(0, 3), TABLE.slice(3)]),
        lambda: TABLE.combine_chunks().to_batches()[0],
        lambda: TABLE.to_reader(max_chunksize=4),
        lambda: ds.dataset(TABLE),
    ],
    ids=["chunks", "batch", "reader", "dataset"],
)
def test_the_same_rows_have_the_same_file_whatever_holds_them(source: Callable[[], Any], out: Output) -> None:
    url = put(Held(TABLE), out)
    written = Path(url).stat().st_mtime_ns
    held = Held(source())
    assert put(held, out) == put(held, out) == url, "a reader gives its rows once, and is asked twice"
    assert Path(url).stat().st_mtime_ns == written, "a resumed run finds the file that it began with"
    assert rows(url).equals(TABLE)
    assert Path(url).parent == Path(out.url) / "_run"
    assert read_status(out).state == "absent"


def test_other_rows_have_another_file_and_a_torn_one_is_mended(out: Output) -> None:
    url = put(Held(TABLE), out)
    assert put(Held(TABLE.slice(1)), out) != url
    Path(url).write_bytes(b"torn")
    assert put(Held(TABLE), out) == url
    assert rows(url).equals(TABLE)


def test_what_pandas_says_of_itself_is_no_part_of_the_rows(out: Output) -> None:
    frame = pd.DataFrame({"id": [1, 2, 3], "text": ["a", None, "c"]}, index=[7, 8, 9])
    written = rows(put(Held(frame), out))
    assert written.schema.metadata is None
    assert written.column("id").to_pylist() == [1, 2, 3]
    assert written.column("text").to_pylist() == ["a", None, "c"]


def test_a_frame_of_polars_is_taken(out: Output) -> None:
    polars = pytest.importorskip("polars", reason="Polars is not installed")
    frame = polars.from_arrow(TABLE)
    assert rows(put(Held(frame), out)).num_rows == 10


def test_too_many_rows_and_what_is_no_table_are_refused(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = Held(pd.DataFrame({"a": [1, "x"]}))
    with pytest.raises(
        InputError, match="cannot take a pandas DataFrame in memory as input: no Arrow table can be made"
    ):
        put(mixed, out)
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(InputError, match=r"more than 0 MiB; write it as Parquet, .*: `input='rows.parquet'`"):
        put(Held(TABLE), out)
    assert not Path(out.url).exists()


def test_a_job_holds_the_table_that_it_was_given_and_hands_it_on() -> None:
    job = Job(model="m", input=TABLE, output="o")
    assert job.input.held is not None
    assert job.input.held.table is TABLE
    assert job.input.url == ("pyarrow Table in memory",)
    assert job.with_("limits.shard_rows=5").input.held is job.input.held
    assert job.with_("input=other").input.held is None
    replaced = Job(model="m", input="i", output="o").with_({"input": TABLE})
    assert replaced.input.held is not None
    assert Input(url="i").held is None
    assert job_document(job)["input"] == {"url": ["pyarrow Table in memory"]}


@pytest.mark.parametrize("wrong", [pd.DataFrame, 3.5, object()], ids=["class", "number", "object"])
def test_what_holds_no_rows_is_no_input(wrong: Any) -> None:
    with pytest.raises(JobError, match=r"'input' is .*; expected its url"):
        Job(model="m", input=wrong, output="o")
