"""Jobs on a real local Ray: complete whatever is killed, with the GPUs they asked for."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import runner
from connectors.output.directory import read_status
from jobs.errors import CapacityError, DataError, JobError
from jobs.job import Job
from jobs.schedule.event import ClusterLost
from jobs.section.output import Output
from jobs.section.workers import Workers
from runner.cluster.connection import Connection
from runner.cluster.pool import RayPool
from runner.preflight.preflight import preflight

Answers = Callable[[Path, int], None]


def epoch_facts(output: Path) -> dict[str, dict[str, object]]:
    """Worker -> where it lives, as the driver last wrote it."""
    facts: dict[str, dict[str, object]] = {}
    for file in output.glob("_run/*/epochs/*.json"):
        facts = json.loads(file.read_text()).get("workers") or facts
    return facts


def await_that(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within 60 s: {what}"
        time.sleep(0.02)


def worker_processes() -> list[Path]:
    def runs(process: Path) -> bool:
        try:
            return b"ray::WorkerActor" in (process / "cmdline").read_bytes()  # empty of one that has ended
        except OSError:
            return False

    return [process for process in Path("/proc").glob("[0-9]*") if runs(process)]


def test_two_workers_score_every_row_once_and_in_order(
    tmp_path: Path, write_numbers: Callable[..., Path], numbers_job: Callable[..., Job], require_half_plus_two: Answers
) -> None:
    job = numbers_job(
        write_numbers(tmp_path / "in"), tmp_path / "out", limits={"shard_rows": 300}, workers={"count": 2}
    )
    result = runner.run(job, progress=False)
    assert (result.rows, result.retries) == (2000, 0)
    assert result.dataset().count_rows() == 2000
    assert {receipt["worker"] for receipt in receipts(tmp_path / "out")} <= {"w1", "w2"}
    require_half_plus_two(tmp_path / "out", 2000)


def receipts(output: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in sorted(output.glob("_run/*/receipts/*.json"))]


def test_a_worker_killed_in_the_middle_is_replaced_and_the_retry_is_shown(
    tmp_path: Path, write_numbers: Callable[..., Path], numbers_job: Callable[..., Job], require_half_plus_two: Answers
) -> None:
    output = tmp_path / "out"
    job = numbers_job(
        write_numbers(tmp_path / "in"),
        output,
        signature="slow",
        workers={"count": 2},
        limits={"shard_rows": 200, "batch_rows": 50},
    )
    handle = runner.start(job, progress=False)
    await_that(lambda: len(epoch_facts(output)) == 2 and any(output.glob("part-*")), "two workers and a first part")
    pid = epoch_facts(output)["w1"]["pid"]
    assert isinstance(pid, int)
    assert pid != os.getpid()
    os.kill(pid, signal.SIGKILL)
    result = handle.wait(timeout_s=100)
    assert result.retries >= 1
    require_half_plus_two(output, 2000)
    status = read_status(Output(url=str(output)))
    assert status.state == "finished"
    assert any("w1" in str(failure["message"]) and "lost" in str(failure["message"]) for failure in status.failures)


def test_a_model_call_that_cannot_succeed_ends_the_job_with_its_reason_and_no_success_mark(
    tmp_path: Path, write_numbers: Callable[..., Path], numbers_job: Callable[..., Job]
) -> None:
    source = write_numbers(tmp_path / "in", files=1)
    job = numbers_job(source, tmp_path / "out", signature="picky", workers={"count": 1})
    job = job.model_copy(update={"columns": job.columns.model_copy(update={"keep": ()})})
    runner.run(job, progress=False)  # ids from 0 up: nothing negative yet

    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": pa.array([1.0, -1.0], pa.float32())}), source / "numbers-negative.parquet")
    job = job.model_copy(update={"output": Output(url=str(tmp_path / "out2"))})
    with pytest.raises(
        DataError, match=r"MODEL_ROW: .*negative.*numbers-negative.parquet' row group 0 row 1"
    ) as caught:
        runner.run(job, progress=False)
    assert caught.value.exit_code == 65
    assert not (tmp_path / "out2" / "_SUCCESS").exists()


def test_cancel_stops_the_workers_and_the_same_job_continues(
    tmp_path: Path, write_numbers: Callable[..., Path], numbers_job: Callable[..., Job], require_half_plus_two: Answers
) -> None:
    output = tmp_path / "out"
    sections = {"workers": {"count": 2}, "limits": {"shard_rows": 100, "batch_rows": 50}}
    job = numbers_job(write_numbers(tmp_path / "in"), output, signature="slow", **sections)
    handle = runner.start(job, progress=False)
    await_that(lambda: len(list(output.glob("part-*"))) >= 3, "three parts")
    assert len(worker_processes()) == 2
    handle.cancel()
    assert not handle.running
    # Ray kills a worker a moment after it says so, 20 ms and more: until then it may publish what it had in hand.
    await_that(lambda: not worker_processes(), "the end of the workers")
    finished = {part.name: part.stat().st_mtime_ns for part in output.glob("part-*")}
    assert 3 <= len(finished) < 20
    assert not (output / "_SUCCESS").exists()
    result = runner.run(job, progress=False)
    assert result.rows == 2000
    assert result.rows_run == 2000 - 100 * len(finished)
    assert finished.items() <= {part.name: part.stat().st_mtime_ns for part in output.glob("part-*")}.items()
    require_half_plus_two(output, 2000)


@pytest.fixture
def start_workers(tmp_path: Path, write_numbers: Callable[..., Path], numbers_job: Callable[..., Job]) -> object:
    """start_workers(Workers(...), n): the facts of n ready workers."""
    job = numbers_job(write_numbers(tmp_path / "in", files=1), tmp_path / "out")

    def start(workers: Workers, count: int) -> list[dict[str, object]]:
        pool = RayPool(workers)
        try:
            pool.serve(preflight(job).spec(job.output))
            pool.capacity()
            for number in range(count):
                pool.start(f"w{number + 1}")
            await_that(lambda: pool.poll(0.5) is not None and len(pool.facts()) == count, f"{count} ready workers")
            return [facts.document() for facts in pool.facts().values()]
        finally:
            pool.close()

    return start


StartWorkers = Callable[[Workers, int], list[dict[str, object]]]


def test_workers_with_a_gpu_each_see_different_devices(start_workers: StartWorkers) -> None:
    seen = [facts["cuda_visible_devices"] for facts in start_workers(Workers(gpus=1), 2)]
    assert sorted(map(str, seen)) == ["0", "1"]


def test_workers_with_half_a_gpu_share_one(start_workers: StartWorkers) -> None:
    facts = start_workers(Workers(gpus=0.5), 2)
    assert facts[0]["gpus"] == facts[1]["gpus"]
    assert facts[0]["cuda_visible_devices"] == facts[1]["cuda_visible_devices"] != ""


def test_a_worker_without_a_gpu_sees_none(start_workers: StartWorkers) -> None:
    (facts,) = start_workers(Workers(gpus=0), 1)
    assert facts["gpus"] == []
    assert facts["cuda_visible_devices"] == "-1"
    assert not any("GPU" in str(device) for device in facts["devices"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(("workers", "fits"), [(Workers(gpus=1), 2), (Workers(gpus=0.5), 4), (Workers(cpus=3), 2)])
def test_auto_counts_what_the_cluster_holds(workers: Workers, fits: int) -> None:
    pool = RayPool(workers)
    assert pool.capacity() == fits
    pool.close()


def test_nothing_is_handed_to_a_ray_that_is_gone_and_its_loss_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = RayPool(Workers())
    pool.capacity()
    monkeypatch.setattr(
        Connection, "lost", lambda self, asking=False: "the local Ray is gone: killed" if asking else ""
    )
    pool.start("w1")
    pool.start("w2")
    told = [event for _ in range(2) for event in pool.poll(0.0) if isinstance(event, ClusterLost)]
    assert [event.story for event in told] == ["the local Ray is gone: killed"]
    assert pool.facts() == pool.progress() == {}, "no actor was made"
    pool.close()


def test_a_ray_client_is_refused() -> None:
    with pytest.raises(JobError, match="not a Ray Client"):
        RayPool(Workers(), address="ray://10.0.0.7:10001")


def test_another_cluster_than_the_one_this_process_is_in_is_refused() -> None:
    pool = RayPool(Workers(), address="127.0.0.1:1")
    with pytest.raises(CapacityError, match=r"'127\.0\.0\.1:1'.*connected to a Ray at"):
        pool.capacity()
    pool.close()
