"""Stores that refuse no name: a name is looked at and then written. Processes may race there, threads do not.

`memory://` is one of them, and so are whatever is only read over HTTP, and all that fsspec has a client for
and this code has none. The invariant of the last: nothing of a client is believed that fsspec does not promise.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from fsspec import AbstractFileSystem
from fsspec.asyn import sync

from connectors.secret import redact
from connectors.store.listing import Child, FileStat
from connectors.store.remote import PlacedFiles, version
from jobs.errors import InputError, OutputError


class OtherFiles(PlacedFiles):
    _one_at_a_time: ClassVar[threading.Lock] = threading.Lock()

    def create(self, url: str, content: bytes) -> bool:
        try:
            with self._one_at_a_time:
                if self.client.exists(self.key(url)):
                    return False
                self.client.pipe_file(self.key(url), content, mode="create")
                return True
        except FileExistsError:
            return False

    def _named(self, temporary: str, final: str) -> bool:
        with self._one_at_a_time:
            if self.client.exists(final):
                return False
            self.client.cp_file(temporary, final)  # not `mv`: it takes names for patterns
            self.client.rm_file(temporary)
            return True


class MemoryFiles(OtherFiles):
    in_process = True
    at_once = 1  # nothing is waited for


class WebFiles(OtherFiles):
    """Each read is a byte range. A server that sends the whole file instead is refused before it has sent it."""

    read_only = True
    listed = False

    def fetch(self, url: str, start: int, stop: int, pin: str = "") -> bytes:
        return bytes(sync(self.client.loop, self._range, self.key(url), start, stop))

    async def _range(self, url: str, start: int, stop: int) -> bytes:
        """As `_cat_file` of the client, which takes any answer for the range."""
        session = await self.client.set_session()
        headers = {**self.client.kwargs.get("headers", {}), "Range": f"bytes={start}-{stop - 1}"}
        async with session.get(self.client.encode_url(url), **{**self.client.kwargs, "headers": headers}) as answer:
            self.client._raise_not_found_for_status(answer, url)
            whole = start == 0 and answer.content_length == stop
            if answer.status != HTTPStatus.PARTIAL_CONTENT and not whole:
                raise InputError(
                    f"cannot read '{redact(url)}': its web server does not answer requests for a range of bytes (status"
                    f" {answer.status}); copy the file to a disk or another store, and read the copy",
                    code="NO_RANGES",
                    file=url,
                )
            return bytes(await answer.read())

    def pin(self, info: Mapping[str, Any]) -> str:
        """The time, where there is no etag: it has never been a version, and plans that are stored stay valid."""
        return "" if version(info) else str(info.get("Last-Modified", ""))


# What clients call the mark of a content, beside what `version` knows: GitHub, git, Hugging Face, zip, lakeFS, Google
# Drive, FTP.
_MARKS = ("sha", "hex", "blob_id", "CRC", "checksum", "md5Checksum", "md5", "modify", "modifiedTime")


class RegisteredFiles(OtherFiles):
    """Behind any client that is registered with fsspec: input and model, and output by way of staging."""

    looks = True
    alone = True  # a client of one connection is used by one thread at a time

    def __init__(self, client: Any, renewed: Callable[[], Any] | None = None) -> None:
        super().__init__(client, renewed)
        self._lock = threading.RLock()
        self.path_of: Callable[[str], str] = str  # what the client takes for a URL
        self._asynchronous = bool(type(client).async_impl) and not _layered(client)
        self.at_once = type(self).at_once if self._asynchronous else 1

    def _turn(self) -> AbstractContextManager[object]:
        """Clients that are written for one thread, and caches that fill one file, are not asked by two."""
        return nullcontext() if self._asynchronous else self._lock

    def key(self, url: str) -> str:
        return str(self.client._strip_protocol(self.path_of(url)))

    def version(self, info: Mapping[str, Any]) -> str:
        marks = (str(info[name]) for name in _MARKS if info.get(name))
        return version(info) or next(marks, "")

    # reading

    def stat(self, url: str) -> FileStat | None:
        self.client.invalidate_cache()  # some keep listings for good
        return super().stat(url)

    def children(self, url: str) -> Sequence[Child]:
        self.client.invalidate_cache()
        return super().children(url)

    def fetch(self, url: str, start: int, stop: int, pin: str = "") -> bytes:
        """raises: InputError NO_RANGES."""
        try:
            if self._asynchronous or type(self.client).cat_file is not AbstractFileSystem.cat_file:
                return super().fetch(url, start, stop, pin)
            with self._opened(url) as file:
                file.seek(start)
                return bytes(file.read(stop - start))
        except (io.UnsupportedOperation, NotImplementedError, AttributeError) as error:  # the last of `blockcache`
            raise InputError(
                f"cannot read '{redact(url)}': its client ({type(self.client).__name__}) reads no range of bytes"
                f" ({error}); copy the file to a disk or another store, and read the copy, or write 'simplecache::'"
                " before its url",
                code="NO_RANGES",
                file=url,
            ) from None

    def _opened(self, url: str) -> Any:
        """Without reading ahead, where the client takes that."""
        try:
            return self.client.open(self.key(url), "rb", cache_type="none")
        except TypeError:
            return self.client.open(self.key(url), "rb")

    # writing

    def create(self, url: str, content: bytes) -> bool:
        with self._writing(url), self._one_at_a_time:
            if self.client.exists(self.key(url)):
                return False
            self._make_folder(self.key(url))
            self.client.pipe_file(self.key(url), content)
            return True

    def replace(self, url: str, content: bytes) -> None:
        with self._writing(url):
            self._make_folder(self.key(url))
            super().replace(url, content)

    def upload(self, spool: Path, url: str) -> None:
        with self._writing(url):
            self._make_folder(self.key(url))
            super().upload(spool, url)

    def _named(self, temporary: str, final: str) -> bool:
        with self._writing(final):
            self._make_folder(final)
            try:
                return super()._named(temporary, final)
            except NotImplementedError:  # no copy: by whatever it takes for a move
                with self._one_at_a_time:
                    if type(self.client).mv is AbstractFileSystem.mv:
                        raise
                    self.client.mv(temporary, final)
                    return True

    def _make_folder(self, path: str) -> None:
        with suppress(Exception):  # many know no folders; where one is missing, the write says so
            super()._make_folder(path)

    @contextmanager
    def _writing(self, url: str) -> Iterator[None]:
        """raises: OutputError where the client does not write at all."""
        try:
            yield
        except (io.UnsupportedOperation, NotImplementedError) as error:
            raise OutputError(
                f"cannot write to '{redact(url)}': its client ({type(self.client).__name__}) does not write files, or"
                f" can neither copy nor move them ({error}); choose another output"
            ) from None


class ArchiveFiles(RegisteredFiles):
    """What lies in a file, or behind a cache: read, and never written."""

    read_only = True


def _layered(client: Any) -> bool:
    return any(cls.__name__ == "ChainedFileSystem" for cls in type(client).__mro__)
