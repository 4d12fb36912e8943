"""Workers as Ray actors. Ray is imported here, in the other `ray_*.py`, and in `submission.py`; nowhere else.

Owns actors, GPU assignment and the translation of Ray's errors into events. Refuses to retry anything: Ray's own
retries and restarts are 0, the Schedule is the only authority. Rows never enter Ray's object store; a call carries
an Attempt in and a Receipt or a Failure out. Ray's head may be gone at any moment: whatever would wait for it is done
in a thread that can be left behind.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jobs.attempt import Attempt, Receipt
from jobs.errors import CapacityError, JobError, MemoryLimitError, RunnerError, WorkerError
from jobs.job import Workers
from jobs.schedule.event import (
    AttemptFailed,
    AttemptSucceeded,
    ClusterSeen,
    Event,
    StopRequested,
    WorkerDraining,
    WorkerFailedToStart,
    WorkerLost,
    WorkerReady,
)
from runner.cluster.actor import WorkerActor
from runner.cluster.metrics import RunMetrics
from runner.cluster.nodes import Watch
from runner.cluster.quiet import NodeAffinitySchedulingStrategy, OutOfMemoryError, RayActorError, ray
from runner.measure.snapshot import Snapshot
from runner.pool.pool import Clock
from runner.worker.spec import Progress, WorkerSpec

_IN_HAND = 2  # attempts of a worker: the Schedule gives out no more
_PROGRESS_S = 0.5  # how often a worker is asked for its rows
_STORE_BYTES = 80 * 2**20  # Ray's smallest object store: nothing of ours goes through it
_START_S = 120.0  # how long a local Ray may take to start on a busy machine
_HEAD_S = 30.0  # how long it may be silent; after 60 s Ray ends this process itself, without a word of ours
_KILL_S = 2.0  # how long the killing of actors may take; it takes milliseconds unless the head is gone
_SHUTDOWN_S = 15.0


@dataclass
class _Live:
    """One actor as the pool knows it."""

    handle: Any
    facts: dict[str, object] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    asked: float = 0.0  # when it was last asked for its progress
    leaving: bool = False  # its node drains, and that was told
    attempts: int = 0  # that were given to it

    @property
    def node(self) -> str:
        return str(self.facts.get("node_id", ""))


class RayPool:
    """Connects to `address`, or to a Ray that this process has started already, or starts a local one."""

    def __init__(self, workers: Workers, address: str | None = None, clock: Clock = time.monotonic) -> None:
        if address is not None and address.startswith("ray://"):
            raise JobError(
                f"cannot use '{address}': the driver must be part of the cluster, not a Ray Client; run it on a node of"
                " the cluster, with --address HOST:6379 or --address auto"
            )
        self._workers, self._address, self._clock = workers, address, clock
        self._spec: WorkerSpec | None = None
        self._live: dict[str, _Live] = {}
        self._calls: dict[Any, tuple[str, str]] = {}  # object ref -> (what was called, worker)
        self._owned = not ray.is_initialized()
        self._refusal: Exception | None = None
        self._connection: threading.Thread | None = None
        self._settled = threading.Event()  # connected, or refused
        self._closed = threading.Event()
        self._watch: Watch | None = None
        self._answers, self._silent_s, self._polled = 0, 0.0, clock()  # of the head, and when that was last looked at
        self._metrics: RunMetrics | None = None
        self._seen = ClusterSeen(0.0)  # as last told
        self._news: list[Event] = []  # for the next poll

    def connect(self) -> None:
        if self._connection is None:
            self._connection = threading.Thread(target=self._connect, name="ray-connect", daemon=True)
            self._connection.start()

    def serve(self, spec: WorkerSpec) -> None:
        """What the workers are to load; known when the plan is."""
        self._spec = spec

    def capacity(self) -> int:
        self._await_connection()
        wanted = self._wanted()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        fits = sum(self._fits(node) for node in nodes)
        if fits == 0 and self._owned and self._address is None:  # a local Ray will never have more than it has now
            raise CapacityError(f"no worker can be started: {_shortage(wanted, nodes)}")
        return max(1, fits)

    def start(self, worker: str, avoid: tuple[str, ...] = (), careful: bool = False) -> None:
        try:
            actor = ray.remote(concurrency_groups={"health": 1, "attempts": _IN_HAND})(WorkerActor).options(
                num_cpus=self._workers.cpus,
                num_gpus=self._workers.gpus,
                memory=self._workers.memory,
                resources=dict(self._workers.resources) or None,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=self._placement(avoid),
            )
            live = _Live(actor.remote(worker, self._workers))
            self._calls[live.handle.start.remote(self._spec, careful)] = ("start", worker)
            self._live[worker] = live
        except Exception as error:
            failed = WorkerError(f"worker {worker} could not be started: {_cause(error)}")
            self._news.append(WorkerFailedToStart(self._clock(), worker, failed))

    def trial(self, worker: str) -> None:
        if worker in self._live:  # else lost in the same poll
            self._calls[self._live[worker].handle.trial.remote()] = ("trial", worker)

    def dispatch(self, worker: str, attempt: Attempt) -> None:
        if worker not in self._live:  # lost in the same poll as the success that this follows; WorkerLost comes next
            return
        try:
            live = self._live[worker]
            self._calls[live.handle.run.remote(attempt, live.attempts)] = ("run", worker)
            live.attempts += 1
        except Exception as error:
            self._news.append(self._lost(worker, self._clock(), error))

    def stop(self, worker: str) -> None:
        live = self._live.pop(worker, None)
        self._forget(worker)
        if live is not None:
            self._kill([live])

    def poll(self, timeout_s: float) -> Sequence[Event]:
        news, self._news = [*self._news, *self._look_at_nodes()], []
        try:
            self._ask_for_progress()
            if not self._calls:
                time.sleep(min(timeout_s, 0.05))
                return news
            ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=0 if news else timeout_s, fetch_local=True)
            if ready:
                ready, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0, fetch_local=True)
        except Exception as error:
            _raise_ours(error)
            return [*news, StopRequested(self._clock(), WorkerError(f"{self._target()} failed: {_cause(error)}"))]
        return news + [event for ref in ready if (event := self._settle(ref)) is not None]

    def progress(self) -> Mapping[str, Progress]:
        return {name: live.progress for name, live in self._live.items()}

    def observe(self, at: Snapshot) -> None:
        self._metrics = self._metrics or RunMetrics()
        self._metrics.show(at)

    def facts(self) -> Mapping[str, Mapping[str, object]]:
        return {name: live.facts for name, live in self._live.items() if live.facts}

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._kill([self._live.pop(worker) for worker in list(self._live)])
        self._calls.clear()
        if self._connection is None or not self._owned:
            return
        self._settled.wait(_START_S)  # a Ray left half-started would leave its processes behind
        if ray.is_initialized():
            _bounded(ray.shutdown, _SHUTDOWN_S)
        self._closed.set()

    def _settle(self, ref: Any) -> Event | None:
        called = self._calls.pop(ref, None)
        if called is None:  # its worker was lost or stopped a moment ago
            return None
        what, worker = called
        live, now = self._live[worker], self._clock()
        try:
            answer = ray.get(ref, timeout=10)
        except Exception as error:  # whatever it is: this worker no longer answers as it should
            _raise_ours(error)
            return self._lost(worker, now, error)
        if what == "progress":
            live.progress = answer
            return None
        if what in ("start", "trial"):
            if isinstance(answer, RunnerError):
                self.stop(worker)
                return WorkerFailedToStart(now, worker, answer)
            live.facts = answer if what == "start" else live.facts | {"trial": answer}
            return WorkerReady(now, worker, live.node)
        if isinstance(answer, Receipt):
            return AttemptSucceeded(now, worker, answer)
        return AttemptFailed(now, worker, answer)

    def _lost(self, worker: str, now: float, error: Exception) -> Event:
        live = self._live[worker]
        facts = live.facts
        where = f" (pid {facts['pid']} on node {facts['node']})" if facts else ""
        kind = MemoryLimitError if isinstance(error, OutOfMemoryError) else WorkerError
        lost = kind(f"worker {worker}{where} was lost: {_cause(error)}")
        draining = self._watch.draining if self._watch is not None else {}
        preempted = live.node in draining or (isinstance(error, RayActorError) and bool(error.preempted))
        self.stop(worker)
        return WorkerLost(now, worker, lost, preempted) if facts else WorkerFailedToStart(now, worker, lost)

    def _kill(self, lives: Sequence[_Live]) -> None:
        def kill() -> None:
            for live in lives:
                ray.kill(live.handle, no_restart=True)

        if lives:
            _bounded(kill, _KILL_S if not self._silent_s > _HEAD_S else 0.1)

    def _placement(self, avoid: tuple[str, ...]) -> Any:
        """Spread over the nodes; away from `avoid`, to the node with most room for one more, if there is one."""
        nodes = self._watch.nodes if avoid and self._watch is not None else ()
        taken = [live.node for live in self._live.values()]
        room = {
            node["NodeID"]: self._fits(node["Resources"]) - taken.count(node["NodeID"])
            for node in nodes
            if node["NodeID"] not in avoid
        }
        best = max(room, key=lambda node: room[node], default=None)
        if best is None or room[best] < 1:
            return "SPREAD"
        return NodeAffinitySchedulingStrategy(best, soft=True)

    def _look_at_nodes(self) -> list[Event]:
        """What there is to tell of the cluster: nodes that drain, a head that is gone."""
        if self._watch is None:
            return []
        now, events = self._clock(), list[Event]()
        for worker, live in self._live.items():
            if live.facts and not live.leaving and live.node in self._watch.draining:
                live.leaving = True
                events.append(WorkerDraining(now, worker, max(0.0, self._watch.draining[live.node] - time.time())))
        if self._watch.answers and (seen := self._cluster(now)) != dataclasses.replace(self._seen, now=now):
            self._seen = seen
            events.append(seen)
        # Only time in which this process ran itself counts: it may have been stopped for an hour.
        self._silent_s += min(now - self._polled, 1.0)
        self._polled = now
        if self._watch.answers != self._answers:
            self._answers, self._silent_s = self._watch.answers, 0.0
        if self._silent_s > _HEAD_S:
            gone = f"{self._target()} has not answered for {_HEAD_S:.0f} s: its head process or node is gone"
            events.append(StopRequested(now, WorkerError(f"{gone}; start Ray, and run the same again to continue")))
        return events

    def _cluster(self, now: float) -> ClusterSeen:
        """Who waits for room, and whether ours will ever have any."""
        assert self._watch is not None
        wanted, nodes = self._wanted(), [node["Resources"] for node in self._watch.nodes]
        demand = self._watch.demand
        starting = sum(not live.facts for live in self._live.values())
        waits = demand.get("waits", [])
        alike = sum(count for shape, count in waits if shape == wanted)
        ours = min(starting, alike)
        others = sum(count for _, count in waits) - ours
        kinds = [*nodes, *demand.get("kinds", [])]
        if not any(self._fits(kind) for kind in kinds):
            return ClusterSeen(now, others, _shortage(wanted, kinds))
        if not ours:
            return ClusterSeen(now, others)
        needs = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        launched = f"; {demand['launched']} nodes are being started" if demand.get("launched") else ""
        return ClusterSeen(now, others, story=f"no room yet for {ours} x ({needs}){launched}")

    def _target(self) -> str:
        return f"Ray at '{self._address}'" if self._address else "the local Ray"

    def _forget(self, worker: str) -> None:
        for ref in [ref for ref, (_, owner) in self._calls.items() if owner == worker]:
            del self._calls[ref]

    def _ask_for_progress(self) -> None:
        now = self._clock()
        for worker, live in self._live.items():
            if live.facts and now - live.asked >= _PROGRESS_S and ("progress", worker) not in self._calls.values():
                live.asked = now
                self._calls[live.handle.progress.remote()] = ("progress", worker)

    def _fits(self, node: Mapping[str, float]) -> int:
        """How many workers a node with these resources holds."""
        return min(int(node.get(name, 0) // amount) for name, amount in self._wanted().items())

    def _wanted(self) -> dict[str, float]:
        asked = {"CPU": self._workers.cpus, "GPU": self._workers.gpus, "memory": self._workers.memory or 0}
        return {name: amount for name, amount in (asked | self._workers.resources).items() if amount > 0}

    def _connect(self) -> None:
        """The life of the connecting thread.

        It outlives the connection: the kernel kills the processes of a local Ray when the thread that started them
        ends (Ray sets PR_SET_PDEATHSIG, which follows the thread, not the process).
        """
        try:
            if self._owned:
                self._init()
            else:
                self._refusal = self._stranger()
        except Exception as error:  # told to whoever waits for the connection
            self._refusal = error
        self._settled.set()
        self._closed.wait()

    def _init(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self._address is not None:
            ray.init(address=self._address, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)

    def _stranger(self) -> Exception | None:
        """Why the Ray that this process is connected to is not the one asked for."""
        here = ray.get_runtime_context().gcs_address
        if self._address in (None, "auto", here):
            return None
        return ConnectionError(
            f"this process is connected to a Ray at '{here}'; leave the address out, or shut that down"
        )

    def _await_connection(self) -> None:
        self.connect()
        target = f"Ray at '{self._address}'" if self._address else "a local Ray"
        if not self._settled.wait(_START_S):
            raise CapacityError(
                f"{target} did not answer within {_START_S:.0f} s; look at its logs, or name another address"
            )
        if self._refusal is not None:
            reason = str(self._refusal).strip().splitlines()[0] if str(self._refusal).strip() else repr(self._refusal)
            raise CapacityError(f"cannot connect to {target}: {reason}") from self._refusal
        if threading.current_thread() is threading.main_thread():
            # Ray's core installs a handler that prints a stack and aborts; ours stops the workers first.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
        self._watch = self._watch or Watch()


def _raise_ours(error: Exception) -> None:
    """A signal handler raises wherever the main thread is: what it raises is no Exception, and no failure of Ray's.

    Ray's core may wrap it: "SystemError: ... returned a result with an exception set".
    """
    for found in (error.__cause__, error.__context__):
        if found is not None and not isinstance(found, Exception):
            raise found


def _bounded(call: Callable[[], None], seconds: float) -> None:
    """`call`, for so long at most; then it goes on alone. Its errors do not matter: what it ends is gone already."""

    def run() -> None:
        with suppress(Exception):
            call()

    thread = threading.Thread(target=run, name="ray-bounded", daemon=True)
    thread.start()
    thread.join(seconds)


def _shortage(wanted: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> str:
    """Which resource no node has enough of."""
    for name, amount in wanted.items():
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if most < amount:
            return (
                f"a worker asks for {amount:g} {name}, and the largest node has {most:g}; change `workers` in the job"
            )
    asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    return f"a worker asks for {asked}, and no single node has all of it; change `workers` in the job"


def _cause(error: Exception) -> str:
    """Ray's reason in one line; its own message runs over a page."""
    if isinstance(error, RayActorError):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        for line in lines:
            if "unexpectedly exit" in line or ("node" in line.lower() and "died" in line.lower()):
                return line
        return lines[0] if lines else type(error).__name__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
