"""The columns of the output: whether its format holds them, and what a reader gets where that is something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import get_args

import pyarrow as pa

from connectors.formats.base import Unread
from connectors.formats.extension import unregistered
from connectors.formats.registry import ENCODERS, make_encoder
from connectors.formats.widening import common_type
from connectors.output.rehearsal import Rehearsal, rehearse
from connectors.output.reject import left_out
from jobs.errors import OutputError, offenders, one_of
from jobs.format import EXAMPLES_FORMAT
from jobs.job import Job
from jobs.section.output import Output
from jobs.words import counted
from runner.binding.binding import Binding, rounded
from runner.binding.cast.reading import rule_key
from runner.binding.nesting import peel
from runner.binding.padding import PadSource
from runner.binding.shaping.target import RankedTarget, ValueTarget
from runner.tensor import type_text

Stated = tuple[pa.Schema, Mapping[str, str]]  # of a file, see `connectors.formats.base.Source.stated`


def narrowed(output: Output, binding: Binding, schema: pa.Schema) -> Binding:
    """The binding that knows of kept columns, floats in some files and integers in others, what the format makes of
    them, where these are narrower floats: those of a tf.Example are float32.

    schema: of the columns that are read.
    """
    mixed = [name for name, column in binding.kept.items() if _is_mixed(schema.field(column))]
    fields = pa.schema([binding.output_schema.field(name) for name in mixed])
    found: dict[str, pa.DataType] = {}
    for name, kind in (rehearse(make_encoder(output.format), fields).changed if mixed else {}).items():
        own, other = peel(fields.field(name).type)[1], peel(kind)[1]
        if own is not None and other is not None and pa.types.is_floating(own) and pa.types.is_floating(other):
            found[name] = kind
    return replace(binding, narrowed=found)


def written(
    job: Job,
    binding: Binding,
    bound: Callable[[str], Binding],
    schema: pa.Schema,
    stated: Callable[[], Stated],
    varying: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Sentences for people: which columns are written as something else than they were, which hold nothing, and which
    are fed as something else.

    bound:   the binding under another `tensor_encoding`.
    schema:  of the columns that are read. stated: of one file of the input; called where columns are kept.
    varying: of kept columns whose files differ, the types, in words.
    raises: OutputError naming each column that the format of the output cannot hold, why, and what would do.
    """
    encoder = make_encoder(job.output.format)
    found = rehearse(encoder, binding.output_schema)
    if found.refused:
        problems = [_problem(name, why, job.output, binding, bound) for name, why in found.refused.items()]
        count = f"{counted(len(problems), 'column')}"
        message = f"cannot write {job.output.format} files: {count} cannot be held\n{offenders(problems)}"
        raise OutputError(message, code="COLUMN_TYPE", column=next(iter(found.refused)))
    notes = [
        *_changes(binding, schema, found, stated() if binding.kept else (pa.schema([]), {}), varying, job.output.format)
    ]
    if empty := [field.name for field in schema if pa.types.is_null(field.type)]:
        notes.append(f"{_columns(empty)} {_are(empty)} of type null in all files: no row has a value")
    notes += _unread(encoder.unread, binding, found)
    notes += _among_padding(binding, bool(job.models))
    for name, story in rounded(binding.inputs).items():
        notes.append(f"rounded: {story}; `{rule_key(name)}.exact: true` makes each value that changes a bad row")
    if job.limits.may_lose and (lost := left_out(schema, binding.kept_columns, job.limits.reject_input)):
        notes.append(f"{_columns(lost)} of rejected rows {_are(lost)} not in reject files, which are Parquet")
    return tuple(notes)


def _among_padding(binding: Binding, several: bool) -> list[str]:
    """Places in a dimension that may be as wide as a padded input: how wide that is depends on the rows of a batch."""
    padded = [bound.name for bound in binding.inputs if isinstance(bound.source, PadSource)]
    notes = []
    for target in binding.outputs:
        if not isinstance(target, RankedTarget | ValueTarget) or not _counts_in_open(target):
            continue
        model = f"{target.of.partition('.')[0]}." if several else ""
        if own := [name for name in padded if name.startswith(model)]:
            where = f"output {target.of!r} has no fixed width, and {_inputs(own)} padded"
            counts = f"places of padding count in column {target.field.name!r} as others do"
            notes.append(f"{where}: if it is as wide, {counts}")
    return notes


def _counts_in_open(target: RankedTarget | ValueTarget) -> bool:
    """Whether a place is looked for in a dimension of open size; the first one of a row is hardly padding."""
    how = next(iter(target.shaped.values())).how
    if how.largest:
        return target.row[-1] is None
    sizes = target.row[len(target.row) - len(how.at) :]
    return any(size is None and place for place, size in zip(how.at, sizes, strict=True))


def _inputs(names: Sequence[str]) -> str:
    return f"input{'s' * (len(names) > 1)} {', '.join(map(repr, names))} {'are' if len(names) > 1 else 'is'}"


