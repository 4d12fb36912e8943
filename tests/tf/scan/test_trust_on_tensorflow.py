"""Hostile models that TensorFlow wrote: each is refused by name before any of it runs; and its registry is ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.errors import ModelError
from runner.engine import EngineOptions, load
from runner.model.saved_model import read_model
from runner.model.signature import choose_metagraph, choose_signature
from runner.scan.ops import registry
from runner.scan.program import read_programs
from runner.scan.trust import Trust, require_trust, scan

SUPPORT = Path(__file__).parents[2] / "support"
OPS = {  # model -> the op that is to blame
    "writes_at_load": "WriteFile",
    "writes_at_load_as_text": "WriteFile",
    "writes_at_load_by_a_legacy_init_op": "WriteFile",
    "writes_when_a_resource_is_set_up": "WriteFile",
    "writes_in_a_function_of_a_function": "WriteFile",
    "writes_in_a_branch": "WriteFile",
    "writes_in_a_loop": "WriteFile",
    "writes_in_a_gradient": "WriteFile",
    "writes_in_another_metagraph": "WriteFile",
    "writes_where_nothing_calls_it": "WriteFile",
    "saves_a_checkpoint": "SaveV2",
    "saves_an_old_checkpoint": "Save",
    "calls_the_savers_own_save_at_load": "SaveV2",
    "merges_checkpoints": "MergeV2Checkpoints",
    "restores_a_foreign_checkpoint": "RestoreV2",
    "restores_what_a_row_names": "RestoreV2",
    "runs_python": "EagerPyFunc",
    "runs_python_by_numpy": "PyFunc",
    "runs_python_and_says_it_is_stateless": "PyFuncStateless",
    "reads_a_file": "ReadFile",
    "reads_its_own_asset": "ReadFile",
    "lists_files": "MatchingFiles",
    "maps_a_file_into_memory": "ImmutableConst",
    "fills_a_table_from_a_foreign_file": "InitializeTableFromTextFileV2",
    "prints_into_a_file": "PrintV2",
    "prints": "Print",
    "summarises": "CreateSummaryFileWriter",
    "reads_records": "TextLineDataset",
    "runs_a_graph_that_is_data": "DatasetFromGraph",
    "holds_a_graph_in_a_constant": "WriteFile",
    "holds_a_graph_in_an_attribute": "WriteFile",
    "ends_the_process": "Abort",
    "has_a_schema_in_a_file": "DecodeProtoV2",
    "has_an_op_that_nobody_knows": "ZeroOut",
    "sends": "_Send",
    "calls_another_machine": "RpcClient",
    "hides_a_program": "XlaCallModule",
    "debugs_to_an_address": "DebugIdentity",
    "names_a_function_like_an_op": "WriteFile",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of hostile models; `escaped` in it stays empty unless one of them ran."""
    root = tmp_path_factory.mktemp("hostile")
    script = [sys.executable, str(SUPPORT / "hostile_models.py"), str(root)]
    subprocess.run(script, check=True, stderr=subprocess.DEVNULL)
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == sorted([*OPS, "escaped"])
    return root


def escaped(root: Path) -> list[str]:
    return [path.name for path in (root / "escaped").iterdir()]


@pytest.mark.parametrize("name", OPS)
def test_a_hostile_model_is_refused_by_the_name_of_its_op_and_nothing_of_it_runs(hostile: Path, name: str) -> None:
    model = read_model(str(hostile / name))
    programs = read_programs(model)
    with pytest.raises(ModelError, match=r"cannot trust model .*; it was not loaded") as caught:
        require_trust(programs, model.url, Trust())
    assert f"- {OPS[name]} " in caught.value.message
    assert OPS[name] in require_trust(programs, model.url, Trust(everything=True))
    assert escaped(hostile) == []


@pytest.mark.parametrize("name", ["writes_at_load", "writes_when_a_resource_is_set_up", "writes_at_load_as_text"])
def test_these_models_do_write_once_they_are_loaded(hostile: Path, name: str) -> None:
    """The other tests see nothing escape because nothing ran, not because the models cannot."""
    model = read_model(str(hostile / name))
    signature = choose_signature(choose_metagraph(model, None), None, model.url)
    load("session", model.path, ("serve",), signature, EngineOptions(threads=1)).close()
    assert escaped(hostile) == [name]
    (hostile / "escaped" / name).unlink()


def test_what_runs_at_load_is_said_to(hostile: Path) -> None:
    for name in ("writes_at_load", "writes_when_a_resource_is_set_up", "writes_at_load_by_a_legacy_init_op"):
        assert "at load" in scan(read_programs(read_model(str(hostile / name))))[0].runs


def test_run_plan_call_and_scan_refuse_it_and_trust_is_recorded(hostile: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    model = str(hostile / "writes_at_load")
    pq.write_table(pa.table({"x": pa.array([1.0, 2.0], pa.float32())}), tmp_path / "in.parquet")

    def runner(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runner", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=100)

    job = ("--model", model, "--input", "in.parquet", "--output", "out")
    for refused in (("run", *job, "--in-process"), ("plan", *job), ("call", model, "--exprs", "x=np.ones(2)")):
        done = runner(*refused)
        assert done.returncode == 2, done.stderr
        assert "WriteFile writes files: node 'WriteFile' (at load)" in done.stderr
    done = runner("scan", model)
    assert (done.returncode, "WriteFile" in done.stdout) == (2, True)
    assert escaped(hostile) == []

    done = runner("run", *job, "--in-process", "--trust-model")
    assert done.returncode == 0, done.stderr
    assert escaped(hostile) == ["writes_at_load"]
    (hostile / "escaped" / "writes_at_load").unlink()
    (plan,) = tmp_path.glob("out/_run/*/plan.json")
    assert json.loads(plan.read_text())["identity"]["model"]["trusted"] == ["WriteFile"]


@pytest.mark.skipif(bool(registry().installed), reason=f"ops.txt ends with {registry().version}")
def test_the_table_of_ops_is_the_registry_of_the_installed_tensorflow() -> None:
    """In a process of its own: where the Python package is imported, the ops of its own tests are registered too."""
    code = "import json; from runner.engine.registry import registered_ops; print(json.dumps(registered_ops()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert dict(registry().stateful) == json.loads(done.stdout), "python -m runner.engine.registry writes it anew"
