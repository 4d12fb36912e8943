"""What TensorFlow's registry says of each op, read from `ops.txt`, so that it is known without TensorFlow.

The file holds one name a line, '*' behind those that are stateful; behind it the minor versions that have the op, where
not all do. Its first line lists the versions whose ops it holds. Chosen is the one that is installed, of which only the
metadata is read. A test compares it with the installed registry; `python -m runner.engine.registry` writes it anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

PATH = Path(__file__).with_name("ops.txt")
_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-rocm", "tf-nightly")  # distributions that hold it

Tables = Mapping[str, Mapping[str, bool]]  # version of TensorFlow -> name of an op -> whether it is stateful


@dataclass(frozen=True)
class Registry:
    version: str  # of TensorFlow
    stateful: Mapping[str, bool]  # name of an op -> whether it is
    installed: str = ""  # the version for which this one stands in; "": none, it is its own

    def __str__(self) -> str:
        return f"TensorFlow {self.version}" + (
            f", the nearest known here to {self.installed}, which is installed" if self.installed else ""
        )


@cache
def registry(installed: str | None = None) -> Registry:
    """Of the TensorFlow that is installed; of the next lower one where its ops are not known, or the lowest. Without
    any TensorFlow the newest. installed: its version, if it is not to be looked for."""
    known = _tables()
    version = tensorflow_version() if installed is None else installed
    if not version:
        newest = max(known, key=_ordered)
        return Registry(newest, known[newest])
    minor = _ordered(version)
    lower = [each for each in known if _ordered(each) <= minor]
    nearest = max(lower, key=_ordered) if lower else min(known, key=_ordered)
    return Registry(nearest, known[nearest], "" if _ordered(nearest) == minor else version)


@cache
def tensorflow_version() -> str:
    """Of the installed TensorFlow, which is not imported; "" where there is none."""
    for name in _TENSORFLOW:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""


def minor_of(version: str) -> str:
    """'2.21' of '2.21.0', and of '2.21.0.post1'."""
    return ".".join(map(str, _ordered(version)))


def tables(content: str) -> dict[str, dict[str, bool]]:
    """Version -> its ops, of all that the file holds; `text` is the inverse."""
    first, *lines = content.splitlines()
    versions = {minor_of(version): version for version in first.split()[1:]}
    read: dict[str, dict[str, bool]] = {version: {} for version in versions.values()}
    for line in lines:
        name, *minors = line.split()
        for minor in minors or versions:
            read[versions[minor]][name.rstrip("*")] = name.endswith("*")
    return read


def text(known: Tables) -> str:
    """The file of these registries."""
    versions = sorted(known, key=_ordered)
    having: dict[tuple[str, bool], list[str]] = {}
    for version in versions:
        for op, stateful in known[version].items():
            having.setdefault((op, stateful), []).append(minor_of(version))
    lines = [
        " ".join([op + "*" * stateful, *(minors if len(minors) < len(versions) else [])])
        for (op, stateful), minors in sorted(having.items())
    ]
    return "\n".join([f"TensorFlow {' '.join(versions)}", *lines, ""])


def updated(version: str, stateful: Mapping[str, bool]) -> str:
    """The file with the ops of this version in the place of those of its minor."""
    others = {each: ops for each, ops in _tables().items() if _ordered(each) != _ordered(version)}
    return text({**others, version: stateful})


@cache
def _tables() -> Tables:
    return tables(PATH.read_text(encoding="utf-8"))


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
