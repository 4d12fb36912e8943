"""Lists of any length through a model that wants one width: same answers, same order, little padding."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.job import Job
from runner.driver.launch import RunOptions, launch


@pytest.fixture(scope="module")
def sequences(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sum of the ids, and for each id (0 is no id) twice of it."""
    tf = tensorflow

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="ids")])
        def score(self, ids: Any) -> Any:
            return {"sum": tf.reduce_sum(ids, axis=1), "twice": 2 * ids}

    path = tmp_path_factory.mktemp("sequences") / "model"
    module = Model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(path), signatures=module.score)
    return path


@pytest.mark.parametrize("pad", ["max", {"multiple_of": 4}, {"buckets": [16, 64, 200]}], ids=str)
def test_rows_keep_their_order_and_padding_stays_small(sequences: Path, tmp_path: Path, pad: Any) -> None:
    draw = np.random.default_rng(1)
    lengths = np.clip(draw.lognormal(3, 0.8, 6000).astype(int), 0, 200)
    rows = [draw.integers(1, 99, length).tolist() for length in lengths]
    table = pa.table({"id": range(6000), "tokens": pa.array(rows, pa.list_(pa.int64()))})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2500)
    job = {
        "model": {"url": str(sequences)},
        "input": {"url": str(tmp_path / "in.parquet")},
        "columns": {
            "inputs": {"ids": {"column": "tokens", "pad": pad}},
            "outputs": {"sum": "sum", "twice": {"cut": "ids"}},
            "keep": ["id"],
        },
        "output": {"url": str(tmp_path / "out")},
        "limits": {"batch_rows": 500},
    }
    result = launch(Job.model_validate(job), RunOptions(in_process=True))
    found = pa.concat_tables(pq.read_table(part) for part in result.parts)
    assert found["id"].to_pylist() == list(range(6000))
    assert found["sum"].to_pylist() == [sum(row) for row in rows]
    assert found["twice"].to_pylist() == [[2 * value for value in row] for row in rows]
    padding = result.report["padding"]
    assert 0 < padding < 1
    if pad == "max":
        assert padding < 0.1


def test_a_bad_row_is_named_by_its_place_in_the_file(sequences: Path, tmp_path: Path) -> None:
    rows = [[1] * (1 + 7 * n % 50) for n in range(300)]
    rows[123] = [2**40]
    pq.write_table(pa.table({"ids": pa.array(rows, pa.list_(pa.int64()))}), tmp_path / "in.parquet", row_group_size=100)
    job = {
        "model": {"url": str(sequences)},
        "input": {"url": str(tmp_path / "in.parquet")},
        "columns": {"inputs": {"ids": {"column": "ids", "pad": "max"}}},
        "output": {"url": str(tmp_path / "out")},
    }
    with pytest.raises(Exception, match=r"row group 1 row 23\]"):
        launch(Job.model_validate(job), RunOptions(in_process=True))
