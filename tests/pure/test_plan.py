"""The plan: every row group once, in order, whatever the listing order; limits kept; ids that mean something."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import InputError
from jobs.plan import InputFile, Plan, RowGroup, plan
from jobs.section.limits import Limits

row_groups = st.builds(RowGroup, st.integers(0, 50), st.integers(0, 500))
contents = st.lists(st.lists(row_groups, max_size=8), max_size=6)
cuts = st.builds(Limits, shard_bytes=st.integers(1, 1500), shard_rows=st.integers(1, 120))


def _files(content: list[list[RowGroup]]) -> list[InputFile]:
    return [InputFile(f"in/{index:02}", 7, "v", tuple(groups)) for index, groups in enumerate(content)]


@given(contents, cuts)
def test_a_plan_covers_every_row_group_once_and_in_order(content: list[list[RowGroup]], limits: Limits) -> None:
    cut = plan(_files(content), limits, {})
    covered = [
        (piece.file, index)
        for shard in cut.shards
        for piece in shard.slices
        for index in range(piece.first, piece.stop)
    ]
    assert covered == [(file, index) for file, groups in enumerate(content) for index in range(len(groups))]
    assert cut.rows == sum(group.rows for groups in content for group in groups)
    assert [shard.index for shard in cut.shards] == list(range(len(cut.shards)))
    assert all(piece.first < piece.stop for shard in cut.shards for piece in shard.slices)


@given(contents, cuts)
def test_a_shard_is_within_the_limits_unless_it_is_one_row_group_that_is_not(
    content: list[list[RowGroup]], limits: Limits
) -> None:
    for shard in plan(_files(content), limits, {}).shards:
        if shard.bytes > limits.shard_bytes or shard.rows > limits.shard_rows:
            assert sum(piece.stop - piece.first for piece in shard.slices) == 1


@given(contents, cuts)
def test_two_neighbouring_shards_would_not_fit_into_one(content: list[list[RowGroup]], limits: Limits) -> None:
    cut = plan(_files(content), limits, {})
    for shard, following in zip(cut.shards, cut.shards[1:], strict=False):
        piece = following.slices[0]
        group = cut.files[piece.file].row_groups[piece.first]
        assert shard.bytes + group.bytes > limits.shard_bytes or shard.rows + group.rows > limits.shard_rows


@given(contents, cuts, st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(
    content: list[list[RowGroup]], limits: Limits, shuffled: random.Random
) -> None:
    files = _files(content)
    planned = plan(files, limits, {"digest": "d"})
    shuffled.shuffle(files)
    assert plan(files, limits, {"digest": "d"}) == planned
    assert plan(iter(files), limits, {"digest": "d"}).id == planned.id


@given(contents, cuts)
def test_a_plan_round_trips_through_its_document(content: list[list[RowGroup]], limits: Limits) -> None:
    planned = plan(_files(content), limits, {"digest": "d", "tags": ["serve"]})
    again = Plan.from_document(json.loads(json.dumps(planned.document())))
    assert again == planned
    assert again.id == planned.id


def test_files_without_rows_still_make_one_shard_and_no_files_make_none() -> None:
    assert len(plan(_files([[], []]), Limits(), {}).shards) == 1
    assert plan([], Limits(), {}).shards == ()


def test_the_id_is_stable_across_releases() -> None:
    planned = plan(_files([[RowGroup(3, 100)], [RowGroup(4, 200)]]), Limits(shard_bytes=250), {"digest": "d"})
    assert planned.id == "d2ed22e8083335ad74dfeea9761cd808"


@pytest.mark.parametrize(
    "change", [{"url": "in/other"}, {"size": 8}, {"version": "w"}, {"row_groups": (RowGroup(4, 100),)}]
)
def test_the_id_changes_with_anything_that_changes_the_input(change: dict[str, object]) -> None:
    (file,) = _files([[RowGroup(3, 100)]])
    changed = dataclasses.replace(file, **change)  # type: ignore[arg-type]
    assert plan([changed], Limits(), {}).id != plan([file], Limits(), {}).id


def test_the_id_changes_with_the_identity_and_with_the_cuts() -> None:
    files = _files([[RowGroup(3, 100), RowGroup(3, 100)]])
    ids = {plan(files, Limits(), {}).id, plan(files, Limits(), {"a": 1}).id, plan(files, Limits(shard_rows=3), {}).id}
    assert len(ids) == 3


def test_a_file_listed_twice_is_refused_because_its_rows_would_be_scored_twice() -> None:
    (file,) = _files([[RowGroup(3, 100)]])
    with pytest.raises(InputError, match="'in/00' is listed twice"):
        plan([file, file], Limits(), {})
