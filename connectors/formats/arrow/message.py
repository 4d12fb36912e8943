"""The messages of an Arrow IPC file: where one lies, and what its metadata says of a record batch or a dictionary.

Refuses to decode values: rows and buffers are known from the metadata alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from connectors.formats.arrow.flatbuffer import FlatTable
from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import unreadable

STREAM = b"\xff\xff\xff\xff"  # before the length of each message, since 0.15; a stream begins with it
NEWEST_VERSION = 4  # MetadataVersion.V5 of Schema.fbs
BATCHES = _DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # MessageHeader of Message.fbs

# Where the metadata of many batches is fetched, as few bytes between as cost less than a request even on a local disk.
_METADATA_GAP_BYTES = 64 * 1024
_PLACES_AT_ONCE = 64  # so that what lies between them is never much


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

    @property
    def numbers(self) -> tuple[int, int, int]:
        """As a plan holds it."""
        return self.offset, self.metadata_bytes, self.body_bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A record batch, or the values of a dictionary, as its metadata describes it.

    metadata: as it lies in the file.
    buffers:  (offset in the body, bytes) of each; `variadic`: how many more each view has than its first two.
    compressed: whether a buffer begins with the number of its bytes without compression, in 8 bytes.
    said:     the message's custom metadata.
    """

    place: Place
    metadata: pa.Buffer
    rows: int
    buffers: tuple[tuple[int, int], ...]
    variadic: tuple[int, ...]
    compressed: bool
    version: int
    said: Mapping[str, str]

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
    return below + int(kind.num_buffers) - (without_nulls and version >= NEWEST_VERSION)


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
            blocks += [block_at(file, place) for place in some]
        except struct.error as error:
            raise unreadable(file, "FILE_FOOTER", f"its footer cannot be parsed: {error}") from error
    return blocks


def block_at(file: BufferedFile, place: Place) -> Block:
    metadata = file.take(place.offset, place.body)
    data = bytes(metadata)
    # Since 0.15 the length of the metadata has a marker before it.
    message = FlatTable.root(data[8 if data.startswith(STREAM) else 4 :])
    kind = message.number(1, "<B")
    if kind not in BATCHES:
        raise struct.error(f"no record batch at {place.offset}")
    batch = message.table(2) if kind == _RECORD_BATCH else message.table(2).table(1)
    rows = batch.number(0, "<q")
    if rows < 0:
        raise struct.error(f"the batch at {place.offset} claims {rows} rows")
    buffers = tuple((offset, size) for offset, size in batch.structs(2, "<qq"))
    if any(min(offset, size) < 0 or offset + size > place.body_bytes for offset, size in buffers):
        raise struct.error(f"a buffer of the batch at {place.offset} is not inside its body")
    variadic = tuple(count for (count,) in batch.structs(4, "<q"))
    said = {pair.text(0): pair.text(1) for pair in message.tables(4)}
    return Block(place, metadata, rows, buffers, variadic, batch.has(3), message.number(0, "<h"), said)
