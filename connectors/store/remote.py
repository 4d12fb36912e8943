"""Files behind a client of fsspec, by full URLs: what all such stores have in common.

Owns the client, and its renewal; refuses to know how a name is given once, which each kind of store says in a file of
its own. The invariant: no upload begins at a final name here.
"""

from __future__ import annotations

import io
import os
import secrets
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import pyarrow.fs as pa_fs

from connectors.secret import redact
from connectors.store.client_error import denied
from connectors.store.files import Fetch, Files, OpenFile
from connectors.store.listing import Child, FileStat, Parts, Pattern, placeholder, refuse_changed, walk
from connectors.together import AT_ONCE, call_together
from jobs.errors import InputError

T = TypeVar("T")

_PART_BYTES = 16 * 2**20  # one connection of an object store brings about 100 MB/s


class RangeFile(io.RawIOBase):
    """A remote file, read by exact byte ranges: a reader of two columns pays for two columns. An `OpenFile`.

    look:    the file as it is now; None: each range is of the content `seen`, the store has seen to that.
    at_once: ranges that may be asked for at the same time.
    """

    def __init__(
        self, seen: FileStat, fetch: Fetch, look: Callable[[], FileStat | None] | None, at_once: int = AT_ONCE
    ) -> None:
        self.seen, self.at_once = seen, at_once
        self._fetch, self._look = fetch, look
        self._size = seen.size
        self._position = 0

    def settle(self) -> None:
        if self._look is not None:
            refuse_changed(self.seen, self._look(), "while it was read")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        start = self._position
        stop = self._size if size is None or size < 0 else min(start + size, self._size)
        if stop <= start:
            return b""
        content = self._fetch(self.seen, start, stop)
        self._position = stop
        return content

    def fill(self, targets: Iterable[tuple[int, memoryview]]) -> None:
        """Read into each of `targets` (start, where to put it), together; the position stays.

        cost: as many requests as there are targets, and more for large ones; each is tried again by itself.
        """

        def fetch(start: int, target: memoryview) -> None:
            target[:] = self._fetch(self.seen, start, start + len(target))

        parts = [
            partial(fetch, start + first, target[first : first + _PART_BYTES])
            for start, target in targets
            for first in range(0, len(target), _PART_BYTES)
        ]
        call_together(parts, self.at_once)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")  # a buffer of pyarrow holds signed bytes
        content = self.read(len(target))
        target[: len(content)] = content
        return len(content)


