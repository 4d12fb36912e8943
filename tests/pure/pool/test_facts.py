"""What is known of a worker, as the heartbeat of a driver tells it."""

from __future__ import annotations

import json
from dataclasses import replace

from runner.measure.place import Place
from runner.pool.facts import WorkerFacts
from runner.worker.trial.trial import Trial
from runner.worker.warm_up import WarmUp

WARM = {"seconds": 0.123, "requests": 1, "calls": 2, "rows": "input", "note": ""}


def test_a_worker_in_the_drivers_own_process_has_devices_alone() -> None:
    facts = WorkerFacts(Place(("/device:CPU:0",)), WarmUp(0.1234, 1, 2, "input"))
    assert json.loads(json.dumps(facts.document())) == {"devices": ["/device:CPU:0"], "warm_up": WARM}


def test_a_worker_elsewhere_tells_its_process_its_node_and_its_gpus_also_where_it_has_none() -> None:
    place = Place(("/device:CPU:0",), 7, "10.0.0.1", "ab", (), "-1")
    assert place.document() == {
        "pid": 7,
        "node": "10.0.0.1",
        "node_id": "ab",
        "gpus": [],
        "cuda_visible_devices": "-1",
        "devices": ["/device:CPU:0"],
    }


def test_the_worker_that_proved_the_model_tells_how() -> None:
    trial = Trial("input", proved=True, notes=("it is random",), placed={"GPU": {"MatMul": 2, "Add": 1}}, seconds=0.5)
    trial = replace(trial, unseen={"x": ("y",)})
    document = WorkerFacts(Place(), WarmUp(), trial).document()
    assert json.loads(json.dumps(document["trial"])) == {
        "rows": "input",
        "proved": True,
        "notes": ["it is random"],
        "unproved": "",
        "placed": {"GPU": {"MatMul": 2, "Add": 1}},
        "seconds": 0.5,
        "ops": {"GPU": 3},
        "unseen": {"x": ["y"]},
    }
