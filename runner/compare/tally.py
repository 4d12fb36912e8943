"""The sums over all rows that were compared, and the rows that differ most: bounded, however many rows there are.

Refuses to know files. The invariant: rows are told in the order of the input, and of rows that differ as much the first
ones are kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from runner.compare.distance import Array, Kind, Pairs, compare
from runner.compare.sketch import Sketch

MOST_PAIRS = 100_000  # different ones that are counted: beyond, none are told
_LETTERS = 100  # of a label


@dataclass(frozen=True, slots=True)
class Far:
    """One row that differs. shard, row: of the part, from 0.

    distance:   by which rows are ordered: infinity where there is no measure. difference: None there.
    """

    distance: float
    difference: float | None
    shard: int
    row: int
    left: Any
    right: Any


@dataclass
class Moments:
    """Means, spread and common spread of two columns, merged batch by batch."""

    count: int = 0
    means: Array = field(default_factory=lambda: np.zeros(2))
    spread: Array = field(default_factory=lambda: np.zeros((2, 2)))

    def add(self, left: Array, right: Array) -> None:
        values = np.stack([left, right]).astype(np.float64)  # (2, rows)
        rows = values.shape[1]
        if not rows:
            return
        means = values.mean(axis=1)
        centred = values - means[:, None]
        apart, total = means - self.means, self.count + rows
        self.spread += centred @ centred.T + np.outer(apart, apart) * self.count * rows / total
        self.means += apart * rows / total
        self.count = total

    @property
    def correlation(self) -> float | None:
        """None where a column is constant, or too large for the square of it."""
        product = math.sqrt(self.spread[0, 0]) * math.sqrt(self.spread[1, 1])
        if not (0 < product < math.inf):
            return None
        found = float(self.spread[0, 1]) / product
        return max(-1.0, min(1.0, found)) if math.isfinite(found) else None


@dataclass
class Tally:
    """kind: of the columns. most: how many rows that differ are kept."""

    kind: Kind
    most: int
    rows: int = 0
    equal: int = 0
    nan_left: int = 0
    nan_right: int = 0
    nan_both: int = 0
    infinite: int = 0
    unmatched: int = 0
    total: float = 0.0
    total_absolute: float = 0.0
    sketch: Sketch = field(default_factory=Sketch)
    moments: Moments = field(default_factory=Moments)
    far: list[Far] = field(default_factory=list)
    pairs: Counter[tuple[Any, Any]] | None = field(default_factory=Counter)

    def add(self, left: pa.Array, right: pa.Array, shard: int, first: int) -> None:
        """Rows of one part, from its row `first` on; batches come in the order of the input."""
        found = compare(left, right)
        self.rows += len(found.equal)
        self.equal += int(found.equal.sum())
        self.nan_left += int((found.nan_left & ~found.nan_right).sum())
        self.nan_right += int((found.nan_right & ~found.nan_left).sum())
        self.nan_both += int((found.nan_left & found.nan_right).sum())
        self.unmatched += int(found.unmatched.sum())
        if found.difference is not None and self.kind in ("number", "numbers"):
            self._measure(found.difference, left, right)
        if self.kind == "label" or pa.types.is_integer(left.type):
            self._confuse(~found.equal, left, right)
        self._keep(found, left, right, shard, first)

    @property
    def measured(self) -> int:
        return self.sketch.total

    def _measure(self, difference: Array, left: pa.Array, right: pa.Array) -> None:
        finite = np.isfinite(difference)
        self.infinite += int(np.isinf(difference).sum())
        signed = difference if finite.all() else difference[finite]
        distances = np.abs(signed)
        self.sketch.add(distances)
        self.total += float(signed.sum())
        self.total_absolute += float(distances.sum())
        if self.kind == "number":
            a, b = (np.asarray(side.to_numpy(zero_copy_only=False), np.float64) for side in (left, right))
            usable = np.isfinite(a) & np.isfinite(b)
            with np.errstate(over="ignore", invalid="ignore"):
                self.moments.add(a[usable], b[usable])

    def _confuse(self, unequal: Array, left: pa.Array, right: pa.Array) -> None:
        if self.pairs is None or not unequal.any():
            return
        mask = pa.array(unequal)
        sides = ((_label(value) for value in side.filter(mask).to_pylist()) for side in (left, right))
        self.pairs.update(zip(*sides, strict=True))
        if len(self.pairs) > MOST_PAIRS:
            self.pairs = None

    def _keep(self, found: Pairs, left: pa.Array, right: pa.Array, shard: int, first: int) -> None:
        if not self.most:
            return
        difference = np.full(len(found.equal), np.nan) if found.difference is None else found.difference
        distance = np.where(np.isnan(difference), math.inf, np.abs(difference))
        least = self.far[-1].distance if len(self.far) >= self.most else -1.0
        rows = np.flatnonzero(~found.equal & (distance > least))
        rows = rows[np.argsort(-distance[rows], kind="stable")][: self.most]
        sides = (plain(side.take(pa.array(rows))) for side in (left, right))
        new = [
            Far(float(distance[row]), _measured(difference[row]), shard, first + row, *values)
            for row, *values in zip(rows.tolist(), *sides, strict=True)
        ]
        self.far = sorted([*self.far, *new], key=lambda one: -one.distance)[: self.most]


def plain(values: pa.Array) -> Sequence[Any]:
    """As values of Python; a tensor is a list."""
    held: Sequence[Any] = (values.storage if isinstance(values, pa.ExtensionArray) else values).to_pylist()
    return held


def _measured(difference: Any) -> float | None:
    return None if math.isnan(difference) else float(difference)


def _label(value: Any) -> Any:
    """Long ones are cut, so that pairs of them are held in little memory."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return f"{value[:_LETTERS]}..." if isinstance(value, str) and len(value) > _LETTERS else value
