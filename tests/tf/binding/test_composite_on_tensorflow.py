"""Ragged and sparse tensors of real models: TF2's flattened signatures and TF1's own encodings, with both engines."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import BindingError
from jobs.job import Job
from runner.driver.launch import RunOptions, launch

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def flattened(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signatures of tf.functions: what Keras and tf.saved_model.save write."""
    tf = tensorflow

    class Lists(tf.Module):
        @tf.function(
            input_signature=[
                tf.RaggedTensorSpec([None, None], tf.int32),
                tf.TensorSpec([None], tf.float32, name="x"),
            ]
        )
        def ragged(self, r: Any, x: Any) -> Any:
            return {"n": tf.cast(r.row_lengths(), tf.float32) + x, "twice": r * 2}

        @tf.function(input_signature=[tf.RaggedTensorSpec([None, None, None], tf.string)])
        def nested(self, words: Any) -> Any:
            return {"n": words.row_lengths(), "marked": words + "!"}

        @tf.function(input_signature=[tf.RaggedTensorSpec([None, None, 2], tf.float32, ragged_rank=1)])
        def points(self, p: Any) -> Any:
            return {"sum": tf.reduce_sum(p, axis=1), "same": tf.identity(p)}

        @tf.function(input_signature=[tf.SparseTensorSpec([None, 5], tf.int64)])
        def sparse(self, q: Any) -> Any:
            return {"dense": tf.sparse.to_dense(q), "twice": tf.sparse.map_values(lambda v: 2 * v, q)}

        @tf.function(
            input_signature=[
                tf.RaggedTensorSpec([None, None], tf.float32, row_splits_dtype=tf.int32),
                tf.TensorSpec([4], tf.float32, name="x"),
            ]
        )
        def four(self, r: Any, x: Any) -> Any:
            return {"y": tf.reduce_sum(r, axis=1) + x}

    path = tmp_path_factory.mktemp("composite") / "flattened"
    module = Lists()
    names = ("ragged", "nested", "points", "sparse", "four")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(path), signatures={name: getattr(module, name) for name in names})
    return path


@pytest.fixture(scope="module")
def encoded(write_tf1: Callable[..., Path]) -> Path:
    """A TF1 signature that says of its tensors what they are: coo_sparse and composite_tensor."""

    def graph(v1: Any) -> Any:
        q = v1.sparse_placeholder(v1.float32, [None, 5], name="q")
        r = v1.ragged.placeholder(v1.int32, 1, (), name="r")
        outputs = {"sum": v1.sparse.reduce_sum(q, axis=1), "n": r.row_lengths(), "twice": r * 2}
        return {"q": q, "r": r}, outputs | {"large": v1.sparse.retain(q, q.values > 1)}

    return write_tf1("encoded", graph)


@pytest.fixture(params=["session", "eager"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """run(model, signature, table, **columns): the rows that a job writes."""

    def rows(model: Path, signature: str | None, table: pa.Table, **columns: Any) -> list[dict[str, Any]]:
        pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
        job = {
            "model": {"url": str(model), "signature": signature, "engine": request.param},
            "input": {"url": str(tmp_path / "in.parquet")},
            "columns": columns,
            "output": {"url": str(tmp_path / "out")},
            "limits": {"batch_rows": 2} if signature != "four" else {},
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow's loader warns of itself
            result = launch(Job.model_validate(job), RunOptions(in_process=True))
        found: list[dict[str, Any]] = pa.concat_tables(pq.read_table(part) for part in result.parts).to_pylist()
        return found

    return rows


TAGS = [[1, 2], [], [3], [4, 5, 6], []]


def test_a_list_column_feeds_a_ragged_input_and_comes_out_of_a_ragged_output(run: Run, flattened: Path) -> None:
    table = pa.table({"tags": pa.array(TAGS, pa.list_(pa.int64())), "x": pa.array([0.5] * 5, pa.float32())})
    found = run(flattened, "ragged", table, inputs={"r": {"column": "tags", "as": "ragged"}})
    assert found == [{"n": len(row) + 0.5, "twice": [2 * tag for tag in row]} for row in TAGS]


def test_nested_lists_of_strings(run: Run, flattened: Path) -> None:
    words = [[["a", "b"], []], [], [["c"]]]
    found = run(flattened, "nested", pa.table({"words": words}))
    assert [row["n"] for row in found] == [2, 0, 1]
    assert [row["marked"] for row in found] == [[["a!", "b!"], []], [], [["c!"]]]


def test_ragged_lists_of_points(run: Run, flattened: Path) -> None:
    points = [[[1.0, 2.0], [3.0, 4.0]], [], [[5.0, 6.0]]]
    table = pa.table({"p": pa.array(points, pa.list_(pa.list_(pa.float32(), 2)))})
    found = run(flattened, "points", table)
    assert [row["same"] for row in found] == points
    assert [row["sum"] for row in found] == [[4, 6], [0, 0], [5, 6]]


def test_a_list_column_feeds_a_sparse_input(run: Run, flattened: Path) -> None:
    table = pa.table({"q": pa.array(TAGS, pa.list_(pa.int64()))})
    found = run(flattened, "sparse", table, inputs={"q": {"column": "q", "shape": [5]}})
    assert [row["dense"] for row in found] == [row + [0] * (5 - len(row)) for row in TAGS]
    assert [row["twice"] for row in found] == [
        [{"index": index, "value": 2 * value} for index, value in enumerate(row)] for row in TAGS
    ]


def test_a_fixed_batch_beside_a_ragged_input_is_filled_up_and_cut(run: Run, flattened: Path) -> None:
    lists = pa.array(TAGS, pa.list_(pa.float32()))
    table = pa.table({"r": lists, "x": pa.array([1, 2, 3, 4, 5], pa.float32())})
    assert [row["y"] for row in run(flattened, "four", table)] == [4, 2, 6, 19, 5]


def test_tensors_that_tf1_encodes_are_fed_and_fetched(run: Run, encoded: Path) -> None:
    table = pa.table({"q": pa.array(TAGS, pa.list_(pa.float32())), "r": pa.array(TAGS, pa.list_(pa.int32()))})
    found = run(
        encoded,
        None,
        table,
        outputs={"sum": {"column": "sum", "shape": []}, "n": "n", "twice": "twice", "large": "large"},
    )
    assert [row["sum"] for row in found] == [3, 0, 3, 15, 0]
    assert [row["n"] for row in found] == [2, 0, 1, 3, 0]
    assert [row["twice"] for row in found] == [[2 * value for value in row] for row in TAGS]
    assert [row["large"] for row in found][:3] == [[{"index": 1, "value": 2.0}], [], [{"index": 0, "value": 3.0}]]


def test_what_is_no_list_is_refused_before_a_worker_starts(flattened: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"r": [1], "x": [1.0]}), tmp_path / "in.parquet")
    job = {
        "model": {"url": str(flattened), "signature": "ragged"},
        "input": {"url": str(tmp_path / "in.parquet")},
        "columns": {"inputs": {"r": {"column": "r", "as": "ragged"}}},
        "output": {"url": str(tmp_path / "out")},
    }
    with pytest.raises(BindingError, match=r"found int64; expected lists, 1 level of them for ragged int32\[\?, \?\]"):
        launch(Job.model_validate(job), RunOptions(in_process=True))
