"""How a plan looks: what will be read and called, and which column feeds which tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from connectors.secret import redact
from jobs.section.input import Input
from jobs.words import counted
from runner.preflight.preflight import Preflight
from runner.report.console import printable
from runner.report.text import byte_count
from runner.scan.xla.module import sentence

_KEPT_ROWS = 100  # of one type in succession; more become one row


def plan_document(ready: Preflight) -> dict[str, Any]:
    """A plan as plain values, for scripts."""
    plan = ready.plan
    return {
        "plan_id": plan.id,
        **_models(ready),
        "variables": dict(plan.variables),
        "warnings": list(ready.warnings),
        "notes": list(ready.notes),
        "columns": ready.binding.describe(),
        "output_schema": {field.name: str(field.type) for field in ready.binding.output_schema},
        "files": len(plan.files),
        "files_skipped": plan.skipped,
        "files_left_out": ready.inputs.left_out,
        "table": _table(ready.job.input),
        "selection": _selection(ready),
        "bytes_on_store": sum(file.size for file in plan.files),
        "row_groups": sum(len(file.row_groups) for file in plan.files),
        "rows": plan.rows,
        "decoded_bytes": plan.decoded_bytes,
        "shards": len(plan.shards),
        "batch_rows": ready.batch_rows,
        "modules": [module.document() for module in ready.scanned.modules],
        "batching": None if ready.scanned.batching is None else ready.scanned.batching.document(),
        "output": ready.job.output.url,
        "not_written": list(ready.left_out),
        "outlook": ready.outlook.document() if ready.outlook is not None else None,
    }


def _table(rows: Input) -> dict[str, Any] | None:
    """Which table is read, and of which version of it, as a job says it; None where the input is files."""
    if rows.delta:
        return {"delta": rows.delta, "version": rows.version}
    return {"iceberg": rows.iceberg, "snapshot": rows.snapshot} if rows.iceberg else None


def _selection(ready: Preflight) -> dict[str, Any] | None:
    """Which part of the rows is read, and why the others are not; None where the job wants all."""
    rows = ready.job.input
    if rows.where is None and rows.sample is None and rows.limit is None:
        return None
    groups = [group for file in ready.plan.files for group in file.row_groups if group.rows]
    left = {
        "files": sum(1 for file in ready.plan.files if any(group.rows for group in file.row_groups)),
        "row_groups": len(groups),
        "rows": ready.plan.rows,
        "decoded_bytes": ready.plan.decoded_bytes,
    }
    return {
        "where": rows.where,
        "sample": rows.sample,
        "limit": rows.limit,
        "read": left,
        "not_read": ready.dropped.document(),
    }


def _told(selection: dict[str, Any]) -> list[str]:
    """The same in words."""
    read, out = selection["read"], selection["not_read"]
    pruned, beyond = out["by_statistics"], out["by_limit"]
    share = selection["sample"]
    about = "" if selection["limit"] else f", about {(share or 0) * read['rows']:,.0f}"
    rows = f"{counted(read['rows'], 'row')} of {counted(read['row_groups'], 'row group')} of"
    told = [
        f"{rows} {counted(read['files'], 'file')} are read ({byte_count(read['decoded_bytes'])} decoded)",
        f"`where`: {selection['where']}" if selection["where"] else "",
        f"{counted(out['by_partition']['files'], 'file')} not read, by partition"
        if out["by_partition"]["files"]
        else "",
        f"{counted(pruned['row_groups'], 'row group')} with {counted(pruned['rows'], 'row')} not read, by statistics"
        if pruned["row_groups"]
        else "",
        f"`sample`: {share:g} of the rows{about}" if share else "",
        f"`limit`: up to {counted(selection['limit'], 'row')} of these; {counted(beyond['rows'], 'row')} behind unread"
        if selection["limit"]
        else "",
    ]
    return [line for line in told if line]


def _models(ready: Preflight) -> dict[str, Any]:
    """`model`, or `models` by name."""
    found = {
        member.name: {
            "url": member.model.url,
            "version": member.model.version,
            "digest": member.model.digest,
            "tags": list(member.metagraph.tags),
            "signature": member.signature.name,
            "trusted": list(member.scanned.trusted),
        }
        for member in ready.members
    }
    return {"model": found[""]} if "" in found else {"models": found}


def _called(ready: Preflight) -> Iterator[tuple[str, str]]:
    """Each model's head, and what of it is called."""
    for member in ready.members:
        version = f" version {member.model.version}" if member.model.version is not None else ""
        rows = f", {counted(member.batch_rows, 'row')} a call" if member.batch_rows is not None else ""
        tags = ", ".join(member.metagraph.tags)
        signature = f"signature '{member.signature.name}', tags {tags}{rows}"
        yield f"model {member.name}".rstrip(), f"{member.model.url}{version}, {signature}"


