"""`runner init`: the job file that it writes is one, and says what it found, what it guessed and what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from connectors.formats.tfrecord.example import encode
from connectors.formats.tfrecord.record import framed
from jobs.load import load_job

Completed = subprocess.CompletedProcess[str]
Command = Callable[..., Completed]

_MODELS = """
import sys
import tensorflow as tf

def save(name, **specs):
    signatures = {}
    for signature, tensors in specs.items():
        tensors = {key: tf.TensorSpec(shape, dtype, name=key) for key, (shape, dtype) in tensors.items()}
        def call(**given):
            first = given[max(given)]
            number = tf.cast(tf.strings.length(first) if first.dtype == tf.string else first, tf.float32)
            return {"score": number + sum(0.0 for _ in given)}
        call.__name__ = signature
        signatures[signature] = tf.function(call).get_concrete_function(**tensors)
    module = tf.Module()
    module.kept = list(signatures.values())
    tf.saved_model.save(module, f"{sys.argv[1]}/{name}", signatures=signatures)

f, i, s = tf.float32, tf.int64, tf.string
save("named", serving_default={"x": ([None], f), "flag": ([], tf.bool)})
save("near", serving_default={"age_input": ([None], f), "town": ([None], s), "features": ([None, 3], f)})
save("several", embed={"x": ([None], f)}, classify={"x": ([None], f)})
save("versions/1", serving_default={"x": ([None], f)})
save("versions/12", serving_default={"x": ([None], f)})
save("examples", serving_default={"examples": ([None], s)})
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drafts")
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", _MODELS, str(folder)], check=True, env=quiet, stderr=subprocess.DEVNULL)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """table(x=[...], ...): a folder of two Parquet files with these columns."""

    def write(**columns: pa.Array) -> Path:
        folder = tmp_path / "in"
        folder.mkdir()
        for part in "ab":
            pq.write_table(pa.table(columns), folder / f"{part}.parquet")
        return folder

    return write


_FLOATS = pa.array([1.0, 2.0], pa.float32())


def test_what_names_tell_is_written_down_and_the_file_passes_plan(
    command: Command, models: Path, table: Callable[..., Path], tmp_path: Path
) -> None:
    done = command("init", str(models / "versions"), str(table(x=_FLOATS, id=pa.array([1, 2]))), "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote job.yaml: runner plan job.yaml\n"
    text = (tmp_path / "job.yaml").read_text()
    assert "    x: x  # float32[?]\n" in text
    assert "# keep: [id]" in text
    assert "# parquet, 2 files" in text
    job = load_job(text, "job.yaml")
    assert (job.model.url, job.output.url) == (str(models / "versions"), "out")
    planned = command("plan", "job.yaml")
    assert planned.returncode == 0, planned.stderr


def test_a_file_that_is_there_is_replaced_only_where_that_is_said(
    command: Command, models: Path, table: Callable[..., Path], tmp_path: Path
) -> None:
    source = str(table(x=_FLOATS))
    (tmp_path / "job.yaml").write_text("mine")
    done = command("init", str(models / "versions"), source)
    assert done.returncode == 2
    assert "cannot write 'job.yaml': it is there; choose another name by --file, or --overwrite" in done.stderr
    assert (tmp_path / "job.yaml").read_text() == "mine"
    assert command("init", str(models / "versions"), source, "--file", "other.yaml").returncode == 0
    assert command("init", str(models / "versions"), source, "--overwrite").returncode == 0
    assert (tmp_path / "job.yaml").read_text() == (tmp_path / "other.yaml").read_text()
    shown = command("init", str(models / "versions"), source, "--file", "-")
    assert shown.stdout == (tmp_path / "other.yaml").read_text()


def test_what_is_missing_is_a_todo_with_what_is_expected(
    command: Command, models: Path, table: Callable[..., Path], tmp_path: Path
) -> None:
    done = command("init", str(models / "named"), str(table(a=_FLOATS, b=_FLOATS)))
    assert "complete the lines that say TODO ('flag', 'x'), then runner plan job.yaml" in done.stdout
    text = (tmp_path / "job.yaml").read_text()
    assert "    # TODO x: COLUMN  # float32[?]; these fit: a, b\n" in text
    assert "    # TODO flag: ...  # bool[]; no column fits: the same for all rows, `{constant: VALUE}`\n" in text
    load_job(text, "job.yaml")  # a job all the same
    assert command("plan", "job.yaml").returncode == 2
    completed = text.replace("  # inputs:", "  inputs:").replace("    # TODO x: COLUMN", "    x: a")
    completed = completed.replace("    # TODO flag: ...", "    flag: {constant: false}")
    (tmp_path / "job.yaml").write_text(completed)
    assert command("plan", "job.yaml").returncode == 0, "it is completed where it stands"


def test_guesses_by_near_names_fields_of_structs_and_numbered_columns_are_marked_and_pass_plan(
    command: Command, models: Path, table: Callable[..., Path], tmp_path: Path
) -> None:
    user = pa.array([{"age": 1.0, "height": 2.0}] * 2, pa.struct({"age": pa.float32(), "height": pa.float32()}))
    columns = {f"f{number}": _FLOATS for number in range(3)}
    source = table(user=user, city=pa.array(["a", "b"]), **columns)
    done = command("init", str(models / "near"), str(source))
    assert done.stdout == "wrote job.yaml: runner plan job.yaml\n", done.stderr
    text = (tmp_path / "job.yaml").read_text()
    assert "    age_input: user.age  # float32[?]; a guess: a near name, and it fits\n" in text
    assert "    town: city  # string[?]; a guess: the only column that fits\n" in text
    assert '    features: {stack: "f*"}  # float32[?, 3]; a guess: as many columns as the tensor is wide\n' in text
    planned = command("plan", "job.yaml")
    assert planned.returncode == 0, planned.stderr


def test_of_several_signatures_one_is_chosen_and_the_others_are_named(
    command: Command, models: Path, table: Callable[..., Path], tmp_path: Path
) -> None:
    source = str(table(x=_FLOATS))
    assert command("init", str(models / "several"), source).returncode == 0
    text = (tmp_path / "job.yaml").read_text()
    assert yaml.safe_load(text)["model"]["signature"] in ("classify", "embed")
    assert "  # others: " in text.splitlines()[0]
    done = command("init", str(models / "several"), source, "--signature", "embed", "--overwrite")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "job.yaml").read_text()
    assert "signature: embed}  # others: classify\n" in text
    assert command("plan", "job.yaml").returncode == 0
    assert (
        "it has 'classify', 'embed'"
        in command("init", str(models / "several"), source, "--file", "-", "--signature", "x").stderr
    )


def _records(folder: Path) -> Path:
    folder.mkdir()
    rows = encode([("x", pa.array([[1.0], [2.0]], pa.list_(pa.float32())))], 2)
    (folder / "a.tfrecord").write_bytes(framed(rows).to_pybytes())
    return folder


def test_records_feed_a_model_of_examples_as_they_are_and_others_by_what_is_in_them(
    command: Command, models: Path, tmp_path: Path
) -> None:
    source = str(_records(tmp_path / "in"))
    assert command("init", str(models / "examples"), source).returncode == 0
    assert "    examples: record  # string[?]" in (tmp_path / "job.yaml").read_text()
    assert command("plan", "job.yaml").returncode == 0
    assert command("init", str(models / "versions"), source, "--overwrite").returncode == 0
    text = (tmp_path / "job.yaml").read_text()
    assert "format: tfrecord, examples: infer}" in text
    assert "    x: x  # float32[?]\n" in text
    assert command("plan", "job.yaml").returncode == 0


def test_a_model_of_examples_is_told_how_columns_make_them(
    command: Command, models: Path, table: Callable[..., Path], tmp_path: Path
) -> None:
    assert command("init", str(models / "examples"), str(table(age=_FLOATS, n=pa.array([1, 2])))).returncode == 0
    text = (tmp_path / "job.yaml").read_text()
    assert "made by `{example: {columns: [age, n]}}`" in text
    completed = text.replace("  # inputs:", "  inputs:").replace(
        "    # TODO examples: ...", "    examples: {example: {columns: [age, n]}}"
    )
    (tmp_path / "job.yaml").write_text(completed)
    assert command("plan", "job.yaml").returncode == 0


def test_a_model_or_an_input_that_is_not_there_is_told_and_nothing_is_written(
    command: Command, models: Path, tmp_path: Path
) -> None:
    assert command("init", str(models / "nowhere"), "in").returncode == 2
    assert command("init", str(models / "versions"), "nowhere").returncode == 2
    assert not (tmp_path / "job.yaml").exists()
