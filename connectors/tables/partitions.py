"""Partitions: folders whose names are values of columns, `dt=2026-11-01/country=DE/`, or `2026/11/` in a known order.

Owns which values a file has by its folders, and that its rows get them; refuses to know formats. The invariant: all
files of a job have the same partition columns, and no row gets another value than the one that stands in its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Self
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.formats.base import Measuring, RowGroupReader, Source, Span, States
from connectors.formats.declared import type_of
from connectors.formats.fault import BadRowsError
from connectors.formats.registry import source_of
from connectors.secret import redact
from connectors.store.listing import Listing
from connectors.store.store import FileStat, Store
from connectors.tables.value import constant, constant_bytes, is_typed, typed
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError
from jobs.plan import InputFile, RowGroup, Values
from jobs.section.input import Input
from jobs.words import counted

Layout = Literal["hive"] | tuple[str, ...]

_NULL = "__HIVE_DEFAULT_PARTITION__"  # the name by which Hive and Spark store null, and an empty text


def with_values(listing: Listing, layout: Layout) -> list[FileStat]:
    """The files of a listing, each with the values that its folders have.

    layout: 'hive': names and values, `dt=2026-11-01`, of folders below the listed one, and of those right above it; or
            the names of the first folders below the listed one.
    raises: InputError PARTITION where folders lack a name that those of other files have.
    cost:   each folder is looked at once.
    """
    bases = sorted((one.folder for one in listing.below), key=len, reverse=True)
    known: dict[str, Values] = {}
    found: list[FileStat] = []
    for file in listing.files:
        folder = file.url.rpartition("/")[0]
        values = known.get(folder)
        if values is None:
            base = next((base for base in bases if folder == base or folder.startswith(f"{base}/")), folder)
            values = known[folder] = _hive(folder, base) if layout == "hive" else _named(folder, base, layout)
        found.append(FileStat(file.url, file.size, file.version, file.pin, values))
    _refuse_different(found)
    return found


def _hive(folder: str, base: str) -> Values:
    """Those of the folders below `base`, and of the run of such folders that ends there."""
    above = base.split("/")
    first = len(above)
    while first and "=" in above[first - 1]:
        first -= 1
    values: dict[str, str | None] = {}
    for name in folder.split("/")[first:]:
        column, mark, value = name.partition("=")
        if not mark or not column:
            continue
        column = unquote(column)
        if column in values:
            raise InputError(
                f"cannot read partitions of '{redact(folder)}': two of its folders have the name {column!r}; expected"
                " each name once",
                code="PARTITION",
                file=folder,
            )
        values[column] = None if value == _NULL else unquote(value)
    return tuple(values.items())


def _named(folder: str, base: str, names: Sequence[str]) -> Values:
    """Those of the first folders below `base`; of a file that is named alone, those above it."""
    below = folder.removeprefix(base).strip("/").split("/") if folder != base else folder.split("/")[-len(names) :]
    if len(below) < len(names) or "" in below:
        found = counted(len([one for one in below if one]), "folder is", "folders are")
        raise InputError(
            f"cannot read partitions of '{redact(folder)}': {found} below '{redact(base)}', and `input.partitions`"
            f" names {', '.join(map(repr, names))}; expected a folder for each",
            code="PARTITION",
            file=folder,
        )
    if hive := next((one for name, one in zip(names, below, strict=False) if one.startswith(f"{name}=")), None):
        raise InputError(
            f"cannot read partitions of '{redact(folder)}': its folder {hive!r} has a name of its own; say"
            " `partitions: hive`",
            code="PARTITION",
            file=folder,
        )
    return tuple((name, None if one == _NULL else unquote(one)) for name, one in zip(names, below, strict=False))


def _refuse_different(files: Sequence[FileStat]) -> None:
    first: dict[str, str] = {}  # name -> a file that has it
    sets: dict[frozenset[str], str] = {}
    seen: Values | None = None
    for file in files:
        if file.values is seen:  # as a rule, of the folder before
            continue
        seen = file.values
        names = frozenset(name for name, _ in seen)
        if names not in sets:
            sets[names] = file.url
            for name in names:
                first.setdefault(name, file.url)
    lacking = [(name, url) for names, url in sets.items() for name in first if name not in names]
    if lacking:
        name, url = lacking[0]
        raise InputError(
            f"cannot read partitions of '{redact(url)}': its folders have no name {name!r}, which stands in those of"
            f" '{redact(first[name])}'; expected the same names for all files",
            code="PARTITION",
            file=url,
            column=name,
        )


class PartitionedSource:
    """Another source, whose files have more columns: constants, by the names of their folders."""

    states: States

    def __init__(self, inner: Source, types: Mapping[str, str]) -> None:
        """types: column -> type, as the job declares them; text where there is none."""
        self.states, self.suffixes, self.max_row_group_bytes = inner.states, inner.suffixes, inner.max_row_group_bytes
        self.max_row_bytes = inner.max_row_bytes
        self.inner, self.types = inner, types
        self._schemas: dict[tuple[int, tuple[str, ...]], tuple[pa.Schema, pa.Schema]] = {}
        self._good: set[tuple[str, str | None, str]] = set()  # name, value, type: seen to fit

    @classmethod
    def of(cls, input: Input) -> Self:
        return cls(source_of(input), input.types)

    def begins(self, head: bytes) -> bool:
        return self.inner.begins(head)

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        return self._with(self.inner.schema(store, file), file)

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        schema, notes = self.inner.stated(store, file)
        return self._with(schema, file), notes

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        return self._inspected(*self.inner.inspect(store, file, columns), file, columns)

    def measured(
        self,
        store: Store,
        file: FileStat,
        columns: Sequence[str],
        ways: Callable[[pa.Schema], Sequence[tuple[str, ...]]],
    ) -> tuple[InputFile, pa.Schema, Sequence[dict[tuple[str, ...], Span]]]:
        if not isinstance(self.inner, Measuring):
            facts, schema = self.inspect(store, file, columns)
            return facts, schema, [{} for _ in facts.row_groups]
        facts, there, spans = self.inner.measured(store, file, columns, lambda own: ways(self._with(own, file)))
        return *self._inspected(facts, there, file, columns), spans

    def _inspected(
        self, facts: InputFile, there: pa.Schema, file: FileStat, columns: Sequence[str]
    ) -> tuple[InputFile, pa.Schema]:
        schema = self._with(there, file)
        names = set(there.names)
        values = tuple(one for one in file.values if one[0] not in names)
        repeated = tuple(one for one in file.values if one[0] in names)
        more = [(value, schema.field(name).type) for name, value in values if name in columns]

        def grown(group: RowGroup) -> RowGroup:
            size = sum(constant_bytes(value, kind, group.rows) for value, kind in more)
            return replace(group, bytes=group.bytes + size, decoded=group.decoded + size)

        groups = tuple(map(grown, facts.row_groups)) if more else facts.row_groups
        return replace(facts, row_groups=groups, values=values, repeated=repeated), schema

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[RowGroupReader]:
        values, repeated = dict(inputs.values), dict(inputs.repeated)
        with self.inner.open(store, inputs, [name for name in columns if name not in values]) as reader:
            yield _Reader(reader, inputs, columns, values, repeated, self._declared, self.states == "kinds")

    def _with(self, there: pa.Schema, file: FileStat) -> pa.Schema:
        """`there` with the partition columns. raises: InputError PARTITION where a value is not of its type."""
        names = tuple(name for name, _ in file.values)
        known = self._schemas.get((id(there), names))
        if known is None or known[0] is not there:
            known = self._schemas[id(there), names] = there, self._made(there, names)
        schema = known[1]
        for name, value in file.values:
            kinds = {schema.field(name).type, *(one.type for one in there if one.name == name)}
            for kind in kinds:
                self._check(file, name, value, kind)
        return schema

    def _made(self, there: pa.Schema, names: Sequence[str]) -> pa.Schema:
        fields = [one.with_type(self._declared(one.name) or one.type) if one.name in names else one for one in there]
        have = set(there.names)
        fields += [pa.field(name, self._declared(name) or pa.string()) for name in names if name not in have]
        return pa.schema(fields)

    def _declared(self, name: str) -> pa.DataType | None:
        return type_of(self.types[name]) if name in self.types else None

    def _check(self, file: FileStat, name: str, value: str | None, kind: pa.DataType) -> None:
        key = name, value, str(kind)
        if key in self._good:
            return
        if not is_typed(value, kind):
            says = f"`input.schema.{name}` says" if name in self.types else "the column of that name in the files is"
            raise InputError(
                f"cannot read partition column {name!r}: {value!r}, in the folders of '{redact(file.url)}', is no"
                f" {kind}, as {says}",
                code="PARTITION",
                file=file.url.rpartition("/")[0],
                column=name,
            )
        self._good.add(key)


@dataclass
class _Reader:
    """The reader of another source, whose tables get the constants.

    sparse: of rows that need not have all columns: one that says nothing of a repeated one has the folder's value.
    """

    inner: RowGroupReader
    inputs: InputSlice
    columns: Sequence[str]
    values: Mapping[str, str | None]
    repeated: Mapping[str, str | None]
    declared: Any  # name -> type, or None
    sparse: bool = False

    @property
    def fetch_s(self) -> float:
        return self.inner.fetch_s

    def read(self, row_group: int) -> pa.Table:
        try:
            table = self.inner.read(row_group)
        except BadRowsError as error:
            error.table = self._with(error.table, row_group)
            raise
        return self._with(table, row_group)

    def _with(self, table: pa.Table, row_group: int) -> pa.Table:
        made, fields = [], []
        for name in self.columns:
            kind = self.declared(name)
            if name in self.values:
                kind = kind or pa.string()
                made.append(pa.chunked_array([constant(self.values[name], kind, table.num_rows)]))
                fields.append(pa.field(name, kind))
                continue
            column, known = table.column(name), table.schema.field(name)
            if name in self.repeated:
                value = self.repeated[name]
                self._refuse_other(column, name, value, row_group)
                if (kind is not None and kind != column.type) or (self.sparse and column.null_count):
                    known = known.with_type(kind or column.type)
                    column = pa.chunked_array([constant(value, known.type, table.num_rows)])
            made.append(column)
            fields.append(known)
        if not made:
            return table
        return pa.Table.from_arrays(made, schema=pa.schema(fields))

    def _refuse_other(self, column: pa.ChunkedArray, name: str, value: str | None, row_group: int) -> None:
        """raises: DataError PARTITION where a row of the file has another value than its folder."""
        expected = typed(value, column.type)
        same = column.is_null() if value is None else pc.fill_null(pc.equal(column, expected), self.sparse)
        if pc.all(same, min_count=0).as_py():
            return
        row = int(np.argmin(same.combine_chunks().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"cannot read '{redact(self.inputs.url)}' row group {row_group}: row {row} has {column[row].as_py()!r} in"
            f" column {name!r}, and the folder says {value!r}; expected one value: write the file again, or read it"
            " without `input.partitions`",
            code="PARTITION",
            file=self.inputs.url,
            row_group=row_group,
            row=row,
            column=name,
        )