class RemoteFiles(Files):
    """A file system of fsspec; raises what its client raises.

    holds_ranges: `fetch` with a pin answers with bytes of that content, or raises.
    at_once:      ranges of one file that may be asked for at the same time.
    alone:        its client is not shared with other stores of the same options.
    """

    holds_ranges: ClassVar[bool] = False
    at_once: int = AT_ONCE
    alone: ClassVar[bool] = False

    def __init__(self, client: Any, renewed: Callable[[], Any] | None = None) -> None:
        """renewed: makes a client anew, with credentials read again."""
        self.client = client
        self._renewed = renewed
        self._renewing = threading.Lock()

    @classmethod
    def client_options(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What a client is made with. given: by the job and its URL; it wins over what this kind of store needs."""
        return given

    @classmethod
    def client_class(cls, known: str, given: Mapping[str, Any]) -> str:
        """The name of the client's class, with its module. known: as a rule."""
        return known

    def using(self, call: Callable[[], T]) -> T:
        used = self.client
        try:
            with self._turn():
                return call()
        except Exception as error:
            if self._renewed is None or not (denied(error) or self._lost()):
                raise
            with self._renewing:  # once, of many calls whose credentials expired together
                if self.client is used:
                    self.client = self._renewed()
        with self._turn():
            return call()

    def _turn(self) -> AbstractContextManager[object]:
        """To hold while the client is used."""
        return nullcontext()

    def _lost(self) -> bool:
        """Whether the connection is gone, so that every further call on this client would fail."""
        return False

    def arrow(self) -> pa_fs.FileSystem:
        return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(self.client))

    def key(self, url: str) -> str:
        return str(self.client._strip_protocol(url))

    # reading

    def is_folder(self, url: str) -> bool:
        return bool(self.client.isdir(url))

    def stat(self, url: str) -> FileStat | None:
        try:
            info = self.client.info(self.key(url))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if info["type"] == "directory":
            return None
        return FileStat(url, _size(url, info), self.version(info), self.pin(info))

    def version(self, info: Mapping[str, Any]) -> str:
        return version(info)

    def pin(self, info: Mapping[str, Any]) -> str:
        """What of a look at a file tells its content from others, beside its version; ""."""
        return ""

    def modified(self, url: str) -> float | None:
        time: Any = self.client.modified(self.key(url))
        return time.timestamp() if isinstance(time, datetime) else None

    def children(self, url: str) -> Sequence[Child]:
        key = self.key(url)
        children = []
        with suppress(FileNotFoundError):
            for info in self.client.ls(key, detail=True):
                path = info["name"].rstrip("/")
                folder = info["type"] == "directory"
                if path == key.rstrip("/"):
                    continue
                name = path.rpartition("/")[2]
                size = 0 if folder else _size(f"{url.rstrip('/')}/{name}", info)
                if folder or not placeholder(info["name"], size):
                    children.append(Child(name, folder, size, self.version(info)))
        return children

    def tree(self, pattern: Pattern) -> Iterator[tuple[Parts, FileStat]]:
        return walk(pattern, self.children)

    def open(self, url: str, fetch: Fetch, look: Callable[[], FileStat | None]) -> OpenFile:
        seen = self.stat(url)
        if seen is None:
            raise FileNotFoundError(url)
        held = self.holds_ranges and seen.pin != ""
        return cast(OpenFile, RangeFile(seen, fetch, None if held else look, self.at_once))

    def fetch(self, url: str, start: int, stop: int, pin: str = "") -> bytes:
        return bytes(self.client.cat_file(self.key(url), start=start, end=stop))

    def read(self, url: str) -> bytes | None:
        try:
            return bytes(self.client.cat_file(self.key(url)))
        except FileNotFoundError:
            return None

    # writing

    def replace(self, url: str, content: bytes) -> None:
        self.client.pipe_file(self.key(url), content)

    def upload(self, spool: Path, url: str) -> None:
        self.client.put_file(str(spool), self.key(url))

    def spool(self, url: str) -> Path | None:
        return None

    def remove(self, url: str) -> None:
        self.client.rm_file(self.key(url))

    def sweep(self, url: str) -> None:
        self.client.rm(self.key(url), recursive=True)


class PlacedFiles(RemoteFiles):
    """Stores where a file is finished beside its final name, and then given that name."""

    @abstractmethod
    def _named(self, temporary: str, final: str) -> bool:
        """Give the finished file its final name. False: the name is taken, and the file may still be there."""

    def create(self, url: str, content: bytes) -> bool:
        return self._place(self._temporary(url, content), self.key(url))

    def publish(self, spool: Path, url: str, staged: str, part_bytes: int | None = None) -> bool:
        self.upload(spool, staged)
        return self._place(self.key(staged), self.key(url))

    def promote(self, staged: str, url: str) -> bool:
        return self._place(self.key(staged), self.key(url))

    def _place(self, temporary: str, final: str) -> bool:
        """Give a finished file its final name, unless the name is taken; then the file is dropped."""
        placed = self._named(temporary, final)
        if not placed:
            with suppress(Exception):
                self.client.rm_file(temporary)
        return placed

    def _temporary(self, url: str, content: bytes) -> str:
        """A finished hidden file beside `url`."""
        folder, _, name = self.key(url).rpartition("/")
        temporary = f"{folder}/.{name}.{secrets.token_hex(6)}"
        self._make_folder(temporary)
        self.client.pipe_file(temporary, content)
        return temporary

    def _make_folder(self, path: str) -> None:
        """The folder of `path`, with those above it. Another process may make one of them in the same instant."""
        folder = path.rpartition("/")[0] or "/"
        for others in range(folder.count("/"), -1, -1):
            try:
                self.client.makedirs(folder, exist_ok=True)
                return
            except OSError:
                if not others:
                    raise


def _size(url: str, info: Mapping[str, Any]) -> int:
    if info.get("size") is None:
        raise InputError(f"cannot read '{redact(url)}': the server does not tell its size")
    return int(info["size"])


def version(info: Mapping[str, Any]) -> str:
    """What changes when the object does: its etag, else its time in ns; the same from a listing and a look at it."""
    for name in ("ETag", "etag", "md5Hash"):
        if info.get(name):
            return str(info[name]).strip('"')
    for name in ("mtime", "LastModified", "last_modified", "modified", "created", "modificationTime"):
        if info.get(name):
            time = info[name]
            seconds = time.timestamp() if isinstance(time, datetime) else time
            return str(int(seconds * 10**9)) if isinstance(seconds, int | float) else str(seconds)
    return ""
