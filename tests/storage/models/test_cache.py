"""The model cache: one download per machine, whatever is half done, damaged, raced for or in use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from store_servers import moto_server, new_bucket

from connectors.models import cache as model_cache
from connectors.models.cache import CacheSettings, Entry, ModelCache
from connectors.models.digest import folder_digest
from connectors.models.remote import RemoteModel, list_model
from jobs.errors import JobError, ModelError, StorageError
from jobs.section.base import OptionValue
from runner.model.folder import Location
from runner.model.planned import ModelWatch, PlannedModel
from runner.model.remote import locate_remote
from runner.model.saved_model import read_model

FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": bytes(range(256)) * 100,
    "assets/a name with spaces.txt": b"words\n",
    "assets/_hidden": b"hidden",
    "assets.extra/empty": b"",
}
Put = Callable[..., str]


@pytest.fixture
def put() -> Iterator[Put]:
    """put(files, below=""): writes them to a fresh folder of memory://, and returns its url."""
    base = f"memory://{uuid.uuid4().hex}"
    store = fsspec.filesystem("memory")

    def write(files: dict[str, bytes], below: str = "") -> str:
        for path, content in files.items():
            store.pipe_file(f"{base}{below}/{path}", content)
        return base

    yield write
    if store.exists(base):
        store.rm(base, recursive=True)


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(CacheSettings(str(tmp_path / "cache")))


def listed(url: str) -> RemoteModel:
    return list_model(url, {})[0]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def only(cache: ModelCache) -> Entry:
    (entry,) = cache.entries()
    return entry


def test_a_copy_is_whole_and_serves_when_the_store_is_gone(cache: ModelCache, put: Put, tmp_path: Path) -> None:
    url = put(FILES)
    model = listed(url)
    with cache.hold(model) as held:
        assert content(held.folder) == FILES
        digest = held.digest
        assert digest == folder_digest(held.folder, FILES)
    fsspec.filesystem("memory").rm(url, recursive=True)
    with cache.hold(model, digest) as again:
        assert (again.folder, content(again.folder)) == (held.folder, FILES)
    assert (only(cache).url, only(cache).bytes) == (url, sum(map(len, FILES.values())))


def test_a_large_file_is_fetched_in_pieces(cache: ModelCache, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "_PIECE_BYTES", 1000)
    with cache.hold(listed(put(FILES))) as held:
        assert content(held.folder) == FILES


def _truncate(entry: Entry) -> None:
    with (entry.folder / "saved_model.pb").open("r+b") as file:
        file.truncate(2)


def _flip(entry: Entry) -> None:
    with (entry.folder / "variables/variables.data-00000-of-00001").open("r+b") as file:
        file.seek(12_345)
        file.write(b"?")


def _add(entry: Entry) -> None:
    (entry.folder / "assets/more").write_bytes(b"x")


def _remove(entry: Entry) -> None:
    (entry.folder / "variables/variables.index").unlink()


def _garble(entry: Entry) -> None:
    (entry.folder.parent / f"{entry.key}.json").write_text('{"v": 1, "url')


@pytest.mark.parametrize("damage", [_truncate, _flip, _add, _remove, _garble], ids=lambda damage: damage.__name__[1:])
def test_a_damaged_copy_is_made_anew(damage: Callable[[Entry], None], cache: ModelCache, put: Put) -> None:
    model = listed(put(FILES))
    with cache.hold(model) as held:
        digest = held.digest
    damage(only(cache))
    with cache.hold(model, digest) as again:
        assert content(again.folder) == FILES
    assert len([path for path in cache.folder.iterdir() if path.name.startswith(model.key)]) == 2  # copy and marker


def test_a_damaged_copy_stays_for_who_holds_it(cache: ModelCache, put: Put) -> None:
    model = listed(put(FILES))
    with cache.hold(model) as held:
        _flip(only(cache))
        with cache.hold(model) as mended:
            assert content(mended.folder) == FILES
            assert mended.folder != held.folder
        assert held.folder.exists()
    cache.clean(3600)
    assert not held.folder.exists()
    assert mended.folder.exists()


