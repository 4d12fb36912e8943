"""The Arrow types that feed a dtype as they are, and kinds of types: text, bytes, times."""

from __future__ import annotations

import pyarrow as pa

from runner.tensor import NARROW, natural

# The Arrow type that feeds a dtype as it is; what a message recommends and an output becomes.
NATURAL: dict[str, pa.DataType] = {
    **{name: getattr(pa, name)() for name in ("float32", "float64", "int8", "int16", "int32", "int64")},
    **{name: getattr(pa, name)() for name in ("uint8", "uint16", "uint32", "uint64", "float16")},
    "bool": pa.bool_(),
    "string": pa.binary(),
    "bfloat16": pa.float32(),
    "qint8": pa.int8(),
    "quint8": pa.uint8(),
    "qint16": pa.int16(),
    "quint16": pa.uint16(),
    "qint32": pa.int32(),
    **{name: pa.from_numpy_dtype(natural(name)) for name in sorted(NARROW)},
    **{
        name: pa.struct([pa.field("re", part(), nullable=False), pa.field("im", part(), nullable=False)])
        for name, part in (("complex64", pa.float32), ("complex128", pa.float64))
    },
}
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, *_BYTES)


def is_time(source: pa.DataType) -> bool:
    """Timestamps, dates, times and durations: whole ticks of one length since something."""
    return bool(pa.types.is_temporal(source) and not pa.types.is_interval(source))


def is_text(source: pa.DataType) -> bool:
    """Strings and bytes in any layout."""
    return any(check(source) for check in _TEXT)


def is_raw(source: pa.DataType, dtype: str) -> bool:
    """Bytes that are the values of a row, one after another. They can mean nothing else to such a tensor."""
    return dtype in ("uint8", "int8") and any(check(source) for check in _BYTES)
