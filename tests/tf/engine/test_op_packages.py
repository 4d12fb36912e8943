"""Real models of tensorflow_text and ydf: scored as these frameworks score them, in processes that import neither."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaged_models import AGES, COLOURS, TEXTS

from connectors.models.cache import CacheSettings
from jobs.errors import ModelError
from jobs.job import Job
from jobs.load import load_job
from jobs.section.columns import Columns
from runner import engine
from runner.cli.init import job_text
from runner.engine import EngineOptions, ModelOptions
from runner.engine.ops.package import choose
from runner.model.saved_model import read_model
from runner.model.signature import choose_metagraph, choose_signature
from runner.preflight.draft import draft
from runner.preflight.preflight import preflight
from runner.scan import packages
from runner.scan.program import read_programs
from runner.tensor import Feeds, Strings

SUPPORT = Path(__file__).parents[2] / "support"
Scored = tuple[dict[str, Any], list[str], str]  # answers; packages that were imported; what an op without one is told
KINDS = {"text": "tensorflow_text", "forest": "ydf_tf"}
# Loads every model through every engine in one process, and tells which packages that imported.
_SCORE = """
import json, sys
sys.path.insert(0, sys.argv[2])
import test_op_packages as subject
folder = subject.Path(sys.argv[1])
refused = "text" in sys.argv[3:] and subject.refused(folder)
scored = {f"{name} {kind}": subject.score(folder, kind, name)
          for name in ("session", "eager") for kind in sys.argv[3:]}
print(json.dumps([scored, sorted({*subject.KINDS.values(), "ydf"} & set(sys.modules)), refused]))
"""


def feeds(kind: str) -> Feeds:
    if kind == "text":
        return {"text": strings(TEXTS)}
    ages = np.array([np.nan if age is None else age for age in AGES])
    return {"age": ages, "colour": strings(COLOURS)}


def strings(texts: list[str]) -> Strings:
    return Strings(pa.array([text.encode() for text in texts], pa.large_binary()), (len(texts),))


def score(folder: Path, kind: str, name: str) -> dict[str, Any]:
    model = read_model(str(folder / kind))
    metagraph = choose_metagraph(model, None)
    signature = choose_signature(metagraph, None, model.url)
    ops = {node.op for _, node in read_programs(model)[0].nodes()}
    chosen = choose([KINDS[kind]], ops)
    options = EngineOptions(threads=1, model=ModelOptions(op_packages=chosen.packages))
    loaded = engine.load(name, model.path, metagraph.tags, signature, options)
    outputs = loaded.run(feeds(kind), list(signature.outputs))
    loaded.close()
    return {key: plain(value) for key, value in outputs.items()}


def refused(folder: Path) -> str:
    """What is said of a model whose package nobody named, in a process that has loaded none."""
    model = read_model(str(folder / "text"))
    metagraph = choose_metagraph(model, None)
    signature = choose_signature(metagraph, None, model.url)
    try:
        engine.load("session", model.path, metagraph.tags, signature, EngineOptions(threads=1))
    except ModelError as error:
        return error.message
    return ""


def plain(value: Any) -> Any:
    if not isinstance(value, Strings):
        return value.tolist()
    return np.array([each.decode() for each in value.values.to_pylist()]).reshape(value.shape).tolist()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models whose packages are installed, and the answers of these."""
    folder = tmp_path_factory.mktemp("packaged")
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(SUPPORT / "packaged_models.py"), str(folder), *installed()]
    subprocess.run(command, check=True, env=quiet, capture_output=True)
    return folder


def installed() -> list[str]:
    """The kinds whose package is here; ydf itself makes the forest."""
    here = {kind for kind, name in KINDS.items() if packages.installed_version(name)}
    return sorted(here if find_spec("ydf") else here - {"forest"})


def needed(kind: str) -> None:
    if kind not in installed():
        pytest.skip(f"{packages.install(KINDS[kind])}: {KINDS[kind]} is not installed")


@pytest.fixture(scope="module")
def scored(models: Path) -> Scored:
    command = [sys.executable, "-c", _SCORE, str(models), str(Path(__file__).parent), *installed()]
    path = os.pathsep.join([str(SUPPORT), *sys.path])
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    assert done.returncode == 0, done.stderr
    answers, imported, told = json.loads(done.stdout)
    return answers, imported, told


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["session", "eager"])
def test_an_engine_answers_as_the_framework_does_and_imports_no_package(
    name: str, kind: str, models: Path, scored: Scored
) -> None:
    needed(kind)
    answers, imported, _ = scored
    assert imported == []
    expected = json.loads((models / f"{kind}.json").read_text())
    assert answers[f"{name} {kind}"] == (expected if kind == "text" else {"output": expected})


