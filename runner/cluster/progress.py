"""How far the jobs of a cluster are: each output is asked, and all of them within one time.

Refuses to know Ray: what it says of a job is no progress. The invariant: a store that does not answer, or an output
that cannot be read from here, costs its own row and no more time than is allowed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from connectors.output.status import Status, read_status
from jobs.errors import RunnerError
from runner.cluster.submit import Submission

MOST_OUTPUTS = 20
PATIENCE_S = 10.0
_THREADS = 8

_Place = tuple[str, str, str]  # output, its options, plan


def progress_of(
    submissions: Sequence[Submission], most: int = MOST_OUTPUTS, patience_s: float = PATIENCE_S
) -> dict[str, Status]:
    """Id of a job -> how far its output is: of the latest ones, and where that could be read in time.

    submissions: oldest first. An output that holds another plan by now tells nothing of a job.
    most:        outputs that are looked at.
    """
    latest = {_place(one): one for one in submissions}  # of those that write one plan to one output, one is asked
    asked = sorted(latest, key=lambda place: submissions.index(latest[place]))[-most:]
    waiting: queue.SimpleQueue[_Place] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[_Place, Status | None]] = queue.SimpleQueue()
    for place in reversed(asked):
        waiting.put(place)

    def look() -> None:
        with suppress(queue.Empty):
            while True:
                place = waiting.get_nowait()
                found = None
                with suppress(RunnerError, OSError, ValueError, KeyError):
                    found = read_status(latest[place].output, causes=False)
                answers.put((place, found))

    for _ in range(min(_THREADS, len(asked))):  # daemons: a store that never answers must not keep the command
        threading.Thread(target=look, name="progress", daemon=True).start()
    known: dict[_Place, Status] = {}
    until = time.monotonic() + patience_s
    for _ in asked:
        try:
            place, found = answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        if found is not None and found.plan_id == place[2]:
            known[place] = found
    return {one.id: known[_place(one)] for one in submissions if _place(one) in known}


def _place(one: Submission) -> _Place:
    return one.metadata.get("runner.output", ""), one.metadata.get("runner.options", ""), one.plan_id
