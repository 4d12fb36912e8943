"""How fast the model alone is, and how many rows to give it at once: measured on rows that are at hand.

Pure but for the calls and the clock that it is given. The invariant: what is found took `budget_s`, or one call more
than was foreseen; where that is too little to know anything, nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobs.errors import MemoryLimitError

_CALLS = 3  # of each size: the first of a size is slow (memory, plans of the graph), the best of the others counts
_GAIN = 1.05  # a larger batch must be so much faster to be worth its memory
_WARM = 16  # the very first calls have this part of the rows: they tell what a whole batch will take
_MOST_S, _SHARE = 0.5, 0.05  # of the work ahead, whichever is less


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of one call: of the model alone, and with feeding it and fetching back."""

    run_s: float
    all_s: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """batch_rows: to use from now on. rows_per_s: of the model alone at the largest size measured; 0: not known."""

    batch_rows: int
    rows_per_s: float = 0.0


def tune(call: Callable[[int], Spent], batch_rows: int, most_rows: int, at_hand: int, rows_ahead: int) -> Tuned:
    """Grow the batch while that pays.

    call:       runs the model on the first n rows at hand; its results are dropped.
    batch_rows: where to begin; never less is chosen.
    most_rows:  where memory ends; `batch_rows` where it is not to change.
    at_hand:    rows that there are to try with.
    rows_ahead: about how many rows this worker will do: measuring takes a small share of their time.
    """
    if at_hand < 1:
        return Tuned(batch_rows)
    tuned, rows, best_s = Tuned(batch_rows), min(batch_rows, at_hand), 0.0
    few = max(1, rows // _WARM)
    warm = [call(few).all_s for _ in range(2)]
    spent, row_s = sum(warm), warm[1] / few
    while True:
        tries: list[Spent] = []
        while len(tries) < _CALLS and spent + rows * row_s <= min(_MOST_S, _SHARE * row_s * rows_ahead) + 1e-3:
            try:
                tries.append(call(rows))
            except MemoryLimitError:
                return tuned
            spent += tries[-1].all_s
            row_s = min(row_s, tries[-1].all_s / rows)
        if len(tries) < 2:
            return tuned
        all_s = min(one.all_s for one in tries[1:]) / rows
        if best_s and best_s < all_s * _GAIN:
            return tuned
        best_s = all_s
        tuned = Tuned(max(batch_rows, rows), rows / min(one.run_s for one in tries[1:]))
        if 2 * rows > min(most_rows, at_hand):
            return tuned
        rows *= 2
