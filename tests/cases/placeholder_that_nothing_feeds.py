"""A placeholder that no signature feeds is an error of the plan, with its name, and no row is blamed

Reports: tensorflow/serving#703, triton-inference-server/server#326, tensorflow/tensorflow#17913.
"""

import numpy as np
import pyarrow as pa
import tensorflow as tf
from case import ROOT, check, end, parquet, runner, score

v1 = tf.compat.v1
with tf.Graph().as_default(), v1.Session() as session:
    x = v1.placeholder(tf.float32, [None], name="x")
    outputs = {"y": x * v1.placeholder(tf.float32, [], name="keep_prob"), "z": x * 2}
    info = v1.saved_model.build_tensor_info
    predict = v1.saved_model.build_signature_def(
        {"x": info(x)}, {name: info(each) for name, each in outputs.items()}, "tensorflow/serving/predict"
    )
    builder = v1.saved_model.Builder(str(ROOT / "model"))
    builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": predict})
    builder.save()
source = parquet("in", pa.table({"x": np.arange(500, dtype=np.float32)}))
for limits in ((), ("--set", "limits.on_bad_row=reject", "--set", "limits.max_rejected_rows=100%")):
    done = score(ROOT / "model", source, *limits)
    check(done.code == 2 and "keep_prob" in done.told and "`outputs: [z]`" in done.told, "the model is not named", done)
done = runner("plan", "--model", ROOT / "model", "--input", source, "--output", ROOT / "out")
check(done.code == 2 and "keep_prob" in done.told, "plan does not say it", done)
done = score(ROOT / "model", source, "--set", "columns.outputs=[z]")
check(done.table is not None and done.table["z"].to_pylist()[:2] == [0, 2], "the other output cannot be written", done)
end()
