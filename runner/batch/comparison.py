"""The first rows of a worker, scored both ways: what XLA compiled against what TensorFlow runs op by op.

Knows bindings and tensors, not engines: how the model is opened uncompiled is given to it. The invariant: a row whose
two answers differ ends the job; where all agree nothing is changed, and the second model is let go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from connectors.secret import redact
from jobs.errors import ModelCallError, ModelError
from runner.batch.batches import Where
from runner.binding.binding import Binding
from runner.binding.fetching import OutputTarget, Target
from runner.binding.shaping.target import ShapedTarget, shaped_of
from runner.tensor import Array, Feeds, Outputs, Strings, Tensor, values_of

# Of the largest number in an output: the same sums in another order differ by a millionth, a wrong row by much more.
TOLERANCE = 1e-3
_TOLERANCE_HALF = 2e-2  # of bfloat16 and float16, and of float32 that is multiplied in them
_HALVES = ("bfloat16", "float16")


class Uncompiled(Protocol):
    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs: ...
    def close(self) -> None: ...


class Comparison:
    """May be called from several threads.

    rows: how many are compared. opened: loads the model a second time; called with the first batch.
    halves: matrices are multiplied in bfloat16 or float16.
    """

    def __init__(self, rows: int, opened: Callable[[], Uncompiled], binding: Binding, *, halves: bool = False) -> None:
        self._left, self._opened, self._binding, self._halves = rows, opened, binding, halves
        self._model: Uncompiled | None = None
        self._lock = threading.Lock()

    def __call__(self, where: Where, rows: Array, batch: pa.RecordBatch, feeds: Feeds, outputs: Outputs) -> None:
        """Compare a call of the compiled model with one of the other.

        rows:   (batch.num_rows,) which of the batch at `where` they are.
        batch:  that was fed as `feeds`, and answered with `outputs`.
        raises: ModelError naming output, place and both values, or why TensorFlow refuses the row.
        """
        if not self._left:
            return
        with self._lock:
            count = min(len(rows), self._left)
            if not count:
                return
            self._model = self._model or self._opened()
            try:
                expected = self._model.run(feeds, self._binding.fetches)
            except ModelCallError as error:
                at, reason = self._refused(self._model, batch, error)
                raise _different(where, rows, at, f"an answer, and uncompiled {reason}") from error
            for target in self._binding.outputs:
                for name in target.compared if isinstance(target, ShapedTarget) else target.fetches:
                    found = self._difference(target, name, count, outputs[name], expected[name])
                    if found is not None:
                        raise _different(where, rows, found[0], f"for output '{name}' {found[1]}")
            self._left -= count
            if not self._left:
                self._close()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            model.close()

    def _difference(
        self, target: Target, name: str, count: int, compiled: Tensor, plain: Tensor
    ) -> tuple[int, str] | None:
        """See `difference`. name: of one of the tensors of an output; count: how many rows are compared."""
        tolerance = _TOLERANCE_HALF if self._halves or target.dtype in _HALVES else TOLERANCE
        if isinstance(target, OutputTarget | ShapedTarget):
            dtype = target.dtype if isinstance(target, OutputTarget) else shaped_of([target])[name].dtype
            return difference(_first(compiled, count), _first(plain, count), dtype, tolerance)
        found = difference(
            compiled, plain, target.dtype, tolerance
        )  # a part of something ragged: its rows are not known
        return None if found is None else (0, found[1])

    def _refused(self, model: Uncompiled, batch: pa.RecordBatch, error: ModelCallError) -> tuple[int, str]:
        """The first row that the uncompiled model refuses, and why: O(log n) calls."""
        first, stop = 0, batch.num_rows
        while stop - first > 1:
            middle = (first + stop) // 2
            try:
                model.run(self._binding.feed(batch.slice(first, middle - first)), self._binding.fetches)
                first = middle
            except ModelCallError as narrower:
                stop, error = middle, narrower
        return first, error.message


def difference(compiled: Tensor, plain: Tensor, dtype: str, tolerance: float) -> tuple[int, str] | None:
    """The first place along the first dimension at which two tensors differ, and both values there; None: nowhere.

    Numbers with a fraction may differ by `tolerance` of the largest finite one in `plain`; all else must be equal. NaN
    equals NaN only.
    """
    if compiled.shape != plain.shape:
        return 0, f"the shape {list(compiled.shape)}, and uncompiled {list(plain.shape)}"
    if isinstance(compiled, Strings) or isinstance(plain, Strings):
        one, other = (_objects(tensor) for tensor in (compiled, plain))
        unequal = one != other
    else:
        one, other = (values_of(each, dtype) for each in (compiled, plain))
        unequal = _unequal(one, other, tolerance)
    at = np.flatnonzero(unequal.reshape(-1))
    if not len(at):
        return None
    row = int(at[0]) // max(1, unequal.size // max(1, len(unequal)))
    return row, f"{one.reshape(-1)[at[0]]}, and uncompiled {other.reshape(-1)[at[0]]}"


def _unequal(one: Array, other: Array, tolerance: float) -> Array:
    if one.dtype.kind not in "fc":
        return np.asarray(one != other)
    largest = float(np.abs(np.where(np.isfinite(other), other, 0)).max(initial=0.0))
    return np.asarray(~np.isclose(one, other, rtol=0, atol=tolerance * largest, equal_nan=True))


def _objects(tensor: Tensor) -> Any:
    assert isinstance(tensor, Strings)
    return np.array([*tensor.values.to_pylist(), None], object)[:-1].reshape(tensor.shape)


def _first(tensor: Tensor, count: int) -> Tensor:
    if not isinstance(tensor, Strings):
        return tensor[:count]
    width = len(tensor.values) // max(1, tensor.shape[0])
    return Strings(tensor.values.slice(0, count * width), (count, *tensor.shape[1:]))


def _different(where: Where, rows: Array, at: int, story: str) -> ModelError:
    place = where.at(int(rows[at]))
    return ModelError(
        f"compiled by XLA the model gives other answers: {story}"
        f" ['{redact(place.file)}' row group {place.row_group} row {place.first_row}]; run it without:"
        " `model: {xla: false}`, or leave out `limits: {compare_uncompiled: ...}` if that difference does not matter",
        file=place.file,
        row_group=place.row_group,
        row=place.first_row,
    )
