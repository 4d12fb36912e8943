"""The document of a run's account: its keys are read by scripts, so they stay."""

from __future__ import annotations

import json
from typing import Any

from jobs.attempt import Measured, Receipt, Success
from jobs.job import Job
from jobs.numerics import Numerics
from jobs.schedule.event import AttemptSucceeded
from jobs.versions import Versions
from runner.measure.account import Account, Heading, account
from runner.measure.history import History
from runner.measure.place import Place
from runner.report.text import account_lines

JOB = Job.model_validate({"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}})
KEYS = ["working_s", "phases", "speed", "bottleneck", "stage_seconds", "workers", "warm_up_seconds", "first_part_s"]
KEYS += ["numerics", "differences", "worker_versions"]
WORKER = (
    *("rows", "shards", "bytes", "cpus", "batch_rows", "stage_seconds", "waited_for", "cpu_seconds"),
    *("ceiling_rows_per_s", "peak_rss_bytes"),
)


def history_of(*workers: str, **figures: float) -> History:
    history = History()
    for shard, worker in enumerate(workers):
        history.dispatched(0.0, worker, f"a{shard}", shard, 1)
        receipt = Receipt(shard, f"a{shard}", 1, 1, "part", 7, "", 100, 100)
        measured = Measured({"run": 0.75, "read": 0.12345}, {"cpus": 2, "batch_rows": 64} | figures)
        history.note(AttemptSucceeded(2.0, worker, Success(receipt, measured)))
    return history


def document_of(made: Account) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(made.document()))
    return document


def test_the_keys_of_an_account_are_the_same_in_every_run() -> None:
    idle, busy = (document_of(account(JOB, history, {})) for history in (History(), history_of("w1")))
    assert list(idle) == list(busy) == KEYS
    assert list(busy["speed"]) == ["rows_per_s", "compute_rows_per_s", "machine_rows_per_s", "of_compute", "of_machine"]
    assert list(busy["bottleneck"]) == ["is", "sentence", "suggestion"]
    assert list(busy["workers"]["w1"]) == list(WORKER)
    assert (busy["working_s"], busy["stage_seconds"]["read"]) == (2.0, 0.123)
    assert (idle["workers"], idle["first_part_s"], idle["warm_up_seconds"]) == ({}, None, 0.0)


def test_padding_is_told_where_an_input_is_padded() -> None:
    padded = history_of("w1", pad_places=3, pad_values=2)
    assert document_of(account(JOB, padded, {}))["padding"] == 0.3333


def test_rows_of_several_shapes_are_told_with_the_batches_that_they_made() -> None:
    made = account(JOB, history_of("w1", "w2", shape_rows=30, shape_batches=8), {})
    assert document_of(made)["shapes"] == {"rows": 60, "batches": 16}
    assert "shapes: 60 rows of several shapes in 16 batches, 3.8 rows each: rows of one shape share a batch" in (
        account_lines(made)
    )
    compiled = history_of("w1", shape_rows=30, shape_batches=8, compilations=5, compiled_shapes=5)
    assert any(line.endswith("; XLA compiled for 5 of them") for line in account_lines(account(JOB, compiled, {})))


def test_compilations_are_told_of_a_worker_that_had_any() -> None:
    compiled = history_of("w1", compilations=9, compiled_shapes=2, compile_s=1.23456)
    document = document_of(account(JOB, compiled, {}))
    assert document["compilations"] == {"count": 9, "shapes": 2, "seconds": 1.235}
    assert document["stage_seconds"]["compile"] == 1.235, "a stage of its own"
    worker = document["workers"]["w1"]
    assert worker["stage_seconds"]["compile"] == 1.235
    assert {key: worker[key] for key in worker.keys() - {*WORKER}} == {
        "compilations": 9,
        "compiled_shapes": 2,
        "compile_seconds": 1.235,
    }


def test_a_worker_is_told_with_its_place_as_far_as_that_is_known() -> None:
    places = {"w1": Place(("/device:CPU:0",)), "w2": Place(("/device:CPU:0",), 7, "10.0.0.1", "ab"), "w9": Place()}
    document = document_of(account(JOB, history_of("w1", "w2", "w3"), places, 0.12345))
    workers = {
        name: {key: worker[key] for key in worker.keys() - {*WORKER}} for name, worker in document["workers"].items()
    }
    assert workers == {
        "w1": {"devices": ["/device:CPU:0"]},
        "w2": {"pid": 7, "node": "10.0.0.1", "devices": ["/device:CPU:0"]},
        "w3": {},
    }
    assert (document["warm_up_seconds"], document["first_part_s"]) == (0.123, 2.0)


def test_what_changes_numbers_is_told_once_for_all_workers_that_share_it() -> None:
    history = history_of("w1", "w2", "w3")
    history.numerics = {Numerics("2.21.0", True): {"w1": None, "w3": None}, Numerics("2.21.0", False): {"w2": None}}
    document = document_of(account(JOB, history, {}))
    assert document["numerics"] == [
        {"tensorflow": "2.21.0", "onednn": True, "workers": ["w1", "w3"]},
        {"tensorflow": "2.21.0", "onednn": False, "workers": ["w2"]},
    ]
    assert document["differences"] == ["onednn: on (w1, w3), off (w2)"]


def test_the_keys_of_a_heading() -> None:
    heading = Heading("id", 2, "/out", "m", "s", "2026-11-25T12:00:00+00:00", "finished", 20, 15, 5, 4, 4, 1.23456, 1)
    assert heading.document() == {
        "plan_id": "id",
        "epoch": 2,
        "output": "/out",
        "model": "m",
        "signature": "s",
        "ended_at": "2026-11-25T12:00:00+00:00",
        "ending": "finished",
        "rows": 20,
        "rows_run": 15,
        "rows_before": 5,
        "shards": 4,
        "shards_done": 4,
        "seconds": 1.235,
        "retries": 1,
        "nan_rows": 0,
        "nonfinite_rows": 0,
        "unseen_rows": 0,
        "changed_rows": 0,
        "versions": {},
    }


def test_what_is_installed_is_told_of_the_driver_and_once_for_all_workers_that_share_it() -> None:
    old, new = Versions(runner="0.1.0", pyarrow="25.0.0"), Versions(runner="0.1.0", pyarrow="26.0.1")
    history = history_of("w1", "w2", "w3")
    history.versions = {old: {"w1": None, "w3": None}, new: {"w2": None}}
    assert document_of(account(JOB, history, {}))["worker_versions"] == [
        {"runner": "0.1.0", "pyarrow": "25.0.0", "workers": ["w1", "w3"]},
        {"runner": "0.1.0", "pyarrow": "26.0.1", "workers": ["w2"]},
    ]
    heading = Heading("id", 2, "/out", "m", "s", "", "finished", 1, 1, 0, 1, 1, 1.0, 0, versions=new)
    assert heading.document()["versions"] == {"runner": "0.1.0", "pyarrow": "26.0.1"}


def test_a_summary_counts_what_each_worker_compiled() -> None:
    told = account_lines(account(JOB, history_of("w1", compilations=1, compiled_shapes=1, compile_s=0.25), {}))
    assert "XLA: compiled 1 time (0.2 s) for 1 shape of what was fed" in told
    both = account_lines(account(JOB, history_of("w1", "w2", compilations=1, compiled_shapes=1, compile_s=0.25), {}))
    assert "XLA: compiled 2 times (0.5 s) for 2 shapes of what was fed, each worker for itself (2 workers)" in both
    assert not any(line.startswith("XLA") for line in account_lines(account(JOB, history_of("w1"), {})))
