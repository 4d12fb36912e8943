"""Arrow arrays as NumPy arrays and back: views, where both have the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from runner.tensor import Array

_NUMPY = {pa.from_numpy_dtype(kind): np.dtype(kind) for kind in "?bhiqBHIQefd"}


def numpy_dtype(numbers: pa.DataType) -> np.dtype[Any]:
    """Of booleans, integers and floats. Not `to_pandas_dtype`: before 26 pyarrow has none without pandas."""
    return _NUMPY[numbers]


def as_numpy(values: pa.Array) -> Array:
    """A primitive array without nulls as NumPy: a view, except for bool, whose bits become bytes."""
    if pa.types.is_boolean(values.type):
        return as_numpy(values.cast(pa.uint8())).view(np.bool_)
    # Not `to_numpy`: pyarrow imports pandas for it, where there is one, and that takes half a second.
    dtype = numpy_dtype(values.type)
    data = values.buffers()[1]
    if data is None or not len(values):
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype, len(values), values.offset * dtype.itemsize)


def as_arrow(values: Array) -> pa.Array:
    """A contiguous primitive array as Arrow: a view, except for bool, whose bytes become bits."""
    # Not `pa.array`: it imports pandas, as `to_numpy` does.
    if values.dtype == np.bool_:
        return pa.Array.from_buffers(
            pa.bool_(), len(values), [None, pa.py_buffer(np.packbits(values, bitorder="little"))]
        )
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])