def _problem(name: str, why: str, output: Output, binding: Binding, bound: Callable[[str], Binding]) -> str:
    field, kept = binding.output_schema.field(name), name in binding.kept
    subject = f"{'kept ' * kept}column {name!r} ({type_text(field.type)})"
    ways = [f"`output: {{format: {other}}}`" for other in ENCODERS if _other_holds(other, output, field)]
    if not kept:
        for encoding in get_args(Output.model_fields["tensor_encoding"].annotation):
            other = bound(encoding).output_schema.field(name)
            if other.type != field.type and not _refused(output.format, other):
                ways.append(f"`output: {{tensor_encoding: {encoding}}}`")
    ways.append(f"leave it out of `{'keep' if kept else 'outputs'}:`")
    return f"{subject}: {why}; {', or '.join(ways)}"


def _other_holds(name: str, output: Output, field: pa.Field) -> bool:
    """Whether another format of tables would do."""
    return name != output.format and _is_table(name) and not _refused(name, field)


def _is_table(name: str) -> bool:
    try:
        return bool(make_encoder(name).dataset(""))
    except OutputError:
        return False


def _refused(name: str, field: pa.Field) -> bool:
    return bool(rehearse(make_encoder(name), pa.schema([field])).refused)


def _changes(
    binding: Binding, schema: pa.Schema, found: Rehearsal, stated: Stated, varying: Mapping[str, str], format: str
) -> Sequence[str]:
    before, said = stated
    groups: dict[tuple[str, str, str], list[str]] = {}
    for field in binding.output_schema:
        column, after = binding.kept.get(field.name), found.changed.get(field.name, field.type)
        given = field.type if column is None else unregistered(before.field(column)).type
        if given != after or column in varying:
            checked = column is not None and _is_mixed(schema.field(column))
            why = "" if column in varying else _why(given, after, format)
            was = f"(was {varying.get(column or '', type_text(given))}{why})"
            was += "; a value that this cannot hold is a bad row" * checked
            groups.setdefault(("kept " * (column is not None), type_text(after), was), []).append(field.name)
    changes = [
        f"{kept}{_columns(names)} {_are(names)} written as {after} {was}"
        for (kept, after, was), names in groups.items()
    ]
    lost = [
        f"kept column {name!r} loses its {said[name]}: only values are kept"
        for name in binding.kept_columns
        if name in said
    ]
    return [*changes, *lost]


def _why(given: pa.DataType, after: pa.DataType, format: str) -> str:
    """What is in a type that does not come back, in ordinary words; "" where the types say it themselves."""
    types = pa.types
    for holds, why in (
        (types.is_dictionary, "categories are written as their values"),
        (types.is_run_end_encoded, "runs are written as their values"),
        (lambda kind: types.is_string_view(kind) or types.is_binary_view(kind), "views are written as plain texts"),
        (lambda kind: types.is_list_view(kind) or types.is_large_list_view(kind), "views are written as plain lists"),
    ):
        if _any(given, holds) and not _any(after, holds):
            return f"; {why}"
    if format == EXAMPLES_FORMAT:
        return "; a tf.Example holds float32, int64, bytes, and lists of them"
    if _any(given, lambda kind: types.is_time32(kind) or types.is_timestamp(kind), "s"):
        return "; Parquet has no seconds"
    return "; Parquet has dates of whole days only" if _any(given, types.is_date64) else ""


def _any(kind: pa.DataType, holds: Callable[[pa.DataType], bool], unit: str = "") -> bool:
    """Whether a type, or one inside of it, is such a one."""
    if isinstance(kind, pa.BaseExtensionType):
        return _any(kind.storage_type, holds, unit)
    if holds(kind):
        return not unit or kind.unit == unit
    inside = [kind.field(index).type for index in range(kind.num_fields)]
    inside += [kind.value_type] if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) else []
    return any(_any(one, holds, unit) for one in inside)


def _is_mixed(field: pa.Field) -> bool:
    return bool(common_type(field.type) != field.type)


def _unread(unread: Sequence[Unread], binding: Binding, found: Rehearsal) -> Iterator[str]:
    """Which programs will refuse the parts, because of which columns, and what helps."""
    written = {field.name: found.changed.get(field.name, field.type) for field in binding.output_schema}
    for one in unread:
        names = [name for name, kind in written.items() if _holds(one, kind)]
        if names:
            kinds = ", ".join(dict.fromkeys(type_text(written[name]) for name in names))
            kept = {name in binding.kept for name in names}
            where = " and ".join(["the input"] * (True in kept) + ["the model"] * (False in kept))
            yield (
                f"{one.program} refuses the parts as a whole, because of {_columns(names)} ({kinds}):"
                f" cast to {one.cast} in {where}, or use {one.otherwise}"
            )


def _holds(unread: Unread, kind: pa.DataType) -> bool:
    if unread.holds(kind):
        return True
    if isinstance(kind, pa.BaseExtensionType):
        return _holds(unread, kind.storage_type)
    return any(_holds(unread, kind.field(index).type) for index in range(kind.num_fields))


def _columns(names: Sequence[str]) -> str:
    return f"column{'s' if len(names) > 1 else ''} {one_of(names)}"


def _are(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"
