"""Columns -> serialized tf.Example messages, one for each row, written column by column.

float -> float_list, integers and booleans -> int64_list, strings and bytes -> bytes_list; a list gives several values,
a null row leaves its feature out. Knows the wire format of tensorflow/core/example/{example,feature}.proto and nothing
of jobs. The invariant: the bytes are those that protobuf itself would write, features in the order given.

How: in front of the values of a feature stands a header that depends on nothing but their size in bytes, so one is
made for each size that occurs, and the rows pick theirs. Headers and values are then joined row by row by Arrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array = npt.NDArray[Any]
Kind = Literal["bytes_list", "float_list", "int64_list"]
Rule = Literal["safe", "exact", "unsafe"]  # what becomes of numbers
_FIELD: dict[Kind, bytes] = {"bytes_list": b"\x0a", "float_list": b"\x12", "int64_list": b"\x1a"}  # 1, 2, 3 of Feature
_FIRST, _SECOND = b"\x0a", b"\x12"  # a field of bytes, by its number: number << 3 | 2
_TEXT = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary),
)


@cache
def _empty() -> pa.Scalar:
    """Made when it is needed: pyarrow imports pandas for its first scalar, where there is one."""
    return pa.scalar(b"", pa.large_binary())


class RowsError(Exception):
    """Values that no Example can hold, or an Example that is none. Becomes a DataError where names are known.

    found:  what all of the rows hold, or what each of them does. at: (rows to blame,), rising.
    column: that is to blame; None: the row as a whole.
    """

    def __init__(
        self, code: str, found: str | Sequence[str], expected: str, at: Array, column: str | None = None
    ) -> None:
        super().__init__(code, found, expected, at, column)
        self.holds = [found] * len(at) if isinstance(found, str) else found
        self.code, self.found, self.expected, self.at, self.column = code, self.holds[0], expected, at, column


def kind_of(column: pa.DataType) -> Kind | None:
    """What a column becomes; None: it cannot. Of nested lists only the outermost may vary in length."""
    while isinstance(column, pa.BaseExtensionType):
        column = column.storage_type
    if pa.types.is_list(column) or pa.types.is_large_list(column):
        column = column.value_type
    while pa.types.is_fixed_size_list(column) or isinstance(column, pa.BaseExtensionType):
        column = column.storage_type if isinstance(column, pa.BaseExtensionType) else column.value_type
    if any(check(column) for check in _TEXT):
        return "bytes_list"
    if pa.types.is_integer(column) or pa.types.is_boolean(column):
        return "int64_list"
    return "float_list" if pa.types.is_floating(column) else None


def encode(
    features: Sequence[tuple[str, pa.Array]], rows: int, rule: Rule = "safe", without_empty: bool = False
) -> pa.LargeBinaryArray:
    """`rows` serialized Examples.

    features: names and columns, of types that `kind_of` knows, without dictionaries, runs and views.
    rule:     'unsafe': numbers that do not fit are written as they come out; 'exact': no float is rounded.
    without_empty: an empty list leaves its feature out, as a null does.
    raises:   RowsError ROW_NULL for a null inside of a list, ROW_OVERFLOW for a number that does not fit, ROW_INEXACT
              for one that would be rounded.
    """
    pieces: list[pa.Array] = []
    sizes = np.zeros(rows, np.int64)  # sizes: (rows,) bytes of the features
    for name, column in features:
        kind = kind_of(column.type)
        assert kind is not None
        missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        content, framed = _content(kind, column, rule)
        if without_empty and pa.types.is_nested(_storage(column).type):
            empty = _lengths(content) == 0  # empty: (rows,) lists without values: each takes a byte at least
            if empty.any():
                missing = empty if missing is None else missing | empty
        headers, all_sizes = _headers(name, kind, _lengths(content), missing, framed)
        pieces += [headers, content]
        sizes += all_sizes
    joined = pc.binary_join_element_wise(_picked(sizes, _FIRST), *pieces, _empty())
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _content(kind: Kind, column: pa.Array, rule: Rule) -> tuple[pa.LargeBinaryArray, bool]:
    """The values of each row as bytes, nothing where there are none; and whether a field has to be put around them."""
    counts, values, listed = _opened(column)  # counts: (rows,) values in each
    if kind == "bytes_list":
        if pa.types.is_string(values.type) or pa.types.is_fixed_size_binary(values.type):
            values = values.cast(pa.binary())
        texts = values.cast(pa.large_binary())
        if not listed:
            return _cut(texts, counts), True
        framed = pc.binary_join_element_wise(_picked(_lengths(texts), _FIRST), texts, _empty())
        return _cut(framed, counts), False
    numbers = values.to_numpy(zero_copy_only=not pa.types.is_boolean(values.type))
    if kind == "float_list":
        return binary(_floats(numbers, counts, rule), counts * 4), True
    if numbers.dtype == np.uint64 and rule != "unsafe" and len(numbers) and numbers.max() > np.iinfo(np.int64).max:
        raise _misfit("ROW_OVERFLOW", "a value that int64 cannot hold", numbers > np.iinfo(np.int64).max, counts)
    content, lengths = varints(numbers.astype(np.int64).view(np.uint64))
    if not listed and len(lengths) == len(counts):
        return binary(content, lengths), True
    ends = np.concatenate([[0], np.cumsum(lengths)])  # ends: (values + 1,)
    edges = ends[np.concatenate([[0], np.cumsum(counts)])]  # edges: (rows + 1,)
    return binary(content, np.diff(edges)), True


def _floats(numbers: Array, counts: Array, rule: Rule) -> Array:
    with np.errstate(all="ignore"):  # an overflow is found below
        floats = numbers.astype("<f4")
    if floats.dtype.itemsize < numbers.dtype.itemsize and rule != "unsafe":
        failed = np.isinf(floats) & np.isfinite(numbers)
        if failed.any():
            raise _misfit("ROW_OVERFLOW", "a value that float32 cannot hold", failed, counts)
        if rule == "exact" and (failed := (floats != numbers) & ~np.isnan(numbers)).any():
            raise _misfit("ROW_INEXACT", "a value that float32 cannot hold exactly", failed, counts)
    return floats


def _misfit(code: str, found: str, failed: Array, counts: Array) -> RowsError:
    at = np.unique(np.repeat(np.arange(len(counts)), counts)[failed])
    return RowsError(code, found, "expected one that fits", at)


def _opened(column: pa.Array) -> tuple[Array, pa.Array, bool]:
    """How many values each row has, all of them one after another, and whether there are lists."""
    values = _storage(column)
    counts, listed = np.ones(len(values), np.int64), False
    if values.null_count:
        counts = values.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
        values = values.drop_null()
    while pa.types.is_nested(values.type):
        listed = True
        if pa.types.is_fixed_size_list(values.type):
            counts *= values.type.list_size
        else:  # the outermost level, see `kind_of`
            counts[counts > 0] = pc.list_value_length(values).to_numpy()
        values = _storage(values.flatten())
        if values.null_count:
            owner = np.repeat(np.arange(len(counts)), counts)  # owner: (values,) the row of each
            at = np.unique(owner[values.is_null().to_numpy(zero_copy_only=False)])
            raise RowsError("ROW_NULL", "a list with a null element", "expected none: a feature holds values only", at)
    return counts, values, listed


def _storage(values: pa.Array) -> pa.Array:
    return _storage(values.storage) if isinstance(values, pa.ExtensionArray) else values


def _headers(feature: str, kind: Kind, lengths: Array, missing: Array | None, framed: bool) -> tuple[pa.Array, Array]:
    """What stands before the values of each row, and the bytes of both together.

    lengths: (rows,) bytes of the values. framed: as `_content` says.
    """
    distinct, place = _distinct(lengths)
    # From the inside out: the field of the values, the list, the feature, the entry of the map.
    frame = _prefix(_FIRST, distinct) if framed else _nothing(distinct)
    if framed and kind != "bytes_list":  # no packed field for no numbers
        frame = pc.if_else(pa.array(distinct > 0), frame, _empty())
    inner = distinct + _lengths(frame)
    chosen = _prefix(_FIELD[kind], inner)
    value = inner + _lengths(chosen)
    key = feature.encode()
    name = _FIRST + bytes(varints(np.array([len(key)], np.uint64))[0]) + key
    middle = _prefix(_SECOND, value)
    entry = len(name) + _lengths(middle) + value
    whole = _prefix(_FIRST, entry)
    table = pc.binary_join_element_wise(whole, pa.scalar(name, pa.large_binary()), middle, chosen, frame, _empty())
    sizes = _lengths(whole) + entry  # sizes: (distinct lengths,) of the entry as a whole
    if missing is None:
        return table.take(pa.array(place)), sizes[place]
    table = pa.concat_arrays([table, pa.array([b""], pa.large_binary())])
    place = np.where(missing, len(distinct), place)
    return table.take(pa.array(place)), np.append(sizes, 0)[place]


def _distinct(lengths: Array) -> tuple[Array, Array]:
    """The numbers that occur, and which of them stands at each place."""
    if len(lengths) and lengths.max() < 4 * len(lengths) + 1024:  # without sorting
        present = np.bincount(lengths) > 0
        return np.flatnonzero(present), (np.cumsum(present) - 1)[lengths]
    distinct, place = np.unique(lengths, return_inverse=True)
    return distinct, place


def _picked(lengths: Array, tag: bytes) -> pa.LargeBinaryArray:
    """For each length the tag and the length."""
    distinct, place = _distinct(lengths)
    return _prefix(tag, distinct).take(pa.array(place))


def _prefix(tag: bytes, lengths: Array) -> pa.LargeBinaryArray:
    content, sizes = varints(lengths.astype(np.uint64))
    empty = pa.scalar(b"", pa.large_binary())
    return pc.binary_join_element_wise(pa.scalar(tag, pa.large_binary()), binary(content, sizes), empty)


def _nothing(like: Array) -> pa.LargeBinaryArray:
    return binary(np.empty(0, np.uint8), np.zeros(len(like), np.int64))


def varints(values: Array) -> tuple[Array, Array]:
    """Base-128 integers of protobuf, one after another, and the bytes of each. values: (n,) uint64."""
    widest = max(1, -(-int(values.max(initial=0)).bit_length() // 7))  # bytes of the largest
    digits = np.empty((len(values), widest), np.uint8)  # digits: (n, widest), the lowest first
    lengths = np.ones(len(values), np.int64)
    rest = values
    for index in range(widest):
        digits[:, index] = rest & np.uint64(0x7F)
        if index:
            lengths += rest > 0
        rest = rest >> np.uint64(7)
    if widest == 1:
        return digits.ravel(), lengths
    place = np.arange(widest)
    digits[place < lengths[:, None] - 1] |= 0x80
    return digits[place < lengths[:, None]], lengths


def binary(content: Array, lengths: Array) -> pa.LargeBinaryArray:
    """Rows of bytes. content: all of them, as numbers of any width. lengths: (rows,) bytes of each row."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return pa.Array.from_buffers(
        pa.large_binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(content))]
    )


def _cut(values: pa.LargeBinaryArray, counts: Array) -> pa.LargeBinaryArray:
    """The same bytes, `counts` values at a time. counts: (rows,)"""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int64, len(values) + 1, values.offset * 8) if offsets else np.zeros(1, np.int64)
    edges = ends[np.concatenate([[0], np.cumsum(counts)])]  # edges: (rows + 1,)
    return pa.Array.from_buffers(
        pa.large_binary(), len(counts), [None, pa.py_buffer(np.ascontiguousarray(edges)), data or pa.py_buffer(b"")]
    )


def _lengths(values: pa.LargeBinaryArray) -> Array:
    lengths: Array = pc.binary_length(values).to_numpy()
    return lengths
