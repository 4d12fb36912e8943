"""The bodies of record batches: the buffers of some columns, fetched together and looked at before they are decoded.

The invariant: what a batch takes when it is decoded is known before that is done.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa

from connectors.formats.arrow.message import Block, Place, block_at
from connectors.formats.buffered import BufferedFile
from connectors.formats.plain import refuse_larger

_LENGTH_BYTES = 8  # before a compressed buffer: how many bytes it has without compression
_ALIGNMENT = 64


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
        return block_at(self.file, place)

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
