"""A worker with real SavedModels: what it publishes, what it refuses, and what it leaves behind when it fails."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.formats.parquet import ParquetReader
from connectors.output.directory import OutputDirectory, Part
from jobs.attempt import Attempt, Failure, Receipt, Success, attempt
from jobs.errors import CapacityError, DataError, MemoryLimitError, ModelError, StoppedError
from jobs.job import Job
from runner.batch.batches import Where
from runner.driver.launch import RunOptions, launch
from runner.engine import EngineOptions, pool_threads
from runner.measure.stage import StageClock
from runner.model.saved_model import read_model
from runner.preflight.preflight import Preflight, preflight
from runner.scan.effects import Effects, effects
from runner.scan.program import read_programs
from runner.tensor import Feeds, Outputs
from runner.worker.gauge import Gauge
from runner.worker.spec import Progress
from runner.worker.worker import Worker

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


def _refused(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")  # in CPython's words


def parts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "out").glob("part-*"))


def leftovers(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "out").glob("_run/*/staging/*"))


Ready = Callable[..., tuple[Preflight, Worker]]


def test_a_shard_becomes_one_part_with_its_rows_in_order(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready()
    success = worker.attempt(attempt_at(found, 1))
    assert isinstance(success, Success)
    receipt = success.receipt
    assert (receipt.rows_in, receipt.rows_out, receipt.worker) == (200, 200, "w1")
    assert success.measured.seconds["run"] > 0
    (part,) = parts(tmp_path)
    table = pq.read_table(part)
    assert table["id"].to_pylist() == list(range(200, 400))
    np.testing.assert_array_equal(table["y"].to_numpy(), np.arange(200, 400, dtype=np.float32) / 2 + 2)
    assert leftovers(tmp_path) == []


def test_a_process_that_may_start_no_more_threads_lacks_capacity_and_the_worker_lives_on(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, worker = ready()
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", _refused)
        failed = worker.attempt(attempt_at(found, 0))
    assert isinstance(failed, Failure)
    assert isinstance(failed.error, CapacityError)
    assert "`ulimit -v`" in failed.error.message
    assert (parts(tmp_path), leftovers(tmp_path)) == ([], [])
    assert isinstance(worker.attempt(attempt_at(found, 0)), Success)


def test_a_part_says_what_changed_its_numbers(ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # TensorFlow has read its own by now
    found, worker = ready()
    success = worker.attempt(attempt_at(found, 1))
    assert isinstance(success, Success)
    header = json.loads((pq.read_metadata(parts(tmp_path)[0]).metadata or {})[b"runner.commit"])
    known = header["numerics"]
    assert known == success.receipt.numerics.document()
    assert known["tensorflow"] == version("tensorflow")
    assert (known["xla"], known["threads"]) == (False, pool_threads(1)), "of the first engine of this process"
    assert known["onednn"] in (True, False)
    assert known["environment"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    if sys.platform == "linux":
        assert known["cpu"]
    assert "tf32" not in known, "there is no GPU"


def test_a_run_that_is_continued_elsewhere_tells_in_what_its_parts_differ(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, worker = ready(workers={"cpus": 1})
    with monkeypatch.context() as there:
        there.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        elsewhere = Worker(worker._spec, "w7", OPTIONS)
        epochs = OutputDirectory(found.job.output, found.plan.id, len(found.plan.shards)).epochs
        ended = epochs.document(1) | {"ended": "interrupted"}  # the driver that holds it is a fixture
        epochs.store.replace(epochs.names.epoch(1), json.dumps(ended).encode())
        assert isinstance(elsewhere.attempt(attempt_at(found, 2)), Success)
    done = launch(found.job, RunOptions(in_process=True))
    (difference,) = done.report["differences"]
    assert difference.startswith("ONEDNN_MAX_CPU_ISA: ")
    assert "AVX2 (w7 of epoch 1)" in difference
    assert "not set (w1 of epoch 2)" in difference
    assert f"numbers: may differ between parts, and so may where a NaN shows: {difference}" in done.summary()
    again = launch(found.job, RunOptions(in_process=True))  # from the manifest alone, which names no workers
    assert "AVX2 (a worker of epoch 1)" in again.report["differences"][0]


def test_batches_smaller_than_a_row_group_give_the_same_rows(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready(limits={"shard_rows": 2000, "batch_rows": 7})
    assert isinstance(worker.attempt(attempt_at(found, 0)), Success)
    table = pq.read_table(parts(tmp_path)[0])
    assert table["id"].to_pylist() == list(range(2000))
    np.testing.assert_array_equal(table["y"].to_numpy(), np.arange(2000, dtype=np.float32) / 2 + 2)


def test_a_model_of_a_fixed_batch_is_fed_across_row_groups_and_its_tail_is_cut(
    ready: Ready, tmp_path: Path, half_plus_two: Path
) -> None:
    model = {"url": str(half_plus_two), "signature": "sixteen"}
    found, worker = ready(limits={"shard_rows": 1990}, model=model)
    assert found.batch_rows == 16
    assert isinstance(worker.attempt(attempt_at(found, 0)), Success)
    table = pq.read_table(parts(tmp_path)[0])
    np.testing.assert_array_equal(table["y"].to_numpy(), np.arange(1900, dtype=np.float32) / 2 + 2)


def test_a_second_attempt_at_a_published_shard_adopts_the_first(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready()
    first = worker.attempt(attempt_at(found, 0, "a" * 12))
    content = parts(tmp_path)[0].read_bytes()
    second = worker.attempt(attempt_at(found, 0, "b" * 12))
    assert isinstance(first, Success)
    assert isinstance(second, Success)
    assert (second.receipt.adopted, second.receipt.attempt) == (True, first.receipt.attempt)
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


def test_a_file_that_is_rewritten_while_its_shard_is_read_stops_the_shard(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, worker = ready()
    path = min((tmp_path / "in").glob("*.parquet"))
    read, content = ParquetReader.read, path.read_bytes()

    def rewritten(self: ParquetReader, row_group: int) -> pa.Table:
        table = read(self, row_group)
        path.write_bytes(content)  # equal bytes: what is seen is that somebody wrote
        return table

    monkeypatch.setattr(ParquetReader, "read", rewritten)
    result = worker.attempt(attempt_at(found, 0))
    assert isinstance(result, Failure)
    assert "changed while it was read" in result.error.message
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
        assert isinstance(worker.attempt(attempt_at(found, 2)), Success)
        tables[engine] = pq.read_table(next((tmp_path / engine).glob("part-*")))
    assert tables["session"].equals(tables["eager"])


def test_a_worker_pickles_its_spec_without_loss(ready: Ready) -> None:
    import pickle

    found, _ = ready()
    spec = found.spec(found.job.output)
    again = pickle.loads(pickle.dumps(spec))  # noqa: S301  # our own bytes
    assert dataclasses.replace(again, binding=spec.binding) == spec
    assert again.binding.output_schema.equals(spec.binding.output_schema)


def both(worker: Worker, attempts: list[Attempt], order: tuple[int, ...] = (1, 0)) -> dict[int, Success | Failure]:
    """Attempts in hand at once, each in a thread of its own, started in `order`: number -> what came back."""
    results: dict[int, Success | Failure] = {}

    def run(number: int) -> None:
        results[number] = worker.attempt(attempts[number], number)

    threads = [threading.Thread(target=run, args=(number,)) for number in order]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_of_two_attempts_in_hand_each_publishes_exactly_its_rows(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready(limits={"shard_rows": 250, "batch_rows": 13}, workers={"readers": 3})
    results = both(worker, [attempt_at(found, 0), attempt_at(found, 1, "1" * 12)])
    done = [result for _, result in sorted(results.items()) if isinstance(result, Success)]
    assert [success.receipt.shard for success in done] == [0, 1]
    for number, part in enumerate(parts(tmp_path)):
        table = pq.read_table(part)
        assert table["id"].to_pylist() == list(range(200 * number, 200 * number + 200))
        expected = np.arange(200 * number, 200 * number + 200, dtype=np.float32) / 2 + 2
        np.testing.assert_array_equal(table["y"].to_numpy(), expected)
    assert worker.progress == Progress()
    assert leftovers(tmp_path) == []


def test_the_next_attempt_is_read_and_computed_while_the_first_is_published(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, worker = ready()
    second_computed, publish = threading.Event(), Part.publish

    def slow(part: Part, *given: Any) -> Receipt:
        if part._attempt.shard == 1:
            second_computed.set()
        else:  # the first is not published before the second is ready for it too
            assert second_computed.wait(30)
            assert worker.progress == Progress(attempt_at(found, 0).id, 200, 200)
        return publish(part, *given)

    monkeypatch.setattr(Part, "publish", slow)
    results = both(worker, [attempt_at(found, 0), attempt_at(found, 1, "1" * 12)])
    assert all(isinstance(result, Success) for result in results.values())


def test_an_attempt_that_fails_does_not_hold_up_or_harm_the_next(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready()
    wrong = dataclasses.replace(attempt_at(found, 0), rows=7)
    results = both(worker, [wrong, attempt_at(found, 1, "1" * 12), attempt_at(found, 2, "2" * 12)], (2, 0, 1))
    assert isinstance(results[0], Failure)
    assert "200 rows written, 7 planned" in results[0].error.message
    assert isinstance(results[1], Success)
    assert isinstance(results[2], Success)
    assert [part.name[:10] for part in parts(tmp_path)] == ["part-00001", "part-00002"]
    assert leftovers(tmp_path) == []


def test_an_attempt_that_waits_for_its_turn_is_stopped_too(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready()
    worker.stop()
    waits = worker.attempt(attempt_at(found, 1), 1)  # nobody ever comes before it
    assert isinstance(waits, Failure)
    assert isinstance(waits.error, StoppedError)
    assert parts(tmp_path) == leftovers(tmp_path) == []


def test_a_success_tells_what_the_worker_measured_of_itself(ready: Ready) -> None:
    found, worker = ready()
    success = worker.attempt(attempt_at(found, 0))
    assert isinstance(success, Success)
    figures = success.measured.figures
    assert set(figures) == {"cpus", "calls", "batch_rows", "ceiling_rows_per_s", "cpu_s", "rss_bytes"}
    assert figures["ceiling_rows_per_s"] > 0
    assert figures["rss_bytes"] > 2**20
    assert success.measured.seconds["tune"] > 0
    again = worker.attempt(attempt_at(found, 1))
    assert isinstance(again, Success)
    assert again.measured.seconds["tune"] == 0, "once per worker"


def test_two_calls_in_flight_give_the_same_part(ready: Ready, tmp_path: Path) -> None:
    found, worker = ready(limits={"shard_rows": 2000, "batch_rows": 9})
    worker._calls = 2  # as on a GPU
    assert isinstance(worker.attempt(attempt_at(found, 0)), Success)
    table = pq.read_table(parts(tmp_path)[0])
    assert table["id"].to_pylist() == list(range(2000))
    np.testing.assert_array_equal(table["y"].to_numpy(), np.arange(2000, dtype=np.float32) / 2 + 2)


def test_memory_that_runs_out_halves_the_batch_for_the_attempts_that_follow_wherever(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, worker = ready(limits={"shard_rows": 2000, "batch_rows": 100})
    run, sizes = worker._engine.run, list[int]()

    def small_memory(feeds: Any, fetches: Any) -> Any:
        sizes.append(len(feeds["x"]))
        if sizes[-1] > 50:
            raise MemoryLimitError("no room for so many rows")
        return run(feeds, fetches)

    monkeypatch.setattr(worker._engine, "run", small_memory)
    success = worker.attempt(attempt_at(found, 0))
    assert isinstance(success, Success)
    assert (success.receipt.rows_out, success.receipt.rows_rejected) == (2000, 0)
    assert success.advice.safe_rows["x[]"] <= 50, "which all workers are told"
    assert sum(size > 50 for size in sizes) <= 4, "a larger one is tried again only after many that went well"


class CountingEngine:
    devices = ("/device:CPU:0",)

    def __init__(self) -> None:
        self.calls: list[int] = []

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        self.calls.append(len(feeds["x"].shape))
        return {"y": feeds["x"]}

    def close(self) -> None: ...


def test_only_a_model_that_leaves_no_trace_is_run_to_measure_it(ready: Ready, zoo: Any) -> None:
    counter = read_model(zoo["counter"].path)
    assert effects(read_programs(counter)[0], zoo["counter"].signature.name).writes == ("AssignAddVariableOp",)
    found, _ = ready()
    spec = found.spec(found.job.output)
    assert spec.repeatable
    counts = dataclasses.replace(found.scanned, effects=Effects(writes=("AssignAddVariableOp",)))
    assert not dataclasses.replace(found, scanned=counts).spec(found.job.output).repeatable
    trusts = dataclasses.replace(found.scanned, trusted=("WriteFile",))
    assert not dataclasses.replace(found, scanned=trusts).spec(found.job.output).repeatable
    row_group = Where("f", 0), pa.table({"id": range(50), "x": pa.array(range(50), pa.float32())})
    for repeatable in (False, True):
        engine = CountingEngine()
        gauge = Gauge(engine, found.binding, 10, 100, repeatable)
        assert list(gauge.measured(iter([row_group]), 50, StageClock())) == [row_group]
        assert bool(engine.calls) == repeatable


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    files=st.integers(1, 3),
    batch_rows=st.integers(1, 50),
    readers=st.integers(1, 4),
    calls=st.integers(1, 2),
    shard_rows=st.integers(1, 120),
)
def test_whatever_the_sizes_the_parts_are_what_a_plain_loop_writes(
    groups: list[int],
    files: int,
    batch_rows: int,
    readers: int,
    calls: int,
    shard_rows: int,
    half_plus_two: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("sizes")
    (root / "in").mkdir()
    number = 0
    for file in range(files):
        schema = pa.schema([("id", pa.int64()), ("x", pa.float32())])
        with pq.ParquetWriter(root / "in" / f"{file}.parquet", schema) as writer:
            for rows in groups:
                ids = np.arange(number, number + rows)
                writer.write_table(pa.table([pa.array(ids), pa.array(ids.astype(np.float32))], schema=schema))
                number += rows
    job = {
        "model": {"url": str(half_plus_two)},
        "input": {"url": str(root / "in")},
        "columns": {"keep": ["id"]},
        "output": {"url": str(root / "out")},
        "limits": {"shard_rows": shard_rows, "batch_rows": batch_rows},
        "workers": {"readers": readers},
    }
    found = preflight(Job.model_validate(job))
    output = OutputDirectory(found.job.output, found.plan.id, len(found.plan.shards))
    output.claim(found.plan)
    worker = Worker(found.spec(output.output), "w1", OPTIONS)
    worker._calls = calls
    shards = range(len(found.plan.shards))
    results = both(worker, [attempt_at(found, shard, f"{shard:012x}") for shard in shards], tuple(reversed(shards)))
    worker.close()
    assert all(isinstance(result, Success) for result in results.values()), results
    written = pa.concat_tables(pq.read_table(part) for part in sorted((root / "out").glob("part-*")))
    expected = [pq.read_table(path) for path in sorted((root / "in").glob("*.parquet"))]  # the loop without the runner
    plain = pa.concat_tables(expected)
    assert written["id"].to_pylist() == plain["id"].to_pylist()
    np.testing.assert_array_equal(written["y"].to_numpy(), plain["x"].to_numpy() / 2 + 2)
