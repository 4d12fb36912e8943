"""TFRecord files: a row group is a run of records; each record is checked by its CRC32C.

A plan walks from length to length through the whole of a file, and so does, once, a worker that reads from its
middle. Records are one binary column, or tf.Examples that become columns (`columns`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from connectors.formats.base import States
from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import (
    MAX_ROW_GROUP_BYTES,
    BadRows,
    BadRowsError,
    bad_row_group,
    check_unchanged,
    planned_file,
    unreadable,
    while_running,
    wrong_rows,
)
from connectors.formats.schema import position
from connectors.formats.tfrecord.columns import COLUMN_TYPES, decode, infer
from connectors.formats.tfrecord.example import RowsError
from connectors.formats.tfrecord.record import FRAME_BYTES, DamagedError, begins, content_of, lengths, records
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Input

RECORD = "record"

# Whatever is reached first ends a row group.
_GROUP_RECORDS, _GROUP_BYTES = 2**16, 32 * 2**20
_KNOWN_FILES = 64  # whose row groups a source remembers
_INFER_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class Group:
    """Where a row group lies in the unpacked file."""

    start: int
    stop: int
    rows: int


def groups(file: BufferedFile) -> list[Group]:
    """The row groups of a file; the same for every reader. raises: as `content_of` and `lengths`."""
    cut: list[Group] = []
    start = stop = rows = 0
    for length in lengths(file, content_of(file)):
        stop, rows = stop + FRAME_BYTES + length, rows + 1
        if rows == _GROUP_RECORDS or stop - start >= _GROUP_BYTES:
            cut.append(Group(start, stop, rows))
            start, rows = stop, 0
    return [*cut, Group(start, stop, rows)] if rows else cut


class TFRecordSource:
    """examples: feature -> type of its column, see `connectors.formats.tfrecord.columns`; None: records as they are."""

    states: States = "all"
    suffixes: tuple[str, ...] = (".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz")
    max_row_group_bytes = MAX_ROW_GROUP_BYTES  # its row groups are cut when they are planned, and far smaller
    max_row_bytes: int | None = None

    def __init__(self, examples: Mapping[str, str] | None = None) -> None:
        self._examples = examples
        columns = {RECORD: pa.binary()} if examples is None else {n: COLUMN_TYPES[kind] for n, kind in examples.items()}
        self._schema = pa.schema(
            [pa.field(name, kind, nullable=examples is not None) for name, kind in columns.items()]
        )
        self._known: dict[tuple[str, int, str], list[Group]] = {}

    @classmethod
    def of(cls, input: Input) -> Self:
        return cls(input.examples if isinstance(input.examples, dict) else None)

    def begins(self, head: bytes) -> bool:
        return begins(head)

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            content_of(held)
        return self._schema

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        return self._schema, {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """cost: walks through the whole file."""
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            cut = groups(held)
        size = len(columns) > 0
        planned = tuple(RowGroup(group.rows, (group.stop - group.start) * size) for group in cut)
        return InputFile(file.url, file.size, file.version, planned), self._schema

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[TFRecordReader]:
        for name in columns:
            position(self._schema, name, inputs.url)
        with planned_file(store, inputs) as held:
            try:
                yield TFRecordReader(store, held, self._groups(held, inputs), inputs, self._chosen(columns))
            except InputError as error:
                raise while_running(error) from error

    def infer(self, store: Store, files: Sequence[FileStat]) -> dict[str, str]:
        """The features of the first records there are, and the types of their columns.

        raises: InputError RECORD_EXAMPLE where they are no tf.Examples, and as `schema`.
        """
        for file in files:
            with BufferedFile(store.open(file.url), file.url, file.size) as held:
                content, stop, rows = content_of(held), 0, 0
                for length in lengths(held, content):
                    stop, rows = stop + FRAME_BYTES + length, rows + 1
                    if rows == _INFER_RECORDS or stop >= _GROUP_BYTES:
                        break
                if not rows:
                    continue
                try:
                    columns = infer(pa.array(records(content_of(held).take(0, stop)), pa.binary()))
                except RowsError as error:
                    text = f"record {error.at[0]} holds {error.found}; {error.expected}"
                    raise unreadable(held, error.code, text) from error
                except DamagedError as damaged:
                    raise unreadable(held, "RECORD_CRC", damaged) from damaged
            return columns
        raise InputError("cannot tell the columns of tf.Examples: there are no records; name them", code="NO_INPUT")

    def _chosen(self, columns: Sequence[str]) -> dict[str, str] | None:
        return None if self._examples is None else {name: self._examples[name] for name in columns}

    def _groups(self, held: BufferedFile, inputs: InputSlice) -> list[Group]:
        key = (inputs.url, inputs.size, inputs.version)
        if key not in self._known:
            while len(self._known) >= _KNOWN_FILES:
                self._known.pop(next(iter(self._known)))
            self._known[key] = groups(held)
        return self._known[key]


class TFRecordReader:
    """An open file; see `base.RowGroupReader`. columns: of Examples; None: the records themselves."""

    def __init__(
        self,
        store: Store,
        held: BufferedFile,
        planned: Sequence[Group],
        inputs: InputSlice,
        columns: Mapping[str, str] | None,
    ) -> None:
        self._store, self._held, self._groups, self._inputs = store, held, planned, inputs
        self._columns = columns
        self._content = content_of(held)

    @property
    def fetch_s(self) -> float:
        return self._held.fetch_s

    def read(self, row_group: int) -> pa.Table:
        if row_group >= len(self._groups):
            raise wrong_rows(self._inputs, row_group, 0)
        group = self._groups[row_group]
        if group.rows != self._inputs.rows[row_group - self._inputs.first]:
            raise wrong_rows(self._inputs, row_group, group.rows)
        try:
            content = records(self._content.take(group.start, group.stop))
        except DamagedError:
            content = self._read_again(row_group)
        if len(content) != group.rows:
            raise wrong_rows(self._inputs, row_group, len(content))
        column = _joined(content)
        if self._columns is None:
            return pa.table([column], pa.schema([pa.field(RECORD, pa.binary(), nullable=False)]))
        if not self._columns:
            return pa.table({RECORD: column}).select([])
        arrays, faults = decode(column, self._columns)
        table = pa.table(arrays, pa.schema([(name, COLUMN_TYPES[kind]) for name, kind in self._columns.items()]))
        if faults:
            raise BadRowsError.of(self._inputs, row_group, table, self._bad_rows(faults, row_group))
        return table

    def _read_again(self, row_group: int) -> list[bytes]:
        """A second try after bad bytes: they may have been damaged on the way."""
        check_unchanged(self._store, self._inputs)
        group = self._groups[row_group]
        try:
            return records(content_of(self._held).take(group.start, group.stop))
        except DamagedError as damaged:
            raise bad_row_group(self._inputs, row_group, "RECORD_CRC", damaged) from damaged

    def _bad_rows(self, faults: Sequence[RowsError], row_group: int) -> list[BadRows]:
        """Each bad row once, with the first of what is wrong with it, and the number of its record in the file."""
        before = sum(group.rows for group in self._groups[:row_group])
        seen, bad = np.zeros(self._groups[row_group].rows, np.bool_), list[BadRows]()
        for fault in faults:
            new = ~seen[fault.at]
            seen[fault.at] = True
            stories = [
                f"record {before + row} of the file: found {found}; {fault.expected}"
                for row, found, first in zip(fault.at.tolist(), fault.holds, new.tolist(), strict=True)
                if first
            ]
            if stories:
                bad.append(BadRows(fault.code, fault.column, fault.at[new], stories))
        return bad


def _joined(content: Sequence[bytes]) -> pa.Array:
    ends = [0]
    for record in content:
        ends.append(ends[-1] + len(record))
    offsets = pa.array(ends, pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.binary(), len(content), [None, offsets, pa.py_buffer(b"".join(content))])
