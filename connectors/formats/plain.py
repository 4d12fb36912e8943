"""Columns of plain types: without dictionaries, runs and views, which hold in a few bytes what is large when decoded.

Owns what such a column becomes, and how many bytes that takes; refuses to know files. Extension types of Python become
what they store, as where they are not registered. The invariant: sizes are known before anything is decoded, and no
piece passes what 32-bit offsets reach. pyarrow does not look: beyond it, casts of views and `run_end_decode` return
offsets that have wrapped (26.0), and dictionaries fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.formats.extension import unregistered
from connectors.formats.fault import MAX_ROW_GROUP_BYTES, TooLargeError

PIECE_BYTES = 2**31 - 1  # what the 32-bit offsets of text and lists reach
Sizes = Any  # (rows,) int64 of bytes


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that a column is delivered as: no dictionaries, runs or views.

    Inside nested types, runs and list views stay as they are: pyarrow does not cast the former, and casts the
    latter wrongly (26.0: [[1], [2, 3]] becomes [[1], []]).
    """
    if pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_list_view(kind):
        return pa.list_(_plain_field(kind.value_field))
    if pa.types.is_large_list_view(kind):
        return pa.large_list(_plain_field(kind.value_field))
    return _plain_inside(kind)


def _plain_inside(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.ExtensionType):
        return _plain_inside(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if pa.types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field), kind.keys_sorted)
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    return kind


def plain_field(field: pa.Field) -> pa.Field:
    """The field of plain type; its metadata stays."""
    field = unregistered(field)
    return field.with_type(plain_type(field.type))


