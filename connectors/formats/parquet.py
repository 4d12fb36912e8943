"""Parquet: reads row groups with their checksums verified, writes parts with theirs.

Owns what is particular to the format; bytes come from `buffered` and go to `spool`. Refuses to guess: a page that
does not match its checksum, or a row group with other rows than planned, is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.formats.base import Span, States, Unread
from connectors.formats.buffered import BufferedFile
from connectors.formats.chunk import Chunk, rows_at_once
from connectors.formats.fault import (
    DECODE_ERRORS,
    MAX_ROW_GROUP_BYTES,
    BadRows,
    BadRowsError,
    TooLargeError,
    bad_row_group,
    check_unchanged,
    once,
    out_of_memory,
    planned_file,
    unreadable,
    while_running,
    wrong_rows,
)
from connectors.formats.footer import MAGICS, FileSchema, Footer, SharedFooters, read_footer, unsupported
from connectors.formats.int96 import COMPARED, emptied, unheld
from connectors.formats.plain import PIECE_BYTES, plain_table, refuse_larger
from connectors.formats.schema import position
from connectors.formats.span import leaf_of, span_of
from connectors.formats.spool import HEADER_KEY, SpoolWriter, empty_batch, open_part, stated_header, whole_part
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Input

Decoded = tuple[pa.Table, list[BadRows]]  # a row group, and what is wrong with rows of it
Columns = Sequence[str] | Callable[[pa.Schema], Sequence[str]]  # names, or what finds them in the schema of a file

_INDEX_BYTES = 4  # of a dictionary, as pyarrow reads it

_GEOMETRIES = {"GEOMETRY", "GEOGRAPHY"}  # logical types

# Dictionaries pay for few distinct values only; with this limit (default 1 MiB) the encoder finds out sooner.
# Measured, 1 M rows with zstd: unique int64 0.033 s instead of 0.044 s and 19 % smaller; 1,000 distinct unchanged.
_DICTIONARY_BYTES = 64 * 1024


_SPARK, _SCHEMA = "Spark 4.3", "`spark.read.schema(...)` without the column"
_UNREAD = (
    Unread(_SPARK, pa.types.is_float16, "float32", _SCHEMA),
    Unread(_SPARK, pa.types.is_time32, "int32", _SCHEMA),
    Unread(_SPARK, pa.types.is_time64, "int64", "`spark.sql.timeType.enabled=true`"),
    Unread(
        _SPARK,
        lambda kind: pa.types.is_timestamp(kind) and kind.unit == "ns",
        "timestamp[us]",
        "`spark.sql.legacy.parquet.nanosAsLong=true`",
    ),
    Unread(_SPARK, lambda kind: pa.types.is_decimal(kind) and kind.precision > 38, "string", _SCHEMA),
    Unread(_SPARK, lambda kind: isinstance(kind, pa.UuidType), "string", _SCHEMA),
)


class ParquetSource:
    """Reads Parquet. Remembers the last schema seen, so that files with the same schema share one object.

    The file whose schema is asked for is mostly inspected next: its footer is kept until then, and not parsed again.
    """

    states: States = "all"
    suffixes: tuple[str, ...] = (".parquet", ".pq", ".parq")
    max_row_group_bytes = MAX_ROW_GROUP_BYTES
    max_row_bytes: int | None = None

    def __init__(self) -> None:
        self._last: FileSchema | None = None
        self._footers = SharedFooters()
        self._asked: tuple[str, Footer] | None = None
        self._stated: tuple[str, pa.Schema, Mapping[str, str]] | None = None  # of the file that was asked for last

    @classmethod
    def of(cls, input: Input) -> Self:
        return cls()

    def begins(self, head: bytes) -> bool:
        return head.startswith(MAGICS)

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        footer = self._parsed(store, file)
        if identity := _identity(file):
            self._asked, self._stated = (identity, footer), (identity, footer.schema.raw, _annotations(footer))
        return footer.schema.plain

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        if (known := self._stated) is not None and known[0] == _identity(file):
            return known[1:]
        footer = self._parsed(store, file)
        return footer.schema.raw, _annotations(footer)

    def inspect(self, store: Store, file: FileStat, columns: Columns) -> tuple[InputFile, pa.Schema]:
        """Row groups and schema. Columns that the file lacks are left out of the count: `unify` reports them."""
        return self.measured(store, file, columns, lambda schema: ())[:2]

    def measured(
        self,
        store: Store,
        file: FileStat,
        columns: Columns,
        ways: Callable[[pa.Schema], Sequence[tuple[str, ...]]],
    ) -> tuple[InputFile, pa.Schema, Sequence[dict[tuple[str, ...], Span]]]:
        asked, self._asked = self._asked, None  # it may be large
        known = asked is not None and asked[0] == _identity(file)
        footer = asked[1] if asked is not None and known else self._parsed(store, file)
        wanted = columns(footer.schema.plain) if callable(columns) else columns
        names = [name for name in dict.fromkeys(wanted) if footer.schema.raw.get_all_field_indices(name)]
        indices = range(footer.metadata.num_row_groups)
        groups = tuple(_row_group(footer, index, names) for index in indices)
        leaves = {
            way: leaf for way in ways(footer.schema.plain) if (leaf := leaf_of(footer.schema.raw, way)) is not None
        }
        spans = [span_of(footer, index, leaves) for index in indices] if leaves else [{} for _ in indices]
        return InputFile(file.url, file.size, file.version, groups), footer.schema.plain, spans

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Columns) -> Iterator[ParquetReader]:
        with planned_file(store, inputs) as held:
            try:
                footer = self._footers.open(held, _identity(inputs), self._last)
            except InputError as error:
                raise while_running(error) from error
            wanted = columns(footer.schema.plain) if callable(columns) else columns
            yield ParquetReader(store, held, footer, inputs, wanted, self.max_row_group_bytes)

    def _parsed(self, store: Store, file: FileStat) -> Footer:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            footer = read_footer(held, self._last)
        self._last = footer.schema
        return footer


def _identity(file: FileStat | InputSlice) -> str:
    """Of the content; "" where the store tells no version."""
    return f"{file.version} {file.size} {file.url}" if file.version else ""


def _annotations(footer: Footer) -> dict[str, str]:
    """Of geometries and Variants, which pyarrow delivers as binary: column -> their logical type, and GeoParquet's
    metadata."""
    said = {name: ["logical type VARIANT"] for name in variants(footer.schema.raw, lambda: str(footer.metadata.schema))}
    for field, leaves in zip(footer.schema.raw, footer.schema.leaves, strict=True):
        kinds = {footer.metadata.schema.column(leaf).logical_type.type for leaf in leaves} & _GEOMETRIES
        if kinds:
            said[field.name] = said.get(field.name, []) + [f"logical type {kind}" for kind in sorted(kinds)]
    with suppress(ValueError, AttributeError, RecursionError):  # no JSON, or another one: nobody can read it
        for name in json.loads((footer.metadata.metadata or {}).get(b"geo", b"{}")).get("columns", {}):
            said.setdefault(name, []).append("GeoParquet metadata ('geo')")
    return {name: " and its ".join(words) for name, words in said.items()}


def variants(raw: pa.Schema, text: Callable[[], str]) -> list[str]:
    """The columns that are Variants. text: the schema as pyarrow (26.0) prints it, which alone tells them from structs.

    cost: none where no column has the fields of one.
    """
    alike = [
        field.name
        for field in raw
        if pa.types.is_struct(field.type)
        and all(field.type.get_field_index(name) >= 0 for name in ("metadata", "value"))
    ]
    printed = text() if alike else ""
    return [
        name for name in alike if re.search(rf"^  \w+ group field_id=-?\d+ {re.escape(name)} \(Variant", printed, re.M)
    ]


def _row_group(footer: Footer, index: int, columns: Sequence[str]) -> RowGroup:
    chunks = [chunk.stated(footer.text) for chunk in footer.chunks(index, columns)]
    rows = footer.metadata.row_group(index).num_rows
    decoded = sum(chunk.decoded for chunk in chunks)
    if decoded > MAX_ROW_GROUP_BYTES:
        raise unreadable(
            footer.file,
            "ROWGROUP_TOO_BIG",
            f"row group {index} has {decoded} bytes when decoded; the limit is {MAX_ROW_GROUP_BYTES}: "
            "write the file again with smaller row groups",
        )
    exact = all(chunk.exact for chunk in chunks)
    return RowGroup(rows, sum(chunk.planned for chunk in chunks), decoded=decoded, exact=exact)


class ParquetReader:
    """An open file; see `connectors.formats.base.RowGroupReader`. Holds the encoded bytes of one row group at most."""

    def __init__(
        self,
        store: Store,
        file: BufferedFile,
        footer: Footer,
        inputs: InputSlice,
        columns: Sequence[str],
        most_bytes: int = MAX_ROW_GROUP_BYTES,
    ) -> None:
        """most_bytes: that a row group may have when it is decoded."""
        for name in columns:
            position(footer.schema.plain, name, inputs.url)  # missing names would be left out, silently
        self._store, self._file, self._footer, self._inputs, self._columns = store, file, footer, inputs, list(columns)
        self._most_bytes = most_bytes
        self._parquet = self._opened(footer.unit)
        self._compared: dict[str, pq.ParquetFile] = {}  # unit -> the same, with what is INT96 in that unit

    def _opened(self, unit: str) -> pq.ParquetFile:
        return pq.ParquetFile(
            pa.PythonFile(self._file, mode="r"),
            metadata=self._footer.metadata,
            pre_buffer=False,
            # Off by default, and then a flipped bit reads as a different value.
            page_checksum_verification=True,
            coerce_int96_timestamp_unit=unit,
        )

    @property
    def fetch_s(self) -> float:
        return self._file.fetch_s

    def read(self, row_group: int) -> pa.Table:
        if row_group >= self._footer.metadata.num_row_groups:
            raise wrong_rows(self._inputs, row_group, 0)
        try:
            table, bad = self._decode(row_group, self._columns)
        except TooLargeError as error:
            raise bad_row_group(self._inputs, row_group, "ROWGROUP_TOO_BIG", error, error.column) from error
        except MemoryError as error:
            raise out_of_memory(self._inputs, row_group, "PAGE_CORRUPT", error) from error
        except DECODE_ERRORS:
            table, bad = self._decode_by_column(row_group)
        if table.num_rows != self._inputs.rows[row_group - self._inputs.first]:
            raise wrong_rows(self._inputs, row_group, table.num_rows)
        if bad:
            raise BadRowsError.of(self._inputs, row_group, emptied(table, bad), once(bad))
        return table

    def _decode(self, row_group: int, columns: Sequence[str]) -> Decoded:
        """raises: what pyarrow raises for bad bytes, and our errors for bytes that cannot be had."""
        try:
            chunks = self._footer.chunks(row_group, columns)
        except InputError as error:
            raise while_running(error) from error
        worst = sum(chunk.decoded if chunk.exact else chunk.at_most() for chunk in chunks)
        small = worst <= min(self._most_bytes, PIECE_BYTES)  # nearly always; then no closer look is taken
        if not small:
            chunks = [chunk.stated(self._footer.text) for chunk in chunks]
            refuse_larger([(chunk.column, chunk.decoded) for chunk in chunks], self._most_bytes)
        try:
            self._file.hold((chunk.start, chunk.stop) for chunk in chunks)
            dated = list(dict.fromkeys(chunk.column for chunk in chunks if chunk.dated))
            read = partial(self._parts, row_group, columns, dated)
            table, bad = read(0) if small else self._table(row_group, read, chunks)
        finally:
            self._file.hold([])
        self._check_entries(row_group, table, chunks)
        return table, bad

    def _table(self, row_group: int, read: Callable[[int], Decoded], chunks: Sequence[Chunk]) -> Decoded:
        """In parts, where the whole may be more than is allowed, or than pyarrow (26.0) can put into nested columns."""
        rows = self._footer.metadata.row_group(row_group).num_rows
        sizes = [(chunk, chunk.decoded if chunk.exact else self._at_most(chunk)) for chunk in chunks]
        most_rows = rows_at_once(rows, sizes, self._most_bytes, PIECE_BYTES // 2)
        large = [chunk for chunk, size in sizes if chunk.nested and size > PIECE_BYTES]
        while most_rows:
            try:
                return read(most_rows if most_rows < rows else 0)
            except pa.ArrowNotImplementedError:  # too much text for a nested column is one of its reasons, and not told
                if not large:
                    raise
                most_rows = min(most_rows, rows) // 4
        raise TooLargeError(f"a row of more than {PIECE_BYTES:,} bytes; up to that are read", large[0].column)

    def _parts(self, row_group: int, columns: Sequence[str], dated: Sequence[str], most_rows: int) -> Decoded:
        """dated: those of the columns in which something is stored as INT96. most_rows: of a part; 0: all at once."""
        parts, bad, rows = list[pa.Table](), list[BadRows](), 0
        sizes = dict.fromkeys(columns, 0)
        units = COMPARED[self._footer.unit] if dated else ()
        others = [self._raw(row_group, dated, most_rows, self._in_unit(unit)) for unit in units]
        for table, *compared in zip(self._raw(row_group, columns, most_rows), *others, strict=True):
            table.validate()
            bad += unheld(table, dict(zip(units, compared, strict=True)), self._footer.unit, rows)
            rows += table.num_rows
            parts.append(plain_table(table, self._most_bytes))
            if most_rows:
                sizes = {name: size + parts[-1].column(name).nbytes for name, size in sizes.items()}
                refuse_larger(sizes.items(), self._most_bytes)
        if not parts:
            raise wrong_rows(self._inputs, row_group, 0)
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts), bad

    def _in_unit(self, unit: str) -> pq.ParquetFile:
        if unit not in self._compared:
            self._compared[unit] = self._opened(unit)
        return self._compared[unit]

    def _raw(
        self, row_group: int, columns: Sequence[str], most_rows: int, file: pq.ParquetFile | None = None
    ) -> Iterator[pa.Table]:
        file = file or self._parquet
        # A name with a dot may bring the struct field of that path too: the exact name is the one that is meant.
        names = list(columns)
        if not most_rows:
            yield file.read_row_group(row_group, columns=names, use_threads=False).select(names)
            return
        for batch in file.iter_batches(most_rows, row_groups=[row_group], columns=names, use_threads=False):
            yield pa.Table.from_batches([batch]).select(names)

    def _at_most(self, chunk: Chunk) -> int:
        """Bytes that pyarrow may make of a chunk; a dictionary that is delivered as one is not decoded by it."""
        if pa.types.is_dictionary(self._footer.schema.raw.field(chunk.column).type):
            return chunk.stored + _INDEX_BYTES * chunk.values
        return chunk.at_most(self._file.take)

    def _check_entries(self, row_group: int, table: pa.Table, chunks: Sequence[Chunk]) -> None:
        """Where all columns are lists, only what is in them tells whether the row group has more rows than it claims.

        raises: DataError ROWGROUP_ROWS.
        """
        rows = self._footer.metadata.row_group(row_group).num_rows
        if table.num_rows != rows or not chunks or any(chunk.values == rows for chunk in chunks):
            return
        names = [name for name in self._footer.schema.raw.names if table.schema.get_field_index(name) >= 0]
        read = [(name, leaf) for name in names for leaf in entries(table.column(name))]
        for (name, count), chunk in zip(read, chunks, strict=True):
            if count < chunk.values:
                found = f"its {rows} rows hold {count} of the {chunk.values} values of {chunk.leaf.path!r}"
                raise bad_row_group(self._inputs, row_group, "ROWGROUP_ROWS", found, name)

    def _decode_by_column(self, row_group: int) -> Decoded:
        """A second try after bad bytes: they may have been damaged on the way, and if not, the column is named."""
        check_unchanged(self._store, self._inputs)
        read, bad = list[pa.Table](), list[BadRows]()
        for name in self._columns:
            try:
                table, some = self._decode(row_group, [name])
            except DECODE_ERRORS as error:
                raise bad_row_group(self._inputs, row_group, _code(error), error, name) from error
            if table.num_rows != self._inputs.rows[row_group - self._inputs.first]:
                raise wrong_rows(self._inputs, row_group, table.num_rows, name)
            read.append(table)
            bad += some
        fields = [table.schema.field(0) for table in read]
        return pa.Table.from_arrays([table.column(0) for table in read], schema=pa.schema(fields)), bad


def entries(column: pa.ChunkedArray) -> list[int]:
    """How many values Parquet counts in each leaf column of `column`; a list that is null or empty counts as one."""
    counted = [_entries(chunk) for chunk in column.chunks]
    return [
        sum(len(chunk) if leaf is None else int(leaf.sum()) for chunk, leaf in zip(column.chunks, leaves, strict=True))
        for leaves in zip(*counted, strict=True)
    ]


def _entries(values: pa.Array) -> list[Any]:
    """Of each leaf: (values,) int64, how many values each one has there; None where that is one each."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return _entries(values.storage)
    if pa.types.is_struct(kind):
        return [leaf for index in range(kind.num_fields) for leaf in _entries(values.field(index))]
    if not pa.types.is_nested(kind) or pa.types.is_dictionary(kind):
        return [None]
    lists = values.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))) if pa.types.is_map(kind) else values
    lengths = pc.list_value_length(lists)
    sizes = (pc.fill_null(lengths, 0) if lengths.null_count else lengths).to_numpy()
    return [np.maximum(sizes if leaf is None else _sums(leaf, sizes), 1) for leaf in _entries(lists.flatten())]


