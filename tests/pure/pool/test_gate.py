"""The gate before the first dispatch: one worker tries the model out, all others wait for its answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

from jobs.errors import ModelError, PoisonError, WorkerError
from jobs.schedule.event import WorkerFailedToStart, WorkerLost, WorkerReady
from runner.measure.place import Place
from runner.pool.facts import WorkerFacts
from runner.pool.gate import TrialGate
from runner.worker.trial.trial import Trial
from runner.worker.warm_up import WarmUp


class Puppet:
    """What the gate needs of a pool; it answers nothing of its own accord."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.notes: list[str] = []
        self.said: list[str] = []

    def trial(self, worker: str) -> None:
        self.asked.append(worker)

    def facts(self) -> Mapping[str, WorkerFacts]:
        trial = Trial("input", proved=True, notes=tuple(self.notes))
        return {worker: WorkerFacts(Place(), WarmUp(), trial) for worker in self.asked}


def ready(worker: str) -> WorkerReady:
    return WorkerReady(0.0, worker, "node")


DEATH = WorkerError("it died")  # errors are equal to themselves only


def lost(worker: str) -> WorkerLost:
    return WorkerLost(0.0, worker, DEATH)


SPEC = SimpleNamespace(model=SimpleNamespace(url="s3://models/7"), signature=SimpleNamespace(name="embed"))


def gate_of(puppet: Puppet) -> TrialGate:
    return TrialGate(puppet, SPEC, puppet.said.append)  # type: ignore[arg-type]


def test_the_first_ready_worker_tries_and_the_others_wait_for_its_answer() -> None:
    puppet = Puppet()
    gate = gate_of(puppet)
    puppet.notes = ["it is random"]
    assert gate.admit([ready("w2"), ready("w1")]) == []
    assert puppet.asked == ["w2"]
    assert gate.admit([ready("w2")]) == [ready("w2"), ready("w1")]
    assert gate.admit([ready("w3")]) == [ready("w3")]
    assert (puppet.asked, puppet.said) == (["w2"], ["it is random"])


def test_a_refusal_reaches_the_schedule_and_nobody_becomes_ready() -> None:
    gate = gate_of(Puppet())
    refusal = WorkerFailedToStart(1.0, "w1", ModelError("no kernel"))
    gate.admit([ready("w1"), ready("w2")])
    assert gate.admit([refusal]) == [refusal]


def test_when_the_worker_that_tries_dies_the_next_one_tries() -> None:
    puppet = Puppet()
    gate = gate_of(puppet)
    gate.admit([ready("w1"), ready("w2")])
    assert gate.admit([lost("w1")]) == [lost("w1")]
    assert puppet.asked == ["w1", "w2"]
    assert gate.admit([ready("w2")]) == [ready("w2")]


def test_a_model_that_takes_two_processes_with_it_is_refused() -> None:
    gate = gate_of(Puppet())
    gate.admit([ready("w1"), ready("w2"), ready("w3")])
    gate.admit([lost("w1")])
    (event,) = gate.admit([lost("w2")])
    assert isinstance(event, WorkerFailedToStart)
    assert isinstance(event.error, PoisonError)
    assert "signature 'embed' of model 's3://models/7'" in event.error.message
    assert "ended the processes of 2 workers; the last: it died" in event.error.message


def test_a_preempted_node_is_not_the_fault_of_the_model() -> None:
    gate = gate_of(Puppet())
    gate.admit([ready("w1"), ready("w2"), ready("w3")])
    for worker in ("w1", "w2"):
        gone = WorkerLost(0.0, worker, DEATH, preempted=True)
        assert gate.admit([gone]) == [gone]
    assert gate.admit([ready("w3")]) == [ready("w3")]


def test_a_worker_that_leaves_while_it_waits_is_forgotten() -> None:
    gate = gate_of(Puppet())
    gate.admit([ready("w1"), ready("w2"), ready("w3")])
    assert gate.admit([lost("w2")]) == [lost("w2")]
    gate.stopped("w3")
    assert gate.admit([ready("w1")]) == [ready("w1")]


def test_a_worker_that_is_stopped_while_it_tries_hands_the_trial_on() -> None:
    puppet = Puppet()
    gate = gate_of(puppet)
    gate.admit([ready("w1"), ready("w2")])
    gate.stopped("w1")
    assert puppet.asked == ["w1", "w2"]
