"""The `vector` workload: ids and 32 floats a row through a small MLP, only `score` asked for.

    python benchmarks/vector.py [--rows 4000000] [--pairs 3] [--ours run|in-process]

Runs our command and the loop a user would write, each as a whole process, in alternation on the same files;
compares their results for equality; prints one JSON line with the medians and their ratio. Data and model are
generated once into benchmarks/.cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

CACHE = Path(__file__).parent / ".cache"
FILES, WIDTH, ROW_GROUP = 8, 32, 65_536


def make_input(rows: int) -> Path:
    folder = CACHE / f"vector-{rows}"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    bounds = np.linspace(0, rows, FILES + 1, dtype=np.int64)
    schema = pa.schema([("id", pa.int64()), ("features", pa.list_(pa.float32(), WIDTH))])
    for number, (first, stop) in enumerate(pairwise(bounds)):
        with pq.ParquetWriter(folder / f"vector-{number}.parquet", schema, compression="snappy") as writer:
            for start in range(first, stop, ROW_GROUP):
                ids = np.arange(start, min(start + ROW_GROUP, stop))
                values = pa.array(random.standard_normal(len(ids) * WIDTH, dtype=np.float32))  # (rows * 32,)
                features = pa.FixedSizeListArray.from_arrays(values, WIDTH)
                writer.write_table(pa.table([ids, features], schema=schema))
    (folder / "done").touch()
    return folder


MODEL = """
import sys, tensorflow as tf
class Mlp(tf.Module):
    def __init__(self):
        widths = [32, 64, 64, 1]
        self.weights = [
            (tf.Variable(tf.random.stateless_normal([a, b], [i, 7]) / a**0.5), tf.Variable(tf.zeros([b])))
            for i, (a, b) in enumerate(zip(widths, widths[1:]))
        ]
    @tf.function(input_signature=[tf.TensorSpec([None, 32], tf.float32, name="features")])
    def serve(self, features):
        hidden = features
        for weight, bias in self.weights[:-1]:
            hidden = tf.nn.relu(hidden @ weight + bias)
        weight, bias = self.weights[-1]
        return {"score": tf.sigmoid(hidden @ weight + bias)[:, 0], "embedding": hidden}
model = Mlp()
tf.saved_model.save(model, sys.argv[1], signatures={"serving_default": model.serve})
"""

PLAIN = """
import sys, glob, os, pyarrow as pa, pyarrow.parquet as pq, numpy as np, tensorflow as tf
model, source, target = sys.argv[1:]
os.makedirs(target)
serve = tf.saved_model.load(model).signatures["serving_default"]
for path in sorted(glob.glob(source + "/*.parquet")):
    schema = pa.schema([("id", pa.int64()), ("score", pa.float32())])
    with pq.ParquetWriter(os.path.join(target, os.path.basename(path)), schema, compression="zstd") as writer:
        for batch in pq.ParquetFile(path).iter_batches(65536, columns=["id", "features"]):
            rows = batch.column("features").flatten().to_numpy().reshape(-1, 32)
            score = serve(features=tf.constant(rows))["score"].numpy()
            writer.write_batch(pa.record_batch([batch.column("id"), pa.array(score)], schema=schema))
"""


def make_model() -> Path:
    folder = CACHE / "mlp"
    if not folder.exists():
        python(MODEL, str(folder))
    return folder


def python(code: str, *arguments: str) -> None:
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=quiet, stderr=subprocess.DEVNULL)


def ours(model: Path, source: Path, target: Path, in_process: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "runner", "run", "--json", "--quiet", "--keep", "id", "--fetch", "score"]
    command += ["--model", str(model), "--input", str(source), "--output", str(target)]
    done = subprocess.run([*command, *(["--in-process"] if in_process else [])], check=True, stdout=subprocess.PIPE)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def table(folder: Path) -> pa.Table:
    return ds.dataset(folder, format="parquet").to_table(columns=["id", "score"]).sort_by("id")


def require_equal(ours_in: Path, plain_in: Path, rows: int) -> None:
    """Every id once, and the scores TensorFlow's own to 1e-5."""
    mine, theirs = table(ours_in), table(plain_in)
    ids = mine["id"].to_numpy()
    if len(ids) != rows or not np.array_equal(ids, np.arange(rows)):
        raise SystemExit(f"ids are not each there once: {len(ids)} rows of {rows}")
    worst = float(np.abs(mine["score"].to_numpy() - theirs["score"].to_numpy()).max())
    if not worst <= 1e-5:
        raise SystemExit(f"scores differ by up to {worst}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--ours", choices=["run", "in-process"], default="in-process")
    arguments = parser.parse_args()
    source, model = make_input(arguments.rows), make_model()
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    report: dict[str, Any] = {}
    for pair in range(arguments.pairs):
        targets = {name: CACHE / f"out-{name}" for name in seconds}
        for target in targets.values():
            shutil.rmtree(target, ignore_errors=True)
        start = time.perf_counter()
        report = ours(model, source, targets["ours"], arguments.ours == "in-process")
        middle = time.perf_counter()
        python(PLAIN, str(model), str(source), str(targets["plain"]))
        seconds["ours"].append(middle - start)
        seconds["plain"].append(time.perf_counter() - middle)
        if pair == 0:
            require_equal(targets["ours"], targets["plain"], arguments.rows)
    ratios = [mine / theirs for mine, theirs in zip(seconds["ours"], seconds["plain"], strict=True)]
    line = {
        "workload": "vector",
        "ours": arguments.ours,
        "rows": arguments.rows,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "seconds": {name: round(statistics.median(values), 2) for name, values in seconds.items()},
        "ours_of_plain": round(statistics.median(ratios), 3),
        "stage_seconds": report["stage_seconds"],
        "equal": True,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
