"""Models that JAX computes, in one process: `python origins_jax.py FOLDER`. See `origins`."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.update(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
from origins import ROWS, Columns, main, origin  # noqa: E402

FIXED = 64
JAX = ("jax", "jax.experimental.jax2tf")
WORDS = ["the", "model", "reads", "rows", "and", "writes", "answers", "once"]


def features(width: int = 8) -> Any:
    return np.random.default_rng(7).normal(size=(ROWS, width)).astype(np.float32)


def parameters(width: int = 8) -> dict[str, Any]:
    random = np.random.default_rng(11)
    inner, outer = random.normal(size=(width, 16)) / 3, random.normal(size=(16, 3)) / 4
    return {"inner": inner.astype(np.float32), "outer": outer.astype(np.float32)}


def network(weights: Any, x: Any) -> Any:
    import jax

    return {"probabilities": jax.nn.softmax(jax.nn.gelu(x @ weights["inner"]) @ weights["outer"])}


def convert(path: Path, batch: int | None) -> tuple[Columns, Columns]:
    import jax
    import tensorflow as tf
    from jax.experimental import jax2tf

    module, x = tf.Module(), features()
    module.weights = tf.nest.map_structure(tf.Variable, parameters())
    converted = jax2tf.convert(network, polymorphic_shapes=[None, None if batch else "(b, ...)"])
    module.call = tf.function(
        lambda x: converted(module.weights, x), autograph=False, input_signature=[tf.TensorSpec([batch, 8], name="x")]
    )
    tf.saved_model.save(module, str(path), {"serving_default": module.call})
    return {"x": x}, jax.jit(network)(parameters(), x)


@origin("jax2tf, any batch", JAX)
def any_batch(path: Path) -> tuple[Columns, Columns]:
    return convert(path, None)


@origin("jax2tf, fixed batch", JAX)
def fixed_batch(path: Path) -> tuple[Columns, Columns]:
    return convert(path, FIXED)


@origin("Keras on JAX", JAX)
def keras_on_jax(path: Path) -> tuple[Columns, Columns]:
    import keras

    keras.utils.set_random_seed(5)
    between = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)]  # state that a call leaves as it is
    layers = [keras.layers.Dense(16, "relu"), *between, keras.layers.Dense(3, "softmax")]
    model, x = keras.Sequential([keras.Input((8,), name="x"), *layers]), features()
    model.export(path, verbose=False)
    return {"x": x}, {"output_0": model.predict(x, verbose=0)}


@origin("orbax-export", (*JAX, "orbax.export"))
def orbax_export(path: Path) -> tuple[Columns, Columns]:
    import jax
    import tensorflow as tf
    from orbax.export import ExportManager, JaxModule, ServingConfig

    module = JaxModule(parameters(), network, input_polymorphic_shape="b, ...")
    serving = ServingConfig("serving_default", input_signature=[tf.TensorSpec([None, 8], name="x")])
    ExportManager(module, [serving]).save(str(path))
    return {"x": features()}, jax.jit(network)(parameters(), features())


@origin("TensorFlow tokenizer, JAX network", JAX)
def tokenizer_and_network(path: Path) -> tuple[Columns, Columns]:
    import jax
    import jax.numpy as jnp
    import tensorflow as tf
    from jax.experimental import jax2tf

    table = np.random.default_rng(3).normal(size=(len(WORDS) + 2, 8)).astype(np.float32)

    def embed(weights: Any, ids: Any) -> Any:
        known = (ids > 0)[..., None]
        mean = jnp.sum(jnp.asarray(table)[ids] * known, axis=1) / jnp.maximum(jnp.sum(known, axis=1), 1)
        return network(weights, mean)

    module = tf.Module()
    pairs = tf.lookup.KeyValueTensorInitializer(WORDS, np.arange(2, len(WORDS) + 2))
    module.vocabulary = tf.lookup.StaticHashTable(pairs, 1)
    module.weights = tf.nest.map_structure(tf.Variable, parameters())
    converted = jax2tf.convert(embed, polymorphic_shapes=[None, "(b, ...)"])

    def call(text: Any) -> Any:
        words = tf.strings.split(tf.strings.lower(text))
        ids = tf.ragged.map_flat_values(module.vocabulary.lookup, words).to_tensor(shape=[None, 6])
        return converted(module.weights, ids)

    specs = [tf.TensorSpec([None], tf.string, name="text")]
    module.call = tf.function(call, autograph=False, input_signature=specs)
    tf.saved_model.save(module, str(path), {"serving_default": module.call})
    lines = sentences()
    numbers = {word: 2 + place for place, word in enumerate(WORDS)}
    ids = np.zeros((ROWS, 6), np.int64)
    for row, line in enumerate(lines):
        for place, word in enumerate(line.lower().split()[:6]):
            ids[row, place] = numbers.get(word, 1)
    return {"text": lines}, jax.jit(embed)(parameters(), ids)


def sentences() -> list[str]:
    """Of none to eight words, some unknown, some in capitals."""
    random = np.random.default_rng(13)
    words = [*WORDS, "Größe", "THE", "unknown"]
    return [" ".join(random.choice(words, random.integers(0, 9))) for _ in range(ROWS)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
