"""Bucketing: the rows of a row group by shape and length, so that batches need little padding or none, and back again.

Two stages around the model: `pieces` before batches are cut, `restore` behind them. Knows no columns. The invariant:
what `restore` gives are the rows that `pieces` was given, each once, in their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from runner.batch.batches import Where
from runner.tensor import Array

_WASTE = 0.08  # of the places of a batch that padding may take, beyond what the policy asks of each row alone
_FEWEST_ROWS = 32  # in a batch, as far as there are so many: below, a call costs more than the padding that is saved

Measure = Callable[[pa.Table], Array | None]


def _nothing(table: pa.Table) -> None:
    return None


class Bucketing:
    """The orders of the row groups that are between the two stages. One for each attempt.

    lengths:    (rows,) of a row group: rows of about one length share batches. shapes: (rows, dimensions): only rows of
                one shape do. Of each None, always or never: it does not matter.
    batch_rows: the most in a batch. even: all have as many, as far as the rows of one shape go.
    note:       called with the rows of a row group of several shapes, and in how many pieces they go.
    """

    def __init__(
        self,
        lengths: Measure,
        batch_rows: int,
        *,
        even: bool = False,
        shapes: Measure = _nothing,
        note: Callable[[int, int], None] = lambda rows, pieces: None,
    ) -> None:
        self._lengths, self._shapes, self._batch_rows, self._even = lengths, shapes, batch_rows, even
        self._note = note
        # Of each row group: the order of its rows, or how many they are where that is the one in which they came.
        self._orders: deque[Array | int] = deque()
        self._fed = 0  # rows of the first of them that came back
        self._waiting: list[tuple[pa.RecordBatch, Array]] = []  # of these: rows, and their places in the row group

    def pieces(self, row_groups: Iterable[tuple[Where, pa.Table]]) -> Iterator[tuple[Where, pa.Table]]:
        """Row groups as they are, or each in pieces of rows of one shape and about one length; `Where` knows the order.

        cost: one copy of the rows, unless they have one shape, and their lengths do not matter.
        """
        for where, table in row_groups:
            lengths, shapes = self._lengths(table), self._shapes(table)
            if lengths is None and shapes is None:
                yield where, table
                continue
            if not table.num_rows:
                continue
            if lengths is None and shapes is not None and (shapes == shapes[0]).all():
                self._orders.append(table.num_rows)
                yield replace(where, shape=tuple(shapes[0].tolist())), table
                continue
            yield from self._sorted(where, table, lengths, shapes)
            del table

    def _sorted(
        self, where: Where, table: pa.Table, lengths: Array | None, shapes: Array | None
    ) -> Iterator[tuple[Where, pa.Table]]:
        rows = table.num_rows
        if shapes is None:
            shapes = np.empty((rows, 0), np.int64)
        distinct, kinds = np.unique(shapes, axis=0, return_inverse=True)
        kinds = kinds.reshape(-1)  # kinds: (rows,) the place of each row's shape in `distinct`
        order = np.argsort(kinds, kind="stable") if lengths is None else np.lexsort((lengths, kinds))
        self._orders.append(order)
        ends = [*np.flatnonzero(np.diff(kinds[order])) + 1, rows]
        pieces = [
            (start + first, start + last, shape)
            for (start, stop), shape in zip(pairwise([0, *ends]), distinct, strict=True)
            for first, last in pairwise([0, *self._stops(stop - start, lengths, order[start:stop])])
        ]
        if len(distinct) > 1:
            self._note(rows, len(pieces))
        for first, last, shape in pieces:
            at = replace(where, first_row=first, order=order, shape=tuple(shape.tolist()) if len(shape) else None)
            yield at, table.take(pa.array(order[first:last]))

    def _stops(self, rows: int, lengths: Array | None, order: Array) -> list[int]:
        """Where rows of one shape are cut: the end of each piece."""
        if lengths is None or self._even:
            return [*range(self._batch_rows, rows, self._batch_rows), rows]
        return cuts(lengths[order], self._batch_rows)

    def restore(self, rows: pa.RecordBatch, kept: Array | None = None) -> Iterator[pa.RecordBatch]:
        """Take the rows that became of the next batch; gives those of a row group as soon as they are all there.

        Those of a row group that stayed as it was are given at once.

        kept: (rows of the batch that was fed,) which of them are in `rows`; None: all.
        """
        if not self._orders:
            yield rows
            return
        fed, start, taken = rows.num_rows if kept is None else len(kept), 0, 0
        while start < fed:
            order = self._orders[0]
            whole = order if isinstance(order, int) else len(order)
            stop = min(fed, start + whole - self._fed)
            count = stop - start if kept is None else int(np.count_nonzero(kept[start:stop]))
            back = rows if count == rows.num_rows else rows.slice(taken, count)
            if isinstance(order, int):
                yield back
            else:
                places = order[self._fed : self._fed + stop - start]
                self._waiting.append((back, places if kept is None else places[kept[start:stop]]))
            self._fed += stop - start
            start, taken = stop, taken + count
            if self._fed == whole:
                if not isinstance(order, int):
                    yield self._whole()
                self._orders.popleft()
                self._fed = 0

    def _whole(self) -> pa.RecordBatch:
        waiting, self._waiting = self._waiting, []
        order = np.argsort(np.concatenate([places for _, places in waiting]), kind="stable")
        table = pa.Table.from_batches([rows for rows, _ in waiting]).combine_chunks().take(pa.array(order))
        columns = [column.combine_chunks() for column in table.columns]
        return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def cuts(lengths: Array, batch_rows: int) -> list[int]:
    """Where rows of rising `lengths` are cut into batches: the end of each. Few, and with little padding.

    lengths: (rows,) not empty.
    """
    ends, start = [], 0
    total = np.concatenate([[0], np.cumsum(lengths)])
    while start < len(lengths):
        stop = min(len(lengths), start + batch_rows)
        places = np.arange(1, stop - start + 1) * lengths[start:stop]  # places: of a batch that ends with this row
        fitting = np.flatnonzero(places <= (1 + _WASTE) * (total[start + 1 : stop + 1] - total[start]))
        start = min(stop, start + max(_FEWEST_ROWS, int(fitting[-1]) + 1))
        ends.append(start)
    return ends
