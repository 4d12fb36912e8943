"""The meters of a run for monitoring without Ray: a Prometheus text file, and OTLP to a receiver.

Owns how they leave the process; refuses to know what is measured. The invariant: no exporter ends or holds up a run:
what goes wrong is told once, and each wait is bounded.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from connectors.secret import redact
from jobs.errors import JobError, RunnerError
from runner.measure.meters import Meter, Meters, Reading
from runner.measure.snapshot import Snapshot

_log = logging.getLogger(__name__)

_EVERY_S = 10.0  # at most how often a file is written, and OTLP is sent unless OTEL_METRIC_EXPORT_INTERVAL says it
_FLUSH_S = 5.0  # how long the last values may take to reach a receiver
_OTLP = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Exporter(Protocol):
    """Called with what is measured by now. last: whether nothing follows."""

    def send(self, *, last: bool) -> None: ...


class TextFile:
    """Prometheus' text format, for the textfile collector of its node exporter. Replaced as a whole.

    labels: of every series: 'output', 'plan'.
    """

    def __init__(self, path: str, meters: Meters, labels: Mapping[str, str]) -> None:
        from prometheus_client import CollectorRegistry

        self._path = Path(path)
        self._registry = CollectorRegistry()
        self._registry.register(_Families(meters, labels))
        self._sent = float("-inf")

    def send(self, *, last: bool) -> None:
        from prometheus_client import write_to_textfile

        if last or time.monotonic() - self._sent >= _EVERY_S:
            self._sent = time.monotonic()
            write_to_textfile(str(self._path), self._registry)


class _Families:
    """The meters as prometheus_client collects them."""

    def __init__(self, meters: Meters, labels: Mapping[str, str]) -> None:
        self._meters, self._labels = meters, labels

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        for meter, readings in _by_meter(self._meters.readings()).items():
            family = kinds[meter.kind](meter.name, meter.help, labels=[*self._labels, *filter(None, [meter.label])])
            for one in readings:
                family.add_metric([*self._labels.values(), *([one.state] if meter.label else [])], one.value)
            yield family


class _Once(logging.Handler):
    """Tells the first complaint of OpenTelemetry; it has several for each time it sends, and the others say no more."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told = False
        self.hears(True)

    def emit(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            _log.warning("cannot export metrics: %s; the run goes on", record.getMessage())

    def hears(self, yes: bool) -> None:
        library = logging.getLogger("opentelemetry")
        library.propagate = not yes
        (library.addHandler if yes else library.removeHandler)(self)


class Otlp:
    """OTLP over HTTP, as the variables OTEL_* of OpenTelemetry say; a thread of the library sends."""

    def __init__(self, meters: Meters, labels: Mapping[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource

        reader = PeriodicExportingMetricReader(OTLPMetricExporter(timeout=_FLUSH_S), _interval_ms())
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "savedmodel-runner")})
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        self._meters, self._labels = meters, labels
        self._instruments = self._provider.get_meter("savedmodel-runner")
        self._known: set[Meter] = set()
        self._complaints = _Once()

    def send(self, *, last: bool) -> None:
        """Register what is new; the library's own thread asks for values."""
        for meter in _by_meter(self._meters.readings()).keys() - self._known:
            self._known.add(meter)
            make = {
                "counter": self._instruments.create_observable_counter,
                "gauge": self._instruments.create_observable_gauge,
            }[meter.kind]
            make(meter.name, [self._observed(meter)], description=meter.help)
        if last:
            self._provider.shutdown(_FLUSH_S * 1000)
            self._complaints.hears(False)

    def _observed(self, meter: Meter) -> Callable[[Any], Iterable[Any]]:
        from opentelemetry.metrics import Observation

        def observe(options: Any) -> Iterator[Any]:
            for one in _by_meter(self._meters.readings()).get(meter, ()):
                yield Observation(one.value, {**self._labels, **({meter.label: one.state} if meter.label else {})})

        return observe


def _by_meter(readings: Iterable[Reading]) -> dict[Meter, list[Reading]]:
    found: dict[Meter, list[Reading]] = {}
    for one in readings:
        found.setdefault(one.meter, []).append(one)
    return found


class Exporters:
    """All that were asked for; nothing where none was. Also a listener of snapshots."""

    def __init__(self, meters: Meters, exporters: Sequence[Exporter]) -> None:
        self._meters, self._exporters = meters, exporters
        self._told: set[Exporter] = set()

    def show(self, at: Snapshot) -> None:
        self._meters.show(at)
        self._send(last=False)

    def close(self, exit_code: int) -> None:
        self._meters.ended(time.time(), exit_code)
        self._send(last=True)

    def _send(self, *, last: bool) -> None:
        for exporter in self._exporters:
            try:
                exporter.send(last=last)
            except Exception as error:  # of a disk or a library: the run matters more
                if exporter not in self._told:
                    self._told.add(exporter)
                    _log.warning("cannot export metrics: %s: %s; the run goes on", type(error).__name__, error)


def exporters(file: str | None, output: str, plan_id: str, meters: Meters) -> Exporters:
    """What the user asked for, and `require_exportable` found possible. file: path of a text file, or None."""
    labels = {"output": redact(output), "plan": plan_id[:8]}
    asked: list[Exporter] = []
    if file is not None:
        asked.append(TextFile(file, meters, labels))
    if _sends():
        asked.append(Otlp(meters, labels))
    return Exporters(meters, asked)


def require_exportable(file: str | None) -> None:
    """Before anything is begun, or removed for `overwrite`.

    raises: JobError where no file can be made there, or OTLP is asked for and cannot be sent: a night of metrics would
            be missing.
    """
    if file is not None:
        _require_writable(Path(file))
    if not _sends():
        return
    package = "opentelemetry.exporter.otlp.proto.http"
    try:
        import_module(package)
        _interval_ms()
    except (ImportError, ValueError) as error:
        raise JobError(
            f"cannot send metrics to the OTLP receiver that {' or '.join(_OTLP)} names: {error}; install the extra"
            " 'otlp' (pip install 'savedmodel-runner[otlp]'), or correct the variables OTEL_*"
        ) from error


def _sends() -> bool:
    return any(os.environ.get(name) for name in _OTLP)


def _interval_ms() -> float:
    return float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or _EVERY_S * 1000)


def _require_writable(path: Path) -> None:
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        found = "it is a folder" if path.is_dir() else f"'{path.parent}' is no folder that can be written to"
        raise JobError(f"cannot write metrics to '{path}': {found}; expected the path of a file, such as 'runner.prom'")


def _exit_code(error: BaseException) -> int:
    if isinstance(error, RunnerError):
        return error.ends_with
    # The command raises a signal as something of its own, which says its code; Python says Ctrl-C in its own way.
    return int(getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else RunnerError.exit_code))


@contextmanager
def exporting(made: Exporters) -> Iterator[Exporters]:
    """Say the end of the run, however it ends, with its exit code."""
    code = 0
    try:
        yield made
    except BaseException as error:
        code = _exit_code(error)
        raise
    finally:
        made.close(code)
