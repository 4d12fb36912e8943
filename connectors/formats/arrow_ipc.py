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
from connectors.formats.plain import TooLargeError, plain_schema, plain_table, plain_type, refuse_larger, shares
from connectors.formats.schema import position
from connectors.formats.spool import HEADER_KEY, SpoolWriter, empty_batch, open_part, whole_part
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup

_MAGIC = b"ARROW1"
_STREAM = b"\xff\xff\xff\xff"
_NEWEST_VERSION = 4  # MetadataVersion.V5 of Schema.fbs
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # MessageHeader of Message.fbs

# Where the metadata of many batches is fetched, as few bytes between as cost less than a request even on a local disk.
_METADATA_GAP_BYTES = 64 * 1024
_PLACES_AT_ONCE = 64  # so that what lies between them is never much

_LENGTH_BYTES = 8  # before a compressed buffer: how many bytes it has without compression
_ALIGNMENT = 64

_HEAD_BYTES = 16  # magic, filled up to 8, and the lengths before the schema
_PADDING = 128  # bytes that a writer may leave between messages; no message is as short

_DECODE_ERRORS = (OSError, ValueError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message lies in its file: first what describes it, then its body."""

    offset: int
    metadata_bytes: int
    body_bytes: int

    @property
    def body(self) -> int:
        return self.offset + self.metadata_bytes

    @property
    def stop(self) -> int:
        return self.body + self.body_bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A record batch, or the values of a dictionary, as its metadata describes it.

    metadata: as it lies in the file.
    buffers:  (offset in the body, bytes) of each; `variadic`: how many more each view has than its first two.
    compressed: whether a buffer begins with the number of its bytes without compression, in 8 bytes.
    """

    place: Place
    metadata: pa.Buffer
    rows: int
    buffers: tuple[tuple[int, int], ...]
    variadic: tuple[int, ...]
    compressed: bool
    version: int

    def of_columns(self, schema: pa.Schema) -> list[tuple[tuple[int, int], ...]]:
        """The buffers of each field of `schema`, which is that of the file. source: Columnar.rst, "Buffer listing".

        raises: struct.error where they are others than its types have.
        """
        found, at, variadic = [], 0, iter(self.variadic)
        for field in schema:
            stop = at + _buffer_count(field.type, variadic, self.version)
            found.append(self.buffers[at:stop])
            at = stop
        if at != len(self.buffers) or next(variadic, None) is not None:
            raise struct.error(f"{len(self.buffers)} buffers where the schema has {at}")
        return found


def _buffer_count(kind: pa.DataType, variadic: Iterator[int], version: int) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _buffer_count(kind.storage_type, variadic, version)
    if pa.types.is_null(kind):
        return 0
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return 2 + next(variadic, 0)
    below = sum(_buffer_count(kind.field(index).type, variadic, version) for index in range(kind.num_fields))
    without_nulls = pa.types.is_union(kind) or pa.types.is_run_end_encoded(kind)  # of their own, since V5
    return below + int(kind.num_buffers) - (without_nulls and version >= _NEWEST_VERSION)


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

    def has(self, field: int) -> bool:
        return self._place(field) is not None

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


def read_places(file: BufferedFile) -> tuple[list[Place], list[Place]]:
    """Find the footer, and what it lists: record batches, and dictionaries.

    raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_FOOTER, FILE_UNSUPPORTED.
    """
    try:
        tail = file.tail()
        head = bytes(file.take(0, min(_HEAD_BYTES, file.size)))
        footer = FlatTable.root(bytes(_footer_bytes(file, head, bytes(tail[-10:]))))
        version = footer.number(0, "<h")
        if version > _NEWEST_VERSION:
            raise unreadable(
                file,
                "FILE_UNSUPPORTED",
                f"its metadata version is V{version + 1}; up to V{_NEWEST_VERSION + 1} are read",
            )
        batches, dictionaries = ([Place(*place) for place in footer.structs(field, "<qi4xq")] for field in (3, 2))
        for place in (*batches, *dictionaries):
            if min(place.offset, place.metadata_bytes, place.body_bytes) < 0 or place.stop > file.size:
                raise struct.error(
                    f"a batch at {place.offset} with {place.metadata_bytes} + {place.body_bytes} bytes"
                    " is not inside the file"
                )
        _check_listed(file, head, [(place.offset, place.stop) for place in (*batches, *dictionaries)])
        return batches, dictionaries
    except struct.error as error:
        raise unreadable(file, "FILE_FOOTER", f"its footer cannot be parsed: {error}") from error


def read_blocks(file: BufferedFile, places: Sequence[Place]) -> list[Block]:
    """Look at the metadata of each message. raises: InputError FILE_FOOTER."""
    blocks: list[Block] = []
    for start in range(0, len(places), _PLACES_AT_ONCE):
        some = places[start : start + _PLACES_AT_ONCE]
        known = [place for place in some if file.holds(place.offset, place.body)]
        if len(known) < len(some):
            file.hold(
                [(place.offset, place.body) for place in some if place not in known],
                [(place.offset, file.take(place.offset, place.body)) for place in known],
                _METADATA_GAP_BYTES,
            )
        try:
            blocks += [_block(file, place) for place in some]
        except struct.error as error:
            raise unreadable(file, "FILE_FOOTER", f"its footer cannot be parsed: {error}") from error
    return blocks


def _check_listed(file: BufferedFile, head: bytes, places: Sequence[tuple[int, int]]) -> None:
    """Every message of the file is in the list of its footer, once: or rows would be lost or doubled without an error.

    raises: InputError FILE_FOOTER; struct.error.
    """
    head = head[8:]
    marker = 4 if head.startswith(_STREAM) else 0
    at = 8 + marker + 4 + int(struct.unpack_from("<i", head, marker)[0])  # behind the schema
    footer_bytes = int.from_bytes(bytes(file.take(file.size - 10, file.size - 6)), "little", signed=True)
    for start, stop in [*sorted(places), (file.size - 10 - footer_bytes,) * 2]:
        if start < at or start - at > _PADDING:
            place = "overlaps the one before" if start < at else f"has {start - at} bytes before it that are in no list"
            raise unreadable(file, "FILE_FOOTER", f"what its footer lists at {start} {place}")
        at = stop


def _block(file: BufferedFile, place: Place) -> Block:
    metadata = file.take(place.offset, place.body)
    data = bytes(metadata)
    # Since 0.15 the length of the metadata has a marker before it.
    message = FlatTable.root(data[8 if data.startswith(_STREAM) else 4 :])
    kind = message.number(1, "<B")
    if kind not in (_RECORD_BATCH, _DICTIONARY_BATCH):
        raise struct.error(f"no record batch at {place.offset}")
    batch = message.table(2) if kind == _RECORD_BATCH else message.table(2).table(1)
    rows = batch.number(0, "<q")
    if rows < 0:
        raise struct.error(f"the batch at {place.offset} claims {rows} rows")
    buffers = tuple((offset, size) for offset, size in batch.structs(2, "<qq"))
    if any(min(offset, size) < 0 or offset + size > place.body_bytes for offset, size in buffers):
        raise struct.error(f"a buffer of the batch at {place.offset} is not inside its body")
    variadic = tuple(count for (count,) in batch.structs(4, "<q"))
    return Block(place, metadata, rows, buffers, variadic, batch.has(3), message.number(0, "<h"))


def _footer_bytes(file: BufferedFile, head: bytes, end: bytes) -> pa.Buffer:
    """head, end: the first and last bytes of the file."""
    if file.size == 0:
        raise unreadable(file, "FILE_EMPTY", "it has zero bytes")
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
            read_places(held)
            return self._known(plain_schema(_reader(held).schema))

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            return _reader(held).schema, {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """Row groups and schema; planned bytes are a share of the file where the width of a column is not fixed."""
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            places, _ = read_places(held)
            stored = _reader(held).schema
            blocks = read_blocks(held, places)
        schema = self._known(plain_schema(stored))
        groups = tuple(_row_group(block, stored, schema, columns) for block in blocks)
        return InputFile(file.url, file.size, file.version, groups), schema

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[ArrowReader]:
        with planned_file(store, inputs) as held:
            try:
                places, dictionaries = read_places(held)
                schema = _reader(held).schema
                wanted = {position(schema, name, inputs.url): name for name in columns}
                reader = _reader(held, sorted(wanted))
                planned = places[inputs.first : inputs.first + len(inputs.rows)]
                blocks = dict(enumerate(read_blocks(held, planned), inputs.first))
            except InputError as error:
                raise while_running(error) from error
            bodies = Bodies(held, schema, wanted, dictionaries, self.max_row_group_bytes)
            yield ArrowReader(store, bodies, reader, blocks, inputs, columns)

    def _known(self, schema: pa.Schema) -> pa.Schema:
        if self._schema is None or not self._schema.equals(schema, check_metadata=True):
            self._schema = schema
        return self._schema


def _row_group(block: Block, stored: pa.Schema, schema: pa.Schema, columns: Sequence[str]) -> RowGroup:
    """stored: the schema of the file. schema: the same of plain types."""
    wanted, planned = set(columns), _planned_bytes(block, schema, columns)
    decoded, exact = 0, True
    try:
        found = block.of_columns(stored)
    except struct.error:
        return RowGroup(block.rows, planned, exact=False)
    for field, buffers in zip(stored, found, strict=True):
        if field.name in wanted:
            bits, held = fixed_bits(plain_type(field.type)), sum(size for _, size in buffers)
            decoded += held if bits is None else block.rows * bits // 8
            exact = exact and (bits is not None or not (block.compressed or shares(field.type)))
    return RowGroup(block.rows, planned, decoded=decoded, exact=exact)


def _planned_bytes(block: Block, schema: pa.Schema, columns: Sequence[str]) -> int:
    widths = [fixed_bits(field.type) for field in schema]
    wanted = set(columns)
    fixed = sum(width or 0 for width, name in zip(widths, schema.names, strict=True) if name in wanted)
    variable = sum(width is None and name in wanted for width, name in zip(widths, schema.names, strict=True))
    return block.rows * fixed // 8 + block.place.body_bytes * variable // max(1, sum(width is None for width in widths))


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


class Bodies:
    """What is fetched of the bodies of batches: the buffers of some columns, in few requests.

    pyarrow (26.0) fetches each compressed buffer by itself.
    """

    def __init__(
        self,
        file: BufferedFile,
        schema: pa.Schema,
        wanted: Mapping[int, str],
        dictionaries: Sequence[Place],
        most_bytes: int,
    ) -> None:
        """
        wanted:       index -> name of the columns.
        dictionaries: of the file; pyarrow reads all of them with its first batch.
        most_bytes:   that a batch may have when it is decoded.
        """
        self.file, self.most_bytes = file, most_bytes
        self._schema, self._wanted, self._dictionaries = schema, wanted, tuple(dictionaries)

    @contextmanager
    def held(self, block: Block) -> Iterator[None]:
        """Hold what a batch is decoded from. raises: TooLargeError where it claims more than is allowed."""
        columns = self._columns(block)
        ranges = [found for buffers in columns.values() for found in _ranges(block, buffers)]
        ranges += [(place.offset, place.stop) for place in self._dictionaries]
        try:
            self.file.hold(ranges, [(block.place.offset, block.metadata)])
            sizes = [(name, self._decoded(block, buffers)) for name, buffers in columns.items()]
            shared = [self._decoded(one, one.buffers) for one in map(self._dictionary, self._dictionaries)]
            refuse_larger(sizes, self.most_bytes, sum(shared))
            yield
            self._dictionaries = ()  # pyarrow has them now
        finally:
            self.file.hold([])

    def _columns(self, block: Block) -> dict[str, Sequence[tuple[int, int]]]:
        try:
            found = block.of_columns(self._schema)
        except struct.error:  # of a layout that is not known here
            return {"": block.buffers}
        return {name: found[index] for index, name in self._wanted.items()}

    def _dictionary(self, place: Place) -> Block:
        return _block(self.file, place)

    def _decoded(self, block: Block, buffers: Sequence[tuple[int, int]]) -> int:
        """Bytes that buffers take without their compression; it is looked at where they are held."""
        if not block.compressed:
            return sum(size for _, size in buffers)
        total = 0
        for offset, size in buffers:
            if size >= _LENGTH_BYTES:
                start = block.place.body + offset
                length = int.from_bytes(bytes(self.file.take(start, start + _LENGTH_BYTES)), "little", signed=True)
                total += size if length < 0 else length  # -1: this one is not compressed
        return total


def _ranges(block: Block, buffers: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for offset, size in buffers:
        if size:
            padded = -(-size // _ALIGNMENT) * _ALIGNMENT  # pyarrow may fetch it with what fills it up
            yield block.place.body + offset, min(block.place.body + offset + padded, block.place.stop)


class ArrowReader:
    """An open file; see `connectors.formats.base.RowGroupReader`."""

    def __init__(
        self,
        store: Store,
        bodies: Bodies,
        reader: pa.RecordBatchFileReader,
        blocks: Mapping[int, Block],
        inputs: InputSlice,
        columns: Sequence[str],
    ) -> None:
        """blocks: index -> the batches that were planned and are there."""
        self._store, self._bodies, self._reader, self._blocks, self._inputs = store, bodies, reader, blocks, inputs
        self._columns = list(columns)

    @property
    def fetch_s(self) -> float:
        return self._bodies.file.fetch_s

    def read(self, row_group: int) -> pa.Table:
        if row_group not in self._blocks:
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
        with self._bodies.held(self._blocks[row_group]):
            batch = self._reader.get_batch(row_group)
        batch.validate(full=True)  # offsets and UTF-8: nothing else protects those who read by address
        return plain_table(pa.Table.from_batches([batch]).select(self._columns), self._bodies.most_bytes)

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
            places, _ = read_places(held)
            reader = _reader(held)
            blocks = read_blocks(held, places)
            return _header(reader, blocks), sum(block.rows for block in blocks)


def _header(reader: pa.RecordBatchFileReader, blocks: Sequence[Block]) -> dict[str, object] | None:
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
            return sum(block.rows for block in read_blocks(file, read_places(file)[0]))


SOURCE, ENCODER = ArrowSource, ArrowEncoder
