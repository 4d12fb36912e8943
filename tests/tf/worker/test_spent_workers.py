"""Workers that run out of memory or whose device fails, in this process: rows 24, 26 and 30 of the fault matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.output.directory import read_status
from jobs.errors import DeviceError, MemoryLimitError
from jobs.job import Job
from jobs.section.output import Output
from runner import engine
from runner.driver.launch import RunOptions, launch
from runner.driver.result import Result
from runner.scan.effects import Effects
from runner.tensor import Feeds, Outputs
from runner.worker.room import MemoryLimit, available_bytes, resident_bytes


class Wrapped:
    """A real engine, before whose calls something may be raised."""

    def __init__(self, inner: Any, before: Callable[[int], None]) -> None:
        self._inner, self._before = inner, before
        self.devices = inner.devices

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        self._before(feeds["x"].shape[0])
        outputs: Outputs = self._inner.run(feeds, fetches)
        return outputs

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def run_with(
    half_plus_two: Path, write_numbers: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """run_with(hooks): a job of 2,000 rows in 4 shards, 128 rows a batch; hooks() makes the hook of a fresh engine."""

    def run(hooks: Callable[[], Callable[[int], None]], workers: int = 1) -> Result:
        load = engine.load
        # As a model that a call changes: it is neither tried nor measured, and hooks see the calls of the job alone.
        monkeypatch.setattr(
            "runner.preflight.model.member.effects", lambda program, signature: Effects(writes=("AssignAdd",))
        )
        monkeypatch.setattr(engine, "load", lambda *args: Wrapped(load(*args), hooks()))
        job = {
            "model": {"url": str(half_plus_two)},
            "input": {"url": str(write_numbers(tmp_path / "in", row_group=500))},
            "columns": {"keep": ["id"]},
            "output": {"url": str(tmp_path / "out")},
            "workers": {"count": workers, "cpus": 1},
            "limits": {"shard_rows": 500, "batch_rows": 128},
        }
        result = launch(Job.model_validate(job), RunOptions(in_process=True), warn=lambda story: None)
        table = pa.concat_tables(pq.read_table(part) for part in sorted((tmp_path / "out").glob("part-*")))
        assert table["id"].to_pylist() == list(range(2000))
        assert table["y"].to_pylist() == [row / 2 + 2 for row in range(2000)]
        return result

    return run


def test_row_26_a_batch_that_does_not_fit_is_halved_once_and_every_worker_knows(run_with: Any) -> None:
    engines: list[list[int]] = []

    def hook() -> Callable[[int], None]:
        calls: list[int] = []
        engines.append(calls)

        def before(rows: int) -> None:
            calls.append(rows)
            if rows > 64:
                raise MemoryLimitError("OOM when allocating", code="RESOURCE_EXHAUSTED")

        return before

    result = run_with(hook)
    assert result.retries == 0, "no attempt is lost"
    assert sum(rows > 64 for calls in engines for rows in calls) <= 2, (
        "it happens at the first batch, and when more is tried"
    )


def test_row_26_a_process_that_ran_out_of_memory_again_is_replaced_and_the_next_knows_from_the_start(
    run_with: Any,
) -> None:
    engines: list[list[int]] = []

    def hook() -> Callable[[int], None]:
        calls: list[int] = []
        engines.append(calls)

        def before(rows: int) -> None:
            calls.append(rows)
            if rows > 16:
                raise MemoryLimitError("OOM when allocating", code="RESOURCE_EXHAUSTED")

        return before

    run_with(hook)
    assert len(engines) >= 2, "128, 64, 32: it ran out of memory more than once"
    assert engines[0][:3] == [128, 64, 32]
    assert all(calls[0] <= 17 for calls in engines[1:] if calls), "told by the driver, with a little more at most"


def test_row_30_a_device_that_keeps_failing_costs_its_process_and_no_row(run_with: Any, tmp_path: Path) -> None:
    engines: list[int] = []

    def hook() -> Callable[[int], None]:
        engines.append(0)
        mine = len(engines)

        def before(rows: int) -> None:
            engines[mine - 1] += 1
            if mine <= 2 and engines[mine - 1] > 3:  # from then on all calls of this process fail
                raise DeviceError("INTERNAL: launch failed", code="INTERNAL")

        return before

    run_with(hook)
    failures = read_status(Output(url=str(tmp_path / "out"))).failures
    refused = [failure["error"] for failure in failures if "is to be replaced" not in failure["message"]]
    assert refused == ["DeviceError"] * 2, "a shard that was in hand beside it may be given back, nothing else fails"
    assert engines[:2] == [4, 4], "nothing more is asked of a process whose device failed"


def test_a_worker_above_nine_tenths_of_its_memory_asks_to_be_replaced() -> None:
    held = resident_bytes()
    assert 10 * 2**20 < held < available_bytes() + held
    assert MemoryLimit(None).excess() == MemoryLimit(2 * held).excess() == ""
    assert "MiB of" in MemoryLimit(held).excess()
    MemoryLimit(2 * held).check_start()
    with pytest.raises(MemoryLimitError, match=r"with nothing but the model loaded; `workers.memory` allows"):
        MemoryLimit(held).check_start()
    assert resident_bytes(2**30) == 0
