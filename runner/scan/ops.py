"""What TensorFlow's registry says of each op, read from `ops.txt`, so that it is known without TensorFlow.

The file holds one name a line, '*' behind those that are stateful; its first line says which TensorFlow it is from.
A test compares it with the installed registry; `python -m runner.engine.registry` writes it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PATH = Path(__file__).with_name("ops.txt")


@dataclass(frozen=True)
class Registry:
    version: str  # of TensorFlow
    stateful: Mapping[str, bool]  # name of an op -> whether it is


@cache
def registry() -> Registry:
    first, *lines = PATH.read_text(encoding="utf-8").splitlines()
    return Registry(first.rpartition(" ")[2], {line.rstrip("*"): line.endswith("*") for line in lines})


def text(version: str, stateful: Mapping[str, bool]) -> str:
    """The file of a registry; `registry` is the inverse."""
    return "\n".join([f"TensorFlow {version}", *(name + "*" * flag for name, flag in stateful.items()), ""])
