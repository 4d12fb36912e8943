"""Compiles a Binding: job, schema and signature in, every disagreement at once out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pyarrow as pa

from connectors.formats.widening import common_type
from jobs.errors import BindingError, offenders, one_of
from jobs.section.columns import Columns, InputColumn, OutputColumn, misplaced
from jobs.words import counted
from runner.binding.binding import Binding, BoundInput
from runner.binding.cast.kind import NATURAL
from runner.binding.composite import PartsSource, grouped, source_of, target_of
from runner.binding.constant import ConstantSource, mismatch
from runner.binding.example import ExampleSource, example_source
from runner.binding.feeding import feedable
from runner.binding.fetching import TODAY, Rules, Target
from runner.binding.naming import (
    Way,
    absent,
    count,
    features_of,
    kept,
    named,
    not_kept,
    paths,
    rules_of,
    with_fields,
)
from runner.binding.nesting import Row, valued
from runner.binding.padding import PadSource
from runner.binding.picture.source import PictureSource
from runner.binding.source import ColumnSource, InputSource, StackSource
from runner.model.signature import Signature, TensorSpec


def wanted_columns(columns: Columns, signature: Signature, schema: pa.Schema) -> list[str]:
    """The columns that a job reads: those bound, in the order of the inputs, then those kept; each once.

    Names that `schema` lacks are included as they are, so that the code that looks for them can say so.
    """
    fed = (column for column, *_ in _fed(columns, signature, schema))
    return list(dict.fromkeys([*fed, *(column for _, column in kept(columns.keep, schema))]))


def fed_fields(columns: Columns, signature: Signature, schema: pa.Schema) -> dict[str, list[Way]]:
    """Of the columns that are read for some of their fields alone: the ways to these. schema: as `wanted_columns`."""
    used: dict[str, list[Way]] = {}
    for column, *way in _fed(columns, signature, schema):
        used.setdefault(column, []).append(tuple(way))
    whole = {column for _, column in kept(columns.keep, schema)}
    return {column: ways for column, ways in used.items() if () not in ways and column not in whole}


def _fed(columns: Columns, signature: Signature, schema: pa.Schema) -> list[Way]:
    """What feeds inputs, in their order: a column, and the fields in it down to what is meant."""
    leads = paths(columns, signature, schema)
    schema = with_fields(schema, leads)
    signature = grouped(columns, schema, signature)
    rules = rules_of(columns, signature, schema)
    names = [
        column
        for name, rule in rules.items()
        if rule is not None and (name in columns.inputs or feedable(signature.inputs[name]))
        for column in named(rule, schema)
    ]
    return [(leads[name].column, *leads[name].fields) if name in leads else (name,) for name in names]


def bind(
    columns: Columns,
    schema: pa.Schema,
    signature: Signature,
    tensor_encoding: str,
    batch: int | None = None,
    *,
    tried: bool = True,
    rules: Rules = TODAY,
) -> Binding:
    """Agree on every input, output and kept column.

    schema:  at least the columns of `wanted_columns`.
    batch:   rows of each call, as the job says; None: as the inputs do, or the outputs where a call will be `tried`.
    raises:  BindingError that lists all offenders, each with column, tensor, what was found and expected. Facts:
             `code` of the first and `codes` of all, in the order of the lines, with commas between.
    """
    problems, wanted = _Problems(), tuple(wanted_columns(columns, signature, schema))
    leads, given = paths(columns, signature, schema), schema
    schema = with_fields(schema, leads)
    signature = grouped(columns, schema, signature)
    inputs = _bind_inputs(columns, schema, signature, problems)
    batch_rows = _batch_rows(inputs, batch, problems) or (_declared(columns, signature) if tried else None)
    padded = {bound.name: bound.source for bound in inputs if isinstance(bound.source, PadSource)}
    target = partial(target_of, batch_rows=batch_rows, tensor_encoding=tensor_encoding, padded=padded, rules=rules)
    targets = _bind_outputs(columns, signature, target, problems)
    for name, error in not_kept(columns.keep, given):
        problems.note(error, f"kept column {name!r}")
    keep = [(name, column) for name, column in kept(columns.keep, given) if count(column, given) == 1]
    fields = [_written(name, given.field(column)) for name, column in keep]
    fields += [target.field for target in targets]
    for name, columns_of in Counter(one.name for one in fields).items():
        if columns_of > 1:
            advice = (
                f"rename an output (`outputs: {{NAME: other_name}}`) or a kept column (`keep: {{other_name: {name}}}`),"
                " or keep fewer columns"
            )
            problems.add(
                "COLUMN_AMBIGUOUS", f"output column {name!r}: {columns_of} columns would have this name; {advice}"
            )
    problems.check(signature)
    return Binding(
        columns=wanted,
        fetches=tuple(dict.fromkeys(name for target in targets for name in target.fetches)),
        output_schema=pa.schema(fields),
        batch_rows=batch_rows,
        inputs=tuple(inputs),
        outputs=tuple(targets),
        kept=dict(keep),
        paths=leads,
    )


def _written(name: str, field: pa.Field) -> pa.Field:
    """The field of a kept column in the output."""
    return field.with_name(name).with_type(common_type(field.type))


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

    def unknown(self, kind: str, name: str, tensors: Mapping[str, TensorSpec]) -> None:
        """Add a name that the signature lacks. kind: 'input' or 'output'."""
        hint = misplaced(f"{kind}s", name)
        it_has = f"it has {one_of(list(tensors), name)}" + (f"; {hint}" if hint else "")
        self.add("MODEL_SIGNATURE", f"{kind} {name!r}: the signature has no such {kind}; {it_has}")

    def check(self, signature: Signature) -> None:
        if self._found:
            count = f"{counted(len(self._found), 'problem')}"
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
            problems.unknown("input", name, signature.inputs)
    inputs = []
    rules = rules_of(columns, signature, schema)
    first: dict[str, str] = {}  # tensor -> the first input that is it
    for name, rule in rules.items():
        spec = signature.inputs[name]
        twin = first.setdefault(spec.tensor, name) if spec.tensor else name
        if twin != name and rule is not None and rules[twin] != rule:
            same = f"input {name!r} {spec}: it is the same tensor as input {twin!r}, and fed from somewhere else"
            problems.add("MODEL_SIGNATURE", f"{same}; expected one column for both: name it for one of them")
            continue
        source = None if rule is None else _source(spec, rule, schema, problems)
        if rule is None or source is not None:
            inputs.append(BoundInput(name, spec.dtype, spec.shape, source, twin if twin != name else ""))
    if not problems and all(bound.source is None or isinstance(bound.source, ConstantSource) for bound in inputs):
        constants = f"its inputs {one_of([bound.name for bound in inputs])} are constants or defaults"
        problems.add(
            "MODEL_SIGNATURE", f"no input follows the rows: {constants}; expected at least one column to be fed"
        )
    return inputs


def _source(
    spec: TensorSpec, rule: InputColumn, schema: pa.Schema, problems: _Problems
) -> InputSource | PartsSource | None:
    names = named(rule, schema)
    missing = [(name, error) for name in names if (error := absent(name, schema)) is not None]
    if missing and feedable(spec):
        joined = ",".join(rule.stack) if isinstance(rule.stack, tuple) else ""
        if joined and count(joined, schema):
            found = f"found no columns {one_of(rule.stack or ())} to stack, but one that is called {joined!r}"
            advice = f"""expected that one in quotes: --map '{spec.name}="{joined}"', or `column:` in a job file"""
            problems.note(mismatch(found, advice, "COLUMN_MISSING"), f"input {spec.name!r} {spec}")
            return None
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
            columns = {feature: _with_values(schema.field(name), spec, ()) for feature, name in features.items()}
            return example_source(spec, rule, columns)
        row = () if rule.column is None else _row(spec)
        fields = [_with_values(schema.field(name), spec, row) for name in names] if feedable(spec) else []
        return source_of(spec, rule, fields)
    except BindingError as error:
        problems.note(error, subject)
        return None


def _with_values(field: pa.Field, spec: TensorSpec, row: Row) -> pa.Field:
    """A column in which all is missing is of the type that the tensor wants: a 'null:' rule then says what to feed."""
    return field.with_type(valued(field.type, row, NATURAL[spec.dtype])) if spec.dtype in NATURAL else field


def _row(spec: TensorSpec) -> Row:
    if spec.shape is None:
        return (None,) if spec.encoding == "sparse" else ()
    return spec.shape[1:]


def _batch_rows(inputs: Sequence[BoundInput], batch: int | None, problems: _Problems) -> int | None:
    """The fixed batch dimension of the inputs that follow the rows, or the job's; None where they take any."""
    fixed = {
        bound.name: bound.shape[0]
        for bound in inputs
        if bound.shape
        and bound.shape[0] is not None
        and isinstance(bound.source, ColumnSource | StackSource | ExampleSource | PadSource | PictureSource)
    }
    if len(set(fixed.values())) > 1:
        wishes = ", ".join(f"{name!r} wants {rows}" for name, rows in fixed.items())
        problems.add("MODEL_SIGNATURE", f"fixed batch dimensions: {wishes}; expected one number of rows for all inputs")
    elif batch is not None and fixed and batch not in fixed.values():
        name, rows = next(iter(fixed.items()))
        problems.add("MODEL_SIGNATURE", f"`model: {{batch: {batch}}}`: input {name!r} wants {rows} rows a call")
    return next(iter(fixed.values()), batch)


