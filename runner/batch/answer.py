"""What a model answered to one row, whatever kind of output it came in, and whether two answers to a row agree.

Knows outputs and columns, not engines. The invariant: two answers that a row-wise model gives to one row in two calls
agree, although other sizes of a call take other kernels; those of rows that were mixed do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.errors import DataError
from runner.binding.binding import Binding
from runner.binding.fetching import OutputTarget, Target
from runner.binding.shaping.target import ShapedTarget
from runner.tensor import Array, Outputs, Strings, Tensor, values_of

# Answers to one row may differ by this share of the largest number in them: other batch sizes take other kernels, and
# dynamic quantisation rounds by the batch. Rows that are mixed differ by much more.
TOLERANCE = 0.02
REPEATED = 1e-4  # the same of one call that is made twice: only the order of additions may differ
DEPENDS = "depend on the rows beside a row, or on its place, so that they would change with the size of a batch"


@dataclass(frozen=True, eq=False)
class Answer:
    """values: (n,) of what one row was answered, row-major; bytes and texts as objects. shape: of them.
    lists: the shape is this row's own, and no other row's length decides it."""

    values: Array
    shape: tuple[Any, ...]
    lists: bool = False

    @property
    def finite(self) -> bool:
        """Whether it shows no NaN and no infinity."""
        return self.values.dtype.kind not in "fc" or bool(np.isfinite(self.values).all())

    def agrees(self, other: Answer, tolerance: float) -> bool:
        """Whether both may be the answer to one row, to the last bit where no tolerance is given.

        Dimensions of a tensor that follow the longest row of a batch may differ.
        """
        one, two = self.values, other.values
        if self.shape != other.shape:
            return not self.lists
        if one.dtype.kind not in "fc":
            return bool(np.array_equal(one, two))
        if not tolerance:
            return one.tobytes() == two.tobytes()
        largest = np.abs(np.where(np.isfinite(one), one, 0)).max(initial=0.0)
        return bool(np.allclose(one, two, rtol=0, atol=tolerance * float(largest) + 1e-6, equal_nan=True))


@dataclass(frozen=True, eq=False)
class Call:
    """rows: which row stood at each place that is looked at. answers: output -> what each of them was answered."""

    rows: Sequence[int]
    answers: Mapping[str, Sequence[Answer]]


def differing(calls: Sequence[Call], tolerance: float) -> dict[str, set[int]]:
    """Output -> the rows that calls answer differently; outputs without such rows are left out."""
    found: dict[str, set[int]] = {}
    first: dict[tuple[str, int], Answer] = {}
    for call in calls:
        for name, answers in call.answers.items():
            for row, answer in zip(call.rows, answers, strict=True):
                if not first.setdefault((name, row), answer).agrees(answer, tolerance):
                    found.setdefault(name, set()).add(row)
    return found


def answers(
    binding: Binding, outputs: Outputs, places: Sequence[int], batch: pa.RecordBatch | None
) -> dict[str, list[Answer]]:
    """What stands at some places of a call's outputs.

    places: in the call; of an output that is made of several tensors, or cut, only those in `batch` can be read.
    batch:  that was fed; None: nothing is known of it, then such outputs are left out, as they are where they are not
            what they should be.
    """
    found: dict[str, list[Answer]] = {}
    for target in binding.outputs:
        if isinstance(target, OutputTarget):
            found[target.name] = [row_answer(outputs[target.name], place, target.dtype) for place in places]
        elif isinstance(target, ShapedTarget):
            found[target.name] = [shaped_answer(target, outputs, place) for place in places]
        elif batch is not None and (column := _column(target, outputs, binding.batch_rows, batch)) is not None:
            last = batch.num_rows - 1  # what a call is filled up with
            found[target.name] = [_listed(column[min(place, last)].as_py()) for place in places]
    return found


def row_answer(tensor: Tensor, place: int, dtype: str) -> Answer:
    """The answer at one place of an output that is one tensor (rows, *row)."""
    if isinstance(tensor, Strings):
        width = len(tensor.values) // tensor.shape[0]
        return Answer(_objects(tensor.values.slice(place * width, width).to_pylist()), tensor.shape[1:])
    return Answer(values_of(tensor[place], dtype).reshape(-1), tensor.shape[1:])


def shaped_answer(target: ShapedTarget, outputs: Outputs, place: int) -> Answer:
    """The same of what was computed of an output."""
    values = target.answer(outputs, place)
    return Answer(values, values.shape)


def _column(target: Target, outputs: Outputs, fixed: int | None, batch: pa.RecordBatch) -> pa.Array | None:
    try:
        return target.collect(outputs, fixed or batch.num_rows, batch)
    except DataError:
        return None


def _listed(value: Any) -> Answer:
    """value: a row of a column, lists and dicts of what it holds."""
    leaves: list[Any] = []

    def shape(part: Any) -> Any:
        if isinstance(part, dict):
            part = list(part.values())
        if isinstance(part, list):
            return tuple(shape(each) for each in part)
        leaves.append(part)
        return ()

    own = shape(value)
    texts = any(isinstance(leaf, str | bytes) for leaf in leaves)
    return Answer(_objects(leaves) if texts else np.array(leaves), own, lists=True)


def _objects(values: Sequence[Any]) -> Array:
    return np.array([*values, None], object)[:-1]  # the None keeps NumPy from guessing
