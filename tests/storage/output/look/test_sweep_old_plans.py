"""The folders of plans that were overwritten go on request; a plan that may be continued, or wakes up, stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from three_shards import PLAN, killed, opened, plan_of, snapshot, work

from connectors.output.look import sweep as sweeping
from connectors.output.look.sweep import sweep
from connectors.output.verification import verify
from jobs.attempt import Success
from jobs.plan import Plan
from jobs.section.output import Output

OLD = plan_of({"model": {"digest": "bb"}})
FOLDER = f"_run/{OLD.id[:8]}"


def overwritten(out: Output, plan: Plan = PLAN) -> None:
    """The plan is finished in the place of what was there."""
    directory = opened(out, plan)
    epoch = directory.claim(plan, overwrite=True).epoch
    receipts = {shard: work(directory, shard) for shard in range(3)} if plan is PLAN else {}
    for receipt in receipts.values():
        directory.record(Success(receipt), [])
    if receipts:
        directory.finish(plan, receipts, epoch)
    directory.end(epoch, "finished" if receipts else "interrupted")


@pytest.fixture
def out(place: Any) -> Output:
    """A plan that was begun, then overwritten by another one, which is finished."""
    out = Output(url=f"{place.url}/out", options=place.options)
    overwritten(out, OLD)
    overwritten(out)
    return out


def document_of(out: Output, epoch: int, **changed: object) -> None:
    """Change what a driver of the old plan said of itself."""
    store, name = opened(out).store, f"{FOLDER}/epochs/{epoch:06d}.json"
    before = json.loads(store.read(name) or b"")
    store.replace(name, json.dumps({**before, **changed}).encode())


def test_the_folder_of_a_plan_that_was_overwritten_goes_and_nothing_else(out: Output) -> None:
    directory = opened(out)
    before = snapshot(directory)
    theirs = {name: content for name, content in before.items() if name.startswith(f"{FOLDER}/")}
    assert sweep(out).leftovers == (), "unasked it stays"
    planned = sweep(out, old_plans=True, dry_run=True)
    assert snapshot(directory) == before
    size = sum(len(content or b"") for content in theirs.values())
    assert [(one.name, one.files, one.bytes, one.kept, one.of) for one in planned.leftovers] == [
        (FOLDER, len(theirs), size, "", "plan")
    ]
    assert sweep(out, old_plans=True).removed == planned.removed
    assert snapshot(directory) == {name: content for name, content in before.items() if name not in theirs}
    assert verify(out).holds
    assert sweep(out, old_plans=True).leftovers == ()


def test_the_current_plan_stays_whoever_wrote_last(out: Output) -> None:
    document_of(out, 1, heartbeat="9999-01-01T00:00:00+00:00")
    assert [one.name for one in sweep(out, old_plans=True).removed] == [FOLDER]
    assert verify(out).holds


def test_where_nothing_is_published_no_plan_is_taken_for_an_old_one(place: Any) -> None:
    out = Output(url=f"{place.url}/out", options=place.options)
    overwritten(out, OLD)
    directory = opened(out)
    directory.end(directory.claim(PLAN, overwrite=True).epoch, "interrupted")
    (kept,) = sweep(out, old_plans=True).leftovers
    assert kept.kept == "nothing is published in this output: the plan may be the current one"


def test_a_plan_whose_part_is_still_there_is_none_that_was_overwritten(out: Output, place: Any) -> None:
    place.put(f"out/{opened(out, OLD).part_name(1)}", b"whatever is in it")
    (kept,) = sweep(out, old_plans=True).leftovers
    assert (kept.name, kept.kept) == (FOLDER, "1 part of this plan is published")


def test_a_plan_with_receipts_was_not_overwritten(out: Output, place: Any) -> None:
    place.put(f"out/{FOLDER}/receipts/00001.json", b"{}")
    (kept,) = sweep(out, old_plans=True).leftovers
    assert kept.kept == "it has receipts: nobody overwrote it, and a run of its job goes on with them"


def test_a_plan_stays_while_a_driver_of_it_lives_or_may_wake_up(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    document_of(out, 1, ended="")
    (living,) = sweep(out, old_plans=True).leftovers
    assert living.kept.startswith("driver 1 on host")
    assert living.kept.endswith("may still write")

    monkeypatch.setattr("connectors.output.epoch.FRESH_S", 0.0)
    document_of(out, 1, ended="", host="elsewhere")
    (silent,) = sweep(out, old_plans=True).leftovers
    assert silent.kept.startswith("driver 1 on host 'elsewhere'")
    assert "never said that it ended, and may wake up" in silent.kept

    monkeypatch.setattr(sweeping, "_SILENT_S", 0.0)  # a day later
    assert [one.name for one in sweep(out, old_plans=True).removed] == [FOLDER]


def test_a_driver_that_was_killed_here_does_not_wake_up(place: Any) -> None:
    out = Output(url=f"{place.url}/out", options=place.options)
    directory = opened(out, OLD)
    directory.claim(OLD)
    document_of(out, 1, born="of a process that is gone")
    overwritten(out)
    assert [one.name for one in sweep(out, old_plans=True).removed] == [FOLDER]


def test_what_dead_attempts_of_the_current_plan_left_goes_too(out: Output, place: Any) -> None:
    left = f"_run/{PLAN.id[:8]}/staging/e1-a1-{'d' * 12}"
    place.put(f"out/{left}/part", b"half")
    killed(opened(out))
    found = sweep(out, old_plans=True)
    assert [(one.name, one.of) for one in found.removed] == [(FOLDER, "plan"), (left, "attempt")]


def test_the_output_that_is_not_there_has_no_old_plans(place: Any) -> None:
    assert sweep(Output(url=f"{place.url}/nowhere", options=place.options), old_plans=True).leftovers == ()
