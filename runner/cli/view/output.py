"""How a plan, a status, a proof and a sweep look on a terminal. Words only: the facts come from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from connectors.output.look.below import Below
from connectors.output.look.sweep import Sweep
from connectors.output.status import Status
from connectors.output.verification import Verification
from connectors.secret import redact
from jobs.errors import RunnerError
from jobs.words import counted
from runner.report.console import printable
from runner.report.event_log import told_error
from runner.report.text import byte_count, changed_inputs, duration, odd_inputs, rate

EXIT_CODES = {"finished": 0, "running": 3, "stopped": 4, "incomplete": 4, "absent": 5}  # of `runner status`, by state
_STATE_STYLE = {
    "finished": "bold green",
    "running": "bold cyan",
    "stopped": "bold yellow",
    "absent": "dim",
    "incomplete": "bold red",
}
_MOST_FAILURES = 10
_MOST_PROBLEMS = 50


def render_status(status: Status) -> Group:
    if status.state == "absent":
        return Group(Text.assemble(("absent", "dim"), f"  no job ever wrote to {printable(status.output)}"))
    in_hand = f", {status.rows_in_hand:,} of them in shards that are not done" if status.rows_in_hand else ""
    table = Table.grid(padding=(0, 2))
    table.add_row("output", Text(status.output))
    table.add_row("state", Text(status.state, style=_STATE_STYLE[status.state]) + Text(_state_story(status)))
    if status.error and status.state == "stopped":
        table.add_row("cause", Text(printable(status.error), style="red"))
    if status.variables:
        said = ", ".join(f"{name} = {text}" for name, text in status.variables.items())
        table.add_row("variables", Text(printable(said)))
    table.add_row("rows", f"{status.rows_seen:,} of {status.rows:,} ({status.share:.0%}){in_hand}")
    table.add_row("shards", f"{status.shards_done:,} of {status.shards:,}, {byte_count(status.bytes)} in parts")
    table.add_row("attempts", f"{status.attempts:,}, {status.retries:,} failed and were or will be repeated")
    if status.rows_left_out:
        table.add_row("left out", counted(status.rows_left_out, "row"))
    if status.rows_rejected:
        causes = ", ".join(f"{count:,} {code}" for code, count in status.codes.items())
        table.add_row("rejected", Text(f"{counted(status.rows_rejected, 'row')} ({causes})", style="yellow"))
    if status.bad_files:
        table.add_row("bad files", Text("\n".join(_bad_files(status.bad_files)), style="yellow"))
    if status.nan_rows:
        table.add_row("NaN", f"in {counted(status.nan_rows, 'row')}")
    if status.nonfinite_rows:
        table.add_row("odd inputs", Text(odd_inputs(status.nonfinite_rows, status.unseen_rows), style="yellow"))
    if status.changed_rows:
        table.add_row("changed", Text(changed_inputs(status.changed_rows), style="yellow"))
    if status.rows_per_s:
        table.add_row("rate", rate(status.rows_per_s))
    table.add_row("driver", Text(_driver_story(status)))
    if status.warning:
        table.add_row("store", Text(status.warning, style="yellow"))
    table.add_row("plan", status.plan_id)
    return Group(table, *_causes(status))


def exit_code_of(looks: Sequence[Status | RunnerError]) -> int:
    """The worst of several: one that stopped, or cannot be read, before one that runs, before those that finished."""
    codes = [EXIT_CODES[look.state] if isinstance(look, Status) else EXIT_CODES["stopped"] for look in looks]
    return max((code for code in codes if code != EXIT_CODES["absent"]), default=EXIT_CODES["absent"])


def statuses_document(parent: str, below: Below, looks: Sequence[Status | RunnerError]) -> dict[str, Any]:
    """Several outputs at a glance, for scripts. Each has its `name` below the parent."""
    jobs = [
        {"name": name} | (look.document() if isinstance(look, Status) else {"state": "unreadable"} | _failed(look))
        for name, look in zip(below.names, looks, strict=True)
    ]
    return {"output": parent, "jobs": jobs, "cut": below.cut}


def _failed(error: RunnerError) -> dict[str, Any]:
    return {"error": told_error(error)}


def render_statuses(below: Below, looks: Sequence[Status | RunnerError]) -> Group:
    """A line for each output, and what is left out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("job", "state", "rows", "done", "shards", "retried", "rejected", "last heard"):
        table.add_column(
            name,
            justify="left" if name in ("job", "state") else "right",
            overflow="fold" if name == "job" else "ellipsis",
        )
    unread = []
    for name, look in zip(below.names, looks, strict=True):
        job = Text(printable(name))
        if isinstance(look, RunnerError):
            table.add_row(job, Text("unreadable", style="bold red"))
            unread.append(Text(printable(f"{name}: {redact(str(look))}"), style="red"))
            continue
        heard = duration(look.heartbeat_age_s) + " ago" if look.heartbeat_age_s is not None else look.heartbeat
        figures = (
            f"{look.rows_seen:,} of {look.rows:,}",
            f"{look.share:.0%}",
            f"{look.shards_done:,} of {look.shards:,}",
            f"{look.retries:,}",
            f"{look.rows_rejected:,}",
            heard,
        )
        table.add_row(job, Text(look.state, style=_STATE_STYLE[look.state]), *figures)
    cut = [Text(f"not all: {below.cut}", style="yellow")] if below.cut else []
    return Group(table, *unread, *cut)


