"""How a run ends: the directory learns it, and the account of the run is left beside the plan."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from connectors.output.directory import OutputDirectory
from connectors.output.epoch import Ending
from connectors.secret import redact
from jobs.attempt import ODD
from jobs.errors import StoppedError, SupersededError
from jobs.versions import installed
from runner.driver.driver import Driver
from runner.measure.account import Account, Heading, account
from runner.pool.pool import Pool
from runner.preflight.preflight import Preflight
from runner.report.page import page

_log = logging.getLogger(__name__)


@contextmanager
def ending(output: OutputDirectory, epoch: int, pool: Pool, command: str = "") -> Iterator[None]:
    """Say how this driver ended, after its workers are stopped: from then on another one may write at once.

    command: that continues; kept with the error that ended it, which may come before the first heartbeat.
    """
    how: Ending = "failed"
    facts: dict[str, object] = {}
    try:
        yield
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
        finally:
            output.end(epoch, how, facts)


def accounted(driver: Driver, ready: Preflight, began: float, ending: str) -> Account | None:
    """Leave the account of the run on storage; returns it. Nothing that goes wrong with it may harm the job.

    began:   by the driver's clock. ending: 'finished', or the error that ended the run.
    returns: None where the account could not be written.
    """
    try:
        heading = _heading(ready, driver, ending, driver.clock() - began)
        made = _account(ready, driver, began)
        failures = driver.schedule.shards.failures
        document = heading.document() | made.document() | {"failures": [failure.document() for failure in failures]}
        driver.output.report(document, page(heading, made, driver.history, failures))
    except Exception:
        _log.warning("the report of this run could not be written", exc_info=True)
        return None
    return made


def _account(ready: Preflight, driver: Driver, began: float) -> Account:
    places = {name: facts.place for name, facts in driver.facts.items()}
    warm_up_s = sum((facts.warm_up.seconds for facts in driver.facts.values()), 0.0)
    first = driver.history.first_part
    return account(ready.job, driver.history, places, warm_up_s, None if first is None else first - began)


def _heading(ready: Preflight, driver: Driver, ending: str, seconds: float) -> Heading:
    return Heading(
        plan_id=ready.plan.id,
        epoch=driver.epoch,
        output=driver.output.store.url,
        model=redact(ready.model.url),
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
