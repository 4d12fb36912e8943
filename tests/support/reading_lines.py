"""The lines of the README files that read an output, each by the library that it begins with."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"^<!-- not run: (?P<mark>reads [^;>]+);.*?-->\n```python\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)


def reading_lines(page: str, mark: str) -> list[tuple[str, str]]:
    """(library, line) of the block under the comment that begins with `mark`, such as "reads scores"."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (body,) = [found["body"] for found in _BLOCK.finditer(text) if found["mark"] == mark]
    return [(line.partition(".")[0], line) for line in body.splitlines()]
