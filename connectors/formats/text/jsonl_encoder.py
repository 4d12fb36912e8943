"""JSON lines as parts: a row is a line, and tensors are lists in lists. They carry no commit header.

JSON has no NaN and no infinity: they are written as Python, DuckDB and Arrow do, `NaN` and `-Infinity`, so that none is
lost. The invariant: a reader that knows these gets the values that were written.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.json as pajson

from connectors.formats.base import Unread
from connectors.formats.text.csv_encoder import refuse_packed
from connectors.formats.text.cut import Lines
from connectors.formats.text.json_text import holds, is_list, objects
from connectors.formats.text.part import PACKED, TextWriter, rows_in_part, rows_in_spool
from connectors.store.store import Store

_PIECE_BYTES, _PIECE_ROWS = 2**24, 2**14  # written at once: its text is a few times as much


class JsonlEncoder:
    """Writes rows as JSON lines. compression: 'gzip', 'zstd' or 'none'."""

    suffix = ".jsonl"
    packed = PACKED
    carries_header = False
    unread: tuple[Unread, ...] = ()

    def encoded(self, table: pa.Table) -> pa.Buffer:
        if not all(holds(field.type) for field in table.schema):
            raise TypeError("JSON holds texts, numbers, booleans, dates and times, and lists and objects of them")
        return lines(table)

    def decoded(self, content: pa.Buffer, schema: pa.Schema) -> pa.Table:
        read = _stated(schema)
        if not content.size:
            return read.empty_table()
        options = pajson.ParseOptions(explicit_schema=read, unexpected_field_behavior="error")
        table = pajson.read_json(pa.BufferReader(content), pajson.ReadOptions(use_threads=False), options)
        columns = [_again(table.column(field.name), field.type) for field in schema]
        return pa.table(columns, names=schema.names)

    def open(self, spool: Path, schema: pa.Schema, compression: str) -> JsonlWriter:
        return JsonlWriter(spool, schema, compression)

    def dataset(self, url: str) -> str:
        return refuse_packed(url, "json")

    def unstated(self, schema: pa.Schema) -> pa.Schema | None:
        return _stated(schema)

    def read_header(self, store: Store, path: str) -> tuple[dict[str, object] | None, int]:
        return None, rows_in_part(store, path, Lines())


class JsonlWriter(TextWriter):
    def _encode(self, group: pa.Table) -> None:
        rows = max(1, min(_PIECE_ROWS, group.num_rows * _PIECE_BYTES // max(1, group.nbytes)))
        for first in range(0, group.num_rows, rows):
            self._text.write(lines(group.slice(first, rows)))

    @staticmethod
    def _rows_of(spool: Path) -> int:
        return rows_in_spool(spool, Lines())


def lines(table: pa.Table) -> pa.Buffer:
    """Each row as an object, and a line feed."""
    if not table.num_rows:
        return pa.py_buffer(b"")
    made = objects(table.column_names, [column.combine_chunks() for column in table.columns], "\n")
    _, offsets, data = made.buffers()
    ends = memoryview(offsets).cast("i")
    first, last = ends[made.offset], ends[made.offset + len(made)]
    return data.slice(first, last - first)


def _stated(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(_read(field.type)) for field in schema])


def _read(kind: pa.DataType) -> pa.DataType:
    """The type in which pyarrow.json reads what such values are written as."""
    types = pa.types
    if isinstance(kind, pa.FixedShapeTensorType):
        made = _read(kind.value_type)
        for _ in kind.shape:
            made = pa.list_(made)
        return made
    if isinstance(kind, pa.BaseExtensionType):
        return _read(kind.storage_type)
    if is_list(kind):
        return pa.list_(_read(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_read(field.type)) for field in kind])
    if types.is_date(kind) or types.is_time(kind):
        return pa.string()
    return pa.float32() if types.is_float16(kind) else kind


def _again(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """As the type that was written, where that is the same list or number by another name."""
    same = pa.types.is_float16(kind) or pa.types.is_date(kind) or pa.types.is_large_list(kind)
    return column.cast(kind) if same else column


ENCODER = JsonlEncoder
