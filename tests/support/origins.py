"""Models of every origin: exported by other frameworks, scored through the runner, against their own answers.

Owns how a model is registered, written with its rows and its framework's answers, and scored; refuses to know any
framework. `origins_jax.py FOLDER` and `origins_tensorflow.py FOLDER` write `FOLDER/NAME/`, the rows in
`NAME.parquet`, the answers in `NAME.answers.parquet`, and what is to be typed in `NAME.json`.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 1000  # of each table; no multiple of any batch
SCRIPTS = ("origins_jax", "origins_tensorflow")

Columns = dict[str, Any]
Write = Callable[[Path], tuple[Columns, Columns]]  # a folder -> the rows, the framework's answers

ORIGINS: dict[str, tuple[Write, dict[str, Any]]] = {}


@dataclass(frozen=True)
class Origin:
    """A model that another framework exported. missing: the package without which it could not be written."""

    name: str
    folder: Path
    job: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""

    @property
    def model(self) -> Path:
        return self.folder / stem(self.name)

    @property
    def rows(self) -> Path:
        return self.model.with_suffix(".parquet")

    def answers(self) -> pa.Table:
        return pq.read_table(self.model.with_suffix(".answers.parquet"))

    def sections(self, output: Path, **changed: Any) -> dict[str, Any]:
        """The job that scores its rows. changed: of the section `model`."""
        given = dict(self.job)
        return {
            "model": {"url": str(self.model), **given.pop("model", {}), **changed},
            "input": {"url": str(self.rows)},
            "output": {"url": str(output)},
            "limits": {"shard_rows": 300},
            **given,
        }


def stem(name: str) -> str:
    """Of its files: 'jax2tf, any batch' -> 'jax2tf_any_batch'."""
    return "_".join(re.findall("[a-z0-9]+", name.lower()))


def origin(name: str, needs: Sequence[str] = (), **job: Any) -> Callable[[Write], Write]:
    """Register a model by the name that the table of origins gives it. needs: what is imported; job: more sections."""

    def register(write: Write) -> Write:
        ORIGINS[name] = write, {"needs": list(needs), "job": job}
        return write

    return register


def write(folder: Path) -> None:
    """Let both scripts write, side by side."""
    started = []
    for script in SCRIPTS:
        command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), str(folder)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    for script, process in zip(SCRIPTS, started, strict=True):
        said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{script} could not write: {said[-3000:]}")


def read(folder: Path) -> dict[str, Origin]:
    """What was written, and what could not be."""
    facts = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {said["name"]: Origin(folder=folder, **said) for said in facts}


def main(folder: Path) -> None:
    """Of the scripts: write all that was registered, and for which the packages are there."""
    for name, (export, said) in ORIGINS.items():
        missing = next((package for package in said["needs"] if not _there(package)), "")
        if not missing:
            rows, answers = export(folder / stem(name))
            pq.write_table(_table(rows), folder / f"{stem(name)}.parquet")
            pq.write_table(_table(answers), folder / f"{stem(name)}.answers.parquet")
        known = {"name": name, "job": said["job"], "missing": missing}
        (folder / f"{stem(name)}.json").write_text(json.dumps(known))
    sys.stdout.flush()
    os._exit(0)  # native libraries of several frameworks take a second to say good-bye


def _there(package: str) -> bool:
    """Whether it imports: one that was built for another TensorFlow is installed, and does not."""
    try:
        importlib.import_module(package)
    except Exception as error:
        print(f"{package}: {error}")
        return False
    return True


def _table(columns: Columns) -> pa.Table:
    return pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: Any) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    array = np.asarray(values)
    flat = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat


def difference(found: pa.Table, expected: pa.Table, close: float = 1e-5) -> str:
    """Where two tables of answers differ, in words; '' where nowhere. Integers and text are to be equal."""
    if found.column_names != expected.column_names:
        return f"columns {found.column_names} instead of {expected.column_names}"
    if found.num_rows != expected.num_rows:
        return f"{found.num_rows} rows instead of {expected.num_rows}"
    for name in found.column_names:
        one, other = np.array(found[name].to_pylist()), np.array(expected[name].to_pylist())
        if one.shape != other.shape:
            return f"{name}: rows of {one.shape[1:]} instead of {other.shape[1:]}"
        real = one.dtype.kind == "f"
        same = np.isclose(one, other, rtol=close, atol=close, equal_nan=True) if real else one == other
        if not same.all():
            row = int(np.argwhere(~same)[0][0])
            return f"{name}: row {row} is {one[row]} instead of {other[row]}; so are {int((~same).sum())} values"
    return ""
