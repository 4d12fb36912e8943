"""Values of one Arrow type -> the carrier of one TensorFlow dtype: what is allowed, and the conversion itself.

Knows nothing of rows, lists or nulls. The invariant: without `unsafe` no value changes; what the types alone
cannot promise is checked value by value, and the caller learns which values failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.formats.widening import common_type, is_mixed, members
from jobs.job import CastRule, TimeUnit
from runner.tensor import AS_BITS, DTYPES, NARROW, Array, bits_of, carrier, integer_range, natural, type_text, values_of

How = Literal["same", "exact", "range", "finite", "lossless", "nearest", "unsafe"]

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

_NOTES: dict[How, str] = {
    "same": "",
    "exact": "widened",
    "range": "each value is checked to fit",
    "finite": "rounded; a value that would become infinite is an error",
    "lossless": "exact values only",
    "nearest": "rounded to the nearest; a value that would become infinite is an error",
    "unsafe": "cast: unsafe",
}

_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, *_BYTES)


@dataclass(frozen=True)
class Failed:
    """Values that could not be converted.

    code: of the error. mask: (values,) which. holds: what stands there. expected: what should.
    """

    code: Literal["ROW_INEXACT", "ROW_OVERFLOW"]
    mask: Array
    holds: str
    expected: str = "expected one that fits, or 'cast: unsafe'"


class Reading(Protocol):
    """How values that are no numbers of NumPy become some."""

    def apply(self, values: pa.Array) -> tuple[Array, Failed | None]: ...

    @property
    def note(self) -> str:
        """For people: what the numbers are."""
        ...

    def document(self) -> dict[str, Any]:
        """For the plan: what decides the numbers, as plain JSON values."""
        ...


@dataclass(frozen=True)
class Cast:
    """A conversion that was agreed on. `how` says what the types promise; see `agree`."""

    dtype: str
    how: How
    parts: tuple[Cast, ...] = ()  # of a complex number: re, im
    reading: Reading | None = None  # of times and decimals: what comes before
    kinds: tuple[tuple[pa.DataType, Cast], ...] = ()  # of a mixed type: of each of its members

    def of(self, kind: pa.DataType) -> Cast:
        """The conversion of values of one member, where the type that was agreed on is mixed."""
        return next((cast for member, cast in self.kinds if member == kind), self)

    def document(self) -> dict[str, Any]:
        """For the plan: what decides the values that come out, as plain JSON values."""
        said = self.how if self.how in ("nearest", "unsafe") else "safe"
        readings = [cast.reading.document() for cast in (self, *(cast for _, cast in self.kinds)) if cast.reading]
        return {"cast": said} | dict(item for reading in readings for item in reading.items())

    @property
    def note(self) -> str:
        """For people: what is done to the values, "" where nothing is."""
        if len({member.note for _, member in self.kinds}) > 1:
            return ", ".join(f"{type_text(kind)}: {member.note or 'as it is'}" for kind, member in self.kinds)
        if self.kinds:
            return self.kinds[0][1].note
        return "; ".join(filter(None, (self.reading.note if self.reading else "", _NOTES[self.how])))

    def apply(self, values: pa.Array) -> tuple[Array, Failed | None]:
        """Convert. A mixed type: see `of`.

        values:  of the agreed type, without nulls; not for strings.
        returns: carrier array (len(values),), and which values cannot be represented, None where all can. Of two
                 reasons only one is told; the others are found when those values are gone.
        cost:    a view for 'same', one copy otherwise; bool always a copy.
        """
        if pa.types.is_struct(values.type):
            return self._complex(values)
        if self.reading is None:
            return self._plain(as_numpy(values))
        numbers, unread = self.reading.apply(values)
        array, failed = self._plain(numbers)
        return array, unread or failed

    def _plain(self, values: Array) -> tuple[Array, Failed | None]:
        if self.how == "same":
            return values, None
        with np.errstate(all="ignore"):  # an overflow is found below, or is wanted
            converted = values.astype(natural(self.dtype))
            carried = bits_of(converted, self.dtype)
        if self.how == "range":
            return carried, self._failed("ROW_OVERFLOW", _outside(values, self.dtype))
        if self.how == "finite":
            return carried, self._failed("ROW_OVERFLOW", np.isinf(converted) & np.isfinite(values))
        if self.how == "nearest":
            held = values_of(carried, self.dtype)
            return carried, self._failed("ROW_OVERFLOW", ~np.isfinite(held) & np.isfinite(values))
        if self.how == "lossless":
            return carried, self._failed("ROW_INEXACT", _changed(values, values_of(carried, self.dtype)))
        return carried, None

    def _failed(self, code: Literal["ROW_INEXACT", "ROW_OVERFLOW"], mask: Array) -> Failed | None:
        if not mask.any():
            return None
        exactly = " exactly" if code == "ROW_INEXACT" else ""
        return Failed(code, mask, f"a value that {self.dtype} cannot hold{exactly}")

    def _complex(self, values: pa.StructArray) -> tuple[Array, Failed | None]:
        converted = np.empty(len(values), carrier(self.dtype))
        wrong = np.zeros(len(values), np.bool_)
        for name, target, cast in zip(("re", "im"), (converted.real, converted.imag), self.parts, strict=True):
            target[:], failed = cast.apply(values.field(name))
            if failed is not None:
                wrong |= failed.mask
        return converted, self._failed("ROW_INEXACT" if self.how == "lossless" else "ROW_OVERFLOW", wrong)


def agree(source: pa.DataType, dtype: str, rule: CastRule, unit: TimeUnit | None = None) -> Cast | None:
    """How values of the Arrow type `source` become `dtype`; None: not at all, or only by another rule.

    Lossless by type: 'same', 'exact'. Lossless if each value is: 'range' (integers into narrower ones), 'finite'
    (floats into narrower ones: rounding is what such a tensor asks for, a new infinity is not), 'lossless' (exact
    values only: integers in floats, and what becomes bfloat16 or a float of 8 or 4 bits). 'nearest' rounds to a float,
    but to no infinity. 'unsafe' is what NumPy's `astype` does. Times become numbers where there is a `unit`; strings
    never do.
    """
    if is_mixed(source):
        return _agree_mixed(members(source), dtype, rule, unit)
    if dtype == "string":
        return Cast(dtype, "same") if is_text(source) else None
    if dtype not in DTYPES:
        return None
    if pa.types.is_struct(source):
        return _agree_complex(source, dtype, rule)
    if is_time(source):
        return None if unit is None else _agree_time(source, dtype, rule, unit)
    if pa.types.is_decimal(source):
        return _agree_decimal(source, dtype, rule)
    if pa.types.is_boolean(source) or pa.types.is_integer(source) or pa.types.is_floating(source):
        return _agree_numeric(np.dtype(source.to_pandas_dtype()), dtype, rule)
    return None


def _agree_mixed(kinds: Sequence[pa.DataType], dtype: str, rule: CastRule, unit: TimeUnit | None) -> Cast | None:
    """Each file's values in their own way. Beside integers, floats may become some too: whole numbers are meant."""
    whole = any(map(pa.types.is_integer, kinds)) and dtype in DTYPES and natural(dtype).kind in "iu"
    casts = dict[pa.DataType, Cast]()
    for kind in kinds:
        cast = agree(kind, dtype, rule, unit)
        if cast is None and whole and pa.types.is_floating(kind):
            cast = Cast(dtype, "lossless")
        if cast is None:
            return None
        casts[kind] = cast
    hows = {cast.how for cast in casts.values()}
    loose: list[How] = [how for how in ("unsafe", "nearest") if how in hows]
    how = hows.pop() if len(hows) == 1 else loose[0] if loose else "lossless"
    return Cast(dtype, how, kinds=tuple(casts.items()))


