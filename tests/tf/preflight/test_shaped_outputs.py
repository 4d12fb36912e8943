"""A whole job that shapes its outputs: what `plan` says of it, what its parts hold, and which of its rows are bad."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from connectors.output.verification import verify
from jobs.errors import BindingError, OutputError
from jobs.job import Job
from runner.cli.view.plan import render_plan
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight

# By TensorFlow in a process of its own. Its rank is open, and so a call shows it.
_MODEL = """
import sys, tensorflow as tf

class Classes(tf.Module):
    def __init__(self, path):
        self.names = tf.saved_model.Asset(path)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def classes(self, x):
        return {"logits": x * 2, "open": tf.reshape(x, tf.boolean_mask(tf.shape(x), tf.shape(x) > -1))}

module = Classes(sys.argv[2])
tf.saved_model.save(module, sys.argv[1], signatures={"serving_default": module.classes})
"""
ROWS = 24
X = np.random.default_rng(5).permuted(np.tile(np.arange(4, dtype=np.float32), (ROWS, 1)), axis=1)
X[5, 2] = np.nan
X[9, 1] = 40000.0  # of which twice as much is no float16
MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x [?, 4] -> logits [?, 4], open [...]; with assets/names.txt."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "names.txt").write_bytes("\ufeffant\r\nbee\r\ncat\r\ndog\r\n\r\n".encode())
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    arguments = [sys.executable, "-c", _MODEL, str(folder / "classes"), str(folder / "names.txt")]
    subprocess.run(arguments, check=True, env=quiet, stderr=subprocess.DEVNULL)
    return folder / "classes"


@pytest.fixture
def make(classes: Path, tmp_path: Path) -> MakeJob:
    """make(outputs, output={...}, limits={...}): scores X, with `id`."""
    (tmp_path / "in").mkdir()
    table = {"x": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 4), "id": range(ROWS)}
    pq.write_table(pa.table(table), tmp_path / "in" / "a.parquet", row_group_size=10)

    def job(outputs: Any, output: Any = None, **sections: Any) -> Job:
        return Job.model_validate(
            {
                "model": {"url": str(classes)},
                "input": {"url": str(tmp_path / "in")},
                "columns": {"outputs": outputs, "keep": "id"},
                "output": {"url": str(tmp_path / "out")} | (output or {}),
            }
            | sections
        )

    return job


NAMES = ["ant", "bee", "cat", "dog"]
OUTPUTS = {
    "label": {"of": "logits", "argmax": True, "labels": "assets/names.txt"},
    "top": {"of": "logits", "top_k": 2, "labels": "assets/names.txt"},
    "score": {"of": "logits", "at": 1, "cast": "float16", "round": 1},
    "flag": {"of": "open", "at": 1, "above": 1},
}


@pytest.mark.parametrize("engine", ["session", "eager"])
def test_a_job_writes_what_it_asked_for_and_no_more(make: MakeJob, classes: Path, tmp_path: Path, engine: str) -> None:
    limits = {"on_bad_row": "reject", "max_rejected_rows": 2, "nan_output": "reject", "nonfinite": "pass"}
    job = make(OUTPUTS, model={"url": str(classes), "engine": engine}, limits=limits)
    result = launch(job, RunOptions(in_process=True))
    assert verify(job.output).holds
    table = pa.concat_tables(map(pq.read_table, result.parts))
    good = [row for row in range(ROWS) if row not in (5, 9)]
    assert table["id"].to_pylist() == good
    best = np.argsort(-X[good], axis=1)
    assert table["label"].to_pylist() == [NAMES[row[0]] for row in best]
    assert table["top"].to_pylist() == [
        [{"index": at, "value": 2 * float(values[at]), "label": NAMES[at]} for at in row[:2].tolist()]
        for row, values in zip(best, X[good], strict=True)
    ]
    assert table["score"].to_pylist() == (2 * X[good, 1]).tolist()
    assert table["flag"].to_pylist() == (X[good, 1] > 1).tolist()
    assert table.schema.field("score").type == pa.float16()
    rejected = result.rejects().to_pylist()
    assert [(row["row"], row["code"]) for row in rejected] == [(5, "MODEL_NAN"), (9, "ROW_OVERFLOW")]
    assert "'logits' to column 'score': found a number that float16 cannot hold" in rejected[1]["message"]


def test_a_plan_says_what_is_computed(make: MakeJob, tmp_path: Path) -> None:
    (tmp_path / "twice.txt").write_text("a\nb\na\nd\n")
    outputs = OUTPUTS | {"other": {"of": "logits", "argmax": True, "labels": str(tmp_path / "twice.txt")}}
    ready = preflight(make(outputs))
    with (console := Console(width=200)).capture() as shown:
        console.print(render_plan(ready))
    text = " ".join(shown.get().split())
    assert "the 2 largest of 4 labels" in text
    assert "at 1, rounded to 1 digits, as float16" in text
    assert "labels of column 'other': 1 label 'a' of several places each; `argmax` without labels tells which" in text
    (tmp_path / "twice.txt").write_text("a\nb\nc\nd\n")
    assert preflight(make(outputs)).plan.id != ready.plan.id
    (tmp_path / "twice.txt").write_bytes(b"a\r\nb\r\na\r\nd")
    assert preflight(make(outputs)).plan.id == ready.plan.id


def test_what_does_not_fit_is_told_at_once_and_nothing_is_written(make: MakeJob, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a\nb\n")
    outputs = {
        "label": {"of": "logits", "argmax": True, "labels": str(tmp_path / "short.txt")},
        "gone": {"of": "logits", "argmax": True, "labels": "assets/nowhere.txt"},
        "top": {"of": "logits", "top_k": 9},
        "nothing": {"of": "logitz", "at": 1},
    }
    with pytest.raises(BindingError) as caught:
        launch(make(outputs), RunOptions(in_process=True))
    assert caught.value.exit_code == 2
    lines = caught.value.message
    assert "4 problems" in lines
    assert f"found 2 lines in '{tmp_path}/short.txt' for 4 values; expected 4 lines, one for each" in lines
    assert "cannot read 'assets/nowhere.txt': neither the model nor this machine has it" in lines
    assert "found 'top_k: 9' of 4 values" in lines
    assert "output 'logitz': the signature has no such output; it has 'logits'" in lines
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match=r"column 'top' \(fixed_size_list<struct<index: int32.*or leave it out"):
        preflight(make({"top": {"of": "logits", "top_k": 2}}, {"format": "tfrecord"}))
