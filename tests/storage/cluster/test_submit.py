"""Submitting with a puppet of a cluster: names, what is sent, and what counts in the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from three_shards import PLAN, finish_all, killed, opened

from jobs.errors import CapacityError, InternalError, JobError, OutputError, RunnerError
from jobs.job import Job, Named
from jobs.section.output import Output
from runner.cluster.submit import (
    Request,
    Start,
    Submission,
    follow,
    job_name,
    named,
    refuse_relative,
    request,
    submit,
    verdict,
)

RIVAL = {"runner.plan": PLAN.id}


class PuppetJobs:
    """A cluster that does what the test says. rivals: ids that somebody takes a moment before us."""

    def __init__(self, rivals: Sequence[str] = ()) -> None:
        self.jobs: dict[str, Submission] = {}
        self.sent: dict[str, Request] = {}
        self.log = ""
        self.silent = 0  # how often it does not answer
        self.rivals = list(rivals)

    def set(self, id: str, status: str, wanted: Request | None = None, exit_code: int | None = None) -> None:
        metadata = wanted.metadata if wanted else self.jobs[id].metadata
        self.jobs[id] = Submission(id, status, exit_code, metadata=metadata)

    def submit(self, id: str, request: Request) -> bool:
        if self.rivals and self.rivals[0] == id:
            self.set(self.rivals.pop(0), "RUNNING", request)
        if id in self.jobs:
            return False
        self.sent[id] = request
        self.set(id, "PENDING", request)
        return True

    def find(self, id: str) -> Submission | None:
        if self.silent:
            self.silent -= 1
            raise CapacityError("no cluster")
        return self.jobs.get(id)

    def all(self) -> Sequence[Submission]:
        return list(self.jobs.values())

    def logs(self, id: str) -> str:
        return self.log

    def stop(self, id: str) -> bool:
        return self.jobs[id].alive


def job_of(output: str, **sections: Any) -> Job:
    document = {"model": {"url": "/m"}, "input": {"url": "/in"}, "output": {"url": output}}
    return Job.model_validate(document | sections)


@pytest.fixture
def out(tmp_path: Path) -> Output:
    return Output(url=str(tmp_path / "out"))


@pytest.fixture
def wanted(out: Output) -> Request:
    return request(job_of(out.url), PLAN.id, out.url, "job.json", "/folder")


def test_the_name_comes_from_the_plan_and_the_output(wanted: Request, out: Output) -> None:
    assert wanted.base == job_name(PLAN.id, out.url)
    assert wanted.base.startswith(f"runner-{PLAN.id[:8]}-")
    assert wanted.base != job_name(PLAN.id, f"{out.url}2"), "the same plan elsewhere is another job"


def test_the_first_submit_begins_and_the_second_finds_it(wanted: Request) -> None:
    api = PuppetJobs()
    first = submit(api, wanted)
    assert (first.state, first.id) == ("new", f"{wanted.base}-1")
    assert (submit(api, wanted).state, submit(api, wanted).id) == ("running", first.id)
    assert list(api.sent) == [first.id]


@pytest.mark.parametrize("status", ["STOPPED", "FAILED", "SUCCEEDED"])
def test_a_job_that_ended_without_a_complete_output_is_begun_again_under_the_next_number(
    wanted: Request, status: str
) -> None:
    api = PuppetJobs()
    api.set(f"{wanted.base}-10", status, wanted)
    api.set(f"{wanted.base}-9", "FAILED", wanted)
    assert (submit(api, wanted).state, submit(api, wanted).id) == ("resumed", f"{wanted.base}-11")


def test_of_two_who_submit_at_once_one_finds_the_other(wanted: Request) -> None:
    api = PuppetJobs(rivals=[f"{wanted.base}-1"])
    done = submit(api, wanted)
    assert (done.state, done.id, api.sent) == ("running", f"{wanted.base}-1", {})


def test_a_complete_output_needs_no_job(wanted: Request, out: Output) -> None:
    finish_all(opened(out))
    api = PuppetJobs()
    assert submit(api, wanted).state == "finished"
    assert api.sent == {}


def test_a_job_that_ray_has_not_ended_yet_is_finished_once_its_output_is(wanted: Request, out: Output) -> None:
    api = PuppetJobs()
    first = submit(api, wanted)
    finish_all(opened(out))
    assert api.jobs[first.id].alive
    assert (submit(api, wanted).state, submit(api, wanted).id) == ("finished", first.id)


def test_numbers_that_are_always_taken_end_with_an_error(wanted: Request) -> None:
    class Full(PuppetJobs):
        def submit(self, id: str, request: Request) -> bool:
            self.set(id, "FAILED", request)
            return False

    with pytest.raises(InternalError, match="20 others"):
        submit(Full(), wanted)


def test_row_55_what_ray_says_of_a_job_does_not_count(wanted: Request, out: Output) -> None:
    finish_all(opened(out))
    lies = Submission("runner-1", "FAILED", 1, metadata=wanted.metadata)
    assert verdict(lies).state == "finished"


def test_row_55_a_job_that_ray_calls_a_success_is_none_without_a_success_mark(wanted: Request, out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    with pytest.raises(RunnerError, match=r"SUCCEEDED.*0 of 15 rows are written; submit it again") as caught:
        verdict(Submission("runner-1", "SUCCEEDED", 0, metadata=wanted.metadata))
    assert caught.value.facts["exit_code"] == 70


def test_a_finished_output_that_lost_a_part_does_not_hold(wanted: Request, out: Output) -> None:
    directory = opened(out)
    finish_all(directory)
    Path(out.url, directory.part_name(1)).unlink()
    with pytest.raises(OutputError, match="does not hold") as caught:
        verdict(Submission("runner-1", "SUCCEEDED", 0, metadata=wanted.metadata))
    assert caught.value.facts["exit_code"] == 65


@pytest.mark.parametrize(("code", "told"), [(65, 65), (75, 75), (1, 70), (None, 70), (-9, 70)])
def test_the_exit_code_of_the_driver_is_told_where_it_is_one_of_ours(
    wanted: Request, code: int | None, told: int
) -> None:
    with pytest.raises(RunnerError, match="nothing was written") as caught:
        verdict(Submission("runner-1", "FAILED", code, metadata=wanted.metadata))
    assert caught.value.facts["exit_code"] == told


def test_following_tells_each_line_once_and_outlasts_a_silent_head(wanted: Request) -> None:
    api, said, now = PuppetJobs(), list[str](), [0.0]
    id = submit(api, wanted).id

    def sleep(seconds: float) -> None:
        now[0] += seconds
        api.log = "one\n" if now[0] < 3 else "one\ntwo\n"
        api.silent = 1 if now[0] == 2 else 0
        if now[0] >= 5:
            api.set(id, "SUCCEEDED")

    assert follow(api, id, said.append, sleep, lambda: now[0]).status == "SUCCEEDED"
    assert said == ["one\n", "two\n"]


def test_following_a_head_that_is_gone_for_good_ends(wanted: Request) -> None:
    api, now = PuppetJobs(), [0.0]
    id = submit(api, wanted).id
    api.silent = 10**6

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(CapacityError, match=r"may go on: its output tells"):
        follow(api, id, lambda text: None, sleep, lambda: now[0])
    assert 100 < now[0] < 200


def test_following_ends_with_a_complete_output_whatever_ray_says(wanted: Request, out: Output) -> None:
    api, now = PuppetJobs(), [0.0]
    id = submit(api, wanted).id

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] == 20:
            finish_all(killed(directory))

    directory = opened(out)
    directory.claim(PLAN)
    assert follow(api, id, lambda text: None, sleep, lambda: now[0]).status == "PENDING"
    assert verdict(api.jobs[id]).state == "finished"


def test_a_job_is_named_by_its_id_or_by_its_name_without_the_number(wanted: Request) -> None:
    api = PuppetJobs()
    for number in (1, 2):
        api.set(f"{wanted.base}-{number}", "FAILED", wanted)
    assert named(api, wanted.base).id == f"{wanted.base}-2"
    assert named(api, f"{wanted.base}-1").id == f"{wanted.base}-1"
    with pytest.raises(JobError, match=f"no job 'x' on this cluster: it has '{wanted.base}-2'"):
        named(api, "x")


def test_what_is_sent_holds_references_and_no_secret(tmp_path: Path) -> None:
    secret = {"key": "env:MY_KEY", "secret": "env:MY_SECRET"}
    job = job_of("s3://out/x", input={"url": "s3://in/*.parquet", "options": secret})
    sent = request(
        job,
        PLAN.id,
        "s3://out/x",
        "job.yaml",
        "/w",
        changes=["--set", "workers.count=2", "--var", "dt=2026 11"],
        variables=["OTHER", "AWS_REGION=eu"],
    )
    assert sent.entrypoint == (
        "exec python -m runner run job.yaml --set workers.count=2 --var 'dt=2026 11' --address auto"
        " --require-env MY_KEY --require-env MY_SECRET --require-env OTHER"
    )
    assert sent.runtime_env["env_vars"]["AWS_REGION"] == "eu"
    assert json.loads(sent.metadata["runner.options"]) == {}


def test_the_driver_is_told_what_the_submitting_command_found_and_no_secret() -> None:
    named = Named({"dt": "29", "env:A": "a", "api_token": "hunter2"}, {"env:A": "a", "env:HOST": "h", "date:%d": "29"})
    sent = request(job_of("/out").naming(named), PLAN.id, "/out", "job.yaml", "/w").runtime_env["env_vars"]
    assert json.loads(sent["RUNNER_VARIABLES"]) == [
        {"env:A": "a", "env:HOST": "h", "date:%d": "29"},
        {"dt": "29", "env:A": "a"},
    ]
    assert "RUNNER_VARIABLES" not in request(job_of("/out"), PLAN.id, "/out", "job.yaml", "/w").runtime_env["env_vars"]
    for name, value in (("env:MY_TOKEN", "hunter2"), ("env:URL", "s3://me:hunter2@host")):
        with pytest.raises(JobError, match=f"cannot send the value of '\\${{{name}}}': it looks like") as caught:
            request(job_of("/out").naming(Named(found={name: value})), PLAN.id, "/out", "job.yaml", "/w")
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "story"),
    [
        ("MY_SECRET=x", "looks like a secret"),
        ("URL=s3://me:hunter2@host", "looks like a secret"),
        ("2x", "no name of a variable"),
    ],
)
def test_a_secret_is_not_sent_as_a_value(flag: str, story: str) -> None:
    with pytest.raises(JobError, match=story) as caught:
        request(job_of("/out"), PLAN.id, "/out", "job.yaml", "/w", variables=[flag])
    assert "hunter2" not in str(caught.value)


def test_all_locations_of_the_submitting_machine_are_refused_at_once() -> None:
    ops = {"url": "models/m", "op_libraries": ["ops.so", "/everywhere/ops.so"]}
    job = job_of("out", model=ops, input={"url": ["in/a", "s3://in/b"], "only_rejects": "before"})
    with pytest.raises(JobError) as refused:
        refuse_relative(job)
    assert refused.value.message == (
        "cannot submit the job: 'model.url' is 'models/m', 'model.op_libraries' is 'ops.so', 'input.url' is 'in/a',"
        " 'output.url' is 'out' and 'input.only_rejects' is 'before', which are paths of this machine; expected a URL,"
        " or an absolute path that every node of the cluster has; a model or an op library may go along: --working-dir"
        " with the folder that it is in"
    )


def test_a_model_may_lie_in_the_folder_that_goes_along_and_data_may_not(tmp_path: Path) -> None:
    refuse_relative(job_of("/out", model={"url": "models/m", "op_libraries": ["ops.so"]}), tmp_path)
    with pytest.raises(JobError) as refused:
        refuse_relative(job_of("out", model={"url": "../m", "op_libraries": ["ops.so"]}), tmp_path)
    assert refused.value.message.startswith(
        "cannot submit the job: 'model.url' is '../m' and 'output.url' is 'out', which are paths of this machine;"
    )
    assert refused.value.message.endswith(f"an op library may go along, from within '{tmp_path}'")


def test_no_more_than_ten_such_locations_are_named() -> None:
    with pytest.raises(JobError, match=r"'input.url' is 'f8', 'input.url' is 'f9' and 3 more, which are paths") as many:
        refuse_relative(job_of("out", input={"url": [f"f{number}" for number in range(12)]}))
    assert "may go along" not in many.value.message, "data never does"


def starting(out: Output, start: Start) -> Request:
    return request(job_of(out.url), PLAN.id, out.url, "job.json", "/folder", start=start)


def test_how_the_driver_begins_is_said_to_it_once(out: Output) -> None:
    anew = starting(out, Start(overwrite=True, wait_for_driver_s=360))
    assert anew.entrypoint.endswith("run job.json --address auto --overwrite --wait-for-driver 360.000s")
    assert starting(out, Start(takeover=True)).entrypoint.endswith("--address auto --takeover")
    assert starting(out, Start()).entrypoint.endswith("run job.json --address auto")


def test_what_is_to_be_overwritten_is_no_end_of_the_job_that_overwrites_it(out: Output) -> None:
    directory = opened(out)
    finish_all(directory)
    killed(directory)
    api, anew = PuppetJobs(), starting(out, Start(overwrite=True))
    done = submit(api, anew)
    assert (done.state, done.id) == ("new", f"{anew.base}-1")
    assert not api.jobs[done.id].complete
    api.set(done.id, "FAILED")
    with pytest.raises(RunnerError, match="ended \\(FAILED\\) before everything was written"):
        verdict(api.jobs[done.id])
    again = opened(out)
    claim = again.claim(PLAN, overwrite=True)
    assert submit(api, starting(out, Start())).state == "resumed", "and the next one does not begin anew"
    assert not api.sent[f"{anew.base}-2"].start.overwrite
    again.end(claim.epoch, "failed")
    finish_all(opened(out))
    assert api.jobs[done.id].complete
    assert verdict(api.jobs[done.id]).state == "finished"


def test_a_job_that_runs_is_found_unless_it_is_taken_over(out: Output) -> None:
    api = PuppetJobs()
    first = submit(api, starting(out, Start()))
    assert submit(api, starting(out, Start(overwrite=True))).id == first.id
    over = submit(api, starting(out, Start(takeover=True)))
    assert (over.state, over.id[-2:]) == ("resumed", "-2")


def test_the_output_of_another_plan_is_no_end_of_a_job(out: Output) -> None:
    finish_all(opened(out))
    api, other = PuppetJobs(), request(job_of(out.url), "f" * 32, out.url, "job.json", "/folder")
    assert submit(api, other).state == "new", "the driver says why it refuses"
    api.set(f"{other.base}-1", "FAILED", exit_code=2)
    with pytest.raises(RunnerError) as refused:
        verdict(api.jobs[f"{other.base}-1"])
    assert refused.value.facts["exit_code"] == 2


def test_who_submitted_is_told(wanted: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ana")
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    sent = request(job_of("/out"), PLAN.id, "/out", "job.json", "/folder")
    assert Submission("runner-1", "RUNNING", metadata=sent.metadata).user == "ana@laptop"
    assert Submission("runner-1", "RUNNING", metadata=RIVAL).user == "", "an older version did"
