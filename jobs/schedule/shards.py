"""The book of shards: which are done, which wait and for what, and what is known of those that came back.

Owns that bookkeeping, in nine bytes a shard and O(log n) a change; refuses to know workers, and to decide anything.
The invariant: a shard that is not done waits in exactly one place, or was taken from there and is in hand of a worker.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from heapq import heappop, heappush

from jobs.attempt import Failure
from jobs.plan import Plan
from jobs.schedule.assignment import ANYWHERE, Place

_FAILURES_KEPT = 100  # for progress; all failures of a shard go out with its Record


@dataclass(slots=True)
class ShardState:
    """A shard that is not done, and was given out before, or condemned by an earlier run.

    tries:   its failures.
    deaths:  of these, the ones that took the process with them.
    avoid:   where it failed last.
    isolated: it is condemned: it is given to workers for isolated attempts only.
    """

    tries: list[Failure] = field(default_factory=list)
    deaths: list[Failure] = field(default_factory=list)
    avoid: Place = ANYWHERE
    isolated: bool = False

    @property
    def halvings(self) -> int:
        """How often its batches are to be halved: as often as it ran out of memory."""
        return sum(failure.error.failure_class == "memory" for failure in self.tries)


class Shards:
    """All shards of one plan, by index."""

    def __init__(self, plan: Plan, done: Collection[int], suspects: Collection[int] = ()) -> None:
        """done: those that earlier runs published. suspects: those that are condemned from the start."""
        self._plan = plan
        self._done = bytearray(len(plan.shards))
        for shard in done:
            self._done[shard] = 1
        self.rows_done = sum(plan.shards[shard].rows for shard in done)
        self.states = {shard: ShardState(isolated=True) for shard in sorted(suspects) if not self._done[shard]}
        fresh = (shard for shard in range(self.total) if not self._done[shard] and shard not in self.states)
        # Largest first, else in order.
        self._fresh = array("q", sorted(fresh, key=lambda shard: -plan.shards[shard].bytes))
        self._next = 0  # what of `_fresh` was never given out begins here
        self.left = len(self._fresh) + len(self.states)
        self._later: list[tuple[float, int, int]] = []  # heap: (when, tie, shard)
        self._due: dict[Place, deque[int]] = {}  # what to avoid -> shards to give out again now
        self._condemned = deque(self.states)  # shards to give to an isolated worker now
        self._killers: set[int] = set()  # shards that took a process with them, since one was last finished
        self.backed: set[int] = set()  # shards that ever had a backup
        self.attempts = 0
        self.retries = 0  # attempts at shards that had been given out before, without backups
        self._failures: deque[Failure] = deque(maxlen=_FAILURES_KEPT)

    @property
    def total(self) -> int:
        return len(self._done)

    @property
    def done(self) -> int:
        return self.total - self.left

    @property
    def condemned(self) -> int:
        """How many wait for an isolated worker."""
        return len(self._condemned)

    @property
    def exhausted(self) -> bool:
        """Nothing waits to be taken now."""
        return not self._due and self._next == len(self._fresh)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The last hundred."""
        return tuple(self._failures)

    def is_done(self, shard: int) -> bool:
        return bool(self._done[shard])

    def state(self, shard: int) -> ShardState:
        """What is known of `shard`: to read only."""
        return self.states.get(shard) or ShardState()

    def killed_alone(self, shard: int) -> bool:
        """No other shard took a process with it since one was last finished."""
        return self._killers == {shard}

    def take(self, shunned: Callable[[Place], bool]) -> int | None:
        """The next shard, for a worker that some places are `shunned` for. None where nothing else waits now."""
        while (avoided := next((place for place in self._due if not shunned(place)), None)) is not None:
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

    def take_condemned(self) -> int:
        return self._condemned.popleft()

    def note_given(self, shard: int, backup: bool = False) -> bool:
        """An attempt at `shard` begins. Returns whether it was given out before."""
        again = shard in self.states
        self.attempts += 1
        if backup:
            self.backed.add(shard)
        else:
            self.retries += again
        return again or backup

    def note_failure(self, failure: Failure, place: Place, death: bool) -> ShardState:
        """One try is used up; the shard waits nowhere yet. death: the process died, or stalled."""
        state = self.states.setdefault(failure.shard, ShardState())
        state.tries.append(failure)
        state.avoid = place
        if death:
            state.deaths.append(failure)
            self._killers.add(failure.shard)
        self._failures.append(failure)
        return state

    def retry(self, shard: int, when: float) -> None:
        """It is given out again, from `when` on."""
        self.states.setdefault(shard, ShardState())
        heappush(self._later, (when, self.attempts, shard))

    def condemn(self, shard: int) -> None:
        """From now on only an isolated worker may have it."""
        self.states[shard].isolated = True
        self._condemned.append(shard)

    def end_back_offs(self, now: float) -> None:
        """What was to wait until now may be taken."""
        while self._later and self._later[0][0] <= now:
            *_, shard = heappop(self._later)
            state = self.states.get(shard)
            if state is None:
                continue  # it is done: a worker that was thought lost had published it
            if state.isolated:
                self._condemned.append(shard)
            else:
                self._due.setdefault(state.avoid, deque()).append(shard)

    def finish(self, shard: int) -> tuple[Failure, ...]:
        """It is done, wherever it waited. Returns its failures."""
        self._done[shard] = 1
        self.left -= 1
        self.rows_done += self._plan.shards[shard].rows
        self._killers.clear()
        state = self.states.pop(shard, None)
        if state is None:
            return ()
        if state.isolated and shard in self._condemned:
            self._condemned.remove(shard)
        return tuple(state.tries)

    def validate(self, in_hand: Collection[int], over: bool = False) -> None:
        """Check every invariant, in O(n). over: the run has failed, and what failed last waits nowhere."""
        left = [shard for shard in range(self.total) if not self._done[shard]]
        assert self.left == len(left)
        fresh = [shard for shard in self._fresh[self._next :] if not self._done[shard]]
        again = [shard for _, _, shard in self._later] + [shard for due in self._due.values() for shard in due]
        again = [shard for shard in [*again, *self._condemned] if not self._done[shard]]
        assert over or sorted([*fresh, *again, *in_hand]) == left, "none is lost"
        assert self.states.keys() >= set(again)
        assert not self.states.keys() & set(fresh)
        assert not any(self._done[shard] for shard in self.states), "what is done is forgotten"
        assert all(len(state.deaths) <= len(state.tries) for state in self.states.values())
        assert all(self.states[shard].isolated for shard in self._condemned)
