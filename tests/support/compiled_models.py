"""SavedModels that are compiled: loops and conditions, look-ups, ops that refuse, and values that decide a shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def write(tf: Any, root: Path) -> None:
    """Write `root`/flow, lookups, refusals and shapes. tf: the package."""
    for name, (make, signatures) in _MODELS.items():
        module = make(tf)
        tf.saved_model.save(module, str(root / name), signatures={each: getattr(module, each) for each in signatures})


def _flow(tf: Any) -> Any:
    """What TensorFlow lowers to ops that XLA does not know, unless it is told not to."""
    module = tf.Module()
    lstm = tf.keras.layers.LSTM(3)
    lstm.build((None, 4, 1))
    module.weights = [weight.value for weight in lstm.weights]

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def flow(x: Any) -> Any:
        tf.debugging.assert_less(x, 1000.0)
        return {
            "condition": tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x * 3),
            "loop": tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), [0, x])[1],
            "mapped": tf.map_fn(lambda row: row * tf.reduce_sum(row), x),
            "case": tf.switch_case(tf.constant(1) + tf.cast(x[0, 0], tf.int32), [lambda: x, lambda: x * 10]),
            "lstm": lstm(x[:, :, None]),
            "most": tf.reduce_max(x, 1),
            "least": tf.reduce_min(x, 1),
        }

    module.flow = flow
    return module


def _lookups(tf: Any) -> Any:
    """Tables of 10 and of 4 rows; each input goes into one of them, straight or not."""
    module = tf.Module()
    module.ten = tf.Variable(tf.range(10.0), name="ten")
    module.four = tf.Variable(tf.reshape(tf.range(12.0), [4, 3]), name="four")
    embedding = tf.keras.layers.Embedding(10, 2, name="words", embeddings_initializer="ones")
    embedding.build((None, 5))
    module.words = embedding.embeddings.value

    def spec(name: str, *row: int, dtype: Any = "int32") -> Any:
        return tf.TensorSpec([None, *row], dtype, name=name)

    @tf.function
    def find(table: Any, ids: Any) -> Any:
        return tf.gather(table, ids)

    straight = [spec("id", dtype="int64"), spec("place", 3, dtype="float32"), spec("word", 5), spec("both")]

    @tf.function(input_signature=[*straight, tf.RaggedTensorSpec([None, None], tf.int32)])
    def look(id: Any, place: Any, word: Any, both: Any, bag: Any) -> Any:
        return {
            "id": tf.nn.embedding_lookup(module.ten, tf.expand_dims(id, 1)),
            "place": tf.gather(tf.constant([1.0, 2.0, 3.0]), tf.cast(tf.reshape(place, [-1, 3]), tf.int32)),
            "word": embedding(word),
            "both": find(module.ten, both) + tf.reduce_sum(find(module.four, both), 1),
            "bag": tf.reduce_sum(tf.ragged.map_flat_values(lambda ids: tf.gather(module.ten, ids), bag), 1),
        }

    @tf.function(input_signature=[spec("clipped"), spec("masked"), spec("shifted"), spec("branch"), spec("column")])
    def careful(clipped: Any, masked: Any, shifted: Any, branch: Any, column: Any) -> Any:
        return {
            "clipped": tf.gather(module.ten, tf.clip_by_value(clipped, 0, 9)),
            "masked": tf.gather(module.ten, tf.where(masked < 10, masked, 0)),
            "shifted": tf.gather(module.ten, shifted - 1),
            "branch": tf.cond(
                tf.reduce_max(branch) < 10,
                lambda: tf.gather(module.ten, branch),
                lambda: 0.0 * tf.cast(branch, tf.float32),
            ),
            "column": tf.transpose(tf.gather(module.four, column, axis=1)),
        }

    @tf.function(input_signature=[spec("id", dtype="int64"), spec("word", 5)])
    def pick(id: Any, word: Any) -> Any:
        return {"id": tf.gather(module.ten, id), "word": tf.reduce_sum(embedding(word), [1, 2])}

    module.look, module.careful, module.pick = look, careful, pick
    return module


def refusals(tf: Any, i: Any, f: Any, ten: Any) -> dict[str, Callable[[], Any]]:
    """For each kind of op that answers bad values once it is compiled one of them, by its name.

    i: int32[3]. f: float32[3]. ten: a variable of ten rows.
    """
    raw, ones = tf.raw_ops, tf.ones([3])
    square, singular = tf.reshape(tf.range(9.0), [3, 3]), tf.fill([2, 2], f[0])

    def checked() -> Any:
        with tf.control_dependencies([tf.debugging.assert_non_negative(i)]):
            return tf.identity(i)

    return {
        "GatherV2": lambda: tf.gather(tf.range(10.0), i + 0),
        "ResourceGather": lambda: tf.gather(ten, i + 0),
        "GatherNd": lambda: tf.gather_nd(tf.range(10.0), i[:, None]),
        "ScatterNd": lambda: tf.scatter_nd(i[:, None], ones, [10]),
        "TensorScatterUpdate": lambda: tf.tensor_scatter_nd_update(tf.zeros([10]), i[:, None], ones),
        "UnsortedSegmentSum": lambda: tf.math.unsorted_segment_sum(ones, i, 10),
        "SparseToDense": lambda: raw.SparseToDense(
            sparse_indices=i, output_shape=[10], sparse_values=1.0, default_value=0.0
        ),
        "DynamicPartition": lambda: tf.dynamic_partition(ones, i, 2)[0],
        "DenseBincount": lambda: raw.DenseBincount(input=i, size=10, weights=ones),
        "ReverseSequence": lambda: tf.reverse_sequence(square, i, seq_axis=1),
        "InvertPermutation": lambda: tf.math.invert_permutation(i),
        "FloorDiv": lambda: 7 // tf.minimum(i, 0),
        "FloorMod": lambda: 7 % tf.minimum(i, 0),
        "Pow": lambda: tf.pow(7, i),
        "Cast": lambda: tf.cast(f, tf.int32),
        "MatrixInverse": lambda: tf.linalg.inv(singular),
        "MatrixSolve": lambda: tf.linalg.solve(singular, tf.ones([2, 1])),
        "ArgMin": lambda: tf.argmin(f),
        "TopKV2": lambda: tf.math.top_k(f, 1)[1],
        "Bucketize": lambda: raw.Bucketize(input=f, boundaries=[1.0, 2.0]),
        "SparseSoftmaxCrossEntropyWithLogits": lambda: tf.nn.sparse_softmax_cross_entropy_with_logits(i, square),
        "CheckNumerics": lambda: tf.debugging.check_numerics(f, "found"),
        "Assert": checked,
    }


def _refusals(tf: Any) -> Any:
    module = tf.Module()
    module.ten = tf.Variable(tf.range(10.0), name="ten")
    both = [tf.TensorSpec([3], tf.int32, name="i"), tf.TensorSpec([3], tf.float32, name="f")]

    @tf.function(input_signature=both)
    def refuse(i: Any, f: Any) -> Any:
        return {op: answer() for op, answer in refusals(tf, i, f, module.ten).items()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="d")])
    def divide(d: Any) -> Any:
        return {"quotient": 7 // d, "half": tf.cast(d, tf.float32) / 2}

    module.refuse, module.divide = refuse, divide
    return module


def _shapes(tf: Any) -> Any:
    """Values that decide a shape."""
    module = tf.Module()
    x = tf.TensorSpec([None, 20], tf.float32, name="x")

    @tf.function(input_signature=[x, tf.TensorSpec([None], tf.int32, name="k")])
    def top(x: Any, k: Any) -> Any:
        return {"y": tf.reduce_sum(tf.math.top_k(x, k=tf.reduce_max(k))[0], 1)}

    @tf.function(input_signature=[x, tf.TensorSpec([None], tf.int32, name="n")])
    def masked(x: Any, n: Any) -> Any:
        return {"y": tf.reduce_sum(tf.where(tf.sequence_mask(n), x[:, : tf.reduce_max(n)], 0.0), 1)}

    @tf.function(input_signature=[x])
    def never(x: Any) -> Any:
        return {"y": tf.reshape(x, [-1, tf.shape(x)[1] + 1])}

    module.top, module.masked, module.never = top, masked, never
    return module


_MODELS = {
    "flow": (_flow, ["flow"]),
    "lookups": (_lookups, ["look", "careful", "pick"]),
    "refusals": (_refusals, ["refuse", "divide"]),
    "shapes": (_shapes, ["top", "masked", "never"]),
}
