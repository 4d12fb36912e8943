"""Models of remote stores on the disk of this machine: copied once per machine, checked at every use, and evicted.

Knows files and digests, not what a model is. A folder of the cache:

    locks/<key>.lock       its holder may copy, replace or evict the entry <key>
    <key>.<random>.part    a copy in progress, or left over by a process that died
    <key>.<random>         a whole copy; held with a shared lock of the operating system by everyone who uses it
    <key>.json             the marker, written last: which copy is the entry, its files, its digest

`key` stands for a URL and the listing of its files, so a model that was replaced is another entry. The invariants: a
copy that a marker names was complete when the marker was written, a copy is never changed, and none is removed while
it is held. Locks end with their process, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import filelock

from connectors.models.digest import folder_digest
from connectors.models.remote import RemoteModel, changed, list_model, reading
from connectors.secret import redact
from connectors.store.listing import FileStat
from connectors.store.scratch import expanded, lasting_folder
from connectors.store.store import Store
from jobs.errors import JobError, ModelError, RunnerError, StorageError

_log = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES = 50 * 2**30

_MARKER_VERSION = 1
_PIECE_BYTES = 16 * 2**20  # of one request; eight of them at once fill the link of a large machine
_THREADS = 8
_COPIES = 3  # tries, where the model changes while it is copied, or the copy is damaged when it is read again
_LOCK_S = 2 * 3600.0  # how long another process may take to copy the same model


@dataclass(frozen=True)
class CacheSettings:
    """folder: None is this user's cache folder on whichever machine looks. limit_bytes: what is kept beyond use."""

    folder: str | None = None
    limit_bytes: int = DEFAULT_LIMIT_BYTES


@dataclass(frozen=True)
class Entry:
    """One whole copy. used: when it was last used, in seconds since 1970. files: relative path -> bytes."""

    key: str
    url: str
    folder: Path
    digest: str
    files: Mapping[str, int]
    staged: float
    used: float

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    @property
    def in_use(self) -> bool:
        """Whether a process holds it: this one, or another on this machine."""
        return not _free(self.folder)

    def document(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "digest": self.digest,
            "bytes": self.bytes,
            "files": len(self.files),
            "staged": _moment(self.staged),
            "used": _moment(self.used),
            "in_use": self.in_use,
            "folder": str(self.folder),
        }


