"""A column chunk of a Parquet file: where it lies, and how large its values are when they are decoded.

Owns what a footer tells of that; refuses to read pages. The invariant: `decoded` is what the values take, where `exact`
says so, and less otherwise: a few bytes of a dictionary may stand for any number of texts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

# Bits of a decoded value. Runs and dictionaries make the bytes of a page much fewer than those of its values.
_VALUE_BITS = {"BOOLEAN": 1, "INT32": 32, "FLOAT": 32, "INT64": 64, "DOUBLE": 64, "INT96": 64}
_PLANNED_BYTES = {"INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 8}
_OFFSET_BYTES = 4

# Encodings in which values share bytes; then those of the pages say nothing of those of the values.
_DICTIONARIES, _PREFIXES = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}, "DELTA_BYTE_ARRAY"

# Numbers of fields in parquet.thrift: of ColumnMetaData, SizeStatistics and PageHeader.
_DATA_PAGE_OFFSET, _STATISTICS, _SIZE_STATISTICS = 9, 12, 16
_BOUNDS = (1, 2, 5, 6)  # in statistics
_TEXT_BYTES, _PAGE_BYTES = 1, 2
_HEADER_BYTES = 64  # of a page, at most, up to that field


class Leaf(NamedTuple):
    """A column as Parquet has it: what lies below a list or a struct has columns of its own.

    path: dots lead into lists and structs. kind: the physical type. width: bytes of a value of FIXED_LEN_BYTE_ARRAY.
    repeated: a row may have several values, or none.
    """

    path: str
    kind: str
    width: int
    repeated: bool

    @classmethod
    def of(cls, column: Any) -> Leaf:
        """column: of a `pyarrow.parquet.ParquetSchema`."""
        return cls(column.path, column.physical_type, column.length, column.max_repetition_level > 0)


class Chunk(NamedTuple):
    """One leaf column of one row group.

    column:  the top-level field that it belongs to.
    values:  nulls and empty lists included.
    start, stop: of its pages in the file. data: where those behind the dictionary begin.
    stored:  bytes of its pages without their compression.
    dictionary: where the page of its dictionary lies; None where it has none.
    planned: the bytes that plans state for it: they decide the cuts, so they are counted as they always were.
    decoded: bytes that its values take when they are decoded; at least, unless `exact`.
    coded:   whether its values are those of a dictionary, as far as they share bytes.
    dated:   whether it is stored as INT96, which are timestamps.
    """

    column: str
    leaf: Leaf
    values: int
    start: int
    data: int
    stop: int
    stored: int
    dictionary: int | None
    planned: int
    decoded: int
    exact: bool
    coded: bool
    dated: bool

    @property
    def nested(self) -> bool:
        return self.leaf.path != self.column

    @classmethod
    def of(cls, column: str, leaf: Leaf, meta: Any) -> Chunk:
        """meta: of pyarrow."""
        values, stored, kind = meta.num_values, meta.total_uncompressed_size, meta.physical_type
        dictionary = meta.dictionary_page_offset if meta.has_dictionary_page else None
        data = start = meta.data_page_offset
        if dictionary is not None:
            start = min(dictionary, data)
        exact, coded, decoded = True, False, max(0, stored)
        if kind == "BYTE_ARRAY":
            encodings = meta.encodings
            exact = _DICTIONARIES.isdisjoint(encodings) and _PREFIXES not in encodings
            coded = not exact and _PREFIXES not in encodings
            decoded += values * _OFFSET_BYTES
        else:
            bits = _VALUE_BITS[kind] if kind in _VALUE_BITS else 8 * leaf.width
            decoded = max(decoded, values * bits // 8)
        planned = max(0, stored, values * _PLANNED_BYTES.get(kind, 0))
        stop = start + meta.total_compressed_size
        dated = kind == "INT96"
        return cls(column, leaf, values, start, data, stop, stored, dictionary, planned, decoded, exact, coded, dated)

    def stated(self, sizes: TextSizes) -> Chunk:
        """The same, with what the footer states of its text."""
        # What pyarrow (26.0) states of DELTA_BYTE_ARRAY leaves out the bytes that values share.
        text = sizes.of(self) if self.coded else None
        return self if text is None else self._replace(decoded=text + self.values * _OFFSET_BYTES, exact=True)

    def at_most(self, head: Callable[[int, int], pa.Buffer] | None = None) -> int:
        """Bytes that its values take when they are decoded, or more.

        head: gives bytes of the file, which are held; without them no look is taken at how long its dictionary is.
        """
        if self.exact:
            return self.decoded
        largest = self.stored
        if head is not None and self.dictionary is not None:
            header = bytes(head(self.dictionary, min(self.stop, self.dictionary + _HEADER_BYTES)))
            largest = _number(header, 0, 0, _PAGE_BYTES) or largest
        return self.stored + self.values * (largest + _OFFSET_BYTES)


def rows_at_once(rows: int, sizes: Sequence[tuple[Chunk, int]], most_bytes: int, piece_bytes: int) -> int:
    """How many of the `rows` of a row group to decode together, so that they cannot pass `most_bytes`.

    sizes:       each chunk, and the bytes that it takes at most.
    piece_bytes: what a nested column may take that is decoded at once.
    """
    worst = sum(size for _, size in sizes)
    nested = max((chunk.decoded for chunk, _ in sizes if chunk.nested), default=0)
    fitting = rows if worst <= most_bytes else rows * most_bytes // worst
    return max(1, fitting if nested <= piece_bytes else min(fitting, rows * piece_bytes // nested))


class TextSizes:
    """How many bytes of text each chunk of a file has, and how long its bounds are, where its footer states that.

    pyarrow (26.0) reads the sizes and does not show them, and a bound that is too short for its type ends the
    process. A chunk is found by the bytes that its counts are
    written as, because to walk through a whole footer in Python would take longer than all the rest of planning.
    source: parquet.thrift, ColumnMetaData and SizeStatistics.
    """

    def __init__(self, footer: pa.Buffer | bytes = b"") -> None:
        self._footer: pa.Buffer | bytes = footer
        self._at = 0
        self._lock = threading.Lock()

    def of(self, chunk: Chunk) -> int | None:
        """Quick where chunks are asked for in order."""
        with self._lock:
            at = self._behind_counts(chunk)
            return None if at is None else _number(self._footer_bytes, at, 7, _SIZE_STATISTICS, _TEXT_BYTES)

    def bounds(self, chunk: Chunk) -> list[int] | None:
        """How many bytes each least and each largest value of the chunk has; None where that is not found."""
        with self._lock:
            at = self._behind_counts(chunk)
            return None if at is None else _bounds(self._footer_bytes, at)

    @property
    def _footer_bytes(self) -> bytes:
        if not isinstance(self._footer, bytes):
            self._footer = bytes(self._footer)
        return self._footer

    def _behind_counts(self, chunk: Chunk) -> int | None:
        """Where in the metadata of the chunk field 7 ends."""
        counts = (chunk.values, chunk.stored, chunk.stop - chunk.start)  # fields 5, 6 and 7, 64 bits each
        footer, wanted = self._footer_bytes, b"".join([b"\x16" + _varint(count << 1) for count in counts if count >= 0])
        for start in (self._at, 0):
            at = footer.find(wanted, start)
            while at >= 0:
                behind = at + len(wanted)
                if _number(footer, behind, 7, _DATA_PAGE_OFFSET) == chunk.data:
                    self._at = at
                    return behind
                at = footer.find(wanted, at + 1)
        self._footer = b""  # written in another way: nothing will be found, and each search is one of it all
        return None


# Thrift's compact protocol: a field begins with the distance from the number of the last one, and its kind.


def _number(data: bytes, at: int, last: int, field: int, *inside: int) -> int | None:
    """A number in a struct, or in a struct inside it; None where there is none.

    at, last: where in the struct to begin, and the number of the field before.
    field:    its number; `inside`: of the field there.
    """
    try:
        while True:
            head = data[at]
            if not head:
                return None
            last, at = (last + (head >> 4), at + 1) if head >> 4 else _long(data, at + 1)
            if last >= field:
                break
            at = _behind(data, at, head & 15)
        if last > field:
            return None
        if inside:
            return _number(data, at, 0, *inside) if head & 15 == 12 else None
        return _long(data, at)[0] if head & 15 in (4, 5, 6) else None
    except (IndexError, RecursionError):
        return None


def _bounds(data: bytes, at: int) -> list[int] | None:
    """The lengths of the bounds in the statistics of a chunk, whose metadata goes on at `at` behind field 7."""
    try:
        last, sizes = 7, list[int]()
        while head := data[at]:
            last, at = (last + (head >> 4), at + 1) if head >> 4 else _long(data, at + 1)
            if last != _STATISTICS:
                at = _behind(data, at, head & 15)
                continue
            inner = 0
            while head := data[at]:
                inner, at = (inner + (head >> 4), at + 1) if head >> 4 else _long(data, at + 1)
                if inner in _BOUNDS:
                    sizes.append(_size(data, at)[0])
                at = _behind(data, at, head & 15)
            at += 1
        return sizes
    except (IndexError, RecursionError):
        return None


def _behind(data: bytes, at: int, kind: int) -> int:
    """Where the value at `at` ends. raises: IndexError."""
    if 4 <= kind <= 6:
        while data[at] > 0x7F:
            at += 1
        return at + 1
    if kind == 12:
        while head := data[at]:
            at = _behind(data, at + 1 if head >> 4 else _long(data, at + 1)[1], head & 15)
        return at + 1
    if kind == 8:
        size, at = _size(data, at)
        return at + size
    if kind in (9, 10):
        head = data[at]
        size, at = (head >> 4, at + 1) if head >> 4 < 15 else _size(data, at + 1)
        for _ in range(size):
            at = _behind(data, at, max(3, head & 15))  # a boolean is a byte there
        return at
    if kind <= 3:
        return at + (kind == 3)  # a boolean is in its kind
    raise IndexError(f"no footer has a value of kind {kind}")


def _size(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) > 0x7F:
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | byte << shift, at + 1


def _long(data: bytes, at: int) -> tuple[int, int]:
    value, at = _size(data, at)
    return value >> 1 ^ -(value & 1), at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
