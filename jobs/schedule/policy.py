"""What the Schedule may spend: attempts by failure class, time without progress, second workers for slow shards.

Owns how often each class of failure may happen, and the figures they are compared with; refuses to know workers
and events. The invariant: what a user set with `limits.max_attempts` is never exceeded by any class.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from jobs.attempt import Failure
from jobs.errors import FailureClass, RunnerError
from jobs.section.limits import Limits
from jobs.words import counted

RETRIED: frozenset[FailureClass] = frozenset({"transient", "infrastructure", "memory"})
_INFRASTRUCTURE_ATTEMPTS = 6
_FIGURES_KEPT = 200  # the latest are enough for a median, and follow a store that gets slower


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a run is. Every time is in seconds of the clock of the events.

    max_attempts:   of a shard, before the run fails.
    in_hand:        attempts a worker holds: the one that it runs, and one that it may begin without a new dispatch.
    capacity_s:     how long there may be no usable worker.
    infrastructure: attempts of a shard whose worker or node fails; None for as many as of any other class.
    poison:         so many processes killed (or stalled) by one shard, and by no other meanwhile, condemn it.
    stall_s:        without progress of a running attempt, or `stall_batches` times a slow batch if that is longer.
    backup_*:       a second worker for a shard that takes `backup_factor` times what its rows take elsewhere, and at
                    least `backup_s`; for one shard, or this share of all.
    node, worker:   failures in a row, without a success, after which one is avoided or replaced.
    look_s:         how often running attempts are looked at.
    never_s:        how long a cluster may lack what a worker needs, before there ever was one: nodes may be joining;
                    and how long it may be without a node that is alive.
    others_s:       how long others must wait for resources before an elastic run gives up a worker; `give_s` until the
                    next one; `regrow_s` after the last before it asks for more again.
    isolated:       a condemned shard is tried once more, in isolation, instead of ending the run; then its stall is
                    `isolated_stall` times as long, because its worker looks for stalls itself.
    """

    max_attempts: int = 4
    in_hand: int = 2
    capacity_s: float = 15 * 60.0
    infrastructure: int | None = None
    poison: int = 2
    stall_s: float = 600.0
    stall_batches: float = 10.0
    backup_factor: float = 3.0
    backup_s: float = 60.0
    backup_share: float = 0.05
    node: int = 3
    worker: int = 3
    look_s: float = 1.0
    never_s: float = 10.0
    others_s: float = 20.0
    give_s: float = 5.0
    regrow_s: float = 60.0
    isolated: bool = False
    isolated_stall: float = 20.0

    @classmethod
    def of(cls, limits: Limits) -> Policy:
        """The rule: `max_attempts` is for every class where the user set it.

        Where the user did not, workers and nodes may die six times, and all else may fail four times.
        """
        return cls(
            max_attempts=limits.max_attempts,
            infrastructure=None if "max_attempts" in limits.model_fields_set else _INFRASTRUCTURE_ATTEMPTS,
            stall_s=limits.stall_s,
            isolated=limits.may_lose,
        )

    def deaths(self, last: RunnerError) -> int:
        """How many condemn a shard: a row that did not fit alone needs no second witness."""
        return 1 if last.condemns else self.poison

    @property
    def most_attempts(self) -> int:
        """Of a shard, whatever its failures are."""
        return max(self.max_attempts, self.infrastructure or 0)

    def used_up(self, tries: Sequence[Failure]) -> str | None:
        """'4 of 4 attempts', once the last failure used up the budget of its class or of the shard; None before."""
        last = tries[-1].error.failure_class
        budget = self.infrastructure or self.max_attempts if last == "infrastructure" else self.max_attempts
        alike = sum(failure.error.failure_class == last for failure in tries)
        whole = self.most_attempts
        if len(tries) >= whole:
            return f"{len(tries)} of {counted(whole, 'attempt')}"
        return f"{alike} of {counted(budget, 'attempt')}" if alike >= budget else None

    def backups(self, shards: int) -> int:
        return max(1, int(self.backup_share * shards))


class Pace:
    """How fast this run is: what is slow is measured against it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._batches: deque[float] = deque(maxlen=_FIGURES_KEPT)  # seconds between two signs of progress
        self._rows: deque[float] = deque(maxlen=_FIGURES_KEPT)  # seconds per row of shards that are done

    def note_batch(self, seconds: float) -> None:
        self._batches.append(seconds)

    def note_shard(self, seconds: float, rows: int) -> None:
        if rows:
            self._rows.append(seconds / rows)

    def stall_s(self) -> float:
        """How long a running attempt may make no progress."""
        slow = sorted(self._batches)[int(0.95 * len(self._batches))] if self._batches else 0.0
        return max(self._policy.stall_s, self._policy.stall_batches * slow)

    def row_s(self) -> float | None:
        """Seconds per row of a usual shard; None before the first is done."""
        return median(self._rows) if self._rows else None


class Nodes:
    """Failures of each node in a row."""

    def __init__(self, most: int) -> None:
        self._most, self._failures = most, Counter[str]()

    def note_failure(self, node: str) -> None:
        if node:
            self._failures[node] += 1

    def note_success(self, node: str) -> None:
        self._failures.pop(node, None)

    @property
    def bad(self) -> set[str]:
        return {node for node, failures in self._failures.items() if failures >= self._most}
