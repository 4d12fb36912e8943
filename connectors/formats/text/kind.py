"""Which Arrow type the values of JSON have, as far as the first of them tell.

Pure. Knows values, not where they lie. The invariant: a type is that of the first value that is not null, but that
numbers, lists and structs grow: of kinds that do not agree the first one stays, and the others are bad rows later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import isinf
from typing import Any

import pyarrow as pa

_DEEPEST = 32  # what lies deeper is not looked at
_NULL, _BOOL, _TEXT = pa.null(), pa.bool_(), pa.string()
_INTEGER, _LARGE, _FLOAT = pa.int64(), pa.uint64(), pa.float64()
_NUMBERS = (_INTEGER, _LARGE, _FLOAT)  # each goes into the next one
_LONGEST_DIGITS = 400  # Python reads no integer of more than 4300 digits, and no float goes beyond 309


@dataclass(frozen=True, slots=True)
class Pairs:
    """An object as it stands there: a name may come twice."""

    items: Sequence[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Huge:
    """A number beyond all floats, as it stands there."""

    text: str


def loaded(text: str | bytes, *, pairs: bool = False) -> Any:
    """The value of a document. pairs: each object as `Pairs`, and numbers beyond all floats as `Huge`.

    raises: ValueError where it is none; UnicodeDecodeError is one.
    """
    try:
        if pairs:
            return json.loads(text, parse_int=_large, parse_float=_large, object_pairs_hook=Pairs)
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _LONGEST_DIGITS else float(digits)


def _large(digits: str) -> int | float | Huge:
    if digits.lstrip("-").isdecimal() and len(digits) < _LONGEST_DIGITS:
        return int(digits)
    value = float(digits)
    return Huge(digits) if isinf(value) else value


def columns_of(records: Iterable[Mapping[str, Any]]) -> dict[str, pa.DataType]:
    """Key -> type, in the order in which the keys come."""
    columns = dict[str, pa.DataType]()
    for record in records:
        for name, value in record.items():
            columns[name] = merged(columns.get(name, _NULL), kind_of(value))
    return columns


def kind_of(value: object, depth: int = 0) -> pa.DataType:
    """The type of one value. Integers beyond 64 bits are floats."""
    if value is None or depth > _DEEPEST:
        return _NULL
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, int):
        return _INTEGER if -(2**63) <= value < 2**63 else _LARGE if 0 <= value < 2**64 else _FLOAT
    if isinstance(value, float):
        return _FLOAT
    if isinstance(value, list):
        return pa.list_(reduce(merged, (kind_of(one, depth + 1) for one in value), _NULL))
    if isinstance(value, dict):
        return pa.struct([(name, kind_of(one, depth + 1)) for name, one in value.items()])
    return _TEXT


def merged(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type of values of both; `a` where there is none."""
    if a is b or b is _NULL or a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if a in _NUMBERS and b in _NUMBERS:
        return max(a, b, key=_NUMBERS.index)
    if pa.types.is_list(a) and pa.types.is_list(b):
        return pa.list_(merged(a.value_type, b.value_type))
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        fields = {field.name: field.type for field in a}
        for field in b:
            fields[field.name] = merged(fields.get(field.name, _NULL), field.type)
        return pa.struct([*fields.items()])
    return a
