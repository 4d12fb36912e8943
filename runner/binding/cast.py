"""Values of one Arrow type -> the carrier of one TensorFlow dtype: what is allowed, and the conversion itself.

Knows nothing of rows, lists or nulls. The invariant: without `unsafe` no value changes; what the types alone
cannot promise is checked value by value, and the caller learns which values failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from runner.tensor import AS_BITS, DTYPES, NARROW, Array, bits_of, carrier, integer_range, natural, values_of

How = Literal["same", "exact", "range", "finite", "lossless", "unsafe"]

# Bits of the significand: integers up to 2**bits are exact.
_SIGNIFICAND = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
_FLOATS = ("float16", "float32", "float64")
_PARTS = {"complex64": "float32", "complex128": "float64"}

# The Arrow type that feeds a dtype as it is; what a message recommends and an output becomes.
NATURAL: dict[str, pa.DataType] = {
    **{name: getattr(pa, name)() for name in ("float32", "float64", "int8", "int16", "int32", "int64")},
    **{name: getattr(pa, name)() for name in ("uint8", "uint16", "uint32", "uint64", "float16")},
    "bool": pa.bool_(),
    "string": pa.binary(),
    "bfloat16": pa.float32(),
    "qint8": pa.int8(),
    "quint8": pa.uint8(),
    "qint16": pa.int16(),
    "quint16": pa.uint16(),
    "qint32": pa.int32(),
    **{name: pa.from_numpy_dtype(natural(name)) for name in sorted(NARROW)},
    **{
        name: pa.struct([pa.field("re", part(), nullable=False), pa.field("im", part(), nullable=False)])
        for name, part in (("complex64", pa.float32), ("complex128", pa.float64))
    },
}


_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)


@dataclass(frozen=True)
class Cast:
    """A conversion that was agreed on. `how` says what the types promise; see `agree`."""

    dtype: str
    how: How
    parts: tuple[Cast, ...] = ()  # of a complex number: re, im

    @property
    def code(self) -> str:
        """Of the DataError where values fail."""
        return "ROW_INEXACT" if self.how == "lossless" else "ROW_OVERFLOW"

    def apply(self, values: pa.Array) -> tuple[Array, Array | None]:
        """Convert.

        values:  of the agreed type, without nulls; not for strings.
        returns: carrier array (len(values),), and where values cannot be represented a mask of them, else None.
        cost:    a view for 'same', one copy otherwise; bool always a copy.
        """
        if pa.types.is_struct(values.type):
            return self._complex(values)
        return self._plain(as_numpy(values))

    def _plain(self, values: Array) -> tuple[Array, Array | None]:
        if self.how == "same":
            return values, None
        with np.errstate(all="ignore"):  # an overflow is found below, or is wanted
            converted = values.astype(natural(self.dtype))
            carried = bits_of(converted, self.dtype)
        if self.how == "range":
            return carried, _any(_outside(values, self.dtype))
        if self.how == "finite":
            return carried, _any(np.isinf(converted) & np.isfinite(values))
        if self.how == "lossless":
            held = values_of(carried, self.dtype)
            return carried, _any((held != values) & ~(np.isnan(held) & np.isnan(values)))
        return carried, None

    def _complex(self, values: pa.StructArray) -> tuple[Array, Array | None]:
        converted = np.empty(len(values), carrier(self.dtype))
        failed = np.zeros(len(values), np.bool_)
        for name, target, cast in zip(("re", "im"), (converted.real, converted.imag), self.parts, strict=True):
            target[:], bad = cast.apply(values.field(name))
            if bad is not None:
                failed |= bad
        return converted, _any(failed)


def agree(source: pa.DataType, dtype: str, unsafe: bool) -> Cast | None:
    """How values of the Arrow type `source` become `dtype`; None: not at all, or only by an unsafe cast.

    Lossless by type: 'same', 'exact'. Lossless if each value is: 'range' (integers into narrower ones), 'finite'
    (floats into narrower ones: rounding is what such a tensor asks for, a new infinity is not), 'lossless' (exact
    values only, for bfloat16 and floats of 8 or 4 bits). 'unsafe' is what NumPy's `astype` does. Strings, dates and
    decimals never become numbers.
    """
    if dtype == "string":
        return Cast(dtype, "same") if is_text(source) else None
    if dtype not in DTYPES:
        return None
    if pa.types.is_struct(source):
        return _agree_complex(source, dtype, unsafe)
    if pa.types.is_boolean(source) or pa.types.is_integer(source) or pa.types.is_floating(source):
        return _agree_numeric(np.dtype(source.to_pandas_dtype()), dtype, unsafe)
    return None


def _agree_numeric(source: np.dtype[Any], dtype: str, unsafe: bool) -> Cast | None:
    target = natural(dtype)
    if dtype in AS_BITS and target.kind == "f":
        how: How | None = "lossless" if source.kind == "f" else _integers_fit(source, dtype)
    elif dtype in AS_BITS:
        how = "range" if source.kind in "iu" else None
    elif source == target:
        how = "same"
    elif source.kind in "iu" and target.kind in "iu":
        how = "exact" if np.can_cast(source, target, "safe") else "range"
    elif source.kind in "iu" and dtype in _FLOATS:
        how = _integers_fit(source, dtype)
    elif source.kind == "f" and dtype in _FLOATS:
        how = "exact" if source.itemsize < target.itemsize else "finite"
    else:
        how = None
    if unsafe and how != "same":
        return Cast(dtype, "exact" if how == "exact" else "unsafe")
    return Cast(dtype, how) if how else None


def advice(source: pa.DataType, dtype: str) -> str:
    """What to do about a type that `agree` refused."""
    types = pa.types
    if types.is_temporal(source) or types.is_decimal(source):
        return f"convert the column to {NATURAL[dtype]} before the job"
    if types.is_struct(source) and dtype not in _PARTS:
        names = [source.field(index).name for index in range(source.num_fields)]
        return f"name the field that is meant, as COLUMN.FIELD (it has {', '.join(map(repr, names[:10]))})"
    if agree(source, dtype, unsafe=True):
        return f"expected {NATURAL[dtype]}, a type that fits into it without loss, or 'cast: unsafe'"
    return f"expected {'string or binary' if dtype == 'string' else NATURAL[dtype]}"


def is_text(source: pa.DataType) -> bool:
    """Strings and bytes in any layout."""
    return any(check(source) for check in _TEXT)


def as_numpy(values: pa.Array) -> Array:
    """A primitive array without nulls as NumPy: a view, except for bool, whose bits become bytes."""
    if pa.types.is_boolean(values.type):
        return as_numpy(values.cast(pa.uint8())).view(np.bool_)
    # Not `to_numpy`: pyarrow imports pandas for it, where there is one, and that takes half a second.
    dtype = np.dtype(values.type.to_pandas_dtype())
    data = values.buffers()[1]
    if data is None or not len(values):
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype, len(values), values.offset * dtype.itemsize)


def as_arrow(values: Array) -> pa.Array:
    """A contiguous primitive array as Arrow: a view, except for bool, whose bytes become bits."""
    # Not `pa.array`: it imports pandas, as `to_numpy` does.
    if values.dtype == np.bool_:
        return pa.Array.from_buffers(
            pa.bool_(), len(values), [None, pa.py_buffer(np.packbits(values, bitorder="little"))]
        )
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def _agree_complex(source: pa.StructType, dtype: str, unsafe: bool) -> Cast | None:
    fields = {source.field(index).name: source.field(index).type for index in range(source.num_fields)}
    if dtype not in _PARTS or set(fields) != {"re", "im"} or source.num_fields != 2:
        return None
    casts = [agree(fields[name], _PARTS[dtype], unsafe) for name in ("re", "im")]
    parts = tuple(cast for cast in casts if cast is not None)
    return Cast(dtype, "unsafe" if unsafe else "finite", parts) if len(parts) == 2 else None


def _integers_fit(source: np.dtype[Any], dtype: str) -> How | None:
    if source.kind not in "iu":
        return None
    return "exact" if np.iinfo(source).max <= 2 ** _SIGNIFICAND.get(dtype, 0) else None


def _outside(values: Array, dtype: str) -> Array:
    # The bounds are cut to the source's own range: NumPy compares no number with one its dtype cannot hold.
    own, (least, most) = np.iinfo(values.dtype), integer_range(dtype)
    low, high = max(int(own.min), least), min(int(own.max), most)
    outside: Array = (values < low) | (values > high)
    return outside


def _any(mask: Array) -> Array | None:
    return mask if mask.any() else None
