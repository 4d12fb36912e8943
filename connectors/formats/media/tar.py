"""The members of a tar file, by Python's tarfile: where the bytes of each lie.

Knows names, kinds and offsets, not what is in a member. Nothing is ever written to a disk, and no name is ever a path
here. The invariant: each member of a whole file is yielded, left out as what holds no bytes of its own (a folder), or
refused by name; what is no whole file is told, where tarfile would take its damage for its end.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import one_line, unreadable, wrong_magic
from connectors.formats.text.packed import blocks, codec_of
from jobs.errors import InputError

BLOCK = tarfile.BLOCKSIZE
_MOST_HEADER_BYTES = 2**16  # of a long name, or of attributes: more is nobody's, and takes tarfile long to search
_REFUSED_GLOBALS = ("path", "linkpath", "size", "hdrcharset")  # what a header for all members may not say
_AHEAD_NEAR, _AHEAD_FAR = 16 * 2**10, 2**18  # read with a header; a round trip takes as long as 256 KiB


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file. offset: of its first header, be it of a long name. start, size: of its bytes. end: of it all."""

    name: str
    offset: int
    start: int
    size: int
    end: int


class Plain:
    """The bytes of a file that is not packed. ahead: read at least, from header to header, up to `end`."""

    def __init__(self, file: BufferedFile, ahead: int, end: int) -> None:
        self._file, self._ahead, self._end = file, ahead, end
        self._first, self._near = 0, b""

    def take(self, start: int, stop: int) -> bytes:
        """Fewer at the end."""
        start, stop = min(start, self._file.size), min(stop, self._file.size)
        if start >= self._first and stop <= self._first + len(self._near):
            return self._near[start - self._first : stop - self._first]
        if stop - start >= self._ahead:
            return bytes(self._file.take(start, stop).to_pybytes())
        self._first = start
        self._near = self._file.take(start, max(stop, min(self._end, start + self._ahead))).to_pybytes()
        return self._near[: stop - start]


class Unpacked:
    """The bytes of a packed file, from the front: none before those that were taken last."""

    def __init__(self, file: BufferedFile) -> None:
        self._blocks = blocks(file)
        self._at, self._held = 0, b""  # the first byte that is held, in the unpacked file

    def take(self, start: int, stop: int) -> bytes:
        """Fewer at the end. raises: InputError FILE_TRUNCATED, FILE_CORRUPT."""
        if start < self._at:
            raise ValueError(f"byte {start} was left behind at {self._at}")
        while self._at + len(self._held) < start and (block := next(self._blocks, b"")):
            self._at, self._held = self._at + len(self._held), block
        parts, self._at = [self._held[start - self._at :]], start
        size = len(parts[0])
        while size < stop - start and (block := next(self._blocks, b"")):
            parts.append(block)
            size += len(block)
        self._held = b"".join(parts)
        return self._held[: stop - start]


Content = Plain | Unpacked


def content_of(file: BufferedFile, *, near: bool, end: int | None = None) -> Content:
    """near: whether bytes of the file are at hand: it is on a disk, or they were fetched. end: of what is wanted."""
    if codec_of(file.url) is not None:
        return Unpacked(file)
    return Plain(file, _AHEAD_NEAR if near else _AHEAD_FAR, file.size if end is None else end)


