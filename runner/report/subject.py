"""What a run was about, for its page: what was set aside, what went in, the mapping, what ran where, earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jobs.words import counted
from runner.measure.account import Account, Heading
from runner.measure.place import Place
from runner.measure.subject import Earlier, Subject
from runner.report.part import note, section, table
from runner.report.text import byte_count, duration, short_rate


def rejected(subject: Subject, output: str) -> str:
    """Rows by code and files by cause, and the command that shows them; nothing where there are none."""
    parts = []
    if subject.rows_rejected:
        parts.append(table(("code", "rows"), [(code, f"{rows:,}") for code, rows in subject.codes.items()], (1,)))
        told = f"Each with its place and its reason: runner rejects {output}"
        parts.append(note(f"{told} · files: {subject.reject_files}" if subject.reject_files else told))
    if subject.bad_files:
        parts.append(table(("file", "why"), list(subject.bad_files.items())))
    if not parts:
        return ""
    what = [counted(subject.rows_rejected, "row")] if subject.rows_rejected else []
    what += [counted(len(subject.bad_files), "bad file")] if subject.bad_files else []
    return section(f"Set aside: {' and '.join(what)}", "".join(parts))


def about(head: Heading, subject: Subject) -> str:
    """What went in, and which column became which tensor."""
    if not subject.files and not subject.columns:
        return ""
    told = (
        f"{counted(head.rows, 'row')} in {counted(subject.row_groups, 'row group')} of"
        f" {counted(subject.files, 'file')} ({byte_count(subject.bytes)}), cut into {counted(head.shards, 'shard')}"
    )
    told += f"; {counted(subject.rows_left_out, 'row')} left out" if subject.rows_left_out else ""
    more = subject.files - len(subject.inputs)
    names = [*subject.inputs, *([f"and {counted(more, 'more file')}"] if more > 0 else [])]
    files = "".join(f"<p>{escape(name)}</p>" for name in names)
    named = "".join(f"<p>{escape(name)} = {escape(text)}</p>" for name, text in subject.variables.items())
    below = f'<div class="mono soft">{named}{files}</div>'
    parts = [section("Input", f"<p>{escape(told)}.</p>{below}")] if subject.files else []
    if subject.columns:
        heads = list(subject.columns[0])
        rows = [[str(row.get(name, "")) for name in heads] for row in subject.columns]
        parts.append(section("Mapping", table(heads, rows)))
    return "".join(parts)


def where(account: Account, subject: Subject) -> str:
    """The driver and the workers: where they lived, what they did, and with which versions."""
    driver = f"{subject.host} {subject.pid}" if subject.pid else ""
    rows = []
    for name, use in sorted(account.uses.items(), key=lambda pair: (len(pair[0]), pair[0])):
        place, load = account.places.get(name, Place()), account.loads.get(name)
        node = " ".join(str(part) for part in (place.node, place.pid) if part) or driver
        ceiling = f"{short_rate(use.ceiling)} rows/s" if use.ceiling else "not known"
        sizes = (f"{use.cpus:g}", f"{use.batch_rows:,}", byte_count(use.rss_bytes))
        took = duration(load[1] - load[0]) if load else ""
        rows.append((name, node, ", ".join(place.devices), took, f"{use.shards:,}", f"{use.rows:,}", ceiling, *sizes))
    heads = ("worker", "host and pid", "devices", "start and load", "shards", "rows", "the model alone")
    lived = table((*heads, "cpus", "batch rows", "peak memory"), rows, numbers=range(3, 10)) if rows else ""
    return lived + _versions(account, subject, driver)


def _versions(account: Account, subject: Subject, driver: str) -> str:
    """Of the driver, and of each kind of worker what it said of itself."""
    names = [*subject.versions, "processor"]
    installed = {name: kind.document() for kind, workers in account.versions.items() for name in workers}
    rows = [(f"driver {driver}".rstrip(), *subject.versions.values(), "")]
    for numerics, workers in account.numerics.items():
        loaded = {"tensorflow": numerics.tensorflow, "processor": numerics.gpu or numerics.cpu}
        known = installed.get(next(iter(workers), ""), {}) | {name: value for name, value in loaded.items() if value}
        if any(known.values()):
            rows.append(
                (", ".join(sorted(workers, key=lambda name: (len(name), name))), *(known.get(n, "") for n in names))
            )
    return table(("versions of", *names), rows) if subject.versions or len(rows) > 1 else ""


def earlier_runs(before: Sequence[Earlier], folder: str) -> str:
    """folder: where their reports are, seen from the page."""
    rows = ""
    for run in before:
        done = "" if run.rows_done is None else f"{run.rows_done:,}"
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in (str(run.epoch), run.began, run.heard, run.ending))
        link = f'<a href="{escape(folder + run.page)}">report</a>' if run.page else "left none"
        rows += f'<tr>{cells}<td class="n">{escape(done)}</td><td>{link}</td></tr>'
    heads = "".join(f"<th>{head}</th>" for head in ("run", "began", "last heard", "ended"))
    head = f'{heads}<th class="n">rows done by then</th><th>report</th>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
