"""The schema of an input: one for all its files, of plain types, and how each file's table becomes it.

Pure pyarrow. Types become the one that `widening` has for them, and every other difference is a problem that names the
files. The invariant: after `conform`, tables of all files have the same schema, but for columns of a
mixed type, which are of one of its members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import pyarrow as pa

from connectors.formats.extension import extensions
from connectors.formats.fault import one_line
from connectors.formats.plain import plain_field
from connectors.formats.widening import common_type, type_in, wider, wider_field
from connectors.secret import redact
from connectors.store.listing import in_folders
from jobs.errors import DataError, one_of
from jobs.words import counted

_PICKLED = "arrow.py_extension_type"  # what pyarrow called classes of Python that it pickled into files, before 14.0
_FEW = 3  # files named in a problem
Path = tuple[str, ...]  # names of fields, from a struct inwards


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


def unify(
    schemas: Sequence[tuple[str, pa.Schema]], columns: Sequence[str], used: Mapping[str, Sequence[Path]] | None = None
) -> tuple[pa.Schema, list[str]]:
    """The one schema of `columns` over all files.

    schemas: (url, schema) of each file.
    used:    of structs that are not read as a whole, the fields that are: where the others clash, they are left out.
    returns: the fields of `columns` that all files agree on, in that order, nullable where any file's is; and the
             problems, one text each, starting with COLUMN_MISSING, COLUMN_AMBIGUOUS, COLUMN_TYPE or EXTENSION_REFUSED.
    cost:    work is done per distinct schema, not per file.
    """
    groups = distinct(schemas, columns)
    fields: list[pa.Field] = []
    problems: list[str] = []
    for name in dict.fromkeys(columns):
        field, wrong = _unify_column(groups, name, len(schemas), (used or {}).get(name, ()))
        problems += wrong
        if field is not None:
            fields.append(field)
    return pa.schema(fields), problems


Groups = list[tuple[pa.Schema, list[str]]]  # a distinct schema, and the files that have it


def distinct(schemas: Iterable[tuple[str, pa.Schema]], columns: Sequence[str] = ()) -> Groups:
    """The files of each schema that there is. columns: of which the parameters of extension types count too."""
    # By identity first: a source gives one object to all files with one schema, and comparing costs microseconds.
    same: dict[int, tuple[pa.Schema, list[str]]] = {}
    for url, schema in schemas:
        same.setdefault(id(schema), (schema, []))[1].append(url)
    equal: dict[tuple[pa.Schema, str], tuple[pa.Schema, list[str]]] = {}
    for schema, urls in same.values():
        places = (at for name in columns for at in schema.get_all_field_indices(name))
        stated = str([list(extensions(schema.field(at))) for at in places])  # no part of equality
        equal.setdefault((schema, stated), (schema, []))[1].extend(urls)
    return list(equal.values())


def _unify_column(groups: Groups, name: str, files: int, used: Sequence[Path]) -> tuple[pa.Field | None, list[str]]:
    lacking: list[str] = []
    doubled: list[str] = []
    by_type: dict[str, list[list[str]]] = {}
    fields: dict[tuple[str, bool], pa.Field] = {}
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
            if any(kind == _PICKLED for _, kind, _ in extensions(field)):
                problems.append(
                    f"EXTENSION_REFUSED: column {name!r} is of a pickled extension type in {_named(urls)}: to read it"
                    " would be to run its code; write it again as the plain type below"
                )
            told = _described(field)
            by_type.setdefault(told, []).append(urls)
            fields.setdefault((told, field.nullable), field)
    if lacking:
        where = f"{files - len(lacking) or 'none'} of {counted(files, 'file')}"
        problems.append(
            f"COLUMN_MISSING: column {name!r} is in {where}, not in {_named(lacking)}: "
            + (in_folders(name, lacking) or _instead(like, name))
        )
    if doubled:
        problems.append(f"COLUMN_AMBIGUOUS: {_ambiguous(name, doubled)}")
    unified = _merged(list(fields.values()))
    if unified is None and used:
        unified = _merged([field.with_type(only_fields(field.type, used)) for field in fields.values()])
    if unified is None and fields:
        types = ", ".join(f"{kind} in {_named([*chain(*urls)])}" for kind, urls in by_type.items())
        problems.append(f"COLUMN_TYPE: column {name!r} has types that do not agree: {types}; write these files again")
    return (None if problems else unified), problems


def _merged(fields: Sequence[pa.Field]) -> pa.Field | None:
    """The field that holds the values of all; None where two do not agree, or there is none."""
    # A list of any length hides whether those of fixed sizes agree: once more with these first.
    fixed_first = sorted(fields, key=lambda field: -str(field.type).count("fixed_size_list")) if fields[1:] else fields
    return (fixed_first == fields or _folded(fixed_first)) and _folded(fields)


def _folded(fields: Sequence[pa.Field]) -> pa.Field | None:
    unified, *others = fields or [None]
    for field in others:
        unified = unified and wider_field(unified, field)
    return unified


def only_fields(kind: pa.DataType, used: Sequence[Path]) -> pa.DataType:
    """A struct with no other fields than those."""
    if () in used or not pa.types.is_struct(kind):
        return kind
    inner = {field.name: [way[1:] for way in used if way[0] == field.name] for field in kind}
    return pa.struct(
        [field.with_type(only_fields(field.type, inner[field.name])) for field in kind if inner[field.name]]
    )


def field_of(schema: pa.Schema, name: str) -> pa.Field:
    """The one column `name` of a file, as it is unified."""
    return _without_ids(schema.field(name))


def _without_ids(field: pa.Field) -> pa.Field:
    """The field of plain type; without the numbers that Parquet gives to fields, which differ from file to file."""
    field = plain_field(field)
    kept = {key: value for key, value in (field.metadata or {}).items() if not key.startswith(b"PARQUET:")}
    return pa.field(field.name, field.type, field.nullable, kept or None)


def _described(field: pa.Field) -> str:
    """The type, for messages."""
    told = [
        f"{f' with {path}' if path else ''} as {name} {one_line(parameters, 60)}".rstrip()
        for path, name, parameters in extensions(field)
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


def overview(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """All columns that any file has, each once, for choosing among them by name.

    The types are those of `unify`; where there is none, that of the first file.
    cost: work is done per distinct schema.
    """
    first, *others = [schema for schema, _ in distinct(schemas)] or [pa.schema([])]
    if not others:
        return first
    found: dict[str, pa.Field] = {}
    for schema in (first, *others):
        for field in schema:
            known = found.setdefault(field.name, field)
            if known.type != field.type:
                found[field.name] = known.with_type(wider(known.type, field.type) or _grown(known.type, field.type))
    return pa.schema([*found.values()])


def _grown(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """`a`, with the fields that only the struct `b` has."""
    if not (pa.types.is_struct(a) and pa.types.is_struct(b)):
        return a
    names = {field.name for field in a}
    return pa.struct([*a, *(field for field in b if field.name not in names)])


def settled(schema: pa.Schema) -> pa.Schema:
    """`schema` in the types that are written."""
    return pa.schema([field.with_type(common_type(field.type)) for field in schema])


def conform(table: pa.Table, schema: pa.Schema, file: str) -> pa.Table:
    """The columns of `schema` from one file's table, in its types and order.

    schema:  from `unify`. A column of a mixed type stays as it is in the file, see `type_in`.
    file:    the url, for messages.
    raises:  DataError COLUMN_MISSING, COLUMN_AMBIGUOUS, COLUMN_TYPE if the file is not what its schema said.
    cost:    no copy where the types are equal.
    """
    if table.schema.equals(schema, check_metadata=True):
        return table
    if not len(schema):
        return table.select([])  # keeps the number of rows
    columns, fields = [], []
    for field in schema:
        column = table.column(position(table.schema, field.name, file))
        if column.type != field.type:
            field = field.with_type(type_in(column.type, field.type))
        columns.append(_cast(column, field, file))
        fields.append(field)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, schema.metadata))


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