def test_what_a_killed_copy_left_is_removed_and_the_copy_made_again(cache: ModelCache, put: Put) -> None:
    model = listed(put(FILES))
    half = cache.folder / f"{model.key}.deadbeef.part"
    half.mkdir(parents=True)
    (half / "saved_model.pb").write_bytes(b"gr")
    with cache.hold(model) as held:
        assert content(held.folder) == FILES
    assert not half.exists()


def test_other_content_than_planned_is_refused(cache: ModelCache, put: Put) -> None:
    url = put(FILES)
    with cache.hold(listed(url)) as held:
        planned = held.digest
    put({"saved_model.pb": b"GRAPH"})
    with pytest.raises(ModelError, match=r"changed since the plan was made \(digest \w+, planned \w+\)"):
        cache.hold(listed(url), planned)


def test_a_worker_that_comes_late_does_not_take_a_model_that_was_replaced(put: Put, tmp_path: Path) -> None:
    """Its machine has no copy yet, and the key of the old listing."""
    url = put(FILES)
    with ModelCache(CacheSettings(str(tmp_path / "a"))).hold(listed(url)) as held:
        model, planned = listed(url), held.digest
    put({"saved_model.pb": b"GRAPH"})
    with pytest.raises(ModelError, match="changed since the plan"):
        ModelCache(CacheSettings(str(tmp_path / "b"))).hold(model, planned)


