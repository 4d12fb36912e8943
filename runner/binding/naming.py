"""Which columns the words of a job mean: names, patterns, and paths to the fields of structs.

Knows names and types, no values. The invariant: an exact name always means the column of that name, and what could
mean two things means neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import BindingError, one_of
from jobs.section.columns import Columns, InputColumn, Kept
from runner.binding.constant import mismatch
from runner.binding.feeding import feedable
from runner.binding.shaped import tensor_type, wrapped
from runner.model.signature import Signature

ALL = "all"  # of `keep`
_MISSING = "COLUMN_MISSING"
Way = tuple[str, ...]  # a column, and the names of fields down from it
Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


@dataclass(frozen=True)
class Lead:
    """What a name that feeds an input means. fields: the way in from the column. kind: the tensors that they mean."""

    column: str
    fields: tuple[str, ...] = ()
    kind: pa.DataType | None = None


def count(name: str, schema: pa.Schema) -> int:
    """How many columns have the name. cost: one look-up; `schema.names` makes a list of all names at each use."""
    return len(schema.get_all_field_indices(name))


def rules_of(columns: Columns, signature: Signature, schema: pa.Schema) -> dict[str, InputColumn | None]:
    """Input -> where it comes from; None: from the signature's own default."""
    rules: dict[str, InputColumn | None] = {}
    for name, spec in signature.inputs.items():
        # Where a column could not be fed, a column that happens to have the name does not displace the default.
        column = signature.own(name)
        by_name = bool(count(column, schema)) and feedable(spec)
        if name in columns.inputs:
            rules[name] = columns.inputs[name]
        else:
            rules[name] = None if spec.default is not None and not by_name else InputColumn(column=column)
    for name, leader in _leaders(columns, signature, schema).items():
        rules[name] = rules[leader]
    return rules


def _leaders(columns: Columns, signature: Signature, schema: pa.Schema) -> dict[str, str]:
    """Of inputs that are one tensor: those that nothing of their own feeds -> the one that decides for them."""
    twins: dict[str, list[str]] = {}
    for name, spec in signature.inputs.items():
        if spec.tensor:
            twins.setdefault(spec.tensor, []).append(name)
    fed_by: dict[str, str] = {}
    for names in twins.values():
        fed = [name for name in names if name in columns.inputs]
        fed = fed or [name for name in names if count(signature.own(name), schema)] or names[:1]
        fed_by |= {name: fed[0] for name in names if name not in fed}
    return fed_by


def named(rule: InputColumn, schema: pa.Schema) -> list[str]:
    """The columns of a rule, each pattern of a stack in its place."""
    if rule.column is not None:
        return [rule.column]
    if rule.example is not None:
        return list(features_of(rule.example.columns, schema).values())
    patterns = (rule.stack,) if isinstance(rule.stack, str) else rule.stack or ()
    return [name for pattern in patterns for name in _matching(pattern, schema)]


def kept(keep: Sequence[Kept], schema: pa.Schema) -> list[tuple[str, str]]:
    """The columns that are kept, in the order of the job: the name in the output, and the column.

    A pattern, and `all`, leave out what the list itself names. What means no column is there as it is, so that someone
    can say so.
    """
    found, named, out = list[tuple[str, str]](), _named_in(keep, schema), _taken_out(keep, schema)
    taken = set(named) | {name for names in out.values() for name in names}
    for entry in keep:
        if isinstance(entry, Mapping):
            found += entry.items()
        elif entry in out:
            continue
        elif names := [] if count(entry, schema) else _globbed(entry, schema):
            found += [(name, name) for name in names if name not in taken]
            taken |= set(names)
        else:
            found.append((entry, entry))
    return found


def kept_alone(columns: Columns, schema: pa.Schema) -> Columns:
    """The same, with the columns of `schema` that are kept by their own names, which mean the same in any other one."""
    return columns.model_copy(update={"keep": tuple({name: column} for name, column in kept(columns.keep, schema))})


