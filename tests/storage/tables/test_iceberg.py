"""Iceberg tables: the rows are those that pyiceberg itself reads."""

from __future__ import annotations

import datetime
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from iceberg_tables import catalog, commit_deletes, delete_file, positional, properties, puffin
from pyiceberg.manifest import DataFileContent
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import IntegerType, ListType, LongType, MapType, NestedField, StringType, StructType
from pyiceberg.utils.config import Config
from table_rows import planned, rows

from jobs.errors import InputError, JobError
from jobs.job import Job
from runner.preflight.input.listing import Listed, found

X = pa.table({"x": pa.array(range(6), pa.int64()), "s": list("abcdef")})


def look(home: Path, name: str = "cat.ns.t", **given: Any) -> Listed:
    said: dict[str, Any] = {"iceberg": name, "catalog": properties(home), **given}
    document = {"model": {"url": "m"}, "input": said, "output": {"url": f"{home}/out"}}
    return found(Job.model_validate(document))[1]


def read(seen: Listed, *columns: str) -> list[dict[str, Any]]:
    names = columns or tuple(seen.source.schema(None, None).names)  # type: ignore[arg-type]
    return sorted(rows(seen, *names), key=lambda row: row.get("x", 0))


def told(table: Table, **given: Any) -> list[dict[str, Any]]:
    return sorted(table.scan(**given).to_arrow().to_pylist(), key=lambda row: row["x"])


def data_files(table: Table) -> list[str]:
    return sorted(task.file.file_path for task in table.scan().plan_files())


def made(home: Path, *tables: pa.Table, **given: Any) -> Table:
    table = catalog(home).create_table("ns.t", schema=tables[0].schema, **given)
    for one in tables:
        table.append(one)
    return table


def test_a_table_is_found_by_its_catalog_and_by_its_metadata(tmp_path: Path) -> None:
    table = made(tmp_path, X, X)
    assert read(look(tmp_path)) == told(table)
    alone = look(tmp_path, table.metadata_location, catalog={})
    assert rows(alone, "s") == rows(look(tmp_path), "s")
    assert alone.job.input.rows["snapshot"] == table.current_snapshot().snapshot_id  # type: ignore[union-attr]


def test_without_properties_the_configuration_of_pyiceberg_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = made(tmp_path, X)
    for name, value in properties(tmp_path).items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__CAT__{name.upper()}", value)
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # which is read on import
    assert read(look(tmp_path, catalog={})) == told(table)


@pytest.mark.parametrize("kind", ["parquet", "puffin"])
def test_rows_that_are_deleted_by_their_places_are_in_no_plan(tmp_path: Path, kind: str) -> None:
    table = made(tmp_path, X, X, properties={"write.parquet.row-group-limit": "2"})
    first, second = data_files(table)
    write, path = (positional, tmp_path / "d.parquet") if kind == "parquet" else (puffin, tmp_path / "d.puffin")
    before = table.current_snapshot().snapshot_id  # type: ignore[union-attr]
    for number, gone in enumerate(({first: [0, 2, 3]}, {first: [2], second: [5]})):
        file = path.with_stem(f"d{number}")
        commit_deletes(table, delete_file(table, file, write(file, gone), None, DataFileContent.POSITION_DELETES))
    assert read(look(tmp_path)) == told(table)
    assert [row["x"] for row in rows(look(tmp_path), "x")] == [1, 4, 5, 0, 1, 2, 3, 4]
    groups = [[group.rows for group in file.row_groups] for file in planned(look(tmp_path), "x")]
    assert groups == [[1, 0, 2], [2, 2, 1]]
    assert len(rows(look(tmp_path, snapshot=before), "x")) == 12


def test_equality_deletes_are_refused_by_name(tmp_path: Path) -> None:
    table = made(tmp_path, X)
    file = tmp_path / "e.parquet"
    pq.write_table(X.select(["x"]).slice(0, 1), file)
    commit_deletes(table, delete_file(table, file, 1, None, DataFileContent.EQUALITY_DELETES))
    with pytest.raises(InputError) as error:
        look(tmp_path)
    assert error.value.facts["code"] == "TABLE_UNSUPPORTED"
    assert error.value.message == (
        "cannot read the Iceberg table 'cat.ns.t': it has equality deletes, which are not applied: compact the table,"
        " or write a copy"
    )


