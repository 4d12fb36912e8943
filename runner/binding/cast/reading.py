"""Times and decimals as numbers of NumPy: whole ticks of a unit, integers, the nearest floats.

The invariant: a number is the value, or its place is told, but for what the job said may be lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.load import dotted
from jobs.section.columns import TimeUnit
from runner.binding.cast.kind import NATURAL
from runner.binding.cast.view import as_arrow, as_numpy
from runner.tensor import Array

# Nanoseconds of a tick.
NANOSECONDS: dict[TimeUnit, int] = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "d": 86_400 * 10**9}


def rule_key(name: str) -> str:
    """The key of the rule of an input, as a job file and an override have it."""
    return dotted("columns", "inputs", name)


RULE = "\0"  # no text of ours holds it
ROUNDED = f"expected one that fits, or `{RULE}.cast: nearest`, which rounds"


@dataclass(frozen=True)
class Failed:
    """Values that could not be converted.

    code: of the error. mask: (values,) which. holds: what stands there.
    expected: what should; RULE stands for the key of the input's rule.
    """

    code: Literal["ROW_INEXACT", "ROW_OVERFLOW"]
    mask: Array
    holds: str
    expected: str = f"expected one that fits, or `{RULE}.cast: unsafe`"

    def wanted(self, name: str, *, exact: bool = False) -> str:
        """What is expected of the values of an input, with the key to write.

        exact: the job says so of this input, and no rule of `cast` goes with that.
        """
        expected = self.expected.replace(RULE, rule_key(name))
        return f"{expected}, in place of `exact: true`" if exact and RULE in self.expected else expected


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

    @property
    def cuts(self) -> bool:
        """Whether something of a value may be cut off."""
        ...

    def checked(self) -> Reading:
        """The same, which tells what it would cut off."""
        ...


def unit_of(source: pa.DataType) -> TimeUnit:
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

    @property
    def cuts(self) -> bool:
        return self.cut and not self.parts

    def checked(self) -> Ticks:
        return replace(self, cut=False)

    def apply(self, values: pa.Array) -> tuple[Array, Failed | None]:
        ticks = as_numpy(values.view(pa.int32() if values.type.bit_width == 32 else pa.int64())).astype(np.int64)
        if self.per > 1:
            if self.parts:
                return ticks / self.per, None
            whole, rest = np.divmod(ticks, self.per)
            if self.cut or not rest.any():
                return whole, None
            finer = f"a finer `{RULE}.timestamp` holds all of it"
            expected = f"expected whole {self.unit}: {finer}, or `{RULE}.cast: unsafe` cuts it off"
            return whole, Failed("ROW_INEXACT", rest != 0, f"a time with digits below 1 {self.unit}", expected)
        most = (2**63 - 1) // self.times
        beyond = (ticks > most) | (ticks < -most)
        if self.times == 1 or not beyond.any():
            return ticks * self.times, None
        expected = f"expected one that 64 bits hold in {self.unit}: a coarser `{RULE}.timestamp` reaches farther"
        return ticks * self.times, Failed("ROW_OVERFLOW", beyond, f"a time beyond what {self.unit} reach", expected)


@dataclass(frozen=True)
class WholeDecimals:
    """Decimals without a fraction, as integers. cut: others too, and those that do not fit."""

    dtype: str  # the widest that is needed
    cut: bool
    note = "whole numbers only"

    def document(self) -> dict[str, Any]:
        return {"decimal": "whole", "cut": self.cut}

    @property
    def cuts(self) -> bool:
        return self.cut

    def checked(self) -> WholeDecimals:
        return replace(self, cut=False)

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
            expected = f"expected whole numbers, or `{RULE}.cast: unsafe`, which cuts the rest off"
            return integers, Failed("ROW_INEXACT", broken, "a decimal with digits behind the point", expected)
        lost = as_numpy(pc.not_equal(as_arrow(integers).cast(pa.decimal128(20, 0)), whole))
        if lost.any():
            return integers, Failed("ROW_OVERFLOW", lost, f"a value that {self.dtype} cannot hold")
        return integers, None


@dataclass(frozen=True)
class Decimals:
    """Decimals, each as the float64 that is nearest to it. exact: others than it are told."""

    exact: bool = False
    cuts = False

    def checked(self) -> Decimals:
        return Decimals(exact=True)

    @property
    def note(self) -> str:
        return "" if self.exact else "the nearest float64"

    def document(self) -> dict[str, Any]:
        return {"decimal": "nearest"}

    def apply(self, values: pa.Array) -> tuple[Array, Failed | None]:
        # By way of text: pyarrow (26.0) itself gives the second nearest for one value in eight.
        floats = as_numpy(values.cast(pa.string()).cast(pa.float64()))  # floats: (len(values),)
        if not self.exact:
            return floats, None
        lost = self._lost(values, floats)
        if not lost.any():
            return floats, None
        return floats, Failed("ROW_INEXACT", lost, "a decimal that no float64 is exactly", ROUNDED)

    @staticmethod
    def _lost(values: pa.Array, floats: Array) -> Array:
        """(len(values),) where a float is not its decimal."""
        # Whole numbers below 2**53 are what a float64 holds; only the others are looked at one by one.
        doubtful = np.abs(floats) >= 2.0**53 if values.type.scale <= 0 else np.ones(len(floats), np.bool_)
        at = np.flatnonzero(doubtful)  # at: (doubtful values,)
        exact = values.take(as_arrow(at)).to_pylist()
        doubtful[at] = [Decimal(number) != one for number, one in zip(floats[at].tolist(), exact, strict=True)]
        return doubtful
