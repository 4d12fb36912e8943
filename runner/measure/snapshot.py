"""How far a run is, at one moment. A value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at one moment. rows_before: done by earlier runs of the same job. waits_for: room in the cluster, or ""."""

    rows_total: int
    rows_done: int
    rows_before: int
    seconds: float
    shards_total: int
    shards_done: int
    shards_running: int
    retries: int
    workers_ready: int
    workers: int
    waits_for: str = ""

    @property
    def rows_per_s(self) -> float:
        return (self.rows_done - self.rows_before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """None while it is not known: nothing was done yet, or nobody works."""
        known = self.rows_per_s > 0 and (self.workers_ready > 0 or self.share == 1)
        return (self.rows_total - self.rows_done) / self.rows_per_s if known else None

    @property
    def share(self) -> float:
        """Done, from 0 to 1; by shards where there are no rows."""
        done, total = (self.rows_done, self.rows_total) if self.rows_total else (self.shards_done, self.shards_total)
        return done / total if total else 1.0

    def document(self) -> dict[str, Any]:
        return asdict(self) | {"rows_per_s": round(self.rows_per_s, 1)}
