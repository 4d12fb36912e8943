"""The Binding: the agreement between the columns of the input and the tensors of a signature.

Compiled once per job from an Arrow schema and a signature, before any worker starts; refuses to know files, engines
and stores. The invariant: a Binding that exists knows its output schema, and whatever schema and signature can
tell to be wrong was one BindingError that lists all of it.
"""

from __future__ import annotations

import copyreg
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.errors import BindingError, DataError, InternalError, offenders, one_of
from jobs.job import Columns, InputColumn, OutputColumn
from runner.binding.cast import Array, as_arrow
from runner.binding.composite import PartsSource, grouped, source_of, target_of
from runner.binding.example import ExampleSource, example_source
from runner.binding.feeding import ColumnSource, ConstantSource, InputSource, StackSource, column_of, feedable, finite
from runner.binding.fetching import OutputTarget, Target, output_field
from runner.binding.naming import Path, absent, features_of, named, paths, rules_of, with_columns, with_fields
from runner.binding.padding import PadSource
from runner.binding.ragged import nan_lists
from runner.binding.row_error import RowError
from runner.model.saved_model import Signature, TensorSpec
from runner.tensor import Feeds, Outputs, Strings, Tensor, tensor_text, type_text

__all__ = ["Binding", "bind", "output_field", "wanted_columns"]


def _reduced(arrow: pa.FixedSizeListType) -> tuple[Any, ...]:
    return pa.list_, (arrow.value_field, arrow.list_size)


# pyarrow (26.0) pickles a fixed-size list without its field: elements that are never null would be nullable on a
# worker, and the types of driver and worker no longer equal.
copyreg.pickle(pa.FixedSizeListType, _reduced)


