"""The peers, each a whole program: `python peers.py plain|padded|raydata WORKLOAD MODEL INPUT OUTPUT`.

Settings are the best that were found on two cores; what was tried is said beside them. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from workloads import WORKLOADS, Workload


def scored(workload: Workload, serve: Any, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows to write: `id` and the outputs asked for; vectors as fixed-size lists."""
    import tensorflow as tf

    outputs = serve(**{name: tf.constant(value) for name, value in workload.feeds(batch).items()})
    columns = [batch.column("id")]
    for name in workload.outputs:
        values = outputs[name].numpy()  # (rows, ...)
        flat = pa.array(values.reshape(-1))
        columns.append(flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values[0].size))
    return pa.RecordBatch.from_arrays(columns, ["id", *workload.outputs])


def batches(workload: Workload, path: Path) -> Iterator[pa.RecordBatch]:
    """What a user's loop reads of one file; text by pandas.

    Tried: the engines 'c' and 'pyarrow' for CSV (as fast, and only 'c' reads in pieces); for JSON lines pieces of the
    default engine, and whole files of 'pyarrow', which are three times as fast.
    """
    if workload.format == "parquet":
        yield from pq.ParquetFile(path).iter_batches(workload.batch_rows, columns=list(workload.columns))
        return
    import pandas as pd

    columns = list(workload.columns)
    if workload.format == "csv":
        types = dict.fromkeys(columns, "float32") | {"id": "int64"}
        frames = pd.read_csv(path, dtype=types, usecols=columns, chunksize=workload.batch_rows)
    else:
        whole = pd.read_json(path, lines=True, engine="pyarrow")[columns]
        frames = (whole[at : at + workload.batch_rows] for at in range(0, len(whole), workload.batch_rows))
    for frame in frames:
        yield pa.RecordBatch.from_pandas(frame[columns], preserve_index=False)


def plain(workload: Workload, model: str, source: str, target: str) -> dict[str, float]:
    """The loop a user writes.

    Tried: batches of 16,384 and 65,536 rows for the small models (the larger is as fast or faster), pyarrow's own
    threads on and off (on is faster here), snappy and zstd for the output (zstd, as ours).
    """
    import tensorflow as tf

    serve = tf.saved_model.load(model).signatures["serving_default"]
    Path(target).mkdir()
    start, cpu = time.perf_counter(), time.process_time()
    for path in workload.files_of(source):
        writer = None
        for batch in batches(workload, path):
            rows = scored(workload, serve, batch)
            writer = writer or pq.ParquetWriter(Path(target) / f"{path.stem}.parquet", rows.schema, compression="zstd")
            writer.write_batch(rows)
        if writer is not None:
            writer.close()
    return {"loop_s": time.perf_counter() - start, "loop_cpu_s": time.process_time() - cpu}


def padded(workload: Workload, model: str, source: str, target: str) -> dict[str, float]:
    """The loop of a user who knows that the model is compiled for each batch size: every call has the same rows.

    Tried: 16,384, 32,768 and 65,536 rows (the files of the workload have 20,000 to 25,000: 32,768 is the fastest).
    """
    import numpy as np
    import tensorflow as tf

    rows = 32_768
    serve = tf.saved_model.load(model).signatures["serving_default"]
    Path(target).mkdir()
    start, cpu = time.perf_counter(), time.process_time()
    for path in workload.files_of(source):
        writer = None
        for batch in pq.ParquetFile(path).iter_batches(rows, columns=list(workload.columns)):
            short = rows - batch.num_rows
            feeds = {
                name: np.pad(value, [(0, short)] + [(0, 0)] * (value.ndim - 1))
                for name, value in workload.feeds(batch).items()
            }
            outputs = serve(**{name: tf.constant(value) for name, value in feeds.items()})
            scores = [pa.array(outputs[name].numpy()[: batch.num_rows].reshape(-1)) for name in workload.outputs]
            out = pa.RecordBatch.from_arrays([batch.column("id"), *scores], ["id", *workload.outputs])
            writer = writer or pq.ParquetWriter(Path(target) / path.name, out.schema, compression="zstd")
            writer.write_batch(out)
        if writer is not None:
            writer.close()
    return {"loop_s": time.perf_counter() - start, "loop_cpu_s": time.process_time() - cpu}


def raydata(workload: Workload, model: str, source: str, target: str) -> dict[str, float]:
    """Ray Data: read_parquet, map_batches with an actor, write_parquet.

    Tried: batch_format numpy and pyarrow (pyarrow is faster); one actor and two (two on two CPUs leave none for reading
    and hang); an actor that asks for no CPU, so that reading keeps both (as fast as one CPU, within noise); the default
    block size and 64 MiB (the default). Progress bars are off.
    """
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    import ray

    class Predictor:
        def __init__(self) -> None:
            import tensorflow as tf

            self.serve = tf.saved_model.load(model).signatures["serving_default"]

        def __call__(self, table: pa.Table) -> pa.Table:
            batches = table.combine_chunks().to_batches()
            return pa.Table.from_batches([scored(workload, self.serve, batch) for batch in batches])

    here = str(Path(__file__).parent)
    ray.init(include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": here}})
    ray.data.DataContext.get_current().enable_progress_bars = False
    start = time.perf_counter()
    paths = [str(path) for path in workload.files_of(source)]
    if workload.format == "parquet":
        rows = ray.data.read_parquet(paths, columns=list(workload.columns))
    else:
        rows = {"csv": ray.data.read_csv, "jsonl": ray.data.read_json}[workload.format](paths)
    rows = rows.map_batches(
        Predictor,
        batch_format="pyarrow",
        batch_size=workload.batch_rows,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
        zero_copy_batch=True,
    )
    rows.write_parquet(target, compression="zstd")
    loop_s = time.perf_counter() - start
    ray.shutdown()
    return {"loop_s": loop_s}


if __name__ == "__main__":
    peer, name, *places = sys.argv[1:]
    told = {"plain": plain, "padded": padded, "raydata": raydata}[peer](WORKLOADS[name], *places)
    print(json.dumps(told))
