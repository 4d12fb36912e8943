"""A module of MLIR in its bytecode, as far as the names and the attributes of its operations go.

Owns the encoding: sections, numbers, the nesting of regions. Refuses to know what an operation or an attribute means.
The invariant: each byte of the sections that are read is accounted for as MLIR's own reader does it, so that nothing
runs that is not listed here; what departs from the encoding is an error, and so is what is too large to look through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

MAGIC = b"ML\xefR"

_Item = TypeVar("_Item")

# Of the format, from its page in MLIR's documentation; StableHLO writes versions 1, 3, 4 and 6 of it.
_VERSIONS = range(1, 7)
_LAZY, _USE_LISTS, _ELIDED, _PROPERTIES = 2, 3, 4, 5  # the version that began each
_STRINGS, _DIALECTS, _ATTRIBUTES, _OFFSETS, _IR, _PROPERTY_SECTION = 0, 1, 2, 3, 4, 8
_SECTIONS = range(9)
_HAS_ATTRIBUTES, _HAS_RESULTS, _HAS_OPERANDS, _HAS_SUCCESSORS, _HAS_REGIONS, _HAS_USE_LISTS, _HAS_PROPERTIES = (
    1 << bit for bit in range(7)
)
_PADDING = 0xCB

_OF_FUNCTIONS = 2  # how deep what is in a function is: within it, and it within the module

_MOST_OPS = 1_000_000  # a module of JAX has thousands
_DEEPEST = 100  # regions within regions

_DICTIONARY, _STRING = 1, 2  # attributes of the dialect `builtin`


class BytecodeError(ValueError):
    """What is wrong, as the end of a sentence about the module."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An attribute or a type as it lies in the file. custom: in the encoding of its dialect, not as text."""

    dialect: str
    custom: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class Operation:
    """name: with its dialect. known: its maker knew the operation, and so wrote the properties in its own encoding.
    attributes: index of a dictionary. properties: as they lie in the file. depth: regions that it is in. operands:
    numbers of values. results: how many values it defines."""

    name: str
    known: bool
    attributes: int | None
    properties: bytes
    depth: int
    operands: tuple[int, ...]
    results: int


class Reader:
    """Numbers and sections one after the other."""

    def __init__(self, content: bytes, at: int = 0, end: int | None = None) -> None:
        self._content, self.at, self.end = content, at, len(content) if end is None else end

    def byte(self) -> int:
        if self.at >= self.end:
            raise BytecodeError("ends too early")
        self.at += 1
        return self._content[self.at - 1]

    def number(self) -> int:
        """Of one to nine bytes: the zeros at the low end of the first one count those that follow."""
        first = self.byte()
        if first & 1:
            return first >> 1
        more = 8 if first == 0 else (first & -first).bit_length() - 1
        value = int.from_bytes(self.take(more), "little")
        return value if first == 0 else (first | value << 8) >> (more + 1)

    def count(self) -> int:
        """Of things that take a byte each at least."""
        number = self.number()
        if number > self.end - self.at:
            raise BytecodeError("says that it holds more than it has room for")
        return number

    def numbers(self) -> list[int]:
        return [self.number() for _ in range(self.count())]

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise BytecodeError("ends too early")
        self.at += size
        return self._content[self.at - size : self.at]

    def section(self) -> tuple[int, Reader]:
        """The next one: what it is, and what is in it."""
        kind, size = self.byte(), self.number()
        if kind & 0x80:
            alignment = self.number()
            if alignment.bit_count() != 1:
                raise BytecodeError("aligns a section to what is no power of two")
            while self.at % alignment:
                if self.byte() != _PADDING:
                    raise BytecodeError("pads a section with other bytes than MLIR does")
        if size > self.end - self.at:
            raise BytecodeError("ends within a section")
        inner = Reader(self._content, self.at, self.at + size)
        self.at += size
        return kind & 0x7F, inner

    def finish(self) -> None:
        if self.at != self.end:
            raise BytecodeError("holds bytes that belong to nothing")


