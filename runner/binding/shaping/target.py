"""Shaped tensor -> Arrow: the column that a ranking, a picked value, or a changed number becomes.

Knows what engines compute (`runner.model.shaped`), not how. The invariants: a row of which a NaN cannot be seen in its
column is known as one with a NaN, and a number is never written as another one beyond rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.errors import one_of
from jobs.section.columns import OutputColumn
from jobs.words import counted
from runner.binding.blame import RowError
from runner.binding.cast.kind import NATURAL
from runner.binding.cast.view import as_arrow
from runner.binding.constant import mismatch
from runner.binding.fetching import OutputTarget, Rules, Target, is_single, nested, output_target
from runner.binding.nesting import Row
from runner.binding.shaping.labels import Labels, labels_digest
from runner.model.shaped import Part, Shaped, Shaping
from runner.model.signature import TensorSpec
from runner.tensor import FLOATS, Array, Outputs, Strings, Tensor, nonfinite, rows_of, values_of

_INTEGERS = tuple(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u"))
_NUMBERS = ("float16", "bfloat16", "float32", "float64", *_INTEGERS, "bool")
_PLACES = 32  # bits of a place
_FIELD = pa.field("", pa.null())


@dataclass(frozen=True)
class RankedTarget:
    """The largest values of the last dimension. largest: 0: the place of one, or its label, alone."""

    spec: TensorSpec  # of the output
    largest: int
    labels: pa.Array | None
    index: OutputTarget  # (rows, *outer, largest)
    value: OutputTarget | None  # the same; None: their places are enough
    column: OutputTarget
    shaped: Mapping[Part, Shaped]

    @property
    def name(self) -> str:
        return _name(self)

    @property
    def field(self) -> pa.Field:
        return self.column.field

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
class ValueTarget:
    """One value of a row, or all of them, as they are or changed."""

    spec: TensorSpec  # of the output
    value: OutputTarget
    shaped: Mapping[Part, Shaped]

    @property
    def name(self) -> str:
        return _name(self)

    @property
    def field(self) -> pa.Field:
        return self.value.field

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


def shaped_target(
    spec: TensorSpec, rule: OutputColumn, batch_rows: int | None, tensor_encoding: str, rules: Rules
) -> ShapedTarget:
    """Agree on the column that something computed of an output becomes. Arguments as of `output_target`.

    raises: BindingError saying what was found and expected, without naming the output.
    """
    if spec.shape is None:
        expected = "expected a known number of dimensions, which a model without effects shows when it is tried"
        raise mismatch(f"found unknown rank beside {_keys(rule)}", expected, "MODEL_SIGNATURE")
    if spec.encoding != "dense":
        expected = f"{_keys(rule)} is for tensors whose rows are of one shape"
        raise mismatch(f"found a {spec.encoding} output", expected, "MODEL_SIGNATURE")
    output_target(spec, OutputColumn(), batch_rows, tensor_encoding, rules)  # what is asked of each output
    if spec.dtype not in _NUMBERS and (rule.shapes != ("at",) or spec.dtype != "string"):
        expected = f"{_keys(rule)} is for floats of at least 16 bits, integers of at least 8, and booleans"
        raise mismatch(f"found dtype {spec.dtype}", expected, "MODEL_SIGNATURE")
    make = _ranked if rule.argmax or rule.top_k is not None else _valued
    return make(spec, rule, tensor_encoding, rules)


def _ranked(spec: TensorSpec, rule: OutputColumn, tensor_encoding: str, rules: Rules) -> RankedTarget:
    whole = (spec.shape or ())[1:]
    if not whole:
        raise mismatch("found one value a row", f"{_keys(rule)} wants several in the last dimension")
    *outer, width = whole
    count, largest = rule.top_k or 1, rule.top_k or 0
    if width is not None and count > width:
        found = f"found '{'top_k: ' + str(count) if largest else 'argmax'}' of {counted(width, 'value')}"
        raise mismatch(found, f"expected at most {width}, the last dimension" if width else "expected one at least")
    labels = _labels(rule, width)
    row = (*outer, count)
    dtype = "float32" if spec.dtype == "bfloat16" else spec.dtype
    parts: dict[Part, tuple[str, Row]] = {"index": ("int32", row)}
    parts |= {"value": (dtype, row)} if largest else {}
    parts |= {"nan": ("bool", ())} if spec.dtype in FLOATS else {}
    shaped = _parts(spec, Shaping(largest=count), parts)
    index = OutputTarget(spec.name, "int32", row, pa.field(rule.column or spec.name, pa.int32()))
    if not largest:
        kind, decode = ("int32", None) if labels is None else ("string", "utf-8")
        own = TensorSpec(spec.name, kind, (None, *outer), "")
        shape = OutputColumn.model_validate({"column": rule.column, "decode": decode})
        column = output_target(own, shape, None, tensor_encoding, rules)
        return RankedTarget(spec, 0, labels, replace(index, field=column.field), None, column, shaped)
    kinds = {"index": pa.int32(), "value": NATURAL[dtype]} | ({} if labels is None else {"label": pa.string()})
    struct = pa.struct([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])
    outside = () if rules.single and is_single(tuple(outer)) else tuple(outer)
    field = pa.field(index.field.name, nested(struct, (*outside, largest)), nullable=False)
    index = replace(index, field=field)
    return RankedTarget(spec, largest, labels, index, replace(index, dtype=dtype), index, shaped)


def _labels(rule: OutputColumn, width: int | None) -> pa.Array | None:
    labels = rule.labels
    if labels is None:
        return None
    if isinstance(labels, str) or (isinstance(labels, Labels) and labels.problem):
        problem = f"{labels!r} was not read" if isinstance(labels, str) else labels.problem
        raise mismatch(f"found no labels: {problem}", "expected a text file in UTF-8, with a line for each value")
    if width is not None and len(labels) != width:
        where = f" in {labels.origin}" if isinstance(labels, Labels) else ""
        few = "line" if isinstance(labels, Labels) else "label"
        more = (
            "; one more is often a background class that only one of them has" if abs(len(labels) - width) == 1 else ""
        )
        expected = f"expected {counted(width, few)}, one for each{more}"
        raise mismatch(f"found {counted(len(labels), few)}{where} for {counted(width, 'value')}", expected)
    return pa.array(labels, pa.string())


def _valued(spec: TensorSpec, rule: OutputColumn, tensor_encoding: str, rules: Rules) -> ValueTarget:
    row = spec.shape[1:] if spec.shape else ()
    at = rule.at if isinstance(rule.at, tuple) else () if rule.at is None else (rule.at,)
    _check_places(rule, at, row)
    given, floats = spec.dtype, spec.dtype in FLOATS
    if rule.above is not None and given == "bool":
        raise mismatch("found booleans", "'above' is for numbers")
    if rule.round is not None and not floats:
        raise mismatch(f"found 'round: {rule.round}' of {given}", "expected floats, which have digits to round")
    if floats and rule.cast and rule.cast.startswith("int") and rule.round != 0:
        raise mismatch(f"found 'cast: {rule.cast}' of {given}", "expected 'round: 0' beside it, which makes it whole")
    how = Shaping(at=at, digits=rule.round, cast=rule.cast or "", above=rule.above)
    left = row[: len(row) - len(at)]
    dtype = "bool" if rule.above is not None else rule.cast or ("float32" if given == "bfloat16" else given)
    parts: dict[Part, tuple[str, Row]] = {"value": (dtype, left)}
    if rule.above is not None:
        parts |= {"nan": ("bool", ())} if floats else {}
    elif _may_overflow(given, dtype):
        parts |= {"unfit": ("bool", ())}
    own = TensorSpec(spec.name, dtype, (None, *left), "")
    value = output_target(own, OutputColumn(column=rule.column), None, tensor_encoding, rules)
    return ValueTarget(spec, value, _parts(spec, how, parts))


def _check_places(rule: OutputColumn, at: Sequence[int], row: Row) -> None:
    said = f"found 'at: {list(at) if isinstance(rule.at, tuple) else rule.at}'"
    held = ", ".join("?" if size is None else str(size) for size in row)
    if isinstance(rule.at, tuple) and len(at) != len(row):
        raise mismatch(f"{said} of rows [{held}]", f"expected a place for each of {counted(len(row), 'dimension')}")
    if len(at) > len(row):
        raise mismatch(f"{said} of rows that are one value", "expected several")
    for place, size in zip(at, row[len(row) - len(at) :], strict=True):
        if size is not None and place >= size:
            raise mismatch(f"{said} of rows [{held}]", f"expected less than {size}: places count from 0")


def _may_overflow(given: str, dtype: str) -> bool:
    """Whether a number of one dtype may be none of the other, however it is rounded."""
    if given in ("string", "bool", dtype):
        return False
    source = "float32" if given == "bfloat16" else given
    return (dtype not in ("float32", "float64") and not np.can_cast(source, dtype)) or (given, dtype) == (
        "float64",
        "float32",
    )


def _parts(spec: TensorSpec, how: Shaping, parts: Mapping[Part, tuple[str, Row]]) -> dict[Part, Shaped]:
    rank = len(spec.shape or ())
    return {part: Shaped(spec.name, spec.dtype, rank, how, part, dtype, row) for part, (dtype, row) in parts.items()}


def _keys(rule: OutputColumn) -> str:
    return one_of(list(rule.shapes))


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
