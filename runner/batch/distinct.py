"""Rows that differ in what is fed: two rows that are equal show nothing of a model that mixes them up."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from runner.binding.binding import Binding
from runner.binding.naming import with_columns


def fed_columns(binding: Binding, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Of `rows` the columns and fields that tensors are made of."""
    sources = [bound.source for bound in binding.inputs if bound.source is not None]
    names = dict.fromkeys(name for source in sources for name in source.columns)
    return with_columns(rows, binding.paths).select(list(names))


def changes(rows: pa.RecordBatch) -> Iterator[int]:
    """The places whose row is another than the one before it; NaN is another than NaN.

    cost: where all are equal one look at each row.
    """
    left = [(1, rows.num_rows)]
    while left:
        start, stop = left.pop()
        if start >= stop or rows.slice(start, stop - start).equals(rows.slice(start - 1, stop - start)):
            continue
        if stop - start == 1:
            yield start
            continue
        middle = (start + stop) // 2
        left += [(middle, stop), (start, middle)]
