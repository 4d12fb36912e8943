"""The `many` workload: what the driver costs where there are very many files and shards.

Lists and plans real local files; dispatches and commits shards with a pool that answers at once; resumes a job whose
shards are all done, from real folders of that many names. Each part runs in a process of its own, to tell its memory
apart. With `AGAINST=COMMIT` in the environment that commit lists and plans the same files.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import checkout, program
from workloads import CACHE, WORKLOADS

from connectors.output.directory import OutputDirectory
from connectors.store.store import Store
from jobs.attempt import Attempt, Failure, Measured, Receipt, Success
from jobs.job import Job
from jobs.plan import InputFile, Plan, RowGroup, plan
from jobs.schedule.draw import Draw
from jobs.schedule.elastic import Demand
from jobs.schedule.event import AttemptSucceeded, Event, WorkerReady
from jobs.schedule.policy import Policy
from jobs.schedule.schedule import Schedule
from jobs.section.limits import Limits
from jobs.section.output import Output
from runner.driver.driver import Driver
from runner.pool.facts import WorkerFacts
from runner.preflight.preflight import preflight
from runner.worker.spec import Progress, WorkerSpec

_FOLDER = 10_000  # files of one
_LINKS = 30_000  # names of one file; file systems allow some more


def many(files: int, shards: int) -> dict[str, Any]:
    """One line for the plan of `files` files, and dispatch, commit and resume of `shards` shards."""
    here, against = str(Path(__file__)), os.environ.get("AGAINST", "")
    line: dict[str, Any] = {"workload": "many", "files": files, "shards": shards}
    if against:
        root = checkout(against)
        other = {step: program(here, step, str(count), root=root).answer for step, count in _looks(files, shards)}
        line["against"] = {"commit": against} | other
    return line | {
        "listing": program(here, "listing", str(shards)).answer,
        "plan": program(here, "plan", str(files)).answer,
        "dispatch": program(here, "dispatch", str(shards)).answer,
        "resume": program(here, "resume", str(shards)).answer,
    }


def _looks(files: int, shards: int) -> list[tuple[str, int]]:
    """What another commit does, too: listing as many files as there are shards, and the plan."""
    return [("listing", shards), ("plan", files)]


def memory_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def linked(source: Path, names: Sequence[str], folder: Path) -> None:
    """Files of these names, all with the content of `source`."""
    folder.mkdir(parents=True)
    for at, name in enumerate(names):
        if at % _LINKS == 0:
            shutil.copy(source, folder / name)
            first = folder / name
        else:
            os.link(first, folder / name)


def measure_listing(files: int) -> dict[str, float]:
    """Names and sizes of small files in folders of 10,000."""
    folder = CACHE / f"listing-{files}"
    if not folder.exists():
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        one = CACHE / "one.bin"
        one.write_bytes(b"x")
        for first in range(0, files, _FOLDER):
            names = [f"{at:07d}.parquet" for at in range(first, min(files, first + _FOLDER))]
            linked(one, names, draft / f"part={first // _FOLDER:04d}")
        draft.rename(folder)
    before, start = memory_bytes(), time.perf_counter()
    found = Store(str(folder)).list([str(folder)], (".parquet",)).files
    seconds = time.perf_counter() - start
    assert len(found) == files
    return {"seconds": round(seconds, 2), "bytes_per_file": round((memory_bytes() - before) / files)}


def measure_plan(files: int) -> dict[str, float]:
    folder = CACHE / f"many-{files}"
    if not folder.exists():
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(320, np.float32)), 32)
        one = CACHE / "one.parquet"
        pq.write_table(pa.table({"id": pa.array(range(10), pa.int64()), "features": values}), one)
        linked(one, [f"{at:07d}.parquet" for at in range(files)], draft)
        draft.rename(folder)
    job = {
        "model": {"url": str(WORKLOADS["vector"].model())},
        "input": {"url": str(folder)},
        "columns": {"outputs": ["score"], "keep": ["id"]},
        "output": {"url": str(CACHE / "out-many")},
        "limits": {"shard_rows": 10},
    }
    before, start = memory_bytes(), time.perf_counter()
    ready = preflight(Job.model_validate(job))
    plan_id, seconds = ready.plan.id, time.perf_counter() - start
    assert plan_id
    assert len(ready.plan.shards) == files
    return {"seconds": round(seconds, 2), "bytes_per_shard": round((memory_bytes() - before) / files)}


def made_up_plan(shards: int) -> Plan:
    """Ten shards in each file."""
    files = (
        InputFile(
            f"s3://bucket/table/day=2026-11-25/part-{at:06d}.parquet", 10**8, f"etag{at:028x}", (RowGroup(10, 9),) * 10
        )
        for at in range(shards // 10)
    )
    return plan(files, Limits(shard_rows=10), {})


class InstantPool:
    """Every attempt has succeeded by the next poll. Receipts are as large as real ones."""

    def __init__(self, names: OutputDirectory) -> None:
        self._names = names
        self._events: list[Event] = []

    def connect(self) -> None: ...

    def serve(self, spec: WorkerSpec) -> None: ...

    def capacity(self) -> int:
        return 8

    def start(self, worker: str, avoid: tuple[str, ...] = ()) -> None:
        self._events.append(WorkerReady(0.0, worker, "node"))

    def dispatch(self, worker: str, attempt: Attempt) -> None:
        receipt = Receipt(
            shard=attempt.shard,
            attempt=attempt.id,
            number=attempt.number,
            epoch=attempt.epoch,
            part=self._names.part_name(attempt.shard),
            size=1000 + attempt.shard,
            sha256=f"{attempt.shard:064x}",
            rows_in=attempt.rows,
            rows_out=attempt.rows,
            worker=worker,
        )
        seconds = {"run": 0.1, "wait_read": 0.1, "publish": 0.05}
        success = Success(receipt, Measured(seconds, {"cpu_s": 0.2, "cpus": 1.0, "batch_rows": 10.0}))
        self._events.append(AttemptSucceeded(time.monotonic(), worker, success))

    def stop(self, worker: str) -> None: ...

    def poll(self, timeout_s: float) -> Sequence[Event]:
        events, self._events = self._events, []
        return events

    def progress(self) -> Mapping[str, Progress]:
        return {}

    def facts(self) -> Mapping[str, WorkerFacts]:
        return {}

    def close(self) -> None: ...


class NoStorage:
    """What the driver asks of an output directory; nothing is written."""

    def adopt(self, shard: int) -> Receipt | None:
        return None

    def record(self, success: Success, failures: Sequence[Failure]) -> None: ...

    def renew(self, epoch: int, progress: Mapping[str, object]) -> None: ...


def drive(made: Plan, done: dict[int, Receipt]) -> Driver:
    names = OutputDirectory(Output(url="/nowhere"), made.id, len(made.shards))
    random = Random(0)
    draw = Draw(1, lambda: f"{random.getrandbits(48):012x}", random)
    schedule = Schedule(made, done, Policy(), draw, Demand(8))
    driver = Driver(schedule, InstantPool(names), NoStorage(), 1, made.rows, receipts=dict(done))  # type: ignore[arg-type]
    assert len(driver.run()) == len(made.shards)
    return driver


def measure_dispatch(shards: int) -> dict[str, float]:
    before = memory_bytes()
    made = made_up_plan(shards)
    planned, start = memory_bytes(), time.perf_counter()
    driver = drive(made, {})
    seconds = time.perf_counter() - start
    after = memory_bytes()
    assert len(driver.history) == shards
    return {
        "seconds": round(seconds, 2),
        "shards_per_s": round(shards / seconds),
        "bytes_per_shard_plan": round((planned - before) / shards),
        "bytes_per_shard": round((after - before) / shards),
    }


def measure_resume(shards: int) -> dict[str, float]:
    """All parts and receipts are listed, nothing is left to do."""
    made = made_up_plan(shards)
    folder = CACHE / "many-done"
    shutil.rmtree(folder, ignore_errors=True)
    output = OutputDirectory(Output(url=str(folder)), made.id, shards)
    one = CACHE / "one.bin"
    one.write_bytes(b"x")
    linked(one, [output.part_name(at) for at in range(shards)], folder)
    linked(one, [f"{at:05d}.json" for at in range(shards)], folder / "_run" / made.id[:8] / "receipts")
    before, start = memory_bytes(), time.perf_counter()
    done = output.done(made)
    listed = time.perf_counter() - start
    driver = drive(made, done)
    seconds = time.perf_counter() - start
    assert len(driver.receipts) == shards
    used = memory_bytes() - before
    shutil.rmtree(folder)
    return {"seconds": round(seconds, 2), "listing_s": round(listed, 2), "bytes_per_shard": round(used / shards)}


if __name__ == "__main__":  # python many.py listing|plan|dispatch|resume COUNT
    step = {"listing": measure_listing, "plan": measure_plan, "dispatch": measure_dispatch, "resume": measure_resume}[
        sys.argv[1]
    ]
    print(json.dumps(step(int(sys.argv[2]))))
