"""Parquet footers made by hand, in Thrift's compact protocol: for those that no writer writes."""

from __future__ import annotations

from collections.abc import Sequence

I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
Field = tuple[int, int, bytes]  # number, type, encoded value


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(value: int) -> bytes:
    return varint((value << 1) ^ (value >> 63))


def text(value: bytes) -> bytes:
    return varint(len(value)) + value


def struct(*fields: Field) -> bytes:
    out, last = b"", 0
    for index, kind, value in fields:
        out += bytes([(index - last) << 4 | kind]) + value
        last = index
    return out + b"\0"


def structs(values: Sequence[bytes]) -> bytes:
    head = bytes([len(values) << 4 | STRUCT]) if len(values) < 15 else bytes([0xF0 | STRUCT]) + varint(len(values))
    return head + b"".join(values)


def group(name: bytes, children: int, repetition: int = 1, converted: int | None = None) -> bytes:
    more = [(6, I32, number(converted))] if converted is not None else []
    return struct((3, I32, number(repetition)), (4, BINARY, text(name)), (5, I32, number(children)), *more)


def leaf(name: bytes, kind: int = 1, repetition: int = 1) -> bytes:
    return struct((1, I32, number(kind)), (3, I32, number(repetition)), (4, BINARY, text(name)))


def file(schema: Sequence[bytes], rows: int = 0) -> bytes:
    """A whole Parquet file without row groups."""
    footer = struct((1, I32, number(1)), (2, LIST, structs(schema)), (3, I64, number(rows)), (4, LIST, structs([])))
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"
