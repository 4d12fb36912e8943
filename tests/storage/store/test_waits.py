"""A call on a store that takes long says so, once; a store that never answers is given up, with its address."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from connectors.store import calls, retry
from connectors.store.calls import Waits
from connectors.store.connect import client_class
from connectors.store.store import Store
from jobs.errors import InputError, JobError, StorageError


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    assert true()


def test_a_call_that_takes_long_is_said_once_with_what_failed_so_far() -> None:
    said: list[str] = []
    waits = Waits(0.04, 60.0, said.append)
    with waits.call("read", "s3://b/quick", ""):
        pass
    with waits.call("read", "s3://b/x?X-Amz-Signature=canary", "look there") as wait:
        wait.failed(StorageError("503"))
        until(lambda: bool(said))
        (story,) = said
        assert waits.said == story
        assert story.startswith("still waiting after 0 s to read 's3://b/x")
        assert story.endswith("; 1 try failed, the last: 503")
        assert "canary" not in story
        time.sleep(0.1)
    assert waits.said == ""
    with waits.call("read", "s3://b/y", ""), waits.call("list", "s3://b", "look there"):
        until(lambda: len(said) == 2)
        time.sleep(0.05)
    assert said[1:] == ["still waiting after 0 s to list 's3://b'; look there"], (
        "one a minute of those that do the same"
    )


def test_nothing_watches_where_nothing_is_called() -> None:
    waits = Waits(0.04)
    with waits.call("read", "/x", ""):
        assert waits._thread is not None
    until(lambda: waits._thread is None)


class Slow(BaseHTTPRequestHandler):
    """A web server that answers when `go` is set."""

    protocol_version = "HTTP/1.1"
    go = threading.Event()

    def do_HEAD(self) -> None:
        self.go.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="the package for http is not installed: aiohttp")
    monkeypatch.setattr(Slow, "go", threading.Event())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Slow.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_slow_store_is_named_while_it_is_waited_for(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def say(story: str) -> None:
        said.append(story)
        Slow.go.set()

    monkeypatch.setattr(calls, "WAITS", Waits(0.1, 60.0, say))
    found = Store(slow).stat(f"{slow}/x.parquet")
    assert found is not None
    assert said == [
        f"still waiting after 0 s to look at '{slow}/x.parquet'; look at the address, the network and its proxies"
    ]


def test_a_store_that_never_answers_is_given_up_at_its_first_call(
    slow: str, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(calls, "_FIRST_ANSWER_S", 0.2)
    with pytest.raises(StorageError, match=r"no answer within 0 s; look at the address") as caught:
        Store(slow).stat(f"{slow}/x.parquet")
    assert (caught.value.facts["cause"], pauses) == ("silent", [])
    Slow.go.set()
    store = Store(slow)
    assert store.stat(f"{slow}/x.parquet") is not None
    monkeypatch.setattr(calls, "_FIRST_ANSWER_S", 0.0)
    assert store.stat(f"{slow}/x.parquet") is not None, "it has answered before: a long call is none of its first"


class Refusing:
    """The files of a store where nobody listens."""

    def using(self, call: Callable[[], Any]) -> Any:
        raise ConnectionRefusedError(111, "nobody listens")


def test_a_store_that_nobody_answers_for_is_named_at_the_first_failure_and_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(calls, "WAITS", Waits(60.0, 60.0, said.append))
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr(calls, "_FIRST_ANSWER_S", 0.2)
    store = Store("s3://bucket/in")
    store._calls.files = Refusing()  # type: ignore[assignment]
    with pytest.raises(
        InputError, match=r"nobody listens \(may pass\): given up after 12 tries in 0 s; look at"
    ) as caught:
        store.list(["s3://bucket/in"], [".parquet"])
    assert (caught.value.exit_code, caught.value.facts["code"]) == (2, "NO_STORE")
    assert len(pauses) == 11
    (story,) = said
    assert story.startswith("cannot list 's3://bucket/in': ConnectionRefusedError: ")
    assert story.endswith(": it is tried again for up to 0 s (option `give_up_s`)")
    with pytest.raises(StorageError) as elsewhere:
        store.stat("x")
    assert (elsewhere.value.exit_code, elsewhere.value.facts["cause"]) == (69, "silent")
    store._calls._answered = True
    with pytest.raises(StorageError) as later:
        store.stat("x")
    assert (later.value.exit_code, later.value.facts["cause"]) == (69, "unreached")


def test_a_store_that_fails_and_then_says_nothing_is_given_up_with_the_words_of_its_failure(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    go = threading.Event()

    class Silent(Refusing):
        def using(self, call: Callable[[], Any]) -> Any:
            if pauses:
                go.wait(60)
            super().using(call)

    monkeypatch.setattr(calls, "WAITS", Waits(60.0, 60.0, str))
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.0)
    store = Store("s3://bucket/in", {"give_up_s": "0.2"})
    store._calls.files = Silent()  # type: ignore[assignment]
    with pytest.raises(
        StorageError, match=r"nobody listens \(may pass\): given up after 1 try in 0 s; look at"
    ) as caught:
        store.stat("x")
    go.set()
    assert (caught.value.exit_code, caught.value.facts["cause"]) == (69, "silent")


def test_a_store_that_answers_with_an_error_at_first_is_tried_as_long_as_later(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    class Busy:
        def using(self, call: Callable[[], Any]) -> Any:
            raise RuntimeError("503: slow down")

    monkeypatch.setattr(calls, "_FIRST_ANSWER_S", 0.5)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 1.0)
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: high)  # each pause is longer than that
    store = Store("s3://bucket/in")
    store._calls.files = Busy()  # type: ignore[assignment]
    with pytest.raises(StorageError, match="503: slow down") as caught:
        store.stat("x")
    assert (caught.value.exit_code, len(pauses)) == (70, 11)


def test_a_job_says_how_long_its_store_is_tried(pauses: list[float]) -> None:
    store = Store("s3://bucket/in", {"give_up_s": "0.0001"})
    store._calls.files = Refusing()  # type: ignore[assignment]
    with pytest.raises(StorageError, match="given up after 1 try in 0 s"):
        store.stat("x")
    assert pauses == []


@pytest.mark.parametrize("given", ["soon", 0, -3, "nan", "1e9"])
def test_a_bound_that_is_no_number_of_seconds_is_refused(given: str | float) -> None:
    with pytest.raises(JobError, match=r"option 'give_up_s': .*; expected a number of seconds"):
        Store("s3://bucket/in", {"give_up_s": given})


@pytest.mark.parametrize(
    ("options", "emulator", "variable", "name"),
    [
        ({}, "", "", "gcsfs.GCSFileSystem"),
        ({}, "default", "", "gcsfs.GCSFileSystem"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "", "", "gcsfs.core.GCSFileSystem"),
        ({}, "127.0.0.1:1", "", "gcsfs.core.GCSFileSystem"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "", "true", "gcsfs.GCSFileSystem"),
    ],
)
def test_gcs_at_another_address_is_asked_by_json_alone(
    options: dict[str, Any], emulator: str, variable: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcsfs = pytest.importorskip("gcsfs", reason="the package for GCS is not installed: savedmodel-runner[gcs]")
    for key, value in (("STORAGE_EMULATOR_HOST", emulator), ("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", variable)):
        monkeypatch.setenv(key, value) if value else monkeypatch.delenv(key, raising=False)
    wanted = gcsfs.core.GCSFileSystem if ".core." in name else gcsfs.GCSFileSystem
    assert client_class("gs://b/x", options) is wanted