def test_a_model_that_is_still_being_written_is_copied_again(
    cache: ModelCache, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, download, times = listed(put(FILES)), model_cache._download, iter(range(99))

    def interrupted(*arguments: object) -> None:
        download(*arguments)  # type: ignore[arg-type]
        if next(times) < rewritten:
            put({"variables/variables.index": uuid.uuid4().bytes})

    monkeypatch.setattr(model_cache, "_download", interrupted)
    rewritten = 99
    with pytest.raises(ModelError, match="its files change while they are copied; wait"):
        cache.hold(model)
    assert cache.entries() == []
    times, rewritten = iter(range(99)), 1
    with cache.hold(model) as held:
        assert set(content(held.folder)) == set(FILES)


def test_the_least_lately_used_models_go_first_and_those_in_use_stay(put: Put, tmp_path: Path) -> None:
    size = 1000
    urls = [f"{put({'saved_model.pb': bytes([n]) * size}, f'/{n}')}/{n}" for n in range(4)]
    cache = ModelCache(CacheSettings(str(tmp_path / "cache"), limit_bytes=3 * size))
    models = [listed(url) for url in urls]
    held = cache.hold(models[0])  # the oldest, and in use
    for age, model in ((300, models[1]), (200, models[2])):
        cache.hold(model).close()
        os.utime(cache._marker(model.key), (time.time() - age,) * 2)
    os.utime(cache._marker(models[0].key), (time.time() - 400,) * 2)
    cache.hold(models[3]).close()
    assert {entry.url for entry in cache.entries()} == {urls[0], urls[2], urls[3]}
    held.close()
    cache.hold(models[1]).close()
    assert {entry.url for entry in cache.entries()} == {urls[1], urls[2], urls[3]}


def test_a_model_larger_than_the_limit_is_used_all_the_same(put: Put, tmp_path: Path) -> None:
    cache = ModelCache(CacheSettings(str(tmp_path / "cache"), limit_bytes=10))
    with cache.hold(listed(put(FILES))) as held:
        assert content(held.folder) == FILES


def test_clean_keeps_what_another_process_holds_until_that_is_dead(cache: ModelCache, put: Put) -> None:
    cache.hold(listed(put(FILES))).close()
    script = (
        "import sys, time\nfrom connectors.models.cache import CacheSettings, HeldModel, ModelCache\n"
        "held = HeldModel(ModelCache(CacheSettings(sys.argv[1])).entries()[0])\n"
        "print('held', flush=True)\ntime.sleep(99)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(cache.folder)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert only(cache).in_use
        assert [len(some) for some in cache.clean()] == [0, 1]
    finally:
        other.kill()
        other.communicate()
    assert not only(cache).in_use
    assert [len(some) for some in cache.clean(3600)] == [0, 0]
    assert [len(some) for some in cache.clean()] == [1, 0]
    assert list(cache.folder.glob("*.*")) == []


def test_a_cache_that_cannot_be_written_says_so(put: Put, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot use the model cache .* RUNNER_MODEL_CACHE"):
        ModelCache(CacheSettings(str(tmp_path / "file" / "cache"))).hold(listed(put(FILES)))


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A user without HOME and without an entry among the users; the temporary folder."""

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", "RUNNER_MODEL_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model_cache._homeless_folder.cache_clear()
    yield tmp_path
    model_cache._homeless_folder.cache_clear()


def test_a_user_without_a_home_keeps_models_in_the_temporary_folder_and_is_told(
    homeless: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = homeless / f"savedmodel-runner-models-{os.getuid()}"
    assert ModelCache().folder == ModelCache().folder == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [record.getMessage() for record in caplog.records] == [
        f"no home folder here: models are kept in '{folder}'; RUNNER_MODEL_CACHE names another folder"
    ]


def test_where_that_folder_is_anothers_what_to_set_is_told(homeless: Path) -> None:
    (homeless / f"savedmodel-runner-models-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(JobError, match=r"no home folder here, and .* set RUNNER_MODEL_CACHE to a folder, or HOME"):
        ModelCache()
    with pytest.raises(JobError, match=r"cannot use '~/models': .* no home folder here; set HOME, or name the path"):
        ModelCache(CacheSettings("~/models"))


def test_names_that_would_leave_the_folder_are_refused(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    url = put(FILES)
    from connectors.store.listing import FileStat
    from connectors.store.store import Store

    monkeypatch.setattr(Store, "tree", lambda self, most: [FileStat(f"{url}/../../x", 1, "")])
    with pytest.raises(ModelError, match=r"'../../x' is no name of a file below it"):
        listed(url)


def test_every_kind_of_store_lists_and_copies_all_of_a_model(place: Any, cache: ModelCache) -> None:
    for path, data in FILES.items():
        place.put(path, data)
    found = place.store().tree(most=100)
    assert [file.url for file in found] == sorted(f"{place.store().url}/{path}" for path in FILES)
    assert sum(file.size for file in found) == sum(map(len, FILES.values()))
    assert len(place.store().tree(most=1)) < len(FILES)
    if place.kind != "local":  # which is used in place
        with cache.hold(list_model(place.url, place.options)[0]) as held:
            assert content(held.folder) == FILES


# which folder a url means

VERSIONS = {f"{name}/saved_model.pb": name.encode() for name in ("1", "00000012", "9", "v99", "tmp-100")}


def test_the_highest_version_of_a_remote_base_folder_is_taken(put: Put) -> None:
    url = put(VERSIONS)
    found, version = locate_remote(url, None, {})
    assert (found.url, version) == (f"{url}/00000012", 12)
    assert locate_remote(url, "latest", {})[1] == 12
    assert locate_remote(url, 9, {})[0].url == f"{url}/9"
    assert locate_remote(f"{url}/1", None, {}) == (listed(f"{url}/1"), None)


def test_what_is_wrong_with_a_remote_url_is_said(put: Put) -> None:
    url = put({**VERSIONS, "model.keras": b"", "notes/x.txt": b""})
    refusals = {
        (url, 7): r"no version 7 of model .*: it has 12, 9, 1; choose one, or 'latest'",
        (f"{url}/1", 2): "that folder is a model itself",
        (f"{url}/1/saved_model.pb", None): rf"that is a file of a SavedModel; name its folder '{url}/1'",
        (f"{url}/model.keras", None): r"'model.keras' is a Keras file, not a SavedModel; export it once",
        (f"{url}/notes", None): r"no SavedModel in .*: it holds 'x.txt'; expected 'saved_model.pb'",
        (f"{url}/note", None): r"no 'note' in .*; it has 'notes'",
        ("https://example.org/model", None): "over http a folder cannot be listed",
    }
    for (wrong, version), message in refusals.items():
        with pytest.raises(ModelError, match=message):
            locate_remote(wrong, version, {})


# a model that changes while a job runs


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_change_while_the_job_runs_is_found_and_a_copy_of_the_same_is_none(
    kind: str, put: Put, tmp_path: Path
) -> None:
    url, folder = put(FILES), tmp_path / "model"
    settings = CacheSettings(str(tmp_path / "cache"))
    with ModelCache(settings).hold(listed(url)) as held:
        digest = held.digest

    def write(files: dict[str, bytes]) -> None:
        put(files)
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
            os.utime(folder / path, ns=(time.time_ns(), time.time_ns()))

    write(FILES)
    remote = listed(url) if kind == "remote" else None
    watch = ModelWatch(PlannedModel(url, str(folder), digest, remote, settings), every_s=0.02)
    try:
        write(FILES)
        watch._look()
        assert watch.error() is None
        write({"variables/variables.index": b"INDEX"})
        until = time.monotonic() + 30
        while watch.error() is None and time.monotonic() < until:
            time.sleep(0.02)
        error = watch.error()
        assert isinstance(error, ModelError)
        assert "changed since the plan" in error.message
    finally:
        watch.close()


# several processes, a real server

_WORKERS = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from connectors.models.remote import RemoteModel
from runner.model.planned import OpenModel, PlannedModel
told = json.loads(sys.argv[1])
remote = RemoteModel(told["url"], told["key"], told["options"])
sys.stdin.readline()
with ThreadPoolExecutor(2) as workers:
    opened = list(workers.map(lambda _: OpenModel(PlannedModel(told["url"], "", told["digest"], remote)), range(2)))
print(*[each.path for each in opened], flush=True)
sys.stdin.readline()
"""


def test_eight_workers_on_two_machines_download_a_model_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine is a user's cache folder of its own; on each, two processes with two workers. The driver is on one."""
    pytest.importorskip("s3fs")
    for name in ("TEST_S3_KEY", "TEST_S3_SECRET"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    log = tmp_path / "requests.log"
    with moto_server(sys.executable, log) as endpoint:
        new_bucket(endpoint, "models")
        options: dict[str, OptionValue] = {
            "endpoint_url": endpoint,
            "key": "env:TEST_S3_KEY",
            "secret": "env:TEST_S3_SECRET",
        }
        url = "s3://models/churn/7"
        files = {**FILES, "variables/variables.data-00000-of-00001": os.urandom(2**20)}
        store = fsspec.filesystem("s3", endpoint_url=endpoint, key="test", secret="test", use_listings_cache=False)
        for path, data in files.items():
            store.pipe_file(f"{url}/{path}", data)
        homes = [tmp_path / "node-a", tmp_path / "node-b"]
        monkeypatch.setenv("XDG_CACHE_HOME", str(homes[0]))
        model, version = locate_remote("s3://models/churn", None, options)
        with ModelCache().hold(model) as held:
            told = json.dumps({"url": model.url, "digest": held.digest, "key": model.key, "options": options})
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", _WORKERS, told],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"XDG_CACHE_HOME": str(home)},
            )
            for home in homes
            for _ in range(2)
        ]
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        lines = [worker.stdout.readline() for worker in workers if worker.stdout is not None]
        assert all(worker.communicate("end\n") and worker.returncode == 0 for worker in workers)
        paths = [path for line in lines for path in line.split()]
        assert len(paths) == 8
    assert version == 7
    assert [Path(path).is_relative_to(homes[n // 4]) for n, path in enumerate(paths)] == [True] * 8
    assert len(set(paths)) == 2
    assert all(content(Path(path)) == files for path in set(paths))
    fetched = Counter(re.findall(r"GET /models/churn/7/([^ ?\"]+)", log.read_text()))
    assert fetched["variables/variables.data-00000-of-00001"] == 2
    assert set(fetched.values()) == {2}
    assert len(fetched) == len(files) - 1  # an empty file needs no request


def test_a_remote_model_reads_like_a_local_one(put: Put, tmp_path: Path) -> None:
    from runner.proto.saved_model_pb2 import SavedModel

    saved = SavedModel()
    saved.meta_graphs.add().meta_info_def.tags.append("serve")
    url = put({"3/saved_model.pb": saved.SerializeToString()})
    spec = read_model(url, cache=CacheSettings(str(tmp_path / "cache")))
    assert (spec.url, spec.version, spec.metagraphs[0].tags) == (url, 3, ("serve",))
    assert spec.remote is not None
    assert spec.remote.url == f"{url}/3"
    assert Location("", Path(spec.path), None).folder.parent == tmp_path / "cache"
