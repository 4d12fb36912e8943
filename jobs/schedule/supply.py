"""The supply of workers: starts that fail, workers that are lost, a cluster that has no room.

Owns what speaks for and against waiting for workers; refuses to know which worker does what. The invariant: a
run that has begun is not without a usable worker for longer than `policy.capacity_s`.
"""

from __future__ import annotations

from jobs.errors import CapacityError, RunnerError
from jobs.schedule.draw import Draw
from jobs.schedule.event import ClusterLost, ClusterSeen
from jobs.schedule.policy import Policy
from jobs.schedule.verdict import ended_by
from jobs.words import counted

_START_TRIES = 3  # in a row; a constructor that fails three times will not mend itself


class Supply:
    """How the workers of one run come and go. Each `note_` may answer with the error that ends the run."""

    def __init__(self, wanted: int, needs: str, policy: Policy, draw: Draw) -> None:
        """wanted: how many workers. needs: see `Demand`."""
        self._wanted, self._policy, self._draw = wanted, policy, draw
        self._needs = needs or counted(wanted, "worker")
        self._cluster = ClusterSeen(0.0)
        self._never_since: float | None = None
        self._restarted = False  # the cluster
        self._ever_ready = False
        self._unusable_since: float | None = None  # None: before Started, or some worker is usable
        self._failed_starts = 0  # in a row, while no worker was ready
        self._no_start_before = 0.0
        self._losses = 0  # of workers, since a shard was last finished

    @property
    def waits_for(self) -> str:
        """What the cluster has no room for, "" where there is room."""
        return self._cluster.never or self._cluster.story

    def note_cluster(self, seen: ClusterSeen) -> None:
        since = seen.now if self._never_since is None else self._never_since
        self._never_since = since if seen.never else None
        self._cluster = seen

    def note_cluster_lost(self, lost: ClusterLost) -> CapacityError | None:
        """Once in a run another cluster takes its place, where that can be; a second one would be lost as well."""
        if lost.restarts and not self._restarted:
            self._restarted = True
            self.note_cluster(ClusterSeen(lost.now, story=f"{lost.story}; another one is being started"))
            return None
        again = ", the second of this run" if self._restarted else ""
        advice = f", or {lost.advice}" if lost.advice else ""
        return CapacityError(f"{lost.story}{again}; run the same again to continue{advice}", resumable=True)

    def note_ready(self) -> None:
        self._failed_starts, self._unusable_since, self._ever_ready = 0, None, True

    def note_usable(self, now: float, usable: int) -> None:
        """The run has begun, or a worker is gone: so many are usable."""
        if not usable and self._unusable_since is None:
            self._unusable_since, self._failed_starts = now, 0

    def note_failed_start(self, now: float, name: str, error: RunnerError, last: bool) -> RunnerError | None:
        """last: there is no other worker."""
        self._failed_starts += 1
        self._no_start_before = now + self._draw.back_off_s(self._failed_starts)
        if error.failure_class in ("config", "full", "stopped", "poison"):
            return error
        if self._failed_starts < _START_TRIES or not last:
            return None
        story = f"no worker could start, {self._failed_starts} tries failed in a row: last worker {name}"
        return ended_by(error, story, worker=name)

    def note_loss(self, name: str, error: RunnerError) -> RunnerError | None:
        self._losses += 1
        if self._losses <= self._policy.max_attempts * self._wanted:
            return None
        lost = counted(self._losses, "worker was", "workers were")
        story = f"{lost} lost and no shard was finished in between: last worker {name}"
        return ended_by(error, story, worker=name)

    def note_finished(self) -> None:
        """A shard is done: workers are not lost for nothing."""
        self._losses = 0

    def may_start(self, now: float, usable: int, workers: int) -> bool:
        """Whether a worker may be started now. workers: how many there are, those that start included."""
        if usable:
            return now >= self._no_start_before
        if self._unusable_since is None or now < self._no_start_before:
            return False  # the run has not begun, or a back-off has not ended
        return self._failed_starts < _START_TRIES or not workers  # else those that start are the last hope

    def shortage(self, now: float, workers: int) -> CapacityError | None:
        """Why a run without a usable worker ends now, None where it waits on."""
        if self._unusable_since is None:
            return None
        # A node that held workers may be replaced by whatever looks after the cluster; the last was ours too.
        soon = not self._ever_ready or not self._cluster.alive
        if self._never_since is not None and soon and now - self._never_since >= self._policy.never_s:
            return CapacityError(f"no worker can be started: {self._cluster.never}", resumable=self._ever_ready)
        if now - self._unusable_since < self._policy.capacity_s:
            return None
        minutes = f"no worker was usable for {self._policy.capacity_s / 60:g} minutes"
        if self._cluster.never:
            return CapacityError(f"{minutes}: {self._cluster.never}; run the same again to continue", resumable=True)
        return CapacityError(
            f"{minutes}: {workers} are still starting, asked for {self._needs}; free these resources, or ask for less"
            " under 'workers', and run the same again",
            resumable=self._ever_ready,
        )

    def validate(self, usable: int) -> None:
        assert self._unusable_since is None or not usable
