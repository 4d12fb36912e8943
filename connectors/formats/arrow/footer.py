"""The footer of an Arrow IPC file: which messages it lists, whether these are all there are, and a reader of them.

Owns which files are refused before a batch is read. The invariant: no thread of Arrow holds a file behind the back of
who closed it.
"""

from __future__ import annotations

import struct
import time
import weakref
from collections.abc import Sequence

import pyarrow as pa

from connectors.formats.arrow.flatbuffer import FlatTable
from connectors.formats.arrow.gap import FRONT_BYTES, hidden_batch
from connectors.formats.arrow.message import NEWEST_VERSION, Place
from connectors.formats.buffered import TAIL_BYTES, BufferedFile
from connectors.formats.fault import refusing, unreadable, wrong_magic
from jobs.errors import InputError

MAGIC = b"ARROW1"

_MAGIC_BYTES = 8  # filled up
_END_BYTES = 10  # length of the footer, magic

_MOST_WAITS, _WAIT_S = 200, 0.001  # for an I/O thread of Arrow, which needs microseconds


def hold_ends(file: BufferedFile) -> None:
    """The start of a file, and the end, where that is not done yet."""
    start, end = min(_MAGIC_BYTES + FRONT_BYTES, file.size), max(0, file.size - TAIL_BYTES)
    if not (file.holds(0, start) and file.holds(end, file.size)):
        file.hold([(0, start), (end, file.size)])


def read_places(file: BufferedFile) -> tuple[list[Place], list[Place]]:
    """Find the footer, and what it lists: record batches, and dictionaries.

    raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_FOOTER, FILE_UNSUPPORTED.
    """
    try:
        hold_ends(file)
        found = bytes(_footer_bytes(file))
        footer = FlatTable.root(found)
        version = footer.number(0, "<h")
        if version > NEWEST_VERSION:
            raise unreadable(
                file,
                "FILE_UNSUPPORTED",
                f"its metadata version is V{version + 1}; up to V{NEWEST_VERSION + 1} are read",
            )
        batches, dictionaries = ([Place(*place) for place in footer.structs(field, "<qi4xq")] for field in (3, 2))
        for place in (*batches, *dictionaries):
            if min(place.offset, place.metadata_bytes, place.body_bytes) < 0 or place.stop > file.size:
                raise struct.error(
                    f"a batch at {place.offset} with {place.metadata_bytes} + {place.body_bytes} bytes"
                    " is not inside the file"
                )
        listed = [(place.offset, place.stop) for place in (*batches, *dictionaries)]
        _check_listed(file, listed, file.size - _END_BYTES - len(found))
        return batches, dictionaries
    except struct.error as error:
        raise unreadable(file, "FILE_FOOTER", f"its footer cannot be parsed: {error}") from error


def _check_listed(file: BufferedFile, places: Sequence[tuple[int, int]], footer: int) -> None:
    """Every batch of the file is in the list of its footer, once: or rows would be lost or doubled without an error.

    footer: where it begins. raises: InputError FILE_FOOTER.
    """
    at = _MAGIC_BYTES
    for start, stop in [*sorted(places), (footer, footer)]:
        if start < at:
            found = f"what its footer lists at {start} overlaps the one before"
            raise unreadable(file, "FILE_FOOTER", found)
        if (hidden := hidden_batch(file, at, start)) is not None:
            raise unreadable(file, "FILE_FOOTER", f"the batch at {hidden} is in no list of its footer")
        at = stop


def _footer_bytes(file: BufferedFile) -> pa.Buffer:
    if file.size == 0:
        raise unreadable(file, "FILE_EMPTY", "it has zero bytes")
    head = bytes(file.take(0, min(_MAGIC_BYTES, file.size)))
    end = bytes(file.take(max(0, file.size - _END_BYTES), file.size))
    if not head.startswith(MAGIC):
        raise wrong_magic(file, "an Arrow IPC file")
    if end[4:] != MAGIC:
        raise unreadable(
            file, "FILE_TRUNCATED", f"it starts as Arrow IPC, but its {file.size} bytes do not end with a footer"
        )
    length = int.from_bytes(end[:4], "little", signed=True)
    if not 0 < length <= file.size - len(end) - len(MAGIC):
        raise unreadable(file, "FILE_FOOTER", f"its footer claims {length} bytes, the file has {file.size}")
    return file.take(file.size - len(end) - length, file.size - len(end))


def stored_schema(file: BufferedFile) -> pa.Schema:
    """The schema in the types of the file. raises: as `read_places`; InputError FILE_SCHEMA."""
    footer = bytes(_footer_bytes(file))
    alone = MAGIC.ljust(_MAGIC_BYTES, b"\0") + footer + len(footer).to_bytes(4, "little") + MAGIC
    with refusing(file, "FILE_FOOTER", "its footer cannot be parsed"):
        schema = pa.ipc.open_file(pa.BufferReader(alone)).schema
        _ = schema.names  # decodes them
        return schema


class BatchReader:
    """Decodes record batches of an open file, of the top-level fields at the indices `columns`. Closed when it is done.

    pyarrow (26.0) reads the footer in an I/O thread, which lets go of the file a moment after the reader was handed
    out. A thread that is the last to do so when Python ends aborts the process: `close` waits for it.
    """

    def __init__(self, file: BufferedFile, columns: Sequence[int]) -> None:
        """raises: InputError FILE_UNSUPPORTED, FILE_SCHEMA, FILE_FOOTER."""
        options = pa.ipc.IpcReadOptions(included_fields=list(columns), use_threads=False)
        lent = _Lent(file)
        self._lent = weakref.ref(lent)
        self._reader: pa.RecordBatchFileReader | None = None
        try:
            with refusing(file, "FILE_FOOTER", "its footer cannot be parsed"):
                self._reader = pa.ipc.open_file(pa.PythonFile(lent, mode="r"), options=options)
        except InputError:
            del lent
            self.close()
            raise

    def batch(self, index: int) -> pa.RecordBatch:
        """raises: what pyarrow raises for bad bytes."""
        assert self._reader is not None, "read before it is closed"
        return self._reader.get_batch(index)

    def close(self) -> None:
        self._reader = None
        for _ in range(_MOST_WAITS):  # an error on its way may hold the reader: then the thread is not the last
            if self._lent() is None:
                return
            time.sleep(_WAIT_S)


class _Lent:
    """A file as pyarrow holds it: this object lives as long as pyarrow holds it, and no longer."""

    closed = False

    def __init__(self, file: BufferedFile) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell
