"""Some rows of a row group, as runs of neighbours: a million rows of which one is left out are two runs.

Pure. The invariant: runs are ascending, apart from each other, and none is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Runs:
    """Rows `first` to `stop - 1` of each run (first, stop)."""

    runs: tuple[tuple[int, int], ...] = ()

    @classmethod
    def first(cls, rows: int) -> Runs:
        """The first `rows` rows."""
        return cls(((0, rows),)) if rows > 0 else cls()

    @classmethod
    def but(cls, left_out: Iterable[int], rows: int) -> Runs:
        """All of `rows` rows but those of `left_out`, in any order; each below `rows`."""
        borders = [-1, *sorted(set(left_out)), rows]
        return cls(tuple((before + 1, after) for before, after in pairwise(borders) if before + 1 < after))

    @classmethod
    def of(cls, rows: Iterable[int]) -> Runs:
        """These rows, ascending."""
        made: list[tuple[int, int]] = []
        for row in rows:
            if made and made[-1][1] == row:
                made[-1] = made[-1][0], row + 1
            else:
                made.append((row, row + 1))
        return cls(tuple(made))

    def upto(self, count: int) -> Runs:
        """The first `count` of these rows."""
        made: list[tuple[int, int]] = []
        for first, stop in self.runs:
            if count <= 0:
                break
            made.append((first, min(stop, first + count)))
            count -= stop - first
        return Runs(tuple(made))

    def meet(self, other: Runs) -> Runs:
        """The rows that are in both."""
        made: list[tuple[int, int]] = []
        here, there = list(self.runs), list(other.runs)
        at = other_at = 0
        while at < len(here) and other_at < len(there):
            first, stop = max(here[at][0], there[other_at][0]), min(here[at][1], there[other_at][1])
            if first < stop:
                made.append((first, stop))
            if here[at][1] < there[other_at][1]:
                at += 1
            else:
                other_at += 1
        return Runs(tuple(made))

    def document(self) -> list[list[int]]:
        return [list(run) for run in self.runs]

    @classmethod
    def from_document(cls, values: Sequence[Sequence[int]]) -> Runs:
        return cls(tuple((first, stop) for first, stop in values))

    def __len__(self) -> int:
        return sum(stop - first for first, stop in self.runs)

    def __iter__(self) -> Iterator[int]:
        for first, stop in self.runs:
            yield from range(first, stop)
