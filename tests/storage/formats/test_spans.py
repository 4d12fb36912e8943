"""What footers say of values: bounds that can be trusted, of each type; nothing where they cannot."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.formats.base import Span
from connectors.formats.parquet import ParquetSource
from connectors.store.store import Store


def spans(path: Path, *ways: tuple[str, ...]) -> list[dict[tuple[str, ...], Span]]:
    source, store = ParquetSource(), Store(str(path.parent))
    (file,) = store.list([str(path)], [".parquet"]).files
    return list(source.measured(store, file, [way[0] for way in ways], lambda schema: ways)[2])


@pytest.mark.parametrize(
    ("kind", "values", "bounds"),
    [
        (pa.int8(), [-3, None, 4], (-3, 4)),
        (pa.uint32(), [1, 2**32 - 1], (1, 2**32 - 1)),
        (pa.uint64(), [1, 2**64 - 1], (1, 2**64 - 1)),
        (pa.float32(), [0.5, 2.0], (0.5, 2.0)),
        (pa.float64(), [float("nan"), 2.0], (2.0, 2.0)),
        (pa.string(), ["b", "\u00e4"], (b"b", "\u00e4".encode())),
        (pa.decimal128(9, 2), [Decimal("-1.50"), Decimal("2.25")], (Decimal("-1.50"), Decimal("2.25"))),
        (pa.date32(), [date(1969, 12, 31), date(2026, 11, 1)], (date(1969, 12, 31), date(2026, 11, 1))),
        (pa.timestamp("s"), [datetime(2026, 11, 1)] * 2, (datetime(2026, 11, 1), datetime(2026, 11, 1))),
        (pa.bool_(), [True, False], (False, True)),
    ],
)
def test_the_bounds_are_the_least_and_the_largest_value(
    tmp_path: Path, kind: pa.DataType, values: list[Any], bounds: tuple[Any, Any]
) -> None:
    pq.write_table(pa.table({"a": pa.array(values, kind)}), tmp_path / "f.parquet")
    ((span,),) = [[*one.values()] for one in spans(tmp_path / "f.parquet", ("a",))]
    assert span.low is not None
    assert span.high is not None
    assert (span.low.as_py(), span.high.as_py()) == bounds
    assert span.nulls == values.count(None)


def test_a_moment_keeps_its_nanoseconds(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1, 3], pa.timestamp("ns"))}), tmp_path / "f.parquet")
    (found,) = spans(tmp_path / "f.parquet", ("a",))
    low, high = found["a",].low, found["a",].high
    assert low is not None and high is not None  # noqa: PT018
    assert (low.value, high.value, str(low.type)) == (1, 3, "timestamp[ns]")


def test_a_field_of_a_struct_is_found_and_lists_say_nothing(tmp_path: Path) -> None:
    inner = pa.struct([("x", pa.list_(pa.int8())), ("y", pa.int16())])
    table = pa.table({"p": pa.array([1, 2], pa.int8()), "st": pa.array([{"x": [1], "y": 7}, None], inner)})
    pq.write_table(table, tmp_path / "f.parquet")
    (found,) = spans(tmp_path / "f.parquet", ("st", "y"), ("st", "x"), ("st",), ("nope",))
    assert list(found) == [("st", "y")]
    assert (found["st", "y"].low, found["st", "y"].nulls) == (pa.scalar(7, pa.int64()), 1)


@pytest.mark.parametrize("kind", [pa.time32("ms"), pa.float16()])
def test_of_types_without_an_order_that_is_known_only_nulls_are_told(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"a": pa.array([1, None], pa.int32()).cast(kind)})
    pq.write_table(table, tmp_path / "f.parquet")
    (found,) = spans(tmp_path / "f.parquet", ("a",))
    assert found["a",].nulls == 1
    assert found["a",].low is None


def test_a_file_without_statistics_and_int96_say_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "f.parquet", write_statistics=False)
    assert spans(tmp_path / "f.parquet", ("a",)) == [{("a",): Span()}]
    moments = pa.table({"a": pa.array([datetime(2026, 11, 1)])})
    pq.write_table(moments, tmp_path / "i.parquet", use_deprecated_int96_timestamps=True)
    (found,) = spans(tmp_path / "i.parquet", ("a",))
    assert found["a",].low is None


def test_bounds_that_are_too_short_are_not_told_and_end_no_process(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"a": pa.array([0x1122334455667788] * 2)}), path, use_dictionary=False)
    content, value = path.read_bytes(), b"\x08" + (0x1122334455667788).to_bytes(8, "little")  # behind its length
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length : -8]
    assert footer.count(value) >= 2
    short = footer.replace(value, b"\x03abc")
    path.write_bytes(content[: -8 - length] + short + len(short).to_bytes(4, "little") + b"PAR1")
    (found,) = spans(path, ("a",))
    assert found.get(("a",), Span()).low is None
