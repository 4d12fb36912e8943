"""Both engines give the same answers and the same errors; only the session engine computes no more than it is asked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import InternalError, MemoryLimitError, ModelCallError, ModelError
from runner.engine import Engine, EngineOptions, capi, load
from runner.engine.session import SessionEngine, session_config
from runner.model.signature import TensorSpec
from runner.proto.saved_model_pb2 import ConfigProto, SavedModel
from runner.tensor import Strings, Tensor

ENGINES = ("session", "eager")
ZOO = (
    *("half plus two", "no rows", "several outputs", "fixed batch", "unknown rank", "counter", "default"),
    *("whatever is asked", "vocabulary", "echo", "no strings", "recall", "remember", "keras", "every dtype", "tf1"),
)
F32 = np.float32

Load = Callable[..., Engine]
WriteTF1 = Callable[[str, Callable[..., Any]], Path]


@pytest.fixture
def load_model() -> Any:
    """load_model(engine, zoo model): an engine that is closed after the test."""
    engines: list[Engine] = []

    def load_model(engine: str, model: Any) -> Engine:
        engines.append(load(engine, model.path, model.tags, model.signature, EngineOptions(threads=2)))
        return engines[-1]

    yield load_model
    for engine in engines:
        engine.close()


@pytest.fixture
def tf1_engine(write_tf1: WriteTF1, read_signature: Callable[..., Any]) -> Any:
    """tf1_engine(name, graph): the session engine of a TF1 model, closed after the test."""
    engines: list[SessionEngine] = []

    def tf1_engine(name: str, graph: Callable[..., Any]) -> SessionEngine:
        path = write_tf1(name, graph)
        signature = read_signature(path, "serving_default")
        engines.append(SessionEngine(str(path), ("serve",), signature, EngineOptions(threads=1)))
        return engines[-1]

    yield tf1_engine
    for engine in engines:
        engine.close()


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, wanted in expected.items():
        value = found[name]
        assert value.shape == wanted.shape, name
        if isinstance(wanted, Strings):
            assert isinstance(value, Strings)
            assert value.values.to_pylist() == wanted.values.to_pylist(), name
        else:
            assert not isinstance(value, Strings)
            assert value.dtype == wanted.dtype, name
            np.testing.assert_array_equal(value, wanted, err_msg=name)


@pytest.mark.parametrize("name", ZOO)
def test_session_and_eager_give_the_expected_answer(zoo: dict[str, Any], load_model: Load, name: str) -> None:
    model = zoo[name]
    for engine in ENGINES:
        assert_equal(load_model(engine, model).run(model.feeds, list(model.expected)), model.expected)


def test_every_model_of_the_zoo_is_tried(zoo: dict[str, Any]) -> None:
    assert set(zoo) == set(ZOO)


@pytest.mark.parametrize("name", ["half plus two", "echo", "every dtype"])
def test_slices_and_strided_arrays_give_the_same_answer(zoo: dict[str, Any], load_model: Load, name: str) -> None:
    model = zoo[name]

    def shifted(value: Tensor) -> Tensor:
        if isinstance(value, Strings):
            padded = pa.concat_arrays([pa.array([b"before"], pa.large_binary()), value.values]).cast(pa.binary())
            return Strings(padded.slice(1), value.shape)
        return np.asfortranarray(value) if value.shape[1] > 1 else np.concatenate([value[:1], value])[1:]

    feeds = {input_name: shifted(value) for input_name, value in model.feeds.items()}
    for engine in ENGINES:
        assert_equal(load_model(engine, model).run(feeds, list(model.expected)), model.expected)


def test_the_session_engine_runs_where_tensorflow_is_never_imported(zoo: dict[str, Any], tmp_path: Path) -> None:
    model = zoo["vocabulary"]
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "import pyarrow as pa\n"
        "from runner.engine import EngineOptions, load\n"
        "from runner.model.saved_model import read_model\n"
        "from runner.model.signature import choose_metagraph, choose_signature\n"
        "from runner.tensor import Strings\n"
        "path = sys.argv[1]\n"
        "signature = choose_signature(choose_metagraph(read_model(path), ('serve',)), 'number', path)\n"
        "engine = load('session', path, ('serve',), signature, EngineOptions(threads=1))\n"
        "words = Strings(pa.array([b'one', b'zero', b'?']), (3,))\n"
        "assert engine.run({'word': words}, ['number'])['number'].tolist() == [1, 0, -1]\n"
        "engine.close()\n"
        "imported = [name for name in sys.modules if name.partition('.')[0] in ('tensorflow', 'keras')]\n"
        "assert not imported, imported\n"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(script), model.path],
        capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_output_that_is_not_asked_for_is_not_computed(zoo: dict[str, Any], load_model: Load) -> None:
    engine = load_model("session", zoo["whatever is asked"])
    three = {"x": np.zeros(3, F32)}
    assert engine.run(three, ["good"])["good"].tolist() == [1, 1, 1]
    with pytest.raises(ModelCallError, match="INVALID_ARGUMENT"):
        engine.run(three, ["bad"])


def test_an_output_that_cannot_be_fetched_stops_only_those_who_ask_for_it(zoo: dict[str, Any]) -> None:
    model = zoo["half plus two"]
    odd = {
        "gone": TensorSpec("gone", "float32", (None,), "nowhere:0"),
        "new": TensorSpec("new", "unknown (40)", (), "y"),
    }
    signature = replace(model.signature, outputs=model.signature.outputs | odd)
    for name in ENGINES:
        engine = load(name, model.path, model.tags, signature, EngineOptions(threads=1))
        assert_equal(engine.run(model.feeds, ["y"]), model.expected)
        with pytest.raises(ModelError, match="dtype unknown \\(40\\), which is not supported"):
            engine.run(model.feeds, ["y", "new"])
        if name == "session":
            with pytest.raises(ModelError, match="cannot find tensor 'nowhere:0' of 'gone'"):
                engine.run(model.feeds, ["gone"])
        engine.close()


def test_an_assertion_behind_another_output_does_not_run(tf1_engine: Callable[..., SessionEngine]) -> None:
    def graph(v1: Any) -> Any:
        x = v1.placeholder(v1.float32, [None], "x")
        with v1.control_dependencies([v1.Assert(v1.reduce_all(x > 0), ["x must be positive", x])]):
            checked = v1.identity(x)
        return {"x": x}, {"free": x + 1.0, "checked": checked}

    engine = tf1_engine("asserts", graph)
    feeds = {"x": np.array([-1234.5], F32)}
    assert engine.run(feeds, ["free"])["free"].tolist() == [-1233.5]
    with pytest.raises(ModelCallError, match="x must be positive") as caught:
        engine.run(feeds, ["checked"])
    assert "1234" not in caught.value.message, "an error must not tell the content of a tensor"
    assert "{{" not in caught.value.message


def test_one_tensor_may_stand_under_two_names_and_be_fed_and_fetched(tf1_engine: Callable[..., SessionEngine]) -> None:
    def graph(v1: Any) -> Any:
        x = v1.placeholder(v1.float32, [None], "x")
        double = x + x
        return {"one": x, "other": x}, {"double": double, "same": double, "fed": x}

    engine = tf1_engine("twins", graph)
    x = np.array([1, 2], F32)
    expected = {"double": x + x, "same": x + x, "fed": x}
    assert_equal(engine.run({"one": x, "other": x}, ["double", "same", "fed"]), expected)
    assert_equal(engine.run({"one": x, "other": x[:]}, ["fed"]), {"fed": x})
    with pytest.raises(ModelCallError, match="'one' and 'other' are one tensor"):
        engine.run({"one": x, "other": x.copy()}, ["double"])


def test_a_result_does_not_change_when_the_variable_behind_it_does(tf1_engine: Callable[..., SessionEngine]) -> None:
    def graph(v1: Any) -> Any:
        step = v1.placeholder(v1.float32, [2], "step")
        total = v1.get_variable("total", initializer=[1.0, 2.0], use_resource=False)
        return {"step": step}, {"total": total, "raised": v1.assign_add(total, step)}

    engine = tf1_engine("reference", graph)
    step = {"step": np.array([10, 10], F32)}
    before = engine.run(step, ["total"])["total"]
    assert engine.run(step, ["raised"])["raised"].tolist() == [11, 12]
    assert before.tolist() == [1, 2]


def test_a_string_that_a_table_keeps_outlives_the_buffer_it_was_fed_from(zoo: dict[str, Any]) -> None:
    """Both signatures belong to one model, so one session serves them both."""
    remember, recall = zoo["remember"], zoo["recall"]
    both = replace(
        remember.signature,
        inputs={"key": remember.signature.inputs["key"], "word": remember.signature.inputs["word"]},
        outputs=remember.signature.outputs | {"word": recall.signature.outputs["word"]},
    )
    asked = replace(recall.signature.inputs["key"], name="asked")
    both = replace(both, inputs=both.inputs | {"asked": replace(asked, default=np.array([7], np.int64))})
    engine = load("session", remember.path, remember.tags, both, EngineOptions(threads=1))
    memory = np.frombuffer(b"k" * 100, np.uint8).copy()
    offsets = pa.py_buffer(np.array([0, 100], np.int64))
    word = Strings(pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(memory)]), (1,))
    feeds = {"key": np.array([7], np.int64), "word": word}
    engine.run(feeds, ["size"])
    memory[:] = ord("!")
    assert engine.run(feeds, ["word"])["word"].values.to_pylist() == [b"k" * 100]  # type: ignore[union-attr]
    engine.close()


@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_wrong_call_is_an_error_that_names_the_input_or_the_output(
    zoo: dict[str, Any], load_model: Load, strings: Callable[..., Strings], engine_name: str
) -> None:
    engine = load_model(engine_name, zoo["several outputs"])
    a = np.array([1], np.int32)
    calls: list[tuple[dict[str, Tensor], str, str]] = [
        ({"a": a}, "sum", "no value for input 'b'"),
        ({"a": a, "b": a, "c": a}, "sum", "no input 'c'; choose from 'a', 'b'"),
        ({"a": a, "b": a}, "summ", "no output 'summ'; choose from 'sum', 'difference'"),
        ({"a": a, "b": a.astype(np.int64)}, "sum", "'b' is int32, carried as int32, and int64 was given"),
        ({"a": a, "b": strings([b"1"])}, "sum", "'b' is int32, and strings were given"),
        ({"a": np.zeros(2, np.int32), "b": np.zeros(3, np.int32)}, "sum", "signature 'sum_and_difference' of model"),
    ]
    for feeds, output, message in calls:
        with pytest.raises(ModelCallError, match=message) as caught:
            engine.run(feeds, [output])
        assert caught.value.facts["code"] == "INVALID_ARGUMENT"
        assert "several" not in caught.value.message
    assert capi.loans() == 0


@pytest.mark.parametrize("engine_name", ENGINES)
def test_another_batch_than_the_fixed_one_is_refused(zoo: dict[str, Any], load_model: Load, engine_name: str) -> None:
    engine = load_model(engine_name, zoo["fixed batch"])
    with pytest.raises(ModelCallError, match=r"'row_sums' of .*: input 'x' has shape \[2, 3\], and \[5, 3\] was given"):
        engine.run({"x": np.zeros((5, 3), F32)}, ["sums"])


def test_strings_that_do_not_fill_their_shape_are_refused(zoo: dict[str, Any], load_model: Load) -> None:
    values = pa.array([b"one", b"two"])
    with pytest.raises(ModelCallError, match=r"holds 2 strings for the shape \[3\]"):
        load_model("session", zoo["vocabulary"]).run({"word": Strings(values, (3,))}, ["number"])


def test_memory_that_cannot_be_had_is_a_memory_error(tf1_engine: Callable[..., SessionEngine]) -> None:
    def graph(v1: Any) -> Any:
        n = v1.placeholder(v1.int64, [], "n")
        return {"n": n}, {"zeros": v1.fill([n], 0.0)}

    engine = tf1_engine("fill", graph)
    assert engine.run({"n": np.array(3)}, ["zeros"])["zeros"].shape == (3,)
    with pytest.raises(MemoryLimitError, match="memory ran out in signature 'serving_default'") as caught:
        engine.run({"n": np.array(2**46)}, ["zeros"])
    assert caught.value.facts["code"] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_model_that_does_not_load_is_named_with_the_reason(
    zoo: dict[str, Any], tmp_path: Path, engine_name: str
) -> None:
    model = zoo["half plus two"]
    for path, tags in ((str(tmp_path), ("serve",)), (model.path, ("serve", "gpu"))):
        with pytest.raises(ModelError, match=f"cannot load model '{path}' with tags 'serve'.*: .+"):
            load(engine_name, path, tags, model.signature, EngineOptions(threads=1))


@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_composite_input_of_another_kind_is_named_as_not_supported(zoo: dict[str, Any], engine_name: str) -> None:
    model = zoo["half plus two"]
    slices = TensorSpec("q", "float32", (None, 4), "", "composite")
    signature = replace(model.signature, inputs={"q": slices})
    with pytest.raises(ModelError, match=r"'q' of signature 'half_plus_two'.* has composite encoding"):
        load(engine_name, model.path, model.tags, signature, EngineOptions(threads=1))


@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_composite_output_of_another_kind_is_an_error_only_where_it_is_asked_for(
    zoo: dict[str, Any], engine_name: str
) -> None:
    model = zoo["half plus two"]
    slices = TensorSpec("q", "float32", (None, 4), "", "composite")
    signature = replace(model.signature, outputs=model.signature.outputs | {"q": slices})
    engine = load(engine_name, model.path, model.tags, signature, EngineOptions(threads=1))
    assert_equal(engine.run(model.feeds, ["y"]), model.expected)
    with pytest.raises(ModelError, match=r"'q'.* has composite encoding"):
        engine.run(model.feeds, ["q"])
    engine.close()


@pytest.mark.parametrize(("tensor", "dtype", "reason"), [
    ("nowhere:0", "float32", "its graph has none of that name"),
    ("StatefulPartitionedCall:99", "float32", "its graph has none of that name"),
    ("half_plus_two_x:0", "int32", "in its graph it is float32"),
])  # fmt: skip
def test_a_signature_that_does_not_fit_its_graph_is_refused(
    zoo: dict[str, Any], tensor: str, dtype: str, reason: str
) -> None:
    model = zoo["half plus two"]
    wrong = replace(model.signature.inputs["x"], tensor=tensor, dtype=dtype)
    with pytest.raises(ModelError, match=reason):
        load("session", model.path, model.tags, replace(model.signature, inputs={"x": wrong}), EngineOptions(threads=1))


@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_closed_engine_answers_with_an_error(zoo: dict[str, Any], load_model: Load, engine_name: str) -> None:
    model = zoo["half plus two"]
    engine = load_model(engine_name, model)
    engine.close()
    engine.close()
    with pytest.raises(InternalError, match="its engine is closed"):
        engine.run(model.feeds, ["y"])


def test_closing_ends_a_call_in_progress(tf1_engine: Callable[..., SessionEngine], aligned: Callable[..., Any]) -> None:
    def graph(v1: Any) -> Any:
        stop = v1.placeholder(v1.int64, [], "stop")
        return {"stop": stop}, {"i": v1.while_loop(lambda i: i < stop, lambda i: i + 1, [v1.constant(0, v1.int64)])}

    engine = tf1_engine("endless", graph)
    errors: list[Exception] = []
    stop = aligned(np.array(2**60))  # TensorFlow holds aligned memory for the whole call

    def call() -> None:
        try:
            engine.run({"stop": stop}, ["i"])
        except InternalError as error:
            errors.append(error)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    while capi.loans() == 0:  # until the call has reached TensorFlow; the timeout of the test bounds it
        pass
    engine.close()
    caller.join(60)
    assert not caller.is_alive()
    assert "its engine is closed" in str(errors[0])


@pytest.mark.parametrize("engine_name", ENGINES)
def test_calls_from_several_threads_get_their_own_answers(
    zoo: dict[str, Any], load_model: Load, engine_name: str
) -> None:
    engine = load_model(engine_name, zoo["half plus two"])

    def call(number: int) -> bool:
        x = np.full((1 + number, 1), number, F32)
        return bool((engine.run({"x": x}, ["y"])["y"] == x / 2 + 2).all())

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(call, range(100)))
    assert capi.loans() == 0


@pytest.mark.parametrize("engine_name", ENGINES)
def test_an_engine_names_its_devices(zoo: dict[str, Any], load_model: Load, engine_name: str) -> None:
    assert load_model(engine_name, zoo["half plus two"]).devices == ("/device:CPU:0",)


def test_a_session_is_configured_by_its_options() -> None:
    cpu = ConfigProto.FromString(session_config(EngineOptions(threads=3)))
    assert (cpu.intra_op_parallelism_threads, cpu.inter_op_parallelism_threads) == (3, 2)
    assert cpu.device_count["GPU"] == 0
    assert cpu.allow_soft_placement
    assert ConfigProto.FromString(session_config(EngineOptions(threads=1))).inter_op_parallelism_threads == 1
    gpu = ConfigProto.FromString(session_config(EngineOptions(threads=1, gpu=True, gpu_memory_fraction=0.25)))
    assert "GPU" not in gpu.device_count
    assert gpu.gpu_options.allow_growth
    assert gpu.gpu_options.per_process_gpu_memory_fraction == 0.25


def test_tables_that_only_python_objects_set_up_name_the_engine_that_does(
    zoo: dict[str, Any], load_model: Load, tmp_path: Path
) -> None:
    """As exporters write them that leave out the op which sets tables up."""
    model = zoo["vocabulary"]
    path = tmp_path / "model"
    shutil.copytree(model.path, path)
    saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    del saved.meta_graphs[0].signature_def["__saved_model_init_op"]
    del saved.meta_graphs[0].collection_def["saved_model_main_op"]
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())
    without = replace(model, path=str(path))
    with pytest.raises(ModelError, match=r"Table not initialized.*run it with `model: \{engine: eager\}`, which sets"):
        load_model("session", without).run(model.feeds, list(model.expected))
    assert_equal(load_model("eager", without).run(model.feeds, list(model.expected)), model.expected)
