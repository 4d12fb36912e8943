"""A Job -> a Result: puts preflight, output, pool, schedule and driver together, for the CLI and for notebooks."""

from __future__ import annotations

import math
import os
import random
import secrets
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from connectors.models.cache import CacheSettings
from connectors.output.directory import OutputDirectory
from connectors.store.store import Store
from jobs.attempt import ODD, Receipt
from jobs.errors import CapacityError, JobError, RunnerError, SupersededError
from jobs.job import Job
from jobs.numerics import Numerics, differences
from jobs.rejection import Rejections
from jobs.schedule.draw import Draw
from jobs.schedule.elastic import Demand
from jobs.schedule.event import Action, Event, RestartCluster, WorkerFailedToStart, WorkersDiffer
from jobs.schedule.policy import Policy
from jobs.schedule.schedule import Schedule
from jobs.section.workers import Workers
from runner.driver.alone import LOCAL, TOLD, is_alone, may_be_alone
from runner.driver.driver import Driver, Listeners
from runner.driver.ending import Closing, accounted, ending
from runner.driver.result import Result
from runner.driver.waiting import Tell, Waiting
from runner.engine import EngineOptions
from runner.measure.account import Account
from runner.measure.course import Course
from runner.measure.meters import Meters
from runner.measure.snapshot import Snapshot
from runner.model.planned import ModelWatches
from runner.pool.gate import TrialGate
from runner.pool.inline import InlinePool
from runner.pool.pool import Pool
from runner.preflight.place import require_shared
from runner.preflight.preflight import Preflight, complete, examine
from runner.report.display import Display, NoDisplay, Shown
from runner.report.event_log import EventLog
from runner.report.exporter import exporters, exporting, require_exportable
from runner.report.text import byte_count


@dataclass
class Stopper:
    """How someone else asks a run to stop: another thread, or a signal handler."""

    reason: RunnerError | None = None

    def stop(self, reason: RunnerError) -> None:
        self.reason = self.reason or reason

    def requested(self) -> RunnerError | None:
        return self.reason


@dataclass(frozen=True)
class RunOptions:
    """How a job is run; none of it changes the rows that are written.

    in_process: work in this process, without Ray.
    address:    of a running Ray cluster; 'local': a local Ray, whatever the size of the plan; None: a Ray that is
                initialised here already, else a local one, or none for a plan of one shard: `runner.driver.alone`.
    overwrite, takeover, repair: see `connectors.output.outlook.Terms`.
    wait_for_driver_s: how long at most to wait for another driver that writes there; see `runner.driver.waiting`.
    cache:      where remote models are copied to, here and on the machines of the workers.
    command:    that continues this run, kept in the output for those who look at it.
    metrics_file: Prometheus text file that is kept up to date; None: none.
    """

    in_process: bool = False
    address: str | None = None
    overwrite: bool = False
    takeover: bool = False
    repair: bool = False
    wait_for_driver_s: float = 0.0
    cache: CacheSettings | None = None
    command: str = ""
    metrics_file: str | None = None

    @property
    def terms(self) -> dict[str, bool]:
        """What a claim is asked for."""
        return {"overwrite": self.overwrite, "takeover": self.takeover, "repair": self.repair}

    def __post_init__(self) -> None:
        """raises: JobError for a time to wait that is none, or that goes with `takeover`; `repair` with `overwrite`;
        metrics that cannot be exported."""
        require_exportable(self.metrics_file)
        if self.repair and self.overwrite:
            raise JobError("cannot both repair the output and overwrite it: ask for one of the two")
        seconds = self.wait_for_driver_s
        if not 0 <= seconds < math.inf:
            raise JobError(f"cannot wait {seconds} s for another driver: expected a number of seconds from 0")
        if seconds and self.takeover:
            raise JobError("cannot both wait for another driver and take over from it: ask for one of the two")


