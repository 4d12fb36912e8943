"""NumPy's `.npz` files as input: archives of arrays, each a column.

An array that is stored as it is, is read in ranges; one that is deflated is unpacked from its front up to the rows
that are wanted, a piece at a time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import one_line, unreadable, wrong_magic
from connectors.formats.typed.array_source import ERRORS, ArraySource, Member, Stored, behind
from connectors.formats.typed.ndarray import MAGIC, UnreadableError, read_layout
from connectors.formats.typed.stream import stream

_ZIP = b"PK\x03\x04"
_SUFFIX = ".npy"
_NAME_AT, _MOST_NAME_BYTES = 30, 512  # of the first member in the archive. source: APPNOTE.TXT 4.3.7
_ENCRYPTED = 1  # of the flags
_PIECE_BYTES = 2**20


class NpzSource(ArraySource):
    suffixes: tuple[str, ...] = (".npz",)

    def begins(self, head: bytes) -> bool:
        return head.startswith(_ZIP) and _SUFFIX.encode() in head[_NAME_AT : _NAME_AT + _MOST_NAME_BYTES]

    def members(self, file: BufferedFile) -> list[Member]:
        if file.size == 0:
            raise unreadable(file, "FILE_EMPTY", "it has zero bytes")
        if bytes(file.take(0, min(2, file.size))) != _ZIP[:2]:
            raise wrong_magic(file, "a NumPy archive")
        opened = stream(file)
        with _refusing(file, "FILE_TRUNCATED", "it starts as a zip archive, and has no directory at its end"):
            archive = ZipFile(opened)
        return [_member(file, opened, archive, info) for info in archive.infolist()]


def _member(file: BufferedFile, opened: io.BufferedReader, archive: ZipFile, info: ZipInfo) -> Member:
    name, found = info.filename.removesuffix(_SUFFIX), f"its array {info.filename!r}"
    if not info.filename.endswith(_SUFFIX):
        return Member(info.filename, None, _nothing, "no array of NumPy, by its suffix")
    if info.flag_bits & _ENCRYPTED:
        raise unreadable(file, "FILE_ENCRYPTED", f"{found} is encrypted, and keys are not supported")
    with _refusing(file, "FILE_SCHEMA", f"the header of {found[4:]} cannot be parsed"), archive.open(info) as member:
        at = opened.tell()  # the member was found, and nothing of it is read
        try:
            layout = read_layout(member)
        except UnreadableError as error:
            return Member(name, None, _nothing, str(error), error.code)
    if wrong := behind(found, layout, info.file_size):
        raise unreadable(file, *wrong)
    if info.compress_type == ZIP_STORED and bytes(file.take(at, min(at + len(MAGIC), file.size))) == MAGIC:
        return Member(name, layout, Stored(file, at))
    return Member(name, layout, _Packed(archive, info))


class _Packed:
    """The bytes of an array that is packed, from its front on; those that lie behind cost another start.

    zipfile compares the CRC of an array that is read up to its end.
    """

    def __init__(self, archive: ZipFile, info: ZipInfo) -> None:
        self._archive, self._info = archive, info
        self._member = archive.open(info)
        self._at = 0

    def __call__(self, start: int, stop: int) -> bytes:
        if start < self._at:
            self._member, self._at = self._archive.open(self._info), 0
        while self._at < start:
            self._at += len(self._read(min(_PIECE_BYTES, start - self._at)))
        return self._read_all(stop - start)

    def _read_all(self, size: int) -> bytes:
        content = bytearray()
        while len(content) < size:
            content += self._read(min(_PIECE_BYTES, size - len(content)))
        self._at += size
        return bytes(content)

    def _read(self, size: int) -> bytes:
        try:
            if found := self._member.read(size):
                return found
        except Exception:
            self._member, self._at = self._archive.open(self._info), 0  # for a second try
            raise
        raise EOFError(f"{self._info.filename!r} ends before its rows do")


def _nothing(start: int, stop: int) -> bytes:
    raise EOFError(f"nothing is read of what is no array, from {start} to {stop}")


@contextmanager
def _refusing(file: BufferedFile, code: str, what: str) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:  # a method of compression
        raise unreadable(file, "FILE_UNSUPPORTED", f"{what}: {one_line(error)}") from error
    except ERRORS as error:
        raise unreadable(file, code, f"{what}: {one_line(error)}") from error


SOURCE = NpzSource
