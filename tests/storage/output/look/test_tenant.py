"""Which of several plans of one job an output holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.output.epoch import Epochs
from connectors.output.layout import SUCCESS, Layout, encode
from connectors.output.look.tenant import others_begun, tenant
from connectors.store.store import Store

NEW, OLD, OTHER = ("1" * 32, "2" * 32, "3" * 32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def begin(store: Store, plan_id: str, parts: int = 0) -> Epochs:
    """As a driver does; each part is empty."""
    names = Layout(plan_id, 2, ".parquet")
    epochs = Epochs(store, names)
    store.create(names.plan, encode({"plan_id": plan_id}))
    epochs.begin(takeover=True)
    for shard in range(parts):
        store.create(names.part(shard), b"")
    return epochs


def held(store: Store) -> str:
    return tenant(store, [NEW, OLD])


def test_an_output_that_is_not_there_holds_nothing(store: Store) -> None:
    assert held(store) == ""
    assert not others_begun(store, NEW)


def test_a_plan_of_another_job_is_none_of_them(store: Store) -> None:
    begin(store, OTHER, parts=1)
    assert held(store) == ""
    assert others_begun(store, NEW)


def test_a_plan_that_was_begun_is_held_before_its_first_part_is_there(store: Store) -> None:
    begin(store, OLD)
    assert held(store) == OLD
    begin(store, NEW)
    assert held(store) == NEW, "of two that published nothing, the first"
    assert not others_begun(Store(store.url.replace("out", "nowhere")), NEW)


def test_parts_decide_between_two_plans(store: Store) -> None:
    begin(store, NEW)
    begin(store, OLD, parts=1)
    assert held(store) == OLD


def test_a_finished_output_holds_the_plan_that_it_names(store: Store) -> None:
    begin(store, NEW)
    begin(store, OLD, parts=2)
    store.create(SUCCESS, encode({"plan_id": OLD}))
    assert held(store) == OLD
    assert tenant(store, [NEW]) == ""


def test_a_plan_that_made_room_for_another_is_not_held(store: Store) -> None:
    epochs = begin(store, OLD)
    epochs.end(epochs.begin(takeover=True), "superseded")
    assert held(store) == ""
    begin(store, OLD)
    assert held(store) == OLD, "begun again"


@pytest.mark.parametrize("ended", ["interrupted", "failed"])
def test_a_plan_whose_driver_ended_otherwise_is_held(store: Store, ended: str) -> None:
    epochs = begin(store, OLD)
    epochs.end(1, ended)  # type: ignore[arg-type]
    assert held(store) == OLD
