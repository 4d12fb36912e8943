"""Folders whose names are values of columns."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.formats.base import RowGroupReader
from connectors.formats.fault import BadRows, BadRowsError
from connectors.store.store import Store
from connectors.tables.partitions import PartitionedSource
from connectors.tables.source import source_of
from jobs.attempt import InputSlice, input_slice
from jobs.errors import DataError, InputError
from jobs.job import Job
from jobs.plan import InputFile, Slice
from jobs.section.limits import Limits
from runner.preflight.input.files import Inspected, inspect
from runner.preflight.input.listing import Listed, listed

X = pa.table({"x": pa.array([1, 2, 3], pa.int64())})


def write(folder: Path, table: pa.Table = X, name: str = "a.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name, row_group_size=2)
    return folder / name


def look(url: object, partitions: Any = "hive", **given: Any) -> Listed:
    document = {
        "model": {"url": "m"},
        "input": {"url": str(url), "partitions": partitions, **given},
        "output": {"url": "o"},
    }
    job = Job.model_validate(document)
    return listed(job, Store(job.input.url[0]))


def inspected(found: Listed, *columns: str) -> Inspected:
    files, _ = inspect(found.source, Store(found.job.input.url[0]), found.files, columns, Limits())
    return files


def rows(found: Listed, *columns: str) -> list[dict[str, Any]]:
    """All rows, as workers read them."""
    store, source = Store(found.job.input.url[0]), source_of(found.job.input)
    files: list[InputFile] = [InputFile.from_document(file.document()) for file, _ in inspected(found, *columns)]
    made: list[dict[str, Any]] = []
    for index, file in enumerate(files):
        piece = input_slice(files, Slice(index, 0, len(file.row_groups)))
        with source.open(store, piece, columns) as reader:
            for group in range(len(file.row_groups)):
                made += reader.read(group).to_pylist()
    return made


def refused(found: Listed, *columns: str) -> str:
    with pytest.raises((InputError, DataError)) as error:
        rows(found, *columns)
    assert error.value.facts["code"] == "PARTITION"
    return error.value.message


def test_names_of_folders_are_columns(tmp_path: Path) -> None:
    write(tmp_path / "dt=2026-11-01" / "country=DE")
    write(tmp_path / "dt=2026-11-02" / "country=__HIVE_DEFAULT_PARTITION__")
    found = rows(look(tmp_path), "country", "x", "dt")
    assert found[:1] == [{"country": "DE", "x": 1, "dt": "2026-11-01"}]
    assert found[3:4] == [{"country": None, "x": 1, "dt": "2026-11-02"}]
    assert len(found) == 6


def test_values_and_names_are_url_decoded(tmp_path: Path) -> None:
    write(tmp_path / "the%20city=S%C3%A3o%2FPaulo%3D1+1")
    assert rows(look(tmp_path), "the city")[0] == {"the city": "São/Paulo=1+1"}


def test_types_are_those_that_the_job_declares(tmp_path: Path) -> None:
    write(tmp_path / "month=07" / "dt=2026-11-01" / "at=2026-11-01 08%3A30%3A00" / "share=0.5")
    types = {"month": "int32", "dt": "date", "at": "timestamp[us, tz=UTC]", "share": "float"}
    found = look(tmp_path, schema=types)
    assert rows(found, *types)[2] == {
        "month": 7,
        "dt": datetime.date(2026, 11, 1),
        "at": datetime.datetime(2026, 11, 1, 8, 30, tzinfo=datetime.UTC),
        "share": 0.5,
    }
    ((_, schema),) = inspected(found)
    assert [str(kind) for kind in schema.types] == ["int64", "int32", "date32[day]", "timestamp[us, tz=UTC]", "float"]


def test_a_value_that_is_not_of_its_type_names_folder_value_and_type(tmp_path: Path) -> None:
    write(tmp_path / "month=July")
    assert refused(look(tmp_path, schema={"month": "int32"}), "x") == (
        f"cannot read partition column 'month': 'July', in the folders of '{tmp_path}/month=July/a.parquet', is no"
        " int32, as `input.schema.month` says"
    )


def test_folders_that_lack_a_name_are_an_error_with_both(tmp_path: Path) -> None:
    write(tmp_path / "dt=1" / "country=DE")
    write(tmp_path / "dt=2")
    with pytest.raises(InputError) as error:
        look(tmp_path)
    assert error.value.message == (
        f"cannot read partitions of '{tmp_path}/dt=2/a.parquet': its folders have no name 'country', which stands in"
        f" those of '{tmp_path}/dt=1/country=DE/a.parquet'; expected the same names for all files"
    )


def test_a_name_twice_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "dt=1" / "dt=2")
    with pytest.raises(InputError, match="two of its folders have the name 'dt'"):
        look(tmp_path)


@pytest.mark.parametrize("url", ["dt=1", "dt=*/", "dt=1/a.parquet", "dt=1/*.parquet", ""])
def test_a_partition_that_is_named_itself_has_its_value(tmp_path: Path, url: str) -> None:
    write(tmp_path / "lake" / "dt=1")
    assert rows(look(f"{tmp_path}/lake/{url}"), "dt")[0] == {"dt": "1"}


def test_folders_without_names_get_those_of_the_job(tmp_path: Path) -> None:
    write(tmp_path / "2026" / "11" / "more")
    found = look(tmp_path, ["year", "month"], schema={"year": "int32"})
    assert rows(found, "month", "year")[0] == {"month": "11", "year": 2026}
    alone = look(tmp_path / "2026" / "11" / "more" / "a.parquet", ["month", "what"])
    assert rows(alone, "month", "what")[0] == {"month": "11", "what": "more"}


@pytest.mark.parametrize(
    ("folder", "story"),
    [
        ("2026", "1 folder is below '{}', and `input.partitions` names 'year', 'month'"),
        ("year=2026/month=11", "its folder 'year=2026' has a name of its own; say `partitions: hive`"),
    ],
)
def test_folders_that_do_not_fit_the_names_are_an_error(tmp_path: Path, folder: str, story: str) -> None:
    write(tmp_path / folder)
    with pytest.raises(InputError) as error:
        look(tmp_path, ["year", "month"])
    assert story.format(tmp_path) in error.value.message


def test_a_column_that_is_in_the_files_too_is_equal_or_an_error(tmp_path: Path) -> None:
    both = X.append_column("year", pa.array([2026, 2026, 2026], pa.int32()))
    write(tmp_path / "year=2026", both)
    assert rows(look(tmp_path), "year", "x")[2] == {"year": 2026, "x": 3}
    assert rows(look(tmp_path, schema={"year": "text"}), "year")[2] == {"year": "2026"}
    file = write(tmp_path / "year=2025", X.append_column("year", pa.array([2025, 2025, None], pa.int32())))
    assert rows(look(tmp_path), "x")  # what is not read is not looked at
    assert refused(look(tmp_path), "year") == (
        f"cannot read '{file}' row group 1: row 0 has None in column 'year', and the folder says '2025'; expected one"
        " value: write the file again, or read it without `input.partitions`"
    )


def test_json_lines_that_say_nothing_of_a_declared_partition_have_the_value_of_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "day=2026-11-01" / "n=7"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"x": 1}\n{"x": 2, "n": 7}\n{"x": 3, "n": null}\n')
    found = look(tmp_path, format="jsonl", schema={"day": "date32", "n": "int16", "x": "int64"})
    assert rows(found, "day", "n", "x") == [{"day": datetime.date(2026, 11, 1), "n": 7, "x": x} for x in (1, 2, 3)]
    (folder / "a.jsonl").write_text('{"x": 1}\n{"x": 2, "n": 8}\n')
    with pytest.raises(DataError, match="row 1 has 8 in column 'n', and the folder says '7'"):
        rows(look(tmp_path, format="jsonl", schema={"n": "int16", "x": "int64"}), "n")


def test_a_column_in_files_that_no_folder_value_fits_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "x=one")
    assert "'one'" in refused(look(tmp_path), "x")
    assert "is no int64, as the column of that name in the files is" in refused(look(tmp_path), "x")


def test_files_with_and_without_the_column_have_one_type_where_it_is_declared(tmp_path: Path) -> None:
    write(tmp_path / "year=2025")
    write(tmp_path / "year=2026", X.append_column("year", pa.array([2026, 2026, 2026], pa.int32())))
    found = look(tmp_path, schema={"year": "int16"})
    assert {str(schema.field("year").type) for _, schema in inspected(found)} == {"int16"}
    assert [row["year"] for row in rows(found, "year")] == [2025] * 3 + [2026] * 3


def test_partition_columns_alone_can_be_read_and_count_in_the_plan(tmp_path: Path) -> None:
    write(tmp_path / "dt=1234")
    found = look(tmp_path)
    assert rows(found, "dt") == [{"dt": "1234"}] * 3
    ((file, _),) = inspected(found, "dt")
    assert [group.bytes for group in file.row_groups] == [16, 8]


def test_files_with_one_schema_share_it_whatever_their_values(tmp_path: Path) -> None:
    for day in range(3):
        write(tmp_path / f"dt={day}")
    assert len({id(schema) for _, schema in inspected(look(tmp_path), "x")}) == 1


def test_a_row_group_with_bad_rows_has_the_columns_too() -> None:
    class Bad:
        states, suffixes, max_row_group_bytes, max_row_bytes, fetch_s = "all", (".parquet",), 1, None, 0.0

        @contextmanager
        def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[RowGroupReader]:
            assert columns == ["x"]
            yield self

        def read(self, row_group: int) -> pa.Table:
            raise BadRowsError.of(piece, row_group, X, [BadRows("ROW_TYPE", "x", np.array([1]), ["bad"])])

    piece = InputSlice(0, "a", 1, "", 0, (3,), values=(("dt", "1"),))
    source = PartitionedSource(Bad(), {})  # type: ignore[arg-type]
    with source.open(Store("/"), piece, ["dt", "x"]) as reader, pytest.raises(BadRowsError) as error:
        reader.read(0)
    assert error.value.rest().to_pylist() == [{"dt": "1", "x": 1}, {"dt": "1", "x": 3}]
