"""A condition whose columns are found and whose values are of their types.

Owns what may be compared with what, and how a value that a type cannot hold is compared all the same; refuses to know
rows. The invariant: what is bound can be evaluated on every table of the schema, and means what the values say: 17.5 of
an integer column is no 17.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pyarrow as pa

from jobs.errors import BindingError, offenders, one_of
from jobs.rows import condition as said
from jobs.rows.condition import Column, Comparing, Condition, Instant, Literal
from jobs.rows.where import EXPECTED_MOMENT, marked, moment, parse
from jobs.words import counted

_DAY_NS = 86_400 * 10**9
UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}

Value = int | float | bool | Decimal | bytes  # as `comparable` has them


@dataclass(frozen=True, slots=True)
class Field:
    """What is compared: a column, or a field in it. kind: its type."""

    column: str
    path: tuple[str, ...]
    kind: pa.DataType

    @property
    def way(self) -> tuple[str, ...]:
        return self.column, *self.path


@dataclass(frozen=True, slots=True)
class Ordered:
    field: Field
    op: Comparing
    value: Value


@dataclass(frozen=True, slots=True)
class Pair:
    field: Field
    op: Comparing
    other: Field


@dataclass(frozen=True, slots=True)
class Among:
    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Matching:
    field: Field
    pattern: str


@dataclass(frozen=True, slots=True)
class Always:
    """The same for every value that is there; where none is, it is unknown."""

    field: Field
    answer: bool


@dataclass(frozen=True, slots=True)
class Null:
    field: Field


@dataclass(frozen=True, slots=True)
class Negated:
    inner: Bound


@dataclass(frozen=True, slots=True)
class All:
    inner: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Any:
    inner: tuple[Bound, ...]


Bound = Ordered | Pair | Among | Matching | Always | Null | Negated | All | Any


class _Mistake(Exception):
    """at: the character."""

    def __init__(self, code: str, at: int, story: str) -> None:
        super().__init__(story)
        self.code, self.at = code, at


def bound(text: str, schema: pa.Schema) -> Bound:
    """`where` on tables of this schema.

    raises: BindingError COLUMN_MISSING, COLUMN_AMBIGUOUS, COLUMN_TYPE with all that is wrong, each with its place.
    """
    wrong: list[_Mistake] = []
    made = _bound(parse(text), schema, wrong)
    if wrong:
        lines = [f"{one.code}: {marked(text, one.at, str(one))}" for one in wrong]
        codes = ",".join(one.code for one in wrong)
        if len(wrong) == 1:
            raise BindingError(f"cannot use `input.where`: {marked(text, wrong[0].at, str(wrong[0]))}", code=codes)
        raise BindingError(
            f"cannot use `input.where`: {counted(len(wrong), 'problem')}\n{offenders(lines)}",
            code=wrong[0].code,
            codes=codes,
        )
    return made


def roots(text: str, schema: pa.Schema) -> list[str]:
    """The columns of `schema` that `where` needs, each once; of those it lacks, the name that is looked for."""
    return list(dict.fromkeys(way[0] for way in ways(text, schema)))


def ways(text: str, schema: pa.Schema) -> list[tuple[str, ...]]:
    """The columns that `where` needs, and the fields in them, as often as it does; none is looked for."""
    return [_way(column, schema) for column in said.columns_of(parse(text))]


def fields_of(condition: Bound) -> Iterator[Field]:
    match condition:
        case All(inner=inner) | Any(inner=inner):
            for one in inner:
                yield from fields_of(one)
        case Negated(inner=one):
            yield from fields_of(one)
        case Pair(field=field, other=other):
            yield from (field, other)
        case _:
            yield condition.field


def _way(column: Column, schema: pa.Schema) -> tuple[str, ...]:
    return (column.name,) if schema.get_all_field_indices(column.name) else column.parts


def _bound(condition: Condition, schema: pa.Schema, wrong: list[_Mistake]) -> Bound:
    match condition:
        case said.And(conditions=conditions):
            return All(tuple(_bound(one, schema, wrong) for one in conditions))
        case said.Or(conditions=conditions):
            return Any(tuple(_bound(one, schema, wrong) for one in conditions))
        case said.Not(condition=inner):
            return Negated(_bound(inner, schema, wrong))
    try:
        return _alone(condition, schema)
    except _Mistake as mistake:
        wrong.append(mistake)
        return All(())


def _alone(condition: Condition, schema: pa.Schema) -> Bound:
    find = partial(_field, schema)
    match condition:
        case said.IsNull(column=column):
            return Null(find(column))
        case said.Truth(column=column):
            return _compared(find(column), column, "=", Literal(True, column.at))
        case said.Compare(column=column, op=op, other=Column() as other):
            return _pair(find(column), op, find(other), column, other)
        case said.Compare(column=column, op=op, other=Literal() as literal):
            return _compared(find(column), column, op, literal)
        case said.Member(column=column, values=values):
            return _among(find(column), column, values)
        case said.Like(column=column, pattern=pattern):
            field = find(column)
            if not _is_text(field.kind):
                raise _mistyped(column, field, "`like` is for text", column.at)
            return Matching(field, str(pattern.value))
    raise AssertionError(condition)


def _field(schema: pa.Schema, column: Column) -> Field:
    exact, first = schema.get_all_field_indices(column.name), schema.get_all_field_indices(column.parts[0])
    if len(column.parts) > 1 and exact and first:
        story = f'{column.name!r} is a column, and {column.parts[0]!r}, too; write "{column.name}" in double quotes'
        raise _Mistake("COLUMN_AMBIGUOUS", column.at, f"{story}, or rename one of them")
    found, path = (exact, ()) if exact else (first, column.parts[1:])
    if not found:
        raise _missing(column, column.parts[0], schema.names, "columns")
    if len(found) > 1:
        story = f"column {schema.field(found[0]).name!r} is there more than once; rename all but one"
        raise _Mistake("COLUMN_AMBIGUOUS", column.at, story)
    kind, name = schema.field(found[0]).type, schema.field(found[0]).name
    for step in path:
        if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
            names = [field.name for field in kind] if pa.types.is_struct(kind) else []
            raise _missing(column, column.name, names, f"fields of {kind}" if not names else "fields")
        kind = kind.field(kind.get_field_index(step)).type
    return Field(name, tuple(path), kind)


def _missing(column: Column, name: str, names: Sequence[str], what: str) -> _Mistake:
    variants = [other for other in names if other.casefold() == column.parts[-1].casefold()]
    there = list(dict.fromkeys(names))
    advice = (
        f"names differ by case; did you mean {variants[0]!r}?"
        if variants
        else f"the {what} there are {one_of(there, column.parts[-1])}"
    )
    return _Mistake("COLUMN_MISSING", column.at, f"column {name!r} is not in the input: {advice}")


def _mistyped(column: Column, field: Field, expected: str, at: int) -> _Mistake:
    return _Mistake("COLUMN_TYPE", at, f"column {column.name!r} is {field.kind}; {expected}")


def _compared(field: Field, column: Column, op: Comparing, literal: Literal) -> Bound:
    kind, value = field.kind, literal.value
    if pa.types.is_null(kind):
        return Always(field, False)
    if pa.types.is_boolean(kind) and isinstance(value, bool):
        if op not in ("=", "!="):
            raise _mistyped(column, field, f"it is true or false, and has no {op!r}: expected = or !=", literal.at)
        return Ordered(field, op, value)
    if _is_number(kind) and isinstance(value, int | Decimal) and not isinstance(value, bool):
        return _number(field, column, op, value, literal.at)
    if (_is_text(kind) or _is_binary(kind)) and isinstance(value, str):
        return Ordered(field, op, value.encode("utf-8", "surrogatepass"))
    if (unit := _unit_ns(kind)) and isinstance(value, str | date | Instant):
        return _stepped(field, op, Fraction(_nanoseconds(field, column, literal), unit), _bits(kind), int)
    raise _mistyped(column, field, _instead(field, column, literal), literal.at)


def _instead(field: Field, column: Column, literal: Literal) -> str:
    """What may stand in the place of a literal of the wrong type."""
    kind, found = field.kind, f"found {literal.kind}"
    if _is_text(kind):
        typed = {"a number": "int64", "true or false": "bool", "a date": "date32", "a timestamp": "timestamp[us]"}
        declared = f"`input.schema: {{{column.name}: {typed.get(literal.kind, 'int64')}}}`"
        quoted = said.Literal(literal.text).text if literal.kind in ("a number", "true or false") else "a text"
        return (
            f"{found}; expected a text such as {quoted}, or say its type by {declared}, where files and folder names do"
            " not state types"
        )
    if _is_number(kind):
        bare = literal.value if isinstance(literal.value, str) and _numeric(literal.value) else "18"
        return f"{found}; expected a number, without quotes: {bare}"
    if pa.types.is_boolean(kind):
        return f"{found}; expected true or false"
    if _unit_ns(kind):
        return f"{found}; expected a date or a timestamp"
    if _is_binary(kind):
        return f"{found}; expected a text"
    return "it can only be compared with null: `is null`, `is not null`"


def _numeric(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdecimal()


def _among(field: Field, column: Column, literals: Sequence[Literal]) -> Bound:
    """Those of the values that the column can hold."""
    values: list[Value] = []
    for literal in literals:
        match _compared(field, column, "=", literal):
            case Ordered(value=value):
                values.append(value)
            case Always() if pa.types.is_null(field.kind):
                return Always(field, False)
    return Among(field, tuple(dict.fromkeys(values))) if values else Always(field, False)


def _number(field: Field, column: Column, op: Comparing, value: int | Decimal, at: int) -> Bound:
    kind = field.kind
    if pa.types.is_floating(kind):
        return Ordered(field, op, _float(kind, column, field, value, at))
    if pa.types.is_decimal(kind):
        step, most = Fraction(10) ** -kind.scale, 10**kind.precision - 1
        return _stepped(field, op, Fraction(value) / step, (-most, most), partial(_as_decimal, kind.scale))
    return _stepped(field, op, Fraction(value), _bits(kind), int)


def _float(kind: pa.DataType, column: Column, field: Field, value: int | Decimal, at: int) -> float:
    """The nearest number of the type, as its values are the nearest ones to what was meant."""
    try:
        near = float(value)
    except OverflowError:
        near = math.inf
    if math.isinf(near):
        raise _mistyped(column, field, "found a number that no float holds", at)
    with np.errstate(over="ignore"):
        fitted = float(np.dtype(kind.to_pandas_dtype()).type(near))
    return near if math.isinf(fitted) else fitted


def _stepped(
    field: Field, op: Comparing, value: Fraction, held: tuple[int, int], made: Callable[[int], Value]
) -> Bound:
    """A comparison with a column of equal steps. value, held: in steps; held: the least and the most it holds."""
    low, high = held
    if value.denominator != 1:
        if op in ("=", "!="):
            return Always(field, op == "!=")
        value = Fraction(math.floor(value) if op in ("<", "<=") else math.ceil(value))
        op = "<=" if op in ("<", "<=") else ">="
    if value < low:
        return Always(field, op in ("!=", ">", ">="))
    if value > high:
        return Always(field, op in ("!=", "<", "<="))
    return Ordered(field, op, made(int(value)))


def _as_decimal(scale: int, steps: int) -> Decimal:
    return Decimal(steps).scaleb(-scale, Context(100))


def _nanoseconds(field: Field, column: Column, literal: Literal) -> int:
    value: object = literal.value
    if isinstance(value, str):
        value = moment(value, day=True) or moment(value, day=False)
    match value:
        case Instant(ns=ns, zoned=zoned):
            if zoned and getattr(field.kind, "tz", None) is None:
                raise _mistyped(column, field, "found a moment with a zone; expected one without", literal.at)
            return ns
        case date():
            return (value.toordinal() - date(1970, 1, 1).toordinal()) * _DAY_NS
    raise _mistyped(column, field, f"found {literal.text[:40]}; expected {EXPECTED_MOMENT}", literal.at)


def _pair(field: Field, op: Comparing, other: Field, column: Column, second: Column) -> Bound:
    a, b = field.kind, other.kind
    if pa.types.is_null(a) or pa.types.is_null(b):
        return Always(field if pa.types.is_null(a) else other, False)
    alike = a == b and (_is_number(a) or _is_text(a) or _is_binary(a) or bool(_unit_ns(a)))
    if pa.types.is_boolean(a) and pa.types.is_boolean(b) and op in ("=", "!="):
        return Pair(field, op, other)
    numbers = (_is_integer(a) and _is_integer(b)) or (_in_a_double(a) and _in_a_double(b))
    if alike or numbers or (_is_text(a) and _is_text(b)):
        return Pair(field, op, other)
    raise _mistyped(column, field, f"{second.name!r} is {b}; expected two columns of one type", second.at)


def _is_integer(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


def _in_a_double(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind)) or (_is_integer(kind) and kind.bit_width <= 32)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _unit_ns(kind: pa.DataType) -> int:
    """Nanoseconds of a step of a type of dates or timestamps; 0 of others."""
    if pa.types.is_date32(kind):
        return _DAY_NS
    if pa.types.is_date64(kind):
        return UNIT_NS["ms"]
    return UNIT_NS[kind.unit] if pa.types.is_timestamp(kind) else 0


def _bits(kind: pa.DataType) -> tuple[int, int]:
    """The least and the most that integers, dates and timestamps hold."""
    if pa.types.is_unsigned_integer(kind):
        return 0, 2**kind.bit_width - 1
    return -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1
