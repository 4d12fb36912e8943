"""Values of one Arrow type -> the carrier of one TensorFlow dtype: the conversion, as it was agreed on.

Knows nothing of rows, lists or nulls. The invariant: without `unsafe` and `nearest` no value changes, but for what a
tensor of narrower floats rounds (`rounds`); what the types alone cannot promise is checked value by value, and the
caller learns which values failed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from runner.binding.cast.reading import ROUNDED, Decimals, Failed, Reading
from runner.binding.cast.view import as_arrow, as_numpy
from runner.tensor import Array, bits_of, carrier, integer_range, natural, type_text, values_of

# "checked": "unsafe", of which each value that changes fails.
How = Literal["same", "exact", "range", "finite", "lossless", "nearest", "unsafe", "checked"]
_NOTES: dict[How, str] = {
    "same": "",
    "exact": "widened",
    "range": "each value is checked to fit",
    "finite": "rounded; a value that would become infinite is an error",
    "lossless": "exact values only",
    "nearest": "rounded to the nearest; a value that would become infinite is an error",
    "unsafe": "cast: unsafe; the rows that it changes are counted",
    "checked": "exact values only",
}


@dataclass(frozen=True)
class Cast:
    """A conversion that was agreed on. `how` says what the types promise; see `agree`."""

    dtype: str
    how: How
    parts: tuple[Cast, ...] = ()  # of a complex number: re, im
    reading: Reading | None = None  # of times and decimals: what comes before
    kinds: tuple[tuple[pa.DataType, Cast], ...] = ()  # of a mixed type: of each of its members
    exact: bool = False  # as the job says: nothing is rounded

    def exactly(self) -> Cast:
        """The same conversion, in which a value that would be rounded fails."""
        return replace(
            self,
            how="lossless" if self.how == "finite" or isinstance(self.reading, Decimals) else self.how,
            parts=tuple(part.exactly() for part in self.parts),
            reading=Decimals(exact=True) if isinstance(self.reading, Decimals) else self.reading,
            kinds=tuple((kind, cast.exactly()) for kind, cast in self.kinds),
            exact=True,
        )

    @property
    def unsafe(self) -> bool:
        """Whether a value may change in any way."""
        inside = (*self.parts, *(cast for _, cast in self.kinds))
        cuts = self.reading is not None and self.reading.cuts
        return cuts or self.how == "unsafe" or any(cast.unsafe for cast in inside)

    def checked(self) -> Cast:
        """The same conversion, in which the values fail that `unsafe` changes."""
        return replace(
            self,
            how="checked" if self.how == "unsafe" else self.how,
            parts=tuple(part.checked() for part in self.parts),
            reading=self.reading and self.reading.checked(),
            kinds=tuple((kind, cast.checked()) for kind, cast in self.kinds),
        )

    @property
    def rounds(self) -> bool:
        """Whether a value may be rounded; what `unsafe` does is counted instead."""
        inside = [*self.parts, *(cast for _, cast in self.kinds)]
        if inside:
            return any(cast.rounds for cast in inside)
        read = isinstance(self.reading, Decimals) and not self.reading.exact and self.how == "same"
        return self.how in ("finite", "nearest") or read

    def of(self, kind: pa.DataType) -> Cast:
        """The conversion of values of one member, where the type that was agreed on is mixed."""
        return next((cast for member, cast in self.kinds if member == kind), self)

    def document(self) -> dict[str, Any]:
        """For the plan: what decides the values that come out, as plain JSON values."""
        said = self.how if self.how in ("nearest", "unsafe") else "safe"
        readings = [cast.reading.document() for cast in (self, *(cast for _, cast in self.kinds)) if cast.reading]
        exact = {"exact": True} if self.exact else {}
        return {"cast": said} | dict(item for reading in readings for item in reading.items()) | exact

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
        if self.how == "checked" and values.dtype.kind in "iu" and natural(self.dtype).kind in "iu":
            return carried, self._failed("ROW_OVERFLOW", _outside(values, self.dtype))
        if self.how in ("lossless", "checked") and _small(values, self.dtype):
            return carried, None
        if self.how in ("lossless", "checked"):
            return carried, self._failed("ROW_INEXACT", _changed(values, values_of(carried, self.dtype)))
        return carried, None

    def _failed(self, code: Literal["ROW_INEXACT", "ROW_OVERFLOW"], mask: Array) -> Failed | None:
        if not mask.any():
            return None
        if code == "ROW_OVERFLOW":
            return Failed(code, mask, f"a value that {self.dtype} cannot hold")
        holds, may_round = f"a value that {self.dtype} cannot hold exactly", natural(self.dtype).kind == "f"
        return Failed(code, mask, holds, ROUNDED) if may_round else Failed(code, mask, holds)

    def _complex(self, values: pa.StructArray) -> tuple[Array, Failed | None]:
        converted = np.empty(len(values), carrier(self.dtype))
        wrong = np.zeros(len(values), np.bool_)
        for name, target, cast in zip(("re", "im"), (converted.real, converted.imag), self.parts, strict=True):
            target[:], failed = cast.apply(values.field(name))
            if failed is not None:
                wrong |= failed.mask
        return converted, self._failed("ROW_INEXACT" if self.how == "lossless" else "ROW_OVERFLOW", wrong)


def unheld(values: pa.Array, kind: pa.DataType, first: int = 0) -> list[int]:
    """The rows, counted from `first`, whose value another type cannot hold as it is: `as_type` fails of them.

    cost: one cast where there is none; each such row costs some more.
    """
    try:
        as_type(values, kind)
    except pa.ArrowInvalid:
        half = len(values) // 2
        if not half:
            return [first]
        return unheld(values.slice(0, half), kind, first) + unheld(values.slice(half), kind, first + half)
    return []


def as_type(values: pa.Array, kind: pa.DataType, *, safe: bool = True) -> pa.Array:
    """The values in another type. raises: pa.ArrowInvalid where one does not fit. cost: two copies of nested ones."""
    if pa.types.is_nested(values.type):
        # A slice is cast with all that lies beside it (pyarrow 26.0), and fails where that does not fit.
        values = values.take(as_arrow(np.arange(len(values))))
    return values.cast(kind, safe=safe)


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


def _small(values: Array, dtype: str) -> bool:
    """Whether all are integers that the floats of a tensor hold, whichever they are. cost: two passes."""
    if values.dtype.kind not in "iu" or dtype not in ("float16", "float32", "float64") or not len(values):
        return False
    most = 2 ** (int(np.finfo(dtype).nmant) + 1)
    return bool(-most <= int(values.min()) and int(values.max()) <= most)


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
