"""A constant of the job file -> a tensor, checked against dtype and shape. Small values; never cut into rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.errors import BindingError
from runner.tensor import (
    NARROW,
    Array,
    Strings,
    Tensor,
    bits_of,
    integer_range,
    natural,
    tensor_digest,
    tensor_text,
    values_of,
)


@dataclass(frozen=True, eq=False)
class ConstantSource:
    """The same tensor for every batch, never cut to the rows."""

    tensor: Tensor
    columns: tuple[str, ...] = ()

    def feed(self, batch: pa.RecordBatch) -> Tensor:
        return self.tensor

    def describe(self) -> dict[str, str]:
        return {"column": "", "type": "", "note": "constant"}

    def document(self) -> dict[str, Any]:
        return {"constant": tensor_digest(self.tensor)}


def constant(value: Any, dtype: str, shape: Sequence[int | None] | None, unsafe: bool = False) -> Tensor:
    """The tensor of `value`.

    value:   a scalar or nested lists of one length per level, as YAML gives them.
    shape:   what the tensor must be; None: any rank, a None dimension: any size.
    unsafe:  numbers and booleans of any kind, converted as NumPy's `astype` does.
    raises:  BindingError saying what was found and expected, without naming the tensor.
    """
    leaves, given = _nested(value)
    if not fits(given, shape):
        raise mismatch(f"found a constant of shape {list(given)}", f"expected {tensor_text(dtype, shape)}")
    if dtype == "string":
        return Strings(_strings(leaves), given)
    return _numbers(leaves, dtype, unsafe).reshape(given)


def mismatch(found: str, expected: str, code: str = "COLUMN_TYPE") -> BindingError:
    """What one part of the agreement has against its side of it; `bind` says of which tensor and column."""
    return BindingError(f"{found}; {expected}", code=code)


def fits(shape: Sequence[int], wanted: Sequence[int | None] | None) -> bool:
    """Whether a tensor of `shape` may stand where `wanted` is declared."""
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(b is None or a == b for a, b in zip(shape, wanted, strict=True))


def _nested(value: Any) -> tuple[list[Any], tuple[int, ...]]:
    if not isinstance(value, list | tuple):
        return [value], ()
    parts = [_nested(part) for part in value]
    shapes = {shape for _, shape in parts}
    if len(shapes) > 1:
        raise mismatch("found a constant whose lists differ in length or depth", "expected one length per level")
    return [leaf for leaves, _ in parts for leaf in leaves], (len(parts), *next(iter(shapes), ()))


def _strings(leaves: list[Any]) -> pa.Array:
    for leaf in leaves:
        if not isinstance(leaf, str | bytes):
            raise mismatch(f"found a constant of {type(leaf).__name__}", "expected strings")
    return pa.array([leaf.encode() if isinstance(leaf, str) else leaf for leaf in leaves], pa.binary())


def _numbers(leaves: list[Any], dtype: str, unsafe: bool) -> Array:
    target = natural(dtype)
    kind = target.kind
    # `bool` is an `int` to Python; a tensor of numbers does not take it for one.
    types, expected = {
        "b": (("bool",), "true or false"),
        "f": (("int", "float"), "numbers"),
        "c": (("int", "float", "complex"), "numbers"),
    }.get(kind, (("int",), "integers"))
    if unsafe:
        types = ("bool", "int", "float", "complex") if kind == "c" else ("bool", "int", "float")
    for leaf in leaves:
        if type(leaf).__name__ not in types:
            raise mismatch(f"found a constant of {type(leaf).__name__}", f"expected {expected}")
    with np.errstate(all="ignore"):
        if kind in "iu" and not unsafe:
            least, most = integer_range(dtype)
            if not all(least <= leaf <= most for leaf in leaves):
                raise mismatch("found a constant out of range", f"expected {least} to {most}")
            return bits_of(np.array(leaves, target), dtype)
        try:
            wide = np.array(leaves, {"f": np.float64, "c": np.complex128, "b": np.bool_}.get(kind))
        except OverflowError as error:
            raise mismatch("found a constant out of range", f"expected {dtype}") from error
        narrow = wide.astype(target)
        if kind in "fc" and not unsafe and bool((np.isinf(narrow) & np.isfinite(wide)).any()):
            raise mismatch("found a constant out of range", f"expected {dtype}")
        carried = bits_of(narrow, dtype)
        if dtype in NARROW and not unsafe and not np.array_equal(values_of(carried, dtype), wide, equal_nan=True):
            raise mismatch(f"found a constant that {dtype} cannot hold exactly", "expected one that fits")
        return carried
