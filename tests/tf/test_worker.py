"""A worker with real SavedModels: what it publishes, what it refuses, and what it leaves behind when it fails."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.output import OutputDirectory
from jobs.attempt import Attempt, Failure, Receipt, attempt
from jobs.errors import DataError, ModelError, StoppedError
from jobs.job import Job
from runner.engine import EngineOptions
from runner.preflight import Preflight, preflight
from runner.worker import Worker

OPTIONS = EngineOptions(threads=1)


@pytest.fixture
def ready(
    tmp_path: Path, half_plus_two: Path, write_numbers: Callable[..., Path]
) -> Callable[..., tuple[Preflight, Worker]]:
    """ready(limits={...}, ...): a claimed output and a worker for 2 files of 1,000 rows in row groups of 100."""

    def make(**sections: Any) -> tuple[Preflight, Worker]:
        if not (tmp_path / "in").exists():
            write_numbers(tmp_path / "in")
        job = {
            "model": {"url": str(half_plus_two)},
            "input": {"url": str(tmp_path / "in")},
            "columns": {"keep": ["id"]},
            "output": {"url": str(tmp_path / "out")},
            "limits": {"shard_rows": 250},
        }
        found = preflight(Job.model_validate(job | sections))
        output = OutputDirectory(found.job.output, found.plan.id, len(found.plan.shards))
        output.claim(found.plan)
        return found, Worker(found.spec(output.output), "w1", OPTIONS)

    return make


def attempt_at(found: Preflight, shard: int, nonce: str = "0" * 12) -> Attempt:
    return attempt(found.plan, found.plan.shards[shard], 1, 1, nonce)


def parts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "out").glob("part-*"))


def leftovers(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "out").glob("_run/*/staging/*"))


Ready = Callable[..., tuple[Preflight, Worker]]


def test_a_shard_becomes_one_part_with_its_rows_in_order(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready()
    receipt = worker.attempt(attempt_at(found, 1))
    assert isinstance(receipt, Receipt)
    assert (receipt.rows_in, receipt.rows_out, receipt.worker) == (200, 200, "w1")
    assert receipt.seconds["run"] > 0
    (part,) = parts(tmp_path)
    table = pq.read_table(part)
    assert table["id"].to_pylist() == list(range(200, 400))
    np.testing.assert_array_equal(table["y"].to_numpy(), np.arange(200, 400, dtype=np.float32) / 2 + 2)
    assert leftovers(tmp_path) == []


def test_batches_smaller_than_a_row_group_give_the_same_rows(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready(limits={"shard_rows": 2000, "batch_rows": 7})
    assert isinstance(worker.attempt(attempt_at(found, 0)), Receipt)
    table = pq.read_table(parts(tmp_path)[0])
    assert table["id"].to_pylist() == list(range(2000))
    np.testing.assert_array_equal(table["y"].to_numpy(), np.arange(2000, dtype=np.float32) / 2 + 2)


def test_a_model_of_a_fixed_batch_is_fed_across_row_groups_and_its_tail_is_cut(
    ready: Ready, tmp_path: Path, half_plus_two: Path
) -> None:
    model = {"url": str(half_plus_two), "signature": "sixteen"}
    found, worker = ready(limits={"shard_rows": 1990}, model=model)
    assert found.batch_rows == 16
    assert isinstance(worker.attempt(attempt_at(found, 0)), Receipt)
    table = pq.read_table(parts(tmp_path)[0])
    np.testing.assert_array_equal(table["y"].to_numpy(), np.arange(1900, dtype=np.float32) / 2 + 2)


def test_a_second_attempt_at_a_published_shard_adopts_the_first(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready()
    first = worker.attempt(attempt_at(found, 0, "a" * 12))
    content = parts(tmp_path)[0].read_bytes()
    second = worker.attempt(attempt_at(found, 0, "b" * 12))
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert (second.adopted, second.attempt) == (True, first.attempt)
    assert parts(tmp_path)[0].read_bytes() == content
    assert leftovers(tmp_path) == []


def test_a_file_that_changed_since_the_plan_stops_the_shard(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready()
    path = min((tmp_path / "in").glob("*.parquet"))
    pq.write_table(pa.table({"id": [1], "x": pa.array([1.0], pa.float32())}), path)
    result = worker.attempt(attempt_at(found, 0))
    assert isinstance(result, Failure)
    assert isinstance(result.error, DataError)
    assert result.error.facts["code"] == "FILE_CHANGED"
    assert parts(tmp_path) == leftovers(tmp_path) == []


def test_a_bad_row_is_named_by_file_row_group_and_row(ready: Ready, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    values = pa.array([float(n) if n != 77 else None for n in range(100)], pa.float32())
    pq.write_table(pa.table({"id": range(100), "x": values}), folder / "bad.parquet", row_group_size=50)
    found, worker = ready(limits={"batch_rows": 10})
    result = worker.attempt(attempt_at(found, 0))
    assert isinstance(result, Failure)
    facts = result.error.facts
    assert (facts["code"], facts["row_group"], facts["row"], facts["column"]) == ("ROW_NULL", 1, 27, "x")
    assert Path(facts["file"]).name == "bad.parquet"
    assert parts(tmp_path) == leftovers(tmp_path) == []


def test_a_model_that_changed_since_the_plan_is_refused(ready: Ready, tmp_path: Path, half_plus_two: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(half_plus_two, copy)
    found, _ = ready(model={"url": str(copy)})
    (copy / "assets.extra").mkdir()
    (copy / "assets.extra" / "note").write_text("new")
    with pytest.raises(ModelError, match="changed since the plan"):
        Worker(found.spec(found.job.output), "w2", OPTIONS)


def test_a_worker_that_is_told_to_stop_leaves_nothing_behind(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready()
    worker.stop()
    result = worker.attempt(attempt_at(found, 0))
    assert isinstance(result, Failure)
    assert isinstance(result.error, StoppedError)
    assert parts(tmp_path) == leftovers(tmp_path) == []


def test_both_engines_give_the_same_part(ready: Ready, tmp_path: Path, half_plus_two: Path) -> None:
    tables = {}
    for engine in ("session", "eager"):
        found, worker = ready(
            model={"url": str(half_plus_two), "engine": engine}, output={"url": str(tmp_path / engine)}
        )
        assert isinstance(worker.attempt(attempt_at(found, 2)), Receipt)
        tables[engine] = pq.read_table(next((tmp_path / engine).glob("part-*")))
    assert tables["session"].equals(tables["eager"])


def test_a_worker_pickles_its_spec_without_loss(ready: Ready) -> None:
    import pickle

    found, _ = ready()
    spec = found.spec(found.job.output)
    again = pickle.loads(pickle.dumps(spec))  # noqa: S301  # our own bytes
    assert dataclasses.replace(again, binding=spec.binding) == spec
    assert again.binding.output_schema.equals(spec.binding.output_schema)
