"""The schema of an input: one for all its files, of plain types, and how each file's table becomes it.

Pure pyarrow. Refuses to guess: types are widened where no value can change, and every other difference is a problem
that names the files. The invariant: after `conform`, tables of all files have the same schema, but for columns of a
mixed type, which are of one of its members.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain

import pyarrow as pa

from connectors.formats.fault import one_line
from connectors.formats.plain import NAME, PARAMETERS, plain_field
from connectors.secret import redact
from connectors.store.listing import in_folders
from jobs.errors import DataError, one_of

_PICKLED = "arrow.py_extension_type"  # what pyarrow called classes of Python that it pickled into files, before 14.0
_FEW = 3  # files named in a problem

Path = tuple[str, ...]  # names of fields, from a struct inwards
Kinds = tuple[pa.DataType, ...]


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
        extensions = str([list(_extensions(schema.field(at))) for at in places])  # no part of equality
        equal.setdefault((schema, extensions), (schema, []))[1].extend(urls)
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
            if any(extension == _PICKLED for _, extension, _ in _extensions(field)):
                problems.append(
                    f"EXTENSION_REFUSED: column {name!r} is of a pickled extension type in {_named(urls)}: to read it"
                    " would be to run its code; write it again as the plain type below"
                )
            told = _described(field)
            by_type.setdefault(told, []).append(urls)
            fields.setdefault((told, field.nullable), field)
    if lacking:
        where = f"none of {files} files" if len(lacking) == files else f"{files - len(lacking)} of {files} files"
        problems.append(
            f"COLUMN_MISSING: column {name!r} is in {where}, not in {_named(lacking)}: "
            + (in_folders(name, lacking) or _instead(like, name))
        )
    if doubled:
        problems.append(f"COLUMN_AMBIGUOUS: {_ambiguous(name, doubled)}")
    unified = _merged(list(fields.values()))
    if unified is None and used:
        unified = _merged([field.with_type(_only(field.type, used)) for field in fields.values()])
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
        unified = unified and _wider_field(unified, field)
    return unified


def _only(kind: pa.DataType, used: Sequence[Path]) -> pa.DataType:
    """A struct with no other fields than those."""
    if () in used or not pa.types.is_struct(kind):
        return kind
    inner = {field.name: [way[1:] for way in used if way[0] == field.name] for field in kind}
    return pa.struct([field.with_type(_only(field.type, inner[field.name])) for field in kind if inner[field.name]])


def field_of(schema: pa.Schema, name: str) -> pa.Field:
    """The one column `name` of a file, as it is unified."""
    return _without_ids(schema.field(name))


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


def wider(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; None where there is none, or one would have to guess.

    No value changes: what the types alone cannot promise is a mixed type, see `mixed`.
    source: the table is that of `pa.unify_schemas` with `promote_options="permissive"`, but for what loses values.
    """
    if a == b and [*_extensions(pa.field("", a))] == [*_extensions(pa.field("", b))]:
        return a
    if pa.types.is_null(a) or pa.types.is_null(b):
        return b if pa.types.is_null(a) else a
    kinds = tuple(dict.fromkeys((*members(a), *members(b))))
    for belongs, merged in _FAMILIES:
        if all(map(belongs, kinds)):
            return merged(kinds)
    return _wider_nested(a, b)


_ONE_OF = "runner.one_of"  # the name of the first field of the union that stands for a mixed type


def mixed(common: pa.DataType, kinds: Iterable[pa.DataType]) -> pa.DataType:
    """The type of a column that is of one of `kinds` in each file, and is delivered as that.

    common: what it is written as; a value that this does not hold is a bad row.
    """
    return pa.sparse_union([pa.field(_ONE_OF, common), *(pa.field("", kind) for kind in kinds)])


def is_mixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_union(kind) and kind.field(0).name == _ONE_OF)


def members(kind: pa.DataType) -> tuple[pa.DataType, ...]:
    """The types that a column of a mixed type has in files; of another type itself."""
    return tuple(kind.field(index).type for index in range(1, kind.num_fields)) if is_mixed(kind) else (kind,)


def common_type(kind: pa.DataType) -> pa.DataType:
    """What a column of `kind` is written as: without mixed types."""
    return kind.field(0).type if is_mixed(kind) else _inside(kind, lambda _, field: common_type(field.type))


def settled(schema: pa.Schema) -> pa.Schema:
    """`schema` in the types that are written."""
    return pa.schema([field.with_type(common_type(field.type)) for field in schema])


def type_in(own: pa.DataType, unified: pa.DataType) -> pa.DataType:
    """What a column of the type `own` in its file is delivered as: `unified`, of what is mixed one member."""
    if is_mixed(unified):
        return next(kind for kind in members(unified) if wider(own, kind) == kind)
    names = {} if not pa.types.is_nested(own) else {own.field(at).name: at for at in range(own.num_fields)}

    def inside(at: int, field: pa.Field) -> pa.DataType:
        place = names.get(field.name) if pa.types.is_struct(unified) else at if at < own.num_fields else None
        return type_in(pa.null() if place is None else own.field(place).type, field.type)

    return _inside(unified, inside)


