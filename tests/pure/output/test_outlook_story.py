"""What a plan says of its output, in a sentence."""

from __future__ import annotations

import pytest

from connectors.output.outlook import Outlook


@pytest.mark.parametrize(
    ("told", "story"),
    [
        (Outlook("new", 1, 1, removed=1), "new; 1 file of earlier runs is removed first"),
        (Outlook("new", 1, 1, removed=1200), "new; 1,200 files of earlier runs are removed first"),
        (Outlook("resumed", 1, 1), "continues: 0 of 1 shard (0 of 1 row) are done"),
        (
            Outlook("finished", 9, 4500, 9, 4500),
            "already done: 9 of 9 shards (4,500 of 4,500 rows); a run would do nothing",
        ),
        (
            Outlook("resumed", 9, 4500, 8, 4000, lost=1),
            "repairs 1 of 9 shards; 8 of 9 shards (4,000 of 4,500 rows) stay",
        ),
    ],
)
def test_a_story_counts_what_there_is_and_speaks_of_rows_of_the_input_as_such(told: Outlook, story: str) -> None:
    assert told.story == story