def launch(
    job: Job,
    options: RunOptions,
    *,
    display: Callable[[], Display] = NoDisplay,
    watch: Callable[[Snapshot], None] = lambda at: None,
    stopper: Stopper | None = None,
    warn: Callable[[str], None] = warnings.warn,
    log: EventLog | None = None,
) -> Result:
    """Run `job` to its end, or continue it where an earlier run stopped.

    warn:   called with what the store of the output cannot promise, and where the model's answers cannot be repeated.
    log:    notes every event, beside the display.
    raises: the RunnerError that ended it; what was finished stays, and the same call continues.
    """
    course = Course(time.monotonic())
    ready, pool = _ready(job, options, course)
    try:
        output = OutputDirectory(job.output, ready.plan.id, len(ready.plan.shards))
        stop, meters = stopper or Stopper(), Meters()
        waiting = Waiting(options.wait_for_driver_s, _teller(ready, warn, log), stop.requested)
        claim = waiting.claim(output, ready.plan, **options.terms)
        if claim.state == "finished":
            exporters(options.metrics_file, job.output.url, ready.plan.id, meters).close(exit_code=0)
            return _done_before(job, ready, output, claim.epoch)
        for story in filter(None, (claim.warning, *_warnings(ready))):
            warn(story)
        _name(log, f"{ready.plan.id[:8]}-{claim.epoch}")
        with (
            exporting(exporters(options.metrics_file, job.output.url, ready.plan.id, meters)) as exported,
            ending(output, claim.epoch, pool, options.command) as end,
            closing(ModelWatches(ready.planned)) as model,
            closing(_screen(display, options, pool)) as screen,
        ):
            done = _done(ready, output)
            fragile = options.in_process and ready.job.limits.may_lose
            spec = ready.spec(output.output)
            pool.serve(spec)
            course.mark("planned", time.monotonic())
            schedule = _schedule(ready, pool, output, claim.epoch, done, fragile, screen)
            course.mark("connected", time.monotonic())
            notes = [told(warn), meters.note, *([log.note] if log else [])]
            driver = Driver(
                *(schedule, pool, output, claim.epoch, ready.plan.rows),
                gate=TrialGate(pool, spec, warn),
                listeners=Listeners(notes, [screen.show, pool.observe, exported.show, watch]),
                stop_requested=lambda: stop.requested() or model.error(),
                clock=time.monotonic,
                receipts=dict(done),
                command=options.command,
                fragile=fragile,
                began=course.began,
            )
            receipts, account = _finish(driver, screen, ready, course, end)
    finally:
        pool.close()
    run, seconds = {shard: one for shard, one in receipts.items() if shard not in done}, time.monotonic() - course.began
    return _result(job, ready, output, receipts, driver.schedule.shards.retries, run, seconds, end.account or account)


def _done_before(job: Job, ready: Preflight, output: OutputDirectory, epoch: int) -> Result:
    """Of an output that the run with `epoch` finished: when that was, and where its report is."""
    result = _result(job, ready, output, output.finished(ready.plan), retries=0, run={}, seconds=0.0)
    ended = output.epochs.document(epoch).get("heartbeat")
    return replace(result, finished_at=str(ended or ""), page=output.reports.page(epoch))


def _warnings(ready: Preflight) -> list[str]:
    """Without those that a worker tries, and tells."""
    return [one for one in ready.warnings if not (ready.scanned.repeatable and one in ready.suspicions)]


def _screen(display: Callable[[], Display], options: RunOptions, pool: Pool) -> Display:
    screen = Shown(display)
    if isinstance(pool, InlinePool) and not options.in_process:
        screen.say(TOLD)
    return screen


def told(warn: Callable[[str], None]) -> Callable[[Event | Action], None]:
    """A listener that says what a person must know of, although the run goes on. Refused workers are told once."""
    refused: list[str] = []

    def note(what: Event | Action) -> None:
        match what:
            case WorkersDiffer(_, story):
                warn(story)
            case RestartCluster(story):
                warn(f"{story}; another one is being started, and the run goes on")
            case WorkerFailedToStart(_, _, CapacityError() as error) if not refused:
                refused.append(error.message)
                warn(error.message)

    return note


def _teller(ready: Preflight, warn: Callable[[str], None], log: EventLog | None) -> Tell:
    """Says what happens before the run has an epoch."""
    if log is None:
        return lambda event, story, **facts: warn(story)
    _name(log, ready.plan.id[:8])
    return log.tell


def _name(log: EventLog | None, run: str) -> None:
    """What the lines of the log are of, from now on."""
    if log is not None:
        log.run = run


def _ready(job: Job, options: RunOptions, course: Course) -> tuple[Preflight, Pool]:
    """What there is to do, and where; the pool connects meanwhile, unless all is done."""
    examined = examine(job, options.cache, overwrite=options.overwrite)
    store = Store(job.output.url, job.output.options)
    require_shared(store, in_process=options.in_process)
    unfinished = options.overwrite or options.repair or store.stat("_SUCCESS") is None
    if may_be_alone(examined, options.in_process, options.address):
        ready = complete(examined, overwrite=options.overwrite)
        alone = is_alone(ready)
        return ready, _connected(_pool(job, replace(options, in_process=alone)), unfinished, course)
    pool = _connected(_pool(job, options), unfinished, course)  # Ray starts while the plan is made
    try:
        return complete(examined, overwrite=options.overwrite), pool
    except BaseException:
        pool.close()
        raise


def _connected(pool: Pool, wanted: bool, course: Course) -> Pool:
    try:
        if wanted:
            if not isinstance(pool, InlinePool):
                course.mark("connecting", time.monotonic())
            pool.connect()
    except BaseException:
        pool.close()
        raise
    return pool