def not_kept(keep: Sequence[Kept], schema: pa.Schema) -> Iterator[tuple[str, BindingError]]:
    """What of a list of kept columns means none, or not a single one; and why."""
    named, out = _named_in(keep, schema), _taken_out(keep, schema)
    patterns = [one for one in keep if isinstance(one, str) and one not in named and one not in out]
    for entry, names in out.items():
        if error := _takes_nothing(entry, names, patterns, named, schema):
            yield entry, error
    for _, column in kept(keep, schema):
        if (error := absent(column, schema)) is not None:
            yield column, error


def _takes_nothing(
    entry: str, names: Sequence[str], patterns: Sequence[str], named: Sequence[str], schema: pa.Schema
) -> BindingError | None:
    """Why `entry`, which matches `names`, takes nothing out of what the `patterns` mean."""
    if not names:
        return mismatch("found no column to take out", f"the input has {one_of(schema.names, entry[1:])}", _MISSING)
    if not patterns:
        return mismatch("found nothing to take it out of", f"expected `keep: [all, {entry!r}]`", _MISSING)
    matched = {name for pattern in patterns for name in _globbed(pattern, schema)}
    if any(name in matched and name not in named for name in names):
        return None
    itself = [name for name in names if name in named]
    found = f"found {one_of(itself)}, which `keep` names" if itself else f"found {one_of(names)}, which nothing keeps"
    return mismatch(found, "expected a column that `all` or a pattern means", _MISSING)


def both_ways(keep: Sequence[Kept], schema: pa.Schema) -> Iterator[str]:
    """Sentences about what is the name of a column here, and elsewhere means others."""
    for entry in keep:
        if entry == ALL and count(ALL, schema) and len(schema) > 1:
            yield f"{ALL!r} in `keep` is the column of this name; '*' means all columns"
        elif isinstance(entry, str) and entry[:1] == "-" and count(entry, schema) and _globbed(entry[1:], schema):
            other = f"-[{entry[1:2]}]{entry[2:]}"
            yield f"{entry!r} in `keep` is the column of this name; {other!r} takes {entry[1:]!r} out"


def _named_in(keep: Sequence[Kept], schema: pa.Schema) -> list[str]:
    """The columns that a list names itself, also those that are renamed."""
    texts = [entry for entry in keep if isinstance(entry, str) and count(entry, schema)]
    return [*texts, *(column for entry in keep if isinstance(entry, Mapping) for column in entry.values())]


def _taken_out(keep: Sequence[Kept], schema: pa.Schema) -> dict[str, list[str]]:
    """'-x' -> the columns that it matches; not where it is itself one."""
    texts = [entry for entry in keep if isinstance(entry, str) and entry[:1] == "-" and not count(entry, schema)]
    return {entry: _globbed(entry[1:], schema) for entry in texts}


def _globbed(pattern: str, schema: pa.Schema) -> list[str]:
    """The columns that a name or a pattern means, in the order of the file."""
    if count(pattern, schema):
        return [pattern]
    matches = (name for name in schema.names if pattern == ALL or fnmatchcase(name, pattern))
    return list(dict.fromkeys(matches))


def features_of(columns: Mapping[str, str] | Sequence[str], schema: pa.Schema) -> dict[str, str]:
    """Feature -> column, each pattern in its place."""
    if isinstance(columns, Mapping):
        return dict(columns)
    return {name: name for pattern in columns for name in _matching(pattern, schema)}


def _matching(pattern: str, schema: pa.Schema) -> list[str]:
    """The columns a name or a pattern means; as it is where nothing matches, so that someone can say so.

    Names that differ in nothing but a number come in natural order, others in the order of the file: features are
    what they are by their place, and sorting `mean_*` by name would feed them in an order that stands nowhere.
    """
    if count(pattern, schema):
        return [pattern]
    matches = list(dict.fromkeys(name for name in schema.names if fnmatchcase(name, pattern)))
    numbered = len({re.sub(r"\d+", "", name) for name in matches}) == 1
    return (sorted(matches, key=_natural) if numbered else matches) or [pattern]


