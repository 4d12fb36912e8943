"""Images of several sizes through a model that takes any: the answers that TensorFlow gives to each row alone."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import DataError
from jobs.job import Job
from runner.driver.launch import RunOptions, launch

KIND = pa.list_(pa.list_(pa.list_(pa.uint8(), 3)))


@pytest.fixture(scope="module")
def edges(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mean of an image that a kernel was drawn over, which borders change, and its pixels inverted."""
    tf = tensorflow

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="image")])
        def score(self, image: Any) -> Any:
            drawn = tf.nn.conv2d(tf.cast(image, tf.float32), tf.ones([3, 3, 3, 2]), 1, "SAME")
            return {"mean": tf.reduce_mean(drawn, [1, 2]), "inverted": 255 - image}

    path = tmp_path_factory.mktemp("edges") / "model"
    module = Model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(path), signatures=module.score)
    return path


@pytest.fixture(scope="module")
def images() -> list[Any]:
    draw = np.random.default_rng(3)
    sizes = [(2, 3), (3, 2), (4, 4), (1, 1)]
    return [draw.integers(0, 256, (*sizes[draw.integers(4)], 3), np.uint8) for _ in range(60)]


def job(folder: Path, source: Path, **sections: Any) -> Job:
    document = {
        "model": {"url": str(folder), **sections.pop("model", {})},
        "input": {"url": str(source)},
        "columns": {"keep": ["id"]},
        "output": {"url": str(source.parent / "out")},
        **sections,
    }
    return Job.model_validate(document)


def write(path: Path, rows: list[Any], row_group_size: int = 25) -> Path:
    table = pa.table({"id": range(len(rows)), "image": pa.array(rows, KIND)})
    pq.write_table(table, path / "in.parquet", row_group_size=row_group_size)
    return path / "in.parquet"


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"engine": "session"}, "limits": {"batch_rows": 4}},
        {"model": {"engine": "eager"}},
        {"limits": {"batch_rows": 3, "reproducible": True}},
    ],
    ids=["session", "eager", "reproducible"],
)
def test_every_image_has_the_answer_that_it_has_alone(
    tensorflow: Any, edges: Path, images: list[Any], tmp_path: Path, sections: Any
) -> None:
    source = write(tmp_path, [image.tolist() for image in images])
    result = launch(job(edges, source, **sections), RunOptions(in_process=True))
    found = pa.concat_tables(pq.read_table(part) for part in result.parts)
    model = tensorflow.saved_model.load(str(edges)).signatures["serving_default"]
    alone = [model(image=tensorflow.constant(image[None])) for image in images]
    assert found["id"].to_pylist() == list(range(60))
    assert np.allclose(found["mean"].to_pylist(), [answer["mean"][0] for answer in alone], rtol=1e-6)
    assert found["inverted"].to_pylist() == [answer["inverted"][0].numpy().tolist() for answer in alone]
    most = sections.get("limits", {}).get("batch_rows", 60)
    shapes = [Counter(image.shape for image in images[at : at + 25]) for at in (0, 25, 50)]
    batches = sum(-(-count // most) for row_group in shapes for count in row_group.values())
    assert result.report["shapes"] == {"rows": 60, "batches": batches}
    assert f"60 rows of several shapes in {batches} batches" in result.summary()


def test_an_image_of_no_shape_is_a_bad_row_and_named(edges: Path, images: list[Any], tmp_path: Path) -> None:
    rows = [image.tolist() for image in images]
    rows[33] = [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]
    source = write(tmp_path, rows)
    with pytest.raises(DataError, match=r"row group 1 row 8\]") as caught:
        launch(job(edges, source), RunOptions(in_process=True))
    assert caught.value.facts["code"] == "ROW_SHAPE"
    rows[7], where = None, {"url": str(tmp_path / "lenient")}  # of no shape: no value fills it
    source = write(tmp_path, rows)
    lenient = {"on_bad_row": "reject", "max_rejected_rows": 2, "batch_rows": 5}
    rule = {"inputs": {"image": {"column": "image", "null": {"fill": 0}}}, "keep": ["id"]}
    made = job(edges, source, limits=lenient, output=where, columns=rule)
    result = launch(made, RunOptions(in_process=True))
    found = pa.concat_tables(pq.read_table(part) for part in result.parts)
    assert found["id"].to_pylist() == [number for number in range(60) if number not in (7, 33)]
    assert result.codes == {"ROW_NULL": 1, "ROW_SHAPE": 1}
