"""Metrics of a real Ray while a job runs: every expression of the dashboard names one that is there."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from store_servers import free_port

from runner.cluster import metrics
from runner.measure.snapshot import Snapshot

Command = Callable[..., subprocess.CompletedProcess[str]]
DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "runner.json"
TAGS = {"outcome", "stage", "state", "le"}  # ours; Ray adds where a number comes from
RAYS = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId", "JobId", "NodeId", "ClusterName"}


def scrape(ports: list[int], token: str) -> str:
    pages = []
    for port in ports:
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                pages.append(answer.read().decode())
        except (urllib.error.URLError, OSError):
            continue  # not up yet
    return "\n".join(pages)


def samples(page: str) -> dict[str, list[tuple[Mapping[str, str], float]]]:
    """Name -> (labels, value), of ours."""
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for name, labels, value in re.findall(r"^(ray_runner_\w+)\{(.*)\} (\S+)", page, re.MULTILINE):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found.setdefault(name, []).append((pairs, float(value)))
    return found


def expressions() -> dict[str, set[str]]:
    """Panel -> the metrics it names."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        panel["title"]: {name for target in panel["targets"] for name in re.findall(r"ray_runner_\w+", target["expr"])}
        for panel in panels
    }


def left_over(found: Mapping[str, list[tuple[Mapping[str, str], float]]]) -> float:
    """Shards that a driver still waits for or has given out, as Ray exports it; the drivers are all on the head."""
    shards = found.get("ray_runner_shards", [])
    return sum(value for labels, value in shards if labels["state"] in ("waiting", "running"))


def test_a_process_that_outlives_its_run_leaves_no_work_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook, for one: Ray exports the last values of a gauge for as long as the process lives."""
    last: dict[tuple[str, str], float] = {}

    class Gauge:
        def __init__(self, name: str, *_: object) -> None:
            self.name = name

        def set(self, value: float, tags: Mapping[str, str]) -> None:
            last[self.name, tags.get("state", "")] = value

    monkeypatch.setattr(metrics, "Gauge", Gauge)
    run = metrics.RunMetrics()
    run.show(Snapshot(100, 40, 0, 2.0, 10, 3, 2, 1, 2, 3))
    assert last["runner_shards", "waiting"] == 5
    run.close()
    assert {last["runner_shards", state] for state in ("waiting", "running")} == {0}
    assert last["runner_progress_rows", "left"] == 60, "what was not done is no secret"


def test_every_panel_of_the_dashboard_is_filled_while_a_job_runs(
    command: Command, job_file: Callable[..., Path], there: Any
) -> None:
    port = free_port()
    node = there.cluster.add(num_cpus=1, resources={"measured": 1}, metrics_export_port=port)
    job_file("sixteen", limits={"shard_rows": 50}, workers={"count": 1, "resources": {"measured": 1}})
    slow = ["--env", "RUNNER_TEST_BUILD=1", "--env", "RUNNER_FAILPOINTS=W3.run=sleep:0.2"]  # 130 batches
    id = json.loads(command("submit", "job.yaml", "--json", *slow).stdout)["id"]
    wanted = set().union(*expressions().values())
    assert len(wanted) >= 11
    deadline, found = time.monotonic() + 90, dict[str, Any]()
    while wanted - found.keys():
        assert time.monotonic() < deadline, (wanted - found.keys(), command("jobs", "logs", id).stdout)
        time.sleep(1)
        found |= samples(scrape([port, there.metrics_port], there.environment["RAY_AUTH_TOKEN"]))
    command("jobs", "stop", id)
    while left_over(samples(scrape([there.metrics_port], there.environment["RAY_AUTH_TOKEN"]))):
        assert time.monotonic() < deadline, "an alert would tell of a run that has ended"
        time.sleep(1)
    there.cluster.remove(node)

    for name, values in found.items():
        labels = {label for labels, _ in values for label in labels if not label.startswith("otel_scope")}
        assert labels - RAYS <= TAGS, (name, labels)
        assert "SessionName" in labels, "the dashboard's variable chooses by it"
    rows = {labels["outcome"]: value for labels, value in found["ray_runner_rows_total"]}
    assert rows["written"] > 0
    assert rows["written"] % 50 == 0
    states = {labels["state"]: value for labels, value in found["ray_runner_workers"]}
    assert states == {"ready": 1, "starting": 0}
    fills = [value for _, value in found["ray_runner_batch_fill_count"]]
    assert fills[0] > 0
    for panel, names in expressions().items():
        print(panel, *(f"{name}={sum(value for _, value in found[name]):g}" for name in sorted(names)), sep=" | ")
