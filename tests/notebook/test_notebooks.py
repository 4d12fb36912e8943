"""In a real kernel: the example as a newcomer runs it, and runs that are awaited, repeated and interrupted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "jobs" / "examples" / "digits.ipynb"
SCRIPT = ROOT / "tests" / "support" / "execute_notebook.py"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def execute(tmp_path: Path) -> Callable[[Path], Any]:
    """execute(notebook): the notebook with its outputs, executed in a folder of its own."""

    def call(notebook: Path) -> Any:
        target = tmp_path / "executed.ipynb"
        command = [sys.executable, str(SCRIPT), str(notebook), str(tmp_path), str(target)]
        done = subprocess.run(command, env=os.environ.copy(), capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return nbformat.read(target, as_version=4)

    return call


def outputs(notebook: Any) -> list[list[str]]:
    """For each cell of code, what it shows: HTML where there is some."""
    return [
        [
            output.get("text") or output["data"].get("text/html", output["data"].get("text/plain"))
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_example_is_kept_without_outputs() -> None:
    notebook = nbformat.read(EXAMPLE, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_the_example_tells_the_whole_story(execute: Callable[[Path], Any]) -> None:
    shown = outputs(execute(EXAMPLE))
    text = "\n".join(part for cell in shown for part in cell)
    for fact in (
        "<b>Model</b>",
        "serving_default",
        "<b>Job</b>",
        "<b>Plan</b>",
        "<b>Report</b>",
        "done: 1,797 rows in 8 parts",
        "digits that the model has not seen are read correctly",
        "every one of 1,797 ids is there once",
        "row group 0 row 7",
        "'code': 'ROW_NULL'",
        "was cancelled",
        "ended: interrupted",
    ):
        assert fact in text, fact
    before = re.search(r"([\d,]+) of 1,797 rows were there already", text)
    assert before is not None
    assert 0 < int(before[1].replace(",", "")) < 1797
    (bar,) = next(cell for cell in shown if any("done: 1,797 rows" in part for part in cell))
    assert 'value="1.0000"' in bar, "one display, which ended at 100 %"


CELLS = [
    """
import asyncio, _thread, pathlib, threading, time
import runner

def job(output, signature="serving_default"):
    return runner.Job(
        model={"url": "MODEL", "signature": signature}, input={"url": "in"}, columns={"keep": ["id"]},
        output={"url": output}, workers={"count": 1}, limits={"shard_rows": 100, "batch_rows": 25})
""",
    # Inside a running event loop.
    """
await asyncio.sleep(0)
first = runner.start(job("first"))
while first.running:
    await asyncio.sleep(0.1)
""",
    # A second time in one kernel, and the stop button.
    """
def interrupt():
    while not list(pathlib.Path("second").glob("part-*")):
        time.sleep(0.05)
    _thread.interrupt_main()

threading.Thread(target=interrupt).start()
try:
    runner.run(job("second", "slow"))
except KeyboardInterrupt:
    print("interrupted")
""",
    # Continued, and waited for in the cell that started it.
    "done = runner.start(job('second', 'slow'), in_process=True).wait(); (done.rows, done.rows_run < done.rows)",
    # An error is shown once, where the run was started.
    "failed = runner.start(job('third', 'nothing'), in_process=True)\nwhile failed.running: time.sleep(0.1)",
]


def test_runs_in_a_kernel_are_awaited_repeated_and_interrupted(
    execute: Callable[[Path], Any], tmp_path: Path, half_plus_two: Path, write_numbers: Callable[..., Path]
) -> None:
    write_numbers(tmp_path / "in", files=2, rows=2000)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.strip().replace("MODEL", str(half_plus_two))) for cell in CELLS]
    )
    nbformat.write(notebook, tmp_path / "cells.ipynb")
    _, first, stopped, again, failed = outputs(execute(tmp_path / "cells.ipynb"))
    assert len(first) == 1
    assert "done: 4,000 rows" in first[0]
    assert stopped[-1] == "interrupted\n"
    assert "done: 4,000 rows" in again[0]
    assert 'value="1.0000"' in again[0]
    assert again[-1] == "(4000, True)"
    assert len(failed) == 1
    assert "no signature &#x27;nothing&#x27;" in failed[0]
