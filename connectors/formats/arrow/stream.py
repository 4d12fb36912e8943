"""An Arrow IPC stream: where its messages are, and a reader of some of its batches.

A stream has no footer: one walk from message to message finds all, and steps over their bodies. The
invariant: a batch is decoded with the dictionaries that stand before it in the stream, additions and replacements too.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from connectors.formats.arrow.flatbuffer import FlatTable
from connectors.formats.arrow.footer import hold_ends
from connectors.formats.arrow.message import BATCHES, NEWEST_VERSION, STREAM, Block, Place, block_at
from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import DECODE_ERRORS, refusing, unreadable
from jobs.errors import InputError

_FRAME_BYTES = 8  # marker and length, in front of the metadata
_SCHEMA, _DICTIONARY = 1, 2  # MessageHeader of Message.fbs
_WINDOW_BYTES = 64 * 1024  # fetched at once while walking: more than the metadata of nearly all batches


@dataclass(frozen=True)
class Messages:
    """Of a stream. front: its schema, as the message that it is."""

    front: pa.Buffer
    schema: pa.Schema
    batches: tuple[Block, ...]
    dictionaries: tuple[Place, ...]


def is_stream(file: BufferedFile) -> bool:
    """Whether it is no file of Arrow IPC, by its first bytes."""
    hold_ends(file)
    return bytes(file.take(0, min(len(STREAM), file.size))) == STREAM


def read_schema(file: BufferedFile) -> tuple[pa.Buffer, pa.Schema]:
    """The message of the schema, and what it says. raises: as `read_messages`."""
    found = _message(file, 0)
    if found is None or found[1] != _SCHEMA:
        raise unreadable(file, "FILE_FOOTER", "it begins as an Arrow IPC stream, and has no schema")
    front = file.take(0, found[0].stop)
    with refusing(file, "FILE_FOOTER", "its schema cannot be parsed"):
        schema = pa.ipc.read_schema(front)
        _ = schema.names  # decodes them
    return front, schema


def read_messages(file: BufferedFile) -> Messages:
    """Walk through a stream.

    raises: InputError FILE_TRUNCATED, FILE_FOOTER where a message is none, FILE_SCHEMA, FILE_UNSUPPORTED.
    """
    front, schema = read_schema(file)
    at, batches, dictionaries = front.size, list[Block](), list[Place]()
    while (found := _message(file, at)) is not None:
        place, kind = found
        if kind not in BATCHES:
            raise unreadable(file, "FILE_FOOTER", f"the message at byte {at} is neither a batch nor a dictionary")
        if kind == _DICTIONARY:
            dictionaries.append(place)
        else:
            try:
                batches.append(block_at(file, place))
            except struct.error as error:
                raise _unparsed(file, at, error) from error
        at = place.stop
    return Messages(front, schema, tuple(batches), tuple(dictionaries))


def _message(file: BufferedFile, at: int) -> tuple[Place, int] | None:
    """Where the message at `at` lies, and its kind; None at the end."""
    if at == file.size:
        return None  # the mark of the end may be left out
    if not file.holds(at, min(at + _FRAME_BYTES, file.size)):
        file.hold([(at, min(at + _WINDOW_BYTES, file.size))])
    frame = bytes(file.take(at, min(at + _FRAME_BYTES, file.size)))
    if len(frame) < _FRAME_BYTES:
        raise _cut(file, at)
    if not frame.startswith(STREAM):
        raise unreadable(file, "FILE_FOOTER", f"no message begins at byte {at}")
    (length,) = struct.unpack_from("<i", frame, len(STREAM))
    if length == 0:
        if at + _FRAME_BYTES < file.size:
            found = f"{file.size - at - _FRAME_BYTES} bytes follow the end of its stream, perhaps another one"
            raise unreadable(file, "FILE_UNSUPPORTED", f"{found}: write one stream, or several files")
        return None
    if length < 0 or at + _FRAME_BYTES + length > file.size:
        raise _cut(file, at)
    try:
        message = FlatTable.root(bytes(file.take(at + _FRAME_BYTES, at + _FRAME_BYTES + length)))
        version, kind, body_bytes = message.number(0, "<h"), message.number(1, "<B"), message.number(3, "<q")
    except struct.error as error:
        raise _unparsed(file, at, error) from error
    if version > NEWEST_VERSION:
        found = f"its metadata version is V{version + 1}; up to V{NEWEST_VERSION + 1} are read"
        raise unreadable(file, "FILE_UNSUPPORTED", found)
    place = Place(at, _FRAME_BYTES + length, body_bytes)
    if body_bytes < 0 or place.stop > file.size:
        raise _cut(file, at)
    return place, kind


def _cut(file: BufferedFile, at: int) -> InputError:
    return unreadable(file, "FILE_TRUNCATED", f"the message at byte {at} has no end within its {file.size} bytes")


def _unparsed(file: BufferedFile, at: int, error: Exception) -> InputError:
    return unreadable(file, "FILE_FOOTER", f"the message at byte {at} cannot be parsed: {error}")


def has_dictionaries(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return has_dictionaries(kind.storage_type)
    inside = (kind.field(index).type for index in range(kind.num_fields))
    return pa.types.is_dictionary(kind) or any(map(has_dictionaries, inside))


class StreamReader:
    """Decodes batches of a stream, of the top-level fields at the indices `columns`.

    pyarrow is handed a stream of what is wanted alone: the schema, the dictionaries so far, and the batch, whose body
    holds the buffers of those columns and zeros for the others.
    """

    def __init__(
        self,
        file: BufferedFile,
        front: pa.Buffer,
        schema: pa.Schema,
        blocks: Mapping[int, Block],
        dictionaries: Sequence[Place],
        columns: Sequence[int],
    ) -> None:
        """front: see `Messages`. blocks: index -> batch."""
        self._file, self._front, self._schema, self._blocks = file, front, schema, blocks
        self._dictionaries, self._columns = dictionaries, list(columns)
        self._pieces = _Pieces()
        self._reader: pa.RecordBatchStreamReader | None = None
        self._handed, self._last = 0, -1  # dictionaries, and where the last batch lies

    def batch(self, index: int) -> pa.RecordBatch:
        """raises: what pyarrow raises for bad bytes."""
        block = self._blocks[index]
        if self._reader is None or block.place.offset <= self._last:
            self._pieces, self._handed = _Pieces(), 0
            self._pieces.queue.append(self._front)
            options = pa.ipc.IpcReadOptions(included_fields=self._columns, use_threads=False)
            self._reader = pa.ipc.open_stream(pa.PythonFile(self._pieces, mode="r"), options=options)
        while self._handed < len(self._dictionaries):
            place = self._dictionaries[self._handed]
            if place.offset > block.place.offset:
                break
            self._pieces.queue.append(self._file.take(place.offset, place.stop))
            self._handed += 1
        self._pieces.queue += [block.metadata, self._body(block)]
        self._last = block.place.offset
        try:
            return self._reader.read_next_batch()
        except DECODE_ERRORS:
            self._reader = None
            raise

    def _body(self, block: Block) -> pa.Buffer:
        place = block.place
        try:
            found = block.of_columns(self._schema)
        except struct.error:  # of a layout that is not known here
            return self._file.take(place.body, place.stop)
        body = np.zeros(place.body_bytes, np.uint8)  # pages that are not written to take no memory
        for index in self._columns:
            for offset, size in found[index]:
                if size:
                    taken = self._file.take(place.body + offset, place.body + offset + size)
                    body[offset : offset + size] = np.frombuffer(taken, np.uint8)
        return pa.py_buffer(body)

    def close(self) -> None:
        self._reader = None
        self._pieces = _Pieces()


class _Pieces:
    """A file of what is put into `queue`."""

    closed = False

    def __init__(self) -> None:
        self.queue: deque[pa.Buffer] = deque()

    def read(self, size: int) -> pa.Buffer:
        """Of one piece, mostly all: pyarrow asks for the frame of a message, its metadata, and its body."""
        while self.queue and not self.queue[0].size:
            self.queue.popleft()
        if not self.queue or size <= 0:
            return pa.py_buffer(b"")
        piece = self.queue.popleft()
        if piece.size > size:
            self.queue.appendleft(piece.slice(size))
        elif piece.size < size and self.queue:
            rest = self.read(size - piece.size)
            return pa.py_buffer(b"".join((memoryview(piece), memoryview(rest))))
        return piece.slice(0, size)