def is_header(block: bytes) -> bool:
    """Whether a tar file may begin with these bytes."""
    try:
        tarfile.TarInfo.frombuf(block[:BLOCK], "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


class _BadHeaderError(Exception):
    pass


class _Headers:
    """What tarfile reads headers from: a file that does not bring more than a header may have.

    head: its first block. short: whether it ended before what was asked for.
    """

    def __init__(self, content: Content, at: int) -> None:
        self._content, self._at = content, at
        self.head = content.take(at, at + BLOCK)
        self.short = False

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise _BadHeaderError(f"a header claims {size:,} bytes; up to {_MOST_HEADER_BYTES:,} are read")
        found = self._content.take(self._at, self._at + size)
        self._at += len(found)
        self.short = self.short or len(found) < size
        return found

    def seek(self, place: int) -> int:
        self._at = place
        return place

    def tell(self) -> int:
        return self._at


def members(file: BufferedFile, content: Content, start: int = 0, stop: int | None = None) -> Iterator[Member]:
    """The regular files among the members that begin from `start` on, up to `stop` or the end of the file.

    raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_CORRUPT; FILE_UNSUPPORTED where a member is none
            that could be read without its bytes being elsewhere.
    """
    archive: tarfile.TarFile | None = None
    headers: Any = _Headers(content, start)
    if start == 0 and (not headers.head or (headers.head.strip(b"\0") and not is_header(headers.head))):
        raise _no_tar(file, content)
    while True:
        try:
            archive = archive or tarfile.TarFile(fileobj=headers, mode="r", encoding="utf-8")
            info = archive.next()
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
        except (tarfile.TarError, _BadHeaderError, ValueError, IndexError, RecursionError) as error:
            code = "FILE_TRUNCATED" if headers.short else "FILE_CORRUPT"
            at = start if archive is None else archive.offset
            raise unreadable(file, code, f"it is damaged near byte {at:,}: {one_line(error)}") from error
        if info is None:
            _require_end(file, content, archive.offset)
            return
        if info.size < 0 or archive.offset < info.offset_data:
            raise unreadable(file, "FILE_CORRUPT", f"member {info.name!r} at byte {info.offset:,} has a size below 0")
        _refuse(file, info, archive.pax_headers)
        if info.isreg():
            yield Member(info.name, info.offset, info.offset_data, info.size, archive.offset)
        if stop is not None and archive.offset >= stop:
            return


def _refuse(file: BufferedFile, info: tarfile.TarInfo, for_all: Mapping[str, str]) -> None:
    """raises: InputError FILE_UNSUPPORTED where a member holds no bytes of its own, or its name is that of a path."""
    way = ""
    if info.issym() or info.islnk():
        kind, way = f"a link to {info.linkname!r}", "write what it means with `tar --dereference --hard-dereference`"
    elif info.ischr() or info.isblk() or info.isfifo():
        kind, way = "a device or a pipe", "leave it out"
    elif info.sparse is not None:
        kind, way = "a file with holes", "write it without `tar --sparse`"
    elif not info.isreg() and not info.isdir():
        kind, way = f"of an unknown kind, {info.type!r}", "write the tar again"
    elif info.name.startswith("/") or ".." in info.name.split("/"):
        kind, way = "a path that leads out of any folder", "write the names relative to a folder: `tar -C FOLDER .`"
    if way:
        where = f"member {info.name!r} at byte {info.offset:,}"
        raise unreadable(file, "FILE_UNSUPPORTED", f"{where} is {kind}, and nothing is unpacked to a disk: {way}")
    if said := [name for name in _REFUSED_GLOBALS if name in for_all]:
        text = f"a global header states {said[0]!r} for all members that follow: write the tar again"
        raise unreadable(file, "FILE_UNSUPPORTED", text)


def _no_tar(file: BufferedFile, content: Content) -> InputError:
    if not file.size:
        return unreadable(file, "FILE_EMPTY", "it has no bytes")
    if isinstance(content, Unpacked):
        return unreadable(file, "FILE_MAGIC", f"what its {codec_of(file.url)} stream holds is no tar file")
    return wrong_magic(file, "a tar file")


def _require_end(file: BufferedFile, content: Content, at: int) -> None:
    """tarfile takes what is no header for the end of a file.

    raises: InputError FILE_MAGIC, FILE_TRUNCATED, FILE_CORRUPT where it is none: a block of zeros, and nothing behind.
    """
    mark = content.take(at, at + BLOCK)
    if len(mark) < BLOCK:
        raise unreadable(
            file,
            "FILE_TRUNCATED",
            f"it ends at byte {at + len(mark):,} without the zeros that end a tar file: copy it again, or, if it is"
            " whole, append 1,024 of them",
        )
    if mark.strip(b"\0"):
        raise unreadable(file, "FILE_CORRUPT", f"what is at byte {at:,} is no header of a member")
    at += BLOCK
    while block := content.take(at, at + 2**20):
        if block.strip(b"\0"):
            found = "more follows the end of the tar file"
            raise unreadable(
                file, "FILE_CORRUPT", f"{found}, at byte {at:,}: join tar files with `tar --concatenate`, not `cat`"
            )
        at += len(block)
