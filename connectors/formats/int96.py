"""INT96 timestamps of Parquet: a Julian day and nanoseconds, 96 bits that pyarrow narrows to 64 without a look.

Owns the unit that a file is read in, and which of its values that unit does not hold; refuses to know pages. The
invariant: a value that comes out is the instant that the file has, or its row is bad. pyarrow (26.0) wraps what 64 bits
do not hold and cuts off what is below the unit; the same values in other units tell both.
source: Parquet, parquet.thrift, Type INT96; the Julian day 2440588 is 1 January 1970.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.formats.fault import BadRows
from connectors.formats.schema import leaf_types

Unit = Literal["us", "ns"]

USUAL: Unit = "us"  # holds the years 1 to 9999 and all that Spark knows; most writers have no digits below it

# What a value is compared with: rounded down to milliseconds every INT96 fits into 64 bits, and what wraps in
# nanoseconds still has its last digits.
COMPARED: Mapping[Unit, tuple[str, ...]] = {"us": ("ms", "ns"), "ns": ("ms",)}

_PER_MS = {"us": 1000, "ns": 1_000_000}
_WORDS = {"us": "microseconds", "ns": "nanoseconds"}
_SPANS = {"us": "years -290307 to 294246", "ns": "years 1678 to 2261"}


def unit_of(metadata: pq.FileMetaData, leaves: Sequence[int]) -> Unit:
    """The unit that holds what a file has in its INT96 columns `leaves`, as far as its footer tells.

    Nanoseconds, where the file says that its writer had all of them in 64 bits of nanoseconds: in its Arrow schema, or
    in the metadata of pandas. Statistics do not tell: most writers have none of INT96.
    """
    said = metadata.metadata or {}
    if b"ARROW:schema" in said:
        with suppress(ValueError, pa.ArrowException):  # not one that can be read
            schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(said[b"ARROW:schema"])))
            kinds = [kind for field in schema for kind in leaf_types(field.type)]
            if len(kinds) == metadata.num_columns:
                return "ns" if all(getattr(kinds[leaf], "unit", "") == "ns" for leaf in leaves) else USUAL
    with suppress(ValueError, AttributeError, KeyError, TypeError, RecursionError):  # no JSON, or another one
        columns = json.loads(said.get(b"pandas", b"{}"))["columns"]
        stated = {column.get("field_name", column["name"]): str(column["numpy_type"]) for column in columns}
        if all(stated[metadata.schema.column(leaf).path].startswith("datetime64[ns") for leaf in leaves):
            return "ns"
    return USUAL


def unheld(table: pa.Table, others: Mapping[str, pa.Table], unit: Unit, first: int) -> list[BadRows]:
    """The rows with a value that the unit does not hold.

    table:  as it was read. others: unit -> its INT96 columns, read in that unit.
    first:  the number of its first row.
    """
    bad: list[BadRows] = []
    for other_unit, other in others.items():
        for name in other.column_names:
            rows, start = [np.empty(0, np.int64)], first
            for read, again in zip(table.column(name).chunks, other.column(name).chunks, strict=True):
                rows += [start + at for at in _differing(read, again, unit, other_unit)]
                start += len(read)
            at = np.unique(np.concatenate(rows))
            if len(at):
                code, story = _told(name, unit, other_unit)
                bad.append(BadRows(code, name, at, [story] * len(at)))
    return bad


def _told(name: str, unit: Unit, other_unit: str) -> tuple[str, str]:
    """A code, and what is wrong."""
    if other_unit == "ms":
        found, expected = f"outside of the {_SPANS[unit]}", f"expected one that 64 bits of {_WORDS[unit]} hold"
        return "ROW_OVERFLOW", f"column {name!r}: found an INT96 timestamp {found}; {expected}"
    expected = (
        "expected none, because nothing in the file says that it counts nanoseconds; write it with INT64 timestamps"
    )
    return "ROW_INEXACT", f"column {name!r}: found an INT96 timestamp with digits below a microsecond; {expected}"


def emptied(table: pa.Table, bad: Sequence[BadRows]) -> pa.Table:
    """The same rows; null in the column that is to blame, where a row is bad."""
    for one in bad:
        index = table.schema.get_field_index(one.column or "")
        kept = np.arange(table.num_rows)
        gone = np.isin(kept, one.at)
        table = table.set_column(index, table.schema.field(index), table.column(index).take(pa.array(kept, mask=gone)))
    return table


class _Instants(NamedTuple):
    """The timestamps of one leaf of an array. numbers: (values,) int64. rows: (values,) the row of each."""

    unit: str
    numbers: Any
    rows: Any


def _differing(read: pa.Array, again: pa.Array, unit: Unit, other_unit: str) -> Iterator[Any]:
    """Of each leaf that is INT96, the rows in which a value is not the same in both units."""
    rows = np.arange(len(read))
    for here, there in zip(_instants(read, rows), _instants(again, rows), strict=True):
        if (here.unit, there.unit) != (unit, other_unit):  # stored as INT64, whose unit is its own
            continue
        if other_unit == "ms":
            wrong = here.numbers // _PER_MS[unit] != there.numbers
        else:
            wrong = here.numbers.view(np.uint64) * np.uint64(1000) != there.numbers.view(np.uint64)
        yield here.rows[wrong]


def _instants(values: pa.Array, rows: Any) -> Iterator[_Instants]:
    kind, types = values.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        yield from _instants(values.storage, rows)
    elif types.is_timestamp(kind):
        filled = pc.fill_null(values, pa.scalar(0, kind)) if values.null_count else values
        data = filled.buffers()[1]
        numbers = (
            np.frombuffer(data, np.int64, len(filled), 8 * filled.offset) if len(filled) else np.empty(0, np.int64)
        )
        yield _Instants(kind.unit, numbers, rows)
    elif types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _instants(values.field(index), rows)
    elif types.is_map(kind):
        yield from _instants(values.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))), rows)
    elif types.is_nested(kind) and kind.num_fields == 1:
        lengths = pc.list_value_length(values)
        sizes = np.asarray(pc.fill_null(lengths, 0) if lengths.null_count else lengths)
        yield from _instants(values.flatten(), np.repeat(rows, sizes))
