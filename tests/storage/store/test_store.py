"""The store contract: one suite over every kind of store, then what is particular to one of them."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import sys
import threading
import types
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from connectors.store.listing import Child, Pattern, walk
from connectors.store.objects import ObjectFiles
from connectors.store.other import MemoryFiles
from connectors.store.store import Store, redact
from jobs.errors import FullError, InputError, JobError, OutputError, RunnerError, StorageError

PARQUET = (".parquet",)


def names(place: Any, *urls: str) -> list[str]:
    """Listed urls, relative to the place."""
    found = place.store().list([f"{place.url}/{url}".rstrip("/") for url in urls], PARQUET).files
    return [file.url.removeprefix(place.url + "/") for file in found]


# listing


def test_a_folder_means_the_files_with_the_suffix_anywhere_below_it(place: Any) -> None:
    for name in ("b.parquet", "a.parquet", "deep/er/c.PARQUET", "notes.txt"):
        place.put(name, b"12345")
    assert names(place, "") == ["a.parquet", "b.parquet", "deep/er/c.PARQUET"]


def test_hidden_names_below_a_folder_are_left_out_and_one_named_alone_is_used(place: Any) -> None:
    for name in ("a.parquet", "_tmp/b.parquet", ".c.parquet", "x/_metadata.parquet", "_SUCCESS"):
        place.put(name, b"1")
    assert names(place, "") == ["a.parquet"]
    assert names(place, "*") == ["a.parquet"]
    assert names(place, "_tmp/b.parquet") == ["_tmp/b.parquet"]
    assert names(place, "_tmp") == ["_tmp/b.parquet"], "hidden names count below the folder that is given"


@pytest.mark.parametrize(
    ("glob", "meant"),
    [
        ("*.parquet", ["a1.parquet", "a2.parquet", "dir.parquet/part-0.parquet"]),
        ("a?.parquet", ["a1.parquet", "a2.parquet"]),
        ("a[2-9].*", ["a2.parquet"]),
        ("dt=*/x.parquet", ["dt=1/x.parquet", "dt=2/x.parquet"]),
        ("dt=*", ["dt=1/x.parquet", "dt=2/x.parquet", "dt=2/y/x.parquet"]),
        ("**/x.parquet", ["dt=1/x.parquet", "dt=2/x.parquet", "dt=2/y/x.parquet"]),
        ("dt=2/**", ["dt=2/x.parquet", "dt=2/y/x.parquet"]),
        ("notes*", ["notes.txt"]),
    ],
)
def test_a_glob_means_the_files_it_names_and_the_folders_it_names(place: Any, glob: str, meant: list[str]) -> None:
    for name in ("a1.parquet", "a2.parquet", "dt=1/x.parquet", "dt=2/x.parquet", "dt=2/y/x.parquet", "notes.txt"):
        place.put(name, b"1")
    place.put("dir.parquet/part-0.parquet", b"1")
    assert names(place, glob) == meant


@pytest.mark.parametrize(
    "name", ["with space", "per%20cent", "ha#sh", "que?ry", "[brackets]*", "emoji \N{ROCKET}", "a&b=c;d"]
)
def test_awkward_names_are_listed_and_read_back(place: Any, name: str) -> None:
    if place.kind == "s3" and name == "que?ry":
        pytest.skip("the client takes it for a version")
    place.put(f"{name}.parquet", name.encode())
    store = place.store()
    (by_folder,) = store.list([place.url], PARQUET).files
    (by_name,) = store.list([f"{place.url}/{name}.parquet"], PARQUET).files
    assert by_folder == by_name
    with store.open(by_folder.url) as file:
        assert file.read() == name.encode()


def test_folders_that_a_glob_does_not_reach_are_not_listed() -> None:
    tree = {"/in": ["dt=1", "other"], "/in/dt=1": ["x", "y"], "/in/dt=1/x": []}
    listed = []

    def children(folder: str) -> list[Child]:
        listed.append(folder)
        return [Child(name, folder=True) for name in tree[folder]]

    assert list(walk(Pattern.parse("/in/dt=*/x/*.parquet"), children)) == []
    assert listed == ["/in", "/in/dt=1", "/in/dt=1/x"]


def test_a_list_is_sorted_whatever_the_order_of_its_urls(place: Any) -> None:
    for name in ("x/b.parquet", "y/a.parquet"):
        place.put(name, b"1")
    assert names(place, "y", "x") == names(place, "x", "y") == ["x/b.parquet", "y/a.parquet"]


@pytest.mark.parametrize("urls", [("a.parquet", ""), ("*.parquet", "a*"), ("a.parquet", "a.parquet")])
def test_a_file_listed_twice_is_refused_naming_both(place: Any, urls: tuple[str, str]) -> None:
    place.put("a.parquet", b"1")
    with pytest.raises(InputError, match=r"a\.parquet") as error:
        names(place, *urls)
    assert error.value.facts["code"] == "DUPLICATE_INPUT"


def test_no_input_says_what_is_there_instead(place: Any) -> None:
    for number in range(3):
        place.put(f"in/{number}.json.gz", b"1")
    place.put("in/readme", b"1")
    with pytest.raises(
        InputError, match=r"no '\*\.parquet' under .*: 3 objects there end in '\.json\.gz', 1 there"
    ) as error:
        names(place, "in")
    assert error.value.facts["code"] == "NO_INPUT"
    with pytest.raises(InputError, match=r"no file matches .*\*\.orc': 3 objects there end in '\.json\.gz'"):
        names(place, "in/*.orc")


def test_no_input_says_that_only_hidden_names_are_there(place: Any) -> None:
    place.put("in/_SUCCESS", b"1")
    with pytest.raises(InputError, match="only hidden names are there, such as '_SUCCESS'"):
        names(place, "in")


@pytest.mark.parametrize("url", ["nowhere", "nowhere.parquet", "nowhere/*.parquet"])
def test_no_input_says_that_nothing_is_there(place: Any, url: str) -> None:
    place.put("a.parquet", b"1")
    with pytest.raises(InputError, match="there is no such file, and no folder with files in it") as error:
        names(place, "a.parquet", url)
    assert error.value.facts["code"] == "NO_INPUT"


def test_a_changed_file_has_another_stat(place: Any) -> None:
    place.put("a.parquet", b"1")
    store = place.store()
    (before,) = store.list([place.url], PARQUET).files
    assert before == store.stat(before.url), "a listing and a look tell the same version"
    place.put("a.parquet", b"22")
    after = store.stat("a.parquet")
    assert after is not None
    assert (after.size, after.version == before.version) == (2, False)
    assert store.stat("b.parquet") is None


# reading


def test_an_open_file_is_read_at_any_place(place: Any) -> None:
    place.put("a", bytes(range(100)))
    with place.store().open("a") as file:
        assert file.seek(-4, io.SEEK_END) == 96
        assert file.read() == bytes([96, 97, 98, 99])
        file.seek(10)
        assert file.read(2) == bytes([10, 11])
        file.seek(3, io.SEEK_CUR)
        assert file.tell() == 15
        target = bytearray(3)
        assert file.readinto(target) == 3  # type: ignore[attr-defined]
        assert bytes(target) == bytes([15, 16, 17])
        arrow = pa.allocate_buffer(2)
        assert file.readinto(memoryview(arrow)) == 2  # type: ignore[attr-defined]
        assert arrow.to_pybytes() == bytes([18, 19])
        file.seek(1000)
        assert file.read(5) == b""


def test_opening_what_is_not_there_is_an_input_error_and_reading_it_gives_none(place: Any) -> None:
    store = place.store()
    with pytest.raises(InputError, match=r"cannot read '.*nothing': there is no such file"):
        store.open("nothing")
    assert store.read("nothing") is None
    assert store.names("nothing") == []
    assert store.sizes("") == {}


# writing


def test_create_is_refused_where_the_name_is_taken(place: Any) -> None:
    store = place.store()
    assert store.create("_run/x/plan.json", b"first") is True
    assert store.create("_run/x/plan.json", b"second") is False
    assert store.read("_run/x/plan.json") == b"first"
    assert store.names("_run/x") == ["plan.json"], "no temporary file is left"


def test_replace_takes_the_place_of_what_was_there(place: Any) -> None:
    store = place.store()
    store.replace("_run/x/1.json", b"first")
    store.replace("_run/x/1.json", b"second")
    assert store.read("_run/x/1.json") == b"second"
    assert store.names("_run") == ["x/"]
    assert store.sizes("_run/x") == {"1.json": 6}


def publish(store: Store, name: str, content: bytes, attempt: str) -> bool:
    staging = f"_run/x/staging/{attempt}"
    try:
        spool = store.spool(staging) / name
        spool.write_bytes(content)
        return store.publish(spool, name, staging)
    finally:
        store.discard(staging)


def test_the_first_publish_wins_and_the_second_changes_nothing(place: Any) -> None:
    store = place.store()
    assert publish(store, "part-0", b"first", "a1") is True
    before = store.stat("part-0")
    assert publish(store, "part-0", b"second", "a2") is False
    assert store.stat("part-0") == before
    assert store.read("part-0") == b"first"
    assert store.names("_run/x/staging") == []


def test_of_sixteen_racing_threads_one_publishes(place: Any) -> None:
    barrier = threading.Barrier(16)

    def race(number: int) -> bool:
        store = place.store()
        store.stat("")  # connects before the race
        barrier.wait(30)
        return publish(store, "part-0", bytes([number]) * 100_000, f"a{number}")

    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(race, range(16)))
    assert sum(won) == 1
    assert place.store().read("part-0") == bytes([won.index(True)]) * 100_000


def test_a_reader_never_sees_part_of_a_part(place: Any) -> None:
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        store = place.store()
        while not done.is_set():
            content = store.read("part-0")
            seen.add(-1 if content is None else len(content))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        assert publish(place.store(), "part-0", bytes(8_000_000), "a1") is True
    finally:
        done.set()
        reader.join()
    assert seen <= {-1, 8_000_000}


def test_a_spool_is_private_and_discarding_drops_it(place: Any) -> None:
    store = place.store()
    spool = store.spool("_run/x/staging/a1")
    (spool / "part").write_bytes(b"half")
    assert spool.stat().st_mode & 0o777 == 0o700
    store.discard("_run/x/staging/a1")
    store.discard("_run/x/staging/a1")
    assert not spool.exists()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a//b", "a/./b", "a\nb", "a\0b"])
def test_names_that_leave_the_folder_are_refused(place: Any, path: str) -> None:
    with pytest.raises(OutputError, match="no plain relative name"):
        place.store().create(path, b"1")


def test_a_store_travels_without_its_secrets(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "s3cr3t-canary")
    store = place.store()
    assert store.stat("x") is None
    sent = pickle.dumps(store)
    assert b"canary" not in sent
    assert pickle.loads(sent).stat("x") is None  # noqa: S301 (our own bytes)


# errors


class Broken:
    """A client of some store in which every call fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def _strip_protocol(self, url: str) -> str:
        return url

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def fail(*args: Any, **options: Any) -> Any:
            raise self.error

        return fail