@lru_cache(1 << 14)  # a plan sorts thousands of columns several times
def _natural(name: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """'f2' before 'f10'; the name itself decides between 'f1' and 'f01'."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts), name


def paths(columns: Columns, signature: Signature, schema: pa.Schema) -> dict[str, Lead]:
    """Of the names that feed inputs, those that mean more than their column: a field of a struct ('user.age'), or a
    type that only the metadata of the field states."""
    names = [name for rule in columns.inputs.values() for name in named(rule, schema)]
    names += [signature.own(name) for name in signature.inputs if name not in columns.inputs]
    leads: dict[str, Lead] = {}
    for name in dict.fromkeys(names):
        columns_of = count(name, schema)
        ways = [*_ways(name, schema)] if not columns_of else [(name,)] * columns_of
        if len(ways) == 1:
            column, *fields = ways[0]
            lead = Lead(column, tuple(fields), tensor_type(_field(schema, column, fields)))
            if lead.fields or lead.kind is not None:
                leads[name] = lead
    return leads


def _field(schema: pa.Schema, column: str, fields: Sequence[str]) -> pa.Field:
    """The field at the end; nullable where one before it is."""
    field = schema.field(column)
    nullable = field.nullable
    for step in fields:
        field = field.type.field(step)
        nullable = nullable or field.nullable
    return field.with_nullable(nullable)


def _ways(name: str, holder: pa.Schema | pa.StructType) -> Iterator[Way]:
    """All that a dotted name can mean among the fields of `holder`; their own names may hold dots."""
    steps = name.split(".")
    for first in range(1, len(steps) + 1):
        head, rest = ".".join(steps[:first]), ".".join(steps[first:])
        for index in holder.get_all_field_indices(head):
            inside = holder.field(index).type
            if not rest:
                yield (head,)
            elif pa.types.is_struct(inside):
                yield from ((head, *way) for way in _ways(rest, inside))


def with_fields(schema: pa.Schema, leads: Mapping[str, Lead]) -> pa.Schema:
    """`schema` with a column of each name: as what it is fed."""
    if not leads:
        return schema
    fields = list(schema)
    for name, lead in leads.items():
        field = _field(schema, lead.column, lead.fields)
        field = pa.field(name, field.type if lead.kind is None else lead.kind, field.nullable)
        if lead.fields:
            fields.append(field)
        else:
            fields[schema.get_field_index(name)] = field
    return pa.schema(fields, schema.metadata)


def with_columns(rows: Rows, leads: Mapping[str, Lead]) -> Rows:
    """`rows` with a column of each name; null where the struct around it is. cost: no copy where no struct is null."""
    for name, lead in leads.items():
        index = rows.schema.get_field_index(lead.column)
        if index < 0:  # the code that looks for it says so
            continue
        column = pc.struct_field(rows.column(index), list(lead.fields)) if lead.fields else rows.column(index)
        column = column if lead.kind is None else wrapped(column, lead.kind)
        rows = rows.append_column(name, column) if lead.fields else rows.set_column(index, name, column)
    return rows


def absent(name: str, schema: pa.Schema) -> BindingError | None:
    """Why `name` names no column, or not a single one."""
    columns = count(name, schema)
    if columns == 1:
        return None
    if columns:
        return mismatch(f"found {columns} columns of this name", "expected one", "COLUMN_AMBIGUOUS")
    ways = [" -> ".join(way) for way in _ways(name, schema)]
    if len(ways) == 1:
        expected = "expected a whole column: only what feeds an input may be a field"
        return mismatch(f"found the field {ways[0]}", expected, "COLUMN_MISSING")
    if ways:
        several = f"found {len(ways)} fields that can be meant: {one_of(ways)}"
        return mismatch(several, "expected one; rename a column", "COLUMN_AMBIGUOUS")
    other_case = [other for other in schema.names if other.lower() == name.lower()]
    hint = f" (names are case-sensitive: {other_case[0]!r} is there)" if other_case else ""
    return mismatch(f"found no such column{hint}", f"the input has {one_of(schema.names, name)}", "COLUMN_MISSING")
