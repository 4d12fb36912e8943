"""Arrays of NumPy as columns: what a dtype becomes in Arrow, and rows of bytes as such a column.

Owns types and values; refuses to know files. The first axis is that of the rows, the others are a tensor. Nothing is
ever unpickled. The invariant: a value is the one that NumPy has, or its row is bad; pyarrow (26.0) cuts bytes
and text off at their first NUL, and takes days beyond 32 bits for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.lib.format as npy
import pyarrow as pa

MAGIC = b"\x93NUMPY"

_UNITS = {**dict.fromkeys("YMWD", "D"), **dict.fromkeys("hms", "s"), "ms": "ms", "us": "us", "ns": "ns"}
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_SPAN = "expected one that fits"


class UnreadableError(Exception):
    """An array, or a type, that makes no column. code: of the file that it is read of."""

    def __init__(self, found: str, code: str = "FILE_UNSUPPORTED") -> None:
        super().__init__(found)
        self.code = code


class Layout(NamedTuple):
    """What the header of an array says. start: where its values begin. by_columns: the rows are the fastest axis."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    by_columns: bool = False

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        count = self.dtype.itemsize
        for axis in self.shape[1:]:
            count *= axis
        return count

    @property
    def stop(self) -> int:
        return self.start + self.rows * self.row_bytes

    def ranges(self, first: int, stop: int) -> list[tuple[int, int]]:
        """Where rows lie: one behind the other, or, in Fortran order, a piece of each column."""
        size = self.dtype.itemsize if self.by_columns else self.row_bytes
        columns = self.row_bytes // max(1, size)
        starts = (self.start + column * self.rows * size for column in range(columns if self.by_columns else 1))
        return [(start + first * size, start + stop * size) for start in starts]


def read_layout(file: Any) -> Layout:
    """The header of an array, from where `file` stands. raises: UnreadableError; ValueError where it is no header."""
    version = npy.read_magic(file)
    if version not in _READERS:
        raise UnreadableError(f"of version {'.'.join(map(str, version))} of the format; 1.0 and 2.0 are read")
    shape, by_columns, dtype = _READERS[version](file)
    if dtype.hasobject:
        raise UnreadableError("of pickled objects: to read them would be to run their code", "FILE_PICKLE")
    if not shape:
        raise UnreadableError("a single value, without rows")
    return Layout(dtype, shape, file.tell(), by_columns and len(shape) > 1)


def field_of(name: str, dtype: np.dtype[Any], inner: Sequence[int] = ()) -> pa.Field:
    """The column of an array. inner: its shape without the rows. raises: UnreadableError."""
    if dtype.subdtype is not None:
        base, more = dtype.subdtype
        return field_of(name, base, (*inner, *more))
    kind, nullable = _leaf(dtype)
    if inner and nullable is False and pa.types.is_primitive(kind) and not pa.types.is_boolean(kind):
        return pa.field(name, pa.fixed_shape_tensor(kind, list(inner)), nullable=False)
    for axis in reversed(inner):
        kind, nullable = pa.list_(pa.field("item", kind, nullable), axis), False
    return pa.field(name, kind, nullable)


def _leaf(dtype: np.dtype[Any]) -> tuple[pa.DataType, bool]:
    """The type of one value, and whether it may be null."""
    kind, size = dtype.kind, dtype.itemsize
    if dtype.names is not None:
        return pa.struct([field_of(name, dtype[name]) for name in dtype.names]), False
    if kind in "iub" or (kind == "f" and size <= 8):
        return pa.from_numpy_dtype(dtype.newbyteorder("=")), False
    if kind == "c" and size <= 16:
        part = pa.float32() if size == 8 else pa.float64()
        return pa.struct([pa.field("re", part, nullable=False), pa.field("im", part, nullable=False)]), False
    if kind in "SU":
        return (pa.binary() if kind == "S" else pa.string()), False
    if kind == "V":
        return pa.binary(size), False
    if kind in "Mm" and (unit := _unit(dtype)):
        return (pa.date32() if unit == "D" else pa.timestamp(unit) if kind == "M" else pa.duration(unit)), True
    raise UnreadableError(f"of dtype {dtype}, which Arrow has not")


