"""Files behind a client of fsspec, by full URLs. Raises what its client raises; `store.py` gives that a meaning.

Knows which kinds of store arbitrate by themselves, and how: object stores refuse a second object, SFTP and HDFS
refuse to rename onto a name that is taken. The invariant: an upload never begins at a final name, except where the
store shows an object whole and refuses a second one.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from connectors.secret import redact
from connectors.store.listing import Child, FileStat, Parts, Pattern, walk
from jobs.errors import InputError

# Stores that make an object visible whole, refuse a second one on request, and list a whole prefix at once.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
_SFTP = {"sftp", "ssh"}
_HDFS = {"hdfs", "webhdfs"}


class RemoteFiles:
    """A file system of fsspec, by full URLs; raises what its client raises."""

    _one_at_a_time = threading.Lock()  # memory:// and the weaker stores: at least threads do not race

    def __init__(self, client: Any, scheme: str, connect: Callable[[], Any] | None = None) -> None:
        """connect: makes a client anew, with credentials read again."""
        self.client = client
        self._scheme = scheme
        self._connect = connect
        self._exclusive = scheme in OBJECT_STORES

    def turn(self) -> AbstractContextManager[object]:
        """To hold while the client is used: an SFTP connection loses answers when two threads wait for them."""
        if self._scheme not in _SFTP:
            return nullcontext()
        with self._one_at_a_time:
            lock: AbstractContextManager[object] = self.client.__dict__.setdefault("_turn", threading.RLock())
            return lock

    def refresh(self) -> bool:
        """Take a new client. False: there is no way to make one."""
        if self._connect is None:
            return False
        self.client = self._connect()
        return True

    def lost(self) -> bool:
        """Whether the connection is gone, so that every further call on this client would fail."""
        if self._scheme not in _SFTP or self._connect is None:
            return False
        transport = self.client.client.get_transport()
        return transport is None or not transport.is_active()

    def key(self, url: str) -> str:
        if self._scheme in _SFTP and "://" in url:  # the client would cut the path at a question mark
            return "/" + url.partition("://")[2].partition("/")[2]
        return str(self.client._strip_protocol(url))

    def is_folder(self, url: str) -> bool:
        return bool(self.client.isdir(url))

    def stat(self, url: str) -> FileStat | None:
        try:
            found = self.client.info(self.key(url))
        except FileNotFoundError:
            return None
        if found["type"] == "directory":
            return None
        if found.get("size") is None:
            raise InputError(f"cannot read '{redact(url)}': the server does not tell its size")
        return FileStat(url, found["size"], _version(found))

    def tree(self, pattern: Pattern) -> Iterator[tuple[Parts, FileStat]]:
        if not self._exclusive:
            return walk(pattern, self._children_or_none)
        return self._objects(pattern.folder.rstrip("/"))

    def _objects(self, folder: str) -> Iterator[tuple[Parts, FileStat]]:
        """All objects below a prefix: a thousand names an answer, whatever folders they pretend to be in."""
        key = self.key(folder)
        listed = self.client.find(key, detail=True)
        folders = _folders(listed)
        for path, found in sorted(listed.items()):
            empty = found["type"] == "directory" or (found["size"] == 0 and path in folders)
            if path.startswith(f"{key}/") and not empty and not _placeholder(path, found):
                parts = tuple(path[len(key) + 1 :].split("/"))
                yield parts, FileStat("/".join((folder, *parts)), found["size"], _version(found))

    def children(self, url: str) -> Iterator[Child]:
        key = self.key(url)
        for found in self.client.ls(key, detail=True):
            path = found["name"].rstrip("/")
            if path == key or _placeholder(found["name"], found):
                continue
            folder = found["type"] == "directory"
            yield Child(path.rpartition("/")[2], folder, 0 if folder else found["size"], _version(found))

    def _children_or_none(self, url: str) -> Iterator[Child]:
        try:
            yield from self.children(url)
        except FileNotFoundError:
            return

    def fetch(self, url: str, start: int, stop: int) -> bytes:
        return bytes(self.client.cat_file(self.key(url), start=start, end=stop))

    def read(self, url: str) -> bytes | None:
        try:
            return bytes(self.client.cat_file(self.key(url)))
        except FileNotFoundError:
            return None

    def create(self, url: str, content: bytes) -> bool:
        if self._scheme in _SFTP | _HDFS:
            return self._place(self._temporary(url, content), self.key(url))
        return self._unless_taken(url, lambda: self.client.pipe_file(self.key(url), content, mode="create"))

    def replace(self, url: str, content: bytes) -> None:
        if self._scheme in _SFTP:
            temporary = self._temporary(url, content)
            self.client.ftp.posix_rename(temporary, self.key(url))
        else:
            self.client.pipe_file(self.key(url), content)

    def publish(self, spool: Path, url: str, staged: str, part_bytes: int = 0) -> bool:
        final = self.key(url)
        if self._exclusive:
            in_parts = {"chunksize": part_bytes} if part_bytes and self._scheme in ("s3", "s3a") else {}
            return self._unless_taken(url, lambda: self.client.put_file(str(spool), final, mode="create", **in_parts))
        self.upload(spool, staged)
        return self._place(self.key(staged), final)

    def upload(self, spool: Path, url: str) -> None:
        if self._scheme in _SFTP:
            self._make_folder(self.key(url))
        self.client.put_file(str(spool), self.key(url))

    def promote(self, staged: str, url: str) -> bool:
        source, final = self.key(staged), self.key(url)
        if not self._exclusive:
            return self._place(source, final)
        if self.client.exists(final):  # a copy cannot be told to refuse: staged mode has one driver at a time
            return False
        self.client.cp_file(source, final)
        return True

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

    def _temporary(self, url: str, content: bytes) -> str:
        """A finished hidden file beside `url`."""
        folder, _, name = self.key(url).rpartition("/")
        temporary = f"{folder}/.{name}.{secrets.token_hex(6)}"
        self._make_folder(temporary)
        self.client.pipe_file(temporary, content)
        return temporary

    def _place(self, temporary: str, final: str) -> bool:
        """Give a finished file its final name, unless the name is taken; then the file is dropped."""
        if self._scheme in _SFTP:
            placed = self._renamed(temporary, final)
        elif self._scheme in _HDFS:
            placed = self._moved(temporary, final)
        else:
            with self._one_at_a_time:
                placed = not self.client.exists(final)
                if placed:  # not `mv`: it takes names for patterns
                    self.client.cp_file(temporary, final)
                    self.client.rm_file(temporary)
        if not placed:
            with suppress(Exception):
                self.client.rm_file(temporary)
        return placed

    def _renamed(self, temporary: str, final: str) -> bool:
        """By the protocol's own rename, which refuses a name that is taken; `mv` of the client replaces it."""
        self._make_folder(final)
        try:
            self.client.ftp.rename(temporary, final)
        except OSError:
            if self.client.exists(final):  # SFTP 3 has no code for it, only "failure"
                return False
            raise
        return True

    def _moved(self, temporary: str, final: str) -> bool:
        """By a rename of the NameNode. Its refusal may be silent (webhdfs answers false): both names are looked at."""
        self._make_folder(final)
        cause: Exception | None = None
        try:
            self.client.mv(temporary, final)
        except Exception as error:  # whatever it is: what is there now tells
            cause = error
        taken, left = self.client.exists(final), self.client.exists(temporary)
        if taken:
            return not left
        raise cause or OSError(errno.EIO, "the rename was answered, and had no effect")

    def _unless_taken(self, url: str, write: Callable[[], object]) -> bool:
        try:
            if self._exclusive:
                write()
                return True
            with self._one_at_a_time:
                if self.client.exists(self.key(url)):
                    return False
                write()
                return True
        except FileExistsError:
            return False

    def discard(self, url: str) -> None:
        if not self._exclusive:  # object stores stage nothing, and a plain run needs no right to delete there
            self.sweep(url)

    def sweep(self, url: str) -> None:
        self.client.rm(self.key(url), recursive=True)


