"""The command `runner`: the composition root. Only `runner.cli` reads the flags of the command line.

The variables that set how a command behaves are read in `runner.cli`. Others are read where they are used: secrets,
failpoints, the default folder of the model cache, and what Ray and TensorFlow need.

Exit codes: 0 everything written; 2 the job is wrong; 65 bad data, or `verify` found something; 69 no cluster or
capacity; 70 model or internal failure; 75 another driver writes, or took over; 130/143 interrupted. The same command
continues what is not done.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import typer

from connectors.secret import redact
from connectors.store.client_error import no_room
from jobs.errors import InternalError, JobError, RunnerError, StoppedError, out_of_threads
from runner.cli import about, cache, init, jobs, model, output, run
from runner.cli.command import to_continue
from runner.cli.options import JobFlags
from runner.cli.terminal import answering, event_log, hear, say, take_streams, wants_json
from runner.report.console import json_text

app = typer.Typer(
    help="Batch inference for TensorFlow SavedModels: Parquet in, a signature on Ray workers, Parquet out.",
    invoke_without_command=True,
    callback=answering(about.front),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    *(answering(model.show), answering(init.init), answering(run.plan), run.run),
    *(
        answering(output.status),
        answering(output.verify),
        answering(output.rejects),
        answering(output.diff),
        output.sweep,
    ),
    *(answering(model.scan), answering(model.call), answering(about.schema), jobs.submit),
):
    app.command()(command)
app.add_typer(jobs.app, name="jobs")
app.add_typer(cache.app, name="cache")


_AGAIN_S = 0.05  # after which a signal that nobody got is sent again


class _Signal(BaseException):
    """No `Exception`: code that is interrupted in the middle of a call must not take it for a failure of that call.

    over: `main` has one, or the command has ended: what is dropped from then on is no loss.
    """

    over: ClassVar[bool] = False

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number

    def __del__(self) -> None:
        if not self.over:
            _dropped(self.number)


def main() -> NoReturn:
    """Run the command. Every error becomes one paragraph, or one event of the log, and an exit code; with `--json` also
    a document on standard output. No traceback unless RUNNER_TRACEBACK=1.
    """
    take_streams()
    hear()
    threading.excepthook = _ended
    signal.signal(signal.SIGTERM, _stopped)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else: started where Ctrl-C is to be ignored
        signal.signal(signal.SIGINT, _stopped)
    error: RunnerError | None = None
    cause: Exception | None = None
    code = 0
    try:
        code = app(standalone_mode=False, prog_name="runner") or 0
    except RunnerError as ours:
        error = ours
    except _Signal as signalled:
        _Signal.over = True
        error = StoppedError("interrupted; what is finished stays", exit_code=signalled.exit_code)
    except typer.Exit as done:
        code = done.exit_code
    except Exception as unforeseen:
        error, cause = _unforeseen(unforeseen)
    _Signal.over = True
    for number in (signal.SIGTERM, signal.SIGINT):  # from here on one ends the process without a word
        if signal.getsignal(number) is _stopped:
            signal.signal(number, signal.SIG_DFL)
    if error is not None:
        code = _explain(error, cause)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _unforeseen(error: Exception) -> tuple[RunnerError, Exception | None]:
    """It as an error of ours, and its cause where that is for us to look at."""
    if hasattr(error, "format_message"):  # a usage error of the command line
        return JobError(error.format_message()), None
    if (refused := out_of_threads(error)) is not None:
        return refused, error
    if isinstance(error, OSError) and (full := no_room("write to", Path(str(error.filename or "")), error)) is not None:
        return full, error
    story = f"an unforeseen error: {type(error).__name__}: {error}; please report it with RUNNER_TRACEBACK=1 set"
    return InternalError(story), error


def _explain(error: RunnerError, cause: Exception | None = None) -> int:
    traced = os.environ.get("RUNNER_TRACEBACK") == "1"
    continued = ""
    if isinstance(error, StoppedError) or error.facts.get("resumable"):
        continued = to_continue(JobFlags, run.RunFlags, jobs.SubmitFlags)
    if (log := event_log()) is not None:
        facts = {"traceback": redact("".join(traceback.format_exception(cause or error)))} if traced else {}
        log.fail(error, **({"to_continue": continued} if continued else {}), **facts)
    else:
        say(str(error))
        if traced:
            traceback.print_exception(cause or error)
        if continued:
            say(f"to continue: {continued}", prefix="")
    if wants_json():
        from runner.report.event_log import told_error

        print(json_text({"error": told_error(error)}))  # noqa: T201  # in one line: what is before it may be lines
    return error.ends_with


def _ended(thread: threading.ExceptHookArgs) -> None:
    """A thread of a library, or one of ours that nobody waits for: a line tells of its end, and no traceback."""
    if thread.exc_value is None or isinstance(thread.exc_value, SystemExit):
        return
    name = thread.thread.name if thread.thread is not None else "?"
    say(f"thread '{name}' has ended: {thread.exc_type.__name__}: {thread.exc_value}", "warning: ")
    if os.environ.get("RUNNER_TRACEBACK") == "1" and event_log() is None:
        traceback.print_exception(thread.exc_value)


def _stopped(number: int, frame: Any) -> NoReturn:
    """Raised wherever the main thread is; the second time the signal does what it always does."""
    signal.signal(number, signal.SIG_DFL)
    raise _Signal(number)


def _dropped(number: int) -> None:
    """Send again what nobody got: Python drops what a handler raises in `__del__`, or while it compiles `2**63`.

    Later, and by another thread: here it would be lost again.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers are set by the main thread alone
        return
    signal.signal(number, _stopped)
    again = threading.Timer(_AGAIN_S, signal.pthread_kill, (threading.get_ident(), number))
    again.daemon = True
    again.start()