@dataclass(frozen=True)
class BoundInput:
    """source: None where the signature's own default is fed. twin: another input that is the same tensor."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    source: InputSource | PartsSource | None
    twin: str = ""


@dataclass(frozen=True)
class Binding:
    """How the rows of a record batch become named tensors, and named tensors columns. Picklable.

    columns:       to read, in order; those that are fed, then those that are kept.
    fetches:       outputs to compute.
    output_schema: kept columns first, in the order of the job, then the outputs.
    batch_rows:    the fixed batch dimension of the model, None: any number of rows.
    paths:         of what is fed, what is a field of a struct: its dotted name -> the column and the fields in it.
    """

    columns: tuple[str, ...]
    fetches: tuple[str, ...]
    output_schema: pa.Schema
    batch_rows: int | None
    inputs: tuple[BoundInput, ...]
    outputs: tuple[Target, ...]
    kept: tuple[str, ...]
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def output_bytes_per_row(self) -> float:
        """An estimate over the outputs, in Arrow: open dimensions count as 64 values, strings as 64 bytes."""
        return sum(output.bytes_per_row() for output in self.outputs)

    def feed(self, batch: pa.RecordBatch) -> Feeds:
        """Turn one record batch into the model's named inputs.

        batch:   1 to `batch_rows` rows with at least `self.columns`.
        returns: {input: (rows, *row)}; views onto `batch` where the layout allows. With a fixed batch dimension
                 always `batch_rows` rows: a short batch is filled up with its last row. Constants are not cut.
        raises:  RowError ROW_NULL, ROW_SHAPE, ROW_OVERFLOW, ROW_INEXACT or ROW_NONFINITE, and ROW_UTF8 for kept text
                 that is none, naming column and rows within the batch; DataError where no row is to blame.
        cost:    no copy for contiguous fixed-width columns without nulls, one for others and for stacks.
        """
        for name in self.kept:
            _refuse_torn_text(name, column_of(batch, name))
        if self.batch_rows is not None and not 0 < batch.num_rows <= self.batch_rows:
            raise InternalError(f"a batch of {batch.num_rows} rows for a model of 1 to {self.batch_rows} rows a call")
        feeds: dict[str, Tensor] = {}
        batch = with_columns(batch, self.paths)
        for bound in self.inputs:
            if bound.source is None:
                continue
            if bound.twin:
                feeds[bound.name] = feeds[bound.twin]
                continue
            if isinstance(bound.source, PartsSource):
                feeds.update(bound.source.feed_parts(batch, self.batch_rows or batch.num_rows))
                continue
            tensor = bound.source.feed(batch)
            short = self.batch_rows not in (None, batch.num_rows) and not isinstance(bound.source, ConstantSource)
            feeds[bound.name] = _padded(tensor, self.batch_rows or 0) if short else tensor
        return feeds

    def fetch(self, batch: pa.RecordBatch, outputs: Outputs) -> pa.RecordBatch:
        """The rows to write: the kept columns of `batch` as they are, and the outputs of the model.

        batch:   the very batch that was fed.
        outputs: {output: (rows fed, *row)} with at least `self.fetches`.
        raises:  DataError MODEL_BATCH where rows were lost or added, MODEL_OUTPUT where a tensor is not what the
                 signature promised, ROW_UTF8 where text was asked for.
        cost:    no copy for kept columns and numbers; bool, complex and bfloat16 are copied.
        """
        fed, batch = self.batch_rows or batch.num_rows, with_columns(batch, self.paths)
        columns = [column_of(batch, name) for name in self.kept]
        for target in self.outputs:
            if not outputs.keys() >= set(target.fetches):
                raise DataError(f"the model returned no output {target.name!r}", code="MODEL_OUTPUT")
            columns.append(target.collect(outputs, fed, batch))
        return pa.RecordBatch.from_arrays(columns, schema=self.output_schema)

    def nan_rows(self, outputs: Outputs, fetched: pa.RecordBatch) -> npt.NDArray[np.bool_] | None:
        """(rows,) where one of the outputs holds a NaN; None: nowhere. fetched: what `fetch` made of `outputs`."""
        masks = [
            target.nan_rows(outputs[target.name], fetched.num_rows)
            if isinstance(target, OutputTarget)
            else nan_lists(fetched.column(target.field.name))
            for target in self.outputs
        ]
        found = [mask for mask in masks if mask is not None]
        return np.logical_or.reduce(found) if found else None

    def finite(self) -> Binding:
        """The same binding, for which NaN and infinity in an input are bad rows."""
        inputs = tuple(replace(bound, source=bound.source and finite(bound.source)) for bound in self.inputs)
        return replace(self, inputs=inputs)

    def lengths(self, rows: pa.RecordBatch | pa.Table) -> Array | None:
        """(rows,) how many values padding makes of each row alone; None: nothing is padded, or to one width only."""
        sources = [source for source in self._padded if source.widths[0] is None]
        rows = with_columns(rows, self.paths)
        return np.sum([source.alone(source.lengths(rows)) for source in sources], axis=0) if sources else None

    @property
    def pads(self) -> bool:
        return bool(self._padded)

    def padding(self, batch: pa.RecordBatch, feeds: Feeds) -> tuple[int, int]:
        """Of the padded inputs of a batch that was fed: places of values, and how many of them the rows filled."""
        batch = with_columns(batch, self.paths)
        widths = [feeds[bound.name].shape[1] for bound in self.inputs if isinstance(bound.source, PadSource)]
        return batch.num_rows * sum(widths), sum(int(source.lengths(batch).sum()) for source in self._padded)

    @property
    def _padded(self) -> list[PadSource]:
        return [bound.source for bound in self.inputs if isinstance(bound.source, PadSource)]

    def describe(self) -> list[dict[str, str]]:
        """For people: a row for each input, output and kept column, all with the same keys."""
        rows = []
        for bound in self.inputs:
            default = {"column": "", "type": "", "note": "the signature's default"}
            told = default if bound.source is None else bound.source.describe()
            rows.append({"role": "input", "tensor": bound.name, **_shape(bound.dtype, bound.shape), **told})
        for target in self.outputs:
            told = {"column": target.field.name, "type": type_text(target.field.type), "note": ""}
            rows.append({"role": "output", "tensor": target.name, **_shape(target.dtype, (None, *target.row)), **told})
        for name in self.kept:
            told = {"column": name, "type": type_text(self.output_schema.field(name).type), "note": ""}
            rows.append({"role": "kept", "tensor": "", "dtype": "", "shape": "", **told})
        return rows

    def identity(self) -> dict[str, Any]:
        """All of the mapping that can change a result, as plain JSON values that are stable across versions."""
        return {
            "inputs": {bound.name: bound.source and bound.source.document() for bound in self.inputs},
            "outputs": {target.name: target.document() for target in self.outputs},
            "keep": list(self.kept),
        }


def _refuse_torn_text(name: str, values: pa.Array) -> None:
    """raises: RowError ROW_UTF8: readers of the output would stumble over what Parquet readers let through."""
    if not _holds_text(values.type):
        return
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        at = np.array([row for row, value in enumerate(values) if not _readable(value)])
        if not len(at):
            raise
        story = f"could not keep column {name!r}: found text that is no UTF-8; declare the column as binary, or mend it"
        message = f"row {at[0]} of the batch ({len(at)} such in this batch): {story}"
        raise RowError.of(message, at, [story] * len(at), code="ROW_UTF8", column=name) from None


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_text(kind.field(index).type) for index in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _readable(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


def wanted_columns(columns: Columns, signature: Signature, schema: pa.Schema) -> list[str]:
    """The columns that a job reads: those bound, in the order of the inputs, then those kept; each once.

    Names that `schema` lacks are included as they are, so that whoever looks for them can say so.
    """
    leads = paths(columns, signature, schema)
    schema = with_fields(schema, leads)
    signature = grouped(columns, schema, signature)
    rules = rules_of(columns, signature, schema)
    bound = [
        column
        for name, rule in rules.items()
        if rule is not None and (name in columns.inputs or feedable(signature.inputs[name]))
        for column in named(rule, schema)
    ]
    bound = [leads.get(name, (name,))[0] for name in bound]
    return list(dict.fromkeys([*bound, *columns.keep]))


def bind(columns: Columns, schema: pa.Schema, signature: Signature, tensor_encoding: str) -> Binding:
    """Agree on every input, output and kept column.

    schema:  at least the columns of `wanted_columns`.
    raises:  BindingError that lists all offenders, each with column, tensor, what was found and expected. Facts:
             `code` of the first and `codes` of all, in the order of the lines, with commas between.
    """
    problems, wanted = _Problems(), tuple(wanted_columns(columns, signature, schema))
    leads, given = paths(columns, signature, schema), schema
    schema = with_fields(schema, leads)
    signature = grouped(columns, schema, signature)
    inputs = _bind_inputs(columns, schema, signature, problems)
    batch_rows = _batch_rows(inputs, problems)
    padded = {bound.name: bound.source for bound in inputs if isinstance(bound.source, PadSource)}
    targets = _bind_outputs(columns, signature, batch_rows, tensor_encoding, padded, problems)
    for name in columns.keep:
        problems.note(absent(name, given), f"kept column {name!r}")
    fields = [given.field(name) for name in columns.keep if given.names.count(name) == 1]
    fields += [target.field for target in targets]
    for name, count in Counter(one.name for one in fields).items():
        if count > 1:
            advice = "rename an output (`outputs: {NAME: other_name}`) or keep fewer columns"
            problems.add("COLUMN_AMBIGUOUS", f"output column {name!r}: {count} columns would have this name; {advice}")
    problems.check(signature)
    return Binding(
        columns=wanted,
        fetches=tuple(name for target in targets for name in target.fetches),
        output_schema=pa.schema(fields),
        batch_rows=batch_rows,
        inputs=tuple(inputs),
        outputs=tuple(targets),
        kept=columns.keep,
        paths=leads,
    )


class _Problems:
    """All that is wrong, in the order in which it was found."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, code: str, text: str) -> None:
        self._found.append((code, text))

    def note(self, error: BindingError | None, subject: str) -> None:
        """Add what a part of the agreement says, with what it says it of."""
        if error is not None:
            self.add(error.facts["code"], f"{subject}: {error.message}")

    def check(self, signature: Signature) -> None:
        if self._found:
            count = f"{len(self._found)} problem{'s' * (len(self._found) > 1)}"
            codes = [code for code, _ in self._found]
            lines = offenders([f"{code}: {text}" for code, text in self._found])
            raise BindingError(
                f"could not bind columns to signature {signature.name!r}: {count}\n{lines}",
                code=codes[0],
                codes=",".join(codes),
            )


