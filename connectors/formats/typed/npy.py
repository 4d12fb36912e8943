"""NumPy's `.npy` files as input: the one array is the column `data`, one with fields is a column for each of them."""

from __future__ import annotations

from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import one_line, unreadable, wrong_magic
from connectors.formats.typed.array_source import ERRORS, ArraySource, Member, Stored, behind
from connectors.formats.typed.ndarray import MAGIC, Layout, UnreadableError, read_layout
from connectors.formats.typed.stream import stream

DATA = "data"


class NpySource(ArraySource):
    suffixes: tuple[str, ...] = (".npy",)

    def begins(self, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def members(self, file: BufferedFile) -> list[Member]:
        if file.size == 0:
            raise unreadable(file, "FILE_EMPTY", "it has zero bytes")
        if bytes(file.take(0, min(len(MAGIC), file.size))) != MAGIC:
            raise wrong_magic(file, "a NumPy file")
        opened = stream(file)
        try:
            layout = read_layout(opened)
        except UnreadableError as error:
            raise unreadable(file, error.code, f"its array is {error}") from error
        except ERRORS as error:
            code = "FILE_TRUNCATED" if opened.tell() >= file.size else "FILE_SCHEMA"
            raise unreadable(file, code, f"its header cannot be parsed: {one_line(error)}") from error
        if wrong := behind("its array", layout, file.size):
            raise unreadable(file, *wrong)
        return _members(file, layout)


def _members(file: BufferedFile, layout: Layout) -> list[Member]:
    take = Stored(file)
    names = layout.dtype.names
    if names is None or len(layout.shape) > 1:
        return [Member(DATA, layout, take)]
    return [Member(name, layout, take, of=name) for name in names]


SOURCE = NpySource
