"""A model whose rows depend on those beside them ends the job with 2, also where the first rows of the input are equal

A cumulative sum, the first row for all, a batch that is turned round: the trial calls rows that differ, in several
places; where it finds none, the first batch whose rows differ is looked at.
"""

import numpy as np
import pyarrow as pa
import tensorflow as tf
from case import check, end, parquet, saved_model, score

rows = np.random.default_rng(2).normal(5, 1, 4000).astype(np.float32)
inputs = {
    "random": pa.table({"x": rows}),
    "padded": pa.table({"x": np.concatenate([np.zeros(2000, np.float32), rows])}),
}
floats, texts = tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([None], tf.string, "x")
models = {
    "own": saved_model(lambda x: {"y": x * 2}, floats, name="own"),
    "cumsum": saved_model(lambda x: {"y": tf.cumsum(x)}, floats, name="cumsum"),
    "first": saved_model(lambda x: {"y": x * 0 + x[0]}, floats, name="first"),
    "reverse": saved_model(lambda x: {"y": tf.reverse(x, [0])}, floats, name="reverse"),
}
for kind, table in inputs.items():
    source = parquet(kind, table)
    for name, model in models.items():
        done = score(model, source)
        check(done.code == (0 if name == "own" else 2), f"{name} with {kind} rows", done)

turned = saved_model(lambda x: {"y": tf.reverse(x, [0])}, texts, name="turned")
lines = pa.table({"x": ["same"] * 3000 + [f"line {number}" for number in range(1000)]})
done = score(turned, parquet("lines", lines.slice(0, 10), lines))
check(done.code == 2, "texts, of which the first are equal", done)
done = score(models["own"], parquet("equal", pa.table({"x": np.full(4000, 5, np.float32)})))
check(done.code == 0 and "not proved" in done.told, "all rows are equal, and nothing is said", done)

end()
