"""Length bucketing: the rows of a row group by their lengths, so that batches need little padding, and back again.

Two stages around the model: `pieces` before batches are cut, `restore` behind them. Knows no columns. The invariant:
what `restore` gives are the rows that `pieces` was given, each once, in their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from runner.batch.batches import Where
from runner.tensor import Array

_WASTE = 0.08  # of the places of a batch that padding may take, beyond what the policy asks of each row alone
_FEWEST_ROWS = 32  # in a batch, as far as there are so many: below, a call costs more than the padding that is saved


class Bucketing:
    """The orders of the row groups that are between the two stages. One for each attempt.

    lengths:    (rows,) of a row group; None, always or never: rows stay as they are.
    batch_rows: the most in a batch. even: all have as many, as far as the rows of a row group go.
    """

    def __init__(self, lengths: Callable[[pa.Table], Array | None], batch_rows: int, *, even: bool = False) -> None:
        self._lengths, self._batch_rows, self._even = lengths, batch_rows, even
        self._orders: deque[Array] = deque()
        self._fed = 0  # rows of the first of them that came back
        self._waiting: list[tuple[pa.RecordBatch, Array]] = []  # of these: rows, and their places in the row group

    def pieces(self, row_groups: Iterable[tuple[Where, pa.Table]]) -> Iterator[tuple[Where, pa.Table]]:
        """Row groups as they are, or each in pieces of rows of about one length, whose order `Where` knows.

        cost: one copy of the rows.
        """
        for where, table in row_groups:
            lengths = self._lengths(table)
            if lengths is None:
                yield where, table
                continue
            if not table.num_rows:
                continue
            order = np.argsort(lengths, kind="stable")
            self._orders.append(order)
            start = 0
            for stop in self._stops(lengths[order]):
                yield replace(where, first_row=start, order=order), table.take(pa.array(order[start:stop]))
                start = stop
            del table

    def _stops(self, lengths: Array) -> list[int]:
        if not self._even:
            return cuts(lengths, self._batch_rows)
        return [*range(self._batch_rows, len(lengths), self._batch_rows), len(lengths)]

    def restore(self, rows: pa.RecordBatch, kept: Array | None = None) -> Iterator[pa.RecordBatch]:
        """Take the rows that became of the next batch; gives those of a row group as soon as they are all there.

        kept: (rows of the batch that was fed,) which of them are in `rows`; None: all.
        """
        if not self._orders:
            yield rows
            return
        fed, start, taken = rows.num_rows if kept is None else len(kept), 0, 0
        while start < fed:
            order = self._orders[0]
            stop = min(fed, start + len(order) - self._fed)
            places = order[self._fed : self._fed + stop - start]
            places = places if kept is None else places[kept[start:stop]]
            self._waiting.append((rows.slice(taken, len(places)), places))
            self._fed += stop - start
            start, taken = stop, taken + len(places)
            if self._fed == len(order):
                yield self._whole()

    def _whole(self) -> pa.RecordBatch:
        waiting, self._waiting, self._fed = self._waiting, [], 0
        self._orders.popleft()
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
