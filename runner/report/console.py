"""The console: rich's, on which no text acts. What others chose (names, ops, values of rows) is shown, never obeyed.

Owns which letters are escaped, and how; refuses to know what is said. The invariant: of a text that passes here only
letters, signs and line breaks reach a terminal; accents, emoji and scripts of all kinds stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from unicodedata import category

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.protocol import rich_cast
from rich.segment import Segment
from rich.text import Text

_ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode: controls, formats (bidi), halves of letters, separators
_JOINERS = "\u200c\u200d"  # formats that make letters of Persian and Hindi, and emoji of several
_ODD = re.compile(r"[^ -~]")  # what has to be looked at


class Console(RichConsole):
    """Escapes whatever it renders, in tables and live lines too."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        renderable = rich_cast(renderable)
        if isinstance(renderable, str):
            given = options or self.options
            renderable = self.render_str(renderable, highlight=given.highlight, markup=given.markup)
        if isinstance(renderable, Text) and printable(renderable.plain, lines=True) != renderable.plain:
            shown = renderable.blank_copy()
            for part in renderable.render(self):
                shown.append(printable(part.text, lines=True), part.style)
            renderable = shown
        return super().render(renderable, options)


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with what a terminal would obey, or not show, as Python writes it: `\\x1b`, `\\u202e`.

    lines: line breaks and tabs stay.
    """
    kept = _JOINERS + "\n\t" * lines
    return _ODD.sub(lambda odd: odd[0].encode("unicode_escape").decode() if _acts(odd[0], kept) else odd[0], text)


def json_text(document: object, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """As JSON, in which no letter acts on a terminal either."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, default=default)
    return _ODD.sub(lambda odd: json.dumps(odd[0])[1:-1] if _acts(odd[0], _JOINERS + "\n") else odd[0], text)


def _acts(letter: str, kept: str) -> bool:
    return category(letter) in _ACTING and letter not in kept
