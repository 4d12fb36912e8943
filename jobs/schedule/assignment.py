"""The book of workers: which one has which attempts, in which order, and which has room for one more.

Owns that bookkeeping, in O(1) a change; refuses to decide anything. The invariant: a shard that is not done and is in
hand has one holder, and at most one other worker as its backup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from jobs.attempt import Attempt


class Place(NamedTuple):
    """Where a shard failed: a worker and its node; "" for one that does not matter."""

    worker: str = ""
    node: str = ""


ANYWHERE = Place()


@dataclass(slots=True)
class WorkerState:
    """One worker.

    attempts:     shard -> attempt, in the order given out; the first is the one that is running.
    began, moved: when the running attempt began, and when its rows were last seen to grow; rows: what they were.
    leaves:       when a worker that drains must have ended; None for one that stays.
    failed:       shards that failed here in a row.
    isolated:     here for one isolated attempt: it never has room for another.
    """

    ready: bool = False
    node: str = ""
    attempts: dict[int, Attempt] = field(default_factory=dict)
    began: float = 0.0
    moved: float = 0.0
    rows: int = -1
    leaves: float | None = None
    failed: list[int] = field(default_factory=list)
    isolated: bool = False

    @property
    def usable(self) -> bool:
        return self.ready and self.leaves is None

    @property
    def running(self) -> Attempt | None:
        return next(iter(self.attempts.values()), None)

    def begin(self, now: float) -> None:
        self.began = self.moved = max(now, self.moved)  # news of the attempt before may be older than what was seen
        self.rows = -1

    def progress(self, now: float, attempt_id: str, rows: int) -> float | None:
        """The running attempt has done `rows` rows. Returns the seconds since the rows before, if any."""
        if self.running is None or self.running.id != attempt_id:
            return None
        if self.isolated:  # whatever it reports, it is alive, and it looks for stalls itself
            self.moved = now
        if rows <= self.rows:
            return None
        seconds = now - self.moved if self.rows > 0 else None
        self.moved, self.rows = now, rows
        return seconds


class Assignments:
    """All workers of a run, by name, and what each has in hand."""

    def __init__(self, in_hand: int) -> None:
        """in_hand: attempts a worker holds at most."""
        self.workers: dict[str, WorkerState] = {}
        self._named = 0
        self.room: tuple[dict[str, None], ...] = tuple({} for _ in range(in_hand))  # by load: usable ones with room
        self.usable = 0
        self.usable_on = Counter[str]()  # by node
        self.draining: set[str] = set()
        self.isolated: dict[str, None] = {}  # workers for isolated attempts that wait for one, or start
        self.holder: dict[int, str] = {}  # shard that is not done -> worker that has it in hand
        self.backup: dict[int, str] = {}  # the same for the second worker, where there is one

    @property
    def staying(self) -> int:
        """Workers that start or are usable."""
        return len(self.workers) - len(self.draining)

    @property
    def busy(self) -> int:
        """Usable workers with something in hand."""
        return self.usable - len(self.room[0])

    @property
    def starting(self) -> list[str]:
        """The latest first: those before may be nearly there."""
        return [name for name, worker in reversed(self.workers.items()) if not worker.ready]

    @property
    def empty(self) -> int:
        """Workers that start, or have nothing in hand."""
        return self.staying - self.usable + len(self.room[0])

    @property
    def idle(self) -> tuple[str, ...]:
        """Usable workers with nothing in hand."""
        return tuple(self.room[0])

    @property
    def in_hand(self) -> tuple[int, ...]:
        """Shards that a worker has, begun or not."""
        return tuple(sorted(self.holder))

    @property
    def rows_in_hand(self) -> dict[int, int]:
        """Shard -> rows done of it so far, by the attempt that is furthest."""
        rows: dict[int, int] = {}
        for worker in self.workers.values():
            if worker.running is not None and worker.rows > 0:
                shard = worker.running.shard
                rows[shard] = max(rows.get(shard, 0), worker.rows)
        return rows

    @property
    def leaving(self) -> set[str]:
        """Nodes of workers that drain."""
        return {self.workers[name].node for name in self.draining} - {""}

    def shuns(self, name: str, place: Place) -> bool:
        """Worker `name` is where a shard failed, and there is a usable worker elsewhere."""
        if place.node and self.usable_on[place.node] < self.usable:
            return self.workers[name].node == place.node
        return place.worker == name and self.usable > 1

    def add(self, isolated: bool = False) -> str:
        """One more worker, which starts. Returns its name, which no other ever had."""
        self._named += 1
        name = f"w{self._named}"
        self.workers[name] = WorkerState(isolated=isolated)
        self._shelve(name)
        return name

    def enter(self, name: str, node: str) -> None:
        worker = self.workers[name]
        worker.ready, worker.node = True, node
        self.usable += 1
        self.usable_on[node] += 1
        self._shelve(name)

    def drain(self, name: str, leaves: float) -> None:
        self._leave_use(self.workers[name])
        self.workers[name].leaves = leaves
        self.draining.add(name)
        self._shelve(name)

    def remove(self, name: str) -> WorkerState:
        """The worker as it was; its shards are still to be released."""
        worker = self.workers.pop(name)
        self._leave_use(worker)
        self.draining.discard(name)
        self._shelve(name)
        return worker

    def take(self, now: float, name: str, given: Attempt, backup: bool = False) -> None:
        worker = self.workers[name]
        if not worker.attempts:
            worker.begin(now)
        worker.attempts[given.shard] = given
        (self.backup if backup else self.holder)[given.shard] = name
        self._shelve(name)

    def put_down(self, now: float, name: str, shard: int) -> None:
        worker = self.workers.get(name)
        if worker is None or shard not in worker.attempts:
            return
        first = next(iter(worker.attempts)) == shard
        del worker.attempts[shard]
        if first:
            worker.begin(now)
        self._shelve(name)

    def release(self, name: str, shard: int) -> bool:
        """`name` no longer works on `shard`, which is not done. True: no worker does."""
        if self.backup.get(shard) == name:
            del self.backup[shard]
            return False
        if self.holder.get(shard) != name:
            return False
        other = self.backup.pop(shard, None)
        if other is None:
            del self.holder[shard]
            return True
        self.holder[shard] = other
        return False

    def finish(self, shard: int, name: str) -> str | None:
        """`shard` is done: no worker holds it any more. Returns the slow worker whose backup `name` was, if any."""
        slow, backup = self.holder.pop(shard, None), self.backup.pop(shard, None)
        return slow if backup == name else None

    def _leave_use(self, worker: WorkerState) -> None:
        if worker.usable:
            self.usable -= 1
            self.usable_on[worker.node] -= 1

    def _shelve(self, name: str) -> None:
        """Put a worker where its load belongs in `room`, or nowhere if it is full, drains or is gone."""
        for room in self.room:
            room.pop(name, None)
        self.isolated.pop(name, None)
        worker = self.workers.get(name)
        if worker is not None and worker.isolated:
            if not worker.attempts and worker.leaves is None:
                self.isolated[name] = None
        elif worker is not None and worker.usable and len(worker.attempts) < len(self.room):
            self.room[len(worker.attempts)][name] = None

    def validate(self, is_done: Callable[[int], bool]) -> None:
        """Check every invariant, in O(n)."""
        hands = {name: worker.attempts for name, worker in self.workers.items()}
        held = {(shard, name) for name, hand in hands.items() for shard in hand if not is_done(shard)}
        assert held == self.holder.items() | self.backup.items(), (
            "the holders and the backups match the hands of the workers"
        )
        assert not self.holder.items() & self.backup.items(), "no worker is its own backup"
        assert self.backup.keys() <= self.holder.keys(), "a backup is of what is in hand"
        assert all(len(hand) <= len(self.room) for hand in hands.values()), "no hand is too full"
        assert not any(worker.attempts for worker in self.workers.values() if not worker.ready), (
            "a worker that starts has no shard"
        )
        usable = {name for name, worker in self.workers.items() if worker.usable}
        assert len(usable) == self.usable
        assert +self.usable_on == Counter(self.workers[name].node for name in usable)
        assert self.draining == {name for name, worker in self.workers.items() if worker.leaves is not None}
        assert all(len(hands[name]) <= 1 for name in self.draining), (
            "a worker that drains ends what it runs, and no more"
        )
        isolated = {name for name, worker in self.workers.items() if worker.isolated}
        assert all(len(hands[name]) <= 1 for name in isolated), "one attempt at a time"
        assert {*self.isolated} == {name for name in isolated - self.draining if not hands[name]}
        assert [set(room) for room in self.room] == [
            {name for name in usable if len(hands[name]) == load} - isolated for load in range(len(self.room))
        ], "every usable worker with room is found under its load"
