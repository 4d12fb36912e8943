"""The table of types: what is widened, with pyarrow's own promotion as the oracle, and that no value changes."""

from __future__ import annotations

from contextlib import suppress
from decimal import Context, Decimal
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.schema import conform
from connectors.formats.widening import common_type, is_mixed, type_in, wider

TENSOR = pa.fixed_shape_tensor(pa.float32(), [2, 2])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.uint8(), pa.uint16(), pa.uint16()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.uint32(), pa.int64(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.float16(), pa.float32(), pa.float32()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.binary(), pa.large_binary(), pa.large_binary()),
        (pa.int64(), pa.string(), None),
        (pa.bool_(), pa.int8(), None),
        (pa.null(), pa.string(), pa.string()),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.large_list(pa.int64())),
        (pa.list_(pa.int32()), pa.list_(pa.string()), None),
        (pa.list_(pa.float32(), 2), pa.list_(pa.float64(), 2), pa.list_(pa.float64(), 2)),
        (pa.list_(pa.float32(), 2), pa.list_(pa.float32(), 3), None),
        (
            pa.list_(pa.field("item", pa.float32(), False), 2),
            pa.list_(pa.field("element", pa.float32()), 2),
            pa.list_(pa.float32(), 2),
        ),
        (pa.struct([("x", pa.int8())]), pa.struct([("x", pa.int16())]), pa.struct([("x", pa.int16())])),
        (pa.struct([("x", pa.int8())]), pa.struct([("x", pa.string())]), None),
        (pa.struct([("x", pa.int8())]), pa.struct([("x", pa.int8()), ("x", pa.int8())]), None),
        (TENSOR, pa.fixed_shape_tensor(pa.float32(), [4]), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (pa.timestamp("us", "UTC"), pa.timestamp("us", "+00:00"), pa.timestamp("us", "UTC")),
        (pa.date32(), pa.timestamp("us"), None),
    ],
)
def test_types_are_widened_where_nothing_is_lost(
    one: pa.DataType, other: pa.DataType, expected: pa.DataType | None
) -> None:
    for a, b in ((one, other), (other, one)):
        assert wider(a, a) == a
        found = wider(a, b)
        assert (found is None) == (expected is None)
        if found is not None:
            assert str(found).replace("element", "item") == str(expected)


NUMBERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@given(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS), st.data())
def test_widening_keeps_every_integer(a: pa.DataType, b: pa.DataType, data: st.DataObject) -> None:
    both = wider(a, b)
    assert both is not None
    low = -(2 ** (a.bit_width - 1)) if pa.types.is_signed_integer(a) else 0
    number = data.draw(st.integers(low, low + 2**a.bit_width - 1))
    table = pa.table({"n": pa.array([number, None], a)})
    assert conform(table, pa.schema([("n", both)]), "f")["n"].to_pylist() == [number, None]


SIMPLE = [
    *(pa.null(), pa.bool_(), *NUMBERS, pa.float16(), pa.float32(), pa.float64()),
    *(pa.decimal128(10, 2), pa.decimal128(12, 2), pa.decimal128(12, 6), pa.decimal128(38, 0), pa.decimal256(76, 2)),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
    *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Asia/Tokyo")),
    *(pa.timestamp("us", "+00:00"), pa.duration("s"), pa.duration("ms"), pa.duration("us"), pa.duration("ns")),
    *(pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.binary(4), pa.binary(5)),
    pa.month_day_nano_interval(),
]
NESTED = [
    *(pa.list_(pa.int32()), pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.null())),
    *(pa.list_(pa.int32(), 2), pa.list_(pa.float32(), 2), pa.list_(pa.int32(), 3), pa.list_(pa.list_(pa.int16(), 2))),
    pa.struct([("x", pa.int8())]),
    pa.struct([("x", pa.int64()), ("y", pa.string())]),
    pa.struct([("y", pa.string()), ("x", pa.float64())]),
    *(pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.float32()), TENSOR),
]


