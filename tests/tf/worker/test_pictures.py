"""Folders of pictures, and columns of them, through a model that wants tensors: the whole command in this process."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from connectors.formats.media.picture import require_pillow
from connectors.output.verification import verify
from jobs.attempt import Success, attempt
from jobs.errors import BindingError, JobError
from jobs.job import Job
from runner.binding.picture.source import PictureSource
from runner.driver.launch import RunOptions, launch
from runner.engine import EngineOptions
from runner.preflight.preflight import preflight
from runner.worker.worker import Worker

IN_PROCESS = RunOptions(in_process=True)
ROWS, BROKEN = 20, 7
REJECT = {"on_bad_row": "reject", "max_rejected_rows": 2, "shard_rows": 6}


@pytest.fixture(scope="module")
def grey(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sum of all that a picture of 8 x 6 has in its first channel, and the first value."""
    tf = tensorflow

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 6, 3], tf.uint8, name="image")])
        def score(self, image: Any) -> Any:
            whole = tf.cast(image, tf.int64)
            return {"sum": tf.reduce_sum(whole[..., 0], [1, 2]), "first": whole[:, 0, 0, 0]}

    path = tmp_path_factory.mktemp("grey") / "model"
    module = Model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(path), signatures=module.score)
    return path


def picture(row: int) -> bytes:
    """One shade all over, of which resizing changes nothing; in formats that take turns, of another size each."""
    file = io.BytesIO()
    Image.new("RGB", (5 + row, 20 - row % 9), (10 * row, 7, 9)).save(file, ("PNG", "BMP")[row % 2])
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    for row in range(ROWS):
        (path / f"{row:02}.{('png', 'bmp')[row % 2]}").write_bytes(picture(row))
    (path / f"{BROKEN:02}.bmp").write_bytes(picture(BROKEN)[:60])
    (path / "README").write_text("pictures")
    return path


@pytest.fixture
def job(grey: Path, folder: Path, tmp_path: Path) -> Callable[..., Job]:
    def make(**sections: Any) -> Job:
        document: dict[str, Any] = {
            "model": {"url": str(grey)},
            "input": {"url": str(folder)},
            "columns": {"inputs": {"image": {"column": "bytes", "decode": {}}}, "keep": ["path"]},
            "output": {"url": str(tmp_path / "out")},
            "limits": REJECT,
        }
        return Job.model_validate(document | sections)

    return make


def scored(folder: Path) -> dict[int, tuple[int, int]]:
    table = pa.concat_tables(pq.read_table(part) for part in sorted(folder.glob("part-*")))
    rows = [int(Path(path).name[:2]) for path in table["path"].to_pylist()]
    assert rows == sorted(rows), "rows keep the order of the input"
    return dict(zip(rows, zip(table["sum"].to_pylist(), table["first"].to_pylist(), strict=True), strict=True))


EXPECTED = {row: (48 * 10 * row, 10 * row) for row in range(ROWS) if row != BROKEN}


@pytest.mark.parametrize("engine", ["session", "eager"])
def test_a_folder_of_pictures_is_scored_but_for_the_one_that_is_broken(
    job: Callable[..., Job], grey: Path, tmp_path: Path, engine: str
) -> None:
    wanted = job(model={"url": str(grey), "engine": engine})
    result = launch(wanted, IN_PROCESS)
    assert (result.rows, result.rows_rejected, result.codes) == (ROWS - 1, 1, {"ROW_IMAGE": 1})
    assert scored(tmp_path / "out") == EXPECTED
    (reject,) = result.rejects().to_pylist()
    assert (Path(reject["file"]).name, reject["row"], reject["kept"]["path"]) == ("07.bmp", 0, reject["file"])
    assert "could not decode a picture for input 'image': TensorFlow cannot decode it" in reject["message"]
    assert verify(wanted.output).holds
    report = json.loads(next((tmp_path / "out").glob("_run/*/report.json")).read_text())
    assert report["stage_seconds"]["pictures"] > 0, "a stage of its own, and no time of the model"


def test_a_part_that_is_lost_is_scored_again_and_nothing_else(job: Callable[..., Job], tmp_path: Path) -> None:
    wanted = job()
    launch(wanted, IN_PROCESS)
    parts = sorted((tmp_path / "out").glob("part-*"))
    assert len(parts) == 4
    before = {part.name: part.stat().st_mtime_ns for part in parts}
    parts[1].unlink()
    (tmp_path / "out" / "_SUCCESS").unlink()
    result = launch(wanted, RunOptions(in_process=True, repair=True))
    assert (result.rows, result.rows_rejected) == (ROWS - 1, 1)
    assert scored(tmp_path / "out") == EXPECTED
    after = {part.name: part.stat().st_mtime_ns for part in (tmp_path / "out").glob("part-*")}
    assert [name for name in before if after[name] != before[name]] == [parts[1].name]


