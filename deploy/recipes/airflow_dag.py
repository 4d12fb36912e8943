"""A DAG of Airflow 3: the scores of each day, where `runner` is installed. A failed task continues what is written."""

import subprocess
from datetime import timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException


@dag(schedule="30 1 * * *", catchup=False)
def scores():
    @task(retries=5, retry_delay=timedelta(minutes=5))
    def run(dt: str) -> None:
        command = ["runner", "run", "job.yaml", "--var", f"dt={dt}", "--wait-for-driver", "6m"]
        code = subprocess.run(command, check=False).returncode
        if code in (2, 65):  # the job or its data is wrong: no retry mends that
            raise AirflowFailException(f"runner ended with {code}")
        if code:
            raise RuntimeError(f"runner ended with {code}; the next try continues")

    run("{{ ds }}")


scores()
