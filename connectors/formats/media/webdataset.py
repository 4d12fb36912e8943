"""webdataset: tar files in which members of one key are one row, and each extension is a column.

A row group is a run of rows, and its place in the file is part of the plan: a worker reads no other bytes of it. A
packed file is one row group. The invariant: each key is one row, null where it has no part; a key that comes again, or
a part that is there twice, is a bad row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import numpy as np
import pyarrow as pa

from connectors.formats.base import States
from connectors.formats.buffered import BufferedFile
from connectors.formats.declared import text_of, types_of
from connectors.formats.fault import (
    MAX_ROW_GROUP_BYTES,
    BadRows,
    BadRowsError,
    once,
    planned_file,
    unreadable,
    while_running,
    wrong_rows,
)
from connectors.formats.media import part
from connectors.formats.media.sample import KEY, Sample, samples
from connectors.formats.media.tar import BLOCK, content_of, is_header
from connectors.formats.schema import position
from connectors.formats.text.objects import Fault
from connectors.formats.text.packed import codec_of, is_packed, with_packed
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Input

_GROUP_ROWS, _GROUP_BYTES = 2**16, 32 * 2**20  # whatever is reached first ends a row group
_LOOK_ROWS, _LOOK_BYTES = 1000, 4 * 2**20  # of the rows that show the types
_MOST_PART_BYTES = 2**31 - 1  # what a value of a binary column may have


class WebdatasetSource:
    """types: of columns, as the job says; the others are what the first rows of a file show."""

    states: States = "kinds"
    suffixes: tuple[str, ...] = (*with_packed((".tar",)), ".tgz")
    packed = staticmethod(is_packed)
    max_row_group_bytes = MAX_ROW_GROUP_BYTES
    max_row_bytes: int | None = None  # of a member that is read

    def __init__(self, types: Mapping[str, pa.DataType] | None = None) -> None:
        self._types = dict(types or {})
        self._declared = pa.schema([*self._types.items()])  # one object for all files

    @classmethod
    def of(cls, input: Input) -> Self:
        types = types_of(input.types)
        for name, kind in types.items():
            if part.unreadable(name, kind):
                raise InputError(
                    f"cannot read column {name!r} as {text_of(kind)}: declare string, or leave it as binary",
                    code="COLUMN_TYPE",
                )
        return cls(types)

    def begins(self, head: bytes) -> bool:
        return is_header(head[:BLOCK])

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            return self._seen(held, store)

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        return self.schema(store, file), {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """cost: the headers of all members; of a packed file all of it."""
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            schema = self._declared if self._types else self._seen(held, store)
            groups = tuple(_groups(held, store, columns))
        return InputFile(file.url, file.size, file.version, groups), schema

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[WebdatasetReader]:
        with planned_file(store, inputs) as held:
            try:
                schema = self._declared if set(columns) <= set(self._types) else self._seen(held, store)
                chosen = [schema.field(position(schema, name, inputs.url)) for name in columns]
                yield WebdatasetReader(held, inputs, pa.schema(chosen), self.max_row_bytes, near=store.kind.local)
            except InputError as error:
                raise while_running(error) from error

    def _seen(self, held: BufferedFile, store: Store) -> pa.Schema:
        """All columns that are declared, and what the first rows show beside them."""
        found = dict[str, list[bytes | None]]()
        looked = taken = 0

        def wanted(extension: str, size: int) -> bool:
            return part.is_looked_at(extension) and extension not in self._types

        for sample in samples(held, content_of(held, near=store.kind.local), wanted):
            for extension in sample.parts:
                found.setdefault(extension, []).append(sample.values.get(extension))
            looked, taken = looked + 1, taken + sum(map(len, sample.values.values()))
            if looked == _LOOK_ROWS or taken >= _LOOK_BYTES:
                break
        key = {KEY: pa.string()} if found else {}
        seen = {name: part.seen_type(name, parts) for name, parts in found.items() if name not in self._types}
        return pa.schema(
            [*(key | {name: seen.get(name, self._types.get(name)) for name in found} | self._types).items()]
        )


def _groups(held: BufferedFile, store: Store, columns: Sequence[str]) -> Iterator[RowGroup]:
    """raises: as `samples`; InputError ROWGROUP_TOO_BIG where a value is more than a column holds."""
    whole, chosen = codec_of(held.url) is not None, frozenset(columns)
    seen, again = set[str](), list[int]()
    start = stop = rows = size = first = 0
    for sample in samples(held, content_of(held, near=store.kind.local), lambda extension, size: False):
        if rows and not whole and (rows == _GROUP_ROWS or stop - start >= _GROUP_BYTES):
            yield RowGroup(rows, size, place=(start, stop, first, *again))
            first, rows, size, again = first + rows, 0, 0, []
        start = start if rows else sample.offset
        if sample.key in seen:
            again.append(rows)
        seen.add(sample.key)
        size += _bytes(held, sample, chosen)
        stop, rows = sample.end, rows + 1
    if rows:
        yield RowGroup(rows, size, place=(start, stop, first, *again))


def _bytes(held: BufferedFile, sample: Sample, chosen: frozenset[str]) -> int:
    size = len(sample.key) if KEY in chosen else 0
    for extension in chosen & sample.parts.keys():
        member = sample.parts[extension]
        if member.size > _MOST_PART_BYTES:
            text = f"member {member.name!r} has {member.size:,} bytes; a value has up to {_MOST_PART_BYTES:,}"
            raise unreadable(held, "ROWGROUP_TOO_BIG", text)
        size += member.size
    return size


class WebdatasetReader:
    """An open file; see `base.RowGroupReader`.

    most: bytes of a value. near: whether its bytes lie on a disk.
    """

    def __init__(
        self, held: BufferedFile, inputs: InputSlice, schema: pa.Schema, most: int | None, *, near: bool
    ) -> None:
        self._held, self._inputs, self._schema, self._near = held, inputs, schema, near
        self._most = _MOST_PART_BYTES if most is None else most

    @property
    def fetch_s(self) -> float:
        return self._held.fetch_s

    def read(self, row_group: int) -> pa.Table:
        start, stop, first, *again = self._inputs.place(row_group)
        if not self._near and codec_of(self._held.url) is None:
            self._held.hold([(start, stop)])
        chosen = frozenset(self._schema.names)

        def wanted(extension: str, size: int) -> bool:
            return extension in chosen and size <= self._most

        rows = list(samples(self._held, content_of(self._held, near=True, end=stop), wanted, start, stop))
        if len(rows) != self._inputs.rows[row_group - self._inputs.first]:
            raise wrong_rows(self._inputs, row_group, len(rows))
        columns, bad = list[pa.Array | pa.ChunkedArray](), list[BadRows]()
        bad += self._bad([_twice(row, rows[row]) for row in range(len(rows)) if rows[row].twice], rows, first)
        bad += self._bad([_again(row) for row in again], rows, first)
        bad += self._bad([*self._too_big(rows, chosen)], rows, first)
        for field in self._schema:
            values, faults = _column(field, rows)
            columns.append(values)
            bad += self._bad(faults, rows, first)
        table = pa.table(columns, self._schema) if columns else pa.table({KEY: pa.nulls(len(rows))}).select([])
        if bad:
            raise BadRowsError.of(self._inputs, row_group, table, once(bad))
        return table

    def _too_big(self, rows: Sequence[Sample], chosen: frozenset[str]) -> Iterator[Fault]:
        for row, sample in enumerate(rows):
            for extension in chosen & sample.parts.keys():
                if (size := sample.parts[extension].size) > self._most:
                    story = f"{size:,} bytes; `limits.max_row_bytes` allows {self._most:,}"
                    yield Fault(row, "ROW_TOO_BIG", extension, story)

    def _bad(self, faults: Sequence[Fault], rows: Sequence[Sample], first: int) -> list[BadRows]:
        """Faults of one code and column together."""
        alike = dict[tuple[str, str | None], list[Fault]]()
        for fault in faults:
            alike.setdefault((fault.code, fault.column), []).append(fault)
        return [
            BadRows(
                code,
                name,
                np.array([one.row for one in some]),
                [f"key {rows[one.row].key!r}, row {first + one.row} of the file: {one.story}" for one in some],
            )
            for (code, name), some in alike.items()
        ]


def _column(field: pa.Field, rows: Sequence[Sample]) -> tuple[pa.Array | pa.ChunkedArray, list[Fault]]:
    if field.name == KEY:
        keys = [sample.key.encode(errors="surrogateescape") for sample in rows]  # as they stand in the file
        return part.column(KEY, field.type, keys)
    return part.column(field.name, field.type, [sample.values.get(field.name) for sample in rows])


def _twice(row: int, sample: Sample) -> Fault:
    return Fault(row, "ROW_KEY", sample.twice, f"two members are its {sample.twice!r}")


def _again(row: int) -> Fault:
    story = "its key came before: members of one key are one row where they lie side by side (`tar --sort=name`)"
    return Fault(row, "ROW_KEY", KEY, story)


SOURCE = WebdatasetSource
