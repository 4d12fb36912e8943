"""Arrow IPC files: a row group is a record batch; every batch is validated in full before it is used.

Owns what is particular to the format; bytes come from `buffered` and go to `spool`. Row counts come
from the metadata of the batches, so that a plan decodes nothing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import (
    MAX_ROW_GROUP_BYTES,
    bad_row_group,
    check_unchanged,
    one_line,
    out_of_memory,
    planned_file,
    unreadable,
    while_running,
    wrong_magic,
    wrong_rows,
)
from connectors.formats.plain import TooLargeError, plain_schema, plain_table
from connectors.formats.schema import position
from connectors.formats.spool import HEADER_KEY, SpoolWriter, empty_batch, open_part, whole_part
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup

_MAGIC = b"ARROW1"
_STREAM = b"\xff\xff\xff\xff"
_NEWEST_VERSION = 4  # MetadataVersion.V5 of Schema.fbs
_RECORD_BATCH = 3  # MessageHeader.RecordBatch of Message.fbs

_PADDING = 128  # bytes that a writer may leave between messages; no message is as short

_DECODE_ERRORS = (OSError, ValueError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class Block:
    """Where a record batch lies in its file, and its rows. `body_bytes`: encoded, all columns."""

    offset: int
    metadata_bytes: int
    body_bytes: int
    rows: int


class FlatTable:
    """One table of a flatbuffer; fields by their number in the schema of the format (File.fbs, Message.fbs).

    raises (all): struct.error where the bytes lead outside the buffer.
    """

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._start = start
        self._fields = start - self._at("<i", start)

    @classmethod
    def root(cls, data: bytes) -> FlatTable:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def number(self, field: int, kind: str) -> int:
        place = self._place(field)
        return 0 if place is None else self._at(kind, place)

    def table(self, field: int) -> FlatTable:
        place = self._place(field)
        if place is None:
            raise struct.error(f"field {field} is missing")
        return FlatTable(self._data, place + self._at("<I", place))

    def structs(self, field: int, kind: str) -> Iterator[tuple[int, ...]]:
        place = self._place(field)
        if place is None:
            return
        place += self._at("<I", place)
        for index in range(self._at("<I", place)):
            yield struct.unpack_from(kind, self._data, place + 4 + index * struct.calcsize(kind))

    def _place(self, field: int) -> int | None:
        slot = 4 + 2 * field
        offset = self._at("<H", self._fields + slot) if slot < self._at("<H", self._fields) else 0
        return self._start + offset if offset else None

    def _at(self, kind: str, place: int) -> int:
        if place < 0:  # would count from the end
            raise struct.error(f"offset {place} is outside the buffer")
        return int(struct.unpack_from(kind, self._data, place)[0])


def read_blocks(file: BufferedFile) -> list[Block]:
    """Find the footer and look at the metadata of each batch.

    raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_FOOTER, FILE_UNSUPPORTED.
    """
    try:
        footer = FlatTable.root(bytes(_footer_bytes(file)))
        version = footer.number(0, "<h")
        if version > _NEWEST_VERSION:
            raise unreadable(
                file,
                "FILE_UNSUPPORTED",
                f"its metadata version is V{version + 1}; up to V{_NEWEST_VERSION + 1} are read",
            )
        blocks = [_block(file, *place) for place in footer.structs(3, "<qi4xq")]
        dictionaries = [(start, start + size + body) for start, size, body in footer.structs(2, "<qi4xq")]
        _check_listed(file, [*dictionaries, *((b.offset, b.offset + b.metadata_bytes + b.body_bytes) for b in blocks)])
        return blocks
    except struct.error as error:
        raise unreadable(file, "FILE_FOOTER", f"its footer cannot be parsed: {error}") from error


def _check_listed(file: BufferedFile, places: Sequence[tuple[int, int]]) -> None:
    """Every message of the file is in the list of its footer, once: or rows would be lost or doubled without an error.

    raises: InputError FILE_FOOTER; struct.error.
    """
    head = bytes(file.take(8, min(16, file.size)))
    marker = 4 if head.startswith(_STREAM) else 0
    at = 8 + marker + 4 + int(struct.unpack_from("<i", head, marker)[0])  # behind the schema
    footer_bytes = int.from_bytes(bytes(file.take(file.size - 10, file.size - 6)), "little", signed=True)
    for start, stop in [*sorted(places), (file.size - 10 - footer_bytes,) * 2]:
        if start < at or start - at > _PADDING:
            place = "overlaps the one before" if start < at else f"has {start - at} bytes before it that are in no list"
            raise unreadable(file, "FILE_FOOTER", f"what its footer lists at {start} {place}")
        at = stop


def _block(file: BufferedFile, offset: int, metadata_bytes: int, body_bytes: int) -> Block:
    if min(offset, metadata_bytes, body_bytes) < 0 or offset + metadata_bytes + body_bytes > file.size:
        raise struct.error(f"a batch at {offset} with {metadata_bytes} + {body_bytes} bytes is not inside the file")
    data = bytes(file.take(offset, offset + metadata_bytes))
    # Since 0.15 the length of the metadata has a marker before it.
    message = FlatTable.root(data[8 if data.startswith(_STREAM) else 4 :])
    if message.number(1, "<B") != _RECORD_BATCH:
        raise struct.error(f"no record batch at {offset}")
    rows = message.table(2).number(0, "<q")
    if rows < 0:
        raise struct.error(f"the batch at {offset} claims {rows} rows")
    return Block(offset, metadata_bytes, body_bytes, rows)


def _footer_bytes(file: BufferedFile) -> pa.Buffer:
    if file.size == 0:
        raise unreadable(file, "FILE_EMPTY", "it has zero bytes")
    end = bytes(file.tail()[-10:])
    head = bytes(file.take(0, min(8, file.size)))
    if head.startswith(_STREAM):
        hint = (
            "; a stream cannot be read in parts: write it as a file, for example with "
            "pyarrow.feather.write_feather(pyarrow.ipc.open_stream(source).read_all(), path)"
        )
        raise wrong_magic(file, "an Arrow IPC file", hint)
    if not head.startswith(_MAGIC):
        raise wrong_magic(file, "an Arrow IPC file")
    if end[4:] != _MAGIC:
        raise unreadable(
            file, "FILE_TRUNCATED", f"it starts as Arrow IPC, but its {file.size} bytes do not end with a footer"
        )
    length = int.from_bytes(end[:4], "little", signed=True)
    if not 0 < length <= file.size - len(end) - len(_MAGIC):
        raise unreadable(file, "FILE_FOOTER", f"its footer claims {length} bytes, the file has {file.size}")
    return file.take(file.size - len(end) - length, file.size - len(end))


def _reader(file: BufferedFile, columns: Sequence[int] = ()) -> pa.RecordBatchFileReader:
    """A reader of the top-level fields at the indices `columns`; none given: all.

    raises: InputError FILE_UNSUPPORTED, FILE_SCHEMA, FILE_FOOTER.
    """
    options = pa.ipc.IpcReadOptions(included_fields=list(columns), use_threads=False)
    try:
        reader = pa.ipc.open_file(pa.PythonFile(file, mode="r"), options=options)
        _ = reader.schema.names  # decodes them
        return reader
    except UnicodeDecodeError as error:
        raise unreadable(file, "FILE_SCHEMA", f"a column name is not UTF-8: {error}") from error
    except pa.ArrowNotImplementedError as error:
        raise unreadable(file, "FILE_UNSUPPORTED", error) from error
    except _DECODE_ERRORS as error:
        raise unreadable(file, "FILE_FOOTER", f"its footer cannot be parsed: {one_line(error)}") from error


class ArrowSource:
    """Reads Arrow IPC files. Remembers the last schema seen, so that files with the same schema share one object."""

    suffixes: tuple[str, ...] = (".arrow", ".feather", ".ipc")
    max_row_group_bytes = MAX_ROW_GROUP_BYTES

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            read_blocks(held)
            return self._known(plain_schema(_reader(held).schema))

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            return _reader(held).schema, {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """Row groups and schema; bytes are exact for columns of fixed width, and a share of the file for others."""
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            blocks = read_blocks(held)
            schema = self._known(plain_schema(_reader(held).schema))
        groups = tuple(RowGroup(block.rows, _decoded_bytes(block, schema, columns)) for block in blocks)
        return InputFile(file.url, file.size, file.version, groups), schema

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[ArrowReader]:
        with planned_file(store, inputs) as held:
            try:
                blocks = read_blocks(held)
                schema = _reader(held).schema
                wanted = [position(schema, name, inputs.url) for name in columns]
                reader = _reader(held, sorted(set(wanted)))
            except InputError as error:
                raise while_running(error) from error
            yield ArrowReader(store, held, reader, blocks, inputs, columns, self.max_row_group_bytes)

    def _known(self, schema: pa.Schema) -> pa.Schema:
        if self._schema is None or not self._schema.equals(schema, check_metadata=True):
            self._schema = schema
        return self._schema


def _decoded_bytes(block: Block, schema: pa.Schema, columns: Sequence[str]) -> int:
    widths = [fixed_bits(field.type) for field in schema]
    wanted = set(columns)
    fixed = sum(width or 0 for width, name in zip(widths, schema.names, strict=True) if name in wanted)
    variable = sum(width is None and name in wanted for width, name in zip(widths, schema.names, strict=True))
    return block.rows * fixed // 8 + block.body_bytes * variable // max(1, sum(width is None for width in widths))


def fixed_bits(kind: pa.DataType) -> int | None:
    """Bits of one value; None where values differ in size."""
    if isinstance(kind, pa.BaseExtensionType):
        return fixed_bits(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        inner = fixed_bits(kind.value_type)
        return None if inner is None else inner * kind.list_size
    if pa.types.is_struct(kind):
        inners = [fixed_bits(field.type) for field in kind]
        return None if None in inners else sum(inner or 0 for inner in inners)
    if pa.types.is_null(kind):
        return 0
    try:
        return int(kind.bit_width)
    except ValueError:
        return None


class ArrowReader:
    """An open file; see `connectors.formats.base.RowGroupReader`."""

    def __init__(
        self,
        store: Store,
        file: BufferedFile,
        reader: pa.RecordBatchFileReader,
        blocks: Sequence[Block],
        inputs: InputSlice,
        columns: Sequence[str],
        most_bytes: int = MAX_ROW_GROUP_BYTES,
    ) -> None:
        """most_bytes: that a batch may have when it is decoded."""
        self._file = file
        self._store, self._reader, self._blocks, self._inputs = store, reader, blocks, inputs
        self._columns, self._most_bytes = list(columns), most_bytes

    @property
    def fetch_s(self) -> float:
        return self._file.fetch_s

    def read(self, row_group: int) -> pa.Table:
        if row_group >= len(self._blocks):
            raise wrong_rows(self._inputs, row_group, 0)
        try:
            table = self._decode(row_group)
        except TooLargeError as error:
            raise bad_row_group(self._inputs, row_group, "ROWGROUP_TOO_BIG", error, error.column) from error
        except MemoryError as error:
            raise out_of_memory(self._inputs, row_group, "BATCH_INVALID", error) from error
        except _DECODE_ERRORS:
            table = self._decode_again(row_group)
        if table.num_rows != self._inputs.rows[row_group - self._inputs.first]:
            raise wrong_rows(self._inputs, row_group, table.num_rows)
        return table

    def _decode(self, row_group: int) -> pa.Table:
        if not self._columns:
            return pa.table({"": pa.nulls(self._blocks[row_group].rows)}).select([])
        batch = self._reader.get_batch(row_group)
        batch.validate(full=True)  # offsets and UTF-8: nothing else protects those who read by address
        return plain_table(pa.Table.from_batches([batch]).select(self._columns), self._most_bytes)

    def _decode_again(self, row_group: int) -> pa.Table:
        """A second try after bad bytes: they may have been damaged on the way."""
        check_unchanged(self._store, self._inputs)
        try:
            return self._decode(row_group)
        except _DECODE_ERRORS as error:
            unsupported = isinstance(error, pa.ArrowNotImplementedError)
            code = "FILE_UNSUPPORTED" if unsupported else "BATCH_INVALID"
            raise bad_row_group(self._inputs, row_group, code, error) from error


class ArrowEncoder:
    """Writes Arrow IPC files; the commit header is the metadata of a last, empty record batch.

    The footer would be the better place, but its metadata must be given when the file is opened.
    """

    suffix = ".arrow"
    carries_header = True

    def encoded(self, table: pa.Table) -> pa.Buffer:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    def decoded(self, content: pa.Buffer) -> pa.Table:
        return pa.ipc.open_file(content).read_all()

    def open(self, spool: Path, schema: pa.Schema, compression: str) -> ArrowWriter:
        return ArrowWriter(spool, schema, compression)

    def dataset(self, url: str) -> str:
        return "ipc"

    def read_header(self, store: Store, path: str) -> tuple[dict[str, object] | None, int]:
        with open_part(store, path) as held, whole_part(path):
            blocks = read_blocks(held)
            return _header(held, blocks), sum(block.rows for block in blocks)


def _header(file: BufferedFile, blocks: Sequence[Block]) -> dict[str, object] | None:
    reader = _reader(file)
    if not blocks or blocks[-1].rows:
        return None
    metadata = reader.get_batch_with_custom_metadata(len(blocks) - 1).custom_metadata or {}
    header = metadata.get(HEADER_KEY.encode())
    return None if header is None else dict(json.loads(header))


class ArrowWriter(SpoolWriter):
    def __init__(self, spool: Path, schema: pa.Schema, compression: str) -> None:
        super().__init__(spool, schema)
        codec = None if compression == "none" else compression
        # use_threads: threads are the business of the engine.
        options = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)
        with self._errors():
            self._writer = pa.ipc.new_file(self._sink, schema, options=options)

    def _encode(self, group: pa.Table) -> None:
        for batch in group.combine_chunks().to_batches():
            self._writer.write_batch(batch)

    def _finish(self, header: str) -> None:
        self._writer.write_batch(empty_batch(self._schema), custom_metadata={HEADER_KEY: header})
        self._writer.close()

    def _drop(self) -> None:
        self._writer.close()

    @staticmethod
    def _rows_of(spool: Path) -> int:
        with BufferedFile(spool.open("rb"), str(spool), spool.stat().st_size) as file:
            return sum(block.rows for block in read_blocks(file))


SOURCE, ENCODER = ArrowSource, ArrowEncoder
