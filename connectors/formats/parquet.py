"""Parquet: reads row groups with their checksums verified, writes parts with theirs.

Owns what is particular to the format; bytes come from `buffered` and go to `spool`. Refuses to guess: a page that
does not match its checksum, or a row group with other rows than planned, is an error.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import (
    MAX_ROW_GROUP_BYTES,
    bad_row_group,
    check_unchanged,
    one_line,
    out_of_memory,
    unreadable,
    while_running,
    wrong_magic,
    wrong_rows,
)
from connectors.formats.schema import leaf_count, plain_schema, plain_table, position
from connectors.formats.spool import HEADER_KEY, SpoolWriter, empty_batch, open_part, whole_part
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup

_log = logging.getLogger(__name__)

_MAGIC, _ENCRYPTED_MAGIC = b"PAR1", b"PARE"
_SMALLEST = 12  # bytes: magic, length of the footer, magic

# Bytes of one decoded value. Runs and dictionaries make the bytes of a page much fewer than those of its values.
_VALUE_BYTES = {"INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 8}

# What pyarrow raises for bad bytes; ArrowInvalid is a ValueError, and so is a name that is not UTF-8.
_DECODE_ERRORS = (OSError, ValueError, pa.ArrowException)

# Dictionaries pay for few distinct values only; with this limit (default 1 MiB) the encoder finds out sooner.
# Measured, 1 M rows with zstd: unique int64 0.033 s instead of 0.044 s and 19 % smaller; 1,000 distinct unchanged.
_DICTIONARY_BYTES = 64 * 1024


@dataclass(frozen=True)
class FileSchema:
    """A schema as the file has it, as it is delivered, and which leaf columns belong to which top-level field."""

    raw: pa.Schema
    plain: pa.Schema
    leaves: tuple[range, ...]

    @classmethod
    def of(cls, raw: pa.Schema) -> FileSchema:
        leaves, start = [], 0
        for field in raw:
            stop = start + leaf_count(field.type)
            leaves.append(range(start, stop))
            start = stop
        return cls(raw, plain_schema(raw), tuple(leaves))


class Footer:
    """The parsed footer of one file, with column metadata that is safe to look at.

    `metadata.row_group(i).column(j)` aborts the process where that column is encrypted or its metadata damaged:
    the C++ exception passes through a binding that does not catch it. `chunks`, the only one to call it, has the
    same columns opened by the reader first, which does catch, on a file of which only the footer can be read.
    """

    def __init__(self, file: BufferedFile) -> None:
        """file: with its footer held. raises: what pyarrow raises for a bad footer."""
        self._file = file
        self._probe = _FooterFile(file)
        # buffer_size: columns are opened without reading, so all are checked before the first page is read.
        self._parquet = pq.ParquetFile(pa.PythonFile(self._probe, mode="r"), buffer_size=4096, pre_buffer=False)
        self._probe.seal()
        self.metadata = self._parquet.metadata

    def load_schema(self, known: FileSchema | None) -> None:
        """known: the schema of another file, used again if it is the same. raises: what pyarrow raises."""
        raw = self._parquet.schema_arrow.remove_metadata()
        same = known is not None and known.raw.equals(raw, check_metadata=True)
        self.schema = known if known is not None and same else FileSchema.of(raw)

    def chunks(self, row_group: int, columns: Sequence[str]) -> list[Any]:
        """Metadata of the column chunks below `columns`.

        raises: InputError FILE_ENCRYPTED, FILE_UNSUPPORTED, FILE_FOOTER.
        """
        self._rehearse(row_group, columns)
        group, wanted, raw = self.metadata.row_group(row_group), set(columns), self.schema.raw
        return [
            group.column(leaf)
            for index, leaves in enumerate(self.schema.leaves)
            if raw.field(index).name in wanted
            for leaf in leaves
        ]

    def _rehearse(self, row_group: int, columns: Sequence[str]) -> None:
        failure = self._failure(row_group, columns)
        if failure is None:
            return
        # Again one by one, to name the column.
        column = next((name for name in columns if self._failure(row_group, [name]) is not None), None)
        what = f"row group {row_group} column {column!r}: {one_line(failure)}"
        if "decrypt" in str(failure).lower():
            raise unreadable(self._file, "FILE_ENCRYPTED", f"{what}; encrypted columns are not supported") from failure
        raise unreadable(self._file, "FILE_UNSUPPORTED" if _unsupported(failure) else "FILE_FOOTER", what) from failure

    def _failure(self, row_group: int, columns: Sequence[str]) -> Exception | None:
        self._probe.reached = False
        try:
            self._parquet.read_row_group(row_group, columns=list(columns), use_threads=False)
        except _DECODE_ERRORS as error:
            return None if self._probe.reached else error
        return None


class _FooterFile(BufferedFile):
    """After `seal`, has a size and no bytes, and notes that some were wanted."""

    def __init__(self, file: BufferedFile) -> None:
        super().__init__(io.BytesIO(), file.url, file.size)
        self._whole: BufferedFile | None = file
        self.reached = False

    def seal(self) -> None:
        self._whole = None

    def take(self, start: int, stop: int) -> pa.Buffer:
        if self._whole is not None:
            return self._whole.take(start, stop)
        self.reached = True
        return pa.py_buffer(b"")


def read_footer(file: BufferedFile, known: FileSchema | None = None) -> Footer:
    """Find, fetch and parse the footer.

    known:  the schema of another file, used again if this file has the same.
    raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_ENCRYPTED, FILE_FOOTER, FILE_SCHEMA,
            FILE_UNSUPPORTED.
    """
    _hold_footer(file)
    with _refusing(file, "FILE_FOOTER", "its footer cannot be parsed"):
        footer = Footer(file)
    _check_rows(file, footer.metadata)
    with _refusing(file, "FILE_SCHEMA", "its schema cannot be read"):
        footer.load_schema(known)
    leaves = sum(len(leaf) for leaf in footer.schema.leaves)
    if leaves != footer.metadata.num_columns:
        counts = f"its schema has {leaves} leaf columns, its footer {footer.metadata.num_columns}"
        raise unreadable(file, "FILE_SCHEMA", counts)
    return footer


@contextmanager
def _refusing(file: BufferedFile, code: str, what: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise unreadable(file, "FILE_SCHEMA", f"a column name is not UTF-8: {error}") from error
    except pa.ArrowNotImplementedError as error:
        raise unreadable(file, "FILE_UNSUPPORTED", error) from error
    except (*_DECODE_ERRORS, MemoryError) as error:
        raise unreadable(file, code, f"{what}: {one_line(error)}") from error


def _hold_footer(file: BufferedFile) -> None:
    if file.size == 0:
        raise unreadable(file, "FILE_EMPTY", "it has zero bytes")
    tail = file.tail()
    end = bytes(tail[-8:])
    whole = end[4:] == _MAGIC and file.size >= _SMALLEST
    if end[4:] == _ENCRYPTED_MAGIC:
        raise unreadable(file, "FILE_ENCRYPTED", "its footer is encrypted; decryption keys are not supported")
    if not whole and bytes(file.take(0, min(4, file.size))) in (_MAGIC, _ENCRYPTED_MAGIC):
        raise unreadable(
            file, "FILE_TRUNCATED", f"it starts as Parquet, but its {file.size} bytes do not end with a footer"
        )
    if not whole:
        raise wrong_magic(file, "Parquet")
    length = int.from_bytes(end[:4], "little")
    if length + _SMALLEST > file.size:
        raise unreadable(file, "FILE_FOOTER", f"its footer claims {length} bytes, the file has {file.size}")
    if length + 8 > len(tail):
        file.hold([(file.size - length - 8, file.size)])


def _check_rows(file: BufferedFile, metadata: pq.FileMetaData) -> None:
    rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0:
        raise unreadable(file, "FILE_FOOTER", f"a row group claims {min(rows)} rows")
    if metadata.num_rows != sum(rows):
        if not rows:
            raise unreadable(file, "FILE_FOOTER", f"it claims {metadata.num_rows} rows and has no row group")
        # Legitimate files do this too: the row groups are what is read.
        _log.warning("'%s' claims %d rows, its row groups %d: taking these", file.url, metadata.num_rows, sum(rows))


class ParquetSource:
    """Reads Parquet. Remembers the last schema seen, so that files with the same schema share one object."""

    suffixes: tuple[str, ...] = (".parquet", ".pq", ".parq")

    def __init__(self) -> None:
        self._last: FileSchema | None = None

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            return self._footer(held).schema.plain

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """Row groups and schema. Columns that the file lacks are left out of the count: `unify` reports them."""
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            footer = self._footer(held)
            names = [name for name in dict.fromkeys(columns) if name in footer.schema.raw.names]
            groups = tuple(_row_group(held, footer, index, names) for index in range(footer.metadata.num_row_groups))
        return InputFile(file.url, file.size, file.version, groups), footer.schema.plain

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[ParquetReader]:
        check_unchanged(store, inputs)
        with BufferedFile(store.open(inputs.url), inputs.url, inputs.size) as held:
            try:
                footer = self._footer(held)
            except InputError as error:
                raise while_running(error) from error
            yield ParquetReader(store, held, footer, inputs, columns)

    def _footer(self, file: BufferedFile) -> Footer:
        footer = read_footer(file, self._last)
        self._last = footer.schema
        return footer


def _row_group(file: BufferedFile, footer: Footer, index: int, columns: Sequence[str]) -> RowGroup:
    chunks = footer.chunks(index, columns)
    rows = footer.metadata.row_group(index).num_rows
    if not rows and any(chunk.num_values for chunk in chunks):  # or its rows would be lost without an error
        raise unreadable(file, "FILE_FOOTER", f"row group {index} claims no rows, and its columns hold values")
    decoded = sum(
        max(0, chunk.total_uncompressed_size, chunk.num_values * _VALUE_BYTES.get(chunk.physical_type, 0))
        for chunk in chunks
    )
    if decoded > MAX_ROW_GROUP_BYTES:
        raise unreadable(
            file,
            "ROWGROUP_TOO_BIG",
            f"row group {index} has {decoded} bytes when decoded; the limit is {MAX_ROW_GROUP_BYTES}: "
            "write the file again with smaller row groups",
        )
    return RowGroup(rows, decoded)


class ParquetReader:
    """An open file; see `connectors.formats.base.RowGroupReader`. Holds the encoded bytes of one row group at most."""

    def __init__(
        self, store: Store, file: BufferedFile, footer: Footer, inputs: InputSlice, columns: Sequence[str]
    ) -> None:
        for name in columns:
            position(footer.schema.plain, name, inputs.url)  # missing names would be left out, silently
        self._store, self._file, self._footer, self._inputs, self._columns = store, file, footer, inputs, list(columns)
        self._parquet = pq.ParquetFile(
            pa.PythonFile(file, mode="r"),
            metadata=footer.metadata,
            pre_buffer=False,
            # Off by default, and then a flipped bit reads as a different value.
            page_checksum_verification=True,
        )

    @property
    def fetch_s(self) -> float:
        return self._file.fetch_s

    def read(self, row_group: int) -> pa.Table:
        if row_group >= self._footer.metadata.num_row_groups:
            raise wrong_rows(self._inputs, row_group, 0)
        try:
            table = self._decode(row_group, self._columns)
        except MemoryError as error:
            raise out_of_memory(self._inputs, row_group, "PAGE_CORRUPT", error) from error
        except _DECODE_ERRORS:
            table = self._decode_by_column(row_group)
        if table.num_rows != self._inputs.rows[row_group - self._inputs.first]:
            raise wrong_rows(self._inputs, row_group, table.num_rows)
        return table

    def _decode(self, row_group: int, columns: Sequence[str]) -> pa.Table:
        """raises: what pyarrow raises for bad bytes, and our errors for bytes that cannot be had."""
        try:
            chunks = self._footer.chunks(row_group, columns)
        except InputError as error:
            raise while_running(error) from error
        try:
            self._file.hold(_byte_range(chunk) for chunk in chunks)
            table = self._parquet.read_row_group(row_group, columns=list(columns), use_threads=False)
        finally:
            self._file.hold([])
        # A name with a dot may bring the struct field of that path too: the exact name is the one that is meant.
        table = table.select(list(columns))
        table.validate()
        return plain_table(table)

    def _decode_by_column(self, row_group: int) -> pa.Table:
        """A second try after bad bytes: they may have been damaged on the way, and if not, the column is named."""
        check_unchanged(self._store, self._inputs)
        read: list[pa.Table] = []
        for name in self._columns:
            try:
                table = self._decode(row_group, [name])
            except _DECODE_ERRORS as error:
                raise bad_row_group(self._inputs, row_group, _code(error), error, name) from error
            if table.num_rows != self._inputs.rows[row_group - self._inputs.first]:
                raise wrong_rows(self._inputs, row_group, table.num_rows, name)
            read.append(table)
        fields = [table.schema.field(0) for table in read]
        return pa.Table.from_arrays([table.column(0) for table in read], schema=pa.schema(fields))


def _byte_range(chunk: Any) -> tuple[int, int]:
    first = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
        first = min(first, chunk.dictionary_page_offset)
    return first, first + chunk.total_compressed_size


def _code(error: Exception) -> str:
    if _unsupported(error):
        return "FILE_UNSUPPORTED"
    return "PAGE_CRC" if "CRC" in str(error) else "PAGE_CORRUPT"  # the text is all that tells them apart


def _unsupported(error: Exception) -> bool:
    text = str(error).lower()  # an unknown codec is a plain OSError
    return isinstance(error, pa.ArrowNotImplementedError) or "not supported" in text or "unsupported" in text


class ParquetEncoder:
    """Writes Parquet with page checksums; the commit header is in the footer, under the key `runner.commit`."""

    suffix = ".parquet"
    carries_header = True

    def check(self, schema: pa.Schema) -> None:
        """Holds whatever Arrow does."""

    def open(self, spool: Path, schema: pa.Schema, compression: str) -> ParquetWriter:
        return ParquetWriter(spool, schema, compression)

    def dataset(self, url: str) -> str:
        return "parquet"

    def read_header(self, store: Store, path: str) -> tuple[dict[str, object] | None, int]:
        with open_part(store, path) as held, whole_part(path):
            metadata = read_footer(held).metadata
            header = (metadata.metadata or {}).get(HEADER_KEY.encode())
            return None if header is None else dict(json.loads(header)), _rows(metadata)


class ParquetWriter(SpoolWriter):
    def __init__(self, spool: Path, schema: pa.Schema, compression: str) -> None:
        super().__init__(spool, schema)
        with self._errors():
            self._writer = pq.ParquetWriter(
                self._sink,
                schema,
                compression=compression,
                use_dictionary=dictionary_columns(schema),
                dictionary_pagesize_limit=_DICTIONARY_BYTES,
                write_page_checksum=True,
                store_schema=True,
            )

    def _encode(self, group: pa.Table) -> None:
        self._writer.write_table(group, row_group_size=group.num_rows)

    def _finish(self, header: str) -> None:
        self._writer.add_key_value_metadata({HEADER_KEY: header})
        self._writer.close()

    def _drop(self) -> None:
        self._writer.close()

    @staticmethod
    def _rows_of(spool: Path) -> int:
        return _rows(pq.read_metadata(spool))


def _rows(metadata: pq.FileMetaData) -> int:
    return sum(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))


def dictionary_columns(schema: pa.Schema) -> list[str]:
    """Leaf columns worth a dictionary: all but floating point, where it costs 40 % of the speed and 6 % of the size."""
    sample = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([empty_batch(schema)]), sample)
    leaves = pq.read_metadata(pa.BufferReader(sample.getvalue())).schema
    return [
        leaf.path
        for leaf in (leaves.column(index) for index in range(len(leaves)))
        if leaf.physical_type not in ("FLOAT", "DOUBLE", "BOOLEAN") and leaf.logical_type.type != "FLOAT16"
    ]


SOURCE, ENCODER = ParquetSource, ParquetEncoder
