"""The Schedule: which worker does which shard next, and what follows when one fails.

Owns order, retry, replacement and giving up; refuses to know Ray, clocks, threads and files: an event comes in with
the time at which it happened, actions go out as values. The invariant: at any moment every shard is done, in hand of
one worker, or waiting; it is recorded once, and the run ends in exactly one Finish or GiveUp.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from jobs.attempt import Attempt, Failure, Receipt, attempt
from jobs.errors import CapacityError, FailureClass, RunnerError
from jobs.event import (
    Action,
    AttemptFailed,
    AttemptSucceeded,
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
    WorkerFailedToStart,
    WorkerLost,
    WorkerReady,
)
from jobs.plan import Plan

__all__ = [
    "Action",
    "AttemptFailed",
    "AttemptSucceeded",
    "Dispatch",
    "Event",
    "Finish",
    "GiveUp",
    "Record",
    "Schedule",
    "StartWorker",
    "Started",
    "StopRequested",
    "StopWorker",
    "Tick",
    "WorkerFailedToStart",
    "WorkerLost",
    "WorkerReady",
]

_RETRIED: frozenset[FailureClass] = frozenset({"transient", "infrastructure", "memory"})
_START_TRIES = 3  # in a row; a constructor that fails three times will not mend itself
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.5, 30.0
_FAILURES_KEPT = 100  # for progress; all failures of a shard go out with its Record


@dataclass(slots=True)
class _Worker:
    """hand: shard -> attempt, in the order given out; the first is the one that is running."""

    ready: bool = False
    hand: dict[int, Attempt] = field(default_factory=dict)


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
        asked: str = "",
        in_hand: int = 2,
        capacity_s: float = 15 * 60,
    ) -> None:
        """
        done:       indexes of the shards that earlier runs published.
        workers:    how many to keep alive, as long as so many shards are left.
        nonce:      draws 12 random hex digits for an attempt's id.
        random:     for the jitter of back-offs.
        asked:      what the workers need, for the message of a CapacityError: '8 workers with 1 GPU each'.
        in_hand:    attempts a worker holds: the one it runs, and what it may begin without asking.
        capacity_s: how long there may be no usable worker.
        """
        shards = plan.shards
        self._plan, self._epoch, self._nonce, self._random = plan, epoch, nonce, random
        self._max_attempts, self._capacity_s = max_attempts, capacity_s
        self._done = bytearray(len(shards))
        for shard in done:
            self._done[shard] = 1
        left = (shard for shard in range(len(shards)) if not self._done[shard])
        self._fresh = array("q", sorted(left, key=lambda shard: -shards[shard].bytes))  # largest first, else in order
        self._next = 0  # what of `_fresh` was never given out begins here
        self._left = len(self._fresh)
        self._rows_done = sum(shards[shard].rows for shard in done)
        self._wanted = min(workers, self._left)
        if self._left and self._wanted < 1:
            raise ValueError(f"cannot schedule {self._left} shards: {workers} workers; expected at least 1")
        self._asked = asked or f"{self._wanted} worker{'s' * (self._wanted > 1)}"

        self._workers: dict[str, _Worker] = {}
        self._room: tuple[dict[str, None], ...] = tuple({} for _ in range(in_hand))  # by load: ready workers with room
        self._ready = 0
        self._named = 0
        self._holder: dict[int, str] = {}  # shard that is not done -> worker that has it in hand
        self._later: list[tuple[float, int, int, str]] = []  # heap: (when, tie, shard, worker to avoid)
        self._due: dict[str, deque[int]] = {}  # worker to avoid ("" for none) -> shards to give out again now
        self._again: set[int] = set()  # shards that were given out before and are not done
        self._failed: dict[int, list[Failure]] = {}
        self._failures: deque[Failure] = deque(maxlen=_FAILURES_KEPT)
        self._attempts = self._retries = 0
        self._start_failures = 0  # in a row, while no worker was ready
        self._no_start_before = 0.0
        self._losses = 0  # of workers, since a shard was last finished
        self._unusable_since: float | None = None  # None: before Started, or some worker is ready
        self._verdict: RunnerError | None = None
        self._over = False

    def handle(self, event: Event) -> list[Action]:
        """What to do after `event`. Events that come late or twice, and all after the end, change nothing."""
        if self._over:
            return []
        actions: list[Action] = list(self._note(event))
        if self._left and self._verdict is None:
            self._check_capacity(event.now)
        self._over = self._verdict is not None or not self._left
        if self._verdict is not None:
            return [*actions, GiveUp(self._verdict), *map(StopWorker, self._workers)]
        if self._over:
            return [*actions, *map(StopWorker, self._workers), Finish()]
        self._release(event.now)
        return [*actions, *self._starts(event.now), *self._dispatches()]

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
        return len(self._holder)

    @property
    def waiting(self) -> int:
        return self._left - len(self._holder)

    @property
    def rows_done(self) -> int:
        return self._rows_done

    @property
    def attempts(self) -> int:
        return self._attempts

    @property
    def retries(self) -> int:
        """Attempts at shards that had been given out before."""
        return self._retries

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The last hundred."""
        return tuple(self._failures)

    @property
    def workers(self) -> int:
        """How many workers this run wants."""
        return self._wanted

    @property
    def ready(self) -> int:
        return self._ready

    @property
    def idle(self) -> tuple[str, ...]:
        """Ready workers with nothing in hand."""
        return tuple(self._room[0])

    # Events

    def _note(self, event: Event) -> Iterator[Action]:
        match event:
            case Started(now):
                self._unusable_since = now
            case WorkerReady(_, worker):
                self._note_ready(worker)
            case WorkerFailedToStart(now, worker, error) | WorkerLost(now, worker, error):
                self._note_gone(now, worker, error)
            case AttemptSucceeded(_, worker, receipt):
                yield from self._note_success(worker, receipt)
            case AttemptFailed(now, worker, failure):
                self._note_failure(now, worker, failure)
            case Tick():
                pass
            case StopRequested(_, error):
                self._verdict = error

    def _note_ready(self, name: str) -> None:
        worker = self._workers.get(name)
        if worker is None or worker.ready:
            return
        worker.ready = True
        self._ready += 1
        self._start_failures, self._unusable_since = 0, None
        self._shelve(name)

    def _note_gone(self, now: float, name: str, error: RunnerError) -> None:
        worker = self._workers.pop(name, None)
        if worker is None:
            return
        if not worker.ready:
            self._note_failed_start(now, name, error)
            return
        self._shelve(name)
        self._ready -= 1
        if not self._ready:
            self._unusable_since, self._start_failures = now, 0
        for order, held in enumerate(worker.hand.values()):
            if self._holder.pop(held.shard, None) is None:
                continue  # done by another worker meanwhile
            if order == 0:
                self._charge(now, Failure(held.shard, held.id, held.number, name, error))
            else:  # it never began: no try is used up
                tries = self._failed.get(held.shard)
                self._retry(now, held.shard, tries[-1].worker if tries else "")
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

    def _note_success(self, name: str, receipt: Receipt) -> Iterator[Action]:
        """A published part is done whoever reports it, a worker thought lost included."""
        shard = receipt.shard
        self._put_down(name, shard)
        if self._done[shard]:
            return
        self._done[shard] = 1
        self._left -= 1
        self._rows_done += self._plan.shards[shard].rows
        self._losses = 0
        self._holder.pop(shard, None)
        self._again.discard(shard)
        yield Record(receipt, tuple(self._failed.pop(shard, ())))

    def _note_failure(self, now: float, name: str, failure: Failure) -> None:
        worker = self._workers.get(name)
        held = worker.hand.get(failure.shard) if worker else None
        if held is None or held.id != failure.attempt:
            return
        self._put_down(name, failure.shard)
        if self._holder.pop(failure.shard, None) is not None:
            self._charge(now, failure)

    # Consequences

    def _charge(self, now: float, failure: Failure) -> None:
        """One try of the shard is used up: another one later, or the end."""
        shard, error = failure.shard, failure.error
        tries = self._failed.setdefault(shard, [])
        tries.append(failure)
        self._failures.append(failure)
        if error.failure_class == "stopped":
            self._verdict = error
            return
        if error.failure_class not in _RETRIED:
            story = f"shard {shard} failed on worker {failure.worker} and would fail again"
        elif len(tries) >= self._max_attempts:
            used = f"{len(tries)} of {self._max_attempts} attempts"
            story = f"shard {shard} failed {used}: last on worker {failure.worker}"
        else:
            self._retry(now + self._back_off(len(tries)), shard, failure.worker)
            return
        facts = {"shard": shard, "worker": failure.worker, "attempts": len(tries)}
        self._verdict = _retold(error, f"{story}: {error.message}", **facts)

    def _retry(self, when: float, shard: int, avoid: str) -> None:
        self._again.add(shard)
        heappush(self._later, (when, self._attempts, shard, avoid))

    def _back_off(self, failures: int) -> float:
        """Full jitter: workers that failed together do not come back together."""
        return self._random.uniform(0, min(_LONGEST_BACK_OFF_S, _BACK_OFF_S * 2 ** min(failures - 1, 10)))

    def _check_capacity(self, now: float) -> None:
        if self._unusable_since is None or now - self._unusable_since < self._capacity_s:
            return
        self._verdict = CapacityError(
            f"no worker was usable for {self._capacity_s / 60:g} minutes: {len(self._workers)} are still starting,"
            f" asked for {self._asked}; free these resources, or ask for less under 'workers', and run the same again"
        )

    def _release(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, _, shard, avoid = heappop(self._later)
            self._due.setdefault(avoid, deque()).append(shard)

    def _starts(self, now: float) -> Iterator[Action]:
        if self._unusable_since is None and not self._ready:
            return  # not Started
        if now < self._no_start_before:
            return
        if self._start_failures >= _START_TRIES and not self._ready and self._workers:
            return  # all hope is on those that are still starting
        while len(self._workers) < min(self._wanted, self._left):
            self._named += 1
            name = f"w{self._named}"
            self._workers[name] = _Worker()
            yield StartWorker(name)

    def _dispatches(self) -> Iterator[Action]:
        """Empty hands first; a second shard only while more wait than hands are empty, starting workers included."""
        for load, room in enumerate(self._room):
            for name in list(room):
                if not self._due and self._next == len(self._fresh):
                    return
                empty = len(self._workers) - self._ready + len(self._room[0])
                if load and self.waiting <= empty:
                    return
                shard = self._take(name)
                if shard is not None:
                    yield self._give(name, shard)

    def _take(self, name: str) -> int | None:
        """The next shard for worker `name`: not one that failed on it last, where there is another worker."""
        alone = self._ready == 1
        while (avoid := next((other for other in self._due if alone or other != name), None)) is not None:
            shard = self._due[avoid].popleft()
            if not self._due[avoid]:
                del self._due[avoid]
            if not self._done[shard]:
                return shard
        while self._next < len(self._fresh):
            shard = self._fresh[self._next]
            self._next += 1
            if not self._done[shard]:
                return shard
        return None

    def _give(self, name: str, shard: int) -> Dispatch:
        number = len(self._failed.get(shard, ())) + 1
        given = attempt(self._plan, self._plan.shards[shard], number, self._epoch, self._nonce())
        self._workers[name].hand[shard] = given
        self._holder[shard] = name
        self._shelve(name)
        again = shard in self._again
        self._attempts += 1
        self._retries += again
        return Dispatch(name, given, again)

    def _put_down(self, name: str, shard: int) -> None:
        worker = self._workers.get(name)
        if worker is not None and worker.hand.pop(shard, None) is not None:
            self._shelve(name)

    def _shelve(self, name: str) -> None:
        """Put a worker where its load belongs in `_room`, or nowhere if it is full or gone."""
        for room in self._room:
            room.pop(name, None)
        worker = self._workers.get(name)
        if worker is not None and len(worker.hand) < len(self._room):
            self._room[len(worker.hand)][name] = None

    def validate(self) -> None:
        """Check every invariant, in O(n): for tests, after each event."""
        hands = {name: worker.hand for name, worker in self._workers.items()}
        held = [(shard, name) for name, hand in hands.items() for shard in hand if not self._done[shard]]
        assert dict(held) == self._holder, "a shard is in exactly one hand"
        assert len(held) == len(self._holder), "no shard is in two hands"
        assert all(len(hand) <= len(self._room) for hand in hands.values()), "no hand is too full"
        ready = {name for name, worker in self._workers.items() if worker.ready}
        assert not any(hands[name] for name in hands.keys() - ready), "a worker that starts has nothing in hand"
        assert len(ready) == self._ready
        assert [set(room) for room in self._room] == [
            {name for name in ready if len(hands[name]) == load} for load in range(len(self._room))
        ], "every ready worker with room is found under its load"
        assert len(self._workers) <= self._wanted
        assert self._left == self._done.count(0)
        fresh = [shard for shard in self._fresh[self._next :] if not self._done[shard]]
        again = [shard for _, _, shard, _ in self._later] + [shard for due in self._due.values() for shard in due]
        again = [shard for shard in again if not self._done[shard]]
        places = [*fresh, *again, *self._holder]
        if self._verdict is None:
            assert sorted(places) == [shard for shard in range(len(self._done)) if not self._done[shard]], (
                "none is lost"
            )
        assert set(again) <= self._again
        assert not self._again & set(fresh)
        assert not any(self._done[shard] for shard in (*self._again, *self._failed)), "what is done is forgotten"
        assert all(0 < len(tries) <= self._max_attempts for tries in self._failed.values())
        assert (self._unusable_since is None) or not self._ready


def _retold(cause: RunnerError, message: str, **facts: object) -> RunnerError:
    """The same kind of error, so that its exit code survives, with the story around it."""
    error = type(cause)(message, **cause.facts | facts)
    error.__cause__ = cause
    return error
