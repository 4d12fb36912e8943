"""Quantiles of any number of distances in 16 MiB: how many lie in each of many narrow ranges.

Refuses to know what the distances are of. The invariant: a quantile is at most 0.1 % below the exact one and never
above it, whatever the order in which distances come; the largest, 0 and whole numbers up to 2,048 are exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ERROR = 2.0**-10  # relative: the width of a range
_KEPT = 10  # bits of the fraction: 1,024 ranges for each power of two
_DROPPED = 52 - _KEPT
_DECADES = np.array([float(f"1e{power}") for power in range(-307, 309)])


class Sketch:
    """Floats that are not below 0, finite. The bits of such floats are ordered as they are."""

    def __init__(self) -> None:
        self._counts = np.zeros(2 ** (11 + _KEPT), np.int64)
        self._decades = np.zeros(len(_DECADES) + 1, np.int64)
        self.zeros = self.total = 0
        self.largest = 0.0

    def add(self, distances: Array) -> None:
        """distances: (n,) float64."""
        if not len(distances):
            return
        bits = np.ascontiguousarray(distances, np.float64).view(np.uint64) >> np.uint64(_DROPPED)
        ranges, counts = np.unique(bits.astype(np.int64), return_counts=True)
        self._counts[ranges] += counts
        positive = distances[distances > 0]
        self._decades += np.bincount(np.searchsorted(_DECADES, positive, "right"), minlength=len(self._decades))
        self.zeros += len(distances) - len(positive)
        self.total += len(distances)
        self.largest = max(self.largest, float(distances.max()))

    def quantile(self, share: float) -> float:
        """The least distance that no more than a share of `1 - share` is above. 0 where there is none."""
        rank = max(1, math.ceil(share * self.total))
        if rank >= self.total:
            return self.largest
        at = np.searchsorted(np.cumsum(self._counts), rank)
        return float((np.array([at], np.uint64) << np.uint64(_DROPPED)).view(np.float64)[0])

    def decades(self) -> dict[int, int]:
        """Power of ten -> how many distances lie from there up to the next one, for those that have any."""
        return {int(at) - 308: int(self._decades[at]) for at in np.flatnonzero(self._decades)}
