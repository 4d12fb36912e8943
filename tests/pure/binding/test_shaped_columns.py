"""Shaped outputs as columns: their types in every format, what is refused before a call, and what a call may show."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from connectors.formats.registry import make_encoder
from connectors.output.rehearsal import rehearse
from jobs.errors import BindingError, DataError
from jobs.section.columns import Columns
from runner.batch.answer import answers
from runner.binding.bind import bind
from runner.binding.binding import NAN_ANSWER, Binding
from runner.binding.shaping.labels import labels_digest
from runner.binding.shaping.target import outputs_of, shaped_of
from runner.model.signature import Signature, TensorSpec, dense
from runner.tensor import Outputs

BATCH = pa.RecordBatch.from_pydict({"x": np.arange(3, dtype=np.float32)})
LABELS = ["a", "b", "c", "d"]
F32, I32 = np.float32, np.int32


def bound(outputs: Any, dtype: str = "float32", shape: Any = (None, 4), **more: Any) -> Binding:
    signature = Signature(
        "s",
        "",
        {"x": TensorSpec("x", "float32", (None,), "x:0")},
        {"y": TensorSpec("y", dtype, shape, "y:0", **more), "z": TensorSpec("z", "float32", (None,), "z:0")},
    )
    columns = Columns.model_validate({"outputs": {key: {"of": "y"} | rule for key, rule in outputs.items()}})
    return bind(columns, BATCH.schema, signature, "fixed_shape_tensor")


def refused(rule: Any, *spec: Any, **more: Any) -> str:
    with pytest.raises(BindingError) as caught:
        bound({"c": rule}, *spec, **more)
    return caught.value.message.partition("\n")[2]


def part(binding: Binding, column: str, name: Any) -> str:
    (target,) = [one for one in binding.outputs if one.field.name == column]
    return str(target.shaped[name].name)  # type: ignore[attr-defined]


def struct(value: pa.DataType, *, label: bool = False) -> pa.DataType:
    kinds = {"index": pa.int32(), "value": value} | ({"label": pa.string()} if label else {})
    return pa.struct([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])


def listed(kind: pa.DataType, *sizes: int) -> pa.DataType:
    for size in reversed(sizes):
        kind = pa.list_(pa.field("item", kind, nullable=False), size)
    return kind


@pytest.mark.parametrize(
    ("rule", "dtype", "shape", "expected"),
    [
        ({"argmax": True}, "float32", (None, 4), pa.int32()),
        ({"argmax": True}, "float32", (None, 1, 4), pa.int32()),
        ({"argmax": True}, "int8", (None, 5, 4), pa.fixed_shape_tensor(pa.int32(), (5,))),
        ({"argmax": True, "labels": LABELS}, "bfloat16", (None, 4), pa.string()),
        ({"argmax": True, "labels": LABELS}, "float32", (None, 5, 4), listed(pa.string(), 5)),
        ({"top_k": 2}, "float32", (None, 4), listed(struct(pa.float32()), 2)),
        ({"top_k": 2}, "float32", (None, None), listed(struct(pa.float32()), 2)),
        ({"top_k": 1}, "float16", (None, 4), listed(struct(pa.float16()), 1)),
        ({"top_k": 2}, "bfloat16", (None, 4), listed(struct(pa.float32()), 2)),
        ({"top_k": 2, "labels": LABELS}, "int64", (None, 4), listed(struct(pa.int64(), label=True), 2)),
        ({"top_k": 2}, "bool", (None, 3, 4), listed(struct(pa.bool_()), 3, 2)),
        ({"at": 1}, "float32", (None, 4), pa.float32()),
        ({"at": 1}, "bfloat16", (None, 3, 4), pa.fixed_shape_tensor(pa.float32(), (3,))),
        ({"at": [0, 1]}, "float64", (None, 3, 4), pa.float64()),
        ({"at": 0, "cast": "float16", "round": 4}, "float32", (None, 4), pa.float16()),
        ({"cast": "float16"}, "float32", (None, 4), pa.fixed_shape_tensor(pa.float16(), (4,))),
        ({"at": 0, "above": 0.5}, "float32", (None, 4), pa.bool_()),
        ({"above": 0.5}, "float32", (None,), pa.bool_()),
        ({"round": 0, "cast": "int8"}, "float32", (None, 1), pa.int8()),
    ],
    ids=str,
)
def test_the_type_of_a_shaped_column(rule: Any, dtype: str, shape: Any, expected: pa.DataType) -> None:
    binding = bound({"c": rule}, dtype, shape)
    assert binding.output_schema.field("c") == pa.field("c", expected, nullable=False)
    carried: Binding = pickle.loads(pickle.dumps(binding))  # noqa: S301  # our own bytes
    assert carried.output_schema == binding.output_schema
    for name in ("parquet", "arrow"):
        found = rehearse(make_encoder(name), binding.output_schema)
        assert not found.refused
        assert not found.changed


def test_what_a_format_cannot_hold_is_refused_by_name() -> None:
    binding = bound({"top": {"top_k": 2}, "score": {"at": 1, "cast": "float16"}, "label": {"argmax": True}})
    found = rehearse(make_encoder("tfrecord"), binding.output_schema)
    assert list(found.refused) == ["top"]
    assert "cannot be a tf.Example" in found.refused["top"] or "Example" in found.refused["top"]
    assert found.changed["score"] == pa.float32()


@pytest.mark.parametrize(
    ("rule", "spec", "text"),
    [
        ({"top_k": 5}, (), "found 'top_k: 5' of 4 values; expected at most 4, the last dimension"),
        ({"argmax": True}, ("float32", (None, 0)), "found 'argmax' of 0 values; expected one at least"),
        ({"argmax": True}, ("float32", (None,)), "found one value a row; 'argmax' wants several in the last dimension"),
        ({"argmax": True, "labels": LABELS[:3]}, (), "found 3 labels for 4 values; expected 4 labels, one for each"),
        ({"top_k": 1, "labels": [*LABELS, "e", "f"]}, (), "found 6 labels for 4 values; expected 4 labels"),
        ({"argmax": True, "labels": "a.txt"}, (), "found no labels: 'a.txt' was not read"),
        ({"at": 4}, (), "found 'at: 4' of rows [4]; expected less than 4: places count from 0"),
        ({"at": [2, 0]}, ("float32", (None, 2, 3)), "found 'at: [2, 0]' of rows [2, 3]; expected less than 2"),
        ({"at": [1]}, ("float32", (None, 2, 3)), "found 'at: [1]' of rows [2, 3]; expected a place for each of 2 dim"),
        ({"at": 0}, ("float32", (None,)), "found 'at: 0' of rows that are one value; expected several"),
        ({"round": 1}, ("int32", (None,)), "found 'round: 1' of int32; expected floats, which have digits to round"),
        ({"cast": "int8"}, (), "found 'cast: int8' of float32; expected 'round: 0' beside it, which makes it whole"),
        ({"cast": "int8", "round": 2}, (), "expected 'round: 0' beside it"),
        ({"above": 0}, ("bool", (None, 2)), "found booleans; 'above' is for numbers"),
        ({"argmax": True}, ("string", (None, 2)), "found dtype string; 'argmax' is for floats of at least 16 bits"),
        ({"at": 1, "above": 1}, ("string", (None, 2)), "found dtype string; 'at', 'above' is for floats"),
        ({"at": 1}, ("complex64", (None, 2)), "found dtype complex64"),
        ({"top_k": 1}, ("float8_e5m2", (None, 2)), "found dtype float8_e5m2"),
        ({"argmax": True}, ("float32", ()), "found a scalar; expected one row for each row of the input"),
        ({"argmax": True}, ("float32", None), "found unknown rank beside 'argmax'; expected a known number of dimens"),
    ],
    ids=str,
)
def test_what_schema_and_signature_tell_is_refused_before_a_call(rule: Any, spec: Any, text: str) -> None:
    line = refused(rule, *spec)
    assert "output 'y'" in line
    assert " as 'c': " in line
    assert text in line


@pytest.mark.parametrize("encoding", ["ragged", "sparse"])
def test_rows_of_several_shapes_are_not_shaped(encoding: str) -> None:
    line = refused({"argmax": True}, "float32", (None, None), encoding=encoding)
    assert f"found a {encoding} output; 'argmax' is for tensors whose rows are of one shape" in line


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(BindingError) as caught:
        bound({"a": {"top_k": 9}, "b": {"at": 9}, "c": {"argmax": True, "labels": ["x"]}, "d": {"cast": "int8"}})
    assert "4 problems" in caught.value.message


def test_what_is_computed_is_asked_for_once_and_stands_in_the_signature() -> None:
    rules = {"a": {"top_k": 2}, "b": {"top_k": 2, "labels": LABELS}, "c": {"at": 1, "above": 0.5}}
    binding = bound(rules)
    assert binding.fetches == (
        *("y[the 2 largest].index", "y[the 2 largest].value", "y[the 2 largest].nan"),
        *("y[at 1, above 0.5].value", "y[at 1, above 0.5].nan"),
    )
    assert binding.fetches == tuple(shaped_of(binding.outputs))
    assert outputs_of(binding.outputs) == ["y"]
    plain = Signature("s", "", {}, {"y": TensorSpec("y", "float32", (None, 4), "y:0")}, shaped_of(binding.outputs))
    called = dense(plain).outputs
    assert [str(called[name]) for name in binding.fetches] == [
        *("int32[?, 2]", "float32[?, 2]", "bool[?]", "bool[?]", "bool[?]"),
    ]


def test_the_size_of_a_batch_follows_what_is_ranked_and_not_what_is_left_of_it() -> None:
    """Or the tensors of a call would be many times as large as where all of them is written."""
    rules = {"a": {"argmax": True}, "b": {"top_k": 2}}
    wide = (None, 1000)
    assert bound(rules, shape=wide).output_bytes_per_row == 4000 + 4 + 2 * (4 + 4)
    assert bound(rules | {"c": {}}, shape=wide).output_bytes_per_row == 4000 + 4 + 2 * (4 + 4)


def test_a_plan_keeps_how_outputs_are_shaped() -> None:
    rules = {"a": {"top_k": 2, "labels": LABELS}, "b": {"argmax": True}, "c": {"at": 1, "cast": "float16", "round": 4}}
    documents = bound(rules).identity()["outputs"]
    common = {"dtype": "float32", "row": [4], "decoded": False, "of": "y"}
    assert documents["y -> a"].pop("labels") == labels_digest(LABELS)
    assert documents == {
        "y -> a": common | {"column": "a", "top_k": 2},
        "y -> b": common | {"column": "b", "argmax": True},
        "y -> c": common | {"column": "c", "at": [1], "round": 4, "cast": "float16"},
    }
    assert [row["note"] for row in bound(rules).describe() if row["role"] == "output"] == [
        *("the 2 largest of 4 labels", "the place of the largest", "at 1, rounded to 4 digits, as float16"),
    ]
    other = bound({"a": {"top_k": 2, "labels": [*LABELS[:3], "e"]}}).identity()["outputs"]
    assert other != bound({"a": {"top_k": 2, "labels": LABELS}}).identity()["outputs"]


RULES = {"label": {"argmax": True, "labels": LABELS}, "top": {"top_k": 2}, "flag": {"at": 0, "above": 0}}


def computed(binding: Binding, places: Any, values: Any, nan: Any = (False, False, False)) -> Outputs:
    flags = np.array(nan)
    return {
        part(binding, "label", "index"): np.array(places, I32)[:, :1],
        part(binding, "label", "nan"): flags,
        part(binding, "top", "index"): np.array(places, I32),
        part(binding, "top", "value"): np.array(values, F32),
        part(binding, "top", "nan"): flags,
        part(binding, "flag", "value"): np.array([True, False, True]),
        part(binding, "flag", "nan"): flags,
    }


PLACES, VALUES = [[0, 1], [3, 2], [2, 0]], [[9, 8], [7, 6], [np.inf, 4]]


def test_rows_are_written_and_those_with_a_nan_are_known() -> None:
    binding = bound(RULES)
    outputs = computed(binding, PLACES, VALUES, [False, True, False])
    rows = binding.fetch(BATCH, outputs)
    rows.validate(full=True)
    assert rows.column("label").to_pylist() == ["a", "d", "c"]
    assert rows.column("top").to_pylist()[1] == [{"index": 3, "value": 7}, {"index": 2, "value": 6}]
    assert rows.column("flag").to_pylist() == [True, False, True]
    nan = binding.nan_rows(outputs, rows)
    assert nan is not None
    assert nan.tolist() == [False, True, False]
    marks = binding.marks(BATCH, {"x": np.zeros(3, F32)}, outputs, rows)
    assert marks is not None
    assert marks.tolist() == [0, NAN_ANSWER, 0]
    assert binding.nan_rows(computed(binding, PLACES, VALUES), rows) is None


def test_a_place_beyond_the_labels_ends_the_job() -> None:
    """Where the signature leaves the width open, only a call shows it."""
    binding = bound(RULES, "float32", (None, None))
    with pytest.raises(DataError, match="place 4 is among its largest, and there are 4 labels") as caught:
        binding.fetch(BATCH, computed(binding, [[0, 1], [4, 2], [2, 0]], VALUES))
    assert caught.value.facts["code"] == "MODEL_OUTPUT"


def test_rows_that_do_not_follow_the_input_are_no_answer() -> None:
    binding = bound(RULES)
    outputs = {name: np.asarray(tensor)[:2] for name, tensor in computed(binding, PLACES, VALUES).items()}
    with pytest.raises(DataError, match="it has 2 rows for 3 rows fed") as caught:
        binding.fetch(BATCH, outputs)
    assert caught.value.facts["code"] == "MODEL_BATCH"


def test_answers_are_as_near_as_what_was_ranked() -> None:
    """Of nearly equal values another one may be second; another first one, or a far value, is another answer."""
    binding = bound(RULES)

    def rows(places: Any, values: Any, nan: Any = (False, False, False)) -> Any:
        return answers(binding, computed(binding, places, values, nan), range(3), BATCH)

    own = rows(PLACES, VALUES)
    near = rows([[0, 2], [3, 2], [2, 0]], [[9.01, 8], [7, 6], [np.inf, 4]])
    far = rows(PLACES, [[9, 2], [7, 6], [np.inf, 4]])
    first = rows([[1, 0], [3, 2], [2, 0]], VALUES)
    odd = rows(PLACES, VALUES, (True, False, False))
    top, label = own["y -> top"][0], own["y -> label"][0]
    assert top.agrees(near["y -> top"][0], 0.02)
    assert not top.agrees(far["y -> top"][0], 0.02)
    assert not top.agrees(first["y -> top"][0], 0.02)
    assert not label.agrees(first["y -> label"][0], 0.02)
    assert label.agrees(near["y -> label"][0], 0.02)
    assert label.finite
    assert not odd["y -> label"][0].finite
    assert not odd["y -> flag"][0].finite
