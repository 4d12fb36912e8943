"""The demo as a user meets it. The job is run elsewhere: here the model answers, and the tests write the parts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.examples import digits
from jobs.job import Job

ROOT = Path(digits.__file__).parents[2]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder that `prepare` made, and what it printed."""
    folder = tmp_path_factory.mktemp("digits") / "demo"
    command = [sys.executable, "-m", "jobs.examples.digits", "prepare", "--folder", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return folder, subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def demo(prepared: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    folder, finished = prepared
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="session")
def signature(demo: Path) -> Any:
    # Lazy, so that collecting the tests stays quick.
    import tensorflow as tf

    model = tf.saved_model.load(str(demo / "model" / "1"))
    # A signature does not keep its model alive, and without it has no weights.
    return model.signatures["serving_default"], model


@pytest.fixture(scope="session")
def answers(demo: Path, signature: Any) -> pa.Table:
    """What a job writes: the model's answers beside the columns that are kept."""
    rows = pq.read_table(demo / "input")
    images = np.concatenate([chunk.to_numpy_ndarray() for chunk in rows["image"].chunks])
    said = signature[0](image=images)
    columns = {
        "digit": said["digit"].numpy(),
        "probabilities": pa.FixedShapeTensorArray.from_numpy_ndarray(said["probabilities"].numpy()),
    }
    return pa.table(columns | {name: rows[name] for name in ("id", "label", "held_out")})


@pytest.fixture
def folder(demo: Path, tmp_path: Path) -> Path:
    """A demo folder of the test's own, with what a running job leaves beside its parts."""
    shutil.copytree(demo / "input", tmp_path / "input")
    (tmp_path / "output" / "_run").mkdir(parents=True)
    (tmp_path / "output" / "_SUCCESS").write_text("{}")
    (tmp_path / "output" / "_run" / "part-00000.parquet").write_text("a draft, not to be read")
    return tmp_path


@pytest.fixture
def write_parts(folder: Path) -> Callable[[pa.Table], None]:
    """Writes a table as two parts, the second half of the rows in the first of them."""

    def write(table: pa.Table) -> None:
        half = len(table) // 2
        for index, part in enumerate((table.slice(half), table.slice(0, half))):
            pq.write_table(part, folder / "output" / f"part-{index:05}-of-00002-0a1b2c3d.parquet")

    return write


def report(folder: Path) -> int:
    return digits.main(["report", "--folder", str(folder)])


def with_digit(table: pa.Table, said: Any) -> pa.Table:
    return table.set_column(table.column_names.index("digit"), "digit", pa.array(said))


def test_prepare_says_what_it_made_and_tensorflow_says_nothing(
    prepared: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, finished = prepared
    assert finished.stderr == ""
    made_input, made_model, made_challenger, run, look = finished.stdout.splitlines()
    assert made_input == f"{folder / 'input'}: 1,797 digits in 8 files, 540 of them held out"
    assert made_model.startswith(
        f"{folder / 'model' / '1'}: SavedModel, trained on 1,257 digits; accuracy on the others: 0.9"
    )
    assert made_challenger.startswith(
        f"{folder / 'challenger' / '1'}: the same with weights of 4 bits, trained on 1,257"
    )
    assert look == f"then: python -m jobs.examples.digits report --folder '{folder}'"
    assert run.startswith(f"next: runner run {Path('jobs/examples/digits.yaml')} --set 'model.url={folder / 'model'}'")


def test_the_input_holds_every_digit_once_in_files_of_several_row_groups(demo: Path) -> None:
    paths = sorted((demo / "input").iterdir())
    assert [path.name for path in paths] == [f"digits-{number}.parquet" for number in range(8)]
    assert all(pq.ParquetFile(path).num_row_groups == 4 for path in paths)
    rows = pa.concat_tables([pq.ParquetFile(path).read() for path in paths])
    assert rows["id"].to_pylist() == list(range(1797))
    assert rows.schema.field("image").type == pa.fixed_shape_tensor(pa.uint8(), [8, 8])
    assert [str(rows.schema.field(name).type) for name in ("id", "label", "held_out")] == ["int64", "int64", "bool"]
    assert sum(rows["held_out"].to_pylist()) == 540
    assert set(rows["label"].to_pylist()) == set(range(10))


def test_the_first_image_is_the_zero_that_scikit_learn_ships(demo: Path) -> None:
    first = pq.ParquetFile(demo / "input" / "digits-0.parquet").read().slice(0, 1)
    assert first["label"].to_pylist() == [0]
    image = first["image"].chunk(0).to_numpy_ndarray()[0]
    assert image[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert image.max() == 15


def test_the_job_file_is_a_job_whose_names_are_those_of_model_and_input(demo: Path, signature: Any) -> None:
    job = Job.model_validate(yaml.safe_load(digits.JOB_FILE.read_text(encoding="utf-8")))
    _, inputs = signature[0].structured_input_signature
    assert {name: column.column for name, column in job.columns.inputs.items()} == dict.fromkeys(inputs, "image")
    assert set(job.columns.outputs or {}) == set(signature[0].structured_outputs)
    assert set(job.columns.keep) <= set(pq.read_schema(demo / "input" / "digits-0.parquet").names)
    assert (job.model.url, job.input.url, job.output.url) == ("demo/model", ("demo/input/*.parquet",), "demo/output")


def test_the_signature_takes_pixels_as_they_are_stored_and_names_its_answers(signature: Any) -> None:
    _, inputs = signature[0].structured_input_signature
    outputs = signature[0].structured_outputs
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in inputs.items()} == {
        "image": ("uint8", [None, 8, 8])
    }
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in outputs.items()} == {
        "digit": ("int64", [None]),
        "probabilities": ("float32", [None, 10]),
    }


def test_the_model_reads_nine_in_ten_digits_it_was_not_trained_on(answers: pa.Table) -> None:
    held_out = answers.filter(answers["held_out"])
    assert len(held_out) == 540
    assert np.mean(held_out["digit"].to_numpy() == held_out["label"].to_numpy()) > 0.9


def test_the_digit_is_the_likeliest_and_the_probabilities_sum_to_one(answers: pa.Table) -> None:
    probabilities = np.concatenate([chunk.to_numpy_ndarray() for chunk in answers["probabilities"].chunks])
    assert (probabilities.argmax(axis=1) == answers["digit"].to_numpy()).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_challenger_is_the_same_model_with_coarser_weights(demo: Path, signature: Any, answers: pa.Table) -> None:
    # Lazy, so that collecting the tests stays quick.
    import tensorflow as tf

    challenger = tf.saved_model.load(str(demo / "challenger" / "1"))
    rows = pq.read_table(demo / "input")
    images = np.concatenate([chunk.to_numpy_ndarray() for chunk in rows["image"].chunks])
    said = challenger.signatures["serving_default"](image=images)["digit"].numpy()
    assert 0.99 < np.mean(said == answers["digit"].to_numpy()) < 1, "else there is nothing to compare"


def test_a_second_prepare_makes_nothing(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert digits.main(["prepare", "--folder", str(demo)]) == 0
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before
    assert capsys.readouterr().out.count("there already, kept") == 3


def test_prepare_makes_what_is_missing_and_keeps_the_rest(
    demo: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> float:
        raise AssertionError("the model was there")

    monkeypatch.setattr(digits, "train", refuse)
    for name in digits.WEIGHT_BITS:
        (folder / name / "1").mkdir(parents=True)
    (folder / "input" / "digits-3.parquet").unlink()
    digits.prepare(folder)
    for path in (demo / "input").iterdir():
        assert (folder / "input" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(AssertionError, match="the model was there"):
        digits.prepare(folder, force=True)


def test_an_interrupted_prepare_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    def write_half() -> None:
        with digits._complete_or_absent(tmp_path / "model" / "1") as draft:
            draft.mkdir()
            (draft / "saved_model.pb").write_text("half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list((tmp_path / "model").iterdir()) == []


def test_what_tensorflow_says_is_shown_after_all_when_training_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def speak(line: bytes, error: Exception | None = None) -> None:
        with digits._quiet_stderr():
            os.write(2, line)
            if error:
                raise error

    speak(b"chatter\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match="no"):
        speak(b"the cause\n", ValueError("no"))
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "the cause\nafterwards\n"


def test_report_prints_the_accuracy_and_draws_the_digits(
    folder: Path, write_parts: Callable[[pa.Table], None], answers: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    # Whatever the model said: right about all but three that were held out, and one that was not.
    labels, held_out = answers["label"].to_numpy(), answers["held_out"].to_numpy()
    said = labels.copy()
    eights, threes = (np.flatnonzero(held_out & (labels == label)) for label in (8, 3))
    said[eights[:2]], said[threes[0]], said[np.flatnonzero(~held_out)[0]] = 1, 5, 9
    write_parts(with_digit(answers, said))
    assert report(folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "every one of 1,797 ids is there once",
        "accuracy on all 1,797 digits: 0.998",
        "accuracy on 540 digits the model has not seen: 0.994",
        "commonest mix-ups among them: 8 taken for 1 (2 times); 3 taken for 5 (once)",
        f"{folder / 'digits.png'}: some of these digits, with what the model said",
    ]
    picture = (folder / "digits.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20], "big") == 1800
    assert b"tEXt" not in picture
    assert b"tIME" not in picture


def test_the_same_answers_in_other_parts_give_the_same_picture(
    folder: Path, write_parts: Callable[[pa.Table], None], answers: pa.Table
) -> None:
    write_parts(answers)
    assert report(folder) == 0
    picture = (folder / "digits.png").read_bytes()
    write_parts(answers.take(pa.array(np.random.default_rng(1).permutation(len(answers)))))
    assert digits.main(["report", "--folder", str(folder), "--picture", str(folder / "new" / "other.png")]) == 0
    assert (folder / "new" / "other.png").read_bytes() == picture


def test_the_picture_shows_misread_digits_first_and_at_most_a_third_of_it() -> None:
    labels, held_out = np.arange(400) % 10, np.arange(400) >= 100
    for misread in (0, 5, 32, 100, 300):
        said = labels.copy()
        said[100 : 100 + misread] += 1
        said[:50] += 1  # trained on: never drawn
        answers = digits.Answers(np.arange(400), said, labels, held_out)
        rows = digits._chosen(answers)
        first = min(misread, 32)
        assert rows[:first].tolist() == list(range(100, 100 + first))
        assert answers.right[rows[first:]].all()
        assert held_out[rows].all()
        assert len(set(rows.tolist())) == len(rows) == (96 if misread < 300 else 32)


def test_report_fails_on_a_doubled_a_missing_and_an_unknown_id(
    folder: Path, write_parts: Callable[[pa.Table], None], answers: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = answers["id"].to_numpy().copy()
    ids[17], ids[20] = 16, 5000
    write_parts(answers.set_column(answers.column_names.index("id"), "id", pa.array(ids)))
    assert report(folder) == 65
    assert capsys.readouterr().err == (
        f"error: wrong ids in '{folder / 'output'}': 1 more than once, the first is 16; 2 not there, the first is 17; "
        "1 not in the input, the first is 5000; expected each of 1,797 ids once\n"
    )
    assert not (folder / "digits.png").exists()


def test_report_fails_on_a_row_written_twice(
    folder: Path, write_parts: Callable[[pa.Table], None], answers: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parts(pa.concat_tables([answers, answers.slice(40, 1)]))
    assert report(folder) == 65
    assert "1 more than once, the first is 40; expected" in capsys.readouterr().err


def test_report_draws_poor_answers_and_then_fails(
    folder: Path, write_parts: Callable[[pa.Table], None], answers: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parts(with_digit(answers, np.zeros(len(answers), np.int64)))
    assert report(folder) == 65
    assert "accuracy on digits not trained on is 0.10; expected at least 0.9" in capsys.readouterr().err
    assert (folder / "digits.png").exists()


def test_report_says_what_to_do_where_there_is_no_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(folder) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: no 'part-*.parquet' in '{folder / 'output'}': there is nothing to report on; run ")
    assert "digits.yaml" in error


def test_report_names_a_column_that_the_output_lacks(
    folder: Path, write_parts: Callable[[pa.Table], None], answers: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parts(answers.drop_columns(["held_out"]))
    assert report(folder) == 2
    assert f"no column 'held_out' in '{folder / 'output'}'" in capsys.readouterr().err


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert digits.main(["prepare", "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: cannot prepare the demo: no module 'sklearn'; install it with: pip install 'savedmodel-runner[demo]'\n"
    )