def test_a_careful_worker_decodes_in_the_process_that_may_die(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needless(*_: Any) -> None:
        raise AssertionError(
            "nothing is decoded when the bytes of a picture are read: that takes no process of its own"
        )

    monkeypatch.setattr("runner.worker.worker.survive_decoding", needless)
    found = preflight(job(limits=REJECT | {"shard_rows": 100}))
    worker = Worker(found.spec(found.job.output), "w1", EngineOptions(threads=1), isolated=True)
    try:
        done = worker.attempt(attempt(found.plan, found.plan.shards[0], 3, 1, "0" * 12, isolated=True))
    finally:
        worker.close()
    assert isinstance(done, Success), done
    assert (done.receipt.rows_out, done.receipt.codes) == (ROWS - 1, {"ROW_IMAGE": 1})
    assert scored(tmp_path / "out") == EXPECTED


def test_calls_of_a_fixed_size_and_columns_of_parquet(job: Callable[..., Job], grey: Path, tmp_path: Path) -> None:
    rows = [None if row == 3 else b"junk" if row == BROKEN else picture(row) for row in range(ROWS)]
    table = pa.table({"path": [f"{row:02}" for row in range(ROWS)], "jpg": pa.array(rows, pa.binary())})
    (tmp_path / "rows").mkdir()
    pq.write_table(table, tmp_path / "rows" / "a.parquet", row_group_size=8)
    (tmp_path / "rows" / "preview.png").write_bytes(picture(1))
    wanted = job(
        model={"url": str(grey), "batch": 4},
        input={"url": str(tmp_path / "rows")},
        columns={"inputs": {"image": {"column": "jpg", "decode": {"resize": "nearest"}}}, "keep": ["path"]},
    )
    result = launch(wanted, IN_PROCESS)
    assert result.codes == {"ROW_NULL": 1, "ROW_IMAGE": 1}
    assert scored(tmp_path / "out") == {row: answer for row, answer in EXPECTED.items() if row != 3}


def test_two_models_that_see_one_picture_in_two_ways(job: Callable[..., Job], grey: Path, tmp_path: Path) -> None:
    def model(**decode: Any) -> dict[str, Any]:
        return {"url": str(grey), "inputs": {"image": {"column": "bytes", "decode": decode}}}

    columns = {"keep": ["path"], "outputs": {"a.sum": "sum", "b.first": "first"}}
    wanted = job(models={"a": model(), "b": model(crop="center")}, columns=columns, model=None)
    assert launch(wanted, IN_PROCESS).codes == {"ROW_IMAGE": 1}
    assert scored(tmp_path / "out") == EXPECTED


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(job: Callable[..., Job], folder: Path) -> None:
    Image.new("1", (5000, 5000)).save(folder / "00.png")  # of 3 kB
    result = launch(job(limits=REJECT | {"max_row_bytes": 10_000}), IN_PROCESS)
    assert result.codes == {"ROW_TOO_BIG": 1, "ROW_IMAGE": 1}


def test_what_becomes_of_pictures_is_told_by_the_plan(job: Callable[..., Job]) -> None:
    found = preflight(job())
    source = found.binding.inputs[0].source
    assert isinstance(source, PictureSource)
    assert (source.decode.to, source.decode.dtype) == ((8, 6, 3), "uint8")
    assert source.describe()["note"] == (
        "all of a picture to 8 x 6 RGB, bilinear, not turned, 0 to 255; alpha is dropped; CMYK is converted; of a GIF"
        " the first frame, of 16 bits the upper 8"
    )
    assert found.plan.rows == ROWS
    assert dict(found.inputs.left_out) == {"": 1}
    assert found.warnings == []


@pytest.mark.parametrize(
    ("column", "decode", "story"),
    [
        ("path", {}, "found 'decode' for string; expected a column of binary, which holds pictures"),
        (
            "bytes",
            {"to": [6, 8, 3]},
            r"found 'decode: {to: \[6, 8, 3\]}'; the tensor has rows of the shape \[8, 6, 3\]",
        ),
        ("bytes", {"dtype": "float32"}, "found 'decode: {dtype: float32}'; the tensor is of uint8"),
        ("bytes", {"scale": "after"}, "numbers from 0 to 1 want a tensor of float32"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_by_the_plan(
    job: Callable[..., Job], column: str, decode: dict[str, Any], story: str
) -> None:
    with pytest.raises(BindingError, match=story):
        preflight(job(columns={"inputs": {"image": {"column": column, "decode": decode}}}))


@pytest.mark.parametrize(
    ("decode", "limits"), [({"orientation": "exif"}, REJECT), ({}, REJECT | {"max_row_bytes": "1MiB"})], ids=str
)
def test_without_pillow_what_needs_headers_is_refused_by_the_plan(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, decode: dict[str, Any], limits: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    require_pillow.cache_clear()
    try:
        assert preflight(job()).plan.rows == ROWS
        with pytest.raises(JobError, match=r"pip install 'savedmodel-runner\[images\]'"):
            preflight(job(columns={"inputs": {"image": {"column": "bytes", "decode": decode}}}, limits=limits))
    finally:
        require_pillow.cache_clear()
