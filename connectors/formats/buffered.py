"""An input file between the store that fetches and the library that decodes.

Owns the bytes in between: chosen ranges are fetched in few large reads and held in memory, so that decoding does
no I/O. Knows no format. The invariant: what goes wrong in here is the store's fault (InputError, StorageError);
whatever a decoder then finds wrong is the file's.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterable
from typing import Any, BinaryIO

import pyarrow as pa

from connectors.secret import redact
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError, MemoryLimitError, RunnerError, StorageError

# A damaged file of a few kB can claim any size. No row group that one worker can hold comes near this.
MAX_ROW_GROUP_BYTES = 16 * 2**30

TAIL_BYTES = 64 * 1024  # holds nearly every footer; the first read that pyarrow makes too
_GAP_BYTES = 256 * 1024  # takes about as long to fetch as the round trip that it saves

_KNOWN_STARTS = {
    b"\x1f\x8b": "a gzip file: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"PAR1": "a Parquet file: say 'format: parquet'",
    b"ARROW1": "an Arrow IPC file: say 'format: arrow'",
    b"\xff\xff\xff\xff": "an Arrow IPC stream",
    b"FEA1": "a Feather V1 file: write it again with pyarrow.feather.write_feather",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"<": "HTML or XML, perhaps an error page that was saved as data",
    b"{": "JSON",
    b"[": "JSON",
}


class HeldFile(io.RawIOBase):
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

    def hold(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch `ranges` (start, stop), near ones together; they take the place of what was held before."""
        self._held = []  # first: two row groups are never held at once
        self._held = [(start, self._fetch(start, stop)) for start, stop in coalesced(ranges)]

    def take(self, start: int, stop: int) -> pa.Buffer:
        """The bytes from `start` to `stop`; a view where they are held."""
        for first, buffer in self._held:
            if first <= start and stop <= first + buffer.size:
                return buffer.slice(start - first, stop - start)
        return self._fetch(start, stop)

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

    def _fetch(self, start: int, stop: int) -> pa.Buffer:
        buffer = pa.allocate_buffer(stop - start)
        view, filled, began = memoryview(buffer), 0, time.perf_counter()
        try:
            self._file.seek(start)
            # One call may bring less than asked for: POSIX reads end at 2 GiB, sockets earlier.
            while filled < len(view) and (count := self._file.readinto(view[filled:])):  # type: ignore[attr-defined]
                filled += count
        except OSError as error:
            raise StorageError(f"cannot read '{redact(self.url)}': {redact(str(error))}", file=self.url) from error
        finally:
            self.fetch_s += time.perf_counter() - began
        if filled < len(view):
            raise StorageError(
                f"cannot read '{redact(self.url)}': {len(view)} bytes at {start} asked for, {filled} came",
                file=self.url,
            )
        return buffer


def coalesced(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted ranges, those joined that overlap or have less than 256 KiB between them."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start - joined[-1][1] <= _GAP_BYTES:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


def check_unchanged(store: Store, inputs: InputSlice) -> None:
    """raises: DataError FILE_CHANGED if the file is not the one that was planned."""
    found = store.stat(inputs.url)
    if found is None:
        now = "it is gone"
    elif found.size != inputs.size:
        now = f"it has {found.size} bytes now, and had {inputs.size}"
    elif found.version and inputs.version and found.version != inputs.version:
        now = f"its version is {found.version!r} now, and was {inputs.version!r}"
    else:
        return
    raise DataError(
        f"cannot read '{redact(inputs.url)}': changed since plan, {now}; start a new job for the new content",
        code="FILE_CHANGED",
        file=inputs.url,
    )


def unreadable(file: HeldFile, code: str, found: object) -> InputError:
    """The error for a file that cannot be read at all. found: what is wrong, or the exception that says so."""
    return InputError(f"cannot read '{redact(file.url)}': {one_line(found)}", code=code, file=file.url)


def wrong_magic(file: HeldFile, wanted: str, hint: str = "") -> InputError:
    """FILE_MAGIC: says the first bytes in hex, and what such bytes mean where that is known."""
    head = bytes(file.take(0, min(8, file.size)))
    known = next((meaning for start, meaning in _KNOWN_STARTS.items() if head.startswith(start)), "")
    found = f"not {wanted}: its first bytes are {head.hex(' ')}" + (f" ({known})" if known else "") + hint
    return unreadable(file, "FILE_MAGIC", found)


def while_running(error: InputError) -> DataError:
    """A file that was readable when the plan was made: now a matter of data, not of the job."""
    return DataError(error.message, **error.facts)


def bad_row_group(
    inputs: InputSlice, row_group: int, code: str, found: object, column: str | None = None
) -> RunnerError:
    """The error for one row group of a file, and one column of it where that is known."""
    where = f"row group {row_group}" + (f" column {column!r}" if column is not None else "")
    facts = {"code": code, "file": inputs.url, "row_group": row_group}
    return DataError(
        f"cannot read '{redact(inputs.url)}' {where}: {one_line(found)}",
        **facts | ({"column": column} if column is not None else {}),
    )


def wrong_rows(inputs: InputSlice, row_group: int, rows: int, column: str | None = None) -> RunnerError:
    planned = inputs.rows[row_group - inputs.first]
    return bad_row_group(inputs, row_group, "ROWGROUP_ROWS", f"{rows} rows found, {planned} expected", column)


def out_of_memory(inputs: InputSlice, row_group: int, code: str, error: MemoryError) -> RunnerError:
    """Memory ran out, or (DataError with `code`) a damaged length asked for more than there can be."""
    asked = re.search(r"size (\d+)", str(error))
    if asked is not None and int(asked[1]) > MAX_ROW_GROUP_BYTES:
        return bad_row_group(inputs, row_group, code, error)
    return MemoryLimitError(f"no memory to decode '{redact(inputs.url)}' row group {row_group}: {error}")


def one_line(found: object, most: int = 300) -> str:
    """The text of an exception, fit for a message: pyarrow's may hold line breaks and whole schemas."""
    text = " ".join(str(found).split())
    return text if len(text) <= most else text[:most] + "..."
