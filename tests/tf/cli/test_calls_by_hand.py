"""`runner call` gives the arrays that `saved_model_cli run` gives for the same files, expressions and examples."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from runner.cli.hand_call import example_bytes

F32 = np.float32


@pytest.fixture(scope="module")
def every_form(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose inputs are named after the forms that they are given in."""
    module, path = tf.Module(), tmp_path_factory.mktemp("call") / "model"
    names = ("array", "archive", "pickled", "expression")

    def function(array: tf.Tensor, archive: tf.Tensor, pickled: tf.Tensor, expression: tf.Tensor, examples: tf.Tensor):  # type: ignore[no-untyped-def]
        kinds = {"age": tf.int64, "education": tf.string, "weight": tf.float32}
        parsed = tf.io.parse_example(examples, {name: tf.io.RaggedFeature(kind) for name, kind in kinds.items()})
        return {
            "sum of all": array + archive + pickled + expression,
            "age": tf.reduce_sum(parsed["age"], axis=1),
            "education": tf.strings.reduce_join(parsed["education"], axis=1, separator=","),
            "weight": tf.reduce_sum(parsed["weight"], axis=1),
            "small": tf.cast(array, tf.float16),
        }

    specs = [tf.TensorSpec([None, 2], tf.float32, name=name) for name in names]
    module.f = tf.function(function, input_signature=[*specs, tf.TensorSpec([None], tf.string, name="examples")])
    tf.saved_model.save(module, str(path), {"serving_default": module.f})
    return path


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_the_same_input_in_every_form_gives_the_same_arrays(every_form: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.array([[1, 2], [3, 4]]))
    np.savez(tmp_path / "archive.npz", one=np.ones((2, 2), F32), ten=np.full((2, 2), 10.0))
    (tmp_path / "pickled.pkl").write_bytes(pickle.dumps(np.array([[0.5, 0.25], [0, 0]])))
    inputs = "array=array.npy;archive=archive.npz[ten];pickled=pickled.pkl"
    literal = "expression=[[1.5, -2], [0, 1e3]]"
    examples = 'examples=[{"age": [22, 24], "education": ["BS", "MS"], "weight": [0.5]}, {"age": [-3]}]'
    forms = ["--inputs", inputs, "--input_exprs", literal, "--input_examples", examples]
    theirs = Path(sys.executable).with_name("saved_model_cli")
    chosen = ["--dir", str(every_form), "--tag_set", "serve", "--signature_def", "serving_default"]
    (tmp_path / "theirs").mkdir()
    run([sys.executable, str(theirs), "run", *chosen, *forms, "--outdir", "theirs"], tmp_path)

    forms = ["--inputs", inputs, "--exprs", literal, "--examples", examples, "--allow-pickle"]
    run([sys.executable, "-m", "runner", "call", str(every_form), *forms, "--outdir", "ours"], tmp_path)
    expected = {path.stem: np.load(path, allow_pickle=True) for path in (tmp_path / "theirs").iterdir()}
    found = {path.stem: np.load(path) for path in (tmp_path / "ours").iterdir()}
    assert sorted(found) == sorted(expected) == ["age", "education", "small", "sum of all", "weight"]
    for name, value in expected.items():
        assert found[name].tolist() == value.tolist(), name
        assert found[name].dtype == value.dtype or value.dtype == object, name


@pytest.mark.parametrize(
    "features",
    [
        {},
        {"age": [22, 24, -1, 2**63 - 1, -(2**63), 0]},
        {"weight": [0.5, -1e30, float("inf")], "empty": []},
        {"text": ["BS", "größer", ""], "bytes": [b"\x00\xff", b"x" * 300]},
        {f"feature {number}": [number] for number in range(200)},
        {"mixed": [1, 0.5], "one": 7, "truth": [True, False]},
    ],
)
def test_an_example_means_to_tensorflow_what_was_written(features: dict[str, object]) -> None:
    example = tf.train.Example.FromString(example_bytes(features))  # type: ignore[arg-type]
    read: dict[str, list[object]] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        read[name] = list(getattr(feature, kind).value)
    expected = {name: values if isinstance(values, list) else [values] for name, values in features.items()}
    as_bytes = {
        name: [each.encode() if isinstance(each, str) else each for each in values] for name, values in expected.items()
    }
    rounded = {
        name: [F32(each) if isinstance(each, float) else each for each in values] for name, values in as_bytes.items()
    }
    assert read == rounded


def test_results_are_printed_or_written_and_files_are_replaced_only_when_asked(
    every_form: Path, tmp_path: Path
) -> None:
    forms = ["--exprs", "array=np.ones((1, 2)); archive=np.zeros((1, 2)); pickled=np.full((1, 2), 0.5)"]
    forms += ["--exprs", "expression=np.arange(2).reshape(1, 2)", "--examples", "examples=[{}]"]
    command = [sys.executable, "-m", "runner", "call", str(every_form), *forms]
    printed = run(command, tmp_path).stdout
    assert "sum of all  float32[1, 2]\n[[1.5 2.5]]" in printed
    assert "education  string[1]\n[b'']" in printed
    assert run([*command, "--outdir", "out/new"], tmp_path).stdout.count("written to out/new/") == 5
    again = subprocess.run([*command, "--outdir", "out/new"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "choose another folder, or --overwrite" in again.stderr
    run([*command, "--outdir", "out/new", "--overwrite", "--tags", "serve", "--signature", "serving_default"], tmp_path)
    assert np.load(tmp_path / "out/new/sum of all.npy").tolist() == [[1.5, 2.5]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--exprs", "arr=1"], "no input 'arr' in signature 'serving_default': it has 'array'"),
        (["--exprs", "array=np.ones((1, 2))"], "no value for 'archive', 'examples', 'expression', 'pickled'"),
        (["--signature", "nothing"], "no signature 'nothing'"),
        (["--tags", "gpu"], "no metagraph with tags 'gpu'"),
        (["--version", "3"], "no version 3"),
        (["--exprs", "array=open('x')"], "is not understood"),
    ],
)
def test_a_wrong_call_is_exit_2_and_names_what_is_wrong(every_form: Path, arguments: list[str], told: str) -> None:
    command = [sys.executable, "-m", "runner", "call", str(every_form), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
