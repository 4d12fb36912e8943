"""The only user of fsspec: list, fetch, publish. Maps its errors to ours and keeps secrets out of them.

Refuses to know formats and plans. The invariants: a name that `publish` or `create` made shows whole content and is
never replaced; no exception of a storage client leaves this module; no listing is cached; a call that fails for a
reason that may pass is tried again within the bounds of `retry.py`, except `publish`, whose caller looks first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow.fs as pa_fs

from connectors.secret import HIDDEN, redact, resolve
from connectors.store.client_error import denied, meaning, publish_answer
from connectors.store.connect import absolute, connect, scheme_of
from connectors.store.listing import Child, FileStat, Pattern, has_wildcard, hidden, nothing_found
from connectors.store.local import LocalFiles
from connectors.store.remote import RangeFile, RemoteFiles
from connectors.store.retry import BEST_EFFORT, READ, Patience
from connectors.store.scratch import scratch_folder
from jobs.errors import InputError, JobError, OutputError, RunnerError, StorageError, one_of
from jobs.job import OptionValue

__all__ = ["FileStat", "Store", "redact"]

T = TypeVar("T")

FileStats = list[FileStat]  # inside the class, `list` is a method
Names = list[str]


class Store:
    """One file system and a root below which names are relative (for outputs), or any URL on it (for inputs).

    Cheap until first used; pickles as its url and unresolved options, never with a secret. Where a method takes a
    `path`: a name below the root, an absolute local path, or a full URL on the same file system.

    raises:  JobError for a scheme that is not supported, for a URL that holds a secret and, on first use, for a
             missing package or an option that cannot be resolved.
    """

    def __init__(self, url: str, options: Mapping[str, OptionValue] | None = None) -> None:
        self.scheme = scheme_of(url)
        self.url = absolute(url)
        self._options = dict(options or {})
        self._secrets: list[str] = []
        self._spools: dict[str, Path] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.url, self._options)

    @property
    def in_process(self) -> bool:
        """Whether other processes see other content: `memory://` is private to each."""
        return self.scheme == "memory"

    def child(self, name: str) -> str:
        """The full url of a name below the root."""
        return f"{self.url.removesuffix('/')}/{name}"

    def local_path(self, path: str) -> str | None:
        """The path to give to readers that map files into memory; None where the store is not local."""
        return self._locate(path) if self.scheme == "file" else None

    # inputs

    def list(self, urls: Sequence[str], suffixes: Sequence[str]) -> FileStats:
        """The files that `urls` mean, sorted by url.

        urls:     each a file, a folder (all files below it with one of the suffixes), or a glob. Names that start
                  with '_' or '.' below a folder are left out, unless named one by one.
        raises:   InputError NO_INPUT if one of them means nothing, DUPLICATE_INPUT if two mean the same file.
        """
        files: dict[str, tuple[FileStat, str]] = {}
        for given in urls:
            url = self._on_this_store(given)
            for file in self._ask("list", url, InputError, partial(self._expand, url, tuple(suffixes))):
                first = files.setdefault(self._files.key(file.url), (file, given))
                if first[0] is not file:
                    raise InputError(
                        f"cannot read '{redact(file.url)}' twice: it is listed by '{redact(first[1])}' as "
                        f"'{redact(first[0].url)}' and again by '{redact(given)}'; its rows would be counted twice",
                        code="DUPLICATE_INPUT",
                        file=file.url,
                    )
        return sorted((file for file, _ in files.values()), key=lambda file: file.url)

    def _expand(self, url: str, suffixes: Sequence[str]) -> FileStats:
        named = self._files.stat(url)  # first: a name may hold what looks like a wildcard
        if named is not None:
            return [named]
        if self.scheme in ("http", "https"):
            raise InputError(
                f"no file at '{redact(url)}': over {self.scheme} each file has to be named", code="NO_INPUT"
            )
        literal = not has_wildcard(url) or self._files.is_folder(url)
        pattern = Pattern(url) if literal else Pattern.parse(url)
        if pattern.folder.endswith("://"):
            raise InputError(f"cannot list '{url}': a wildcard cannot stand for a bucket; name it", code="NO_INPUT")
        found, seen = [], []
        for parts, file in self._files.tree(pattern):
            if not hidden(parts) and pattern.wants(parts, suffixes):
                found.append(file)
            else:
                seen.append(parts)
        if not found:
            raise InputError(nothing_found(redact(url), pattern, suffixes, seen), code="NO_INPUT")
        return found

    def stat(self, path: str) -> FileStat | None:
        """None where there is no such file."""
        url = self._locate(path)
        return self._ask("look at", url, InputError, lambda: self._files.stat(url))

    def open(self, path: str) -> BinaryIO:
        """Open for random access. Nothing is read ahead: a read fetches exactly the bytes asked for.

        raises: InputError where there is no such file or no permission; StorageError, also from the file's methods,
                where the bytes could not be fetched.
        """
        url = self._locate(path)
        return self._ask("read", url, InputError, lambda: self._opened(url))

    def _opened(self, url: str) -> BinaryIO:
        if isinstance(self._files, LocalFiles):
            return self._files.open(url)
        found = self._files.stat(url)
        if found is None:
            raise FileNotFoundError(url)
        return cast(BinaryIO, RangeFile(lambda start, stop: self.fetch(url, start, stop), found.size))

    def fetch(self, url: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of a remote file, all of them. raises: as the methods of an open file."""

        def ask() -> bytes:
            content = cast(RemoteFiles, self._files).fetch(url, start, stop)
            if len(content) != stop - start:
                raise StorageError(
                    f"cannot read '{redact(url)}': {stop - start} bytes at {start} asked for, {len(content)} came"
                )
            return content

        return self._ask("read", url, InputError, ask)

    def arrow(self, urls: Sequence[str]) -> tuple[pa_fs.FileSystem, Names]:
        """The store as pyarrow sees it, and `urls` as paths there; what goes wrong later is pyarrow's to tell."""
        paths = [self._files.key(self._locate(url)) for url in urls]
        if isinstance(self._files, LocalFiles):
            return pa_fs.LocalFileSystem(), paths
        return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(self._files.client)), paths

    # outputs

    def read(self, path: str) -> bytes | None:
        """A whole small document, None where there is none."""
        url = self._locate(path)
        return self._ask("read", url, OutputError, lambda: self._files.read(url))

    def create(self, path: str, content: bytes) -> bool:
        """Write a small document under a name that is free; False, and nothing changed, where it is not.

        Exclusive on a local file system, S3, GCS, Azure and SFTP. Elsewhere the name is looked at and then written.
        An answer that is lost or unclear is settled by reading, as is a refusal where the name was free just before (a
        client tries again by itself): what is equal to `content` counts as written by us.
        """
        url = self._locate(path)
        absent: bool | None = False  # True: it was so before our first try, and what is equal later is ours

        def write() -> bool:
            nonlocal absent
            if not absent:
                absent = self._absent(url)
                if absent is False:
                    return False
            try:
                if self._files.create(url, content):
                    return True
            except RunnerError:
                raise
            except Exception as error:
                if publish_answer(error) != "unclear" or self._files.read(url) is None:
                    raise
            return bool(absent) and self._files.read(url) == content

        return self._ask("write", url, OutputError, write)

    def _absent(self, url: str) -> bool | None:
        """None where it cannot be told, such as without a right to read."""
        try:
            return self._files.stat(url) is None
        except Exception as error:
            if publish_answer(error) == "unclear":
                raise
            return None

    def replace(self, path: str, content: bytes) -> None:
        """Write a small document whether the name is free or not; readers see the old one or the new one.

        Gives up after a few tries: what is replaced are heartbeats and caches. Over HDFS a reader may meet it
        half-written.
        """
        url = self._locate(path)
        self._ask("write", url, OutputError, lambda: self._files.replace(url, content), BEST_EFFORT)

    def publish(self, spool: Path, path: str, staging: str, *, part_bytes: int = 0) -> bool:
        """Give the finished local file `spool` its final name, unless the name is taken. Not tried again by itself.

        staging:     folder below the root that belongs to this attempt alone.
        part_bytes:  S3: upload in parts of this size; 0: as the client likes.
        returns:     True: `path` is this file, whole. False: something was there already, and is unchanged; it may be
                     this very file, where the client tried again by itself.
        cost:        local: a hard link; `spool` has to come from `Store.spool`. Otherwise an upload.
        limits:      HDFS and memory upload to `staging`, look at the final name and move. Two processes that do so
                     in the same instant may both believe to have won on memory; the others arbitrate by themselves.
        raises:      StorageError or OutputError whose fact `answer` (an `Answer`) is "unclear": look at `path` before
                     anything else; or "failed": nothing is at `path` by this call.
        """
        url, staged = self._locate(path), self._locate(f"{staging}/{path}")
        return self._settle("publish", url, lambda: self._files.publish(spool, url, staged, part_bytes))

    # staged mode: upload under a name of the attempt, later moved by the driver

    def upload(self, spool: Path, path: str, patience: Patience = READ) -> None:
        """Put the finished file `spool` under `path`, a name that belongs to one attempt or one driver alone."""
        url = self._locate(path)
        self._ask("upload", url, OutputError, lambda: self._files.upload(spool, url), patience)

    def promote(self, staged: str, path: str) -> bool:
        """Give the uploaded object `staged` its final name, if that is free when looked at. As `publish` otherwise.

        On an object store the upload stays where it is (a copy is made), elsewhere it is moved.
        """
        source, url = self._locate(staged), self._locate(path)
        return self._settle("promote", url, lambda: self._files.promote(source, url))

    def _settle(self, doing: str, url: str, call: Callable[[], bool]) -> bool:
        def once() -> bool:
            try:
                return call()
            except RunnerError as error:
                error.facts.setdefault("answer", "failed")  # our own refusals come before anything is written
                raise

        with self._errors(doing, url, OutputError, publishing=True):
            return self._refreshing(once)

    def names(self, folder: str) -> Names:
        """Names directly in `folder`, sorted; those of folders end in '/'. Empty where there is no such folder."""
        return sorted(f"{child.name}/" if child.folder else child.name for child in self._children(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of the files directly in `folder`, by name."""
        return {child.name: child.size for child in self._children(folder) if not child.folder}

    def _children(self, folder: str) -> Sequence[Child]:
        url = self._locate(folder)

        def children() -> Sequence[Child]:
            try:
                return [*self._files.children(url)]
            except FileNotFoundError:
                return []

        return self._ask("list", url, OutputError, children)

    def tree(self, most: int, folder: str = "") -> FileStats:
        """Every file below `folder`, hidden ones included, sorted by url; the first `most` and a few more of a larger
        one."""
        url, files, folders = self._locate(folder), FileStats(), Names()
        for child in sorted(self._children(url)):
            if child.folder:
                folders.append(child.name)
            else:
                files.append(FileStat(f"{url.rstrip('/')}/{child.name}", child.size, child.version))
        for name in folders:
            if len(files) <= most:
                files += self.tree(most - len(files), f"{url.rstrip('/')}/{name}")
        return sorted(files, key=lambda file: file.url)

    def spool(self, staging: str) -> Path:
        """A fresh local folder that only this user can read: `staging` itself where the store is local."""
        url = self._locate(staging)
        with self._errors("create", url, OutputError):
            if isinstance(self._files, LocalFiles):
                return self._files.spool(url)
            folder = scratch_folder(Path(staging).name)
            self._spools[staging] = folder
            return folder

    def release(self, staging: str) -> None:
        """Drop the local spool of `staging`, not what was uploaded there; never fails."""
        if folder := self._spools.pop(staging, None):
            shutil.rmtree(folder, ignore_errors=True)

    def discard(self, staging: str) -> None:
        """Drop a spool and whatever is staged below `staging`; never fails.

        On an object store nothing is staged in direct mode, and no right to delete is needed: see `sweep`.
        """
        self.release(staging)
        with suppress(Exception):  # garbage below `_run/` harms nobody
            self._refreshing(lambda: self._files.discard(self._locate(staging)))

    def sweep(self, folder: str) -> None:
        """Drop whatever is below `folder`, on object stores too; never fails, and may leave all of it."""
        self.release(folder)
        with suppress(Exception):
            self._refreshing(lambda: self._files.sweep(self._locate(folder)))

    # names and errors

    @cached_property
    def _files(self) -> LocalFiles | RemoteFiles:
        if self.scheme == "file":
            if self._options:
                raise JobError(
                    f"cannot use '{self.url}' with options {one_of(list(self._options))}: a local path takes none"
                )
            return LocalFiles(self.url)
        with self._errors("reach", self.url, JobError):
            return RemoteFiles(self._connected(fresh=False), self.scheme, lambda: self._connected(fresh=True))

    def _connected(self, *, fresh: bool) -> Any:
        """fresh: with the references resolved again, and not the client that others use."""
        options, secrets = resolve(self._options, self.scheme)
        self._secrets = list(dict.fromkeys((*self._secrets, *secrets)))
        return connect(self.scheme, self.url, options, fresh)

    def _on_this_store(self, url: str) -> str:
        if scheme_of(url) != self.scheme:
            raise JobError(
                f"cannot reach '{redact(url)}' through '{redact(self.url)}': one job section has one kind of store"
            )
        return absolute(url)

    def _locate(self, path: str) -> str:
        if "://" in path or path.startswith("/"):
            return self._on_this_store(path)
        segments = path.split("/") if path else []
        if any(segment in ("", ".", "..") or not segment.isprintable() for segment in segments):
            raise OutputError(f"cannot use {path!r} below '{redact(self.url)}': it is no plain relative name")
        return "/".join((self.url.removesuffix("/"), *segments))

    def _ask(self, doing: str, url: str, wrong: type[JobError], call: Callable[[], T], patience: Patience = READ) -> T:
        """What `call` returns; tried again while it fails with what may pass."""

        def once() -> T:
            with self._errors(doing, url, wrong):
                return self._refreshing(call)

        return patience.call(once, lambda error: error.facts.get("cause") != "full")

    def _refreshing(self, call: Callable[[], T]) -> T:
        """Credentials expire and connections break: then once more, by a client that was made anew."""
        files = self._files
        if isinstance(files, LocalFiles):
            return call()
        try:
            with files.turn():
                return call()
        except Exception as error:
            if not ((denied(error) or files.lost()) and files.refresh()):
                raise
        with files.turn():
            return call()

    @contextmanager
    def _errors(self, doing: str, url: str, wrong: type[JobError], publishing: bool = False) -> Iterator[None]:
        """Whatever a client raises becomes one of ours. wrong: the class for what will not pass by itself."""
        try:
            yield
        except RunnerError:
            raise
        except Exception as error:  # the edge: every client of a store has exceptions of its own
            cls, cause, found = meaning(error, wrong)
            facts = {"url": redact(url), "cause": cause}
            if publishing:
                facts["answer"] = publish_answer(error)
                if facts["answer"] == "unclear":
                    cls = StorageError
            # `from None`: the original may quote credentials, and a traceback would print it.
            raise cls(f"cannot {doing} '{redact(url)}': {self._hide(found)}", **facts) from None

    def _hide(self, text: str) -> str:
        for secret in filter(None, self._secrets):
            text = text.replace(secret, HIDDEN)
        return redact(text)
