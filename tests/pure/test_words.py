"""Counts as words."""

from __future__ import annotations

import pytest

from jobs.words import counted


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (1, "shard", "1 shard"),
        (0, "shard", "0 shards"),
        (2_000, "row group", "2,000 row groups"),
        (1, "batch", "1 batch"),
        (3, "batch", "3 batches"),
        (2, "process", "2 processes"),
        (2, "copy", "2 copies"),
        (2, "try", "2 tries"),
        (2, "key", "2 keys"),
    ],
)
def test_one_is_one_thing_and_all_others_are_several(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said


def test_a_verb_follows_its_count() -> None:
    assert counted(1, "row was rejected", "rows were rejected") == "1 row was rejected"
    assert counted(2, "row was rejected", "rows were rejected") == "2 rows were rejected"