def _inside(kind: pa.DataType, change: Callable[[int, pa.Field], pa.DataType]) -> pa.DataType:
    """`kind`, with what is in it changed; itself where that is nothing. change: place and field -> type."""
    if not (_is_list(kind) or pa.types.is_struct(kind) or pa.types.is_map(kind)):
        return kind
    fields = [kind.field(at).with_type(change(at, kind.field(at))) for at in range(kind.num_fields)]
    if pa.types.is_struct(kind):
        return pa.struct(fields)
    if pa.types.is_map(kind):
        return pa.map_(*fields[0].type, keys_sorted=kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(fields[0], kind.list_size)
    return (pa.large_list if pa.types.is_large_list(kind) else pa.list_)(fields[0])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _numbers(kinds: Kinds) -> pa.DataType:
    whole = _integers([kind for kind in kinds if pa.types.is_integer(kind)])
    floats = [kind for kind in kinds if pa.types.is_floating(kind)]
    if not floats:
        return whole[0] if len(whole) == 1 else mixed(pa.int64(), whole)
    widest = max(floats, key=lambda kind: kind.bit_width)
    if not whole:
        return widest
    # Although a double holds every int32: where a float32 tensor is fed, integers are checked and doubles are rounded.
    least = {8: pa.float16(), 16: pa.float32()}.get(whole[0].bit_width, pa.float64())
    return mixed(max(widest, least, key=lambda kind: kind.bit_width), (*whole, widest))


def _integers(kinds: Sequence[pa.DataType]) -> Kinds:
    """The type that holds all; two where there is none."""
    signed = [kind.bit_width for kind in kinds if pa.types.is_signed_integer(kind)]
    unsigned = [kind.bit_width for kind in kinds if pa.types.is_unsigned_integer(kind)]
    if not signed:
        return (max(kinds, key=lambda kind: kind.bit_width),) if kinds else ()
    bits = max(signed + [2 * width for width in unsigned])
    fitting = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(bits)
    return (pa.int64(), pa.uint64()) if fitting is None else (fitting,)


def _is_decimal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}  # of the integers of so many bits
_DECIMALS = ((9, pa.decimal32), (18, pa.decimal64), (38, pa.decimal128), (76, pa.decimal256))  # digits at most


def _decimals(kinds: Kinds) -> pa.DataType | None:
    decimals = [kind for kind in kinds if pa.types.is_decimal(kind)]
    scale = max(0, *(kind.scale for kind in decimals))
    whole = [kind.precision - kind.scale if kind in decimals else _DIGITS[kind.bit_width] for kind in kinds]
    digits, least = max(whole) + scale, max(kind.bit_width for kind in decimals)
    return next(
        (make(digits, scale) for most, make in _DECIMALS if digits <= most and make(1).bit_width >= least), None
    )


_UTC = {"UTC", "Etc/UTC", "Z", "+00:00", "-00:00", "GMT", "Etc/GMT"}  # names of one zone


def _timestamps(kinds: Kinds) -> pa.DataType | None:
    zones = {kind.tz for kind in kinds}
    zone = zones.pop() if len(zones) == 1 else "UTC" if zones <= _UTC else ""
    return None if zone == "" else _finest([pa.timestamp(kind.unit, zone) for kind in kinds])


def _finest(kinds: Iterable[pa.DataType]) -> pa.DataType:
    """Of each unit; what is far away in a coarse one does not fit into a fine one."""
    units = sorted(set(kinds), key=lambda kind: ("s", "ms", "us", "ns").index(kind.unit))
    return units[0] if len(units) == 1 else mixed(units[-1], units)


def _is_text(kind: pa.DataType) -> bool:
    return _is_string(kind) or bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _texts(kinds: Kinds) -> pa.DataType:
    large = any(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) for kind in kinds)
    if all(map(_is_string, kinds)):
        return pa.large_string() if large else pa.string()
    return pa.large_binary() if large else pa.binary()


_FAMILIES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Kinds], pa.DataType | None]], ...] = (
    (_is_number, _numbers),
    (_is_decimal, _decimals),
    (_is_text, _texts),
    (pa.types.is_date, lambda kinds: pa.date64()),
    (pa.types.is_time, _finest),
    (pa.types.is_timestamp, _timestamps),
    (pa.types.is_duration, _finest),
)


def _wider_nested(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if _is_list(a) and _is_list(b):
        return _wider_list(a, b)
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        return _wider_struct(a, b)
    if pa.types.is_map(a) and pa.types.is_map(b):
        key, item = _wider_field(a.key_field, b.key_field), _wider_field(a.item_field, b.item_field)
        return key and item and pa.map_(key, item, keys_sorted=a.keys_sorted and b.keys_sorted)
    return None


def _wider_list(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    element = _wider_field(a.value_field, b.value_field)
    sizes = {kind.list_size if pa.types.is_fixed_size_list(kind) else None for kind in (a, b)}
    if element is None or len(sizes - {None}) > 1:  # lists of another size in one file are a fault of that file
        return None
    if None not in sizes:
        return pa.list_(element, a.list_size)
    large = pa.types.is_large_list(a) or pa.types.is_large_list(b)
    return pa.large_list(element) if large else pa.list_(element)


def _wider_struct(a: pa.StructType, b: pa.StructType) -> pa.DataType | None:
    """With the fields of both: those of `a`, then those that only `b` has. A field that is not there is null."""
    ours, theirs = ({field.name: field for field in kind} for kind in (a, b))
    if (len(ours), len(theirs)) != (a.num_fields, b.num_fields):
        return None  # two fields of one name
    shared = [_wider_field(field, theirs[name]) if name in theirs else field for name, field in ours.items()]
    fields = [field for field in shared if field is not None]
    if len(fields) < len(shared):
        return None
    fields += [field for name, field in theirs.items() if name not in ours]
    both = ours.keys() & theirs.keys()
    return pa.struct([field if field.name in both else field.with_nullable(True) for field in fields])


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _wider_field(a: pa.Field, b: pa.Field) -> pa.Field | None:
    kind = wider(a.type, b.type)
    if kind is None or not (_extension(a) == _extension(b) or pa.types.is_null(a.type) or pa.types.is_null(b.type)):
        return None
    return (b if pa.types.is_null(a.type) else a).with_type(kind).with_nullable(a.nullable or b.nullable)


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
