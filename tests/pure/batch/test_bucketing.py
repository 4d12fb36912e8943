"""Rows by their lengths and back: each once, in their order, and little padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.batch.batches import Where, batches
from runner.batch.bucketing import Bucketing, cuts


def group(lengths: list[int], first: int) -> pa.Table:
    ids = range(first, first + len(lengths))
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(2 * len(lengths)).reshape(-1, 2) + 2 * first)
    table = {"id": pa.array(ids, pa.int64()), "list": pa.array([[n] * n for n in lengths], pa.list_(pa.int64()))}
    return pa.table(table | ({"tensor": tensors} if lengths else {}))


def length_of(table: pa.Table) -> Any:
    return np.array([len(one) for one in table["list"].to_pylist()], np.int64)


@settings(max_examples=150, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=80), max_size=4),
    batch_rows=st.integers(1, 50),
    join=st.sampled_from(["all", "small", "none"]),
    reject=st.integers(2, 30),
)
def test_every_row_comes_back_once_in_order(groups: Any, batch_rows: int, join: Any, reject: int) -> None:
    edges = np.concatenate([[0], np.cumsum([len(lengths) for lengths in groups])])
    tables = [group(lengths, int(first)) for lengths, first in zip(groups, edges, strict=False)]
    bucketing = Bucketing(length_of, batch_rows)
    pieces = bucketing.pieces((Where("f", index), table) for index, table in enumerate(tables))
    found: list[pa.RecordBatch] = []
    for where, batch in batches(pieces, batch_rows, join):
        ids = batch.column("id").to_numpy()
        if join == "none":  # errors name a row by its place in the row group
            assert [where.at(index).first_row for index in range(len(ids))] == (ids - edges[where.row_group]).tolist()
        kept = ids % reject != 1
        rows = batch if kept.all() else batch.filter(pa.array(kept))
        found += bucketing.restore(rows, None if kept.all() else kept)
    expected = [table.filter(pa.array(table["id"].to_numpy() % reject != 1)) for table in tables]
    assert [table.num_rows for table in expected] == [rows.num_rows for rows in found]
    for table, rows in zip(expected, found, strict=True):
        assert pa.Table.from_batches([rows]).combine_chunks().equals(table.combine_chunks())


def test_even_batches_have_as_many_rows_as_the_row_group_gives() -> None:
    bucketing = Bucketing(length_of, 4, even=True)
    pieces = list(bucketing.pieces([(Where("f", 0), group([9, 1, 1, 1, 1, 1, 9, 1, 9, 1], 0))]))
    assert [table.num_rows for _, table in pieces] == [4, 4, 2]
    assert [length_of(table).tolist() for _, table in pieces] == [[1, 1, 1, 1], [1, 1, 1, 9], [9, 9]]


def test_rows_without_lengths_pass_as_they_are() -> None:
    table = group([3, 1, 2], 0)
    bucketing = Bucketing(lambda _: None, 2)
    ((where, same),) = bucketing.pieces([(Where("f", 0), table)])
    assert same is table
    assert where.order is None
    batch = table.to_batches()[0]
    assert list(bucketing.restore(batch)) == [batch]


@pytest.mark.parametrize("seed", range(3))
def test_padding_of_log_normal_lengths_stays_below_a_tenth(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lengths = np.sort(np.clip(draw.lognormal(3.5, 1.0, 20_000).astype(np.int64), 1, 512))
    ends = cuts(lengths, 4096)
    widths = np.diff([0, *ends])
    places = sum(rows * lengths[end - 1] for rows, end in zip(widths, ends, strict=True))
    assert places < 1.1 * lengths.sum()
    assert places > lengths.sum()
    assert len(ends) < 60
    assert max(widths) <= 4096


@given(st.lists(st.integers(1, 600), min_size=1, max_size=300), st.integers(1, 200))
def test_cuts_cover_all_rows_and_none_is_too_large(lengths: list[int], batch_rows: int) -> None:
    ends = cuts(np.sort(np.array(lengths)), batch_rows)
    assert ends[-1] == len(lengths)
    sizes = np.diff([0, *ends])
    assert (sizes > 0).all()
    assert (sizes <= batch_rows).all()