def _plain_field(field: pa.Field) -> pa.Field:
    field = unregistered(field)
    return field.with_type(_plain_inside(field.type))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` of plain types, without metadata of its own; that of the fields stays."""
    return pa.schema([plain_field(field) for field in schema])


def plain_table(table: pa.Table, most_bytes: int = MAX_ROW_GROUP_BYTES, piece_bytes: int = PIECE_BYTES) -> pa.Table:
    """`table` of plain types: the same columns where they are plain already, and decoded copies where not.

    most_bytes:  that the table may have when it is decoded.
    piece_bytes: that a chunk of a decoded column may have: larger ones become several chunks.
    raises:      TooLargeError, before anything of that size is made.
    """
    targets = {index: plain_field(field) for index, field in enumerate(table.schema)}
    targets = {index: field for index, field in targets.items() if field.type != table.schema.field(index).type}
    if not targets:
        return table
    sizes = {index: [at_most(chunk) for chunk in table.column(index).chunks] for index in targets}
    _check(table, sizes, most_bytes)
    for index, field in targets.items():
        kind, chunks = field.type, table.column(index).chunks
        try:
            pieces = [
                _plain_piece(chunk.slice(start, stop - start), kind)
                for chunk, size in zip(chunks, sizes[index], strict=True)
                for start, stop in pairwise(_cuts(chunk, size, piece_bytes))
            ]
        except TooLargeError as error:
            error.column = field.name
            raise
        table = table.set_column(index, field, pa.chunked_array(pieces, kind))
    return table


def _check(table: pa.Table, at_most_bytes: dict[int, list[int]], most_bytes: int) -> None:
    # Only of columns that are plain: asking pyarrow (26.0) for the size of some others ends the process.
    beside = sum(table.column(index).nbytes for index in range(table.num_columns) if index not in at_most_bytes)
    if beside + sum(map(sum, at_most_bytes.values())) > most_bytes:
        names = table.schema.names
        sizes = [(names[index], sum(map(_exactly, table.column(index).chunks))) for index in at_most_bytes]
        refuse_larger(sizes, most_bytes, beside)


def refuse_larger(sizes: Iterable[tuple[str, int]], most_bytes: int, beside: int = 0) -> None:
    """sizes: bytes of columns. beside: of others. raises: TooLargeError naming the largest where all have too many."""
    by_column: dict[str, int] = {}
    for name, size in sizes:
        by_column[name] = by_column.get(name, 0) + size
    total = beside + sum(by_column.values())
    if total > most_bytes:
        largest = max(by_column, key=lambda name: by_column[name], default="")
        size = by_column.get(largest, 0)
        others = f", {total:,} together with other columns" if total > size else ""
        raise TooLargeError(
            f"{size:,} bytes when decoded{others}; the limit is {most_bytes:,}: "
            "write smaller row groups, or raise `limits.max_row_group_bytes`",
            largest,
        )


def at_most(values: pa.Array) -> int:
    """Bytes that `values` take as plain values, or more: as if all that share a buffer were as large as the largest."""
    kind, types = values.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return at_most(values.storage)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return int(values.sizes.to_numpy().sum(dtype=np.int64)) * _largest(values.values) + 8 * len(values)
    if types.is_list(kind) or types.is_large_list(kind):
        return at_most(_inside(values, values.values)) + 8 * len(values)
    if types.is_map(kind):
        return sum(at_most(_inside(values, part)) for part in (values.keys, values.items)) + 8 * len(values)
    if types.is_fixed_size_list(kind):
        return at_most(_slots(values)) + len(values)
    if types.is_struct(kind):
        return sum((at_most(values.field(index)) for index in range(kind.num_fields)), len(values))
    return len(values) * _largest(values) if _shares(kind) else values.nbytes + 8 * len(values)


def shares(kind: pa.DataType) -> bool:
    """Whether values, or values inside them, may be one and the same in memory."""
    if isinstance(kind, pa.BaseExtensionType):
        return shares(kind.storage_type)
    lists = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    inside = (kind.field(index).type for index in range(kind.num_fields))
    return lists or _shares(kind) or any(map(shares, inside))


def _shares(kind: pa.DataType) -> bool:
    views = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    return bool(views or pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind))


def _largest(values: pa.Array) -> int:
    """Bytes of the largest plain value, or more."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _largest(values.dictionary)
    if pa.types.is_run_end_encoded(kind):
        return _largest(values.values)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return int(_words(values).view(np.int32)[:, 0].max(initial=0)) + 8
    return _width(kind) if _fixed(kind) else int(row_bytes(values).max(initial=1))


def _exactly(values: pa.Array) -> int:
    if pa.types.is_run_end_encoded(values.type):  # not row by row: a few runs may claim any number of rows
        _, inner, lengths = _runs(values)
        return int(np.dot(inner.astype(float), lengths.astype(float)))
    return int(row_bytes(values).sum())


def row_bytes(values: pa.Array) -> Sizes:
    """(len(values),) int64: bytes that each value takes as a plain one, its offset included; at least 1."""
    kind, types = values.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return row_bytes(values.storage)
    if types.is_dictionary(kind):
        if not len(values.dictionary):
            return np.full(len(values), 8, np.int64)
        return row_bytes(values.dictionary)[_filled(values.indices)]
    if types.is_run_end_encoded(kind):
        _, inner, lengths = _runs(values)
        return np.repeat(inner, lengths)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return _views(values).view(np.int32)[:, 0].astype(np.int64) + 4  # a view begins with its length
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        return _filled(pc.binary_length(values)) + 4
    if types.is_fixed_size_list(kind):
        return row_bytes(_slots(values)).reshape(len(values), kind.list_size).sum(axis=1) + 1
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        starts = values.offsets.to_numpy().astype(np.int64)
        return _sums(row_bytes(values.values), starts, starts + values.sizes.to_numpy()) + 4
    if types.is_map(kind):
        return row_bytes(_entries(values))
    if types.is_list(kind) or types.is_large_list(kind):
        lengths = _filled(pc.list_value_length(values))
        stops = np.cumsum(lengths)
        return _sums(row_bytes(values.flatten()), stops - lengths, stops) + 4
    if types.is_struct(kind):
        parts = (row_bytes(values.field(index)) for index in range(kind.num_fields))
        return sum(parts, np.ones(len(values), np.int64))
    return np.full(len(values), _width(kind), np.int64)


def _fixed(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)) and kind.num_buffers == 2


def _width(kind: pa.DataType) -> int:
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:  # unions
        return 1


def _filled(numbers: pa.Array) -> Sizes:
    return np.asarray(pc.fill_null(numbers, 0) if numbers.null_count else numbers).astype(np.int64)


def _sums(sizes: Sizes, starts: Sizes, stops: Sizes) -> Sizes:
    upto = np.concatenate([[0], np.cumsum(sizes)])
    return np.asarray(upto[stops] - upto[starts], np.int64)


def _words(values: pa.Array) -> Any:
    """(len(values), 2) int64: the words of each view; those of nulls may be anything."""
    if not len(values):
        return np.zeros((0, 2), np.int64)
    words = np.frombuffer(values.buffers()[1], np.int64, 2 * (values.offset + len(values)))
    return words.reshape(-1, 2)[values.offset :]


def _views(values: pa.Array) -> Any:
    """(len(values), 2) int64: the words of each view; those of nulls are 0."""
    words = _words(values)
    return words if not values.null_count else np.where(np.asarray(values.is_valid())[:, None], words, 0)


def _runs(values: pa.Array) -> tuple[pa.Array, Sizes, Sizes]:
    """Of the runs that `values`, perhaps a slice, has rows of: the values, their bytes, and how many rows each has."""
    first, count = values.find_physical_offset(), values.find_physical_length()
    inner = values.values.slice(first, count)
    ends = values.run_ends.to_numpy()[first : first + count].astype(np.int64) - values.offset
    return inner, row_bytes(inner), np.diff(np.minimum(ends, len(values)), prepend=0)


def _slots(lists: pa.FixedSizeListArray) -> pa.Array:
    """The elements of all lists, those of nulls too."""
    return lists.values.slice(lists.offset * lists.type.list_size, len(lists) * lists.type.list_size)


def _inside(lists: pa.Array, values: pa.Array) -> pa.Array:
    """Of the `values` of all lists, those from the first list to the last: a slice."""
    start, stop = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    return values.slice(start, stop - start)


def _entries(maps: pa.MapArray) -> pa.ListArray:
    return maps.cast(pa.list_(pa.struct([maps.type.key_field, maps.type.item_field])))


def _cuts(values: pa.Array, size: int, piece_bytes: int) -> list[int]:
    """Where to cut `values`, of at most `size` bytes, so that no piece has more than `piece_bytes`.

    raises: TooLargeError where one value has more.
    """
    if size <= piece_bytes:
        return [0, len(values)]
    cuts, upto = [0], np.concatenate([[0], np.cumsum(row_bytes(values))])
    while cuts[-1] < len(values):
        before = int(upto[cuts[-1]])
        stop = int(np.searchsorted(upto, before + piece_bytes, "right")) - 1
        if stop == cuts[-1]:
            raise TooLargeError(f"a value of {int(upto[stop + 1]) - before:,} bytes; up to {piece_bytes:,} are read")
        cuts.append(stop)
    return cuts


def _plain_piece(values: pa.Array, target: pa.DataType) -> pa.Array:
    plain = _plain(values, target)
    plain.validate()
    return plain


def _plain(values: pa.Array, target: pa.DataType) -> pa.Array:
    """`values`, whose size was looked at, with the part of each buffer that a slice leaves out left behind."""
    kind, types = values.type, pa.types
    if kind == target:
        return values
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(values.storage, target)
    if types.is_dictionary(kind):
        return _taken(values.dictionary, values.indices, target)
    if types.is_run_end_encoded(kind):
        if kind.value_type == target and not types.is_nested(target) and not isinstance(target, pa.BaseExtensionType):
            return pc.run_end_decode(values)
        inner, _, lengths = _runs(values)
        return _taken(inner, pa.array(np.repeat(np.arange(len(inner)), lengths)), target)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return values.cast(target)
    nulls = values.is_null() if values.null_count else None
    if types.is_struct(kind):
        fields = list(target)
        parts = [_plain(values.field(index), field.type) for index, field in enumerate(fields)]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=nulls)
    if types.is_fixed_size_list(kind):
        inner = _plain(_slots(values), target.value_type)
        if not kind.list_size:  # by which `from_arrays` (26.0) divides
            valid = None if nulls is None else pa.array(values.is_valid()).buffers()[1]
            return pa.Array.from_buffers(target, len(values), [valid], children=[inner])
        return pa.FixedSizeListArray.from_arrays(inner, type=target, mask=nulls)
    if types.is_map(kind):
        entries = _entries(values)
        keys, items = entries.flatten().flatten()
        keys, items = _plain(keys, target.key_type), _plain(items, target.item_type)
        return pa.MapArray.from_arrays(_offsets(entries), keys, items, type=target, mask=nulls)
    make = pa.LargeListArray if types.is_large_list(target) else pa.ListArray
    inner = _plain(values.flatten(), target.value_type)
    return make.from_arrays(_offsets(values), inner, type=target, mask=nulls)


def _offsets(lists: pa.Array) -> pa.Array:
    """Of the lists, one behind the other as `flatten` gives their elements."""
    if not lists.null_count and not pa.types.is_list_view(lists.type) and not pa.types.is_large_list_view(lists.type):
        return pc.subtract(lists.offsets, lists.offsets[0])
    lengths = pc.list_value_length(lists)
    sizes = np.asarray(pc.fill_null(lengths, 0) if lengths.null_count else lengths)
    return pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(sizes.dtype))


def _taken(values: pa.Array, indices: pa.Array, target: pa.DataType) -> pa.Array:
    """`values[index]` of each index, null where that is null."""
    if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):
        return _taken_views(values, indices).cast(target)
    if values.type != target and (size := at_most(values)) > PIECE_BYTES:
        raise TooLargeError(f"a dictionary of {size:,} bytes when decoded; up to {PIECE_BYTES:,} are read")
    return _plain(values, target).take(indices)


def _taken_views(values: pa.Array, indices: pa.Array) -> pa.Array:
    """pyarrow has no `take` for views (26.0)."""
    valid = np.asarray(pc.and_(indices.is_valid(), pc.fill_null(values.is_valid().take(indices), False)))
    words = _views(values)[_filled(indices)] if len(values) else np.zeros((len(indices), 2), np.int64)
    buffers = [pa.array(valid).buffers()[1], pa.py_buffer(np.ascontiguousarray(words)), *values.buffers()[2:]]
    return pa.Array.from_buffers(values.type, len(indices), buffers)
