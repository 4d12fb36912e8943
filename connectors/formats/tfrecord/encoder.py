"""TFRecord files as parts: rows written as tf.Examples. They carry no commit header: a part's receipt is the record."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from connectors.formats.base import Unread
from connectors.formats.buffered import BufferedFile
from connectors.formats.spool import SpoolWriter, open_part, whole_part
from connectors.formats.tfrecord.columns import decode, infer
from connectors.formats.tfrecord.example import RowsError, encode, kind_of
from connectors.formats.tfrecord.record import content_of, framed, lengths, records
from connectors.secret import redact
from connectors.store.store import Store
from jobs.errors import DataError, OutputError

_ENCODED_ROWS = 2**14  # at once: what is between stays small, measured twice as fast as a whole row group


class TFRecordEncoder:
    """Writes rows as tf.Examples. compression: 'gzip' or 'none'."""

    suffix = ".tfrecord"
    packed: Mapping[str, str] = MappingProxyType({})
    carries_header = False
    unread: tuple[Unread, ...] = ()

    def encoded(self, table: pa.Table) -> pa.Buffer:
        if any(kind_of(field.type) is None for field in table.schema):
            raise TypeError("a tf.Example holds numbers, booleans, strings, or lists of them")
        columns = [(name, table.column(index).combine_chunks()) for index, name in enumerate(table.column_names)]
        return framed(encode(columns, table.num_rows))

    def decoded(self, content: pa.Buffer, schema: pa.Schema) -> pa.Table:
        column = pa.array(records(content.to_pybytes()), pa.binary())
        columns = infer(column)
        return pa.table(dict(zip(columns, decode(column, columns)[0], strict=True)))

    def open(self, spool: Path, schema: pa.Schema, compression: str) -> TFRecordWriter:
        return TFRecordWriter(spool, schema, compression)

    def dataset(self, url: str) -> str:
        raise OutputError(f"cannot open '{redact(url)}' as a table: read it with tf.data.TFRecordDataset")

    def unstated(self, schema: pa.Schema) -> pa.Schema | None:
        return None

    def read_header(self, store: Store, path: str) -> tuple[dict[str, object] | None, int]:
        with open_part(store, path) as held, whole_part(path):
            return None, sum(1 for _ in lengths(held, content_of(held)))


class TFRecordWriter(SpoolWriter):
    def __init__(self, spool: Path, schema: pa.Schema, compression: str) -> None:
        super().__init__(spool, schema)
        self._deflate = zlib.compressobj(wbits=31) if compression == "gzip" else None

    def _encode(self, group: pa.Table) -> None:
        columns = [(name, group.column(index).combine_chunks()) for index, name in enumerate(group.column_names)]
        for first in range(0, group.num_rows, _ENCODED_ROWS):
            some = [(name, column.slice(first, _ENCODED_ROWS)) for name, column in columns]
            try:
                made = encode(some, len(some[0][1]))
            except RowsError as error:
                text = f"row {first + error.at[0]} of a row group holds {error.found}; {error.expected}"
                raise DataError(f"cannot write rows as tf.Examples: {text}", code=error.code) from error
            self._write(framed(made))

    def _write(self, content: pa.Buffer) -> None:
        self._sink.write(content if self._deflate is None else self._deflate.compress(content))

    def _finish(self, header: str) -> None:
        if self._deflate is not None:
            self._sink.write(self._deflate.flush())

    def _drop(self) -> None:
        self._deflate = None

    @staticmethod
    def _rows_of(spool: Path) -> int:
        with BufferedFile(spool.open("rb"), str(spool), spool.stat().st_size) as file:
            return sum(1 for _ in lengths(file, content_of(file)))
