"""The lengths of the lists of a row, at the levels where any length will do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.binding import Binding
from runner.binding.nesting import open_lengths
from runner.model.signature import Signature, TensorSpec

RAGGED = st.lists(st.none() | st.lists(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3), max_size=3))


def lengths(row: Any, level: int) -> int:
    """-1 where the lists of a level differ, 0 where there are none."""
    lists = [row]
    for _ in range(level):
        lists = [inner for one in lists for inner in one]
    sizes = {len(one) for one in lists}
    return sizes.pop() if len(sizes) == 1 else -1 if sizes else 0


@settings(deadline=None)
@given(rows=RAGGED, before=st.integers(0, 2))
def test_the_lengths_of_each_row_are_found_at_every_open_level(rows: Any, before: int) -> None:
    values = pa.array([[[[1]]]] * before + rows, pa.list_(pa.large_list(pa.list_(pa.int8())))).slice(before)
    present = [row or [] for row in rows]
    expected = np.array([[lengths(row, level) for level in range(3)] for row in present], np.int64).reshape(-1, 3)
    assert open_lengths(values, (None, None, None)).tolist() == expected.tolist()
    assert open_lengths(values, (None, None, 3)).tolist() == expected[:, :2].tolist()
    assert open_lengths(values, (2, None, 3)).tolist() == expected[:, 1:2].tolist()
    assert open_lengths(values, (2, 2, 3)).shape == (len(rows), 0)


def binding(*rules: dict[str, Any], shape: Any = (None, None, None, 3)) -> Binding:
    """Inputs a, b, ... fed by columns of the same names, images of any size."""
    names = [chr(ord("a") + number) for number in range(len(rules))]
    inputs = {name: TensorSpec(name, "uint8", shape, f"{name}:0") for name in names}
    columns = {name: {"column": name, **rule} for name, rule in zip(names, rules, strict=True)}
    image = pa.list_(pa.list_(pa.list_(pa.uint8(), 3)))
    outputs = {"y": TensorSpec("y", "float32", (None,), "y:0")}
    job = Columns.model_validate({"inputs": columns})
    return bind(job, pa.schema([(name, image) for name in names]), Signature("s", "", inputs, outputs), "list")


def image(height: int, width: int) -> Any:
    return [[[1, 2, 3]] * width] * height


def table(**columns: Any) -> pa.Table:
    kind = pa.list_(pa.list_(pa.list_(pa.uint8(), 3)))
    return pa.table({name: pa.array(rows, kind) for name, rows in columns.items()})


def test_rows_that_are_alike_in_all_inputs_may_share_a_batch() -> None:
    rows = table(a=[image(2, 1), image(2, 1), image(1, 2)], b=[image(4, 4), image(4, 5), image(4, 4)])
    found = binding({}, {}).shapes(pa.concat_tables([rows, rows.slice(1)]))
    assert found is not None
    assert found.tolist() == [[2, 1, 4, 4], [2, 1, 4, 5], [1, 2, 4, 4], [2, 1, 4, 5], [1, 2, 4, 4]]


@pytest.mark.parametrize(
    ("rule", "rows", "expected"),
    [
        ({"null": {"fill": 0}}, [None, image(2, 1), image(2, 1)], [2, 1]),
        ({"null": {"fill": 0}}, [None, image(2, 1), image(1, 2)], [-1, -1]),
        ({"null": {"fill": 0}}, [None, None], [-1, -1]),
        ({"null": {"fill": [[[7, 7, 7]]]}}, [None, image(2, 1), image(1, 2)], [1, 1]),
    ],
)
def test_a_null_row_has_the_shape_of_what_it_becomes(rule: Any, rows: Any, expected: list[int]) -> None:
    found = binding(rule).shapes(table(a=rows))
    assert found is not None
    assert found[0].tolist() == expected


def test_where_the_tensor_says_all_shapes_there_is_none_to_find() -> None:
    assert binding({}, shape=(None, 2, 2, 3)).shapes(table(a=[image(2, 2)])) is None


def test_rows_to_try_a_model_with_are_of_one_shape() -> None:
    uneven = [[[1, 2, 3]], [[1, 2, 3]] * 2]
    rows = table(a=[uneven, image(2, 1), image(1, 2), image(2, 1)])
    assert binding({}).alike(rows)["a"].to_pylist() == [image(2, 1)] * 2
    assert binding({}, shape=(None, 2, 2, 3)).alike(rows) is rows
    assert binding({}).alike(rows.slice(0, 0)).num_rows == 0
    assert binding({}).alike(pa.table({"a": pa.chunked_array([], rows["a"].type)})).num_rows == 0
    assert binding({}).alike(rows.slice(0, 1)).num_rows == 1
