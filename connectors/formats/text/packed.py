"""The bytes of a text file, unpacked where its name says that it is packed.

Owns the suffixes of packed files and the bounds while they unpack; knows no format. The invariant: bytes come in blocks
of `BLOCK_BYTES` at most, in order, however far a small file unpacks.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import unreadable

CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4", ".br": "brotli"}  # as pyarrow streams them
_JOINED = {".tgz": "gzip"}
BLOCK_BYTES = 2**18  # what is counted at once stays in the cache: measured 1.5 times as fast as 4 MiB
_AHEAD_BYTES = 8 * 2**20  # fetched at once


def with_packed(suffixes: Sequence[str]) -> tuple[str, ...]:
    """`suffixes`, and each of them with that of each codec behind."""
    return (*suffixes, *(suffix + packed for packed in CODECS for suffix in suffixes))


def codec_of(url: str) -> str | None:
    """How a file of this name is packed; None: it is not."""
    return next((codec for suffix, codec in (CODECS | _JOINED).items() if url.lower().endswith(suffix)), None)


def is_packed(url: str) -> bool:
    """Whether a file of this name is packed, so that all its rows are one row group."""
    return codec_of(url) is not None


def codec_of_head(head: bytes) -> str | None:
    """How a file of text that begins so is packed, of the codecs that parts have."""
    return "gzip" if head.startswith(b"\x1f\x8b") else "zstd" if head.startswith(b"\x28\xb5\x2f\xfd") else None


def blocks(
    file: BufferedFile, start: int = 0, stop: int | None = None, codec: Callable[[str], str | None] = codec_of
) -> Iterator[bytes]:
    """The unpacked bytes from `start` to `stop`, or to the end; none is empty.

    codec:  tells from the url how the file is packed.
    cost:   what lies before `start` of a packed file is unpacked too.
    raises: InputError FILE_TRUNCATED, FILE_CORRUPT where a packed file is damaged; StorageError.
    """
    packed = codec(file.url)
    if packed is None:
        yield from _plain(file, start, file.size if stop is None else min(stop, file.size))
        return
    at = 0
    for block in _unpacked(file, packed):
        first, last = max(start - at, 0), len(block) if stop is None else min(stop - at, len(block))
        if first < last:
            yield block[first:last] if (first, last) != (0, len(block)) else block
        at += len(block)
        if stop is not None and at >= stop:
            return


def _plain(file: BufferedFile, start: int, stop: int) -> Iterator[bytes]:
    for ahead in range(start, stop, _AHEAD_BYTES):
        last = min(stop, ahead + _AHEAD_BYTES)
        content = file.take(ahead, last)
        for at in range(0, last - ahead, BLOCK_BYTES):
            yield content.slice(at, min(BLOCK_BYTES, last - ahead - at)).to_pybytes()


def _unpacked(file: BufferedFile, codec: str) -> Iterator[bytes]:
    with pa.CompressedInputStream(_Ahead(file), codec) as stream:
        while True:
            try:
                block = stream.read(BLOCK_BYTES)
            except OSError as error:  # what goes wrong while fetching is none
                code = "FILE_TRUNCATED" if "truncated" in str(error).lower() else "FILE_CORRUPT"
                what = "ends in the middle" if code == "FILE_TRUNCATED" else f"is damaged: {error}"
                raise unreadable(file, code, f"its {codec} stream {what}") from error
            if not block:
                return
            yield block


class _Ahead(io.RawIOBase):
    """A file that is read from the front in small pieces, as Arrow's streams do, and fetched in large ones."""

    def __init__(self, file: BufferedFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> Any:
        start = self._at
        self._at = self._file.size if size is None or size < 0 else min(self._file.size, start + size)
        if not self._file.holds(start, self._at):
            self._file.hold([(start, min(self._file.size, max(self._at, start + _AHEAD_BYTES)))])
        return self._file.take(start, self._at)
