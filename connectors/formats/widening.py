"""The type that holds the values of two types: which there is, and what a column is where there is none for both.

Knows types, and neither files nor tables. Refuses to guess: where no value can change there is one type, and where the
values decide there is a mixed one, which stands for its members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from connectors.formats.extension import extension, extensions

Kinds = tuple[pa.DataType, ...]


def wider(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; None where there is none, or one would have to guess.

    No value changes: what the types alone cannot promise is a mixed type, see `mixed`.
    source: the table is that of `pa.unify_schemas` with `promote_options="permissive"`, but for what loses values.
    """
    if a == b and [*extensions(pa.field("", a))] == [*extensions(pa.field("", b))]:
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
    if not (is_list(kind) or pa.types.is_struct(kind) or pa.types.is_map(kind)):
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
    if is_list(a) and is_list(b):
        return _wider_list(a, b)
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        return _wider_struct(a, b)
    if pa.types.is_map(a) and pa.types.is_map(b):
        key, item = wider_field(a.key_field, b.key_field), wider_field(a.item_field, b.item_field)
        return key and item and pa.map_(key, item, keys_sorted=a.keys_sorted and b.keys_sorted)
    return None


def _wider_list(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    element = wider_field(a.value_field, b.value_field)
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
    shared = [wider_field(field, theirs[name]) if name in theirs else field for name, field in ours.items()]
    fields = [field for field in shared if field is not None]
    if len(fields) < len(shared):
        return None
    fields += [field for name, field in theirs.items() if name not in ours]
    both = ours.keys() & theirs.keys()
    return pa.struct([field if field.name in both else field.with_nullable(True) for field in fields])


def is_list(kind: pa.DataType) -> bool:
    """Lists of any length, large ones, and those of one size."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def wider_field(a: pa.Field, b: pa.Field) -> pa.Field | None:
    kind = wider(a.type, b.type)
    if kind is None or not (extension(a) == extension(b) or pa.types.is_null(a.type) or pa.types.is_null(b.type)):
        return None
    return (b if pa.types.is_null(a.type) else a).with_type(kind).with_nullable(a.nullable or b.nullable)
