"""Programs as JAX writes them: what is read of them is what TensorFlow does with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from jax_models import PLAIN, STATE

import runner
from jobs.errors import ModelError, RunnerError
from jobs.job import Job
from runner import engine
from runner.cli.view.model import document
from runner.cli.view.plan import plan_document, render_plan
from runner.engine import EngineOptions
from runner.model.saved_model import read_model
from runner.preflight.preflight import preflight
from runner.scan.effects import effects
from runner.scan.ops import registry
from runner.scan.program import read_programs
from runner.scan.trust import scan
from runner.scan.xla.module import modules, require_support, sentence

SUPPORT = Path(__file__).parents[2] / "support"
X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("jax")
    subprocess.run([sys.executable, str(SUPPORT / "jax_models.py"), str(root)], check=True, capture_output=True)
    return root


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    x = np.random.default_rng(3).normal(size=(100, 3)).astype(np.float32)
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(x.ravel(), 3)})
    pq.write_table(table, tmp_path / "rows.parquet")
    return tmp_path


def job(model: Path, signature: str, rows: Path) -> Job:
    return Job.model_validate(
        {
            "model": {"url": str(model), "signature": signature},
            "input": {"url": [str(rows / "rows.parquet")]},
            "output": {"url": str(rows / "out")},
            "limits": {"on_bad_row": "reject", "max_rejected_rows": 100},
        }
    )


def answer(model: Path, signature: str) -> np.ndarray:
    spec = read_model(str(model)).metagraphs[0].signatures[signature]
    loaded = engine.load("session", str(model), ("serve",), spec, EngineOptions(threads=1))
    try:
        return np.asarray(loaded.run({"x": X}, ["y"])["y"])
    finally:
        loaded.close()


def test_programs_of_jax_are_not_refused_and_the_model_says_what_they_are_compiled_for(models: Path) -> None:
    spec = read_model(str(models / "plain"))
    programs = read_programs(spec)
    assert scan(programs) == []
    assert {name: sentence(modules(programs[0], name)) for name in PLAIN} == PLAIN
    assert {effects(programs[0], name).draws for name in PLAIN} == {()}, "a key that is given decides them"
    (shown,) = document(spec, programs)["metagraphs"][0]["modules"]["open"]
    assert (shown["platforms"], shown["polymorphic"], shown["disabled_checks"]) == (["CPU", "CUDA"], True, [])
    assert shown["custom_calls"] == ["shape_assertion"]


@pytest.mark.parametrize("signature", STATE)
def test_what_sets_variables_to_what_they_are_changes_none(models: Path, signature: str) -> None:
    (program,) = read_programs(read_model(str(models / "state")))
    told = () if STATE[signature] else ("AssignVariableOp",)
    assert effects(program, signature).writes == told
    loaded = tf.saved_model.load(str(models / "state"))
    call = getattr(loaded, signature)
    before, answers = [variable.numpy() for variable in loaded.state], [call(X)["y"] for _ in range(3)]
    after = [variable.numpy() for variable in loaded.state]
    assert all(map(np.array_equal, before, after)) == STATE[signature]
    if STATE[signature]:
        assert len({answer.numpy().tobytes() for answer in answers}) == 1


def test_a_job_of_such_a_signature_warns_of_nothing_and_its_rows_are_tried(models: Path, rows: Path) -> None:
    ready = preflight(job(models / "state", "kept", rows))
    assert ready.scanned.repeatable
    assert plan_document(ready)["warnings"] == []
    assert runner.run(job(models / "state", "kept", rows), in_process=True).rows == 100


def test_what_a_program_calls_is_refused_by_name_and_so_is_what_its_functions_do(models: Path) -> None:
    refused = {finding.op: finding for finding in scan(read_programs(read_model(str(models / "reaches"))))}
    assert set(refused) == {"XlaCallModule", "WriteFile"}
    assert refused["XlaCallModule"].why == "calls 'outside', which is not known to be harmless"
    assert "signature 'calls'" in refused["XlaCallModule"].runs
    assert "signature 'writes'" in refused["WriteFile"].runs


def test_a_program_for_another_device_is_refused_by_the_plan_and_nothing_is_written(models: Path, rows: Path) -> None:
    for attempt in (preflight, lambda job: runner.run(job, in_process=True)):
        with pytest.raises(ModelError, match="is compiled for CUDA, and the workers have CPUs") as refused:
            attempt(job(models / "plain", "cuda", rows))
        assert (refused.value.facts["code"], refused.value.exit_code) == ("MODEL_PLATFORM", 2)
    assert not (rows / "out").exists()


def test_tensorflow_compiles_for_the_platforms_that_are_named_and_for_any_where_that_check_is_off(models: Path) -> None:
    with pytest.raises(RunnerError, match=r"not among the platforms required by the module: \[CUDA\]"):
        answer(models / "plain", "cuda")
    np.testing.assert_array_equal(answer(models / "unchecked", "cuda"), X + 1)
    (module,) = modules(read_programs(read_model(str(models / "unchecked")))[0], "cuda")
    assert module.any_platform
    assert module.refusal() == "switches off checks of TensorFlow ('platform')"


@pytest.mark.parametrize(("signature", "needs"), [("best", "vhlo.composite_v2"), ("kernel", "lapack_spotrf_ffi")])
def test_what_this_tensorflow_cannot_run_is_told_by_the_plan(
    models: Path, rows: Path, signature: str, needs: str
) -> None:
    (found,) = modules(read_programs(read_model(str(models / "newer")))[0], signature)
    try:
        require_support([found], registry().version, signature, "m")
    except ModelError:
        with pytest.raises(RunnerError, match=needs):
            answer(models / "newer", signature)
        with pytest.raises(ModelError, match=f"{needs}.*; ") as refused:
            preflight(job(models / "newer", signature, rows))
        assert refused.value.facts["code"] == "MODEL_UNSUPPORTED"
    else:  # a newer TensorFlow
        answer(models / "newer", signature)


def test_a_job_runs_without_trust_and_its_plan_says_the_same(models: Path, rows: Path) -> None:
    ready = preflight(job(models / "plain", "open", rows))
    assert ready.scanned.repeatable
    assert plan_document(ready)["model"]["trusted"] == []
    assert [module["platforms"] for module in plan_document(ready)["modules"]] == [["CPU", "CUDA"]]
    head = render_plan(ready).renderables[0].columns[1]._cells  # type: ignore[union-attr]
    assert any(str(cell).startswith(PLAIN["open"]) for cell in head)
    runner.run(job(models / "plain", "open", rows), in_process=True)
    x = pq.read_table(rows / "rows.parquet")["x"].combine_chunks().flatten().to_numpy().reshape(-1, 3)
    (part,) = (rows / "out").glob("part-*.parquet")
    y = pq.read_table(part)["y"].combine_chunks().storage.flatten().to_numpy().reshape(-1, 3)
    np.testing.assert_allclose(y, np.tanh(x) * 2, rtol=1e-5)
