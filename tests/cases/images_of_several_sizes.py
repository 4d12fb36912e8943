"""Images of several sizes get the answers that TensorFlow gives to each alone, in their order

Source: Polars, nested lists; a convolution, which sees what stands beside the borders of an image.
"""

import pyarrow.parquet as pq
import tensorflow as tf
from case import ROOT, check, end, saved_model, score, written_by

written_by(
    """
    import polars
    sizes = [(4, 6), (6, 4), (4, 6), (5, 5), (6, 4), (4, 6)]
    pixel = lambda seed: [7 * seed % 256] * 3
    rows = [[[pixel(n + y + x) for x in range(w)] for y in range(h)] for n, (h, w) in enumerate(sizes)]
    kind = polars.List(polars.List(polars.Array(polars.UInt8, 3)))
    frame = polars.DataFrame({"id": range(6), "image": polars.Series(rows, dtype=kind)})
    frame.write_parquet("in.parquet")
    """
)


def answers(image):
    drawn = tf.nn.conv2d(tf.cast(image, tf.float32), tf.ones([3, 3, 3, 1]), 1, "SAME")
    return {"mean": tf.reduce_mean(drawn, [1, 2, 3])}


for shape in ([None, None, None, 3], [1, None, None, 3]):
    model = saved_model(answers, tf.TensorSpec(shape, "uint8", "image"), name=f"model{shape[0]}")
    rows = pq.read_table(ROOT / "in.parquet")["image"].to_pylist()
    alone = [float(answers(tf.constant([row], tf.uint8))["mean"][0]) for row in rows]
    done = score(model, ROOT / "in.parquet", "--keep", "id")
    told = done.table and (done.table["id"].to_pylist(), [round(one, 2) for one in done.table["mean"].to_pylist()])
    check(told == (list(range(6)), [round(one, 2) for one in alone]), f"{shape}: {told}; expected {alone}", done)
end()