def _sums(leaf: Any, sizes: Any) -> Any:
    upto, stops = np.append(0, np.cumsum(leaf)), np.cumsum(sizes, dtype=np.int64)
    return upto[stops] - upto[stops - sizes]


def _code(error: Exception) -> str:
    if unsupported(error):
        return "FILE_UNSUPPORTED"
    return "PAGE_CRC" if "CRC" in str(error) else "PAGE_CORRUPT"  # the text is all that tells them apart


class ParquetEncoder:
    """Writes Parquet with page checksums; the commit header is in the footer, under the key `runner.commit`."""

    suffix = ".parquet"
    packed: Mapping[str, str] = MappingProxyType({})
    carries_header = True
    unread: tuple[Unread, ...] = _UNREAD

    def encoded(self, table: pa.Table) -> pa.Buffer:
        sink = pa.BufferOutputStream()
        with _encoder(sink, table.schema, "none") as writer:
            writer.write_table(table)
        return sink.getvalue()

    def decoded(self, content: pa.Buffer, schema: pa.Schema) -> pa.Table:
        return pq.ParquetFile(pa.BufferReader(content)).read()

    def open(self, spool: Path, schema: pa.Schema, compression: str) -> ParquetWriter:
        return ParquetWriter(spool, schema, compression)

    def dataset(self, url: str) -> str:
        return "parquet"

    def unstated(self, schema: pa.Schema) -> pa.Schema | None:
        return None

    def read_header(self, store: Store, path: str) -> tuple[dict[str, object] | None, int]:
        with open_part(store, path) as held, whole_part(path):
            metadata = read_footer(held).metadata
            header = (metadata.metadata or {}).get(HEADER_KEY.encode())
            return stated_header(header), _rows(metadata)


class ParquetWriter(SpoolWriter):
    def __init__(self, spool: Path, schema: pa.Schema, compression: str) -> None:
        super().__init__(spool, schema)
        with self._errors():
            self._writer = _encoder(self._sink, schema, compression)

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


def _encoder(sink: pa.NativeFile, schema: pa.Schema, compression: str) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        schema,
        compression=compression,
        use_dictionary=dictionary_columns(schema),
        dictionary_pagesize_limit=_DICTIONARY_BYTES,
        write_page_checksum=True,
        store_schema=True,
    )


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
