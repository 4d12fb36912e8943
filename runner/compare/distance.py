"""How far two columns lie apart, row by row: what of a pair is equal, by how much it differs, and what has no measure.

Pure pyarrow and NumPy; refuses to know files and sums. The invariant: two values that are not equal are never called
so because a float could not hold them: whole numbers are compared as whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Kind = Literal["number", "numbers", "label", "value"]


@dataclass(frozen=True)
class Pairs:
    """Two columns of as many rows, compared. All arrays: (rows,).

    equal:      the same bits where both are of one type, else the same number; NaN equals NaN, null equals null.
    difference: right minus left; of lists the largest of their elements, without a sign. NaN where a side is NaN, where
                only one is null, and where lists are of two lengths. None: there is no measure for such values.
    unmatched:  only one is null, or lists are of two lengths.
    """

    equal: Flags
    difference: Array | None
    nan_left: Flags
    nan_right: Flags
    unmatched: Flags


def kind_of(column: pa.DataType) -> Kind:
    """What can be said of such values: `number` by how much they differ, `numbers` (lists of them) by how much at most,
    `label` which is taken for which, `value` only whether they are equal."""
    column = _storage(column)
    if _is_number(column):
        return "number"
    if _is_list(column):
        while _is_list(column):
            column = _storage(column.value_type)
        return "numbers" if _is_number(column) else "value"
    return "label" if _nature(column) in ("boolean", "text", "bytes") else "value"


def comparable(left: pa.DataType, right: pa.DataType) -> bool:
    """Whether both are of one kind: numbers of any width, lists of one shape where both have one, structs of the same
    fields."""
    tensors = isinstance(left, pa.FixedShapeTensorType) and isinstance(right, pa.FixedShapeTensorType)
    if tensors and list(left.shape) != list(right.shape):
        return False
    left, right = _storage(left), _storage(right)
    if _is_list(left) and _is_list(right):
        fixed = pa.types.is_fixed_size_list(left) and pa.types.is_fixed_size_list(right)
        sizes = not fixed or left.list_size == right.list_size
        return sizes and comparable(left.value_type, right.value_type)
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        if [field.name for field in left] != [field.name for field in right]:
            return False
        return all(comparable(left.field(at).type, right.field(at).type) for at in range(left.num_fields))
    return _nature(left) == _nature(right)


def spoken(column: pa.DataType) -> str:
    """What such a column holds, in the words in which columns are `comparable`."""
    if isinstance(column, pa.FixedShapeTensorType):
        return f"tensors of shape {list(column.shape)} of {spoken(column.value_type)}"
    column = _storage(column)
    if _is_list(column):
        size = f"{column.list_size:,} " if pa.types.is_fixed_size_list(column) else ""
        return f"lists of {size}{spoken(column.value_type)}"
    if pa.types.is_struct(column):
        return f"structs of {', '.join(repr(field.name) for field in column)}"
    nature = _nature(column)
    return f"{nature}s" if nature in ("whole number", "float", "boolean") else nature


def farthest(left: Any, right: Any) -> int | None:
    """Which element differs most of two lists, nested or not, counted through from 0; a NaN on one side differs more
    than any number. None where they are of two lengths, or a side is null."""
    a, b = flat(left), flat(right)
    if left is None or right is None or len(a) != len(b) or not a:
        return None
    apart = [
        math.inf if _odd(one) != _odd(other) else 0.0 if _odd(one) or one == other else abs(other - one)
        for one, other in zip(a, b, strict=True)
    ]
    return apart.index(max(apart))


def flat(value: Any) -> list[Any]:
    """The elements of a list, nested or not, one behind the other."""
    return [inner for one in value for inner in flat(one)] if isinstance(value, list) else [value]


def _odd(value: Any) -> bool:
    return value is None or value != value


def compare(left: pa.Array, right: pa.Array) -> Pairs:
    """left, right: of types that are `comparable`, as many rows."""
    left, right = _plain(left), _plain(right)
    if _is_list(left.type):
        return _lists(left, right)
    if pa.types.is_struct(left.type):
        return _structs(left, right)
    if _is_number(left.type):
        return _numbers(left, right)
    if left.type != right.type:
        right = right.cast(left.type)
    equal = np.asarray(pc.fill_null(pc.equal(left, right), False))
    return _with_nulls(left, right, Pairs(equal, None, *(_never(len(left)) for _ in range(3))))


def _numbers(left: pa.Array, right: pa.Array) -> Pairs:
    a, b = _values(left), _values(right)
    if not pa.types.is_floating(left.type):
        nothing = _never(len(a))
        return _with_nulls(left, right, Pairs(np.asarray(a == b), _whole_difference(a, b), nothing, nothing, nothing))
    nan_left, nan_right = np.isnan(a), np.isnan(b)
    same = _bits(a) == _bits(b) if a.dtype == b.dtype else a == b
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(a == b, 0.0, b - a)  # infinity is no distance from itself
    found = Pairs(same | (nan_left & nan_right), difference, nan_left, nan_right, _never(len(a)))
    return _with_nulls(left, right, found)


def _whole_difference(a: Array, b: Array) -> Array:
    """b - a, rounded only once; a difference of one between two numbers beyond 2**53 is one."""
    if np.uint64 in (a.dtype, b.dtype) and a.dtype.kind != b.dtype.kind:
        below = (a < 0) | (b < 0)
        unsigned = _whole_difference(np.where(below, 0, a).astype(np.uint64), np.where(below, 0, b).astype(np.uint64))
        return np.where(below, b.astype(np.float64) - a.astype(np.float64), unsigned)
    wide = np.uint64 if np.uint64 in (a.dtype, b.dtype) else np.int64
    a, b = a.astype(wide), b.astype(wide)
    more = b >= a
    # The difference of two int64 fits into uint64, although not into int64.
    apart = np.where(more, b.view(np.uint64) - a.view(np.uint64), a.view(np.uint64) - b.view(np.uint64))
    return np.where(more, 1.0, -1.0) * apart.astype(np.float64)


def _lists(left: pa.Array, right: pa.Array) -> Pairs:
    """A row is equal where all elements are, and differs by as much as the element that differs most."""
    lengths = _lengths(left)
    matched = lengths == _lengths(right)
    valid = np.asarray(left.is_valid()) & np.asarray(right.is_valid())
    used = pa.array(matched & valid)
    inner = compare(_elements(left.filter(used)), _elements(right.filter(used)))
    sizes = np.where(matched & valid, lengths, 0)
    none = np.full(len(inner.equal), np.nan) if inner.difference is None else np.abs(inner.difference)
    difference = _by_row(np.maximum, none, sizes, 0.0)
    unmatched = _by_row(np.logical_or, inner.unmatched, sizes, False) | ~matched
    found = Pairs(
        _by_row(np.logical_and, inner.equal, sizes, True) & matched,
        None if inner.difference is None else np.where(matched, difference, np.nan),
        _by_row(np.logical_or, inner.nan_left, sizes, False),
        _by_row(np.logical_or, inner.nan_right, sizes, False),
        unmatched,
    )
    return _with_nulls(left, right, found)


def _by_row(reduce: np.ufunc, values: Array, sizes: Array, empty: Any) -> Array:
    """values: of all rows behind one another; sizes: (rows,) how many are whose. empty: of a row that has none."""
    reduced = np.full(len(sizes), empty)  # (rows,)
    filled = sizes > 0
    if filled.any():
        starts = np.cumsum(sizes[filled]) - sizes[filled]
        reduced[filled] = reduce.reduceat(values, starts)
    return reduced


def _structs(left: pa.Array, right: pa.Array) -> Pairs:
    equal = np.ones(len(left), np.bool_)
    for at in range(left.type.num_fields):
        equal &= compare(left.field(at), right.field(at)).equal
    return _with_nulls(left, right, Pairs(equal, None, *(_never(len(left)) for _ in range(3))))


def _with_nulls(left: pa.Array, right: pa.Array, found: Pairs) -> Pairs:
    """What lies under a null is anything."""
    if not left.null_count and not right.null_count:
        return found
    absent_left, absent_right = np.asarray(left.is_null()), np.asarray(right.is_null())
    both, one = absent_left & absent_right, absent_left ^ absent_right
    difference = found.difference
    if difference is not None:
        difference = np.where(both, 0.0, np.where(one, np.nan, difference))
    return Pairs(
        (found.equal & ~one) | both,
        difference,
        found.nan_left & ~absent_left,
        found.nan_right & ~absent_right,
        (found.unmatched & ~both) | one,
    )


def _storage(column: pa.DataType) -> pa.DataType:
    return column.storage_type if isinstance(column, pa.BaseExtensionType) else column


def _plain(values: pa.Array) -> pa.Array:
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def _nature(column: pa.DataType) -> str:
    types = pa.types
    for name, holds in (
        ("whole number", types.is_integer),
        ("float", types.is_floating),
        ("boolean", types.is_boolean),
        ("text", lambda kind: types.is_string(kind) or types.is_large_string(kind)),
        (
            "bytes",
            lambda kind: types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind),
        ),
    ):
        if holds(column):
            return name
    return str(column)


def _is_number(column: pa.DataType) -> bool:
    return bool(pa.types.is_integer(column) or pa.types.is_floating(column))


def _is_list(column: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(column) or types.is_large_list(column) or types.is_fixed_size_list(column))


def _lengths(lists: pa.Array) -> Array:
    """(rows,) int64, -1 of a null."""
    return np.asarray(pc.fill_null(pc.list_value_length(lists), -1)).astype(np.int64)


def _elements(lists: pa.Array) -> pa.Array:
    """lists: none of them null."""
    return lists.flatten()


def _values(numbers: pa.Array) -> Array:
    """The numbers as they lie in memory, those under nulls too: a float could not hold all of them."""
    of = "f" if pa.types.is_floating(numbers.type) else "u" if pa.types.is_unsigned_integer(numbers.type) else "i"
    kind = np.dtype(f"{of}{numbers.type.bit_width // 8}")  # `to_pandas_dtype` of pyarrow below 26 needs pandas
    if not len(numbers):
        return np.zeros(0, kind)
    return np.frombuffer(numbers.buffers()[1], kind, numbers.offset + len(numbers))[numbers.offset :]


def _bits(floats: Array) -> Array:
    return floats.view(f"u{floats.dtype.itemsize}")


def _never(rows: int) -> Flags:
    return np.zeros(rows, np.bool_)
