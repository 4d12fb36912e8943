"""The Manifest: a Plan and all its Receipts, written last, with the proof that every row is in exactly one part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from jobs.attempt import LEFT_OUT, ODD, Receipt
from jobs.errors import InternalError, offenders
from jobs.numerics import UNKNOWN, Numerics
from jobs.plan import PROTOCOL_VERSION, Plan, Shard
from jobs.versions import UNRECORDED, Versions
from jobs.words import counted

_Value = TypeVar("_Value")


def manifest(plan: Plan, receipts: Iterable[Receipt], epoch: int, part_names: Iterable[str]) -> dict[str, Any]:
    """Prove that the output is complete and list it.

    receipts:    one for each shard, in any order.
    epoch:       of the driver that finishes the job.
    part_names:  every `part-*` that the output holds.
    raises:      InternalError naming each shard and part that breaks the proof.
    """
    given = list(receipts)
    problems = [*_shards(plan, given), *_rows(plan, given), *_names(given, Counter(list(part_names)))]
    if problems:
        raise InternalError(
            f"cannot finish plan '{plan.id}': the output is not proven complete:\n{offenders(problems)}"
        )
    ordered = sorted(given, key=lambda receipt: receipt.shard)
    numerics = _numbered(receipt.numerics for receipt in ordered)
    versions = _numbered(receipt.versions for receipt in ordered)
    return {
        "v": PROTOCOL_VERSION,
        "plan_id": plan.id,
        "epoch": epoch,
        "totals": totals(ordered),
        "numerics": [one.document() for one in numerics],
        "versions": [one.document() for one in versions],
        "parts": [
            _part(plan, plan.shards[receipt.shard], receipt)
            | ({"numerics": at} if (at := numerics[receipt.numerics]) else {})  # most often there is but one
            | ({"versions": at} if (at := versions[receipt.versions]) else {})
            for receipt in ordered
        ],
    }


def _numbered(values: Iterable[_Value]) -> dict[_Value, int]:
    """Each once, in the order in which they come, with its place in that order."""
    return {value: at for at, value in enumerate(dict.fromkeys(values))}


def totals(receipts: Sequence[Receipt]) -> dict[str, int]:
    return {
        "parts": len(receipts),
        "rows_in": sum(receipt.rows_in for receipt in receipts),
        "rows_out": sum(receipt.rows_out for receipt in receipts),
        "rows_rejected": sum(receipt.rows_rejected for receipt in receipts),
        **({LEFT_OUT: left_out} if (left_out := sum(receipt.rows_left_out for receipt in receipts)) else {}),
        "bytes": sum(receipt.size for receipt in receipts),
    }


def receipts_of(document: Mapping[str, Any]) -> list[Receipt]:
    """The receipts that a manifest was made of, as far as it tells; its parts are in the order of the shards."""
    numerics = [Numerics.from_document(one) for one in document.get("numerics", [])] or [UNKNOWN]
    versions = [Versions.from_document(one) for one in document.get("versions", [])] or [UNRECORDED]
    return [
        Receipt(
            shard=index,
            attempt=part["attempt"],
            number=0,
            epoch=document["epoch"],
            part=part["name"],
            size=part["size"],
            sha256=part["sha256"],
            rows_in=part["rows_in"],
            rows_out=part["rows_out"],
            rows_rejected=part["rows_rejected"],
            adopted=True,
            reject_file=part.get("reject_file", ""),
            codes=part.get("codes", {}),
            bad_files=part.get("bad_files", {}),
            **{name: part.get(name, 0) for name in (*ODD, LEFT_OUT)},
            numerics=numerics[part.get("numerics", 0)],
            versions=versions[part.get("versions", 0)],
        )
        for index, part in enumerate(document["parts"])
    ]


def _part(plan: Plan, shard: Shard, receipt: Receipt) -> dict[str, Any]:
    return {
        "name": receipt.part,
        "size": receipt.size,
        "sha256": receipt.sha256,
        "rows_in": receipt.rows_in,
        "rows_out": receipt.rows_out,
        "rows_rejected": receipt.rows_rejected,
        "attempt": receipt.attempt,
        "inputs": [
            {
                "url": plan.files[cut.file].url,
                "row_groups": [cut.first, cut.stop],
                "rows": _slice_rows(plan, cut.file, cut),
            }
            for cut in shard.slices
        ],
        **_losses(receipt),
    }


def _losses(receipt: Receipt) -> dict[str, Any]:
    """Of a part with rows that are set aside, or NaN, only: most have none, and a manifest may list a million parts."""
    facts = {name: getattr(receipt, name) for name in (LEFT_OUT, "reject_file", "codes", "bad_files", *ODD)}
    return {name: value for name, value in facts.items() if value}


def _slice_rows(plan: Plan, file: int, cut: Any) -> int:
    return sum(group.rows for group in plan.files[file].row_groups[cut.first : cut.stop])


def _shards(plan: Plan, receipts: Sequence[Receipt]) -> Iterable[str]:
    """Exactly one receipt for each shard, and none for another."""
    counts = Counter(receipt.shard for receipt in receipts)
    for shard in plan.shards:
        if counts[shard.index] != 1:
            yield f"shard {shard.index} has {counted(counts[shard.index], 'receipt')}, expected 1"
    for index in sorted(set(counts) - set(range(len(plan.shards)))):
        yield f"a receipt names shard {index}, the plan has {counted(len(plan.shards), 'shard')}"


def _rows(plan: Plan, receipts: Sequence[Receipt]) -> Iterable[str]:
    """rows_in = rows_out + rows_rejected + rows_left_out = planned rows."""
    for receipt in receipts:
        if not 0 <= receipt.shard < len(plan.shards):
            continue
        planned = plan.shards[receipt.shard].rows
        if not receipt.accounted or receipt.rows_in != planned:
            left_out = f", {receipt.rows_left_out} left out" if receipt.rows_left_out else ""
            yield (
                f"shard {receipt.shard}: {planned} rows planned, {receipt.rows_in} read, {receipt.rows_out} written, "
                f"{receipt.rows_rejected} rejected{left_out}"
            )


def _names(receipts: Sequence[Receipt], listed: Mapping[str, int]) -> Iterable[str]:
    """The parts that exist are the parts that the receipts name, each once."""
    counts = Counter(receipt.part for receipt in receipts)
    for name in sorted({*counts, *listed}):
        if counts[name] != listed.get(name, 0) or counts[name] > 1:
            times = counted(listed.get(name, 0), "time")
            yield f"part '{name}' is named by {counted(counts[name], 'receipt')} and listed {times}"
