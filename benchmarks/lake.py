"""The `lake` workload: one hundredth of a partitioned set of files, by its `where`, beside the whole set.

50 days of 20 files with 24 hours in them: one day is known from the names of folders, half of its hours from footers.
Each program is a process of its own. Bytes are those that the process asked its files for while it ran the job, after a
look at a small set had loaded all that it loads; those of Ray are of all its processes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from measure import emptied, median, paired, program
from peers import scored
from workloads import CACHE, WORKLOADS

ROWS = 8_000_000
_DAYS, _FILES = 50, 20  # files of a day
_DAY, _HOUR = "2026-02-10", 12
WHERE = f"dt = '{_DAY}' and hour < {_HOUR}"
_MODEL = WORKLOADS["vector"]


def lake(rows: int, rounds: int, peers: list[str]) -> dict[str, Any]:
    """One line: seconds and bytes of the part and of the whole by each program, and their ratios."""
    source, small, model = _input(rows, _DAYS), _input(_DAYS * _FILES, _DAYS), _MODEL.model()
    done: dict[str, list[dict[str, Any]]] = {}
    for number in range(rounds):
        for name in ("whole", "part", *peers):
            target = emptied(CACHE / f"out-lake-{name}")
            places = (str(model), str(source), str(small), str(target))
            run = program(__file__, name, *places)
            done.setdefault(name, []).append(run.answer | {"seconds": run.seconds})
        for name in ("part", *peers) if number == 0 else ():
            _require_part(CACHE / f"out-lake-{name}", rows)
    for name in done:
        emptied(CACHE / f"out-lake-{name}")
    line: dict[str, Any] = {"workload": "lake", "rows": rows, "files": _DAYS * _FILES, "rounds": rounds}
    for name, runs in done.items():
        figures = ("seconds", "loop_s", "read_mb")
        line[name] = {figure: median([run[figure] for run in runs]) for figure in figures}
    for other in ("whole", *peers):
        line[f"of_{other}"] = {
            figure: paired([run[figure] for run in done["part"]], [run[figure] for run in done[other]])
            for figure in ("seconds", "loop_s", "read_mb")
        }
    return line


def _input(rows: int, days: int) -> Path:
    """The set of files; made if it is not there."""
    folder = CACHE / f"lake-{rows}"
    if (folder / "_done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    random, count = np.random.default_rng(0), rows // (days * _FILES)
    for day in range(days):
        below = folder / f"dt={np.datetime64('2026-01-01') + day}"
        below.mkdir(parents=True)
        for number in range(_FILES):
            start = (day * _FILES + number) * count
            hours = np.full(count, number * 24 // _FILES, np.int32)
            columns = {"id": pa.array(np.arange(start, start + count)), "hour": pa.array(hours)}
            table = pa.table(columns | _MODEL.table(start, count, random))
            pq.write_table(table, below / f"{number:02d}.parquet", compression="snappy")
    (folder / "_done").touch()
    return folder


def _require_part(folder: Path, rows: int) -> None:
    """Each row of the part once. SystemExit if not: then no figure means anything."""
    ids = np.sort(ds.dataset(folder, format="parquet").to_table(columns=["id"])["id"].to_numpy())
    count = rows // (_DAYS * _FILES)
    first = int((np.datetime64(_DAY) - np.datetime64("2026-01-01")).astype(int)) * _FILES * count
    kept = sum(1 for number in range(_FILES) if number * 24 // _FILES < _HOUR)
    if not np.array_equal(ids, np.arange(first, first + kept * count)):
        raise SystemExit(f"'{folder}' does not hold each row of the part once: {len(ids)} rows")


# programs: (model, source, target, whether it is the part)


def ours(model: str, source: str, target: str, part: bool) -> None:
    from jobs.job import Job
    from runner.driver.launch import RunOptions, launch

    where = {"where": WHERE} if part else {}
    job = {
        "model": {"url": model},
        "input": {"url": source, "format": "parquet", "partitions": "hive"} | where,
        "columns": {"outputs": list(_MODEL.outputs), "keep": ["id"]},
        "output": {"url": target},
    }
    launch(Job.model_validate(job), RunOptions(in_process=True))


def dataset(model: str, source: str, target: str, part: bool) -> None:
    """The loop a user writes: pyarrow reads what its filter leaves."""
    import tensorflow as tf

    serve = tf.saved_model.load(model).signatures["serving_default"]
    kept = (ds.field("dt") == _DAY) & (ds.field("hour") < _HOUR)
    partitioning = ds.partitioning(pa.schema([("dt", pa.string())]), flavor="hive")
    files = ds.dataset(source, format="parquet", partitioning=partitioning)
    Path(target).mkdir()
    writer = None
    for batch in files.to_batches(
        columns=["id", "features"], filter=kept if part else None, batch_size=_MODEL.batch_rows
    ):
        if batch.num_rows:
            rows = scored(_MODEL, serve, batch)
            writer = writer or pq.ParquetWriter(Path(target) / "0.parquet", rows.schema, compression="zstd")
            writer.write_batch(rows)
    if writer is not None:
        writer.close()


def raydata(model: str, source: str, target: str, part: bool) -> None:
    """Ray Data: read_parquet of a partitioned folder, a filter that it hands to the reader, and map_batches."""
    import ray
    from ray.data.datasource import Partitioning
    from ray.data.expressions import col

    class Predictor:
        def __init__(self) -> None:
            import tensorflow as tf

            self.serve = tf.saved_model.load(model).signatures["serving_default"]

        def __call__(self, table: pa.Table) -> pa.Table:
            batches = table.combine_chunks().to_batches()
            return pa.Table.from_batches([scored(_MODEL, self.serve, batch) for batch in batches])

    rows = ray.data.read_parquet(
        source, partitioning=Partitioning("hive"), columns=["id", "features", "hour", "dt"], file_extensions=["parquet"]
    )
    if part:
        rows = rows.filter(expr=(col("dt") == _DAY) & (col("hour") < _HOUR))
    rows = rows.map_batches(
        Predictor,
        batch_format="pyarrow",
        batch_size=_MODEL.batch_rows,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    rows.write_parquet(target, compression="zstd")


def _ray_begun() -> None:
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    import ray

    here = str(Path(__file__).parent)
    ray.init(include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": here}})
    ray.data.DataContext.get_current().enable_progress_bars = False


def read_bytes() -> int:
    """What this process and all below it asked their files for, as far as they still live."""
    pids, total = [os.getpid()], 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/io").read_text().split()[1])
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            pids += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return total


def measured(name: str, model: str, source: str, small: str, target: str) -> dict[str, float]:
    run: Callable[[str, str, str, bool], None] = {"dataset": dataset, "raydata": raydata}.get(name, ours)
    if name == "raydata":
        _ray_begun()
    warm = f"{target}-small"
    shutil.rmtree(warm, ignore_errors=True)
    run(model, small, warm, name != "whole")
    shutil.rmtree(warm)
    before, start = read_bytes(), time.perf_counter()
    run(model, source, target, name != "whole")
    return {"loop_s": time.perf_counter() - start, "read_mb": round((read_bytes() - before) / 1e6, 3)}


if __name__ == "__main__":  # python lake.py whole|part|dataset|raydata MODEL SOURCE SMALL OUTPUT
    print(json.dumps(measured(*sys.argv[1:])))