class RangeFile(io.RawIOBase):
    """A remote file, read by exact byte ranges: whoever reads two columns pays for two columns."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._position = 0

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
        content = self._fetch(start, stop)
        self._position = stop
        return content

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")  # a buffer of pyarrow holds signed bytes
        content = self.read(len(target))
        target[: len(content)] = content
        return len(content)


def _version(found: Mapping[str, Any]) -> str:
    """What changes when the object does: its etag, else its time in ns; the same from a listing and a look at it."""
    for name in ("ETag", "etag", "md5Hash"):
        if found.get(name):
            return str(found[name]).strip('"')
    for name in ("mtime", "LastModified", "last_modified", "modified", "created", "modificationTime"):
        if found.get(name):
            time = found[name]
            seconds = time.timestamp() if isinstance(time, datetime) else time
            return str(int(seconds * 10**9)) if isinstance(seconds, int | float) else str(seconds)
    return ""


def _placeholder(path: str, found: Mapping[str, Any]) -> bool:
    """Empty objects that stand for folders: 'dt=1/' of consoles, 'dt=1_$folder$' of Hadoop."""
    return found["type"] != "directory" and found["size"] == 0 and path.endswith(("/", "_$folder$"))


def _folders(paths: Iterable[str]) -> set[str]:
    """Every path that others lie below."""
    folders: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in folders:
            folders.add(path)
    return folders
