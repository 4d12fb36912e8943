"""The account of a run, as plain values: `report.json`, and what the summary and the page are made of.

Owns the keys; they are the same in every run. Refuses to know where it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.job import Job, reader_threads
from runner.measure.ceiling import Bottleneck, Ceilings, Settings, Use, bottleneck, ceilings, together, waits
from runner.measure.history import History
from runner.measure.stage import STAGES


@dataclass(frozen=True)
class Account:
    """What a run came to, as far as its workers told."""

    uses: Mapping[str, Use]
    reached: Ceilings
    bottleneck: Bottleneck
    busy_s: float

    @property
    def padding(self) -> float | None:
        """The share of padded inputs that was padding; None: nothing is padded."""
        return together(self.uses.values()).padding

    @property
    def seconds(self) -> dict[str, float]:
        """By stage, over all workers."""
        return dict(together(self.uses.values()).seconds)

    def document(self, facts: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
        """facts: worker -> where it lived."""
        return {
            "working_s": round(self.busy_s, 3),
            "speed": self.reached.document(),
            "bottleneck": {
                "is": self.bottleneck.culprit,
                "sentence": self.bottleneck.sentence,
                "suggestion": self.bottleneck.suggestion,
            },
            **({} if self.padding is None else {"padding": round(self.padding, 4)}),
            "stage_seconds": _rounded(self.seconds),
            "workers": {
                name: {
                    "rows": use.rows,
                    "shards": use.shards,
                    "bytes": use.bytes,
                    "cpus": use.cpus,
                    "batch_rows": use.batch_rows,
                    "stage_seconds": _rounded(use.seconds),
                    "waited_for": _rounded(waits(use)),
                    "cpu_seconds": round(use.cpu_s, 3),
                    "ceiling_rows_per_s": use.ceiling,
                    "peak_rss_bytes": use.rss_bytes,
                    **{key: value for key, value in facts.get(name, {}).items() if key in ("node", "pid", "devices")},
                }
                for name, use in self.uses.items()
            },
        }


def account(job: Job, history: History) -> Account:
    """What the history of a run says of its speed."""
    uses = history.uses()
    use = together(uses.values())
    reached = ceilings(use, history.busy_s)
    workers, cpus = job.workers, max((one.cpus for one in uses.values()), default=1.0)
    settings = Settings(
        compression=job.output.compression,
        readers=reader_threads(int(cpus)) if workers.readers == "auto" else workers.readers,
        batch_rows=None if job.limits.batch_rows == "auto" else job.limits.batch_rows,
        gpus=workers.gpus,
    )
    return Account(uses, reached, bottleneck(use, reached, settings), history.busy_s)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    order = [*STAGES, *(name for name in seconds if name not in STAGES)]
    return {name: round(seconds[name], 3) for name in order if name in seconds}
