"""What dead attempts left goes; what a driver may still write, or a receipt stands for, and all else stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from three_shards import PLAN, killed, opened, snapshot, work

from connectors.output.look.sweep import sweep
from jobs.attempt import Success
from jobs.section.output import Output

STAGING = f"_run/{PLAN.id[:8]}/staging"
DEAD, OLD = f"{STAGING}/e1-a1-{'d' * 12}", f"{STAGING}/e1-a2-{'e' * 12}"


@pytest.fixture
def out(place: Any) -> Output:
    """A killed driver, a part, and what two of its attempts left."""
    out = Output(url=f"{place.url}/out", options=place.options)
    directory = opened(out)
    directory.claim(PLAN)
    directory.record(Success(work(directory, 0)), [])
    killed(directory)
    place.put(f"out/{DEAD}/part", b"half")
    place.put(f"out/{OLD}/deep/part", b"whole")
    place.put(f"out/{STAGING}/notes.txt", b"mine")
    place.put("out/notes.txt", b"mine")
    return out


def test_the_staging_of_dead_attempts_goes_and_nothing_else(out: Output) -> None:
    directory = opened(out)
    before = snapshot(directory)
    found = sweep(out)
    assert [(one.name, one.files, one.bytes, one.kept) for one in found.leftovers] == [
        (DEAD, 1, 4, ""),
        (OLD, 1, 5, ""),
    ]
    gone = {f"{DEAD}/part", f"{OLD}/deep/part"}
    assert snapshot(directory) == {name: content for name, content in before.items() if name not in gone}
    assert sweep(out).leftovers == ()


def test_a_document_that_a_killed_process_was_writing_goes_unless_a_driver_lives(out: Output, place: Any) -> None:
    folder = f"_run/{PLAN.id[:8]}"
    unfinished = f"{folder}/epochs/.000001.json.{'a' * 12}"
    report = f"{folder}/reports/.000001.html.{'b' * 12}"
    directory = opened(out)
    living = directory.claim(PLAN)
    for name in (unfinished, report):
        place.put(f"out/{name}", b"{")
    assert not {unfinished, report} & {one.name for one in sweep(out).leftovers}
    directory.end(living.epoch, "interrupted")
    assert [one.name for one in sweep(out).removed] == [unfinished, report]
    assert not {unfinished, report} & snapshot(directory).keys()


def test_a_dry_run_says_the_same_and_touches_nothing(out: Output) -> None:
    before = snapshot(opened(out))
    found = sweep(out, dry_run=True)
    assert [one.name for one in found.removed] == [DEAD, OLD]
    assert snapshot(opened(out)) == before
    assert sweep(out).removed == found.removed


def test_the_attempts_of_a_driver_that_may_still_write_stay(out: Output, place: Any) -> None:
    directory = opened(out)
    assert directory.claim(PLAN).epoch == 2
    mine = f"{STAGING}/e2-a1-{'f' * 12}"
    place.put(f"out/{mine}/part", b"half")
    found = sweep(out)
    assert {one.name for one in found.removed} == {DEAD, OLD}
    assert [(one.name, one.kept) for one in found.leftovers if one.kept] == [(mine, "driver 2 may still write")]
    assert directory.store.read(f"{mine}/part") == b"half"
    directory.end(2, "failed")
    assert [one.name for one in sweep(out).removed] == [mine]


def test_what_a_receipt_without_its_part_stands_for_stays(out: Output, place: Any) -> None:
    directory = opened(out)
    receipt = {
        "shard": 1,
        "attempt": OLD.rpartition("/")[2],
        "part": directory.part_name(1),
        "staged": f"{OLD}/deep/part",
    }
    place.put(f"out/_run/{PLAN.id[:8]}/receipts/00001.json", json.dumps(receipt).encode())
    found = sweep(out)
    assert [one.name for one in found.removed] == [DEAD]
    assert directory.store.read(f"{OLD}/deep/part") == b"whole"


def test_an_output_that_is_not_there_has_nothing_to_sweep(place: Any) -> None:
    assert sweep(Output(url=f"{place.url}/nowhere", options=place.options)).leftovers == ()
