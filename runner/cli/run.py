"""The commands that take a job and work here: `plan` and `run`.

Owns how flags become a job and its RunOptions; refuses to know how a run goes on. The invariant: both commands read the
same flags as the same job.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.errors import JobError, one_of
from jobs.job import Job
from runner.cli.cache import cache_settings
from runner.cli.command import to_continue
from runner.cli.options import AsJson, JobFlags, Overwrite, Takeover, WaitForDriver, flattened, seconds_of
from runner.cli.terminal import console, event_log, print_json, printer, say

if TYPE_CHECKING:
    from runner.driver.launch import RunOptions
    from runner.driver.result import Result


@dataclass(frozen=True)
class RunFlags:
    """How a job is run, and how that is shown."""

    in_process: Annotated[bool, typer.Option("--in-process", help="Work in this process, without Ray.")] = False
    address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster, HOST:6379; `local`: a Ray for this run.")
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False
    overwrite: Overwrite = False
    takeover: Takeover = False
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Read every part, and compute again what is missing or damaged, also after all was done."
        ),
    ] = False
    wait_for_driver: WaitForDriver = None
    log_format: Annotated[
        str,
        typer.Option("--log-format", metavar="text|json", help="json: a line of JSON per event, on standard error."),
    ] = "text"
    metrics_file: Annotated[
        str | None,
        typer.Option("--metrics-file", metavar="FILE", help="Keep a Prometheus text file up to date, without Ray too."),
    ] = None
    require_env: Annotated[
        list[str] | None, typer.Option("--require-env", metavar="NAME", help="Refuse to begin where it is not set.")
    ] = None
    only_rejects: Annotated[
        str | None,
        typer.Option("--only-rejects", metavar="OUTPUT", help="Of the input, only the rows that OUTPUT rejected."),
    ] = None


@flattened
def plan(flags: JobFlags, how: RunFlags, as_json: AsJson = False) -> None:
    """Bind and shard, and say what `run` would do and meet in the output. Starts nothing, writes nothing.

    Takes the flags of `run`. Where the output would refuse it, the exit code is that of `run`.
    """
    from connectors.output.outlook import Terms
    from runner.cli.view.plan import plan_document, render_plan
    from runner.preflight.outlook import foreseen
    from runner.preflight.preflight import preflight

    job = _wanted(flags, how)
    options = _options(job, how)
    terms = Terms(options.overwrite, options.takeover, options.repair)
    ready = foreseen(preflight(job, options.cache, overwrite=options.overwrite), terms, in_process=options.in_process)
    if as_json:
        print_json(plan_document(ready))
    else:
        console().print(render_plan(ready))
    if ready.outlook is not None and ready.outlook.error is not None:
        raise typer.Exit(ready.outlook.error.ends_with)


def _wanted(flags: JobFlags, how: RunFlags) -> Job:
    """The job that is to be run so. raises: JobError for flags that no run takes."""
    if how.log_format not in ("text", "json"):
        raise JobError(f"cannot log in the format '{how.log_format}': choose 'text' or 'json'")
    if missing := [name for name in how.require_env or [] if name not in os.environ]:
        raise JobError(f"cannot begin: environment variable {one_of(missing)} is not set on this machine")
    only = {} if how.only_rejects is None else {"input.only_rejects": how.only_rejects}
    return flags.read(only)


def _options(job: Job, how: RunFlags) -> RunOptions:
    from runner.driver.launch import RunOptions

    return RunOptions(
        in_process=how.in_process,
        address=how.address,
        overwrite=how.overwrite,
        takeover=how.takeover,
        repair=how.repair,
        wait_for_driver_s=seconds_of("--wait-for-driver", how.wait_for_driver) if how.wait_for_driver else 0.0,
        cache=cache_settings(),
        metrics_file=how.metrics_file,
        command=to_continue(JobFlags, RunFlags, dated=job.named.dated),
    )


@flattened
def run(flags: JobFlags, how: RunFlags, as_json: AsJson = False) -> None:
    """Run the job, or continue it where it stopped."""
    from runner.driver.launch import launch
    from runner.engine.quiet import NativeNotes
    from runner.report.display import NoDisplay, display_for
    from runner.report.text import wrapped

    job = _wanted(flags, how)
    options = _options(job, how)
    log, warn = event_log(), partial(say, prefix="warning: ")
    NativeNotes.as_event = log is not None
    # A descriptor of its own: loading a model in this process redirects the shared one for a moment.
    with printer(os.dup(2), sys.stderr.encoding, owned=True) as terminal:
        display = NoDisplay if how.quiet else lambda: log.screen() if log else display_for(terminal)
        result = launch(job, options, display=display, warn=warn, log=log)
    if log is not None:
        log.say("done", **_done(result))
    if as_json:
        print_json(result.report)
    else:
        screen = console()
        text = wrapped(result.summary(), screen.width) if screen.is_terminal else result.summary()
        screen.print(text, highlight=False, soft_wrap=True, markup=False)


def _done(result: Result) -> dict[str, Any]:
    """The last line of the log. rows_run: 0 where everything was done before."""
    names = ("output", "plan_id", "rows", "rows_run", "rows_rejected", "bytes", "retries")
    facts = {name: getattr(result, name) for name in names}
    return facts | {"parts": len(result.parts), "seconds": round(result.seconds, 3), "report": result.page}
