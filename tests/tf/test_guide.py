"""TensorFlow's guide "Using the SavedModel format", row by row, with the runner in the place of the Python loader.

Models are small stand-ins for those of the guide: a Keras classifier, and the module that multiplies by a variable.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import runner
from jobs.errors import ModelError, OutputError
from jobs.job import Job
from runner.model.saved_model import read_model

F32 = np.float32


class CustomModule(tf.Module):  # type: ignore[misc]
    """The guide's module: multiplies by a variable, which can be changed."""

    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable(1.0)

    @tf.function
    def __call__(self, x: Any) -> Any:
        return x * self.v

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def mutate(self, new_v: Any) -> None:
        self.v.assign(new_v)


class CustomModuleWithOutputName(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32)])
    def __call__(self, x: Any) -> Any:
        return {"custom_output_name": x * self.v}


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of the guide, each in a folder; `classifier` holds version folders."""
    root = tmp_path_factory.mktemp("guide")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = [keras.Input((4,), name="image"), keras.layers.Dense(3, "softmax", name="predictions")]
        classifier = keras.Sequential(layers)
        classifier.export(root / "classifier" / "1", verbose=False)
        classifier.save(root / "classifier.keras")
        np.save(root / "weights.npy", classifier.layers[0].get_weights()[0])
    module = CustomModule()
    module(tf.constant(0.0))
    tf.saved_model.save(module, str(root / "module_no_signatures"))
    module.mutate(tf.constant(3.0))
    call = module.__call__.get_concrete_function(tf.TensorSpec(None, tf.float32))
    tf.saved_model.save(module, str(root / "module_with_signature"), signatures=call)
    several = CustomModule()
    several.mutate(tf.constant(3.0))
    # The narrower one first: once there is a function of any rank, TensorFlow gives it for every other shape.
    array = several.__call__.get_concrete_function(tf.TensorSpec([None], tf.float32))
    call = several.__call__.get_concrete_function(tf.TensorSpec(None, tf.float32))
    signatures = {"serving_default": call, "array_input": array}
    tf.saved_model.save(several, str(root / "module_with_multiple_signatures"), signatures=signatures)
    tf.saved_model.save(CustomModuleWithOutputName(), str(root / "module_with_output_name"))
    tf.saved_model.save(WithAsset(root / "words.txt"), str(root / "module_with_asset"))
    return root


class WithAsset(tf.Module):  # type: ignore[misc]
    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        vocabulary.write_text("tensor\nflow\n")
        index = tf.lookup.TextFileIndex
        kinds = (tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        self.table = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(vocabulary), *kinds), -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, word: Any) -> Any:
        return {"id": self.table.lookup(word)}


Score = Callable[..., pa.Table]


@pytest.fixture
def score(tmp_path: Path) -> Score:
    """score(model, columns, output="out", **sections): run a job over the columns, and read what it wrote."""

    def score(model: Path, columns: dict[str, Any], output: str = "out", /, **sections: Any) -> pa.Table:
        if not (tmp_path / "in.parquet").exists():  # else: the same input again
            pq.write_table(pa.table(columns), tmp_path / "in.parquet")
        job = {
            "model": {"url": str(model)} | sections.pop("model", {}),
            "input": {"url": str(tmp_path / "in.parquet")},
            "output": {"url": str(tmp_path / output), "tensor_encoding": "list"},
        }
        done = runner.run(Job.model_validate(job | sections), in_process=True, progress=False)
        return done.dataset().to_table()

    return score


def command(*arguments: str, folder: Path | None = None) -> str:
    run = [sys.executable, "-m", "runner", *arguments]
    done = subprocess.run(
        run, cwd=folder, capture_output=True, text=True, timeout=60, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


X = pa.array([1.0, 2.0], pa.float32())


# Creating a SavedModel from Keras


def test_a_keras_model_is_exported_and_scored_by_its_serving_default(guide: Path, score: Score) -> None:
    images = np.eye(4, dtype=F32)
    found = score(guide / "classifier", {"image": pa.FixedSizeListArray.from_arrays(images.ravel(), 4)})
    logits = np.load(guide / "weights.npy")
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack(found["output_0"].to_numpy()), expected, rtol=1e-5)


def test_a_keras_file_that_was_saved_instead_of_exported_is_explained(guide: Path) -> None:
    with pytest.raises(ModelError, match=r"'classifier.keras' is a Keras file, not a SavedModel; export it once with"):
        read_model(str(guide / "classifier.keras"))


# Running a SavedModel in TensorFlow Serving: version folders


def test_version_folders_are_resolved_as_tensorflow_serving_does(guide: Path, score: Score, tmp_path: Path) -> None:
    base = tmp_path / "served"
    for version, model in (("1", "module_with_multiple_signatures"), ("00000012", "module_with_output_name")):
        shutil.copytree(guide / model, base / version)
    (base / "tmp-99").mkdir()
    assert read_model(str(base)).version == 12
    found = score(base, {"x": X}, model={"version": 1, "signature": "array_input"})
    assert found["output_0"].to_pylist() == [3.0, 6.0]


# The SavedModel format on disk


def test_show_tells_what_is_on_disk_assets_extra_files_and_the_fingerprint(guide: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(guide / "module_with_asset", model)
    (model / "assets.extra").mkdir()
    (model / "assets.extra" / "notes.txt").write_text("TensorFlow never reads it")
    told = json.loads(command("show", str(model), "--json"))
    assert list(told["assets"]) == ["assets/words.txt"]
    assert list(told["assets_extra"]) == ["assets.extra/notes.txt"]
    assert {"saved_model.pb", "variables/variables.index", "fingerprint.pb"} <= set(told["files"])
    theirs = tf.saved_model.experimental.read_fingerprint(str(model))
    assert told["fingerprint"]["singleprint"] == theirs.singleprint()
    assert told["fingerprint"]["saved_model_checksum"] == theirs.saved_model_checksum
    page = command("show", str(model))
    assert "words.txt (12 B)" in page
    assert "notes.txt" in page
    assert theirs.singleprint() in page


def test_assets_are_read_by_the_tables_that_need_them(guide: Path, score: Score) -> None:
    found = score(guide / "module_with_asset", {"word": [b"flow", b"?", b"tensor"]})
    assert found["id"].to_pylist() == [1, -1, 0]


def test_digest_and_fingerprint_tell_an_export_from_the_next(guide: Path) -> None:
    one, other = (read_model(str(guide / name)) for name in ("module_no_signatures", "module_with_signature"))
    assert one.digest != other.digest
    assert one.fingerprint["singleprint"] != other.fingerprint["singleprint"]


# Saving a custom model


def test_a_module_without_signatures_is_an_error_that_says_how_to_export_one(guide: Path, score: Score) -> None:
    with pytest.raises(ModelError, match=r"no signature in model .*: it was saved without one; export it again with"):
        score(guide / "module_no_signatures", {"x": X})
    page = command("show", str(guide / "module_no_signatures"))
    assert "no signatures: it cannot be called" in page
    assert "__call__(x: float32[])" in page
    assert "mutate(new_v: float32[])" in page


def test_a_call_with_another_shape_is_refused_before_anything_starts(guide: Path, score: Score) -> None:
    pairs = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    with pytest.raises(runner.RunnerError, match=r"input 'x' float32\[\?\] from column 'x'") as caught:
        score(guide / "module_with_multiple_signatures", {"x": pairs}, model={"signature": "array_input"})
    assert caught.value.exit_code == 2


# Specifying signatures during export


def test_the_only_signature_is_found_and_an_output_of_unknown_rank_has_the_shape_of_a_call(
    guide: Path, score: Score
) -> None:
    model = guide / "module_with_signature"
    for outputs in (None, {"output_0": {"shape": []}}):
        assert score(model, {"x": X}, columns={"outputs": outputs})["output_0"].to_pylist() == [3.0, 6.0]


def test_of_several_signatures_one_is_chosen_by_name(guide: Path, score: Score) -> None:
    model = guide / "module_with_multiple_signatures"
    found = score(model, {"x": X}, model={"signature": "array_input"}, columns={"outputs": {"output_0": "y"}})
    assert found["y"].to_pylist() == [3.0, 6.0]
    with pytest.raises(ModelError, match=r"no signature 'array' in model .*: it has 'array_input', 'serving_default'"):
        score(model, {"x": X}, model={"signature": "array"})


def test_named_outputs_keep_their_names(guide: Path, score: Score) -> None:
    outputs = {"custom_output_name": {"column": "tripled", "shape": []}}
    assert list(read_model(str(guide / "module_with_output_name")).metagraphs[0].signatures) == ["serving_default"]
    assert score(guide / "module_with_output_name", {"x": X}, columns={"outputs": outputs})["tripled"].to_pylist() == [
        1,
        2,
    ]


# Fine-tuning


def test_a_model_that_is_tuned_and_exported_again_is_a_new_version_which_resume_does_not_mix(
    guide: Path, score: Score, tmp_path: Path
) -> None:
    base, wanted = tmp_path / "tuned", {"signature": "array_input"}
    shutil.copytree(guide / "module_with_multiple_signatures", base / "1")
    assert score(base, {"x": X}, "first", model=wanted)["output_0"].to_pylist() == [3.0, 6.0]

    imported = tf.saved_model.load(str(base / "1"))  # the guide's basic fine-tuning: three steps towards 2
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = (imported(tf.constant(10.0)) - 20.0) ** 2
        imported.v.assign_sub(tape.gradient(loss, imported.v) * 0.001)
    tuned = float(imported.v)
    assert tuned != 3.0
    tf.saved_model.save(imported, str(base / "2"), signatures=dict(imported.signatures))

    with pytest.raises(OutputError, match=r"digest"):
        score(base, {"x": X}, "first", model=wanted)
    np.testing.assert_allclose(score(base, {"x": X}, "second", model=wanted)["output_0"], [tuned, 2 * tuned], rtol=1e-6)
    again = score(base, {"x": X}, "first", model=wanted | {"version": 1})
    assert again["output_0"].to_pylist() == [3.0, 6.0], "the first version still resumes"


# Proto splitting


def test_a_split_model_is_explained_and_the_open_source_build_cannot_write_one(guide: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="disabled in OSS"):
        tf.saved_model.SaveOptions(experimental_image_format=True)
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "saved_model.cpb").write_bytes(b"")
    with pytest.raises(
        ModelError, match=r"'saved_model.cpb' is a graph above 2 GB .* open-source TensorFlow cannot load"
    ):
        read_model(str(tmp_path / "split"))


# The SavedModel command line interface


def test_show_tells_tag_sets_signature_keys_and_tensors_as_saved_model_cli(guide: Path) -> None:
    model = str(guide / "module_with_multiple_signatures")
    theirs = Path(sys.executable).with_name("saved_model_cli")
    show = [sys.executable, str(theirs), "show", "--dir", model, "--all"]
    done = subprocess.run(show, capture_output=True, text=True, timeout=100, check=True)
    (metagraph,) = json.loads(command("show", model, "--json"))["metagraphs"]
    assert f"tag-set: '{','.join(metagraph['tags'])}'" in done.stdout
    for name, signature in metagraph["signatures"].items():
        assert f"signature_def['{name}']" in done.stdout
        assert f"Method name is: {signature['method']}" in done.stdout
        for way in ("inputs", "outputs"):
            for key, tensor in signature[way].items():
                assert f"{way}['{key}'] tensor_info:" in done.stdout
                assert f"name: {tensor['tensor']}\n" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "contains the following ops" in line]
    theirs_ops = set(line.partition("{")[2].strip("}").replace("'", "").split(", "))
    assert theirs_ops == set(metagraph["ops"])
    assert all(f"Function Name: '{name}'" in done.stdout for name in metagraph["functions"])
    assert done.stdout.count("Option #") == sum(len(options) for options in metagraph["functions"].values())
    page = command("show", model)
    for fact in ("tags serve", "array_input", "serving_default", "float32[?]", "float32[...]", "array_input_x:0"):
        assert fact in page


def test_call_takes_files_expressions_and_writes_arrays(guide: Path, tmp_path: Path) -> None:
    model = str(guide / "module_with_multiple_signatures")
    np.save(tmp_path / "x.npy", np.array([1, 2], F32))
    np.savez(tmp_path / "x.npz", a=np.array([5.0]), b=np.array([7.0]))
    for given, expected in (
        (["--inputs", "x=x.npy"], "[3. 6.]"),
        (["--inputs", "x=x.npz[b]"], "[21.]"),
        (["--exprs", "x=np.ones((2,))"], "[3. 3.]"),
        (["--signature", "array_input", "--exprs", "x=[1, -1]"], "[ 3. -3.]"),
    ):
        assert expected in command("call", model, *given, folder=tmp_path)
    command("call", model, "--exprs", "x=np.full((32, 32, 3), 2)", "--outdir", "out", folder=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "output_0.npy"), np.full((32, 32, 3), 6, F32))


def test_call_takes_examples_as_dicts(tmp_path: Path) -> None:
    module, path = tf.Module(), tmp_path / "model"
    features = {"age": tf.io.FixedLenFeature([2], tf.int64), "education": tf.io.FixedLenFeature([2], tf.string)}

    def parse(examples: Any) -> Any:
        parsed = tf.io.parse_example(examples, features)
        return {"oldest": tf.reduce_max(parsed["age"], 1), "last": parsed["education"][:, 1]}

    module.parse = tf.function(parse, input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    tf.saved_model.save(module, str(path), signatures=module.parse)
    told = json.loads(
        command("call", str(path), "--examples", 'examples=[{"age":[22,24],"education":["BS","MS"]}]', "--json")
    )
    assert (told["oldest"]["values"], told["last"]["values"]) == ([24], ["MS"])