def _done(ready: Preflight, output: OutputDirectory) -> dict[int, Receipt]:
    """The shards that need no work any more."""
    done = output.done(ready.plan)
    if done and ready.job.limits.may_lose:
        done |= output.published(ready.plan)  # what they rejected counts
    return done


def _schedule(
    ready: Preflight,
    pool: Pool,
    output: OutputDirectory,
    epoch: int,
    done: dict[int, Receipt],
    fragile: bool,
    screen: Display,
) -> Schedule:
    workers = ready.job.workers
    left = len(ready.plan.shards) - len(done)
    fits = pool.capacity(screen.wait) if left else 0
    limits = ready.job.limits
    rejections = Rejections.of(ready.plan, limits)
    for receipt in done.values():
        rejections.note(receipt)
    return Schedule(
        ready.plan,
        done,
        Policy.of(limits),
        Draw(epoch, lambda: secrets.token_hex(6), random.Random()),
        Demand(
            workers.max or (fits if workers.count == "auto" else workers.count),
            least=workers.least,
            needs=_needs(workers),
        ),
        rejections=rejections,
        suspects=output.died_with(epoch) if fragile else (),
    )


def _finish(
    driver: Driver, screen: Display, ready: Preflight, course: Course, end: Closing
) -> tuple[dict[int, Receipt], Account | None]:
    """Drive the run to its end: all receipts, and its account, which is left on storage however the run ends."""
    try:
        with closing(screen):
            receipts = driver.run()
        account = accounted(driver, ready, course, "finished")  # before _SUCCESS: it may be the last that is written
        receipts = driver.output.finish(ready.plan, receipts, driver.epoch)
        course.mark("finished", driver.clock())
        end.last = lambda: accounted(driver, ready, course, "finished", "closed")  # now the shut-down is known
        return receipts, account
    except SupersededError:  # the report is another driver's by now
        raise
    except BaseException as error:
        accounted(driver, ready, course, str(error) or type(error).__name__)
        raise


def _needs(workers: Workers) -> str:
    """What each worker needs, for the message when none can be had."""
    amounts = {"CPU": workers.cpus, "GPU": workers.gpus, **workers.resources}
    needs = [f"{amount:g} {name}" for name, amount in amounts.items() if amount]
    return f"workers with {', '.join(needs)}" + (f" and {byte_count(workers.memory)}" if workers.memory else "")


def _pool(job: Job, options: RunOptions) -> Pool:
    if options.in_process:
        workers = job.workers
        cpus = int(workers.cpus) if "cpus" in workers.model_fields_set else os.cpu_count() or 1
        count = workers.max or (1 if workers.count == "auto" else workers.count)
        return InlinePool(EngineOptions(threads=max(1, cpus), gpu=workers.gpus > 0), count)
    from runner.cluster.pool import RayPool  # imports Ray: not for jobs that run in this process

    return RayPool(job.workers, None if options.address == LOCAL else options.address)


def _result(
    job: Job,
    ready: Preflight,
    output: OutputDirectory,
    receipts: dict[int, Receipt],
    retries: int,
    run: dict[int, Receipt],
    seconds: float,
    account: Account | None = None,
) -> Result:
    ordered = [receipts[shard] for shard in sorted(receipts)]
    lost = Rejections.of(ready.plan, job.limits)
    for receipt in ordered:
        lost.note(receipt)
    return Result(
        output=job.output.url,
        plan_id=ready.plan.id,
        rows=sum(receipt.rows_out for receipt in ordered),
        parts=tuple(output.url(receipt.part) for receipt in ordered),
        seconds=seconds,
        rows_run=sum(receipt.rows_in for receipt in run.values()),
        retries=retries,
        bytes=sum(receipt.size for receipt in ordered),
        rows_rejected=lost.rejected,
        rows_left_out=lost.left_out,
        codes=dict(lost.codes.most_common()),
        bad_files=lost.named,
        **{name: sum(getattr(receipt, name) for receipt in ordered) for name in ODD},
        rounded=ready.rounded,
        differences=tuple(differences(_numerics(ordered))),
        account=account,
        page=output.reports.url,
        options=job.output.options,
        schema=ready.binding.output_schema,
    )


def _numerics(receipts: Sequence[Receipt]) -> dict[Numerics, dict[str, None]]:
    """What changes numbers -> who computed so. Names of workers come again in each epoch; a manifest knows epochs."""
    seen: dict[Numerics, dict[str, None]] = {}
    for receipt in receipts:
        epoch = receipt.attempt.partition("-")[0].removeprefix("e")
        seen.setdefault(receipt.numerics, {})[f"{receipt.worker or 'a worker'} of epoch {epoch}"] = None
    return seen
