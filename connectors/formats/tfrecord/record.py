"""The framing of TFRecord files: each record with its length, and the CRC32C of both.

Knows bytes, not what they mean (tensorflow/core/lib/io/record_writer.h). A file has no index and no footer:
where its records are shows only a walk from length to length through the whole of it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import unreadable, wrong_magic
from connectors.formats.tfrecord.example import binary
from jobs.errors import InputError, JobError

_HEAD = struct.Struct("<QI")  # length, its CRC
_CRC = struct.Struct("<I")
FRAME_BYTES = _HEAD.size + _CRC.size  # of a record beside its own
_MASK = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h: a CRC of bytes that hold CRCs is weak
_GZIP = b"\x1f\x8b"
_MOST_RECORD_BYTES = 2**30  # of one record: a binary column holds 2 GiB
_BLOCK_BYTES = 2**20  # read at once while walking; longer records are stepped over
_INFLATED_BYTES = 8 * 2**20  # at once: a small file can unpack to any size


@cache
def _crc32c() -> Callable[[bytes], int]:
    try:
        import google_crc32c  # an extra: only these files need it
    except ImportError:
        message = "cannot use TFRecord files: the package 'google-crc32c' is missing"
        raise JobError(f"{message}; pip install 'savedmodel-runner[tfrecord]'") from None
    value: Callable[[bytes], int] = google_crc32c.value
    return value


def masked_crc(content: bytes) -> int:
    """The CRC32C of bytes as TFRecord files hold it."""
    crc = _crc32c()(content)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


class Packed:
    """The content of a gzip file, read from the front; `take` of what lies behind unpacks it once more."""

    size: int | None = None  # known at the end only

    def __init__(self, file: BufferedFile) -> None:
        self._file = file
        self._restart()

    def _restart(self) -> None:
        self._read_at, self._at, self._buffer = 0, 0, b""  # in the file; of the buffer in the content
        self._input = b""
        self._inflate = zlib.decompressobj(wbits=31)

    def take(self, start: int, stop: int) -> bytes:
        """The bytes from `start`; fewer than wanted at the end. raises: InputError FILE_TRUNCATED, FILE_CORRUPT."""
        if start < self._at:
            self._restart()
        parts: list[bytes] = []
        while self._at + len(self._buffer) < start and (more := self._more()):
            self._at, self._buffer = self._at + len(self._buffer), more
        self._buffer, self._at = self._buffer[start - self._at :], start
        held = len(self._buffer)
        while held < stop - start and (more := self._more()):
            parts.append(more)
            held += len(more)
        self._buffer = b"".join([self._buffer, *parts])
        return self._buffer[: stop - start]

    def _more(self) -> bytes:
        while True:
            if self._inflate.eof:
                rest = self._inflate.unused_data
                if not rest and self._read_at >= self._file.size:
                    return b""
                self._input, self._inflate = rest, zlib.decompressobj(wbits=31)  # files may be joined
            if not self._input:
                if self._read_at >= self._file.size:
                    raise unreadable(self._file, "FILE_TRUNCATED", "its gzip stream ends in the middle")
                stop = min(self._file.size, self._read_at + _BLOCK_BYTES)
                self._input, self._read_at = bytes(self._file.take(self._read_at, stop)), stop
            try:
                content = self._inflate.decompress(self._input, _INFLATED_BYTES)
            except zlib.error as error:
                raise unreadable(self._file, "FILE_CORRUPT", f"its gzip stream is damaged: {error}") from error
            self._input = self._inflate.unconsumed_tail
            if content:
                return content


class Plain:
    """The content of a file that is not packed."""

    def __init__(self, file: BufferedFile) -> None:
        self.size: int | None = file.size
        self._file = file

    def take(self, start: int, stop: int) -> bytes:
        start = min(start, self._file.size)
        return bytes(self._file.take(start, min(stop, self._file.size)))


Content = Plain | Packed


def content_of(file: BufferedFile) -> Content:
    """raises: InputError FILE_MAGIC where it begins neither with a record nor as gzip; an empty file has no records."""
    head = bytes(file.take(0, min(_HEAD.size, file.size)))
    whole = len(head) == _HEAD.size
    if not head or (whole and _HEAD.unpack(head)[1] == masked_crc(head[:8])):
        return Plain(file)
    if head.startswith(_GZIP):
        return Packed(file)
    if whole:
        raise wrong_magic(file, "a TFRecord file")
    raise unreadable(file, "FILE_TRUNCATED", f"its {file.size} bytes are less than the head of a record")


def begins(head: bytes) -> bool:
    """Whether the first bytes of a file, packed or not, are the head of a record; False where that cannot be told."""
    try:
        if head.startswith(_GZIP):
            head = zlib.decompressobj(wbits=31).decompress(head, _HEAD.size)
        return len(head) >= _HEAD.size and _HEAD.unpack_from(head)[1] == masked_crc(head[:8])
    except (zlib.error, JobError):
        return False


def lengths(file: BufferedFile, content: Content) -> Iterator[int]:
    """The length of each record, in order; their bytes are not looked at.

    raises: InputError RECORD_CRC where a length is damaged, FILE_TRUNCATED where the last record is not whole,
            ROWGROUP_TOO_BIG.
    """
    block, first, at, number = b"", 0, 0, 0
    while True:
        if at + _HEAD.size > first + len(block):
            block, first = content.take(at, at + _BLOCK_BYTES), at
            if not len(block):
                if at != 0 and not len(content.take(at - 1, at)):
                    raise _cut(file, number - 1)
                return
            if len(block) < _HEAD.size:
                raise _cut(file, number)
        length, crc = _HEAD.unpack_from(block, at - first)
        if masked_crc(block[at - first : at - first + 8]) != crc:
            raise unreadable(file, "RECORD_CRC", f"the length of record {number}, at byte {at}, does not fit its CRC")
        if content.size is not None and at + FRAME_BYTES + length > content.size:
            raise _cut(file, number)
        if length > _MOST_RECORD_BYTES:
            raise unreadable(file, "ROWGROUP_TOO_BIG", f"record {number} has {length} bytes; up to 1 GiB are read")
        yield length
        at, number = at + FRAME_BYTES + length, number + 1


def _cut(file: BufferedFile, number: int) -> InputError:
    return unreadable(file, "FILE_TRUNCATED", f"it ends in the middle of record {number}")


class CutError(Exception):
    """No whole record follows, and the file goes on."""


class DamagedError(Exception):
    """A record that does not fit its CRC. Becomes an error of ours where the file is known."""

    def __init__(self, number: int) -> None:
        super().__init__(f"record {number} does not fit its CRC")
        self.number = number


def records(content: bytes) -> list[bytes]:
    """The bytes of the records that `content` is made of. raises: DamagedError, its number counted from 0."""
    cut: list[bytes] = []
    at, crc32c = 0, _crc32c()
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        stop = at + _HEAD.size + length
        record = content[at + _HEAD.size : stop]
        crc = crc32c(record)
        if (
            len(content) < stop + 4
            or ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF != _CRC.unpack_from(content, stop)[0]
        ):
            raise DamagedError(len(cut))
        cut.append(record)
        at = stop + _CRC.size
    return cut


def unchecked(file: BinaryIO, most: int) -> Iterator[bytes]:
    """The records of an open file, one at a time. No CRC is looked at, and no package for that is needed.

    most:   bytes of a record: only shorter ones are read.
    raises: CutError behind the last record that is whole, where the file does not end there.
    """
    while head := file.read(_HEAD.size):
        length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else most
        record = file.read(length) if length < most else b""
        if len(record) != length or len(file.read(_CRC.size)) != _CRC.size:
            raise CutError
        yield record


def framed(values: pa.LargeBinaryArray) -> pa.Buffer:
    """Records as a file holds them."""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int64, len(values) + 1, values.offset * 8)
    content, crc32c = data.to_pybytes() if data is not None else b"", _crc32c()
    crcs = np.fromiter((crc32c(content[start:stop]) for start, stop in pairwise(ends.tolist())), np.uint32, len(values))
    crcs = ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(_MASK)  # as `masked_crc`
    distinct, place = np.unique(np.diff(ends), return_inverse=True)
    lengths = [struct.pack("<Q", length) for length in distinct.tolist()]
    heads = np.frombuffer(b"".join(length + _CRC.pack(masked_crc(length)) for length in lengths), np.uint8)
    head = binary(heads.reshape(-1, _HEAD.size)[place], np.full(len(values), _HEAD.size))
    tail = binary(crcs.astype("<u4"), np.full(len(values), _CRC.size))
    joined = pc.binary_join_element_wise(head, values, tail, pa.scalar(b"", pa.large_binary()))
    return joined.buffers()[2].slice(0, len(values) * FRAME_BYTES + int(ends[-1] - ends[0]))
