"""Hands: which worker has which shards, in which order, and who has room for one more.

Owns that bookkeeping, in O(1) a change; refuses to decide anything. The invariant: a shard that is not done and is in
hand has one holder, and at most one other worker as its backup.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from jobs.attempt import Attempt


@dataclass(slots=True)
class Hand:
    """One worker. shards: shard -> attempt, in the order given out; the first is the one that is running.

    began, moved: when the running attempt began, and when its rows were last seen to grow; rows: what they were.
    leaves:       when a worker that drains must have ended; None for one that stays.
    failed:       shards that failed here in a row.
    careful:      here for one careful attempt: it never has room for another.
    """

    ready: bool = False
    node: str = ""
    hand: dict[int, Attempt] = field(default_factory=dict)
    began: float = 0.0
    moved: float = 0.0
    rows: int = -1
    leaves: float | None = None
    failed: list[int] = field(default_factory=list)
    careful: bool = False

    @property
    def usable(self) -> bool:
        return self.ready and self.leaves is None

    @property
    def running(self) -> Attempt | None:
        return next(iter(self.hand.values()), None)

    def begin(self, now: float) -> None:
        self.began = self.moved = max(now, self.moved)  # news of the attempt before may be older than what was seen
        self.rows = -1


class Hands:
    def __init__(self, in_hand: int) -> None:
        self.workers: dict[str, Hand] = {}
        self.room: tuple[dict[str, None], ...] = tuple({} for _ in range(in_hand))  # by load: usable ones with room
        self.usable = 0
        self.usable_on = Counter[str]()  # by node
        self.draining: set[str] = set()
        self.careful: dict[str, None] = {}  # workers for careful attempts that wait for one, or start
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

    def add(self, name: str, careful: bool = False) -> None:
        self.workers[name] = Hand(careful=careful)
        self._shelve(name)

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

    def remove(self, name: str) -> Hand:
        """The worker as it was; its shards are still to be released."""
        worker = self.workers.pop(name)
        self._leave_use(worker)
        self.draining.discard(name)
        self._shelve(name)
        return worker

    def take(self, now: float, name: str, given: Attempt, backup: bool = False) -> None:
        worker = self.workers[name]
        if not worker.hand:
            worker.begin(now)
        worker.hand[given.shard] = given
        (self.backup if backup else self.holder)[given.shard] = name
        self._shelve(name)

    def put_down(self, now: float, name: str, shard: int) -> None:
        worker = self.workers.get(name)
        if worker is None or shard not in worker.hand:
            return
        first = next(iter(worker.hand)) == shard
        del worker.hand[shard]
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

    def finish(self, shard: int) -> str | None:
        """`shard` is done: no worker holds it any more. Returns the worker that held it first."""
        self.backup.pop(shard, None)
        return self.holder.pop(shard, None)

    def _leave_use(self, worker: Hand) -> None:
        if worker.usable:
            self.usable -= 1
            self.usable_on[worker.node] -= 1

    def _shelve(self, name: str) -> None:
        """Put a worker where its load belongs in `room`, or nowhere if it is full, drains or is gone."""
        for room in self.room:
            room.pop(name, None)
        self.careful.pop(name, None)
        worker = self.workers.get(name)
        if worker is not None and worker.careful:
            if not worker.hand and worker.leaves is None:
                self.careful[name] = None
        elif worker is not None and worker.usable and len(worker.hand) < len(self.room):
            self.room[len(worker.hand)][name] = None

    def validate(self, done: bytearray) -> None:
        """Check every invariant, in O(n)."""
        hands = {name: worker.hand for name, worker in self.workers.items()}
        held = {(shard, name) for name, hand in hands.items() for shard in hand if not done[shard]}
        assert held == self.holder.items() | self.backup.items(), (
            "the holders and the backups match the hands of the workers"
        )
        assert not self.holder.items() & self.backup.items(), "no worker is its own backup"
        assert self.backup.keys() <= self.holder.keys(), "a backup is of what is in hand"
        assert all(len(hand) <= len(self.room) for hand in hands.values()), "no hand is too full"
        assert not any(worker.hand for worker in self.workers.values() if not worker.ready), (
            "a worker that starts has no shard"
        )
        usable = {name for name, worker in self.workers.items() if worker.usable}
        assert len(usable) == self.usable
        assert +self.usable_on == Counter(self.workers[name].node for name in usable)
        assert self.draining == {name for name, worker in self.workers.items() if worker.leaves is not None}
        assert all(len(hands[name]) <= 1 for name in self.draining), (
            "a worker that drains ends what it runs, and no more"
        )
        careful = {name for name, worker in self.workers.items() if worker.careful}
        assert all(len(hands[name]) <= 1 for name in careful), "one attempt at a time"
        assert {*self.careful} == {name for name in careful - self.draining if not hands[name]}
        assert [set(room) for room in self.room] == [
            {name for name in usable if len(hands[name]) == load} - careful for load in range(len(self.room))
        ], "every usable worker with room is found under its load"
