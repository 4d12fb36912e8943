"""Which rows `where` keeps, as DuckDB says; what statistics leave out, that keeps none; and the sample."""

from __future__ import annotations

import math
import random
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.formats.base import Span
from jobs.errors import BindingError
from jobs.rows import condition as said
from jobs.rows.condition import Column, Compare, Instant, IsNull, Like, Literal, Member, Not, Truth, all_of, any_of
from jobs.rows.runs import Runs
from jobs.rows.where import parse
from runner.selection.bound import bound, fields_of, roots
from runner.selection.keep import kept
from runner.selection.prune import Answers, Facts, answers, may_match
from runner.selection.selection import Selection

TEXTS = ["", "a", "ab", "b%", "ä", "Z"]
DAYS = [date(2026, 11, 1), date(2026, 11, 2), date(1969, 12, 31)]
MOMENTS = [datetime(2026, 11, 1, 12, 30), datetime(1969, 12, 31, 23, 59, 59, 999_999)]
VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "i8": (pa.int8(), [-128, -1, 0, 1, 127]),
    "u8": (pa.uint8(), [0, 1, 255]),
    "i64": (pa.int64(), [-(2**63), -1, 0, 2**53, 2**53 + 1, 2**63 - 1]),
    "u64": (pa.uint64(), [0, 1, 2**64 - 1]),
    "f": (pa.float32(), [0.1, -0.0, 0.5, math.inf, math.nan]),
    "d": (pa.float64(), [0.1, 0.0, -1.5, -math.inf, math.nan]),
    "dec": (pa.decimal128(5, 2), [Decimal("0.10"), Decimal("-1.50"), Decimal("999.99")]),
    "s": (pa.string(), TEXTS),
    "b": (pa.bool_(), [True, False]),
    "day": (pa.date32(), DAYS),
    "t": (pa.timestamp("us"), MOMENTS),
    "st": (pa.struct([("x", pa.int32())]), [{"x": 1}, {"x": -1}, {"x": None}]),
}
SCHEMA = pa.schema([(name, kind) for name, (kind, _) in VALUES.items()])


def _table(seed: int) -> pa.Table:
    drawn = random.Random(seed)
    rows = drawn.randrange(9)
    columns = {
        name: [None if drawn.random() < 0.2 else drawn.choice(values) for _ in range(rows)]
        for name, (_, values) in VALUES.items()
    }
    return pa.table(columns, schema=SCHEMA)


TABLES = st.integers(0, 10_000).map(_table)
NUMBERS = st.one_of(
    st.integers(-300, 300),
    st.sampled_from([-129, 128, 2**53, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 0]),
    st.sampled_from([Decimal(text) for text in ("0.1", "-1.5", "0.105", "1000.5", "17.5", "-0.001", "255.5")]),
).map(Literal)
LITERALS = {
    **dict.fromkeys(("i8", "u8", "i64", "u64", "f", "d", "dec", "st.x"), NUMBERS),
    "s": st.sampled_from(TEXTS).map(Literal),
    "b": st.booleans().map(Literal),
    "day": st.sampled_from([*DAYS, "2026-11-01"]).map(Literal),
    "t": st.sampled_from([*DAYS, "2026-11-01 12:30", Instant(-1_000), Instant(-2_000)]).map(Literal),
}
OPS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def _column(name: str) -> Column:
    return Column(tuple(name.split(".")))


def _simple(name: str) -> st.SearchStrategy[Any]:
    column, literals = _column(name), LITERALS[name]
    ops = st.sampled_from(["=", "!="]) if name == "b" else OPS
    made = [
        st.builds(Compare, st.just(column), ops, literals),
        st.builds(Member, st.just(column), st.lists(literals, min_size=1, max_size=3).map(tuple)),
        st.just(IsNull(column)),
    ]
    if name == "b":
        made.append(st.just(Truth(column)))
    if name == "s":
        made.append(
            st.builds(Like, st.just(column), st.sampled_from(["a%", "%b", "_", "ab", "%", "b\\%"]).map(Literal))
        )
    return st.one_of(made)


