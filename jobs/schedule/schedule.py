"""The Schedule: which worker does which shard next, and what follows when one fails.

Owns order, retry, replacement and giving up, over a book of shards and a book of workers; refuses to know Ray, clocks,
threads and files: an event comes in with the time at which it happened, actions go out as values. The invariant: at any
moment every shard is done, waiting, or in hand of one worker (of two, where one is the other's backup); it is recorded
once, and the run ends in exactly one Finish or GiveUp.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial

from jobs.attempt import Failure, Success, attempt
from jobs.errors import RunnerError, WorkerError
from jobs.plan import Plan
from jobs.rejection import Rejections
from jobs.schedule.assignment import Assignments, Place
from jobs.schedule.draw import Draw
from jobs.schedule.elastic import Demand, Elastic
from jobs.schedule.event import (
    Action,
    AttemptFailed,
    AttemptSucceeded,
    ClusterLost,
    ClusterSeen,
    Dispatch,
    Event,
    Finish,
    GiveUp,
    Record,
    RestartCluster,
    Started,
    StartWorker,
    StopRequested,
    StopWorker,
    Tick,
    WorkerDraining,
    WorkerFailedToStart,
    WorkerLost,
    WorkerProgressed,
    WorkerReady,
)
from jobs.schedule.policy import RETRIED, Nodes, Pace, Policy
from jobs.schedule.shards import Shards
from jobs.schedule.supply import Supply
from jobs.schedule.verdict import ended_by, poisoned


class Schedule:
    """One run of `plan`, from Started to Finish or GiveUp. Nine bytes a shard, O(log n) an event.

    `shards`, `assignments` and `supply` say how far it is; only the Schedule changes them.
    """

    def __init__(
        self,
        plan: Plan,
        done: Collection[int],
        policy: Policy,
        draw: Draw,
        demand: Demand,
        rejections: Rejections | None = None,
        suspects: Collection[int] = (),
    ) -> None:
        """
        done:       indexes of the shards that earlier runs published.
        rejections: what the job may lose, with what the shards that are done have lost already.
        suspects:   shards that an earlier run died of: they are tried in isolation at once, where the policy allows it.
        raises:     ValueError where shards are left and no worker is wanted.
        """
        self._plan, self._policy, self._draw = plan, policy, draw
        self.shards = Shards(plan, done, suspects if policy.isolated else ())
        self.assignments = Assignments(policy.in_hand)
        left = self.shards.left
        self._wanted = min(demand.most, left)
        if left and self._wanted < 1:
            raise ValueError(f"cannot schedule {left} shards: {demand.most} workers; expected at least 1")
        least = demand.least
        self._elastic = None if least is None else Elastic(min(least, demand.most), demand.most, policy)
        self.supply = Supply(self._wanted, demand.needs, policy, draw)
        self._pace, self._nodes = Pace(policy), Nodes(policy.node)
        self._rejections = rejections or Rejections(self.shards.total, self.shards.total, 0, 0)
        self._safe_rows: dict[str, int] = {}  # shape of a row -> rows of a batch that fit into memory, as last heard
        self._looked: float | None = None  # when running attempts were last looked at
        self._verdict: RunnerError | None = None
        self._over = False

    @property
    def waiting(self) -> int:
        """Shards that are neither done nor in hand."""
        return self.shards.left - len(self.assignments.holder)

    @property
    def workers(self) -> int:
        """How many workers this run wants: of an elastic one, how many it has requested and keeps."""
        return self._wanted if self._elastic is None else self.assignments.staying

    def handle(self, event: Event) -> list[Action]:
        """What to do after `event`. Events that come late or twice, and all after the end, change nothing."""
        if self._over:
            return []
        workers = self.assignments.workers
        actions: list[Action] = list(self._note(event))
        if self._verdict is None and self.shards.left:
            self._verdict = self.supply.shortage(event.now, len(workers))
        if self._verdict is None:
            self._verdict = self._rejections.excess() or (None if self.shards.left else self._rejections.nothing_left())
        self._over = self._verdict is not None or not self.shards.left
        if self._verdict is not None:
            return [*actions, GiveUp(self._verdict), *map(StopWorker, workers)]
        if self._over:
            return [*actions, *map(StopWorker, workers), Finish()]
        self.shards.end_back_offs(event.now)
        actions += [*self._starts(event.now), *self._dispatches(event.now), *self._surplus(event.now)]
        if isinstance(event, Tick) and self._looked == event.now:
            actions += self._backups(event.now)
        return actions

    # Events

    def _note(self, event: Event) -> Iterator[Action]:
        match event:
            case Started(now):
                self.supply.note_usable(now, self.assignments.usable)
            case WorkerReady(_, name, node):
                self._note_ready(name, node)
            case WorkerFailedToStart(now, name, error):
                self._note_gone(now, name, error)
            case WorkerLost(now, name, error, preempted):
                self._note_gone(now, name, error, preempted)
            case WorkerDraining(now, name, deadline_s):
                yield from self._note_draining(now, name, deadline_s)
            case WorkerProgressed(now, name, attempt_id, rows):
                worker = self.assignments.workers.get(name)
                if worker is not None and (batch_s := worker.progress(now, attempt_id, rows)) is not None:
                    self._pace.note_batch(batch_s)
            case AttemptSucceeded(now, name, success):
                yield from self._note_success(now, name, success)
            case AttemptFailed(now, name, failure):
                yield from self._note_failure(now, name, failure)
            case ClusterSeen(now, others):
                self.supply.note_cluster(event)
                if self._elastic is not None:
                    self._elastic.note_others(now, others, self.assignments.staying)
            case ClusterLost(now):
                yield from self._note_cluster_lost(now, event)
            case Tick(now):
                yield from self._look(now)
            case StopRequested(_, error):
                self._verdict = error

    def _note_ready(self, name: str, node: str) -> None:
        worker = self.assignments.workers.get(name)
        if worker is not None and not worker.ready:
            self.assignments.enter(name, node)
            self.supply.note_ready()

    def _note_gone(self, now: float, name: str, error: RunnerError, preempted: bool = False) -> None:
        worker = self.assignments.workers.get(name)
        if worker is None:
            return
        if not worker.ready:
            self.assignments.remove(name)
            if not preempted:
                last = not self.assignments.workers
                self._verdict = self.supply.note_failed_start(now, name, error, last)
            return
        if preempted or worker.leaves is not None:
            self._remove(now, name)
            return
        running = worker.running
        self._remove(now, name, error)
        if self._verdict is not None:
            return
        if running is not None and self._policy.isolated and self.shards.state(running.shard).deaths:
            return  # the shard's own deaths are counted, and lead to an isolated attempt
        self._verdict = self.supply.note_loss(name, error)

    def _note_cluster_lost(self, now: float, lost: ClusterLost) -> Iterator[Action]:
        """No shard is at fault: what was in hand is given back, and no try is used up."""
        self._verdict = self.supply.note_cluster_lost(lost)
        if self._verdict is None:
            for name in list(self.assignments.workers):
                yield from self._let_go(now, name)
            yield RestartCluster(lost.story)

    def _note_draining(self, now: float, name: str, deadline_s: float) -> Iterator[Action]:
        """It ends what it runs, if it can by then; all else is given back, and no try is used up."""
        worker = self.assignments.workers.get(name)
        if worker is None or worker.leaves is not None:
            return
        running = worker.running
        row_s = self._pace.row_s() or 0.0
        if running is None or (now - worker.began) + deadline_s < row_s * running.rows:
            yield from self._let_go(now, name)
            return
        self.assignments.drain(name, now + deadline_s)
        self.supply.note_usable(now, self.assignments.usable)
        for held in list(worker.attempts.values())[1:]:
            self.assignments.put_down(now, name, held.shard)
            self._give_back(now, name, held.shard)

    def _note_success(self, now: float, name: str, success: Success) -> Iterator[Action]:
        """A published part is done, also where a worker thought lost reports it."""
        receipt, advice = success.receipt, success.advice
        shard = receipt.shard
        worker = self.assignments.workers.get(name)
        if worker is not None:
            worker.failed.clear()
            self._nodes.note_success(worker.node)
            if worker.running is not None and worker.running.id == receipt.attempt and not receipt.adopted:
                self._pace.note_shard(now - worker.began, self._plan.shards[shard].rows)
        self.assignments.put_down(now, name, shard)
        if not self.shards.is_done(shard):
            slow = self.assignments.finish(shard, name)
            self.supply.note_finished()
            self._rejections.note(receipt)
            self._safe_rows.update(advice.safe_rows)
            yield Record(success, self.shards.finish(shard))
            if slow is not None and self.shards.left:
                yield from self._let_go(now, slow)
        if worker is not None and (advice.recycle or worker.isolated) and self.shards.left:
            yield from self._let_go(now, name)
        yield from self._end_of_drain(now, name)

    def _note_failure(self, now: float, name: str, failure: Failure) -> Iterator[Action]:
        worker = self.assignments.workers.get(name)
        held = worker.attempts.get(failure.shard) if worker else None
        if worker is None or held is None or held.id != failure.attempt:
            return
        self.assignments.put_down(now, name, failure.shard)
        error = failure.error
        # One row alone that does not fit, and a device that fails, end a process as surely as a signal does.
        spent = error.ends_process
        if not self.shards.is_done(failure.shard):
            worker.failed.append(failure.shard)
            self._charge(now, failure, worker.node, death=spent and self._policy.isolated)
        # What a process allocated, or what broke in it, does not come back.
        broken = worker.isolated or error.replaces_worker
        # Where several shards fail in a row, the worker is at fault and not the shards.
        at_fault = len(worker.failed) >= self._policy.worker and len(set(worker.failed)) > 1
        if (broken or at_fault) and self._verdict is None:
            yield from self._let_go(now, name)
        yield from self._end_of_drain(now, name)

    # Consequences

    def _remove(self, now: float, name: str, error: RunnerError | None = None) -> None:
        """Forget a worker and give back what it held. error: charge it to the attempt that ran."""
        worker = self.assignments.remove(name)
        self.supply.note_usable(now, self.assignments.usable)
        for order, held in enumerate(worker.attempts.values()):
            if self.shards.is_done(held.shard):
                continue  # another worker did it meanwhile
            if order == 0 and error is not None:
                failure = Failure(held.shard, held.id, held.number, name, error)
                self._charge(now, failure, worker.node, death=True)
            else:
                self._give_back(now, name, held.shard)

    def _let_go(self, now: float, name: str) -> Iterator[Action]:
        self._remove(now, name)
        yield StopWorker(name)

    def _end_of_drain(self, now: float, name: str) -> Iterator[Action]:
        worker = self.assignments.workers.get(name)
        if worker is not None and worker.leaves is not None and not worker.attempts:
            yield from self._let_go(now, name)

    def _give_back(self, now: float, name: str, shard: int) -> None:
        """No try is used up."""
        if self.assignments.release(name, shard):
            self.shards.retry(shard, now)

    def _charge(self, now: float, failure: Failure, node: str, death: bool = False) -> None:
        """One try of the shard is used up: another one later, or the end. death: the process died, or stalled."""
        shard, error = failure.shard, failure.error
        free = self.assignments.release(failure.worker, shard)  # no other worker has it in hand
        place = Place(failure.worker, node if error.failure_class == "infrastructure" else "")
        state = self.shards.note_failure(failure, place, death)
        for _ in range(2 if error.breaks_device else 1):  # a node with a bad device is avoided sooner
            self._nodes.note_failure(node)
        facts = {"shard": shard, "worker": failure.worker, "attempts": len(state.tries)}
        if error.failure_class == "stopped":
            self._verdict = error
        elif error.failure_class not in RETRIED:
            story = f"shard {shard} failed on worker {failure.worker} and would fail again"
            self._verdict = ended_by(error, story, **facts)
        elif not free:
            pass  # the other worker may still do it
        elif death and self._policy.isolated and len(state.deaths) >= self._policy.deaths(error):
            if state.isolated:
                self._verdict = poisoned(self._plan, shard, state.deaths)
            else:
                self.shards.condemn(shard)
        elif (used := self._policy.used_up(state.tries)) is not None:
            self._verdict = ended_by(error, f"shard {shard} failed {used}: last on worker {failure.worker}", **facts)
        elif death and len(state.deaths) >= self._policy.poison and self.shards.killed_alone(shard):
            self._verdict = poisoned(self._plan, shard, state.deaths)
        else:
            self.shards.retry(shard, now + self._draw.back_off_s(len(state.tries)))

    def _look(self, now: float) -> Iterator[Action]:
        """Workers whose attempt makes no progress, or whose node is about to go, are stopped."""
        if self._looked is not None and now - self._looked < self._policy.look_s:
            return
        away = self._looked is None or now - self._looked > self._policy.stall_s / 4
        self._looked = now
        stall_s = self._pace.stall_s()
        for name, worker in list(self.assignments.workers.items()):
            patience_s = stall_s * (self._policy.isolated_stall if worker.isolated else 1)
            silent_s = now - worker.moved
            if away:  # the driver did not run for a while, and does not know yet what its workers did meanwhile
                worker.moved = now
            elif worker.leaves is not None and now >= worker.leaves:
                yield from self._let_go(now, name)
            elif (running := worker.running) is not None and silent_s >= patience_s:
                story = f"worker {name} stalled: no progress in shard {running.shard} for {silent_s:.0f} s"
                self._remove(now, name, WorkerError(f"{story}; it was stopped", worker=name))
                yield StopWorker(name)
            if self._verdict is not None:
                return

    # What to do next

    def _starts(self, now: float) -> Iterator[Action]:
        if not self.supply.may_start(now, self.assignments.usable, len(self.assignments.workers)):
            return
        for name in list(self.assignments.isolated)[self.shards.condemned :]:
            yield from self._let_go(now, name)  # the shard that it was started for is done
        isolated = self.shards.condemned - len(self.assignments.isolated)
        while self.assignments.staying < self._target(now, isolated > 0):
            name = self.assignments.add(isolated > 0)
            yield StartWorker(name, tuple(sorted(self._nodes.bad | self.assignments.leaving)), isolated > 0)
            isolated -= 1

    def _target(self, now: float, isolated: bool = False) -> int:
        """How many workers there should be: as long as so many shards are left. Elastic: as there is work for.

        isolated: the next one is for an isolated attempt. It takes the place of the one that died; an idle one is no
        reason to do without it.
        """
        most = self._wanted if self._elastic is None else self._elastic.cap(now)
        if isolated:
            return most
        return min(most, self.shards.left if self._elastic is None else self.assignments.busy + self.waiting)

    def _surplus(self, now: float) -> Iterator[Action]:
        """Workers that an elastic run gives back: those that start first, then those without work, then others.

        One without work stays if it may: it can take over from a worker that fails or is slow at the end.
        """
        if self._elastic is None:
            return
        over = self.assignments.staying - self._elastic.cap(now)
        idle = self.assignments.staying - self._target(now) - 1
        if max(over, idle) <= 0:
            return
        starting = [name for name in self.assignments.starting if name not in self.assignments.isolated]
        for name in [*starting, *self.assignments.idle][: max(over, idle)]:
            over -= 1
            yield from self._let_go(now, name)
        usable = [name for name, worker in self.assignments.workers.items() if worker.usable]
        for name in usable[: max(over, 0)]:
            yield from self._note_draining(now, name, float("inf"))

    def _dispatches(self, now: float) -> Iterator[Action]:
        """Empty hands first; a second shard only while more wait than hands are empty, starting workers included."""
        for name in list(self.assignments.isolated):
            if self.shards.condemned and self.assignments.workers[name].usable:
                yield self._give(now, name, self.shards.take_condemned())
        for load, room in enumerate(self.assignments.room):
            for name in list(room):
                if self.shards.exhausted or (load and self.waiting <= self.assignments.empty):
                    return
                shard = self.shards.take(partial(self.assignments.shuns, name))
                if shard is not None:
                    yield self._give(now, name, shard)

    def _backups(self, now: float) -> Iterator[Action]:
        """A second worker for what takes far too long, once there is nothing else to do for it."""
        row_s = self._pace.row_s()
        workers = self.assignments.workers
        if self.waiting or row_s is None or not self.assignments.idle:
            return
        overdue = []
        for name, worker in workers.items():
            for shard in () if worker.isolated else worker.attempts:
                usual = max(self._policy.backup_factor * row_s * self._plan.shards[shard].rows, self._policy.backup_s)
                open_ = not self.shards.is_done(shard) and shard not in self.shards.backed
                if open_ and now - worker.began > usual:
                    overdue.append((usual - (now - worker.began), shard, name))
        for _, shard, slow in sorted(overdue):
            others = self.assignments.idle
            if not others or len(self.shards.backed) >= self._policy.backups(self.shards.total):
                return
            away = (name for name in others if workers[name].node != workers[slow].node)
            yield self._give(now, next(away, others[0]), shard, backup=True)

    def _give(self, now: float, name: str, shard: int, backup: bool = False) -> Dispatch:
        state = self.shards.state(shard)
        given = attempt(
            self._plan,
            self._plan.shards[shard],
            len(state.tries) + 1,
            self._draw.epoch,
            self._draw.nonce(),
            isolated=state.isolated,
            halvings=state.halvings,
            safe_rows=dict(self._safe_rows),
            works=self._rejections.scored > 0,
        )
        self.assignments.take(now, name, given, backup)
        return Dispatch(name, given, adopt=self.shards.note_given(shard, backup))

    def validate(self) -> None:
        """Check every invariant, in O(n): for tests, after each event."""
        shards, assignments = self.shards, self.assignments
        shards.validate(assignments.holder, over=self._verdict is not None)
        assignments.validate(shards.is_done)
        self.supply.validate(assignments.usable)
        assert assignments.staying <= (self._wanted if self._elastic is None else self._elastic.most)
        most = self._policy.most_attempts
        assert all(
            len(state.tries) <= most + (shard in shards.backed) + state.isolated
            for shard, state in shards.states.items()
        )
        for shard, name in assignments.holder.items():
            isolated = assignments.workers[name].isolated
            assert shards.state(shard).isolated == isolated, "what is condemned is with an isolated worker"
        assert assignments.backup.keys() <= shards.backed
        assert len(shards.backed) <= self._policy.backups(shards.total)
