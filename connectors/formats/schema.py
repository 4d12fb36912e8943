"""The schema of an input: one for all its files, of plain types, and how each file's table becomes it.

Pure pyarrow. Refuses to guess: types are widened where no value can change, and every other difference is a problem
that names the files. The invariant: after `conform`, tables of all files have the same schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import pyarrow as pa

from connectors.formats.fault import one_line
from connectors.formats.plain import NAME, PARAMETERS, plain_field
from connectors.secret import redact
from connectors.store.listing import in_folders
from jobs.errors import DataError, one_of

_PICKLED = "arrow.py_extension_type"  # what pyarrow called classes of Python that it pickled into files, before 14.0
_FEW = 3  # files named in a problem


def leaf_types(kind: pa.DataType) -> Iterator[pa.DataType]:
    """The types of the columns of a file that one field takes: its leaves."""
    if isinstance(kind, pa.BaseExtensionType):
        yield from leaf_types(kind.storage_type)
    elif pa.types.is_dictionary(kind):
        yield from leaf_types(kind.value_type)
    elif pa.types.is_nested(kind):
        for index in range(kind.num_fields):
            yield from leaf_types(kind.field(index).type)
    else:
        yield kind


def position(schema: pa.Schema, name: str, file: str) -> int:
    """The index of the one top-level column `name`. raises: DataError COLUMN_MISSING, COLUMN_AMBIGUOUS."""
    positions = schema.get_all_field_indices(name)
    if len(positions) == 1:
        return int(positions[0])
    problem = (
        _ambiguous(name, [file])
        if positions
        else f"column {name!r} is not in '{redact(file)}': {_instead(schema, name)}"
    )
    raise DataError(problem, code="COLUMN_AMBIGUOUS" if positions else "COLUMN_MISSING", file=file, column=name)


def unify(schemas: Sequence[tuple[str, pa.Schema]], columns: Sequence[str]) -> tuple[pa.Schema, list[str]]:
    """The one schema of `columns` over all files.

    schemas: (url, schema) of each file.
    returns: the fields of `columns` that all files agree on, in that order, nullable where any file's is; and the
             problems, one text each, starting with COLUMN_MISSING, COLUMN_AMBIGUOUS, COLUMN_TYPE or EXTENSION_REFUSED.
    cost:    work is done per distinct schema, not per file.
    """
    groups = _distinct(schemas, columns)
    fields: list[pa.Field] = []
    problems: list[str] = []
    for name in dict.fromkeys(columns):
        field, wrong = _unify_column(groups, name, len(schemas))
        problems += wrong
        if field is not None:
            fields.append(field)
    return pa.schema(fields), problems


Groups = list[tuple[pa.Schema, list[str]]]  # a distinct schema, and the files that have it


def _distinct(schemas: Iterable[tuple[str, pa.Schema]], columns: Sequence[str]) -> Groups:
    # By identity first: a source gives one object to all files with one schema, and comparing costs microseconds.
    same: dict[int, tuple[pa.Schema, list[str]]] = {}
    for url, schema in schemas:
        same.setdefault(id(schema), (schema, []))[1].append(url)
    equal: dict[tuple[pa.Schema, str], tuple[pa.Schema, list[str]]] = {}
    for schema, urls in same.values():
        places = (at for name in columns for at in schema.get_all_field_indices(name))
        extensions = str([list(_extensions(schema.field(at))) for at in places])  # no part of equality
        equal.setdefault((schema, extensions), (schema, []))[1].extend(urls)
    return list(equal.values())


def _unify_column(groups: Groups, name: str, files: int) -> tuple[pa.Field | None, list[str]]:
    lacking: list[str] = []
    doubled: list[str] = []
    by_type: dict[str, list[str]] = {}
    unified: pa.Field | None = None
    clash = False
    problems: list[str] = []
    like: pa.Schema | None = None
    for schema, urls in groups:
        positions = schema.get_all_field_indices(name)
        if not positions:
            lacking += urls
            like = like or schema
        elif len(positions) > 1:
            doubled += urls
        else:
            field = _without_ids(schema.field(positions[0]))
            if any(extension == _PICKLED for _, extension, _ in _extensions(field)):
                problems.append(
                    f"EXTENSION_REFUSED: column {name!r} is of a pickled extension type in {_named(urls)}: to read it"
                    " would be to run its code; write it again as the plain type below"
                )
            by_type.setdefault(_described(field), []).extend(urls)
            merged = field if unified is None else _wider_field(unified, field)
            clash = clash or merged is None
            unified = merged or unified
    if lacking:
        where = f"none of {files} files" if len(lacking) == files else f"{files - len(lacking)} of {files} files"
        problems.append(
            f"COLUMN_MISSING: column {name!r} is in {where}, not in {_named(lacking)}: "
            + (in_folders(name, lacking) or _instead(like, name))
        )
    if doubled:
        problems.append(f"COLUMN_AMBIGUOUS: {_ambiguous(name, doubled)}")
    if clash:
        types = ", ".join(f"{kind} in {_named(urls)}" for kind, urls in by_type.items())
        problems.append(f"COLUMN_TYPE: column {name!r} has types that do not agree: {types}; write these files again")
    return (None if problems else unified), problems


def _without_ids(field: pa.Field) -> pa.Field:
    """The field of plain type; without the numbers that Parquet gives to fields, which differ from file to file."""
    field = plain_field(field)
    kept = {key: value for key, value in (field.metadata or {}).items() if not key.startswith(b"PARQUET:")}
    return pa.field(field.name, field.type, field.nullable, kept or None)


def _extensions(field: pa.Field, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Where in a field extension types are that nobody here knows, with their names and parameters."""
    own = _extension(field)
    if own is not None:
        yield path, *own
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    for index in range(kind.num_fields):
        inner = kind.field(index)
        step = f".{inner.name}" if pa.types.is_struct(kind) else "[]"
        yield from _extensions(inner, path + step)


