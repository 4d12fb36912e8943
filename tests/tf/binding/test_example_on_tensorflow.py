"""Signatures over serialized tf.Examples: TensorFlow reads what the columns became; classify, regress and predict."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.tfrecord.example import encode
from jobs.errors import DataError
from jobs.job import Job
from runner.driver.launch import RunOptions, launch


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_tensorflow_parses_what_the_columns_were(tensorflow: Any, data: st.DataObject) -> None:
    tf = tensorflow
    rows = data.draw(st.integers(1, 5))

    def column(values: st.SearchStrategy[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)

    given_columns = {
        "f": column(st.floats(width=32, allow_nan=False), pa.float32()),
        "i": column(st.integers(-(2**63), 2**63 - 1), pa.int64()),
        "b": column(st.booleans(), pa.bool_()),
        "s": column(st.text(max_size=5), pa.string()),
        "fs": column(st.lists(st.floats(width=32, allow_nan=False), max_size=3), pa.list_(pa.float32())),
        "is": column(st.lists(st.integers(-9, 200), max_size=3), pa.list_(pa.int32())),
        "ss": column(st.lists(st.binary(max_size=3), max_size=3), pa.list_(pa.binary())),
    }
    serialized = tf.constant(encode([*given_columns.items()], rows).to_pylist(), tf.string)
    dtypes = {"f": tf.float32, "i": tf.int64, "b": tf.int64, "s": tf.string}
    dtypes |= {"fs": tf.float32, "is": tf.int64, "ss": tf.string}
    parsed = tf.io.parse_example(serialized, {name: tf.io.RaggedFeature(dtype) for name, dtype in dtypes.items()})
    for name, values in given_columns.items():
        assert parsed[name].to_list() == [_values(one) for one in values.to_pylist()]


def _values(value: Any) -> list[Any]:
    """As TensorFlow has them: a feature that is left out has none."""
    several = value if isinstance(value, list) else [] if value is None else [value]
    return [one.encode() if isinstance(one, str) else int(one) if isinstance(one, bool) else one for one in several]


@pytest.fixture(scope="module")
def scored(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Estimator-style signatures over Examples of a float 'x' (0 where it is left out) and a string 'name'."""
    v1: Any = tensorflow.compat.v1
    path = tmp_path_factory.mktemp("examples") / "model"
    with warnings.catch_warnings(), v1.Graph().as_default(), v1.Session() as session:
        warnings.simplefilter("ignore")
        serialized = v1.placeholder(v1.string, [None], "input_example_tensor")
        spec = {
            "x": v1.io.FixedLenFeature([], v1.float32, default_value=0.0),
            "name": v1.io.FixedLenFeature([], v1.string),
        }
        read = v1.io.parse_example(serialized, spec)
        scores = v1.stack([read["x"], 1 - read["x"]], axis=1)
        classes = v1.tile(v1.constant([["yes", "no"]]), [v1.shape(serialized)[0], 1])
        defs, info = v1.saved_model.signature_def_utils, v1.saved_model.build_tensor_info
        signatures = {
            "serving_default": defs.classification_signature_def(serialized, classes, scores),
            "regression": defs.regression_signature_def(serialized, read["x"]),
            "predict": defs.build_signature_def(
                {"examples": info(serialized)}, {"name": info(read["name"])}, "tensorflow/serving/predict"
            ),
        }
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return path


Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Run:
    def rows(table: pa.Table, signature: str, **columns: Any) -> list[dict[str, Any]]:
        pq.write_table(table, tmp_path / "in.parquet")
        job = {
            "model": {"url": str(scored), "signature": signature},
            "input": {"url": str(tmp_path / "in.parquet")},
            "columns": columns,
            "output": {"url": str(tmp_path / signature)},
        }
        result = launch(Job.model_validate(job), RunOptions(in_process=True))
        found: list[dict[str, Any]] = pa.concat_tables(pq.read_table(part) for part in result.parts).to_pylist()
        return found

    return rows


TABLE = pa.table({"x": pa.array([0.25, None, 1.0], pa.float32()), "who": ["a", "b", "c"]})
BUILT: dict[str, dict[str, Any]] = {"example": {"columns": {"x": "x", "name": "who"}}}


def test_classes_and_scores_are_list_columns(run: Run) -> None:
    found = run(TABLE, "serving_default", inputs={"inputs": BUILT}, outputs={"scores": "p", "classes": True})
    assert [row["classes"] for row in found] == [["yes", "no"]] * 3
    assert [row["p"] for row in found] == [[0.25, 0.75], [0.0, 1.0], [1.0, 0.0]]


def test_a_regression_is_one_column(run: Run) -> None:
    assert run(TABLE, "regression", inputs={"inputs": BUILT}) == [{"outputs": 0.25}, {"outputs": 0.0}, {"outputs": 1.0}]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
def test_ready_examples_pass_through(run: Run, kind: pa.DataType) -> None:
    made = encode([("name", TABLE["who"].combine_chunks())], 3)
    table = pa.table({"examples": made.cast(pa.binary()).cast(kind)})
    assert run(table, "predict") == [{"name": "a"}, {"name": "b"}, {"name": "c"}]


def test_an_empty_list_is_no_feature_where_the_parser_has_a_default(run: Run) -> None:
    table = pa.table({"x": pa.array([[0.25], [], None], pa.list_(pa.float32())), "who": ["a", "b", "c"]})
    assert run(table, "regression", inputs={"inputs": BUILT}) == [{"outputs": 0.25}, {"outputs": 0.0}, {"outputs": 0.0}]
    stated = {"example": {**BUILT["example"], "empty": "empty"}}
    with pytest.raises(DataError, match=r"MODEL_ROW: .* row group 0 row 1"):  # with a default too
        run(table, "serving_default", inputs={"inputs": stated})
