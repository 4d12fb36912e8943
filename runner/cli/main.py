"""The command `runner`: the composition root. Only `runner.cli` reads the flags of the command line.

The variables that set how a command behaves are read in `runner.cli`. Others are read where they are used: secrets,
failpoints, the default folder of the model cache, and what Ray and TensorFlow need.

Exit codes: 0 everything written; 2 the job is wrong; 65 bad data, or `verify` found something; 69 no cluster or
capacity; 70 model or internal failure; 75 superseded; 130/143 interrupted. The same command continues what is not done.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from jobs.errors import DataError, InternalError, JobError, RunnerError, StoppedError, one_of
from jobs.job import Job
from jobs.load import job_from, load_job
from runner import read_text
from runner.cli import jobs as cli_jobs
from runner.cli import model as model_commands
from runner.cli.cache import app as cache_app
from runner.cli.cache import cache_settings, model_of
from runner.cli.options import AsJson, OutputPlace, StoreOption, output_of
from runner.cli.output import rejects
from runner.cli.terminal import console as _console
from runner.cli.terminal import print_json as _print_json

app = typer.Typer(
    help="Batch inference for TensorFlow SavedModels: Parquet in, a signature on Ray workers, Parquet out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(cli_jobs.submit)
app.add_typer(cli_jobs.jobs, name="jobs")
app.add_typer(cache_app, name="cache")
app.command()(model_commands.scan)
app.command()(model_commands.call)

JobFile = Annotated[Path | None, typer.Argument(metavar="[JOB.yaml]", help="The job file; or give the flags below.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the job.")]
ModelUrl = Annotated[str | None, typer.Option("--model", metavar="URL", help="SavedModel folder, or its base folder.")]
InputUrl = Annotated[list[str] | None, typer.Option("--input", metavar="URL", help="File, folder or glob; repeatable.")]
OutputUrl = Annotated[str | None, typer.Option("--output", metavar="URL", help="Folder to write to.")]
SignatureName = Annotated[str | None, typer.Option("--signature", help="Signature to call.")]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="TENSOR=COLUMN[,COLUMN]", help="Feed a tensor; several are stacked."),
]
Fetch = Annotated[list[str] | None, typer.Option("--fetch", metavar="TENSOR[=COLUMN]", help="Keep only these outputs.")]
Keep = Annotated[list[str] | None, typer.Option("--keep", metavar="COLUMN", help="Pass an input column through.")]
TrustModel = Annotated[
    bool,
    typer.Option("--trust-model", help="Load the model although its ops may touch files, the network or Python."),
]


app.command()(rejects)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="SavedModel folder, or a folder of version folders.")],
    tags: Annotated[str | None, typer.Option(metavar="A,B", help="Only this tag set.")] = None,
    signature: Annotated[str | None, typer.Option(help="Only this signature.")] = None,
    version: Annotated[int | None, typer.Option(help="Version folder; the newest if omitted.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a model declares: tag sets, signatures, tensors, and the Arrow columns they become."""
    from runner.cli.view import (
        model as shown,  # each command imports what it needs: `show` answers in a fraction of a second
    )
    from runner.model.signature import choose_metagraph, choose_signature
    from runner.scan.program import read_programs

    spec = model_of(model, version)
    programs = read_programs(spec)
    wanted = tuple(tags.split(",")) if tags else None
    if wanted or signature:
        metagraph = choose_metagraph(spec, wanted)
        if signature:
            choose_signature(metagraph, signature, spec.url)
    if as_json:
        _print_json(shown.document(spec, programs))
    else:
        _console().print(shown.render(spec, wanted, signature, programs))


