"""The meters of a run as Prometheus metrics that Ray exports on every node.

Owns those that only a worker can see; refuses to know where numbers come from, and how meters are called. The
invariant: as in `runner.measure.meters`, no tag names a shard, a file or a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from jobs.attempt import Failure, Success
from runner.cluster.quiet import Counter, Gauge, Histogram
from runner.measure import meters
from runner.measure.meters import Meter, Reading
from runner.measure.snapshot import Snapshot

_BATCH_STAGES = ("feed", "run", "fetch")  # the ones that are done batch by batch
_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
_SHARES = [0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]


class WorkerMetrics:
    """Of one worker: recorded where it lives, so they are there although the driver is busy."""

    def __init__(self) -> None:
        self._counters = {
            meter: Counter(meter.name, meter.help, _tags(meter))
            for meter in (meters.ROWS, meters.BYTES, meters.ATTEMPTS, meters.STAGES)
        }
        self._memory = Gauge(meters.MEMORY.name, meters.MEMORY.help)
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
        for reading in meters.increments(result):
            if reading.value > 0:
                self._counters[reading.meter].inc(reading.value, _tagged(reading))
        if isinstance(result, Success) and (held := result.measured.figures.get("rss_bytes")):
            self._memory.set(held)


class RunMetrics:
    """Of the run as its driver sees it."""

    def __init__(self) -> None:
        self._gauges: dict[Meter, Gauge] = {}
        self._last: Snapshot | None = None

    def show(self, at: Snapshot) -> None:
        self._last = at
        for reading in meters.gauges(at):
            gauge = self._gauges.get(reading.meter)
            if gauge is None:
                gauge = self._gauges[reading.meter] = Gauge(
                    reading.meter.name, reading.meter.help, _tags(reading.meter)
                )
            gauge.set(reading.value, _tagged(reading))

    def close(self) -> None:
        """Nothing waits or runs any more: Ray exports the last values for as long as the cluster stays."""
        if self._last is not None:
            at = replace(self._last, shards_running=0, shards_total=self._last.shards_done, workers=0, workers_ready=0)
            self.show(at)


def _tags(meter: Meter) -> tuple[str, ...]:
    return (meter.label,) if meter.label else ()


def _tagged(reading: Reading) -> dict[str, str]:
    return {reading.meter.label: reading.state} if reading.meter.label else {}