def permissive(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    try:
        schemas = [pa.schema([("a", kind)]) for kind in (a, b)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("a").type
    except pa.ArrowException:
        return None


def why_other(a: pa.DataType, b: pa.DataType) -> str:
    """Why two types do not become what pyarrow's permissive promotion makes of them; "": for no reason."""
    types = pa.types
    if types.is_decimal(a) or types.is_decimal(b):
        if types.is_floating(a) or types.is_floating(b):
            return "pyarrow makes a float of a decimal, which is another number"
        if types.is_integer(a) or types.is_integer(b):
            return "pyarrow (26.0) counts a digit too few: int64 has 19, and 20 where it is unsigned"
    if types.is_fixed_size_list(a) and types.is_fixed_size_list(b) and a.list_size != b.list_size:
        return "lists of another size in one file are a fault of that file"
    if types.is_timestamp(a) and types.is_timestamp(b) and {a.tz, b.tz} == {"UTC", "+00:00"}:
        return "two names of one zone, which pyarrow does not know"
    return ""


@pytest.mark.parametrize("kinds", [SIMPLE, NESTED], ids=["simple", "nested"])
def test_types_become_what_pyarrow_makes_of_them_or_there_is_a_reason(kinds: list[pa.DataType]) -> None:
    reasons = set()
    for a, b in product(kinds, kinds):
        found, theirs = wider(a, b), permissive(a, b)
        if found is None or common_type(found) != theirs:
            reasons |= {why_other(a, b)} - {""}
            assert found is theirs is None or why_other(a, b), (a, b, found, theirs)
    assert len(reasons) == (3 if kinds is SIMPLE else 1)


def extremes(kind: pa.DataType) -> pa.Array:
    """The least and the largest value, those around what floats hold exactly, and null."""
    if pa.types.is_floating(kind):
        limits = np.finfo(kind.to_pandas_dtype())
        return pa.array([limits.min, limits.max, limits.smallest_subnormal, 0.5, float("inf"), None], kind)
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        most = 86_399 if pa.types.is_time(kind) else 2 ** (kind.bit_width - 1) - 1
        day = 86_400_000 if kind == pa.date64() else 1
        plain = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array([most // day * day, 0, None], plain).cast(kind)
    if pa.types.is_integer(kind):
        limits = np.iinfo(kind.to_pandas_dtype())
        near = [sign * (2**bits + 1) for bits in (11, 24, 53) for sign in (1, -1)]
        return pa.array([limits.min, limits.max, *(n for n in near if limits.min <= n <= limits.max), None], kind)
    if pa.types.is_decimal(kind):
        digits = Decimal("9" * kind.precision).scaleb(-kind.scale, Context(prec=80))
        return pa.array([digits, digits.copy_negate(), None], kind)
    if pa.types.is_boolean(kind):
        return pa.array([True, None], kind)
    if pa.types.is_fixed_size_binary(kind):
        return pa.array([b"\xff" * kind.byte_width, None], kind)
    return (
        pa.nulls(2, kind) if pa.types.is_null(kind) or pa.types.is_interval(kind) else pa.array(["", "é", None], kind)
    )


def test_no_value_becomes_another_one() -> None:
    """What is mixed stays as it is; what that is written as either holds a value or refuses it."""
    for a, b in product(SIMPLE, SIMPLE):
        both, given = wider(a, b), extremes(a)
        if both is None:
            continue
        read = conform(pa.table({"a": given}), pa.schema([("a", both)]), "f")["a"].combine_chunks()
        assert read.type == type_in(a, both)
        kinds, kept = (read.type, common_type(both)), []
        for at in range(len(read)):
            with suppress(pa.ArrowInvalid):
                kept.append((at, read.slice(at, 1).cast(kinds[1])))
        assert pa.types.is_null(a) or read.cast(a).equals(given), (a, b)
        assert pa.types.is_null(a) or all(value.cast(a).equals(given.slice(at, 1)) for at, value in kept), (a, b)
        assert len(kept) == len(read) or is_mixed(both), (a, b)
