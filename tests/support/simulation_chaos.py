"""Random histories: several drivers that are started again, faults until a budget is used up, then peace.

What is drawn: the input, drivers, workers, how often and which faults, how far lists lag, who meddles with the output
from outside. At the end a run without faults has to finish, and the output has to be the input.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from random import Random

from simulation_history import History, drive, history_of
from simulation_pool import Nature
from simulation_store import JsonLinesEncoder
from simulation_world import Actor, Fault, current

from connectors.output.layout import PART_PREFIX, SUCCESS, Layout
from jobs.errors import (
    BusyError,
    CapacityError,
    OutputError,
    PoisonError,
    RunnerError,
    StorageError,
    SupersededError,
    WorkerError,
)
from runner.worker.spec import WorkerSpec

# A worker that is not told how parts are published looks for it in a list of epochs, which may lag: seed 298.
_MODE_TRAVELS = "mode" in WorkerSpec.__dataclass_fields__
STALE_S = 120.0  # the longest that a list may lag behind
_PAUSES = (1.0, 20.0, 70.0, 400.0, 2000.0)
_READ = ("kill_before", "refuse", "pause_before", "pause_after")
_NEW = ("kill_before", "kill_after", "refuse", "fail", "lose", "lose", "taken", "late", "pause_before")
_POOL = ("kill_before", "kill_after", "pause_before")
_EFFECTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("stat", "read", "names", "sizes", "modified"), _READ),
    **dict.fromkeys(("create", "publish", "promote"), _NEW),
    "upload": ("kill_before", "kill_after", "refuse", "lose", "pause_before"),
    **dict.fromkeys(("dispatch", "start", "stop", "report"), _POOL),
    "replace": ("kill_before", "kill_after", "refuse", "lose", "pause_before"),
    "discard": ("kill_before", "refuse"),
    "remove": ("kill_before", "kill_after", "refuse", "lose"),
    "compute": ("kill_before", "refuse", "pause_before"),
    "poll": ("kill_before", "pause_after", "lose", "drain"),
    "failpoint": ("kill_before", "pause_before"),
}


class Chaos:
    def __init__(self, seed: int, spools: Path) -> None:
        chance = self._chance = Random(seed * 7919 + 13)
        files = [[chance.randrange(4) for _ in range(chance.randrange(1, 4))] for _ in range(chance.randrange(1, 3))]
        nature = Nature(
            survive=chance.choice((0.0, 0.3, 0.9)),
            late=chance.choice((0.0, 0.5)),
            no_start=chance.choice((0.0, 0.0, 0.2)),
            slow_s=chance.choice((0.0, 5.0, 60.0)),
        )
        self._rate = chance.choice((0.0, 0.01, 0.03, 0.08, 0.15))
        self._budget = chance.randrange(2, 16)
        self._stale = chance.choice((0.0, 0.0, 0.5, 1.0))
        self._drivers = chance.choice((1, 1, 2, 2, 3, 4))
        self._restarts = 4
        self._squatted = chance.random() < 0.06
        self._staged = chance.random() < 0.15
        if self._staged:  # one driver at a time, says the warning
            self._drivers, nature.survive = 1, 0.0
            if not _MODE_TRAVELS:
                self._stale = 0.0
        self._stolen = not self._squatted and chance.random() < 0.15
        self._weights = {effect: chance.choice((0.2, 1.0, 3.0)) for effects in _EFFECTS.values() for effect in effects}
        rows = chance.choice((1, 1, 2, 4))
        self.history = history_of(seed, files, rows, chance.randrange(1, 4), spools, self._fault, nature, self._late)
        self.history.objects.exclusive = not self._staged
        plan = self.history.plan
        self._names = Layout(plan.id, len(plan.shards), JsonLinesEncoder.suffix)

    def run(self) -> History:
        world = self.history.world
        with self.history.simulated():
            if self._squatted:
                self._squat()
            for number in range(self._drivers):
                delay = 0.0 if number == 0 else self._chance.choice((0.0, self._chance.random() * 30, 400.0))
                self._start(f"d{number + 1}", delay)
            if self._chance.random() < 0.3 and not self._staged:
                world.spawn("other", self._other)
            if self._stolen:
                world.spawn("thief", self._steal, daemon=True)
            elif Random(self.history.seed).random() < 0.1:  # of its own: the other draws of a seed stay as they are
                world.spawn("vandal", self._forget, daemon=True)
            world.spawn("last", self._last)
            world.run()
        if world.violation is None:
            self._judge_the_end()
        return self.history

    def _judge_the_end(self) -> None:
        history = self.history
        if not self._squatted:
            history.judge.at_the_end()
        elif SUCCESS in history.objects.content:
            history.world.violate(f"{SUCCESS} although a part is not of this job")

    # drivers

    def _start(self, name: str, delay: float) -> None:
        self.history.world.spawn(name, functools.partial(self._driver, name), delay=delay)

    def _driver(self, name: str) -> None:
        try:
            error = drive(self.history, takeover=self._chance.random() < 0.5)
        except BaseException:  # killed
            self._again(name)
            raise
        if error is not None and not self._tolerated(error):
            self.history.world.violate(f"{name} failed with {type(error).__name__}: {error.message}")
        if error is not None and not isinstance(error, SupersededError):
            self._again(name)

    def _again(self, name: str) -> None:
        world = self.history.world
        if self._restarts and world.violation is None and not world.ending:
            self._restarts -= 1
            self._start(f"{name}'", self._chance.choice((0.0, 10.0, 400.0)))

    def _tolerated(self, error: RunnerError) -> bool:
        if isinstance(error, OutputError):
            behind = (self._stale > 0 or self._stolen) and "not as they should be" in error.message
            squatted = (self._squatted or self._stolen) and "cannot use" in error.message
            return behind or squatted
        return isinstance(error, StorageError | WorkerError | CapacityError | BusyError | SupersededError | PoisonError)

    def _last(self) -> None:
        """When all others have ended: a run without faults has to finish, whatever was left behind."""
        world, me = self.history.world, current()
        while any(not actor.daemon and actor is not me for actor in world.actors):
            world.sleep(100.0)
        self._budget = 0
        world.sleep(STALE_S)
        me.steady = True
        self._meddle()
        error = drive(self.history, takeover=True)
        if self._squatted:
            if not isinstance(error, OutputError):
                world.violate(f"an object that is not of this job at a final name was not refused: {error!r}")
        elif error is not None:
            world.violate(f"a run without faults did not finish: {type(error).__name__}: {error.message}")

    # others

    def _other(self) -> None:
        """Someone runs another job on the same output once parts are there: refused, nothing touched."""
        world, me = self.history.world, current()
        me.fresh_lists = me.steady = True
        while not any(name.startswith(PART_PREFIX) for name in self.history.objects.content):
            world.sleep(20.0)
            if all(actor.daemon or actor is me or actor.name == "last" for actor in world.actors):
                return
        error = drive(self.history, "another model")
        if not isinstance(error, OutputError):
            world.violate(f"a driver of another plan was not refused: {error!r}")

    def _squat(self) -> None:
        """Something is at a final name before the job begins: a part of another shard, or no part at all."""
        name = self._names.part(0)
        header = {"plan_id": self._chance.choice((self._names.plan_id, "0" * 32)), "shard": 7, "attempt": "x"}
        rows = self.history.plan.shards[0].rows
        header |= {"number": 1, "epoch": 1, "rows_in": rows, "rows_out": rows, "rows_rejected": 0, "writer": "x"}
        lines = [json.dumps([9, row]) for row in range(rows)]
        content = "\n".join([*lines, json.dumps({"header": header, "rows": rows})]).encode()
        self.history.objects.content[name] = self._chance.choice((content, content, b"torn"))
        self.history.objects.times[name] = 0.0

    def _steal(self) -> None:
        """Somebody deletes a part while others are still missing: nobody can have verified the output by then."""
        world, content = self.history.world, self.history.objects.content
        while True:
            world.sleep(self._chance.random() * 5)
            parts = sorted(name for name in content if name.startswith(PART_PREFIX))
            if self._budget <= 0 or len(parts) == self._names.shards or world.now > 1000:
                return
            if parts:
                self._delete(parts[0])
                return

    def _forget(self) -> None:
        """Somebody deletes the plan while parts are missing."""
        world, content = self.history.world, self.history.objects.content
        while not any(name.startswith(PART_PREFIX) for name in content):
            world.sleep(0.5)
            if world.now > 1000:
                return
        if sum(name.startswith(PART_PREFIX) for name in content) < self._names.shards:
            content.pop(self._names.plan, None)
            world.note("somebody deletes the plan")

    def _delete(self, part: str) -> None:
        self.history.objects.content.pop(part)
        self.history.judge.deleted.add(part)
        self.history.world.note(f"somebody deletes {part}")

    def _meddle(self) -> None:
        """Between two runs somebody deletes a part, or tears a receipt, or edits the plan."""
        content, chance = self.history.objects.content, self._chance
        parts = sorted(name for name in content if name.startswith(PART_PREFIX))
        receipts = sorted(name for name in content if name.startswith(f"{self._names.receipts}/"))
        what = chance.choice(("", "", "", "", "part", "receipt", "plan"))
        if self._squatted or SUCCESS in content or any("/manifest-" in name for name in content):
            return
        if what == "part" and parts:
            self._delete(chance.choice(parts))
        elif what == "receipt" and receipts:
            name = chance.choice(receipts)
            edits = ((b'"rows_out": ', b'"rows_out": 1'), (b'"attempt": "e', b'"attempt": "e9'))
            edited = [content[name].replace(*edit) for edit in edits]
            content[name] = chance.choice((b"", content[name][:20], *edited))
        elif what == "plan" and self._names.plan in content:
            kept = content[self._names.plan]
            content[self._names.plan] = chance.choice((kept[:-9], kept.replace(b'"m"', b'"n"')))
            error = drive(self.history, takeover=True)
            if not isinstance(error, OutputError):
                self.history.world.violate(f"an edited plan was not refused: {error!r}")
            content[self._names.plan] = kept
        else:
            return
        self.history.world.note(f"somebody meddled with a {what}")

    # chance

    def _late(self) -> float:
        return self._chance.random() * STALE_S if self._stale and self._chance.random() < self._stale else 0.0

    def _fault(self, actor: Actor, operation: str, name: str, number: int) -> Fault | None:
        if self._budget <= 0 or self._chance.random() >= self._rate:
            return None
        self._budget -= 1
        effects = _EFFECTS[operation]
        if self._staged and operation in ("create", "promote"):  # what arrives late is a second driver there
            effects = tuple(effect for effect in effects if effect != "late")
        effect = self._chance.choices(effects, [self._weights[effect] for effect in effects])[0]
        return Fault(effect, self._chance.choice(_PAUSES) if effect.startswith("pause") else 0.0)
