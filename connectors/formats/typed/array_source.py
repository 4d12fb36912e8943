"""Files of NumPy arrays as input: a row group is a run of rows, read as the bytes that they are.

Owns what `.npy` and `.npz` have in common; where the bytes of an array are, the formats say (`Member`). The invariant:
columns that are read have equally many rows.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa

from connectors.formats.base import States
from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import (
    DECODE_ERRORS,
    MAX_ROW_GROUP_BYTES,
    BadRows,
    BadRowsError,
    TooLargeError,
    bad_row_group,
    check_unchanged,
    once,
    out_of_memory,
    planned_file,
    unreadable,
    while_running,
    wrong_rows,
)
from connectors.formats.plain import refuse_larger
from connectors.formats.schema import position
from connectors.formats.typed.ndarray import Column, Layout, UnreadableError, column_of, field_of
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Input
from jobs.words import counted

# Whatever is reached first ends a row group.
_GROUP_BYTES, _GROUP_ROWS = 32 * 2**20, 2**20

Take = Callable[[int, int], bytes]

# What NumPy and zipfile raise for bad bytes.
ERRORS = (*DECODE_ERRORS, EOFError, LookupError, BadZipFile, zlib.error, lzma.LZMAError, struct.error, RuntimeError)


class Stored:
    """The bytes of an array as they lie in a file. at: where they begin."""

    def __init__(self, file: BufferedFile, at: int = 0) -> None:
        self._file, self._at = file, at

    def __call__(self, start: int, stop: int) -> bytes:
        return bytes(self._file.take(self._at + start, self._at + stop))

    def hold(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch them together."""
        self._file.hold([(self._at + start, self._at + stop) for start, stop in ranges])


@dataclass(frozen=True)
class Member:
    """A column: an array of a file, or a field of one; or why it is none.

    layout: of the array; None where `unread` says why, and `code` which error it is. of: the field.
    take:   from the first byte of the array's own file, header included.
    """

    name: str
    layout: Layout | None
    take: Take
    unread: str = ""
    code: str = "FILE_UNSUPPORTED"
    of: str = ""

    def field(self) -> pa.Field:
        try:
            if self.layout is None:
                raise UnreadableError(self.unread)
            dtype = self.layout.dtype[self.of] if self.of else self.layout.dtype
            return field_of(self.name, dtype, self.layout.shape[1:])
        except UnreadableError as error:
            return pa.field(self.name, pa.dense_union([pa.field(str(error), pa.null())]))

    def why(self) -> str:
        """Why it cannot be read; "" where it can."""
        kind = self.field().type
        return str(kind.field(0).name) if pa.types.is_union(kind) else ""


