"""What the shape of a plan tells before a row is read."""

from __future__ import annotations

import pytest

from jobs import plan as plans
from jobs.plan import InputFile, RowGroup
from jobs.rows.runs import Runs
from jobs.section.input import Input
from jobs.section.limits import Limits
from runner.model.signature import Signature
from runner.preflight.shape import sample_slice, small_row_groups, uncut


@pytest.mark.parametrize(
    ("files", "groups", "rows", "warned"),
    [
        (1, 10_000, 4, True),
        (1, 10_000, 1_001, False),
        (1, 9_999, 4, False),
        (10_000, 1, 4, False),
        (10, 2_000, 4, True),
    ],
)
def test_many_row_groups_of_few_rows_are_a_warning(files: int, groups: int, rows: int, warned: bool) -> None:
    listed = [InputFile(f"f{at}", 1, "1", (RowGroup(rows, 100),) * groups) for at in range(files)]
    found = small_row_groups(plans.plan(listed, Limits(), {}))
    assert bool(found) == warned
    assert all(f"{files * groups:,} row groups of {rows} rows" in story for story in found)


def test_a_sample_is_read_as_the_shard_of_its_row_group_is() -> None:
    kept = RowGroup(8, 80, place=(7,)).only(Runs(((0, 3),)))
    file = InputFile("f", 1, "1", (RowGroup(9, 900), kept), (("dt", "2026-11-01"),))
    signature = Signature("serve", "predict", {}, {})
    found = sample_slice([file], signature)
    assert found is not None
    assert (found.first, found.rows, found.values) == (1, (8,), file.values)
    assert (found.picked(1), found.place(1)) == (Runs(((0, 3),)), (7,))


@pytest.mark.parametrize(
    ("kind", "names", "told"),
    [
        ("csv", ["a.csv.gz", "b.csv", "c.csv.zst"], "packed: 2 of 3 files ('a.csv.gz', ...) are one row group each"),
        ("jsonl", ["a.jsonl.gz"], "packed: 1 of 1 file ('a.jsonl.gz') is one row group, which one worker reads"),
        ("webdataset", ["a.tar", "b.tgz"], "packed: 1 of 2 files ('b.tgz') is one row group"),
        ("csv", ["a.csv", "b.tsv"], ""),
        ("parquet", ["a.gz"], ""),
        ("tfrecord", ["a.tfrecord.gz"], ""),
    ],
)
def test_packed_files_that_cannot_be_cut_are_told(kind: str, names: list[str], told: str) -> None:
    found = uncut(Input(url="in", format=kind), [InputFile(name, 1, "1", (RowGroup(4, 100),)) for name in names])
    assert len(found) == bool(told)
    assert all(story.startswith(told) for story in found)
