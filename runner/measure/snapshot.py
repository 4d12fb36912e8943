"""How far a run is, at one moment. A value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jobs.notebook import facts


@dataclass(frozen=True, slots=True, repr=False)
class Snapshot:
    """A run at one moment. rows_before: done by earlier runs of the same job. waits_for: room in the cluster, or "".

    seconds: since the workers were asked for. working_s: since the first shard was given out; None: it is the same.
    """

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
    working_s: float | None = None

    @property
    def rows_per_s(self) -> float:
        """While working: what a summary and a report mean by rows/s, too."""
        seconds = self.seconds if self.working_s is None else self.working_s
        return (self.rows_done - self.rows_before) / seconds if seconds > 0 else 0.0

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

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"<Snapshot: {told}>"

    def _repr_html_(self) -> str:
        return facts("Progress", self._facts(), share=self.share)

    def _facts(self) -> dict[str, str]:
        told = {
            "rows": f"{self.rows_done:,} of {self.rows_total:,} ({self.share:.0%})",
            "shards": f"{self.shards_done:,} of {self.shards_total:,}",
            "rows/s": f"{self.rows_per_s:,.0f}" if self.rows_per_s else "",
            "retried": f"{self.retries:,}" if self.retries else "",
            "workers": f"{self.workers_ready} of {self.workers}",
            "waits for": self.waits_for,
        }
        return {name: value for name, value in told.items() if value}
