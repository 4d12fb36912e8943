"""Run whole programs; measure wall time, CPU time and peak memory of every process; compare what they wrote."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

ROOT = Path(__file__).parents[1]
_SAMPLE_S = 0.05
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Process:
    """One process of a program, as last seen."""

    name: str = ""
    cpu_s: float = 0.0
    peak_rss: int = 0


@dataclass
class Measured:
    """A program that ended well. cpu_s: of all its processes, up to the last sample of each."""

    seconds: float
    answer: dict[str, Any]
    processes: dict[int, Process] = field(default_factory=dict)

    @property
    def cpu_s(self) -> float:
        return sum(process.cpu_s for process in self.processes.values())

    @property
    def peak_rss_mb(self) -> dict[str, float]:
        """By name of the process; the largest of each name."""
        peaks: dict[str, float] = {}
        for process in self.processes.values():
            peaks[process.name] = max(peaks.get(process.name, 0.0), round(process.peak_rss / 2**20, 1))
        return dict(sorted(peaks.items(), key=lambda pair: -pair[1]))


def program(*arguments: str, root: Path = ROOT) -> Measured:
    """Run a Python program whose last line of output is JSON, or all of it. SystemExit with its words if it fails.

    root: of the checkout whose packages it imports.
    """
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(root)}
    start = time.perf_counter()
    running = subprocess.Popen(
        [sys.executable, *arguments], env=quiet, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    seen: dict[int, Process] = {}
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(running.pid, seen, over), daemon=True)
    watch.start()
    out, errors = running.communicate()
    seconds = time.perf_counter() - start
    over.set()
    watch.join()
    if running.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{errors[-4000:]}")
    text = out.strip()
    return Measured(seconds, json.loads(text if text.startswith("{\n") else text.splitlines()[-1]), seen)


def _watch(root: int, seen: dict[int, Process], over: threading.Event) -> None:
    while not over.wait(_SAMPLE_S):
        for pid in _tree(root):
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue  # it ended meanwhile
            name, _, rest = stat.partition("(")[2].rpartition(")")
            fields = rest.split()
            process = seen.setdefault(pid, Process())
            process.name = name
            process.cpu_s = (int(fields[11]) + int(fields[12])) * _TICK_S
            peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
            process.peak_rss = max(process.peak_rss, int(peak) * 1024)


def _tree(root: int) -> Iterator[int]:
    """A process and all below it."""
    yield root
    try:
        tasks = list(Path(f"/proc/{root}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def table(folder: Path, columns: Sequence[str]) -> pa.Table:
    """What a program wrote, in the order of its ids."""
    return ds.dataset(folder, format="parquet").to_table(columns=["id", *columns]).sort_by("id")


def require_equal(mine: Path, theirs: Path, columns: Sequence[str], rows: int, tolerance: float) -> None:
    """Every id once in both, and the same values. SystemExit if not: then no figure means anything."""
    ours, others = table(mine, columns), table(theirs, columns)
    for name, found in ((mine, ours), (theirs, others)):
        if found.num_rows != rows or not np.array_equal(found["id"].to_numpy(), np.arange(rows)):
            raise SystemExit(f"'{name}' does not hold each of {rows} ids once: {found.num_rows} rows")
    for column in columns:
        left, right = (_flat(found[column]) for found in (ours, others))
        worst = float(np.abs(left - right).max(initial=0.0))
        if left.shape != right.shape or not worst <= tolerance:
            raise SystemExit(f"'{column}' differs by up to {worst}: '{mine}', '{theirs}'")


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    while not pa.types.is_primitive(whole.type):
        whole = whole.storage if isinstance(whole, pa.ExtensionArray) else whole.flatten()
    values: np.ndarray = whole.to_numpy()
    return values


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return round(statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True)), 3)


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def machine() -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "ray", "pyarrow", "numpy")},
        "commit": commit(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """Of this checkout, with a '+' if something in it was changed since; '' outside of one."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return ""
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.strip()
    return head.stdout.strip() + ("+" if changed else "")


def checkout(commit: str) -> Path:
    """The code of a commit, below the cache."""
    folder = ROOT / "benchmarks" / ".cache" / f"against-{commit}"
    if not folder.exists():
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(draft, filter="data")
        draft.rename(folder)
    return folder
