"""Which rows need not be read, from what is known of them all: the least and the largest value, how many are null.

Pure but for the types of Arrow. The invariant: whatever is unknown or doubtful may be anything, so that nothing is left
out that `runner.selection.keep` would keep.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntFlag
from fractions import Fraction
from functools import reduce
from typing import Any as Anything

import pyarrow as pa

from connectors.formats.base import Span
from connectors.tables.value import typed
from jobs.plan import Values
from jobs.rows.condition import Comparing
from runner.selection import bound as kinds
from runner.selection.bound import UNIT_NS, Bound, Field

Point = int | float | Decimal | Fraction | bytes


class Answers(IntFlag):
    """Which answers a condition may have, over some rows."""

    NONE = 0
    TRUE = 1
    FALSE = 2
    UNKNOWN = 4
    ANY = 7


@dataclass(frozen=True, slots=True)
class Facts:
    """Of some rows. spans: of columns and fields by their way; of others nothing is known."""

    spans: Mapping[tuple[str, ...], Span] = field(default_factory=dict)
    rows: int | None = None

    @classmethod
    def constant(cls, values: Values, schema: pa.Schema) -> Facts:
        """Of a file whose partition has these values."""
        spans: dict[tuple[str, ...], Span] = {}
        for name, text in values:
            at = schema.get_field_index(name)
            if text is None:
                spans[name,] = Span(nulls=None, only_nulls=True)
            elif at >= 0:
                try:
                    value = typed(text, schema.field(at).type)
                except (ValueError, pa.ArrowException):
                    continue  # whoever reads it says what is wrong
                spans[name,] = Span(value, value, 0)
        return cls(spans)


def answers(condition: Bound, facts: Facts) -> Answers:
    """All that the condition may be on rows of which this is known."""
    match condition:
        case kinds.All(inner=inner):
            return reduce(_and, (answers(one, facts) for one in inner))
        case kinds.Any(inner=inner):
            return reduce(_or, (answers(one, facts) for one in inner))
        case kinds.Negated(inner=one):
            return _not(answers(one, facts))
        case kinds.Pair():
            return Answers.ANY
        case kinds.Null(field=of):
            nulls = _nulls(facts, of)
            return Answers.TRUE if nulls is None else Answers.TRUE | Answers.FALSE if nulls else Answers.FALSE
    of = condition.field
    nulls = _nulls(facts, of)
    if nulls is None:
        return Answers.UNKNOWN
    return _of_values(condition, facts.spans.get(of.way)) | (Answers.UNKNOWN if nulls else Answers.NONE)


def may_match(condition: Bound, facts: Facts) -> bool:
    return bool(answers(condition, facts) & Answers.TRUE)


def _nulls(facts: Facts, of: Field) -> bool | None:
    """Whether there may be nulls; None where there is nothing else."""
    span = facts.spans.get(of.way)
    if span is None:
        return True
    if span.only_nulls or (facts.rows and span.nulls == facts.rows):
        return None
    return span.nulls != 0


def _of_values(condition: Bound, span: Span | None) -> Answers:
    """Of the rows that are not null."""
    if isinstance(condition, kinds.Always):
        return Answers.TRUE if condition.answer else Answers.FALSE
    either = Answers.TRUE | Answers.FALSE
    assert isinstance(condition, kinds.Ordered | kinds.Among | kinds.Matching)
    low = _point(span.low, condition.field.kind) if span else None
    high = _point(span.high, condition.field.kind) if span else None
    if low is None or high is None or not low <= high:  # type: ignore[operator]
        return either
    match condition:
        case kinds.Ordered(op=op, value=value):
            made = _ordered(op, low, high, value)
        case kinds.Among(values=values):
            inside = any(_ordered("=", low, high, value) & Answers.TRUE for value in values)
            made = (Answers.TRUE if inside else Answers.NONE) | (
                Answers.NONE if low == high and inside else Answers.FALSE
            )
        case kinds.Matching(pattern=pattern):
            made = _matching(pattern, low, high)
    nan = Answers.NONE
    if pa.types.is_floating(condition.field.kind):  # the least and the largest value say nothing of NaN
        unequal = isinstance(condition, kinds.Ordered) and condition.op == "!="
        nan = Answers.TRUE if unequal else Answers.FALSE
    return made | nan


_TESTS: dict[Comparing, Callable[[Anything, Anything], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _ordered(op: Comparing, low: Anything, high: Anything, value: Anything) -> Answers:
    if op in ("=", "!="):
        equal, other = low <= value <= high, not low == value == high
        yes, no = (equal, other) if op == "=" else (other, equal)
    else:
        test = _TESTS[op]
        yes = test(low, value) or test(high, value)
        no = not (test(low, value) and test(high, value))
    return (Answers.TRUE if yes else Answers.NONE) | (Answers.FALSE if no else Answers.NONE)


def _matching(pattern: str, low: Anything, high: Anything) -> Answers:
    """Text between two texts may begin with what stands before the first % or _."""
    stop = min((at for sign in "%_" if (at := pattern.find(sign)) >= 0), default=len(pattern))
    begin = pattern[:stop].encode("utf-8", "surrogatepass")
    if stop == len(pattern):
        return _ordered("=", low, high, begin)
    outside = high < begin or (low > begin and not low.startswith(begin))
    return Answers.FALSE if outside else Answers.TRUE | Answers.FALSE


def _point(value: pa.Scalar | None, kind: pa.DataType) -> Point | None:
    """A value of statistics as a column of `kind` is compared; None where that is not certain."""
    if value is None or not value.is_valid:
        return None
    of = value.type
    if _temporal(kind) and _temporal(of):
        return Fraction(value.value * _step_ns(of), _step_ns(kind))
    if pa.types.is_boolean(kind) and pa.types.is_boolean(of):
        return int(value.as_py())
    if pa.types.is_integer(kind) and pa.types.is_integer(of):
        return int(value.as_py())
    if pa.types.is_decimal(kind) and pa.types.is_decimal(of):
        return Decimal(value.as_py())
    if pa.types.is_floating(kind) and pa.types.is_floating(of):
        number = float(value.as_py())
        return None if math.isnan(number) else number
    if _bytes(kind) and _bytes(of):
        raw = value.as_py()
        return raw.encode() if isinstance(raw, str) else bytes(raw)
    return None


def _bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in (*tests, pa.types.is_fixed_size_binary))


def _temporal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _step_ns(kind: pa.DataType) -> int:
    if pa.types.is_date32(kind):
        return 86_400 * 10**9
    return UNIT_NS["ms"] if pa.types.is_date64(kind) else UNIT_NS[kind.unit]


def _not(one: Answers) -> Answers:
    turned = one & Answers.UNKNOWN
    turned |= Answers.FALSE if one & Answers.TRUE else Answers.NONE
    return turned | (Answers.TRUE if one & Answers.FALSE else Answers.NONE)


def _and(a: Answers, b: Answers) -> Answers:
    made = a & b & Answers.TRUE | (a | b) & Answers.FALSE
    unknown = (a & Answers.UNKNOWN and b & (Answers.TRUE | Answers.UNKNOWN)) or (
        b & Answers.UNKNOWN and a & Answers.TRUE
    )
    return made | (Answers.UNKNOWN if unknown else Answers.NONE)


def _or(a: Answers, b: Answers) -> Answers:
    return _not(_and(_not(a), _not(b)))