class Bytecode:
    """A module. raises: BytecodeError where it is none, or one that cannot be looked through."""

    def __init__(self, content: bytes) -> None:
        if not content.startswith(MAGIC):
            raise BytecodeError("is no MLIR bytecode")
        head = Reader(content, len(MAGIC))
        self.version = head.number()
        if self.version not in _VERSIONS:
            raise BytecodeError(f"is in version {self.version} of the bytecode, and 1 to {_VERSIONS[-1]} are known")
        end = content.find(b"\0", head.at)
        if end < 0:
            raise BytecodeError("ends too early")
        self.producer = content[head.at : end].decode("utf-8", "backslashreplace")
        head.at = end + 1
        self._sections: dict[int, Reader] = {}
        while head.at < head.end:
            kind, inner = head.section()
            if kind not in _SECTIONS or kind in self._sections:
                raise BytecodeError(f"has a section {kind} that MLIR does not have, or has it twice")
            self._sections[kind] = inner
        self._strings = self._read_strings()
        self._dialects: list[str] = []
        self._names = self._read_names()
        self.attributes, self.types = self._read_entries()
        self._branching = False

    @cached_property
    def operations(self) -> list[Operation]:
        """All of them, those in regions behind the one that they are in; the first is the module itself."""
        properties = self._read_properties()
        found = list[Operation]()
        reader = self._section(_IR)
        for operation in self._block(reader, properties, 0):
            found.append(operation)
            if len(found) > _MOST_OPS:
                raise BytecodeError(f"has more than {_MOST_OPS:,} operations")
        reader.finish()
        return found

    @property
    def straight(self) -> bool:
        """Whether each function is one block, whose values are numbered from its arguments on."""
        return bool(self.operations) and not self._branching

    def string(self, index: int) -> str:
        return self._at(self._strings, index).decode("utf-8", "backslashreplace")

    def entry(self, index: int) -> Entry:
        return self._at(self.attributes, index)

    def dictionary(self, index: int) -> dict[str, int]:
        """Of a dictionary of the dialect `builtin`: name -> index of the attribute."""
        reader = self._builtin(index, _DICTIONARY)
        pairs = [(reader.number(), reader.number()) for _ in range(reader.count())]
        reader.finish()
        return {self._name(name): value for name, value in pairs}

    def _name(self, index: int) -> str:
        reader = self._builtin(index, _STRING)
        name = self.string(reader.number())
        reader.finish()
        return name

    def _builtin(self, index: int, kind: int) -> Reader:
        entry = self.entry(index)
        reader = Reader(entry.content)
        if entry.dialect != "builtin" or not entry.custom or reader.number() != kind:
            raise BytecodeError("names attributes in a way that is not read here")
        return reader

    def _section(self, kind: int) -> Reader:
        if kind not in self._sections:
            raise BytecodeError(f"lacks section {kind}")
        return self._sections[kind]

    def _read_strings(self) -> list[bytes]:
        reader = self._section(_STRINGS)
        sizes = reader.numbers()[::-1]
        if 0 in sizes:
            raise BytecodeError("has a text without an end")
        texts = [reader.take(size)[:-1] for size in sizes]
        reader.finish()
        return texts

    def _read_names(self) -> list[tuple[str, bool]]:
        """The names of operations, and whether their maker knew them."""
        reader = self._section(_DIALECTS)
        for _ in range(reader.count()):
            named = reader.number()
            self._dialects.append(self.string(named >> 1))
            if named & 1:
                reader.section()  # the version of the dialect
        if self.version >= _ELIDED:
            reader.number()  # how many names there are
        names = []
        while reader.at < reader.end:
            dialect = self._at(self._dialects, reader.number())
            for named in reader.numbers():
                known = self.version < _PROPERTIES or bool(named & 1)
                name = self.string(named if self.version < _PROPERTIES else named >> 1)
                names.append((f"{dialect}.{name}", known))
        return names

    def _read_entries(self) -> tuple[list[Entry], list[Entry]]:
        """Attributes and types."""
        reader, content = self._section(_OFFSETS), self._section(_ATTRIBUTES)
        wanted = [reader.number(), reader.number()]
        read: list[list[Entry]] = [[], []]
        for entries, most in zip(read, wanted, strict=True):
            while len(entries) < most:
                dialect = self._at(self._dialects, reader.number())
                for place in reader.numbers():
                    entries.append(Entry(dialect, bool(place & 1), content.take(place >> 1)))
            if len(entries) > most:
                raise BytecodeError("has more attributes than it says")
        reader.finish()
        content.finish()
        return read[0], read[1]

    def _read_properties(self) -> list[bytes]:
        if _PROPERTY_SECTION not in self._sections:
            return []
        reader = self._sections[_PROPERTY_SECTION]
        read = [reader.take(reader.number()) for _ in range(reader.count())]
        reader.finish()
        return read

    def _block(self, reader: Reader, properties: list[bytes], depth: int) -> Iterator[Operation]:
        header = reader.number()
        if header & 1:
            self._skip_arguments(reader)
        for _ in range(header >> 1):
            yield from self._operation(reader, properties, depth)

    def _operation(self, reader: Reader, properties: list[bytes], depth: int) -> Iterator[Operation]:
        name, known = self._at(self._names, reader.number())
        mask = reader.byte()
        if mask >= _HAS_PROPERTIES << 1 or (mask & _HAS_PROPERTIES and self.version < _PROPERTIES):
            raise BytecodeError(f"has an operation {name!r} with parts that are not known")
        reader.number()  # where it comes from
        attributes = reader.number() if mask & _HAS_ATTRIBUTES else None
        own = b""
        if mask & _HAS_PROPERTIES:
            index = reader.number()  # of an attribute, where the maker did not know the operation
            own = self._at(properties, index) if known else b""
        results = len(reader.numbers()) if mask & _HAS_RESULTS else 0
        operands = reader.numbers() if mask & _HAS_OPERANDS else []
        if mask & _HAS_SUCCESSORS:
            reader.numbers()
        if mask & _HAS_USE_LISTS:
            _skip_use_lists(reader, results)
        yield Operation(name, known, attributes, own, depth, tuple(operands), results)
        if mask & _HAS_REGIONS:
            yield from self._regions(reader, properties, depth + 1)

    def _regions(self, reader: Reader, properties: list[bytes], depth: int) -> Iterator[Operation]:
        if depth > _DEEPEST:
            raise BytecodeError(f"has regions within regions, more than {_DEEPEST} deep")
        given = reader.number()
        inner = reader
        apart = bool(given & 1) and self.version >= _LAZY  # it sees nothing outside, and lies in a section of its own
        if apart:
            kind, inner = reader.section()
            if kind != _IR:
                raise BytecodeError("has a region that is none")
        for _ in range(given >> 1):
            if blocks := inner.number():
                inner.number()  # how many values it defines
                self._branching |= depth == _OF_FUNCTIONS and (blocks > 1 or not apart)
                for _ in range(blocks):
                    yield from self._block(inner, properties, depth)
        if apart:
            inner.finish()

    def _skip_arguments(self, reader: Reader) -> None:
        count = reader.count()
        for _ in range(count):
            kind = reader.number()
            if self.version < _ELIDED or kind & 1:
                reader.number()  # where it comes from
        if self.version >= _USE_LISTS and reader.byte():
            _skip_use_lists(reader, count)

    @staticmethod
    def _at(items: list[_Item], index: int) -> _Item:
        if index >= len(items):
            raise BytecodeError("refers to something that is not in it")
        return items[index]


def _skip_use_lists(reader: Reader, values: int) -> None:
    """In which order the uses of some values are kept."""
    for _ in range(reader.count() if values > 1 else 1):
        if values > 1:
            reader.number()
        for _ in range(reader.number() >> 1):
            reader.number()
