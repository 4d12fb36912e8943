"""The Schedule: which worker does which shard next, and what follows when one fails.

Owns order, retry, replacement and giving up; refuses to know Ray, clocks, threads and files: an event comes in with
the time at which it happened, actions go out as values. The invariant: at any moment every shard is done, waiting, or
in hand of one worker (of two, where one is the other's backup); it is recorded once, and the run ends in exactly one
Finish or GiveUp.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator
from heapq import heappop, heappush
from random import Random

from jobs.attempt import Failure, Receipt, attempt
from jobs.errors import CapacityError, RunnerError, WorkerError
from jobs.plan import Plan
from jobs.rejection import Rejections
from jobs.schedule.assignment import Hands
from jobs.schedule.elastic import Elastic
from jobs.schedule.event import (
    Action,
    AttemptFailed,
    AttemptSucceeded,
    ClusterSeen,
    Dispatch,
    Event,
    Finish,
    GiveUp,
    Record,
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
from jobs.schedule.policy import RETRIED, Nodes, Pace, Policy, poisoned

_START_TRIES = 3  # in a row; a constructor that fails three times will not mend itself
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.5, 30.0
_FAILURES_KEPT = 100  # for progress; all failures of a shard go out with its Record

_Place = tuple[str, str]  # (worker, node) that a retry avoids; "" for none
_ANYWHERE: _Place = ("", "")


class Schedule:
    """One run of `plan`, from Started to Finish or GiveUp. Nine bytes a shard, O(log n) an event."""

    def __init__(
        self,
        plan: Plan,
        done: Collection[int],
        workers: int,
        max_attempts: int,
        epoch: int,
        nonce: Callable[[], str],
        random: Random,
        *,
        least: int | None = None,
        asked: str = "",
        in_hand: int = 2,
        capacity_s: float = 15 * 60,
        policy: Policy | None = None,
        rejections: Rejections | None = None,
        suspects: Collection[int] = (),
    ) -> None:
        """
        done:       indexes of the shards that earlier runs published.
        workers:    how many to keep alive, as long as so many shards are left.
        least:      an elastic run: `workers` is the most, this the least there should be; see `elastic.py`.
        nonce:      draws 12 random hex digits for an attempt's id.
        random:     for the jitter of back-offs.
        asked:      what the workers need, for the message of a CapacityError: '8 workers with 1 GPU each'.
        in_hand:    attempts a worker holds: the one it runs, and what it may begin without asking.
        capacity_s: how long there may be no usable worker.
        policy:     the other limits; see there.
        rejections: what the job may lose, with what the shards that are done have lost already.
        suspects:   shards that an earlier run died of: they are tried carefully at once, where the policy allows it.
        """
        shards = plan.shards
        self._plan, self._epoch, self._nonce, self._random = plan, epoch, nonce, random
        self._max_attempts, self._capacity_s, self._policy = max_attempts, capacity_s, policy or Policy()
        self._done = bytearray(len(shards))
        for shard in done:
            self._done[shard] = 1
        self._care = {s for s in suspects if not self._done[s]} if self._policy.careful else set[int]()
        self._careful_due = deque(sorted(self._care))
        left = (shard for shard in range(len(shards)) if not self._done[shard] and shard not in self._care)
        self._fresh = array("q", sorted(left, key=lambda shard: -shards[shard].bytes))  # largest first, else in order
        self._next = 0  # what of `_fresh` was never given out begins here
        self._left = len(self._fresh) + len(self._care)
        self._rows_done = sum(shards[shard].rows for shard in done)
        self._wanted = min(workers, self._left)
        if self._left and self._wanted < 1:
            raise ValueError(f"cannot schedule {self._left} shards: {workers} workers; expected at least 1")
        self._elastic = Elastic(min(least, workers), workers, self._policy) if least is not None else None
        self._cluster = ClusterSeen(0.0)
        self._never_since: float | None = None
        self._ever_ready = False
        self._asked = asked or f"{self._wanted} worker{'s' * (self._wanted > 1)}"

        self._hands = Hands(in_hand)
        self._workers = self._hands.workers
        self._named = 0
        self._later: list[tuple[float, int, int, _Place]] = []  # heap: (when, tie, shard, what to avoid)
        self._due: dict[_Place, deque[int]] = {}  # what to avoid -> shards to give out again now
        self._again: set[int] = set(self._care)  # shards that were given out before and are not done
        self._failed: dict[int, list[Failure]] = {}
        self._failed_at: dict[int, _Place] = {}  # where a shard failed last
        self._deaths: dict[int, list[Failure]] = {}  # of a shard that failed: those that took the process with them
        self._killers: set[int] = set()  # shards that did so, since one was last finished
        self._safe_rows: dict[str, int] = {}  # shape of a row -> rows of a batch that fit into memory, as last heard
        self._rejections = rejections or Rejections(len(shards), len(shards), 0, 0)
        self._failures: deque[Failure] = deque(maxlen=_FAILURES_KEPT)
        self._attempts = self._retries = 0
        self._backed: set[int] = set()  # shards that ever had a backup
        self._pace, self._nodes = Pace(self._policy), Nodes(self._policy.node)
        self._looked: float | None = None  # when running attempts were last looked at
        self._start_failures = 0  # in a row, while no worker was ready
        self._no_start_before = 0.0
        self._losses = 0  # of workers, since a shard was last finished
        self._unusable_since: float | None = None  # None: before Started, or some worker is usable
        self._verdict: RunnerError | None = None
        self._over = False

    def handle(self, event: Event) -> list[Action]:
        """What to do after `event`. Events that come late or twice, and all after the end, change nothing."""
        if self._over:
            return []
        actions: list[Action] = list(self._note(event))
        if self._left and self._verdict is None:
            self._check_capacity(event.now)
        if self._verdict is None:
            self._verdict = self._rejections.excess() or (None if self._left else self._rejections.nothing_left())
        self._over = self._verdict is not None or not self._left
        if self._verdict is not None:
            return [*actions, GiveUp(self._verdict), *map(StopWorker, self._workers)]
        if self._over:
            return [*actions, *map(StopWorker, self._workers), Finish()]
        self._release(event.now)
        actions += [*self._starts(event.now), *self._dispatches(event.now), *self._surplus(event.now)]
        if isinstance(event, Tick) and self._looked == event.now:
            actions += self._backups(event.now)
        return actions

    # What progress shows

    @property
    def shards(self) -> int:
        return len(self._done)

    @property
    def done(self) -> int:
        return len(self._done) - self._left

    @property
    def running(self) -> int:
        """Shards in hand of a worker, begun or not."""
        return len(self._hands.holder)

    @property
    def in_hand(self) -> tuple[int, ...]:
        """Shards that a worker has, begun or not."""
        return tuple(sorted(self._hands.holder))

    @property
    def waiting(self) -> int:
        return self._left - len(self._hands.holder)

    @property
    def rows_done(self) -> int:
        return self._rows_done

    @property
    def attempts(self) -> int:
        return self._attempts

    @property
    def retries(self) -> int:
        """Attempts at shards that had been given out before, without backups."""
        return self._retries

    @property
    def backups(self) -> int:
        """Shards that were given to a second worker because the first was slow."""
        return len(self._backed)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The last hundred."""
        return tuple(self._failures)

    @property
    def workers(self) -> int:
        """How many workers this run wants: of an elastic one, how many it has asked for and keeps."""
        return self._wanted if self._elastic is None else self._hands.staying

    @property
    def waits_for(self) -> str:
        """What the cluster has no room for, "" where there is room."""
        return self._cluster.never or self._cluster.story

    @property
    def ready(self) -> int:
        """Workers that are ready, without those that drain."""
        return self._hands.usable

    @property
    def idle(self) -> tuple[str, ...]:
        """Ready workers with nothing in hand."""
        return tuple(self._hands.room[0])

    # Events

    def _note(self, event: Event) -> Iterator[Action]:
        match event:
            case Started(now):
                self._unusable_since = now
            case WorkerReady(_, worker, node):
                self._note_ready(worker, node)
            case WorkerFailedToStart(now, worker, error):
                self._note_gone(now, worker, error)
            case WorkerLost(now, worker, error, preempted):
                self._note_gone(now, worker, error, preempted)
            case WorkerDraining(now, worker, deadline_s):
                yield from self._note_draining(now, worker, deadline_s)
            case WorkerProgressed(now, worker, attempt_id, rows):
                self._note_progress(now, worker, attempt_id, rows)
            case AttemptSucceeded(now, worker, receipt):
                yield from self._note_success(now, worker, receipt)
            case AttemptFailed(now, worker, failure):
                yield from self._note_failure(now, worker, failure)
            case ClusterSeen(now, others, never):
                self._cluster = event
                since = now if self._never_since is None else self._never_since
                self._never_since = since if never else None
                if self._elastic is not None:
                    self._elastic.note_others(now, others, self._hands.staying)
            case Tick(now):
                yield from self._look(now)
            case StopRequested(_, error):
                self._verdict = error

    def _note_ready(self, name: str, node: str) -> None:
        worker = self._workers.get(name)
        if worker is None or worker.ready:
            return
        self._hands.enter(name, node)
        self._start_failures, self._unusable_since, self._ever_ready = 0, None, True

    def _note_gone(self, now: float, name: str, error: RunnerError, preempted: bool = False) -> None:
        worker = self._workers.get(name)
        if worker is None:
            return
        if not worker.ready:
            self._hands.remove(name)
            if not preempted:
                self._note_failed_start(now, name, error)
            return
        if preempted or worker.leaves is not None:
            self._remove(now, name)
            return
        running = worker.running
        self._remove(now, name, error)
        if running is not None and self._policy.careful and running.shard in self._deaths:
            return  # the shard's own deaths are counted, and lead to a careful attempt
        self._losses += 1
        if self._losses > self._max_attempts * self._wanted and self._verdict is None:
            story = f"{self._losses} workers were lost and no shard was finished in between: last worker {name}"
            self._verdict = _retold(error, f"{story}: {error.message}", worker=name)

    def _note_failed_start(self, now: float, name: str, error: RunnerError) -> None:
        self._start_failures += 1
        self._no_start_before = now + self._back_off(self._start_failures)
        if error.failure_class in ("config", "stopped"):
            self._verdict = error
        elif self._start_failures >= _START_TRIES and not self._workers:
            story = f"no worker could start, {self._start_failures} tries failed in a row: last worker {name}"
            self._verdict = _retold(error, f"{story}: {error.message}", worker=name)

    def _note_draining(self, now: float, name: str, deadline_s: float) -> Iterator[Action]:
        """It ends what it runs, if it can by then; all else is given back, and no try is used up."""
        worker = self._workers.get(name)
        if worker is None or worker.leaves is not None:
            return
        running = worker.running
        row_s = self._pace.row_s() or 0.0
        if running is None or (now - worker.began) + deadline_s < row_s * running.rows:
            self._remove(now, name)
            yield StopWorker(name)
            return
        self._hands.drain(name, now + deadline_s)
        self._note_unusable(now)
        for held in list(worker.hand.values())[1:]:
            self._hands.put_down(now, name, held.shard)
            self._give_back(now, name, held.shard)

    def _note_progress(self, now: float, name: str, attempt_id: str, rows: int) -> None:
        worker = self._workers.get(name)
        if worker is None or worker.running is None or worker.running.id != attempt_id:
            return
        if worker.careful:  # whatever it says, it is alive: it looks for stalls itself
            worker.moved = now
        if rows <= worker.rows:
            return
        if worker.rows > 0:
            self._pace.note_batch(now - worker.moved)
        worker.moved, worker.rows = now, rows

    def _note_success(self, now: float, name: str, receipt: Receipt) -> Iterator[Action]:
        """A published part is done, also where a worker thought lost reports it."""
        shard, rows = receipt.shard, self._plan.shards[receipt.shard].rows
        worker = self._workers.get(name)
        if worker is not None:
            worker.failed.clear()
            self._nodes.note_success(worker.node)
            if worker.running is not None and worker.running.id == receipt.attempt and not receipt.adopted:
                self._pace.note_shard(now - worker.began, rows)
        self._hands.put_down(now, name, shard)
        if not self._done[shard]:
            self._done[shard] = 1
            self._left -= 1
            self._rows_done += rows
            self._losses = 0
            self._killers.clear()
            backup = self._hands.backup.get(shard)
            slow = self._hands.finish(shard)
            self._again.discard(shard)
            self._failed_at.pop(shard, None)
            self._deaths.pop(shard, None)
            if shard in self._care:
                self._care.discard(shard)
                self._careful_due = deque(waiting for waiting in self._careful_due if waiting != shard)
            self._rejections.note(receipt)
            self._safe_rows.update(receipt.safe_rows)
            yield Record(receipt, tuple(self._failed.pop(shard, ())))
            if backup == name and slow in self._workers and self._left:
                yield from self._let_go(now, slow)
        if (receipt.recycle or (worker is not None and worker.careful)) and name in self._workers and self._left:
            yield from self._let_go(now, name)
        yield from self._end_of_drain(now, name)

    def _note_failure(self, now: float, name: str, failure: Failure) -> Iterator[Action]:
        worker = self._workers.get(name)
        held = worker.hand.get(failure.shard) if worker else None
        if worker is None or held is None or held.id != failure.attempt:
            return
        self._hands.put_down(now, name, failure.shard)
        error = failure.error
        # One row alone that does not fit, and a device that fails, end a process as surely as a signal does.
        spent = error.ends_process
        if not self._done[failure.shard]:
            worker.failed.append(failure.shard)
            self._charge(now, failure, worker.node, death=spent and self._policy.careful)
        if spent or worker.careful or error.failure_class == "memory":
            if self._verdict is None:
                yield from self._let_go(now, name)  # what it allocated, or what broke, does not come back
        elif len(worker.failed) >= self._policy.worker and len(set(worker.failed)) > 1 and self._verdict is None:
            yield from self._let_go(now, name)  # several shards in a row: it is not the shards
        yield from self._end_of_drain(now, name)

    # Consequences

    def _remove(self, now: float, name: str, error: RunnerError | None = None) -> None:
        """Forget a worker and give back what it held. error: charge it to the attempt that ran."""
        worker = self._hands.remove(name)
        self._note_unusable(now)
        for order, held in enumerate(worker.hand.values()):
            if self._done[held.shard]:
                continue  # by another worker, meanwhile
            if order == 0 and error is not None:
                failure = Failure(held.shard, held.id, held.number, name, error)
                self._charge(now, failure, worker.node, death=True)
            else:
                self._give_back(now, name, held.shard)

    def _let_go(self, now: float, name: str) -> Iterator[Action]:
        self._remove(now, name)
        yield StopWorker(name)

    def _end_of_drain(self, now: float, name: str) -> Iterator[Action]:
        worker = self._workers.get(name)
        if worker is not None and worker.leaves is not None and not worker.hand:
            yield from self._let_go(now, name)

    def _note_unusable(self, now: float) -> None:
        if not self._hands.usable and self._unusable_since is None:
            self._unusable_since, self._start_failures = now, 0

    def _give_back(self, now: float, name: str, shard: int) -> None:
        """No try is used up."""
        if self._hands.release(name, shard):
            self._retry(now, shard, self._failed_at.get(shard, _ANYWHERE))

    def _charge(self, now: float, failure: Failure, node: str, death: bool = False) -> None:
        """One try of the shard is used up: another one later, or the end. death: the process died, or stalled."""
        shard, error = failure.shard, failure.error
        free = self._hands.release(failure.worker, shard)  # no other worker is at it
        tries = self._failed.setdefault(shard, [])
        tries.append(failure)
        self._failures.append(failure)
        if error.failure_class == "stopped":
            self._verdict = error
            return
        if death:
            self._deaths.setdefault(shard, []).append(failure)
            self._killers.add(shard)
        for _ in range(2 if error.breaks_device else 1):  # a bad device is avoided sooner, with its node
            self._nodes.note_failure(node)
        self._failed_at[shard] = (failure.worker, node if error.failure_class == "infrastructure" else "")
        if error.failure_class not in RETRIED:
            story = f"shard {shard} failed on worker {failure.worker} and would fail again"
        elif not free:
            return
        elif death and self._policy.careful and len(self._deaths[shard]) >= self._policy.deaths(error):
            if shard in self._care:
                self._verdict = poisoned(self._plan, shard, self._deaths[shard])
            else:
                self._care.add(shard)
                self._await_care(shard)
            return
        elif (used := self._policy.used_up(tries, self._max_attempts)) is not None:
            story = f"shard {shard} failed {used}: last on worker {failure.worker}"
        elif death and len(self._deaths[shard]) >= self._policy.poison and self._killers == {shard}:
            self._verdict = poisoned(self._plan, shard, self._deaths[shard])
            return
        else:
            self._retry(now + self._back_off(len(tries)), shard, self._failed_at[shard])
            return
        facts = {"shard": shard, "worker": failure.worker, "attempts": len(tries)}
        self._verdict = _retold(error, f"{story}: {error.message}", **facts)

    def _await_care(self, shard: int) -> None:
        self._again.add(shard)
        self._careful_due.append(shard)

    def _retry(self, when: float, shard: int, avoid: _Place) -> None:
        self._again.add(shard)
        heappush(self._later, (when, self._attempts, shard, avoid))

    def _back_off(self, failures: int) -> float:
        """Full jitter: workers that failed together do not come back together."""
        return self._random.uniform(0, min(_LONGEST_BACK_OFF_S, _BACK_OFF_S * 2 ** min(failures - 1, 10)))

    def _look(self, now: float) -> Iterator[Action]:
        """Workers whose attempt makes no progress, or whose node is about to go, are stopped."""
        if self._looked is not None and now - self._looked < self._policy.look_s:
            return
        away = self._looked is None or now - self._looked > self._policy.stall_s / 4
        self._looked = now
        stall_s = self._pace.stall_s()
        for name, worker in list(self._workers.items()):
            if away:  # the driver itself was: what its workers did meanwhile is not known yet
                worker.moved = now
            elif worker.leaves is not None and now >= worker.leaves:
                yield from self._let_go(now, name)
            elif (running := worker.running) is not None and now - worker.moved >= stall_s * (
                self._policy.careful_stall if worker.careful else 1
            ):
                silent = f"no progress in shard {running.shard} for {now - worker.moved:.0f} s"
                self._remove(now, name, WorkerError(f"worker {name} stalled: {silent}; it was stopped", worker=name))
                yield StopWorker(name)
            if self._verdict is not None:
                return

    def _check_capacity(self, now: float) -> None:
        if self._never_since is not None and not self._ever_ready and now - self._never_since >= self._policy.never_s:
            self._verdict = CapacityError(f"no worker can be started: {self._cluster.never}")
            return
        if self._unusable_since is None or now - self._unusable_since < self._capacity_s:
            return
        self._verdict = CapacityError(
            f"no worker was usable for {self._capacity_s / 60:g} minutes: {len(self._workers)} are still starting,"
            f" asked for {self._asked}; free these resources, or ask for less under 'workers', and run the same again"
        )

    def _release(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, _, shard, avoid = heappop(self._later)
            if shard in self._care:
                self._await_care(shard)
                continue
            self._due.setdefault(avoid, deque()).append(shard)

    def _starts(self, now: float) -> Iterator[Action]:
        if self._unusable_since is None and not self._hands.usable:
            return  # not Started
        if now < self._no_start_before:
            return
        if self._start_failures >= _START_TRIES and not self._hands.usable and self._workers:
            return  # all hope is on those that are still starting
        for name in list(self._hands.careful)[len(self._careful_due) :]:
            yield from self._let_go(now, name)  # what it was for is done already
        careful = len(self._careful_due) - len(self._hands.careful)
        # A careful worker takes the place of the one that died; an idle one is no reason to do without it.
        while self._hands.staying < (self._most(now) if careful > 0 else self._target(now)):
            self._named += 1
            name = f"w{self._named}"
            self._hands.add(name, careful > 0)
            leaving = {self._workers[other].node for other in self._hands.draining} - {""}
            yield StartWorker(name, tuple(sorted(self._nodes.bad | leaving)), careful > 0)
            careful -= 1

    def _most(self, now: float) -> int:
        return self._wanted if self._elastic is None else self._elastic.cap(now)

    def _target(self, now: float) -> int:
        """How many workers there should be: as long as so many shards are left. Elastic: as there is work for."""
        if self._elastic is None:
            return min(self._wanted, self._left)
        return min(self._elastic.cap(now), self._hands.busy + self.waiting)

    def _surplus(self, now: float) -> Iterator[Action]:
        """Workers that an elastic run gives back: those that start first, then those without work, then others.

        One without work stays if it may: it can take over from a worker that fails or is slow at the end.
        """
        if self._elastic is None:
            return
        over = self._hands.staying - self._elastic.cap(now)
        idle = self._hands.staying - self._target(now) - 1
        if max(over, idle) <= 0:
            return
        starting = [name for name in self._hands.starting if name not in self._hands.careful]
        for name in [*starting, *self._hands.room[0]][: max(over, idle)]:
            over -= 1
            yield from self._let_go(now, name)
        for name in [name for name, worker in self._workers.items() if worker.usable][: max(over, 0)]:
            yield from self._note_draining(now, name, float("inf"))

    def _dispatches(self, now: float) -> Iterator[Action]:
        """Empty hands first; a second shard only while more wait than hands are empty, starting workers included."""
        for name in list(self._hands.careful):
            if self._careful_due and self._workers[name].usable:
                yield self._give(now, name, self._careful_due.popleft())
        for load, room in enumerate(self._hands.room):
            for name in list(room):
                if not self._due and self._next == len(self._fresh):
                    return
                if load and self.waiting <= self._hands.empty:
                    return
                shard = self._take(name)
                if shard is not None:
                    yield self._give(now, name, shard)

    def _backups(self, now: float) -> Iterator[Action]:
        """A second worker for what takes far too long, once there is nothing else to do for it."""
        row_s = self._pace.row_s()
        if self.waiting or row_s is None or not self._hands.room[0]:
            return
        overdue = []
        for name, worker in self._workers.items():
            for shard in () if worker.careful else worker.hand:
                usual = max(self._policy.backup_factor * row_s * self._plan.shards[shard].rows, self._policy.backup_s)
                if not self._done[shard] and shard not in self._backed and now - worker.began > usual:
                    overdue.append((usual - (now - worker.began), shard, name))
        for _, shard, slow in sorted(overdue):
            others = list(self._hands.room[0])
            if not others or len(self._backed) >= self._policy.backups(len(self._done)):
                return
            away = (name for name in others if self._workers[name].node != self._workers[slow].node)
            self._backed.add(shard)
            yield self._give(now, next(away, others[0]), shard, backup=True)

    def _take(self, name: str) -> int | None:
        """The next shard for worker `name`: not one that failed there last, where there is another place."""
        while (avoided := next((place for place in self._due if not self._shuns(place, name)), None)) is not None:
            shard = self._due[avoided].popleft()
            if not self._due[avoided]:
                del self._due[avoided]
            if not self._done[shard]:
                return shard
        while self._next < len(self._fresh):
            shard = self._fresh[self._next]
            self._next += 1
            if not self._done[shard]:
                return shard
        return None

    def _shuns(self, place: _Place, name: str) -> bool:
        worker, node = place
        if node and self._hands.usable_on[node] < self._hands.usable:  # there is another node
            return self._workers[name].node == node
        return worker == name and self._hands.usable > 1

    def _give(self, now: float, name: str, shard: int, backup: bool = False) -> Dispatch:
        number = len(self._failed.get(shard, ())) + 1
        given = attempt(
            self._plan,
            self._plan.shards[shard],
            number,
            self._epoch,
            self._nonce(),
            careful=shard in self._care,
            halvings=sum(failure.error.failure_class == "memory" for failure in self._failed.get(shard, ())),
            safe_rows=dict(self._safe_rows),
        )
        self._hands.take(now, name, given, backup)
        again = shard in self._again
        self._attempts += 1
        self._retries += again and not backup
        return Dispatch(name, given, again or backup)

    def validate(self) -> None:
        """Check every invariant, in O(n): for tests, after each event."""
        self._hands.validate(self._done)
        holder = self._hands.holder
        assert self._hands.staying <= self._wanted
        assert self._left == self._done.count(0)
        fresh = [shard for shard in self._fresh[self._next :] if not self._done[shard]]
        again = [shard for _, _, shard, _ in self._later] + [shard for due in self._due.values() for shard in due]
        again += self._careful_due
        again = [shard for shard in again if not self._done[shard]]
        places = [*fresh, *again, *holder]
        if self._verdict is None:
            assert sorted(places) == [shard for shard in range(len(self._done)) if not self._done[shard]], (
                "none is lost"
            )
        assert set(again) <= self._again
        assert not self._again & set(fresh)
        remembered = (*self._again, *self._failed, *self._failed_at, *self._deaths, *self._care)
        assert not any(self._done[shard] for shard in remembered), "what is done is forgotten"
        most = max(self._max_attempts, self._policy.infrastructure or 0)
        assert all(
            0 < len(tries) <= most + (shard in self._backed) + (shard in self._care)
            for shard, tries in self._failed.items()
        )
        careful = {name for name, worker in self._workers.items() if worker.careful}
        assert all((shard in self._care) == (name in careful) for shard, name in holder.items()), "condemned: with care"
        assert self._hands.backup.keys() <= self._backed
        assert len(self._backed) <= self._policy.backups(len(self._done))
        assert (self._unusable_since is None) or not self._hands.usable


def _retold(cause: RunnerError, message: str, **facts: object) -> RunnerError:
    """The same kind of error, so that its exit code survives, with the story around it."""
    error = type(cause)(message, **cause.facts | facts)
    error.__cause__ = cause
    return error
