"""Row groups -> model batches: cut, and joined only where they must be.

Knows nothing of columns and tensors; refuses to reorder. The invariant: the rows of all batches, one after
another, are the rows of all tables.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Literal

import numpy as np
import pyarrow as pa

from jobs.errors import DataError
from runner.tensor import Array

# 16 MiB of input and output hold 65,536 small rows (32 floats in, one out: 8.3 MiB), the fastest batch measured for
# them, and about a hundred images. Larger batches only cost memory: the model is busy all the time already.
_BATCH_BYTES = 16 * 2**20
_MAX_BATCH_ROWS = 65_536
_SMALL_SHARE = 1 / 4
MOST_TEXT_BYTES = 2**31 - 1  # of a batch: what 32-bit offsets reach
MOST_BATCH_BYTES = 128 * 2**20  # of input and output, where a worker finds that its model likes more rows at once
_CALL_SHARE = 1 / 64  # of the usual batch: about what a call costs beside its rows, be they numbers or images


# Of a job whose batches have one size on CPUs: they are full sooner, the last one of a shard holds less filling, and a
# worker less memory. A network of two layers did 1.6 to 2.1 M rows/s with any size from 8,192 to 65,536 (2 cores).
_PADDED_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Where:
    """Where rows come from, for messages.

    first_row: of the table or batch, counted within the row group, or within `picks` where only these are read.
    picks:     (rows that are read,) int64, their places in the row group, ascending; None: all rows of it.
    order:     (rows of the table,) the row at each place, where they were put into another order; None: as read.
    shape:     of all rows, where rows of several shapes share no batch; None: rows have one.
    further:   the pieces of a batch that spans row groups: (row of the batch at which it begins, where).
    """

    file: str
    row_group: int
    first_row: int = 0
    picks: Array | None = field(default=None, compare=False, repr=False)
    order: Array | None = field(default=None, compare=False, repr=False)
    shape: tuple[int, ...] | None = field(default=None, compare=False)
    further: tuple[tuple[int, Where], ...] = field(default=(), compare=False)

    def at(self, row: int) -> Where:
        """Where one row of the batch is; `first_row` of the answer is its place in the row group."""
        for start, where in reversed(self.further):
            if row >= start:
                return where.at(row - start)
        index = self.first_row + row
        if self.order is not None:
            index = int(self.order[index])
        return Where(self.file, self.row_group, index if self.picks is None else int(self.picks[index]))


Pieces = list[tuple[Where, pa.Table]]  # of one batch
# "all": so that only the last batch is short, and one before the schema or the shape changes. "small": those of less
# than a quarter of a batch that lie side by side, because a call of few rows costs more than to copy them. "none": of
# none.
Join = Literal["all", "small", "none"]


def auto_batch_rows(bytes_per_row: float) -> int:
    """The rows of a batch where the job leaves it open: a power of two, 1 to 65,536.

    bytes_per_row: decoded input and output together.
    """
    fitting = _BATCH_BYTES / max(bytes_per_row, 1.0)
    # A power of two cuts the usual row groups into equal batches.
    return min(_MAX_BATCH_ROWS, 1 << max(0, math.floor(math.log2(fitting))))


def planned_batch_rows(bytes_per_row: float, row_groups: Iterable[int]) -> int:
    """The rows of every batch of a job that fills up the last one of each row group; a power of two.

    Of those up to `auto_batch_rows`, the one that is the least work: the rows that are fed, and for each call as much
    as `_CALL_SHARE` of the usual batch. Nothing is measured: the same input gives the same number everywhere.

    row_groups: rows of each.
    """
    usual = auto_batch_rows(bytes_per_row)
    groups = Counter(row_groups)
    rows, count = np.array(list(groups), np.int64), np.array(list(groups.values()), np.int64)  # (different sizes,)
    sizes = [1 << power for power in range(usual.bit_length())]

    def work(size: int) -> float:
        return float(np.sum(-(-rows // size) * count)) * (size + _CALL_SHARE * usual)

    return min(reversed(sizes), key=work) if len(rows) else usual


def padded_batch_rows(wanted: int, most_rows: int, free: bool) -> int:
    """The rows of every batch of a job that fills up the last one of each shard: no more than the largest shard needs.

    wanted: by memory, or by the job. most_rows: of a shard. free: nobody asked for it, and no GPU is to be filled.
    """
    rows = min(wanted, _PADDED_ROWS) if free else wanted
    return min(rows, 1 << max(0, most_rows - 1).bit_length())


def most_batch_rows(bytes_per_row: float) -> int:
    """Up to how many rows `auto_batch_rows` may be grown."""
    return max(auto_batch_rows(bytes_per_row), int(MOST_BATCH_BYTES / max(bytes_per_row, 1.0)))


def batches(
    tables: Iterable[tuple[Where, pa.Table]], batch_rows: int, join: Join, most_bytes: int = MOST_TEXT_BYTES
) -> Iterator[tuple[Where, pa.RecordBatch]]:
    """Cut each table into record batches of at most `batch_rows` rows.

    most_bytes: of a batch, where its rows are like those of its table; not heeded where `join` is "all". A plan may
            have seen far less, where values share their bytes.

    tables: a row group each, in order; empty ones give no batch.
    join:   rows of which row groups meet in one batch. A batch that spans row groups is placed at its first row.
    cost:   slices without a copy inside a chunk; a batch across chunks or row groups is copied.
    raises: DataError BATCH_TOO_BIG where the strings of one batch pass 2 GiB.
    """
    if batch_rows < 1:
        raise ValueError(f"cannot cut batches of {batch_rows} rows")
    for pieces in _joined(tables, batch_rows) if join == "all" else _cut(tables, batch_rows, join, most_bytes):
        where = _where(pieces)
        batch = _batch([piece for _, piece in pieces], where)
        del pieces  # a row group is let go as soon as its last batch is
        yield where, batch
        del batch


def _cut(tables: Iterable[tuple[Where, pa.Table]], most_rows: int, join: Join, most_bytes: int) -> Iterator[Pieces]:
    gathered: Pieces = []
    held = 0
    for where, table in tables:
        batch_rows = _rows_within(most_bytes, most_rows, table)
        small = join == "small" and where.order is None and table.num_rows <= batch_rows * _SMALL_SHARE
        fits = small and held + table.num_rows <= batch_rows
        if gathered and not (fits and _alike(gathered[0], where, table)):
            yield gathered
            gathered, held = [], 0
        if small and table.num_rows:
            gathered.append((where, table))
            held += table.num_rows
        for first_row in range(0, 0 if small else table.num_rows, batch_rows):
            # Not beyond the end: a slice of a table without columns would claim the rows.
            rows = min(batch_rows, table.num_rows - first_row)
            yield [(_moved(where, first_row), table.slice(first_row, rows))]
        del table
    if gathered:
        yield gathered


def _rows_within(most_bytes: int, most_rows: int, table: pa.Table) -> int:
    if table.get_total_buffer_size() <= most_bytes:  # a tenth of the time of `nbytes`, and nearly always enough
        return most_rows
    fitting: int = most_bytes * table.num_rows // max(1, table.nbytes)
    return min(most_rows, max(1, fitting))


def _joined(tables: Iterable[tuple[Where, pa.Table]], batch_rows: int) -> Iterator[Pieces]:
    pending: Pieces = []
    held = 0
    for where, table in tables:
        if pending and not _alike(pending[0], where, table):
            yield pending
            pending, held = [], 0
        start = 0
        while start < table.num_rows:
            rows = min(batch_rows - held, table.num_rows - start)
            pending.append((_moved(where, start), table.slice(start, rows)))
            start, held = start + rows, held + rows
            if held == batch_rows:
                yield pending
                pending, held = [], 0
        del table
    if pending:
        yield pending


def _alike(piece: tuple[Where, pa.Table], where: Where, table: pa.Table) -> bool:
    return where.shape == piece[0].shape and bool(table.schema.equals(piece[1].schema))


def _moved(where: Where, rows: int) -> Where:
    return replace(where, first_row=where.first_row + rows)


def _where(pieces: Pieces) -> Where:
    if len(pieces) == 1:
        return pieces[0][0]
    ends = accumulate(piece.num_rows for _, piece in pieces)
    further = tuple((start, where) for start, (where, _) in zip(ends, pieces[1:], strict=False))
    return replace(pieces[0][0], further=further)


def _batch(pieces: list[pa.Table], where: Where) -> pa.RecordBatch:
    rows = sum(piece.num_rows for piece in pieces)
    if not pieces[0].num_columns:  # a struct without fields has a length, which columns that are not there cannot give
        return pa.RecordBatch.from_struct_array(pa.StructArray.from_buffers(pa.struct([]), rows, [None]))
    joined = pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces)
    try:
        arrays = [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in joined.columns]
    except pa.ArrowInvalid as error:
        place = f"row {where.first_row} of '{where.file}' row group {where.row_group}"
        raise DataError(
            f"could not join {rows} rows from {place} into one batch: {error}; lower 'limits: batch_rows'",
            code="BATCH_TOO_BIG",
            file=where.file,
            row_group=where.row_group,
        ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=joined.schema)
