"""How the lists of a column fold into the rows of a tensor. Types and shapes only, and the plain form of an array."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.binding.cast.view import as_numpy
from runner.binding.shaped import FlatTensor, ShapedTensor
from runner.tensor import Array

Row = tuple[int | None, ...]  # the shape of one row; None: constant within a batch


def peel(arrow: pa.DataType) -> tuple[tuple[Row, ...], pa.DataType | None]:
    """The list levels of a type, each with its dimensions (None: any length), and the type of the values.

    Only a tensor of a fixed shape has a level of several dimensions, and it is always the innermost one. The type of
    the values is None where its dimensions are permuted.
    """
    if isinstance(arrow, FlatTensor):
        return ((None,) if arrow.shape is None else arrow.shape,), arrow.storage_type.value_type
    if isinstance(arrow, ShapedTensor):
        return tuple((size,) for size in arrow.sizes), None if arrow.permuted else arrow.value_type
    if isinstance(arrow, pa.FixedShapeTensorType):
        plainly = arrow.permutation in (None, list(range(len(arrow.shape))))
        return (tuple(arrow.shape),), arrow.value_type if plainly else None
    if isinstance(arrow, pa.BaseExtensionType):
        return peel(arrow.storage_type)
    if pa.types.is_dictionary(arrow) or pa.types.is_run_end_encoded(arrow):
        return peel(arrow.value_type)
    if pa.types.is_fixed_size_list(arrow) or any(check(arrow) for check in _LISTS):
        inner, leaf = peel(arrow.value_type)
        return ((arrow.list_size if pa.types.is_fixed_size_list(arrow) else None,), *inner), leaf
    return (), arrow


_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)


def plain(values: pa.Array) -> pa.Array:
    """Without its outer extension, dictionary or run-end encoding. cost: none where there is none."""
    if isinstance(values.type, ShapedTensor):
        return values.type.lists(values)
    if isinstance(values, pa.ExtensionArray):
        return plain(values.storage)
    if isinstance(values, pa.DictionaryArray):
        return plain(values.dictionary_decode())
    if isinstance(values, pa.RunEndEncodedArray):
        return plain(pc.run_end_decode(values))
    return values


def byte_lists(values: pa.Array, item: pa.DataType) -> pa.Array:
    """Bytes as lists of `item`, an integer of 8 bits. cost: none, except for views, which are copied."""
    types, kind = pa.types, values.type
    if types.is_binary_view(kind):
        values = values.cast(pa.large_binary())
        kind = values.type
    *head, data = values.buffers()
    items = pa.Array.from_buffers(item, 0 if data is None else data.size, [None, data])
    if types.is_fixed_size_binary(kind):
        lists = pa.list_(item, kind.byte_width)
    else:
        lists = pa.large_list(item) if types.is_large_binary(kind) else pa.list_(item)
    return pa.Array.from_buffers(lists, len(values), head, values.null_count, values.offset, [items])


def open_lengths(values: pa.Array, sizes: Sequence[int | None]) -> Array:
    """How long the lists of each row are at the levels of any length, where all of a level are as long as its first.

    sizes:   of the list levels; None: any. Lists of a fixed level may have another length.
    returns: (rows, open levels); -1 where the lists of a row differ in length, 0 where there are none.
    """
    values = plain(values)
    counts = np.ones(len(values), np.int64)  # counts: (rows,) lists of this level
    found = []
    for size in sizes[: 1 + max((at for at, size in enumerate(sizes) if size is None), default=-1)]:
        lengths = as_numpy(pc.fill_null(pc.list_value_length(values), 0)).astype(np.int64)
        if size is None:
            longest, shortest = _by_row(np.maximum, lengths, counts), _by_row(np.minimum, lengths, counts)
            found.append(np.where(longest == shortest, longest, -1))
        counts = _by_row(np.add, lengths, counts)
        values = plain(values.flatten())
    return np.stack(found, axis=1) if found else np.empty((len(values), 0), np.int64)


def _by_row(reduce: np.ufunc, lengths: Array, counts: Array) -> Array:
    """(rows,) what `reduce` makes of the lengths of each row's lists; 0 where it has none."""
    held, reduced = counts > 0, np.zeros(len(counts), np.int64)
    if held.any():
        reduced[held] = reduce.reduceat(lengths, (np.cumsum(counts) - counts)[held])
    return reduced


def valued(kind: pa.DataType, row: Row, leaf: pa.DataType) -> pa.DataType:
    """`kind`, in which no file has a value: the lists and values of a tensor in the place of null.

    row: the shape of one row. leaf: the type of its values.
    """
    if pa.types.is_null(kind):
        for size in reversed(row):
            leaf = pa.list_(leaf) if size is None else pa.list_(leaf, size)
        return leaf
    lists = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    inside = valued(kind.value_type, row[1:], leaf) if any(check(kind) for check in lists) else None
    if inside is None or inside == kind.value_type:
        return kind
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(inside), kind.list_size)
    return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(kind.value_field.with_type(inside))


def only_nulls(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a type is another one but for null in the place of lists and values."""
    if pa.types.is_null(kind):
        return not pa.types.is_null(wanted)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) and check(wanted) for check in lists) and only_nulls(kind.value_type, wanted.value_type)


def merge(levels: tuple[Row, ...], declared: Row | None) -> tuple[Row, Row] | None:
    """Fold the list levels of a column into rows of a tensor.

    declared: the shape of one row in the signature, None: unknown rank.
    returns:  (values per list of each level, shape of one row), or None where column and tensor disagree.
    """
    sizes = tuple(size for level in levels for size in level)
    declared = sizes if declared is None else declared
    pairs = tuple(zip(sizes, declared, strict=False))
    if len(sizes) == len(declared) and all(None in pair or pair[0] == pair[1] for pair in pairs):
        row = tuple(other if here is None else here for here, other in pairs)
        return tuple(_product(level) if len(level) != 1 else row[at] for at, level in enumerate(levels)), row
    values = _product(declared)
    if values is None or not declared:
        return None
    if not sizes and values == 1:  # a single value is a row of shape (1,), (1, 1), ...
        return (), declared
    if len(sizes) == 1 and sizes[0] in (None, values):  # a flat list, row-major
        return (values,), declared
    return None


def unfit(arrow: pa.DataType, declared: Row | None) -> str:
    """Why the values of a column cannot be put into rows of this shape whatever their type is; "" where they can."""
    if peel(arrow)[1] is None:
        return "expected values in row-major order, without a permutation"
    if isinstance(arrow, FlatTensor) and arrow.shape is None and len(declared or ()) != 1:
        return "expected a shape in JSON, as Ray 2.55 and later write it: to unpickle it would be to run its code"
    return ""


def wanted(row: Row) -> str:
    """The columns that give rows of this shape, for messages."""
    if not row:
        return "one value per row"
    flat = _product(row)
    nested = " of ".join("lists" if size is None else f"lists of {size}" for size in row)
    return f"{nested}, or flat lists of {flat}" if flat is not None and len(row) > 1 else nested


def _product(sizes: Row) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None