PAIRS = st.builds(
    lambda names, op: Compare(_column(names[0]), op, _column(names[1])),
    st.sampled_from([("i8", "i64"), ("i64", "u64"), ("u8", "i8"), ("day", "day"), ("dec", "dec"), ("s", "s")]),
    OPS,
)
CONDITIONS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.sampled_from(sorted(LITERALS)).flatmap(_simple), PAIRS),
    lambda inner: st.one_of(
        inner.map(lambda one: one.condition if isinstance(one, Not) else Not(one)),
        st.lists(inner, min_size=2, max_size=3).map(all_of),
        st.lists(inner, min_size=2, max_size=3).map(any_of),
    ),
    max_leaves=5,
)


def sql(condition: said.Condition) -> str:
    """The same for DuckDB, with comparisons of NaN as IEEE 754 has them, and numbers as the columns have them."""
    match condition:
        case said.And(conditions=inner):
            return "(" + " and ".join(map(sql, inner)) + ")"
        case said.Or(conditions=inner):
            return "(" + " or ".join(map(sql, inner)) + ")"
        case Not(condition=one):
            return f"(not {sql(one)})"
        case Compare(column=column, op=op, other=Literal() as literal) if column.name in ("f", "d"):
            kind = "float" if column.name == "f" else "double"
            known = f"({column.text} {op} {literal.text}::{kind})"
            return f"(case when isnan({column.text}) then {op == '!='} else {known} end)"
        case Member(column=column, values=values) if column.name in ("f", "d"):
            return sql(any_of([Compare(column, "=", value) for value in values]))
        case Member(column=column, values=values):  # one by one, because DuckDB first finds one type for all values
            return "(" + " or ".join(sql(Compare(column, "=", value)) for value in values) + ")"
        case Compare(column=column, op=op, other=Literal(value=int() | Decimal()) as literal) if column.name != "b":
            return f"({column.text}::decimal(38, 5) {op} {literal.text}::decimal(38, 5))"
        case Compare(column=Column(parts=("i64" | "u8" | "i8",)) as column, op=op, other=Column() as other):
            return f"({column.text}::hugeint {op} {other.text}::hugeint)"
    return f"({condition.text})"


