"""What every store promises to the commit protocol: one suite over real servers.

local and memory: themselves. registered: a scheme that only fsspec knows, on this disk. s3: moto in server mode. sftp:
asyncssh. azure: azurite, where it is installed. GCS and HDFS have no server here: stubs of their clients, in
test_publish.py, stand for what is particular to them.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from registered_files import registered
from store_servers import SFTP, azurite_command, azurite_server, moto_server, new_bucket

from connectors.formats.arrow.encoder import ArrowEncoder
from connectors.output.layout import Layout
from connectors.output.part import Parts
from connectors.store.probe import probe
from connectors.store.store import Store
from jobs.attempt import Attempt, InputSlice, Receipt
from jobs.errors import JobError, OutputError, RunnerError
from jobs.section.base import OptionValue

KINDS = ["local", "memory", "registered", "s3", "sftp", "azure"]
# Azure's client hands a body to its HTTP library in one piece, which warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
SCHEMA = pa.schema([pa.field("id", pa.int64())])


@dataclass(frozen=True)
class Site:
    """An empty folder on a store. `denied`: options with which nothing is allowed there."""

    kind: str
    url: str
    options: dict[str, OptionValue]
    denied: dict[str, OptionValue]

    def store(self) -> Store:
        return Store(self.url, self.options)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    pytest.importorskip("moto", reason="the S3 server for tests is not installed: moto[server]")
    with moto_server(sys.executable) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def azurite() -> Iterator[str]:
    pytest.importorskip("adlfs", reason="the package for Azure is not installed: savedmodel-runner[azure]")
    command = azurite_command()
    if command is None:
        pytest.skip("no Azure emulator: 'azurite-blob' (npm install azurite) is not on the PATH")
    with azurite_server(command) as connection:
        yield connection


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SFTP, Path]]:
    pytest.importorskip("asyncssh", reason="the SFTP server for tests is not installed: asyncssh")
    pytest.importorskip("paramiko", reason="the package for SFTP is not installed: savedmodel-runner[sftp]")
    folder = tmp_path_factory.mktemp("sftp")
    server = SFTP(folder / "root", folder / "known_hosts")
    yield server, folder / "known_hosts"
    server.close()


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    name = f"b-{uuid.uuid4().hex}"
    monkeypatch.setenv("CANARY", "s3cr3t-canary")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    kind: str = request.param
    if kind == "local":
        yield Site(kind, str(tmp_path / "out"), {}, {})
    elif kind == "memory":
        yield Site(kind, f"memory://{name}", {}, {})
        files = fsspec.filesystem("memory")
        if files.exists(name):
            files.rm(name, recursive=True)
    elif kind == "registered":
        with registered(tmp_path / "plain") as url:
            yield Site(kind, f"{url}out", {}, {})
    elif kind == "s3":
        endpoint = request.getfixturevalue("moto")
        new_bucket(endpoint, name)
        options: dict[str, OptionValue] = {"endpoint_url": endpoint, "key": "env:CANARY", "secret": "env:CANARY"}
        yield Site(kind, f"s3://{name}/out", options, {})
    elif kind == "sftp":
        server, known_hosts = request.getfixturevalue("sftp")
        options = {"username": "me", "password": "env:CANARY", "allow_agent": False, "look_for_keys": False}
        options |= {"port": server.port, "known_hosts": str(known_hosts)}
        monkeypatch.setenv("WRONG", "wr0ng-canary")
        yield Site(kind, f"sftp://127.0.0.1/{name}/out", options, options | {"password": "env:WRONG"})
    else:
        connection = request.getfixturevalue("azurite")
        monkeypatch.setenv("CONNECTION", connection)
        fsspec.filesystem("abfs", connection_string=connection).mkdir(name)
        monkeypatch.setenv("WRONG", connection.replace("Eby8vdM", "canary8"))
        yield Site(
            kind, f"abfs://{name}/out", {"connection_string": "env:CONNECTION"}, {"connection_string": "env:WRONG"}
        )


def publish(store: Store, name: str, content: bytes, attempt: str = "a1", **more: Any) -> bool:
    staging = f"_run/x/staging/{attempt}"
    try:
        spool = store.spool(staging) / name.rpartition("/")[2]
        spool.write_bytes(content)
        return store.publish(spool, name, staging, **more)
    finally:
        store.discard(staging)


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait(60)
        return act(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


# documents


def test_create_writes_once_and_then_refuses(site: Site) -> None:
    store = site.store()
    assert store.create("_run/x/plan.json", b"first") is True
    assert store.create("_run/x/plan.json", b"second") is False
    assert store.read("_run/x/plan.json") == b"first"
    assert store.names("_run/x") == ["plan.json"]


def test_of_sixteen_who_create_one_does(site: Site) -> None:
    made = together(16, lambda number: site.store().create("_run/x/1.json", b"%d" % number))
    assert sum(made) == 1
    assert site.store().read("_run/x/1.json") == b"%d" % made.index(True)
    assert site.store().names("_run/x") == ["1.json"]


def test_an_empty_document_is_created_once(site: Site) -> None:
    store = site.store()
    assert store.create("empty", b"") is True
    assert store.create("empty", b"x") is False
    assert store.create("full", b"x") is True
    assert store.create("full", b"") is False
    assert (store.read("empty"), store.read("full")) == (b"", b"x")


def test_replace_takes_the_place_of_what_was_there(site: Site) -> None:
    store = site.store()
    for content in (b"first", b"second", b""):
        store.replace("_run/x/1.json", content)
        assert store.read("_run/x/1.json") == content
    assert store.names("_run/x") == ["1.json"]


def test_a_reader_of_a_replaced_document_sees_the_old_or_the_new_one(site: Site) -> None:
    store, seen, done = site.store(), set(), threading.Event()
    store.replace("1.json", bytes([0]) * 100_000)

    def look() -> None:
        reader = site.store()
        while not done.is_set():
            content = reader.read("1.json") or b""
            seen.add((len(content), len(set(content))))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for number in range(1, 6):
            store.replace("1.json", bytes([number]) * 100_000)
    finally:
        done.set()
        thread.join(60)
    assert seen <= {(100_000, 1)}


# parts


def test_the_first_publish_wins_and_the_second_changes_nothing(site: Site) -> None:
    store = site.store()
    assert publish(store, "part-0", b"first", "a1") is True
    before = store.stat("part-0")
    assert publish(store, "part-0", b"second", "a2") is False
    assert (store.stat("part-0"), store.read("part-0")) == (before, b"first")


def test_of_sixteen_racing_publishers_one_wins_and_its_content_is_there(site: Site) -> None:
    won = together(16, lambda number: publish(site.store(), "part-0", bytes([number]) * 50_000, f"a{number}"))
    assert sum(won) == 1
    assert site.store().read("part-0") == bytes([won.index(True)]) * 50_000
    assert site.store().names("") == (["part-0"] if site.kind in ("s3", "azure") else ["_run/", "part-0"])


@pytest.mark.parametrize("part_bytes", [5 * 2**20, 0])
def test_a_part_uploaded_in_pieces_or_in_one_is_whole_and_refused_the_second_time(site: Site, part_bytes: int) -> None:
    store = site.store()
    content = bytes(range(256)) * 4096 * 11
    assert publish(store, "part-0", content, "a1", part_bytes=part_bytes) is True
    assert publish(store, "part-0", content[::-1], "a2", part_bytes=part_bytes) is False
    assert store.sizes("") == {"part-0": len(content)}
    assert store.read("part-0") == content


UPLOAD_AND_DIE = """
import os, signal, sys
from connectors.store.store import Store

