"""A fault at each step in turn: what a clean run does is counted, then each of these steps fails once, in each way.

Afterwards the same command is run again until it ends well: the same rows, and no finished shard is computed twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from simulation import explain, spool_folder
from simulation_history import History, drive, history_of
from simulation_pool import Nature
from simulation_world import Actor, Fault

from connectors.output.layout import PART_PREFIX, SUCCESS, shard_of_part

FILES = ((2, 1), (3, 0))  # rows of each row group; each is a shard
EFFECTS = ("kill_before", "kill_after", "refuse", "lose", "taken")


@dataclass
class Once:
    """The fault of one step. wanted: (operation, name, number of the step) -> whether this is the one."""

    wanted: Callable[[str, str, int], bool] = lambda operation, name, number: False
    effect: str = ""
    steps: list[tuple[str, str]] = field(default_factory=list)
    hit: tuple[str, str, str] | None = None
    calls_before: int = 0
    history: History | None = None
    begun: bool = True  # only then steps count

    def begin(self) -> None:
        """From now on: what was before is no part of it."""
        assert self.history is not None
        self.begun = True
        self.history.model_calls.clear()
        self.history.ends.clear()
        self.history.world.trace.clear()

    def __call__(self, actor: Actor, operation: str, name: str, number: int) -> Fault | None:
        if not self.begun:
            return None
        self.steps.append((operation, name))
        if self.hit is not None or not self.wanted(operation, name, len(self.steps) - 1):
            return None
        assert self.history is not None
        self.hit, self.calls_before = (actor.name, operation, name), len(self.history.model_calls)
        return Fault(self.effect)


def finish(once: Once, staged: bool = False, most_runs: int = 4, overwrite: bool = False) -> History:
    """Run the command until it ends well.

    staged:    on a store that does not refuse a second object of one name.
    overwrite: a job that was finished without a fault, and then with --overwrite.
    """
    with spool_folder() as spools:
        history = once.history = history_of(1, FILES, 1, 2, spools, once, Nature())
        history.objects.exclusive = not staged

        def run(number: int) -> bool:
            errors: list[object] = []
            again = overwrite and number > 0

            def command() -> None:
                errors.append(drive(history, takeover=True, overwrite=again))

            process = history.world.spawn(f"run{number}", command)
            process.steady = number == 0
            while not process.over:
                history.world.sleep(5)
            return errors == [None]

        def user() -> None:
            if overwrite:
                assert run(0)
                once.begin()
            any(run(number) for number in range(1, most_runs + 1))

        with history.simulated():
            history.world.spawn("user", user).steady = True
            history.world.run()
    if history.world.violation is None:
        history.judge.at_the_end()
    return history


def require_proven(history: History) -> None:
    if history.world.violation is not None:
        pytest.fail(explain(history), pytrace=False)


def finished_before(history: History, calls: int) -> set[int]:
    """Shards that were finished before the model was called `calls` times, by the order of the trace.

    Finished: its part is published, or, where parts are staged, its receipt is there.
    """
    seen, shards = 0, set[int]()
    for _, _, what in history.world.trace:
        operation, _, name = what.partition(" ")
        seen += operation == "compute" and "!" not in name
        if seen > calls:
            break
        if operation == "publish" and name.startswith(PART_PREFIX) and "!" not in name:
            shards.add(shard_of_part(name.split()[0]))
        if operation == "create" and "/receipts/" in name and "!" not in name:
            shards.add(int(name.rpartition("/")[2].removesuffix(".json")))
    return shards


@pytest.mark.parametrize("staged", [False, True])
def test_a_clean_run_computes_every_row_group_once(staged: bool) -> None:
    clean = Once()
    history = finish(clean, staged)
    require_proven(history)
    assert sorted(history.model_calls) == [0, 1, 2, 3]
    assert history.ends == ["done"]
    assert len(clean.steps) > 40


@pytest.mark.parametrize("staged", [False, True], ids=["direct", "staged"])
@pytest.mark.parametrize("effect", EFFECTS)
def test_whatever_single_step_fails_the_rows_are_the_same_and_nothing_finished_is_computed_again(
    effect: str, staged: bool
) -> None:
    met: Counter[str] = Counter()
    clean = Once()
    finish(clean, staged)
    for step in range(len(clean.steps)):
        once = Once(lambda operation, name, number, step=step: number == step, effect)
        history = finish(once, staged)
        require_proven(history)
        assert once.hit is not None
        met[once.hit[1]] += 1
        again = set(history.model_calls[once.calls_before :]) & finished_before(history, once.calls_before)
        where = f"{effect} at step {step}, {once.hit}"
        assert not again, f"{where}: shards {again} were finished and are computed again\n{history.trace}"
        assert max(Counter(history.model_calls).values()) <= 2, f"{where}: {history.model_calls}\n{history.trace}"
    assert {"create", "promote" if staged else "publish", "dispatch", "compute", "failpoint"} <= met.keys()


@pytest.mark.parametrize("staged", [False, True], ids=["direct", "staged"])
@pytest.mark.parametrize("effect", ["kill_before", "kill_after", "refuse"])
def test_whatever_single_step_of_an_overwrite_fails_it_goes_on_and_keeps_nothing_older(
    effect: str, staged: bool
) -> None:
    clean = Once(begun=False)
    require_proven(finish(clean, staged, overwrite=True))
    met: Counter[str] = Counter()
    for step in range(len(clean.steps)):
        once = Once(lambda operation, name, number, step=step: number == step, effect, begun=False)
        history = finish(once, staged, overwrite=True)
        require_proven(history)
        assert once.hit is not None
        met[once.hit[1]] += 1
        where = f"{effect} at step {step}, {once.hit}"
        epochs = {json.loads(content.splitlines()[-1])["header"]["epoch"] for content in parts(history).values()}
        assert min(epochs) > 1, f"{where}: a part of the first run was kept\n{history.trace}"
        done = [what for _, _, what in history.world.trace if what.startswith(f"create {SUCCESS}")]
        again = set(history.model_calls[once.calls_before :]) & finished_before(history, once.calls_before)
        # Only a run whose end was not told is begun once more although it was finished.
        assert not again or len(done) > 1, f"{where}: shards {again} are computed again\n{history.trace}"
    assert {"remove", "replace", "create", "dispatch"} <= met.keys()


@pytest.mark.parametrize("effect", ["lose", "taken", "kill_after"])
def test_a_part_whose_publication_was_not_reported_is_adopted_without_a_model_call(effect: str) -> None:
    for shard in range(4):
        once = Once(
            lambda operation, name, number, shard=shard: operation == "publish" and shard_of_part(name) == shard, effect
        )
        history = finish(once)
        require_proven(history)
        assert once.hit is not None
        assert history.model_calls.count(shard) == 1, history.trace


D = {
    "D3, the plan is there": ("create", "/plan.json"),
    "D4, the epoch is taken": ("create", "/epochs/"),
    "D7, a receipt is noted": ("replace", "/receipts/"),
    "D9, the output is verified": ("failpoint", "D9.after"),
    "D10, the manifest is there": ("create", "/manifest-"),
}


@pytest.mark.parametrize("step", D)
@pytest.mark.parametrize("effect", ["kill_before", "kill_after"])
def test_a_driver_killed_at_a_step_of_its_own_is_continued_by_the_next_run(step: str, effect: str) -> None:
    wanted, part = D[step]
    once = Once(lambda operation, name, number: operation == wanted and part in name, effect)
    history = finish(once)
    require_proven(history)
    assert once.hit is not None, f"no step '{step}'"
    assert history.ends == ["killed", "done"]
    assert SUCCESS in history.objects.content
    if step.startswith(("D9", "D10")):
        assert sorted(history.model_calls) == [0, 1, 2, 3]  # nothing is left to compute


def test_a_cluster_that_is_lost_at_any_poll_is_started_again_and_no_try_is_used_up() -> None:
    clean = finish(once := Once())
    require_proven(clean)
    polls = [number for number, (operation, _) in enumerate(once.steps) if operation == "poll"]
    restarted = 0
    for at in polls:
        history = finish(once := Once(lambda operation, name, number, at=at: number == at, "collapse"))
        require_proven(history)
        assert history.ends == ["done"]
        restarts = [what for _, _, what in history.world.trace if "restart of the cluster" in what]
        assert len(restarts) <= 1
        restarted += len(restarts)
        numbers = {json.loads(content.splitlines()[-1])["header"]["number"] for content in parts(history).values()}
        assert numbers == {1}
    assert restarted >= len(polls) // 2


def parts(history: History) -> dict[str, bytes]:
    return {name: content for name, content in history.objects.content.items() if name.startswith(PART_PREFIX)}
