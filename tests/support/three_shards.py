"""An output of three shards with 4, 5 and 6 rows, and the steps of a job on it: what its tests share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from connectors.output.directory import Claim, OutputDirectory
from jobs.attempt import Attempt, Receipt, Success, attempt
from jobs.plan import InputFile, Plan, RowGroup, plan
from jobs.section.limits import Limits
from jobs.section.output import Output

SCHEMA = pa.schema([pa.field("id", pa.int64())])
IDENTITY = {"model": {"digest": "aa"}, "columns": {"keep": ["id"]}}


def plan_of(identity: Mapping[str, Any] = IDENTITY, size: int = 10) -> Plan:
    """Three shards of 4, 5 and 6 rows."""
    files = [
        InputFile("/in/a", size, "v", (RowGroup(4, 1), RowGroup(5, 1))),
        InputFile("/in/b", 10, "v", (RowGroup(6, 1),)),
    ]
    return plan(files, Limits(shard_bytes=1), dict(identity))


PLAN = plan_of()


def opened(out: Output, planned: Plan = PLAN) -> OutputDirectory:
    return OutputDirectory(out, planned.id, len(planned.shards))


def attempt_of(shard: int, nonce: str = "0" * 12, number: int = 1) -> Attempt:
    return attempt(PLAN, PLAN.shards[shard], number, 1, nonce)


def rows(count: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(count), pa.int64())], schema=SCHEMA)


def work(directory: OutputDirectory, shard: int, nonce: str = "0" * 12, number: int = 1) -> Receipt:
    tried = attempt_of(shard, nonce, number)
    with directory.open_part(tried, SCHEMA, "digest", "worker-1") as part:
        part.write(rows(2))
        part.write(rows(tried.rows - 2))
        return part.publish()


def killed(directory: OutputDirectory) -> OutputDirectory:
    """As if the driver that claimed `directory` last had been killed on this machine."""
    epoch = directory.epochs.numbers()[-1]
    name = f"_run/{PLAN.id[:8]}/epochs/{epoch:06d}.json"
    document = json.loads(directory.store.read(name) or b"")
    directory.store.replace(name, json.dumps(document | {"born": "of a process that is gone"}).encode())
    return directory


def finish_all(directory: OutputDirectory) -> Claim:
    claim = directory.claim(PLAN)
    receipts = {shard: work(directory, shard) for shard in range(3)}
    for receipt in receipts.values():
        directory.record(Success(receipt), [])
    directory.finish(PLAN, receipts, claim.epoch)
    return claim


def snapshot(directory: OutputDirectory, folder: str = "") -> dict[str, bytes | None]:
    """Every file below `folder` with its content."""
    found: dict[str, bytes | None] = {}
    for name in directory.store.names(folder):
        path = f"{folder}/{name}".strip("/")
        found |= snapshot(directory, path) if name.endswith("/") else {path: directory.store.read(path)}
    return found
