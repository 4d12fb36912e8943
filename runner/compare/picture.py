"""How many rows differ by how much, drawn: a bar for each power of ten. As SVG with its own colours, for a notebook.

The invariant: the height of a bar is its share of the rows, on one scale, and a bar that stands for rows is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from jobs.words import counted

_WIDTH, _HEIGHT = 640, 150  # of the plot, in the drawing's own units
_LEFT, _TOP, _BELOW = 10, 22, 36
_MOST_BARS = 16
_LEAST = 1.5  # the height of a bar that stands for few rows
_SAME, _APART = "#2f8f5b", "#2f6fbb"
_INK = 'fill="currentColor" font-family="sans-serif" font-size="12"'


def picture(zeros: int, decades: Mapping[int, int]) -> str:
    """zeros: rows that do not differ. decades: power of ten -> rows that differ by it, or up to ten times as much."""
    total = zeros + sum(decades.values())
    if not total:
        return ""
    bars = [("0", "no difference", zeros, _SAME), *_bars(decades)]
    most = max(rows for _, _, rows, _ in bars)
    step = min(_WIDTH / len(bars), 90)
    drawn = []
    for at, (name, words, rows, colour) in enumerate(bars):
        height = max(_HEIGHT * rows / most, _LEAST) if rows else 0.0
        x, y = _LEFT + step * at, _TOP + _HEIGHT - height
        drawn.append(
            f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{step - 4:.1f}" height="{height:.1f}" fill="{colour}">'
            f"<title>{escape(words)}: {counted(rows, 'row')}, {rows / total:.3%}</title></rect>"
        )
        middle = x + step / 2
        drawn += [
            _text(middle, _TOP + _HEIGHT + 15, name),
            *([_text(middle, y - 5, _share(rows, total))] if rows else []),
        ]
    label = f"absolute difference of {counted(total, 'row')}"
    drawn.append(_text(_LEFT + step * len(bars) / 2, _TOP + _HEIGHT + 31, f"{label}, from this number on"))
    width, height = _LEFT * 2 + step * len(bars), _TOP + _HEIGHT + _BELOW
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" style="max-width: 100%" role="img"'
        f' aria-label="{escape(label)}"><title>{escape(label)}</title>{"".join(drawn)}</svg>'
    )


def _bars(decades: Mapping[int, int]) -> list[tuple[str, str, int, str]]:
    """One for each power from the least to the largest; what lies below the first of sixteen is in its bar."""
    if not decades:
        return []
    last = max(decades)
    first = max(min(decades), last - _MOST_BARS + 1)
    counts = {power: decades.get(power, 0) for power in range(first, last + 1)}
    counts[first] += sum(rows for power, rows in decades.items() if power < first)
    below = any(power < first for power in decades)
    return [
        (f"{'<' * (below and power == first)}{_power(power)}", _words(power, below and power == first), rows, _APART)
        for power, rows in counts.items()
    ]


def _words(power: int, below: bool) -> str:
    return f"less than {_power(power + 1)}" if below else f"from {_power(power)} to {_power(power + 1)}"


def _power(power: int) -> str:
    """`0.01`, `1`, `1e-7`."""
    return f"{10.0**power:g}"


def _share(rows: int, total: int) -> str:
    share = 100 * rows / total
    return f"{share:.0f}%" if share >= 10 else f"{share:.2g}%"


def _text(x: float, y: float, content: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" {_INK}>{escape(content)}</text>'