@app.command()
def plan(
    job: JobFile = None,
    set_: Set = None,
    model: ModelUrl = None,
    input_: InputUrl = None,
    output: OutputUrl = None,
    signature: SignatureName = None,
    map_: Map = None,
    fetch: Fetch = None,
    keep: Keep = None,
    trust_model: TrustModel = False,
    as_json: AsJson = False,
) -> None:
    """Bind and shard, and say what would be done. Starts nothing, writes nothing."""
    from runner.cli.view.plan import plan_document, render_plan
    from runner.preflight.preflight import preflight

    wanted = _job(job, _trusting(set_, trust_model), model, input_, output, signature, map_, fetch, keep)
    ready = preflight(wanted, cache_settings())
    if as_json:
        _print_json(plan_document(ready))
    else:
        _console().print(render_plan(ready))


@app.command()
def run(
    job: JobFile = None,
    set_: Set = None,
    model: ModelUrl = None,
    input_: InputUrl = None,
    output: OutputUrl = None,
    signature: SignatureName = None,
    map_: Map = None,
    fetch: Fetch = None,
    keep: Keep = None,
    trust_model: TrustModel = False,
    in_process: Annotated[bool, typer.Option("--in-process", help="Work in this process, without Ray.")] = False,
    address: Annotated[str | None, typer.Option(help="Address of a running Ray cluster.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove what earlier jobs published in this output, and begin anew.")
    ] = False,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Although another driver writes there; it stops when it next looks.")
    ] = False,
    log_format: Annotated[
        str,
        typer.Option("--log-format", metavar="text|json", help="json: a line of JSON per event, on standard error."),
    ] = "text",
    require_env: Annotated[
        list[str] | None, typer.Option("--require-env", metavar="NAME", help="Refuse to begin where it is not set.")
    ] = None,
    only_rejects: Annotated[
        str | None,
        typer.Option("--only-rejects", metavar="OUTPUT", help="Of the input, only the rows that OUTPUT rejected."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the job, or continue it where it stopped."""
    from connectors.secret import redact
    from runner.driver.launch import RunOptions, launch
    from runner.report.display import NoDisplay, display_for
    from runner.report.event_log import EventLog

    if log_format not in ("text", "json"):
        raise JobError(f"cannot log in the format '{log_format}': choose 'text' or 'json'")
    if missing := [name for name in require_env or [] if name not in os.environ]:
        raise JobError(f"cannot begin: environment variable {one_of(missing)} is not set on this machine")
    only = [f"input.only_rejects={json.dumps(only_rejects)}"] if only_rejects is not None else []
    changed = _trusting([*(set_ or []), *only], trust_model)
    wanted = _job(job, changed, model, input_, output, signature, map_, fetch, keep)
    options = RunOptions(
        in_process=in_process,
        address=address,
        overwrite=overwrite,
        takeover=takeover,
        cache=cache_settings(),
        command=os.environ.get("RUNNER_COMMAND") or redact(shlex.join(["runner", *sys.argv[1:]])),
    )
    # A descriptor of its own: loading a model in this process redirects the shared one for a moment.
    with os.fdopen(os.dup(2), "w") as terminal:
        log = EventLog(terminal) if log_format == "json" else None
        display = NoDisplay if quiet else lambda: log or display_for(terminal)
        result = launch(wanted, options, display=display, warn=lambda story: _say(story, "warning: "), log=log)
    if as_json:
        _print_json(result.report)
    else:
        _console().print(result.summary(), highlight=False, soft_wrap=True)


@app.command()
def status(
    output: OutputPlace,
    option: StoreOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends; exit 0 if all is written.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far a job is, from its output folder alone: no driver, no cluster."""
    from connectors.output.status import read_status
    from runner.cli.view.output import render_status

    place = output_of(output, option)
    if watch:
        from runner.cli.view.follow import follow
        from runner.driver.watch import Watch

        raise typer.Exit(follow(Watch(place), sys.stdout, as_json))
    found = read_status(place)
    if as_json:
        _print_json(found.document())
    else:
        _console().print(render_status(found))


@app.command()
def verify(
    output: OutputPlace,
    option: StoreOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every part again, and compare its SHA-256 with the manifest.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prove from storage alone that every input row is in exactly one part. Exit 65 if anything is wrong."""
    from connectors.output.verification import verify as look
    from runner.cli.view.output import render_verification

    found = look(output_of(output, option), deep=deep)
    if as_json:
        _print_json(found.document())
    else:
        _console().print(render_verification(found), highlight=False, soft_wrap=True)
    if not found.holds:
        raise typer.Exit(DataError.exit_code)


@app.command()
def sweep(
    output: OutputPlace,
    option: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and touch nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what dead attempts left in the output's staging folder, and nothing else."""
    from connectors.output.sweep import sweep as clean
    from runner.cli.view.output import render_sweep

    found = clean(output_of(output, option), dry_run=dry_run)
    if as_json:
        _print_json(found.document())
    else:
        _console().print(render_sweep(found), highlight=False, soft_wrap=True)


class _Signal(BaseException):
    """No `Exception`: whoever is interrupted in the middle of a call must not take it for a failure of that call."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> NoReturn:
    """Run the command. Every error becomes one paragraph and an exit code; no traceback unless RUNNER_TRACEBACK=1."""
    signal.signal(signal.SIGTERM, _stopped)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else: started where Ctrl-C is to be ignored
        signal.signal(signal.SIGINT, _stopped)
    try:
        code = app(standalone_mode=False) or 0
    except RunnerError as error:
        code = _explain(error)
    except _Signal as signalled:
        code = _explain(StoppedError("interrupted; what is finished stays", exit_code=128 + signalled.number))
    except typer.Exit as done:
        code = done.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command line
            code = _explain(JobError(error.format_message()))
        else:
            story = (
                f"nobody foresaw this: {type(error).__name__}: {error}; please report it with RUNNER_TRACEBACK=1 set"
            )
            code = _explain(InternalError(story), error)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _job(
    file: Path | None,
    overrides: list[str] | None,
    model: str | None,
    inputs: list[str] | None,
    output: str | None,
    signature: str | None,
    maps: list[str] | None,
    fetches: list[str] | None,
    keep: list[str] | None,
) -> Job:
    flags = {"--model": model, "--input": inputs, "--output": output}
    if file is not None:
        given = flags | {"--signature": signature, "--map": maps, "--fetch": fetches, "--keep": keep}
        if doubled := [name for name, value in given.items() if value]:
            raise JobError(
                f"cannot combine job file '{file}' with {', '.join(doubled)}: "
                "give a job file (and --set KEY=VALUE), or flags alone"
            )
        return load_job(read_text(file), str(file), overrides or [])
    if missing := [name for name, value in flags.items() if not value]:
        raise JobError(
            f"no job: give a job file, or the flags --model, --input and --output; missing {', '.join(missing)}"
        )
    return job_from(
        model or "", inputs or [], output or "", signature, maps or [], fetches or [], keep or [], overrides or []
    )


def _trusting(overrides: list[str] | None, trust: bool) -> list[str] | None:
    return [*(overrides or []), "model.trust=true"] if trust else overrides


def _explain(error: RunnerError, cause: Exception | None = None) -> int:
    _say(error.message)
    if os.environ.get("RUNNER_TRACEBACK") == "1":
        traceback.print_exception(cause or error)
    if isinstance(error, StoppedError):
        _say(f"to continue: {shlex.join(['runner', *sys.argv[1:]])}", prefix="")
    return int(error.facts.get("exit_code", error.exit_code))


def _stopped(number: int, frame: Any) -> NoReturn:
    """Raised wherever the main thread is; the second time the signal does what it always does."""
    signal.signal(number, signal.SIG_DFL)
    raise _Signal(number)


def _say(message: str, prefix: str = "error: ") -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    colour = "bold yellow" if prefix == "warning: " else "bold red"
    console.print(f"[{colour}]{prefix}[/]" if prefix else "", end="")
    console.print(message, markup=False)
