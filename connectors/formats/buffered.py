"""An input file between the store that fetches and the library that decodes.

Owns the bytes in between: chosen ranges are fetched in few large reads, from a remote store together, and held in
memory, so that decoding does no I/O. Knows no format. The invariant: what goes wrong in here is the store's fault
(InputError, StorageError); whatever a decoder then finds wrong is the file's.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from connectors.secret import redact
from connectors.store.remote import RangeFile
from jobs.errors import StorageError

TAIL_BYTES = 64 * 1024  # holds nearly every footer; the first read that pyarrow makes too
_GAP_BYTES = 256 * 1024  # takes about as long to fetch as the round trip that it saves


class BufferedFile(io.RawIOBase):
    """A readable file of known size. `hold` fetches byte ranges; reads inside them cost no I/O, others pass through.

    raises (all that read): StorageError where bytes could not be fetched, or fewer came than the file should have.
    """

    def __init__(self, file: BinaryIO, url: str, size: int) -> None:
        super().__init__()
        self.url = url
        self.size = size
        self.fetch_s = 0.0  # spent on fetching bytes so far
        self._file = file
        self._position = 0
        self._held: list[tuple[int, pa.Buffer]] = []

    def hold(
        self,
        ranges: Iterable[tuple[int, int]],
        known: Iterable[tuple[int, pa.Buffer]] = (),
        gap_bytes: int = _GAP_BYTES,
    ) -> None:
        """Fetch `ranges` (start, stop), near ones together; they take the place of what was held before.

        known:     (start, bytes) that were fetched already, to be held beside them.
        gap_bytes: between ranges that are fetched together.
        """
        self._held = []  # first: two row groups are never held at once
        joined = coalesced(ranges, gap_bytes)
        self._held = [(start, buffer) for (start, _), buffer in zip(joined, self._fetched(joined), strict=True)]
        self._held += known

    def holds(self, start: int, stop: int) -> bool:
        """Whether the bytes from `start` to `stop` cost no I/O."""
        return any(first <= start and stop <= first + buffer.size for first, buffer in self._held)

    def take(self, start: int, stop: int) -> pa.Buffer:
        """The bytes from `start` to `stop`; a view where they are held."""
        for first, buffer in self._held:
            if first <= start and stop <= first + buffer.size:
                return buffer.slice(start - first, stop - start)
        return self._fetched([(start, stop)])[0]

    def tail(self) -> pa.Buffer:
        """The last 64 KiB, or all of a smaller file; held until the next `hold`."""
        start = max(0, self.size - TAIL_BYTES)
        self.hold([(start, self.size)])
        return self.take(start, self.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        return self._position

    def read(self, size: int | None = -1) -> Any:
        """A buffer, not bytes: pyarrow takes it without a copy."""
        start = min(self._position, self.size)
        stop = self.size if size is None or size < 0 else min(start + size, self.size)
        self._position = stop
        return self.take(start, stop)

    def close(self) -> None:
        if not self.closed:
            self._held = []
            self._file.close()
        super().close()

    def _fetched(self, ranges: Sequence[tuple[int, int]]) -> list[pa.Buffer]:
        """Of a remote file together, by as many requests as its store takes at once."""
        buffers, began = [pa.allocate_buffer(stop - start) for start, stop in ranges], time.perf_counter()
        targets = [(start, memoryview(buffer).cast("B")) for (start, _), buffer in zip(ranges, buffers, strict=True)]
        try:
            if isinstance(self._file, RangeFile):
                self._file.fill(targets)
            else:
                for start, target in targets:
                    self._read_into(start, target)
        except OSError as error:
            raise StorageError(f"cannot read '{redact(self.url)}': {redact(str(error))}", file=self.url) from error
        finally:
            self.fetch_s += time.perf_counter() - began
        return buffers

    def _read_into(self, start: int, target: memoryview) -> None:
        filled = 0
        self._file.seek(start)
        # One call may bring less than wanted: POSIX reads end at 2 GiB, sockets earlier.
        while filled < len(target) and (count := self._file.readinto(target[filled:])):  # type: ignore[attr-defined]
            filled += count
        if filled < len(target):
            raise StorageError(
                f"cannot read '{redact(self.url)}': {len(target)} bytes at {start} asked for, {filled} came",
                file=self.url,
            )


def coalesced(ranges: Iterable[tuple[int, int]], gap_bytes: int = _GAP_BYTES) -> list[tuple[int, int]]:
    """Sorted ranges, those joined that overlap or have at most `gap_bytes` between them."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start - joined[-1][1] <= gap_bytes:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined
