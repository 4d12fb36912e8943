"""The `vector` workload: ids and 32 floats a row through a small MLP, only `score` asked for.

    python benchmarks/vector.py [--rows 4000000] [--rounds 3]

Runs our command on a local Ray, our command in one process, and the loop a user would write, each as a whole
process, in alternation on the same files; compares their results for equality; prints one JSON line with the medians
and the ratios within each round. Data and model are generated once into benchmarks/.cache.
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
        draft = CACHE / "mlp.draft"
        shutil.rmtree(draft, ignore_errors=True)
        python(MODEL, str(draft))
        draft.rename(folder)
    return folder


def python(code: str, *arguments: str) -> None:
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=quiet, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


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
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    source, model = make_input(arguments.rows), make_model()
    seconds: dict[str, list[float]] = {"ray": [], "in_process": [], "plain": []}
    reports: dict[str, dict[str, Any]] = {}
    for number in range(arguments.rounds):
        for name, taken in seconds.items():
            target = CACHE / f"out-{name}"
            shutil.rmtree(target, ignore_errors=True)
            start = time.perf_counter()
            if name == "plain":
                python(PLAIN, str(model), str(source), str(target))
            else:
                reports[name] = ours(model, source, target, name == "in_process")
            taken.append(time.perf_counter() - start)
        if number == 0:
            for name in reports:
                require_equal(CACHE / f"out-{name}", CACHE / "out-plain", arguments.rows)
    line = {
        "workload": "vector",
        "rows": arguments.rows,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "seconds": {name: round(statistics.median(taken), 2) for name, taken in seconds.items()},
        "of_plain": {name: round(ratio(seconds[name], seconds["plain"]), 3) for name in reports},
        "stage_seconds": {name: report["stage_seconds"] for name, report in reports.items()},
        "equal": True,
    }
    print(json.dumps(line))


def ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