@given(TABLES, CONDITIONS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_rows_are_those_that_duckdb_keeps(table: pa.Table, condition: said.Condition) -> None:
    numbered = table.append_column("row", pa.array(np.arange(table.num_rows)))
    expected = CONNECTION.from_arrow(numbered).filter(sql(condition)).order("row").fetchall()
    found = np.flatnonzero(kept(bound(condition.text, SCHEMA), table))
    assert found.tolist() == [row[-1] for row in expected]


CONNECTION = duckdb.connect()


def _facts(table: pa.Table, known: random.Random) -> Facts:
    """What a footer may say: `known` decides what it leaves out."""
    spans = {}
    for name in (*table.schema.names[:-1], "st.x"):
        way = tuple(name.split("."))
        values = pc.struct_field(table["st"], "x") if name == "st.x" else table[name]
        there = values.drop_null()
        if pa.types.is_floating(values.type):
            there = there.filter(pc.invert(pc.is_nan(there)))
        bounds = (pc.min_max(there) if len(there) else None) if known.random() < 0.7 else None
        nulls = values.null_count if known.random() < 0.7 else None
        low, high = (bounds["min"], bounds["max"]) if bounds else (None, None)
        if pa.types.is_string(values.type) and high is not None:  # truncated, as the format allows
            high = pa.scalar(high.as_py().encode()[:1] + b"\xff")
        spans[way] = Span(low, high, nulls)
    return Facts(spans, table.num_rows)


@given(TABLES, CONDITIONS, st.integers(0, 99))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_statistics_leave_out_holds_no_row_that_is_kept(
    table: pa.Table, where: said.Condition, known: int
) -> None:
    condition = bound(where.text, SCHEMA)
    told, mask = answers(condition, _facts(table, random.Random(known))), kept(condition, table)
    assert not mask.any() or told & Answers.TRUE
    assert mask.all() or told & (Answers.FALSE | Answers.UNKNOWN)


def _one(kind: pa.DataType, low: Any, high: Any, nulls: int | None = 0) -> tuple[pa.Schema, Facts]:
    span = Span(pa.scalar(low, kind), pa.scalar(high, kind), nulls)
    return pa.schema([("a", kind)]), Facts({("a",): span}, 10)


@pytest.mark.parametrize(
    ("where", "matches"),
    [
        ("a = 5", True),
        ("a = 11", False),
        ("a > 10", False),
        ("a >= 10", True),
        ("a < 1", False),
        ("not a >= 1", False),
        ("a in (0, 11)", False),
        ("a in (0, 7)", True),
        ("a between 11 and 20", False),
        ("a is null", False),
        ("a is not null and a > 10", False),
        ("a > 10 or a = 3", True),
        ("a != 5", True),
        ("a > 10.5", False),
        ("a > 99999999999999999999", False),
    ],
)
def test_rows_between_bounds_are_left_out_where_none_can_match(where: str, matches: bool) -> None:
    schema, facts = _one(pa.int64(), 1, 10)
    assert may_match(bound(where, schema), facts) is matches


@pytest.mark.parametrize(
    ("kind", "low", "high", "nulls", "where"),
    [
        (pa.float64(), 1.0, 2.0, 0, "a != 1.5"),
        (pa.float64(), math.nan, 2.0, 0, "a > 5"),
        (pa.float64(), 1.0, 2.0, 0, "not a <= 2"),  # NaN is not
        (pa.int64(), None, 3, 0, "a > 5"),
        (pa.int64(), 1, 3, None, "a is null"),
        (pa.int64(), 4, 3, 0, "a = 9"),  # bounds that are none
        (pa.string(), "a", "b", 0, "a like '%z'"),
    ],
)
def test_what_is_doubtful_may_match(kind: pa.DataType, low: Any, high: Any, nulls: int | None, where: str) -> None:
    schema, facts = _one(kind, low, high, nulls)
    assert may_match(bound(where, schema), facts)


def test_partition_values_are_constants_of_a_file() -> None:
    schema = pa.schema([("dt", pa.date32()), ("n", pa.int16()), ("c", pa.string())])
    there = Facts.constant((("dt", "2026-11-01"), ("n", "7"), ("c", None)), schema)

    def matches(where: str) -> bool:
        return may_match(bound(where, schema), there)

    assert matches("dt = '2026-11-01' and n = 7 and c is null")
    assert not matches("dt = '2026-11-02'")
    assert not matches("n in (6, 8)")
    assert not matches("c = 'x'")
    assert not matches("c is not null")
    assert not matches("not dt = '2026-11-01'")
    assert matches("n = 7 or c = 'x'")
    assert may_match(bound("n = 7", schema), Facts.constant((("n", "seven"),), schema))  # whoever reads it says so


@pytest.mark.parametrize(
    ("where", "code", "story"),
    [
        ("agee > 1", "COLUMN_MISSING", "column 'agee' is not in the input: the columns there are 'age'"),
        ("AGE > 1", "COLUMN_MISSING", "names differ by case; did you mean 'age'?"),
        (
            "s = 18",
            "COLUMN_TYPE",
            "column 's' is string; found a number; expected a text such as '18', or say its type",
        ),
        ("age = '18'", "COLUMN_TYPE", "column 'age' is int32; found text; expected a number, without quotes: 18"),
        ("age = true", "COLUMN_TYPE", "column 'age' is int32; found true or false; expected a number"),
        ("day > 'soon'", "COLUMN_TYPE", "column 'day' is date32[day]; found 'soon'; expected a moment as"),
        ("day > timestamp '2026-11-01T00:00Z'", "COLUMN_TYPE", "found a moment with a zone; expected one without"),
        ("age", "COLUMN_TYPE", "column 'age' is int32; found true or false; expected a number"),
        ("st = 1", "COLUMN_TYPE", "it can only be compared with null: `is null`, `is not null`"),
        ("st.y = 1", "COLUMN_MISSING", "column 'st.y' is not in the input: the fields there are 'x'"),
        ("age like 'a%'", "COLUMN_TYPE", "column 'age' is int32; `like` is for text"),
        ("age = s", "COLUMN_TYPE", "column 'age' is int32; 's' is string; expected two columns of one type"),
        ("p.q = 1", "COLUMN_AMBIGUOUS", "'p.q' is a column, and 'p', too"),
        ("x2 = 1", "COLUMN_AMBIGUOUS", "column 'x2' is there more than once"),
    ],
)
def test_what_does_not_fit_the_columns_is_refused_with_its_place(where: str, code: str, story: str) -> None:
    inner = pa.struct([("x", pa.int32())])
    schema = pa.schema(
        [("age", pa.int32()), ("s", pa.string()), ("day", pa.date32()), ("st", inner), ("p", inner), ("p.q", inner)]
        + [("x2", pa.int8())] * 2
    )
    with pytest.raises(BindingError) as refused:
        bound(where, schema)
    assert refused.value.facts["code"] == code
    assert story in str(refused.value)
    assert "at character" in str(refused.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(BindingError) as refused:
        bound("a = 1 and (b = 'x' or c is null)", pa.schema([("b", pa.int64())]))
    assert "3 problems" in str(refused.value)
    assert refused.value.facts["codes"] == "COLUMN_MISSING,COLUMN_TYPE,COLUMN_MISSING"


def test_the_columns_are_those_that_are_named_each_once() -> None:
    schema = pa.schema([("a.b", pa.int8()), ("c", pa.struct([("d", pa.int8())])), ("e", pa.int8())])
    assert roots("a.b = 1 and c.d = e and e < 1", schema) == ["a.b", "c", "e"]
    assert [field.way for field in fields_of(bound("c.d = 1", schema))] == [("c", "d")]


def test_a_date_is_compared_with_a_moment_and_in_any_zone_by_utc() -> None:
    schema = pa.schema([("t", pa.timestamp("ms", "America/New_York")), ("day", pa.date32())])
    table = pa.table({"t": [0, 86_400_000], "day": [0, 1]}, schema=schema)

    def rows(where: str) -> list[int]:
        return np.flatnonzero(kept(bound(where, schema), table)).tolist()

    assert rows("t >= '1970-01-02'") == [1]
    assert rows("t = timestamp '1970-01-01T02:00+02:00'") == [0]
    assert rows("day > timestamp '1970-01-01 00:00:01'") == [1]
    assert rows("t < timestamp '1970-01-01 00:00:00.0000001'") == [0]


def test_a_sample_is_about_its_share_and_the_same_rows_always() -> None:
    taken = Selection(sample=0.01).sampled("file:///a.parquet", 3, 200_000, None)
    assert taken is not None
    assert 1_800 < len(taken) < 2_200
    assert taken[:3].tolist() == [150, 262, 398]  # of this version, of every version
    some = Selection(sample=0.01).sampled("file:///a.parquet", 3, 200_000, Runs(((100, 200), (390, 400))))
    assert some is not None
    assert some.tolist() == [150, 398]


def test_samples_of_files_and_row_groups_are_independent_and_a_larger_one_holds_a_smaller_one() -> None:
    def rows(share: float, url: str, row_group: int) -> set[int]:
        taken = Selection(sample=share).sampled(url, row_group, 50_000, None)
        assert taken is not None
        return set(taken.tolist())

    half = rows(0.5, "a", 0)
    assert rows(0.1, "a", 0) < half
    for other in (rows(0.5, "b", 0), rows(0.5, "a", 1)):
        assert 11_500 < len(half & other) < 13_500
    assert Selection(sample=1.0).sampled("a", 0, 10, None) is None


def test_conditions_of_thousands_of_values_are_kept_in_one_pass() -> None:
    table = pa.table({"a": pa.array(range(10_000), pa.int64())})
    where = f"a in ({', '.join(str(n) for n in range(0, 5_000, 2))})"
    assert kept(bound(where, table.schema), table).sum() == 2_500
    assert parse(where).text == where
