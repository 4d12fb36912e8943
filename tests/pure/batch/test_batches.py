"""Row groups -> batches: nothing lost, nothing reordered, nothing copied without need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import DataError
from runner.batch.batches import Where, auto_batch_rows, batches, padded_batch_rows, planned_batch_rows


def table(first: int, chunks: list[int]) -> pa.Table:
    """One column 'n' counting on from `first`, in chunks of the given lengths."""
    arrays = []
    for length in chunks:
        arrays.append(pa.array(range(first, first + length), pa.int64()))
        first += length
    return pa.table({"n": pa.chunked_array(arrays, pa.int64())})


def row_groups(lengths: list[list[int]]) -> list[tuple[Where, pa.Table]]:
    groups, first = [], 0
    for index, chunks in enumerate(lengths):
        groups.append((Where("f", index), table(first, chunks)))
        first += sum(chunks)
    return groups


CHUNKS = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6)


@settings(deadline=None)
@given(lengths=CHUNKS, batch_rows=st.integers(1, 12), join=st.sampled_from(["all", "small", "none"]))
def test_every_row_comes_once_and_in_order_from_where_it_says(
    lengths: list[list[int]], batch_rows: int, join: Any
) -> None:
    groups = row_groups(lengths)
    starts = {where.row_group: sum(map(sum, lengths[: where.row_group])) for where, _ in groups}
    found = list(batches(groups, batch_rows, join))
    rows = [value for _, batch in found for value in batch.column("n").to_pylist()]
    assert rows == list(range(sum(map(sum, lengths))))
    for where, batch in found:
        assert batch.column("n")[0].as_py() == starts[where.row_group] + where.first_row


@settings(deadline=None)
@given(lengths=CHUNKS, batch_rows=st.integers(1, 12))
def test_exact_batches_are_full_but_for_the_last_one(lengths: list[list[int]], batch_rows: int) -> None:
    sizes = [batch.num_rows for _, batch in batches(row_groups(lengths), batch_rows, join="all")]
    assert all(size == batch_rows for size in sizes[:-1])
    assert all(0 < size <= batch_rows for size in sizes)


@settings(deadline=None)
@given(lengths=CHUNKS, batch_rows=st.integers(1, 12))
def test_other_batches_end_with_their_row_group_and_ignore_its_chunks(lengths: Any, batch_rows: int) -> None:
    sizes = [batch.num_rows for _, batch in batches(row_groups(lengths), batch_rows, join="none")]
    totals = [sum(chunks) for chunks in lengths]
    assert sizes == [min(batch_rows, total - start) for total in totals for start in range(0, total, batch_rows)]


@pytest.mark.parametrize("join", ["all", "small", "none"])
def test_batches_inside_a_chunk_are_views(join: Any) -> None:
    group = table(0, [10])
    address = group.column("n").chunk(0).buffers()[1].address
    found = [batch.column("n") for _, batch in batches([(Where("f", 0), group)], 4, join)]
    assert [(len(column), column.offset) for column in found] == [(4, 0), (4, 4), (2, 8)]
    assert {column.buffers()[1].address for column in found} == {address}


def test_only_columns_whose_chunks_meet_in_a_batch_are_copied() -> None:
    whole = pa.array(range(6))
    group = pa.table({"whole": whole, "parts": pa.chunked_array([[1, 2], [3, 4, 5, 6]])})
    found = [batch for _, batch in batches([(Where("f", 0), group)], 6, join="none")]
    assert [batch.num_rows for batch in found] == [6]
    assert found[0].column("whole").buffers()[1].address == whole.buffers()[1].address
    assert found[0].column("parts").to_pylist() == [1, 2, 3, 4, 5, 6]


def test_a_batch_across_row_groups_is_placed_at_its_first_row() -> None:
    groups = [(Where("a", 3), table(0, [5])), (Where("b", 0), table(5, [5]))]
    found = [(where, batch.num_rows) for where, batch in batches(groups, 4, join="all")]
    assert found == [(Where("a", 3, 0), 4), (Where("a", 3, 4), 4), (Where("b", 0, 3), 2)]


def test_small_row_groups_side_by_side_make_one_batch_and_others_stay_apart() -> None:
    sizes, groups, first = [1, 2, 1, 0, 5, 2, 2, 1, 9], list[tuple[Where, pa.Table]](), 0
    for index, size in enumerate(sizes):
        groups.append((Where("f", index), table(first, [size])))
        first += size
    found = [(where.row_group, batch.num_rows) for where, batch in batches(groups, 8, join="small")]
    assert found == [(0, 4), (4, 5), (5, 5), (8, 8), (8, 1)]
    first_batch = next(iter(batches(groups, 8, join="small")))[0]
    assert [(first_batch.at(row).row_group, first_batch.at(row).first_row) for row in range(4)] == [
        *((0, 0), (1, 0), (1, 1), (2, 0))
    ]


def test_a_batch_of_small_row_groups_is_never_larger_than_asked() -> None:
    groups = [(Where("f", index), table(2 * index, [2])) for index in range(9)]
    assert [batch.num_rows for _, batch in batches(groups, 9, join="small")] == [8, 8, 2]


def test_small_pieces_that_were_sorted_by_length_stay_apart() -> None:
    groups = [(Where("f", 0, at, order=np.arange(4)), table(at, [2])) for at in (0, 2)]
    assert [batch.num_rows for _, batch in batches(groups, 100, join="small")] == [2, 2]


def test_rows_of_another_schema_are_never_joined() -> None:
    other = pa.table({"n": pa.array([7], pa.int32())})
    groups = [(Where("a", 0), table(0, [3])), (Where("b", 0), other), (Where("b", 1), other)]
    found = [(batch.num_rows, batch.schema.field("n").type) for _, batch in batches(groups, 2, join="all")]
    assert found == [(2, pa.int64()), (1, pa.int64()), (2, pa.int32())]
    found = [(batch.num_rows, batch.schema.field("n").type) for _, batch in batches(groups, 100, join="small")]
    assert found == [(3, pa.int64()), (2, pa.int32())]


@pytest.mark.parametrize(("join", "sizes"), [("all", [4, 4, 2]), ("small", [4, 1, 4, 1]), ("none", [4, 1, 4, 1])])
def test_tables_without_columns_keep_their_rows(join: Any, sizes: list[int]) -> None:
    bare = table(0, [5]).select([])
    groups = [(Where("f", 0), bare), (Where("f", 1), bare)]
    assert [batch.num_rows for _, batch in batches(groups, 4, join)] == sizes


def test_a_row_group_is_let_go_before_the_next_one_is_read() -> None:
    held: list[int] = []

    def read() -> Any:
        for index in range(4):
            group = table(0, [1000])
            yield Where("f", index), group
            del group
            held.append(pa.total_allocated_bytes() - before)

    before = pa.total_allocated_bytes()
    for _, batch in batches(read(), 300, join="none"):
        del batch
    assert held == [0, 0, 0, 0]


@pytest.mark.parametrize("join", ["small", "none"])
def test_a_batch_has_no_more_bytes_than_it_may_whatever_its_rows(join: Any) -> None:
    """A plan may have seen a few bytes where there are many: those that values of a dictionary share."""
    table = pa.table({"text": ["x" * 96] * 1000})
    found = list(batches([(Where("f", 0), table), (Where("f", 0), table[:5])], 500, join, most_bytes=10_000))
    assert [batch.num_rows for _, batch in found] == [100] * 10 + [5]
    assert [where.first_row for where, _ in found] == [*range(0, 1000, 100), 0]
    (one,) = batches([(Where("f", 0), table[:1])], 500, join, most_bytes=10)
    assert one[1].num_rows == 1


def test_strings_that_pass_two_gib_in_one_batch_are_an_error_with_a_place() -> None:
    spaces = [pa.py_buffer(np.zeros(3 * 2**29, np.uint8)) for _ in range(2)]  # pages that nobody touches take no memory
    offsets = pa.array([0, 3 * 2**29], pa.int32()).buffers()[1]
    claimed = [pa.Array.from_buffers(pa.binary(), 1, [None, offsets, space]) for space in spaces]
    group = pa.table({"s": pa.chunked_array(claimed)})
    with pytest.raises(
        DataError, match=r"row 0 of 'f' row group 2 into one batch: .*; lower 'limits: batch_rows'"
    ) as e:
        list(batches([(Where("f", 2), group)], 2, join="all"))
    assert e.value.facts == {"code": "BATCH_TOO_BIG", "file": "f", "row_group": 2}
    assert [batch.num_rows for _, batch in batches([(Where("f", 2), group)], 2, join="none")] == [1, 1]


def test_batches_of_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="batches of 0 rows"):
        list(batches([], 0, join="none"))


@pytest.mark.parametrize(
    ("bytes_per_row", "rows"),
    [(0, 65_536), (132, 65_536), (256, 65_536), (257, 32_768), (224 * 224 * 3, 64), (2**24, 1), (2**30, 1)],
)
def test_the_automatic_batch_fills_sixteen_mebibytes(bytes_per_row: int, rows: int) -> None:
    assert auto_batch_rows(bytes_per_row) == rows


@pytest.mark.parametrize(
    ("bytes_per_row", "groups", "rows"),
    [
        (132, [2**20] * 3, 65_536),  # nothing is filled up
        (132, [100_000] * 5, 8_192),  # 6 % is; of 65,536 it would be 31 %
        (132, [122_880] * 5, 65_536),  # 7 % is, in two calls each
        (132, [100] * 1000, 128),  # one call each
        (132, [100, 10**6], 32_768),
        (224 * 224 * 3, [1000], 64),
        (2**30, [7], 1),
        (132, [0, 0], 65_536),
        (132, [], 65_536),
    ],
)
def test_the_planned_batch_is_a_power_of_two_that_fills_up_little(
    bytes_per_row: int, groups: list[int], rows: int
) -> None:
    assert planned_batch_rows(bytes_per_row, groups) == planned_batch_rows(bytes_per_row, groups[::-1]) == rows


@pytest.mark.parametrize(
    ("wanted", "most_rows", "free", "rows"),
    [
        (65_536, 10**6, True, 16_384),
        (65_536, 10**6, False, 65_536),  # asked for, or for a GPU
        (64, 10**6, True, 64),  # images
        (65_536, 65, True, 128),  # a small plan
        (65_536, 1, True, 1),
        (24, 65, False, 24),
    ],
)
def test_batches_of_one_size_are_full_soon_and_no_larger_than_a_shard(
    wanted: int, most_rows: int, free: bool, rows: int
) -> None:
    assert padded_batch_rows(wanted, most_rows, free) == rows
