"""Kept columns of real files: what no part could hold is refused before a worker starts, what is lost is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import OutputError
from jobs.job import Job
from runner.cli.view.plan import plan_document
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight

X = pa.array([1.0, 2.0, 3.0], pa.float32())
POINT = bytes.fromhex("0101000000000000000000F03F0000000000000040")


class Wkb(pa.ExtensionType):  # type: ignore[misc]
    """What pyarrow writes as GEOMETRY, as the package geoarrow does."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), "geoarrow.wkb")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"{}"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Wkb:
        return cls()


def job(model: Path, folder: Path, keep: list[str], **output: Any) -> Job:
    return Job.model_validate(
        {
            "model": {"url": str(model)},
            "input": {"url": str(folder / "in")},
            "columns": {"keep": keep},
            "output": {"url": str(folder / "out")} | output,
        }
    )


def test_a_kept_column_of_width_0_is_refused_before_a_worker_starts(half_plus_two: Path, tmp_path: Path) -> None:
    table = pa.table({"x": X, "z": pa.array([[]] * 3, pa.list_(pa.float32(), 0))})
    (tmp_path / "in").mkdir()
    with pa.ipc.new_file(tmp_path / "in" / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(OutputError, match=r"kept column 'z' .*could be written, and not be read again"):
        launch(job(half_plus_two, tmp_path, ["z"]), RunOptions(in_process=True))
    assert not (tmp_path / "out").exists()
    result = launch(job(half_plus_two, tmp_path, ["z"], format="arrow"), RunOptions(in_process=True))
    assert pa.ipc.open_file(result.parts[0]).read_all()["z"].to_pylist() == [[]] * 3


def test_what_a_part_does_not_repeat_is_a_note_of_the_plan(half_plus_two: Path, tmp_path: Path) -> None:
    geo = {"geo": json.dumps({"primary_column": "g", "columns": {"g": {"encoding": "WKB"}}})}
    shape = pa.ExtensionArray.from_storage(Wkb(), pa.array([POINT] * 3))
    words = pa.array([1, 2, 1], pa.int64()).dictionary_encode()
    table = pa.table({"x": X, "g": shape, "c": words}).replace_schema_metadata(geo)
    (tmp_path / "in").mkdir()
    with pa.ipc.new_file(tmp_path / "in" / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    assert preflight(job(half_plus_two, tmp_path, ["c"])).notes == (
        "kept column 'c' is written as int64 (was dictionary<values=int64, indices=int32, ordered=0>; categories are"
        " written as their values)",
    )
    (tmp_path / "in" / "a.arrow").unlink()
    pq.write_table(table.select(["x", "g"]), tmp_path / "in" / "a.parquet")
    ready = preflight(job(half_plus_two, tmp_path, ["g"]))
    lost = "logical type GEOMETRY and its GeoParquet metadata ('geo')"
    assert plan_document(ready)["notes"] == [f"kept column 'g' loses its {lost}: only values are kept"]
    assert preflight(job(half_plus_two, tmp_path, [])).notes == ()


def test_files_of_other_types_are_scored_each_in_its_own_way(half_plus_two: Path, tmp_path: Path) -> None:
    """The first file has no value in `x`, the second integers, the third floats; `s` grows and changes its order."""
    far = 2**53 + 1
    tables = [
        pa.table({"x": pa.nulls(1), "s": [{"b": 1}]}),
        pa.table({"s": [{"a": "x", "b": 2}] * 3, "x": pa.array([4, far, 2**24 + 1], pa.int64())}),
        pa.table({"x": pa.array([0.5], pa.float64()), "s": [{"b": None, "a": b"y"}]}),
    ]
    (tmp_path / "in").mkdir()
    for index, table in enumerate(tables):
        pq.write_table(table, tmp_path / "in" / f"{index}.parquet")
    asked = job(half_plus_two, tmp_path, ["x", "s"]).model_dump(by_alias=True)
    asked["columns"]["inputs"] = {"x": {"column": "x", "null": "nan"}}
    asked["limits"] |= {"on_bad_row": "reject", "max_rejected_rows": 2, "nan_output": "keep", "nonfinite": "pass"}
    asked["limits"] |= {"reject_input": True}
    result = launch(Job.model_validate(asked), RunOptions(in_process=True))
    written = pa.concat_tables([pq.read_table(part) for part in result.parts]).to_pylist()
    assert str([(row["x"], row["y"]) for row in written]) == "[(None, nan), (4.0, 4.0), (0.5, 2.25)]"
    assert [row["s"] for row in written] == [{"b": 1, "a": None}, {"b": 2, "a": b"x"}, {"b": None, "a": b"y"}]
    rejected = result.rejects().sort_by("row").to_pylist()
    # What the type of all files cannot hold is not kept; what the tensor cannot hold is.
    assert [(row["row"], row["code"], row["input"]["x"]) for row in rejected] == [
        (1, "ROW_INEXACT", None),
        (2, "ROW_INEXACT", 2.0**24 + 1),
    ]
    notes = preflight(Job.model_validate(asked)).notes
    was = "(was null in 1 file, int64 in 1 file, double in 1 file)"
    assert f"kept column 'x' is written as double {was}; a value that this cannot hold is a bad row" in notes
    rounded = "rounded: 'x' (int64 or double) to float32"
    assert f"{rounded}; `columns.inputs.x.exact: true` makes each value that changes a bad row" in notes
    assert len([note for note in notes if "'x'" in note]) == 2
    assert result.summary().count("rounded") == 1
    assert rounded in result.summary().splitlines()
    assert result.report["rounded"] == [rounded.removeprefix("rounded: ")]
