"""Workers as Ray actors: calls to them, their answers as events, and their end.

Owns actors, GPU assignment and the translation of Ray's errors into events. Refuses to retry anything: Ray's own
retries and restarts are 0, the Schedule is the only authority. Rows never enter Ray's object store; a call carries
an Attempt in and a Success or a Failure out. Ray's head may be gone at any moment: whatever would wait for it is done
in a thread that can be left behind.
"""

from __future__ import annotations

import dataclasses
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.attempt import Attempt, Success
from jobs.errors import CapacityError, MemoryLimitError, RunnerError, WorkerError
from jobs.schedule.event import (
    AttemptFailed,
    AttemptSucceeded,
    ClusterLost,
    ClusterSeen,
    Event,
    StopRequested,
    WorkerDraining,
    WorkerFailedToStart,
    WorkerLost,
    WorkerReady,
)
from jobs.section.workers import Workers
from jobs.versions import installed
from runner.cluster.actor import WorkerActor
from runner.cluster.capacity import fits, needs, outlook, roomiest, shortage
from runner.cluster.connection import WITHOUT, Connection
from runner.cluster.fault import bounded, cause, raise_interruption
from runner.cluster.metrics import RunMetrics
from runner.cluster.nodes import NodeWatch, known_nodes
from runner.cluster.quiet import NodeAffinitySchedulingStrategy, OutOfMemoryError, RayActorError, ray
from runner.cluster.words import Home, last_words_of
from runner.measure.snapshot import Snapshot
from runner.pool.facts import WorkerFacts
from runner.pool.pool import Clock, Waited
from runner.worker.spec import Progress, WorkerSpec

_IN_HAND = 2  # attempts of a worker: the Schedule gives out no more
_PROGRESS_S = 0.5  # between two questions to a worker for its rows
_WORDS_S = 10.0  # how long the last words of a worker may take; Ray starts a process to read them
_KILL_S = 2.0  # how long the killing of actors may take; it takes milliseconds unless the head is gone


@dataclass
class _Live:
    """One actor as the pool knows it."""

    handle: Any
    facts: WorkerFacts | None = None  # once it is ready
    progress: Progress = field(default_factory=Progress)
    questioned: float = 0.0  # when a call for its progress was last sent
    leaving: bool = False  # its node drains, and `WorkerDraining` is sent
    attempts: int = 0  # that were given to it
    home: Home | None = None
    died: tuple[Exception, float] | None = None  # at its first calls, and when: its last words are asked for

    @property
    def node(self) -> str:
        return self.facts.place.node_id if self.facts else ""


