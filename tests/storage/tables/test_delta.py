"""Delta tables: the rows are those that deltalake itself reads."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from delta_tables import added, commit, created, field, without
from deltalake import DeltaTable, write_deltalake
from table_rows import planned, rows

from connectors.formats.base import Measuring
from connectors.store.store import Store
from jobs.errors import BindingError, DataError, InputError, JobError
from jobs.job import Job
from runner.preflight.input.listing import Listed, found

X = pa.table({"x": pa.array(range(6), pa.int64())})


def look(table: Path | str, **given: Any) -> Listed:
    document = {"model": {"url": "m"}, "input": {"delta": str(table), **given}, "output": {"url": str(table) + ".out"}}
    return found(Job.model_validate(document))[1]


def told(table: Path, version: int | None = None) -> list[dict[str, Any]]:
    """By deltalake, in the order of `x`."""
    return sorted(pa.table(DeltaTable(str(table), version=version).scan()).to_pylist(), key=lambda row: row["x"])


def read(found: Listed, *columns: str) -> list[dict[str, Any]]:
    return sorted(rows(found, *(columns or found.source.schema(None, None).names)), key=lambda row: row.get("x", 0))  # type: ignore[arg-type]


def test_partitions_of_all_types_and_names_are_those_of_the_log(tmp_path: Path) -> None:
    table = pa.table(
        {
            "x": pa.array(range(6), pa.int64()),
            "day": pa.array([datetime.date(2026, 11, 1)] * 3 + [None] * 3, pa.date32()),
            "city": ["a b", "c/d", "é=%", "e", None, "+"],
            "at": pa.array([0, 1, 2, 10**15 + 1, None, 5], pa.timestamp("us", "UTC")),
            "price": pa.array([Decimal("1.50"), None, *[Decimal("-2.00")] * 4], pa.decimal128(10, 2)),
            "n": pa.array([7, -8, None, 9, 10, 11], pa.int16()),
            "yes": [True, False, None, True, True, False],
            "share": [0.1, 1e3, None, 0.5, -0.0, 3.0],
        }
    )
    write_deltalake(tmp_path / "t", table, partition_by=table.column_names[1:])
    assert read(look(tmp_path / "t")) == told(tmp_path / "t") == table.to_pylist()
    assert [row["city"] for row in read(look(tmp_path / "t"), "x", "city")] == table["city"].to_pylist()
    assert rows(look(tmp_path / "t"), "n")[0].keys() == {"n"}


def test_rows_that_a_vector_deletes_are_in_no_plan(tmp_path: Path) -> None:
    table, columns = tmp_path / "t", [field("x", "long")]
    first, second = added(table, "a.parquet", X), added(table, "b%25 b.parquet".replace("%25", "%"), X)
    second["add"]["path"] = "b%25%20b.parquet"
    commit(table, *created(columns, ["deletionVectors"]), first, second)
    commit(table, *without(first, [0, 2, 3]))
    commit(table, *without(second, [5]))
    assert read(look(table)) == told(table)
    assert [row["x"] for row in rows(look(table), "x")] == [1, 4, 5, 0, 1, 2, 3, 4]
    groups = [[group.rows for group in file.row_groups] for file in planned(look(table), "x")]
    assert groups == [[1, 0, 2], [2, 2, 1]]
    assert len(rows(look(table, version=1), "x")) == 9
    assert len(rows(look(table, version=0), "x")) == 12


@pytest.mark.parametrize("mode", ["name", "id"])
def test_columns_have_their_new_names_and_types_in_old_files(tmp_path: Path, mode: str) -> None:
    """The columns of a struct change places, so that a reader that goes by names or places gives others."""
    table = tmp_path / "t"

    def struct(ids: tuple[int, int]) -> dict[str, Any]:
        return {"type": "struct", "fields": [field("b", "long", ids[0], "a"), field("a", "long", ids[1], "b")]}

    listed = {"type": "array", "elementType": struct((14, 15)), "containsNull": True}
    named = {"type": "map", "keyType": "string", "valueType": struct((24, 25)), "valueContainsNull": True}
    fields = [
        field("x", "long", 1, "c1"),
        field("day", "date", 2, "c2"),
        field("s", struct((4, 5)), 3, "c3"),
        field("l", listed, 6, "c6"),
        field("m", named, 8, "c8"),
        field("new", "integer", 7, "c7"),
    ]

    def here(name: str, kind: pa.DataType, id: int) -> pa.Field:
        return pa.field(name, kind, metadata={"PARQUET:field_id": str(id)})

    def stored(ids: tuple[int, int]) -> pa.DataType:
        return pa.struct([here("a", pa.int64(), ids[0]), here("b", pa.int64(), ids[1])])

    pair = {"a": 1, "b": 2}
    kinds = {
        "c1": (pa.int32(), 1, [1, 2, 3]),
        "c3": (stored((4, 5)), 3, [pair, None, {"a": None, "b": 4}]),
        "c6": (pa.list_(here("element", stored((14, 15)), 98)), 6, [[pair, None], None, []]),
        "c8": (pa.map_(pa.string(), here("value", stored((24, 25)), 99)), 8, [[("k", pair)], None, []]),
    }
    schema = pa.schema([here(name, kind, id) for name, (kind, id, _) in kinds.items()])
    old = pa.table([pa.array(values, kind) for kind, _, values in kinds.values()], schema=schema)
    mapping = {"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": "99"}
    commit(
        table,
        *created(fields, ["columnMapping"], ["day"], mapping),
        added(table, "a.parquet", old, {"c2": "2026-11-01"}),
    )
    assert read(look(table)) == told(table)
    first = read(look(table))[0]
    assert first["s"] == {"b": 1, "a": 2}
    assert first["l"] == [{"b": 1, "a": 2}, None]
    assert (first["x"], first["day"], first["new"]) == (1, datetime.date(2026, 11, 1), None)
    assert rows(look(table), "new") == [{"new": None}] * 3


def test_a_column_that_old_files_lack_is_null_in_them(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", X)
    more = pa.table({"x": pa.array([6], pa.int64()), "y": ["six"]})
    write_deltalake(tmp_path / "t", more, mode="append", schema_mode="merge")
    assert read(look(tmp_path / "t")) == told(tmp_path / "t")
    assert [row["y"] for row in read(look(tmp_path / "t"), "x", "y")] == [None] * 6 + ["six"]


def test_a_file_whose_column_does_not_become_that_of_the_table_is_refused_by_name(tmp_path: Path) -> None:
    table = tmp_path / "t"
    commit(table, *created([field("x", "integer")]), added(table, "a.parquet", X))
    with pytest.raises(InputError) as error:
        rows(look(table), "x")
    assert error.value.facts["code"] == "COLUMN_TYPE"
    assert "column 'x' of '" in error.value.message
    assert "a file of version 0 of the Delta table: it is int64 there, and int32 in the table" in error.value.message


@pytest.mark.parametrize("version", ["latest", 0])
def test_the_version_is_that_of_the_job_and_part_of_its_identity(tmp_path: Path, version: Any) -> None:
    write_deltalake(tmp_path / "t", X)
    write_deltalake(tmp_path / "t", X, mode="append")
    seen = look(tmp_path / "t", version=version)
    number = 1 if version == "latest" else 0
    assert len(read(seen, "x")) == 6 * (number + 1)
    assert seen.job.input.rows == {"delta": str(tmp_path / "t"), "version": number}


def test_a_version_that_is_gone_names_those_that_are_there(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", X)
    write_deltalake(tmp_path / "t", X, mode="append")
    with pytest.raises(InputError) as error:
        look(tmp_path / "t", version=7)
    assert error.value.facts["code"] == "TABLE_GONE"
    assert error.value.message == (
        f"cannot read version 7 of the Delta table '{tmp_path}/t': its log has the versions 0 to 1; choose one of"
        " these, or 'latest'"
    )


def test_versions_whose_log_was_cleaned_are_gone(tmp_path: Path) -> None:
    for _ in range(4):
        write_deltalake(tmp_path / "t", X, mode="append")
    DeltaTable(tmp_path / "t", version=2).create_checkpoint()
    for number in range(2):
        (tmp_path / "t" / "_delta_log" / f"{number:020}.json").unlink()
    with pytest.raises(InputError, match="its log has the versions 2 to 3"):
        look(tmp_path / "t", version=1)
    assert len(read(look(tmp_path / "t", version=2), "x")) == 18


def test_a_file_that_vacuum_removed_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    table = tmp_path / "t"
    write_deltalake(table, X)
    seen = look(table)
    (file,) = planned(seen, "x")
    write_deltalake(table, X, mode="overwrite")
    DeltaTable(table).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(InputError) as early:
        rows(look(table, version=0), "x")
    with pytest.raises(DataError) as late:
        rows(seen, "x", files=[file])
    assert [error.value.facts["code"] for error in (early, late)] == ["TABLE_GONE", "FILE_CHANGED"]
    for error in (early, late):
        assert f"'{file.url}': it is gone, and version 0 of the Delta table needs it: " in error.value.message


def test_files_of_a_table_may_lie_elsewhere(tmp_path: Path) -> None:
    """As those of a shallow clone do."""
    action = added(tmp_path / "other place", "a.parquet", X)
    action["add"]["path"] = (tmp_path / "other place" / "a.parquet").as_uri()
    commit(tmp_path / "t", *created([field("x", "long")]), action)
    assert read(look(tmp_path / "t")) == X.to_pylist()


def test_what_only_other_readers_know_is_refused_by_name(tmp_path: Path) -> None:
    commit(tmp_path / "t", *created([field("x", "long")], ["variantShredding-preview"]))
    with pytest.raises(InputError, match="asks its readers for 'variantShredding-preview'") as error:
        look(tmp_path / "t")
    assert error.value.facts["code"] == "TABLE_UNSUPPORTED"
    commit(tmp_path / "u", *created([field("x", "long")], ["madeUp"]))
    with pytest.raises(InputError, match=r"deltalake says: .*'madeUp'") as error:
        look(tmp_path / "u")
    assert error.value.facts["code"] == "TABLE_UNREADABLE"


def test_a_folder_without_a_table_and_a_table_without_files_are_no_input(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", X)
    DeltaTable(tmp_path / "t").delete()
    for table in ("t", "nothing"):
        with pytest.raises(InputError) as error:
            look(tmp_path / table)
        assert error.value.facts["code"] == "NO_INPUT"


def test_the_job_may_say_the_types_of_the_table_and_no_others(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", X)
    assert look(tmp_path / "t", schema={"x": "int64"}).job.input.types == {}
    with pytest.raises(BindingError) as error:
        look(tmp_path / "t", schema={"x": "int32", "z": "text"})
    assert "column 'x' is int64, and `input.schema.x` says int32" in error.value.message
    assert "column 'z' of `input.schema` is not in the table: it has 'x'" in error.value.message


@pytest.mark.parametrize(
    ("given", "story"),
    [
        ({"partitions": "hive"}, "'partitions' is of files"),
        ({"format": "arrow"}, "a table is of parquet files, and the format is 'arrow'"),
        ({"snapshot": 5}, "'snapshot' is of a table; expected 'iceberg' beside it"),
    ],
)
def test_keys_that_do_not_go_with_a_table_are_refused(tmp_path: Path, given: dict[str, Any], story: str) -> None:
    with pytest.raises(ValueError, match=story):
        look(tmp_path, **given)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deltalake", None)
    with pytest.raises(JobError, match=r"pip install 'savedmodel-runner\[delta\]'"):
        look(tmp_path / "t")


def test_a_table_on_s3_is_reached_with_the_options_of_the_job(
    tmp_path: Path, s3_options: dict[str, Any], s3_server: Any
) -> None:
    first = added(tmp_path / "t", "a b.parquet", X)
    first["add"]["path"] = "a%20b.parquet"
    commit(tmp_path / "t", *created([field("x", "long")], ["deletionVectors"]), first)
    commit(tmp_path / "t", *without(first, [1]))
    for path in (tmp_path / "t").rglob("*.*"):
        s3_server.put(f"lake/home/{path.relative_to(tmp_path)}", path.read_bytes())
    seen = look("s3://lake/home/t", options=s3_options)
    (file,) = planned(seen, "x")
    assert (file.url, file.row_groups[0].rows) == ("s3://lake/home/t/a b.parquet", 1)
    assert [row["x"] for row in rows(seen, "x")] == [0, 2, 3, 4, 5]
    with pytest.raises(InputError) as error:
        look("s3://lake/home/other", options=s3_options)
    assert error.value.facts["code"] == "NO_INPUT"
    with pytest.raises(InputError, match="its log has the versions 0 to 1"):
        look("s3://lake/home/t", options=s3_options, version=5)


def test_what_a_file_says_of_its_values_is_told_of_columns_that_it_hands_on_under_their_new_names(
    tmp_path: Path,
) -> None:
    fields = [field("b", "long", 1, "a"), field("a", "long", 2, "b"), field("w", "long", 3, "w")]
    old = pa.table({"a": [1, 2], "b": [8, 9], "w": pa.array([5, 6], pa.int32())})
    mapping = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "3"}
    commit(
        tmp_path / "t",
        *created(fields, ["columnMapping"], (), mapping),
        added(tmp_path / "t", "a.parquet", old),
    )
    seen = look(tmp_path / "t")
    source = seen.source
    assert isinstance(source, Measuring)
    ways = [("a",), ("b",), ("w",)]
    _, _, (spans,) = source.measured(Store(str(tmp_path)), seen.files[0], ["a", "b", "w"], lambda schema: ways)
    told = {way: (span.low.as_py(), span.high.as_py()) for way, span in spans.items()}  # type: ignore[union-attr]
    assert told == {("a",): (8, 9), ("b",): (1, 2)}
