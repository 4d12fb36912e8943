"""Flatbuffers as Arrow uses them, read without the library: one table, its numbers, its lists of structs.

Knows no message. The invariant: an offset that leads outside the buffer is an error, and never another value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator


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

    def text(self, field: int) -> str:
        for start, count in self._vector(field):
            return self._data[start : start + count].decode(errors="replace")
        return ""

    def tables(self, field: int) -> Iterator[FlatTable]:
        for start, count in self._vector(field):
            for place in range(start, start + 4 * count, 4):
                yield FlatTable(self._data, place + self._at("<I", place))

    def structs(self, field: int, kind: str) -> Iterator[tuple[int, ...]]:
        for start, count in self._vector(field):
            for index in range(count):
                yield struct.unpack_from(kind, self._data, start + index * struct.calcsize(kind))

    def _vector(self, field: int) -> Iterator[tuple[int, int]]:
        """Where the first element of a vector lies, and how many there are; nothing where it is missing."""
        place = self._place(field)
        if place is not None:
            place += self._at("<I", place)
            yield place + 4, self._at("<I", place)

    def _place(self, field: int) -> int | None:
        slot = 4 + 2 * field
        offset = self._at("<H", self._fields + slot) if slot < self._at("<H", self._fields) else 0
        return self._start + offset if offset else None

    def _at(self, kind: str, place: int) -> int:
        if place < 0:  # would count from the end
            raise struct.error(f"offset {place} is outside the buffer")
        return int(struct.unpack_from(kind, self._data, place)[0])
