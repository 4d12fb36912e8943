"""What the footer of a Parquet file says of the values in a row group, as far as that can be trusted.

Owns which statistics count; refuses to know what is done with them. The invariant: a value in the row group lies
between the bounds that are told, or is NaN; what is doubtful is not told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

from connectors.formats.base import Span
from connectors.formats.chunk import Leaf
from connectors.formats.fault import DECODE_ERRORS
from connectors.formats.footer import Footer
from connectors.formats.schema import leaf_types

_UNITS = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
_NOTHING = Span()


def leaf_of(schema: pa.Schema, way: tuple[str, ...]) -> int | None:
    """The leaf column of a column, or of a field in it; None where it has several, or lies in lists."""
    name, *path = way
    if len(schema.get_all_field_indices(name)) != 1:
        return None
    at = schema.get_field_index(name)
    leaf = sum(1 for field in list(schema)[:at] for _ in leaf_types(field.type))
    kind = schema.field(at).type
    for step in path:
        if not pa.types.is_struct(kind) or (inside := kind.get_field_index(step)) < 0:
            return None
        leaf += sum(1 for index in range(inside) for _ in leaf_types(kind.field(index).type))
        kind = kind.field(inside).type
    return None if pa.types.is_nested(kind) else leaf


def span_of(footer: Footer, row_group: int, leaves: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], Span]:
    """Of each way. raises: as `Footer.chunks`."""
    chunks = {chunk.leaf.path: chunk for chunk in footer.chunks(row_group, list({way[0] for way in leaves}))}
    group, found = footer.metadata.row_group(row_group), dict[tuple[str, ...], Span]()
    for way, leaf in sorted(leaves.items(), key=lambda item: item[1]):
        column = footer.metadata.schema.column(leaf)
        with suppress(*DECODE_ERRORS, KeyError, TypeError, UnicodeDecodeError):
            if _whole(footer.stated.bounds(chunks[column.path]), chunks[column.path].leaf):
                found[way] = _span(group.column(leaf), column)
    return found


_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


def _whole(bounds: Sequence[int] | None, leaf: Leaf) -> bool:
    """Whether all bounds are as long as values of the type: of a shorter one pyarrow (26.0) ends the process."""
    if bounds is None:
        return False
    width = leaf.width if leaf.kind == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(leaf.kind)
    return width is None or all(size == width for size in bounds)


def _span(chunk: Any, column: Any) -> Span:
    statistics = chunk.statistics if chunk.is_stats_set else None
    if statistics is None:
        return _NOTHING
    nulls = statistics.null_count if statistics.has_null_count else None
    if nulls is not None and not 0 <= nulls <= chunk.num_values:
        return _NOTHING
    if nulls == chunk.num_values:
        return Span(None, None, nulls)
    kind = _kind(statistics, column) if statistics.has_min_max else None
    if kind is None:
        return Span(None, None, nulls)
    low, high = (_raw(statistics, kind, which) for which in ("min", "max"))
    return Span(pa.scalar(low, kind), pa.scalar(high, kind), nulls)


def _raw(statistics: Any, kind: pa.DataType, which: str) -> Any:
    """Numbers of Python's that hold all digits: `min` of a timestamp is a datetime, and loses some."""
    plain = pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)
    return getattr(statistics, which if plain else f"{which}_raw")


def _kind(statistics: Any, column: Any) -> pa.DataType | None:
    """The type of the bounds; None where they are of one that is not compared, or in no order that is known."""
    logical, physical = column.logical_type.type, statistics.physical_type
    if logical == "INT":
        facts = json.loads(column.logical_type.to_json())
        return pa.int64() if facts["isSigned"] else pa.uint64()
    if logical == "TIMESTAMP":
        return pa.timestamp(_UNITS[json.loads(column.logical_type.to_json())["timeUnit"]])
    if logical == "DECIMAL":
        return pa.decimal256(column.precision, column.scale)
    known: dict[tuple[str, str], pa.DataType] = {
        ("DATE", "INT32"): pa.date32(),
        ("NONE", "INT32"): pa.int64(),
        ("NONE", "INT64"): pa.int64(),
        ("NONE", "BOOLEAN"): pa.bool_(),
        ("NONE", "FLOAT"): pa.float64(),
        ("NONE", "DOUBLE"): pa.float64(),
        ("STRING", "BYTE_ARRAY"): pa.binary(),
        ("NONE", "BYTE_ARRAY"): pa.binary(),
        ("NONE", "FIXED_LEN_BYTE_ARRAY"): pa.binary(),
    }
    return known.get((logical, physical))
