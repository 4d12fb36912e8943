"""`runner submit` and `runner jobs ...`: the same job on a cluster that others keep running."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from jobs.errors import JobError
from jobs.job import Job, canonical
from jobs.load import job_document, load_job
from jobs.words import counted
from runner import __version__, read_text
from runner.cli.about import alone
from runner.cli.cache import cache_settings
from runner.cli.command import typed
from runner.cli.options import AsJson, Set, flattened
from runner.cli.terminal import answering, console, print_json, say, unread
from runner.report.console import printable

if TYPE_CHECKING:
    from runner.cluster.jobs_api import RayJobs
    from runner.cluster.submit import Submission
    from runner.cluster.working_dir import Package

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

    with tempfile.TemporaryDirectory(prefix="runner-submit-") as private:
        wanted, file, folder, overrides = _folder(job, how.set_ or [], how.working_dir, Path(private))
        ready = preflight(wanted, cache_settings())
        plan = ready.plan
        along = (
            None if how.working_dir is None else _along(Path(folder), file, Path(ready.model.path), ready.model.files)
        )
        request = jobs_of.request(
            wanted,
            plan.id,
            Store(wanted.output.url, wanted.output.options).url,
            file,
            folder,
            overrides=overrides,
            variables=how.env or [],
            command=redact(typed()),
            modules=[str(build_wheel(Path(private), __version__))] if how.wheel else [],
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
        for line in _story(done.state, done.id, facts, address):
            console().print(line, highlight=False, soft_wrap=True, markup=False)
        if along is not None and done.state in ("new", "resumed"):
            console().print(_told(along), highlight=False, soft_wrap=True, markup=False)
    if how.follow and done.state != "finished":
        _follow(api, done.id, _write_aside if as_json else _write)  # read or not: its exit code is the job's


@app.command("list")
@answering
def list_(address: Address, as_json: AsJson = False) -> None:
    """The jobs that `runner submit` began on this cluster, the latest last."""
    submissions = _cluster(address).all()
    if as_json:
        print_json([_facts(one) for one in submissions])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "status", "exit", "started", "output"):
        table.add_column(name)
    for one in submissions:
        facts = _facts(one)
        table.add_row(*(Text(str(facts[name] if facts[name] is not None else "")) for name in _COLUMNS))
    console().print(table if submissions else "no job was submitted to this cluster")


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
    seen = "running" if submission.alive and written.state != "finished" else written.state
    raise typer.Exit(EXIT_CODES["stopped" if seen == "absent" else seen])


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
_COLUMNS = ("id", "status", "exit_code", "started", "output")


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


def _folder(
    file: Path, overrides: list[str], working_dir: Path | None, private: Path
) -> tuple[Job, str, str, list[str]]:
    """The job, its file as the driver will name it, the folder to send, and the overrides that are not in that file.

    private: an empty folder, for a job that needs no other.
    """
    if working_dir is not None:
        home = working_dir.resolve()
        if not file.resolve().is_relative_to(home):
            raise JobError(f"cannot send '{working_dir}' along: job file '{file}' is not in it; put it there")
        wanted = load_job(read_text(file), str(file), overrides)
        if "://" not in wanted.model.url and not wanted.model.url.startswith(("/", "~")):
            url = os.path.normpath(home / wanted.model.url)
            if not Path(url).is_relative_to(home):
                raise JobError(
                    f"cannot send '{working_dir}' along: model '{wanted.model.url}' is not in it; put it there"
                )
            wanted = wanted.model_copy(update={"model": wanted.model.model_copy(update={"url": url})})
        return wanted, file.resolve().relative_to(home).as_posix(), str(home), overrides
    wanted = load_job(read_text(file), str(file), overrides)
    if "://" not in wanted.model.url and not wanted.model.url.startswith(("/", "~")):
        raise JobError(
            f"cannot submit the job: 'model.url' is '{wanted.model.url}', which is a folder of this machine; expected a"
            " URL, an absolute path that every node has, or --working-dir with the folder that it is in"
        )
    folder = private / "job"
    folder.mkdir()
    (folder / "job.json").write_text(canonical(job_document(wanted)), encoding="utf-8")
    return wanted, "job.json", str(folder), []


def _along(folder: Path, file: str, model: Path, model_files: Iterable[str]) -> Package | None:
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
    if model.is_relative_to(folder):
        at = model.relative_to(folder)
        package.require("model file", [(at / name).as_posix() for name in model_files])
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


def _story(state: str, id: str, facts: dict[str, object], address: str) -> list[str]:
    where = f"{facts['rows']:,} rows in {facts['shards']:,} shards to {facts['output']}"
    if state == "finished":
        return [f"already done: {where}"]
    stories = {
        "new": f"submitted as {id}: {where}",
        "resumed": f"submitted again as {id}, which continues what was written: {where}",
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
