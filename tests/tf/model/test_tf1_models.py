"""Models in the style of TensorFlow 1, run in a session: reference variables, metagraphs, parsing and table ops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import ModelError
from jobs.job import Job
from jobs.section.columns import Columns
from runner import engine
from runner.driver.launch import RunOptions, launch
from runner.engine import EngineOptions
from runner.model.saved_model import read_model
from runner.model.signature import choose_metagraph, choose_signature
from runner.preflight.preflight import preflight
from runner.tensor import Strings


@pytest.fixture(scope="session")
def old_model(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """{serve}: y = 3 x, and `parsed` and `number` beside it; {serve, gpu}: y = 3 x + 1, with the same variable."""
    v1, path = tensorflow.compat.v1, tmp_path_factory.mktemp("tf1") / "old"
    words = path.parent / "words.txt"
    words.write_text("zero\none\n")
    builder = v1.saved_model.Builder(str(path))

    def signature(inputs: dict[str, Any], outputs: dict[str, Any], method: str = "tensorflow/serving/predict") -> Any:
        info = v1.saved_model.build_tensor_info
        known = [{name: info(tensor) for name, tensor in each.items()} for each in (inputs, outputs)]
        return v1.saved_model.build_signature_def(*known, method)

    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(v1.float32, [None], "x")
        w = v1.get_variable("w", initializer=3.0, use_resource=False)
        examples = v1.placeholder(v1.string, [None], "examples")
        a = v1.parse_example(examples, {"a": v1.FixedLenFeature([1], v1.float32)})["a"]
        word = v1.placeholder(v1.string, [None], "word")
        table = v1.lookup.StaticHashTable(
            tensorflow.lookup.TextFileInitializer(
                str(words),
                tensorflow.string,
                tensorflow.lookup.TextFileIndex.WHOLE_LINE,
                tensorflow.int64,
                tensorflow.lookup.TextFileIndex.LINE_NUMBER,
            ),
            -1,
        )
        number = table.lookup(word)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "serving_default": signature({"x": x}, {"y": w * x}),
                "parsed": signature({"inputs": examples}, {"outputs": w * a}, "tensorflow/serving/regress"),
                "number": signature({"word": word}, {"number": number}),
            },
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
    with v1.Graph().as_default(), v1.Session(config=v1.ConfigProto(allow_soft_placement=True)) as session:
        with v1.device("/gpu:0"):
            x = v1.placeholder(v1.float32, [None], "x")
            y = v1.get_variable("w", initializer=3.0, use_resource=False) * x + 1.0
        session.run(v1.global_variables_initializer())
        builder.add_meta_graph(["serve", "gpu"], {"serving_default": signature({"x": x}, {"y": y})})
    builder.save()
    return path


@pytest.fixture(scope="session")
def shapeless(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`rank`: y = 2 x, both of unknown rank; `scalar`: the same of [?, 1], which its signature calls scalars."""
    v1, path = tensorflow.compat.v1, tmp_path_factory.mktemp("tf1") / "shapeless"
    builder = v1.saved_model.Builder(str(path))
    signatures = {}
    with v1.Graph().as_default(), v1.Session() as session:
        for name, shape in (("rank", None), ("scalar", [None, 1])):
            x = v1.placeholder(v1.float32, shape, f"{name}_x")
            infos = [{key: v1.saved_model.build_tensor_info(each)} for key, each in (("x", x), ("y", 2 * x))]
            if name == "scalar":
                for each in infos:
                    del next(iter(each.values())).tensor_shape.dim[:]
            signatures[name] = v1.saved_model.build_signature_def(*infos, "tensorflow/serving/predict")
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
    builder.save()
    return path


@pytest.mark.parametrize("signature", ["rank", "scalar"])
def test_the_graph_and_a_call_say_what_a_signature_leaves_out(shapeless: Path, tmp_path: Path, signature: str) -> None:
    values = np.arange(6, dtype=np.float32)
    pq.write_table(pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(values), 1)}), tmp_path / "in.parquet")
    job = Job.model_validate(
        {
            "model": {"url": str(shapeless), "signature": signature},
            "input": {"url": str(tmp_path / "in.parquet")},
            "output": {"url": str(tmp_path / "out")},
        }
    )
    done = launch(job, RunOptions(in_process=True))
    assert done.dataset().to_table()["y"].to_pylist() == (2 * values).tolist(), "one value a row, as the call showed"
    notes = preflight(job).notes
    assert [note.partition(" is ")[0] for note in notes] == ["input 'x'"] * (signature == "scalar") + [
        "the rank of output 'y'"
    ]
    assert "`outputs: {y: {shape: []}}` in the job saves that" in notes[-1]
    said = job.model_copy(update={"columns": Columns.model_validate({"outputs": {"y": {"shape": []}}})})
    assert preflight(said).plan.id == done.plan_id, "it is the same plan without the call"
    assert launch(said, RunOptions(in_process=True)).rows_run == 0
    np.testing.assert_array_equal(call(shapeless, None, signature, x=values[:, None]), 2 * values[:, None])


def call(path: Path, tags: tuple[str, ...] | None, name: str, **feeds: Any) -> Any:
    metagraph = choose_metagraph(read_model(str(path)), tags)
    signature = choose_signature(metagraph, name, str(path))
    loaded = engine.load("session", str(path), metagraph.tags, signature, EngineOptions(threads=1))
    try:
        (answer,) = loaded.run(feeds, list(signature.outputs)).values()
    finally:
        loaded.close()
    return answer


X = np.array([1, 2], np.float32)


def test_reference_variables_are_restored(old_model: Path) -> None:
    np.testing.assert_array_equal(call(old_model, None, "serving_default", x=X), [3, 6])


def test_each_of_several_metagraphs_is_found_by_its_tags_and_runs_without_its_gpu(old_model: Path) -> None:
    np.testing.assert_array_equal(call(old_model, ("serve", "gpu"), "serving_default", x=X), [4, 7])
    np.testing.assert_array_equal(call(old_model, ("gpu", "serve"), "serving_default", x=X), [4, 7])
    with pytest.raises(ModelError, match=r"no metagraph with tags 'gpu' .*: it has 'serve', 'gpu,serve'"):
        call(old_model, ("gpu",), "serving_default", x=X)


def test_parsing_ops_take_serialised_examples(old_model: Path, tensorflow: Any) -> None:
    train = tensorflow.train
    examples = [
        train.Example(
            features=train.Features(feature={"a": train.Feature(float_list=train.FloatList(value=[value]))})
        ).SerializeToString()
        for value in (1.0, 5.0)
    ]
    answer = call(old_model, ("serve",), "parsed", inputs=Strings(pa.array(examples, pa.large_binary()), (2,)))
    np.testing.assert_array_equal(answer, [[3], [15]])


def test_tables_are_filled_from_assets_by_the_main_op(old_model: Path) -> None:
    asked = Strings(pa.array([b"one", b"two", b"zero"], pa.large_binary()), (3,))
    np.testing.assert_array_equal(call(old_model, ("serve",), "number", word=asked), [1, -1, 0])


def test_a_job_names_its_metagraph_by_tags(old_model: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array(range(10), pa.float32())}), tmp_path / "in.parquet")
    job = Job.model_validate(
        {
            "model": {"url": str(old_model), "tags": ["serve", "gpu"]},
            "input": {"url": str(tmp_path / "in.parquet")},
            "output": {"url": str(tmp_path / "out")},
        }
    )
    assert launch(job, RunOptions(in_process=True)).rows == 10
    assert pq.read_table(next((tmp_path / "out").glob("part-*")))["y"].to_pylist() == [3 * x + 1 for x in range(10)]
