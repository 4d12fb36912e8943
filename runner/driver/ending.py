"""How a run ends: the directory learns it, and the account of the run is left beside the plan."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from connectors.output.directory import OutputDirectory
from connectors.output.epoch import Ending
from connectors.output.reports import Told
from connectors.secret import redact
from jobs.attempt import ODD, Failure
from jobs.errors import StoppedError, StorageError, SupersededError
from jobs.rejection import Rejections
from jobs.versions import installed
from runner.driver.driver import Driver
from runner.measure.account import Account, Heading, account
from runner.measure.course import Course, Point
from runner.measure.subject import Earlier, Subject
from runner.pool.pool import Pool
from runner.preflight.preflight import Preflight
from runner.report.page import page

_log = logging.getLogger(__name__)

_MOST_INPUTS = 20  # files that a report names


@dataclass
class Closing:
    """What is left to do when the workers of a run that finished are stopped, and its epoch is still its own.

    account: what came of it.
    """

    last: Callable[[], Account | None] = lambda: None
    account: Account | None = None


@contextmanager
def ending(output: OutputDirectory, epoch: int, pool: Pool, command: str = "") -> Iterator[Closing]:
    """Say how this driver ended, after its workers are stopped: from then on another one may write at once.

    command: that continues; kept with the error that ended it, which may come before the first heartbeat.
    """
    how: Ending = "failed"
    facts: dict[str, object] = {}
    closing = Closing()
    try:
        yield closing
        how = "finished"
    except SupersededError:
        how = "superseded"
        raise
    except StoppedError:
        how = "interrupted"
        raise
    except Exception as error:
        facts = {"error": redact(str(error) or type(error).__name__), "command": command}
        raise
    except BaseException:  # Ctrl-C, a signal
        how = "interrupted"
        raise
    finally:
        try:
            pool.close()
            if how == "finished":
                closing.account = closing.last()
        finally:
            output.end(epoch, how, facts)


def accounted(
    driver: Driver, ready: Preflight, course: Course, ending: str, point: Point = "finished"
) -> Account | None:
    """Leave the account of the run on storage; returns it. Nothing that goes wrong with it may harm the job.

    course:  of the command. point: of it, that is now. ending: 'finished', or the error that ended the run.
    returns: None where the account could not be written, or is another driver's by now.
    """
    try:
        now = driver.clock()
        course.mark(point, now)
        heading = _heading(ready, driver, ending, now - course.began)
        made = _account(ready, driver, course)
        subject = _subject(ready, driver)
        failures = driver.schedule.shards.failures
        with suppress(StorageError, OSError):
            _leave(driver, heading, made, subject, failures)
    except SupersededError:
        return None
    except Exception:
        _log.warning("the report of this run could not be written", exc_info=True)
        return None
    return made


def _leave(driver: Driver, heading: Heading, made: Account, subject: Subject, failures: Sequence[Failure]) -> None:
    """raises: SupersededError where another driver took over: the latest report is another's by now."""
    reports = driver.output.reports
    before = [
        _earlier(told)
        for told in reports.before(driver.epoch)
        if told.page or "ended" not in told.document or "rows_done" in told.document  # else it only fenced one off
    ]
    document = heading.document() | made.document() | subject.document()
    document |= {"failures": [failure.document() for failure in failures]}
    own, latest = (page(heading, made, subject, driver.history, failures, before, below) for below in (False, True))
    driver.output.epochs.require_newest(driver.epoch)
    reports.leave(driver.epoch, document, own, latest)


def _account(ready: Preflight, driver: Driver, course: Course) -> Account:
    places = {name: facts.place for name, facts in driver.facts.items()}
    warm_up_s = sum((facts.warm_up.seconds for facts in driver.facts.values()), 0.0)
    return account(ready.job, driver.history, places, warm_up_s, course)


def _heading(ready: Preflight, driver: Driver, ending: str, seconds: float) -> Heading:
    return Heading(
        plan_id=ready.plan.id,
        epoch=driver.epoch,
        output=driver.output.store.url,
        model=", ".join(redact(member.model.url) for member in ready.members),
        signature=ready.signature.name,
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ending=ending,
        rows=ready.plan.rows,
        rows_run=sum(use.rows for use in driver.history.uses().values()),
        rows_before=driver.rows_before,
        shards=len(ready.plan.shards),
        shards_done=len(driver.receipts),
        seconds=seconds,
        retries=driver.schedule.shards.retries,
        **{name: driver.history.odd[name] for name in ODD},
        versions=installed(),
    )


def _subject(ready: Preflight, driver: Driver) -> Subject:
    files, lost = ready.plan.files, Rejections.of(ready.plan, ready.job.limits)
    for receipt in driver.receipts.values():
        lost.note(receipt)
    return Subject(
        files=len(files),
        row_groups=sum(len(file.row_groups) for file in files),
        bytes=sum(file.size for file in files),
        inputs=[redact(file.url) for file in files[:_MOST_INPUTS]],
        columns=ready.binding.describe(),
        rows_rejected=lost.rejected,
        rows_left_out=lost.left_out,
        codes=dict(lost.codes.most_common()),
        bad_files={redact(url): why for url, why in lost.named.items()},
        variables=ready.plan.variables,
        reject_files=driver.output.reject_files if lost.rejected else "",
        versions=installed().document(),
        host=socket.gethostname(),
        pid=os.getpid(),
    )


def _earlier(told: Told) -> Earlier:
    rows = told.document.get("rows_done")
    words = {name: str(told.document.get(name) or "") for name in ("started", "heartbeat", "ended")}
    return Earlier(
        epoch=told.epoch,
        began=words["started"],
        heard=words["heartbeat"],
        ending=words["ended"] or "lost",
        rows_done=rows if isinstance(rows, int) else None,
        page=told.page,
    )