class ServerError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("https://h/x?X-Amz-Signature=s3cr3t-canary")
        self.status = status


CALLS: list[tuple[Callable[[Store], Any], type[JobError]]] = [
    (lambda store: store.list([store.url], PARQUET), InputError),
    (lambda store: store.stat("a"), InputError),
    (lambda store: store.open("a"), InputError),
    (lambda store: store.read("a"), OutputError),
    (lambda store: store.create("a", b"1"), OutputError),
    (lambda store: store.replace("a", b"1"), OutputError),
    (lambda store: store.names(""), OutputError),
    (lambda store: store.publish(Path(__file__), "a", "_run/a1"), OutputError),
]


@pytest.mark.parametrize(("call", "wrong"), CALLS)
@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (PermissionError("denied"), True),
        (ServerError(403), True),
        (ValueError("bad bucket name"), True),
        (TimeoutError("too slow"), False),
        (ConnectionResetError("reset"), False),
        (OSError(errno.EIO, "internal error"), False),
        (ServerError(503), False),
        (OSError(errno.ENOSPC, "disk full"), False),
        (RuntimeError("token=s3cr3t-canary"), False),
    ],
)
def test_whatever_a_client_raises_becomes_one_of_ours(
    call: Callable[[Store], Any], wrong: type[JobError], error: Exception, permanent: bool
) -> None:
    store = Store("s3://bucket/out")
    store._calls.files = ObjectFiles(Broken(error))
    with pytest.raises(RunnerError) as found:
        call(store)
    passing = FullError if getattr(error, "errno", None) == errno.ENOSPC else StorageError
    assert type(found.value) is (wrong if permanent else passing)
    assert "s3://bucket/out" in found.value.message
    assert "canary" not in found.value.message
    assert found.value.__cause__ is None
    assert pickle.loads(pickle.dumps(found.value)).message == found.value.message  # noqa: S301 (our own bytes)


