"""A zoo of small SavedModels, written once per session, with answers one computes in the head."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compiled_models
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from runner.model.saved_model import read_model
from runner.model.signature import Signature, choose_metagraph, choose_signature
from runner.tensor import DTYPES, NARROW, Strings, Tensor

WORDS = [b"a", b"", b"twenty-two bytes long!!", b"x" * 22, b"y" * 23, "größer".encode(), b"nul\0inside", b"z" * 5000]


@dataclass(frozen=True)
class ZooModel:
    """A model folder, one of its signatures, one call and its answer."""

    path: str
    tags: tuple[str, ...]
    signature: Signature
    feeds: Mapping[str, Tensor]
    expected: Mapping[str, Tensor]


def _strings(values: list[bytes], *shape: int) -> Strings:
    return Strings(pa.array(values, pa.large_binary()), shape or (len(values),))


@pytest.fixture(scope="session")
def strings() -> Callable[..., Strings]:
    """strings(values, *shape): a string tensor; a vector where no shape is given."""
    return _strings


def _aligned(values: npt.ArrayLike, skew: int = 0) -> npt.NDArray[Any]:
    array = np.asarray(values)
    memory = np.empty(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + skew
    copy: npt.NDArray[Any] = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.fixture(scope="session")
def aligned() -> Callable[..., npt.NDArray[Any]]:
    """aligned(array, skew=0): a copy whose address is `skew` bytes behind a multiple of 64, where none is copied."""
    return _aligned


@pytest.fixture(scope="session")
def tensorflow() -> Any:
    """The tensorflow package. Its import and its exporters warn of themselves; nothing of ours runs meanwhile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow  # heavy: only tests that need it pay for it

        return tensorflow


@pytest.fixture(scope="session")
def read_signature() -> Callable[[str | Path, str], Signature]:
    return _read_signature


def _read_signature(path: str | Path, name: str) -> Signature:
    return choose_signature(choose_metagraph(read_model(str(path)), ("serve",)), name, str(path))


@pytest.fixture(scope="session")
def zoo(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ZooModel]:
    """{name: a model whose outputs are all computable}; every engine must give the expected answers."""
    root = tmp_path_factory.mktemp("zoo")
    models: dict[str, ZooModel] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for write in (_write_modules, _write_text, _write_keras, _write_dtypes, _write_tf1):
            for name, (path, signature, feeds, expected) in write(tensorflow, root).items():
                models[name] = ZooModel(str(path), ("serve",), _read_signature(path, signature), feeds, expected)
    return models


