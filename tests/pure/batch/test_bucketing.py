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


def shape_of(table: pa.Table) -> Any:
    """(rows, 1): the length of the list, in threes."""
    return (length_of(table) // 3).reshape(-1, 1)


@settings(max_examples=150, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(0, 9), max_size=40) | st.lists(st.integers(0, 2), max_size=9), max_size=5),
    batch_rows=st.integers(1, 50),
    join=st.sampled_from(["all", "small", "none"]),
    even=st.booleans(),
    padded=st.booleans(),
    reject=st.integers(2, 30),
)
def test_rows_of_one_shape_share_a_batch_and_come_back_once_in_order(
    groups: Any, batch_rows: int, join: Any, even: bool, padded: bool, reject: int
) -> None:
    edges = np.concatenate([[0], np.cumsum([len(lengths) for lengths in groups])])
    tables = [
        group(lengths, int(first)).drop("tensor") if lengths else None
        for lengths, first in zip(groups, edges, strict=False)
    ]
    given_tables = [(Where("f", index), table) for index, table in enumerate(tables) if table is not None]
    noted: list[tuple[int, int]] = []
    bucketing = Bucketing(
        length_of if padded else lambda _: None,
        batch_rows,
        even=even,
        shapes=shape_of,
        note=lambda rows, pieces: noted.append((rows, pieces)),
    )
    found: list[pa.RecordBatch] = []
    for where, batch in batches(bucketing.pieces(given_tables), batch_rows, join):
        assert len(np.unique(shape_of(batch))) == 1
        ids = batch.column("id").to_numpy()
        places = [where.at(index) for index in range(len(ids))]
        assert [edges[at.row_group] + at.first_row for at in places] == ids.tolist()
        kept = ids % reject != 1
        found += bucketing.restore(batch if kept.all() else batch.filter(pa.array(kept)), None if kept.all() else kept)
    expected = [number for number in range(int(edges[-1])) if number % reject != 1]
    assert [number for rows in found for number in rows.column("id").to_pylist()] == expected
    several = [table.num_rows for _, table in given_tables if len(np.unique(shape_of(table))) > 1]
    assert [rows for rows, _ in noted] == several


def test_a_row_group_of_one_shape_is_not_copied_and_not_held_back() -> None:
    table = group([3, 4, 5, 3], 0)
    bucketing = Bucketing(lambda _: None, 2, shapes=shape_of)
    found = []
    for _, batch in batches(bucketing.pieces([(Where("f", 0), table), (Where("f", 1), group([9, 0], 4))]), 2, "none"):
        found.append([rows.column("id").to_pylist() for rows in bucketing.restore(batch)])
    assert found == [[[0, 1]], [[2, 3]], [], [[4, 5]]]
    ((where, same),) = Bucketing(lambda _: None, 2, shapes=shape_of).pieces([(Where("f", 0), table)])
    assert same is table
    assert (where.order, where.shape) == (None, (1,))


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
