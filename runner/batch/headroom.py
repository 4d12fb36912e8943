"""Headroom: how many rows of a shape fit into memory in one call, as far as failures have taught.

The invariant: a shape that never failed is not limited, and what is remembered stays small enough to travel with
every attempt and receipt.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from runner.tensor import Feeds

_CALLS = 16  # that went well, before a little more is tried
_SHARE = 8  # a little: one eighth
_SHAPES = 32  # remembered; more than a job with buckets has

TIRED = 2  # times memory ran out in one process; then its allocators are too ragged to go on for long


class Headroom:
    """most: rows of a batch beyond which a limit is none. Several threads may ask and tell."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._limits: dict[str, int] = {}
        self._calls: dict[str, int] = {}
        self.failures = 0  # in this process

    @property
    def limits(self) -> dict[str, int]:
        """Shape of a row -> rows of a batch, for other workers."""
        return dict(self._limits)

    def learn(self, limits: Mapping[str, int]) -> None:
        """What other workers found out: the smaller number counts."""
        with self._lock:
            for shape, rows in limits.items():
                self._limit(shape, min(rows, self._limits.get(shape, rows)))

    def rows(self, feeds: Feeds) -> int | None:
        """How many rows of this shape to feed at most; None: as many as there are."""
        return self._limits.get(shape_of(feeds)) if self._limits else None

    def fits(self, feeds: Feeds, rows: int) -> None:
        """A call with so many rows went well: after some of them, a little more is tried."""
        if not self._limits:
            return
        shape = shape_of(feeds)
        with self._lock:
            limit = self._limits.get(shape)
            if limit is None or rows < limit:
                return
            self._calls[shape] = self._calls.get(shape, 0) + 1
            if self._calls[shape] >= _CALLS:
                self._limit(shape, limit + max(1, limit // _SHARE))

    def exceeded(self, feeds: Feeds, rows: int) -> None:
        """Memory ran out in a call with so many rows."""
        with self._lock:
            self.failures += 1
            self._limit(shape_of(feeds), max(1, rows // 2))

    def restore(self, limits: Mapping[str, int]) -> None:
        """Back to what `limits` said: it was one row that did not fit, and not their number."""
        with self._lock:
            self._limits, self._calls = dict(limits), {}

    def _limit(self, shape: str, rows: int) -> None:
        self._calls.pop(shape, None)
        if rows >= self._most:
            self._limits.pop(shape, None)
        elif shape in self._limits or len(self._limits) < _SHAPES:
            self._limits[shape] = rows


def shape_of(feeds: Feeds) -> str:
    """The shapes of one row of all inputs: 'ids[128] mask[128]'."""
    return " ".join(f"{name}{list(tensor.shape[1:])}" for name, tensor in feeds.items())