class HeldModel:
    """A copy that stays where it is until `close`, or until this process ends."""

    def __init__(self, entry: Entry) -> None:
        self.folder, self.digest, self.files = entry.folder, entry.digest, entry.files
        self._held = os.open(entry.folder, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # a file system without locks: then nothing can be evicted there either
            fcntl.flock(self._held, fcntl.LOCK_SH)  # at once: no process has it alone for longer than a look

    def close(self) -> None:
        """May be called again."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def __enter__(self) -> HeldModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ModelCache:
    """The cache folder of one machine; any number of processes may use it at once."""

    def __init__(self, settings: CacheSettings | None = None) -> None:
        self._settings = settings or CacheSettings()
        self.folder = expanded(self._settings.folder) if self._settings.folder else default_folder()

    def hold(self, model: RemoteModel, digest: str | None = None) -> HeldModel:
        """The model on this machine, copied from its store unless a whole copy is here already.

        digest:  of the content that is expected; None: whatever is there.
        raises:  ModelError where the content is another; StorageError where it cannot be copied, now or here.
        cost:    one download per machine; reads every file once, for the digest.
        """
        damaged: Path | None = None
        for _ in range(_COPIES):
            with self._locked(model.key):
                entry, copied = self._entry(model.key), False
                if entry is None or entry.folder == damaged:
                    entry, copied = self._copy(model), True
                held = HeldModel(entry)
                with suppress(OSError):
                    os.utime(self._marker(model.key))
            if copied or _digest(entry) == entry.digest:
                break
            held.close()
            damaged = entry.folder
        else:
            raise StorageError(
                f"cannot keep model '{redact(model.url)}' in '{self.folder}': its copy is damaged whenever it is read"
                " again; look at that disk, or choose another folder with RUNNER_MODEL_CACHE"
            )
        if digest is not None and entry.digest != digest:
            held.close()
            raise changed(model.url, entry.digest, digest)
        return held

    def entries(self) -> list[Entry]:
        """Whole copies, the one used last first."""
        entries = [self._entry(marker.stem) for marker in self.folder.glob("*.json")]
        return sorted((entry for entry in entries if entry is not None), key=lambda entry: -entry.used)

    def clean(self, unused_s: float = 0.0) -> tuple[list[Entry], list[Entry]]:
        """Remove the entries that were not used for `unused_s` seconds, and what dead processes left behind.

        returns: removed, and kept because they are in use.
        """
        removed: list[Entry] = []
        kept: list[Entry] = []
        before = time.time() - unused_s
        for entry in self.entries():
            if entry.used <= before:
                (removed if self._evict(entry.key) else kept).append(entry)
        for key in {path.name.partition(".")[0] for path in self.folder.glob("*.*")}:
            with suppress(filelock.Timeout), self._locked(key, wait_s=0):
                self._drop_leftovers(key)
        return removed, kept

    def _marker(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _entry(self, key: str) -> Entry | None:
        """The entry `key`, if its marker can be read and its files have their sizes."""
        marker = self._marker(key)
        try:
            document = json.loads(marker.read_text(encoding="utf-8"))
            entry = Entry(
                key=key,
                url=str(document["url"]),
                folder=self.folder / str(document["folder"]),
                digest=str(document["digest"]),
                files={str(path): int(size) for path, size in document["files"].items()},
                staged=float(document["staged"]),
                used=marker.stat().st_mtime,
            )
            whole = entry.folder.parent == self.folder and all(
                (entry.folder / path).stat().st_size == size for path, size in entry.files.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return entry if whole and document.get("v") == _MARKER_VERSION else None

    @contextmanager
    def _locked(self, key: str, wait_s: float = _LOCK_S) -> Iterator[None]:
        """Alone with the entry `key`. raises: filelock.Timeout if `wait_s` is 0 and another process is."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.folder / "locks").mkdir(mode=0o700, exist_ok=True)
            lock = filelock.FileLock(self.folder / "locks" / f"{key}.lock", timeout=wait_s, poll_interval=0.1)
            lock.acquire()
        except filelock.Timeout:
            if not wait_s:
                raise
            raise StorageError(
                f"waited {wait_s / 3600:g} h for another process to copy a model into '{self.folder}'"
            ) from None
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def _copy(self, model: RemoteModel) -> Entry:
        """Make the entry anew. To be called with its lock; an older copy stays for those who hold it."""
        self._drop_leftovers(model.key, damaged=True)
        for _ in range(_COPIES):
            before, files = list_model(model.url, model.options)
            if not files:
                raise ModelError(f"cannot stage model '{redact(model.url)}': nothing is there any more")
            self._make_room(sum(file.size for file in files.values()), model)
            name = f"{model.key}.{secrets.token_hex(4)}"
            temporary = self.folder / f"{name}.part"
            try:
                with reading(model.url):
                    _download(Store(model.url, model.options), files, temporary)
                after, _ = list_model(model.url, model.options)
                if after.key == before.key:
                    return self._publish(model, name, temporary, {path: file.size for path, file in files.items()})
            except OSError as error:
                raise _unwritable(self.folder, error) from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        raise ModelError(
            f"cannot stage model '{redact(model.url)}': its files change while they are copied;"
            " wait until it is written completely"
        )

    def _publish(self, model: RemoteModel, name: str, temporary: Path, files: dict[str, int]) -> Entry:
        digest = folder_digest(temporary, files)
        now = time.time()
        marker = {"v": _MARKER_VERSION, "url": model.url, "folder": name, "digest": digest, "files": files}
        temporary.rename(self.folder / name)
        written = self.folder / f"{name}.marker"
        with written.open("w", encoding="utf-8") as file:
            file.write(json.dumps(marker | {"staged": now}))
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._marker(model.key))
        self._drop_leftovers(model.key)
        return Entry(model.key, model.url, self.folder / name, digest, files, now, now)

    def _drop_leftovers(self, key: str, damaged: bool = False) -> None:
        """Remove copies of `key` that are not held, but for the entry unless it is damaged. With its lock only."""
        entry = None if damaged else self._entry(key)
        for path in self.folder.glob(f"{key}.*"):
            if path.suffix == ".marker":  # that was not finished
                path.unlink(missing_ok=True)
            elif path.is_dir() and (entry is None or path != entry.folder) and _free(path):
                shutil.rmtree(path, ignore_errors=True)

    def _evict(self, key: str) -> bool:
        """Remove an entry. False: it is in use, or being copied."""
        try:
            with self._locked(key, wait_s=0):
                entry = self._entry(key)
                if entry is None or not _free(entry.folder):
                    return False
                self._marker(key).unlink(missing_ok=True)  # first: from here on it is a leftover
                shutil.rmtree(entry.folder, ignore_errors=True)
                return True
        except filelock.Timeout:
            return False

    def _make_room(self, needed: int, model: RemoteModel) -> None:
        """Evict what was used least lately, down to the limit, and further if the disk is full."""
        entries = [entry for entry in self.entries() if entry.key != model.key]
        kept = sum(entry.bytes for entry in entries)
        for entry in reversed(entries):
            full = shutil.disk_usage(self.folder).free < needed
            if kept + needed <= self._settings.limit_bytes and not full:
                return
            if self._evict(entry.key):
                kept -= entry.bytes
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise StorageError(
                f"cannot stage model '{redact(model.url)}' in '{self.folder}': it has {needed:,} bytes, {free:,} are"
                " free there; make room, or choose another folder with RUNNER_MODEL_CACHE"
            )


