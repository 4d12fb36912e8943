"""Byte strings between Arrow buffers and TensorFlow's string records, vectorised.

A record (`TF_TString`, tsl/platform/ctstring_internal.h) is 24 bytes, its kind in the low two bits of the first:

    0 small    byte 0: length << 2;   bytes 1 to 22: the string itself
    1 large    word 0: length << 2;   word 1: capacity;   word 2: address
    2 offset   uint32 0: length << 2; uint32 1: distance of the string from the record
    3 view     word 0: length << 2;   word 1: address;    word 2: owner or 0

Fed strings are *large* records that point into the Arrow buffer, although a view says more plainly what they are:
TensorFlow copies a view without its bytes, so a table or a queue that keeps a fed string would point at memory that
is long gone, while a large record is always copied with its bytes. TensorFlow neither writes into nor frees the
strings of a fed tensor, because it does not own its memory.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

RECORD_BYTES = 24
_SMALL, _LARGE, _OFFSET = 0, 1, 2
_ALIGNMENT = 64  # of tensors, EIGEN_MAX_ALIGN_BYTES
_SHORT_BYTES, _PIECE_ROWS = 256, 4096

Addresses = npt.NDArray[np.int64]


class Memory:
    """`shape` values of `dtype` at `address`, for NumPy to look at; keeps `owner` alive as long as it does."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: object = None) -> None:
        self._owner = owner
        self.__array_interface__ = {"data": (address, False), "shape": shape, "typestr": dtype.str, "version": 3}


def records(values: pa.Array) -> npt.NDArray[np.int64]:
    """String records that point into the data buffer of `values`, which must outlive them.

    values:  binary, large_binary or their utf-8 kin, without nulls; may be a slice.
    returns: (len(values), 3) int64, aligned for TensorFlow.
    """
    count = len(values)
    memory = np.empty(count * RECORD_BYTES + _ALIGNMENT, np.uint8)
    skipped = -memory.ctypes.data % _ALIGNMENT
    words = memory[skipped : skipped + count * RECORD_BYTES].view(np.int64).reshape(count, 3)
    if count == 0:
        return words
    _, offsets_buffer, data = values.buffers()
    wide = pa.types.is_large_binary(values.type) or pa.types.is_large_string(values.type)
    offsets = np.frombuffer(offsets_buffer, np.int64 if wide else np.int32)[values.offset :][: count + 1]
    sizes = np.diff(offsets)  # (count,)
    words[:, 0] = sizes
    words[:, 0] <<= 2
    words[:, 0] |= _LARGE
    words[:, 1] = sizes
    words[:, 2] = offsets[:-1]
    words[:, 2] += data.address
    return words


def strings(address: int, count: int) -> pa.LargeBinaryArray:
    """Copy the strings of `count` records at `address` into an Arrow array; the records may go afterwards."""
    if count == 0:
        return pa.array([], pa.large_binary())
    words = np.asarray(Memory(address, (count, 3), np.dtype(np.int64)))
    starts, sizes = _located(words, address)
    return _gathered(starts, sizes)


def _located(words: npt.NDArray[np.int64], address: int) -> tuple[Addresses, npt.NDArray[np.int64]]:
    """Address and length of each string, whatever the kind of its record."""
    kinds = words[:, 0] & 3
    inline = np.arange(address, address + len(words) * RECORD_BYTES, RECORD_BYTES)  # (count,)
    sizes = words[:, 0] >> 2
    starts = np.where(kinds == _LARGE, words[:, 2], words[:, 1])
    if (small := kinds == _SMALL).any():
        sizes = np.where(small, (words[:, 0] & 0xFF) >> 2, sizes)
        starts = np.where(small, inline + 1, starts)
    if (offset := kinds == _OFFSET).any():
        sizes = np.where(offset, (words[:, 0] & 0xFFFFFFFF) >> 2, sizes)
        starts = np.where(offset, inline + (words[:, 0] >> 32), starts)
    return np.where(sizes == 0, inline + 1, starts), sizes  # an empty string may point anywhere


def _gathered(starts: Addresses, sizes: npt.NDArray[np.int64]) -> pa.LargeBinaryArray:
    """Copy strings that lie anywhere in memory, also over one another, into one array.

    Short ones go byte by byte through an index, a few thousand strings at a time so that it stays in the cache; for a
    long one a call of its own costs less than its bytes.
    """
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    data = np.empty(int(offsets[-1]), np.uint8)
    origin, end = int(starts.min()), int((starts + sizes).max())
    memory = np.asarray(Memory(origin, (end - origin,), np.dtype(np.uint8)))  # mostly not mapped: only strings are read
    short = np.flatnonzero(sizes <= _SHORT_BYTES)
    for first in range(0, len(short), _PIECE_ROWS):
        piece = short[first : first + _PIECE_ROWS]  # (rows,)
        lengths = sizes[piece]
        before = np.cumsum(lengths) - lengths  # (rows,): bytes of the piece before each string
        positions = np.arange(int(lengths.sum()))  # (bytes,)
        copied = memory[positions + np.repeat(starts[piece] - origin - before, lengths)]
        data[positions + np.repeat(offsets[piece] - before, lengths)] = copied
    long = np.flatnonzero(sizes > _SHORT_BYTES)
    targets = data.ctypes.data + offsets[long]
    for target, start, size in zip(targets.tolist(), starts[long].tolist(), sizes[long].tolist(), strict=True):
        ctypes.memmove(target, start, size)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(sizes), buffers, null_count=0)
