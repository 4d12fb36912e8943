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
    start, stop: of its pages in the file.
    stored:  bytes of its pages without their compression.
    dictionary: where the page of its dictionary lies; None where it has none.
    planned: the bytes that plans state for it: they decide the cuts, so they are counted as they always were.
    decoded: bytes that its values take when they are decoded; at least, unless `exact`.
    """

    column: str
    leaf: Leaf
    values: int
    start: int
    stop: int
    stored: int
    dictionary: int | None
    planned: int
    decoded: int
    exact: bool

    @property
    def nested(self) -> bool:
        return self.leaf.path != self.column

    @classmethod
    def of(cls, column: str, leaf: Leaf, meta: Any, text_bytes: Callable[[Any], int | None]) -> Chunk:
        """meta: of pyarrow. text_bytes: see `TextSizes`."""
        values, stored, kind = meta.num_values, meta.total_uncompressed_size, meta.physical_type
        dictionary = meta.dictionary_page_offset if meta.has_dictionary_page else None
        start = meta.data_page_offset if dictionary is None else min(dictionary, meta.data_page_offset)
        exact, decoded = True, max(0, stored)
        if kind == "BYTE_ARRAY":
            encodings = meta.encodings
            text: int | None = stored
            if _PREFIXES in encodings:  # what pyarrow (26.0) states leaves the shared prefixes out
                text = None
            elif not _DICTIONARIES.isdisjoint(encodings):
                text = text_bytes(meta)
            exact = text is not None
            decoded = max(0, stored if text is None else text) + values * _OFFSET_BYTES
        else:
            bits = _VALUE_BITS[kind] if kind in _VALUE_BITS else 8 * leaf.width
            decoded = max(decoded, values * bits // 8)
        planned = max(0, stored, values * _PLANNED_BYTES.get(kind, 0))
        stop = start + meta.total_compressed_size
        return cls(column, leaf, values, start, stop, stored, dictionary, planned, decoded, exact)

    def at_most(self, head: Callable[[int, int], pa.Buffer]) -> int:
        """Bytes that its values take when they are decoded, or more. head: gives bytes of the file, which are held."""
        if self.exact:
            return self.decoded
        largest = self.stored
        if self.dictionary is not None:
            largest = page_bytes(bytes(head(self.dictionary, min(self.stop, self.dictionary + 64)))) or self.stored
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
    """How many bytes of text each chunk of a file has, where its writer stated that in its footer.

    pyarrow (26.0) reads these statistics and does not show them. A chunk is found by the bytes that its counts are
    written as, because to walk through a whole footer in Python would take longer than all the rest of planning.
    source: parquet.thrift, ColumnMetaData and SizeStatistics; Thrift's compact protocol.
    """

    def __init__(self, footer: pa.Buffer | bytes = b"") -> None:
        self._footer: pa.Buffer | bytes = footer
        self._at = 0
        self._lock = threading.Lock()

    def of(self, meta: Any) -> int | None:
        """meta: of a chunk; quick where chunks are asked for in order."""
        counts = (meta.num_values, meta.total_uncompressed_size, meta.total_compressed_size)
        wanted = b"".join(b"\x16" + _varint(number << 1) for number in counts if number >= 0)  # fields 5, 6 and 7
        with self._lock:
            if not isinstance(self._footer, bytes):
                self._footer = bytes(self._footer)
            for start in (self._at, 0):
                at = self._footer.find(wanted, start)
                while at >= 0:
                    fields = _Fields(self._footer, at + len(wanted), 7)
                    if fields.number(9) == meta.data_page_offset:
                        self._at = at
                        return fields.number(16, 1)
                    at = self._footer.find(wanted, at + 1)
            self._footer = b""  # of another order: nothing will be found, and each search is one of the whole footer
        return None


def page_bytes(header: bytes) -> int | None:
    """The bytes of a page without compression, from the start of its header."""
    return _Fields(header, 0, 0).number(2)


class _Fields:
    """The fields of a struct behind the one numbered `last`, each once, in order.

    source: Thrift's compact protocol.
    """

    def __init__(self, data: bytes, at: int, last: int) -> None:
        self._data, self._at, self._last = data, at, last

    def number(self, field: int, *inside: int) -> int | None:
        """The number in a field, or in a field of the struct there; None where there is none."""
        try:
            while (kind := self._next(field)) is not None:
                if self._last == field:
                    if inside:
                        return _Fields(self._data, self._at, 0).number(*inside) if kind == 12 else None
                    return _unzigzag(self._varint()) if kind in (4, 5, 6) else None
                self._skip(kind)
        except (IndexError, RecursionError):
            pass
        return None

    def _next(self, most: int) -> int | None:
        """The kind of the next field up to number `most`; None where there is none."""
        head = self._data[self._at]
        number = self._last + (head >> 4) if head >> 4 else None
        if not head & 15 or (number or 0) > most:
            return None
        self._at += 1
        self._last = number if number is not None else _unzigzag(self._varint())
        return head & 15

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _skip(self, kind: int) -> None:
        match kind:
            case 1 | 2:  # a boolean: the kind is its value
                pass
            case 3:
                self._at += 1
            case 4 | 5 | 6:
                self._varint()
            case 7:
                self._at += 8
            case 8:
                length = self._varint()
                self._at += length
            case 9 | 10:
                head = self._data[self._at]
                self._at += 1
                for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                    self._skip(head & 15 if head & 15 > 2 else 3)
            case 12:
                inner = _Fields(self._data, self._at, 0)
                while (of := inner._next(1 << 15)) is not None:
                    inner._skip(of)
                self._at = inner._at + 1
            case _:
                raise IndexError(f"a field of kind {kind} is in no footer")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _unzigzag(value: int) -> int:
    return value >> 1 ^ -(value & 1)
