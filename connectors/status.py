"""How far a job is, read from its output directory alone: no driver, no model, no cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from connectors.layout import (
    RUN,
    SUCCESS,
    Layout,
    decode,
    epoch_of_name,
    plan8_of_folder,
    plan8_of_part,
    shard_of_part,
)
from connectors.store import Store
from jobs.errors import OutputError
from jobs.job import Output
from jobs.plan import Plan

_THREADS = 16


@dataclass(frozen=True, slots=True)
class Status:
    """An output directory at a glance.

    rows_done:  rows of the shards whose parts are there.
    bytes:      of the parts that are there.
    host, pid, heartbeat:  of the driver that wrote last; heartbeat in UTC, "" where none did.
    failures:   attempts that failed and were or will be repeated; see `Failure.document`.
    """

    output: str
    state: Literal["absent", "unfinished", "finished"]
    plan_id: str = ""
    shards: int = 0
    shards_done: int = 0
    rows: int = 0
    rows_done: int = 0
    bytes: int = 0
    retries: int = 0
    epoch: int = 0
    host: str = ""
    pid: int = 0
    heartbeat: str = ""
    failures: tuple[dict[str, Any], ...] = ()

    def document(self) -> dict[str, Any]:
        return asdict(self) | {"failures": list(self.failures)}


def read_status(output: Output) -> Status:
    """raises: OutputError where the directory cannot be read, or its plan is not whole."""
    store = Store(output.url, output.options)
    parts = store.sizes("")
    success = decode(store.read(SUCCESS)) if SUCCESS in parts else None
    names = _latest(store, parts, str((success or {}).get("plan_id", "")))
    if names is None:
        return Status(store.url, "absent")
    plan = _plan(store, names)
    done = {shard_of_part(name): size for name, size in parts.items() if plan8_of_part(name) == names.plan8}
    last = _last_epoch(store, names)
    failures = tuple({one["attempt"]: one for one in _failures(store, names, last)}.values())
    return Status(
        store.url,
        "finished" if success else "unfinished",
        plan.id,
        len(plan.shards),
        len(done),
        plan.rows,
        sum(shard.rows for shard in plan.shards if shard.index in done),
        sum(done.values()),
        len(failures),
        int(last.get("epoch", 0)),
        str(last.get("host", "")),
        int(last.get("pid", 0)),
        str(last.get("heartbeat", "")),
        failures,
    )


def _latest(store: Store, parts: dict[str, int], finished: str) -> Layout | None:
    """The plan that finished here, else the one with parts, else the one whose driver wrote last."""
    if finished:
        return Layout(finished)
    plans = [Layout(plan8) for name in store.names(RUN) if (plan8 := plan8_of_folder(name))]
    with_parts = {plan8_of_part(name) for name in parts}
    return max(
        plans,
        key=lambda names: (names.plan8 in with_parts, str(_last_epoch(store, names).get("heartbeat", ""))),
        default=None,
    )


def _plan(store: Store, names: Layout) -> Plan:
    document = decode(store.read(names.plan))
    try:
        return Plan.from_document(document or {})
    except (KeyError, TypeError, ValueError, IndexError):
        raise OutputError(f"cannot read the status of '{store.url}': '{names.plan}' is missing or not whole") from None


def _last_epoch(store: Store, names: Layout) -> dict[str, Any]:
    number = max((epoch_of_name(name) for name in store.names(names.epochs)), default=0)
    return decode(store.read(names.epoch(number))) or {} if number else {}


def _failures(store: Store, names: Layout, last: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that receipts tell of, and those of shards that have no receipt yet."""
    receipts = [f"{names.receipts}/{name}" for name in store.names(names.receipts)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="status") as threads:
        for receipt in threads.map(lambda path: decode(store.read(path)) or {}, receipts):
            yield from receipt.get("failures", ())
    yield from last.get("failures", ())
