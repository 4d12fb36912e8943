"""XLA, mixed precision and op libraries: they do what they say, are part of the plan, and explain what they cannot."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.output.directory import OutputDirectory
from jobs.attempt import Success, attempt
from jobs.errors import JobError, ModelError
from jobs.job import Job
from jobs.load import load_job
from runner import engine
from runner.engine import EngineOptions, ModelOptions
from runner.model.signature import Signature
from runner.preflight.preflight import preflight
from runner.tensor import Strings, Tensor
from runner.worker.worker import Worker

# A process of its own writes the models: the op library is unknown to this one until a test loads it.
_SCRIPT = """
import sys, tensorflow as tf

class Layers(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.random.stateless_normal([32, 32], [1, 2]) / 6)

    @tf.function(input_signature=[tf.TensorSpec([None, 32], tf.float32, name="x")])
    def layers(self, x):
        for _ in range(4):
            x = tf.nn.relu(tf.matmul(x, self.w)) + x
        return {"y": x, "total": tf.reduce_sum(x, 1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def shout(self, text):
        return {"loud": tf.strings.upper(text)}

layers = Layers()
tf.saved_model.save(layers, sys.argv[1] + "/layers", signatures={"layers": layers.layers, "shout": layers.shout})

with tf.compat.v1.Graph().as_default(), tf.compat.v1.Session() as session:
    x = tf.compat.v1.placeholder(tf.float32, [None, 32], "x")
    y = tf.nn.softmax(tf.nn.relu(x) * 2.0 + 1.0)
    tf.compat.v1.saved_model.simple_save(session, sys.argv[1] + "/graph", {"x": x}, {"y": y})

if len(sys.argv) > 2:
    ops = tf.load_op_library(sys.argv[2])
    triple = tf.Module()
    triple.call = tf.function(
        lambda x: {"y": ops.runner_triple(x)}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    tf.saved_model.save(triple, sys.argv[1] + "/triple", signatures=triple.call)
"""
X = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)


@pytest.fixture(scope="session")
def op_library(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """None where there is no compiler."""
    compiler, spec = shutil.which("g++"), find_spec("tensorflow")
    if compiler is None or spec is None or not spec.submodule_search_locations:
        return None
    home = Path(next(iter(spec.submodule_search_locations)))
    target = tmp_path_factory.mktemp("ops") / "triple.so"
    source = Path(__file__).parents[2] / "support" / "triple_op.cc"
    libraries = [f"-L{home}", "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    command = [compiler, "-shared", "-fPIC", str(source), "-o", str(target), f"-I{home}/include", *libraries]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    return target if built.returncode == 0 else None


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, op_library: Path | None) -> Path:
    """A folder with the models `layers`, `graph` (TensorFlow 1 style) and, with a compiler, `triple`."""
    folder = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-c", _SCRIPT, str(folder), *([str(op_library)] if op_library else [])]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(command, check=True, env=quiet, stderr=subprocess.DEVNULL)
    return folder


Call = Callable[..., dict[str, Tensor]]


@pytest.fixture
def call(models: Path, read_signature: Callable[[Path, str], Signature]) -> Call:
    """call(model, signature, feeds, engine="session", **options): all outputs."""

    def run(model: str, signature: str, feeds: dict[str, Tensor], name: str = "session", **options: Any) -> Any:
        read = read_signature(models / model, signature)
        chosen = EngineOptions(threads=1, model=ModelOptions(**options))
        loaded = engine.load(name, str(models / model), ("serve",), read, chosen)
        try:
            return loaded.run(feeds, list(read.outputs))
        finally:
            loaded.close()

    return run


def floats(tensor: Tensor) -> npt.NDArray[np.float32]:
    assert not isinstance(tensor, Strings)
    return tensor.astype(np.float32)


_OTHER = """
namespace tensorflow { struct OpKernel { bool NoLonger(int rows) const; }; }
extern "C" bool probe(const tensorflow::OpKernel* kernel) { return kernel->NoLonger(3); }
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.parametrize("name", ["session", "eager"])
def test_a_library_for_another_tensorflow_is_told_with_what_it_wants(name: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "other.cc").write_text(_OTHER)
    library = tmp_path / "other.so"
    subprocess.run(["g++", "-shared", "-fPIC", "-o", library, tmp_path / "other.cc"], check=True)
    given = (str(library), hashlib.sha256(library.read_bytes()).hexdigest())
    wants = r"another TensorFlow: it wants 'tensorflow::OpKernel::NoLonger\(int\) const', which TensorFlow \d+\.\d+"
    with pytest.raises(ModelError, match=wants):
        call("layers", "layers", {"x": X}, name, op_libraries=(given,))


@pytest.mark.parametrize("name", ["session", "eager"])
def test_xla_gives_the_same_answers(name: str, call: Call) -> None:
    plain, compiled = call("layers", "layers", {"x": X}), call("layers", "layers", {"x": X}, name, xla=True)
    for output in ("y", "total"):
        np.testing.assert_allclose(floats(compiled[output]), floats(plain[output]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["session", "eager"])
def test_a_signature_that_xla_cannot_compile_is_refused_by_name(name: str, call: Call) -> None:
    text = Strings(pa.array([b"a", b"b"], pa.large_binary()), (2,))
    with pytest.raises(ModelError, match=r"cannot compile signature 'shout' .* with XLA: .*`model: \{xla: false\}`"):
        call("layers", "shout", {"text": text}, name, xla=True)


def test_xla_compiles_what_it_can_of_a_graph_that_is_no_function(call: Call) -> None:
    plain, compiled = (call("graph", "serving_default", {"x": X}, xla=on)["y"] for on in (False, True))
    np.testing.assert_allclose(floats(compiled), floats(plain), rtol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_changes_numbers_a_little(precision: str, call: Call) -> None:
    plain = floats(call("layers", "layers", {"x": X})["y"])
    mixed = floats(call("layers", "layers", {"x": X}, mixed_precision=precision)["y"])
    if np.array_equal(mixed, plain):
        pytest.skip(f"this processor has no instructions for {precision}: TensorFlow leaves the model as it is")
    np.testing.assert_allclose(mixed, plain, rtol=0.05, atol=0.05)


def test_an_unknown_op_is_named_and_its_library_mends_it(call: Call, op_library: Path | None) -> None:
    if op_library is None:
        pytest.skip("no C++ compiler that builds against TensorFlow's headers")
    x = np.array([1, 2], np.float32)
    with pytest.raises(ModelError, match=r"does not know its op 'RunnerTriple'; .*`model: \{op_libraries:"):
        call("triple", "serving_default", {"x": x})
    sha256 = hashlib.sha256(op_library.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match="it is another one here"):
        call("triple", "serving_default", {"x": x}, op_libraries=((str(op_library), "0" * 64),))
    answer = call("triple", "serving_default", {"x": x}, op_libraries=((str(op_library), sha256),))
    np.testing.assert_array_equal(floats(answer["y"]), [3, 6])


def test_a_library_that_cannot_be_loaded_is_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "ops.so").write_text("no library")
    sha256 = hashlib.sha256(b"no library").hexdigest()
    with pytest.raises(ModelError, match=r"cannot load the op library '.*ops.so'"):
        call("layers", "layers", {"x": X}, op_libraries=((str(tmp_path / "ops.so"), sha256),))


def _job(models: Path, tmp_path: Path, **model: Any) -> Job:
    if not (tmp_path / "in.parquet").exists():
        lists = pa.FixedSizeListArray.from_arrays(pa.array(np.tile(X, (2, 1)).reshape(-1)), 32)
        pq.write_table(pa.table({"id": range(128), "x": lists}), tmp_path / "in.parquet", row_group_size=50)
    return Job.model_validate(
        {
            "model": {"url": str(models / "layers"), "signature": "layers", **model},
            "input": {"url": str(tmp_path / "in.parquet")},
            "columns": {"keep": ["id"], "outputs": ["total"]},
            "output": {"url": str(tmp_path / "out")},
            "limits": {"batch_rows": 48},
        }
    )


def test_with_xla_every_batch_has_one_size_and_no_row_is_lost(models: Path, tmp_path: Path) -> None:
    found = preflight(_job(models, tmp_path, xla=True))
    assert (found.batch_rows, found.binding.batch_rows) == (48, 48)
    assert preflight(_job(models, tmp_path)).binding.batch_rows is None
    output = OutputDirectory(found.job.output, found.plan.id, len(found.plan.shards))
    output.claim(found.plan)
    worker = Worker(found.spec(output.output), "w1", EngineOptions(threads=1))
    sizes: list[int] = []
    run = worker._engine.run

    def watched(feeds: Any, fetches: Any) -> Any:
        sizes.append(len(feeds["x"]))
        return run(feeds, fetches)

    worker._engine.run = watched  # type: ignore[method-assign]
    success = worker.attempt(attempt(found.plan, found.plan.shards[0], 1, 1, "0" * 12))
    assert isinstance(success, Success)
    assert set(sizes) == {48}
    assert pq.read_table(next((tmp_path / "out").glob("part-*")))["id"].to_pylist() == list(range(128))


def test_a_small_shard_is_not_padded_to_a_huge_batch(models: Path, tmp_path: Path) -> None:
    job = _job(models, tmp_path, xla=True)
    roomy = job.model_copy(update={"limits": job.limits.model_copy(update={"batch_rows": "auto"})})
    assert preflight(roomy).binding.batch_rows == 128


def test_what_changes_numbers_is_part_of_the_plan(models: Path, tmp_path: Path) -> None:
    (tmp_path / "ops.so").write_bytes(b"1")
    variants: list[dict[str, Any]] = [
        {},
        {"xla": True},
        {"mixed_precision": "bfloat16"},
        {"op_libraries": [str(tmp_path / "ops.so")]},
    ]
    ids = [preflight(_job(models, tmp_path, **variant)).plan.id for variant in variants]
    (tmp_path / "ops.so").write_bytes(b"2")
    ids.append(preflight(_job(models, tmp_path, **variants[3])).plan.id)
    assert len(set(ids)) == 5
    assert preflight(_job(models, tmp_path)).plan.id == ids[0]


def test_an_op_library_that_is_not_there_is_said_before_anything_starts(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the op library '/nowhere/ops.so': No such file"):
        preflight(_job(models, tmp_path, op_libraries="/nowhere/ops.so"))


def test_bfloat16_on_a_gpu_is_refused() -> None:
    text = "model: {url: m, mixed_precision: bfloat16}\ninput: {url: i}\noutput: {url: o}\nworkers: {gpus: 1}"
    with pytest.raises(JobError, match=r"on a GPU choose 'float16'"):
        load_job(text, "job.yaml", [])