def _declared(columns: Columns, signature: Signature) -> int | None:
    """The rows that each output declares where no input does: those of a graph that was exported as if it took any.

    That its answers follow the rows, and are no table of that size, shows the trial. One row a call is left to the job
    to say: an output of one row may as well be a sum over all.
    """
    specs = [signature.outputs[name] for name, _ in columns.written(signature.outputs) if name in signature.outputs]
    sizes = {spec.shape[0] if spec.shape and spec.encoding == "dense" else None for spec in specs}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if size is not None and size > 1 else None


def _bind_outputs(
    columns: Columns, signature: Signature, target: Callable[[TensorSpec, OutputColumn], Target], problems: _Problems
) -> list[Target]:
    """target: what an output becomes by its rule, or raises a BindingError."""
    rules = columns.written(signature.outputs)
    leave_out = "; to leave it out, name the outputs to write in the job: `outputs: [NAME, NAME]`"
    if not rules:
        problems.add("MODEL_SIGNATURE", "the signature has no output; expected at least one to write")
    targets: list[Target] = []
    unknown = list(dict.fromkeys(name for name, _ in rules if name not in signature.outputs))
    for name in unknown:
        problems.unknown("output", name, signature.outputs)
    for name, rule in rules:
        if name in unknown:
            continue
        spec = signature.outputs[name]
        try:
            targets.append(target(spec, rule))
        except BindingError as error:
            said = columns.outputs is not None and any(name in (key, own.of) for key, own in columns.outputs.items())
            subject = f"output {name!r} {spec}" + (f" as {rule.column!r}" if rule.shapes else "")
            problems.add(error.facts["code"], f"{subject}: {error.message}{'' if said else leave_out}")
    return targets
