"""What `import runner` offers: the functions behind it.

Owns how a call in Python becomes a job, an output and options; refuses to know how any of it is done. The invariants:
what a user can mend is raised as a RunnerError that speaks of arguments and functions, never of flags; importing this
module loads neither TensorFlow nor Ray nor pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.errors import Interrupted, JobError
from jobs.job import Job
from jobs.section.base import Change, OptionValue
from jobs.section.input import Input
from jobs.section.output import Output
from runner.report.wording import python_words

if TYPE_CHECKING:
    import pyarrow as pa

    from connectors.output.look.sweep import Sweep
    from connectors.output.status import Status
    from connectors.output.verification import Verification
    from runner.cluster.submit import Submitted
    from runner.compare.agreement import Agreement
    from runner.driver.handle import Handle
    from runner.driver.launch import RunOptions
    from runner.driver.result import Result
    from runner.driver.watch import Watch
    from runner.measure.snapshot import Snapshot
    from runner.model.signature import ModelSpec
    from runner.preflight.preflight import Preflight

VERSION = "0.1.0"
AnyJob = Job | str | Path | Mapping[str, Any]
Place = Job | str | Path


@python_words()
def run(
    job: AnyJob,
    *overrides: Change,
    in_process: bool = False,
    address: str | None = None,
    progress: bool = True,
    overwrite: bool = False,
    takeover: bool = False,
    repair: bool = False,
    wait_for_driver_s: float = 0.0,
    model_cache: str | None = None,
) -> Result:
    """Run a job and wait for it.

    job:        a Job, the path or the text of a job file, or a dict of its sections. An input in memory (a table of
                pandas, Polars or pyarrow, or a dataset) is first written below the output, once, of 256 MiB at most.
    overrides:  'limits.max_attempts=2', or {'input': frame}: see `Job.with_`.
    in_process: work in this process, without Ray.
    address:    of a running Ray cluster; None: a Ray that is initialised here already, else a local one.
    progress:   show how far it is.
    overwrite:  remove what earlier jobs published in this output, and begin anew; what was begun so, goes on.
    takeover:   although another driver writes there; it stops when it next looks.
    repair:     read every part, and compute again what is missing or damaged, also after all was done.
    wait_for_driver_s: how long at most to wait for another driver that writes there; then it goes on by itself.
    model_cache: folder for copies of remote models, on this machine and those of the workers; None: each user's own.
    raises:     RunnerError; Interrupted, a KeyboardInterrupt. What was finished stays, and the same call continues.
    """
    from runner.driver.launch import launch
    from runner.report.display import NoDisplay, display_for

    wanted = _job(job, overrides)
    latest: dict[str, Snapshot] = {}
    options = _options(in_process, address, overwrite, takeover, repair, wait_for_driver_s, model_cache)
    try:
        return launch(
            wanted,
            options,
            display=display_for if progress else NoDisplay,
            watch=lambda at: latest.update(at=at),
        )
    except KeyboardInterrupt:
        at = latest.get("at")
        done = f"{at.rows_done:,} of {at.rows_total:,} rows are" if at else "what is finished is"
        raise Interrupted(
            f"interrupted, and the workers are stopped: {done} written in '{wanted.output.url}'; make the same call"
            " again to continue"
        ) from None


@python_words()
def start(
    job: AnyJob,
    *overrides: Change,
    in_process: bool = False,
    address: str | None = None,
    progress: bool = True,
    overwrite: bool = False,
    takeover: bool = False,
    repair: bool = False,
    wait_for_driver_s: float = 0.0,
    model_cache: str | None = None,
) -> Handle:
    """Run a job in the background: `handle.progress`, `handle.wait()`, `handle.cancel()`. Arguments as for `run`."""
    from runner.driver.handle import Handle
    from runner.report.display import NoDisplay, NotebookDisplay, display_for, in_notebook

    wanted = _job(job, overrides)
    options = _options(in_process, address, overwrite, takeover, repair, wait_for_driver_s, model_cache)
    # A notebook's display belongs to the cell that opened it: it must be opened here, not in the thread.
    screen = NotebookDisplay() if progress and in_notebook() else None
    display: Any = (lambda: screen) if screen else display_for if progress else NoDisplay
    return Handle(wanted, options, display, screen)


@python_words()
def plan(
    job: AnyJob,
    *overrides: Change,
    in_process: bool = False,
    overwrite: bool = False,
    takeover: bool = False,
    repair: bool = False,
    model_cache: str | None = None,
) -> Preflight:
    """Bind the job to its model and its input, cut it into shards, and look at the output.

    Starts nothing; writes nothing but rows that lie in memory.

    in_process, overwrite, takeover, repair: as for `run`; `Preflight.outlook` says what a run with them would meet.
    raises: JobError, with all that is wrong.
    """
    from connectors.models.cache import CacheSettings
    from connectors.output.outlook import Terms
    from runner.preflight.outlook import foreseen
    from runner.preflight.preflight import preflight

    ready = preflight(_job(job, overrides), CacheSettings(model_cache), overwrite=overwrite)
    return foreseen(ready, Terms(overwrite, takeover, repair), in_process=in_process)


@python_words()
def submit(
    job: AnyJob,
    *overrides: Change,
    address: str,
    env: Sequence[str] = (),
    wheel: bool = False,
    allow_open_cluster: bool = False,
    overwrite: bool = False,
    takeover: bool = False,
    wait_for_driver_s: float = 0.0,
    model_cache: str | None = None,
) -> Submitted:
    """Run a job on a cluster, its driver too; one that is there already is found, not begun twice. Returns at once.

    `attach(job).wait()` waits for it; `runner jobs` lists, shows and stops what was submitted.

    job:     as for `run`; its model, input and output are reached from every node.
    address: of Ray's dashboard, 'http://HOST:8265'. A token is taken from RAY_AUTH_TOKEN.
    env:     'NAME': must be set on the nodes; 'NAME=VALUE': set there, for no secret.
    wheel:   bring this runner's own code along; its dependencies must be there.
    allow_open_cluster: although all that reach the cluster can run code there.
    raises:  JobError, with all that is wrong; CapacityError where the cluster does not answer.
    """
    import tempfile

    from connectors.store.store import Store
    from jobs.load import job_text
    from runner.cluster import submit as jobs_of
    from runner.cluster.jobs_api import RayJobs
    from runner.cluster.wheel import build_wheel
    from runner.preflight.preflight import preflight

    options = _options(False, None, overwrite, takeover, False, wait_for_driver_s, model_cache)
    wanted = _job(job, overrides)
    jobs_of.refuse_relative(wanted)
    with tempfile.TemporaryDirectory(prefix="runner-submit-") as private:
        folder = Path(private) / "job"
        folder.mkdir()
        (folder / "job.json").write_text(job_text(wanted), encoding="utf-8")
        made = preflight(wanted, options.cache).plan
        output = Store(wanted.output.url, wanted.output.options).url
        modules = [str(build_wheel(Path(private), VERSION))] if wheel else []
        begin = jobs_of.Start(options.overwrite, options.takeover, options.wait_for_driver_s)
        asked = jobs_of.request(
            wanted, made.id, output, "job.json", str(folder), variables=list(env), modules=modules, start=begin
        )
        return jobs_of.submit(RayJobs(address, allow_open=allow_open_cluster), asked)


@python_words()
def load_job(source: str | Path, *overrides: Change, vars: Mapping[str, object] | None = None) -> Job:
    """The job of a job file, by its path or its text: see `Job.from_yaml`."""
    return Job.from_yaml(source, *overrides, vars=vars)


@python_words()
def inspect(
    model: str | Path,
    version: int | None = None,
    *,
    options: dict[str, OptionValue] | None = None,
    model_cache: str | None = None,
) -> ModelSpec:
    """What a SavedModel declares: tags, signatures, tensors. Reads its protobuf; TensorFlow is not imported.

    options: of the store of a remote model, as in a job file; the model is copied to this machine.
    raises:  ModelError where it cannot be read.
    """
    from runner.model.folder import is_remote
    from runner.model.saved_model import read_model

    url = str(model)
    if not is_remote(url):
        return read_model(url, version, options)
    from connectors.models.cache import CacheSettings

    return read_model(url, version, options, CacheSettings(model_cache))


@python_words()
def attach(output: Place, *, options: dict[str, OptionValue] | None = None) -> Watch:
    """Follow a run from its output, from any machine that can read it: `attach(url).wait()`, or iterate.

    output:   its folder, a job that writes there, or the job file of one.
    options:  of the store, as in a job file.
    raises:   OutputError where the output cannot be read.
    """
    from runner.driver.watch import Watch

    return Watch(_output(output, options))


@python_words()
def status(output: Place, *, options: dict[str, OptionValue] | None = None) -> Status:
    """How far a job is, from its output alone: no driver, no cluster. Arguments and errors as for `attach`."""
    from connectors.output.status import read_status

    return read_status(_output(output, options))


@python_words()
def verify(output: Place, *, deep: bool = False, options: dict[str, OptionValue] | None = None) -> Verification:
    """Prove from storage alone that every input row is in exactly one part; see `Verification.holds`.

    output:   as for `attach`.
    deep:     read every part again, with checksums, and compare its SHA-256 with the manifest.
    options:  of the store, as in a job file.
    raises:   OutputError where there is nothing to verify.
    """
    from connectors.output.verification import verify as look

    return look(_output(output, options), deep=deep)


@python_words()
def rejects(output: Place, *, options: dict[str, OptionValue] | None = None) -> pa.Table:
    """The rows that were set aside, in the order of the input, with file, row group, row, column, code and message.

    output:  as for `attach`.
    raises:  OutputError where there is no output of a run.
    """
    from connectors.output.reject import read_rejected

    return read_rejected(_output(output, options)).table()


@python_words()
def diff(
    output: Place, *, left: str, right: str, rows: int = 10, options: dict[str, OptionValue] | None = None
) -> Agreement:
    """In what two columns of an output differ, as those of two models that scored the same rows; so far, of a run.

    output:  as for `attach`.
    left, right: columns of numbers, lists of them, labels or structs, both of one kind.
    rows:    that differ most, to be told with the columns that the job keeps.
    raises:  JobError for columns that are not there or not of one kind; OutputError where there is no output of a run.
    """
    from runner.compare.diff import diff as compare

    if rows < 0:
        raise JobError(f"cannot tell {rows} rows: expected a number of at least 0")
    return compare(_output(output, options), left, right, rows)


@python_words()
def sweep(
    output: Place,
    *,
    old_plans: bool = False,
    dry_run: bool = False,
    options: dict[str, OptionValue] | None = None,
) -> Sweep:
    """Remove what dead attempts left in the output's staging folder, and nothing else; no part ever.

    output:    as for `attach`.
    old_plans: also what is kept of plans that were overwritten: epochs, manifests, reports.
    dry_run:   say what would go, and touch nothing.
    """
    from connectors.output.look.sweep import sweep as remove

    return remove(_output(output, options), old_plans=old_plans, dry_run=dry_run)


def _job(job: AnyJob, overrides: Sequence[Change]) -> Job:
    """The job, with rows that it holds in memory written below its output: a file that every worker reaches."""
    if isinstance(job, Mapping):
        job = Job(**job)
    made = Job.from_yaml(job, *overrides) if not isinstance(job, Job) else job.with_(*overrides) if overrides else job
    if made.input.held is None:
        return made
    from connectors.output.held import put

    url = put(made.input.held, made.output)
    return made.model_copy(update={"input": Input(url=url, options=made.output.options)})


def _output(place: Place, options: Mapping[str, OptionValue] | None) -> Output:
    if isinstance(place, str | Path) and str(place).endswith((".yaml", ".yml", ".json")) and Path(place).is_file():
        place = Job.from_yaml(Path(place))
    if isinstance(place, Job):
        return Output(url=place.output.url, options={**place.output.options, **(options or {})})
    return Output(url=place if isinstance(place, str) else str(place), options=dict(options or {}))


def _options(
    in_process: bool,
    address: str | None,
    overwrite: bool,
    takeover: bool,
    repair: bool,
    wait_for_driver_s: float,
    model_cache: str | None,
) -> RunOptions:
    from connectors.models.cache import CacheSettings
    from runner.driver.launch import RunOptions

    return RunOptions(
        in_process=in_process,
        address=address,
        overwrite=overwrite,
        takeover=takeover,
        repair=repair,
        wait_for_driver_s=wait_for_driver_s,
        cache=CacheSettings(model_cache),
    )
