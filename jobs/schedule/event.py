"""What passes between the driver and the Schedule: events in, actions out. Values; either side can be read alone."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.attempt import Attempt, Failure, Success
from jobs.errors import RunnerError

# Events: what happened. `now` is in seconds of a clock that never goes back.


@dataclass(frozen=True, slots=True)
class Started:
    now: float


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """node: where it lives, in any words that tell one node from another; "" where that does not matter."""

    now: float
    worker: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class WorkerFailedToStart:
    now: float
    worker: str
    error: RunnerError


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """preempted: its node was taken away, as announced: no try is used up."""

    now: float
    worker: str
    error: RunnerError
    preempted: bool = False


@dataclass(frozen=True, slots=True)
class WorkerDraining:
    """Its node will be taken away in `deadline_s` seconds; infinity where no time was given."""

    now: float
    worker: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class WorkerProgressed:
    """rows: of `attempt`, the one that runs, as last heard. Sent when it changes; what does not change is a stall."""

    now: float
    worker: str
    attempt: str
    rows: int


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    now: float
    worker: str
    success: Success


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    now: float
    worker: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: back-offs and the wait for a worker end only with an event, so one must come every second."""

    now: float


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """What is known of the cluster; sent when it changes.

    others: requests of others for which there is no room.
    never:  why no worker of this job can be placed on any node, there or to be launched; "" where one can.
    story:  what this job waits for, for people; "" where it waits for nothing.
    alive:  whether any node is.
    """

    now: float
    others: int = 0
    never: str = ""
    story: str = ""
    alive: bool = True


@dataclass(frozen=True, slots=True)
class ClusterLost:
    """The cluster that this run needs is gone, and all workers with it.

    story:      which one, and why, for people.
    restarts:   it was started for this run alone, so another one can take its place.
    advice:     what else helps where none does, for people; "" where nothing is known to.
    """

    now: float
    story: str
    restarts: bool = False
    advice: str = ""


@dataclass(frozen=True, slots=True)
class StopRequested:
    now: float
    error: RunnerError


@dataclass(frozen=True, slots=True)
class WorkersDiffer:
    """In something that changes numbers; told to people, and no matter for the Schedule. story: in what, and which."""

    now: float
    story: str


Event = (
    Started
    | WorkerReady
    | WorkerFailedToStart
    | WorkerLost
    | WorkerDraining
    | WorkerProgressed
    | AttemptSucceeded
    | AttemptFailed
    | ClusterSeen
    | WorkersDiffer
    | ClusterLost
    | Tick
    | StopRequested
)


# Actions: what is to be done, in the order of the list.


@dataclass(frozen=True, slots=True)
class StartWorker:
    """avoid: nodes where it should not live, if there are others.

    isolated: for one isolated attempt, and nothing else: it loads no model, its child processes do.
    """

    worker: str
    avoid: tuple[str, ...] = ()
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class StopWorker:
    worker: str


@dataclass(frozen=True, slots=True)
class RestartCluster:
    """Start another cluster in place of the one that is gone; comes after a StopWorker for every worker, and once.

    story: of the loss.
    """

    story: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """adopt: the shard was given out before, so its part may be there; look at the final name before computing.

    The earlier attempt may still be running: this one is its backup, and the first to publish wins.
    """

    worker: str
    attempt: Attempt
    adopt: bool


@dataclass(frozen=True, slots=True)
class Record:
    """failures: of this shard in this run, before it succeeded."""

    success: Success
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The run has failed. Comes once, followed by a StopWorker for every worker, and nothing else ever."""

    error: RunnerError


@dataclass(frozen=True, slots=True)
class Finish:
    """Every shard is done. Comes once, after a StopWorker for every worker, and nothing else ever."""


Action = StartWorker | StopWorker | RestartCluster | Dispatch | Record | GiveUp | Finish
