"""Which columns the words of a job mean: names, patterns, and paths to the fields of structs.

Knows names and types, no values. The invariant: an exact name always means the column of that name, and what could
mean two things means neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import BindingError, one_of
from jobs.job import Columns, InputColumn
from runner.binding.constant import mismatch
from runner.binding.feeding import feedable
from runner.binding.shaped import tensor_type, wrapped
from runner.model.signature import Signature

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
        by_name = bool(count(name, schema)) and feedable(spec)
        if name in columns.inputs:
            rules[name] = columns.inputs[name]
        else:
            rules[name] = None if spec.default is not None and not by_name else InputColumn(column=name)
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
        fed = fed or [name for name in names if count(name, schema)] or names[:1]
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


def _natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """'f2' before 'f10'; the name itself decides between 'f1' and 'f01'."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], name


def paths(columns: Columns, signature: Signature, schema: pa.Schema) -> dict[str, Lead]:
    """Of the names that feed inputs, those that mean more than their column: a field of a struct ('user.age'), or a
    type that only the metadata of the field states."""
    names = [name for rule in columns.inputs.values() for name in named(rule, schema)]
    names += [name for name in signature.inputs if name not in columns.inputs]
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
