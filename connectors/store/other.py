"""Stores that refuse no name: a name is looked at and then written. Processes may race there, threads do not.

`memory://` is one of them, and so is whatever is only read over HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from fsspec.asyn import sync

from connectors.secret import redact
from connectors.store.remote import PlacedFiles, version
from jobs.errors import InputError


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
