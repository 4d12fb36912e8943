"""Whether each row of the answers belongs to its own row of the input, looked at once while a worker works.

The trial sees a few rows of one place, which may be equal. Here a few rows of the first batch whose rows differ are
called again, alone and in another order. Knows bindings and outputs, not engines. The invariant: answers
that stay with their rows, and those that are random, end nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import pyarrow as pa

from connectors.secret import redact
from jobs.errors import DataError, MemoryLimitError, ModelCallError, ModelError, one_of
from runner.batch.answer import DEPENDS, REPEATED, TOLERANCE, Call, answers, differing
from runner.batch.batches import Where
from runner.batch.distinct import changes, fed_columns
from runner.binding.binding import Binding
from runner.binding.cast.view import as_arrow
from runner.binding.fetching import OutputTarget
from runner.tensor import Array, Feeds, Outputs, Strings

_ROWS = 5
_LOOKED_AT = 16  # rows of a batch, for some that differ
_BATCHES, _CALLS = 100, 4  # that are looked at, and called again, where rows or answers are equal again and again
_FAR = 0.3  # of the largest number in an answer, by which no size of a call rounds


def _most(before: Call, tried: Sequence[tuple[Sequence[Call], Sequence[int]]], tolerance: float) -> dict[str, set[int]]:
    """Output -> the rows that calls answer otherwise than before, if these are most of those that they have."""
    return {
        name: rows
        for calls, called in tried
        for name, rows in differing([before, *calls], tolerance).items()
        if 2 * len(rows) > len(called)
    }


class SpotCheck:
    """May be called from several threads. run: the model, once. subject: what messages call it."""

    def __init__(self, run: Callable[[Feeds], Outputs], binding: Binding, subject: str) -> None:
        self._run, self._binding, self._subject = run, binding, subject
        self._batches, self._calls = _BATCHES, _CALLS
        self._lock = threading.Lock()

    def __call__(self, where: Where, rows: Array, batch: pa.RecordBatch, feeds: Feeds, outputs: Outputs) -> None:
        """Look at a call that went well. See `runner.batch.comparison.Comparison`.

        raises: ModelError naming outputs and rows, where most of the rows that were called again have other answers.
        """
        if not self._batches or not self._calls:
            return
        with self._lock:
            if not self._batches or not self._calls:
                return
            self._batches -= 1
            places = self._places(batch, outputs)
            if len(places) < 2:
                return
            self._calls -= 1
            before = Call(places, answers(self._binding, outputs, places, batch))
            if any(not answer.agrees(own[0], TOLERANCE) for own in before.answers.values() for answer in own):
                self._calls = 0  # it shows who was answered what
            wrong = self._wrong(before, batch)
        if wrong:
            raise self._mixed(where, rows, wrong)

    def _places(self, batch: pa.RecordBatch, outputs: Outputs) -> list[int]:
        """Of rows that differ in what is fed, in their order; not the first and the last, if that can be: a model that
        mixes rows may serve these well."""
        if batch.num_rows < 2:
            return []
        fed, lengths = fed_columns(self._binding, batch), self._binding.lengths(batch)
        # The longest ones only: what padding adds to a row, and what it does to the answers, is then the same again.
        longest = np.ones(len(fed), np.bool_) if lengths is None else lengths == lengths.max()
        chosen: list[int] = []
        for place in dict.fromkeys(self._candidates(fed, outputs)):
            if longest[place] and not any(fed.slice(place, 1).equals(fed.slice(other, 1)) for other in chosen):
                chosen.append(place)
            if len(chosen) == _ROWS:
                break
        return sorted(chosen)

    def _candidates(self, fed: pa.RecordBatch, outputs: Outputs) -> Iterator[int]:
        count = fed.num_rows
        inner = (1, count - 2) if count > _ROWS + 1 else (0, count - 1)
        # Far from each other first: in sorted rows neighbours are nearly equal.
        far, spread = (
            np.linspace(*inner, min(number, count)).astype(np.int64).tolist() for number in (_ROWS, _LOOKED_AT)
        )
        pivot = far[len(far) // 2]
        unlike: list[int] = []
        for target in self._binding.outputs:
            tensor = outputs[target.fetches[0]]
            if isinstance(target, OutputTarget) and not isinstance(tensor, Strings):
                other = (tensor[:count] != tensor[pivot]).reshape(count, -1).any(axis=1)
                unlike += np.flatnonzero(other[inner[0] : inner[1] + 1])[:_LOOKED_AT].tolist()
        near = [place + inner[0] for place in unlike[:: max(1, len(unlike) // _LOOKED_AT)]]
        return chain(far, spread, near, islice(changes(fed), _LOOKED_AT))

    def _wrong(self, before: Call, batch: pa.RecordBatch) -> dict[str, set[int]]:
        """Output -> the places that are answered otherwise in reverse order, or alone, if these are most.

        One of several may be: a number that is rounded may fall to the other side. Nothing is said of what is random.
        """
        places = before.rows
        few = sorted({places[0], places[len(places) // 2], places[-1]})
        try:
            tried = [
                ([self._answered(places[::-1], batch)], places),
                ([self._answered([place], batch) for place in few], few),
            ]
            wrong = _most(before, tried, TOLERANCE)
            if wrong:
                wrong = self._steady(wrong, tried[0][0][0], batch)
            if wrong and len(places) < batch.num_rows:
                mixed, far = differing([before, self._beside(places, batch)], REPEATED), _most(before, tried, _FAR)
                wrong = {name: rows for name, rows in wrong.items() if name in mixed or name in far}
            for _ in range(2):  # two draws may be equal
                wrong = wrong and self._steady(wrong, tried[0][0][0], batch)
        except (DataError, ModelCallError, MemoryLimitError):  # it says nothing of the batch, which went well
            self._calls = 0
            return {}
        return wrong

    def _steady(self, wrong: dict[str, set[int]], before: Call, batch: pa.RecordBatch) -> dict[str, set[int]]:
        """Without the outputs that a call answers otherwise when it is made again: these are random."""
        random = differing([before, self._answered(before.rows, batch)], REPEATED)
        return {name: rows for name, rows in wrong.items() if name not in random}

    def _beside(self, places: Sequence[int], batch: pa.RecordBatch) -> Call:
        """The batch again, with these rows in turn in the place of all others.

        Its size is the same, for which kernels round alike: in 8 bits of bfloat16 by more than `TOLERANCE`, although
        no row has to do with another.
        """
        order = np.resize(places[::-1], batch.num_rows)
        order[list(places)] = places
        rows = batch.take(as_arrow(order.astype(np.int64)))
        return Call(places, answers(self._binding, self._run(self._binding.feed(rows)), places, rows))

    def _answered(self, places: Sequence[int], batch: pa.RecordBatch) -> Call:
        rows = batch.take(as_arrow(np.array(places, np.int64)))
        return Call(places, answers(self._binding, self._run(self._binding.feed(rows)), range(len(places)), rows))

    def _mixed(self, where: Where, rows: Array, wrong: dict[str, set[int]]) -> ModelError:
        place = where.at(int(rows[min(next(iter(wrong.values())))]))
        others = [target.name for target in self._binding.outputs if target.name not in wrong]
        keep = f"`outputs: [{', '.join(others)}]`" if others else "another signature"
        return ModelError(
            f"cannot write output{'s' * (len(wrong) > 1)} {one_of(list(wrong))} of {self._subject}: they {DEPENDS}:"
            " a few rows of a batch were called again, without the others, and have other answers; expected one row for"
            f" each row of the input, choose {keep}; what was written so far is as wrong"
            f" ['{redact(place.file)}' row group {place.row_group} row {place.first_row}]",
            file=place.file,
            row_group=place.row_group,
            row=place.first_row,
        )
