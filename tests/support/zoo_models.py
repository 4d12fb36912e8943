"""A zoo of small SavedModels over all that models are made of, written by TensorFlow in one process of its own.

`python zoo_models.py FOLDER` writes `FOLDER/NAME/` for each, the tensors of one call in `NAME.npz`, what TensorFlow's
own Python loader answers in `NAME.eager.npz`, and `zoo.json`, which says what is known of each.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from jobs.errors import ModelError  # noqa: E402
from runner.engine import EngineOptions, load  # noqa: E402
from runner.model.saved_model import read_model  # noqa: E402
from runner.model.signature import choose_metagraph, choose_signature  # noqa: E402
from runner.tensor import Strings, Tensor  # noqa: E402

v1 = tf.compat.v1
keras = tf.keras
F32, I64 = np.float32, np.int64
Feeds = dict[str, Any]
Write = Callable[[Path], Feeds]

ZOO: dict[str, tuple[Write, dict[str, Any]]] = {}


def model(**facts: Any) -> Callable[[Write], Write]:
    """Register a model.

    signature, tags: where they must be named.
    rows:     False where the answer of a row depends on other rows or calls.
    eager:    why TensorFlow's Python loader has no answer to compare with: a part of its message, or 'draws'.
    error:    why the session engine cannot call it: a part of the message.
    columns:  why it cannot be bound to columns: a part of the message.
    effects:  'writes' and 'draws' that the scan must tell.
    method:   of the signature, if not predict.
    """

    def register(write: Write) -> Write:
        ZOO[write.__name__] = write, facts
        return write

    return register


def spec(name: str, shape: Any, dtype: Any = "float32") -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.as_dtype(dtype), name=name)


def save(path: Path, function: Any, *specs: Any, module: Any = None, **signatures: Any) -> None:
    """Save `function` as 'serving_default', and others by name."""
    module = module or tf.Module()
    module.function = tf.function(function, input_signature=list(specs))
    tf.saved_model.save(module, str(path), {"serving_default": module.function, **signatures})


def save_v1(
    path: Path,
    graph: Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]],
    method: str = "tensorflow/serving/predict",
    tags: tuple[str, ...] = ("serve",),
    as_text: bool = False,
    **more: Any,
) -> None:
    """Save what `graph` builds, as TensorFlow 1 did. graph: () -> (inputs, outputs)."""
    with v1.Graph().as_default(), v1.Session() as session:
        inputs, outputs = graph()
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        signature = v1.saved_model.build_signature_def(info(inputs), info(outputs), method)
        builder = v1.saved_model.Builder(str(path))
        if more.pop("table", False):
            more["main_op"] = v1.tables_initializer()
            more["assets_collection"] = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        builder.add_meta_graph_and_variables(session, list(tags), {"serving_default": signature}, **more)
        builder.save(as_text)


def info(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in tensors.items()}


THREE = np.array([1, 2, 10], F32)
PAIRS = np.array([[1, 2], [3, 4], [5, 6]], F32)
WORDS = np.array([b"one", b"", b"a word of more than twenty-two bytes"])


# TensorFlow 2 modules


@model()
def variables(path: Path) -> Feeds:
    module = tf.Module()
    module.half, module.two = tf.Variable(0.5), tf.Variable(2.0)
    save(path, lambda x: {"y": module.half * x + module.two}, spec("x", [None]), module=module)
    return {"x": THREE}


@model()
def no_variables(path: Path) -> Feeds:
    save(path, lambda x: {"y": x / 2 + 2}, spec("x", [None]))
    return {"x": THREE}


@model()
def several_inputs_and_outputs(path: Path) -> Feeds:
    save(path, lambda a, b: {"sum": a + b, "difference": a - b}, spec("a", [None, 2]), spec("b", [None, 2]))
    return {"a": PAIRS, "b": PAIRS * 10}


@model(signature="triple")
def several_signatures(path: Path) -> Feeds:
    triple = tf.function(lambda x: {"y": 3 * x}, input_signature=[spec("x", [None])])
    save(path, lambda x: {"y": 2 * x}, spec("x", [None]), triple=triple)
    return {"x": THREE}


@model()
def one_signature_of_another_name(path: Path) -> Feeds:
    module = tf.Module()
    module.embed = tf.function(
        lambda ids: {"vector": tf.one_hot(ids, 4)}, input_signature=[spec("ids", [None], "int64")]
    )
    tf.saved_model.save(module, str(path), {"embed": module.embed})
    return {"ids": np.array([0, 3, 1])}


@model()
def scalar_input(path: Path) -> Feeds:
    save(path, lambda x, scale: {"y": x * scale}, spec("x", [None]), spec("scale", []))
    return {"x": THREE, "scale": np.array(3, F32)}


@model(rows=False, columns="found a scalar")
def scalar_output(path: Path) -> Feeds:
    save(path, lambda x: {"mean": tf.reduce_mean(x)}, spec("x", [None]))
    return {"x": THREE}


@model(rows=False)
def answer_depends_on_the_batch(path: Path) -> Feeds:
    save(path, lambda x: {"share": x / tf.reduce_sum(x)}, spec("x", [None]))
    return {"x": THREE}


@model()
def default_value(path: Path) -> Feeds:
    def scaled(x: Any, scale: Any = tf.constant(10.0)) -> Any:  # noqa: B008
        return {"y": x * scale}

    save(path, scaled, spec("x", [None]), spec("scale", []))
    return {"x": THREE}


@model(rows=False)
def fixed_batch(path: Path) -> Feeds:
    save(path, lambda x: {"sums": tf.reduce_sum(x, axis=1)}, spec("x", [3, 2]))
    return {"x": PAIRS}


@model(columns="found unknown rank")
def unknown_rank(path: Path) -> Feeds:
    save(path, lambda x: {"y": -x}, spec("x", None))
    return {"x": PAIRS}


@model()
def unknown_dimensions(path: Path) -> Feeds:
    save(path, lambda x: {"y": x + 1.0}, spec("x", [None, None, None]))
    return {"x": np.arange(12, dtype=F32).reshape(3, 2, 2)}


@model()
def images(path: Path) -> Feeds:
    save(path, lambda x: {"mean": tf.reduce_mean(x, axis=[1, 2])}, spec("image", [None, 4, 4, 3], "uint8"))
    return {"image": np.arange(144, dtype=np.uint8).reshape(3, 4, 4, 3)}


@model()
def a_row_of_no_values(path: Path) -> Feeds:
    save(path, lambda x: {"y": tf.reduce_sum(x, axis=1)}, spec("x", [None, 0]))
    return {"x": np.empty((3, 0), F32)}


@model()
def strings(path: Path) -> Feeds:
    save(path, lambda s: {"upper": tf.strings.upper(s), "length": tf.strings.length(s)}, spec("s", [None], "string"))
    return {"s": WORDS}


@model()
def strings_in_two_dimensions(path: Path) -> Feeds:
    save(path, lambda s: {"joined": tf.strings.reduce_join(s, axis=1, separator="-")}, spec("s", [None, 2], "string"))
    return {"s": np.array([[b"a", b"b"], [b"", b"c"], [b"d", b""]])}


@model(rows=False, columns="it has 3 rows for 4 rows fed")
def ragged_input(path: Path) -> Feeds:
    ragged = tf.RaggedTensorSpec([None, None], tf.int64)
    module = tf.Module()
    module.f = tf.function(lambda r: {"sum": tf.reduce_sum(r, axis=1)}, input_signature=[ragged])
    tf.saved_model.save(module, str(path), {"serving_default": module.f})
    return {"r": np.array([1, 2, 3, 4]), "r_1": np.array([0, 2, 2, 4])}


@model(rows=False, columns="found unknown rank")
def sparse_input(path: Path) -> Feeds:
    sparse = tf.SparseTensorSpec([None, 5], tf.float32)
    module = tf.Module()
    module.f = tf.function(lambda q: {"sum": tf.sparse.reduce_sum(q, axis=1)}, input_signature=[sparse])
    tf.saved_model.save(module, str(path), {"serving_default": module.f})
    return {"q": np.array([[0, 1], [2, 4]]), "q_1": np.array([7, 8], F32), "q_2": np.array([3, 5])}


@model()
def table_from_an_asset(path: Path) -> Feeds:
    vocabulary = path.with_suffix(".txt")
    vocabulary.write_text("zero\none\ntwo\n")
    index = tf.lookup.TextFileIndex
    lines = (tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(vocabulary), *lines), -1)
    save(path, lambda word: {"id": module.table.lookup(word)}, spec("word", [None], "string"), module=module)
    return {"word": WORDS}


@model()
def table_from_constants(path: Path) -> Feeds:
    module = tf.Module()
    pairs = tf.lookup.KeyValueTensorInitializer([1, 2], ["one", "two"], tf.int64, tf.string)
    module.table = tf.lookup.StaticHashTable(pairs, "?")
    save(path, lambda id: {"word": module.table.lookup(id)}, spec("id", [None], "int64"), module=module)
    return {"id": np.array([2, 1, 7])}


@model(rows=False, columns="found a scalar", effects={"writes": ["LookupTableInsertV2"]})
def table_that_learns(path: Path) -> Feeds:
    module = tf.Module()
    module.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, b"unseen")

    def remember(key: Any, word: Any) -> Any:
        with tf.control_dependencies([module.table.insert(key, word)]):
            return {"size": module.table.size()}

    save(path, remember, spec("key", [None], "int64"), spec("word", [None], "string"), module=module)
    return {"key": np.array([1, 2, 1]), "word": WORDS}


@model(rows=False, columns="found a scalar", effects={"writes": ["AssignAddVariableOp"]})
def counter(path: Path) -> Feeds:
    module = tf.Module()
    module.count = tf.Variable(0, dtype=tf.int64)
    save(path, lambda x: {"count": module.count.assign_add(tf.size(x, tf.int64))}, spec("x", [None]), module=module)
    return {"x": THREE}


@model(rows=False, eager="draws", effects={"draws": ["RandomUniform"]})
def dropout_that_stays_on(path: Path) -> Feeds:
    save(path, lambda x: {"y": tf.nn.dropout(x, 0.5)}, spec("x", [None]))
    return {"x": np.arange(64, dtype=F32)}  # so many that two draws never agree


@model(rows=False, eager="draws", effects={"draws": ["RngReadAndSkip"]})
def generator(path: Path) -> Feeds:
    module = tf.Module()
    module.generator = tf.random.Generator.from_seed(7)
    save(path, lambda x: {"y": x + module.generator.uniform([])}, spec("x", [None]), module=module)
    return {"x": THREE}


@model()
def random_numbers_of_a_fixed_seed(path: Path) -> Feeds:
    save(path, lambda x: {"y": x + tf.random.stateless_uniform([], seed=[1, 2])}, spec("x", [None]))
    return {"x": THREE}


@model(rows=False, eager="draws", effects={"draws": ["Timestamp"]})
def clock(path: Path) -> Feeds:
    def microseconds(x: Any) -> Any:
        return {"when": tf.math.floormod(tf.timestamp() * 1e6, 1e3) + tf.cast(x, tf.float64)}

    save(path, microseconds, spec("x", [None]))
    return {"x": THREE}


@model()
def branches_and_loops(path: Path) -> Feeds:
    def collatz(x: Any) -> Any:
        def steps(n: Any) -> Any:
            return tf.while_loop(
                lambda n, i: n > 1,
                lambda n, i: (tf.cond(n % 2 == 0, lambda: n // 2, lambda: 3 * n + 1), i + 1),
                [n, tf.constant(0, tf.int64)],
            )[1]

        return {"steps": tf.map_fn(steps, x)}

    save(path, collatz, spec("x", [None], "int64"))
    return {"x": np.array([1, 6, 7])}


@model()
def gradient_within(path: Path) -> Feeds:
    def slope(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x * x * x
        return {"slope": tape.gradient(y, x)}

    save(path, slope, spec("x", [None]))
    return {"x": THREE}


@model()
def assertion(path: Path) -> Feeds:
    def checked(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x >= 0), ["negative"])]):
            return {"y": tf.sqrt(x)}

    save(path, checked, spec("x", [None]))
    return {"x": THREE}


@model(rows=False, columns="no input follows the rows")
def no_inputs(path: Path) -> Feeds:
    save(path, lambda: {"y": tf.constant([1.0, 2.0])})
    return {}


@model()
def parsed_examples(path: Path) -> Feeds:
    def parse(examples: Any) -> Any:
        age = tf.io.FixedLenFeature([], tf.int64, -1)
        return {"age": tf.io.parse_example(examples, {"age": age})["age"]}

    save(path, parse, spec("examples", [None], "string"))
    return {"examples": examples(age=[[3], [5], []])}


@model()
def every_form_of_input(path: Path) -> Feeds:
    def function(array: Any, archive: Any, pickled: Any, expression: Any, examples: Any) -> Any:
        kinds = {"age": tf.int64, "education": tf.string}
        parsed = tf.io.parse_example(examples, {name: tf.io.RaggedFeature(kind) for name, kind in kinds.items()})
        education = tf.strings.reduce_join(parsed["education"], axis=1, separator=",")
        age = tf.reduce_sum(parsed["age"], axis=1)
        return {"sum": array + archive + pickled + expression, "age": age, "education": education}

    numbers = [spec(name, [None, 2]) for name in ("array", "archive", "pickled", "expression")]
    save(path, function, *numbers, spec("examples", [None], "string"))
    serialized = examples(age=[[22, 24], [], [1]], education=[[b"BS", b"MS"], [], [b"-"]])
    return dict.fromkeys(("array", "archive", "pickled", "expression"), PAIRS) | {"examples": serialized}


@model()
def decoded_images(path: Path) -> Feeds:
    def brightness(png: Any) -> Any:
        def one(content: Any) -> Any:
            return tf.reduce_mean(tf.cast(tf.io.decode_png(content, channels=1), tf.float32))

        return {"brightness": tf.map_fn(one, png, fn_output_signature=tf.float32)}

    save(path, brightness, spec("png", [None], "string"))
    return {"png": np.array([tf.io.encode_png(np.full((2, 2, 1), grey, np.uint8)).numpy() for grey in (1, 50, 255)])}


def examples(**features: list[Any]) -> Any:
    """features: name -> the values of each row, integers or bytes."""
    rows = []
    for at in range(len(next(iter(features.values())))):
        example = tf.train.Example()
        for name, values in features.items():
            for value in values[at]:
                kind = example.features.feature[name]
                (kind.bytes_list if isinstance(value, bytes) else kind.int64_list).value.append(value)
        rows.append(example.SerializeToString())
    return np.array(rows)


# One model for each dtype


def dtype_model(name: str) -> None:
    def write(path: Path) -> Feeds:
        save(path, lambda x: {"same": tf.identity(x)}, spec("x", [None, 2], name))
        numpy = {"bfloat16": np.uint16, "qint8": np.int8, "quint8": np.uint8, "qint32": np.int32}.get(name, name)
        numpy = {"qint16": np.int16, "quint16": np.uint16}.get(name, numpy)
        return {"x": np.array([[0, 1], [1, 2], [3, 4]]).astype(numpy)}

    write.__name__ = f"dtype_{name}"
    model()(write)


for each in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float64"):
    dtype_model(each)
for each in ("bfloat16", "complex64", "complex128", "qint8", "quint8", "qint16", "quint16", "qint32"):
    dtype_model(each)


# Keras


def export(path: Path, *layers: Any, inputs: Any) -> None:
    keras.Sequential([inputs, *layers]).export(str(path), verbose=False)


@model()
def keras_dense(path: Path) -> Feeds:
    export(path, keras.layers.Dense(4, "relu"), keras.layers.Dense(2, "softmax"), inputs=keras.Input((2,)))
    return {next(iter(read_signature(path).inputs)): PAIRS}


@model()
def keras_of_several_inputs(path: Path) -> Feeds:
    text, number = keras.Input((1,), name="kind", dtype="string"), keras.Input((2,), name="number")
    kind = keras.layers.StringLookup(vocabulary=["a", "b"])(text)
    joined = keras.layers.Concatenate()([keras.layers.CategoryEncoding(3)(kind), number])
    outputs = {"score": keras.layers.Dense(1)(joined), "class": keras.layers.Softmax()(joined)}
    keras.Model({"kind": text, "number": number}, outputs).export(str(path), verbose=False)
    return {"kind": np.array([[b"a"], [b"b"], [b"c"]]), "number": PAIRS}


@model()
def keras_convolution(path: Path) -> Feeds:
    layers = keras.layers
    export(
        path, layers.Conv2D(2, 3), layers.BatchNormalization(), layers.Dropout(0.5), layers.GlobalAveragePooling2D(),
        inputs=keras.Input((5, 5, 1)),
    )  # fmt: skip
    return {next(iter(read_signature(path).inputs)): np.arange(75, dtype=F32).reshape(3, 5, 5, 1)}


@model()
def keras_embedding_and_lstm(path: Path) -> Feeds:
    export(path, keras.layers.Embedding(10, 3), keras.layers.LSTM(2), inputs=keras.Input((4,), dtype="int64"))
    return {next(iter(read_signature(path).inputs)): np.arange(12).reshape(3, 4) % 10}


@model()
def keras_text(path: Path) -> Feeds:
    vectorize = keras.layers.TextVectorization(output_sequence_length=3, vocabulary=["the", "cat"])
    export(path, vectorize, inputs=keras.Input((1,), dtype="string"))
    return {next(iter(read_signature(path).inputs)): np.array([[b"the cat sat"], [b""], [b"cat"]])}


# TensorFlow 1


@model()
def v1_reference_variables(path: Path) -> Feeds:
    def graph() -> Any:
        x = v1.placeholder(tf.float32, [None], "x")
        slope = v1.get_variable("slope", initializer=3.0, use_resource=False)
        return {"x": x}, {"y": slope * x}

    save_v1(path, graph)
    return {"x": THREE}


@model()
def v1_resource_variables_and_a_saver_of_its_own(path: Path) -> Feeds:
    def graph() -> Any:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        weight = v1.get_variable("weight", initializer=[[1.0], [2.0]], use_resource=True)
        v1.train.Saver()  # leaves a `save` of its own in the graph, which nothing calls
        return {"x": x}, {"y": x @ weight}

    save_v1(path, graph)
    return {"x": PAIRS}


@model()
def v1_frozen(path: Path) -> Feeds:
    def graph() -> Any:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        return {"x": x}, {"y": x @ tf.constant([[1.0], [2.0]])}

    save_v1(path, graph)
    return {"x": PAIRS}


@model()
def v1_names_with_any_character(path: Path) -> Feeds:
    def graph() -> Any:
        x = v1.placeholder(tf.float32, [None], "x")
        return {"in put/1": x}, {"größe (y)": x + 1.0, "a;b=c": x + 2.0}

    save_v1(path, graph)
    return {"in put/1": THREE}


@model()
def v1_one_tensor_under_two_names(path: Path) -> Feeds:
    def graph() -> Any:
        x = v1.placeholder(tf.float32, [None], "x")
        return {"x": x}, {"one": x + 1.0, "fed": x}

    save_v1(path, graph)
    return {"x": THREE}


@model(tags=["serve"])
def v1_several_metagraphs(path: Path) -> Feeds:
    builder = v1.saved_model.Builder(str(path))
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        y = v1.get_variable("slope", initializer=3.0) * x
        session.run(v1.global_variables_initializer())
        signature = {"serving_default": v1.saved_model.build_signature_def(info({"x": x}), info({"y": y}), "predict")}
        builder.add_meta_graph_and_variables(session, ["serve"], signature)
        builder.add_meta_graph(["serve", "gpu"], signature)
        builder.add_meta_graph(["train"], {})
    builder.save()
    return {"x": THREE}


@model()
def v1_table_from_an_asset(path: Path) -> Feeds:
    vocabulary = path.with_suffix(".txt")
    vocabulary.write_text("zero\none\ntwo\n")

    def graph() -> Any:
        word = v1.placeholder(tf.string, [None], "word")
        index = tf.lookup.TextFileIndex
        lines = (tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        table = v1.lookup.StaticHashTable(v1.lookup.TextFileInitializer(str(vocabulary), *lines), -1)
        return {"word": word}, {"id": table.lookup(word)}

    save_v1(path, graph, table=True)
    return {"word": WORDS}


def parsing(name: str, method: str, outputs: Callable[[Any], Mapping[str, Any]]) -> None:
    def write(path: Path) -> Feeds:
        def graph() -> Any:
            serialized = v1.placeholder(tf.string, [None], "tf_example")
            features = v1.parse_example(serialized, {"x": v1.FixedLenFeature([], tf.int64, 0)})
            return {"inputs": serialized}, outputs(tf.cast(features["x"], tf.float32))

        save_v1(path, graph, method)
        return {"inputs": examples(x=[[1], [], [10]])}

    write.__name__ = name
    model(method=method)(write)


parsing("v1_regress", "tensorflow/serving/regress", lambda x: {"outputs": x / 2 + 2})
parsing(
    "v1_classify",
    "tensorflow/serving/classify",
    lambda x: {
        "scores": tf.stack([x, -x], axis=1),
        "classes": tf.tile([["yes", "no"]], [tf.size(x), 1]),
    },
)


@model(rows=False, columns="found no such column")
def v1_sparse_tensor_info(path: Path) -> Feeds:
    def graph() -> Any:
        q = v1.sparse_placeholder(tf.float32, [None, 5], "q")
        return {"q": q}, {"sum": v1.sparse.reduce_sum(q, axis=1)}

    save_v1(path, graph)
    q_indices, q_values = np.array([[0, 1], [2, 4]]), np.array([7, 8], F32)
    return {"q_indices": q_indices, "q_values": q_values, "q_dense_shape": np.array([3, 5])}


@model(rows=False, columns="found unknown rank")
def v1_sparse_flattened(path: Path) -> Feeds:
    def graph() -> Any:
        q = v1.sparse_placeholder(tf.float32, [None, 5], "q")
        inputs = {"q_indices": q.indices, "q_values": q.values, "q_dense_shape": q.dense_shape}
        return inputs, {"sum": v1.sparse.reduce_sum(q, axis=1)}

    save_v1(path, graph)
    q_indices, q_values = np.array([[0, 1], [2, 4]]), np.array([7, 8], F32)
    return {"q_indices": q_indices, "q_values": q_values, "q_dense_shape": np.array([3, 5])}


@model()
def v1_loops_and_branches(path: Path) -> Feeds:
    def graph() -> Any:
        v1.disable_control_flow_v2()  # Switch, Merge, Enter, Exit
        x = v1.placeholder(tf.float32, [None], "x")
        doubled = v1.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), [0, x])[1]
        return {"x": x}, {"y": v1.cond(v1.size(x) > 100, lambda: -doubled, lambda: doubled)}

    save_v1(path, graph)
    v1.enable_control_flow_v2()
    return {"x": THREE}


@model()
def v1_pinned_to_a_gpu(path: Path) -> Feeds:
    def graph() -> Any:
        with v1.device("/gpu:0"):
            x = v1.placeholder(tf.float32, [None], "x")
            return {"x": x}, {"y": x * 2}

    save_v1(path, graph, clear_devices=False)
    return {"x": THREE}


@model(rows=False, columns="found a scalar", eager="reference type", effects={"writes": ["AssignAdd"]})
def v1_counter(path: Path) -> Feeds:
    def graph() -> Any:
        x = v1.placeholder(tf.float32, [None], "x")
        total = v1.get_variable("total", initializer=0.0, use_resource=False)
        return {"x": x}, {"total": v1.assign_add(total, tf.reduce_sum(x))}

    save_v1(path, graph)
    return {"x": THREE}


@model(rows=False, eager="draws", effects={"draws": ["RandomStandardNormal"]})
def v1_random(path: Path) -> Feeds:
    def graph() -> Any:
        x = v1.placeholder(tf.float32, [None], "x")
        return {"x": x}, {"y": x + v1.random_normal([])}

    save_v1(path, graph)
    return {"x": THREE}


@model()
def v1_text_format(path: Path) -> Feeds:
    def graph() -> Any:
        x = v1.placeholder(tf.float32, [None], "x")
        return {"x": x}, {"y": v1.get_variable("slope", initializer=3.0, use_resource=True) * x}

    save_v1(path, graph, as_text=True)
    return {"x": THREE}


@model(columns="found dtype variant", error="dtype variant", eager="dtype variant")
def v1_variant_input(path: Path) -> Feeds:
    def graph() -> Any:
        x, v = v1.placeholder(tf.float32, [None], "x"), v1.placeholder(tf.variant, [], "v")
        return {"x": x, "v": v}, {"y": x + 1.0}

    save_v1(path, graph)
    return {}


@model(tags=["serve", "train"])
def v1_other_tags(path: Path) -> Feeds:
    def graph() -> Any:
        x = v1.placeholder(tf.float32, [None], "x")
        return {"x": x}, {"y": x * 2}

    save_v1(path, graph, tags=("train", "serve"))
    return {"x": THREE}


def read_signature(path: Path, tags: Any = None, name: str | None = None) -> Any:
    read = read_model(str(path))
    return choose_signature(choose_metagraph(read, tags), name, str(path))


def as_tensor(value: Any) -> Tensor:
    import pyarrow as pa

    if value.dtype.kind in "SO":
        return Strings(pa.array([bytes(each) for each in value.reshape(-1)], pa.large_binary()), value.shape)
    return value


def as_array(tensor: Tensor) -> Any:
    if isinstance(tensor, Strings):
        return np.array(tensor.values.to_pylist() or [b""])[: len(tensor.values)].reshape(tensor.shape)
    return tensor


def eager_answer(path: Path, feeds: Feeds, facts: dict[str, Any]) -> dict[str, Any]:
    tags = tuple(facts.get("tags", ("serve",)))
    signature = read_signature(path, tags, facts.get("signature"))
    engine = load("eager", str(path), tags, signature, EngineOptions(threads=1))
    found = engine.run({name: as_tensor(value) for name, value in feeds.items()}, list(signature.outputs))
    engine.close()
    return {name: as_array(tensor) for name, tensor in found.items()}


def main(root: Path) -> None:
    index = {}
    for name, (write, facts) in ZOO.items():
        path = root / name
        feeds = write(path)
        np.savez(root / f"{name}.npz", **feeds)
        try:
            if facts.get("eager") != "draws":
                np.savez(root / f"{name}.eager.npz", **eager_answer(path, feeds, facts))
        except ModelError as error:
            if facts.get("eager", "nothing") not in error.message:
                raise
        index[name] = facts
    (root / "zoo.json").write_text(json.dumps(index))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
