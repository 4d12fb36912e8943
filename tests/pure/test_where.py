"""The words of `where`: what they mean, in one spelling, and where they stop making sense."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import JobError
from jobs.job import Job
from jobs.load import load_job
from jobs.rows.condition import (
    And,
    Column,
    Compare,
    Condition,
    Instant,
    IsNull,
    Like,
    Literal,
    Member,
    Not,
    Truth,
    all_of,
    any_of,
)
from jobs.rows.where import WhereError, canonical, moment, parse

A, B = Column(("a",)), Column(("b",))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a = 'x'", Compare(A, "=", Literal("x"))),
        ("a = 'it''s'", Compare(A, "=", Literal("it's"))),
        ("a <> -2", Compare(A, "!=", Literal(-2))),
        ("18<=a", Compare(A, ">=", Literal(18))),
        ("a > 2.50", Compare(A, ">", Literal(Decimal("2.5")))),
        ("a > 1e2", Compare(A, ">", Literal(100))),
        ("a < B.c", Compare(A, "<", Column(("B", "c")))),
        ('"a b".c = TRUE', Compare(Column(("a b", "c")), "=", Literal(True))),
        ('"say ""a""" is null', IsNull(Column(('say "a"',)))),
        ("a is NOT null", Not(IsNull(A))),
        ("a between 1 and 2 and b", And((Compare(A, ">=", Literal(1)), Compare(A, "<=", Literal(2)), Truth(B)))),
        ("a not in (1, 2)", Not(Member(A, (Literal(1), Literal(2))))),
        ("a not like 'x%'", Not(Like(A, Literal("x%")))),
        ("not not a", Truth(A)),
        ("a or b and a", any_of([Truth(A), all_of([Truth(B), Truth(A)])])),
        ("(a or b) and a", all_of([any_of([Truth(A), Truth(B)]), Truth(A)])),
        ("a = date '2026-11-01'", Compare(A, "=", Literal(date(2026, 11, 1)))),
        ("date = '2026-11-01'", Compare(Column(("date",)), "=", Literal("2026-11-01"))),
        ("a < timestamp '1970-01-01T01:00:00.5+01:00'", Compare(A, "<", Literal(Instant(5 * 10**8, True)))),
    ],
)
def test_a_text_is_read_as_it_is_meant(text: str, meant: Condition) -> None:
    assert parse(text) == meant


