"""A flow of Prefect: the scores of one day. A failed task continues what is written."""

import subprocess
from datetime import date

from prefect import flow, task


def may_retry(task, run, state) -> bool:
    """2 and 65: the job or its data is wrong, and no retry mends that."""
    return getattr(state.result(raise_on_failure=False), "returncode", None) not in (2, 65)


@task(retries=5, retry_delay_seconds=300, retry_condition_fn=may_retry)
def run(dt: str) -> None:
    subprocess.run(["runner", "run", "job.yaml", "--var", f"dt={dt}", "--wait-for-driver", "6m"], check=True)


@flow
def scores(dt: str | None = None) -> None:
    run(dt or date.today().isoformat())
