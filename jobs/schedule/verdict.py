"""Verdicts: the errors with which the Schedule ends a run.

Owns what they say and which facts they carry; refuses to decide when a run ends. The invariant: the error that caused
the end is the cause of the verdict, and where it was one of a worker, the verdict has its class and so its exit code.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.attempt import Failure
from jobs.errors import PoisonError, RunnerError
from jobs.plan import Plan
from jobs.words import counted


def ended_by(cause: RunnerError, story: str, **facts: object) -> RunnerError:
    """An error of the class of `cause`, with `story` before its message and `facts` beside its own."""
    error = type(cause)(f"{story}: {cause.message}", **cause.facts | facts)
    error.__cause__ = cause
    return error


def poisoned(plan: Plan, shard: int, deaths: Sequence[Failure]) -> PoisonError:
    """The end of a run on a shard that takes every process with it."""
    cuts = plan.shards[shard].slices
    places = [f"'{plan.files[cut.file].url}' row groups {cut.first} to {cut.stop - 1}" for cut in cuts[:10]]
    where = ", ".join(places) + (f" and {len(cuts) - 10} more files" if len(cuts) > 10 else "")
    stories = "; ".join(f"attempt {death.number} on {death.worker}: {death.error.message}" for death in deaths)
    error = PoisonError(
        f"shard {shard} ended {counted(len(deaths), 'process')}, no other shard did: {where}; {stories}; look for a row"
        " that the model cannot survive, or for too little memory; with `limits: {on_bad_row: reject}` the run finds"
        " such a row and goes on without it",
        shard=shard,
        file=plan.files[cuts[0].file].url,
        attempts=len(deaths),
    )
    error.__cause__ = deaths[-1].error
    return error
