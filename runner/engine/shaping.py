"""What is computed behind a signature: rankings, single values, rounded and cast ones, each said once for both engines.

Knows TensorFlow's ops by name, and not how an engine makes one. The invariant: an answer is defined where TensorFlow
leaves it open: of equal values the one in front is the largest, a NaN ranks as minus infinity, and what a number became
that a dtype cannot hold is flagged.

source: TopKV2 puts the lower of two equal values' places first (its documentation); ArgMax promises nothing of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Generic, Protocol, TypeVar

import numpy as np

from runner.model.shaped import WORKED_IN, Part, Shaped
from runner.tensor import FLOATS, Array, integer_range

T = TypeVar("T")
_WHOLE = 2.0**52  # from here on a float64 has no fraction


class Ops(Protocol[T]):
    """How an engine computes."""

    def op(self, kind: str, inputs: Mapping[str, T], attributes: Mapping[str, int | str]) -> list[T]:
        """The outputs of an op. inputs: in the op's own order. attributes: numbers, and dtypes by name."""
        ...

    def constant(self, dtype: str, values: Array) -> T: ...


def ways(shaped: Iterable[Shaped]) -> list[list[Shaped]]:
    """What is computed together: the parts of one shaping of one output."""
    ordered = sorted(shaped, key=lambda one: one.name)
    return [list(some) for _, some in groupby(ordered, key=lambda one: (one.of, one.how))]


def computed(ops: Ops[T], source: T, shaped: Sequence[Shaped]) -> dict[str, T]:
    """The tensors of one shaping of one output, by name. source: that output."""
    steps, first = _Steps(ops), shaped[0]
    dtypes = {one.part: one.dtype for one in shaped}
    parts = (_ranked if first.how.largest else _changed)(steps, source, first, dtypes)
    return {one.name: parts[one.part] for one in shaped}


class _Steps(Generic[T]):
    """Ops with their arguments in place."""

    def __init__(self, ops: Ops[T]) -> None:
        self.ops = ops

    def unary(self, kind: str, x: T) -> T:
        return self.ops.op(kind, {"x": x}, {})[0]

    def binary(self, kind: str, x: T, y: T) -> T:
        return self.ops.op(kind, {"x": x, "y": y}, {})[0]

    def cast(self, x: T, dtype: str) -> T:
        return self.ops.op("Cast", {"x": x}, {"DstT": dtype})[0]

    def where(self, condition: T, x: T, y: T) -> T:
        return self.ops.op("SelectV2", {"condition": condition, "t": x, "e": y}, {})[0]

    def number(self, value: float, dtype: str = "float64") -> T:
        return self.ops.constant(dtype, np.array(value, dtype))

    def whole_number(self, value: int) -> T:
        return self.ops.constant("int32", np.array(value, np.int32))

    def whole(self, values: Sequence[int]) -> T:
        return self.ops.constant("int32", np.array(values, np.int32))

    def any_of_row(self, flags: T, rank: int) -> T:
        """(rows,) of flags of `rank` dimensions."""
        if rank == 1:
            return flags
        return self.ops.op("Any", {"input": flags, "axis": self.whole(range(1, rank))}, {})[0]


def _ranked(steps: _Steps[T], source: T, shaped: Shaped, dtypes: Mapping[Part, str]) -> dict[Part, T]:
    """dtypes: of the parts that are wanted."""
    worked = WORKED_IN.get(shaped.given, shaped.given)
    x = source if worked == shaped.given else steps.cast(source, worked)
    parts: dict[Part, T] = {}
    ranked = x
    if worked in FLOATS:  # the order of what is no number is not promised, and a sort of it may never end
        nan = steps.unary("IsNan", x)
        parts["nan"] = steps.any_of_row(nan, shaped.rank)
        ranked = steps.where(nan, steps.number(-math.inf, worked), x)
    largest = {"input": ranked, "k": steps.whole_number(shaped.how.largest)}
    values, parts["index"] = steps.ops.op("TopKV2", largest, {})
    if "value" in dtypes:
        if worked in FLOATS:  # what was a NaN is one
            last = shaped.rank - 1
            picked = {"params": x, "indices": parts["index"], "axis": steps.whole_number(last)}
            values = steps.ops.op("GatherV2", picked, {"batch_dims": last})[0]
        parts["value"] = values if dtypes["value"] == worked else steps.cast(values, dtypes["value"])
    return parts


