"""Unclear answers and patience: what a client answers, and what is true of the part or document nevertheless.

The S3 cases run over HTTP against the server of conftest.py, which fails on request. GCS, Azure's InvalidBlockList and
HDFS are stubs of their clients, as no emulator fails in these ways.
"""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.formats.arrow.encoder import ArrowEncoder
from connectors.output.layout import Layout
from connectors.output.part import Parts
from connectors.store.probe import Mode
from connectors.store.retry import Patience
from connectors.store.store import Store
from jobs.attempt import Attempt, InputSlice, Receipt
from jobs.errors import InputError, JobError, OutputError, StorageError

SCHEMA = pa.schema([pa.field("id", pa.int64())])
NAME = "part-00000-of-00001-aaaaaaaa.arrow"


def work(store: Store, number: int = 1, mode: Mode = "direct") -> Receipt:
    attempt = Attempt(f"e1-a{number}-{number:012x}", 0, number, 1, (InputSlice(0, "/in", 1, "v", 0, (4,)),), 4)
    parts = Parts(store, Layout("a" * 32, 1, ".arrow"), ArrowEncoder(), "zstd", mode)
    with parts.open(attempt, SCHEMA, "d", "w") as part:
        part.write(pa.record_batch([pa.array(range(4), pa.int64())], schema=SCHEMA))
        return part.publish()


# patience


def test_pauses_double_are_drawn_at_random_and_end_at_thirty_seconds() -> None:
    asked: list[tuple[float, float]] = []
    slept: list[float] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 2

    def fail() -> None:
        raise StorageError("503")

    patience = Patience(tries=9, sleep=slept.append, clock=lambda: sum(slept), uniform=uniform)
    with pytest.raises(StorageError) as error:
        patience.call(fail)
    assert asked[:8] == [(0.0, high) for high in (0.5, 1, 2, 4, 8, 16, 30, 30)]
    assert slept == [high / 2 for _, high in asked[:8]]
    assert error.value.facts == {"tries": 9, "waited_s": round(sum(slept), 1)}


def test_patience_ends_after_its_time_whatever_the_tries() -> None:
    slept: list[float] = []

    def fail() -> None:
        raise StorageError("503")

    patience = Patience(
        tries=1000, sleep=slept.append, clock=lambda: sum(slept) + len(slept), uniform=lambda low, high: high
    )
    with pytest.raises(StorageError):
        patience.call(fail)
    assert 250 < sum(slept) + len(slept) <= 300


def test_what_will_not_pass_is_not_tried_again(pauses: list[float]) -> None:
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise OutputError("no")

    with pytest.raises(OutputError):
        Patience().call(fail)
    assert (calls, pauses) == (1, [])


# S3 over HTTP


@pytest.fixture
def s3(request: pytest.FixtureRequest, s3_options: Any, s3_faults: list[Any]) -> Store:
    return Store(f"s3://b-{abs(hash(request.node.name))}/out", s3_options)


@pytest.fixture
def fail(request: pytest.FixtureRequest, s3_faults: list[Any]) -> Callable[..., None]:
    """fail(method, text, times, status): as `Fault` of conftest.py says; status 0 loses the answer."""
    kind = request.getfixturevalue("fault_kind")

    def add(method: str, text: str, times: int, status: int = 0) -> None:
        s3_faults.append(kind(method, text, times, status))

    return add


@pytest.mark.parametrize("mode", ["direct", "whole"])
@pytest.mark.parametrize(("status", "times"), [(409, 3), (412, 1), (400, 2), (503, 6), (0, 1), (0, 2)])
def test_a_part_is_published_once_whatever_the_store_answers_first(
    s3: Store, fail: Callable[..., None], status: int, times: int, mode: Mode
) -> None:
    fail("PUT", NAME, min(times, 4) if mode == "whole" else times, status)  # direct: the client tries too
    receipt = work(s3, mode=mode)
    assert (receipt.adopted, len(receipt.sha256), s3.sizes("")) == (False, 64, {NAME: receipt.size})


@pytest.mark.parametrize("mode", ["direct", "whole"])
@pytest.mark.parametrize(("status", "times"), [(409, 3), (0, 1), (503, 2)])
def test_an_unclear_answer_about_the_part_of_another_attempt_means_adopting_it(
    s3: Store, fail: Callable[..., None], status: int, times: int, mode: Mode
) -> None:
    first = work(s3, 1)
    fail("PUT", NAME, times, status)
    second = work(s3, 2, mode)
    assert (second.adopted, second.attempt) == (True, first.attempt)