class ArraySource:
    """Reads arrays. Remembers the last schema seen, so that files with the same schema share one object."""

    states: States = "all"
    suffixes: tuple[str, ...]
    max_row_group_bytes = MAX_ROW_GROUP_BYTES
    max_row_bytes: int | None = None

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None

    @classmethod
    def of(cls, input: Input) -> Self:
        return cls()

    @abstractmethod
    def begins(self, head: bytes) -> bool: ...

    @abstractmethod
    def members(self, file: BufferedFile) -> list[Member]:
        """raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_SCHEMA, FILE_UNSUPPORTED, FILE_PICKLE."""

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            return self._known(self.members(held))

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        return self.schema(store, file), {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            members = self.members(held)
            layouts = _wanted(held, members, columns)
        groups = tuple(_row_groups(layouts, len(columns) > 0))
        return InputFile(file.url, file.size, file.version, groups), self._known(members)

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[ArrayReader]:
        with planned_file(store, inputs) as held:
            try:
                members = self.members(held)
                schema = self._known(members)
                chosen = [members[position(schema, name, inputs.url)] for name in columns]
                _wanted(held, members, columns)
            except InputError as error:
                raise while_running(error) from error
            yield ArrayReader(store, held, chosen, inputs, self.max_row_group_bytes)

    def _known(self, members: Sequence[Member]) -> pa.Schema:
        schema = pa.schema([member.field() for member in members])
        if self._schema is None or not self._schema.equals(schema, check_metadata=True):
            self._schema = schema
        return self._schema


def _wanted(file: BufferedFile, members: Sequence[Member], columns: Sequence[str]) -> list[Layout]:
    """The arrays that are read; without columns, those that decide how many rows there are.

    raises: InputError FILE_UNSUPPORTED, FILE_PICKLE for one that cannot be read; FILE_SCHEMA
            where they have not equally many rows.
    """
    wanted = [member for member in members if member.name in set(columns)]
    for member in wanted:
        if why := member.why():
            raise unreadable(file, member.code, f"array {member.name!r} is {why}")
    counting = wanted or [member for member in members if not member.why()]
    rows = {member.name: member.layout.rows for member in counting if member.layout is not None}
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{name!r} has {count}" for name, count in [*rows.items()][:10])
        raise unreadable(file, "FILE_SCHEMA", f"its arrays have not equally many rows: {found}; name those that have")
    by_bytes = {id(member.take): member.layout for member in counting}  # fields of one array share them
    return [layout for layout in by_bytes.values() if layout is not None]


def _row_groups(layouts: Sequence[Layout], any_column: bool) -> Iterator[RowGroup]:
    rows = layouts[0].rows if layouts else 0
    row_bytes = sum(layout.row_bytes for layout in layouts)
    step = max(1, min(_GROUP_ROWS, _GROUP_BYTES // max(1, row_bytes)))
    exact = all(layout.dtype.kind in "iufbc" for layout in layouts)
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        yield RowGroup(stop - start, (stop - start) * row_bytes * any_column, place=(start, stop), exact=exact)


class ArrayReader:
    """An open file; see `connectors.formats.base.RowGroupReader`."""

    def __init__(
        self, store: Store, held: BufferedFile, members: Sequence[Member], inputs: InputSlice, most_bytes: int
    ) -> None:
        self._store, self._held, self._members, self._inputs = store, held, members, inputs
        self._most_bytes = most_bytes
        self._last: tuple[tuple[Take, int, int], bytes] | None = None

    @property
    def fetch_s(self) -> float:
        return self._held.fetch_s

    def read(self, row_group: int) -> pa.Table:
        start, stop = self._inputs.place(row_group)
        if stop - start != self._inputs.rows[row_group - self._inputs.first]:
            raise wrong_rows(self._inputs, row_group, stop - start)
        if not self._members:
            return pa.table({"": pa.nulls(stop - start)}).select([])
        arrays, bad = list[pa.Array](), list[BadRows]()
        try:
            refuse_larger(
                ((m.name, (stop - start) * m.layout.row_bytes) for m in self._members if m.layout), self._most_bytes
            )
        except TooLargeError as error:
            raise bad_row_group(self._inputs, row_group, "ROWGROUP_TOO_BIG", error, error.column) from error
        self._last = None
        for member in self._members:
            values, wrong = self._column(member, row_group, start, stop)
            arrays.append(values)
            if wrong:
                at = np.array(sorted(wrong), np.int64)
                stories = [f"row {start + row} of array {member.name!r}: {wrong[row]}" for row in at.tolist()]
                bad.append(BadRows("ROW_OVERFLOW", member.name, at, stories))
        self._last = None
        self._held.hold([])
        table = pa.Table.from_arrays(arrays, schema=pa.schema([member.field() for member in self._members]))
        if bad:
            raise BadRowsError.of(self._inputs, row_group, table, once(bad))
        return table

    def _column(self, member: Member, row_group: int, start: int, stop: int) -> Column:
        try:
            return self._decode(member, start, stop)
        except MemoryError as error:
            raise out_of_memory(self._inputs, row_group, "PAGE_CORRUPT", error) from error
        except ERRORS:
            self._last = None  # a second try: they may have been damaged on the way
            check_unchanged(self._store, self._inputs)
        try:
            return self._decode(member, start, stop)
        except ERRORS as error:
            raise bad_row_group(self._inputs, row_group, "PAGE_CORRUPT", error, member.name) from error

    def _decode(self, member: Member, start: int, stop: int) -> Column:
        layout = member.layout
        assert layout is not None, "refused when it was opened"
        key = (member.take, start, stop)
        if self._last is None or self._last[0] != key:  # fields of one array lie in the same bytes
            ranges = layout.ranges(start, stop)
            if isinstance(member.take, Stored) and len(ranges) > 1:
                member.take.hold(ranges)
            self._last = key, b"".join([member.take(*one) for one in ranges])
        return column_of(self._last[1], layout, stop - start, member.of)


def behind(member: str, layout: Layout, size: int) -> tuple[str, str] | None:
    """Code and text where an array does not fill the `size` bytes of its file."""
    if layout.stop > size:
        rows = counted(layout.rows, "row")
        return (
            "FILE_TRUNCATED",
            f"{member} has {rows} of {layout.row_bytes} bytes, and ends after {size - layout.start}",
        )
    if layout.stop < size:
        return "FILE_UNSUPPORTED", f"{size - layout.stop} bytes follow {member}, perhaps of another array"
    return None
