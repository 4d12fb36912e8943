"""Models on TensorFlow with ops or layouts of others, in one process: `python origins_tensorflow.py FOLDER`."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from origins import ROWS, Columns, main, origin  # noqa: E402

v1 = tf.compat.v1
keras = tf.keras
WORDS = ["the", "model", "reads", "rows", "un", "##read", "##able", "größe"]


def features(width: int = 8) -> Any:
    return np.random.default_rng(7).normal(size=(ROWS, width)).astype(np.float32)


def sentences() -> list[str]:
    random = np.random.default_rng(13)
    words = ["the", "model", "reads", "unreadable", "rows", "Größe", "nothing", "!"]
    return [" ".join(random.choice(words, random.integers(0, 9))) for _ in range(ROWS)]


def serve(path: Path, module: Any, function: Any, *specs: Any) -> Any:
    module.serve = tf.function(function, input_signature=list(specs))
    tf.saved_model.save(module, str(path), {"serving_default": module.serve})
    return module.serve


def plain(tensors: Any) -> Columns:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@origin("Keras on TensorFlow")
def keras_on_tensorflow(path: Path) -> tuple[Columns, Columns]:
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [keras.Input((8,), name="x"), keras.layers.Dense(16, "relu"), keras.layers.Dense(3, "softmax")]
    )
    model.export(path, verbose=False)
    return {"x": features()}, {"output_0": model.predict(features(), verbose=0)}


@origin("Keras, quantised to int8")
def keras_quantised(path: Path) -> tuple[Columns, Columns]:
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((8,), name="x"), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
    model.quantize("int8")
    model.export(path, verbose=False)
    return {"x": features()}, {"output_0": model.predict(features(), verbose=0)}


@origin("quantised, integers in and out")
def quantised(path: Path) -> tuple[Columns, Columns]:
    """As TensorFlow Lite computes: int8 in, int32 sums, int8 out; its dequantised answer beside it."""
    random = np.random.default_rng(11)
    weights = random.integers(-127, 128, (8, 3)).astype(np.int8)
    bias = random.integers(-500, 500, 3).astype(np.int32)
    x = random.integers(-128, 128, (ROWS, 8)).astype(np.int8)

    def call(x: Any) -> Any:
        sums = tf.matmul(x, weights, output_type=tf.int32) + bias
        levels = tf.cast(tf.clip_by_value(tf.round(tf.cast(sums, tf.float32) * 0.003) + 3.0, -128.0, 127.0), tf.int8)
        real = tf.quantization.dequantize(tf.bitcast(levels, tf.qint8), -6.4, 6.35, "SCALED")
        return {"levels": levels, "label": tf.cast(tf.argmax(levels, 1), tf.uint8), "real": real}

    serve(path, tf.Module(), call, tf.TensorSpec([None, 8], tf.int8, name="x"))
    sums = x.astype(np.int32) @ weights.astype(np.int32) + bias
    levels = np.clip(np.rint(sums.astype(np.float32) * np.float32(0.003)) + 3, -128, 127).astype(np.int8)
    real = plain(call(tf.constant(x)))["real"]
    return {"x": x}, {"label": levels.argmax(1).astype(np.uint8), "levels": levels, "real": real}


TOWERS = {"model": {"signature": "recommend"}}


@origin("two towers", **TOWERS)
def two_towers(path: Path) -> tuple[Columns, Columns]:
    """A query tower, a candidate tower, and the best five of a table of candidates: three signatures of one module."""
    random = np.random.default_rng(11)
    module = tf.Module()
    module.users = tf.Variable(random.normal(size=(50, 4)).astype(np.float32))
    module.items = tf.Variable(random.normal(size=(200, 4)).astype(np.float32))
    module.titles = tf.constant([f"item {place}" for place in range(200)])

    def query(user: Any) -> Any:
        return {"vector": tf.math.l2_normalize(tf.gather(module.users, user), 1)}

    def candidate(item: Any) -> Any:
        return {"vector": tf.math.l2_normalize(tf.gather(module.items, item), 1)}

    def recommend(user: Any) -> Any:
        every = candidate(tf.range(200))["vector"]
        scores, places = tf.math.top_k(tf.matmul(query(user)["vector"], every, transpose_b=True), 5)
        return {"scores": scores, "titles": tf.gather(module.titles, places)}

    module.query = tf.function(query, input_signature=[tf.TensorSpec([None], tf.int32, name="user")])
    module.candidate = tf.function(candidate, input_signature=[tf.TensorSpec([None], tf.int32, name="item")])
    module.recommend = tf.function(recommend, input_signature=[tf.TensorSpec([None], tf.int32, name="user")])
    names = ("query", "candidate", "recommend")
    tf.saved_model.save(module, str(path), {name: getattr(module, name) for name in names})
    users = random.integers(0, 50, ROWS).astype(np.int32)
    answers = plain(module.recommend(users))
    return {"user": users}, {"scores": answers["scores"], "titles": answers["titles"].astype(str)}


@origin("TF-Text", ("tensorflow_text",))
def tensorflow_text(path: Path) -> tuple[Columns, Columns]:
    import tensorflow_text as text

    module = tf.Module()
    vocabulary = ["[UNK]", *WORDS]
    module.pieces = text.FastWordpieceTokenizer(vocabulary, token_out_type=tf.int64, support_detokenization=False)
    module.words = text.WhitespaceTokenizer()

    def ids(lines: Any) -> Any:
        return module.pieces.tokenize(module.words.tokenize(text.case_fold_utf8(lines))).merge_dims(1, 2)

    def call(lines: Any) -> Any:
        return {"ids": ids(lines).to_tensor(-1, shape=[None, 12]), "pieces": ids(lines).row_lengths()}

    serve(path, module, call, tf.TensorSpec([None], tf.string, name="text"))
    lines = sentences()
    answers = ids(lines).to_list()
    padded = [(row + [-1] * 12)[:12] for row in answers]
    return {"text": lines}, {"ids": np.array(padded), "pieces": np.array([len(row) for row in answers])}


def forest() -> tuple[Any, Columns]:
    """A trained forest, and rows: a quarter of the numbers is missing, and some categories are unknown."""
    import pyarrow as pa
    import ydf

    random = np.random.default_rng(11)
    x, y = features(2).T.copy()
    colour = random.choice(["red", "green", "blue"], ROWS)
    label = np.where((x + (colour == "red") > y), "yes", "no")
    learner = ydf.GradientBoostedTreesLearner(label="label", num_trees=10, num_threads=1)
    model = learner.train({"x": x, "y": y, "colour": colour, "label": label}, verbose=0)
    x[random.random(ROWS) < 0.25] = np.nan
    colour = np.where(random.random(ROWS) < 0.1, "violet", colour)
    return model, {"x": x, "y": y, "colour": pa.array(colour.astype(object))}


def predicted(model: Any, rows: Columns) -> Any:
    return model.predict({name: np.array(column) for name, column in rows.items()})


FORESTS = ("ydf", "ydf_tf")


@origin("Yggdrasil decision forest", FORESTS)
def decision_forest(path: Path) -> tuple[Columns, Columns]:
    model, rows = forest()
    model.to_tensorflow_saved_model(str(path), mode="tf")
    return rows, {"output": predicted(model, rows)}


EXAMPLES = {"columns": ["age", "education"]}


@origin("TensorFlow 1 estimator", columns={"inputs": {"inputs": {"example": EXAMPLES}}})
def estimator(path: Path) -> tuple[Columns, Columns]:
    """What `export_saved_model` of a linear classifier wrote: tf.Examples in, a classify signature, a table."""
    random = np.random.default_rng(11)
    levels = ["BS", "MS", "PhD"]
    age, education = random.integers(18, 80, ROWS), random.choice([*levels, "none"], ROWS)
    with v1.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], "input_example_tensor")
        wanted = {"age": v1.FixedLenFeature([], tf.int64), "education": v1.FixedLenFeature([], tf.string, "")}
        parsed = v1.parse_example(serialized, wanted)
        table = tf.lookup.KeyValueTensorInitializer(levels, np.arange(3))
        level = v1.lookup.StaticVocabularyTable(table, 1).lookup(parsed["education"])
        weights = v1.get_variable("linear/linear_model/education/weights", initializer=[[-1.0], [0.5], [1.5], [0.0]])
        bias = v1.get_variable("linear/linear_model/bias_weights", initializer=[-2.0], use_resource=False)
        logit = v1.nn.embedding_lookup(weights, level) + v1.cast(parsed["age"], tf.float32)[:, None] * 0.05 + bias
        scores = v1.nn.softmax(v1.concat([v1.zeros_like(logit), logit], 1), name="head/predictions/probabilities")
        classes = v1.tile(v1.constant([["0", "1"]]), [v1.shape(scores)[0], 1])
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        signatures = {
            "serving_default": v1.saved_model.classification_signature_def(serialized, classes, scores),
            "predict": v1.saved_model.predict_signature_def({"examples": serialized}, {"logits": logit}),
        }
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures, main_op=v1.tables_initializer())
        builder.save()
        found = session.run(scores, {serialized: [example(*row) for row in zip(age, education, strict=True)]})
    rows = {"age": age, "education": education.astype(str)}
    return rows, {"classes": np.tile(["0", "1"], (ROWS, 1)), "scores": found}


def example(age: int, education: str) -> bytes:
    feature = {
        "age": tf.train.Feature(int64_list=tf.train.Int64List(value=[age])),
        "education": tf.train.Feature(bytes_list=tf.train.BytesList(value=[education.encode()])),
    }
    return bytes(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


@origin("TF Hub module")
def hub_module(path: Path) -> tuple[Columns, Columns]:
    """As those of TensorFlow 1 are: no tags, a signature `default`, a vocabulary in assets, a marker file."""
    words, lines = WORDS[:4], sentences()
    path.mkdir()
    vocabulary = path / "tokens.txt"
    vocabulary.write_text("\n".join(words) + "\n")
    with v1.Graph().as_default(), v1.Session() as session:
        text = v1.placeholder(tf.string, [None], "text")
        index = tf.lookup.TextFileIndex
        source = v1.lookup.TextFileInitializer(
            str(vocabulary), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
        )
        parts = v1.string_split(text)
        ids = v1.SparseTensor(
            parts.indices, v1.lookup.StaticVocabularyTable(source, 1).lookup(parts.values), parts.dense_shape
        )
        start = np.random.default_rng(5).normal(size=(5, 4)).astype(np.float32)
        table = v1.get_variable("embeddings", initializer=start)
        vectors = v1.nn.safe_embedding_lookup_sparse(table, ids, combiner="sqrtn")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        signature = v1.saved_model.predict_signature_def({"text": text}, {"default": vectors})
        builder = v1.saved_model.Builder(str(path / "module"))
        assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        builder.add_meta_graph_and_variables(
            session, [], {"default": signature}, assets_collection=assets, main_op=v1.tables_initializer()
        )
        builder.save()
        found = session.run(vectors, {text: lines})
    vocabulary.unlink()
    for part in (path / "module").iterdir():
        part.rename(path / part.name)
    (path / "module").rmdir()
    (path / "tfhub_module.pb").write_bytes(b"\x08\x03")
    return {"text": lines}, {"default": found}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
