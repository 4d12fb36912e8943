"""Airflow, Dagster and Prefect try a run again after 70, and never after 65, as the files of deploy/recipes say

Each recipe runs in its own engine; a stand-in for `runner` ends with the codes that it is given, one after the other.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from case import ROOT, WRITERS, check, end

RECIPES = Path(__file__).parents[2] / "deploy" / "recipes"
ENGINES = {
    "apache-airflow-core==3.3.2": """
        import airflow_dag
        from airflow.sdk.exceptions import AirflowFailException

        task = airflow_dag.scores().get_task("run")
        for number in range(1 + task.retries):  # as a scheduler does, which would wait minutes
            try:
                task.python_callable("2026-11-02")
            except AirflowFailException:
                break
            except RuntimeError:
                continue
            print("done")
            break
    """,
    "dagster==1.13.29": """
        import dagster as dg

        policy = dg.RetryPolicy
        dg.RetryPolicy = lambda max_retries, delay: policy(max_retries=max_retries, delay=0.01)
        import dagster_asset

        if dg.materialize([dagster_asset.scores], partition_key="2026-11-02", raise_on_error=False).success:
            print("done")
    """,
    "prefect==3.9.1": """
        import prefect_flow
        from prefect.testing.utilities import prefect_test_harness

        prefect_flow.run.retry_delay_seconds = 0
        with prefect_test_harness():
            try:
                prefect_flow.scores("2026-11-02")
                print("done")
            except Exception:
                pass
    """,
}

if not WRITERS:
    print("skipped: needs other programs; `make cases` installs them")
    sys.exit(77)
runner = ROOT / "bin" / "runner"
runner.parent.mkdir()
runner.write_text('#!/bin/sh\necho "$@" >>"$CALLS"\nexit "$(echo "$CODES" | cut -d" " -f"$(grep -c "" "$CALLS")")"\n')
runner.chmod(0o755)
for package, code in ENGINES.items():
    home = ROOT / package.partition("=")[0]
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    subprocess.run([home / "bin" / "pip", "install", "--quiet", package], check=True, capture_output=True)
    for codes, calls in (("0", 1), ("65", 1), ("2", 1), ("70 75 0", 3)):
        told = ROOT / f"calls-{home.name}-{codes.replace(' ', '-')}"
        paths = {"PATH": f"{runner.parent}:{os.environ['PATH']}", "PYTHONPATH": str(RECIPES), "AIRFLOW_HOME": str(home)}
        environment = os.environ | paths | {"CODES": codes, "CALLS": str(told)}
        command = [home / "bin" / "python", "-c", textwrap.dedent(code)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240)
        lines = told.read_text().splitlines() if told.exists() else []
        named = f"{package}, exit codes {codes}"
        check(len(lines) == calls, f"{named}: {len(lines)} calls, not {calls}\n{done.stderr[-600:]}")
        check(all("--var dt=2026-11-02" in line for line in lines), f"{named}: the day is not in {lines}")
        check(("done" in done.stdout.split()) == codes.endswith("0"), f"{named}: {done.stdout[-300:]}")
end()
