"""The Ray actor: one worker in a process of its own. A thin shell around runner.worker."""

from __future__ import annotations

import dataclasses
import os
import pickle
import time
from collections.abc import Mapping
from typing import Any

from jobs.attempt import Attempt
from jobs.errors import CapacityError, RunnerError
from jobs.section.workers import Workers
from jobs.versions import Versions, installed
from runner.cluster.metrics import WorkerMetrics
from runner.cluster.quiet import ray
from runner.cluster.words import Home, home
from runner.engine import EngineOptions
from runner.measure.place import Place
from runner.pool.facts import WorkerFacts
from runner.pool.pool import as_runner_error
from runner.worker.in_hand import waits
from runner.worker.spec import Progress, WorkerSpec
from runner.worker.trial.trial import Trial
from runner.worker.worker import Worker


class WorkerActor:
    """The process around one Worker. Its methods never raise errors of ours: they return them."""

    def __init__(self, name: str, workers: Workers) -> None:
        self._name, self._workers = name, workers
        if workers.gpus == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow loads: it takes the memory of all it sees
        self._worker: Worker | None = None
        self._metrics = WorkerMetrics()

    def home(self) -> Home:
        return home()

    def start(self, driver: Mapping[str, str], pickled: bytes, isolated: bool) -> WorkerFacts | RunnerError:
        """Load the model; returns what is known of this worker.

        driver:  its versions, as plain values.
        pickled: a WorkerSpec, which is unpickled once it is certain that it means the same here.
        """
        if (refusal := _refusal(self._name, driver)) is not None:
            return refusal
        spec: WorkerSpec = pickle.loads(pickled)  # noqa: S301 (of our own driver)
        share = self._workers.gpus if 0 < self._workers.gpus < 1 else None
        options = EngineOptions(
            threads=max(1, int(self._workers.cpus)), gpu=self._workers.gpus > 0, gpu_memory_fraction=share
        )
        began = time.monotonic()
        try:
            self._worker = Worker(spec, self._name, options, isolated=isolated, memory=self._workers.memory)
        except Exception as error:
            return as_runner_error(error, self._name)
        self._metrics.loaded(time.monotonic() - began)
        self._worker.observe = self._metrics.batch
        context = ray.get_runtime_context()
        place = Place(
            devices=self._worker.devices,
            pid=os.getpid(),
            node=ray.util.get_node_ip_address(),
            node_id=context.get_node_id(),
            gpus=tuple(context.get_accelerator_ids().get("GPU", ())),
            cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        )
        return WorkerFacts(place, self._worker.warm_up)

    def trial(self) -> Trial | RunnerError:
        assert self._worker is not None  # the pool asks workers that are ready
        try:
            return self._worker.trial()
        except Exception as error:
            return as_runner_error(error, self._name)

    @ray.method(concurrency_group="attempts")  # type: ignore[untyped-decorator]
    def run(self, attempt: Attempt, number: int) -> Any:
        """number: of this worker's attempts, from 0: two threads of one group begin in any order."""
        assert self._worker is not None  # the pool dispatches to workers that are ready
        result = self._worker.attempt(attempt, number)
        self._metrics.ended(result)
        return result

    @ray.method(concurrency_group="health")  # type: ignore[untyped-decorator]
    def progress(self) -> Progress:
        progress = self._worker.progress if self._worker is not None else Progress()
        return dataclasses.replace(progress, waits=waits())


def _refusal(name: str, driver: Mapping[str, str]) -> CapacityError | None:
    """Where the runner of this machine is not the driver's: what they hand each other may mean something else."""
    here, there = installed().runner, Versions.from_document(driver).runner
    if not here or not there or here == there:
        return None
    node = ray.util.get_node_ip_address()
    return CapacityError(
        f"worker {name} cannot work for this driver: runner {here} is installed on node {node}, and the driver is"
        f" runner {there}; install one version on all machines, or send the job with `runner submit`, which takes its"
        " own along"
    )