def _agree_numeric(source: np.dtype[Any], dtype: str, rule: CastRule) -> Cast | None:
    target = natural(dtype)
    if rule == "nearest" and source.kind in "iuf" and target.kind == "f":
        safe = _agree_numeric(source, dtype, "safe")
        return safe if safe is not None and safe.how in ("same", "exact", "finite") else Cast(dtype, "nearest")
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
    if rule == "unsafe" and how != "same":
        return Cast(dtype, "exact" if how == "exact" else "unsafe")
    return Cast(dtype, how) if how else None


def _agree_time(source: pa.DataType, dtype: str, rule: CastRule, unit: TimeUnit) -> Cast | None:
    if natural(dtype).kind not in "iuf":
        return None
    per_unit = Fraction(_TICKS[_tick(source)], _TICKS[unit])
    parts = rule != "safe" and natural(dtype).kind == "f"
    reading = Ticks(per_unit.numerator, per_unit.denominator, unit, parts, parts or rule == "unsafe")
    cast = _agree_numeric(np.dtype(np.float64 if parts and per_unit < 1 else np.int64), dtype, rule)
    return Cast(dtype, cast.how if cast else "lossless", reading=reading)


def _agree_decimal(source: pa.DataType, dtype: str, rule: CastRule) -> Cast | None:
    target = natural(dtype)
    if target.kind in "iu" and source.scale >= 0:
        wide = np.dtype(np.uint64 if dtype == "uint64" else np.int64)
        cast = _agree_numeric(wide, dtype, rule)
        return cast and Cast(dtype, cast.how, reading=WholeDecimals(wide.name, rule == "unsafe"))
    if target.kind != "f":
        return None
    if source.scale == 0 and 10**source.precision <= 2 ** _SIGNIFICAND.get(dtype, 0):
        return Cast(dtype, "exact", reading=Decimals())
    if rule == "safe":
        return None
    how = _agree_numeric(np.dtype(np.float64), dtype, rule)
    return how and Cast(dtype, "nearest" if rule == "nearest" else "unsafe", reading=Decimals())


