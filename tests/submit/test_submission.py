"""The same job on a cluster: submitted, found, stopped, continued; and no secret left anywhere."""

from __future__ import annotations

import getpass
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canaries import CANARIES

import runner
from connectors.output.status import read_status
from jobs.job import Job
from jobs.load import load_job
from jobs.section.output import Output

Command = Callable[..., subprocess.CompletedProcess[str]]
JobFile = Callable[..., Path]


def output_of(file: Path) -> Output:
    job: Job = load_job(file.read_text(), str(file))
    return job.output


@pytest.fixture
def as_the_cluster(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may read what the job wrote."""
    for name in ("LAKE_KEY_ID", "LAKE_ACCESS"):
        monkeypatch.setenv(name, there.environment[name])


def test_a_job_runs_on_the_cluster_once_and_leaves_no_secret(
    command: Command, job_file: JobFile, there: Any, tmp_path: Path, as_the_cluster: None
) -> None:
    file = job_file()
    first = command("submit", "job.yaml", "--follow", "--env", "LAKE_ACCESS", "--env", "AWS_REGION=us-east-1")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "complete and proven, 2,000 rows in 4 parts" in first.stdout
    status = read_status(output_of(file))
    assert (status.state, status.rows_done, status.retries) == ("finished", 2000, 0)
    again = command("submit", "job.yaml")
    assert again.returncode == 0
    assert "already done: 2,000 rows in 4 shards" in again.stdout

    listed = json.loads(command("jobs", "list", "--json").stdout)
    (job,) = [one for one in listed if one["plan_id"] == status.plan_id]
    assert job["id"].startswith(f"runner-{status.plan_id[:8]}-")
    assert (job["status"], job["exit_code"]) == ("SUCCEEDED", 0)
    assert (job["rows"], job["rows_done"], job["progress"]) == (2000, 2000, 1.0)
    assert job["user"].startswith(getpass.getuser())
    table = command("jobs", "list").stdout
    assert re.search(r"id +status +exit +started +user +rows +progress +output", table), table
    assert "2,000 of 2,000" in table
    told = command("jobs", "status", job["id"])
    assert told.returncode == 0, told.stderr
    assert "SUCCEEDED, exit code 0" in told.stdout
    assert "2,000 of 2,000" in told.stdout
    logs = command("jobs", "logs", job["id"].rpartition("-")[0])  # without its number: the latest
    assert "100%" in logs.stdout

    known = command("jobs", "list", "--json").stdout + raw_jobs(there)
    require_no_canary(there.cluster.session, output_of(file), first.stdout + first.stderr + logs.stdout + known)


def test_a_job_is_submitted_from_python_and_found_again(
    job_file: JobFile, there: Any, as_the_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", there.environment["RAY_AUTH_TOKEN"])
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    job = runner.load_job(job_file(), "output.url=s3://lake/from-python")
    wanted = {"address": there.cluster.dashboard, "env": ["LAKE_ACCESS", "AWS_REGION=us-east-1"]}
    first = runner.submit(job, **wanted)
    assert first.state == "new"
    assert runner.attach(job).wait(timeout_s=100).rows_done == 2000
    assert runner.verify(job).holds
    assert runner.submit(job, **wanted) == runner.Submitted("finished", first.id)


def test_a_finished_output_is_overwritten_once_and_a_variable_means_the_same_on_the_cluster(
    command: Command, job_file: JobFile, tmp_path: Path, as_the_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONLY_HERE", "parquet")
    file = job_file()
    file.write_text(file.read_text().replace("*.parquet", "${which}.${env:ONLY_HERE}"))
    wanted = ("submit", "job.yaml", "--var", "which=numbers-*", "--follow", "--json")
    first = command(*wanted)
    assert first.returncode == 0, first.stdout + first.stderr
    plan_id = json.loads(first.stdout)["plan_id"]
    output = load_job(file.read_text(), str(file), vars={"which": "numbers-*"}).output
    assert (read_status(output).plan_id, read_status(output).epoch) == (plan_id, 1)
    assert read_status(output).variables == {"which": "numbers-*", "env:ONLY_HERE": "parquet"}

    along = ("--working-dir", ".", "--set", "workers.count=1")  # the driver reads the same file, and its variables
    again = command(*wanted, *along, "--overwrite", "--wait-for-driver", "1m")
    assert again.returncode == 0, again.stdout + again.stderr
    done = json.loads(again.stdout)
    assert (done["state"], done["plan_id"], done["id"][-2:]) == ("new", plan_id, "-2")
    assert read_status(output).epoch == 2, "it was computed again"
    assert "complete and proven, 2,000 rows in 4 parts" in again.stderr
    told = read_status(output).command
    assert told.startswith("runner submit job.yaml --var 'which=numbers-*'"), told
    assert "--overwrite" not in told
    assert json.loads(command(*wanted).stdout)["state"] == "finished"


def raw_jobs(there: Any) -> str:
    """All that Ray tells of its jobs, runtime environments included."""
    import urllib.request

    asked = urllib.request.Request(f"{there.cluster.dashboard}/api/jobs/")
    asked.add_header("Authorization", f"Bearer {there.environment['RAY_AUTH_TOKEN']}")
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return str(answer.read().decode())


def require_no_canary(session: Path, output: Output, said: str) -> None:
    from connectors.store.store import Store

    places = {"what the commands said": said.encode()}
    places |= {str(path): path.read_bytes() for path in session.rglob("*") if path.is_file() and not path.is_symlink()}
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            places[str(command)] = command.read_bytes()
        except OSError:
            continue  # it ended meanwhile
    store = Store(output.url, output.options)
    names, folders = list[str](), [""]
    while folders:
        folder = folders.pop()
        for name in store.names(folder):
            (folders if name.endswith("/") else names).append(f"{folder}/{name}".strip("/"))
    places |= {f"output {name}": store.read(name) or b"" for name in names}
    assert len(names) > 8
    assert len(places) > 50
    for name, canary in CANARIES.items():
        assert [place for place, content in places.items() if canary.encode() in content] == [], name


def test_of_two_submits_at_once_one_runs_and_a_stopped_one_is_continued(
    command: Command, job_file: JobFile, as_the_cluster: None, await_that: Callable[..., None]
) -> None:
    file = job_file("slow", rows=3000, limits={"shard_rows": 100, "batch_rows": 25})  # 60 shards
    output = output_of(file)
    both: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda: both.append(json.loads(command("submit", "job.yaml", "--json").stdout)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one["state"] for one in both) == ["new", "running"]
    (id,) = {one["id"] for one in both}
    assert id.endswith("-1")

    await_that(lambda: read_status(output).shards_done >= 2, "two shards are done")
    assert command("jobs", "status", id).returncode == 3
    assert "is being stopped" in command("jobs", "stop", id).stdout
    jobs = lambda: {one["id"]: one for one in json.loads(command("jobs", "list", "--json").stdout)}  # noqa: E731
    await_that(lambda: jobs()[id]["status"] == "STOPPED", "the job is stopped")
    stopped = read_status(output)
    assert (stopped.state, stopped.ended) == ("stopped", "interrupted")
    assert 2 <= stopped.shards_done < 60
    assert command("jobs", "status", id, "--json").returncode == 4

    done = command("submit", "job.yaml", "--follow", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"state": "resumed", "id": f"{id[:-1]}2"}.items() <= json.loads(done.stdout).items()
    assert "were done before" in done.stderr
    assert "complete and proven" in done.stderr
    assert read_status(output).epoch == 2


def test_a_local_model_and_our_own_code_travel_with_the_job(
    command: Command, job_file: JobFile, there: Any, tmp_path: Path, half_plus_two: Path, as_the_cluster: None
) -> None:
    shutil.copytree(half_plus_two, tmp_path / "models" / "half")
    job_file(model={"url": "models/half"})
    refused = command("submit", "job.yaml")
    assert refused.returncode == 2
    assert "'model.url' is 'models/half', which is a path of this machine" in refused.stderr
    shutil.rmtree(tmp_path / "in")
    (tmp_path / ".gitignore").write_text("*.pb\nin/\n")
    (tmp_path / ".env").write_text("for=nobody")
    send = ("submit", "job.yaml", "--working-dir", ".", "--wheel", "--set", "workers.count=1", "--follow")
    stays = command(*send)
    assert stays.returncode == 2, stays.stdout + stays.stderr
    assert (
        "model file 'models/half/fingerprint.pb' and 1 more would stay at home, by .gitignore line 1 ('*.pb')"
        in stays.stderr
    )
    done = command(*send, RAY_RUNTIME_ENV_IGNORE_GITIGNORE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^along: \d+ files, .* of '.*': models/ .*, job\.yaml \d+ B", done.stdout, re.MULTILINE)
    assert "warning: what goes along looks like secrets" in done.stderr
    assert "2,000 rows in 4 parts" in done.stdout
    assert any(there.cluster.session.glob("runtime_resources/py_modules_files/*/runner/cli/main.py"))
    assert not any(there.cluster.session.glob("runtime_resources/py_modules_files/*/tensorflow"))


def test_a_job_that_fails_tells_the_exit_code_of_its_driver(command: Command, job_file: JobFile) -> None:
    job_file()
    done = command("submit", "job.yaml", "--follow", "--env", "NOBODY_SET_THIS")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "environment variable 'NOBODY_SET_THIS' is not set" in done.stdout
    assert "ended (FAILED) before everything was written: nothing was written" in done.stderr


def test_without_the_token_nothing_is_sent(command: Command, tmp_path: Path) -> None:
    done = command("jobs", "list", token=False, HOME=str(tmp_path))
    assert done.returncode == 69
    assert "did not accept the token" in done.stderr
    assert "RAY_AUTH_TOKEN" in done.stderr
    wrong = command("jobs", "list", token=False, RAY_AUTH_TOKEN="guessed")
    assert wrong.returncode == 69
    (tmp_path / "token").write_text(CANARIES["TOKEN"])
    right = command("jobs", "list", token=False, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert right.returncode == 0, right.stderr
