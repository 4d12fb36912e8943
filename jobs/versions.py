"""Which programs did the work, in which versions, and on what kind of machine: of a driver, or of the writer of a part.

Stands beside a plan and never in it: another version continues what one began. Refuses to import what it names. The
invariant: what is not known, in the documents of an older version for example, is left out.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# Of the first four fields. TensorFlow is published under several names; the first that is there counts.
_PACKAGES = (("savedmodel-runner",), ("tensorflow", "tensorflow-cpu", "tf-nightly"), ("pyarrow",), ("ray",))
_NAMES = {"tensorflow": "TensorFlow", "ray": "Ray", "python": "Python"}  # as people write them


@dataclass(frozen=True, slots=True)
class Versions:
    """As they are installed. machine: "Linux x86_64". What computed a part's numbers, its `Numerics` say in detail."""

    runner: str = ""
    tensorflow: str = ""
    pyarrow: str = ""
    ray: str = ""
    python: str = ""
    machine: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Every receipt holds one, and a run has a million receipts: what comes from another process is one object.
        return _shared, tuple(getattr(self, one.name) for one in fields(self))

    def __str__(self) -> str:
        return ", ".join(value if name == "machine" else f"{name} {value}" for name, value in self.facts().items())

    def document(self) -> dict[str, str]:
        """As plain JSON values: what is known."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name))}

    @classmethod
    def from_document(cls, document: object) -> Versions:
        """From an epoch, a commit header, a receipt or a manifest. Further keys of a later version are left out."""
        given = document if isinstance(document, Mapping) else {}
        return _shared(*(value if isinstance(value := given.get(one.name), str) else "" for one in fields(cls)))

    def facts(self) -> dict[str, str]:
        """For people: what is known."""
        return {_NAMES.get(name, name): value for name, value in self.document().items()}


@cache
def _shared(*values: str) -> Versions:
    return Versions(*values)


UNRECORDED = _shared(*("" for _ in fields(Versions)))


@cache
def installed() -> Versions:
    """Those of this process. cost: 6 ms, once: it reads what package managers wrote, and imports none of them."""
    found = [_version(packages) for packages in _PACKAGES]
    machine = f"{platform.system()} {platform.machine()}".strip()
    return _shared(*found, platform.python_version(), machine)


def _version(packages: Iterable[str]) -> str:
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""
