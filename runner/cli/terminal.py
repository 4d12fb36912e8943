"""Where commands print: one console, and JSON for scripts."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201  # this is the command's answer