def job(models: Path, tmp_path: Path, kind: str, **model: Any) -> Job:
    tables = {"text": {"text": TEXTS}, "forest": {"age": AGES, "colour": COLOURS}}
    pq.write_table(pa.table(tables[kind]), tmp_path / "in.parquet")
    return Job.model_validate(
        {
            "model": {"url": str(models / kind), **model},
            "input": {"url": str(tmp_path / "in.parquet")},
            "output": {"url": str(tmp_path / "out")},
        }
    )


def test_an_unknown_op_says_which_package_to_name_and_naming_it_mends_that(models: Path, tmp_path: Path) -> None:
    needed("text")
    with pytest.raises(ModelError) as caught:
        preflight(job(models, tmp_path, "text"))
    version = packages.installed_version("tensorflow_text")
    assert caught.value.facts["code"] == "UNTRUSTED_MODEL"
    assert (
        "ops 'TFText>NgramsStringJoin', 'TFText>WhitespaceTokenizeWithOffsetsV2' are in tensorflow_text"
        f" {version}, which is installed: add `op_packages: [tensorflow_text]` under 'model'"
    ) in caught.value.message
    found = preflight(job(models, tmp_path, "text", op_packages="tensorflow-text"))
    (package,) = found.plan.identity["model"]["op_packages"]
    assert (package["name"], package["version"]) == ("tensorflow_text", version)
    # Two of its 22 libraries: those that register what the model has.
    assert [Path(path).name for path in package["libraries"]] == ["_ngrams_op.so", "_whitespace_tokenizer_v2.so"]
    assert "trusted" not in found.plan.identity["model"]
    assert found.scanned.repeatable


def test_a_job_file_to_begin_with_names_the_packages_that_the_model_needs(models: Path, tmp_path: Path) -> None:
    needed("text")
    text = job_text(draft(job(models, tmp_path, "text"), CacheSettings()))
    assert "signature: serving_default, op_packages: [tensorflow_text]}\n" in text
    preflight(load_job(text, "job.yaml"))


def test_a_forest_reads_its_assets_and_no_more_trust_is_needed(models: Path, tmp_path: Path) -> None:
    needed("forest")
    found = preflight(job(models, tmp_path, "forest", op_packages=["ydf_tf", "tensorflow_text"]))
    assert [each["name"] for each in found.plan.identity["model"]["op_packages"]] == ["ydf_tf"]
    assert (
        "`op_packages` names tensorflow_text, and the model has none of its ops: nothing of it is loaded" in found.notes
    )


def test_without_packages_the_plan_holds_nothing_of_them(models: Path, tmp_path: Path) -> None:
    needed("text")
    trusted = preflight(job(models, tmp_path, "text", trust=True)).plan.identity["model"]
    assert "op_packages" not in trusted


def test_packages_and_libraries_that_cannot_be_used_are_told_at_once(models: Path, tmp_path: Path) -> None:
    needed("text")
    wrong = job(models, tmp_path, "text", op_packages=["tensorflow_txt"], op_libraries=["/nowhere/ops.so"])
    with pytest.raises(ModelError) as caught:
        preflight(wrong)
    assert "cannot read the op library '/nowhere/ops.so'" in caught.value.message
    assert "no package of ops 'tensorflow_txt' is known: known are 'tensorflow_text'" in caught.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["another column", "no input"])
def test_what_else_is_wrong_with_the_job_is_told_beside_a_package_that_cannot_be_used(
    models: Path, tmp_path: Path, change: str
) -> None:
    needed("text")
    wrong = job(models, tmp_path, "text", op_packages=["tensorflow_text", "tensorflow_txt"])
    column = {"columns": Columns.model_validate({"inputs": {"text": "txt"}})}
    nowhere = {"input": wrong.input.model_copy(update={"url": [str(tmp_path / "nowhere")]})}
    with pytest.raises(ModelError) as caught:
        preflight(wrong.model_copy(update=column if change == "another column" else nowhere))
    first, *others = caught.value.message.splitlines()
    assert first.startswith("cannot use the op packages of the job: no package of ops 'tensorflow_txt' is known")
    told = "found no such column" if change == "another column" else "there is no such file"
    assert told in "\n".join(others)
    assert caught.value.facts["code"] == "OP_PACKAGE"


def test_a_model_that_is_trusted_without_its_package_says_what_to_add_when_it_is_loaded(scored: Scored) -> None:
    needed("text")
    assert re.search(r"cannot load model .*: op 'TFText>\w+' is in tensorflow_text .*: add `op_packages: \[", scored[2])


@pytest.mark.parametrize("name", sorted(packages.packages()))
def test_the_table_of_packages_is_what_is_installed(name: str) -> None:
    """In a process of its own, which registers every op of the package."""
    if not packages.installed_version(name):
        pytest.skip(f"{name} is not installed")
    code = f"import json; from runner.engine.registry import registered_by; print(json.dumps(registered_by({name!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert packages.packages()[name].libraries == json.loads(done.stdout), (
        "python -m runner.engine.registry --packages writes it anew"
    )
