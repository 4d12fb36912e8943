"""What is computed behind a signature, of one of its outputs, as values: engines do it, bindings ask for it.

Knows no engine and no column. The invariant: equal computations of one output have one name, and are done once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Of a ranking: the places of the largest values, and these values. Of other shapings: `value`. Beside them, for each
# row: whether it holds a NaN that they do not show, and whether the cast changed one of its numbers into another.
Part = Literal["index", "value", "nan", "unfit"]

# Dtypes that are computed with in another one, which holds each of their values.
WORKED_IN = {"float16": "float32", "bfloat16": "float32", "bool": "int32"}


@dataclass(frozen=True)
class Shaping:
    """largest: so many of the last dimension, in their order, of equal values the one in front first; 0: as they are.
    at:      the places of one value in the last dimensions of a row, from 0.
    digits:  rounded to, half to even, in float64; before the cast.
    cast:    the dtype; "": their own.
    above:   whether it is, compared exactly."""

    largest: int = 0
    at: tuple[int, ...] = ()
    digits: int | None = None
    cast: str = ""
    above: float | None = None

    def __str__(self) -> str:
        if self.largest:
            return "the largest" if self.largest == 1 else f"the {self.largest} largest"
        steps = [f"at {', '.join(map(str, self.at))}"] if self.at else []
        steps += [f"rounded to {self.digits} digits"] if self.digits is not None else []
        steps += [f"as {self.cast}"] if self.cast else []
        steps += [f"above {self.above!r}"] if self.above is not None else []
        return ", ".join(steps)


@dataclass(frozen=True)
class Shaped:
    """One tensor that is computed.

    of:     the output that it is computed of. given: the dtype of that, and `rank` its dimensions, the rows included.
    dtype:  of what is computed; row: the shape of it for one row.
    """

    of: str
    given: str
    rank: int
    how: Shaping
    part: Part
    dtype: str
    row: tuple[int | None, ...]

    @property
    def name(self) -> str:
        """Under which it is fetched. It begins with that of the output."""
        return f"{self.of}[{self.how}].{self.part}"
