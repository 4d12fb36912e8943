"""A TensorProto -> the tensor it stands for, without TensorFlow.

The invariant: what is returned has exactly the declared shape, in the carrier of `runner.tensor`.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.proto.saved_model_pb2 import TensorProto, TensorShapeProto
from runner.tensor import DTYPES, NARROW, Strings, Tensor, bits_of, carrier, natural

MAX_VALUES = 1 << 27  # a message of a few bytes may declare any shape, and one value repeated fills it

# Where the values of a dtype are when they are not in `tensor_content`: tensorflow/core/framework/tensor.proto.
# All other dtypes, the integers below 64 bits, are in `int_val`.
_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "float16": "half_val",
    "bfloat16": "half_val",
}


def tensor(proto: TensorProto, dtype: str) -> Tensor:
    """Decode a constant.

    dtype:  the name of proto.dtype.
    raises: ValueError saying what does not fit.
    """
    shape = dimensions(proto.tensor_shape)
    if shape is None or None in shape:
        raise ValueError("its shape is not fully known")
    sizes = tuple(size or 0 for size in shape)
    count = prod(sizes)
    if count > MAX_VALUES:
        raise ValueError(f"it has {count} values, more than {MAX_VALUES}")
    if dtype not in DTYPES:
        raise ValueError(f"values of dtype '{dtype}' cannot be written down")
    if dtype == "string":
        return Strings(pa.array(_strings(proto, count), pa.large_binary()), sizes)
    return _numbers(proto, dtype, count).reshape(sizes)


def dimensions(shape: TensorShapeProto) -> tuple[int | None, ...] | None:
    """A declared shape: None for an unknown rank, a None dimension for an unknown size."""
    if shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def _numbers(proto: TensorProto, dtype: str, count: int) -> npt.NDArray[np.generic]:
    kind = carrier(dtype)
    if proto.tensor_content:
        if len(proto.tensor_content) != count * kind.itemsize:
            raise ValueError(f"it has {len(proto.tensor_content)} bytes for {count * kind.itemsize}")
        return np.frombuffer(proto.tensor_content, kind.newbyteorder("<")).astype(kind)
    values = _listed(proto, dtype, kind)  # (listed,)
    _check(len(values), count)
    # Trailing values equal to the last one written are left out; none at all means zeros.
    fill = values[-1] if len(values) else 0
    return np.concatenate([values, np.full(count - len(values), fill, kind)])  # (count,)


def _listed(proto: TensorProto, dtype: str, kind: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
    if dtype in NARROW and natural(dtype).kind == "f":
        return np.frombuffer(proto.float8_val, kind)
    name = _FIELDS.get(dtype, "int_val")
    values = getattr(proto, name)
    if name == "half_val":
        return np.array(values, np.int64).astype(np.uint16).view(kind)  # the field holds bits
    if name == "int_val":
        return bits_of(np.array(values, np.int64).astype(kind), dtype)
    if kind.kind == "c":
        return np.array(values, np.float32 if dtype == "complex64" else np.float64).view(kind)  # (2 n,) -> (n,)
    return np.array(values, kind)


def _strings(proto: TensorProto, count: int) -> list[bytes]:
    if proto.tensor_content:
        return packed_strings(proto.tensor_content, count)
    values = list(proto.string_val)
    _check(len(values), count)
    return values + [values[-1] if values else b""] * (count - len(values))


def _check(values: int, count: int) -> None:
    if values > count:
        raise ValueError(f"it has {values} values for {count}")


def packed_strings(content: bytes, count: int) -> list[bytes]:
    """`count` lengths as varints, then the bytes of all strings: tensorflow/core/platform/tensor_coding.cc.

    raises: ValueError where they do not add up.
    """
    lengths, at = [], 0
    for _ in range(count):
        length, at = _varint(content, at)
        lengths.append(length)
    if at + sum(lengths) != len(content):
        raise ValueError("the lengths of its strings do not add up")
    ends = np.cumsum([at, *lengths]).tolist()  # (count + 1,)
    return [content[start:end] for start, end in pairwise(ends)]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next one begins."""
    number = 0
    for index, byte in enumerate(content[at : at + 10]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, at + index + 1
    raise ValueError("the lengths of its strings are cut off")
