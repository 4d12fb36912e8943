"""Which outputs of a real model are written, and as what: what is left out is said, what is no text is a bad row."""

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
from pyarrow import csv
from rich.console import Console

from connectors.output.verification import verify
from jobs.errors import RunnerError
from jobs.job import Job
from runner.binding.fetching import TODAY, Rules
from runner.cli.view.plan import plan_document, render_plan
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight

MakeJob = Callable[..., Job]

# By TensorFlow in a process of its own. `raw` is no UTF-8 where x is 3, 10, 17, ...
_MODEL = """
import sys, tensorflow as tf

class Heads(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def heads(self, x):
        number = tf.strings.as_string(tf.cast(x, tf.int32))
        raw = tf.where(x % 7 == 3, tf.strings.join([tf.constant(b"\\xff"), number]), number)
        one = tf.reshape(x / 2, [-1, 1])
        return {"score": one, "sure": one > 1, "deep": one[:, :, None], "label": tf.strings.join(["row ", number]),
                "raw": raw}

heads = Heads()
tf.saved_model.save(heads, sys.argv[1], signatures={"serving_default": heads.heads})
"""
FIRST = Rules(text=False, single=False)
BAD = [3, 10, 17]
ROWS = 20


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x -> score [?, 1], sure [?, 1], deep [?, 1, 1], label [?], raw [?]."""
    folder = tmp_path_factory.mktemp("models") / "heads"
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", _MODEL, str(folder)], check=True, env=quiet, stderr=subprocess.DEVNULL)
    return folder


@pytest.fixture
def make(heads: Path, tmp_path: Path) -> MakeJob:
    """make(outputs, output={...}, limits={...}): scores x = 0 to 19; keeps `blob`, bytes that are no UTF-8."""
    x = np.arange(ROWS, dtype=np.float32)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"x": x, "blob": [b"\xff"] * ROWS}), tmp_path / "in" / "a.parquet")

    def job(outputs: Any, output: Any = None, **sections: Any) -> Job:
        return Job.model_validate(
            {
                "model": {"url": str(heads)},
                "input": {"url": str(tmp_path / "in")},
                "columns": {"outputs": outputs, "keep": ["blob"]},
                "output": {"url": str(tmp_path / "out")} | (output or {}),
            }
            | sections
        )

    return job


@pytest.fixture
def delicate(half_plus_two: Path, tmp_path: Path) -> MakeJob:
    """delicate(outputs): a job of the signature with the outputs p and s; `outputs` may be left out."""
    values = pa.array(np.arange(37 * 4, dtype=np.float32) / 1000)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"f": pa.FixedSizeListArray.from_arrays(values, 37)}), tmp_path / "in" / "a.parquet")

    def make(outputs: Any = None, **inputs: Any) -> Job:
        return Job.model_validate(
            {
                "model": {"url": str(half_plus_two), "signature": "delicate"},
                "input": {"url": str(tmp_path / "in")},
                "columns": {"outputs": outputs, "inputs": inputs},
                "output": {"url": str(tmp_path / "out")},
            }
        )

    return make


@pytest.mark.parametrize(
    ("outputs", "missing"),
    [
        (None, []),
        (["s"], ["p"]),
        ({"s": "score"}, ["p"]),
        ({"score": {"of": "s"}}, ["p"]),
        ({"s": "score", "...": True}, []),
        (["s", "..."], []),
    ],
    ids=str,
)
def test_a_plan_names_the_outputs_that_are_not_written(delicate: MakeJob, outputs: Any, missing: list[str]) -> None:
    ready = preflight(delicate(outputs))
    assert plan_document(ready)["not_written"] == missing
    with (console := Console(width=100)).capture() as shown:
        console.print(render_plan(ready))
    lines = [line.split() for line in shown.get().splitlines() if line.startswith("not written")]
    assert lines == [["not", "written", *missing]] * bool(missing)


def test_options_of_one_output_leave_the_others_where_three_dots_stand(delicate: MakeJob) -> None:
    job = delicate({"s": "score", "...": True}, **{"f": "f", "...": True})
    result = launch(job, RunOptions(in_process=True))
    assert pq.read_schema(result.parts[0]).names == ["score", "p"]


def test_scores_of_one_value_a_row_are_numbers_that_every_reader_takes(make: MakeJob, tmp_path: Path) -> None:
    outputs = ["score", "sure", "deep", "label"]
    (part,) = launch(make(outputs), RunOptions(in_process=True)).parts
    table = pq.read_table(part).drop_columns("blob")
    assert table.schema.types == [pa.float32(), pa.bool_(), pa.float32(), pa.string()]
    csv.write_csv(table, tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[:3:2] == [
        '"score","sure","deep","label"',
        '0.5,false,0.5,"row 1"',
    ]
    frame = table.to_pandas()
    assert frame["score"].mean() == np.arange(ROWS).mean() / 2
    assert frame[frame["score"] > 9]["label"].tolist() == ["row 19"]


def test_polars_filters_casts_and_writes_scores(make: MakeJob, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    (part,) = launch(make(["score", "label"]), RunOptions(in_process=True)).parts
    frame = polars.read_parquet(part).drop("blob")
    found = frame.filter(polars.col("score") > 9).cast({"score": polars.Float64})
    assert found.rows() == [(9.5, "row 19")]
    found.write_csv(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text() == "score,label\n9.5,row 19\n"


def test_a_value_that_is_no_text_ends_the_job_and_says_how_to_write_bytes(make: MakeJob) -> None:
    with pytest.raises(RunnerError) as ended:
        launch(make(["raw", "score"]), RunOptions(in_process=True))
    assert ended.value.exit_code == 65
    for words in ("ROW_UTF8", "output 'raw' to column 'raw'", "row group 0 row 3", "`output: {strings: binary}`"):
        assert words in ended.value.message


def test_values_that_are_no_text_are_bad_rows_and_kept_bytes_are_not(make: MakeJob) -> None:
    limits = {"on_bad_row": "reject", "max_rejected_rows": 3, "batch_rows": 8}
    result = launch(make(["raw", "score"], limits=limits), RunOptions(in_process=True))
    assert result.codes == {"ROW_UTF8": 3}
    assert result.rejects()["row"].to_pylist() == BAD
    table = result.dataset().to_table()
    assert table["raw"].to_pylist() == [str(row) for row in range(ROWS) if row not in BAD]
    assert table["score"].to_pylist() == [row / 2 for row in range(ROWS) if row not in BAD]
    assert set(table["blob"].to_pylist()) == {b"\xff"}
    assert verify(make(None).output, deep=True).holds


@pytest.mark.parametrize("output", [{"strings": "binary"}, {"format": "tfrecord"}], ids=str)
def test_bytes_are_written_on_request_and_in_tf_examples(make: MakeJob, output: Any) -> None:
    job = make({"raw": True, "label": {"decode": "utf-8"}}, output)
    ready = preflight(job)
    assert ready.binding.output_schema.field("raw").type == pa.binary()
    assert ready.binding.output_schema.field("label").type == pa.string(), "an output may still be text by itself"
    assert launch(job, RunOptions(in_process=True), warn=list[str]().append).rows == ROWS


def test_what_an_older_version_finished_is_done_and_overwriting_takes_the_new_rules(
    make: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make(["label", "score"])
    with monkeypatch.context() as older:
        older.setattr("runner.preflight.preflight.rules_of", lambda output: FIRST)
        before = launch(job, RunOptions(in_process=True))
    types = [pq.read_schema(part).field("score").type for part in before.parts]
    assert types == [pa.fixed_shape_tensor(pa.float32(), (1,))]

    ready = preflight(job)
    assert (ready.rules, ready.plan.id) == (FIRST, before.plan_id)
    assert ready.warnings[0] == (
        "an older version began this output, and it goes on by the rules of that version:"
        " 'label' is binary (string in a new output), 'score' is fixed_shape_tensor<float>[1] (float in a new output);"
        " --overwrite begins anew, by today's"
    )
    said = list[str]()
    again = launch(job, RunOptions(in_process=True), warn=said.append)
    assert (again.plan_id, again.rows_run, said) == (before.plan_id, 0, [])

    assert preflight(job, overwrite=True).rules == TODAY
    anew = launch(job, RunOptions(in_process=True, overwrite=True))
    assert (anew.plan_id, anew.rows_run) == (preflight(job).plan.id, ROWS) != (before.plan_id, ROWS)
    assert preflight(job).rules == TODAY, "the older plan is still in `_run/`, and holds nothing any more"
    assert [pq.read_schema(part).field("score").type for part in anew.parts] == [pa.float32()]


def test_what_the_job_says_itself_wins_over_the_rules_of_the_older_version(
    make: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr("runner.preflight.preflight.rules_of", lambda output: FIRST)
        launch(make(["label", "score"]), RunOptions(in_process=True))
    for job in (make(["label", "score"], {"strings": "text"}), make({"label": True, "score": {"shape": []}})):
        assert preflight(job).rules.single, "another job, which is refused as such"
    plain = {"label": True, "score": {"shape": [1]}}
    assert preflight(make(plain, {"strings": "binary"})).begun == "", "by name it is what was begun"