def test_an_unclear_answer_about_a_foreign_object_fails_the_job(s3: Store, fail: Callable[..., None]) -> None:
    s3.replace(NAME, b"foreign")
    fail("PUT", NAME, 1, 409)
    with pytest.raises(OutputError, match="it stays as it is"):
        work(s3)
    assert s3.read(NAME) == b"foreign"


def test_a_publish_is_tried_five_times_and_then_given_back(
    s3: Store, fail: Callable[..., None], pauses: list[float]
) -> None:
    fail("PUT", NAME, 1000, 400)
    with pytest.raises(StorageError, match="cannot publish") as error:
        work(s3)
    assert (error.value.facts["answer"], error.value.facts["tries"], len(pauses)) == ("unclear", 5, 4)
    assert s3.sizes("") == {}


@pytest.mark.parametrize(("status", "times"), [(409, 2), (503, 6), (0, 1)])
def test_a_document_whose_answer_was_unclear_is_created_once(
    s3: Store, fail: Callable[..., None], status: int, times: int
) -> None:
    fail("PUT", "x.json", times, status)
    assert s3.create("x.json", b"mine") is True
    assert s3.create("x.json", b"other") is False
    assert s3.read("x.json") == b"mine"


def test_a_document_that_was_there_before_is_not_created_again_even_if_it_is_equal(s3: Store) -> None:
    assert s3.create("x.json", b"same") is True
    assert s3.create("x.json", b"same") is False


def test_a_document_of_another_is_not_taken_for_ours(s3: Store, fail: Callable[..., None]) -> None:
    assert s3.create("x.json", b"theirs") is True
    fail("PUT", "x.json", 1, 409)
    assert s3.create("x.json", b"mine") is False


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        (lambda store: store.read("x"), b"12345"),
        (lambda store: store.sizes(""), {"x": 5}),
        (lambda store: store.open("x").read(), b"12345"),
    ],
)
def test_a_burst_of_503_is_waited_out_on_reads_and_lists(
    s3: Store, fail: Callable[..., None], pauses: list[float], act: Callable[[Store], Any], answer: Any
) -> None:
    s3.replace("x", b"12345")
    fail("GET", "", 6, 503)
    assert act(s3) == answer
    assert pauses, "the client's own tries were not enough"


def test_403_is_final_after_one_refresh(s3: Store, fail: Callable[..., None], pauses: list[float]) -> None:
    s3.replace("x", b"1")
    fail("GET", "/out/x", 1, 403)
    before = s3._calls.files.client  # type: ignore[attr-defined]
    assert s3.read("x") == b"1", "a new client, with credentials read again, may do it"
    assert s3._calls.files.client is not before  # type: ignore[attr-defined]
    fail("GET", "/out/x", 1000, 403)
    with pytest.raises(OutputError, match=r"permission was denied .*check the credentials"):
        s3.read("x")
    assert pauses == []


# stubs of clients


