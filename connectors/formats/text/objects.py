"""JSON objects, one a line, as columns of given types; a line that does not fit is told by itself.

Knows lines and types, not files. pyarrow reads all lines at once, and refuses all for one: then halves are tried, down
to the line that is bad. The invariant: each line is one row, or one fault; no value is changed to fit, but that a float
of JSON may be rounded to the type that is wanted.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from connectors.formats.declared import text_of
from connectors.formats.fault import one_line
from connectors.formats.text.kind import Huge, Pairs, loaded

Lines = Sequence[bytes]

BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_PIECE_BYTES = 16 * 2**20  # read at once
_MOST_LINE_BYTES = 2**30  # a block of pyarrow has less than 2 GiB
_EXCERPT = 80  # characters
_TWICE = "an object with a name that is there twice"
_EXACT = 2**53  # below which a double is one integer: this one may have been the next
_INTEGERS = [getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)]
_READ = (  # by pyarrow as they are
    *(pa.types.is_integer, pa.types.is_float32, pa.types.is_float64, pa.types.is_boolean, pa.types.is_null),
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary),
    *(pa.types.is_timestamp, pa.types.is_decimal),
)
_CARRIERS = {
    pa.float16(): pa.float32(),
    pa.date32(): pa.string(),
    pa.date64(): pa.string(),
    **{pa.duration(unit): pa.int64() for unit in ("s", "ms", "us", "ns")},
}
_NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one row. row: among those that were given."""

    row: int
    code: str
    column: str | None
    story: str


class _MisfitError(Exception):
    """Some of the lines do not fit."""


