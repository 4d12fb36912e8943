"""Tensors between binding and engine: NumPy arrays, and strings that stay in Arrow buffers.

One table says how each TensorFlow dtype is carried in memory. Where NumPy has no such type, its bits travel in
an unsigned or signed integer of the same width (`bfloat16` in uint16, `qint8` in int8), and the engine, which
knows the dtype from the signature, takes them as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]

# TensorFlow dtype name -> (DataType enum of types.proto, NumPy dtype of its carrier; None: strings)
DTYPES: dict[str, tuple[int, np.dtype[Any] | None]] = {
    "float32": (1, np.dtype(np.float32)),
    "float64": (2, np.dtype(np.float64)),
    "int32": (3, np.dtype(np.int32)),
    "uint8": (4, np.dtype(np.uint8)),
    "int16": (5, np.dtype(np.int16)),
    "int8": (6, np.dtype(np.int8)),
    "string": (7, None),
    "complex64": (8, np.dtype(np.complex64)),
    "int64": (9, np.dtype(np.int64)),
    "bool": (10, np.dtype(np.bool_)),
    "qint8": (11, np.dtype(np.int8)),
    "quint8": (12, np.dtype(np.uint8)),
    "qint32": (13, np.dtype(np.int32)),
    "bfloat16": (14, np.dtype(np.uint16)),
    "qint16": (15, np.dtype(np.int16)),
    "quint16": (16, np.dtype(np.uint16)),
    "uint16": (17, np.dtype(np.uint16)),
    "complex128": (18, np.dtype(np.complex128)),
    "float16": (19, np.dtype(np.float16)),
    "uint32": (22, np.dtype(np.uint32)),
    "uint64": (23, np.dtype(np.uint64)),
}
# Those that hold NaN and infinity. Of the two that are 16 bits wide, the bits that are all set in these: the exponent.
FLOATS = frozenset({"float16", "float32", "float64", "bfloat16", "complex64", "complex128"})
_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80}
_SMALL = 8192  # values of which a product is summed up in less time than the call of a function takes
DTYPE_NAMES: dict[int, str] = {number: name for name, (number, _) in DTYPES.items()} | {20: "resource", 21: "variant"}


@dataclass(frozen=True)
class Strings:
    """A tensor of byte strings. `values` holds shape-many of them, flat, row-major, without nulls.

    values: pa.BinaryArray or pa.LargeBinaryArray; may be a slice with an offset.
    """

    values: pa.Array
    shape: tuple[int, ...]


Tensor = npt.NDArray[np.generic] | Strings
Feeds = Mapping[str, Tensor]  # input name of the signature -> C-contiguous carrier array, or Strings
Outputs = Mapping[str, Tensor]  # output name of the signature -> the same


def carrier(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype whose bits carry `dtype`; not for strings."""
    kind = DTYPES[dtype][1]
    if kind is None:
        raise TypeError(f"tensors of dtype {dtype!r} are carried by Strings, not by NumPy")
    return kind


def tensor_text(dtype: str, shape: Sequence[int | None] | None) -> str:
    """A tensor as messages name it: 'float32[?, 4]'; unknown rank: 'float32[...]'."""
    if shape is None:
        return f"{dtype}[...]"
    return f"{dtype}[{', '.join('?' if size is None else str(size) for size in shape)}]"


def bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """float32 -> the bits of bfloat16, rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # Rounding could carry a NaN's payload into the exponent and out of it: set the quiet bit instead.
    return np.where(np.isnan(values), (bits >> np.uint32(16)) | np.uint32(0x40), rounded).astype(np.uint16)


def bfloat16_values(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The bits of bfloat16 -> float32, exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def nonfinite(tensor: Tensor, dtype: str) -> Array | None:
    """(*shape) where a value is NaN or infinite; None: nowhere.

    tensor: C-contiguous, the carrier of `dtype`.
    cost:   where all are finite, one pass at the speed of memory; of 16-bit floats two.
    """
    if isinstance(tensor, Strings) or dtype not in FLOATS or not tensor.size:
        return None
    if dtype in _EXPONENTS:
        exponent, bits = _EXPONENTS[dtype], tensor.view(np.uint16)
        # The largest of each sign: of the positive ones as signed numbers, of the negative ones as unsigned.
        if bits.max() < 0x8000 | exponent and bits.view(np.int16).max() < exponent:
            return None
        mask: Array = bits & exponent == exponent
    else:
        flat: Array = tensor.reshape(-1)
        if flat.dtype.kind == "c":
            flat = flat.view(flat.real.dtype)
        with np.errstate(all="ignore"):
            # NaN and infinity come through a sum. So may values that are only too large for one; these are looked at.
            total = flat.dot(flat) if flat.size <= _SMALL else np.einsum("i->", flat)
        if math.isfinite(total):
            return None
        mask = ~np.isfinite(tensor)
    return mask if mask.any() else None


def rows_of(mask: Array) -> Array:
    """(rows,) where a row of (rows, *row) holds something that is set. cost: small where little is."""
    rows = np.zeros(len(mask), np.bool_)
    rows[np.flatnonzero(mask) // max(1, mask[:1].size)] = True
    return rows


def tensor_digest(tensor: Tensor) -> str:
    """128 bits of SHA-256 in hex over shape and values, to tell tensors apart without showing them."""
    if isinstance(tensor, Strings):
        content = b"".join(b"%d:%s" % (len(value), value) for value in tensor.values.to_pylist())
    else:
        content = str(tensor.dtype).encode() + np.ascontiguousarray(tensor).tobytes()
    return hashlib.sha256(f"{list(tensor.shape)}".encode() + content).hexdigest()[:32]


def type_text(kind: pa.DataType) -> str:
    """An Arrow type without the names and nullability of its inner fields."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"fixed_shape_tensor<{type_text(kind.value_type)}>{list(kind.shape)}"
    if pa.types.is_fixed_size_list(kind):
        return f"fixed_size_list<{type_text(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{'large_' if pa.types.is_large_list(kind) else ''}list<{type_text(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {type_text(field.type)}' for field in kind)}>"
    return str(kind)