class RayPool:
    """Connects to `address`, or to a Ray that this process has started already, or starts a local one."""

    def __init__(self, workers: Workers, address: str | None = None, clock: Clock = time.monotonic) -> None:
        self._workers, self._clock = workers, clock
        self._needs = needs(workers)
        self._connection = Connection(address)
        self._spec = b""  # pickled: a worker of another version refuses before it reads it
        self._live: dict[str, _Live] = {}
        self._calls: dict[Any, tuple[str, str]] = {}  # object ref -> (what was called, worker)
        self._watch: NodeWatch | None = None
        self._metrics: RunMetrics | None = None
        self._seen = ClusterSeen(0.0)  # as last sent
        self._news: list[Event] = []  # for the next poll
        self._node = ""  # of this driver
        self._gone = False  # the cluster, and that is told
        self._waiting: list[tuple[str, tuple[str, ...], bool]] = []  # arguments of `start`, until there is a cluster

    def connect(self) -> None:
        self._connection.begin()

    def serve(self, spec: WorkerSpec) -> None:
        """What the workers are to load; known when the plan is."""
        self._spec = pickle.dumps(spec)

    def capacity(self, waited: Waited = lambda what, seconds, over: None) -> int:
        self._connection.wait(waited)
        if self._watch is None:
            self._look_out()
        nodes = list(known_nodes()[0].values())
        room = sum(fits(self._needs, node) for node in nodes)
        if room == 0 and self._connection.local:
            # Its node may be gone before its processes have ended: then `workers` are not what is wrong.
            if lost := self._connection.lost(asking=not nodes) or ("" if nodes else "the local Ray has no node"):
                raise CapacityError(f"{lost}; run the same again to continue, or {WITHOUT}", resumable=True)
            raise CapacityError(f"no worker can be started: {shortage(self._needs, nodes)}")
        return max(1, room)

    def restart(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = self._metrics = None
        self._live.clear()
        self._calls.clear()
        self._connection.restart()

    def start(self, worker: str, avoid: tuple[str, ...] = (), isolated: bool = False) -> None:
        if self._connection.pending:
            self._waiting.append((worker, avoid, isolated))
            return
        if self._lose(asking=True, starting=True):
            return
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
            self._calls[live.handle.home.remote()] = ("home", worker)
            self._calls[live.handle.start.remote(installed().document(), self._spec, isolated)] = ("start", worker)
            self._live[worker] = live
        except Exception as error:
            failed = WorkerError(f"worker {worker} could not be started: {cause(error)}")
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
        if self._watch is None and not self._connection.pending:
            self._begin_again()
        self._lose()
        news, self._news = [*self._news, *self._look_at_nodes()], []
        now = self._clock()
        # The last words of some do not come: their node is gone too.
        silent = [
            (worker, live.died[0]) for worker, live in self._live.items() if live.died and now - live.died[1] > _WORDS_S
        ]
        news += [self._lost(worker, now, error) for worker, error in silent]
        try:
            self._ask_for_progress()
            if not self._calls:
                time.sleep(min(timeout_s, 0.05))
                return news
            ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=0 if news else timeout_s, fetch_local=True)
            if ready:
                ready, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0, fetch_local=True)
        except Exception as error:
            raise_interruption(error)
            return [
                *news,
                StopRequested(self._clock(), WorkerError(f"{self._connection.target} failed: {cause(error)}")),
            ]
        return news + [event for ref in ready if (event := self._settle(ref)) is not None]

    def progress(self) -> Mapping[str, Progress]:
        return {name: live.progress for name, live in self._live.items()}

    def observe(self, at: Snapshot) -> None:
        self._metrics = self._metrics or RunMetrics()
        self._metrics.show(at)

    def facts(self) -> Mapping[str, WorkerFacts]:
        return {name: live.facts for name, live in self._live.items() if live.facts}

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._metrics is not None:
            self._metrics.close()
        self._kill([self._live.pop(worker) for worker in list(self._live)])
        self._calls.clear()
        self._connection.close()

    def _look_out(self) -> None:
        self._watch, self._gone = NodeWatch(self._clock()), False
        self._node = ray.get_runtime_context().get_node_id()

    def _begin_again(self) -> None:
        """The cluster that was to take the place of another is there, or could not be started."""
        try:
            self._connection.wait()
        except CapacityError as error:
            self._news.append(StopRequested(self._clock(), error))
            return
        self._look_out()
        self._seen = dataclasses.replace(self._seen, others=-1)  # whatever is seen now is news
        waiting, self._waiting = self._waiting, []
        for worker, avoid, isolated in waiting:
            self.start(worker, avoid, isolated)

    def _lose(self, asking: bool = False, starting: bool = False) -> bool:
        """Whether the cluster is gone; that is told once, in place of what its workers answer.

        asking:   see `Connection.lost`.
        starting: a worker; then the node of this driver must be there, too.
        """
        if self._gone or self._watch is None:
            return self._gone
        story = self._connection.lost(asking)
        if starting and not story and (why := self._watch.deaths.get(self._node)):
            # Workers elsewhere go on; but what a new one is handed goes through that node, and may end this process.
            story = f"the node of this driver is gone from {self._connection.target}: {why}"
        if story:
            local = self._connection.local
            self._news.append(ClusterLost(self._clock(), story, restarts=local, advice=WITHOUT if local else ""))
            self._calls.clear()
            self._gone = True
        return self._gone

    def _settle(self, ref: Any) -> Event | None:
        called = self._calls.pop(ref, None)
        if called is None:  # its worker was lost or stopped a moment ago
            return None
        what, worker = called
        live, now = self._live[worker], self._clock()
        try:
            answer = ray.get(ref, timeout=10)
        except Exception as error:  # whatever it is: this worker no longer answers as it should
            raise_interruption(error)
            if self._lose(asking=True):  # no shard is to blame for it
                return None
            if what == "home" or self._ask_for_words(live, worker, now, error):  # where `home` fails, `start` does too
                return None
            return self._lost(worker, now, error if live.died is None else live.died[0])
        if what == "words" and live.died is not None:
            return self._lost(worker, now, live.died[0], answer)
        if what == "home":
            live.home = answer
            return None
        if what == "progress":
            live.progress = answer
            return None
        if what in ("start", "trial"):
            if isinstance(answer, RunnerError):
                self.stop(worker)
                return WorkerFailedToStart(now, worker, answer)
            if what == "start":
                live.facts = answer
            elif live.facts is not None:
                live.facts = dataclasses.replace(live.facts, trial=answer)
            return WorkerReady(now, worker, live.node)
        if isinstance(answer, Success):
            return AttemptSucceeded(now, worker, answer)
        return AttemptFailed(now, worker, answer)

    def _ask_for_words(self, live: _Live, worker: str, now: float, error: Exception) -> bool:
        """Whether somebody was asked what a worker said as it died at its first calls; its loss is told afterwards."""
        first = live.attempts == 0 and live.died is None and isinstance(error, RayActorError) and not error.preempted
        if not first or live.home is None or not live.home.log:
            return False
        self._forget(worker)
        live.died = error, now
        self._calls[last_words_of(live.home)] = ("words", worker)
        return True

    def _lost(self, worker: str, now: float, error: Exception, words: str = "") -> Event:
        """words: how it died, where that is known better than by Ray."""
        live = self._live[worker]
        facts = live.facts
        where = f" (pid {facts.place.pid} on node {facts.place.node})" if facts else ""
        kind = MemoryLimitError if isinstance(error, OutOfMemoryError) else WorkerError
        lost = kind(f"worker {worker}{where} was lost: {words or cause(error)}")
        draining = self._watch.draining if self._watch is not None else {}
        preempted = live.node in draining or (isinstance(error, RayActorError) and bool(error.preempted))
        self.stop(worker)
        return WorkerLost(now, worker, lost, preempted) if facts else WorkerFailedToStart(now, worker, lost)

    def _kill(self, lives: Sequence[_Live]) -> None:
        def kill() -> None:
            for live in lives:
                ray.kill(live.handle, no_restart=True)

        if lives and not self._gone:
            bounded(kill, 0.1 if self._watch is not None and self._watch.gone else _KILL_S)

    def _placement(self, avoid: tuple[str, ...]) -> Any:
        """Spread over the nodes; away from `avoid`, to the node with most room for one more, if there is one."""
        nodes = self._watch.nodes if avoid and self._watch is not None else {}
        best = roomiest(self._needs, nodes, [live.node for live in self._live.values()], avoid)
        return "SPREAD" if best is None else NodeAffinitySchedulingStrategy(best, soft=True)

    def _look_at_nodes(self) -> list[Event]:
        """What there is to tell of the cluster: nodes that drain, a head that is gone."""
        if self._watch is None:
            return []
        now, events = self._clock(), list[Event]()
        for worker, live in self._live.items():
            if live.facts and not live.leaving and live.node in self._watch.draining:
                live.leaving = True
                events.append(WorkerDraining(now, worker, max(0.0, self._watch.draining[live.node] - time.time())))
        if self._watch.answers and not self._gone:
            starting = sum(not live.facts for live in self._live.values())
            death = next(iter(self._watch.deaths.values()), "")
            seen = outlook(now, self._needs, list(self._watch.nodes.values()), self._watch.backlog, starting, death)
            if seen != dataclasses.replace(self._seen, now=now):
                self._seen = seen
                events.append(seen)
        self._watch.look(now)
        if gone := self._watch.gone:
            lost = f"{self._connection.target} {gone}; start Ray, and run the same again to continue"
            events.append(StopRequested(now, WorkerError(lost)))
        return events

    def _forget(self, worker: str) -> None:
        for ref in [ref for ref, (_, owner) in self._calls.items() if owner == worker]:
            del self._calls[ref]

    def _ask_for_progress(self) -> None:
        now = self._clock()
        for worker, live in self._live.items():
            if (
                live.facts
                and live.died is None
                and now - live.questioned >= _PROGRESS_S
                and ("progress", worker) not in self._calls.values()
            ):
                live.questioned = now
                self._calls[live.handle.progress.remote()] = ("progress", worker)
