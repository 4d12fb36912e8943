"""Shaped tensor -> Arrow: the column that a ranking, a picked value, or a changed number becomes.

Knows what engines compute (`runner.model.shaped`), not how. The invariants: a row of which a NaN cannot be seen in its
column is known as one with a NaN, and a number is never written as another one beyond rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.words import counted
from runner.binding.blame import RowError
from runner.binding.cast.view import as_arrow
from runner.binding.fetching import OutputTarget, Target
from runner.binding.nesting import Row
from runner.binding.shaping.labels import labels_digest
from runner.model.shaped import Part, Shaped
from runner.model.signature import TensorSpec
from runner.tensor import Array, Outputs, Strings, Tensor, nonfinite, rows_of, values_of

_PLACES = 32  # bits of a place
_FIELD = pa.field("", pa.null())


@dataclass(frozen=True)
class _OfOutput:
    """spec: of the output. shaped: what is computed of it."""

    spec: TensorSpec
    shaped: Mapping[Part, Shaped]

    @property
    def of(self) -> str:
        return self.spec.name

    @property
    def dtype(self) -> str:
        """Of the output, as its row is."""
        return self.spec.dtype

    @property
    def row(self) -> Row:
        return (self.spec.shape or ())[1:]

    @property
    def fetches(self) -> tuple[str, ...]:
        return tuple(shaped.name for shaped in self.shaped.values())


@dataclass(frozen=True)
class RankedTarget(_OfOutput):
    """The largest values of the last dimension. largest: 0: the place of one, or its label, alone."""

    largest: int
    labels: pa.Array | None
    index: OutputTarget  # (rows, *outer, largest)
    value: OutputTarget | None  # the same; None: their places are enough
    column: OutputTarget

    @property
    def name(self) -> str:
        return _name(self)

    @property
    def field(self) -> pa.Field:
        return self.column.field

    @property
    def compared(self) -> tuple[str, ...]:
        """Of these the tensors that two ways to compute must agree on: values that are nearly equal change places."""
        return (self.shaped["value" if self.largest else "index"].name,)

    @property
    def note(self) -> str:
        label = "" if self.labels is None else f" of {len(self.labels):,} labels"
        return f"the place of the largest{label}" if not self.largest else f"{self.shaped['index'].how}{label}"

    def collect(self, outputs: Outputs, fed: int, batch: pa.RecordBatch) -> pa.Array:
        """See `runner.binding.fetching.OutputTarget.fetch`."""
        places, rows = outputs[self.shaped["index"].name], batch.num_rows
        self.index.check(places, fed)
        assert not isinstance(places, Strings)
        if self.value is None:
            first = np.ascontiguousarray(places[..., 0])  # first: (fed, *outer)
            named = first if self.labels is None else Strings(self._named(first), first.shape)
            return self.column.fetch(named, fed, rows)
        indices = np.ascontiguousarray(places[:rows])  # indices: (rows, *outer, largest)
        leaves = [as_arrow(indices.reshape(-1)), self.value.leaves(outputs[self.shaped["value"].name], fed, rows)]
        leaves += [] if self.labels is None else [self._named(indices)]
        struct = pa.StructArray.from_arrays(leaves, fields=list(_innermost(self.field.type)))
        shape = (rows, self.largest) if _levels(self.field.type) == 1 else indices.shape
        return self.column.wrapped(struct, self.field.type, shape)

    def _named(self, places: Array) -> pa.Array:
        assert self.labels is not None
        last = int(places.max(initial=0))
        if last >= len(self.labels):
            story = f"place {last:,} is among its largest, and there are {counted(len(self.labels), 'label')}"
            raise self.index.refusal("MODEL_OUTPUT", f"{story}; expected one for each of its values")
        return self.labels.take(as_arrow(places.reshape(-1)))

    def nan_rows(self, outputs: Outputs, rows: int) -> Array | None:
        """See `OutputTarget.nan_rows`; of all values, not only of those that are written."""
        return _flagged(self, outputs, rows)

    def odd_rows(self, outputs: Outputs, at: Array) -> Array:
        """(len(at),) whether these rows show a NaN or an infinity."""
        found = np.zeros(len(at), np.bool_)
        if (nan := _flagged(self, outputs, None)) is not None:
            found |= nan[at]
        if self.value is not None:
            found |= _nonfinite(outputs[self.shaped["value"].name], self.value.dtype, at)
        return found

    def answer(self, outputs: Outputs, place: int) -> Array:
        """Numbers that tell the answers to two rows apart, as near to each other as these are.

        A place is told by its bits: it is another one, or it is not. Of several the first: values that are nearly equal
        change places.
        """
        index = np.asarray(outputs[self.shaped["index"].name])[place].astype(np.int64)[..., :1].reshape(-1, 1)
        numbers = (index >> np.arange(_PLACES) & 1).reshape(-1).astype(np.float64)
        if self.value is not None:
            values = np.asarray(outputs[self.shaped["value"].name])[place].astype(np.float64).reshape(-1)
            largest = float(np.abs(np.where(np.isfinite(values), values, 0)).max(initial=0.0))
            numbers = np.concatenate([numbers, values / (largest or 1.0)])
        nan = _flagged(self, outputs, None)
        return numbers if nan is None or not nan[place] else np.full_like(numbers, np.nan)

    def document(self) -> dict[str, Any]:
        how = {"top_k": self.largest} if self.largest else {"argmax": True}
        labels = {} if self.labels is None else {"labels": labels_digest(self.labels.to_pylist())}
        return {**_document(self), **how, **labels}

    def bytes_per_row(self) -> int:
        return self.index.bytes_per_row() + (self.value.bytes_per_row() if self.value is not None else 0)


@dataclass(frozen=True)
class ValueTarget(_OfOutput):
    """One value of a row, or all of them, as they are or changed."""

    value: OutputTarget

    @property
    def name(self) -> str:
        return _name(self)

    @property
    def field(self) -> pa.Field:
        return self.value.field

    @property
    def compared(self) -> tuple[str, ...]:
        return (self.shaped["value"].name,)

    @property
    def note(self) -> str:
        return str(self.shaped["value"].how)

    def collect(self, outputs: Outputs, fed: int, batch: pa.RecordBatch) -> pa.Array:
        """See `runner.binding.fetching.OutputTarget.fetch`; raises RowError ROW_OVERFLOW too."""
        column = self.value.fetch(self._values(outputs), fed, batch.num_rows)
        if "unfit" in self.shaped:
            at = np.flatnonzero(np.asarray(outputs[self.shaped["unfit"].name])[: batch.num_rows])
            if len(at):
                raise self._overflow(at)
        return column

    def nan_rows(self, outputs: Outputs, rows: int) -> Array | None:
        """See `OutputTarget.nan_rows`."""
        if "nan" in self.shaped:
            return _flagged(self, outputs, rows)
        return self.value.nan_rows(self._values(outputs), rows)

    def odd_rows(self, outputs: Outputs, at: Array) -> Array:
        """(len(at),) whether these rows show a NaN or an infinity."""
        nan = _flagged(self, outputs, None)
        return _nonfinite(self._values(outputs), self.value.dtype, at) if nan is None else nan[at]

    def answer(self, outputs: Outputs, place: int) -> Array:
        """See `RankedTarget.answer`."""
        values = self._values(outputs)
        if isinstance(values, Strings):
            width = len(values.values) // values.shape[0]
            return np.array([*values.values.slice(place * width, width).to_pylist(), None], object)[:-1]
        numbers = values_of(values[place], self.value.dtype).reshape(-1)
        if self.value.dtype == "bool":
            numbers = numbers.astype(np.float32)
        nan = _flagged(self, outputs, None)
        return numbers if nan is None or not nan[place] else np.full_like(numbers, np.nan)

    def document(self) -> dict[str, Any]:
        how = self.shaped["value"].how
        said = {"at": list(how.at), "round": how.digits, "cast": how.cast, "above": how.above}
        return {**_document(self), **{key: value for key, value in said.items() if value not in ([], None, "")}}

    def bytes_per_row(self) -> int:
        return self.value.bytes_per_row()

    def _values(self, outputs: Outputs) -> Tensor:
        return outputs[self.shaped["value"].name]

    def _overflow(self, at: Array) -> RowError:
        subject = f"could not write output {self.of!r} to column {self.field.name!r}"
        dtype = self.value.dtype
        most = f", whose largest is {np.finfo(dtype).max:,.0f}" if dtype == "float16" else ""
        story = f"{subject}: found a number that {dtype} cannot hold{most}; choose another 'cast', or leave it out"
        message = f"row {at[0]} of the batch ({len(at)} such in this batch): {story}"
        return RowError.of(message, at, [story] * len(at), code="ROW_OVERFLOW", column=self.field.name)


ShapedTarget = RankedTarget | ValueTarget


def output_of(target: Target) -> str:
    """The output of the signature that a column is made of."""
    return target.of if isinstance(target, ShapedTarget) else target.name


def outputs_of(targets: Iterable[Target]) -> list[str]:
    """The outputs of the signature of which columns are made, each once."""
    return list(dict.fromkeys(map(output_of, targets)))


def shaped_of(targets: Iterable[Target]) -> dict[str, Shaped]:
    """What is computed behind the signature for these columns, by the name that is fetched."""
    found = [shaped for target in targets if isinstance(target, ShapedTarget) for shaped in target.shaped.values()]
    return {shaped.name: shaped for shaped in found}


def held_bytes(targets: Sequence[Target]) -> int:
    """Of a row, an estimate: of the outputs that are shaped and not fetched, which lie beside the others in a call."""
    plain = {target.name for target in targets if not isinstance(target, ShapedTarget)}
    held = {target.of: target.spec for target in targets if isinstance(target, ShapedTarget) and target.of not in plain}
    return sum(
        OutputTarget(name, spec.dtype, (spec.shape or ())[1:], _FIELD).bytes_per_row() for name, spec in held.items()
    )


def _name(target: ShapedTarget) -> str:
    """Of one output there may be several: what it is called names the column too."""
    return f"{target.of} -> {target.field.name}"


def _document(target: ShapedTarget) -> dict[str, Any]:
    return {
        "column": target.field.name,
        "dtype": target.dtype,
        "row": list(target.row),
        "decoded": False,
        "of": target.of,
    }


def _flagged(target: ShapedTarget, outputs: Outputs, rows: int | None) -> Array | None:
    """(rows,) where a NaN is flagged; None: nowhere, or nothing can be."""
    if "nan" not in target.shaped:
        return None
    flags = np.asarray(outputs[target.shaped["nan"].name])[:rows]
    return flags if flags.any() else None


def _nonfinite(tensor: Tensor, dtype: str, at: Array) -> Array:
    if isinstance(tensor, Strings):
        return np.zeros(len(at), np.bool_)
    mask = nonfinite(np.ascontiguousarray(tensor[at]), dtype)
    return np.zeros(len(at), np.bool_) if mask is None else rows_of(mask)


def _innermost(arrow: pa.DataType) -> pa.DataType:
    return arrow if pa.types.is_struct(arrow) else _innermost(arrow.value_type)


def _levels(arrow: pa.DataType) -> int:
    return 0 if pa.types.is_struct(arrow) else 1 + _levels(arrow.value_type)