def render_plan(ready: Preflight) -> Group:
    facts = plan_document(ready)
    exact = all(group.exact for file in ready.plan.files for group in file.row_groups)
    at_least = "" if exact else "at least "
    head = Table.grid(padding=(0, 2))
    for named, called in _called(ready):
        head.add_row(named, Text(called))
    if plan_variables := ready.plan.variables:
        head.add_row(
            "variables", Text(printable(", ".join(f"{name} = {text}" for name, text in plan_variables.items())))
        )
    head.add_row(
        "input",
        f"{counted(facts['rows'], 'row')} in {counted(facts['row_groups'], 'row group')} of"
        f" {counted(facts['files'], 'file')}"
        f" ({byte_count(facts['bytes_on_store'])}; {at_least}{byte_count(facts['decoded_bytes'])} decoded)",
    )
    if (given := ready.job.input).is_table:
        named = redact(given.delta or given.iceberg or "")
        head.add_row("table", Text(printable(f"{given.table.words} '{named}'")))
    if facts["selection"] is not None:
        head.add_row("part", Text("\n".join(map(printable, _told(facts["selection"])))))
    if ready.inputs.left_out:
        head.add_row("left out", Text(", ".join(_left_out(*one) for one in ready.inputs.left_out.items())))
    if ready.skipped:
        head.add_row("skipped", Text("\n".join(ready.skipped), style="yellow"))
    own = f"; {ready.scanned.batching.sentence()}" if ready.scanned.batching else ""
    rows = f"{'always' if ready.job.limits.reproducible else 'up to'} {counted(facts['batch_rows'], 'row')} a batch"
    head.add_row("work", f"{counted(facts['shards'], 'shard')}, {rows}{own}")
    for member in ready.members:
        if compiled := sentence(member.scanned.modules, member.batch_rows if member.name else ready.binding.batch_rows):
            head.add_row("program", f"{member.name}: {compiled}" if member.name else compiled)
    head.add_row("output", f"{facts['output']} ({ready.job.output.format}, {ready.job.output.compression})")
    if ready.left_out:
        head.add_row("not written", Text(", ".join(ready.left_out)))
    head.add_row("plan", facts["plan_id"])
    if ready.outlook is not None:
        head.add_row("run", Text(printable(ready.outlook.story), style="red" if ready.outlook.error else ""))
    for member in ready.members:
        if member.scanned.trusted:
            which = f"model {member.name}" if member.name else "the model"
            story = f"{', '.join(member.scanned.trusted)}: only because this job trusts {which}"
            head.add_row("trusted", Text(story, "yellow"))
    for story in ready.warnings:
        head.add_row("warning", Text(story, style="yellow"))
    for story in ready.notes:
        head.add_row("note", Text(story))
    return Group(head, Text(), _binding_table(facts["columns"]))


def _left_out(kind: str, names: int) -> str:
    """kind: as in `connectors.store.listing.Below`."""
    return f"{names:,} " + {"hidden": "hidden", "": "without a suffix"}.get(kind, f"ending in '{kind}'")


def _binding_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = list(rows[0]) if rows else []
    for name in names:
        table.add_column(name)
    for row in in_view(rows):
        table.add_row(*(Text(str(row.get(name, ""))) for name in names))
    return table


def in_view(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a binding, with one for very many kept columns that follow each other and are of one type.

    cost: a thousand rows of a table take rich 0.4 s.
    """
    for (role, _, note), some in groupby(rows, lambda row: (row["role"], row["type"], row["note"])):
        alike = list(some)
        if role != "kept" or note or len(alike) <= _KEPT_ROWS:
            yield from alike
        else:
            first, last = alike[0], alike[-1]
            yield first | {"column": f"{first['column']} to {last['column']} ({counted(len(alike), 'column')})"}
