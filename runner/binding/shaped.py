"""Columns of tensors that state their shapes beside flat values, as Ray Data writes them: as types, in memory only.

Knows the metadata of such fields, and how flat values become lists. Refuses to unpickle any, and to load who wrote it.
The invariant: what comes out as lists has the shape that its row states; a row that contradicts itself is null, and
told by `contradicting`.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.formats.extension import NAME, PARAMETERS
from connectors.formats.widening import is_list
from runner.binding.cast.view import as_arrow, as_numpy
from runner.tensor import Array

# Source: ray/data/_internal/tensor_extensions/arrow.py, Ray 2.60: ArrowTensorType, ArrowTensorTypeV2,
# ArrowVariableShapedTensorType; Arrow's CanonicalExtensions.rst, "Variable shape tensor".
_FLAT = {"ray.data.arrow_tensor", "ray.data.arrow_tensor_v2"}
_RAY_SHAPED, _ARROW_SHAPED = "ray.data.arrow_variable_shaped_tensor", "arrow.variable_shape_tensor"

_MOST_LISTS = 2**16  # of a row without a value: a dimension of 0 lets others claim any size


class FlatTensor(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """Lists of values in row-major order, of the one shape that their field states; None: nobody can read it."""

    def __init__(self, storage: pa.DataType, name: str, shape: tuple[int, ...] | None) -> None:
        self.shape, self._name = shape, name
        super().__init__(storage, f"runner.{name}{shape}")

    def __str__(self) -> str:
        return f"{self._name}<{self.storage_type.value_type}>{'' if self.shape is None else list(self.shape)}"

    def __arrow_ext_serialize__(self) -> bytes:
        return json.dumps([self._name, self.shape]).encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> FlatTensor:
        name, shape = json.loads(serialized)
        return cls(storage, name, None if shape is None else tuple(shape))


class ShapedTensor(pa.ExtensionType):  # type: ignore[misc]
    """Structs of the flat values of a row, `data`, and their `shape`. sizes: of its dimensions; None: any."""

    def __init__(self, storage: pa.DataType, name: str, sizes: tuple[int | None, ...], permuted: bool) -> None:
        self.sizes, self.permuted, self._name = sizes, permuted, name
        super().__init__(storage, f"runner.{name}{sizes}")

    @property
    def value_type(self) -> pa.DataType:
        return self.storage_type.field("data").type.value_type

    @property
    def nested(self) -> pa.DataType:
        """The same as lists of lists."""
        kind = self.value_type
        for _ in self.sizes:
            kind = pa.large_list(kind)
        return kind

    def __str__(self) -> str:
        return (
            f"{self._name}<{self.value_type}>[{', '.join('?' if size is None else str(size) for size in self.sizes)}]"
        )

    def __arrow_ext_serialize__(self) -> bytes:
        return json.dumps([self._name, self.sizes, self.permuted]).encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> ShapedTensor:
        name, sizes, permuted = json.loads(serialized)
        return cls(storage, name, tuple(sizes), permuted)

    def lists(self, values: pa.Array) -> pa.Array:
        """Lists of lists; null where the row is, or contradicts itself. cost: no copy of the values, if no row is."""
        shapes, good = self._shapes(values.storage)
        data = values.storage.field("data")
        if not good.all():
            data = data.take(as_arrow(np.flatnonzero(good)))
        lists, counts = data.flatten(), np.ones(len(good), np.int64)
        lengths = []  # lengths: of each level (lists,)
        for level in range(len(self.sizes)):
            dimension = np.where(good, shapes[:, level], 0)
            lengths.append(np.repeat(dimension, counts))
            counts = counts * dimension
        kinds = [self.nested]
        for _ in self.sizes[1:]:
            kinds.append(kinds[-1].value_type)
        for level in reversed(range(len(lengths))):
            offsets = np.zeros(len(lengths[level]) + 1, np.int64)
            np.cumsum(lengths[level], out=offsets[1:])
            valid = None if level or good.all() else as_arrow(good).buffers()[1]
            buffers = [valid, pa.py_buffer(offsets)]
            lists = pa.Array.from_buffers(kinds[level], len(lengths[level]), buffers, children=[lists])
        return lists

    def contradicting(self, values: pa.Array) -> Array:
        """(rows,) where a row is there, and its shape is none of its values, or none of this type."""
        valid = as_numpy(values.storage.is_valid())
        return valid & ~self._shapes(values.storage)[1]

    def told(self, values: pa.Array, index: int) -> str:
        """What stands in a row, for messages."""
        row = values.storage[index]
        data, shape = row["data"], row["shape"]
        count = len(data) if data.is_valid else "no"
        return f"{count} values in the shape {shape.as_py() if shape.is_valid else None}"

    def _shapes(self, structs: pa.StructArray) -> tuple[Array, Array]:
        """(rows, dimensions) int64, and (rows,) whether they are those of the values; 0 where not."""
        ndim, stated, data = len(self.sizes), structs.field("shape"), structs.field("data")
        good = as_numpy(pc.and_(structs.is_valid(), pc.and_(stated.is_valid(), data.is_valid()))).copy()
        good &= as_numpy(pc.fill_null(pc.list_value_length(stated), -1)) == ndim
        shapes = np.zeros((len(good), ndim), np.int64)
        sizes = stated.take(as_arrow(np.flatnonzero(good))).flatten()
        shapes[good] = as_numpy(pc.fill_null(sizes, -1).cast(pa.int64())).reshape(-1, ndim)
        counts = as_numpy(pc.fill_null(pc.list_value_length(data), 0))
        # As floats, which do not wrap: that a product of this size is rounded does not matter.
        lists = np.cumprod(shapes.astype(np.float64), axis=1)
        good &= (shapes >= 0).all(axis=1) & (lists[:, -1] == counts)
        good &= (lists <= np.maximum(counts, _MOST_LISTS)[:, None]).all(axis=1)
        shapes[~good] = 0
        return shapes, good


def tensor_type(field: pa.Field) -> FlatTensor | ShapedTensor | None:
    """The type that a field means by its metadata; None: the one that it has."""
    said, kind, types = field.metadata or {}, field.type, pa.types
    if NAME not in said:
        return None
    name, stated = said[NAME].decode(errors="replace"), None
    with suppress(ValueError, RecursionError):  # no JSON: not to be read at all
        stated = json.loads(said.get(PARAMETERS, b""))
    if name in _FLAT and (types.is_list(kind) or types.is_large_list(kind)):
        shape = tuple(stated) if isinstance(stated, list) and all(map(_is_size, stated)) else None
        return FlatTensor(kind, name, shape) if shape != () else None
    if name not in (_RAY_SHAPED, _ARROW_SHAPED) or not _is_shaped(kind):
        return None
    if name == _RAY_SHAPED:
        return ShapedTensor(kind, name, (None,) * stated, False) if _is_size(stated) and stated else None
    ndim = kind.field("shape").type.list_size if types.is_fixed_size_list(kind.field("shape").type) else 0
    stated = stated if isinstance(stated, dict) else {}
    sizes, order = (stated.get(key) for key in ("uniform_shape", "permutation"))
    if not isinstance(sizes, list) or len(sizes) != ndim or not all(size is None or _is_size(size) for size in sizes):
        sizes = [None] * ndim
    permuted = order is not None and order != list(range(ndim))
    return ShapedTensor(kind, name, tuple(sizes), permuted) if ndim else None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_shaped(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or sorted(field.name for field in kind) != ["data", "shape"]:
        return False
    lists = [kind.field(name).type for name in ("data", "shape")]
    return all(map(is_list, lists)) and pa.types.is_integer(lists[1].value_type)


def wrapped(values: Any, kind: pa.DataType) -> Any:
    """An array or a chunked array of `kind`, whose storage it is; as it is where it is not. cost: none."""
    if values.type != kind.storage_type:  # who feeds it says so
        return values
    if isinstance(values, pa.ChunkedArray):
        return pa.chunked_array([wrapped(chunk, kind) for chunk in values.chunks], kind)
    return pa.ExtensionArray.from_storage(kind, values)
