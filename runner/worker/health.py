"""Health: why this process is to be replaced, once there is a reason.

Owns every reason: memory that ran out or is nearly used up, a device that failed. Refuses to know attempts and to end
anything: the Schedule replaces the worker. The invariant: a reason stays, because a process that was given up once is
not trusted again.
"""

from __future__ import annotations

from jobs.errors import RunnerError, WorkerError
from jobs.words import counted
from runner.batch.headroom import TIRED, Headroom
from runner.worker.room import MemoryLimit


class Health:
    """worker: its name, for messages."""

    def __init__(self, worker: str, memory: MemoryLimit, headroom: Headroom) -> None:
        self._worker, self._memory, self._headroom = worker, memory, headroom
        self.reason = ""  # to replace it between two shards
        self._broken = ""  # to replace it at once

    @property
    def broken(self) -> bool:
        """The device is in doubt: what still runs here is not to go on."""
        return bool(self._broken)

    def note(self, error: RunnerError) -> None:
        """Learn of a failure in this process."""
        if not error.replaces_worker:
            return
        self.reason = self.reason or f"it failed: {error.message}"
        if error.breaks_device:
            self._broken = self._broken or f"it failed: {error.message}"

    def after_shard(self) -> str:
        """The reason as it is now that a shard is done; "" where there is none."""
        if not self.reason and self._headroom.failures >= TIRED:
            self.reason = f"memory ran out {counted(self._headroom.failures, 'time')} in it"
        self.reason = self.reason or self._memory.excess()
        return self.reason

    def look(self) -> None:
        """raises: WorkerError where the device is in doubt."""
        if self._broken:
            raise self._gone(self._broken)

    def refusal(self) -> WorkerError | None:
        """Why no further attempt begins here; None where one may."""
        return self._gone(self.reason) if self.reason else None

    def _gone(self, reason: str) -> WorkerError:
        return WorkerError(f"worker {self._worker} is to be replaced: {reason}")
