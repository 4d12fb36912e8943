"""The types of columns that files do not state: as the job says, as the tensors want them, else text or what is there.

Owns who decides; refuses to know how values are read. The invariant: a column has one type in all files of a job, and
no value of a file decides it but those that a source looked at first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from connectors.formats.declared import text_of
from connectors.formats.schema import only_fields
from connectors.store.store import Store
from connectors.tables.source import source_of
from jobs.errors import InputError, one_of
from jobs.job import Job
from jobs.section.columns import Columns
from jobs.words import counted
from runner.binding.bind import fed_fields
from runner.binding.cast.kind import NATURAL, is_text
from runner.binding.naming import Way, named, rules_of
from runner.model.signature import Signature
from runner.preflight.input.files import first_schema
from runner.preflight.input.listing import Listed
from runner.selection.bound import ways


def declared(inputs: Listed, store: Store, signature: Signature) -> Listed:
    """The same, its source and its job with the types of all columns of the first file.

    raises: as `first_schema`; InputError NO_INPUT where no file shows a column.
    cost:   none where files state types.
    """
    source = inputs.source
    if source.states == "all":
        return inputs
    job = inputs.job
    schema = first_schema(source, store, inputs.files, job.limits)
    if not len(schema):
        raise InputError(
            f"cannot tell the columns: {counted(len(inputs.files), 'input file shows', 'input files show')} none,"
            " because there is no row; declare them in `input.schema`",
            code="NO_INPUT",
        )
    present = frozenset(schema.names)
    if source.states == "names" and (unknown := [name for name in job.input.types if name not in present]):
        which = (
            f"{one_of(unknown)}, which {'is no column' if len(unknown) == 1 else 'are no columns'} of the first file"
        )
        story = f"`input.schema` declares {which}: it has {one_of(schema.names, unknown[0])}"
        inputs = replace(inputs, warnings=(*inputs.warnings, story))
    wanted = wanted_types(schema, job.columns, signature, text=source.states == "names")
    used = _used(job, signature, wanted)  # what else is in a struct may be of any kind
    wanted = pa.schema([(field.name, only_fields(field.type, used.get(field.name, [()]))) for field in wanted])
    return with_types(inputs, {field.name: text_of(field.type) for field in wanted} | job.input.types)


def _used(job: Job, signature: Signature, schema: pa.Schema) -> dict[str, list[Way]]:
    """Of the columns that are read for some of their fields alone, the ways to these: of all else, all is used."""
    used = fed_fields(job.columns, signature, schema)
    for root, *way in ways(job.input.where, schema) if job.input.where else ():
        if root in used and _is_there(schema.field(root).type, way):
            used[root].append(tuple(way))
        else:  # a message names the fields that there are
            used.pop(root, None)
    return used


def _is_there(kind: pa.DataType, way: Sequence[str]) -> bool:
    for name in way:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return False
        kind = kind.field(name).type
    return True


def with_types(inputs: Listed, types: dict[str, str]) -> Listed:
    resolved = inputs.job.input.model_copy(update={"types": types})
    return replace(inputs, job=inputs.job.model_copy(update={"input": resolved}), source=source_of(resolved))


def read_alone(inputs: Listed, columns: Sequence[str]) -> Listed:
    """The same, with the types of these columns only: the others are no matter of the job."""
    if inputs.source.states == "all":
        return inputs
    return with_types(inputs, {name: kind for name, kind in inputs.job.input.types.items() if name in set(columns)})


def wanted_types(schema: pa.Schema, columns: Columns, signature: Signature, *, text: bool) -> pa.Schema:
    """`schema` with the columns that feed tensors in the types that those take.

    text: everything in the files is text, and may be read as anything; else only numbers become other numbers.
    """
    fields = {field.name: field for field in schema}
    for name, rule in rules_of(columns, signature, schema).items():
        for column in named(rule, schema) if rule is not None and rule.example is None else ():
            root, *way = (column,) if column in fields else tuple(column.split("."))
            if root in fields:
                made = _towards(fields[root].type, way, signature.inputs[name].dtype, text)
                fields[root] = fields[root].with_type(made)
    return pa.schema([*fields.values()])


def _towards(kind: pa.DataType, way: Sequence[str], dtype: str, text: bool) -> pa.DataType:
    """`kind` with the values that lie at `way` in it in the type that feeds `dtype`."""
    if way and pa.types.is_struct(kind):
        return pa.struct(
            [
                field.with_type(_towards(field.type, way[1:], dtype, text)) if field.name == way[0] else field
                for field in kind
            ]
        )
    if pa.types.is_list(kind):
        return pa.list_(_towards(kind.value_type, way, dtype, text))
    natural = NATURAL.get(dtype)
    if way or natural is None or pa.types.is_nested(natural):
        return kind
    if text:
        return pa.string() if is_text(natural) else natural
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    wanted = pa.types.is_integer(natural) or pa.types.is_floating(natural)
    if pa.types.is_null(kind):
        return pa.string() if is_text(natural) else natural
    return natural if number and wanted else kind