def lines_of(content: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the lines that are more than white space start and stop, without line feeds, and which of all lines,
    counted from 0, they are."""
    at = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(at == ord("\n"))
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(content)]])
    blank = starts == stops
    perhaps = np.flatnonzero(~blank)
    for line in perhaps[at[starts[perhaps]] <= ord(" ")].tolist():
        blank[line] = not content[starts[line] : stops[line]].strip(_SPACE)
    numbers = np.flatnonzero(~blank)
    return starts[numbers], stops[numbers], numbers


def unreadable_type(kind: pa.DataType) -> bool:
    """Whether no JSON is read as values of this type."""
    return _carrier(kind) is None


def decode(content: bytes, schema: pa.Schema) -> tuple[pa.Table, list[Fault]]:
    """A row for each line that is more than white space, null where there is a fault; keys that are not in `schema` are
    left alone, and those that a line lacks are null."""
    starts, stops, _ = lines_of(content)
    tables, faults, first = list[pa.Table](), list[Fault](), 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(stops, starts[first] + _PIECE_BYTES, "right")))
        table, found = _piece(content, starts[first:last], stops[first:last], schema)
        tables.append(table)
        faults += [Fault(first + one.row, one.code, one.column, one.story) for one in found]
        first = last
    return (pa.concat_tables(tables) if tables and len(schema) else _rows(schema, len(starts))), faults


def _piece(
    content: bytes, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], schema: pa.Schema
) -> tuple[pa.Table, list[Fault]]:
    at, rows = np.frombuffer(content, np.uint8), len(starts)
    # pyarrow reads on over line ends, and crashes on a first line that is `null`: each line is to begin and end as an
    # object does, so that as many rows as lines are a row for each.
    lasts = at[stops - 1]
    lasts = np.where(lasts == ord("\r"), at[np.maximum(stops - 2, starts)], lasts)
    odd = np.flatnonzero((at[starts] != ord("{")) | (lasts != ord("}")) | (stops - starts > _MOST_LINE_BYTES))
    wrong = {row for row in odd.tolist() if not _bounded(content[starts[row] : stops[row]].strip(_SPACE))}
    if not wrong:
        try:
            return _parsed(content[starts[0] : stops[-1]], rows, schema), []
        except _MisfitError:
            pass
    lines = [content[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    good, tables, faults = [row for row in range(rows) if row not in wrong], list[pa.Table](), list[Fault]()
    faults += [fault for row in sorted(wrong) if (fault := _alone(row, lines[row], schema)[1]) is not None]
    for table, fault in _halves(lines, good, schema):
        if table is not None:
            tables.append(table)
        if fault is not None:
            faults.append(fault)
    faults.sort(key=lambda fault: fault.row)
    table = pa.concat_tables(tables) if tables else _rows(schema, 0)
    if not faults:
        return table, []
    place, bad = np.full(rows, -1), {fault.row for fault in faults}
    place[[row for row in range(rows) if row not in bad]] = np.arange(rows - len(bad))
    if not len(schema):
        return _rows(schema, rows), faults
    return table.take(pa.array(place, mask=place < 0)), faults


def _bounded(line: bytes) -> bool:
    return line.startswith(b"{") and line.endswith(b"}") and len(line) <= _MOST_LINE_BYTES


def _halves(lines: Lines, rows: list[int], schema: pa.Schema) -> Iterator[tuple[pa.Table | None, Fault | None]]:
    """The rows that can be read, in order, and the faults of the others."""
    if not rows:
        return
    try:
        yield _parsed(b"\n".join([lines[row] for row in rows]), len(rows), schema), None
    except _MisfitError:
        if len(rows) == 1:
            yield _alone(rows[0], lines[rows[0]], schema)
            return
        half = len(rows) // 2
        yield from _halves(lines, rows[:half], schema)
        yield from _halves(lines, rows[half:], schema)


def _parsed(content: bytes, rows: int, schema: pa.Schema) -> pa.Table:
    """raises: _MisfitError where not each of the lines is a row that fits."""
    carriers = pa.schema([(field.name, _carrier(field.type)) for field in schema])
    try:
        table = _read(content, carriers)
    except _MisfitError as misfit:
        floats = _mapped_schema(carriers, {kind: pa.float64() for kind in _INTEGERS})
        if "couldn't parse" not in str(misfit) or floats == carriers:
            raise
        table = _read(content, floats)  # 3.0 is an integer too
        if any(_inexact(chunk, field.type) for field in carriers for chunk in table[field.name].chunks):
            raise
    if table.num_rows != rows:
        raise _MisfitError(f"{table.num_rows} objects are in {rows} lines")
    try:
        columns = [
            pa.chunked_array([_cast(chunk, field.type) for chunk in table[field.name].chunks], field.type)
            for field in schema
        ]
        made = pa.Table.from_arrays(columns, schema=schema) if columns else table.select([])
        if any(_holds(kind, _is_text) for kind in schema.types):
            made.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise _MisfitError(str(error)) from error
    _refuse_infinite(content, made)
    return made


def _read(content: bytes, schema: pa.Schema) -> pa.Table:
    read = pj.ReadOptions(use_threads=False, block_size=len(content) + 1)
    parse = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        return pj.read_json(pa.BufferReader(content), read_options=read, parse_options=parse)
    except (pa.ArrowException, ValueError) as error:
        raise _MisfitError(str(error)) from error


def _refuse_infinite(content: bytes, table: pa.Table) -> None:
    """raises: _MisfitError where a number became infinite because its type is too small: pyarrow does not say so."""
    narrow = [name for name in table.schema.names if _infinite(table[name])]
    if narrow:
        doubles = {kind: pa.float64() for kind in (pa.float16(), pa.float32())}
        kinds = [(name, _carrier(_mapped(table.schema.field(name).type, doubles))) for name in narrow]
        wide = _read(content, pa.schema(kinds))
        if any(_infinite(table[name]) != _infinite(wide[name]) for name in narrow):
            raise _MisfitError("a number is too large")


def _infinite(column: pa.ChunkedArray) -> int:
    """How many of its values of small floats are infinite."""
    return sum(
        int(np.isinf(leaf.drop_null().to_numpy(zero_copy_only=False)).sum())
        for chunk in column.chunks
        for leaf in _leaves(chunk)
        if pa.types.is_floating(leaf.type)
    )


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    if pa.types.is_struct(array.type):
        for index in range(array.type.num_fields):
            yield from _leaves(pc.struct_field(array, [index]))
    elif isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        yield from _leaves(array.flatten())
    else:
        yield array


def _inexact(array: pa.Array, kind: pa.DataType) -> bool:
    """Whether integers that were read as doubles may be others than those that stand there. kind: of the integers."""
    if pa.types.is_struct(kind):
        return any(_inexact(pc.struct_field(array, [at]), kind.field(at).type) for at in range(kind.num_fields))
    if pa.types.is_list(kind):
        return _inexact(array.flatten(), kind.value_type)
    if array.type == kind:
        return False
    return any(abs(value or 0) >= _EXACT for value in pc.min_max(array).as_py().values())


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same values. raises: ArrowInvalid where they do not fit."""
    if array.type == kind:
        return array
    if pa.types.is_struct(kind):
        fields = [_cast(pc.struct_field(array, [at]), field.type) for at, field in enumerate(kind)]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    if pa.types.is_list(kind):
        offsets = array.offsets if not array.null_count else _masked(array)
        return pa.ListArray.from_arrays(offsets, _cast(array.values, kind.value_type), type=kind)
    return array.cast(kind)


def _masked(lists: pa.ListArray) -> pa.Array:
    """The offsets of lists, null where a list is."""
    null = np.append(lists.is_null().to_numpy(zero_copy_only=False), False)
    return pa.array(lists.offsets.to_numpy(), mask=null)


def _carrier(kind: pa.DataType) -> pa.DataType | None:
    """The type that pyarrow reads values as that are to be of type `kind`; None: there is none."""
    if pa.types.is_struct(kind):
        inner = [(field.name, _carrier(field.type)) for field in kind]
        return pa.struct(inner) if all(made is not None for _, made in inner) else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        made = _carrier(kind.value_type)
        return None if made is None else pa.list_(made)
    return _CARRIERS.get(kind) or (kind if any(check(kind) for check in _READ) else None)


def _mapped_schema(schema: pa.Schema, kinds: Mapping[pa.DataType, pa.DataType]) -> pa.Schema:
    return pa.schema([(field.name, _mapped(field.type, kinds)) for field in schema])


def _mapped(kind: pa.DataType, kinds: Mapping[pa.DataType, pa.DataType]) -> pa.DataType:
    """`kind` with other types in it, those of lists any length."""
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _mapped(field.type, kinds)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_mapped(kind.value_type, kinds))
    return kinds.get(kind, kind)


