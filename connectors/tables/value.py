"""Values of whole files: as text in names of folders, in logs of tables and in plans; as columns when they are read.

Owns how text becomes a value; refuses to know where it was found. The invariant: what is no value of the type is an
error, never null.
"""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa

_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


def typed(text: str | None, kind: pa.DataType) -> pa.Scalar:
    """raises: ValueError (one of pyarrow is one) where `text` is no value of the type."""
    if text is None:
        return pa.scalar(None, kind)
    plain = pa.scalar(text, pa.string())
    if pa.types.is_nested(kind):
        raise ValueError(f"text is no {kind}")
    if pa.types.is_time(kind):  # pyarrow (26.0) casts no text to it
        return pa.scalar(f"1970-01-01 {text}", pa.string()).cast(pa.timestamp(kind.unit)).cast(kind)
    if pa.types.is_timestamp(kind) and kind.tz:
        with suppress(pa.ArrowInvalid):
            return plain.cast(kind)
        return (
            plain.cast(pa.timestamp(kind.unit)).cast(pa.timestamp(kind.unit, "UTC")).cast(kind)
        )  # without a zone: UTC
    return plain.cast(kind)


def is_typed(text: str | None, kind: pa.DataType) -> bool:
    try:
        typed(text, kind)
    except (ValueError, pa.ArrowException):
        return False
    return True


def constant(text: str | None, kind: pa.DataType, rows: int) -> pa.Array:
    return pa.repeat(typed(text, kind), rows)


def constant_bytes(text: str | None, kind: pa.DataType, rows: int) -> int:
    """What such a column takes."""
    if any(check(kind) for check in _TEXT):
        return (len((text or "").encode()) + 4) * rows
    return (max(1, int(kind.bit_width) // 8) if kind.num_buffers == 2 else 1) * rows


def text_of(value: pa.Scalar) -> str | None:
    """As `typed` reads it. raises: ValueError for a value without such a text."""
    if not value.is_valid:
        return None
    kind = value.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        value = pa.scalar(value.as_py(), pa.binary())
    text: str = value.cast(pa.string()).as_py()
    return text