def _bad_files(files: Mapping[str, str]) -> list[str]:
    lines = [printable(f"{redact(url)}: {why}") for url, why in list(files.items())[:_MOST_FAILURES]]
    return lines + ([f"and {len(files) - _MOST_FAILURES:,} more"] if len(files) > _MOST_FAILURES else [])


def _state_story(status: Status) -> str:
    match status.state:
        case "running" if status.heartbeat_age_s is not None:
            return f", last heard {duration(status.heartbeat_age_s)} ago"
        case "incomplete":
            return f": {status.damage}; the same command with --repair computes it again, see also runner verify"
        case "stopped":
            return f" ({status.ended or 'no driver was heard of lately'}); run the same command to continue"
    return ""


def _driver_story(status: Status) -> str:
    if not status.epoch:
        return "none yet"
    return f"epoch {status.epoch}, {status.host} pid {status.pid}, since {status.started or '?'}"


def _causes(status: Status) -> list[Any]:
    """The last failures, and how often each class of them came."""
    if not status.failures:
        return []
    counts = Counter(str(one.get("error", "?")) for one in status.failures)
    head = Text("\nretried: " + ", ".join(f"{count:,} x {name}" for name, count in counts.most_common()))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("shard", "attempt", "worker", "cause"):
        table.add_column(name, justify="right" if name in ("shard", "attempt") else "left")
    for one in status.failures[-_MOST_FAILURES:]:
        table.add_row(*(Text(str(one.get(key, ""))) for key in ("shard", "number", "worker", "message")))
    return [head, table]


def render_verification(verified: Verification) -> Group:
    rows, parts = counted(verified.rows, "row"), counted(verified.parts, "part")
    counts = f"{verified.rows_found:,} of {rows} in {verified.parts_found:,} of {parts} ({byte_count(verified.bytes)})"
    rejected = f", and {verified.rows_rejected:,} in reject files" if verified.rows_rejected else ""
    if verified.rows_left_out:
        rejected += f", {verified.rows_left_out:,} left out as the job says"
    skipped = [Text(f"left out as bad: {line}", style="yellow") for line in _bad_files(verified.files_skipped)]
    if verified.holds:
        how = "every byte read again, all checksums agree" if verified.deep else "by headers and counts"
        unknown = (
            f" (but for {counted(verified.unchecked, 'part')} whose SHA-256 was not kept)" if verified.unchecked else ""
        )
        return Group(
            Text.assemble(("holds: ", "bold green"), f"every input row is in exactly one place: {counts}{rejected}"),
            Text(f"{how}{unknown}"),
            *skipped,
        )
    kinds = Counter(problem.kind for problem in verified.problems)
    said = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    lines = [Text(printable(f"  {one.kind:<10} {one.name}: {one.story}")) for one in verified.problems[:_MOST_PROBLEMS]]
    if len(verified.problems) > _MOST_PROBLEMS:
        lines.append(Text(f"  and {len(verified.problems) - _MOST_PROBLEMS:,} more; --json lists them all"))
    if verified.finished and kinds.keys() & {"missing", "altered"}:
        lines.append(Text("the same command with --repair computes again what is missing or altered"))
    return Group(Text.assemble(("does not hold: ", "bold red"), f"{said}; {counts}{rejected}"), *lines, *skipped)


def render_sweep(swept: Sweep) -> Group:
    verb = "would remove" if swept.dry_run else "removed"
    total = sum(one.bytes for one in swept.removed)
    plans = sum(one.of == "plan" for one in swept.removed)
    of = [(len(swept.removed) - plans, "folder of dead attempts", "folders of dead attempts")]
    of += [(plans, "old plan", "old plans")] if plans else []
    what = f"{' and '.join(counted(*one) for one in of if one[0] or not plans)} ({byte_count(total)})"
    head = f"{verb} {what} from {swept.output}"
    lines = [
        Text(
            printable(
                f"  kept     {one.name}: {one.kept}"
                if one.kept
                else f"  {verb}  {one.name}: {counted(one.files, 'file')}, {byte_count(one.bytes)}"
            )
        )
        for one in swept.leftovers
    ]
    return Group(Text(head if swept.leftovers else f"nothing to remove in {swept.output}"), *lines)
