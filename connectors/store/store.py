"""A store as the rest of the house sees it: names below a root, listings of inputs, and the verbs of publishing.

Refuses to know formats, plans and kinds of stores. The invariants: a name that `publish` or `create` made shows whole
content and is never replaced; no exception of a storage client leaves a method; no listing is cached; a call that fails
for a reason that may pass is tried again within the bounds of `retry.py`, except `publish`, whose caller looks first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.fs as pa_fs

from connectors.secret import redact
from connectors.store.calls import Calls
from connectors.store.client_error import publish_answer, replaced
from connectors.store.connect import absolute, kind_of, scheme_of
from connectors.store.files import Files, OpenFile
from connectors.store.listing import (
    Below,
    Child,
    FileStat,
    Listing,
    Pattern,
    below,
    changed,
    has_wildcard,
    refuse_changed,
)
from connectors.store.retry import BEST_EFFORT, ONCE, READ, Patience
from connectors.store.scratch import scratch_folder
from jobs.errors import InputError, OutputError, RunnerError, StorageError
from jobs.section.base import OptionValue

__all__ = ["FileStat", "Store"]

FileStats = list[FileStat]  # inside the class, `list` is a method
Names = list[str]


class Store:
    """One file system and a root below which names are relative (for outputs), or any URL on it (for inputs).

    Cheap until first used; pickles as its url and unresolved options, never with a secret. Where a method takes a
    `path`: a name below the root, an absolute local path, or a full URL on the same file system.

    kind:    what such a store can and cannot do, see `Files`.
    raises:  JobError for a scheme that is not supported, for a URL that holds a secret and, on first use, for a
             missing package or an option that cannot be resolved.
    """

    def __init__(self, url: str, options: Mapping[str, OptionValue] | None = None) -> None:
        self.scheme = scheme_of(url)
        self.kind = kind_of(self.scheme)
        self.url = absolute(url)
        self._options = dict(options or {})
        self._calls = Calls(self.url, self._options)
        self._spools: dict[str, Path] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.url, self._options)

    def child(self, name: str) -> str:
        """The full url of a name below the root."""
        return f"{self.url.removesuffix('/')}/{name}"

    # inputs

    def list(self, urls: Sequence[str], suffixes: Sequence[str], others: Sequence[str] | None = None) -> Listing:
        """The files that `urls` mean.

        urls:     each a file, a folder (all files below it with one of the suffixes), or a glob. Names that start
                  with '_' or '.' below a folder are left out, unless named one by one.
        others:   see `listing.below`.
        raises:   InputError NO_INPUT if one of them means nothing, DUPLICATE_INPUT if two mean the same file, NO_STORE
                  where nobody has answered.
        """
        files: dict[str, tuple[FileStat, str]] = {}
        folders: list[Below] = []
        singles: Names = []
        for given in urls:
            url = self._calls.on_this_store(given)
            # A name may hold what looks like a wildcard. The first answer of a store: a long listing is none.
            with _address_of_input():
                named = self._calls.ask("list", url, InputError, lambda files, url: files.stat(url))
            expand = partial(_expand, suffixes=tuple(suffixes), others=others)
            if named is None:
                folders.append(self._calls.ask("list", url, InputError, expand))
            else:
                singles.append(named.url)
            for file in [named] if named is not None else folders[-1].files:
                first = files.setdefault(self._calls.files.key(file.url), (file, given))
                if first[0] is not file:
                    raise InputError(
                        f"cannot read '{redact(file.url)}' twice: it is listed by '{redact(first[1])}' as "
                        f"'{redact(first[0].url)}' and again by '{redact(given)}'; its rows would be counted twice",
                        code="DUPLICATE_INPUT",
                        file=file.url,
                    )
        found = sorted((file for file, _ in files.values()), key=lambda file: file.url)
        return Listing(found, folders, singles)

    def stat(self, path: str) -> FileStat | None:
        """None where there is no such file."""
        return self._calls.ask("look at", path, InputError, lambda files, url: files.stat(url))

    def open(self, path: str, planned: FileStat | None = None) -> OpenFile:
        """Open for random access. Nothing is read ahead: a read fetches exactly these bytes, of one content.

        planned: what the file has to be; None: as it is now.
        raises:  InputError where there is no such file or no permission; StorageError, also from the file's methods,
                 where the bytes could not be fetched; DataError FILE_CHANGED, also from its methods, where it is not
                 the planned one, or another one than was opened. Some stores tell that by `settle` alone.
        cost:    one look; ranges and their conditions are one request each.
        """

        def opened(files: Files, url: str) -> OpenFile:
            def fetch(seen: FileStat, start: int, stop: int) -> bytes:
                return self.fetch(url, start, stop, seen)

            try:
                return files.open(url, fetch, partial(self.stat, url))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                if planned is None:
                    raise
                raise changed(url, "since plan", "it is gone") from None

        file = self._calls.ask("read", path, InputError, opened)
        if planned is not None:
            try:
                refuse_changed(planned, file.seen)
            except BaseException:
                file.close()
                raise
        return file

    def fetch(self, path: str, start: int, stop: int, seen: FileStat | None = None) -> bytes:
        """Bytes `start` to `stop` of a file, all of them. raises: as the methods of an open file.

        seen: the file when it was opened, whose bytes are meant; None: of whatever has the name now.
        """

        def fetch(files: Files, url: str) -> bytes:
            try:
                content = files.fetch(url, start, stop, seen.pin if seen is not None else "")
            except Exception as error:
                if seen is None or not replaced(error):
                    raise
                found = f"what was version {seen.version!r} is not there any more"
                raise changed(url, "while it was read", found) from None
            if len(content) != stop - start:
                raise StorageError(
                    f"cannot read '{redact(url)}': {stop - start} bytes at {start} asked for, {len(content)} came"
                )
            return content

        return self._calls.ask("read", path, InputError, fetch)

    def arrow(self, urls: Sequence[str]) -> tuple[pa_fs.FileSystem, Names]:
        """The store as pyarrow sees it, and `urls` as paths there; what goes wrong later is pyarrow's to say."""
        files = self._calls.files
        return files.arrow(), [files.key(self._calls.locate(url)) for url in urls]

    # outputs

    def read(self, path: str) -> bytes | None:
        """A whole small document, None where there is none."""
        return self._calls.ask("read", path, OutputError, lambda files, url: files.read(url))

    def modified(self, path: str) -> float | None:
        """Seconds on the clock of the store, None where it keeps no times or has no such file. Not tried again.

        Only differences of two such times of one store mean anything.
        """
        try:
            return self._calls.ask("look at", path, OutputError, lambda files, url: files.modified(url), ONCE)
        except OutputError:  # not there, not allowed, or not implemented by this client
            return None

    def create(self, path: str, content: bytes) -> bool:
        """Write a small document under a name that is free; False, and nothing changed, where it is not.

        Exclusive on a local file system, S3, GCS, Azure and SFTP. Elsewhere the name is looked at and then written.
        An answer that is lost or unclear is settled by reading, as is a refusal where the name was free just before (a
        client tries again by itself): what is equal to `content` counts as written by us.
        """
        absent: bool | None = False  # True: it was so before our first try, and what is equal later is ours

        def write(files: Files, url: str) -> bool:
            nonlocal absent
            if not absent:
                absent = _absent(files, url)
                if absent is False:
                    return False
            try:
                if files.create(url, content):
                    return True
            except RunnerError:
                raise
            except Exception as error:
                if publish_answer(error) != "unclear" or files.read(url) is None:
                    raise
            return bool(absent) and files.read(url) == content

        return self._calls.ask("write", path, OutputError, write)

    def replace(self, path: str, content: bytes) -> None:
        """Write a small document whether the name is free or not; readers see the old one or the new one.

        Gives up after a few tries: what is replaced are heartbeats and caches. Over HDFS a reader may meet it
        half-written.
        """
        self._calls.ask("write", path, OutputError, lambda files, url: files.replace(url, content), BEST_EFFORT)

    def publish(self, spool: Path, path: str, staging: str, *, part_bytes: int | None = None) -> bool:
        """Give the finished local file `spool` its final name, unless the name is taken. Not tried again by itself.

        staging:     folder below the root that belongs to this attempt alone.
        part_bytes:  S3: upload in parts of this size; 0: in one piece, of at most `kind.piece_bytes`; None: as the
                     client likes.
        returns:     True: `path` is this file, whole. False: something was there already, and is unchanged; it may be
                     this very file, where the client tried again by itself.
        cost:        local: a hard link; `spool` has to come from `Store.spool`. Otherwise an upload.
        limits:      HDFS and memory upload to `staging`, look at the final name and move. Two processes that do so
                     in the same instant may both believe to have won on memory; the others arbitrate by themselves.
        raises:      StorageError or OutputError whose fact `answer` (an `Answer`) is "unclear": look at `path` before
                     anything else; or "failed": nothing is at `path` by this call.
        """
        staged = self._calls.locate(f"{staging}/{spool.name}")
        return self._calls.settle("publish", path, lambda files, url: files.publish(spool, url, staged, part_bytes))

    # staged mode: upload under a name of the attempt, later moved by the driver

    def upload(self, spool: Path, path: str, patience: Patience = READ) -> None:
        """Put the finished file `spool` under `path`, a name that belongs to one attempt or one driver alone."""
        self._calls.ask("upload", path, OutputError, lambda files, url: files.upload(spool, url), patience)

    def promote(self, staged: str, path: str) -> bool:
        """Give the uploaded object `staged` its final name, if that is free when looked at. As `publish` otherwise.

        On an object store the upload stays where it is (a copy is made), elsewhere it is moved.
        """
        source = self._calls.locate(staged)
        return self._calls.settle("promote", path, lambda files, url: files.promote(source, url))

    # folders

    def names(self, folder: str) -> Names:
        """Names directly in `folder`, sorted; those of folders end in '/'. Empty where there is no such folder."""
        return sorted(f"{child.name}/" if child.folder else child.name for child in self._children(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of the files directly in `folder`, by name."""
        return {child.name: child.size for child in self._children(folder) if not child.folder}

    def _children(self, folder: str) -> Sequence[Child]:
        return self._calls.ask("list", folder, OutputError, lambda files, url: files.children(url))

    def tree(self, most: int, folder: str = "") -> FileStats:
        """Every file below `folder`, hidden ones included, sorted by url; the first `most` and a few more of a larger
        one."""
        url, files, folders = self._calls.locate(folder), FileStats(), Names()
        for child in sorted(self._children(url)):
            if child.folder:
                folders.append(child.name)
            else:
                files.append(FileStat(f"{url.rstrip('/')}/{child.name}", child.size, child.version))
        for name in folders:
            if len(files) <= most:
                files += self.tree(most - len(files), f"{url.rstrip('/')}/{name}")
        return sorted(files, key=lambda file: file.url)

    def remove(self, path: str) -> None:
        """Delete one file; it need not be there. Not tried again.

        raises: OutputError where that is not allowed, StorageError.
        """

        def remove(files: Files, url: str) -> None:
            with suppress(FileNotFoundError):
                files.remove(url)

        self._calls.ask("remove", path, OutputError, remove, ONCE)

    def remove_folder(self, folder: str) -> None:
        """Delete a folder with all that is in it. raises: OutputError where that is not allowed, StorageError."""
        for name in self.names(folder):
            if name.endswith("/"):
                self.remove_folder(f"{folder}/{name[:-1]}")
            else:
                self.remove(f"{folder}/{name}")
        self.discard(folder)  # what is left of it: a folder, where the store has folders

    # what belongs to one attempt

    def spool(self, staging: str) -> Path:
        """A fresh local folder that only this user can read: `staging` itself where the store is local."""

        def spool(files: Files, url: str) -> Path:
            own = files.spool(url)
            if own is None:
                own = self._spools[staging] = scratch_folder(Path(staging).name)
            return own

        return self._calls.ask("create", staging, OutputError, spool, ONCE)

    def release(self, staging: str) -> None:
        """Drop the local spool of `staging`, not what was uploaded there; never fails."""
        if folder := self._spools.pop(staging, None):
            shutil.rmtree(folder, ignore_errors=True)

    def discard(self, staging: str) -> None:
        """Drop a spool and whatever is staged below `staging`; never fails.

        On an object store nothing is staged in direct mode, and no right to delete is needed: see `sweep`.
        """
        self.release(staging)
        if not self.kind.conditional_put:
            self.sweep(staging)

    def sweep(self, folder: str) -> None:
        """Drop whatever is below `folder`, on object stores too; never fails, and may leave all of it."""
        self.release(folder)
        with suppress(Exception):  # garbage below `_run/` harms nothing
            files, url = self._calls.files, self._calls.locate(folder)
            files.using(lambda: files.sweep(url))


def _expand(files: Files, url: str, suffixes: Sequence[str], others: Sequence[str] | None) -> Below:
    """What one url means, which is no file itself."""
    if not files.listed:
        raise InputError(
            f"no file at '{redact(url)}': over {scheme_of(url)} each file has to be named", code="NO_INPUT"
        )
    literal = not has_wildcard(url) or files.is_folder(url)
    pattern = Pattern(url) if literal else Pattern.parse(url)
    if pattern.folder.endswith("://"):
        raise InputError(f"cannot list '{url}': a wildcard cannot stand for a bucket; name it", code="NO_INPUT")
    return below(redact(url), pattern, files.tree(pattern), suffixes, others)


def _absent(files: Files, url: str) -> bool | None:
    """Whether there is no such file; None where the store does not say, such as without a right to read."""
    try:
        return files.stat(url) is None
    except Exception as error:
        if publish_answer(error) == "unclear":
            raise
        return None


@contextmanager
def _address_of_input() -> Iterator[None]:
    """At the first call: a store that never answers is at another address, which the job has to say."""
    try:
        yield
    except StorageError as error:
        if error.facts.get("cause") != "silent":
            raise
        raise InputError(error.message, **error.facts, code="NO_STORE") from None
