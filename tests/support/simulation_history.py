"""One history: a world, a store, a plan, and drivers that run the real `launch` on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from simulation_judge import Judge
from simulation_pool import Nature, SimulatedPool
from simulation_stand import simulated
from simulation_store import ROOT, JsonLinesEncoder, Objects
from simulation_world import FaultSource, World, current

from jobs.errors import RunnerError
from jobs.job import Job
from jobs.plan import InputFile, Plan, RowGroup, plan
from jobs.section.limits import Limits
from runner.driver.launch import RunOptions, launch

MODEL = "m"


@dataclass
class History:
    """model_calls: the shard of each row group computed. ends: how each driver ended, in order."""

    seed: int
    world: World
    objects: Objects
    plan: Plan
    nature: Nature
    workers: int
    judge: Judge
    model_calls: list[int] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    pools: list[SimulatedPool] = field(default_factory=list)

    @property
    def trace(self) -> str:
        return "\n".join(f"{now:9.2f} s  {actor:<12} {what}" for now, actor, what in self.world.trace)

    def simulated(self) -> AbstractContextManager[None]:
        return simulated(self.world, self.objects, self._plan_of, self._pool)

    def _plan_of(self, job: Job) -> Plan:
        """The plan of the history, or that of a job with another model."""
        planned = self.plan
        return planned if job.model.url == MODEL else Plan(planned.files, planned.shards, {"model": job.model.url})

    def _pool(self) -> SimulatedPool:
        pool = SimulatedPool(self.world, self.nature, self.workers, self.model_calls)
        self.pools.append(pool)
        return pool


def history_of(
    seed: int,
    files: Sequence[Sequence[int]],
    shard_rows: int,
    workers: int,
    spools: Path,
    faults: FaultSource,
    nature: Nature,
    late: Callable[[], float] = lambda: 0.0,
) -> History:
    """files: rows of each row group of each file. late: draws for how long lists leave a new name out."""
    world = World(Random(seed), faults)
    inputs = [
        InputFile(str(number), 1, "v", tuple(RowGroup(rows, 1) for rows in groups))
        for number, groups in enumerate(files)
    ]
    planned = plan(inputs, Limits(shard_rows=shard_rows), {"model": MODEL})
    objects = Objects(world, spools, late=late)
    judge = objects.judge = Judge(world, objects, planned, JsonLinesEncoder.suffix)
    return History(seed, world, objects, planned, nature, workers, judge)


def drive(
    history: History, model: str = MODEL, *, takeover: bool = False, overwrite: bool = False
) -> RunnerError | None:
    """One run of the command, in the actor that calls it. returns: the error that ended it."""
    document = {
        "model": {"url": model},
        "input": {"url": ["in"]},
        "output": {"url": ROOT, "format": "arrow"},
        "workers": {"count": history.workers},
    }
    history.world.note(f"run{' --takeover' if takeover else ''}{' --overwrite' if overwrite else ''}")
    first = len(history.pools)
    try:
        options = RunOptions(address="local", takeover=takeover, overwrite=overwrite)
        launch(Job.model_validate(document), options, warn=history.world.note)
    except RunnerError as error:
        history.world.note(f"ends: {type(error).__name__}: {error.message}")
        history.ends.append(type(error).__name__)
        return error
    except BaseException:
        history.ends.append("killed")
        for pool in history.pools[first:]:
            if pool.driver is current():
                pool.orphan()
        raise
    history.world.note("ends: done")
    history.ends.append("done")
    return None
