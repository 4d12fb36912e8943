"""The columns of the input over all its files: which are read, in which types, and whether they bind.

The invariant: what is refused is refused whatever the order of the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from connectors.formats.base import Source
from connectors.formats.media.picture import require_pillow
from connectors.formats.registry import is_verbatim
from connectors.formats.schema import distinct, field_of, overview, unify
from connectors.formats.widening import type_in
from connectors.store.store import FileStat, Store
from jobs.errors import BindingError, InputError, offenders
from jobs.job import Job
from jobs.section.columns import Columns
from jobs.words import counted
from runner.binding.bind import bind, fed_fields, wanted_columns
from runner.binding.binding import Binding
from runner.binding.cast.kind import NATURAL
from runner.binding.naming import count, kept_alone, named, not_kept, rules_of
from runner.binding.picture.bound import pictures_of
from runner.model.signature import Signature
from runner.preflight.input.files import first_schema, inspect
from runner.preflight.input.listing import with_advice
from runner.selection.selection import EVERY_ROW, Selection
from runner.tensor import type_text

Schemas = Sequence[tuple[str, pa.Schema]]  # url and schema of each file

_FEW_FILES = 100  # whose footers are looked at to say more about a mistake in a job


def bound_first(
    job: Job, signature: Signature, source: Source, store: Store, files: Sequence[FileStat], tried: bool
) -> Binding:
    """The binding as far as the first file tells.

    raises: BindingError. What other files could mend is refused only when they do not.
    cost:   one footer; those of all files where the first is refused and the others may matter.
    """

    def bound(columns: Columns, schema: pa.Schema) -> Binding:
        return bind(columns, schema, signature, job.output.tensor_encoding, job.batch, tried=tried)

    first = first_schema(source, store, files, job.limits)
    try:
        return bound(job.columns, first)
    except BindingError as plain:
        error = with_advice(plain, wanted_columns(job.columns, signature, first), first, files, source)
        if "COLUMN_" not in str(error.facts.get("codes")) or len(files) == 1:
            raise error from plain
        if len(files) > _FEW_FILES and not _may_be_mended(job.columns, signature, first):
            seen = f"{error.message}\nthis is what the first of {len(files):,} files tells"
            raise BindingError(seen, **error.facts) from plain
        try:
            inspected, _ = inspect(source, store, files, (), job.limits)
        except InputError:  # a file that cannot be read is the second thing to mend
            raise error from None
        schemas = [(file.url, schema) for file, schema in inspected]
        if len(distinct(schemas)) == 1:
            raise error from plain
        whole = overview(schemas)
        columns = kept_alone(job.columns, whole)
        wanted = wanted_columns(columns, signature, whole)
        there = [name for name in wanted if count(name, whole)]  # what no file has is told by the error itself
        schema, problems = unify(schemas, there, fed_fields(columns, signature, whole))
        if problems:
            raise BindingError(f"{error.message}\n{offenders(problems)}", **error.facts) from plain
        if len(there) < len(wanted) or any(not_kept(job.columns.keep, whole)):
            raise error from plain
        return bound(columns, schema)


def agreed(
    columns: Columns, signature: Signature, schemas: Schemas, selection: Selection = EVERY_ROW
) -> tuple[pa.Schema, list[str]]:
    """The one schema of the columns that a job reads, those that `selection` needs last; and what keeps files from
    having one, a text each."""
    whole = overview(schemas)
    chosen, fields = selection.columns(whole), fed_fields(columns, signature, whole)
    wanted = [*wanted_columns(columns, signature, whole), *chosen]
    return unify(schemas, wanted, {name: used for name, used in fields.items() if name not in chosen})


def require_agreed(
    columns: Columns, signature: Signature, schemas: Schemas, selection: Selection = EVERY_ROW
) -> pa.Schema:
    """The one schema of `agreed`. raises: BindingError where there is none, or `where` does not fit it."""
    schema, problems = agreed(columns, signature, schemas, selection)
    if problems:
        raise BindingError(
            f"input and job do not fit: {counted(len(problems), 'problem')} in {counted(len(schemas), 'file')}"
            f"\n{offenders(problems)}",
            code=problems[0].partition(":")[0],
        )
    for one, _ in distinct(schemas) if selection.where is not None else ():
        selection.bound(_delivered(one, schema))
    return schema


def require_headers(job: Job, binding: Binding) -> None:
    """raises: JobError where the headers of pictures are to be looked at, and nothing here can."""
    rules = pictures_of(binding).values()
    bounded = job.limits.max_row_bytes is not None and (rules or is_verbatim(job.input))
    if bounded or any(rule.looks for rule in rules):
        require_pillow()


def _delivered(own: pa.Schema, schema: pa.Schema) -> pa.Schema:
    """What a worker has of a file: `schema`, of what is mixed the type in that file."""
    return pa.schema([field.with_type(type_in(field_of(own, field.name).type, field.type)) for field in schema])


def varying(schemas: Schemas, kept: Sequence[str]) -> dict[str, str]:
    """The kept columns whose files differ in type -> which type in how many of them, in words."""
    groups, found = distinct(schemas), dict[str, str]()
    for name in kept:
        files = Counter[str]()
        for schema, urls in groups:
            files[type_text(field_of(schema, name).type)] += len(urls)
        if len(files) > 1:
            found[name] = ", ".join(f"{kind} in {counted(n, 'file')}" for kind, n in files.items())
    return found


def _may_be_mended(columns: Columns, signature: Signature, schema: pa.Schema) -> bool:
    """Whether a column that feeds an input may have another type over all files that feeds it better, or one that is
    to be taken out may be in another file."""
    if any(name.startswith("-") for name, _ in not_kept(columns.keep, schema)):
        return True
    for name, rule in rules_of(columns, signature, schema).items():
        for column in named(rule, schema) if rule is not None else ():
            steps = column.split(".")
            roots = [".".join(steps[:upto]) for upto in range(1, len(steps) + 1)]
            kinds = [schema.field(root).type for root in roots if count(root, schema) == 1]
            if any(_grows(kind) or _beside_integers(kind, signature.inputs[name].dtype) for kind in kinds):
                return True
    return False


def _grows(kind: pa.DataType) -> bool:
    """Whether it may have more fields, or lists of any length."""
    if pa.types.is_struct(kind) or pa.types.is_fixed_size_list(kind):
        return True
    return pa.types.is_nested(kind) and any(_grows(kind.field(at).type) for at in range(kind.num_fields))


def _beside_integers(kind: pa.DataType, dtype: str) -> bool:
    """Whether it is floats for a tensor of integers, into which they go where other files have integers."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) and dtype in NATURAL and pa.types.is_integer(NATURAL[dtype]))