def _bind_inputs(columns: Columns, schema: pa.Schema, signature: Signature, problems: _Problems) -> list[BoundInput]:
    for name in columns.inputs:
        if name not in signature.inputs:
            choices = one_of(list(signature.inputs), name)
            problems.add("MODEL_SIGNATURE", f"input {name!r}: the signature has no such input; it has {choices}")
    inputs = []
    rules = rules_of(columns, signature, schema)
    for name, rule in rules.items():
        spec = signature.inputs[name]
        twin = next((one for one in rules if spec.tensor and signature.inputs[one].tensor == spec.tensor), name)
        if twin != name and rule is not None and rules[twin] != rule:
            found = f"input {name!r} {spec}: it is the same tensor as input {twin!r}, and fed from somewhere else"
            problems.add("MODEL_SIGNATURE", f"{found}; expected one column for both: name it for one of them")
            continue
        source = None if rule is None else _source(spec, rule, schema, problems)
        if rule is None or source is not None:
            inputs.append(BoundInput(name, spec.dtype, spec.shape, source, twin if twin != name else ""))
    if not problems and all(bound.source is None or isinstance(bound.source, ConstantSource) for bound in inputs):
        found = f"its inputs {one_of([bound.name for bound in inputs])} are constants or defaults"
        problems.add("MODEL_SIGNATURE", f"no input follows the rows: {found}; expected at least one column to be fed")
    return inputs


