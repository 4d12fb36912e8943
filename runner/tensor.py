"""Tensors between binding and engine: NumPy arrays, and strings that stay in Arrow buffers.

One table says how each TensorFlow dtype is carried in memory. Where NumPy has no such type, its bits travel in
an unsigned or signed integer of the same width (`bfloat16` in uint16, `qint8` in int8, `int4` and `float8_e5m2` in
uint8), and the engine, which knows the dtype from the signature, takes them as they are. `values_of` and `bits_of` lead
from these bits to numbers and back.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Float:
    """A float of at most 8 bits, by the names of ml_dtypes: sign, exponent, mantissa from the highest bit on.

    nan: 'ieee': of the highest exponent, which has infinities too; 'ones': where all bits but the sign are set; 'minus
         zero': the one value where minus zero would be; 'none'.
    """

    exponent: int
    mantissa: int
    bias: int
    nan: Literal["ieee", "ones", "minus zero", "none"]


# One byte an element in TensorFlow's memory, whatever the width; in the low bits where that is less than eight.
_FLOATS = {
    "float8_e5m2": _Float(5, 2, 15, "ieee"),
    "float8_e4m3fn": _Float(4, 3, 7, "ones"),
    "float8_e4m3fnuz": _Float(4, 3, 8, "minus zero"),
    "float8_e4m3b11fnuz": _Float(4, 3, 11, "minus zero"),
    "float8_e5m2fnuz": _Float(5, 2, 16, "minus zero"),
    "float4_e2m1fn": _Float(2, 1, 1, "none"),
}
_INTEGERS = {"int4": (4, True), "uint4": (4, False), "int2": (2, True), "uint2": (2, False)}  # bits, signed
NARROW = frozenset({*_FLOATS, *_INTEGERS})
AS_BITS = NARROW | {"bfloat16"}  # carried as their bits, in an unsigned integer

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
    "float8_e5m2": (24, np.dtype(np.uint8)),
    "float8_e4m3fn": (25, np.dtype(np.uint8)),
    "float8_e4m3fnuz": (26, np.dtype(np.uint8)),
    "float8_e4m3b11fnuz": (27, np.dtype(np.uint8)),
    "float8_e5m2fnuz": (28, np.dtype(np.uint8)),
    "int4": (29, np.dtype(np.uint8)),
    "uint4": (30, np.dtype(np.uint8)),
    "int2": (31, np.dtype(np.uint8)),
    "uint2": (32, np.dtype(np.uint8)),
    "float4_e2m1fn": (33, np.dtype(np.uint8)),
}
# Those that hold NaN and infinity. Of the two that are 16 bits wide, the bits that are all set in these: the exponent.
FLOATS = frozenset(
    {"float16", "float32", "float64", "bfloat16", "complex64", "complex128"}
    | {dtype for dtype, form in _FLOATS.items() if form.nan != "none"}
)
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


def natural(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype that holds every value of `dtype` exactly; not for strings."""
    if dtype == "bfloat16" or dtype in _FLOATS:
        return np.dtype(np.float32)
    if dtype in _INTEGERS:
        return np.dtype(np.int8 if _INTEGERS[dtype][1] else np.uint8)
    return carrier(dtype)


def integer_range(dtype: str) -> tuple[int, int]:
    """The least and the largest value of a dtype of integers."""
    if dtype in _INTEGERS:
        bits, signed = _INTEGERS[dtype]
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    info = np.iinfo(carrier(dtype))
    return int(info.min), int(info.max)


def values_of(tensor: Array, dtype: str) -> Array:
    """A carrier array of `dtype` -> the same of `natural(dtype)`, exact; itself where that is its carrier."""
    if dtype == "bfloat16":
        return bfloat16_values(np.asarray(tensor, np.uint16))
    return np.asarray(_table(dtype)[tensor]) if dtype in NARROW else tensor


def bits_of(values: Array, dtype: str) -> Array:
    """The inverse of `values_of`: floats are rounded to nearest even, integers lose the bits that do not fit.

    Beyond the largest float is infinity, or NaN where a dtype has no infinity, or the largest where it has neither.
    """
    if dtype == "bfloat16":
        return bfloat16_bits(np.asarray(values, np.float32))
    if dtype in _INTEGERS:
        return np.asarray(values.astype(np.uint8) & np.uint8((1 << _INTEGERS[dtype][0]) - 1))
    return _narrow_bits(np.asarray(values, np.float64), dtype) if dtype in _FLOATS else values


@cache
def _table(dtype: str) -> Array:
    """(256,) of `natural(dtype)`: the value of each byte."""
    codes = np.arange(256)
    if dtype in _INTEGERS:
        width, signed = _INTEGERS[dtype]
        low = codes & (1 << width) - 1
        sign = 1 << width - 1
        return ((low ^ sign) - sign if signed else low).astype(natural(dtype))
    form = _FLOATS[dtype]
    width = 1 + form.exponent + form.mantissa
    low = codes & (1 << width) - 1
    size = low & (1 << width - 1) - 1  # without the sign
    exponent, mantissa = size >> form.mantissa, size & (1 << form.mantissa) - 1
    whole = np.where(exponent > 0, mantissa + (1 << form.mantissa), mantissa)
    values = np.ldexp(whole.astype(np.float64), np.maximum(exponent, 1) - form.bias - form.mantissa)
    if form.nan == "ieee":
        values[exponent == (1 << form.exponent) - 1] = np.nan
        values[size == (1 << form.exponent) - 1 << form.mantissa] = np.inf
    elif form.nan == "ones":
        values[size == (1 << width - 1) - 1] = np.nan
    values = np.where(low >> width - 1, -values, values)
    if form.nan == "minus zero":
        values[low == 1 << width - 1] = np.nan
    return np.asarray(values, np.float32)


