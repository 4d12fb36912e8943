"""Columns of raw pixels feed a uint8 tensor, and a row of other bytes is a bad row

Source: Polars, Binary; DuckDB, BLOB.
"""

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from case import ROOT, check, end, saved_model, score, written_by

written_by(
    """
    import duckdb, polars
    rows = [bytes(range(start, start + 12)) for start in (0, 90, 200)]
    polars.DataFrame({"image": rows}).write_parquet("good.parquet")
    duckdb.sql("COPY (SELECT image[:-2] AS image FROM 'good.parquet') TO 'short.parquet'")
    """
)
model = saved_model(
    lambda image: {"mean": tf.reduce_mean(tf.cast(image, tf.float32), [1, 2])},
    tf.TensorSpec([None, 2, 2, 3], "uint8", "image"),
)
done = score(model, ROOT / "good.parquet")
pixels = np.frombuffer(b"".join(pq.read_table(ROOT / "good.parquet")["image"].to_pylist()), np.uint8)
wanted = tf.saved_model.load(str(model)).call(pixels.reshape(3, 2, 2, 3))["mean"].numpy().tolist()
check(done.table is not None and done.table["mean"].to_pylist() == wanted, f"expected {wanted}", done)
bad = score(model, ROOT / "short.parquet")
check(bad.code == 65 and "11 bytes" in bad.told and "expected 12 bytes" in bad.told, "short rows pass", bad)
end()
