"""Stores that only fsspec knows, and those that lie in others: read as any other; written with a warning, or never."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.registry import known_implementations
from registered_files import SCHEME, PlainFileSystem, registered

from connectors.formats.registry import make_source
from connectors.models.cache import CacheSettings, ModelCache
from connectors.models.remote import list_model
from connectors.output.directory import OutputDirectory
from connectors.store.connect import absolute, below, chain_of, scheme_of
from connectors.store.probe import probe
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError, JobError, OutputError
from jobs.section.output import Output
from runner.model.folder import is_remote

TABLE = pa.table({"a": range(1000)})
MODEL = {"saved_model.pb": b"graph", "variables/variables.index": b"index"}


def parquet() -> bytes:
    written = io.BytesIO()
    pq.write_table(TABLE, written)
    return written.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "an archive.zip"
    path.write_bytes(zipped({"day=1/a.parquet": parquet(), "day=2/b.parquet": parquet(), "notes.txt": b"no rows"}))
    return path


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of memory://, without its scheme."""
    name, files = uuid.uuid4().hex, fsspec.filesystem("memory")
    yield name
    if files.exists(name):
        files.rm(name, recursive=True)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    with registered(tmp_path / "plain") as url:
        yield url, tmp_path / "plain"


def read(store: Store, url: str) -> pa.Table:
    file = store.stat(url)
    assert file is not None
    source = make_source("parquet")
    planned, _ = source.inspect(store, file, ["a"])
    rows = tuple(group.rows for group in planned.row_groups)
    with source.open(store, InputSlice(0, file.url, file.size, file.version, 0, rows), ["a"]) as reader:
        return reader.read(0)


# one name, however it is spelled


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("zip://day/*.parquet::/x/a.zip", "zip::file:///x/a.zip!/day/*.parquet"),
        ("zip://::/x/../a.zip", "zip::file:///a.zip!"),
        ("zip::/a.zip", "zip::file:///a.zip!"),
        ("ZIP://in::s3://b/a.zip", "zip::s3://b/a.zip!/in"),
        ("simplecache::s3://b/x/", "simplecache::s3://b/x"),
        ("simplecache::zip://in/x::s3://b/a.zip", "simplecache::zip::s3://b/a.zip!/in/x"),
        ("zip://x::zip://b.zip::/a.zip", "zip::zip::file:///a.zip!/b.zip!/x"),
        ("zip://x!/y::/a.zip", "zip::file:///a.zip!/x!/y"),
        ("s3://b/a::b.parquet", "s3://b/a::b.parquet"),
        ("/data/zip::x", "/data/zip::x"),
        ("github://me:repo@main/x.parquet", "github://me:repo@main/x.parquet"),
    ],
)
def test_an_address_has_its_path_last_and_reads_back(given: str, meant: str) -> None:
    assert absolute(given) == meant
    assert absolute(meant) == meant


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("zip://x::a.zip", "what it lies in is no url; a local path begins with '/' here"),
        ("zip://x::/a!/b.zip", "'!/' stands between a file and the path in it"),
        ("simplecache://x::s3://b", "a cache has no paths of its own"),
        ("zip://x::s3://me:s3cr3t@b/a.zip", "the url itself holds a secret"),
        ("nonesuch://b/x", r"no store for scheme 'nonesuch' of 'nonesuch://b/x': there is 'file', 's3', .*'hf'"),
        ("zip://x::nonesuch://b/x", "no store for scheme 'nonesuch'"),
    ],
)
def test_an_address_that_names_nothing_is_refused(url: str, said: str) -> None:
    with pytest.raises(JobError, match=said) as caught:
        Store(url)
    assert "s3cr3t" not in caught.value.message


def test_names_are_compared_within_one_store_and_through_a_cache() -> None:
    assert below("zip://in/x::/a.zip", "zip://in::/a.zip") == ("x",)
    assert below("zip://in/x::/b.zip", "zip://in::/a.zip") is None
    assert below("hf://a/x", "oss://a") is None
    assert below("oss://a/x", "oss://a") == ("x",)
    assert below("simplecache::s3://b/x", "s3://b") == ("x",)


# reading


def test_a_glob_in_an_archive_means_its_files(archive: Path) -> None:
    store = Store(f"zip://*/*.parquet::{archive}")
    files = store.list([f"zip://*/*.parquet::{archive}"], [".parquet"]).files
    assert [file.url for file in files] == [
        f"zip::file://{archive}!/day=1/a.parquet",
        f"zip::file://{archive}!/day=2/b.parquet",
    ]
    assert all(read(store, file.url).equals(TABLE) and file == store.stat(file.url) for file in files)
    (only,) = store.list([f"zip://day=2::{archive}"], [".parquet"]).files
    assert only == files[1]
    assert Store(f"zip::{archive}").list([f"zip::{archive}"], [".parquet"]).left_out == {".txt": 1}


