"""What a case of `tests/cases/` stands on: a folder of its own, models, inputs, the command, and one verdict.

A case makes a situation with the programs that its users have (`written_by`), runs `runner` as they do, and says with
`check` what is right. `make cases` runs all of them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(tempfile.mkdtemp(prefix="case-"))
WRITERS = (
    str(Path(os.environ.get("CASE_WRITERS", "")).absolute()) if os.environ.get("CASE_WRITERS") else ""
)  # a Python that has the programs of `tests/cases/writers.txt`
SECONDS = 240  # for one command
_wrong: list[str] = []
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)


@dataclass
class Done:
    """A command that ended. told: all that it printed. table: the rows of the parts of a run that finished."""

    code: int
    told: str
    table: pa.Table | None = None


def saved_model(function: Callable[..., Any], *specs: Any, name: str = "model") -> Path:
    """function: of tensors, returns named tensors. specs: a named `tf.TensorSpec` for each of its arguments."""
    import tensorflow as tf

    module = tf.Module()
    module.call = tf.function(function, input_signature=list(specs))
    tf.saved_model.save(module, str(ROOT / name), signatures={"serving_default": module.call})
    return ROOT / name


def double(dtype: str = "float32", shape: Sequence[int | None] = (None,), name: str = "model") -> Path:
    """A model whose output `y` is twice its input `x`."""
    import tensorflow as tf

    return saved_model(lambda x: {"y": x * 2}, tf.TensorSpec(shape, dtype, "x"), name=name)


def parquet(name: str, *tables: pa.Table, **options: Any) -> Path:
    """A folder with one file for each table."""
    folder = ROOT / name
    folder.mkdir(parents=True)
    for index, table in enumerate(tables):
        pq.write_table(table, folder / f"f{index}.parquet", **options)
    return folder


def written_by(code: str, *arguments: object) -> str:
    """Run `code` where the programs of writers.txt are, in the folder of the case. returns: what it printed.

    arguments: what `sys.argv[1:]` is in `code`.
    """
    if not WRITERS:
        print("skipped: needs other programs; `make cases` installs them")
        sys.exit(77)
    command = [WRITERS, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise RuntimeError(f"the writer ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def written_by_spark(code: str, *arguments: object, **settings: str) -> str:
    """As `written_by`, with a session `spark` of one core in UTC. settings: of it, with `__` for each dot."""
    if shutil.which("java") is None:
        print("skipped: Spark needs Java 17 or later")
        sys.exit(77)
    fixed = {"spark__ui__enabled": "false", "spark__sql__session__timeZone": "UTC", **settings}
    made = "".join(f".config({name.replace('__', '.')!r}, {value!r})" for name, value in fixed.items())
    head = (
        f"from pyspark.sql import SparkSession\nspark = SparkSession.builder.master('local[1]'){made}.getOrCreate()\n"
    )
    return written_by(head + textwrap.dedent(code), *arguments)


def runner(command: str, *arguments: object, **options: Any) -> Done:
    """options: of `subprocess.run`."""
    options = {"timeout": SECONDS, "cwd": ROOT, "capture_output": True, "text": True, **options}
    done = subprocess.run(["runner", command, *map(str, arguments)], **options)
    return Done(done.returncode, ((done.stdout or "") + (done.stderr or "")).strip())


def score(model: Path, source: object, *arguments: object, output: str = "out", **options: Any) -> Done:
    """`runner run` of all of `source`, in one process, into a new folder."""
    out = ROOT / output
    shutil.rmtree(out, ignore_errors=True)
    fixed = ("--model", model, "--input", source, "--output", out, "--in-process", "--quiet")
    done = runner("run", *fixed, *arguments, **options)
    parts = sorted(out.glob("part-*.parquet"))
    if done.code == 0 and parts:
        done.table = pa.concat_tables([pq.read_table(part) for part in parts])
    return done


def check(right: bool, what: str, done: Done | None = None) -> None:
    """what: what is wrong, where `right` is false."""
    if not right:
        _wrong.append(what if done is None else f"{what}\n    exit {done.code}: {done.told[:600]}")


def end() -> None:
    """The verdict: the last line of each case."""
    print("ok" if not _wrong else "WRONG\n  - " + "\n  - ".join(_wrong))
    sys.exit(bool(_wrong))
