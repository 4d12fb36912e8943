"""Tensors that Ray Data wrote are fed by their shapes, with TensorFlow's answers; another shape is refused

Report: ray-project/ray#50506. All tensors of Ray Datasets are of such types: of one shape, or of one for each row.
"""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from case import ROOT, check, end, runner, saved_model, score

code = """
import numpy as np, ray
from ray.data.context import DataContext
from ray.data.extensions import FixedShapeTensorFormat
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
draw = np.random.default_rng(1)
images = draw.integers(0, 256, (6, 3, 8, 4), np.uint8)
for version in ("V1", "V2"):
    DataContext.get_current().arrow_fixed_shape_tensor_format = FixedShapeTensorFormat[version]
    ray.data.from_numpy(images).rename_columns({"data": "image"}).write_parquet(f"fixed{version}")
rows = [{"image": draw.integers(0, 256, (2 + at % 2, 3, 4), np.uint8)} for at in range(6)]
ray.data.from_items(rows, override_num_blocks=1).write_parquet("uneven")
ray.data.from_items(rows, override_num_blocks=6).write_parquet("apart")
"""
done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=240
)
if done.returncode:
    raise RuntimeError(done.stderr[-2000:])


def rows_of(name: str) -> list[np.ndarray]:
    """The rows in the order of the files, by what Ray says of its types: flat values and a shape."""
    found = []
    for path in sorted((ROOT / name).glob("*.parquet")):
        file = pq.read_table(path)
        shape = json.loads((file.schema.field("image").metadata or {})[b"ARROW:extension:metadata"])
        for row in file["image"].to_pylist():
            values, size = (row["data"], row["shape"]) if isinstance(row, dict) else (row, shape)
            found.append(np.array(values, np.uint8).reshape(size))
    return found


def place(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """A number that depends on where each value stands."""
    x = tf.cast(x, tf.float32)
    return {"y": tf.reduce_sum(x * tf.cast(tf.reshape(tf.range(tf.size(x[0])), tf.shape(x[0])), tf.float32), [1, 2, 3])}


for name, declared in {"fixedV1": [None, 3, 8, 4], "fixedV2": [None, None, None, 4]}.items():
    model = saved_model(place, tf.TensorSpec(declared, tf.uint8, "image"), name=f"model_{name}")
    done = score(model, ROOT / name)
    wanted = place(tf.constant(np.stack(rows_of(name))))["y"].numpy()
    check(done.table is not None and np.allclose(done.table["y"], wanted), f"{name}: not {wanted}", done)

turned = saved_model(place, tf.TensorSpec([None, 8, 4, 3], tf.uint8, "image"), name="turned")
plan = runner("plan", "--model", turned, "--input", ROOT / "fixedV2", "--output", ROOT / "out")
check(plan.code == 2 and "COLUMN_TYPE" in plan.told and "[3, 8, 4]" in plan.told, "[3, 8, 4] went into [8, 4, 3]", plan)


def mean(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": tf.reduce_sum(tf.cast(x, tf.float32) * [[1.0], [2.0], [3.0]], [1, 2, 3])}


model = saved_model(mean, tf.TensorSpec([None, None, 3, 4], tf.uint8, "image"), name="uneven_model")
done = score(model, ROOT / "uneven", "--set", "columns.inputs.image={column: image, pad: {to: max}}")
wanted = [float(mean(tf.constant(row[None]))["y"][0]) for row in rows_of("uneven")]
check(done.table is not None and np.allclose(done.table["y"], wanted), f"of several shapes: not {wanted}", done)

# Ray gives each file a shape of its own, where its rows have one.
plan = runner("plan", "--model", model, "--input", ROOT / "apart", "--output", ROOT / "out")
told = ["COLUMN_TYPE", "ray.data.arrow_tensor_v2 [2, 3, 4]", "ray.data.arrow_tensor_v2 [3, 3, 4]"]
check(plan.code == 2 and all(words in plan.told for words in told), "files of several shapes", plan)
end()