def _narrow_bits(values: Array, dtype: str) -> Array:
    """values: float64."""
    form, table = _FLOATS[dtype], _table(dtype)
    width = 1 + form.exponent + form.mantissa
    sizes = table[: 1 << width - 1].astype(np.float64)  # of the codes without a sign: ascending as far as finite
    finite = sizes[np.isfinite(sizes)]
    size = np.abs(values)
    high = np.clip(np.searchsorted(finite, size), 1, len(finite) - 1)
    middle = (finite[high - 1] + finite[high]) / 2
    codes = np.where((size < middle) | ((size == middle) & (high % 2 == 1)), high - 1, high)
    step = finite[-1] - finite[-2]
    beyond = size >= finite[-1] + step / 2  # the next float, if there were one, would be even
    nan = {"ieee": (1 << width - 1) - 2, "ones": (1 << width - 1) - 1, "minus zero": 1 << width - 1, "none": 0}[
        form.nan
    ]
    if form.nan == "ieee":
        codes = np.where(beyond, len(finite), codes)
    elif form.nan != "none":
        codes = np.where(beyond, nan, codes)
    signed = codes | np.where(np.signbit(values), 1 << width - 1, 0)
    if form.nan == "minus zero":
        signed = np.where((codes == 0) | beyond, codes, signed)
    return np.asarray(np.where(np.isnan(values), nan, signed), np.uint8)


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
    elif dtype in NARROW:
        mask = ~np.isfinite(values_of(tensor, dtype))
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


def any_nonfinite(tensors: Sequence[Array], dtype: str) -> bool:
    """Whether one of several holds NaN or infinity. cost: as for one; small ones are looked at together."""
    small = [tensor for tensor in tensors if tensor.size <= _SMALL]
    looked_at = [tensor for tensor in tensors if tensor.size > _SMALL]
    if small:
        looked_at.append(np.concatenate(small, axis=None))
    return any(nonfinite(tensor, dtype) is not None for tensor in looked_at)


def rows_of(mask: Array) -> Array:
    """(rows,) where a row of (rows, *row) holds something that is set. cost: small where little is."""
    rows = np.zeros(len(mask), np.bool_)
    rows[np.flatnonzero(mask) // max(1, mask[:1].size)] = True
    return rows


def padded(tensor: Tensor, rows: int) -> Tensor:
    """(fewer, *row) -> (rows, *row): the last row again and again."""
    missing = rows - tensor.shape[0]
    if isinstance(tensor, Strings):
        width = math.prod(tensor.shape[1:])
        last = np.arange(len(tensor.values) - width, len(tensor.values))  # last: (values of the last row,)
        order = np.concatenate([np.arange(len(tensor.values)), np.tile(last, missing)])
        return Strings(tensor.values.take(pa.array(order)), (rows, *tensor.shape[1:]))
    return np.concatenate([tensor, np.repeat(tensor[-1:], missing, axis=0)])


def cut(tensor: Tensor, start: int, stop: int) -> Tensor:
    """(rows, *row) -> (stop - start, *row): rows `start` to `stop - 1`, or as far as there are; a view."""
    stop = min(stop, tensor.shape[0])
    if isinstance(tensor, Strings):
        width = math.prod(tensor.shape[1:])
        return Strings(tensor.values.slice(start * width, (stop - start) * width), (stop - start, *tensor.shape[1:]))
    return tensor[start:stop]


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """(some, *row), (others, *row), ... -> (all, *row); one alone as it is. All are of one row and dtype."""
    if len(tensors) == 1:
        return tensors[0]
    rows, row = sum(tensor.shape[0] for tensor in tensors), tensors[0].shape[1:]
    if isinstance(tensors[0], Strings):
        values = pa.concat_arrays([tensor.values for tensor in tensors if isinstance(tensor, Strings)])
        return Strings(values, (rows, *row))
    return np.concatenate([tensor for tensor in tensors if not isinstance(tensor, Strings)])


def tensor_digest(tensor: Tensor) -> str:
    """128 bits of SHA-256 in hex over shape and values, to tell tensors apart without showing them."""
    if isinstance(tensor, Strings):
        content = b"".join(b"%d:%s" % (len(value), value) for value in tensor.values.to_pylist())
    else:
        content = str(tensor.dtype).encode() + np.ascontiguousarray(tensor).tobytes()
    return hashlib.sha256(f"{list(tensor.shape)}".encode() + content).hexdigest()[:32]


def type_text(kind: pa.DataType) -> str:
    """An Arrow type without the names and nullability of its inner fields."""
    if pa.types.is_union(kind) and not any(kind.field(at).name for at in range(1, kind.num_fields)):
        # A mixed type, see `connectors.formats.widening.mixed`.
        return " or ".join(type_text(kind.field(at).type) for at in range(1, kind.num_fields))
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"fixed_shape_tensor<{type_text(kind.value_type)}>{list(kind.shape)}"
    if pa.types.is_fixed_size_list(kind):
        return f"fixed_size_list<{type_text(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{'large_' if pa.types.is_large_list(kind) else ''}list<{type_text(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {type_text(field.type)}' for field in kind)}>"
    return str(kind)