def test_an_archive_in_an_archive_on_a_store_is_read(memory: str) -> None:
    inner = zipped({"x.parquet": parquet()})
    fsspec.filesystem("memory").pipe_file(f"/{memory}/outer.zip", zipped({"in/inner.zip": inner}))
    store = Store(f"zip://x.parquet::zip://in/inner.zip::memory://{memory}/outer.zip")
    assert store.url == f"zip::zip::memory://{memory}/outer.zip!/in/inner.zip!/x.parquet"
    assert read(store, store.url).equals(TABLE)


@pytest.mark.parametrize("layer", ["simplecache", "filecache"])
@pytest.mark.parametrize("place", ["memory", "s3"], indirect=True)
def test_a_cache_shows_what_lies_below_it(layer: str, place: Any, tmp_path: Path) -> None:
    place.put("x.parquet", parquet())
    options = {f"{place.kind}.{name}": value for name, value in place.options.items()}
    store = Store(f"{layer}::{place.url}", {**options, "cache_storage": str(tmp_path / "cache")})
    (file,) = store.list([store.url], [".parquet"]).files
    assert file.url == f"{layer}::{place.url}/x.parquet"
    assert read(store, file.url).equals(TABLE)
    assert any((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_work_there_is_said_at_once(memory: str, pauses: list[float]) -> None:
    fsspec.filesystem("memory").pipe_file(f"/{memory}/x", b"12")
    with pytest.raises(InputError, match=r"reads no range of bytes .*no attribute 'blocksize'"):
        Store(f"blockcache::memory://{memory}").fetch("x", 0, 1)
    assert pauses == []


def test_a_client_for_one_thread_is_asked_by_one_at_a_time(plain: tuple[str, Path]) -> None:
    (plain[1] / "x").write_bytes(bytes(range(256)) * 64)
    store = Store(plain[0])
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda start: store.fetch(f"{plain[0]}x", start, start + 64), range(0, 16384, 64)))
    assert b"".join(found) == bytes(range(256)) * 64


def test_two_archives_are_no_one_store(archive: Path) -> None:
    with pytest.raises(JobError, match="one job section has one kind of store"):
        Store(f"zip::{archive}").list([f"zip::{archive}", "zip:://other.zip"], [".parquet"])


def test_what_is_no_archive_is_said_at_once(tmp_path: Path, pauses: list[float]) -> None:
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(JobError, match=r"a.zip!'.*BadZipFile"):
        Store(f"zip::{tmp_path}/a.zip").names("")
    with pytest.raises(JobError, match="there is no such file"):
        Store(f"zip::{tmp_path}/b.zip").names("")
    assert pauses == []


def test_a_scheme_that_a_program_registers_is_read(plain: tuple[str, Path]) -> None:
    url, folder = plain
    (folder / "in").mkdir()
    (folder / "in/x.parquet").write_bytes(parquet())
    store = Store(f"{url}in")
    (file,) = store.list([store.url], [".parquet"]).files
    assert (file.url, file == store.stat(file.url), file.version != "") == ("plain://in/x.parquet", True, True)
    assert read(store, file.url).equals(TABLE)


def test_a_file_of_such_a_store_that_is_replaced_while_it_is_read_is_an_error(plain: tuple[str, Path]) -> None:
    url, folder = plain
    (folder / "x").write_bytes(b"a" * 100)
    with Store(url).open(f"{url}x") as file:
        assert file.read(10) == b"a" * 10
        (folder / "x").write_bytes(b"b" * 101)
        with pytest.raises(DataError, match="changed while it was read"):
            file.settle()


@pytest.mark.parametrize("lacks", ["size", "ranges"])
def test_a_client_that_tells_no_size_or_reads_no_ranges_is_refused(lacks: str, tmp_path: Path) -> None:
    class Stream(io.BytesIO):
        def seek(self, *arguments: Any) -> int:
            raise io.UnsupportedOperation("seek")

    class Lacking(PlainFileSystem):
        def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
            return super().info(path) | ({"size": None} if lacks == "size" else {})

        def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
            return Stream(b"x" * 100)

    said = "does not tell its size" if lacks == "size" else r"reads no range of bytes \(seek\); copy the file"
    with registered(tmp_path / "plain", Lacking) as url:
        (tmp_path / "plain/x").write_bytes(b"x" * 100)
        with pytest.raises(InputError, match=said), Store(url).open(f"{url}x") as file:
            file.read(10)