store = Store(sys.argv[1], {"endpoint_url": sys.argv[2], "key": "env:CANARY", "secret": "env:CANARY"})
client = store._calls.files.client
call, parts = client._call_s3, []

async def until_the_second(method, *arguments, **facts):
    parts.append(method)
    if parts.count("upload_part") == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return await call(method, *arguments, **facts)

client._call_s3 = until_the_second
spool = store.spool("_run/x/staging/a1") / "part-0"
spool.write_bytes(bytes(11 * 2**20))
store.publish(spool, "part-0", "_run/x/staging/a1", part_bytes=5 * 2**20)
"""


@pytest.mark.parametrize("site", ["s3"], indirect=True)
def test_row_4_a_worker_killed_between_two_pieces_of_an_upload_leaves_nothing_visible(site: Site) -> None:
    asked = [sys.executable, "-c", UPLOAD_AND_DIE, site.url, str(site.options["endpoint_url"])]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = site.store()
    assert store.stat("part-0") is None
    assert store.names("") == []
    assert publish(store, "part-0", b"whole", "a2") is True
    assert store.sizes("") == {"part-0": 5}


def test_an_empty_part_is_published_once(site: Site) -> None:
    store = site.store()
    assert publish(store, "part-0", b"", "a1") is True
    assert publish(store, "part-0", b"x", "a2") is False
    assert publish(store, "part-1", b"x", "a3") is True
    assert publish(store, "part-1", b"", "a4") is False
    assert store.sizes("") == {"part-0": 0, "part-1": 1}


def test_what_is_published_is_listed_and_sized_at_once(site: Site) -> None:
    store = site.store()
    for number in range(3):
        assert publish(store, f"part-{number}", bytes(number + 1), f"a{number}")
        assert store.sizes("") == {f"part-{before}": before + 1 for before in range(number + 1)}
        assert [name for name in store.names("") if name != "_run/"] == [f"part-{n}" for n in range(number + 1)]


def test_a_published_part_is_found_as_an_input_and_hidden_names_are_not(site: Site) -> None:
    store = site.store()
    for name in ("part-0.parquet", "_run/x/part-1.parquet", "_SUCCESS", ".part-2.parquet"):
        assert publish(store, name, b"12345", uuid.uuid4().hex)
    (found,) = store.list([site.url], (".parquet",)).files
    assert (found.url, found.size) == (f"{site.url}/part-0.parquet", 5)
    assert found == store.stat("part-0.parquet")


@pytest.mark.parametrize("name", ["with space", "per%20cent", "ha#sh", "que?ry", "emoji \N{ROCKET}", "a&b=c;d", "[x]*"])
def test_odd_names_are_published_read_and_listed(site: Site, name: str) -> None:
    if site.kind in ("s3", "azure") and "?" in name:
        pytest.skip("the client takes it for a version")
    store = site.store()
    assert publish(store, name, name.encode()) is True
    assert publish(store, name, b"other", "a2") is False
    assert store.read(name) == name.encode()
    assert list(store.sizes("")) == [name]
    with store.open(name) as file:
        assert file.read() == name.encode()


def test_what_is_not_there_is_none_or_empty(site: Site) -> None:
    store = site.store()
    assert (store.stat("x"), store.read("x"), store.names("x"), store.sizes("x")) == (None, None, [], {})
    publish(store, "x", b"12")
    found = store.stat("x")
    assert found is not None
    assert (found.url, found.size) == (f"{site.url}/x", 2)
    assert store.stat("x/y") is None


def test_a_range_of_a_part_is_read_alone(site: Site) -> None:
    store = site.store()
    publish(store, "part-0", bytes(range(200)))
    with store.open("part-0") as file:
        file.seek(100)
        assert file.read(3) == bytes([100, 101, 102])
        file.seek(-1, 2)
        assert file.read() == bytes([199])


def read_to_the_end(file: Any) -> None:
    file.read()
    file.settle()


def test_no_byte_of_another_content_passes_for_one_of_the_file_that_was_opened(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = site.store()
    publish(store, "x", b"a" * 100)
    with store.open("x") as file:
        assert file.read(10) == b"a" * 10
        file.settle()
        store.replace("x", b"b" * 100)
        if site.kind == "sftp":  # its times are whole seconds
            path = next(tmp_path_factory.getbasetemp().glob(f"sftp*/root/{site.url.split('/')[3]}/out/x"))
            os.utime(path, (1, 1))
        if site.kind == "local":  # what is open is the file that was there
            assert file.read(10) == b"a" * 10
            file.settle()
            return
        with pytest.raises(RunnerError, match="changed while it was read") as caught:
            read_to_the_end(file)
    assert caught.value.facts["code"] == "FILE_CHANGED"
    with store.open("x") as again:
        assert again.read() == b"b" * 100


def test_a_discarded_attempt_leaves_nothing(site: Site) -> None:
    store = site.store()
    spool = store.spool("_run/x/staging/a1")
    (spool / "part-0").write_bytes(b"half")
    store.discard("_run/x/staging/a1")
    store.discard("_run/x/staging/a1")
    assert not spool.exists()
    assert store.names("_run/x/staging") == []


def test_a_store_travels_without_its_secrets(site: Site) -> None:
    store = site.store()
    publish(store, "part-0", b"1")
    sent = pickle.dumps(store)
    assert b"canary" not in sent
    assert pickle.loads(sent).read("part-0") == b"1"  # noqa: S301 (our own bytes)


@pytest.mark.parametrize("site", ["sftp"], indirect=True)
def test_sftp_stays_the_client_that_is_known_beside_a_package_that_takes_its_scheme(site: Site) -> None:
    known = fsspec.get_filesystem_class("sftp")
    fsspec.register_implementation("sftp", fsspec.get_filesystem_class("memory"), clobber=True)
    try:
        assert publish(site.store(), "part-0", b"1") is True
        assert site.store().read("part-0") == b"1"
    finally:
        fsspec.register_implementation("sftp", known, clobber=True)


def test_wrong_credentials_are_final_and_quoted_nowhere(site: Site, pauses: list[float]) -> None:
    if not site.denied:
        pytest.skip("this server allows everything")
    calls: list[Callable[[Store], Any]] = [
        lambda store: store.create("x", b"1"),
        lambda store: store.read("x"),
        lambda store: publish(store, "x", b"1"),
    ]
    for call in calls:
        with pytest.raises(RunnerError) as error:
            call(Store(site.url, site.denied))
        assert isinstance(error.value, JobError)
        assert "permission was denied" in error.value.message
        assert "canary" not in repr(error.value) + repr(error.value.facts) + repr(error.value.__cause__)
    assert pauses == []


# removing


def test_a_removed_file_is_gone_and_may_have_been_so_before(site: Site) -> None:
    store = site.store()
    store.replace("_run/x/1.json", b"1")
    store.replace("_run/x/2.json", b"2")
    store.remove("_run/x/1.json")
    store.remove("_run/x/1.json")
    assert store.names("_run/x") == ["2.json"]


def test_a_removed_folder_is_gone_with_all_that_is_in_it(site: Site) -> None:
    store = site.store()
    for name in ("_run/x/receipts/1.json", "_run/x/receipts/deep/er/2.json", "_run/x/plan.json"):
        store.replace(name, b"1")
    store.remove_folder("_run/x/receipts")
    store.remove_folder("_run/x/receipts")
    assert store.names("_run/x") == ["plan.json"]


def test_a_file_was_written_no_later_than_the_one_after_it_by_the_clock_of_the_store(site: Site) -> None:
    store = site.store()
    store.replace("1.json", b"1")
    store.replace("2.json", b"2")
    first, second = store.modified("1.json"), store.modified("2.json")
    assert store.modified("3.json") is None
    assert first is not None
    assert second is not None
    assert first <= second


# staged mode


def test_an_upload_is_promoted_once(site: Site) -> None:
    store = site.store()
    for attempt in ("a1", "a2"):
        spool = store.spool(f"_run/x/staging/{attempt}") / "part-0"
        spool.write_bytes(attempt.encode())
        store.upload(spool, f"_run/x/staging/{attempt}/part-0")
        store.release(f"_run/x/staging/{attempt}")
    assert store.promote("_run/x/staging/a1/part-0", "part-0") is True
    assert store.promote("_run/x/staging/a2/part-0", "part-0") is False
    assert store.read("part-0") == b"a1"


def test_a_swept_folder_is_empty(site: Site) -> None:
    store = site.store()
    store.replace("_run/x/staging/a1/part-0", b"1")
    store.replace("_run/x/plan.json", b"2")
    store.sweep("_run/x/staging")
    store.sweep("_run/x/staging")
    assert store.names("_run/x/staging") == []
    assert store.read("_run/x/plan.json") == b"2"


def test_the_probe_finds_that_names_are_refused_and_leaves_nothing(site: Site) -> None:
    store = site.store()
    assert probe(store, "_run/x/probe").mode == ("staged" if site.kind == "registered" else "direct")
    assert store.names("_run/x/probe") == []


# whole attempts


def parts_of(store: Store, mode: Any = "direct") -> Parts:
    return Parts(store, Layout("a" * 32, 1, ".arrow"), ArrowEncoder(), "zstd", mode)


def attempt_of(number: int) -> Attempt:
    inputs = (InputSlice(0, "/in", 1, "v", 0, (4,)),)
    return Attempt(f"e1-a{number}-{number:012x}", 0, number, 1, inputs, 4)


def rows(count: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(count), pa.int64())], schema=SCHEMA)


def work(parts: Parts, number: int) -> Receipt:
    with parts.open(attempt_of(number), SCHEMA, "digest", f"w{number}") as part:
        part.write(rows(4))
        return part.publish()


def test_the_second_attempt_adopts_the_part_of_the_first(site: Site) -> None:
    first, second = work(parts_of(site.store()), 1), work(parts_of(site.store()), 2)
    assert (first.adopted, second.adopted, second.attempt) == (False, True, first.attempt)
    assert site.store().sizes("") == {first.part: first.size}


def test_attempts_that_race_agree_on_one_part(site: Site) -> None:
    receipts = together(8, lambda number: work(parts_of(site.store()), number + 1))
    assert sum(not receipt.adopted for receipt in receipts) == 1
    assert len({receipt.attempt for receipt in receipts}) == 1


def test_an_exception_inside_the_encoder_publishes_nothing(site: Site) -> None:
    def fail() -> None:
        with parts_of(site.store()).open(attempt_of(1), SCHEMA, "digest", "w") as part:
            part.write(rows(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert site.store().sizes("") == {}
    assert site.store().names("_run/aaaaaaaa/staging") == []


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_part_that_is_dropped_and_collected_publishes_nothing(site: Site) -> None:
    part = parts_of(site.store()).open(attempt_of(1), SCHEMA, "digest", "w")
    part.__enter__()
    part.write(rows(4))
    del part
    gc.collect()
    assert site.store().sizes("") == {}


def test_a_staged_part_gets_its_name_from_the_driver_once(site: Site) -> None:
    worker, driver = parts_of(site.store(), "staged"), parts_of(site.store(), "staged")
    first, second = work(worker, 1), work(worker, 2)
    assert driver.find(0) is None, "the worker gives no final name"
    assert (first.staged, first.adopted) == (f"_run/aaaaaaaa/staging/{first.attempt}/{first.part}.spool", False)
    done = driver.promote(first)
    assert (done.staged, done.attempt, done.sha256) == ("", first.attempt, first.sha256)
    assert driver.promote(first) == done
    assert driver.promote(second).attempt == first.attempt, "who is there first is kept"
    assert site.store().sizes("") == {first.part: first.size}


def test_a_foreign_object_is_neither_promoted_over_nor_adopted(site: Site) -> None:
    store = site.store()
    store.replace("part-00000-of-00001-aaaaaaaa.arrow", b"foreign")
    staged = work(parts_of(store, "staged"), 1)
    for act in (lambda: parts_of(store).promote(staged), lambda: work(parts_of(store), 2)):
        with pytest.raises(OutputError, match="it stays as it is"):
            act()
    assert store.read("part-00000-of-00001-aaaaaaaa.arrow") == b"foreign"
