"""The account of a run as one page for people: self-contained, without scripts, readable without a network.

Owns words and looks; the figures are `runner.measure`'s. The invariant: every text from outside is
escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from jobs.attempt import Failure
from jobs.numerics import Numerics
from runner.measure.account import Account, Heading
from runner.measure.ceiling import Ceilings, together
from runner.measure.course import PHASES, phase_sentence
from runner.measure.history import History, Span
from runner.measure.stage import COMPUTE
from runner.measure.subject import Earlier, Subject
from runner.report.chart import Axis, curve, rates, stacked, timeline
from runner.report.part import legend, note, section, table
from runner.report.style import STYLE
from runner.report.subject import about, earlier_runs, rejected, where
from runner.report.text import changed_inputs, compiled_sentence, duration, odd_inputs, short_rate

# Of the model's threads, in the order in which a row group meets them.
_BARS = ("idle", "wait_read", "feed", "pictures", "compile", "run", "fetch", "wait_write")
_MEANING = {
    "read": "bytes of row groups fetched from the store, by the reader threads",
    "decode": "row groups decoded, by the reader threads",
    "idle": "no attempt in hand, or all were being published",
    "tune": "the model measured alone, to find the batch size",
    "wait_read": "the model waited for row groups",
    "feed": "columns made into tensors",
    "pictures": "pictures decoded and resized, on all cores of a worker",
    "compile": "calls with a shape that was new, for which XLA compiled; before the first row too",
    "run": "the model ran",
    "fetch": "tensors made into columns",
    "wait_write": "the model waited for the encoder",
    "encode": "rows encoded and compressed, by the writer thread",
    "wait_encode": "the rest of a part was encoded, while the next attempt ran",
    "publish": "parts closed, read back, hashed and given their names, while the next attempt ran",
}
_BESIDE = (
    "Stages stand in the order in which a row group meets them; times are those of all workers together. Shares are of"
    " the time of the model's threads. Beside: other threads did it meanwhile, or it came before; it is no part of that"
    " time."
)
_RATE = (
    "rows/s, here and in the summary: the rows of this run, by the time from the first shard that was given out to the"
    " last part that was committed, without what was spent on finding the batch size."
)
_LONG = 11  # letters of a figure that need a smaller type to fit their card


def page(
    head: Heading,
    account: Account,
    subject: Subject,
    history: History,
    failures: Sequence[Failure] = (),
    before: Sequence[Earlier] = (),
    latest: bool = True,
) -> str:
    """The page as HTML.

    failures: the last ones. before: the runs of this job before this one, the latest first.
    latest:   it is to lie beside the plan, and not with the reports of all runs: links begin there.
    """
    parts = [
        _header(head, latest),
        _tiles(head, account.reached),
        _call(account),
        rejected(subject, head.output),
        *_over_time(account, list(history.spans())),
        section("Where the time of the model's threads went", _stages(account)) if account.uses else "",
        section("What ran where", where(account, subject)),
        section("What changes numbers", _numerics(account)) if any(map(Numerics.document, account.numerics)) else "",
        about(head, subject),
        section("Failed attempts", _failures(failures)) if failures else "",
        section("Earlier runs of this job", earlier_runs(before, "reports/" if latest else "")) if before else "",
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(_title(head))}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _title(head: Heading) -> str:
    """`digits → scores`: the last names of model and output; a version is no name."""
    models = [[name for name in url.rstrip("/").split("/") if name] for url in head.model.split(", ")]
    model = " and ".join("/".join(names[-2:] if names and names[-1].isdigit() else names[-1:]) for names in models)
    return f"{model or head.model} → {head.output.rstrip('/').rpartition('/')[2] or head.output}"


def _header(head: Heading, latest: bool) -> str:
    done = head.ending == "finished"
    badge = f'<span class="ended{"" if done else " not"}">{"finished" if done else "not finished"}</span>'
    why = "" if done else f"<p>{escape(head.ending)}</p>"
    if head.nonfinite_rows:
        why += f"<p>Inputs: {escape(odd_inputs(head.nonfinite_rows, head.unseen_rows))}.</p>"
    if head.changed_rows:
        why += f"<p>Inputs: {escape(changed_inputs(head.changed_rows))}.</p>"
    ended = head.ended_at.replace("T", " ").replace("+00:00", " UTC")
    facts = (f"plan {head.plan_id[:8]}, run {head.epoch}", f"ended {ended}", f"signature {head.signature}")
    told = " · ".join(map(escape, facts))
    link = "" if latest else ' · <a href="../report.html">the latest run</a>'
    places = "".join(
        f'<p class="mono soft">{name} {escape(url)}</p>'
        for name, url in (("model", head.model), ("output", head.output))
    )
    return f'<header><h1>{escape(_title(head))} {badge}</h1>{why}<p class="soft">{told}{link}</p>{places}</header>\n'


def _tiles(head: Heading, reached: Ceilings) -> str:
    before = head.rows_before
    tiles = [
        (f"{head.rows_run:,}", "rows in this run" + (f", {before:,} before" if before else "")),
        (duration(head.seconds), "from start to end"),
        (short_rate(reached.rows_per_s), "rows/s while working"),
        (f"{reached.of_compute:.0%}" if reached.compute else "not known", "of what the model reaches alone"),
        (f"{reached.of_machine:.0%}" if reached.machine else "not known", "of what the cores reach"),
        (
            f"{head.shards_done:,} of {head.shards:,}",
            f"{'shard' if head.shards == 1 else 'shards'} done, {head.retries:,} retried",
        ),
    ]
    sizes = [' class="long"' if len(value) > _LONG else "" for value, _ in tiles]
    inside = "".join(
        f'<div class="tile"><b{size}>{escape(value)}</b><span>{escape(name)}</span></div>'
        for size, (value, name) in zip(sizes, tiles, strict=True)
    )
    return f'<div class="tiles">{inside}</div>\n'


def _call(account: Account) -> str:
    """What took the time of the command, what held the work, and what would help."""
    course = phase_sentence(account.course.document(), duration(sum(account.course.document().values())))
    sentence, suggestion = account.bottleneck.sentence, account.bottleneck.suggestion
    first, *more = [f"{text[:1].upper()}{text[1:]}." for text in (course, sentence, suggestion) if text]
    rest = "".join(f"<p>{escape(text)}</p>" for text in more)
    return f'<section class="call"><p><b>{escape(first)}</b></p>{rest}</section>\n'


def _over_time(account: Account, spans: Sequence[Span]) -> list[str]:
    """The command as a whole, and the work alone where it would be too small in that to be read."""
    phases = account.course.phases()
    end = max([span.ended for span in spans] + [phase.ended for phase in phases] or [0.0])
    if not end:
        return []
    whole = Axis(0.0, end)
    work = Axis(min((span.began for span in spans), default=0.0), max((span.ended for span in spans), default=end))
    kinds = {f"p-{phase.name}": PHASES[phase.name][1] for phase in phases}
    kinds |= {"p-load": "a worker starts, loads the model and waits until it is tried"} if account.loads else {}
    apart = bool(spans) and work.seconds < whole.seconds / 2
    drawn = timeline([] if apart else spans, whole, phases, account.loads)
    parts = [section("The command over time", drawn + legend(kinds | ({} if apart else _attempt_kinds(spans))))]
    if apart:
        parts.append(section("The work, shard by shard", timeline(spans, work) + legend(_attempt_kinds(spans))))
    if spans:
        drawn = curve(rates(spans, work), work, _marks(account.reached))
        parts.append(section("Rows per second", drawn + note(_RATE)))
    return parts


def _marks(reached: Ceilings) -> dict[str, float]:
    """The ceilings, as far as they are near enough to leave the curve readable."""
    marks = {"the model alone": reached.compute, "the cores": reached.machine}
    return {name: value for name, value in marks.items() if 0 < value <= 4 * max(reached.rows_per_s, 1e-9)}


def _attempt_kinds(spans: Iterable[Span]) -> dict[str, str]:
    outcomes = {span.outcome for span in spans}
    again = any(span.number > 1 and span.outcome == "published" for span in spans)
    names = {
        "published": "a shard, by its number: computed, then (light) published",
        "retried": "computed by a later attempt",
        "failed": "failed",
    }
    names |= {"lost": "lost with its worker", "adopted": "found published"}
    return {kind: name for kind, name in names.items() if kind in outcomes or (kind == "retried" and again)}


def _stages(account: Account) -> str:
    uses = sorted(account.uses.items(), key=lambda pair: (len(pair[0]), pair[0]))  # w2 before w10
    lanes = {name: {stage: use.stages.get(stage, 0.0) for stage in _BARS} for name, use in uses[:60]}
    bars = stacked(lanes) + legend({f"s-{stage}": stage for stage in _BARS})
    seconds = account.seconds
    whole = sum(seconds.get(stage, 0.0) for stage in ("idle", *COMPUTE)) or 1e-9
    rows = [
        (
            stage,
            duration(seconds.get(stage, 0.0)),
            f"{seconds.get(stage, 0.0) / whole:.1%}" if stage in _BARS else "beside",
            meaning,
        )
        for stage, meaning in _MEANING.items()
    ]
    told = table(("stage", "all workers", "share", "what was done"), rows, numbers=(1, 2))
    use = together(account.uses.values())
    compiled = note(f"XLA {compiled_sentence(use)}.") if use.compilations else ""
    return bars + told + compiled + note(_BESIDE)


def _numerics(account: Account) -> str:
    """Facts and who shares them; first, those in which workers differ."""
    told = "".join(f"<p><b>Workers differ in {escape(str(one))}.</b></p>" for one in account.differences)
    shared: dict[tuple[str, str], list[str]] = {}
    for numerics, workers in account.numerics.items():
        for fact in numerics.facts().items():
            shared.setdefault(fact, []).extend(workers)
    rows = [(name, value, _some(workers)) for (name, value), workers in shared.items()]
    return told + table(("what", "value", "workers"), rows)


def _some(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _failures(failures: Sequence[Failure]) -> str:
    rows = [(str(one.shard), str(one.number), one.worker, type(one.error).__name__, str(one.error)) for one in failures]
    return table(("shard", "attempt", "worker", "error", "message"), rows, numbers=(0, 1))
