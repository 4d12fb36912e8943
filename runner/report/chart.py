"""Drawings for the page of a run, as SVG text: a timeline, a curve, stacked bars.

Colours are classes of the page's style sheet, so that light and dark are its business. Every text is escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

from jobs.words import counted
from runner.measure.history import Span

WIDTH = 960  # of every drawing, in its own units: it scales with the page
_LEFT, _RIGHT = 72, 12  # margins
_LANE, _BAR = 22, 14
_MOST_LANES = 60
_MOST_BARS = 3000  # beyond, neighbours are drawn as one
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)


def _x(at: float, seconds: float) -> float:
    return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * at / max(seconds, 1e-9), 2)


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def _time_axis(seconds: float, top: float, bottom: float) -> list[str]:
    """Lines at round times, named below."""
    step = next((step / 10 for step in _STEPS if seconds / (step / 10) <= 10), 0.0)
    step = step or next((step for step in _STEPS if seconds / step <= 10), seconds / 8)
    parts = []
    for number in range(int(seconds / step) + 1):
        x = _x(number * step, seconds)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{top:g}" y2="{bottom:g}" class="grid"/>')
        parts.append(text(x, bottom + 14, clock(number * step), "axis", "middle"))
    return parts


def clock(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3:20`, `2:05:00`."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def timeline(spans: Sequence[Span], seconds: float) -> str:
    """A lane for each worker, a bar for each attempt: dark while it computes, light while it is published."""
    lanes = list(dict.fromkeys(span.worker for span in spans))
    shown = {worker: lane for lane, worker in enumerate(lanes[:_MOST_LANES])}
    bottom = _LANE * max(1, len(shown)) + 4
    parts = _time_axis(seconds, 0, bottom)
    parts += [text(_LEFT - 8, _LANE * lane + 16, worker, "lane", "end") for worker, lane in shown.items()]
    for bar in _thinned([span for span in spans if span.worker in shown], seconds):
        y = _LANE * shown[bar[0].worker] + 5
        parts.append(_bar(bar, y, seconds))
    if len(lanes) > len(shown):
        parts.append(text(_LEFT, bottom + 32, f"and {counted(len(lanes) - len(shown), 'more worker')}", "axis"))
    return _svg(bottom + 40, f"timeline of {counted(len(spans), 'attempt')} on {counted(len(lanes), 'worker')}", parts)


def _thinned(spans: Sequence[Span], seconds: float) -> list[list[Span]]:
    """Each bar with the spans it stands for: one, or neighbours of one kind where there are too many."""
    if len(spans) <= _MOST_BARS:
        return [[span] for span in spans]
    slots = _MOST_BARS / max(1, len({span.worker for span in spans}))
    ordered = sorted(spans, key=lambda span: (span.worker, span.began))
    kinds = groupby(ordered, lambda span: (span.worker, span.outcome, int(slots * span.began / max(seconds, 1e-9))))
    return [list(group) for _, group in kinds]


def _bar(spans: Sequence[Span], y: float, seconds: float) -> str:
    first, last = spans[0], spans[-1]
    left, middle, right = _x(first.began, seconds), _x(last.computed, seconds), _x(last.ended, seconds)
    kind = first.outcome if first.number == 1 or first.outcome != "published" else "retried"
    what = f"shard {first.shard}, attempt {first.number}" if len(spans) == 1 else f"{len(spans)} shards"
    rows = sum(span.rows for span in spans)
    title = (
        f"{what} on {first.worker}: {first.outcome}, {counted(rows, 'row')}, {first.began:.2f} s to {last.ended:.2f} s"
    )
    tail = f'<rect x="{middle}" y="{y}" width="{max(right - middle, 0):.2f}" height="{_BAR}" class="{kind} tail"/>'
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect x="{left}" y="{y}" width="{max(middle - left, 1.2):.2f}" height="{_BAR}" rx="2" class="{kind}"/>'
        f"{tail if right > middle else ''}</g>"
    )


def rates(spans: Sequence[Span], seconds: float, bins: int = 120) -> list[float]:
    """Rows/s over time: the rows of each attempt, spread over the time it computed."""
    width = max(seconds, 1e-9) / bins
    rows = [0.0] * bins
    for span in spans:
        if not span.rows:
            continue
        length = max(span.computed - span.began, 1e-9)
        first = min(max(int(span.began / width), 0), bins - 1)
        last = min(max(int(span.computed / width), first), bins - 1)
        for at in range(first, last + 1):
            inside = min(span.computed, (at + 1) * width) - max(span.began, at * width)
            rows[at] += span.rows * (max(inside, 0.0) / length if last > first else 1.0)
    return [count / width for count in rows]


def curve(values: Sequence[float], seconds: float, marks: Mapping[str, float]) -> str:
    """An area over time. marks: name -> height of a dashed line."""
    height, top = 180, 8
    most = max([*values, *marks.values(), 1e-9]) * 1.08

    def y(value: float) -> float:
        return round(top + height * (1 - value / most), 2)

    parts = _time_axis(seconds, top, top + height)
    for share in (0.0, 0.5, 1.0):
        parts.append(text(_LEFT - 8, y(most * share / 1.08) + 4, short(most * share / 1.08), "axis", "end"))
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    points = "".join(
        f"L{_LEFT + step * at:.2f},{y(value)}L{_LEFT + step * (at + 1):.2f},{y(value)}"
        for at, value in enumerate(values)
    )
    parts.append(f'<path d="M{_LEFT},{y(0)}{points}L{WIDTH - _RIGHT},{y(0)}Z" class="area"/>')
    for number, (name, value) in enumerate(marks.items()):  # at both ends in turn: two may lie on one another
        x, anchor = (_LEFT + 4, "start") if number % 2 else (WIDTH - _RIGHT - 4, "end")
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value)}" y2="{y(value)}" class="mark"/>')
        parts.append(text(x, y(value) - 5, f"{name}: {short(value)} rows/s", "axis", anchor))
    return _svg(top + height + 24, "rows per second over time", parts)


def short(value: float) -> str:
    """`950`, `12.5 k`, `3.1 M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def stacked(rows: Mapping[str, Mapping[str, float]]) -> str:
    """A bar for each row, made of its parts, each of the class 's-<part>'; as long as its share of the longest."""
    longest = max([sum(parts.values()) for parts in rows.values()] or [0.0]) or 1e-9
    drawn: list[str] = []
    for lane, (name, parts) in enumerate(rows.items()):
        x, y = float(_LEFT), _LANE * lane + 5
        drawn.append(text(_LEFT - 8, y + 11, name, "lane", "end"))
        for part, seconds in parts.items():
            width = (WIDTH - _LEFT - _RIGHT) * seconds / longest
            title = escape(f"{name}: {part} {seconds:.2f} s ({seconds / (sum(parts.values()) or 1e-9):.0%})")
            drawn.append(
                f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_BAR}" class="s-{escape(part)}">'
                f"<title>{title}</title></rect>"
            )
            x += width
    return _svg(_LANE * max(1, len(rows)) + 8, "where the time of the workers went", drawn)
