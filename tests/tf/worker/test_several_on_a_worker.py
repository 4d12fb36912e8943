"""Several models in one read, with real SavedModels: answers, sizes of a call, and a row that one of them refuses."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import DataError, OutputError, PoisonError
from jobs.job import Job
from runner.cli.view.plan import plan_document
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight

ROWS = 103


@pytest.fixture(scope="module")
def models(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain`: signatures that sum rows, and twice that; `four`: takes 4 rows a call, and refuses an id above 1,000."""
    tf, root = tensorflow, tmp_path_factory.mktemp("several")
    x = tf.TensorSpec([None, 2], tf.float32, name="x")

    class Plain(tf.Module):
        @tf.function(input_signature=[x])
        def once(self, x: Any) -> Any:
            return {"score": tf.reduce_sum(x, 1)}

        @tf.function(input_signature=[x])
        def twice(self, x: Any) -> Any:
            return {"score": 2 * tf.reduce_sum(x, 1)}

    class Four(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([4, 2], tf.float32, name="x"), tf.TensorSpec([4], tf.int64, name="id")]
        )
        def serve(self, x: Any, id: Any) -> Any:
            with tf.control_dependencies(
                [tf.debugging.assert_less(id, tf.constant(1000, tf.int64), message="too big")]
            ):
                return {"score": tf.reduce_max(x, 1), "label": tf.strings.as_string(id)}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, four = Plain(), Four()
        signatures = {"serving_default": plain.once, "twice": plain.twice}
        tf.saved_model.save(plain, str(root / "plain"), signatures=signatures)
        tf.saved_model.save(four, str(root / "four"), signatures={"serving_default": four.serve})
    return root


@pytest.fixture
def score(models: Path, tmp_path: Path) -> Callable[..., Any]:
    """score(odd=None, nan=(), first=0, **sections): the table that a job of two models writes.

    odd: a row whose id is 5,000. nan: rows whose x holds one. first: the id of the first row.
    """

    def make(odd: int | None = None, nan: Sequence[int] = (), first: int = 0, **sections: Any) -> pa.Table:
        x = np.arange(2 * ROWS, dtype=np.float32)
        x[[2 * row for row in nan]] = np.nan
        lists = pa.FixedSizeListArray.from_arrays(x, 2)
        ids = [5000 if row == odd else first + row for row in range(ROWS)]
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(pa.table({"x": lists, "id": ids}), tmp_path / "in" / "a.parquet", row_group_size=40)
        launch(_job(models, tmp_path, **sections), RunOptions(in_process=True))
        (part,) = (tmp_path / "out").glob("part-*")
        return pq.read_table(part)

    return make


def _job(folder: Path, tmp_path: Path, **sections: Any) -> Job:
    named = {"best": {"url": str(folder / "plain")}, "other": {"url": str(folder / "four")}}
    job = {"models": named, "input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "columns": {"keep": "id"}}
    merged = job | sections
    return Job.model_validate({key: value for key, value in merged.items() if value is not None})


SUMS = [float(4 * row + 1) for row in range(ROWS)]


def test_two_models_answer_for_the_same_rows_each_with_its_own_size_of_a_call(
    score: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    table = score()
    assert table.column_names == ["id", "best.score", "other.label", "other.score"]
    assert table["best.score"].to_pylist() == SUMS
    assert table["other.score"].to_pylist() == [float(2 * row + 1) for row in range(ROWS)]
    assert table["other.label"].to_pylist() == [str(row) for row in range(ROWS)]
    ready = preflight(_job(models, tmp_path))
    assert [member.batch_rows for member in ready.members] == [None, 4]
    digests = {member.name: member.model.digest for member in ready.members}
    assert {name: one["digest"] for name, one in plan_document(ready)["models"].items()} == digests
    manifest = json.loads(next((tmp_path / "out").glob("_run/*/manifest-*.json")).read_text())
    assert manifest["plan_id"] == ready.plan.id


def test_a_row_that_one_model_refuses_is_rejected_for_all_and_says_which(
    score: Callable[..., Any], tmp_path: Path
) -> None:
    table = score(odd=50, limits={"on_bad_row": "reject", "max_rejected_rows": 1})
    assert table["id"].to_pylist() == [row for row in range(ROWS) if row != 50]
    assert table["best.score"].to_pylist() == [each for row, each in enumerate(SUMS) if row != 50]
    (file,) = (tmp_path / "out").glob("_run/*/rejects/*.rejects")
    (rejected,) = pq.read_table(file).to_pylist()
    assert "model 'other': cannot call signature 'serving_default'" in json.dumps(rejected, default=str)
    assert "too big" in json.dumps(rejected, default=str)


def test_of_several_models_the_one_that_refuses_every_row_is_accused(
    score: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    with pytest.raises(PoisonError, match=r"it refuses every row that was tried, .*: model 'other'") as ended:
        score(first=2000, limits={"on_bad_row": "reject", "max_rejected_rows": "100%"})
    assert f"of model '{models / 'four'}' (other)" in ended.value.message  # and not of the other one
    assert str(models / "plain") not in ended.value.message
    assert (ended.value.facts["code"], ended.value.facts["model"]) == ("MODEL_FAULT", "other")
    assert list((tmp_path / "out").rglob("*reject*")) == []


def test_where_no_row_may_be_bad_the_error_names_file_row_and_model(score: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"model 'other': cannot call.*too big.*a\.parquet. row group 1 row 10"):
        score(odd=50)


def test_a_row_with_a_nan_says_whose_answer_holds_it(score: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    plain = {"url": str(models / "plain")}
    named = {"sum": plain, "words": {"url": str(models / "four"), "inputs": {"x": {"constant": [[1.0, 2.0]] * 4}}}}
    limits = {"nan_output": "reject", "nonfinite": "pass", "on_bad_row": "reject", "max_rejected_rows": 2}
    table = score(nan=[7, 9], models=named, limits=limits)
    assert table.num_rows == ROWS - 2
    (file,) = (tmp_path / "out").glob("_run/*/rejects/*.rejects")
    rejected = pq.read_table(file).to_pylist()
    assert len(rejected) == 2
    assert all("model 'sum' answered NaN" in json.dumps(row, default=str) for row in rejected)


def test_two_signatures_of_one_model_and_other_engines_beside_it(
    score: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    plain = str(models / "plain")
    table = score(models=None, model={"url": plain, "signatures": ["serving_default", "twice"]})
    assert table["serving_default.score"].to_pylist() == SUMS
    assert table["twice.score"].to_pylist() == [2 * each for each in SUMS]
    mixed = {
        "compiled": {"url": plain, "xla": True},
        "eager": {"url": plain, "engine": "eager", "signature": "twice"},
        "fixed": {"url": plain, "batch": 10, "signature": "twice"},
    }
    (tmp_path / "out").rename(tmp_path / "before")
    table = score(models=mixed, columns={"outputs": {"c": {"of": "compiled.score"}, "...": True}})
    assert table["c"].to_pylist() == SUMS
    assert table["eager.score"].to_pylist() == table["fixed.score"].to_pylist() == [2 * each for each in SUMS]


def test_another_challenger_is_another_plan_and_the_refusal_names_it(
    score: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    score()
    shutil.copytree(models / "four", tmp_path / "five")
    (tmp_path / "five" / "assets").mkdir(exist_ok=True)
    (tmp_path / "five" / "assets" / "note.txt").write_text("another one")
    others = {"best": {"url": str(models / "plain")}, "other": {"url": str(tmp_path / "five")}}
    with pytest.raises(OutputError, match=r"models\.other\.digest"):
        score(models=others)
