"""Which rows of a table a condition keeps: three-valued as in SQL, where what is unknown is not kept.

Owns how values of each type are compared; refuses to know where tables come from. The invariant: a comparison with NaN
is false, and `!=` true, as in IEEE 754; a comparison with null is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any as Anything

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.rows.condition import Comparing
from runner.selection import bound as kinds
from runner.selection.bound import Bound, Field, Value

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]

_KERNELS: dict[Comparing, Callable[[Anything, Anything], pa.ChunkedArray]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_ANY_INTEGER = pa.decimal128(20, 0)  # both of 64 bits, with a sign and without


def kept(condition: Bound, table: pa.Table) -> Mask:
    """keep: (rows of the table,), True where the condition is true."""
    answers = _answers(condition, table)
    return np.asarray(pc.fill_null(answers, False).to_numpy(), np.bool_)


def comparable(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Values in a type that Arrow compares as `runner.selection.bound` has them."""
    if pa.types.is_floating(kind):
        return values.cast(pa.float64())
    if pa.types.is_date32(kind):
        return values.cast(pa.int32())
    if pa.types.is_date64(kind) or pa.types.is_timestamp(kind):
        return values.cast(pa.int64())
    return values.cast(pa.binary()) if pa.types.is_fixed_size_binary(kind) else values


def _answers(condition: Bound, table: pa.Table) -> pa.ChunkedArray:
    match condition:
        case kinds.All(inner=inner):
            return reduce(pc.and_kleene, [_answers(one, table) for one in inner])
        case kinds.Any(inner=inner):
            return reduce(pc.or_kleene, [_answers(one, table) for one in inner])
        case kinds.Negated(inner=one):
            return pc.invert(_answers(one, table))
        case kinds.Null(field=field):
            return pc.is_null(_read(field, table))
        case kinds.Always(field=field, answer=answer):
            return _where_there(pa.scalar(answer), _read(field, table))
        case kinds.Pair(field=field, op=op, other=other):
            return _KERNELS[op](*_side_by_side(_read(field, table), field.kind, _read(other, table), other.kind))
        case kinds.Matching(field=field, pattern=pattern):
            return pc.match_like(_read(field, table), pattern.replace("\\", r"\\"))
        case kinds.Ordered(field=field, op=op, value=value):
            values = comparable(_read(field, table), field.kind)
            return _KERNELS[op](values, _array([value], values.type)[0])
        case kinds.Among(field=field, values=listed):
            values = comparable(_read(field, table), field.kind)
            both = [*listed, -0.0, 0.0] if 0.0 in listed and pa.types.is_floating(field.kind) else listed
            return _where_there(pc.is_in(values, _array(both, values.type)), values)
    raise AssertionError(condition)


def _read(field: Field, table: pa.Table) -> pa.ChunkedArray:
    column = table.column(field.column)
    return pc.struct_field(column, list(field.path)) if field.path else column


def _where_there(answers: Anything, values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_valid(values), answers, pa.scalar(None, pa.bool_()))


def _array(values: Sequence[Value], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.array(values, pa.large_binary()).cast(kind)
    return pa.array(values, kind)


def _side_by_side(
    a: pa.ChunkedArray, kind: pa.DataType, b: pa.ChunkedArray, other: pa.DataType
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    if kind == other:
        return comparable(a, kind), comparable(b, other)
    if pa.types.is_integer(kind) and pa.types.is_integer(other):
        return a.cast(_ANY_INTEGER), b.cast(_ANY_INTEGER)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return a.cast(pa.large_string()), b.cast(pa.large_string())
    return a.cast(pa.float64()), b.cast(pa.float64())
