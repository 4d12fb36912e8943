"""Drawings for the page of a run, as SVG text: a timeline, a curve, stacked bars.

Colours are classes of the page's style sheet, so that light and dark are its business. Every text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from jobs.words import counted
from runner.measure.course import PHASES, Phase
from runner.measure.history import Span

WIDTH = 960  # of every drawing, in its own units: it scales with the page
_LEFT, _RIGHT = 72, 12  # margins
_LANE, _BAR = 24, 16
_NAMED_LANE = 34  # of a worker: the numbers of its shards stand below their bars
_MOST_LANES = 60
_MOST_BARS = 3000  # beyond, neighbours are drawn as one
_LETTER = 6.2  # the width of a digit, in the drawings' own units
_ROUND_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)  # above a second
_MOST_TICKS = 10


@dataclass(frozen=True, slots=True)
class Axis:
    """Of time: seconds since the command began, from `start` to `end`."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return max(self.end - self.start, 1e-9)

    def x(self, at: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (at - self.start) / self.seconds, 2)

    def ticks(self) -> list[float]:
        """Round times, at most ten."""
        step = _round(self.seconds / _MOST_TICKS)
        first = math.ceil(self.start / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.end / step + 1e-9) + 1)]


def _round(least: float) -> float:
    """The least round step of time that is no shorter: 1, 2 or 5 of milliseconds and so on, above a second as clocks
    have it."""
    if least <= 0.5:
        return steps(least)
    return next((float(step) for step in _ROUND_S if step >= least), math.ceil(least / 86400) * 86400.0)


