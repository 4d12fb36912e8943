"""What lies between the messages that the footer of an Arrow IPC file lists, and whether rows hide there.

Readers of files take the footer and need nothing else, so writers differ: Arrow C++ puts the schema there with its
frame, Polars without one, arrow-rs fills the magic up to 64 bytes, Arrow for JavaScript puts nothing. The invariant:
only a whole record batch or dictionary that no list names is damage; anything else there says nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from connectors.formats.arrow.flatbuffer import FlatTable
from connectors.formats.arrow.message import BATCHES, NEWEST_VERSION, STREAM
from connectors.formats.buffered import BufferedFile

# Of a message: builders put the root of a flatbuffer first, so that less than this tells its kind.
FRONT_BYTES = 4096
_ALIGNMENT = 8  # of messages; pyarrow refuses others
_SHORTEST = 64  # bytes; the shortest batch, of no columns, has 80, and padding is shorter than 64
_WINDOW_BYTES = 8 * 2**20  # looked at in one piece


@dataclass(frozen=True)
class _Message:
    """stop: in the file, with its body."""

    kind: int
    stop: int


def hidden_batch(file: BufferedFile, start: int, stop: int) -> int | None:
    """Where between `start` and `stop` a whole record batch or dictionary lies; None: nowhere.

    cost: nothing where there is room for padding or a framed schema alone; else the bytes between are fetched.
    """
    at = _aligned(start)
    while stop - at >= _SHORTEST:  # message behind message: a schema may have many MB, and need not be looked through
        message = _message(bytes(file.take(at, min(at + FRONT_BYTES, stop))), at, stop)
        if message is None:
            break
        if message.kind in BATCHES:
            return at
        at = _aligned(message.stop)
    while stop - at >= _SHORTEST:
        window = bytes(file.take(at, min(at + _WINDOW_BYTES, stop)))
        for place in _places(window):
            message = _message(window[place : place + FRONT_BYTES], at + place, stop)
            if message is not None and message.kind in BATCHES:
                return at + place
        at += _WINDOW_BYTES - FRONT_BYTES
    return None


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT) * _ALIGNMENT


def _places(window: bytes) -> Iterator[int]:
    """Where a marker stands. Before 0.15 there was none, and one message stood behind the other."""
    at = window.find(STREAM)
    while at >= 0:
        if at % _ALIGNMENT == 0:
            yield at
        at = window.find(STREAM, _aligned(at + 1))


def _message(front: bytes, at: int, stop: int) -> _Message | None:
    """The message that begins with `front` at `at`, and ends before `stop`; None where it is none."""
    marker = 4 if front.startswith(STREAM) else 0
    try:
        length = int(struct.unpack_from("<i", front, marker)[0])
        table = FlatTable.root(front[marker + 4 : marker + 4 + max(0, length)])
        version, kind, body_bytes = table.number(0, "<h"), table.number(1, "<B"), table.number(3, "<q")
        table.table(2)
    except struct.error:
        return None
    end = at + marker + 4 + length + body_bytes
    return _Message(kind, end) if body_bytes >= 0 and end <= stop and 0 <= version <= NEWEST_VERSION else None
