"""How a run ends: the directory learns it, and the account of the run is left beside the plan."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from connectors.output.directory import OutputDirectory
from connectors.output.epoch import Ending
from connectors.store.store import redact
from jobs.errors import StoppedError, SupersededError
from runner.driver.driver import Driver
from runner.measure import account as accounts
from runner.pool.pool import Pool
from runner.preflight.preflight import Preflight
from runner.report.page import page

_log = logging.getLogger(__name__)


@contextmanager
def ending(output: OutputDirectory, epoch: int, pool: Pool) -> Iterator[None]:
    """Say how this driver ended, after its workers are stopped: from then on another one may write at once."""
    how: Ending = "failed"
    try:
        yield
        how = "finished"
    except SupersededError:
        how = "superseded"
        raise
    except StoppedError:
        how = "interrupted"
        raise
    except Exception:
        raise
    except BaseException:  # Ctrl-C, a signal
        how = "interrupted"
        raise
    finally:
        try:
            pool.close()
        finally:
            output.end(epoch, how)


def accounted(driver: Driver, ready: Preflight, began: float, ending: str) -> dict[str, Any]:
    """Leave the account of the run on storage; returns it. Nothing that goes wrong with it may harm the job."""
    try:
        account = accounts.account(ready.job, driver.history).document(driver.facts)
        account["warm_up_seconds"] = _warm_up_s(driver.facts)
        first = driver.history.first_part
        account["first_part_s"] = None if first is None else round(first - began, 3)
        head = _heading(ready, driver, ending, time.monotonic() - began)
        failures = [failure.document() for failure in driver.schedule.shards.failures]
        driver.output.report(head | account | {"failures": failures}, page(head, account, driver.history, failures))
    except Exception:
        _log.warning("the report of this run could not be written", exc_info=True)
        return {}
    return account


def _warm_up_s(facts: Mapping[str, Mapping[str, Any]]) -> float:
    """Of all workers together, before any row was counted."""
    return round(float(sum(known.get("warm_up", {}).get("seconds", 0.0) for known in facts.values())), 3)


def _heading(ready: Preflight, driver: Driver, ending: str, seconds: float) -> dict[str, Any]:
    """What a run was, for its account. ending: 'finished', or the error that ended it."""
    rows_run = sum(use.rows for use in driver.history.uses().values())
    return {
        "plan_id": ready.plan.id,
        "epoch": driver.epoch,
        "output": driver.output.store.url,
        "model": redact(ready.model.url),
        "signature": ready.signature.name,
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "ending": ending,
        "rows": ready.plan.rows,
        "rows_run": rows_run,
        "rows_before": driver.rows_before,
        "shards": len(ready.plan.shards),
        "shards_done": len(driver.receipts),
        "seconds": round(seconds, 3),
        "retries": driver.schedule.shards.retries,
    }