def _changed(steps: _Steps[T], source: T, shaped: Shaped, dtypes: Mapping[Part, str]) -> dict[Part, T]:
    """dtypes: of the parts that are wanted."""
    how, rank = shaped.how, shaped.rank - len(shaped.how.at)
    x = _picked(steps, source, how.at) if how.at else source
    if how.above is not None:
        parts: dict[Part, T] = {"value": _above(steps, x, shaped.given, how.above)}
        if "nan" in dtypes:
            parts["nan"] = steps.any_of_row(steps.unary("IsNan", x), rank)
        return parts
    given, dtype = shaped.given, dtypes["value"]
    if how.digits is not None:
        x, given = _rounded(steps, steps.cast(x, "float64"), how.digits), "float64"
    value = x
    if given != dtype:
        if (given, dtype) == ("float64", "float16"):  # TensorFlow's own way, said
            value = steps.cast(value, "float32")
        value = steps.cast(value, dtype)
    parts = {"value": value}
    if "unfit" in dtypes:
        parts["unfit"] = steps.any_of_row(_unfit(steps, x, given, value, dtype), rank)
    return parts


def _picked(steps: _Steps[T], x: T, at: Sequence[int]) -> T:
    """One place of each of the last dimensions: x[..., i, j]. An index beyond them is an error on every device."""
    begin, end = steps.whole([0, *at]), steps.whole([0, *(place + 1 for place in at)])
    sliced = {"input": x, "begin": begin, "end": end, "strides": steps.whole([1] * (len(at) + 1))}
    masks = {"begin_mask": 0, "end_mask": 0, "ellipsis_mask": 1, "new_axis_mask": 0}
    return steps.ops.op("StridedSlice", sliced, masks | {"shrink_axis_mask": (1 << len(at) + 1) - 2})[0]


def _above(steps: _Steps[T], x: T, dtype: str, above: float) -> T:
    """Whether x is above a number that its own dtype may not hold."""
    if dtype in FLOATS:
        return steps.binary("Greater", steps.cast(x, "float64"), steps.number(above))
    least, most = integer_range(dtype)
    floor = math.floor(above)
    kind, bound = ("GreaterEqual", least) if floor < least else ("Greater", min(floor, most))
    return steps.binary(kind, x, steps.ops.constant(dtype, np.array(bound, dtype)))


def _rounded(steps: _Steps[T], x: T, digits: int) -> T:
    """x: float64."""
    scale = steps.number(10.0**digits)
    # TensorFlow's optimizer makes of a division by a constant a product, which may be another number; not of this one.
    rounded = steps.binary("DivNoNan", steps.unary("Rint", steps.binary("Mul", x, scale)), scale)
    return steps.where(steps.binary("Less", steps.unary("Abs", x), steps.number(_WHOLE)), rounded, x)


def _unfit(steps: _Steps[T], x: T, given: str, value: T, dtype: str) -> T:
    """Where `value` of `dtype` is another number than x of `given`, beside what rounding does."""
    if dtype in FLOATS:
        infinite = steps.unary("IsInf", value)
        return steps.binary("LogicalAnd", infinite, steps.unary("IsFinite", x)) if given in FLOATS else infinite
    if given in FLOATS:
        bits = np.dtype(dtype).itemsize * 8 - 1
        low, high = steps.number(-(2.0**bits)), steps.number(2.0**bits)
        held = steps.binary("LogicalAnd", steps.binary("GreaterEqual", x, low), steps.binary("Less", x, high))
        return steps.unary("LogicalNot", held)
    unfit = steps.binary("NotEqual", x, steps.cast(value, given))
    if given.startswith("uint"):  # the same bits, and below 0
        zero = steps.ops.constant(dtype, np.array(0, dtype))
        unfit = steps.binary("LogicalOr", unfit, steps.binary("Less", value, zero))
    return unfit
