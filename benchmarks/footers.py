"""The `wide-plan` workload: a plan of one file with a large footer, beside pyarrow that only looks at that footer.

Two files: 5,000 columns in 20 row groups, all of them stacked into one tensor; 9 columns in 100,000 row groups, one of
them read. pyarrow parses the footer once, and looks at the sizes of the column chunks that the plan counts. Each look
is a process of its own, by turns; seconds are of its processor, without its start.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import median, paired, program
from workloads import CACHE

from jobs.job import Job
from runner.preflight.preflight import preflight

_ROWS = 4  # of a row group
_SHAPES = {"wide": (5_000, 20), "tall": (9, 100_000)}  # columns, row groups
_READ = {"wide": 5_000, "tall": 1}  # columns that the model takes
_MODEL = """
import sys, tensorflow as tf

class Sum(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, int(sys.argv[2])], tf.float32, name="features")])
    def serve(self, features):
        return {"score": tf.reduce_sum(features, 1)}

model = Sum()
tf.saved_model.save(model, sys.argv[1], signatures={"serving_default": model.serve})
print("{}")
"""


def wide_plan(rounds: int, part: int = 1) -> dict[str, Any]:
    """One line for both files. part: how many times fewer row groups the tall one has."""
    line: dict[str, Any] = {"workload": "wide-plan", "rounds": rounds}
    for name, (columns, most) in _SHAPES.items():
        groups = most // part if name == "tall" else most
        file, model = _file(name, columns, groups), _model(_READ[name])
        done: dict[str, list[dict[str, float]]] = {"runner": [], "pyarrow": []}
        for number in range(rounds):
            for program_name in sorted(done, reverse=number % 2 == 0):
                looked = program(__file__, program_name, str(file), str(model), str(_READ[name])).answer
                done[program_name].append(looked)
        line[name] = {"columns": columns, "row_groups": groups, "footer_mb": _footer_mb(file)}
        for figure in ("cpu_s", "peak_rss_mb"):
            taken = {program_name: [one[figure] for one in runs] for program_name, runs in done.items()}
            line[name][figure] = {program_name: median(values) for program_name, values in taken.items()}
            line[name][figure]["ratio"] = paired(taken["runner"], taken["pyarrow"])
    return line


def _file(name: str, columns: int, groups: int) -> Path:
    file = CACHE / f"{name}-plan-{columns}-{groups}.parquet"
    if not file.exists():
        table = pa.table({f"f{at}": np.zeros(_ROWS, np.float32) for at in range(columns)})
        draft = file.with_suffix(".draft")
        with pq.ParquetWriter(draft, table.schema, use_dictionary=False) as writer:
            for _ in range(groups):
                writer.write_table(table)
        draft.rename(file)
    return file


def _footer_mb(file: Path) -> float:
    with file.open("rb") as held:
        held.seek(-8, 2)
        return round(int.from_bytes(held.read(4), "little") / 2**20, 1)


def _model(width: int) -> Path:
    folder = CACHE / f"model-sum-{width}"
    if not folder.exists():
        program("-c", _MODEL, str(folder), str(width))
    return folder


def look(program_name: str, file: str, model: str, read: int) -> dict[str, float]:
    job = Job.model_validate(
        {
            "model": {"url": model},
            "input": {"url": file},
            "columns": {"inputs": {"features": {"stack": [f"f{at}" for at in range(read)]}}},
            "output": {"url": str(CACHE / "out-wide-plan")},
        }
    )
    began = time.process_time()
    if program_name == "runner":
        assert preflight(job).plan.rows
    else:
        metadata = pq.ParquetFile(file).metadata
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            assert sum(group.column(at).total_uncompressed_size for at in range(read))
    seconds = time.process_time() - began
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {"cpu_s": round(seconds, 3), "peak_rss_mb": round(peak / 1024, 1)}


if __name__ == "__main__":  # python footers.py runner|pyarrow FILE MODEL COLUMNS
    print(json.dumps(look(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
