"""The columns of a table in files: found by id or name, of the types of the table."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from connectors.tables.columns import Mark, TableColumns, marked, promotes

I32, I64 = pa.int32(), pa.int64()


def table(*fields: pa.Field, by_id: bool = True, default: str | None = None) -> TableColumns:
    """Whose ids are the metadata of `fields`, as in a file."""

    def mark(field: pa.Field) -> Mark:
        number = (field.metadata or {}).get(b"PARQUET:field_id")
        return Mark(int(number) if number else None, [field.name], default)

    return TableColumns(pa.schema([marked(field, mark) for field in fields]), by_id)


def field(name: str, kind: pa.DataType, id: int) -> pa.Field:
    return pa.field(name, kind, metadata={"PARQUET:field_id": str(id)})


def converted(have: pa.Field, want: pa.Field, values: pa.Array) -> list[Any]:
    columns = table(want)
    convert = columns.conversion(pa.schema([have]), want.name, have.name)
    assert convert is not None
    made = convert(values)
    made.validate(full=True)
    assert made.type == columns.schema.field(want.name).type
    return list(made.to_pylist())


def struct(*fields: pa.Field) -> pa.DataType:
    return pa.struct(list(fields))


def test_what_is_the_same_is_handed_on() -> None:
    kind = struct(field("a", I64, 2), field("b", pa.list_(field("element", I64, 4)), 3))
    columns = table(field("s", kind, 1))
    assert columns.conversion(pa.schema([field("s", kind, 1)]), "s", "s") is None


def test_fields_of_a_struct_that_changed_places_under_their_names_are_told_by_their_ids() -> None:
    have, want = struct(field("a", I64, 2), field("b", I64, 3)), struct(field("a", I64, 3), field("b", I64, 2))
    values = pa.array([{"a": 1, "b": 2}, None, {"a": 3, "b": None}], have)
    assert converted(field("s", have, 1), field("s", want, 1), values) == [{"a": 2, "b": 1}, None, {"a": None, "b": 3}]
    assert converted(field("s", have, 1), field("s", want, 1), values.slice(1)) == [None, {"a": None, "b": 3}]


@pytest.mark.parametrize("made", [pa.list_, pa.large_list])
def test_lists_keep_their_borders_wherever_they_are_cut(made: Any) -> None:
    have, want = made(field("element", I32, 2)), pa.list_(field("element", I64, 2))
    values = pa.array([[1, 2], None, [], [3]], have)
    for start in range(5):
        whole = [[1, 2], None, [], [3]][start:]
        assert converted(field("l", have, 1), field("l", want, 1), values.slice(start)) == whole


def test_maps_keep_their_borders_wherever_they_are_cut() -> None:
    def kind(value: pa.DataType) -> pa.DataType:
        return pa.map_(field("key", pa.string(), 2).with_nullable(False), field("value", value, 3))

    values = pa.array([[("a", 1), ("b", 2)], None, [], [("c", None)]], kind(I32))
    for start in range(5):
        whole = [[("a", 1), ("b", 2)], None, [], [("c", None)]][start:]
        assert converted(field("m", kind(I32), 1), field("m", kind(I64), 1), values.slice(start)) == whole


def test_a_field_that_was_added_is_null_or_its_default() -> None:
    have, want = struct(field("a", I64, 2)), struct(field("a", I64, 2), field("n", I32, 9))
    values = pa.array([{"a": 1}, None], have)
    assert converted(field("s", have, 1), field("s", want, 1), values) == [{"a": 1, "n": None}, None]
    assert table(field("n", I32, 9)).absent("n", 2).to_pylist() == [None, None]
    assert table(field("n", I32, 9), default="7").absent("n", 2).to_pylist() == [7, 7]


def test_a_file_without_ids_is_told_by_names_and_one_that_has_some_never() -> None:
    columns = table(field("a", I64, 1), field("b", I64, 2))
    assert columns.found(pa.schema([pa.field("b", I64), pa.field("a", I64)]), ["a", "b"]) == {"a": "a", "b": "b"}
    assert columns.found(pa.schema([field("b", I64, 1), field("a", I64, 7)]), ["a", "b"]) == {"a": "b"}
    assert table(field("a", I64, 1), by_id=False).found(pa.schema([field("a", I64, 7)]), ["a"]) == {"a": "a"}


@pytest.mark.parametrize(
    ("have", "want", "becomes"),
    [
        (I32, I64, True),
        (I64, I32, False),
        (I32, pa.float64(), True),
        (I64, pa.float64(), False),
        (pa.float32(), pa.float64(), True),
        (pa.float64(), pa.float32(), False),
        (pa.decimal128(5, 2), pa.decimal128(10, 2), True),
        (pa.decimal128(5, 2), pa.decimal128(5, 3), False),
        (I32, pa.decimal128(12, 0), True),
        (pa.date32(), pa.timestamp("us"), True),
        (pa.date32(), pa.timestamp("us", "UTC"), False),
        (pa.timestamp("ns"), pa.timestamp("us", "UTC"), True),
        (pa.string(), pa.binary(), True),
        (pa.large_string(), pa.string(), True),
        (pa.string(), I64, False),
        (I64, pa.string(), False),
        (pa.bool_(), I32, False),
    ],
)
def test_a_type_becomes_another_where_no_value_is_lost(have: pa.DataType, want: pa.DataType, becomes: bool) -> None:
    assert promotes(have, want) is becomes
    if becomes:
        converted(pa.field("x", have), pa.field("x", want), pa.nulls(2, have))


def test_a_struct_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"it is int64 there, and struct<a: int64> in the table"):
        table(field("s", struct(field("a", I64, 2)), 1)).conversion(pa.schema([field("s", I64, 1)]), "s", "s")
