"""The protocol under simulation: random histories of kills, pauses, lost answers, stale lists, zombies and rivals.

The seeds are SIMULATION_FIRST (0) to SIMULATION_FIRST + SIMULATION_SEEDS (2000). A failure prints the whole history.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutations import MOST_SEEDS, Mutation, mutations, seeds_until_caught
from simulation import explain, first_caught, simulate
from simulation_history import MODEL, drive, history_of
from simulation_pool import Nature
from simulation_stand import SEEN, replaced
from simulation_store import ROOT, Objects, SimulatedStore, parse
from simulation_world import World

from connectors.output.layout import SUCCESS, Layout
from connectors.store.store import Store
from jobs.errors import DataError
from runner.driver import ending

FIRST = int(os.environ.get("SIMULATION_FIRST", "0"))
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "2000"))
_CHUNK = 200


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, _CHUNK))
def test_no_history_breaks_an_invariant_and_every_one_can_be_finished(first: int) -> None:
    caught = first_caught(first, min(_CHUNK, FIRST + SEEDS - first))
    if caught is not None:
        pytest.fail(explain(caught), pytrace=False)


def test_one_seed_is_one_history() -> None:
    for seed in (3, 14, 15):
        assert simulate(seed).trace == simulate(seed).trace


def test_the_histories_meet_what_they_are_made_for() -> None:
    effects = ("publish lose", "publish taken", "publish kill_after", "create lose", "create kill_after")
    others = ("killed", "done", "restarted", "worker after success", "compute kill_before", "poll lose", "names refuse")
    met: Counter[str] = Counter()
    for seed in range(500):
        history = simulate(seed)
        met.update(history.ends)
        after_success = False
        for _, actor, what in history.world.trace:
            effect = what.partition(" !")[2].split(" ")[0]
            met[f"{what.split()[0]} {effect}".strip()] += 1
            after_success |= what.startswith(f"create {SUCCESS}")
            met["worker after success"] += after_success and "." in actor
            met["restarted"] += what.startswith("run") and "'" in actor
        if all(met[wanted] for wanted in effects + others):
            return
    assert not [wanted for wanted in effects + others if not met[wanted]], "no history met these"


def test_a_run_leaves_its_report_before_it_says_that_it_ended_well_and_with_its_shut_down(tmp_path: Path) -> None:
    history = history_of(1, ((2, 1), (3,)), 2, 2, tmp_path, lambda *step: None, Nature())
    with history.simulated():
        history.world.spawn("driver", lambda: drive(history))
        history.world.run()
    assert history.world.violation is None
    names = Layout(history.plan.id, len(history.plan.shards))
    report = json.loads(history.objects.content[names.report("json")])
    assert (report["ending"], report["model"], report["rows"], report["failures"]) == ("finished", MODEL, 6, [])
    assert report["shards_done"] == report["shards"] == len(history.plan.shards)
    assert b"<html" in history.objects.content[names.report("html")]
    written = [what for _, _, what in history.world.trace if what.startswith(("upload", "create"))]
    reports = [f"upload {names.report(suffix, epoch)}" for epoch in (1, 0) for suffix in ("json", "html")]
    assert written[-11:] == [
        *reports,
        *(f"create {name}" for name in (names.plan, names.manifest(1), SUCCESS)),
        *reports,  # once more, when the workers are stopped: it tells of that, too
    ]
    assert list(report["phases"])[:3] == ["plan", "load", "work"]


def test_an_exception_that_is_only_logged_fails_a_simulated_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> str:
        raise KeyError("model")

    monkeypatch.setattr(ending, "page", broken)
    violation = simulate(0).world.violation
    assert str(violation) == "the report of this run could not be written: KeyError: 'model'"


@pytest.mark.parametrize("mutation", mutations(), ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_the_simulator_sees_when_the_protocol_is_broken(mutation: Mutation) -> None:
    caught = seeds_until_caught(mutation, 60 if mutation.safe else MOST_SEEDS)
    assert (caught is None) == mutation.safe, f"{mutation.name}: {caught}"


# the fake store keeps the contract of the real one


@pytest.fixture
def on_a_store(tmp_path: Path) -> Callable[[Callable[[SimulatedStore], None]], Objects]:
    """on_a_store(body): run `body` as an actor with an empty store."""

    def run(body: Callable[[SimulatedStore], None]) -> Objects:
        world = World(random.Random(0))
        SimulatedStore.objects = Objects(world, tmp_path)
        world.spawn("test", lambda: body(SimulatedStore(ROOT)))
        world.run()
        if world.violation is not None:
            raise world.violation
        return SimulatedStore.objects

    return run


@pytest.mark.parametrize(
    "name", [name for name in vars(SimulatedStore) if not name.startswith("_") and name != "objects"]
)
def test_the_simulated_store_takes_what_the_real_one_takes(name: str) -> None:
    simulated, real = (inspect.signature(getattr(store, name)) for store in (SimulatedStore, Store))
    assert list(simulated.parameters) == list(real.parameters)


def test_the_simulated_store_creates_only_what_is_absent_and_replaces_when_asked(
    on_a_store: Callable[..., Objects],
) -> None:
    def body(store: SimulatedStore) -> None:
        assert store.create("_run/a", b"1")
        assert not store.create("_run/a", b"2")
        assert store.read("_run/a") == b"1"
        store.replace("_run/a", b"333")
        found = store.stat("_run/a")
        assert store.read("_run/a") == b"333"
        assert found is not None
        assert (found.size, found.url) == (3, f"{ROOT}/_run/a")
        assert store.stat("_run/b") is None
        assert store.read("_run/b") is None

    on_a_store(body)


def test_the_simulated_store_publishes_a_spool_once_and_whole(on_a_store: Callable[..., Objects]) -> None:
    def body(store: SimulatedStore) -> None:
        for content, wins in ((b"first", True), (b"second", False)):
            spool = store.spool("_run/staging/x") / "file"
            spool.write_bytes(content)
            assert bool(store.publish(spool, "part-0", "_run/staging/x")) == wins
            store.discard("_run/staging/x")
            assert not spool.exists()
        assert store.read("part-0") == b"first"

    on_a_store(body)


def test_the_simulated_store_lists_one_level_with_folders(on_a_store: Callable[..., Objects]) -> None:
    def body(store: SimulatedStore) -> None:
        for name in ("b", "a", "_run/plan", "_run/deep/er"):
            store.create(name, name.encode())
        assert store.names("") == ["_run/", "a", "b"]
        assert store.names("_run") == ["deep/", "plan"]
        assert store.names("nowhere") == []
        assert store.sizes("") == {"a": 1, "b": 1}

    on_a_store(body)


def test_a_list_may_lag_and_a_look_by_name_does_not(on_a_store: Callable[..., Objects]) -> None:
    def body(store: SimulatedStore) -> None:
        store.objects.late = lambda: 30.0
        store.create("a", b"")
        assert store.names("") == []
        assert store.stat("a") is not None
        store.objects.world.sleep(31)
        assert store.names("") == ["a"]

    on_a_store(body)


@pytest.mark.parametrize("content", [b"", b"[1, 2]\n", b'[1, 2]\n{"header": {}, "rows": 2}\n', b'{"header"'])
def test_a_part_that_is_cut_off_is_no_part(content: bytes) -> None:
    with pytest.raises(DataError):
        parse(content, "part-0")


@pytest.mark.parametrize(
    ("seen", "stand_ins", "found"),
    [
        ({"connectors.store.retry": ("tyme",)}, {"tyme": None}, r"'connectors.store.retry' has no \['tyme'\]"),
        ({"connectors.store.retry": ("time",)}, {"time": None, "modifyed": None}, r"no module sees: \['modifyed'\]"),
        ({"connectors.outcome": ("time",)}, {"time": None}, "No module named 'connectors.outcome'"),
    ],
)
def test_a_stand_in_that_would_replace_nothing_is_an_error(
    seen: dict[str, tuple[str, ...]], stand_ins: dict[str, Any], found: str
) -> None:
    with pytest.raises((LookupError, ModuleNotFoundError), match=found), replaced(seen, stand_ins):
        pass


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in SEEN.items() for name in names])
def test_what_is_replaced_is_read_by_a_function_while_it_runs(path: str, name: str) -> None:
    tree = ast.parse(inspect.getsource(importlib.import_module(path)))
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = (node for body in bodies for statement in body for node in ast.walk(statement))
    assert any(isinstance(node, ast.Name) and node.id == name for node in inside), (
        f"'{path}' reads '{name}' when it is imported: a stand-in comes too late"
    )
