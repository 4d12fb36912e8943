"""What a format can hold: what is said before the work is what happens with real rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.formats.registry import make_encoder
from connectors.output.rehearsal import nulls, rehearse

NOTHING = pa.list_(pa.float32(), 0)
UNION = [pa.field("a", pa.int32()), pa.field("b", pa.string())]
HELD = [
    *(pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.bool_(), pa.string(), pa.large_binary(), pa.binary(3)),
    *(pa.decimal128(10, 2), pa.date32(), pa.timestamp("ns", "UTC"), pa.duration("us"), pa.null(), pa.uuid()),
    *(pa.list_(pa.float32()), pa.list_(pa.float32(), 3), pa.fixed_shape_tensor(pa.float32(), (2, 3))),
    *(pa.list_(pa.list_(pa.int64(), 2)), pa.list_(pa.list_(pa.int64()), 2), pa.map_(pa.string(), pa.int32())),
    pa.list_(pa.field("item", pa.float32(), nullable=False), 3),
    pa.struct([pa.field("re", pa.float32(), nullable=False)]),
    pa.map_(pa.string(), pa.dictionary(pa.int8(), pa.string())),
]
# Parquet: written without a word, and never read again.
UNREADABLE = [
    *(NOTHING, pa.fixed_shape_tensor(pa.float32(), (0,)), pa.fixed_shape_tensor(pa.float32(), (2, 0))),
    *(pa.list_(NOTHING), pa.list_(NOTHING, 2), pa.struct([("a", NOTHING)]), pa.map_(pa.string(), NOTHING)),
]
UNWRITABLE = [
    *(pa.binary(0), pa.struct([]), pa.month_day_nano_interval(), pa.dense_union(UNION), pa.sparse_union(UNION)),
    *(pa.list_(pa.binary(0)), pa.struct([("a", pa.struct([]))]), pa.list_(pa.month_day_nano_interval())),
]
RUNS = pa.list_(pa.run_end_encoded(pa.int32(), pa.int64()))


def said(name: str, kind: pa.DataType) -> tuple[str, pa.DataType | None]:
    """Why `kind` is refused, and as what it is read otherwise."""
    found = rehearse(make_encoder(name), pa.schema([("c", kind)]))
    return found.refused.get("c", ""), found.changed.get("c")


@pytest.mark.parametrize("kind", HELD, ids=str)
@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_a_type_that_is_read_as_it_was_written_passes(name: str, kind: pa.DataType) -> None:
    assert said(name, kind) == ("", None)


@pytest.mark.parametrize("kind", UNREADABLE, ids=str)
def test_what_parquet_writes_and_nobody_reads_is_refused_and_arrow_holds_it(kind: pa.DataType) -> None:
    assert said("parquet", kind)[0].startswith("it could be written, and not be read again: ")
    assert said("arrow", kind) == ("", None)


@pytest.mark.parametrize("kind", UNWRITABLE, ids=str)
def test_what_parquet_does_not_write_is_refused_and_arrow_holds_it(kind: pa.DataType) -> None:
    assert said("parquet", kind)[0].startswith("it cannot be written: ")
    assert said("arrow", kind) == ("", None)


@pytest.mark.parametrize("name", ["parquet", "arrow", "tfrecord"])
def test_rows_that_cannot_be_picked_out_of_others_are_refused(name: str) -> None:
    assert said(name, RUNS)[0].startswith("its rows cannot be picked out of others: ")


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (pa.time32("s"), pa.time32("ms")),
        (pa.date64(), pa.date32()),
        (pa.timestamp("s", "UTC"), pa.timestamp("ms", "UTC")),
        (pa.list_(pa.time32("s")), pa.list_(pa.time32("ms"))),
    ],
    ids=str,
)
def test_a_type_that_comes_back_as_another_is_told(kind: pa.DataType, read: pa.DataType) -> None:
    assert said("parquet", kind) == ("", read)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([pa.nulls(1, kind)], ["c"]), sink)
    assert pq.read_table(pa.BufferReader(sink.getvalue())).schema.field("c").type == read, "what other readers see"


def test_the_reader_that_users_call_agrees() -> None:
    def written(table: pa.Table) -> pa.BufferReader:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        return pa.BufferReader(sink.getvalue())

    held = pa.table([nulls(kind, 2) for kind in HELD], [str(number) for number in range(len(HELD))])
    assert pq.read_table(written(held)).equals(held)
    with pytest.raises(pa.ArrowInvalid, match="Expected all lists to be of size=0"):
        pq.read_table(written(pa.table({"z": pa.array([[], []], NOTHING)})))


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (pa.float64(), pa.float32()),
        (pa.int32(), pa.int64()),
        (pa.bool_(), pa.int64()),
        (pa.string(), pa.binary()),
        (pa.fixed_shape_tensor(pa.float32(), (2,)), pa.list_(pa.field("item", pa.float32(), nullable=False))),
        (NOTHING, pa.list_(pa.field("item", pa.float32(), nullable=False))),
        (pa.float32(), None),
    ],
    ids=str,
)
def test_examples_hold_three_kinds_of_values(kind: pa.DataType, read: pa.DataType | None) -> None:
    assert said("tfrecord", kind) == ("", read)


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.struct([("a", pa.int64())]), pa.list_(pa.list_(pa.int64())), pa.null()], ids=str
)
def test_what_no_example_holds_is_refused(kind: pa.DataType) -> None:
    assert said("tfrecord", kind)[0] == (
        "it cannot be written: a tf.Example holds numbers, booleans, strings, or lists of them"
    )


def test_every_column_is_named_and_one_of_each_type_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder("parquet")
    tried: list[int] = []
    encoded: Any = type(encoder).encoded

    def counted(self: Any, table: pa.Table) -> pa.Buffer:
        tried.append(table.num_columns)
        return encoded(self, table)

    monkeypatch.setattr(type(encoder), "encoded", counted)
    many = pa.schema([(f"f{index}", pa.float32()) for index in range(2000)] + [("a.b", pa.time32("s"))])
    found = rehearse(encoder, many)
    assert (dict(found.refused), dict(found.changed)) == ({}, {"a.b": pa.time32("ms")})
    assert max(tried) == 2
    both = rehearse(encoder, pa.schema([("x", pa.float32()), ("z", NOTHING), ("i", UNWRITABLE[2]), ("w", NOTHING)]))
    assert list(both.refused) == ["z", "w", "i"]
    assert both.refused["z"] == both.refused["w"] != both.refused["i"]


def test_another_value_than_was_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder("arrow")
    other = pa.table([pa.array([0, 0, 7], pa.int8())], ["c"])
    monkeypatch.setattr(type(encoder), "decoded", lambda self, content, schema: other)
    assert said("arrow", pa.int8())[0] == "other values would be read than were written"


def test_nulls_of_a_struct_can_be_written_whatever_its_fields_say() -> None:
    kind = pa.struct([pa.field("a", pa.struct([pa.field("b", pa.int32(), nullable=False)]), nullable=False)])
    column = nulls(kind, 3)
    column.validate(full=True)
    assert column.null_count == 3
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([column], ["c"]), sink)
    assert pq.read_table(pa.BufferReader(sink.getvalue()))["c"].to_pylist() == [None] * 3
