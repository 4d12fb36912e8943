"""The files of a table: Parquet, whose columns have the names, types and rows of the table.

Owns how a file becomes a part of its table; refuses to know logs. The invariant: a row that was deleted is in no plan,
and what a file says of names and types never wins over what the table says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from connectors.formats.base import RowGroupReader, Span, States
from connectors.formats.fault import BadRowsError
from connectors.formats.parquet import ParquetSource
from connectors.formats.schema import position
from connectors.secret import redact
from connectors.store.store import FileStat, Store
from connectors.tables.columns import Convert, TableColumns
from connectors.tables.snapshot import Rows, TableRead, kept
from connectors.tables.value import constant, constant_bytes
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError
from jobs.plan import InputFile, RowGroup
from jobs.rows.runs import Runs
from jobs.section.input import Input

Ways = Callable[[pa.Schema], Sequence[tuple[str, ...]]]


class TableSource:
    """Reads the Parquet files of a snapshot."""

    states: States = "all"
    suffixes = ParquetSource.suffixes

    def __init__(self, read: TableRead, deleted: Mapping[str, Rows] | None = None) -> None:
        """deleted: see `Snapshot`; only where the plan is made, which holds the rows that are left."""
        self._read, self._deleted, self._inner = read, deleted or {}, ParquetSource()
        self._schema = read.columns.schema
        self.max_row_group_bytes = self._inner.max_row_group_bytes
        self.max_row_bytes: int | None = None

    @classmethod
    def of(cls, input: Input) -> Self:
        return cls(input.table)

    def begins(self, head: bytes) -> bool:
        return self._inner.begins(head)

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        """That of the table, whatever the file has."""
        return self._schema

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        return self._schema, {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        return self.measured(store, file, columns, lambda schema: ())[:2]

    def measured(
        self, store: Store, file: FileStat, columns: Sequence[str], ways: Ways
    ) -> tuple[InputFile, pa.Schema, Sequence[dict[tuple[str, ...], Span]]]:
        """Of columns whose values are handed on as the file has them: others are not what its statistics say."""
        seen = _Names(self._read.columns, columns, dict(file.values))
        own: dict[str, str] = {}  # column of the file -> of the table

        def asked(there: pa.Schema) -> Sequence[tuple[str, ...]]:
            self._check(file, there, seen)
            for name in {way[0] for way in ways(self._schema) if len(way) == 1} & seen.found.keys():
                if seen.columns.conversion(there, name, seen.found[name]) is None:
                    own[seen.found[name]] = name
            return [(column,) for column in own]

        try:
            facts, _, spans = self._inner.measured(store, file, seen, asked)
        except InputError as error:
            if store.stat(file.url) is None:
                raise InputError(self._gone(file.url), code="TABLE_GONE", file=file.url) from error
            raise
        known = set(self._schema.names) - seen.found.keys()
        absent = [name for name in columns if name in known]
        kinds = [(seen.values.get(name, seen.columns.default(name)), self._schema.field(name).type) for name in absent]

        def grown(group: RowGroup) -> RowGroup:
            size = sum(constant_bytes(value, kind, group.rows) for value, kind in kinds)
            return replace(group, bytes=group.bytes + size, decoded=group.decoded + size)

        groups = self._left([grown(group) for group in facts.row_groups], self._deleted.get(file.url))
        named: list[dict[tuple[str, ...], Span]] = [{(own[way[0]],): span for way, span in of.items()} for of in spans]
        return replace(facts, row_groups=tuple(groups), values=file.values), self._schema, named

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[RowGroupReader]:
        seen = _Names(self._read.columns, columns, dict(inputs.values))
        self._inner.max_row_group_bytes = self.max_row_group_bytes
        try:
            with self._inner.open(store, inputs, seen) as reader:
                yield _Reader(reader, inputs, seen, self._schema)
        except DataError as error:
            if error.facts.get("code") != "FILE_CHANGED" or store.stat(inputs.url) is not None:
                raise
            raise DataError(self._gone(inputs.url), **error.facts) from error

    def _left(self, groups: Sequence[RowGroup], deleted: Rows | None) -> Iterator[RowGroup]:
        """The row groups without the deleted rows."""
        first = 0
        for group in groups:
            gone = () if deleted is None else kept(deleted, first, group.rows)
            first += group.rows
            yield group.only(Runs.but(map(int, gone), group.rows)) if len(gone) else group

    def _check(self, file: FileStat, there: pa.Schema, seen: _Names) -> None:
        """raises: InputError COLUMN_TYPE where a column cannot be what the table says, TABLE_UNSUPPORTED."""
        if not seen.columns.tells(there):
            raise InputError(
                f"cannot read '{redact(file.url)}', a file of {self._read.words}: it has no field ids, and the table no"
                " name mapping ('schema.name-mapping.default') that says which columns these are",
                code="TABLE_UNSUPPORTED",
                file=file.url,
            )
        for name, column in seen.found.items():
            try:
                seen.columns.conversion(there, name, column)
            except ValueError as error:
                raise InputError(
                    f"cannot read column {name!r} of '{redact(file.url)}', a file of {self._read.words}: {error};"
                    " expected a type that becomes it without a loss",
                    code="COLUMN_TYPE",
                    file=file.url,
                    column=name,
                ) from None

    def _gone(self, url: str) -> str:
        return (
            f"cannot read '{redact(url)}': it is gone, and {self._read.words} needs it: files that newer versions do"
            " not need are removed in time (VACUUM, expired snapshots); restore it, or begin anew with a newer version"
        )


@dataclass
class _Names:
    """Called with the schema of a file: the columns of it that the wanted ones are. values: of columns as text."""

    columns: TableColumns
    wanted: Sequence[str]
    values: Mapping[str, str | None]

    def __call__(self, there: pa.Schema) -> list[str]:
        self.there, self.found = there, self.columns.found(there, self.wanted)
        return list(self.found.values())


class _Reader:
    """A file of Parquet as a part of its table."""

    def __init__(self, inner: RowGroupReader, inputs: InputSlice, seen: _Names, schema: pa.Schema) -> None:
        self._inner, self._inputs, self._seen = inner, inputs, seen
        self._target = pa.schema([schema.field(position(schema, name, inputs.url)) for name in seen.wanted])
        self._converts: dict[str, Convert | None] = {
            name: seen.columns.conversion(seen.there, name, column) for name, column in seen.found.items()
        }

    @property
    def fetch_s(self) -> float:
        return self._inner.fetch_s

    def read(self, row_group: int) -> pa.Table:
        try:
            table = self._inner.read(row_group)
        except BadRowsError as error:
            error.table = self._made(error.table, row_group)
            raise
        return self._made(table, row_group)

    def _made(self, table: pa.Table, row_group: int) -> pa.Table:
        if not len(self._target):
            return table
        made = [self._column(table, field, row_group) for field in self._target]
        return pa.Table.from_arrays(made, schema=self._target)

    def _column(self, table: pa.Table, field: pa.Field, row_group: int) -> pa.ChunkedArray:
        name, seen = field.name, self._seen
        if name not in seen.found:
            whole = (
                constant(seen.values[name], field.type, table.num_rows)
                if name in seen.values
                else seen.columns.absent(name, table.num_rows)
            )
            return pa.chunked_array([whole], field.type)
        values, convert = table.column(seen.found[name]), self._converts[name]
        if convert is None:
            return values
        try:
            return pa.chunked_array([convert(chunk) for chunk in values.chunks], field.type)
        except pa.ArrowException as error:
            raise DataError(
                f"cannot read '{redact(self._inputs.url)}' row group {row_group}: a value of column {name!r} is none of"
                f" the table, which has {field.type}: {error}",
                code="COLUMN_TYPE",
                file=self._inputs.url,
                row_group=row_group,
                column=name,
            ) from error
