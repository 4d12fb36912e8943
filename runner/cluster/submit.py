"""A Job as a Ray job: its name, what is sent, and what counts in the end.

Knows the jobs API of a cluster as a protocol only; `jobs_api.py` is the real one. The invariants: one name is given
once, so of two people who submit the same job at once one finds the other's; no secret is in what is sent; and the
end is read from the output, never from what Ray says about the job.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from connectors.output.status import Status, finished_epoch, read_status
from connectors.output.verification import verify
from connectors.secret import redact
from jobs.errors import CapacityError, InternalError, JobError, OutputError, RunnerError, one_of
from jobs.job import Job
from jobs.section.base import REFERENCE, names_secret
from jobs.section.canonical import digest
from jobs.section.model import Model
from jobs.section.output import Output
from jobs.words import counted

_RUN = "exec python -m runner run"  # `exec`: the signal of a stop goes to the driver itself
_STOP_S = 30  # how long a driver may take to stop its workers and to say so; Ray would kill it after 3 s
_POLL_S = 1.0
_LOOK_S = 15.0  # how often the output is looked at, whatever Ray says of the job
_SILENT_S = 120.0  # how long the cluster may not answer while a job is followed
_TRIES = 20  # of finding a free number; each lost one is a rival who began a job
_MOST_NAMED = 10
_ALIVE = frozenset({"PENDING", "RUNNING"})
_OUR_EXITS = frozenset({2, 65, 69, 70, 75, 130, 143})
_NAME = re.compile(r"(?P<base>runner-[0-9a-f]{8}-[0-9a-f]{8})-(?P<number>[1-9]\d*)")
_VARIABLE = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Submission:
    """A Ray job of ours. status: what Ray says; exit_code: of the driver, None while there is none."""

    id: str
    status: str
    exit_code: int | None = None
    message: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    started_s: float | None = None  # seconds since 1970
    ended_s: float | None = None

    @property
    def alive(self) -> bool:
        return self.status in _ALIVE

    @property
    def base(self) -> str:
        match = _NAME.fullmatch(self.id)
        return match["base"] if match else ""

    @property
    def number(self) -> int:
        match = _NAME.fullmatch(self.id)
        return int(match["number"]) if match else 0

    @property
    def output(self) -> Output:
        """Where it writes. raises: JobError where this is no job of ours."""
        if "runner.output" not in self.metadata:
            raise JobError(f"cannot find the output of job '{self.id}': 'runner submit' did not start it")
        return Output(url=self.metadata["runner.output"], options=json.loads(self.metadata["runner.options"]))

    @property
    def plan_id(self) -> str:
        return self.metadata.get("runner.plan", "")

    @property
    def user(self) -> str:
        """Who submitted it, 'ana@laptop'; "" where an older version did."""
        return self.metadata.get("runner.user", "")

    @property
    def complete(self) -> bool:
        """Whether its output is, and by a driver that came after what this job was to overwrite. raises: OutputError"""
        return finished_epoch(self.output, self.plan_id) > int(self.metadata.get("runner.after", "0"))


@dataclass(frozen=True, slots=True)
class Start:
    """How the driver begins, as the flags of `run` say it; none of it changes the rows that are written."""

    overwrite: bool = False
    takeover: bool = False
    wait_for_driver_s: float = 0.0

    @property
    def flags(self) -> list[str]:
        wait = ["--wait-for-driver", f"{self.wait_for_driver_s:.3f}s"] if self.wait_for_driver_s else []
        return [*["--overwrite"] * self.overwrite, *["--takeover"] * self.takeover, *wait]


@dataclass(frozen=True, slots=True)
class Request:
    """All that goes to the cluster. base: the name of the job without its number."""

    base: str
    entrypoint: str
    runtime_env: dict[str, Any]
    metadata: dict[str, str]
    output: Output
    start: Start = Start()


class JobsApi(Protocol):
    """The jobs of one cluster. Every call raises CapacityError where the cluster does not answer."""

    def submit(self, id: str, request: Request) -> bool:
        """False: there is one of this id already."""
        ...

    def find(self, id: str) -> Submission | None: ...

    def all(self) -> Sequence[Submission]:
        """Those that `runner submit` started, oldest first."""
        ...

    def logs(self, id: str) -> str: ...

    def stop(self, id: str) -> bool:
        """False: it did not run any more."""
        ...


@dataclass(frozen=True, slots=True)
class Submitted:
    """state: new: begun now; resumed: begun again after an end without success; running: it was begun before;
    finished: the output is complete, nothing was sent."""

    state: Literal["new", "resumed", "running", "finished"]
    id: str


def job_name(plan_id: str, output_url: str) -> str:
    """The name of a job without its number: the plan, as the output directory shows it, and where it is written."""
    return f"runner-{plan_id[:8]}-{digest([plan_id, output_url])[:8]}"


def request(
    job: Job,
    plan_id: str,
    output_url: str,
    file: str,
    working_dir: str,
    *,
    changes: Sequence[str] = (),
    variables: Sequence[str] = (),
    modules: Sequence[str] = (),
    command: str = "",
    start: Start = Start(),
) -> Request:
    """What to send for `job`, which `refuse_relative` let pass.

    file:      the job file, relative to `working_dir`, which becomes the driver's current directory.
    changes:   flags that make the job of that file, '--set' and '--var'.
    variables: 'NAME': must be set on the cluster, checked before work begins; 'NAME=VALUE': set there, no secret.
    modules:   wheels to bring along.
    command:   that submits this job again, for readers of the output; what continues it begins nothing anew.
    raises:    JobError for a secret given as a value.
    """
    needed, plain = _variables(variables)
    needed = sorted({*needed, *_references(job)})
    flags = [*start.flags, *(part for name in needed for part in ("--require-env", name))]
    own = {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S), "RUNNER_COMMAND": command, **_found(job)}
    runtime_env: dict[str, Any] = {"working_dir": working_dir, "env_vars": {**plain, **own}}
    if modules:
        runtime_env["py_modules"] = list(modules)
    return Request(
        base=job_name(plan_id, output_url),
        entrypoint=f"{_RUN} {shlex.join([file, *changes, '--address', 'auto', *flags])}",
        runtime_env=runtime_env,
        metadata={
            "runner.plan": plan_id,
            "runner.output": output_url,
            "runner.options": json.dumps(dict(job.output.options)),
            "runner.user": _user(),
        },
        output=job.output.model_copy(update={"url": output_url}),
        start=start,
    )


def submit(api: JobsApi, wanted: Request) -> Submitted:
    """Begin the job, unless it runs already or its output is complete; what it is to take over or overwrite counts as
    neither.

    raises: CapacityError where the cluster does not answer.
    """
    for _ in range(_TRIES):
        before = [one for one in api.all() if one.base == wanted.base]
        last = max(before, key=lambda one: one.number, default=None)
        if last is not None and last.alive and not wanted.start.takeover and not last.complete:  # Ray may be late
            return Submitted("running", last.id)
        finished = finished_epoch(wanted.output, wanted.metadata["runner.plan"])
        if finished and not wanted.start.overwrite and read_status(wanted.output).state == "finished":
            return Submitted("finished", last.id if last else "")
        id = f"{wanted.base}-{last.number + 1 if last else 1}"
        anew = finished and wanted.start.overwrite
        after = {"runner.after": str(finished)} if anew else {}
        if api.submit(id, replace(wanted, metadata=wanted.metadata | after)):
            return Submitted("resumed" if last and not anew else "new", id)
    raise InternalError(f"cannot name job '{wanted.base}': {_TRIES} others were begun and ended meanwhile; try again")


def follow(
    api: JobsApi,
    id: str,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Submission:
    """Hand the driver's log to `say` as it grows, until the job has ended or its output is complete.

    raises: CapacityError once the cluster did not answer for two minutes; the job itself may go on.
    """
    said, heard, looked = 0, clock(), clock()
    while True:
        try:
            submission = api.find(id)
            text = api.logs(id) if submission is not None else ""
            heard = clock()
        except CapacityError as error:
            if clock() - heard < _SILENT_S:
                sleep(_POLL_S)
                continue
            raise CapacityError(f"{error.message}; job '{id}' may go on: its output tells") from error
        if submission is None:
            raise JobError(f"cannot follow job '{id}': the cluster does not know it (any more)")
        if text[said:]:
            say(text[said:])
            said = len(text)
        if not submission.alive:
            return submission
        if clock() - looked >= _LOOK_S:
            looked = clock()
            if submission.complete:
                return submission
        sleep(_POLL_S)


def verdict(job: Submission) -> Status:
    """What came of an ended job: its output, which is complete and proven.

    raises: the error that says why it is not, with the exit code of the driver where that is one of ours.
    """
    status = read_status(job.output)
    if status.state in ("finished", "incomplete") and job.complete:
        proof = verify(job.output)
        if not proof.holds:
            problem = proof.problems[0]
            raise OutputError(
                f"job '{job.id}' finished, but its output does not hold: {problem.name}: {problem.story}; see"
                f" 'runner verify {redact(job.output.url)}'",
                exit_code=65,
            )
        return status
    code = job.exit_code if job.exit_code in _OUR_EXITS else RunnerError.exit_code
    done = (
        f"{status.rows_done:,} of {counted(status.rows, 'row is', 'rows are')} written"
        if status.plan_id
        else "nothing was written"
    )
    raise RunnerError(
        f"job '{job.id}' ended ({job.status}) before everything was written: {done}; submit it again to continue"
        f" (see 'runner jobs logs {job.id}')",
        exit_code=code,
    )


def named(api: JobsApi, name: str) -> Submission:
    """The job of this id; of this name without a number, the latest. raises: JobError with the choices."""
    known = api.all()
    for one in reversed(known):
        if name in (one.id, one.base):
            return one
    raise JobError(f"no job '{name}' on this cluster: it has {one_of([one.id for one in reversed(known)], name)}")


def refuse_relative(job: Job, along: Path | None = None) -> None:
    """The driver's current directory is a copy of the folder that goes along: the next submit may have another one.

    along:  that folder, in which the model and its op libraries may lie; None: none does.
    raises: JobError with all locations that mean something else on the cluster.
    """
    sent = list[tuple[str, str]]()
    for name, model in ({"model": job.model} if job.model else _named(job)).items():
        sent += [(f"{name}.url", model.url), *((f"{name}.op_libraries", library) for library in model.op_libraries)]
    data = [*((key, url) for key, url in _input(job)), ("output.url", job.output.url)]
    if job.input.only_rejects is not None:
        data.append(("input.only_rejects", job.input.only_rejects))
    wrong = [one for one in sent if _relative(one[1]) and not (along and _within(along, one[1]))]
    wrong += [one for one in data if _relative(one[1])]
    if not wrong:
        return
    named = [f"'{key}' is '{url}'" for key, url in wrong[:_MOST_NAMED]]
    named += [f"{len(wrong) - _MOST_NAMED:,} more"] if len(wrong) > _MOST_NAMED else []
    which = "which is a path" if len(wrong) == 1 else "which are paths"
    advice = ""
    if set(wrong) & set(sent):
        inside = f", from within '{along}'" if along else ": --working-dir with the folder that it is in"
        advice = f"; a model or an op library may go along{inside}"
    raise JobError(
        f"cannot submit the job: {' and '.join([', '.join(named[:-1]), named[-1]] if named[1:] else named)}, {which} of"
        f" this machine; expected a URL, or an absolute path that every node of the cluster has{advice}"
    )


def _named(job: Job) -> dict[str, Model]:
    return {f"models.{name}": model for name, model in job.called.items()}


def _input(job: Job) -> list[tuple[str, str]]:
    key = "input.delta" if job.input.delta else "input.iceberg" if job.input.iceberg else "input.url"
    return [(key, url) for url in job.input.places]


def _relative(url: str) -> bool:
    return "://" not in url and not url.startswith(("/", "~"))


def _within(folder: Path, name: str) -> bool:
    return Path(os.path.normpath(folder / name)).is_relative_to(folder)


def _user() -> str:
    name = host = ""
    with suppress(Exception):  # a container may know no name for its user: KeyError, OSError, ImportError
        name = getpass.getuser()
    with suppress(OSError):
        host = socket.gethostname()
    return redact("@".join(filter(None, [name, host])))


def _references(job: Job) -> Iterator[str]:
    """The environment variables that the job's options refer to."""
    models = (model.options for model in job.called.values())
    for options in (*models, job.input.options, job.output.options):
        texts = (value for value in options.values() if isinstance(value, str))
        yield from (text.removeprefix("env:") for text in texts if REFERENCE.match(text) and text.startswith("env:"))


