"""Avro files as input: a row group is a run of blocks, which fastavro reads.

A plan unpacks each block once, because nothing else says where the next one begins and what it has; a worker reads the
bytes of its runs alone, behind a header of the same file whose schema has no logical types. The invariant: a
block is followed by the file's marker, or the file is damaged.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, Self

import pyarrow as pa

from connectors.formats.base import States
from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import (
    MAX_ROW_GROUP_BYTES,
    bad_row_group,
    check_unchanged,
    decoded,
    one_line,
    planned_file,
    unreadable,
    while_running,
    wrong_magic,
)
from connectors.formats.plain import refuse_larger
from connectors.formats.schema import position
from connectors.formats.typed.avro_schema import AvroSchema
from connectors.formats.typed.stream import stream
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError, JobError, RunnerError
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Input

MAGIC = b"Obj\x01"
_MARKER_BYTES = 16  # behind the header and each block. source: Avro 1.12, "Object Container Files"
_GROUP_BYTES = 32 * 2**20  # unpacked: what ends a row group
_MOST_BLOCK_BYTES = 2**30  # unpacked: a column of text holds 2 GiB
_CODEC = ("you need to install", "nrecognized codec")  # in what fastavro (1.13) says of one that it does not read
_ROWS_WITHOUT_BYTES = 2**20  # of a block: records of nulls alone take none, and a damaged count may be any


@cache
def _fastavro() -> ModuleType:
    try:
        import fastavro  # an extra: only these files need it
    except ImportError:
        message = "cannot use Avro files: the package 'fastavro' is missing"
        raise JobError(f"{message}; pip install 'savedmodel-runner[avro]'") from None
    return fastavro


@dataclass(frozen=True)
class Header:
    """Of a file. content: an equal one, whose schema has no logical types."""

    schema: AvroSchema
    stop: int  # where the first block begins
    content: bytes


class AvroSource:
    """Reads Avro files. Remembers the last schema seen, so that files with the same schema share one object."""

    states: States = "all"
    suffixes: tuple[str, ...] = (".avro",)
    max_row_group_bytes = MAX_ROW_GROUP_BYTES
    max_row_bytes: int | None = None

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None

    @classmethod
    def of(cls, input: Input) -> Self:
        return cls()

    def begins(self, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            return self._known(_read_header(held)[0].schema.arrow)

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        return self.schema(store, file), {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """cost: the whole file is read, and each block unpacked."""
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            header, blocks = _read_header(held)
            _refuse_unreadable(held, header.schema, columns)
            schema = self._known(header.schema.arrow)
            groups = tuple(_row_groups(held, header, blocks, columns))
        return InputFile(file.url, file.size, file.version, groups), schema

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[AvroReader]:
        with planned_file(store, inputs) as held:
            try:
                header, _ = _read_header(held)
                for name in columns:
                    position(header.schema.arrow, name, inputs.url)
                _refuse_unreadable(held, header.schema, columns)
            except InputError as error:
                raise while_running(error) from error
            yield AvroReader(store, held, header, inputs, columns, self.max_row_group_bytes)

    def _known(self, schema: pa.Schema) -> pa.Schema:
        if self._schema is None or not self._schema.equals(schema, check_metadata=True):
            self._schema = schema
        return self._schema


class _Blocks(NamedTuple):
    """Of a file, as fastavro reads them from `opened`."""

    blocks: Iterator[Any]
    opened: io.BufferedReader


def _read_header(file: BufferedFile) -> tuple[Header, _Blocks]:
    """The header, and the blocks behind it.

    raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_SCHEMA, FILE_UNSUPPORTED; JobError without fastavro.
    """
    if file.size == 0:
        raise unreadable(file, "FILE_EMPTY", "it has zero bytes")
    if bytes(file.take(0, min(len(MAGIC), file.size))) != MAGIC:
        raise wrong_magic(file, "an Avro file")
    opened, fastavro = stream(file), _fastavro()
    with _told(file, opened, "FILE_SCHEMA", "its header cannot be read"):
        blocks = fastavro.block_reader(opened)
        schema, stop, content = AvroSchema(blocks.writer_schema), opened.tell(), io.BytesIO()
        marker = bytes(file.take(stop - _MARKER_BYTES, stop))
        fastavro.writer(content, schema.stored(), [], blocks.codec, sync_marker=marker)
    return Header(schema, stop, content.getvalue()), _Blocks(blocks, opened)


@contextmanager
def _told(file: BufferedFile, opened: io.BufferedReader, code: str, what: str) -> Iterator[None]:
    """Names the file in what a library raises; each codec has exceptions of its own."""
    try:
        yield
    except (RunnerError, MemoryError):
        raise
    except Exception as error:
        if any(words in str(error) for words in _CODEC):
            code = "FILE_UNSUPPORTED"
        elif isinstance(error, EOFError) or opened.tell() >= file.size:
            code = "FILE_TRUNCATED"
        raise unreadable(file, code, f"{what}: {one_line(error)}") from error


def _refuse_unreadable(file: BufferedFile, schema: AvroSchema, columns: Sequence[str]) -> None:
    for name in columns:
        if why := schema.unreadable.get(name):
            found = (
                f"column {name!r} is {why}; one type, or one and null, is read: leave it out, or write it as a record"
            )
            raise unreadable(file, "FILE_UNSUPPORTED", found)


def _row_groups(file: BufferedFile, header: Header, found: _Blocks, columns: Sequence[str]) -> Iterator[RowGroup]:
    """raises: InputError FILE_TRUNCATED, FILE_CORRUPT, ROWGROUP_TOO_BIG."""
    start = stop = header.stop
    rows = before = size = 0
    while True:
        with _told(file, found.opened, "FILE_CORRUPT", f"the block at byte {stop} is damaged"):
            block = next(found.blocks, None)
        if block is None:
            break
        unpacked = block.bytes_.getbuffer().nbytes
        if not 0 <= block.num_records <= max(unpacked, _ROWS_WITHOUT_BYTES):
            claim = f"the block at byte {stop} claims {block.num_records} records in {unpacked} bytes"
            raise unreadable(file, "FILE_CORRUPT", claim)
        if unpacked > _MOST_BLOCK_BYTES:
            raise unreadable(
                file, "ROWGROUP_TOO_BIG", f"the block at byte {stop} has {unpacked:,} bytes; up to 1 GiB are read"
            )
        rows, size, stop = rows + block.num_records, size + unpacked, block.offset + block.size
        if size >= _GROUP_BYTES:
            yield _row_group(header.schema.arrow, rows, size, columns, (start, stop, before))
            start, rows, size, before = stop, 0, 0, before + rows
    if rows:
        yield _row_group(header.schema.arrow, rows, size, columns, (start, stop, before))


def _row_group(schema: pa.Schema, rows: int, size: int, columns: Sequence[str], place: tuple[int, ...]) -> RowGroup:
    """size: of the blocks, unpacked; what has no width is a share of that."""
    wanted, widths = set(columns), {field.name: _width(field.type) for field in schema}
    fixed = sum(width * rows for name, width in widths.items() if name in wanted)
    variable = [name for name, width in widths.items() if not width]
    share = size * sum(name in wanted for name in variable) // max(1, len(variable))
    return RowGroup(rows, int(fixed) + share, place=place, exact=not wanted.intersection(variable))


def _width(kind: pa.DataType) -> float:
    """Bytes of a value; 0 where they differ."""
    return kind.bit_width / 8 if pa.types.is_primitive(kind) or pa.types.is_decimal(kind) else 0


class AvroReader:
    """An open file; see `connectors.formats.base.RowGroupReader`."""

    def __init__(
        self,
        store: Store,
        held: BufferedFile,
        header: Header,
        inputs: InputSlice,
        columns: Sequence[str],
        most_bytes: int,
    ) -> None:
        self._store, self._held, self._header, self._inputs = store, held, header, inputs
        self._columns, self._most_bytes = list(columns), most_bytes
        self._arrow = pa.schema([header.schema.arrow.field(name) for name in columns])

    @property
    def fetch_s(self) -> float:
        return self._held.fetch_s

    def read(self, row_group: int) -> pa.Table:
        planned = self._inputs.rows[row_group - self._inputs.first]
        if not self._columns:
            return pa.table({"": pa.nulls(planned)}).select([])
        # Each codec has exceptions of its own.
        return decoded(self._inputs, row_group, "PAGE_CORRUPT", self._decode, self._decode_again, (Exception,))

    def _decode(self, row_group: int) -> pa.Table:
        """Block by block: records as Python has them are many times as large."""
        start, stop, *_ = self._inputs.place(row_group)
        content = io.BytesIO(self._header.content + bytes(self._held.take(start, stop)))
        schema, some = self._header.schema, len(self._columns) < len(self._header.schema.arrow)
        chosen = schema.stored(self._columns) if some else None
        batches, size = list[pa.RecordBatch](), 0
        for block in _fastavro().block_reader(content, chosen):
            records = list(block)
            arrays = [schema.column(name, [record[name] for record in records]) for name in self._columns]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._arrow))
            size += batches[-1].nbytes
            refuse_larger([("", size)], self._most_bytes)
        table = pa.Table.from_batches(batches, self._arrow)
        table.validate(full=True)
        return table.combine_chunks()

    def _decode_again(self, row_group: int) -> pa.Table:
        """A second try after bad bytes: they may have been damaged on the way."""
        check_unchanged(self._store, self._inputs)
        try:
            return self._decode(row_group)
        except RunnerError:
            raise
        except Exception as error:
            raise bad_row_group(self._inputs, row_group, "PAGE_CORRUPT", error) from error


SOURCE = AvroSource
