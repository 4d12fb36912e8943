"""The pieces that the page of a run is made of: sections, tables, legends. All text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def section(title: str, content: str) -> str:
    """content: HTML."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """numbers: the columns that hold some."""
    kinds = [' class="n"' if at in set(numbers) else "" for at in range(len(heads))]
    top = "".join(f"<th{kind}>{escape(head)}</th>" for kind, head in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def legend(kinds: Mapping[str, str]) -> str:
    """kinds: class of the style sheet -> what it stands for."""
    swatch = '<svg viewBox="0 0 11 11"><rect width="11" height="11" rx="2" class="{}"/></svg>'
    return (
        f'<div class="legend">{"".join(f"<span>{swatch.format(k)}{escape(v)}</span>" for k, v in kinds.items())}</div>'
    )


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