def test_columns_have_their_new_names_and_types_in_old_files(tmp_path: Path) -> None:
    """Names change places, so that a reader that goes by names gives others."""

    def pair(first: int) -> StructType:
        return StructType(
            NestedField(first, "a", IntegerType(), required=False),
            NestedField(first + 1, "b", LongType(), required=False),
        )

    schema = Schema(
        NestedField(1, "x", IntegerType(), required=False),
        NestedField(2, "p", StringType(), required=False),
        NestedField(3, "q", StringType(), required=False),
        NestedField(4, "s", pair(10), required=False),
        NestedField(5, "l", ListType(20, pair(21), element_required=False), required=False),
        NestedField(6, "m", MapType(30, StringType(), 31, pair(32), value_required=False), required=False),
    )
    table = catalog(tmp_path).create_table("ns.t", schema=schema)
    one = {"a": 1, "b": 2}
    values = {"x": [1, 2], "p": ["p1", None], "q": ["q1", "q2"], "s": [one, None], "l": [[one, None], None]}
    table.append(pa.table({**values, "m": [[("k", one)], None]}, schema=table.schema().as_arrow()))
    with table.update_schema() as change:
        change.rename_column("p", "tmp")
        change.update_column("x", LongType())
        change.add_column("new", LongType())
        for path in ("s", "l.element", "m.value"):
            change.rename_column(f"{path}.a", "tmp")
    with table.update_schema() as change:
        change.rename_column("q", "p")
        for path in ("s", "l.element", "m.value"):
            change.rename_column(f"{path}.b", "a")
            change.update_column(f"{path}.tmp", LongType())
    with table.update_schema() as change:
        change.rename_column("tmp", "q")
        for path in ("s", "l.element", "m.value"):
            change.rename_column(f"{path}.tmp", "b")
            change.move_first(f"{path}.a")
    assert read(look(tmp_path)) == told(table)
    first = read(look(tmp_path))[0]
    assert {name: first[name] for name in "pqsl"} == {
        "p": "q1",
        "q": "p1",
        "s": {"a": 2, "b": 1},
        "l": [first["s"], None],
    }
    assert rows(look(tmp_path), "new") == [{"new": None}] * 2


def test_values_of_partitions_are_those_of_files_that_lack_the_column(tmp_path: Path) -> None:
    """As a migrated Hive table has them; specs may follow one another."""
    kinds = {
        "day": (pa.date32(), datetime.date(2026, 11, 1)),
        "at": (pa.timestamp("us"), datetime.datetime(2026, 11, 1, 8, 30, 0, 5)),
        "zoned": (pa.timestamp("us", "UTC"), datetime.datetime(2026, 11, 1, 8, 30, tzinfo=datetime.UTC)),
        "price": (pa.decimal128(10, 2), Decimal("-1.50")),
        "yes": (pa.bool_(), True),
        "city": (pa.string(), "a/b %é"),
        "n": (pa.int32(), -7),
    }
    whole = pa.schema([pa.field("x", pa.int64()), *(pa.field(name, kind) for name, (kind, _) in kinds.items())])
    table = made(tmp_path, whole.empty_table(), properties={"schema.name-mapping.default": "[]"})
    with table.update_spec() as change:
        for name in kinds:
            change.add_identity(name)
    full = pa.table({"x": pa.array([1, 2], pa.int64()), **{n: pa.array([v] * 2, k) for n, (k, v) in kinds.items()}})
    table.append(full)
    (path,) = (name.removeprefix("file://") for name in data_files(table))
    pq.write_table(pq.ParquetFile(path).read().select(["x"]), path)  # with the ids that it had
    file = _resized(table, Path(path))
    assert rows(file, "x", *kinds) == told(table) == full.to_pylist()
    with table.update_spec() as change:
        change.remove_field("city")
    table.append(full.set_column(0, "x", pa.array([3, 4], pa.int64())))
    assert [row["city"] for row in rows(_resized(table, Path(path)), "x", "city")] == ["a/b %é"] * 4


def _resized(table: Table, path: Path) -> Listed:
    """What is found where a file of the table was written again by the test."""
    home = Path(str(table.location()).removeprefix("file://")).parents[2]
    seen = look(home)
    files = [
        type(one)(one.url, path.stat().st_size if one.url == str(path) else one.size, "", "", one.values)
        for one in seen.files
    ]
    return Listed(seen.job, seen.source, files, {})


