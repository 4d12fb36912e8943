"""savedmodel-runner: batch inference for TensorFlow SavedModels on Ray.

    import runner
    result = runner.run("job.yaml")              # blocks, shows progress
    handle = runner.start(runner.Job(...))       # returns at once
    runner.attach("scores").wait()               # follow a run of another process, from its output alone
    spec = runner.inspect("models/churn")        # what a model declares
    runner.plan("job.yaml")                      # what would be done
    runner.verify("scores").holds                # whether every row is in exactly one part

Importing this package imports neither TensorFlow nor Ray nor pyarrow; the functions do, when they are called.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _refuse_shadows() -> None:
    """`jobs` and `connectors` are common names: a user with folders of that name must learn why nothing works."""
    home = Path(__file__).resolve().parents[1]
    for name in ("jobs", "connectors"):
        spec = find_spec(name)
        places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
        if not places or Path(str(places[0])).resolve().parent != home:
            raise ImportError(
                f"cannot import the package '{name}' of savedmodel-runner: found {places or 'none'}, expected it in"
                f" '{home}'; something of that name comes first on sys.path: rename it, or start from another folder"
            )


_refuse_shadows()

from jobs.errors import RunnerError  # noqa: E402  # after the check, which explains why this would fail
from jobs.job import Job  # noqa: E402
from jobs.load import load_job, read_text  # noqa: E402

if TYPE_CHECKING:
    from connectors.output.verification import Verification
    from jobs.job import OptionValue
    from runner.driver.handle import Handle
    from runner.driver.result import Result
    from runner.driver.watch import Watch
    from runner.model.signature import ModelSpec
    from runner.preflight.preflight import Preflight

__version__ = "0.1.0"
__all__ = ["Job", "RunnerError", "attach", "inspect", "plan", "read_text", "run", "start", "verify"]


def run(
    job: Job | str | Path,
    *overrides: str,
    in_process: bool = False,
    address: str | None = None,
    progress: bool = True,
    overwrite: bool = False,
    takeover: bool = False,
    wait_for_driver_s: float = 0.0,
    model_cache: str | None = None,
) -> Result:
    """Run a job and wait for it.

    job:        a Job, or the path of a job file.
    overrides:  'limits.max_attempts=2' and the like, as `--set` on the command line.
    in_process: work in this process, without Ray.
    address:    of a running Ray cluster; None: a Ray that is initialised here already, else a local one.
    overwrite:  remove what earlier jobs published in this output, and begin anew; what was begun so, goes on.
    takeover:   although another driver writes there; it stops when it next looks.
    wait_for_driver_s: how long at most to wait for another driver that writes there; then it goes on by itself.
    model_cache: folder for copies of remote models, on this machine and those of the workers; None: each user's own.
    raises:     RunnerError; what was finished stays, and the same call continues.
    """
    from connectors.models.cache import CacheSettings
    from runner.driver.launch import RunOptions, launch
    from runner.report.display import NoDisplay, display_for

    options = RunOptions(
        in_process=in_process,
        address=address,
        overwrite=overwrite,
        takeover=takeover,
        wait_for_driver_s=wait_for_driver_s,
        cache=CacheSettings(model_cache),
    )
    return launch(_job(job, overrides), options, display=display_for if progress else NoDisplay)


def start(
    job: Job | str | Path,
    *overrides: str,
    in_process: bool = False,
    address: str | None = None,
    progress: bool = True,
    overwrite: bool = False,
    takeover: bool = False,
    wait_for_driver_s: float = 0.0,
    model_cache: str | None = None,
) -> Handle:
    """Run a job in the background: `handle.progress`, `handle.wait()`, `handle.cancel()`. Arguments as for `run`."""
    from connectors.models.cache import CacheSettings
    from runner.driver.handle import Handle
    from runner.driver.launch import RunOptions
    from runner.report.display import NoDisplay, NotebookDisplay, display_for, in_notebook

    options = RunOptions(
        in_process=in_process,
        address=address,
        overwrite=overwrite,
        takeover=takeover,
        wait_for_driver_s=wait_for_driver_s,
        cache=CacheSettings(model_cache),
    )
    # A notebook's display belongs to the cell that opened it: it must be opened here, not in the thread.
    screen = NotebookDisplay() if progress and in_notebook() else None
    display: Any = (lambda: screen) if screen else display_for if progress else NoDisplay
    return Handle(_job(job, overrides), options, display, screen)


def plan(
    job: Job | str | Path,
    *overrides: str,
    in_process: bool = False,
    overwrite: bool = False,
    takeover: bool = False,
    model_cache: str | None = None,
) -> Preflight:
    """Bind the job to its model and its input, cut it into shards, and look at the output. Starts and writes nothing.

    in_process, overwrite, takeover: as for `run`; `Preflight.outlook` says what a run with them would meet.
    raises: JobError, with all that is wrong.
    """
    from connectors.models.cache import CacheSettings
    from connectors.output.outlook import Terms
    from runner.preflight.outlook import foreseen
    from runner.preflight.preflight import preflight

    ready = preflight(_job(job, overrides), CacheSettings(model_cache))
    return foreseen(ready, Terms(overwrite, takeover), in_process=in_process)


def inspect(
    model: str,
    version: int | None = None,
    *,
    options: dict[str, OptionValue] | None = None,
    model_cache: str | None = None,
) -> ModelSpec:
    """What a SavedModel declares: tags, signatures, tensors. Reads its protobuf; TensorFlow is not imported.

    options: of the store of a remote model, as in a job file; the model is copied to this machine.
    """
    from runner.model.folder import is_remote
    from runner.model.saved_model import read_model

    if not is_remote(model):
        return read_model(model, version, options)
    from connectors.models.cache import CacheSettings

    return read_model(model, version, options, CacheSettings(model_cache))


def attach(output: str, *, options: dict[str, OptionValue] | None = None) -> Watch:
    """Follow a run from its output, from any machine that can read it: `attach(url).wait()`, or iterate.

    options:  of the store, as in a job file.
    raises:   OutputError where the output cannot be read.
    """
    from jobs.job import Output
    from runner.driver.watch import Watch

    return Watch(Output(url=output, options=options or {}))


def verify(output: str, *, deep: bool = False, options: dict[str, OptionValue] | None = None) -> Verification:
    """Prove from storage alone that every input row is in exactly one part; see `Verification.holds`.

    deep:     read every part again, with checksums, and compare its SHA-256 with the manifest.
    options:  of the store, as in a job file.
    """
    from connectors.output.verification import verify as look
    from jobs.job import Output

    return look(Output(url=output, options=options or {}), deep=deep)


def _job(job: Job | str | Path, overrides: tuple[str, ...]) -> Job:
    if isinstance(job, Job):
        if overrides:
            raise TypeError("overrides go with the path of a job file; use job.model_copy(update=...) for a Job")
        return job
    return load_job(read_text(job), str(job), overrides)