def test_a_model_in_an_archive_or_behind_a_cache_is_copied(archive: Path, memory: str, tmp_path: Path) -> None:
    for name, content in MODEL.items():
        fsspec.filesystem("memory").pipe_file(f"/{memory}/m/{name}", content)
    archive.write_bytes(zipped({f"m/{name}": content for name, content in MODEL.items()}))
    cache = ModelCache(CacheSettings(str(tmp_path / "models")))
    for url in (f"zip://m::{archive}", f"simplecache::memory://{memory}/m"):
        assert is_remote(url)
        with cache.hold(list_model(url, {})[0]) as held:
            assert {path: (held.folder / path).read_bytes() for path in MODEL} == MODEL


# options and packages


def test_an_option_reaches_the_layer_that_it_names(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    class Noting(fsspec.get_filesystem_class("memory")):  # type: ignore[misc]
        protocol = "noting"

        def __init__(self, **options: Any) -> None:
            given.append(options)
            super().__init__()

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(super()._strip_protocol(path.replace("noting://", "memory://")))

    fsspec.register_implementation("noting", Noting, clobber=True)
    monkeypatch.setenv("CANARY", "s3cr3t")
    fsspec.filesystem("memory").pipe_file(f"/{memory}/x", b"12")
    store = Store(f"simplecache::noting://{memory}", {"noting.token": "env:CANARY", "same_names": True})
    assert store.read("x") == b"12"
    assert given == [{"token": "s3cr3t"}]
    with pytest.raises(JobError, match=r"options 's3.anon': its layers are 'simplecache', 'noting'"):
        Store(f"simplecache::noting://{memory}", {"s3.anon": True}).read("x")


def test_who_is_denied_below_a_layer_hears_how_its_options_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("no credentials")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "info", refuse)
    with pytest.raises(JobError, match=r"check the credentials .*begins with its name: 'memory.OPTION'"):
        Store("simplecache::memory://x").stat("a")


def test_a_package_that_is_missing_is_named_in_the_words_of_fsspec() -> None:
    missing = {"class": "nonesuchfs.FileSystem", "err": "Install nonesuchfs to access None Such"}
    known_implementations["nonesuch"] = missing
    try:
        with pytest.raises(JobError, match=r"'nonesuch' is missing: Install nonesuchfs .*; pip install 'nonesuchfs'"):
            Store("nonesuch://b").stat("x")
        with pytest.raises(JobError, match="Install nonesuchfs to access None Such"):
            Store("nonesuch://x::/a.zip").stat("x")
    finally:
        del known_implementations["nonesuch"]


def test_a_layer_that_another_package_took_over_is_refused(archive: Path) -> None:
    known = fsspec.get_filesystem_class("memory")
    fsspec.register_implementation("memory", PlainFileSystem, clobber=True)
    try:
        with pytest.raises(JobError, match="another package has taken the scheme 'memory' over"):
            Store("zip::memory://a.zip").names("")
    finally:
        fsspec.register_implementation("memory", known, clobber=True)


# writing


def test_parts_are_staged_where_a_name_is_only_looked_at(plain: tuple[str, Path]) -> None:
    store = Store(f"{plain[0]}out")
    found = probe(store, "_run/x/staging")
    assert found.mode == "staged"
    assert "promises that need create-if-absent are weaker here" in found.warning
    assert "one driver at a time" in found.warning


@pytest.mark.parametrize("url", ["zip://out::/a.zip", "simplecache::s3://b/out", "github://me:repo@main/out"])
def test_what_is_only_read_is_no_output(url: str) -> None:
    with pytest.raises(OutputError, match=f"there is no writing over {scheme_of(url)}"):
        OutputDirectory(Output(url=url), "a" * 32, 1)


def test_a_client_that_does_not_write_is_refused_by_the_probe(tmp_path: Path, pauses: list[float]) -> None:
    class Reading(PlainFileSystem):
        def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
            if mode != "rb":
                raise NotImplementedError("read only")
            return super()._open(path, mode)

    with (
        registered(tmp_path / "plain", Reading) as url,
        pytest.raises(OutputError, match=r"its client \(Reading\) does not write files.*choose another output"),
    ):
        probe(Store(f"{url}out"), "_run/x/staging")
    assert pauses == []


def test_a_store_without_copies_moves_its_parts(tmp_path: Path) -> None:
    class Moving(PlainFileSystem):
        def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
            raise NotImplementedError

        def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
            self._here(path1).rename(self._here(path2))

    with registered(tmp_path / "plain", Moving) as url:
        assert probe(Store(f"{url}out"), "_run/x/staging").mode == "staged"


def test_the_schemes_of_this_test_are_gone() -> None:
    assert chain_of(f"{SCHEME}://x") is None
    with pytest.raises(JobError, match=f"no store for scheme '{SCHEME}'"):
        Store(f"{SCHEME}://x")
