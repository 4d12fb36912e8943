"""The account of a run as one page for people: self-contained, without scripts, readable without a network.

Owns words and looks; the figures are `runner.measure`'s. The invariant: every text from outside is
escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from jobs.attempt import Failure
from jobs.numerics import Numerics
from runner.measure.account import Account, Heading
from runner.measure.ceiling import Bottleneck, Ceilings, Use
from runner.measure.history import History, Span
from runner.measure.place import Place
from runner.measure.stage import COMPUTE
from runner.report.chart import curve, rates, stacked, timeline
from runner.report.text import byte_count, changed_inputs, duration, odd_inputs, rate

_BARS = ("run", "feed", "fetch", "wait_read", "wait_write", "idle")
_MEANING = {
    "read": "bytes of row groups fetched from the store, by the reader threads",
    "decode": "row groups decoded, by the reader threads",
    "idle": "no attempt in hand, or all were being published",
    "tune": "the model measured alone, to find the batch size",
    "wait_read": "the model waited for row groups",
    "feed": "columns made into tensors",
    "run": "the model ran",
    "fetch": "tensors made into columns",
    "wait_write": "the model waited for the encoder",
    "encode": "rows encoded and compressed, by the writer thread",
    "wait_encode": "the rest of a part was encoded, while the next attempt ran",
    "publish": "parts closed, read back, hashed and given their names, while the next attempt ran",
}

_STYLE = """
:root{color-scheme:light dark;--ground:#fbfbfa;--card:#fff;--ink:#1c2024;--soft:#667079;--line:#e3e6e8;--accent:#2f6fbb;
--good:#2f8f5b;--warn:#b7791f;--bad:#c0392b;--run:#2f6fbb;--feed:#5aa9c9;--fetch:#8cc7d8;--wait:#e0a33a;--write:#cf6a3d;
--idle:#b9c0c6}
@media (prefers-color-scheme:dark){:root{--ground:#14171a;--card:#1c2024;--ink:#e7eaec;--soft:#98a2ab;--line:#2e343a;
--accent:#6aa7ec;--good:#5cc08a;--warn:#e2b055;--bad:#ef7a6c;--run:#6aa7ec;--feed:#4f97b4;--fetch:#7dbccd;--wait:#e2b055;
--write:#e08a5e;--idle:#59636c}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:22px;margin:0 0 2px;letter-spacing:-.01em}h2{font-size:15px;margin:0 0 10px}
p{margin:0}.soft,.axis,.lane{color:var(--soft);fill:var(--soft)}
.mono{font:13px/1.5 ui-monospace,Menlo,monospace;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin-top:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-top:16px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.tile b{display:block;font-size:19px;white-space:nowrap;font-weight:600;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.call{border-left:4px solid var(--accent)}.call p+p{margin-top:4px;color:var(--soft)}
.ended{display:inline-block;padding:1px 10px;border-radius:99px;font-size:13px;color:#fff;background:var(--good)}
.ended.not{background:var(--bad)}
svg{display:block;width:100%;height:auto}svg text{font-size:11px;font-family:inherit}
.grid{stroke:var(--line)}.mark{stroke:var(--soft);stroke-dasharray:5 4}.area{fill:var(--accent);opacity:.75}
.published{fill:var(--accent)}.retried{fill:var(--warn)}.failed,.lost{fill:var(--bad)}.adopted{fill:var(--idle)}.tail{opacity:.4}
.s-run{fill:var(--run)}.s-feed{fill:var(--feed)}.s-fetch{fill:var(--fetch)}.s-wait_read{fill:var(--wait)}
.s-wait_write{fill:var(--write)}.s-idle{fill:var(--idle)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;margin-top:8px;font-size:13px;color:var(--soft)}
.legend svg{display:inline-block;width:11px;height:11px;margin-right:6px;vertical-align:-1px}
.scroll{overflow-x:auto;margin-top:10px}table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--soft);font-weight:500}td.n,th.n{text-align:right}
th,td{padding:5px 10px;border-bottom:1px solid var(--line);vertical-align:top}tr:last-child td{border-bottom:0}
"""


def page(head: Heading, account: Account, history: History, failures: Sequence[Failure]) -> str:
    """The page as HTML. failures: the last ones."""
    spans = list(history.spans())
    seconds = max([span.ended for span in spans] or [0.0])
    parts = [
        _header(head),
        _tiles(head, account.reached),
        _call(account.bottleneck),
        _section("Workers over time", timeline(spans, seconds) + _legend(_attempt_kinds(spans))) if spans else "",
        _section("Rows per second", curve(rates(spans, seconds), seconds, _marks(account.reached))) if spans else "",
        _section("Where the time of the model's threads went", _stages(account)) if account.uses else "",
        _section("Workers", _workers(account.uses, account.places)) if account.uses else "",
        _section("What changes numbers", _numerics(account)) if any(map(Numerics.document, account.numerics)) else "",
        _section("Failed attempts", _failures(failures)) if failures else "",
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Run {escape(head.plan_id[:8])}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>\n"


def _header(head: Heading) -> str:
    done = head.ending == "finished"
    badge = f'<span class="ended{"" if done else " not"}">{"finished" if done else "not finished"}</span>'
    why = "" if done else f"<p>{escape(head.ending)}</p>"
    if head.nonfinite_rows:
        why += f"<p>Inputs: {escape(odd_inputs(head.nonfinite_rows, head.unseen_rows))}.</p>"
    if head.changed_rows:
        why += f"<p>Inputs: {escape(changed_inputs(head.changed_rows))}.</p>"
    facts = " · ".join(escape(fact) for fact in (head.ended_at, head.signature, head.model) if fact)
    return (
        f'<header><h1>Run {escape(head.plan_id[:8])} {badge}</h1>{why}<p class="soft">{facts}</p>'
        f'<p class="mono soft">{escape(head.output)}</p></header>\n'
    )


def _tiles(head: Heading, reached: Ceilings) -> str:
    before = head.rows_before
    tiles = [
        (f"{head.rows_run:,}", "rows in this run" + (f", {before:,} before" if before else "")),
        (duration(head.seconds), "from start to end"),
        (rate(reached.rows_per_s), "while working"),
        (f"{reached.of_compute:.0%}" if reached.compute else "not known", "of what the model reaches alone"),
        (f"{reached.of_machine:.0%}" if reached.machine else "not known", "of what the cores reach"),
        (f"{head.shards_done:,} of {head.shards:,}", f"shards done, {head.retries} retried"),
    ]
    inside = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles
    )
    return f'<div class="tiles">{inside}</div>\n'


def _call(held_by: Bottleneck) -> str:
    sentence, suggestion = (escape(text[:1].upper() + text[1:]) for text in (held_by.sentence, held_by.suggestion))
    more = f"<p>{suggestion}.</p>" if suggestion else ""
    return f'<section class="call"><p><b>{sentence}.</b></p>{more}</section>\n'


def _marks(reached: Ceilings) -> dict[str, float]:
    """The ceilings, as far as they are near enough to leave the curve readable."""
    marks = {"the model alone": reached.compute, "the cores": reached.machine}
    return {name: value for name, value in marks.items() if 0 < value <= 4 * max(reached.rows_per_s, 1e-9)}


def _attempt_kinds(spans: Iterable[Span]) -> dict[str, str]:
    outcomes = {span.outcome for span in spans}
    again = any(span.number > 1 and span.outcome == "published" for span in spans)
    names = {
        "published": "computed, then (light) published",
        "retried": "computed by a later attempt",
        "failed": "failed",
    }
    names |= {"lost": "lost with its worker", "adopted": "found published"}
    return {kind: name for kind, name in names.items() if kind in outcomes or (kind == "retried" and again)}


def _legend(kinds: Mapping[str, str]) -> str:
    swatch = '<svg viewBox="0 0 11 11"><rect width="11" height="11" rx="2" class="{}"/></svg>'
    return (
        f'<div class="legend">{"".join(f"<span>{swatch.format(k)}{escape(v)}</span>" for k, v in kinds.items())}</div>'
    )


def _stages(account: Account) -> str:
    lanes = {
        name: {stage: use.seconds.get(stage, 0.0) for stage in _BARS} for name, use in list(account.uses.items())[:60]
    }
    bars = stacked(lanes) + _legend({f"s-{stage}": stage for stage in _BARS})
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
    return bars + _table(("stage", "all workers", "share", "what was done"), rows, numbers=(1, 2))


def _workers(uses: Mapping[str, Use], places: Mapping[str, Place]) -> str:
    rows = []
    for name, use in uses.items():
        place = places.get(name, Place())
        where = " ".join(str(part) for part in (place.node, place.pid) if part)
        ceiling = rate(use.ceiling) if use.ceiling else "not known"
        sizes = (f"{use.cpus:g}", f"{use.batch_rows:,}", byte_count(use.rss_bytes))
        rows.append((name, where, f"{use.shards:,}", f"{use.rows:,}", ceiling, *sizes))
    heads = ("worker", "node and pid", "shards", "rows", "the model alone", "cpus", "batch rows", "peak memory")
    return _table(heads, rows, numbers=range(2, 8))


def _numerics(account: Account) -> str:
    """Facts and who shares them; first, those in which workers differ."""
    told = "".join(f"<p><b>Workers differ in {escape(str(one))}.</b></p>" for one in account.differences)
    shared: dict[tuple[str, str], list[str]] = {}
    for numerics, workers in account.numerics.items():
        for fact in numerics.facts().items():
            shared.setdefault(fact, []).extend(workers)
    rows = [(name, value, _some(workers)) for (name, value), workers in shared.items()]
    return told + _table(("what", "value", "workers"), rows)


def _some(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _failures(failures: Sequence[Failure]) -> str:
    rows = [(str(one.shard), str(one.number), one.worker, type(one.error).__name__, str(one.error)) for one in failures]
    return _table(("shard", "attempt", "worker", "error", "message"), rows, numbers=(0, 1))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    kinds = [' class="n"' if at in set(numbers) else "" for at in range(len(heads))]
    top = "".join(f"<th{kind}>{escape(head)}</th>" for kind, head in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
