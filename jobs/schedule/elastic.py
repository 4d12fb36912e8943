"""How many workers a run wants; of an elastic one: as many as shards wait for, less what others need more.

Owns the bounds and the patience with others; refuses to know which worker does what. The invariant: the answer is
between the bounds, and below `least` only where fewer shards are left.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.schedule.policy import Policy


@dataclass(frozen=True, slots=True)
class Demand:
    """How many workers a run asks for.

    most:  so many are kept alive, as long as so many shards are left.
    least: a run with this is elastic: it has between `least` and `most` workers; None: it keeps `most`.
    needs: what the workers need, for the message of a CapacityError: '8 workers with 1 GPU each'.
    """

    most: int
    least: int | None = None
    needs: str = ""


class Elastic:
    """Workers beyond `least` are borrowed: they go back, one after the other, while others wait for resources."""

    def __init__(self, least: int, most: int, policy: Policy) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"cannot keep {least} to {most} workers; expected 1 <= least <= most")
        self.least, self.most, self._policy = least, most, policy
        self._cap = most
        self._others_since: float | None = None
        self._gave = 0.0  # when a worker was last given up

    def note_others(self, now: float, waiting: int, staying: int) -> None:
        """waiting: requests of others that have no room. staying: workers of ours, those that still start included."""
        if not waiting:
            self._others_since = None
            return
        if self._others_since is None:
            self._others_since = self._gave = now
        self._cap = max(self.least, min(self._cap, staying))  # nothing more, for the time being

    def cap(self, now: float) -> int:
        """The most workers there may be now."""
        if self._others_since is None:
            if now - self._gave >= self._policy.regrow_s:
                self._cap = self.most
            return self._cap
        patience = self._policy.others_s
        if now - self._others_since >= patience and now - self._gave >= self._policy.give_s:
            self._cap, self._gave = max(self.least, self._cap - 1), now
        return self._cap
