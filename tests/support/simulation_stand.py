"""What the real code sees in a simulated history instead of clocks, chance, threads, preflight and stores.

The code itself is not changed: names of its modules are replaced while a history runs, and put back afterwards. A name
that is not there is an error, so that a rename cannot make the simulator blind.
"""

from __future__ import annotations

import importlib
import logging
import random as stdlib_random
import time as stdlib_time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

from simulation_store import Objects, SimulatedStore
from simulation_world import World, acting

from connectors.formats import registry
from jobs.job import Job
from jobs.plan import Plan
from jobs.section.output import Output
from runner.model.signature import ModelSpec, Signature
from runner.pool.pool import Pool

# Which module sees which stand-ins. All of them must be there: a simulator that replaces nothing proves nothing.
SEEN: dict[str, tuple[str, ...]] = {
    "connectors.output.directory": ("Store", "failpoint"),
    "connectors.output.part": ("failpoint",),
    "connectors.output.epoch": ("datetime", "secrets", "_boot"),
    "connectors.output.receipts": ("ThreadPoolExecutor",),
    "connectors.store.retry": ("time", "random"),
    "connectors.store.probe": ("secrets",),
    "runner.driver.driver": ("failpoint",),
    "runner.driver.ending": ("datetime",),
    "runner.driver.launch": (
        *("Store", "time", "random", "secrets"),
        *("examine", "ModelWatches", "complete", "_pool", "TrialGate"),
    ),
}


class _Time:
    """The module `time` on the clock of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.monotonic = self.time = self.perf_counter = lambda: world.now

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(stdlib_time, name)


class _Chance(stdlib_random.Random):
    """The module `random` as one seeded generator."""

    def Random(self, seed: object = None) -> stdlib_random.Random:  # noqa: N802 (as in the module)
        return stdlib_random.Random(self.random())

    def token_hex(self, size: int) -> str:
        return f"{self.getrandbits(8 * size):0{2 * size}x}"


class _Inline:
    """A ThreadPoolExecutor whose work is done by the actor itself: threads of its own would have no baton."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, function: Callable[..., Any], *iterables: Any) -> Iterator[Any]:
        return iter([function(*arguments) for arguments in zip(*iterables, strict=True)])


@dataclass
class _Ready:
    """What stands for a Preflight."""

    job: Job
    plan: Plan
    planned: Any = None
    warnings: tuple[str, ...] = ()
    suspicions: tuple[str, ...] = ()
    rounded: tuple[str, ...] = ()
    scanned: Any = field(default_factory=lambda: SimpleNamespace(repeatable=True))
    binding: Any = field(default_factory=lambda: SimpleNamespace(describe=list, output_schema=None))
    signature: Signature = Signature("serving_default", "tensorflow/serving/predict", {}, {})  # noqa: RUF009 (frozen)

    @property
    def model(self) -> ModelSpec:
        return ModelSpec(
            str(self.job.model and self.job.model.url),
            path="",
            version=None,
            metagraphs=(),
            digest="d",
            fingerprint={},
            files={},
        )

    @property
    def members(self) -> tuple[Any, ...]:
        return (SimpleNamespace(name="", model=self.model),)

    def spec(self, output: Output, *mode: Any) -> Any:
        return SimpleNamespace(model=None, arguments=(output, self.plan.id, len(self.plan.shards), *mode))


@contextmanager
def replaced(seen: Mapping[str, Sequence[str]], stand_ins: Mapping[str, Any]) -> Iterator[None]:
    """Names of modules mean their stand-ins, and afterwards what they meant before.

    raises: LookupError for a name that its module lacks, or a stand-in that takes no place; ModuleNotFoundError.
    """
    if idle := stand_ins.keys() - {name for names in seen.values() for name in names}:
        raise LookupError(f"stand-ins that no module sees: {sorted(idle)}")
    with ExitStack() as stack:
        for path, names in seen.items():
            module = importlib.import_module(path)
            if missing := [name for name in names if name not in vars(module)]:
                raise LookupError(f"'{path}' has no {missing}: its stand-ins would replace nothing")
            for name in names:
                stack.enter_context(mock.patch.object(module, name, stand_ins[name]))
        yield


def _date(world: World) -> Any:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return SimpleNamespace(
        now=lambda zone=None: start + timedelta(seconds=world.now), fromisoformat=datetime.fromisoformat
    )


class _NothingSwallowed(logging.Handler):
    """An exception that is only logged ends a history, too: nobody reads the log of a simulation."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and (error := record.exc_info[1]) is not None:
            self._world.violate(f"{record.getMessage()}: {type(error).__name__}: {error}", error)


@contextmanager
def _logged(world: World) -> Iterator[None]:
    handler = _NothingSwallowed(world)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _failpoint(world: World, name: str) -> None:
    if acting() is not None:
        world.effect("failpoint", name, lambda: None, lambda effect: None)


@contextmanager
def simulated(
    world: World, objects: Objects, plan_of: Callable[[Job], Plan], pool: Callable[[], Pool]
) -> Iterator[None]:
    """The code sees `world` and `objects`; a job has the plan and the pool that are given."""
    SimulatedStore.objects = objects
    chance = _Chance(world.random.random())
    stand_ins: dict[str, Any] = {
        "Store": SimulatedStore,
        "time": _Time(world),
        "datetime": _date(world),
        "random": chance,
        "secrets": chance,
        "ThreadPoolExecutor": _Inline,
        "failpoint": lambda name: _failpoint(world, name),
        "_boot": lambda: "",  # every driver is on a machine of its own: nobody knows who is gone
        "TrialGate": lambda *_: None,  # there is no model that could be tried out
        "examine": lambda job, cache, **_: job,
        "ModelWatches": lambda model: SimpleNamespace(error=lambda: None, close=lambda: None),
        "complete": lambda job, overwrite: _Ready(job, plan_of(job)),
        "_pool": lambda *_: pool(),
    }
    encoders = mock.patch.dict(registry.ENCODERS, {"arrow": "simulation_store"})
    with encoders, _logged(world), replaced(SEEN, stand_ins):
        yield
