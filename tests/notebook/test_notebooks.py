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


def cells_of(shown: str) -> dict[str, str]:
    """The rows of a table of facts."""
    return dict(re.findall(r"<tr><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td></tr>", shown))


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
        "1,797 rows in 8 parts",
        "digits that the model has not seen are read correctly",
        "<b>Agreement</b>",
        "challenger.probabilities",
        "in 1,797 rows",
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
    (bar,) = next(cell for cell in shown if any("1,797 rows in 8 parts" in part for part in cell))
    assert {"output", "done", "report"} <= cells_of(bar).keys(), "a line of the summary is a row"
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


HANDLES = [
    CELLS[0],
    "handle = runner.start(job('out', 'slow'), in_process=True)\nhandle",
    "handle",
    "threading.Timer(1, _thread.interrupt_main).start()\nhandle.wait()",
    "done = handle.wait()\nhandle",
    "done, runner.status('out'), runner.verify('out'), handle.progress",
]
MISTAKES = [
    CELLS[0],
    "wanted = job('out', 'nothing')\nrunner.run(wanted, in_process=True)",
    "def score():\n    return runner.verify('nowhere')\n\nscore()",
    "runner.Job(model='m', input='i', output='o', limits={'shard_rows': 0})",
    "threading.Timer(2, _thread.interrupt_main).start()\nrunner.run(job('out', 'slow'), in_process=True)",
]


@pytest.fixture
def executed(
    execute: Callable[[Path], Any], tmp_path: Path, half_plus_two: Path, write_numbers: Callable[..., Path]
) -> Callable[[list[str]], Any]:
    """executed(cells): they run in a new kernel, those that fail too."""
    write_numbers(tmp_path / "in", files=2, rows=2000)

    def call(cells: list[str]) -> Any:
        sources = [cell.strip().replace("MODEL", str(half_plus_two)) for cell in cells]
        tags = {"tags": ["raises-exception"]}
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one, metadata=tags) for one in sources])
        nbformat.write(made, tmp_path / "cells.ipynb")
        return execute(tmp_path / "cells.ipynb")

    return call


def test_each_display_of_a_handle_goes_on_with_the_run(executed: Callable[[list[str]], Any]) -> None:
    _, first, second, waited, last, shown = executed(HANDLES).cells
    bars = [output for cell in (first, second, last) for output in cell.outputs]
    assert len(bars) == 4
    assert all(cells_of(bar["data"]["text/html"])["done"].startswith("4,000 rows in ") for bar in bars)
    assert all(bar["data"]["text/html"].count(">output<") == 1 for bar in bars)
    assert waited.outputs[0]["ename"] == "Interrupted"
    assert waited.outputs[0]["evalue"] == "interrupted; the run goes on, and `cancel()` stops it"
    text = shown.outputs[0]["data"]["text/plain"]
    for part in (
        "<Result of 'out': done: 4,000 rows",
        "<Status of",
        "<Verification of",
        "': holds>",
        "<Snapshot: rows",
    ):
        assert part in text


def test_an_error_is_the_line_that_met_it_and_its_message(executed: Callable[[list[str]], Any]) -> None:
    _, *cells = executed(MISTAKES).cells
    traces = [output["traceback"] for cell in cells for output in cell.outputs if output["output_type"] == "error"]
    run, nested, made, interrupted = traces
    assert run[0] == "line 2: runner.run(wanted, in_process=True)"
    assert run[1].startswith("ModelError: no signature 'nothing' in model")
    assert len(run) == 2
    assert nested[:2] == ["line 4: score()", "line 2: return runner.verify('nowhere')"]
    assert made[-1] == "JobError: cannot use the job: 'limits.shard_rows' is 0; expected a number of at least 1"
    assert interrupted[-1].startswith("Interrupted: interrupted, and the workers are stopped: ")
    assert interrupted[-1].endswith("of 4,000 rows are written in 'out'; make the same call again to continue")


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
    assert cells_of(first[0])["done"].startswith("4,000 rows")
    assert stopped[-1] == "interrupted\n"
    assert cells_of(again[0])["done"].startswith("4,000 rows")
    assert 'value="1.0000"' in again[0]
    assert again[-1] == "(4000, True)"
    assert len(failed) == 1
    assert "no signature &#x27;nothing&#x27;" in cells_of(failed[0])["ModelError"]