def advice(source: pa.DataType, dtype: str, name: str = "") -> str:
    """What to do about a type that `agree` refused. name: of the input whose rule in the job may help; "": none may."""
    source, types = common_type(source), pa.types
    if types.is_temporal(source) or types.is_decimal(source):
        key = ""
        if name and is_time(source) and agree(source, dtype, "safe", "s"):
            key = f"timestamp: {_tick(source)}"
            meaning = "in which unit they become numbers"
        elif name and types.is_decimal(source) and agree(source, dtype, "nearest"):
            key, meaning = "cast: nearest", "that they become the nearest float"
        if key:
            return f"say {meaning}: `inputs: {{{name}: {{column: ..., {key}}}}}`"
        return f"convert the column to {NATURAL[dtype]} before the job"
    if types.is_struct(source) and dtype not in _PARTS:
        names = [source.field(index).name for index in range(source.num_fields)]
        return f"name the field that is meant, as COLUMN.FIELD (it has {', '.join(map(repr, names[:10]))})"
    rules: tuple[CastRule, ...] = ("nearest", "unsafe")
    helps = [f"'cast: {rule}'" for rule in rules if agree(source, dtype, rule)]
    if helps:
        return f"expected {NATURAL[dtype]}, a type that fits into it without loss, or {' or '.join(helps)}"
    return f"expected {'string or binary' if dtype == 'string' else NATURAL[dtype]}"


# Nanoseconds of a tick.
_TICKS: dict[TimeUnit, int] = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "d": 86_400 * 10**9}


def is_time(source: pa.DataType) -> bool:
    """Timestamps, dates, times and durations: whole ticks of one length since something."""
    return bool(pa.types.is_temporal(source) and not pa.types.is_interval(source))


def _tick(source: pa.DataType) -> TimeUnit:
    if pa.types.is_date(source):
        return "d" if pa.types.is_date32(source) else "ms"
    unit: TimeUnit = source.unit
    return unit


@dataclass(frozen=True)
class Ticks:
    """Times, as numbers of another unit: since 1970 (of zoned ones: in UTC), since midnight, or of their length.

    times, per: a tick is so many, divided by so many, of the unit. parts: a number may have a fraction.
    cut: what is below the unit may be lost.
    """

    times: int
    per: int
    unit: TimeUnit
    parts: bool
    cut: bool

    @property
    def note(self) -> str:
        return f"in {self.unit}"

    def document(self) -> dict[str, Any]:
        return {"timestamp": self.unit, "cut": self.cut}

    def apply(self, values: pa.Array) -> tuple[Array, Failed | None]:
        ticks = as_numpy(values.view(pa.int32() if values.type.bit_width == 32 else pa.int64())).astype(np.int64)
        if self.per > 1:
            if self.parts:
                return ticks / self.per, None
            whole, rest = np.divmod(ticks, self.per)
            if self.cut or not rest.any():
                return whole, None
            expected = (
                f"expected whole {self.unit}: a finer 'timestamp:' holds all of it, or 'cast: unsafe' cuts it off"
            )
            return whole, Failed("ROW_INEXACT", rest != 0, f"a time with digits below 1 {self.unit}", expected)
        most = (2**63 - 1) // self.times
        beyond = (ticks > most) | (ticks < -most)
        if self.times == 1 or not beyond.any():
            return ticks * self.times, None
        expected = f"expected one that 64 bits hold in {self.unit}: a coarser 'timestamp:' reaches farther"
        return ticks * self.times, Failed("ROW_OVERFLOW", beyond, f"a time beyond what {self.unit} reach", expected)


