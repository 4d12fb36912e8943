"""Isolated mode with a real model: rows that end, hang or flood their process are found, and nothing else is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moody_model import ABORT, BLOCK, FLOOD, HANG, HUGE, REFUSE, example

from connectors.output.directory import OutputDirectory
from connectors.output.reject import read_rejected
from connectors.store.store import Store
from jobs.attempt import Failure, Success, attempt
from jobs.errors import DataError, MemoryLimitError, ModelCallError, PoisonError
from jobs.job import Job
from jobs.section.output import Output
from runner.engine import EngineOptions
from runner.preflight.preflight import Preflight, preflight
from runner.tensor import Strings
from runner.worker import isolated
from runner.worker.child import Child, ChildEnded
from runner.worker.room import mebibytes, resident_bytes
from runner.worker.worker import Worker

ROWS = 16


@pytest.fixture
def ready(moody: Path, tmp_path: Path) -> Callable[..., Preflight]:
    """ready({row: mood}, ...): a claimed output for one shard of 16 rows; blocks: what FLOOD takes."""

    def make(moods: Mapping[int, float], rows: int = ROWS, blocks: int = 0, **limits: Any) -> Preflight:
        (tmp_path / "in").mkdir(exist_ok=True)
        columns = {
            "id": pa.array(range(rows), pa.int64()),
            "f": pa.array([[row, moods.get(row, 0.0), blocks, 0] for row in range(rows)], pa.list_(pa.float32())),
            "n": pa.array(range(rows), pa.int64()),
            "example": [example(row) for row in range(rows)],
        }
        pq.write_table(pa.table(columns), tmp_path / "in" / "rows.parquet")
        reject = {"on_bad_row": "reject", "max_rejected_rows": "100%", "batch_rows": 8, "stall_s": 60.0}
        document: dict[str, Any] = {
            "model": {"url": str(moody), "signature": "serving_default", "trust": True},
            "input": {"url": str(tmp_path / "in")},
            "columns": {"keep": ["id"]},
            "output": {"url": str(tmp_path / "out")},
            "limits": reject | limits,
        }
        found = preflight(Job.model_validate(document))
        OutputDirectory(found.job.output, found.plan.id, len(found.plan.shards)).claim(found.plan)
        return found

    return make


def in_isolation(found: Preflight, memory: int | None = None) -> Success | Failure:
    worker = Worker(found.spec(found.job.output), "w1", EngineOptions(threads=1), isolated=True, memory=memory)
    try:
        return worker.attempt(attempt(found.plan, found.plan.shards[0], 3, 1, "0" * 12, isolated=True))
    finally:
        worker.close()


def rejected(tmp_path: Path) -> dict[int, tuple[str, str]]:
    found = read_rejected(Output(url=str(tmp_path / "out")))
    return {row["row"]: (row["code"], row["message"]) for table in found.tables() for row in table.to_pylist()}


def test_row_27_a_row_that_aborts_is_found_and_all_others_are_scored(
    ready: Callable[..., Preflight], tmp_path: Path
) -> None:
    success = in_isolation(ready({5: ABORT, 9: REFUSE}))
    assert isinstance(success, Success), success
    assert (success.receipt.rows_out, success.receipt.codes) == (14, {"process_abort": 1, "MODEL_ROW": 1})
    found = rejected(tmp_path)
    assert found[5][0] == "process_abort"
    assert found[5][1] == "a process that ran the model on this row alone was ended by SIGABRT"
    assert found[9][0] == "MODEL_ROW"
    (part,) = (tmp_path / "out").glob("part-*")
    good = [row for row in range(ROWS) if row not in (5, 9)]
    table = pq.read_table(part)
    assert table["id"].to_pylist() == good
    assert table["y"].to_pylist() == [row / 2 + 2 for row in good]
    assert success.receipt.numerics.tensorflow == version("tensorflow"), "as the last child found it"


def test_row_28_a_row_that_hangs_is_rejected_as_timeout(ready: Callable[..., Preflight], tmp_path: Path) -> None:
    success = in_isolation(ready({2: HANG}, rows=4, stall_s=5.0))
    assert isinstance(success, Success), success
    assert (success.receipt.rows_out, success.receipt.codes) == (3, {"timeout": 1})
    assert rejected(tmp_path)[2][1].endswith("gave no answer for 5 s; it was ended")


def test_a_row_that_floods_the_memory_is_ended_before_the_system_ends_others(
    ready: Callable[..., Preflight], tmp_path: Path
) -> None:
    allowed = max(800 * 2**20, 2 * resident_bytes())  # this process is measured too, and tests before grew it
    blocks = allowed // BLOCK + 40  # the loop alone is more than is allowed
    success = in_isolation(ready({1: FLOOD}, rows=2, blocks=blocks), memory=allowed)
    assert isinstance(success, Success), success
    assert (success.receipt.rows_out, success.receipt.codes) == (1, {"oom": 1})
    assert f"{mebibytes(allowed)} are allowed" in rejected(tmp_path)[1][1]


def test_a_row_that_tensorflow_has_no_memory_for_is_rejected_as_oom(
    ready: Callable[..., Preflight], tmp_path: Path
) -> None:
    success = in_isolation(ready({0: HUGE}, rows=1))
    assert isinstance(success, Success), success
    assert success.receipt.codes == {"oom": 1}
    assert "OOM when allocating" in rejected(tmp_path)[0][1]


@pytest.mark.parametrize("bits", [False, True])
def test_where_bits_count_a_machine_that_is_too_small_condemns_no_row(
    ready: Callable[..., Preflight], bits: bool
) -> None:
    class Flooded:
        def ask(self, message: Any, patience_s: float) -> Any:
            raise ChildEnded("oom", "was killed by SIGKILL")

    found = ready({})
    spec = found.spec(found.job.output)
    spec = dataclasses.replace(spec, limits=spec.limits.model_copy(update={"reproducible": bits}))
    engine = isolated.IsolatedEngine(spec, found.model.path, EngineOptions(threads=1), None)
    engine._child = Flooded()  # type: ignore[assignment]
    with pytest.raises(MemoryLimitError if bits else ModelCallError, match="killed by SIGKILL"):
        engine.run({engine._rows_of: np.zeros((1, 4), np.float32)}, ("y",))


@pytest.mark.parametrize("strings", [False, True])
def test_a_row_that_fills_a_batch_of_fixed_size_is_alone(ready: Callable[..., Preflight], strings: bool) -> None:
    found = ready({})
    spec = found.spec(found.job.output)
    spec = dataclasses.replace(spec, binding=dataclasses.replace(spec.binding, batch_rows=3))
    engine = isolated.IsolatedEngine(spec, found.model.path, EngineOptions(threads=1), None)

    def alone(*rows: list[float]) -> bool:
        flat = [b"%d" % value for row in rows for value in row]
        texts = Strings(pa.array(flat, pa.large_binary()), (len(rows), len(rows[0])))
        return engine._alone({engine._rows_of: texts if strings else np.array(rows, np.float32)})

    assert alone([1, 2], [1, 2], [1, 2])
    assert not alone([1, 2], [1, 2], [1, 3])
    assert not alone([1, 1], [1, 2], [1, 1])


def test_a_model_that_no_row_survives_is_told_apart_from_bad_rows(
    ready: Callable[..., Preflight], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_HOPELESS", 2)
    failure = in_isolation(ready({0: ABORT, 1: ABORT, 2: ABORT}, rows=3, batch_rows=1))
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, PoisonError)
    assert "survived none of 2 rows" in failure.error.message


def test_the_isolated_process_itself_does_not_load_tensorflow(ready: Callable[..., Preflight]) -> None:
    import subprocess
    import sys

    script = (
        "import sys, runner.worker.worker, runner.worker.isolated\n"
        "assert not {'tensorflow', 'ray'} & sys.modules.keys()\n"
        "assert 'tensorflow' not in open('/proc/self/maps').read()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# Decoding


def test_row_20_a_row_group_that_decodes_to_more_than_there_is_is_a_corrupt_page(
    ready: Callable[..., Preflight], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ready({}, rows=4)
    pq.write_table(
        pa.table({"f": pa.array([[0.0] * 4] * 5_000_000, pa.list_(pa.float32()))}),
        tmp_path / "in" / "rows.parquet",
    )
    spec = found.spec(found.job.output)
    piece = attempt(found.plan, found.plan.shards[0], 1, 1, "0" * 12).inputs[0]
    path = tmp_path / "in" / "rows.parquet"
    lying = dataclasses.replace(
        piece,
        size=path.stat().st_size,
        version=Store(str(path)).stat(str(path)).version,
        rows=(pq.read_metadata(path).row_group(0).num_rows,),
    )
    reading = dataclasses.replace(spec, input_schema=pq.read_schema(path))
    isolated.survive_decoding(reading, lying, 0)
    monkeypatch.setattr(isolated, "available_bytes", lambda: 2**25)
    with pytest.raises(DataError, match="needs more than 16 MiB when decoded") as caught:
        isolated.survive_decoding(reading, lying, 0)
    assert caught.value.facts["code"] == "PAGE_CORRUPT"
    limits = spec.limits.model_copy(update={"reproducible": True})
    with pytest.raises(MemoryLimitError, match="needs more than 16 MiB when decoded; give each worker more memory"):
        isolated.survive_decoding(dataclasses.replace(reading, limits=limits), lying, 0)


# The child itself


@pytest.mark.parametrize(
    ("script", "first", "how", "story"),
    [
        ("signal:raise_signal", 6, "process_abort", "SIGABRT"),
        ("signal:raise_signal", 9, "oom", "killed by SIGKILL, as a system that runs out of memory does"),
        ("os:_exit", 7, "process_abort", "exit code 7"),
        ("time:sleep", 60, "timeout", "no answer for 0.5 s"),
    ],
    ids=["abort", "row-25-sigkill", "exit", "hang"],
)
def test_a_child_that_does_not_answer_is_told_how_it_ended(script: str, first: int, how: str, story: str) -> None:
    with pytest.raises(ChildEnded) as caught:
        Child(script, first, start_s=0.5 if how == "timeout" else 60)
    assert caught.value.how == how
    assert story in caught.value.story


def test_what_a_child_raises_is_raised_here() -> None:
    with pytest.raises(TypeError):
        Child("time:sleep", "no number")


def test_a_call_that_fails_in_the_child_is_the_same_error_here(ready: Callable[..., Preflight]) -> None:
    found = ready({0: REFUSE}, rows=1)
    engine = isolated.IsolatedEngine(found.spec(found.job.output), found.model.path, EngineOptions(threads=1), None)
    feeds = found.binding.feed(pq.read_table(found.plan.files[0].url.removeprefix("file://")).to_batches()[0])
    with pytest.raises(ModelCallError, match="out of its domain") as caught:
        engine.run(feeds, ("y",))
    assert caught.value.facts["code"] == "INVALID_ARGUMENT"
    engine.close()
