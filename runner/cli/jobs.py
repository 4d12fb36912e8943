"""`runner submit` and `runner jobs ...`: the same job on a cluster that others keep running."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from jobs.document.variables import variables_of
from jobs.errors import JobError
from jobs.job import Job
from jobs.load import job_text, load_job
from jobs.section.base import names_secret
from jobs.section.model import Model
from jobs.words import counted
from runner import __version__, read_text
from runner.cli.about import alone
from runner.cli.cache import cache_settings
from runner.cli.command import pinned, typed
from runner.cli.options import (
    AsJson,
    Limit,
    Overwrite,
    Sample,
    Set,
    Takeover,
    Var,
    WaitForDriver,
    Where,
    flattened,
    seconds_of,
    some_rows,
)
from runner.cli.terminal import answering, console, print_json, say, unread
from runner.report.console import printable

if TYPE_CHECKING:
    from connectors.output.status import Status
    from runner.cluster.jobs_api import RayJobs
    from runner.cluster.submit import Start, Submission
    from runner.cluster.working_dir import Package
    from runner.preflight.model.member import Member

Address = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        metavar="http://HOST:8265",
        help="Ray's dashboard. A token is taken from RAY_AUTH_TOKEN, or the file RAY_AUTH_TOKEN_PATH.",
    ),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `runner submit` named it; without the number: the latest.")]

app = typer.Typer(
    help="What was submitted to a cluster: list, status, logs, stop.",
    invoke_without_command=True,
    callback=answering(alone),
)


@dataclass(frozen=True)
class SubmitFlags:
    """What is changed, what goes along, and what is done beside."""

    set_: Set = None
    var: Var = None
    where: Where = None
    limit: Limit = None
    sample: Sample = None
    overwrite: Overwrite = False
    takeover: Takeover = False
    wait_for_driver: WaitForDriver = None
    follow: Annotated[bool, typer.Option("--follow", help="Show the driver's log, and wait for the end.")] = False
    working_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Send this folder along (a local model, say), but for what .gitignore and .rayignore name; the job"
            " file must be in it.",
        ),
    ] = None
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="NAME", help="Must be set on the cluster's nodes; NAME=VALUE sets it, for no secret."
        ),
    ] = None
    wheel: Annotated[
        bool, typer.Option("--wheel", help="Bring this runner's own code along; its dependencies must be there.")
    ] = False
    allow_open_cluster: Annotated[
        bool, typer.Option("--allow-open-cluster", help="Although all that reach the cluster can run code there.")
    ] = False


@flattened
def submit(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job file.")],
    address: Address,
    how: SubmitFlags,
    as_json: AsJson = False,
) -> None:
    """Run the job on a cluster, its driver too; the job that is there already is found, not begun twice."""
    from connectors.secret import redact
    from connectors.store.store import Store
    from runner.cluster import submit as jobs_of
    from runner.cluster.wheel import build_wheel
    from runner.preflight.preflight import preflight

    start = _start(how)
    with tempfile.TemporaryDirectory(prefix="runner-submit-") as private:
        wanted, file, folder, changes = _folder(job, how, Path(private))
        ready = preflight(wanted, cache_settings())
        plan = ready.plan
        along = None if how.working_dir is None else _along(Path(folder), file, wanted, ready.members)
        request = jobs_of.request(
            wanted,
            plan.id,
            Store(wanted.output.url, wanted.output.options).url,
            file,
            folder,
            changes=changes,
            variables=how.env or [],
            command=redact(" ".join([typed(), shlex.join(pinned(wanted.named.dated))]).rstrip()),
            modules=[str(build_wheel(Path(private), __version__))] if how.wheel else [],
            start=start,
        )
        api = _cluster(address, allow_open=how.allow_open_cluster)
        done = jobs_of.submit(api, request)
    facts = dataclasses.asdict(done) | {
        "output": request.output.url,
        "plan_id": plan.id,
        "rows": plan.rows,
        "shards": len(plan.shards),
    }
    if along is not None:
        facts["working_dir"] = {"files": len(along.files), "bytes": along.bytes, "stays": list(along.stays)}
    if as_json:
        print_json(facts)
    else:
        for line in _story(done.state, done.id, facts, address, how.overwrite):
            console().print(line, highlight=False, soft_wrap=True, markup=False)
        if along is not None and done.state in ("new", "resumed"):
            console().print(_told(along), highlight=False, soft_wrap=True, markup=False)
    if how.follow and done.state != "finished":
        _follow(api, done.id, _write_aside if as_json else _write)  # read or not: its exit code is the job's


@app.command("list")
@answering
def list_(address: Address, as_json: AsJson = False) -> None:
    """The jobs that `runner submit` began on this cluster, the latest last."""
    from runner.cluster.progress import MOST_OUTPUTS, PATIENCE_S, progress_of

    submissions = _cluster(address).all()
    progress = progress_of(submissions)
    listed = [_facts(one) | _progress(progress.get(one.id)) for one in submissions]
    if as_json:
        print_json(listed)
        return
    if not submissions:
        console().print("no job was submitted to this cluster")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        side: Any = "right" if name in ("rows", "progress") else "left"
        table.add_column(name.replace("_code", ""), justify=side, overflow="fold", no_wrap=name == "id")
    for facts in listed:
        table.add_row(*(Text(_cell(name, facts)) for name in _COLUMNS))
    console().print(table)
    if len(progress) < len(submissions):
        story = (
            f"rows and progress are of the latest {MOST_OUTPUTS} outputs, as far as they can be read from here within"
            f" {PATIENCE_S:.0f} s and hold that job's plan; any other: runner jobs status ID"
        )
        console().print(story, highlight=False, soft_wrap=True, markup=False)


@app.command()
@answering
def status(id: Id, address: Address, as_json: AsJson = False) -> None:
    """What Ray says of a job, and how far its output is: the output is what counts.

    Exit code: 0 finished, 3 it runs or will, 4 it has ended before.
    """
    from connectors.output.status import read_status
    from runner.cli.view.output import EXIT_CODES, render_status
    from runner.cluster import submit as jobs_of

    submission = jobs_of.named(_cluster(address), id)
    written = read_status(submission.output)
    if as_json:
        print_json(_facts(submission) | {"written": written.document()})
    else:
        ended = f", exit code {submission.exit_code}" if submission.exit_code is not None else ""
        console().print(f"{submission.id}: {submission.status}{ended}", highlight=False)
        console().print(render_status(written))
    finished = written.state == "finished" and submission.complete  # not by what this job is to overwrite
    seen = "running" if submission.alive and not finished else written.state
    if seen == "absent" or (seen == "finished" and not finished):
        seen = "stopped"
    raise typer.Exit(EXIT_CODES[seen])


@app.command()
@answering
def logs(
    id: Id, address: Address, follow: Annotated[bool, typer.Option("--follow", help="Until the job has ended.")] = False
) -> None:
    """What the driver printed."""
    from runner.cluster import submit as jobs_of

    api = _cluster(address)
    submission = jobs_of.named(api, id)
    if follow:
        _follow(api, submission.id, _write_while_read)
    else:
        _write(api.logs(submission.id))


@app.command()
def stop(id: Id, address: Address) -> None:
    """Stop a job; what is finished stays, and the next submit continues."""
    from runner.cluster import submit as jobs_of

    api = _cluster(address)
    submission = jobs_of.named(api, id)
    stopped = api.stop(submission.id)
    said = "is being stopped; submit it again to continue" if stopped else f"had ended already ({submission.status})"
    console().print(f"{submission.id} {said}", highlight=False)


_MOST_NAMED = 5
_COLUMNS = ("id", "status", "exit_code", "started", "user", "rows", "progress", "output")


def _progress(status: Status | None) -> dict[str, object]:
    """What the output tells; None where it does not."""
    if status is None:
        return dict.fromkeys(("rows", "rows_done", "progress"))
    return {"rows": status.rows, "rows_done": status.rows_seen, "progress": round(status.share, 4)}


def _cell(name: str, facts: dict[str, Any]) -> str:
    value = facts[name]
    if value is None:
        return ""
    if name == "rows":
        return f"{facts['rows_done']:,} of {value:,}"
    return f"{math.floor(value * 100)}%" if name == "progress" else str(value)  # 100% is said of what is whole


def _cluster(address: str, *, allow_open: bool = True) -> RayJobs:
    from runner.cluster.jobs_api import RayJobs

    return RayJobs(address, allow_open=allow_open)


def _follow(api: RayJobs, id: str, write: Callable[[str], None]) -> None:
    from runner.cluster import submit as jobs_of

    try:
        submission = jobs_of.follow(api, id, write)
    except BaseException as error:
        if isinstance(error, Exception):
            raise
        # Ctrl-C, a signal
        print(f"job '{id}' goes on; 'runner jobs stop {id}' ends it", file=sys.stderr)  # noqa: T201
        raise
    written = jobs_of.verdict(submission)
    write(
        f"{submission.id}: complete and proven, {counted(written.rows, 'row')} in {counted(written.shards, 'part')}\n"
    )


def _start(how: SubmitFlags) -> Start:
    """How the driver begins. raises: JobError for flags that no run takes."""
    from runner.cluster.submit import Start
    from runner.driver.launch import RunOptions

    seconds = seconds_of("--wait-for-driver", how.wait_for_driver) if how.wait_for_driver else 0.0
    checked = RunOptions(overwrite=how.overwrite, takeover=how.takeover, wait_for_driver_s=seconds)
    return Start(checked.overwrite, checked.takeover, checked.wait_for_driver_s)


def _folder(file: Path, how: SubmitFlags, private: Path) -> tuple[Job, str, str, list[str]]:
    """The job, its file as the driver will name it, the folder to send, and the flags that make the job of that file.

    private: an empty folder, for a job that needs no other: its file is whole, with each variable filled in.
    """
    from runner.cluster.submit import refuse_relative

    overrides, variables = how.set_ or [], _variables(how)
    part = some_rows(how.where, how.limit, how.sample)
    wanted = load_job(read_text(file), str(file), [*overrides, part], vars=variables)
    if how.working_dir is None:
        refuse_relative(wanted)
        folder = private / "job"
        folder.mkdir()
        (folder / "job.json").write_text(job_text(wanted), encoding="utf-8")
        return wanted, "job.json", str(folder), []
    home = how.working_dir.resolve()
    if not file.resolve().is_relative_to(home):
        raise JobError(f"cannot send '{how.working_dir}' along: job file '{file}' is not in it; put it there")
    refuse_relative(wanted, home)

    def here(name: str) -> str:
        return name if "://" in name or name.startswith(("/", "~")) else os.path.normpath(home / name)

    def found_here(model: Model) -> dict[str, Any]:
        return {"url": here(model.url), "op_libraries": tuple(map(here, model.op_libraries))}

    flags = [part for change in overrides for part in ("--set", change)]
    flags += [part for name, value in variables.items() for part in ("--var", f"{name}={value}")]
    rows = {"--where": how.where, "--limit": how.limit, "--sample": how.sample}
    flags += [part for flag, value in rows.items() if value is not None for part in (flag, value)]
    wanted = wanted.of_models(found_here)
    return wanted, file.resolve().relative_to(home).as_posix(), str(home), flags


def _variables(how: SubmitFlags) -> dict[str, str]:
    """Variable -> value. raises: JobError for one that looks like a secret: what is sent is there for many to read."""
    from connectors.secret import redact

    variables = variables_of(how.var or [])
    for name, value in variables.items():
        if names_secret(name) or redact(value) != value:
            raise JobError(
                f"cannot send the value of variable '{name}': it looks like a secret, and all who may look at the"
                " cluster's jobs would see it; write 'env:NAME' in the job, and set NAME on the nodes"
            )
    return variables


def _along(folder: Path, file: str, job: Job, members: Iterable[Member]) -> Package | None:
    """What of `folder` goes along, proven to be enough for the job. raises: JobError where it is not, or too much."""
    from runner.cluster.working_dir import packed

    package = packed(folder)
    if package is None:
        say(
            f"cannot tell what of '{folder}' goes along: this Ray packs it in a way that is not known here; .gitignore"
            " and .rayignore keep at home what they name",
            "warning: ",
        )
        return None
    package.require("job file", [file])
    for model in (member.model for member in members):
        if Path(model.path).is_relative_to(folder):
            at = Path(model.path).relative_to(folder)
            package.require("model file", [(at / name).as_posix() for name in model.files])
    named = [library for model in job.called.values() for library in model.op_libraries]
    libraries = [Path(name) for name in named if Path(name).is_relative_to(folder)]
    package.require("op library", [path.relative_to(folder).as_posix() for path in libraries])
    package.bound()
    if package.secrets:
        say(
            f"what goes along looks like secrets, for all to read who can reach the cluster: {_few(package.secrets)};"
            " a line in .rayignore keeps a file at home",
            "warning: ",
        )
    return package


def _told(package: Package) -> str:
    """`along: 9 files, 3.4 MiB of '/data/job': model/ 3.3 MiB, job.yaml 310 B; stays: .git, venv`"""
    from runner.report.text import byte_count

    entries = _few([f"{name} {byte_count(size)}" for name, size in package.entries])
    stays = f"; stays: {_few(package.stays)}" if package.stays else ""
    size = byte_count(package.bytes)
    return f"along: {counted(len(package.files), 'file')}, {size} of '{package.folder}': {entries}{stays}"


def _few(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _story(state: str, id: str, facts: dict[str, object], address: str, overwrite: bool) -> list[str]:
    where = f"{facts['rows']:,} rows in {facts['shards']:,} shards to {facts['output']}"
    if state == "finished":
        return [f"already done: {where}"]
    anew = ", which overwrites what is there" if overwrite else ""
    continues = "what --overwrite began, or begins it" if overwrite else "what was written"
    stories = {
        "new": f"submitted as {id}{anew}: {where}",
        "resumed": f"submitted again as {id}, which continues {continues}: {where}",
        "running": f"runs already as {id}: {where}",
    }
    return [
        stories[state],
        f"look: runner jobs logs {id} --follow --address {address}",
        f"or:   runner status {facts['output']}",
    ]


def _facts(submission: Submission) -> dict[str, object]:
    def moment(seconds: float | None) -> str | None:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

    return {
        "id": submission.id,
        "status": submission.status,
        "exit_code": submission.exit_code,
        "started": moment(submission.started_s),
        "ended": moment(submission.ended_s),
        "user": submission.user,
        "output": submission.metadata.get("runner.output", ""),
        "plan_id": submission.metadata.get("runner.plan", ""),
    }


def _write(text: str) -> None:
    sys.stdout.write(printable(text, lines=True))
    sys.stdout.flush()


def _write_aside(text: str) -> None:
    """Where standard output is for JSON alone."""
    sys.stderr.write(printable(text, lines=True))
    sys.stderr.flush()


def _write_while_read(text: str) -> None:
    from runner.cli.view.follow import UNREAD

    _write(text)
    if unread():
        raise typer.Exit(UNREAD)