def _holds(kind: pa.DataType, check: Callable[[pa.DataType], bool]) -> bool:
    """Whether a value of this type is, or holds, one that `check` means."""
    if pa.types.is_nested(kind):
        return any(_holds(kind.field(at).type, check) for at in range(kind.num_fields))
    return check(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _rows(schema: pa.Schema, rows: int) -> pa.Table:
    """Rows of nulls."""
    if not len(schema):
        return pa.table({"": pa.nulls(rows)}).select([])
    return pa.Table.from_arrays([pa.nulls(rows, kind) for kind in schema.types], schema=schema)


# Why a line is bad


def _alone(row: int, line: bytes, schema: pa.Schema) -> tuple[pa.Table | None, Fault | None]:
    """A line that pyarrow does not read: its row, if only what nobody reads is at fault; else what is wrong with it."""
    line = line.rstrip(_SPACE)
    shown = excerpt(line.lstrip(_SPACE).decode(errors="replace"))

    def fault(code: str, story: str, column: str | None = None) -> tuple[None, Fault]:
        return None, Fault(row, code, column, story)

    if len(line) > _MOST_LINE_BYTES:
        return fault("ROW_TOO_BIG", f"{len(line):,} bytes; up to {_MOST_LINE_BYTES:,} are read")
    try:
        pairs = loaded(line, pairs=True)
    except UnicodeDecodeError as error:
        return fault("ROW_UTF8", f"byte {error.start + 1} is no UTF-8: {shown}")
    except json.JSONDecodeError as error:
        return fault("ROW_JSON", f"no JSON, at column {error.colno}: {error.msg}: {shown}")
    except ValueError as error:
        return fault("ROW_JSON", f"no JSON: {error}: {shown}")
    if not isinstance(pairs, Pairs):
        return fault("ROW_JSON", f"no JSON object: {shown}")
    wanted = frozenset(schema.names)
    names = Counter(name for name, _ in pairs.items if name in wanted)
    if twice := next((name for name, count in names.items() if count > 1), None):
        return fault("ROW_JSON", f"{names[twice]} values of one name: {shown}", twice)
    values = {name: value for name, value in pairs.items if name in names}
    read = json.dumps(values, default=_plain).encode()
    try:
        return _parsed(read, 1, schema), None
    except _MisfitError as misfit:
        alone = {name: json.dumps({name: value}, default=_plain).encode() for name, value in values.items()}
        bad = next((field for field in schema if field.name in alone and not _fits(alone[field.name], field)), None)
        if bad is None:
            return fault("ROW_JSON", f"no JSON as pyarrow reads it: {one_line(misfit)}: {shown}")
        return None, _misfit(row, alone[bad.name], bad, values[bad.name])


def _fits(line: bytes, field: pa.Field) -> bool:
    try:
        _parsed(line, 1, pa.schema([field]))
    except _MisfitError:
        return False
    return True


def _misfit(row: int, line: bytes, field: pa.Field, value: Any) -> Fault:
    """Down to the field that is at fault."""
    way, kind = [field.name], field.type
    if not _is_utf8(json.dumps(value, ensure_ascii=False, default=_plain)):
        shown = excerpt(json.dumps(value, default=_plain))
        return Fault(row, "ROW_UTF8", field.name, f"half of a surrogate pair is no character: {shown}")
    while pa.types.is_struct(kind) and isinstance(value, Pairs):
        bad = next((inner for inner in kind if not _fits(line, _only(way, inner))), None)
        if bad is None:
            break
        way, kind, value = [*way, bad.name], bad.type, dict(value.items).get(bad.name)
    found, code = excerpt(json.dumps(value, ensure_ascii=False, default=_plain)), "ROW_TYPE"
    if isinstance(value, Huge):
        return Fault(row, "ROW_OVERFLOW", field.name, f"found {excerpt(value.text)}; expected {text_of(kind)}")
    if isinstance(value, int | float) and not isinstance(value, bool) and any(check(kind) for check in _NUMERIC):
        fraction = not pa.types.is_floating(kind) and math.isfinite(value) and value != int(value)
        code = "ROW_INEXACT" if fraction else "ROW_OVERFLOW"
    elif pa.types.is_fixed_size_list(kind) and isinstance(value, list) and len(value) != kind.list_size:
        code = "ROW_SHAPE"
    where = f"{'.'.join(way)!r}: " * (len(way) > 1)
    return Fault(row, code, field.name, f"{where}found {found}; expected {text_of(kind)}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _only(way: Sequence[str], field: pa.Field) -> pa.Field:
    """A column of structs with that field alone at the end of `way`."""
    for name in reversed(way):
        field = pa.field(name, pa.struct([field]))
    return field


def _plain(value: Any) -> object:
    """Of what `loaded` makes of pairs and large numbers: a value that is refused where it was to be."""
    if isinstance(value, Pairs):
        names = [name for name, _ in value.items]
        return dict(value.items) if len({*names}) == len(names) else _TWICE
    return value.text


def excerpt(text: str) -> str:
    """As much of a text as fits into a message."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: _EXCERPT + 1])
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "..."
