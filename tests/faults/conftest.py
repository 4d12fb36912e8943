"""What is killed here is real: processes, nodes, whole drivers. Each test is named by its row of the fault matrix.

Faults at a named step come from failpoints (`connectors/failpoint.py`); the rest are signals.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from exactly_once import require_exactly_once, write_rows

from jobs.load import load_job

FILES, ROWS, SHARD_ROWS, BATCH_ROWS = 2, 400, 100, 50
SHARDS = FILES * ROWS // SHARD_ROWS
CALLS = FILES * ROWS // BATCH_ROWS  # of the model, where nothing is computed twice
BOUND_S = 100


@dataclass
class Case:
    """One job in a folder of its own: 800 rows in 8 shards, 16 calls of about 60 ms."""

    folder: Path
    model: Path
    sections: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def file(self) -> Path:
        return self.folder / "job.yaml"

    @property
    def parts(self) -> list[Path]:
        return sorted(self.output.glob("part-*"))

    def write(self, **sections: Any) -> Case:
        job = {
            "model": {"url": str(self.model), "signature": "slow"},
            "input": {"url": str(write_rows(self.folder / "in", FILES, ROWS))},
            "columns": {"keep": ["file", "row"]},
            "output": {"url": str(self.output)},
            "limits": {"shard_rows": SHARD_ROWS, "batch_rows": BATCH_ROWS},
            "workers": {"count": 2},
        }
        self.file.write_text(yaml.safe_dump(job | sections))
        return self

    def job(self) -> Any:
        return load_job(self.file.read_text(), str(self.file), [])

    def once(self, name: str) -> Path:
        """A file for a failpoint that is to happen once; it is there when it has, and holds the pid."""
        return self.folder / f"once-{name}"

    def passings(self, name: str) -> int:
        file = self.folder / name
        return file.stat().st_size if file.exists() else 0

    def require_equal(self) -> dict[int, dict[str, Any]]:
        """Equal to the run without faults, and nothing left over; the commit headers by shard."""
        return require_exactly_once(str(self.output), FILES, ROWS)


@pytest.fixture
def case(tmp_path: Path, half_plus_two: Path) -> Case:
    return Case(tmp_path, half_plus_two).write()


Start = Callable[..., subprocess.Popen[str]]
Finished = subprocess.CompletedProcess[str]
Command = Callable[..., Finished]


def environment(faults: str, **more: str) -> dict[str, str]:
    return os.environ | {"RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": faults} | more


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start("-m", "runner", "run", ..., faults="W6.after=kill"): a Python process, ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def call(*arguments: str, faults: str = "", **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment(faults, **options.pop("variables", {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        running.append(process)
        return process

    yield call
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def command(start: Start) -> Command:
    """command("run", "job.yaml", ..., faults=""): the command `runner`, waited for."""

    def call(*arguments: str, **options: Any) -> Finished:
        process = start("-m", "runner", *arguments, **options)
        out, errors = process.communicate(timeout=BOUND_S)
        return Finished(process.args, process.returncode, out, errors)

    return call


@pytest.fixture
def await_that() -> Callable[..., None]:
    """await_that(condition, what, process=None): returns when it holds; fails after a bound, or if process ends."""

    def wait(condition: Callable[[], bool], what: str, process: subprocess.Popen[str] | None = None) -> None:
        deadline = time.monotonic() + BOUND_S / 2
        while not condition():
            assert process is None or process.poll() is None, f"ended before: {what}: {process.communicate()}"
            assert time.monotonic() < deadline, f"did not happen within {BOUND_S / 2:.0f} s: {what}"
            time.sleep(0.02)

    return wait


@pytest.fixture
def process_state() -> Callable[[int], str]:
    """process_state(pid): its letter as `ps` shows it ('T' is stopped), '' where there is none."""

    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""

    return state


@pytest.fixture
def descendants() -> Callable[[int], list[int]]:
    """descendants(pid): the processes below it."""

    def below(pid: int) -> list[int]:
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
        found = [pid]
        for parent in found:
            found += [child for child, above in parents.items() if above == parent]
        return found[1:]

    return below
