"""What `submit` sends is the job that was meant: variables and changes mean the same to the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import JobError
from jobs.load import job_text, load_job
from runner.cli.jobs import SubmitFlags, _folder, _start
from runner.cli.options import JobFlags

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
