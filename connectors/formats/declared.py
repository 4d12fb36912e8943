"""Arrow types as a job file writes them: `int32`, `timestamp[ms]`, `list<float>`, `struct<a: int64, b: string>`.

Owns the words; refuses to know which column has which type. The invariant: `type_of(text_of(kind))` is `kind`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

import pyarrow as pa

from jobs.errors import InputError, one_of

_ALIASES: dict[str, pa.DataType] = {
    **{
        name: getattr(pa, name)() for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    **{name: getattr(pa, name)() for name in ("float16", "float32", "float64", "string", "large_string", "binary")},
    **{name: getattr(pa, name)() for name in ("date32", "date64", "null", "large_binary")},
    "bool": pa.bool_(),
    "halffloat": pa.float16(),
    "float": pa.float32(),
    "double": pa.float64(),
    "text": pa.string(),
    "bytes": pa.binary(),
    "date": pa.date32(),
}
_WITH_UNIT: dict[str, Callable[..., pa.DataType]] = {
    "timestamp": pa.timestamp,
    "time32": pa.time32,
    "time64": pa.time64,
    "duration": pa.duration,
}


_QUOTED = r'"(?:[^"\\]|\\.)*"'  # as JSON has it: the name of a field that holds one of `:<>,`


def type_of(text: str) -> pa.DataType:
    """raises: ValueError with what is expected."""
    try:
        kind, rest = _read(text.strip())
    except (IndexError, KeyError, ValueError, pa.ArrowException, RecursionError):
        rest, kind = text, None
    if kind is None or rest.strip():
        expected = "'timestamp[ms]', 'timestamp[us, tz=UTC]', 'decimal(10, 2)', 'list<float>', 'struct<a: int64>'"
        raise ValueError(f"{text!r} is no type: expected {one_of(sorted(_ALIASES), text)}, or such as {expected}")
    return kind


def types_of(texts: Mapping[str, str]) -> dict[str, pa.DataType]:
    """Column -> type, as a job declares them. raises: InputError COLUMN_TYPE."""
    types = dict[str, pa.DataType]()
    for name, text in texts.items():
        try:
            types[name] = type_of(text)
        except ValueError as error:
            raise InputError(
                f"cannot read column {name!r} as `input.schema` says: {error}", code="COLUMN_TYPE"
            ) from None
    return types


def text_of(kind: pa.DataType) -> str:
    """As `type_of` reads it."""
    if pa.types.is_fixed_size_list(kind):
        return f"list<{text_of(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{text_of(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{_name(field.name)}: {text_of(field.type)}' for field in kind)}>"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    return next((name for name, known in _ALIASES.items() if known == kind), str(kind))


def _name(field: str) -> str:
    """The name of a field, as `_read` reads it."""
    return field if re.fullmatch(r'[^:<>,"\s]([^:<>,]*[^:<>,\s])?', field) else json.dumps(field, ensure_ascii=False)


def _read(text: str) -> tuple[pa.DataType, str]:
    """The type that a text begins with, and the rest of it."""
    match = re.match(r"[a-z_]+\d*", text)
    name = match[0] if match else ""
    rest = text[len(name) :].lstrip()
    if name == "list":
        inner, rest = _read(_after(rest, "<"))
        rest = _after(rest, ">")
        sized = re.match(r"\[(\d+)\]", rest)
        return (pa.list_(inner, int(sized[1])), rest[sized.end() :]) if sized else (pa.list_(inner), rest)
    if name == "struct":
        fields, rest = [], _after(rest, "<")
        while rest[0] != ">":
            field = re.match(rf"({_QUOTED}|[^:<>,]+):\s*", rest)
            inner, rest = _read(rest[field.end() :] if field else "")
            label = field[1].strip() if field else ""
            fields.append(pa.field(json.loads(label) if label.startswith('"') else label, inner))
            rest = rest.lstrip()
            rest = rest[1:].lstrip() if rest[0] == "," else rest
        return pa.struct(fields), rest[1:]
    if name in ("decimal", "decimal128") and (sizes := re.match(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)", rest)):
        return pa.decimal128(int(sizes[1]), int(sizes[2])), rest[sizes.end() :]
    if name in _WITH_UNIT and (unit := re.match(r"\[(s|ms|us|ns)(?:,\s*tz=([^\]]+))?\]", rest)):
        zone = {"tz": unit[2]} if unit[2] else {}
        return _WITH_UNIT[name](unit[1], **zone), rest[unit.end() :]
    return _ALIASES[name], rest


def _after(text: str, mark: str) -> str:
    if not text.startswith(mark):
        raise KeyError(mark)
    return text[1:].lstrip()
