"""What a run measures of itself, as Prometheus metrics that Ray exports on every node.

Owns names, units and tags; refuses to know where numbers come from. The invariant: tags name a stage, an outcome or a
state, never a shard, a file or a run, so that the number of series does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Mapping

from jobs.attempt import Failure, Success
from runner.cluster.quiet import Counter, Gauge, Histogram
from runner.measure.snapshot import Snapshot

_BATCH_STAGES = ("feed", "run", "fetch")  # the ones that are done batch by batch
_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
_SHARES = [0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]


class WorkerMetrics:
    """Of one worker: recorded where it lives, so they are there although the driver is busy."""

    def __init__(self) -> None:
        self._rows = Counter("runner_rows", "Rows of shards that are published", ("outcome",))
        self._bytes = Counter("runner_bytes", "Bytes of published parts")
        self._attempts = Counter(
            "runner_attempts", "Attempts that ended: ok, or the class of the failure", ("outcome",)
        )
        self._stages = Counter("runner_stage_seconds", "Seconds of published attempts by stage", ("stage",))
        self._batches = Histogram("runner_batch_seconds", "Seconds of a batch by stage", _SECONDS, ("stage",))
        self._fill = Histogram("runner_batch_fill", "Rows of a batch, as a share of the most it may have", _SHARES)
        self._padding = Counter("runner_padding_rows", "Rows that fill up batches of a fixed size")
        self._load = Histogram("runner_model_load_seconds", "Seconds until a worker was ready", _SECONDS)
        self._before: dict[str, float] = {}

    def loaded(self, seconds: float) -> None:
        self._load.observe(seconds)

    def batch(self, rows: int, most: int, padding: int, seconds: Mapping[str, float]) -> None:
        """seconds: by stage, since the attempt began."""
        for stage in _BATCH_STAGES:
            at, before = seconds.get(stage, 0.0), self._before.get(stage, 0.0)
            self._batches.observe(at - before if at >= before else at, {"stage": stage})
        self._before = dict(seconds)
        self._fill.observe(min(1.0, rows / most) if most else 1.0)
        if padding:
            self._padding.inc(padding)

    def ended(self, result: Success | Failure) -> None:
        if isinstance(result, Failure):
            self._attempts.inc(1, {"outcome": result.error.failure_class})
            return
        self._attempts.inc(1, {"outcome": "ok"})
        receipt = result.receipt
        for outcome, rows in (("written", receipt.rows_out), ("rejected", receipt.rows_rejected)):
            if rows:
                self._rows.inc(rows, {"outcome": outcome})
        if receipt.size:
            self._bytes.inc(receipt.size)
        for stage, seconds in result.measured.seconds.items():
            if seconds > 0:
                self._stages.inc(seconds, {"stage": stage})


class RunMetrics:
    """Of the run as its driver sees it."""

    def __init__(self) -> None:
        self._workers = Gauge("runner_workers", "Workers by state", ("state",))
        self._shards = Gauge("runner_shards", "Shards by state; waiting is the depth of the queue", ("state",))
        self._retries = Gauge("runner_retries", "Attempts of this run at shards that had been given out before")

    def show(self, at: Snapshot) -> None:
        for state, workers in (("ready", at.workers_ready), ("starting", max(0, at.workers - at.workers_ready))):
            self._workers.set(workers, {"state": state})
        waiting = max(0, at.shards_total - at.shards_done - at.shards_running)
        for state, shards in (("waiting", waiting), ("running", at.shards_running), ("done", at.shards_done)):
            self._shards.set(shards, {"state": state})
        self._retries.set(at.retries)