@dataclass(frozen=True)
class WholeDecimals:
    """Decimals without a fraction, as integers. cut: others too, and those that do not fit."""

    dtype: str  # the widest that is needed
    cut: bool
    note = "whole numbers only"

    def document(self) -> dict[str, Any]:
        return {"decimal": "whole", "cut": self.cut}

    def apply(self, values: pa.Array) -> tuple[Array, Failed | None]:
        if values.type.bit_width < 128:  # for which pyarrow (26.0) cannot do what is done below
            values = values.cast(pa.decimal128(38, values.type.scale))
        kind = (pa.decimal128 if values.type.bit_width == 128 else pa.decimal256)(values.type.precision, 0)
        whole = values.cast(kind, safe=False)  # what is behind the point is cut off
        wide = NATURAL[self.dtype]
        integers = as_numpy(whole.cast(wide, safe=False))
        if self.cut:
            return integers, None
        broken = as_numpy(pc.not_equal(pc.trunc(values), values))
        if broken.any():
            expected = "expected whole numbers, or 'cast: unsafe', which cuts the rest off"
            return integers, Failed("ROW_INEXACT", broken, "a decimal with digits behind the point", expected)
        lost = as_numpy(pc.not_equal(as_arrow(integers).cast(pa.decimal128(20, 0)), whole))
        if lost.any():
            return integers, Failed("ROW_OVERFLOW", lost, f"a value that {self.dtype} cannot hold")
        return integers, None


@dataclass(frozen=True)
class Decimals:
    """Decimals, each as the float64 that is nearest to it."""

    note = ""

    def document(self) -> dict[str, Any]:
        return {"decimal": "nearest"}

    def apply(self, values: pa.Array) -> tuple[Array, Failed | None]:
        # By way of text: pyarrow (26.0) itself gives the second nearest for one value in eight.
        return as_numpy(values.cast(pa.string()).cast(pa.float64())), None


def is_text(source: pa.DataType) -> bool:
    """Strings and bytes in any layout."""
    return any(check(source) for check in _TEXT)


def is_raw(source: pa.DataType, dtype: str) -> bool:
    """Bytes that are the values of a row, one after another. They can mean nothing else to such a tensor."""
    return dtype in ("uint8", "int8") and any(check(source) for check in _BYTES)


def unheld(values: pa.Array, kind: pa.DataType, first: int = 0) -> list[int]:
    """The rows, counted from `first`, whose value another type cannot hold as it is: `values.cast(kind)` fails of them.

    cost: one cast where there is none; each such row costs some more.
    """
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        half = len(values) // 2
        if not half:
            return [first]
        # Not slices: a list would be cast with all that lies beside it.
        parts = [values.take(pa.array(range(*span), pa.int64())) for span in ((0, half), (half, len(values)))]
        return unheld(parts[0], kind, first) + unheld(parts[1], kind, first + half)
    return []


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


def _agree_complex(source: pa.StructType, dtype: str, rule: CastRule) -> Cast | None:
    fields = {source.field(index).name: source.field(index).type for index in range(source.num_fields)}
    if dtype not in _PARTS or set(fields) != {"re", "im"} or source.num_fields != 2:
        return None
    casts = [agree(fields[name], _PARTS[dtype], rule) for name in ("re", "im")]
    parts = tuple(cast for cast in casts if cast is not None)
    how: How = (
        "unsafe" if rule == "unsafe" else "lossless" if any(cast.how == "lossless" for cast in parts) else "finite"
    )
    return Cast(dtype, how, parts) if len(parts) == 2 else None


def _integers_fit(source: np.dtype[Any], dtype: str) -> How | None:
    if source.kind not in "iu":
        return None
    return "exact" if np.iinfo(source).max <= 2 ** _SIGNIFICAND.get(dtype, 0) else "lossless"


def _changed(values: Array, held: Array) -> Array:
    """(len(values),) where what is held is not the value; NaN is one of floats."""
    # NumPy compares integers with floats as float64, in which 2**53 + 1 is 2**53: compared as integers instead.
    if values.dtype.kind in "iu":
        floats = held.astype(np.float64)
        within = _within(floats, values.dtype)
        changed: Array = ~within | (np.where(within, floats, 0).astype(values.dtype) != values)
    elif held.dtype.kind in "iu":
        changed = ~_within(values.astype(np.float64), held.dtype) | (held.astype(np.float64) != values)
    else:
        changed = (held != values) & ~(np.isnan(held) & np.isnan(values))
    return changed


def _within(floats: Array, dtype: np.dtype[Any]) -> Array:
    """Where a float64 lies in the range of integers; both ends are exact, the upper one is left out."""
    limits = np.iinfo(dtype)
    within: Array = (floats >= float(limits.min)) & (floats < float(int(limits.max) + 1))
    return within


def _outside(values: Array, dtype: str) -> Array:
    # The bounds are cut to the source's own range: NumPy compares no number with one its dtype cannot hold.
    own, (least, most) = np.iinfo(values.dtype), integer_range(dtype)
    low, high = max(int(own.min), least), min(int(own.max), most)
    outside: Array = (values < low) | (values > high)
    return outside
