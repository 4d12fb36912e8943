"""Which cluster a job may go to: told by a stub that answers as Ray's dashboard does, or does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobs.errors import CapacityError, JobError
from runner.cluster import jobs_api as submission
from runner.cluster.jobs_api import RayJobs


@contextmanager
def dashboard(status: int) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers everything with `status`; the requests it got."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            body = b'{"ray_version": "2.60.0", "version": "4"}'
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address counts as one of another machine."""
    monkeypatch.setattr(submission, "_loopback", lambda address: False)


def test_an_open_cluster_on_this_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "not-for-everybody")
    with dashboard(200) as (address, asked):
        RayJobs(address, allow_open=False)
    assert {token for _, token in asked} == {None}, "a token goes only to a cluster that asks for one"


def test_an_open_cluster_elsewhere_is_used_only_on_request(far_away: None) -> None:
    with dashboard(200) as (address, _):
        with pytest.raises(CapacityError, match=r"is open: .*--allow-open-cluster") as caught:
            RayJobs(address, allow_open=False)
        RayJobs(address, allow_open=True)
    assert caught.value.exit_code == 69


@pytest.mark.parametrize("status", [401, 403])
def test_a_cluster_with_a_door_is_not_open(far_away: None, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    with dashboard(status) as (address, asked), pytest.raises(CapacityError) as caught:
        RayJobs(address, allow_open=False)
    assert "is open" not in str(caught.value)
    assert asked[0][1] is None
    assert asked[-1][1] == "Bearer mine"


def test_a_proxy_with_a_door_of_its_own_is_not_open_and_gets_no_token(
    far_away: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    with dashboard(302) as (address, asked):
        RayJobs(address, allow_open=False)
    assert {token for _, token in asked} == {None}


def test_the_address_that_is_given_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with dashboard(200) as (address, asked):
        RayJobs(address)
    assert asked


@pytest.mark.parametrize(
    ("loopback", "address"),
    [
        (True, "http://127.0.0.1:8265"),
        (True, "http://localhost:8265"),
        (True, "http://[::1]:8265"),
        (False, "http://10.0.0.7:8265"),
        (False, "http://head:8265"),
        (False, "http://localhost.example.com:8265"),
    ],
)
def test_loopback_is_told_by_the_address_alone(loopback: bool, address: str) -> None:
    assert submission._loopback(address) is loopback


@pytest.mark.parametrize("address", ["auto", "10.0.0.7:6379", "ray://head:10001", "http://me:pw@head:8265"])
def test_another_kind_of_address_is_explained(address: str) -> None:
    with pytest.raises(JobError, match=r"expected the address of Ray's dashboard, 'http://HOST:8265'") as caught:
        RayJobs(address)
    assert "pw" not in str(caught.value)


def test_nobody_there_is_told_at_once() -> None:
    with pytest.raises(CapacityError, match=r"no cluster at 'http://127\.0\.0\.1:1': .*port 8265"):
        RayJobs("http://127.0.0.1:1")


def test_a_server_that_is_no_dashboard_is_told() -> None:
    with dashboard(502) as (address, _), pytest.raises(CapacityError, match="HTTP status 502"):
        RayJobs(address)


def test_a_ray_without_its_dashboard_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.dashboard.modules.job import sdk

    monkeypatch.setattr(sdk, "requests", None)
    with dashboard(200) as (address, _), pytest.raises(JobError, match=r"install savedmodel-runner\[cluster\]"):
        RayJobs(address)
