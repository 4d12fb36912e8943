"""What a format can hold, found out before any work: a few rows are written, and read back as users read them.

Owns these rows and what is compared, for all formats alike. Refuses to know which types a library writes, or writes and
cannot read: it asks. The invariant: of a column that is not refused, rows of each kind there is (values, empty lists,
nulls where the column may have them, no row at all) can be picked out of others, written, and read as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from connectors.formats.base import Encoder
from connectors.formats.fault import one_line
from connectors.formats.tfrecord.example import RowsError
from jobs.errors import out_of_threads

_FAULTS = (pa.ArrowException, OSError, ValueError, TypeError, RowsError)


@dataclass(frozen=True)
class Rehearsal:
    """refused: column -> why no part can hold it. changed: column -> the type that a reader of a part gets instead."""

    refused: Mapping[str, str]
    changed: Mapping[str, pa.DataType]


def rehearse(encoder: Encoder, schema: pa.Schema) -> Rehearsal:
    """Try the columns of `schema`. cost: of one column for each type there is; a few ms."""
    alike: dict[tuple[pa.DataType, bool], list[str]] = {}
    for field in schema:
        alike.setdefault((field.type, field.nullable), []).append(field.name)
    fields = [pa.field(names[0], kind, nullable) for (kind, nullable), names in alike.items()]
    found = _tried(encoder, fields)
    outcomes = [found] * len(fields) if isinstance(found, str) else found
    if isinstance(found, str) and len(fields) > 1:  # again one by one, to name the columns
        alone = [_tried(encoder, [field]) for field in fields]
        if any(isinstance(one, str) for one in alone):
            outcomes = [one if isinstance(one, str) else one[0] for one in alone]
    refused, changed = dict[str, str](), dict[str, pa.DataType]()
    for outcome, ((kind, _), names) in zip(outcomes, alike.items(), strict=True):
        if isinstance(outcome, str):
            refused |= dict.fromkeys(names, outcome)
        elif outcome != kind:
            changed |= dict.fromkeys(names, outcome)
    return Rehearsal(refused, changed)


def _tried(encoder: Encoder, fields: list[pa.Field]) -> list[pa.DataType] | str:
    """The types in which columns come back, or why they do not. raises: CapacityError where threads are missing."""
    doing = "its rows cannot be picked out of others"
    try:
        table = _table(fields)
        doing = "it cannot be written"
        contents = [encoder.encoded(some) for some in (table.slice(0, 0), table)]
        doing = "it could be written, and not be read again"
        back = [encoder.decoded(content, table.schema) for content in contents][-1]
    except _FAULTS as error:
        if (refused := out_of_threads(error)) is not None:
            raise refused from error
        return f"{doing}: {one_line(error)}"
    columns = [back.column(field.name) for field in fields]
    if not all(_equal(column, written) for column, written in zip(columns, table.columns, strict=True)):
        return "other values would be read than were written"
    return [column.type for column in columns]


def _table(fields: list[pa.Field]) -> pa.Table:
    """Three rows: values, empty values, and nulls where there may be some."""
    rows = [
        [_values(field.type, 1, full=True) for field in fields],
        [_values(field.type, 1, full=False) for field in fields],
        [nulls(field.type, 1) if field.nullable else _values(field.type, 1, full=True) for field in fields],
    ]
    first = _values(pa.int64(), 1, full=True)
    picked = [[column.take(first) for column in row] for row in rows]
    schema = pa.schema(fields)
    return pa.Table.from_batches([pa.RecordBatch.from_arrays(row, schema=schema) for row in picked], schema)


def _equal(read: pa.ChunkedArray, written: pa.ChunkedArray) -> bool:
    if read.type != written.type:
        try:
            read = read.cast(written.type)
        except _FAULTS:  # another kind of type: that is what is said
            return len(read) == len(written)
    return bool(read.equals(written))


def nulls(kind: pa.DataType, rows: int) -> pa.Array:
    """`rows` nulls, with values below them: where fields of a struct are never null, Parquet refuses nulls there."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, nulls(kind.storage_type, rows))
    if pa.types.is_nested(kind) and not pa.types.is_union(kind) and not pa.types.is_run_end_encoded(kind):
        return _nested(kind, rows, full=False, valid=False)
    return pa.nulls(rows, kind)


def _values(kind: pa.DataType, rows: int, *, full: bool) -> pa.Array:
    """`rows` values, none null: zeros, and lists of one element; not full: empty lists and texts."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _values(kind.storage_type, rows, full=full))
    if types.is_null(kind):
        return pa.nulls(rows)
    if types.is_run_end_encoded(kind):
        width, runs = np.dtype(f"i{kind.run_end_type.bit_width // 8}"), min(rows, 1)
        ends = pa.Array.from_buffers(kind.run_end_type, runs, [None, pa.py_buffer(np.full(runs, rows, width))])
        return pa.RunEndEncodedArray.from_arrays(ends, _values(kind.value_type, runs, full=full), kind)
    if types.is_dictionary(kind):
        indices = _values(kind.index_type, rows, full=full)
        return pa.DictionaryArray.from_arrays(indices, _values(kind.value_type, 1, full=True), ordered=kind.ordered)
    if types.is_nested(kind):
        return _nested(kind, rows, full=full)
    try:
        bits = kind.bit_width
    except ValueError:
        return _texts(kind, rows, full=full)
    return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(bytes(-(-bits * rows // 8)))])


def _texts(kind: pa.DataType, rows: int, *, full: bool) -> pa.Array:
    """Not by `pa.array`, which imports pandas where there is one."""
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return pa.nulls(rows, kind)  # rows of them cannot be picked out of others: nothing of them is ever written
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    ends = (np.arange(rows + 1) * int(full)).astype(np.int64 if wide else np.int32)
    return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(ends), pa.py_buffer(b"x" * rows)])


def _nested(kind: pa.DataType, rows: int, *, full: bool, valid: bool = True) -> pa.Array:
    types = pa.types
    buffers: list[pa.Buffer | None] = [None if valid else pa.py_buffer(bytes(-(-rows // 8)))]
    counts = [rows] * kind.num_fields  # of the values below
    if types.is_fixed_size_list(kind):
        counts = [rows * kind.list_size]
    elif types.is_union(kind):
        buffers.append(pa.py_buffer(np.full(rows, kind.type_codes[0] if kind.type_codes else 0, np.int8)))
        if kind.mode == "dense":
            buffers.append(pa.py_buffer(np.arange(rows, dtype=np.int32)))
            counts = [rows, *[0] * (kind.num_fields - 1)]
    elif not types.is_struct(kind):  # lists and maps
        width = np.int64 if types.is_large_list(kind) or types.is_large_list_view(kind) else np.int32
        offsets = (np.arange(rows + 1) * int(full)).astype(width)
        view = types.is_list_view(kind) or types.is_large_list_view(kind)
        buffers += [pa.py_buffer(offsets[:rows].copy() if view else offsets)]
        buffers += [pa.py_buffer(np.full(rows, full, width))] if view else []
        counts = [rows if full else 0]
    children = [_values(kind.field(index).type, count, full=full) for index, count in enumerate(counts)]
    return pa.Array.from_buffers(kind, rows, buffers, null_count=0 if valid else rows, children=children)
