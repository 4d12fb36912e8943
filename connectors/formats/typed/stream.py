"""An input file as libraries of Python read it: a stream of bytes that begins somewhere and can be sought."""

from __future__ import annotations

import io
import os
from typing import Any

from connectors.formats.buffered import BufferedFile

AHEAD_BYTES = 2**20  # fetched at once


class _Raw(io.RawIOBase):
    def __init__(self, file: BufferedFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        start = min(self._at, self._file.size)
        found = self._file.take(start, min(start + len(buffer), self._file.size))
        buffer[: len(found)] = memoryview(found).cast("B")
        self._at = start + len(found)
        return len(found)


def stream(file: BufferedFile) -> io.BufferedReader:
    """From the first byte on. What a read raises is the store's: StorageError. To close it leaves `file` open."""
    return io.BufferedReader(_Raw(file), AHEAD_BYTES)
