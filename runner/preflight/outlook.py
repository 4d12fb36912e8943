"""What a run of a job would meet in its output, for those who ask before they run it.

Asks what `launch` asks, of the same code; refuses to know how it is shown. The invariant: nothing is written, and what
would refuse a run is an answer, not an error.
"""

from __future__ import annotations

from dataclasses import replace

from connectors.output.directory import Outlook, OutputDirectory, Terms
from connectors.store.store import Store
from jobs.errors import RunnerError
from jobs.rejection import Rejections
from runner.preflight.place import require_shared, require_writable
from runner.preflight.preflight import Preflight


def foreseen(ready: Preflight, terms: Terms, *, in_process: bool) -> Preflight:
    """`ready`, with what a run of it would meet in its output."""
    try:
        found = _looked(ready, terms, in_process)
    except RunnerError as error:
        found = Outlook("refused", len(ready.plan.shards), ready.plan.rows, error=error)
    return replace(ready, outlook=found)


def _looked(ready: Preflight, terms: Terms, in_process: bool) -> Outlook:
    """raises: RunnerError for what would end a run."""
    job, plan = ready.job, ready.plan
    require_shared(Store(job.output.url, job.output.options), in_process=in_process)
    output = OutputDirectory(job.output, plan.id, len(plan.shards))
    found = output.outlook(plan, terms)
    if found.state != "finished":
        require_writable(job.output.url)
    if found.state == "resumed" and job.limits.may_lose and not found.lost:  # what is lost counts when it is computed
        rejections = Rejections.of(plan, job.limits)
        for receipt in output.published(plan).values():
            rejections.note(receipt)
        if (excess := rejections.excess()) is not None:
            raise excess
    return found
