"""CSV files as parts: a line of names, then rows. They carry no commit header: a part's receipt is the record.

Written by pyarrow.csv: texts in quotes, null as nothing, all else as plain text. The invariant: `CsvSource` reads back,
in the types that were written, the same rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from connectors.formats.base import Unread
from connectors.formats.spool import whole_part
from connectors.formats.text.csv_values import Decoder, Dialect, Wanted, readable
from connectors.formats.text.cut import Records
from connectors.formats.text.part import PACKED, TextWriter, rows_in_part, rows_in_spool
from connectors.secret import redact
from connectors.store.store import Store
from jobs.errors import DataError, OutputError

_BESIDE = "beside"  # a column that no row lacks: a line of nothing is no row


class CsvEncoder:
    """Writes rows as CSV. compression: 'gzip', 'zstd' or 'none'."""

    suffix = ".csv"
    packed = PACKED
    carries_header = False
    unread: tuple[Unread, ...] = ()

    def encoded(self, table: pa.Table) -> pa.Buffer:
        for field in table.schema:
            if not _written(field.type):
                raise TypeError("CSV holds texts, numbers, booleans, dates and times")
        beside = table.append_column(_BESIDE, pa.array([0] * table.num_rows, pa.int8()))
        sink = pa.BufferOutputStream()
        pacsv.write_csv(beside, sink, pacsv.WriteOptions(include_header=False))
        return sink.getvalue()

    def decoded(self, content: pa.Buffer, schema: pa.Schema) -> pa.Table:
        wanted = [Wanted(at, field.name, _read(field.type)) for at, field in enumerate(schema)]
        decoder = Decoder(Dialect(), len(schema) + 1, wanted)
        if not content.size:
            return decoder.schema.empty_table()
        table, bad = decoder.table(content, 1)
        if bad:
            raise TypeError(bad[0].stories[0])
        return table

    def open(self, spool: Path, schema: pa.Schema, compression: str) -> CsvWriter:
        return CsvWriter(spool, schema, compression)

    def dataset(self, url: str) -> Any:
        refuse_packed(url, "csv")
        from pyarrow.dataset import CsvFileFormat  # 0.2 s that no worker should spend

        convert = pacsv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
        return CsvFileFormat(Dialect().parsing(), convert_options=convert)

    def unstated(self, schema: pa.Schema) -> pa.Schema | None:
        halves = {pa.float16(): pa.float32()}
        return pa.schema([(field.name, halves.get(field.type, _read(field.type))) for field in schema])

    def read_header(self, store: Store, path: str) -> tuple[dict[str, object] | None, int]:
        rows = rows_in_part(store, path, Records())
        with whole_part(path):
            if not rows:
                raise ValueError("it has no line of names")
        return None, rows - 1


class CsvWriter(TextWriter):
    def __init__(self, spool: Path, schema: pa.Schema, compression: str) -> None:
        super().__init__(spool, schema, compression)
        with self._errors():
            self._rows_out = pacsv.CSVWriter(self._text, schema)

    def _encode(self, group: pa.Table) -> None:
        if group.num_columns == 1 and group.column(0).null_count:
            group = _alone(group)
            with pa.BufferOutputStream() as sink:
                pacsv.write_csv(group, sink, pacsv.WriteOptions(include_header=False))
                self._text.write(sink.getvalue())
            return
        self._rows_out.write_table(group)

    def _finish(self, header: str) -> None:
        self._rows_out.close()
        super()._finish(header)

    @staticmethod
    def _rows_of(spool: Path) -> int:
        return rows_in_spool(spool, Records()) - 1


def refuse_packed(url: str, kind: str) -> str:
    """`kind`, unless pyarrow.dataset does not unpack the part."""
    if url.endswith(PACKED["zstd"]):
        raise OutputError(f"cannot open '{redact(url)}' as a table: pyarrow.dataset does not unpack '.zst'")
    return kind


def _alone(group: pa.Table) -> pa.Table:
    """The one column as texts, which stand in quotes, so that no line is empty. raises: DataError ROW_NULL."""
    column = group.column(0)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        raise DataError(
            f"cannot write rows as CSV: column {group.column_names[0]!r}, the only one, is null in"
            f" {column.null_count:,} rows of a row group, and an empty line is no row; keep a column beside it",
            code="ROW_NULL",
        )
    return pa.table({group.column_names[0]: pc.fill_null(column.cast(pa.string()), "")})


def _written(kind: pa.DataType) -> bool:
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)  # perhaps no text
    return pa.types.is_null(kind) or (readable(kind) and not binary)


def _read(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_null(kind) else kind


ENCODER = CsvEncoder