def _source(
    spec: TensorSpec, rule: InputColumn, schema: pa.Schema, problems: _Problems
) -> InputSource | PartsSource | None:
    names = named(rule, schema)
    missing = [(name, error) for name in names if (error := absent(name, schema)) is not None]
    if missing and feedable(spec):
        for name, error in missing:
            problems.note(error, f"input {spec.name!r} {spec} from column {name!r}")
        return None
    subject = f"input {spec.name!r} {spec}"
    if rule.column is not None:
        subject += f" from column {rule.column!r}"
    elif rule.stack is not None:
        subject += f" from columns {one_of(names)}"
    elif rule.example is not None:
        subject += " from an Example"
    try:
        if rule.example is not None:
            features = features_of(rule.example.columns, schema)
            return example_source(spec, rule, {feature: schema.field(name) for feature, name in features.items()})
        return source_of(spec, rule, [schema.field(name) for name in names] if feedable(spec) else [])
    except BindingError as error:
        problems.note(error, subject)
        return None


def _batch_rows(inputs: Sequence[BoundInput], problems: _Problems) -> int | None:
    """The fixed batch dimension of the inputs that follow the rows, None where they take any."""
    fixed = {
        bound.name: bound.shape[0]
        for bound in inputs
        if bound.shape
        and bound.shape[0] is not None
        and isinstance(bound.source, ColumnSource | StackSource | ExampleSource | PadSource)
    }
    if len(set(fixed.values())) > 1:
        found = ", ".join(f"{name!r} wants {rows}" for name, rows in fixed.items())
        problems.add("MODEL_SIGNATURE", f"fixed batch dimensions: {found}; expected one number of rows for all inputs")
    return next(iter(fixed.values()), None)


def _bind_outputs(
    columns: Columns,
    signature: Signature,
    batch_rows: int | None,
    tensor_encoding: str,
    padded: Mapping[str, PadSource],
    problems: _Problems,
) -> list[Target]:
    rules = columns.outputs
    leave_out = ""
    if rules is None:
        rules = {name: OutputColumn() for name in signature.outputs}
        leave_out = "; to leave it out, name the outputs to keep in the job: `outputs: [...]`"
    if not rules:
        problems.add("MODEL_SIGNATURE", "the signature has no output; expected at least one to write")
    targets: list[Target] = []
    for name, rule in rules.items():
        if name not in signature.outputs:
            choices = one_of(list(signature.outputs), name)
            problems.add("MODEL_SIGNATURE", f"output {name!r}: the signature has no such output; it has {choices}")
            continue
        spec = signature.outputs[name]
        try:
            targets.append(target_of(spec, rule, batch_rows, tensor_encoding, padded))
        except BindingError as error:
            problems.add(error.facts["code"], f"output {name!r} {spec}: {error.message}{leave_out}")
    return targets


def _padded(tensor: Tensor, rows: int) -> Tensor:
    """(fewer, *row) -> (rows, *row): the last row again and again."""
    missing = rows - tensor.shape[0]
    if isinstance(tensor, Strings):
        width = math.prod(tensor.shape[1:])
        last = np.arange(len(tensor.values) - width, len(tensor.values))  # last: (values of the last row,)
        order = np.concatenate([np.arange(len(tensor.values)), np.tile(last, missing)])
        return Strings(tensor.values.take(as_arrow(order)), (rows, *tensor.shape[1:]))
    return np.concatenate([tensor, np.repeat(tensor[-1:], missing, axis=0)])


def _shape(dtype: str, shape: tuple[int | None, ...] | None) -> dict[str, str]:
    return {"dtype": dtype, "shape": tensor_text("", shape)}
