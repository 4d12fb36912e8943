"""INT96 timestamps: a Julian day and nanoseconds, of which 64 bits hold a part; never another instant."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.formats import parquet
from connectors.formats.fault import BadRowsError
from connectors.formats.parquet import ParquetSource
from connectors.store.store import Store
from jobs.attempt import InputSlice

EPOCH, DAY_NS = 2440588, 86_400 * 10**9
YEAR_1, YEAR_9999 = (1721426, 0), (5373484, DAY_NS - 1000)
FAR = (2**32 - 1, 0)  # of Julian days: 11 million years from here
A_NANOSECOND = (EPOCH, 1)
BEFORE = (EPOCH - 1, DAY_NS - 1000)  # a microsecond before 1970


def patched(content: bytes, instants: Sequence[tuple[int, int] | None]) -> bytes:
    """instants: (Julian day, nanoseconds) in the place of each timestamp that `encoded` numbered."""
    for index, instant in enumerate(instants):
        if instant is not None:
            old, new = struct.pack("<qI", _mark(index) * 1000, EPOCH), struct.pack("<qI", instant[1], instant[0])
            assert content.count(old) == 1
            content = content.replace(old, new)
    return content


def _mark(index: int) -> int:
    return 7_000_003 * (index + 1)  # microseconds


def encoded(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    fixed = {"use_dictionary": False, "compression": "none", "use_deprecated_int96_timestamps": True}
    with pq.ParquetWriter(file, table.schema, **{"store_schema": False, **fixed}) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(options)
    return file.getvalue()


def of(*instants: tuple[int, int] | None, unit: str = "us", metadata: dict[str, str] | None = None) -> bytes:
    marks = [None if one is None else _mark(index) for index, one in enumerate(instants)]
    table = pa.table({"id": range(len(instants)), "at": pa.array(marks, pa.timestamp("us"))})
    return patched(encoded(table, **(metadata or {})), instants)


def read(content: bytes, folder: Path, *columns: str) -> pa.Table:
    path = folder / "f.parquet"
    path.write_bytes(content)
    store, source = Store(str(folder)), ParquetSource()
    file, schema = source.inspect(store, store.stat(str(path)), columns)
    rows = tuple(group.rows for group in file.row_groups)
    with source.open(store, InputSlice(0, str(path), file.size, file.version, 0, rows), columns) as reader:
        table = reader.read(0)
    assert table.schema.equals(schema.empty_table().select(list(columns)).schema)
    return table


def bad_rows(content: bytes, folder: Path, *columns: str) -> BadRowsError:
    with pytest.raises(BadRowsError) as caught:
        read(content, folder, *columns)
    return caught.value


def numbers(column: Any) -> list[int | None]:
    found: list[int | None] = column.cast(pa.int64()).to_pylist()
    return found


def test_far_dates_are_read_as_the_instants_that_they_are(tmp_path: Path) -> None:
    table = read(of(YEAR_1, None, YEAR_9999, BEFORE, (EPOCH, 0)), tmp_path, "at")
    assert table.schema.field("at").type == pa.timestamp("us")
    assert numbers(table["at"]) == [-62_135_596_800_000_000, None, 253_402_300_799_999_999, -1, 0]


def test_an_instant_that_64_bits_do_not_hold_is_a_bad_row(tmp_path: Path) -> None:
    error = bad_rows(of(YEAR_1, FAR, YEAR_9999), tmp_path, "id", "at")
    assert [(one.code, one.column, one.at.tolist()) for one in error.bad] == [("ROW_OVERFLOW", "at", [1])]
    assert error.table["id"].to_pylist() == [0, 1, 2]
    assert numbers(error.table["at"]) == [-62_135_596_800_000_000, None, 253_402_300_799_999_999]
    assert "row group 0: column 'at': found an INT96 timestamp outside of the years -290307 to 294246" in error.message


def test_digits_below_a_microsecond_are_a_bad_row_and_not_cut_off(tmp_path: Path) -> None:
    error = bad_rows(of(YEAR_9999, A_NANOSECOND, FAR), tmp_path, "at")
    assert [(one.code, one.at.tolist()) for one in error.bad] == [("ROW_OVERFLOW", [2]), ("ROW_INEXACT", [1])]


def stated(unit: str) -> dict[str, str]:
    schema = pa.schema([("id", pa.int64()), ("at", pa.timestamp(unit))])
    return {"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes()).decode()}

    return base64.b64encode(schema.serialize().to_pybytes()).decode()


PANDAS = {"pandas": json.dumps({"columns": [{"name": "at", "numpy_type": "datetime64[ns]"}]})}


@pytest.mark.parametrize("metadata", [stated("ns"), PANDAS], ids=["Arrow", "pandas"])
def test_a_file_that_states_nanoseconds_is_read_in_nanoseconds(tmp_path: Path, metadata: dict[str, str]) -> None:
    table = read(of(A_NANOSECOND, BEFORE, None, metadata=metadata), tmp_path, "at")
    assert (table.schema.field("at").type, numbers(table["at"])) == (pa.timestamp("ns"), [1, -1000, None])
    error = bad_rows(of(A_NANOSECOND, YEAR_9999, metadata=metadata), tmp_path, "at")
    assert [(one.code, one.at.tolist()) for one in error.bad] == [("ROW_OVERFLOW", [1])]
    assert numbers(error.table["at"]) == [1, None]


@pytest.mark.parametrize("metadata", [stated("us"), {"pandas": "[1]"}, {"pandas": "{"}])
def test_other_metadata_states_no_nanoseconds(tmp_path: Path, metadata: dict[str, str]) -> None:
    assert numbers(read(of(YEAR_9999, metadata=metadata), tmp_path, "at")["at"]) == [253_402_300_799_999_999]


def test_timestamps_inside_of_lists_and_structs_blame_their_row(tmp_path: Path) -> None:
    marks = iter(range(9))
    day = pa.timestamp("us")

    def mark() -> int:
        return _mark(next(marks))

    table = pa.table(
        {
            "list": pa.array([[mark(), mark()], None, [], [None, mark()]], pa.list_(day)),
            "struct": pa.array([{"x": {"t": mark()}}, None, {"x": None}, {"x": {"t": None}}]).cast(
                pa.struct([("x", pa.struct([("t", day)]))])
            ),
            "map": pa.array([[("k", mark())], [("k", mark()), ("l", mark())], None, []], pa.map_(pa.string(), day)),
        }
    )
    good = [YEAR_1] * 7
    content = encoded(table)
    assert read(patched(content, good), tmp_path, *table.column_names).num_rows == 4
    for index, column, row in [(1, "list", 0), (2, "list", 3), (3, "struct", 0), (6, "map", 1)]:
        error = bad_rows(patched(content, [*good[:index], FAR, *good[index + 1 :]]), tmp_path, *table.column_names)
        assert [(one.column, one.at.tolist()) for one in error.bad] == [(column, [row])]
        assert error.table[column].is_null().to_pylist() == [
            table[column][at].as_py() is None or at == row for at in range(4)
        ]


def test_a_row_with_two_bad_columns_is_bad_once(tmp_path: Path) -> None:
    table = pa.table(
        {name: pa.array([_mark(at), _mark(at + 1)], pa.timestamp("us")) for at, name in ((0, "a"), (2, "b"))}
    )
    error = bad_rows(patched(encoded(table), [FAR, YEAR_1, FAR, FAR]), tmp_path, "b", "a")
    assert [(one.column, one.at.tolist()) for one in error.bad] == [("a", [0]), ("b", [1])]


def test_rows_that_are_decoded_in_parts_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "PIECE_BYTES", 100)
    table = pa.table({"a": pa.array([[_mark(at)] for at in range(40)], pa.list_(pa.timestamp("us")))})
    error = bad_rows(patched(encoded(table), [FAR if at in (1, 33) else YEAR_1 for at in range(40)]), tmp_path, "a")
    assert error.at.tolist() == [1, 33]
    assert error.rest().num_rows == 38


def test_timestamps_of_64_bits_keep_their_unit_beside_int96(tmp_path: Path) -> None:
    content = of(YEAR_9999)
    plain = pa.table({"id": [0], "at": pa.array([5], pa.timestamp("ns"))})
    source, store = ParquetSource(), Store(str(tmp_path))
    sink = io.BytesIO()
    pq.write_table(plain, sink, store_schema=False)
    kinds = []
    for name, one in (
        ("a", sink.getvalue()),
        ("b", content),
        ("c", sink.getvalue()),
        ("d", of(BEFORE, metadata=PANDAS)),
    ):
        (tmp_path / f"{name}.parquet").write_bytes(one)
        kinds.append(source.schema(store, store.stat(str(tmp_path / f"{name}.parquet"))).field("at").type.unit)
    assert kinds == ["ns", "us", "ns", "ns"]