def test_files_without_ids_are_read_by_the_name_mapping_or_refused(tmp_path: Path) -> None:
    pq.write_table(X, tmp_path / "a.parquet")
    table = made(tmp_path, X.slice(0, 0))
    table.add_files([(tmp_path / "a.parquet").as_uri()])  # which sets a mapping
    with table.update_schema() as change:
        change.rename_column("s", "text")
    assert read(look(tmp_path)) == told(table)
    assert read(look(tmp_path), "text")[0] == {"text": "a"}
    with table.transaction() as change:
        change.remove_properties("schema.name-mapping.default")
    with pytest.raises(InputError) as error:
        rows(look(tmp_path), "x")
    assert error.value.facts["code"] == "TABLE_UNSUPPORTED"
    assert "it has no field ids, and the table no name mapping" in error.value.message


def test_a_snapshot_has_the_rows_and_the_names_that_it_had(tmp_path: Path) -> None:
    table = made(tmp_path, X)
    first = table.current_snapshot().snapshot_id  # type: ignore[union-attr]
    with table.update_schema() as change:
        change.rename_column("s", "text")
    table.append(X.rename_columns(["x", "text"]))
    old = look(tmp_path, snapshot=first)
    assert read(old) == told(table, snapshot_id=first) == X.to_pylist()
    assert read(look(tmp_path)) == told(table)
    assert old.job.input.rows == {"iceberg": "cat.ns.t", "snapshot": first, "table_schema": 0}
    assert look(tmp_path).job.input.rows["table_schema"] == 1


def test_a_snapshot_that_is_gone_names_those_that_are_there(tmp_path: Path) -> None:
    table = made(tmp_path, X, X)
    first, second = (one.snapshot_id for one in table.snapshots())
    with pytest.raises(InputError) as error:
        look(tmp_path, snapshot=7)
    assert error.value.facts["code"] == "TABLE_GONE"
    assert f"cannot read snapshot 7 of the Iceberg table 'cat.ns.t': it has '{second}', '{first}', the newest" in str(
        error.value
    )


def test_a_data_file_that_is_gone_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    table = made(tmp_path, X)
    Path(data_files(table)[0].removeprefix("file://")).unlink()
    with pytest.raises(InputError, match=r"it is gone, and snapshot \d+ of the Iceberg table needs it") as error:
        rows(look(tmp_path), "x")
    assert error.value.facts["code"] == "TABLE_GONE"


@pytest.mark.parametrize(
    ("name", "code", "story"),
    [
        ("cat.ns.other", "NO_INPUT", "Table does not exist: ns.other"),
        ("cat.no.t", "NO_INPUT", "does not exist"),
        ("t", "NO_INPUT", "expected CATALOG.NAMESPACE.TABLE, or the url of a metadata file"),
        ("{home}/v1.metadata.json", "NO_INPUT", "{home}/v1.metadata.json"),
    ],
)
def test_what_is_no_table_is_no_input(tmp_path: Path, name: str, code: str, story: str) -> None:
    made(tmp_path, X)
    with pytest.raises(InputError) as error:
        look(tmp_path, name.format(home=tmp_path))
    assert error.value.facts["code"] == code
    assert story.format(home=tmp_path) in error.value.message


def test_a_table_without_a_snapshot_is_no_input(tmp_path: Path) -> None:
    made(tmp_path, X.slice(0, 0)).refresh()
    catalog(tmp_path).create_table("ns.u", schema=X.schema)
    with pytest.raises(InputError, match="it has no snapshot yet"):
        look(tmp_path, "cat.ns.u")


def test_a_catalog_takes_secrets_by_reference_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = made(tmp_path, X)
    with pytest.raises(ValueError, match=r"catalog property 's3\.secret-access-key' holds a literal secret"):
        look(tmp_path, catalog={**properties(tmp_path), "s3.secret-access-key": "hunter2"})
    monkeypatch.setenv("CATALOG_URI", properties(tmp_path)["uri"])
    assert read(look(tmp_path, catalog={**properties(tmp_path), "uri": "env:CATALOG_URI"})) == told(table)
    monkeypatch.setenv("CATALOG_URI", "sqlite:////nowhere-hunter2/x.db")
    with pytest.raises(InputError) as error:
        look(tmp_path, catalog={**properties(tmp_path), "uri": "env:CATALOG_URI"})
    assert "hunter2" not in error.value.message
    assert error.value.facts["code"] == "TABLE_UNREADABLE"


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyiceberg.catalog", "pyiceberg.table"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(JobError, match=r"pip install 'savedmodel-runner\[iceberg\]'"):
        look(tmp_path)