def steps(least: float) -> float:
    """The least of 1, 2 and 5, by a power of ten, that is no less than `least`."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-9)))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least * (1 - 1e-9))


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<div class="chart"><svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg></div>"
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def _time_axis(axis: Axis, top: float, bottom: float) -> list[str]:
    """Lines at round times, named below."""
    parts = []
    for at in axis.ticks():
        x = axis.x(at)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{top:g}" y2="{bottom:g}" class="grid"/>')
        anchor = "end" if x > WIDTH - _RIGHT - 20 else "middle"
        parts.append(text(x, bottom + 15, clock(at), "axis", anchor))
    return parts


def clock(seconds: float) -> str:
    """`40 ms`, `0.4 s`, `12 s`, `3:20`, `2:05:00`."""
    if 0 < seconds < 0.0995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def timeline(
    spans: Sequence[Span],
    axis: Axis,
    phases: Sequence[Phase] = (),
    loads: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """A lane for the command, and one for each worker: its load, and a bar with its number for each shard.

    A bar is dark while it computes, light while it is published. loads: worker -> from when to when it started.
    """
    begun = dict(loads or {})
    lanes = sorted({*begun, *(span.worker for span in spans)}, key=lambda worker: (len(worker), worker))
    first = 1 if phases else 0
    shown = {worker: lane for lane, worker in enumerate(lanes[:_MOST_LANES], first)}
    tops = {worker: _LANE * first + _NAMED_LANE * (lane - first) for worker, lane in shown.items()}
    bottom = max([_LANE, _LANE * first + _NAMED_LANE * len(shown)]) + 4
    parts = _time_axis(axis, 0, bottom)
    if phases:
        parts += [text(_LEFT - 8, 17, "command", "lane", "end"), *(_phase(phase, axis) for phase in phases)]
    parts += [text(_LEFT - 8, top + 17, worker, "lane", "end") for worker, top in tops.items()]
    for worker, (began, ended) in begun.items():
        if worker in shown:
            title = f"{worker} starts, loads the model and waits until it is tried: {_when(began, ended)}"
            parts.append(_box(axis.x(began), axis.x(ended), tops[worker] + 4, "p-load", title, "load"))
    named: dict[str, float] = {}  # worker -> where the last number of its lane ends
    for bar in _thinned([span for span in spans if span.worker in shown], axis.seconds):
        parts.append(_bar(bar, tops[bar[0].worker] + 4, axis, named))
    if len(lanes) > len(shown):
        more = f"and {counted(len(lanes) - len(shown), 'more worker')}"
        parts.append(text(_LEFT, bottom + 33, more, "axis"))
    label = f"timeline of {counted(len(spans), 'attempt')} on {counted(len(lanes), 'worker')}"
    return _svg(bottom + (22 if len(lanes) == len(shown) else 40), label, parts)


def _phase(phase: Phase, axis: Axis) -> str:
    words = PHASES[phase.name][1]
    title = f"{words}: {_when(phase.began, phase.ended)}"
    return _box(axis.x(phase.began), axis.x(phase.ended), 4, f"p-{phase.name}", title, words)


def _when(began: float, ended: float) -> str:
    return f"{clock(ended - began)}, from {clock(began)} to {clock(ended)}"


def _box(left: float, right: float, y: float, kind: str, title: str, label: str) -> str:
    """A bar with a name in it, where there is room for one."""
    fits = right - left >= _LETTER * len(label) + 6
    inside = text((left + right) / 2, y + 12, label, "in", "middle") if fits else ""
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect x="{left}" y="{y:g}" width="{max(right - left, 0.8):.2f}" height="{_BAR}" class="{kind}"/>{inside}</g>'
    )


def _thinned(spans: Sequence[Span], seconds: float) -> list[list[Span]]:
    """Each bar with the spans it stands for: one, or neighbours of one kind where there are too many."""
    if len(spans) <= _MOST_BARS:
        return [[span] for span in spans]
    slots = _MOST_BARS / max(1, len({span.worker for span in spans}))
    ordered = sorted(spans, key=lambda span: (span.worker, span.began))
    kinds = groupby(ordered, lambda span: (span.worker, span.outcome, int(slots * span.began / max(seconds, 1e-9))))
    return [list(group) for _, group in kinds]


def _bar(spans: Sequence[Span], y: float, axis: Axis, named: dict[str, float]) -> str:
    """named: worker -> how far its lane has numbers already; a number that would lie on another is left out."""
    first, last = spans[0], spans[-1]
    left, middle, right = axis.x(first.began), axis.x(last.computed), axis.x(last.ended)
    kind = first.outcome if first.number == 1 or first.outcome != "published" else "retried"
    what = f"shard {first.shard}, attempt {first.number}" if len(spans) == 1 else f"{len(spans)} shards"
    rows = sum(span.rows for span in spans)
    when = f"{clock(first.began)} to {clock(last.ended)}"
    title = f"{what} on {first.worker}: {first.outcome}, {counted(rows, 'row')}, {when}"
    tail = f'<rect x="{middle}" y="{y}" width="{max(right - middle, 0):.2f}" height="{_BAR}" class="{kind} tail"/>'
    number = str(first.shard)
    told = ""
    if left >= named.get(first.worker, float("-inf")):
        named[first.worker] = left + _LETTER * len(number) + 5
        told = text(left, y + _BAR + 11, number, "number")
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect x="{left}" y="{y}" width="{max(middle - left, 1.2):.2f}" height="{_BAR}" rx="2" class="{kind}"/>'
        f"{tail if right > middle else ''}{told}</g>"
    )


def rates(spans: Sequence[Span], axis: Axis, bins: int = 120) -> list[float]:
    """Rows/s over time: the rows of each attempt, spread over the time it computed."""
    width = axis.seconds / bins
    rows = [0.0] * bins
    for span in spans:
        if not span.rows:
            continue
        began, computed = span.began - axis.start, span.computed - axis.start
        length = max(computed - began, 1e-9)
        first = min(max(int(began / width), 0), bins - 1)
        last = min(max(int(computed / width), first), bins - 1)
        for at in range(first, last + 1):
            inside = min(computed, (at + 1) * width) - max(began, at * width)
            rows[at] += span.rows * (max(inside, 0.0) / length if last > first else 1.0)
    return [count / width for count in rows]


def curve(values: Sequence[float], axis: Axis, marks: Mapping[str, float]) -> str:
    """An area over time. marks: name -> height of a dashed line."""
    height, top = 180, 8
    most = max([*values, *marks.values(), 1e-9]) * 1.08

    def y(value: float) -> float:
        return round(top + height * (1 - value / most), 2)

    parts = _time_axis(axis, top, top + height)
    step = steps(most / 5)
    for number in range(int(most / step) + 1):
        at = y(number * step)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}" class="grid"/>')
        parts.append(text(_LEFT - 8, at + 4, short(number * step), "axis", "end"))
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    points = "".join(
        f"L{_LEFT + step * at:.2f},{y(value)}L{_LEFT + step * (at + 1):.2f},{y(value)}"
        for at, value in enumerate(values)
    )
    parts.append(f'<path d="M{_LEFT},{y(0)}{points}L{WIDTH - _RIGHT},{y(0)}Z" class="area"/>')
    for number, (name, value) in enumerate(marks.items()):  # at both ends in turn: two may lie on one another
        x, anchor = (_LEFT + 4, "start") if number % 2 else (WIDTH - _RIGHT - 4, "end")
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value)}" y2="{y(value)}" class="mark"/>')
        parts.append(text(x, y(value) - 5, f"{name}: {short(value)} rows/s", "axis over", anchor))
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
        drawn.append(text(_LEFT - 8, y + 12, name, "lane", "end"))
        for part, seconds in parts.items():
            width = (WIDTH - _LEFT - _RIGHT) * seconds / longest
            title = escape(f"{name}: {part} {clock(seconds)} ({seconds / (sum(parts.values()) or 1e-9):.0%})")
            drawn.append(
                f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_BAR}" class="s-{escape(part)}">'
                f"<title>{title}</title></rect>"
            )
            x += width
    return _svg(_LANE * max(1, len(rows)) + 8, "where the time of the workers went", drawn)
