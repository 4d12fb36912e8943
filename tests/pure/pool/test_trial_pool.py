"""The gate before the first dispatch: one worker tries the model out, all others wait for its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.errors import ModelError, WorkerError
from jobs.schedule.event import Event, WorkerFailedToStart, WorkerLost, WorkerReady
from runner.measure.place import Place
from runner.pool.facts import WorkerFacts
from runner.pool.trial import TrialPool
from runner.worker.trial import Trial
from runner.worker.warm_up import WarmUp


class Puppet:
    """A pool that does what the test says."""

    def __init__(self) -> None:
        self.next: list[Event] = []
        self.asked: list[str] = []
        self.notes: list[str] = []

    def trial(self, worker: str) -> None:
        self.asked.append(worker)

    def stop(self, worker: str) -> None: ...

    def poll(self, timeout_s: float) -> Sequence[Event]:
        events, self.next = self.next, []
        return events

    def facts(self) -> Mapping[str, WorkerFacts]:
        trial = Trial("input", proved=True, notes=tuple(self.notes))
        return {worker: WorkerFacts(Place(), WarmUp(), trial) for worker in self.asked}


def ready(worker: str) -> WorkerReady:
    return WorkerReady(0.0, worker, "node")


DEATH = WorkerError("it died")  # errors are equal to themselves only


def lost(worker: str) -> WorkerLost:
    return WorkerLost(0.0, worker, DEATH)


def gate() -> tuple[Puppet, TrialPool, list[str]]:
    puppet, said = Puppet(), list[str]()
    return puppet, TrialPool(puppet, said.append), said  # type: ignore[arg-type]


def after(puppet: Puppet, pool: TrialPool, *events: Event) -> list[Event]:
    puppet.next = list(events)
    return list(pool.poll(0))


def test_the_first_ready_worker_tries_and_the_others_wait_for_its_answer() -> None:
    puppet, pool, said = gate()
    puppet.notes = ["it is random"]
    assert after(puppet, pool, ready("w2"), ready("w1")) == []
    assert puppet.asked == ["w2"]
    assert after(puppet, pool, ready("w2")) == [ready("w2"), ready("w1")]
    assert after(puppet, pool, ready("w3")) == [ready("w3")]
    assert (puppet.asked, said) == (["w2"], ["it is random"])


def test_a_refusal_reaches_the_schedule_and_nobody_becomes_ready() -> None:
    puppet, pool, _ = gate()
    refusal = WorkerFailedToStart(1.0, "w1", ModelError("no kernel"))
    after(puppet, pool, ready("w1"), ready("w2"))
    assert after(puppet, pool, refusal) == [refusal]


def test_when_the_worker_that_tries_dies_the_next_one_tries() -> None:
    puppet, pool, _ = gate()
    after(puppet, pool, ready("w1"), ready("w2"))
    assert after(puppet, pool, lost("w1")) == [lost("w1")]
    assert puppet.asked == ["w1", "w2"]
    assert after(puppet, pool, ready("w2")) == [ready("w2")]


def test_a_model_that_takes_two_processes_with_it_is_refused() -> None:
    puppet, pool, _ = gate()
    after(puppet, pool, ready("w1"), ready("w2"), ready("w3"))
    after(puppet, pool, lost("w1"))
    (event,) = after(puppet, pool, lost("w2"))
    assert isinstance(event, WorkerFailedToStart)
    assert isinstance(event.error, ModelError)
    assert "ended the processes of 2 workers" in event.error.message


def test_a_preempted_node_is_not_the_fault_of_the_model() -> None:
    puppet, pool, _ = gate()
    after(puppet, pool, ready("w1"), ready("w2"), ready("w3"))
    for worker in ("w1", "w2"):
        gone = WorkerLost(0.0, worker, DEATH, preempted=True)
        assert after(puppet, pool, gone) == [gone]
    assert after(puppet, pool, ready("w3")) == [ready("w3")]


def test_a_worker_that_leaves_while_it_waits_is_forgotten() -> None:
    puppet, pool, _ = gate()
    after(puppet, pool, ready("w1"), ready("w2"), ready("w3"))
    assert after(puppet, pool, lost("w2")) == [lost("w2")]
    pool.stop("w3")
    assert after(puppet, pool, ready("w1")) == [ready("w1")]


def test_a_worker_that_is_stopped_while_it_tries_hands_the_trial_on() -> None:
    puppet, pool, _ = gate()
    after(puppet, pool, ready("w1"), ready("w2"))
    pool.stop("w1")
    assert puppet.asked == ["w1", "w2"]
