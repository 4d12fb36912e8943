"""What `submit` sends is the job that was meant: variables and changes mean the same to the driver."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.errors import JobError
from jobs.load import job_text, load_job
from runner.cli.jobs import SubmitFlags, _folder, _start
from runner.cli.options import JobFlags
from runner.cluster.submit import request

JOB = """
vars: {dt: "2026-11-01"}
model: {url: model}
input: {url: "s3://in/dt=${dt}/*.parquet"}
columns: {inputs: {x: {column: "$${x}"}}}
output: {url: "s3://out/${dt}"}
"""
FLAGS = {"var": ["dt=2026-11-05 b"], "set_": ["workers.count=2", "limits.shard_rows=7"]}


def test_the_driver_reads_the_job_that_was_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, private = tmp_path / "home", tmp_path / "private"
    (home / "jobs").mkdir(parents=True)
    private.mkdir()
    file = home / "jobs" / "job.yaml"
    file.write_text(JOB)
    meant = load_job(JOB, "job.yaml", FLAGS["set_"], vars={"dt": "2026-11-05 b"})
    assert meant.output.url == "s3://out/2026-11-05 b"
    for how in (SubmitFlags(working_dir=home, **FLAGS), SubmitFlags(**FLAGS)):
        if how.working_dir is None:
            file.write_text(JOB.replace("{url: model}", "{url: /model}"))
        wanted, name, folder, flags = _folder(file, how, private)
        monkeypatch.chdir(folder)
        given = {flag: flags[at + 1] for at, flag in enumerate(flags) if flag == "--var"}
        changes = [flags[at + 1] for at, flag in enumerate(flags) if flag == "--set"]
        read = JobFlags(Path(name), set_=changes, var=list(given.values())).read()
        assert read.model_copy(update={"model": wanted.model}) == wanted
        assert wanted.model_copy(update={"model": meant.model}) == meant
        assert (flags == []) == (how.working_dir is None), "a job file that is sent alone is whole"


@pytest.mark.parametrize("home", [True, False])
def test_the_driver_has_the_day_and_the_environment_of_the_command_that_submitted(
    home: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        'vars: {dt: "${date-1d:%Y-%m-%d}"}\nmodel: /m\noutput: "/out/${dt}"\n'
        'input: {url: "/in/${dt}/${env:SIDE}", options: {endpoint_url: "http://${env:STORE}"}}\n'
    )
    (tmp_path / "private").mkdir()
    file = tmp_path / "job.yaml"
    file.write_text(text)
    monkeypatch.setenv("SIDE", "left")
    monkeypatch.setenv("STORE", "near")
    how = SubmitFlags(working_dir=tmp_path if home else None)
    wanted, name, folder, flags = _folder(file, how, tmp_path / "private")
    asked = request(wanted, "f" * 32, "/out", name, folder, changes=flags)

    monkeypatch.chdir(folder)  # another machine, on another day
    monkeypatch.setenv("SIDE", "right")
    monkeypatch.delenv("STORE")
    monkeypatch.setattr("jobs.document.origin.datetime", Later)
    monkeypatch.setenv("RUNNER_VARIABLES", asked.runtime_env["env_vars"]["RUNNER_VARIABLES"])
    read = JobFlags(Path(name)).read()
    assert read == wanted
    assert dict(read.variables) == dict(wanted.variables)
    assert list(read.variables) == ["dt", "env:SIDE", "date-1d:%Y-%m-%d"]
    monkeypatch.setenv("RUNNER_VARIABLES", "[1")
    monkeypatch.setenv("STORE", "far")
    again = JobFlags(file).read()
    assert (again.input.url[0][-6:], again.input.options) == ("/right", {"endpoint_url": "http://far"})
    assert again.output.url == "/out/2100-01-01"


class Later(datetime):
    @classmethod
    def now(cls, tz: object = None) -> Later:
        return cls(2100, 1, 2, tzinfo=UTC)


def test_a_job_file_that_is_written_reads_back_whatever_its_texts_hold() -> None:
    job = load_job(JOB, "job.yaml").with_({"output.url": "s3://out/${a}$${b}$$${"})
    assert load_job(job_text(job), "job.json") == job


@pytest.mark.parametrize("var", ["password=x", "at=s3://me:hunter2@bucket"])
def test_a_variable_that_looks_like_a_secret_is_not_sent(var: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("model: {url: /m}\ninput: {url: /i}\noutput: {url: /o}\n")
    with pytest.raises(JobError, match=f"cannot send the value of variable '{var.partition('=')[0]}'") as refused:
        _folder(file, SubmitFlags(var=[var]), tmp_path)
    assert "hunter2" not in refused.value.message


def test_how_the_driver_begins_is_checked_where_it_is_typed() -> None:
    start = _start(SubmitFlags(overwrite=True, wait_for_driver="6m"))
    assert start.flags == ["--overwrite", "--wait-for-driver", "360.000s"]
    with pytest.raises(JobError, match="cannot both wait for another driver and take over"):
        _start(SubmitFlags(takeover=True, wait_for_driver="6m"))
