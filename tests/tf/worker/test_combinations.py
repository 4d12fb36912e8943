"""Models of JAX and of TensorFlow beside each other: padded, shaped, compiled, and at fault, all in one job."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import combined_models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import BindingError, PoisonError
from jobs.job import Job
from runner.driver.launch import RunOptions, launch
from runner.driver.result import Result
from runner.preflight.preflight import preflight

SIZES = (7, 30, 1, 11)  # rows of the row groups
ROWS = sum(SIZES)
REJECT = {"on_bad_row": "reject", "max_rejected_rows": ROWS}
Score = Callable[..., tuple[Result, pa.Table]]
MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("combined")
    done = subprocess.run([sys.executable, combined_models.__file__, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def job(models: Path, tmp_path: Path) -> MakeJob:
    """job(x, models={NAME: 'FOLDER:SIGNATURE' or a section}): rows of 'x'; their numbers as 'id', 'word', 'number'."""

    def section(said: Any) -> dict[str, Any]:
        if isinstance(said, str):
            url, _, signature = said.partition(":")
            said = {"url": url, "signature": signature}
        return {**said, "url": str(models / said["url"])}

    def make(x: Any, **sections: Any) -> Job:
        rows = pa.FixedSizeListArray.from_arrays(np.asarray(x, np.float32).reshape(-1), 3)
        words = ["no number" if row == ROWS - 1 else str(row) for row in range(ROWS)]
        table = pa.table({"id": range(ROWS), "x": rows, "word": words, "number": [str(row) for row in range(ROWS)]})
        with pq.ParquetWriter(tmp_path / "in.parquet", table.schema) as writer:
            for first, count in zip(np.cumsum([0, *SIZES[:-1]]), SIZES, strict=True):
                writer.write_table(table.slice(first, count))
        if "models" in sections:
            sections["models"] = {name: section(said) for name, said in sections["models"].items()}
        else:
            sections["model"] = section(sections["model"])
        document = {"columns": {"keep": "id"}, "input": str(tmp_path / "in.parquet"), "output": str(tmp_path / "out")}
        return Job.model_validate(document | sections)

    return make


@pytest.fixture
def score(job: MakeJob) -> Score:
    def make(x: Any, **sections: Any) -> tuple[Result, pa.Table]:
        result = launch(job(x, **sections), RunOptions(in_process=True))
        return result, result.dataset().to_table()

    return make


def rows(seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(ROWS, 3)).astype(np.float32)


def messages(result: Result) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in result.rejects().to_pylist():
        found.setdefault(row["code"], []).append(row["message"])
    return found


def compilations(result: Result) -> tuple[int, bool]:
    """How often, and whether their seconds are a stage of their own."""
    told, stages = result.report["compilations"], result.report["stage_seconds"]
    (worker,) = result.report["workers"].values()
    assert told["count"] == worker["compilations"]
    return told["count"], stages["compile"] == pytest.approx(told["seconds"], abs=2e-3) and stages["compile"] > 0


SHAPED = {
    "top": {"of": "champion.probs", "top_k": 2, "labels": "assets/labels.txt"},
    "place": {"of": "challenger.logits", "argmax": True},
    "half": {"of": "champion.probs", "at": 1, "cast": "float16"},
    "above": {"of": "champion.probs", "at": 3, "above": 0.7},
}


@pytest.mark.parametrize("engine", ["session", "eager"])
def test_shaped_outputs_of_a_padded_and_of_a_fixed_model_are_those_of_numpy(engine: str, score: Score) -> None:
    x = rows()
    x[5, 0], x[20, 2], x[ROWS - 1, 1] = np.nan, 2000, 1e6  # a NaN in both; one refuses; the last row overflows
    result, table = score(
        x,
        models={
            "champion": {"url": "jax", "signature": "probs", "engine": engine, "xla": engine == "session"},
            "challenger": {"url": "eight", "signature": "logits", "engine": engine},
        },
        columns={"keep": "id", "outputs": SHAPED},
        limits=REJECT | {"nan_output": "reject", "nonfinite": "pass"},
    )
    kept = [row for row in range(ROWS - 1) if row not in (5, 20)]
    probs = np.concatenate([x, x[:, :1] + x[:, 1:2]], 1)[kept]
    logits = np.concatenate([x, x[:, :1] - x[:, 1:2]], 1)[kept]
    order = np.argsort(-probs, axis=1, kind="stable")[:, :2]
    assert table["id"].to_pylist() == kept
    assert [[each["index"] for each in row] for row in table["top"].to_pylist()] == order.tolist()
    names = [[combined_models.LABELS[place] for place in row] for row in order]
    assert [[each["label"] for each in row] for row in table["top"].to_pylist()] == names
    assert table["place"].to_pylist() == np.argmax(logits, axis=1).tolist()
    np.testing.assert_array_equal(table["half"].to_numpy(), probs[:, 1].astype(np.float16))
    assert table["above"].to_pylist() == (probs[:, 3] > 0.7).tolist()
    assert result.codes == {"MODEL_NAN": 1, "MODEL_ROW": 1, "ROW_OVERFLOW": 1}
    told = messages(result)
    assert told["MODEL_NAN"] == ["models 'champion', 'challenger' answered NaN"]
    assert told["MODEL_ROW"][0].startswith("model 'challenger': cannot call signature 'logits'")
    assert compilations(result)[1]


def test_a_nan_that_shows_in_no_column_names_its_model(score: Score) -> None:
    x = rows()
    x[3, 0] = np.nan
    named = {"champion": "jax:probs", "challenger": "eight:logits"}
    outputs = {"place": {"of": "champion.probs", "argmax": True}, "last": {"of": "challenger.logits", "at": 2}}
    limits = REJECT | {"nan_output": "reject", "nonfinite": "pass"}
    result, table = score(x, models=named, columns={"keep": "id", "outputs": outputs}, limits=limits)
    assert (table.num_rows, messages(result)) == (ROWS - 1, {"MODEL_NAN": ["model 'champion' answered NaN"]})


def test_two_signatures_of_jax_are_one_call_of_one_size_that_compiles_once(job: MakeJob) -> None:
    x = rows()
    found = preflight(job(x, model={"url": "jax", "signatures": ["probs", "twice"]}))
    assert [member.batch_rows for member in found.members] == [64, 64]
    result = launch(found.job, RunOptions(in_process=True))
    assert compilations(result) == (1, True)
    table = result.dataset().to_table()
    np.testing.assert_array_equal(np.stack(table["twice.y"].to_numpy(zero_copy_only=False)), 2 * x)


def test_one_signature_may_be_called_twice_with_other_columns(score: Score) -> None:
    named = {
        "best": {"url": "jax", "signature": "words", "inputs": {"x": "number"}},
        "other": {"url": "jax", "signature": "words", "inputs": {"x": "word"}},
    }
    result, table = score(rows(), models=named, limits=REJECT)
    assert table["best.y"].to_pylist() == table["other.y"].to_pylist() == [2.0 * row for row in range(ROWS - 1)]
    assert messages(result)["MODEL_ROW"][0].startswith("model 'other': cannot call signature 'words'")


def test_a_model_that_refuses_every_row_is_named_with_its_own_signature(score: Score) -> None:
    with pytest.raises(PoisonError, match=r"signature 'never' of model '.*eight' \(challenger\)") as caught:
        score(rows(), models={"champion": "jax:probs", "challenger": "eight:never"}, limits=REJECT)
    facts = caught.value.facts
    assert (facts["code"], facts["model"], facts["signature"]) == ("MODEL_FAULT", "challenger", "never")


def test_a_model_of_which_no_input_follows_the_rows_is_refused_before_a_worker_starts(job: MakeJob) -> None:
    constant = {"url": "eight", "signature": "logits", "inputs": {"x": {"constant": [[1.0, 2.0, 3.0]] * 8}}}
    with pytest.raises(BindingError, match=r"\(challenger\): all of its inputs are constants or defaults"):
        preflight(job(rows(), models={"champion": "jax:probs", "challenger": constant}))


@pytest.mark.parametrize("limits", [{"reproducible": True}, {"compare_uncompiled": 20}])
def test_bits_and_comparisons_are_those_of_all_models(limits: Any, score: Score) -> None:
    x = rows()
    champion = {"url": "jax", "signature": "twice", "xla": "compare_uncompiled" in limits}
    _, table = score(x, models={"champion": champion, "challenger": "eight:logits"}, limits=limits)
    np.testing.assert_array_equal(np.stack(table["champion.y"].to_numpy(zero_copy_only=False)), 2 * x)
    np.testing.assert_array_equal(np.stack(table["challenger.logits"].to_numpy(zero_copy_only=False))[:, :3], x)


@pytest.mark.parametrize(("trust", "listed"), [(True, ["XlaCallModule"]), (False, None)])
def test_a_job_that_trusts_all_of_a_model_of_jax_is_the_one_that_older_versions_began(
    trust: bool, listed: Sequence[str] | None, job: MakeJob
) -> None:
    found = preflight(job(rows(), model={"url": "jax", "signature": "twice", "trust": trust}))
    assert found.plan.identity["model"].get("trusted") == listed
    assert found.scanned.repeatable, "it is tried out all the same"
