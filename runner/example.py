"""Columns -> serialized tf.Example messages, one for each row, written column by column.

float -> float_list, integers and booleans -> int64_list, strings and bytes -> bytes_list; a list gives several values,
a null row leaves its feature out. Knows the wire format of tensorflow/core/example/{example,feature}.proto and nothing
of models. The invariant: the bytes are those that protobuf itself would write, features in the order given.

How: in front of the values of a feature stands a header that depends on nothing but their size in bytes, so one is
made for each size that occurs, and the rows pick theirs. Headers and values are then joined row by row by Arrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.job import InputColumn
from runner.cast import Array, Cast, advice, agree, as_numpy, is_text
from runner.constant import mismatch
from runner.feeding import bad_rows, nulls, text, typed_column
from runner.nesting import peel, plain
from runner.saved_model import TensorSpec
from runner.tensor import Strings, type_text

Kind = Literal["bytes_list", "float_list", "int64_list"]
_FIELD: dict[Kind, bytes] = {"bytes_list": b"\x0a", "float_list": b"\x12", "int64_list": b"\x1a"}  # 1, 2, 3 of Feature
_FIRST, _SECOND = b"\x0a", b"\x12"  # a field of bytes, by its number: number << 3 | 2
_DTYPE: dict[Kind, str] = {"float_list": "float32", "int64_list": "int64"}


@dataclass(frozen=True)
class Feature:
    """One feature that was agreed on. cast: of numbers; None: bytes, or booleans. lists: a row holds several values."""

    name: str
    column: str
    type: pa.DataType
    kind: Kind
    cast: Cast | None
    lists: bool


@dataclass(frozen=True)
class ExampleSource:
    """The Examples of one input, made of columns."""

    name: str  # of the input
    features: tuple[Feature, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(feature.column for feature in self.features))

    def describe(self) -> dict[str, str]:
        named = ", ".join(self.columns[:3]) + (", ..." if len(self.columns) > 3 else "")
        kinds = ", ".join(dict.fromkeys(type_text(feature.type) for feature in self.features))
        return {"column": named, "type": kinds, "note": f"tf.Example of {len(self.features)} features"}

    def document(self) -> dict[str, Any]:
        features = {feature.name: [feature.column, feature.kind] for feature in self.features}
        unsafe = any(feature.cast is not None and feature.cast.how == "unsafe" for feature in self.features)
        return {"example": features, "order": list(features), "cast": "unsafe" if unsafe else "safe"}

    def feed(self, batch: pa.RecordBatch) -> Strings:
        """(rows,) serialized Examples. raises: DataError ROW_NULL, ROW_OVERFLOW, ROW_SHAPE naming column and row."""
        columns = [(feature, typed_column(batch, feature.column, feature.type, self.name)) for feature in self.features]
        return Strings(examples(columns, batch.num_rows, self.name), (batch.num_rows,))


def example_source(spec: TensorSpec, rule: InputColumn, fields: Mapping[str, pa.Field]) -> ExampleSource:
    """Agree on the features of an input that takes serialized Examples.

    fields:  feature name -> the column it is made of.
    raises:  BindingError saying what was found and expected.
    """
    if spec.dtype != "string" or spec.shape not in (None, (None,)):
        raise mismatch("found 'example'", f"expected an input string[?], which takes serialized Examples, not {spec}")
    if rule.null != "error":
        raise mismatch("found a 'null:' rule", "expected none: the feature of a null row is left out of its Example")
    return ExampleSource(
        spec.name, tuple(feature(name, field, rule.cast == "unsafe") for name, field in fields.items())
    )


def feature(name: str, field: pa.Field, unsafe: bool = False) -> Feature:
    """The feature called `name` that a column becomes. raises: BindingError."""
    levels, leaf = peel(field.type)
    if leaf is None or None in [size for level in levels[1:] for size in level]:
        expected = "expected values, or lists of one level whose values are written one after another"
        raise mismatch(f"found {type_text(field.type)} in column {field.name!r}", expected)
    if is_text(leaf):
        return Feature(name, field.name, field.type, "bytes_list", None, bool(levels))
    if pa.types.is_boolean(leaf):
        return Feature(name, field.name, field.type, "int64_list", None, bool(levels))
    kind: Kind = "float_list" if pa.types.is_floating(leaf) else "int64_list"
    cast = agree(leaf, _DTYPE[kind], unsafe) if pa.types.is_integer(leaf) or pa.types.is_floating(leaf) else None
    if cast is None:
        told = f"found {type_text(field.type)} in column {field.name!r}"
        raise mismatch(told, advice(leaf, "int64") if not pa.types.is_nested(leaf) else "expected plain values")
    return Feature(name, field.name, field.type, kind, cast, bool(levels))


def examples(columns: Sequence[tuple[Feature, pa.Array]], rows: int, subject: str) -> pa.LargeBinaryArray:
    """`rows` serialized Examples. subject: what they are for, in messages. raises: as `ExampleSource.feed`."""
    pieces: list[pa.Array] = []
    sizes = np.zeros(rows, np.int64)  # sizes: (rows,) bytes of the features
    for one, values in columns:
        content, framed = _content(one, values, subject)
        headers, all_sizes = _headers(one, _lengths(content), nulls(values), framed)
        pieces += [headers, content]
        sizes += all_sizes
    outer = _picked(sizes, _FIRST)
    joined = pc.binary_join_element_wise(outer, *pieces, pa.scalar(b"", pa.large_binary()))
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _content(one: Feature, values: pa.Array, subject: str) -> tuple[pa.LargeBinaryArray, bool]:
    """The values of each row as bytes, nothing where there are none; and whether a field has to be put around them."""
    counts, values = _opened(one, values, subject)  # counts: (rows,) values in each
    if one.kind == "bytes_list":
        texts = text(values).cast(pa.large_binary())
        if not one.lists:
            return _cut(texts, counts), True
        framed = pc.binary_join_element_wise(_picked(_lengths(texts), _FIRST), texts, pa.scalar(b"", pa.large_binary()))
        return _cut(framed, counts), False
    numbers = as_numpy(values).astype(np.int64) if one.cast is None else _cast(one, values, counts, subject)
    if one.kind == "float_list":
        return _binary(np.ascontiguousarray(numbers, "<f4"), counts * 4), True
    content, lengths = varints(numbers.view(np.uint64))
    if not one.lists and len(lengths) == len(counts):
        return _binary(content, lengths), True
    ends = np.concatenate([[0], np.cumsum(lengths)])  # ends: (values + 1,)
    edges = ends[np.concatenate([[0], np.cumsum(counts)])]  # edges: (rows + 1,)
    return _binary(content, np.diff(edges)), True


def _opened(one: Feature, values: pa.Array, subject: str) -> tuple[Array, pa.Array]:
    """How many values each row has, and all of them, one after another."""
    values = plain(values)
    missing = nulls(values)
    counts = np.ones(len(values), np.int64) if missing is None else (~missing).astype(np.int64)
    if missing is not None:
        values = values.drop_null()
    while peel(values.type)[0]:
        if pa.types.is_fixed_size_list(values.type):
            counts *= values.type.list_size
        else:  # the outermost level, see `feature`
            counts[counts > 0] = as_numpy(pc.list_value_length(values))
        values = plain(values.flatten())
        if values.null_count:
            owner = np.repeat(np.arange(len(counts)), counts)  # owner: (values,) the row of each
            at = np.unique(owner[values.is_null().to_numpy(zero_copy_only=False)])
            expected = "expected none: a feature holds values only"
            raise bad_rows(subject, one.column, "ROW_NULL", "a list with a null element", expected, at)
    return counts, values


def _cast(one: Feature, values: pa.Array, counts: Array, subject: str) -> Array:
    assert one.cast is not None
    numbers, failed = one.cast.apply(values)
    if failed is not None:
        at = np.unique(np.repeat(np.arange(len(counts)), counts)[failed])
        found = f"a value that {one.kind.removesuffix('_list').replace('float', 'float32')} cannot hold"
        raise bad_rows(subject, one.column, one.cast.code, found, "expected one that fits, or 'cast: unsafe'", at)
    return numbers


def _headers(one: Feature, lengths: Array, missing: Array | None, framed: bool) -> tuple[pa.Array, Array]:
    """What stands before the values of each row, and the bytes of both together.

    lengths: (rows,) bytes of the values. framed: as `_content` says.
    """
    distinct, place = _distinct(lengths)
    key = one.name.encode()
    # From the inside out: the field of the values, the list, the feature, the entry of the map.
    frame = _prefix(_FIRST, distinct) if framed else _nothing(distinct)
    if framed and one.kind != "bytes_list":  # no packed field for no numbers
        frame = pc.if_else(pa.array(distinct > 0), frame, pa.scalar(b"", pa.large_binary()))
    inner = distinct + _lengths(frame)
    kind = _prefix(_FIELD[one.kind], inner)
    value = inner + _lengths(kind)
    name = _FIRST + bytes(_varint(len(key))) + key
    middle = _prefix(_SECOND, value)
    entry = len(name) + _lengths(middle) + value
    whole = _prefix(_FIRST, entry)
    empty = pa.scalar(b"", pa.large_binary())
    table = pc.binary_join_element_wise(whole, pa.scalar(name, pa.large_binary()), middle, kind, frame, empty)
    sizes = _lengths(whole) + entry  # sizes: (distinct lengths,) of the entry as a whole
    if missing is None:
        return table.take(pa.array(place)), sizes[place]
    table = pa.concat_arrays([table, pa.array([b""], pa.large_binary())])
    place = np.where(missing, len(distinct), place)
    return table.take(pa.array(place)), np.append(sizes, 0)[place]


def _distinct(lengths: Array) -> tuple[Array, Array]:
    """The numbers that occur, and which of them stands at each place."""
    if len(lengths) and lengths.max() < 4 * len(lengths) + 1024:  # without sorting
        there = np.bincount(lengths) > 0
        return np.flatnonzero(there), (np.cumsum(there) - 1)[lengths]
    distinct, place = np.unique(lengths, return_inverse=True)
    return distinct, place


def _picked(lengths: Array, tag: bytes) -> pa.LargeBinaryArray:
    """For each length the tag and the length."""
    distinct, place = _distinct(lengths)
    return _prefix(tag, distinct).take(pa.array(place))


def _prefix(tag: bytes, lengths: Array) -> pa.LargeBinaryArray:
    content, sizes = varints(lengths.astype(np.uint64))
    empty = pa.scalar(b"", pa.large_binary())
    return pc.binary_join_element_wise(pa.scalar(tag, pa.large_binary()), _binary(content, sizes), empty)


def _nothing(like: Array) -> pa.LargeBinaryArray:
    return _binary(np.empty(0, np.uint8), np.zeros(len(like), np.int64))


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


def _varint(value: int) -> Array:
    return varints(np.array([value], np.uint64))[0]


def _binary(content: Array, lengths: Array) -> pa.LargeBinaryArray:
    """content: all bytes, as numbers of any width. lengths: (rows,) bytes of each row."""
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
    return as_numpy(pc.binary_length(values))
