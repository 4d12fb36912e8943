"""Times and decimals -> numbers: what the job has to say for it, with NumPy and Python's Decimal as the oracles."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import BindingError, DataError
from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.binding import Binding, rounded
from runner.model.signature import Signature, TensorSpec
from runner.tensor import bfloat16_values

UNITS = ["s", "ms", "us", "ns"]
TICKS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "d": 86_400 * 10**9}  # nanoseconds
LONG = st.integers(-(2**63) + 10**6, 2**63 - 1)


def binding(dtype: str, shape: Any, arrow: pa.DataType, **rule: Any) -> Binding:
    inputs = {"x": TensorSpec("x", dtype, shape, "x:0")}
    outputs = {"y": TensorSpec("y", "float32", (None,), "y:0")}
    columns = Columns.model_validate({"inputs": {"x": {"column": "c", **rule}}})
    return bind(columns, pa.schema([("c", arrow)]), Signature("s", "", inputs, outputs), "list")


def feed(dtype: str, values: pa.Array, shape: Any = (None,), **rule: Any) -> Any:
    batch = pa.RecordBatch.from_arrays([values], names=["c"])
    return binding(dtype, shape, values.type, **rule).feed(batch)["x"]


def bad_rows(dtype: str, values: pa.Array, **rule: Any) -> tuple[str, list[int], str]:
    with pytest.raises(DataError) as caught:
        feed(dtype, values, **rule)
    return caught.value.facts["code"], np.asarray(caught.value.at).tolist(), caught.value.message  # type: ignore[attr-defined]


def refused(dtype: str, arrow: pa.DataType, **rule: Any) -> str:
    with pytest.raises(BindingError) as caught:
        binding(dtype, (None,), arrow, **rule)
    return caught.value.message


# -- times -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(source=st.sampled_from(UNITS), unit=st.sampled_from([*UNITS, "d"]), ticks=st.lists(LONG, min_size=1, max_size=6))
def test_timestamps_become_numbers_of_the_unit_or_name_the_rows_that_are_none(
    source: str, unit: str, ticks: list[int]
) -> None:
    step, most = TICKS[source], 2**63 - 1
    ticks = [tick // 10**6 * 10**6 for tick in ticks[:3]] + ticks[3:]  # some of them whole in a coarser unit
    column = pa.array(ticks, pa.int64()).view(pa.timestamp(source, "Europe/Berlin"))
    exact = [divmod(tick * step, TICKS[unit]) for tick in ticks]
    beyond = [row for row, (whole, _) in enumerate(exact) if abs(whole) > most]
    broken = [row for row, (_, rest) in enumerate(exact) if rest]
    if beyond:
        assert bad_rows("int64", column, timestamp=unit)[:2] == ("ROW_OVERFLOW", beyond)
    elif broken:
        assert bad_rows("int64", column, timestamp=unit)[:2] == ("ROW_INEXACT", broken)
    else:
        fed = feed("int64", column, timestamp=unit)
        assert (fed.dtype, fed.tolist()) == (np.int64, [whole for whole, _ in exact])


@pytest.mark.parametrize(
    ("arrow", "values", "unit", "expected"),
    [
        (pa.timestamp("us"), [dt.datetime(2024, 2, 29, 12), dt.datetime(1969, 12, 31)], "s", [1709208000, -86400]),
        (pa.timestamp("ms", "UTC"), [dt.datetime(1970, 1, 2, tzinfo=dt.UTC)], "d", [1]),
        (pa.date32(), [dt.date(1970, 1, 3), dt.date(1969, 12, 31)], "d", [2, -1]),
        (pa.date32(), [dt.date(1970, 1, 3)], "s", [172800]),
        (pa.date64(), [dt.date(1970, 1, 3)], "d", [2]),
        (pa.time32("s"), [dt.time(1, 0, 1)], "ms", [3601000]),
        (pa.time64("us"), [dt.time(0, 0, 1, 500000)], "ms", [1500]),
        (pa.duration("ms"), [dt.timedelta(seconds=-1.5)], "us", [-1500000]),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_every_kind_of_time_has_a_number(arrow: Any, values: list[Any], unit: str, expected: Any, dtype: str) -> None:
    fed = feed(dtype, pa.array(values, arrow), timestamp=unit)
    assert (fed.dtype, fed.tolist()) == (dtype, expected)


def test_a_time_is_checked_to_fit_the_tensor() -> None:
    column = pa.array([2**31 - 1, 2**31], pa.timestamp("s"))
    assert bad_rows("int32", column, timestamp="s")[:2] == ("ROW_OVERFLOW", [1])
    column = pa.array([2**24, 2**24 + 1], pa.timestamp("s"))
    code, rows, message = bad_rows("float32", column, timestamp="s")
    assert (code, rows) == ("ROW_INEXACT", [1])
    assert "float32 cannot hold exactly" in message
    column = pa.array([2**53 + 1, 2**63 - 1, -(2**63), 2**53], pa.timestamp("us"))
    assert bad_rows("float64", column, timestamp="us")[:2] == ("ROW_INEXACT", [0, 1])


def test_nearest_and_unsafe_times_are_what_the_words_say() -> None:
    column = pa.array([1500, -1500], pa.duration("ms"))
    assert feed("float32", column, timestamp="s", cast="nearest").tolist() == [1.5, -1.5]
    assert bad_rows("int64", column, timestamp="s", cast="nearest")[:2] == ("ROW_INEXACT", [0, 1])
    assert feed("int64", column, timestamp="s", cast="unsafe").tolist() == [1, -2]
    code, rows, message = bad_rows("int64", pa.array([2**62], pa.timestamp("s")), timestamp="ns", cast="unsafe")
    assert (code, rows) == ("ROW_OVERFLOW", [0]), "no rule makes another date of a date"
    assert "a coarser `columns.inputs.x.timestamp` reaches farther" in message


@pytest.mark.parametrize(
    "arrow",
    [
        pa.timestamp("us"),
        pa.list_(pa.timestamp("us"), 2),
        pa.list_(pa.timestamp("us")),
        pa.dictionary(pa.int8(), pa.timestamp("us")),
    ],
    ids=str,
)
def test_times_in_lists_and_dictionaries_are_numbers_too(arrow: pa.DataType) -> None:
    listed = pa.types.is_nested(arrow)
    rows = [[10**6, 2 * 10**6], [0, 10**6]] if listed else [10**6, 0]
    inner = pa.timestamp("us")
    if listed or arrow == inner:
        values = pa.array(rows, arrow)
    else:
        values = pa.array(rows, inner).dictionary_encode().cast(arrow)
    fed = feed("int64", values, (None, 2) if listed else (None,), timestamp="s")
    assert fed.tolist() == np.floor_divide(rows, 10**6).tolist()


def test_null_times_follow_the_null_rule() -> None:
    column = pa.array([10**6, None, 2 * 10**6], pa.timestamp("us"))
    assert bad_rows("int64", column, timestamp="us")[:2] == ("ROW_NULL", [1])
    assert feed("int64", column, timestamp="s", null={"fill": -1}).tolist() == [1, -1, 2]
    fed = feed("float64", column, timestamp="s", null="nan")
    assert np.array_equal(fed, [1, np.nan, 2], equal_nan=True)


def test_padded_times_are_numbers() -> None:
    column = pa.array([[86400], [0, 172800]], pa.list_(pa.timestamp("s")))
    assert feed("int64", column, (None, None), timestamp="d", pad="max").tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize(
    ("arrow", "key"),
    [
        (pa.timestamp("us"), "timestamp: us"),
        (pa.timestamp("ns", "UTC"), "timestamp: ns"),
        (pa.date32(), "timestamp: d"),
        (pa.time32("ms"), "timestamp: ms"),
        (pa.duration("s"), "timestamp: s"),
    ],
    ids=str,
)
@pytest.mark.parametrize("cast", ["safe", "nearest", "unsafe"])
def test_a_time_without_a_unit_is_refused_with_the_line_that_helps(arrow: pa.DataType, key: str, cast: str) -> None:
    message = refused("int64", arrow, cast=cast)
    assert f"say in which unit they become numbers: `columns.inputs.x.{key}`" in message
    binding("int64", (None,), arrow, cast=cast, timestamp=key.split()[-1])


def test_a_unit_is_for_times_only() -> None:
    assert "found 'timestamp: s' for int64" in refused("int64", pa.int64(), timestamp="s")
    assert "found 'timestamp: s' for decimal128(9, 2)" in refused("float64", pa.decimal128(9, 2), timestamp="s")
    assert "convert the column to bool" in refused("bool", pa.timestamp("s"))
    assert "convert the column" in refused("int64", pa.month_day_nano_interval())


# -- decimals ----------------------------------------------------------------------------------------------------

DECIMALS = [pa.decimal32(9, 2), pa.decimal64(18, 4), pa.decimal128(38, 2), pa.decimal256(76, 10), pa.decimal128(38, 0)]


def numbers(arrow: pa.DataType) -> st.SearchStrategy[list[Decimal]]:
    most = 10**arrow.precision - 1
    one = st.integers(-most, most) | st.integers(-(10**6), 10**6)
    return st.lists(one.map(lambda value: Decimal(f"{value}E-{arrow.scale}")), min_size=1, max_size=6)


@settings(deadline=None)
@given(arrow=st.sampled_from(DECIMALS), data=st.data())
def test_a_decimal_becomes_the_nearest_float_where_the_job_says_so(arrow: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(numbers(arrow))
    column = pa.array(values, arrow)
    exact = np.array([float(str(value)) for value in values])
    assert feed("float64", column, cast="nearest").tolist() == exact.tolist()
    with np.errstate(all="ignore"):
        narrow = exact.astype(np.float32)
    beyond = np.flatnonzero(np.isinf(narrow)).tolist()
    if beyond:
        assert bad_rows("float32", column, cast="nearest")[:2] == ("ROW_OVERFLOW", beyond)
    else:
        assert feed("float32", column, cast="nearest").tolist() == narrow.tolist()
    assert feed("float32", column, cast="unsafe").tolist() == narrow.tolist()


@settings(deadline=None)
@given(arrow=st.sampled_from(DECIMALS), dtype=st.sampled_from(["int64", "uint64", "int32", "uint8"]), data=st.data())
def test_a_decimal_becomes_an_integer_where_it_is_one(arrow: pa.DataType, dtype: str, data: st.DataObject) -> None:
    values = data.draw(numbers(arrow))
    if data.draw(st.booleans()):
        values = [Decimal(int(value)) for value in values]
    info = np.iinfo(dtype)
    broken = [row for row, value in enumerate(values) if value != int(value)]
    beyond = [row for row, value in enumerate(values) if not info.min <= int(value) <= info.max]
    column = pa.array(values, arrow)
    if broken:
        assert bad_rows(dtype, column)[:2] == ("ROW_INEXACT", broken)
    elif beyond:
        code, rows, _ = bad_rows(dtype, column)
        assert code == "ROW_OVERFLOW"
        assert set(rows) <= set(beyond)
    else:
        fed = feed(dtype, column)
        assert (fed.dtype, fed.tolist()) == (dtype, [int(value) for value in values])


def test_an_unsafe_decimal_loses_what_is_behind_the_point() -> None:
    column = pa.array([Decimal("1.99"), Decimal("-1.99"), Decimal("300.00")], pa.decimal128(9, 2))
    assert feed("int64", column, cast="unsafe").tolist() == [1, -1, 300]
    assert feed("uint8", column.slice(2), cast="unsafe").tolist() == [300 % 256]


def test_decimals_that_are_small_integers_need_no_rule() -> None:
    assert feed("float32", pa.array([Decimal(9_999_999)], pa.decimal128(7, 0))).tolist() == [9_999_999.0]
    assert binding("float32", (None,), pa.decimal128(7, 0)).inputs[0].source.document()["cast"] == "safe"  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@settings(deadline=None)
@given(data=st.data())
def test_a_decimal_without_a_fraction_is_checked_as_an_integer_is(dtype: str, data: st.DataObject) -> None:
    arrow = data.draw(st.sampled_from([pa.decimal128(38, 0), pa.decimal256(76, 0), pa.decimal64(18, 0)]))
    near = st.sampled_from([2**8, 2**11, 2**24, 2**53, 2**55, 10**17]).flatmap(lambda at: st.integers(at - 3, at + 3))
    whole = data.draw(st.lists(near | st.integers(-(10**arrow.precision) + 1, 10**arrow.precision - 1), min_size=1))
    column = pa.array([Decimal(value) for value in whole], arrow)
    bits = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}[dtype]
    most = {"float64": 2**1024, "float32": 2**128, "float16": 2**16, "bfloat16": 2**128}[dtype]
    lost = [row for row, one in enumerate(whole) if abs(one) >= most or one % 2 ** max(0, abs(one).bit_length() - bits)]
    if lost:
        code, rows, message = bad_rows(dtype, column)
        assert (code, rows[0]) == ("ROW_INEXACT", rows[0])
        assert set(rows) <= set(lost)
        assert "`columns.inputs.x.cast: nearest`, which rounds" in message
    else:
        fed = feed(dtype, column)
        assert [int(one) for one in (bfloat16_values(fed) if dtype == "bfloat16" else fed)] == whole


@pytest.mark.parametrize("arrow", DECIMALS[:4], ids=str)
def test_a_decimal_with_a_fraction_is_rounded_as_a_float_is(arrow: pa.DataType) -> None:
    column = pa.array([Decimal("0.10"), Decimal("2.50"), Decimal("-7.01")], arrow)
    for dtype in ("float64", "float32", "float16"):
        assert feed(dtype, column).tolist() == np.array([0.1, 2.5, -7.01]).astype(dtype).tolist()
    assert bad_rows("bfloat16", column)[:2] == ("ROW_INEXACT", [0, 2]), "which is never rounded without a rule"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("arrow", DECIMALS[:4], ids=str)
def test_an_exact_decimal_is_not_rounded(arrow: pa.DataType, dtype: str) -> None:
    column = pa.array([Decimal("0.25"), Decimal("0.10"), Decimal("-7.50"), None], arrow)
    code, rows, message = bad_rows(dtype, column.slice(0, 3), exact=True)
    assert (code, rows) == ("ROW_INEXACT", [1])
    assert "found a decimal that no float64 is exactly" in message or "holds a decimal that no float64 is" in message
    assert feed(dtype, column.take(pa.array([0, 2])), exact=True).tolist() == [0.25, -7.5]


# -- exact -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "values", "bad"),
    [
        ("float32", pa.array([0.5, 0.1, float("nan"), float("inf"), 2**24 + 1], pa.float64()), [1, 4]),
        ("float16", pa.array([0.5, 0.1], pa.float32()), [1]),
        ("float32", pa.array([2**24, 2**24 + 1], pa.int64()), [1]),
        ("float32", pa.array([0.1, 0.2], pa.float32()), []),
        ("int32", pa.array([1, 2], pa.int64()), []),
        (
            "complex64",
            pa.array(
                [{"re": 0.5, "im": 1.0}, {"re": 0.5, "im": 0.1}],
                pa.struct([("re", pa.float64()), ("im", pa.float64())]),
            ),
            [1],
        ),
    ],
    ids=str,
)
def test_what_may_not_be_rounded_is_a_bad_row(dtype: str, values: pa.Array, bad: list[int]) -> None:
    feed(dtype, values.take(pa.array([at for at in range(len(values)) if at not in bad])), exact=True)
    if bad:
        code, rows, message = bad_rows(dtype, values, exact=True)
        assert (code, rows) == ("ROW_INEXACT", bad)
        assert ", in place of `exact: true`" in message, "which no other rule goes with"
    elif not pa.types.is_integer(values.type):
        feed(dtype, values, exact=True)


def test_exact_is_part_of_the_identity_only_where_it_is_said() -> None:
    def said(**rule: Any) -> Any:
        return binding("float32", (None,), pa.float64(), **rule).identity()["inputs"]["x"]

    assert said(exact=True) == said() | {"exact": True}
    assert "exact" not in said()


@pytest.mark.parametrize("rule", [{"cast": "nearest"}, {"cast": "unsafe"}])
def test_exact_excludes_rules_that_round(rule: dict[str, str]) -> None:
    with pytest.raises(
        ValueError, match="'exact: true' is for columns whose values may not be rounded; found it beside 'c"
    ):
        Columns.model_validate({"inputs": {"x": {"column": "c", "exact": True, **rule}}})


def test_examples_of_exact_floats_hold_none_that_was_rounded() -> None:
    inputs = {"x": TensorSpec("x", "string", (None,), "x:0")}
    outputs = {"y": TensorSpec("y", "float32", (None,), "y:0")}
    batch = pa.RecordBatch.from_pydict({"c": pa.array([0.5, 0.1, None])})

    def bound(**rule: Any) -> Binding:
        columns = Columns.model_validate({"inputs": {"x": {"example": {"columns": ["c"]}, **rule}}})
        return bind(columns, batch.schema, Signature("s", "", inputs, outputs), "list")

    assert bound().feed(batch)["x"].shape == (3,)
    with pytest.raises(DataError, match=r"float32 cannot hold exactly.*or `columns.inputs.x.cast: unsafe`") as caught:
        bound(exact=True).feed(batch)
    assert (caught.value.facts["code"], caught.value.at.tolist()) == ("ROW_INEXACT", [1])  # type: ignore[attr-defined]
    assert bound(exact=True).identity()["inputs"]["x"]["exact"]


def test_decimals_in_lists_and_dictionaries_are_numbers_too() -> None:
    values = pa.array([[Decimal("0.10"), Decimal("2.50")]], pa.list_(pa.decimal128(9, 2)))
    assert feed("float64", values, (None, None), cast="nearest").tolist() == [[0.1, 2.5]]
    values = pa.array([Decimal("0.10"), None, Decimal("0.10")], pa.decimal128(9, 2)).dictionary_encode()
    fed = feed("float64", values, cast="nearest", null="nan")
    assert np.array_equal(fed, [0.1, np.nan, 0.1], equal_nan=True)


# -- nearest -----------------------------------------------------------------------------------------------------


def test_nearest_rounds_integers_and_bfloat16_and_makes_no_infinity() -> None:
    assert feed("float32", pa.array([2**24 + 1, -5], pa.int64()), cast="nearest").tolist() == [2**24, -5]
    assert feed("float32", pa.array([2**24, 5], pa.int64()), cast="nearest").dtype == np.float32
    column = pa.array([70_000, 1], pa.int32())
    assert bad_rows("float16", column, cast="nearest")[:2] == ("ROW_OVERFLOW", [0])
    fed = feed("bfloat16", pa.array([0.1, np.inf, np.nan], pa.float32()), cast="nearest")
    assert np.array_equal(bfloat16_values(fed), np.array([0.10009765625, np.inf, np.nan], np.float32), equal_nan=True)
    assert bad_rows("bfloat16", pa.array([3.4e38], pa.float32()), cast="nearest")[:2] == ("ROW_OVERFLOW", [0])
    assert bad_rows("int32", pa.array([2**40], pa.int64()), cast="nearest")[:2] == ("ROW_OVERFLOW", [0])
    assert "`columns.inputs.x.cast: unsafe`" in refused("int32", pa.float64(), cast="nearest")


def test_what_is_rounded_without_a_rule_is_said_once_for_all_inputs() -> None:
    def said(given: dict[str, tuple[pa.DataType, str]], **rule: Any) -> dict[str, str]:
        inputs = {name: TensorSpec(name, dtype, (None,), f"{name}:0") for name, (_, dtype) in given.items()}
        outputs = {"y": TensorSpec("y", "float32", (None,), "y:0")}
        columns = Columns.model_validate({"inputs": {name: {"column": name, **rule} for name in given}})
        schema = pa.schema([(name, kind) for name, (kind, _) in given.items()])
        return rounded(bind(columns, schema, Signature("s", "", inputs, outputs), "list").inputs)

    floats = {"a": (pa.float64(), "float32"), "b": (pa.float64(), "float32"), "c": (pa.float32(), "float32")}
    more = {"d": (pa.decimal128(9, 2), "float64"), "e": (pa.decimal128(20, 0), "float64"), "f": (pa.int64(), "float32")}
    assert said(floats | more) == {"a": "'a', 'b' (double) to float32", "d": "'d' (decimal128(9, 2)) to float64"}
    for rule in ({"exact": True}, {"cast": "unsafe"}):
        assert said(floats | more, **rule) == {}
    assert list(said(floats | more, cast="nearest")) == ["a", "d", "e", "f"]
