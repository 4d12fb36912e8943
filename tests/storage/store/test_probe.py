"""What the probe finds out about stores that promise more than they keep."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from connectors.store import local
from connectors.store.objects import S3Files
from connectors.store.probe import Probe, probe
from connectors.store.store import Store
from jobs.errors import OutputError, StorageError


class Look:
    """An object store in memory. refuses_small, refuses_parts: whether a second object of one name is refused."""

    def __init__(self, refuses_small: bool = True, refuses_parts: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.refuses = {False: refuses_small, True: refuses_parts}
        self.errors: list[Exception] = []  # raised by the next uploads, after their effect

    def _strip_protocol(self, url: str) -> str:
        return url

    def put_file(self, source: str, target: str, mode: str = "overwrite", chunksize: int = 0) -> None:
        if mode == "create" and target in self.objects and self.refuses[bool(chunksize)]:
            raise FileExistsError(target)
        self.objects[target] = Path(source).read_bytes()
        if self.errors:
            raise self.errors.pop(0)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path][start:end]

    def rm(self, path: str, recursive: bool) -> None:
        for name in [name for name in self.objects if name.startswith(f"{path}/")]:
            del self.objects[name]


def store_of(client: Any) -> Store:
    store = Store(f"s3://{uuid.uuid4().hex}/out")
    store._calls.files = S3Files(client)
    return store


def test_a_store_that_refuses_small_and_large_is_direct(place: Any) -> None:
    assert probe(place.store(), "_run/x/probe") == Probe("direct", "")
    assert probe(place.store(), "_run/x/probe") == Probe("direct", ""), "each probe uses fresh names"


def test_a_store_that_ignores_create_if_absent_is_staged_with_a_warning() -> None:
    client = Look(refuses_small=False)
    found = probe(store_of(client), "_run/x/probe")
    assert found.mode == "staged"
    assert "does not refuse a second object" in found.warning
    assert "one driver at a time" in found.warning
    assert client.objects == {}


def test_a_store_that_ignores_it_for_uploads_in_parts_is_staged_where_there_is_no_other_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(S3Files, "piece_bytes", 0)  # as GCS and Azure
    found = probe(store_of(Look(refuses_parts=False)), "_run/x/probe")
    assert (found.mode, "uploaded in parts" in found.warning) == ("staged", True)


@pytest.fixture
def gateway(s3_options: Any, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Of an S3 server that replaces what is uploaded in parts, whatever the condition, as Ceph's gateway does."""
    monkeypatch.setattr(s3_server, "completion", 200)
    return Store(f"s3://b-{uuid.uuid4().hex}/out", s3_options)


@pytest.mark.parametrize("completion", [200, 501])
def test_a_store_that_refuses_only_what_comes_in_one_request_gets_each_part_so(
    gateway: Store, s3_server: Any, completion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_server, "completion", completion)
    assert probe(gateway, "_run/x/probe") == Probe("whole")


def offer(store: Store, content: bytes, attempt: str) -> bool:
    staging = f"_run/x/staging/{attempt}"
    try:
        spool = store.spool(staging) / "part-0"
        spool.write_bytes(content)
        return store.publish(spool, "part-0", staging, part_bytes=0)
    finally:
        store.discard(staging)


def test_a_part_in_one_request_is_whole_and_the_first_one_stays(
    gateway: Store, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None, **_: 5 * 2**20)
    content = os.urandom(11 * 2**20)
    assert offer(gateway, content, "a1") is True
    assert offer(gateway, content[::-1], "a2") is False
    assert gateway.read("part-0") == content
    assert not [asked for asked in s3_server.asked if asked.startswith("POST") and "part-0" in asked]


def test_of_many_that_publish_in_one_request_at_once_one_wins(gateway: Store) -> None:
    contents = [bytes([letter]) * 2**20 for letter in range(8)]
    stores = [Store(gateway.url, gateway._options) for _ in contents]
    barrier = threading.Barrier(len(contents))

    def race(number: int) -> bool:
        barrier.wait(30)
        return offer(stores[number], contents[number], f"a{number}")

    with ThreadPoolExecutor(len(contents)) as threads:
        won = list(threads.map(race, range(len(contents))))
    assert sum(won) == 1
    assert gateway.read("part-0") == contents[won.index(True)]


def test_a_part_that_is_too_large_for_one_request_is_told(gateway: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Files, "piece_bytes", 1000)
    with pytest.raises(OutputError, match=r"has 1,001 bytes; .* at most 1,000 bytes; .* smaller limits\.shard_rows"):
        offer(gateway, bytes(1001), "a1")
    assert gateway.names("") == []


def test_a_refusal_that_changes_the_object_is_no_refusal() -> None:
    class Liar(Look):
        def put_file(self, source: str, target: str, mode: str = "overwrite", chunksize: int = 0) -> None:
            taken = target in self.objects
            self.objects[target] = Path(source).read_bytes()
            if taken:
                raise FileExistsError(target)

    assert probe(store_of(Liar()), "_run/x/probe").mode == "staged"


def test_unclear_answers_are_settled_by_reading() -> None:
    client = Look()
    client.errors = [OSError(errno.EINVAL, "precondition"), ConnectionResetError("lost")]
    assert probe(store_of(client), "_run/x/probe") == Probe("direct")


def test_an_unclear_refusal_of_a_store_that_overwrites_is_seen() -> None:
    class Unclear(Look):
        def put_file(self, source: str, target: str, mode: str = "overwrite", chunksize: int = 0) -> None:
            taken = target in self.objects
            self.objects[target] = Path(source).read_bytes()
            if taken:
                raise OSError(errno.EIO, "conflict")

    assert probe(store_of(Unclear()), "_run/x/probe").mode == "staged"


def test_a_store_that_does_not_answer_is_an_error_and_not_a_mode() -> None:
    class Down(Look):
        def put_file(self, source: str, target: str, mode: str = "overwrite", chunksize: int = 0) -> None:
            raise TimeoutError("too slow")

    with pytest.raises(StorageError, match="too slow"):
        probe(store_of(Down()), "_run/x/probe")


def test_what_may_not_be_deleted_stays_and_fails_nothing() -> None:
    class Kept(Look):
        def rm(self, path: str, recursive: bool) -> None:
            raise PermissionError("no right to delete")

    assert probe(store_of(Kept()), "_run/x/probe") == Probe("direct")


def test_a_file_system_without_links_and_refusing_rename_is_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: object, target: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(local.ctypes, "CDLL", lambda *a, **k: object())
    found = probe(Store(str(tmp_path)), "_run/x/probe")
    assert (found.mode, "neither hard links" in found.warning) == ("staged", True)
    store = Store(str(tmp_path))
    spool = store.spool("_run/x/staging/a1") / "part-0"
    spool.write_bytes(b"1")
    store.upload(spool, "_run/x/staging/a1/part-0")
    assert store.promote("_run/x/staging/a1/part-0", "part-0") is True
    assert store.read("part-0") == b"1"


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(OutputError):
        probe(Store(str(tmp_path / "file" / "out")), "_run/x/probe")