def default_folder() -> Path:
    """Where this user's caches are, by the convention of desktops; looked up on the machine that needs it.

    A container may run as a user without a home: then in the temporary folder, which is said.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(given) if given.startswith("/") else expanded("~/.cache")
    except JobError:
        return _homeless_folder()
    return base / "savedmodel-runner" / "models"


@cache
def _homeless_folder() -> Path:
    folder = lasting_folder("models")
    if folder is None:
        raise JobError(
            "cannot keep copies of models: this user has no home folder here, and the one in the temporary folder"
            " belongs to another; set RUNNER_MODEL_CACHE to a folder, or HOME"
        )
    _log.warning("no home folder here: models are kept in '%s'; RUNNER_MODEL_CACHE names another folder", folder)
    return folder


def _download(store: Store, files: Mapping[str, FileStat], folder: Path) -> None:
    """Copy `files` (relative path -> file) below `folder`, in pieces, several at once.

    raises: StorageError, also where a file has another size in the end; OSError for the disk.
    """
    folder.mkdir(mode=0o700)
    for path, file in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("xb") as target:
            target.truncate(file.size)

    def fetch(piece: tuple[str, int, int]) -> None:
        path, start, stop = piece
        content = store.fetch(files[path].url, start, stop)
        with (folder / path).open("r+b") as target:
            target.seek(start)
            target.write(content)

    pieces = [
        (path, start, min(start + _PIECE_BYTES, file.size))
        for path, file in files.items()
        for start in range(0, file.size, _PIECE_BYTES)
    ]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="stage") as threads:
        calls = [threads.submit(fetch, piece) for piece in pieces]
        try:
            for call in calls:
                call.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    for path, file in files.items():
        size = (folder / path).stat().st_size
        if size != file.size:
            raise StorageError(f"cannot copy '{redact(file.url)}': it has {file.size} bytes, {size} came")


def _digest(entry: Entry) -> str:
    """Of what is on the disk now; "" where a file cannot be read, or is not the entry's."""
    try:
        present = {path.relative_to(entry.folder).as_posix() for path in entry.folder.rglob("*") if not path.is_dir()}
        return folder_digest(entry.folder, entry.files) if present == set(entry.files) else ""
    except OSError:
        return ""


def _free(folder: Path) -> bool:
    """Whether no process holds `folder`; False where that is unknown."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _unwritable(folder: Path, error: OSError) -> RunnerError:
    return StorageError(
        f"cannot use the model cache '{folder}': {error.strerror or error};"
        " choose a folder with room that can be written, with RUNNER_MODEL_CACHE"
    )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