def _found(job: Job) -> dict[str, str]:
    """What the driver takes for the environment and the day of this command.

    raises: JobError for what may be a secret.
    """
    for name, value in job.named.found.items():
        if names_secret(name) or redact(value) != value:
            raise JobError(
                f"cannot send the value of '${{{name}}}': it looks like a secret, and all who may look at the cluster's"
                " jobs would see it; an option takes the reference 'env:NAME', with NAME set on the nodes; what is no"
                " secret may be the value of a variable of another name"
            )
    found = dict(job.named.found)
    told = {name: redact(text) for name, text in job.named.told.items() if not names_secret(name)}
    return {"RUNNER_VARIABLES": json.dumps([found, told])} if found or told else {}


def _variables(given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    needed: list[str] = []
    plain: dict[str, str] = {}
    for flag in given:
        name, equals, value = flag.partition("=")
        if not _VARIABLE.fullmatch(name):
            raise JobError(f"cannot use '--env {name}': that is no name of a variable; expected NAME, or NAME=VALUE")
        if not equals:
            needed.append(name)
        elif names_secret(name) or redact(value) != value:
            raise JobError(
                f"cannot send the value of '{name}': it looks like a secret, and all who may look at the cluster's jobs"
                f" would see it; set the variable on the nodes (a Kubernetes secret, say), and write '--env {name}'"
            )
        else:
            plain[name] = value
    return needed, plain
