"""How values of this project look in a notebook: a heading and a table, escaped. Refuses to know what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import repeat
from typing import Any

_MOST_ROWS = 50  # a notebook is to be read
_MOST_LETTERS = 300  # of a cell of a table with heads
_MOST_OF_A_FACT = 8_000  # a name in it may be a whole file
_CELL = 'style="text-align: left; white-space: normal; overflow-wrap: anywhere"'
_NAME = _CELL.replace("anywhere", "break-word")  # of a fact: its words are not cut to make room for the value


def facts(title: str, values: Mapping[str, Any], *, share: float | None = None, below: str = "") -> str:
    """A heading and a row for each value that is not empty. share: of a progress bar. below: more HTML."""
    rows = ((name, value) for name, value in values.items() if value not in ("", None, (), [], {}))
    bar = "" if share is None else progress_bar(share)
    return f"<div><b>{escape(title)}</b>{bar}{table((), rows)}{below}</div>"


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """rows: as many cells each. Long ones are cut where there are heads: without them each row is a fact of its own."""
    most = _MOST_LETTERS if heads else _MOST_OF_A_FACT
    every = list(rows)
    head = f"<thead><tr>{''.join(f'<th {_CELL}>{escape(name)}</th>' for name in heads)}</tr></thead>" if heads else ""
    lines = (_row(row, _CELL if heads else _NAME, most) for row in every[:_MOST_ROWS])
    more = f"<p>and {len(every) - _MOST_ROWS:,} more</p>" if len(every) > _MOST_ROWS else ""
    return f"<table>{head}<tbody>{''.join(lines)}</tbody></table>{more}"


def _row(cells: Sequence[Any], first: str, most: int) -> str:
    styled = zip((first, *repeat(_CELL, len(cells) - 1)), cells, strict=True)
    return f"<tr>{''.join(f'<td {style}>{_text(cell, most)}</td>' for style, cell in styled)}</tr>"


def progress_bar(share: float) -> str:
    return f' <progress value="{share:.4f}" max="1" style="width: 20em"></progress>'


class Report(dict[str, Any]):
    """Plain values that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        flat = {name: value for name, value in self.items() if not isinstance(value, dict | list)}
        nested = ((name, value) for name, value in self.items() if isinstance(value, dict) and value)
        more = "".join(f"<p>{escape(name)}</p>{table((), value.items())}" for name, value in nested)
        return facts("Report", flat, below=more)


def _text(value: Any, most: int) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    cut = text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more letters)"
    return escape(cut).replace("\n", "<br>")
