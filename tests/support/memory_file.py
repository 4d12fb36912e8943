"""A fake store and its open file: the content is in memory, and never changes."""

from __future__ import annotations

import io
from typing import Any

from connectors.store.store import FileStat


class MemoryFile(io.BytesIO):
    """As `connectors.store.files.OpenFile`, as far as readers of formats need it."""

    def settle(self) -> None:
        """It is what it was."""


class MemoryStore:
    """A store of one file."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def stat(self, path: str) -> FileStat:
        return FileStat(path, len(self.content), "1")

    def open(self, path: str, planned: FileStat | None = None) -> Any:
        return MemoryFile(self.content)