def _extension(field: pa.Field) -> tuple[str, str] | None:
    """The name and the parameters of an extension type that nobody here knows: a part of the type of a field."""
    said = field.metadata or {}
    if NAME not in said:
        return None
    parameters = said.get(PARAMETERS, b"").decode(errors="backslashreplace")
    with suppress(ValueError, RecursionError):  # not JSON, which writers space and order as they like
        parameters = json.dumps(json.loads(parameters), sort_keys=True)
    return said[NAME].decode(errors="backslashreplace"), parameters


def _described(field: pa.Field) -> str:
    """The type, for messages."""
    told = [
        f"{f' with {path}' if path else ''} as {name} {one_line(parameters, 60)}".rstrip()
        for path, name, parameters in _extensions(field)
    ]
    return str(field.type) + "".join(told)


def _named(urls: Sequence[str]) -> str:
    shown = ", ".join(f"'{redact(url)}'" for url in sorted(urls)[:_FEW])
    return f"{shown} and {len(urls) - _FEW} more" if len(urls) > _FEW else shown


def _ambiguous(name: str, urls: Sequence[str]) -> str:
    return f"column {name!r} is there more than once in {_named(urls)}; rename all but one"


def _instead(schema: pa.Schema | None, name: str) -> str:
    names = list(dict.fromkeys(schema.names)) if schema is not None else []
    variants = [other for other in names if other.casefold() == name.casefold()]
    if variants:
        return f"names differ by case; did you mean {variants[0]!r}?"
    root = next((other for other in names if name.startswith(f"{other}.")), None)
    if root is not None:
        return f"{root!r} is a column, and only whole columns can be read"
    return f"the columns there are {one_of(names, name)}"


def wider(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds every value of both without loss; None where there is none, or one would have to guess."""
    if a == b and [*_extensions(pa.field("", a))] == [*_extensions(pa.field("", b))]:
        return a
    if pa.types.is_null(a) or pa.types.is_null(b):
        return b if pa.types.is_null(a) else a
    if pa.types.is_integer(a) and pa.types.is_integer(b):
        return _wider_integer(a, b)
    if pa.types.is_floating(a) and pa.types.is_floating(b):
        return max(a, b, key=lambda kind: kind.bit_width)
    for small, large in ((pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())):
        if {a, b} == {small, large}:
            return large
    return _wider_nested(a, b)


def _wider_integer(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    signed = [kind.bit_width for kind in (a, b) if pa.types.is_signed_integer(kind)]
    unsigned = [kind.bit_width for kind in (a, b) if pa.types.is_unsigned_integer(kind)]
    if not signed:
        return max(a, b, key=lambda kind: kind.bit_width)
    bits = max(signed + [2 * width for width in unsigned])
    return {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(bits)


def _wider_nested(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if pa.types.is_fixed_size_list(a) and pa.types.is_fixed_size_list(b) and a.list_size == b.list_size:
        element = _wider_field(a.value_field, b.value_field)
        return element and pa.list_(element, a.list_size)
    if _is_list(a) and _is_list(b):
        element = _wider_field(a.value_field, b.value_field)
        large = pa.types.is_large_list(a) or pa.types.is_large_list(b)
        return element and (pa.large_list(element) if large else pa.list_(element))
    if pa.types.is_struct(a) and pa.types.is_struct(b) and [f.name for f in a] == [f.name for f in b]:
        fields = [_wider_field(left, right) for left, right in zip(a, b, strict=True)]
        return None if any(field is None for field in fields) else pa.struct(fields)
    return None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _wider_field(a: pa.Field, b: pa.Field) -> pa.Field | None:
    kind = wider(a.type, b.type)
    if kind is None or not (_extension(a) == _extension(b) or pa.types.is_null(a.type) or pa.types.is_null(b.type)):
        return None
    return (b if pa.types.is_null(a.type) else a).with_type(kind).with_nullable(a.nullable or b.nullable)


def conform(table: pa.Table, schema: pa.Schema, file: str) -> pa.Table:
    """The columns of `schema` from one file's table, in its types and order.

    schema:  from `unify`.
    file:    the url, for messages.
    raises:  DataError COLUMN_MISSING, COLUMN_AMBIGUOUS, COLUMN_TYPE if the file is not what its schema said.
    cost:    no copy where the types are equal.
    """
    if table.schema.equals(schema, check_metadata=True):
        return table
    if not len(schema):
        return table.select([])  # keeps the number of rows
    columns = [_cast(table.column(position(table.schema, field.name, file)), field, file) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field, file: str) -> pa.ChunkedArray:
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"cannot read column {field.name!r} of '{redact(file)}' as {field.type}: it is {column.type}; {error}",
            code="COLUMN_TYPE",
            file=file,
            column=field.name,
        ) from error
