"""Stores that refuse no name: a name is looked at and then written. Processes may race there, threads do not.

`memory://` is one of them, and so is whatever is only read over HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from connectors.store.remote import PlacedFiles, version


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


class WebFiles(OtherFiles):
    read_only = True

    def pin(self, info: Mapping[str, Any]) -> str:
        """The time, where there is no etag: it has never been a version, and plans that are stored stay valid."""
        return "" if version(info) else str(info.get("Last-Modified", ""))
