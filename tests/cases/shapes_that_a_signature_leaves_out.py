"""An output of unknown rank gets the shape of a call, and a scalar that the graph says is none is what the graph says

Exports of TensorFlow 1.0 call all tensors scalars; TensorFlow Serving runs them.
"""

import numpy as np
import pyarrow as pa
import tensorflow as tf
from case import ROOT, check, end, parquet, runner, score
from tensorflow.core.protobuf import saved_model_pb2

v1 = tf.compat.v1


def exported(name, shape, scalars=False):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, shape, name="x")
        info = v1.saved_model.build_tensor_info
        predict = v1.saved_model.build_signature_def(
            {"x": info(x)}, {"y": info(x / 2 + 3)}, "tensorflow/serving/predict"
        )
        builder = v1.saved_model.Builder(str(ROOT / name))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": predict})
        builder.save()
    if scalars:
        path = ROOT / name / "saved_model.pb"
        saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        signature = saved.meta_graphs[0].signature_def["serving_default"]
        for each in (*signature.inputs.values(), *signature.outputs.values()):
            del each.tensor_shape.dim[:]
        path.write_bytes(saved.SerializeToString())
    return ROOT / name


x = np.array([[4], [8]], np.float32)
np.save(ROOT / "x.npy", x)
source = parquet("in", pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 1)}))
for model in (exported("rank", None), exported("scalar", [None, 1], scalars=True)):
    done = score(model, source)
    check(done.table is not None and done.table["y"].to_pylist() == [[5], [7]], f"{model.name} cannot be run", done)
    done = runner("call", model, "--inputs", f"x={ROOT / 'x.npy'}")
    check(done.code == 0 and "[2, 1]" in done.told, f"{model.name} cannot be called", done)
done = runner("show", ROOT / "scalar")
check("the graph is believed" in done.told, "show does not say that the signature is wrong", done)
end()
