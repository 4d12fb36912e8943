"""The meters leave the process: as a text file that Prometheus reads, and over OTLP to a receiver."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from jobs.errors import DataError, JobError
from runner.measure.meters import Meters
from runner.measure.snapshot import Snapshot
from runner.report.exporter import exporters, exporting, require_exportable

AT = Snapshot(100, 40, 0, 2.0, 10, 3, 2, 1, 2, 3)


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def samples(path: Path) -> dict[tuple[str, str], tuple[float, dict[str, str]]]:
    """(name, state) -> value and the other labels, as Prometheus' own parser reads the file."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for one in family.samples:
            own = {name: value for name, value in one.labels.items() if name in ("output", "plan")}
            (state,) = [value for name, value in one.labels.items() if name not in own] or [""]
            found[one.name, state] = (one.value, own)
    return found


def test_a_text_file_tells_how_far_a_run_is_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "runner.prom"
    with exporting(exporters(str(path), "s3://lake/scores", "3f9c1a7e00", Meters())) as exported:
        exported.show(AT)
        assert samples(path)["runner_progress_rows", "left"] == (60, {"output": "s3://lake/scores", "plan": "3f9c1a7e"})
    assert samples(path)["runner_ended_seconds", "0"][0] > 1_700_000_000
    assert list(tmp_path.iterdir()) == [path], "the file is replaced as a whole, and nothing is left beside it"


def test_the_exit_code_of_an_error_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runner.prom"
    with pytest.raises(DataError), exporting(exporters(str(path), "scores", "3f9c1a7e", Meters())):
        raise DataError("too many bad rows")
    assert ("runner_ended_seconds", "65") in samples(path)


@pytest.mark.parametrize("name", ["", "absent/runner.prom"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match="cannot write metrics to"):
        require_exportable(str(tmp_path / name))


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError("unforeseen"), 70)])
def test_an_end_that_is_no_error_of_ours_has_the_exit_code_of_the_command(
    tmp_path: Path, error: BaseException, code: int
) -> None:
    path = tmp_path / "runner.prom"
    with pytest.raises(type(error)), exporting(exporters(str(path), "scores", "3f9c1a7e", Meters())):
        raise error
    assert ("runner_ended_seconds", str(code)) in samples(path)


def test_an_interval_that_is_no_number_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "often")
    require_exportable(None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(JobError, match="often"):
        require_exportable(None)


def test_a_disk_that_fails_later_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    exported = exporters(str(folder / "runner.prom"), "scores", "3f9c1a7e", Meters())
    folder.rmdir()
    exported.show(AT)
    exported.close(0)
    (told,) = caplog.messages
    assert "cannot export metrics: FileNotFoundError" in told


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    """A receiver of OTLP: its address, and what it got."""
    got: list[ExportMetricsServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            import gzip

            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            got.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_receiver_of_otlp_gets_the_same_numbers(
    receiver: tuple[str, list[ExportMetricsServiceRequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, got = receiver
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    with exporting(exporters(None, "scores", "3f9c1a7e", Meters())) as exported:
        exported.show(AT)
    (metrics,) = [scope.metrics for all_ in got[-1].resource_metrics for scope in all_.scope_metrics]
    found = {
        (metric.name, *(f"{one.key}={one.value.string_value}" for one in point.attributes)): point.as_double
        or point.as_int
        for metric in metrics
        for point in metric.gauge.data_points
    }
    assert found["runner_progress_rows", "output=scores", "plan=3f9c1a7e", "state=left"] == 60
    assert any(name[0] == "runner_ended_seconds" and "exit_code=0" in name for name in found)


def test_a_receiver_that_is_not_there_ends_no_run_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    with exporting(exporters(None, "scores", "3f9c1a7e", Meters())) as exported:
        exported.show(AT)
    (told,) = caplog.messages
    assert told.startswith("cannot export metrics: ")
    assert told.endswith("; the run goes on")
    library = logging.getLogger("opentelemetry")
    assert (library.propagate, library.handlers) == (True, []), "it is as it was, for whoever else uses it"