def _unit(dtype: np.dtype[Any]) -> str:
    """The unit that holds all of a time; "": none does. Durations of days are counted in seconds."""
    unit, _ = np.datetime_data(dtype)
    found = _UNITS.get(unit, "")
    if dtype.kind == "m":
        return "" if unit in ("Y", "M") else found.replace("D", "s")
    return found


class Column(NamedTuple):
    """values: of all rows, null where one is bad. bad: row -> what it is."""

    values: pa.Array
    bad: dict[int, str]


def column_of(content: bytes, layout: Layout, rows: int, of: str = "") -> Column:
    """content: of so many rows, as `Layout.ranges` finds them. of: a field. raises: ValueError where it is not."""
    shape = (rows, *layout.shape[1:])
    if layout.dtype.itemsize:
        array = np.frombuffer(content, layout.dtype).reshape(shape, order="F" if layout.by_columns else "C")
    else:
        array = np.zeros(shape, layout.dtype)
    bad: dict[int, str] = {}
    return Column(_column(array[of] if of else array, bad), bad)


def _column(array: Any, bad: dict[int, str]) -> pa.Array:
    """array: (rows, ...)."""
    rows, inner = len(array), array.shape[1:]
    flat = array.reshape(-1)
    per_row = len(flat) // max(1, rows)
    values = _values(flat, per_row, bad)
    field = field_of("", array.dtype, inner)
    if isinstance(field.type, pa.FixedShapeTensorType):
        storage = _lists(values, [per_row], rows, field.type.storage_type.value_field)
        return pa.ExtensionArray.from_storage(field.type, storage.cast(field.type.storage_type))
    inside = pa.field("item", *_leaf(array.dtype))
    return _lists(values, inner, rows, inside)


def _lists(values: pa.Array, inner: Sequence[int], rows: int, field: pa.Field) -> pa.Array:
    """Lists of fixed sizes around values."""
    counts = [rows]
    for axis in inner:
        counts.append(counts[-1] * axis)
    for axis, count in zip(reversed(inner), reversed(counts[:-1]), strict=True):
        kind = pa.list_(field, axis)
        values = pa.Array.from_buffers(kind, count, [None], children=[values])
        field = pa.field("item", kind, nullable=False)
    return values


def _values(flat: Any, per_row: int, bad: dict[int, str]) -> pa.Array:
    """flat: (values,). per_row: of them."""
    dtype = flat.dtype
    if dtype.names is not None:
        parts = [_column(flat[name], bad) for name in dtype.names]
        return pa.StructArray.from_arrays(parts, fields=list(_leaf(dtype)[0]))
    if dtype.kind in "iubfc":
        native = np.ascontiguousarray(flat.astype(dtype.newbyteorder("="), copy=False))
        if dtype.kind == "c":
            parts = [pa.array(np.ascontiguousarray(part)) for part in (native.real, native.imag)]
            return pa.StructArray.from_arrays(parts, fields=list(_leaf(dtype)[0]))
        return pa.array(native)
    if dtype.kind in "SU":
        return pa.array(flat.tolist(), _leaf(dtype)[0])
    if dtype.kind == "V":
        return pa.Array.from_buffers(pa.binary(dtype.itemsize), len(flat), [None, pa.py_buffer(flat.tobytes())])
    return _times(flat, per_row, bad)


def _times(flat: Any, per_row: int, bad: dict[int, str]) -> pa.Array:
    unit, kind = _unit(flat.dtype), flat.dtype.kind
    missing = np.isnat(flat)
    with np.errstate(all="ignore"):
        numbers = np.where(missing, np.zeros(1, flat.dtype), flat).astype(f"{kind}8[{unit}]")
    wrong = (numbers.astype(flat.dtype) != flat) & ~missing
    numbers = numbers.view(np.int64)
    if unit == "D":
        wrong |= numbers != numbers.astype(np.int32)
    for at in np.flatnonzero(wrong).tolist():
        bad.setdefault(at // max(1, per_row), f"found a time that is {flat[at].astype(np.int64)} {flat.dtype}; {_SPAN}")
    mask = missing | wrong
    if unit == "D":
        return pa.array(numbers.astype(np.int32), pa.int32(), mask=mask).cast(pa.date32())
    return pa.array(numbers, pa.int64(), mask=mask).cast(_leaf(flat.dtype)[0])