class Client:
    """An object store or HDFS in memory, as a client of fsspec; `put_errors` are raised by the next uploads."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.put_errors: list[tuple[bool, Exception]] = []  # with the effect or without
        self.calls: list[tuple[Any, ...]] = []

    def _strip_protocol(self, url: str) -> str:
        return url.partition("://")[2]

    def _put(self, target: str, content: bytes, mode: str) -> None:
        self.calls.append(("put", target, mode))
        effect, error = self.put_errors.pop(0) if self.put_errors else (True, None)
        if effect:
            if mode == "create" and target in self.files:
                raise FileExistsError(target)
            self.files[target] = content
        if error:
            raise error

    def put_file(self, source: str, target: str, mode: str = "overwrite") -> None:
        self._put(target, Path(source).read_bytes(), mode)

    def pipe_file(self, target: str, content: bytes, mode: str = "overwrite") -> None:
        self._put(target, content, mode)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path][start:end]

    def info(self, path: str) -> dict[str, Any]:
        return {"type": "file", "size": len(self.cat_file(path))}  # no etag: what its conditions do needs a server

    def exists(self, path: str) -> bool:
        return path in self.files

    def makedirs(self, path: str, exist_ok: bool) -> None: ...

    def rm_file(self, path: str) -> None:
        del self.files[path]

    def rm(self, path: str, recursive: bool) -> None:
        self.files = {name: content for name, content in self.files.items() if not name.startswith(f"{path}/")}

    def mv(self, source: str, target: str) -> None:
        """As webhdfs does: a refusal is no error."""
        self.calls.append(("mv", source, target))
        if target not in self.files:
            self.files[target] = self.files.pop(source)


def store_of(scheme: str, client: Client) -> Store:
    store = Store(f"{scheme}://bucket/out")
    store._calls.files = store.kind(client)
    return store


class HttpResponseError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.status_code = 400


@pytest.mark.parametrize(
    ("scheme", "error"),
    [
        ("abfs", HttpResponseError("InvalidBlockList")),
        ("s3", OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold")),
        ("s3", OSError(errno.EIO, "ConditionalRequestConflict")),
        ("s3", FileNotFoundError("The specified upload does not exist")),
        ("s3", TimeoutError("read timeout")),
        ("gs", ConnectionResetError("reset by peer")),
    ],
)
@pytest.mark.parametrize("effect", [True, False])
def test_unclear_answers_of_a_client_are_settled_by_the_header(scheme: str, error: Exception, effect: bool) -> None:
    client = Client()
    client.put_errors = [(effect, error)]
    first = work(store_of(scheme, client), 1)
    assert not first.adopted
    client.put_errors = [(effect and scheme == "none", error)]
    second = work(store_of(scheme, client), 2)
    assert (second.adopted, second.attempt) == (True, first.attempt)
    assert list(client.files) == [f"bucket/out/{NAME}"]


def test_gcs_and_azure_are_asked_to_create_and_never_to_overwrite() -> None:
    for scheme in ("gs", "abfs"):
        client = Client()
        work(store_of(scheme, client))
        store_of(scheme, client).create("plan.json", b"1")
        assert [call[2] for call in client.calls] == ["create", "create"]


def test_a_silent_refusal_of_hdfs_is_seen_by_looking_at_both_names() -> None:
    client = Client()
    store = store_of("webhdfs", client)
    first, second = work(store, 1), work(store, 2)
    assert (second.adopted, second.attempt) == (True, first.attempt)
    assert list(client.files) == [f"bucket/out/{NAME}"]
    assert store.create("plan.json", b"1") is True
    assert store.create("plan.json", b"2") is False
    assert sorted(client.files) == [f"bucket/out/{NAME}", "bucket/out/plan.json"]


def test_a_rename_of_hdfs_whose_answer_was_lost_counts() -> None:
    class Lost(Client):
        def mv(self, source: str, target: str) -> None:
            super().mv(source, target)
            raise ConnectionResetError("lost")

    assert work(store_of("hdfs", Lost())).adopted is False


def test_a_rename_of_hdfs_without_effect_is_tried_again() -> None:
    class Lazy(Client):
        def mv(self, source: str, target: str) -> None:
            if len([call for call in self.calls if call[0] == "mv"]) >= 2:
                super().mv(source, target)
            else:
                self.calls.append(("mv", source, target))

    client = Lazy()
    assert work(store_of("hdfs", client)).adopted is False
    assert list(client.files) == [f"bucket/out/{NAME}"]


def test_a_full_store_is_told_at_once(pauses: list[float]) -> None:
    client = Client()
    client.put_errors = [(False, OSError(errno.ENOSPC, "full"))] * 2
    with pytest.raises(StorageError, match="no space is left") as error:
        work(store_of("s3", client))
    assert (error.value.facts["answer"], error.value.facts["cause"], pauses) == ("failed", "full", [])


def test_a_short_read_is_fetched_again(pauses: list[float]) -> None:
    class Short(Client):
        def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
            content = super().cat_file(path, start, end)
            self.calls.append(("cat",))
            return content[:-1] if self.calls.count(("cat",)) == 2 else content

    client = Short()
    client.files["bucket/out/x"] = b"12345"
    with store_of("s3", client).open("x") as file:  # the first look tells the size
        assert file.read() == b"12345"
    assert len(pauses) == 1


def test_facts_of_an_error_travel_and_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    client.put_errors = [(False, OSError(errno.EIO, "Authorization: Bearer s3cr3t-canary"))] * 100
    with pytest.raises(StorageError) as error:
        work(store_of("s3", client))
    sent = pickle.loads(pickle.dumps(error.value))  # noqa: S301 (our own bytes)
    assert sent.facts == error.value.facts
    assert {"answer", "cause", "url", "tries", "waited_s"} <= sent.facts.keys()
    assert "canary" not in repr(sent) + repr(sent.facts)


def test_a_file_that_is_not_there_is_not_waited_for(pauses: list[float]) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        store_of("s3", Client()).open("x")
    assert pauses == []


def test_denied_without_a_way_to_refresh_is_final(pauses: list[float]) -> None:
    client = Client()
    client.put_errors = [(False, PermissionError("no"))] * 3
    with pytest.raises(JobError, match="permission was denied"):
        work(store_of("s3", client))
    assert (len(client.put_errors), pauses) == (2, [])
