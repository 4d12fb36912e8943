"""Which package has an op that is not TensorFlow's own, and in which of its libraries: read from `packages.txt`.

Knows the table and, of what is installed, names and versions; opens no library. The file holds a line for each package,
with the versions whose ops these are, and one for each of its libraries, with its ops: '*' behind those that are
stateful. A test compares it with what is installed; `python -m runner.engine.registry --packages` writes it anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path

from runner.scan.ops import minor_of, tensorflow_version

PATH = Path(__file__).with_name("packages.txt")
EXTRAS = {"tensorflow_text": "text", "ydf_tf": "forests"}  # package -> what installs it beside this one
# Packages that no longer follow TensorFlow -> the one that has their ops now.
FOLLOWED_BY = {"tensorflow_decision_forests": "ydf_tf"}

Libraries = Mapping[str, Mapping[str, bool]]  # path below site-packages -> name of an op -> whether it is stateful


@dataclass(frozen=True)
class Package:
    """versions: those whose libraries were looked at, in order."""

    name: str
    versions: tuple[str, ...]
    libraries: Libraries

    @property
    def ops(self) -> dict[str, bool]:
        return {op: stateful for ops in self.libraries.values() for op, stateful in ops.items()}

    def holding(self, ops: Collection[str]) -> list[str]:
        """The libraries that register any of these ops."""
        return [path for path, own in self.libraries.items() if any(op in own for op in ops)]

    def seen(self, version: str, libraries: Libraries) -> Package:
        """With what a version registers: one more version of the same ops, or another table."""
        if libraries != self.libraries:
            return replace(self, versions=(version,), libraries=libraries)
        others = [each for each in self.versions if minor_of(each) != minor_of(version)]
        return replace(self, versions=tuple(sorted([*others, version], key=_ordered)))


@cache
def packages() -> Mapping[str, Package]:
    """Name, as it is imported -> what is known of it."""
    return parsed(PATH.read_text(encoding="utf-8"))


def parsed(content: str) -> dict[str, Package]:
    """`text` is the inverse."""
    read: dict[str, tuple[list[str], dict[str, dict[str, bool]]]] = {}
    libraries: dict[str, dict[str, bool]] = {}
    for line in content.splitlines():
        first, *others = line.split()
        if line.startswith(" "):
            libraries[first] = {op.rstrip("*"): op.endswith("*") for op in others}
        else:
            libraries = {}
            read[first] = others, libraries
    return {name: Package(name, tuple(versions), libraries) for name, (versions, libraries) in read.items()}


def text(known: Iterable[Package]) -> str:
    """The file of these packages."""
    lines = []
    for package in sorted(known, key=lambda each: each.name):
        lines.append(" ".join([package.name, *package.versions]))
        for path, ops in sorted(package.libraries.items()):
            lines.append(" ".join(["", path, *(op + "*" * stateful for op, stateful in sorted(ops.items()))]))
    return "\n".join([*lines, ""])


def normal(name: str) -> str:
    """A package as the table names it: 'tensorflow-text' is tensorflow_text."""
    return re.sub(r"[-_.]+", "_", name).lower()


def holders(op: str, known: Mapping[str, Package] | None = None) -> list[str]:
    """The packages that register an op."""
    return [name for name, package in (packages() if known is None else known).items() if op in package.ops]


def installed_version(name: str) -> str:
    """Of a package; "" where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def advice(ops: Iterable[str]) -> list[str]:
    """For each package that has any of these ops a sentence of what to type."""
    return [_advice(name, held) for name, held in wanted(ops).items()]


def wanted(ops: Iterable[str]) -> dict[str, list[str]]:
    """The packages that have any of these ops, with those that they have."""
    found: dict[str, list[str]] = {}
    for op in sorted(set(ops)):
        for name in holders(op)[:1]:
            found.setdefault(name, []).append(op)
    return found


def install(name: str) -> str:
    """The command that installs a package."""
    return f"pip install 'savedmodel-runner[{EXTRAS[name]}]'"


def _advice(name: str, ops: list[str]) -> str:
    held = f"op {ops[0]!r} is" if len(ops) == 1 else f"ops {', '.join(map(repr, ops))} are"
    add = f"add `op_packages: [{name}]` under 'model', or --op-package {name}"
    if version := installed_version(name):
        return f"{held} in {name} {version}, which is installed: {add}"
    minor = minor_of(tensorflow_version())
    same = f" {minor}" if minor in map(minor_of, packages()[name].versions) else ""
    return f"{held} in {name}{same}: {install(name)}, and {add}"


def _ordered(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