def test_a_short_answer_is_an_error_and_not_a_short_file(monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("memory")
    url = f"memory://{uuid.uuid4().hex}"
    files.pipe_file(f"{url}/a", bytes(100))
    monkeypatch.setattr(type(files), "cat_file", lambda self, path, start=None, end=None: bytes(7))
    with Store(url).open("a") as file, pytest.raises(StorageError, match="10 bytes at 0 asked for, 7 came"):
        file.read(10)


def test_a_secret_that_a_client_quotes_is_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "s3cr3t-canary")
    store = Store("memory://x", {"global_store": True, "anything": "env:CANARY"})
    assert store.stat("x") is None  # resolves the options
    store._calls.files = MemoryFiles(Broken(OSError("server said: s3cr3t-canary")))
    with pytest.raises(StorageError, match=r"server said: \*\*\*"):
        store.names("")


@pytest.mark.parametrize(
    ("scheme", "extra"),
    [
        *(("s3", "s3"), ("s3a", "s3"), ("gs", "gcs"), ("gcs", "gcs"), ("abfs", "azure"), ("abfss", "azure")),
        *(("az", "azure"), ("sftp", "sftp"), ("ssh", "sftp")),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("s3fs", "gcsfs", "adlfs", "paramiko"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.sftp", raising=False)
    with pytest.raises(JobError, match=rf"pip install 'savedmodel-runner\[{extra}\]'"):
        Store(f"{scheme}://host/x").stat("y")


@pytest.mark.parametrize("missing", ["libhdfs", "libjvm"])
def test_missing_libraries_of_hadoop_are_told_at_once(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise OSError(f"Unable to load {missing}")

    monkeypatch.setattr("fsspec.implementations.arrow.HadoopFileSystem.__init__", load)
    with pytest.raises(JobError, match=rf"Hadoop are missing \(Unable to load {missing}\); set HADOOP_HOME"):
        Store("hdfs://host/x").stat("y")


def test_a_package_of_another_version_is_told_by_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", types.ModuleType("adlfs"))
    with pytest.raises(JobError, match=r"cannot be imported: .*'AzureBlobFileSystem'; pip install"):
        Store("abfss://c@a.dfs.core.windows.net/x").stat("y")


@pytest.mark.parametrize("url", ["ftpx://h/x", "simplecache::s4://b/x", "zap://a.parquet::s3://b/x.zip"])
def test_an_unknown_scheme_is_refused_with_the_choices(url: str) -> None:
    with pytest.raises(JobError, match=r"no store for scheme .* 's3'"):
        Store(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=A&X-Amz-Signature=canary",
        "https://a.blob.core.windows.net/c/k?sv=1&sig=canary",
        "sftp://user:canary@host/x",
        "https://canary@host/x",
        "https://h/k?AWSAccessKeyId=a&x=canary",
        "https://h/k?access_jwt=canary",
        "https://h/k?Authorization=canary",
        "https://h/k?pwd=canary",
    ],
)
def test_a_url_that_holds_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(JobError, match="holds a secret") as error:
        Store(url)
    assert "canary" not in error.value.message


def test_a_url_on_another_store_is_refused(place: Any) -> None:
    with pytest.raises(JobError, match="one job section has one kind of store"):
        place.store().list(["webhdfs://other/x"], PARQUET)


# secrets


@pytest.mark.parametrize(
    "text",
    [
        "GET https://h/k?X-Amz-Signature=canary&x=1 failed",
        "https://h/k?x=1&sig=canary",
        "sftp://me:canary@host/x",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=canary==;EndpointSuffix=x",
        "Authorization: Bearer canary",
        "{'aws_secret_access_key': 'canary', 'x': 1}",
        "token=canary, and more",
        "password: canary",
        "passphrase: canary",
        "https://h/k?x=1&code=canary00000000000000000",  # a name that says nothing
        "https://h/k?y=a.b-canary_7f3a9c0d1e2f%2B&x=1",
    ],
)
def test_secrets_are_cut_out_of_text(text: str) -> None:
    assert "canary" not in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        *("s3://b/a?.parquet", "/data/dt=1/x#1.parquet", "s3://b/k?x=1", "no file matches 's3://b/*'"),
        "https://h/k?author=canary&download=1",
        "s3://b/k?versionId=3sL4kqtJlcpXroDTDmJ.rmSpXd3QBpUMLUo&x=1",
    ],
)
def test_text_without_secrets_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_references_are_resolved_where_the_store_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    monkeypatch.setenv("KEY", "from-env")
    options = {"key": "env:KEY", "secret": f"file:{tmp_path / 'secret'}", "login": "profile:prod", "anon": False}
    store = Store("s3://bucket/x", options)
    given: dict[str, Any] = {}

    class Client(Broken):
        def __init__(self, **options: Any) -> None:
            given.update(options)

        @staticmethod
        def _get_kwargs_from_urls(url: str) -> dict[str, Any]:
            return {}

    monkeypatch.setattr(pytest.importorskip("s3fs"), "S3FileSystem", Client)
    assert store._calls.files is not None
    assert given == {
        "key": "from-env",
        "secret": "from-file",
        "profile": "prod",
        "anon": False,
        "config_kwargs": {"max_pool_connections": 64},
        "use_listings_cache": False,
    }


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("env:NOT_SET_HERE", "option 'secret': environment variable 'NOT_SET_HERE' is not set"),
        ("file:/not/there", "option 'secret': '/not/there' cannot be read"),
        ("profile:prod", "option 'secret': a profile is known to 's3' only"),
    ],
)
def test_a_reference_that_leads_nowhere_names_its_option(reference: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        Store("memory://x", {"secret": reference}).stat("a")


# local


def test_the_same_file_through_a_link_is_a_duplicate(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.parquet").write_bytes(b"1")
    (tmp_path / "data" / "b.parquet").symlink_to(tmp_path / "data" / "a.parquet")
    with pytest.raises(InputError, match=r"b\.parquet' twice: .*a\.parquet"):
        Store(str(tmp_path)).list([str(tmp_path)], PARQUET)


def test_a_linked_folder_is_followed_and_a_link_upwards_is_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.parquet").write_bytes(b"1")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    found = Store(str(tmp_path)).list([str(tmp_path / "in")], PARQUET).files
    assert [file.url for file in found] == [str(tmp_path / "in" / "linked" / "a.parquet")]


def test_a_link_that_leads_nowhere_is_an_error_and_not_a_file_less(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").symlink_to(tmp_path / "gone")
    (tmp_path / ".#lock").symlink_to("me@host")
    with pytest.raises(InputError, match=r"a\.parquet': it is a symbolic link that leads nowhere"):
        Store(str(tmp_path)).list([str(tmp_path)], PARQUET)


def test_local_urls_mean_the_same_file_from_every_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    for url in ("a.parquet", "./x/../a.parquet", f"file://{tmp_path}/a.parquet", "*.parquet", "."):
        assert [file.url for file in Store(url).list([url], PARQUET).files] == [str(tmp_path / "a.parquet")]
    assert Store("out").url == str(tmp_path / "out")
    assert Store("out").child("part") == str(tmp_path / "out" / "part")
    assert (Store("out").kind.local, Store("memory://out").kind.local) == (True, False)


def test_a_link_below_the_output_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_run").symlink_to(tmp_path / "elsewhere")
    store = Store(str(tmp_path / "out"))
    with pytest.raises(OutputError, match="symbolic link"):
        store.create("_run/x.json", b"1")
    with pytest.raises(OutputError, match="symbolic link"):
        store.spool("_run/a1")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_output_reached_through_a_link_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    assert Store(str(tmp_path / "out")).create("_run/x.json", b"1")
    assert (tmp_path / "real" / "_run" / "x.json").read_bytes() == b"1"


def test_an_output_that_cannot_be_a_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(OutputError, match="cannot write"):
        Store(str(tmp_path / "file" / "out")).create("_run/x.json", b"1")
    with pytest.raises(OutputError, match="cannot write"):
        Store("/proc/out").create("_run/x.json", b"1")


@pytest.mark.parametrize("answer", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_a_publish_is_still_exclusive(
    tmp_path: Path, answer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: object, target: object) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(os, "link", no_links)
    store = Store(str(tmp_path))
    assert publish(store, "part-0", b"first", "a1") is True
    assert publish(store, "part-0", b"second", "a2") is False
    assert store.read("part-0") == b"first"


def test_a_full_disk_leaves_nothing_at_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageError, match="no space is left"):
        publish(Store(str(tmp_path)), "part-0", b"first", "a1")
    assert Store(str(tmp_path)).names("") == ["_run/"]


def test_options_on_a_local_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="'anon'"):
        Store(str(tmp_path), {"anon": True}).stat("x")


# object stores, with memory in their place


def test_placeholders_of_folders_are_not_files() -> None:
    sizes = {"y.parquet": 0, "y.parquet/a.parquet": 1, "z/": 0, "dt=1_$folder$": 0, "empty.parquet": 0}

    class Client(Broken):
        def find(self, key: str, detail: bool) -> dict[str, Any]:
            return {f"{key}/{name}": {"type": "file", "size": size, "ETag": '"e"'} for name, size in sizes.items()}

    listed = ObjectFiles(Client(OSError())).tree(Pattern("s3://b/in"))
    assert [("/".join(parts), file.url, file.version) for parts, file in listed] == [
        ("empty.parquet", "s3://b/in/empty.parquet", "e"),
        ("y.parquet/a.parquet", "s3://b/in/y.parquet/a.parquet", "e"),
    ]


def test_an_object_store_is_asked_to_refuse_a_second_object(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    class Client(Broken):
        def put_file(self, source: str, target: str, mode: str) -> None:
            asked.append((target, mode))
            raise self.error

        def pipe_file(self, target: str, content: bytes, mode: str = "overwrite") -> None:
            asked.append((target, mode))
            raise self.error

    store = Store("s3://bucket/out")
    store._calls.files = ObjectFiles(Client(FileExistsError("taken")))
    assert store.publish(tmp_path / "spool", "part-0", "_run/a1") is False
    assert store.create("plan.json", json.dumps({}).encode()) is False
    assert asked == [("s3://bucket/out/part-0", "create"), ("s3://bucket/out/plan.json", "create")]


def test_a_wildcard_cannot_stand_for_a_bucket() -> None:
    with pytest.raises(InputError, match="cannot stand for a bucket"):
        Store("memory://*/x").list(["memory://*/x"], PARQUET)


def test_a_copy_to_a_final_name_is_not_sent_again_without_a_new_look(
    s3_options: Any, s3_server: Any, s3_faults: list[Any], fault_kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")  # of the client's own tries, which clients made from here on have
    store = Store(f"s3://b-{uuid.uuid4().hex}/out", s3_options)
    name = store.child("part-0").removeprefix("s3://")

    class Rival(fault_kind):  # type: ignore[misc]
        """While the answer to a copy is on its way, another driver gives the name to its own part."""

        def hits(self, method: str, path: str) -> bool:
            hit = bool(super().hits(method, path))
            if hit:
                s3_server.objects[name] = b"of a rival"
            return hit

    store.replace("_run/x/staging/a1/part-0", b"ours")
    s3_faults.append(Rival("PUT", "part-0", 1, 503))
    with pytest.raises(StorageError) as caught:
        store.promote("_run/x/staging/a1/part-0", "part-0")
    assert caught.value.facts["answer"] == "unclear"
    assert store.promote("_run/x/staging/a1/part-0", "part-0") is False
    assert store.read("part-0") == b"of a rival"
