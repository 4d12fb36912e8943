"""Tensors whose shapes stand beside flat values, as Ray Data writes them: fed by shape, and never unpickled."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import BindingError, DataError
from jobs.section.columns import Columns
from runner.binding.bind import bind, wanted_columns
from runner.binding.binding import Binding
from runner.binding.shaped import tensor_type
from runner.model.signature import Signature, TensorSpec

V1, V2, SHAPED = "ray.data.arrow_tensor", "ray.data.arrow_tensor_v2", "ray.data.arrow_variable_shaped_tensor"
ARROW = "arrow.variable_shape_tensor"


def field(kind: pa.DataType, name: str, parameters: Any, column: str = "c") -> pa.Field:
    said = parameters if isinstance(parameters, bytes) else json.dumps(parameters).encode()
    return pa.field(column, kind, metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": said})


def binding(shape: Any, column: pa.Field, *, keep: bool = False, named: str = "c", **rule: Any) -> Binding:
    """One input 'x' fed by the column 'c', or by a field of it; one output that does not matter."""
    outputs = {"y": TensorSpec("y", "float32", (None,), "y:0")}
    model = Signature("s", "", {"x": TensorSpec("x", "uint8", shape, "x:0")}, outputs)
    columns = {"inputs": {"x": {"column": named, **rule}}, "keep": ["c"] if keep else []}
    schema = pa.schema([column])
    assert wanted_columns(Columns.model_validate(columns), model, schema) == ["c"]
    made = bind(Columns.model_validate(columns), schema, model, "list")
    carried: Binding = pickle.loads(pickle.dumps(made))  # noqa: S301  # our own bytes
    return carried


def flat(rows: list[Any], wide: bool = True) -> pa.Array:
    lists = [None if row is None else np.asarray(row).ravel().tolist() for row in rows]
    return pa.array(lists, (pa.large_list if wide else pa.list_)(pa.uint8()))


def shaped(rows: list[Any], sizes: pa.DataType | None = None) -> pa.Array:
    """rows: arrays, or (values, shape) as they are."""
    pairs = [None if row is None else row if isinstance(row, tuple) else (np.ravel(row), row.shape) for row in rows]
    structs = [None if one is None else {"data": [*one[0]], "shape": one[1]} for one in pairs]
    kind = pa.struct([("data", pa.large_list(pa.uint8())), ("shape", sizes or pa.list_(pa.int64()))])
    return pa.array(structs, kind)


def fed(shape: Any, column: pa.Field, values: pa.Array, **rule: Any) -> Any:
    return binding(shape, column, **rule).feed(pa.RecordBatch.from_arrays([values], schema=pa.schema([column])))["x"]


def refused(shape: Any, column: pa.Field, **rule: Any) -> str:
    with pytest.raises(BindingError) as caught:
        binding(shape, column, **rule)
    assert caught.value.facts["code"] == "COLUMN_TYPE"
    return caught.value.message


def bad_row(shape: Any, column: pa.Field, values: pa.Array, **rule: Any) -> tuple[str, int, str]:
    with pytest.raises(DataError) as caught:
        fed(shape, column, values, **rule)
    return caught.value.facts["code"], caught.value.facts["row"], caught.value.message


IMAGES = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)


@pytest.mark.parametrize(("name", "wide"), [(V1, False), (V2, True)])
@pytest.mark.parametrize("shape", [(None, 2, 3), (None, None, 3), None])
def test_tensors_of_one_shape_are_fed_by_it(name: str, wide: bool, shape: Any) -> None:
    values = flat([*IMAGES], wide).slice(1, 2)
    tensor = fed(shape, field(values.type, name, [2, 3]), values)
    assert np.array_equal(tensor, IMAGES[1:3])


@pytest.mark.parametrize("shape", [(None, 3, 2), (None, 6), (None, 2, 3, 1), (None, None), (None, 1, 2, 3)])
def test_another_shape_of_as_many_values_is_refused(shape: Any) -> None:
    found = refused(shape, field(pa.large_list(pa.uint8()), V2, [2, 3]))
    assert "found ray.data.arrow_tensor_v2<uint8>[2, 3]; expected" in found


def test_a_list_that_is_not_of_its_shape_is_a_bad_row() -> None:
    values = flat([*IMAGES[:2], IMAGES[0, 0], None])
    code, row, told = bad_row((None, 2, 3), field(values.type, V2, [2, 3]), values, null={"fill": 0})
    assert (code, row) == ("ROW_SHAPE", 2)
    assert "holds a list of 3 (1 such row in this batch); expected lists of 6" in told


def test_a_pickled_shape_is_not_read() -> None:
    values = flat([[1, 2, 3], [4, 5, 6]])
    pickled = field(values.type, V2, pickle.dumps((3,)))
    assert "found ray.data.arrow_tensor_v2<uint8>; expected a shape in JSON" in refused((None, 3, 1), pickled)
    assert "expected a shape in JSON" in refused(None, pickled)
    assert fed((None, 3), pickled, values).tolist() == [[1, 2, 3], [4, 5, 6]]  # there is one way only


UNEVEN = [np.full((2, 1), 1, np.uint8), np.full((1, 3), 2, np.uint8), np.zeros((0, 3), np.uint8)]
SIZES = {SHAPED: None, ARROW: pa.list_(pa.int32(), 2)}
PARAMETERS = {SHAPED: 2, ARROW: {"dim_names": ["H", "W"]}}


def column_of(name: str, values: pa.Array, **parameters: Any) -> pa.Field:
    return field(values.type, name, {**PARAMETERS[name], **parameters} if parameters else PARAMETERS[name])


@pytest.mark.parametrize("name", [SHAPED, ARROW])
@pytest.mark.parametrize("shape", [(None, 2, 3), (None, None, 3), (None, None, None), None])
def test_tensors_that_state_their_shapes_are_fed_by_them(name: str, shape: Any) -> None:
    values = shaped([UNEVEN[0], *IMAGES, UNEVEN[1]], SIZES[name]).slice(2, 2)
    assert np.array_equal(fed(shape, column_of(name, values), values), IMAGES[1:3])


@pytest.mark.parametrize("name", [SHAPED, ARROW])
def test_each_row_has_the_fixed_dimensions_of_the_tensor(name: str) -> None:
    values = shaped([IMAGES[0], IMAGES[0].T], SIZES[name])
    code, row, told = bad_row((None, 2, 3), column_of(name, values), values)
    assert (code, row, "holds a list of 3 (1 such row in this batch); expected lists of 2" in told) == (
        "ROW_SHAPE",
        1,
        True,
    )
    assert "expected lists of 2 of lists of 3" in refused((None, 2, 3, 1), column_of(name, values))


def test_tensors_of_several_shapes_are_padded_as_nested_lists_are() -> None:
    values = shaped([UNEVEN[0], None, *UNEVEN[1:]])
    column = field(values.type, SHAPED, 2)
    rule = {"pad": {"to": "max", "value": 9}, "null": {"fill": []}}
    expected = [[[1, 9, 9], [1, 9, 9]], [[9] * 3] * 2, [[2, 2, 2], [9] * 3], [[9] * 3] * 2]
    assert fed((None, None, None), column, values, **rule).tolist() == expected
    lists = pa.array([[[1], [1]], None, [[2, 2, 2]], []], pa.list_(pa.list_(pa.uint8())))
    assert fed((None, None, None), pa.field("c", lists.type), lists, **rule).tolist() == expected
    made = binding((None, None, None), column, pad={"to": "max"}, null={"fill": []})
    assert made.lengths(pa.table([values], pa.schema([column]))).tolist() == [2, 1, 1, 1]


@pytest.mark.parametrize(
    "row",
    [
        ([1, 2, 3], (2, 2)),
        ([1, 2, 3, 4], (4,)),
        ([1, 2, 3, 4], (2, 2, 1)),
        ([1, 2, 3, 4], (-2, -2)),
        ([1, 2, 3, 4], (2, None)),
        ([1, 2, 3, 4], None),
        (None, (2, 2)),
        ([], (2**40, 0)),
        ([], (2**32, 2**32)),
    ],
    ids=str,
)
def test_a_row_that_contradicts_itself_is_bad(row: Any) -> None:
    structs = [
        None if one is None else {"data": one[0], "shape": one[1]} for one in [([1, 2, 3, 4], [2, 2]), None, row]
    ]
    kind = pa.struct([("data", pa.large_list(pa.uint8())), ("shape", pa.list_(pa.int64()))])
    values = pa.array(structs, kind)
    column = field(kind, SHAPED, 2)
    code, at, told = bad_row((None, None, None), column, values, null={"fill": 0})
    count, shape = "no" if row[0] is None else len(row[0]), None if row[1] is None else [*row[1]]
    assert (code, at, f"holds {count} values in the shape {shape} (" in told) == ("ROW_SHAPE", 2, True)
    made = binding((None, None, None), column, pad={"to": "max"}, null={"fill": []})
    assert made.lengths(pa.table([values], pa.schema([column]))).tolist() == [2, 1, 1]


def test_what_uniform_shape_and_permutation_state_is_known_when_a_job_is_planned() -> None:
    kind = shaped([IMAGES[0]], SIZES[ARROW]).type
    uniform = field(kind, ARROW, {"uniform_shape": [None, 3], "permutation": [0, 1]})
    assert f"found {ARROW}<uint8>[?, 3]; expected lists of 2 of lists of 4" in refused((None, 2, 4), uniform)
    assert binding((None, None, 3), uniform)
    assert "without a permutation" in refused((None, None, 3), field(kind, ARROW, {"permutation": [1, 0]}))


@pytest.mark.parametrize("kept", [True, False])
def test_a_kept_tensor_is_written_as_it_was_and_a_field_of_a_struct_is_fed(kept: bool) -> None:
    values = shaped([IMAGES[0], IMAGES[1]])
    inner = field(values.type, SHAPED, 2, "image")
    column = field(values.type, SHAPED, 2) if kept else pa.field("c", pa.struct([inner]))
    array = values if kept else pa.StructArray.from_arrays([values], fields=[inner])
    batch = pa.RecordBatch.from_arrays([array], schema=pa.schema([column]))
    made = binding((None, 2, 3), column, keep=kept, named="c" if kept else "c.image")
    assert np.array_equal(made.feed(batch)["x"], IMAGES[:2])
    written = made.fetch(batch, {"y": np.zeros(2, np.float32)})
    assert written.schema.equals(made.output_schema)
    if kept:
        assert written.schema.field("c").equals(column, check_metadata=True)
        assert written["c"].equals(values)


@pytest.mark.parametrize(
    "column",
    [
        field(pa.large_list(pa.uint8()), "somebody.tensor", [2, 3]),
        field(pa.large_list(pa.uint8()), V2, []),
        field(pa.int64(), V2, [2, 3]),
        field(pa.struct([("data", pa.large_list(pa.uint8()))]), SHAPED, 2),
        field(pa.struct([("data", pa.int8()), ("shape", pa.list_(pa.int64()))]), SHAPED, 2),
        field(shaped([]).type, SHAPED, pickle.dumps(2)),
        field(shaped([]).type, SHAPED, True),
        field(shaped([]).type, ARROW, {}),
        pa.field("c", pa.int8(), metadata={b"ARROW:extension:name": b"\xff"}),
    ],
    ids=str,
)
def test_other_fields_mean_their_own_type(column: pa.Field) -> None:
    assert tensor_type(column) is None
