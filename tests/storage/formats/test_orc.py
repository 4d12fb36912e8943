"""ORC files: stripes are row groups, known from the tail alone."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.orc as orc
import pytest
from sources import facts, planned, read, sliced, source

from connectors.formats.fault import DECODE_ERRORS
from connectors.formats.typed import orc as orc_source
from connectors.formats.typed.orc_tail_pb2 import FileTail
from connectors.store.store import FileStat, Store
from jobs.errors import DataError, InputError, RunnerError, StorageError


def encoded(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    orc.write_table(table, file, **options)
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def put(store: Store, content: bytes) -> str:
    path = Path(store.url) / "f.orc"
    path.write_bytes(content)
    return str(path)


def numbers(rows: int = 60_000) -> pa.Table:
    return pa.table({"id": np.arange(rows), "x": np.random.default_rng(0).random(rows)})


def test_stripes_are_row_groups_whose_rows_are_known_without_their_bytes(store: Store) -> None:
    url = put(store, encoded(numbers(), stripe_size=2**18))
    file, _ = planned(source("orc"), store, url, ["id"])
    stripes = orc.ORCFile(url)
    assert len(file.row_groups) == stripes.nstripes > 2
    assert [group.rows for group in file.row_groups] == [
        stripes.read_stripe(n).num_rows for n in range(stripes.nstripes)
    ]
    assert [group.bytes for group in file.row_groups] == [group.rows * 8 for group in file.row_groups]
    assert all(group.exact for group in file.row_groups)


def test_planned_bytes_are_those_of_what_is_decoded(store: Store) -> None:
    table = pa.table(
        {"s": [str(i) for i in range(9000)], "l": [[i] * (i % 3) for i in range(9000)], "b": [True] * 9000}
    )
    url = put(store, encoded(table))
    file, _ = planned(source("orc"), store, url, table.column_names)
    found = read(source("orc"), store, url, table.column_names)
    assert file.row_groups[0].bytes == pytest.approx(found.nbytes, rel=0.05)
    assert not file.row_groups[0].exact


@pytest.mark.parametrize("compression", ["uncompressed", "snappy", "zlib", "lz4", "zstd"])
def test_each_codec_is_read(store: Store, compression: str) -> None:
    url = put(store, encoded(numbers(500), compression=compression))
    assert read(source("orc"), store, url, ["x", "id"]).equals(numbers(500).select(["x", "id"]))


def test_types_are_those_of_the_file(store: Store) -> None:
    moment = dt.datetime(2026, 11, 30, 1, 2, 3, 456789)
    table = pa.table(
        {
            "i8": pa.array([1, None], pa.int8()),
            "date": pa.array([dt.date(1600, 1, 1), None]),
            "when": pa.array([moment, None], pa.timestamp("us")),
            "instant": pa.array([moment, None], pa.timestamp("us", "UTC")),
            "cost": pa.array([None, 3], pa.decimal128(38, 2)),
            "bytes": pa.array([b"\0\xff", None], pa.binary(2)),
            "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int32())),
            "struct": [{"a": 1, "b": ["x", None]}, None],
        }
    )
    found = read(source("orc"), store, put(store, encoded(table)), table.column_names)
    assert [str(kind) for kind in found.schema.types[:6]] == [
        *("int8", "date32[day]", "timestamp[ns]", "timestamp[ns, tz=UTC]", "decimal128(38, 2)", "binary")
    ]
    assert found.cast(table.schema).equals(table)


@pytest.mark.parametrize("order", [["a", "a.b"], ["a.b", "a"]])
@pytest.mark.parametrize("wanted", [["a.b"], ["a"], ["a.b", "a"]])
def test_the_exact_name_is_read_wherever_a_struct_has_a_field_of_that_path(
    store: Store, order: list[str], wanted: list[str]
) -> None:
    table = pa.table({"a": [{"b": 1, "c": 2}], "a.b": ["x"]}).select(order)
    assert read(source("orc"), store, put(store, encoded(table)), wanted).equals(table.select(wanted))


def test_timestamps_that_pyarrow_cannot_hold_are_named(store: Store) -> None:
    table = pa.table({"t": pa.array([dt.datetime(9999, 1, 1)], pa.timestamp("us"))})
    with pytest.raises(DataError, match="nanoseconds, of the years 1678 to 2261") as caught:
        read(source("orc"), store, put(store, encoded(table)), ["t"])
    assert facts(caught.value)["code"] == "FILE_UNSUPPORTED"


def of_java(table: pa.Table) -> bytes:
    """A file that says that its dates are of the old calendar, in the place of who wrote it."""
    content = encoded(table, compression="uncompressed")
    assert content.count(b"\x48\x01\x62\x05") == 1
    return content.replace(b"\x48\x01\x62\x05", b"\x58\x01\x62\x05")


def test_dates_of_the_old_calendar_of_java_keep_their_year_month_and_day(store: Store) -> None:
    days = [-171595, 2932896, -719164, None, -141427, -141428, -171596]  # as Spark 4.3 writes these dates
    table = pa.table({"d": pa.array(days, pa.int32()).cast(pa.date32()), "n": range(len(days))})
    old = read(source("orc"), store, put(store, of_java(table)), ["n", "d"])["d"].to_pylist()
    first = [dt.date(1500, 3, 1), dt.date(9999, 12, 31), dt.date(1, 1, 1), None, dt.date(1582, 10, 15)]
    assert old == [*first, dt.date(1582, 10, 4), dt.date(1500, 3, 1)]
    same = read(source("orc"), store, put(store, encoded(table)), ["d"])
    assert same.equals(table.select(["d"])), "pyarrow's own files count as Arrow does"


@pytest.mark.parametrize("kind", [pa.list_(pa.date32()), pa.struct([("x", pa.date32())]), pa.map_("int8", pa.date32())])
def test_an_old_date_inside_of_another_value_is_refused(store: Store, kind: pa.DataType) -> None:
    def made(date: dt.date) -> pa.Table:
        value = {"x": date} if pa.types.is_struct(kind) else [(1, date)] if pa.types.is_map(kind) else [date]
        return pa.table({"v": pa.array([value, None], kind)})

    with pytest.raises(DataError, match="column 'v' has a date before 1582-10-15 inside of another value"):
        read(source("orc"), store, put(store, of_java(made(dt.date(1500, 3, 11)))), ["v"])
    new = made(dt.date(2024, 2, 29))
    assert read(source("orc"), store, put(store, of_java(new)), ["v"]).to_pylist() == new.to_pylist()


def test_a_file_without_rows_has_no_row_groups(store: Store) -> None:
    url = put(store, encoded(numbers(0)))
    file, schema = planned(source("orc"), store, url, ["id"])
    assert (file.row_groups, schema) == ((), numbers(0).schema)


def test_rows_are_counted_where_no_column_is_read(store: Store) -> None:
    assert read(source("orc"), store, put(store, encoded(numbers(70))), []).num_rows == 70


def test_a_row_group_larger_than_allowed_is_refused_before_it_is_decoded(store: Store) -> None:
    url = put(store, encoded(numbers(5000)))
    made = source("orc")
    made.max_row_group_bytes = 1000
    with pytest.raises(DataError, match="40,000 bytes when decoded; the limit is 1,000") as caught:
        read(made, store, url, ["x"])
    assert facts(caught.value)["code"] == "ROWGROUP_TOO_BIG"


def test_a_damaged_stripe_is_told_with_its_row_group(store: Store) -> None:
    content = bytearray(encoded(numbers(), stripe_size=2**18, compression="zlib"))
    tail = FileTail.FromString(orc.ORCFile(io.BytesIO(content)).reader.serialized_file_tail()).footer
    start = tail.stripes[1].offset + tail.stripes[1].index_length
    content[start : start + 4000] = bytes(4000)
    url, made = put(store, bytes(content)), source("orc")
    file, _ = planned(made, store, url, ["id", "x"])
    with made.open(store, sliced(file), ["id", "x"]) as reader:
        assert reader.read(0).num_rows == file.row_groups[0].rows
        with pytest.raises(DataError) as caught:
            reader.read(1)
    assert facts(caught.value) == {"code": "PAGE_CORRUPT", "file": url, "row_group": 1}


@pytest.mark.parametrize("keep", [4, 100, -30, -1])
def test_a_file_without_its_end_is_truncated(store: Store, keep: int) -> None:
    url = put(store, encoded(numbers(500))[:keep])
    with pytest.raises(InputError) as caught:
        planned(source("orc"), store, url, ["id"])
    assert facts(caught.value) == {"code": "FILE_TRUNCATED", "file": url}


def test_any_damage_of_the_tail_is_an_error_with_a_code_or_none_at_all(store: Store) -> None:
    whole, codes = encoded(numbers(50)), set()
    for at in range(len(whole) - 250, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x15
        try:
            assert read(source("orc"), store, put(store, bytes(damaged)), ["id"]).num_rows == 50
        except RunnerError as error:
            codes.add(facts(error)["code"])
    assert (
        {"FILE_FOOTER", "FILE_TRUNCATED"}
        < codes
        <= {
            *("FILE_FOOTER", "FILE_TRUNCATED", "FILE_SCHEMA", "FILE_UNSUPPORTED", "FILE_ENCRYPTED"),
            *("PAGE_CORRUPT", "COLUMN_MISSING", "ROWGROUP_ROWS", "ROWGROUP_TOO_BIG"),
        }
    )


@pytest.mark.parametrize("whole_stripe_bytes", [0, 2**23])
def test_bytes_that_cannot_be_fetched_are_a_storage_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, whole_stripe_bytes: int
) -> None:
    monkeypatch.setattr(orc_source, "_WHOLE_STRIPE_BYTES", whole_stripe_bytes)
    wide = numbers().append_column("y", [["y"] * 60_000])
    made, url = source("orc"), put(store, encoded(wide))
    file, _ = planned(made, store, url, ["x"])
    with made.open(store, sliced(file), ["x"]) as reader:
        opened, reader._held._file = reader._held._file, _Failing()
        with pytest.raises(StorageError, match="Input/output error"):
            reader.read(0)
        reader._held._file = opened
    whole = encoded(numbers())
    assert not issubclass(StorageError, DECODE_ERRORS)
    with pytest.raises(StorageError):
        source("orc").inspect(_Broken(), FileStat("f", len(whole), "1"), ["x"])


class _Failing(io.BytesIO):
    def readinto(self, buffer: Any) -> int:
        raise OSError(5, "Input/output error")


class _Broken:
    def open(self, path: str, planned: FileStat | None = None) -> Any:
        return _Failing()
