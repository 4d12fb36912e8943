"""The columns of a table in the files of a table: found by the ids or names that files have them under.

Owns which field of a file is which field of the table, and what a file that lacks one gets. Refuses to know logs and
snapshots. The invariant: a column has the type of the table in all files; no value changes on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from connectors.formats.plain import plain_type
from connectors.tables.value import constant

_PARQUET_ID = b"PARQUET:field_id"
_ID, _NAMES, _DEFAULT = b"id", b"names", b"default"  # of a field of `TableColumns.fields`
Convert = Callable[[pa.Array], pa.Array]

_LARGE = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}


@dataclass(frozen=True)
class TableColumns:
    """fields: of the table, each made by `marked`. by_id: files have ids. constants: columns that files are not asked
    for."""

    fields: pa.Schema
    by_id: bool
    constants: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """As the columns are delivered."""
        return pa.schema([bare(field) for field in self.fields])

    def tells(self, there: pa.Schema) -> bool:
        """Whether it is known which columns of the table a file has."""
        return not self.by_id or has_ids(there) or any(map(_names, self.fields))

    def found(self, there: pa.Schema, names: Iterable[str]) -> dict[str, str]:
        """Column of the table -> column of a file, as far as it has them."""
        known = set(self.fields.names)
        fields = [self.fields.field(name) for name in names if name in known]
        places = _places([one for one in fields if one.name not in self.constants], list(there), self.by_id)
        return {want.name: there.field(at).name for want, at in places if at is not None}

    def conversion(self, there: pa.Schema, name: str, column: str) -> Convert | None:
        """What makes the column `name` of the table of `column` of a file; None: it is the same.

        raises: ValueError where its type does not become that of the table without a loss.
        """
        return _conversion(there.field(column), self.fields.field(name), self.by_id)

    def absent(self, name: str, rows: int) -> pa.Array:
        """The column in a file that lacks it."""
        return _absent(self.fields.field(name), rows)

    def default(self, name: str) -> str | None:
        """What rows of files that lack the column have."""
        return _default(self.fields.field(name))


@dataclass(frozen=True, slots=True)
class Mark:
    """id: by which files know a field; None: by none. names: under which files without ids have it, the first that they
    have. default: what rows of files that lack it have, as text."""

    id: int | None = None
    names: Sequence[str] = ()
    default: str | None = None


def marked(field: pa.Field, mark: Callable[[pa.Field], Mark]) -> pa.Field:
    """A field of a table, of plain type, and those inside of it. mark: of each, as its library describes it."""
    kind, said = field.type, mark(field)
    if pa.types.is_struct(kind):
        kind = pa.struct([marked(inner, mark) for inner in kind])
    elif pa.types.is_map(kind):
        kind = pa.map_(marked(kind.key_field, mark).with_nullable(False), marked(kind.item_field, mark))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = pa.list_(marked(kind.value_field, mark))
    else:
        kind = plain_type(kind)
        kind = _LARGE.get(kind, kind)
    marks = {_NAMES: json.dumps(list(said.names)).encode()}
    marks |= {_ID: str(said.id).encode()} if said.id is not None else {}
    marks |= {_DEFAULT: said.default.encode()} if said.default is not None else {}
    return pa.field(field.name, kind, metadata=marks)


def bare(field: pa.Field) -> pa.Field:
    """Without marks, and those inside."""
    kind = field.type
    if pa.types.is_struct(kind):
        kind = pa.struct([bare(inner) for inner in kind])
    elif pa.types.is_map(kind):
        kind = pa.map_(bare(kind.key_field).with_nullable(False), bare(kind.item_field))
    elif pa.types.is_list(kind):
        kind = pa.list_(bare(kind.value_field))
    return pa.field(field.name, kind, field.nullable)


def has_ids(schema: Iterable[pa.Field]) -> bool:
    return any(_PARQUET_ID in (field.metadata or {}) for field in schema)


def _places(wanted: Sequence[pa.Field], there: Sequence[pa.Field], by_id: bool) -> list[tuple[pa.Field, int | None]]:
    """Each of the wanted fields, and which one of a file it is."""
    if by_id and has_ids(there):
        ids = {(field.metadata or {}).get(_PARQUET_ID): at for at, field in enumerate(there)}
        return [(want, ids.get((want.metadata or {}).get(_ID, b""))) for want in wanted]
    names = {field.name: at for at, field in enumerate(there)}
    return [(want, next((names[name] for name in _names(want) if name in names), None)) for want in wanted]


def _names(field: pa.Field) -> list[str]:
    return [str(name) for name in json.loads((field.metadata or {}).get(_NAMES, b"[]"))]


def _default(field: pa.Field) -> str | None:
    value = (field.metadata or {}).get(_DEFAULT)
    return value.decode() if value is not None else None


def _absent(field: pa.Field, rows: int) -> pa.Array:
    kind = bare(field).type
    default = _default(field)
    return pa.nulls(rows, kind) if default is None else constant(default, kind, rows)


def _conversion(have: pa.Field, want: pa.Field, by_id: bool) -> Convert | None:
    here, there = have.type, want.type
    if pa.types.is_struct(there) and pa.types.is_struct(here):
        return _of_struct(have, want, by_id)
    if pa.types.is_map(there) and pa.types.is_map(here):
        return _of_map(have, want, by_id)
    if pa.types.is_list(there) and (pa.types.is_list(here) or pa.types.is_large_list(here)):
        return _of_list(have, want, by_id)
    if pa.types.is_nested(here) or pa.types.is_nested(there) or not promotes(here, there):
        raise ValueError(f"it is {here} there, and {bare(want).type} in the table")
    return None if here == there else lambda values: values.cast(there)


def _of_struct(have: pa.Field, want: pa.Field, by_id: bool) -> Convert | None:
    places = _places(list(want.type), list(have.type), by_id)
    converts = [None if at is None else _conversion(have.type.field(at), inner, by_id) for inner, at in places]
    kind = bare(want).type
    if have.type == kind and [at for _, at in places] == list(range(len(places))) and not any(converts):
        return None

    def convert(values: pa.StructArray) -> pa.Array:
        made = [
            _absent(inner, len(values)) if at is None else _applied(values.field(at), one)
            for (inner, at), one in zip(places, converts, strict=True)
        ]
        mask = values.is_null() if values.null_count else None
        if not made:  # nothing else would say how many there are
            return pa.array([{} if there else None for there in values.is_valid().to_pylist()], kind)
        return pa.StructArray.from_arrays(made, fields=list(kind), mask=mask)

    return convert


def _of_list(have: pa.Field, want: pa.Field, by_id: bool) -> Convert | None:
    inner = _conversion(have.type.value_field, want.type.value_field, by_id)
    kind = bare(want).type
    if inner is None and have.type == kind:
        return None

    def convert(values: pa.ListArray) -> pa.Array:
        if pa.types.is_large_list(values.type):
            values = values.cast(pa.list_(values.type.value_field))
        return _rebuilt(values, kind, _applied(values.values, inner))

    return convert


def _of_map(have: pa.Field, want: pa.Field, by_id: bool) -> Convert | None:
    keys = _conversion(have.type.key_field, want.type.key_field, by_id)
    items = _conversion(have.type.item_field, want.type.item_field, by_id)
    kind = bare(want).type
    if keys is None and items is None and have.type == kind:
        return None

    def convert(values: pa.MapArray) -> pa.Array:
        fields = [kind.key_field, kind.item_field]
        pairs = [_applied(values.keys, keys), _applied(values.items, items)]
        return _rebuilt(values, kind, pa.StructArray.from_arrays(pairs, fields=fields))

    return convert


def _applied(values: pa.Array, convert: Convert | None) -> pa.Array:
    return values if convert is None else convert(values)


def _rebuilt(values: pa.Array, kind: pa.DataType, inside: pa.Array) -> pa.Array:
    """Lists or maps with the same borders around other values."""
    buffers = values.buffers()[:2]
    return pa.Array.from_buffers(kind, len(values), buffers, values.null_count, values.offset, [inside])


def promotes(have: pa.DataType, want: pa.DataType) -> bool:
    """Whether tables let a column of the one type become one of the other, or both hold the same values."""
    types = pa.types
    if have == want:
        return True
    if types.is_integer(want):
        return bool(types.is_integer(have) and have.bit_width <= want.bit_width)
    if types.is_floating(want):
        whole = types.is_integer(have) and have.bit_width <= 32 and want.bit_width == 64
        return bool(whole or (types.is_floating(have) and have.bit_width <= want.bit_width))
    if types.is_decimal(want):
        if types.is_integer(have):
            return True
        digits = want.precision - want.scale
        return bool(types.is_decimal(have) and have.scale <= want.scale and have.precision - have.scale <= digits)
    if types.is_timestamp(want):
        return bool(types.is_timestamp(have) or (types.is_date32(have) and want.tz is None))
    if types.is_time(want):
        return bool(types.is_time(have))
    text = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    return any(is_(have) for is_ in text) and any(is_(want) for is_ in text)