@pytest.fixture(scope="session")
def compiled(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of `compiled_models`."""
    root = tmp_path_factory.mktemp("compiled")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled_models.write(tensorflow, root)
    return root


@pytest.fixture(scope="session")
def write_tf1(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[..., Any]], Path]:
    """write_tf1(name, graph): a TF1 SavedModel, where graph(v1) -> (inputs, outputs) of 'serving_default'."""

    def write(name: str, graph: Callable[..., Any]) -> Path:
        path = tmp_path_factory.mktemp("tf1") / name
        _save_tf1(tensorflow.compat.v1, path, graph)
        return path

    return write


Entry = tuple[Path, str, Mapping[str, Tensor], Mapping[str, Tensor]]
F32 = np.float32


def _write_modules(tf: Any, root: Path) -> dict[str, Entry]:
    class Arithmetic(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.half = tf.Variable(0.5)
            self.count = tf.Variable(0, dtype=tf.int64)

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
        def half_plus_two(self, x: Any) -> Any:
            return {"y": self.half * x + 2.0}

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.int32, name="a"), tf.TensorSpec([None], tf.int32, name="b")]
        )
        def sum_and_difference(self, a: Any, b: Any) -> Any:
            return {"sum": a + b, "difference": a - b}

        @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float32, name="x")])
        def row_sums(self, x: Any) -> Any:
            return {"sums": tf.reduce_sum(x, axis=1)}

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
        def negative(self, x: Any) -> Any:
            return {"y": -x}

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="step")])
        def counter(self, step: Any) -> Any:
            return {"count": self.count.assign_add(step)}

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.float32, name="x"), tf.TensorSpec([], tf.float32, name="scale")]
        )
        def scaled(self, x: Any, scale: Any = tf.constant(10.0)) -> Any:  # noqa: B008
            return {"y": x * scale}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def whatever_is_asked(self, x: Any) -> Any:
            return {"good": x + 1.0, "bad": tf.reshape(x, [7])}

    module, path = Arithmetic(), root / "modules"
    names = ("half_plus_two", "sum_and_difference", "row_sums", "negative", "counter", "scaled", "whatever_is_asked")
    signatures = {name: getattr(module, name) for name in names}
    tf.saved_model.save(module, str(path), signatures=signatures)
    column = np.array([[1], [2], [10]], F32)
    a, b = np.array([5, 7], np.int32), np.array([1, 2], np.int32)
    cube = np.arange(8, dtype=F32).reshape(2, 2, 2)
    rows = np.arange(6, dtype=F32).reshape(2, 3)
    empty = np.empty((0, 1), F32)
    seven = np.arange(7, dtype=F32)
    return {
        "half plus two": (path, "half_plus_two", {"x": column}, {"y": np.array([[2.5], [3], [7]], F32)}),
        "no rows": (path, "half_plus_two", {"x": empty}, {"y": empty}),
        "several outputs": (
            path,
            "sum_and_difference",
            {"a": a, "b": b},
            {"sum": np.array([6, 9], np.int32), "difference": np.array([4, 5], np.int32)},
        ),
        "fixed batch": (path, "row_sums", {"x": rows}, {"sums": np.array([3, 12], F32)}),
        "unknown rank": (path, "negative", {"x": cube}, {"y": -cube}),
        "counter": (path, "counter", {"step": np.array(3, np.int64)}, {"count": np.array(3, np.int64)}),
        "default": (path, "scaled", {"x": b.astype(F32)}, {"y": np.array([10, 20], F32)}),
        "whatever is asked": (path, "whatever_is_asked", {"x": seven}, {"good": seven + 1, "bad": seven}),
    }


def _write_text(tf: Any, root: Path) -> dict[str, Entry]:
    vocabulary = root / "vocabulary.txt"
    vocabulary.write_text("zero\none\na word of more than twenty-two bytes\n")

    class Text(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            lines = tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            )
            self.words = tf.lookup.StaticHashTable(lines, -1)
            self.seen = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, b"unseen")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
        def number(self, word: Any) -> Any:
            return {"number": self.words.lookup(word)}

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.string, name="text")])
        def echo(self, text: Any) -> Any:
            return {"same": tf.identity(text), "twice": text + text, "tiled": tf.tile(text, [2, 1])}

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.int64, name="key"), tf.TensorSpec([None], tf.string, name="word")]
        )
        def remember(self, key: Any, word: Any) -> Any:
            with tf.control_dependencies([self.seen.insert(key, word)]):
                return {"size": self.seen.size()}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="key")])
        def recall(self, key: Any) -> Any:
            return {"word": self.seen.lookup(key)}

    module, path = Text(), root / "text"
    names = ("number", "echo", "remember", "recall")
    tf.saved_model.save(module, str(path), signatures={name: getattr(module, name) for name in names})
    asked = _strings([b"one", b"a word of more than twenty-two bytes", b"", b"never seen", b"zero"])
    key = np.array([7], np.int64)
    twice = [word * 2 for word in WORDS]
    return {
        "vocabulary": (path, "number", {"word": asked}, {"number": np.array([1, 2, -1, -1, 0])}),
        "echo": (
            path,
            "echo",
            {"text": _strings(WORDS, 4, 2)},
            {"same": _strings(WORDS, 4, 2), "twice": _strings(twice, 4, 2), "tiled": _strings(WORDS * 2, 8, 2)},
        ),
        "no strings": (
            path,
            "echo",
            {"text": _strings([], 0, 2)},
            {"same": _strings([], 0, 2), "twice": _strings([], 0, 2), "tiled": _strings([], 0, 2)},
        ),
        "recall": (path, "recall", {"key": key}, {"word": _strings([b"unseen"])}),
        "remember": (path, "remember", {"key": key, "word": _strings([b"w" * 30])}, {"size": np.array(1, np.int64)}),
    }


def _write_keras(tf: Any, root: Path) -> dict[str, Entry]:
    path = root / "keras"
    model = tf.keras.Sequential(
        [tf.keras.Input((2,), name="features"), tf.keras.layers.Dense(1, kernel_initializer="ones", name="total")]
    )
    model.export(str(path), verbose=False)
    answer = {"output_0": np.array([[3], [30]], F32)}
    return {"keras": (path, "serving_default", {"features": np.array([[1, 2], [10, 20]], F32)}, answer)}


def _write_dtypes(tf: Any, root: Path) -> dict[str, Entry]:
    path = root / "dtypes"
    names = [name for name, (number, _) in DTYPES.items() if name != "string" and _known(tf, number)]

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.as_dtype(name), name=name) for name in names])
    def double_rows(*tensors: Any) -> Any:
        given = dict(zip(names, tensors, strict=True))  # few kernels take numbers of less than a byte
        return {f"{name}_twice": tf.concat([x, x], 0) for name, x in given.items() if name not in NARROW} | {
            f"{name}_same": tf.identity(x) for name, x in given.items()
        }

    module = tf.Module()
    module.double_rows = double_rows
    tf.saved_model.save(module, str(path), signatures={"double_rows": double_rows})
    feeds = {name: np.array([[0, 1], [2, 3]]).astype(DTYPES[name][1]) for name in names}
    expected = {f"{name}_twice": np.concatenate([x, x]) for name, x in feeds.items() if name not in NARROW}
    expected |= {f"{name}_same": x for name, x in feeds.items()}
    return {"every dtype": (path, "double_rows", feeds, expected)}


def _known(tf: Any, number: int) -> bool:
    """Whether this TensorFlow has a dtype: 2.20 lacks the narrowest ones."""
    try:
        return bool(tf.as_dtype(number))
    except TypeError:
        return False


def _save_tf1(v1: Any, path: Path, graph: Callable[..., Any]) -> None:
    with v1.Graph().as_default(), v1.Session() as session:
        inputs, outputs = graph(v1)
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.build_signature_def(
            {name: info(tensor) for name, tensor in inputs.items()},
            {name: info(tensor) for name, tensor in outputs.items()},
            "tensorflow/serving/predict",
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


def _write_tf1(tf: Any, root: Path) -> dict[str, Entry]:
    def line(v1: Any) -> Any:
        x = v1.placeholder(v1.float32, [None], "x")
        w = v1.get_variable("w", initializer=3.0, use_resource=False)
        b = v1.get_variable("b", initializer=1.0, use_resource=True)
        return {"in put/1": x}, {"y": w * x + b, "slope": v1.identity(w)}

    _save_tf1(tf.compat.v1, root / "line", line)
    x = np.array([1, 2], F32)
    expected = {"y": np.array([4, 7], F32), "slope": np.array(3, F32)}
    return {"tf1": (root / "line", "serving_default", {"in put/1": x}, expected)}
