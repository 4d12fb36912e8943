"""Headroom: how many rows of a shape fit into memory in one call, and how many a model takes, as failures taught.

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

ANY = "*"  # in the place of a shape: the model refuses more rows, whatever they are

TIRED = 2  # times memory ran out in one process; then its allocators are too ragged to go on for long


class Headroom:
    """most: rows of a batch beyond which a limit is none. Several threads may ask and tell."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._limits: dict[str, int] = {}
        self._calls: dict[str, int] = {}
        self._largest = 0  # number of rows that went well in one call
        self._least_refused: int | None = None  # of the numbers of rows that the model does not take
        self._refused: dict[int, tuple[int, int]] = {}  # thread -> rows of a call refused, and how many passed since
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
        if not self._limits:
            return None
        known = [self._limits[key] for key in (shape_of(feeds), ANY) if key in self._limits]
        return min(known, default=None)

    @property
    def most_rows(self) -> int | None:
        """How many rows the model takes in one call; None: it never refused a number of rows."""
        return self._limits.get(ANY)

    def refused(self, rows: int) -> None:
        """The model refused a call with so many rows. Where all of them pass in smaller calls, it was their number."""
        self._refused[threading.get_ident()] = rows, 0

    def blamed(self) -> None:
        """One of the rows that were refused is bad by itself."""
        self._refused.pop(threading.get_ident(), None)

    def _passed(self, rows: int) -> None:
        """After a refusal: pieces of what was refused follow one another in the same thread."""
        thread = threading.get_ident()
        if (found := self._refused.get(thread)) is None:
            return
        refused, passed = found[0], found[1] + rows
        self._refused[thread] = refused, passed
        if passed >= refused:
            del self._refused[thread]
            with self._lock:
                if self._largest < refused:  # else it took more than that: these rows do not go together
                    self._least_refused = refused
                    self._limit(ANY, self._largest)

    def fits(self, feeds: Feeds, rows: int) -> None:
        """A call with so many rows went well: after some of them, a little more is tried."""
        self._largest = max(self._largest, rows)
        if self._refused:
            self._passed(rows)
        if not self._limits:
            return
        with self._lock:
            for key in (shape_of(feeds), ANY):
                limit = self._limits.get(key)
                if limit is None or rows < limit:
                    continue
                self._calls[key] = self._calls.get(key, 0) + 1
                if self._calls[key] >= _CALLS:
                    more = limit + max(1, limit // _SHARE)
                    self._limit(key, min(more, self._least_refused - 1) if key == ANY and self._least_refused else more)

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
