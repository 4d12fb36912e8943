"""Whether a run does without Ray by itself: one shard on this machine gains nothing from workers of their own.

Owns when that is safe; refuses to know pools. The invariant: where a worker's own process protects a job, or was asked
for, there is one: rows that may be set aside, a model that may do more than compute, memory, GPUs, equal bits, a driver
that died before, a notebook's kernel.
"""

from __future__ import annotations

import sys

from connectors.output.directory import OutputDirectory
from jobs.job import Job
from runner.preflight.preflight import Examined, Preflight
from runner.report.display import in_notebook

LOCAL = "local"  # the address of a Ray that is started for this run, whatever its size
TOLD = "1 shard: scored in this process, without Ray; `--address local` starts one"
_MOST_FILES = 64  # whose footers are read before Ray is started; more are read while it starts


def may_be_alone(examined: Examined, in_process: bool, address: str | None) -> bool:
    """Whether a plan of one shard would run here, and may come of what was listed.

    in_process, address: as they were asked for.
    """
    if in_process or address is not None or _ray_is_here() or in_notebook():
        return False
    job, files = examined.job, examined.files
    few = len(files) <= _MOST_FILES and sum(file.size for file in files) <= job.limits.shard_bytes
    return few and _needs_no_worker(job)


def is_alone(ready: Preflight) -> bool:
    """Whether the plan is one of one shard, and no driver died of it: what ends a worker ends this process."""
    plan = ready.plan
    if len(plan.shards) != 1:
        return False
    epochs = OutputDirectory(ready.job.output, plan.id, 1).epochs
    last = max(epochs.numbers(), default=0)
    return not last or bool(epochs.document(last).get("ended"))


def _needs_no_worker(job: Job) -> bool:
    workers, limits = job.workers, job.limits
    one = workers.count in ("auto", 1) and workers.max is None
    asked = workers.gpus or workers.memory is not None or workers.resources
    harmless = not any(model.trust or model.op_libraries for model in job.called.values())
    return one and not asked and harmless and not limits.may_lose and not limits.reproducible


def _ray_is_here() -> bool:
    """Whether this process is connected to a Ray already; it is not imported for the answer."""
    initialised = getattr(sys.modules.get("ray"), "is_initialized", None)
    return initialised is not None and bool(initialised())
