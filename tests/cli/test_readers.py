"""The output, read by the libraries that people have: each line of the README files, executed as it stands there.

The output has rejected rows, and what a killed attempt leaves while it writes: neither is ever a row of the table.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from reading_lines import reading_lines

Command = Callable[..., subprocess.CompletedProcess[str]]
Read = Callable[..., list[list[object]]]  # (library, line)

ROWS = 60
REJECTED = (3, 41)
EXPECTED = [[row, row / 2 + 2] for row in range(ROWS) if row not in REJECTED]

# What a line gives, as rows; `value` is what it gave.
_ROWS = {
    "pyarrow": "value.to_pylist()",
    "pandas": "value.to_dict('records')",
    "polars": "value.to_dicts()",
    "duckdb": "value.to_arrow_table().to_pylist()",
    "fastparquet": "value.to_dict('records')",
    "ray": "value.take_all()",
    "tensorflow": "[plain(tensorflow.train.Example.FromString(record.numpy())) for record in value]",
}
_SCRIPT = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
library, line, rows, names = sys.argv[1:]

def plain(example):
    feature = example.features.feature
    return {"id": feature["id"].int64_list.value[0], "y": feature["y"].float_list.value[0]}

for name in names.split():
    importlib.import_module(name)
    globals()[name.partition(".")[0]] = sys.modules[name.partition(".")[0]]
if library == "ray":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
value = eval(line)
print(json.dumps(sorted([int(row["id"]), float(row["y"])] for row in eval(rows))))
"""
_NEEDED = {"pyarrow": "pyarrow pyarrow.dataset", "ray": "ray ray.data tensorflow"}


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory, half_plus_two: Path) -> Path:
    """A folder with `scores`, `scores-arrow` and `scores-tfrecord`, of three parts each."""
    folder = tmp_path_factory.mktemp("readers")
    x = [None if row in REJECTED else float(row) for row in range(ROWS)]
    (folder / "in").mkdir()
    table = pa.table({"id": range(ROWS), "x": pa.array(x, pa.float32())})
    pq.write_table(table, folder / "in" / "numbers.parquet", row_group_size=20)
    for name, kind in (("scores", "parquet"), ("scores-arrow", "arrow"), ("scores-tfrecord", "tfrecord")):
        job = {
            "model": {"url": str(half_plus_two)},
            "input": {"url": "in"},
            "columns": {"keep": ["id"]},
            "output": {"url": name, "format": kind},
            "limits": {"shard_rows": 20, "on_bad_row": "reject", "max_rejected_rows": 2},
        }
        (folder / "job.yaml").write_text(yaml.safe_dump(job))
        call = [sys.executable, "-m", "runner", "run", "job.yaml", "--in-process", "--quiet"]
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def read(outputs: Path) -> Read:
    """read(library, line): its rows, as [id, y]. each: an expression that makes such a row of `row`."""

    def call(library: str, line: str, each: str = "row") -> list[list[object]]:
        pytest.importorskip(library, reason=f"{library} is not installed")
        names = _NEEDED.get(library, f"{library} glob")
        rows_of = f"[{each} for row in {_ROWS[library]}]"
        script = [sys.executable, "-c", _SCRIPT, library, line, rows_of, names]
        done = subprocess.run(script, cwd=outputs, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        rows: list[list[object]] = json.loads(done.stdout.splitlines()[-1])
        return rows

    return call


def _lines(page: str, mark: str) -> list[tuple[str, str]]:
    return [pair for pair in reading_lines(page, mark) if pair[0] != "spark"]  # Spark's line is run by `make cases`


def test_the_first_page_has_a_line_for_each_of_the_libraries_that_people_read_tables_with() -> None:
    named = [library for library, _ in reading_lines("README.md", "reads scores")]
    assert named == ["pyarrow", "pandas", "polars", "duckdb", "spark", "ray", "fastparquet"]


@pytest.mark.parametrize(("library", "line"), _lines("README.md", "reads scores"))
def test_the_line_of_the_first_page_reads_the_rows_of_the_parts_and_no_other(
    library: str, line: str, read: Read
) -> None:
    assert read(library, line) == EXPECTED


@pytest.mark.parametrize(
    ("library", "line"),
    [*_lines("connectors/README.md", "reads Arrow"), *_lines("connectors/README.md", "reads TFRecord")],
)
def test_the_line_for_another_format_reads_the_rows_of_the_parts_and_no_other(
    library: str, line: str, read: Read
) -> None:
    assert read(library, line) == EXPECTED


@pytest.mark.parametrize(
    ("library", "line"),
    [
        ("duckdb", 'duckdb.read_parquet("scores")'),
        ("duckdb", 'duckdb.read_parquet("scores/**/*.parquet")'),
        ("polars", 'polars.read_parquet("scores/**/*.parquet")'),
        ("fastparquet", 'fastparquet.ParquetFile("scores").to_pandas()'),
        ("polars", 'polars.read_ipc("scores-arrow/**/*.arrow")'),
    ],
)
def test_readers_that_look_into_all_folders_find_no_rejected_rows_and_no_spools(
    library: str, line: str, read: Read, outputs: Path
) -> None:
    for name in ("scores", "scores-arrow"):
        assert list((outputs / name / "_run").rglob("rejects/*")), "there are rejected rows"
    assert read(library, line) == EXPECTED


@pytest.mark.parametrize(("library", "line"), _lines("connectors/README.md", "reads rejected"))
def test_the_line_for_rejected_rows_reads_those_that_were_rejected(library: str, line: str, read: Read) -> None:
    found = read(library, line, each="{'id': row['kept']['id'], 'y': row['row']}")
    assert found == [[id, id % 20] for id in REJECTED]