@pytest.mark.parametrize(
    ("text", "at", "story"),
    [
        ("", 1, "found the end; expected a column or a value"),
        ("a == 1", 3, "found '=='; expected '='"),
        ("a && b", 3, "found '&&'; expected 'and'"),
        ("a = 1 b", 7, "found 'b'; expected 'and', 'or' or the end"),
        ("a = null", 5, "found null, which nothing is equal to; expected a value, or `is null`"),
        ("1 = 1", 1, "found 1 = 1; expected a column on one side at least"),
        ("a in ()", 7, "found ')'; expected a value"),
        ("a in (b)", 7, "found 'b'; expected a value"),
        ("a in (1", 8, "found the end; expected ',' or ')'"),
        ("(a = 1", 7, "found the end; expected 'and', 'or' or ')'"),
        ("a = 'x", 5, "found a text that does not end; expected another ' behind it"),
        ("a is 5", 6, "found '5'; expected 'null' or 'not null'"),
        ("a not 5", 7, "found '5'; expected 'in', 'between' or 'like'"),
        ("a = 12x", 5, "found '12x'; expected a number"),
        ("a = 1e999", 5, "found '1e999'; expected a number of up to 80 digits"),
        ("in = 3", 1, "found 'in'; expected a column or a value (the name of a column stands in double quotes there)"),
        ("a = date '2026-02-30'", 10, "found \"'2026-02-30'\"; expected a day"),
        ("a = __import__('os')", 15, "found '('; expected 'and', 'or' or the end"),
        ("not " * 33 + "a", 129, "found more than 32 parentheses and `not` in each other"),
        ("(" * 10_000, 33, "found more than 32 parentheses"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(text: str, at: int, story: str) -> None:
    with pytest.raises(WhereError) as refused:
        parse(text)
    said = str(refused.value)
    assert said.startswith(story)
    assert f"at character {at}:" in said


def test_the_place_is_marked_in_its_line() -> None:
    with pytest.raises(WhereError) as refused:
        parse("a = 1 and\n  b == 2 and\n c = 3")
    assert str(refused.value).endswith("\n      b == 2 and\n        ^")


def test_a_long_line_is_shown_around_the_place() -> None:
    with pytest.raises(WhereError) as refused:
        parse("a = 1 and " * 100 + "==" + " and b = 1" * 100)
    *_, shown, mark = str(refused.value).split("\n")
    assert shown[mark.index("^") :].startswith("==")
    assert len(shown) < 100


def test_thousands_of_conditions_and_values_are_read() -> None:
    assert len(parse(" or ".join(f"a = {n}" for n in range(5_000))).conditions) == 5_000  # type: ignore[union-attr]
    assert len(parse(f"a in ({', '.join(map(str, range(10_000)))})").values) == 10_000  # type: ignore[union-attr]


def test_a_text_without_end_is_refused() -> None:
    with pytest.raises(WhereError, match=r"it has 70,000 characters; up to 65,536 are read"):
        parse("a" * 70_000)


NAMES = st.sampled_from(["a", "b", "not", "a b", 'q"q', "ä"]).flatmap(
    lambda name: st.sampled_from([Column((name,)), Column((name, "f"))])
)
VALUES = st.one_of(
    st.text(max_size=4),
    st.integers(-(10**30), 10**30),
    st.booleans(),
    st.dates(),
    st.builds(Instant, st.integers(-(10**18), 10**18), st.booleans()),
    st.decimals(allow_nan=False, allow_infinity=False, places=3)
    .map(lambda x: x.normalize())  # to 28 digits, which may leave a whole number
    .filter(lambda x: x != x.to_integral_value()),
).map(Literal)
CONDITIONS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.builds(Compare, NAMES, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.one_of(VALUES, NAMES)),
        st.builds(Member, NAMES, st.lists(VALUES, min_size=1, max_size=3).map(tuple)),
        st.builds(Like, NAMES, st.text(max_size=3).map(Literal)),
        st.builds(IsNull, NAMES),
        st.builds(Truth, NAMES),
    ),
    lambda inner: st.one_of(
        inner.map(lambda one: one.condition if isinstance(one, Not) else Not(one)),
        st.lists(inner, min_size=1, max_size=3).map(all_of),
        st.lists(inner, min_size=1, max_size=3).map(any_of),
    ),
    max_leaves=8,
)


@given(CONDITIONS)
def test_a_condition_that_is_written_reads_as_itself(condition: Condition) -> None:
    assert parse(condition.text) == condition
    assert canonical(condition.text) == condition.text


@pytest.mark.parametrize("text", ["2026-11-01T25:00", "2026-13-01", "yesterday", "2026-11-01 12:00:00.1234567890", ""])
def test_a_text_that_is_no_moment_names_none(text: str) -> None:
    assert moment(text, day=False) is None


def job(where: str, **more: Any) -> Job:
    rows = {"url": "i", "where": where, **more}
    return Job.model_validate({"model": {"url": "m"}, "input": rows, "output": {"url": "o"}})


def test_spelling_is_no_part_of_a_plans_identity() -> None:
    loose, tight = job("  A_1 =1  AND ( b <> 'x' )"), job("A_1 = 1 and b != 'x'")
    assert loose.input.rows == tight.input.rows == {"where": "A_1 = 1 and b != 'x'"}
    assert job("A_1 = 1 or b != 'x'").input.rows != tight.input.rows


def test_a_job_with_a_bad_where_is_refused_as_any_other_mistake() -> None:
    text = 'model: m\ninput: {url: i, where: "age >> 18"}\noutput: o\n'
    with pytest.raises(JobError) as refused:
        load_job(text, "job.yaml")
    assert str(refused.value) == (
        "cannot use job file 'job.yaml': job.yaml: cannot use 'input.where': found '>'; expected a column or a value,"
        " at character 6:\n    age >> 18\n         ^"
    )
    assert refused.value.exit_code == 2
