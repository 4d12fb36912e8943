"""An Attempt at a Shard, and what comes back: a Receipt or a Failure. Small values; they cross processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.errors import RunnerError
from jobs.plan import Plan, Shard


@dataclass(frozen=True, slots=True)
class InputSlice:
    """Consecutive row groups of one file: all that a worker needs to read them and to see that they are unchanged.

    rows: rows of each row group as planned; `rows[0]` belongs to row group `first`.
    """

    file: int
    url: str
    size: int
    version: str
    first: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one shard. `id` is never reused, so no two attempts ever write one path."""

    id: str
    shard: int
    number: int  # 1 is the first try
    epoch: int  # of the driver
    inputs: tuple[InputSlice, ...]
    rows: int  # of the shard, as planned


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an attempt that published reports. rows_in = rows_out + rows_rejected = rows of the shard in the plan."""

    shard: int
    attempt: str
    number: int
    epoch: int
    part: str  # name of the published file
    size: int  # its bytes
    sha256: str  # of its content; "" where the receipt was rebuilt from the header
    rows_in: int
    rows_out: int
    rows_rejected: int = 0
    worker: str = ""
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> seconds, see runner/stage.py
    figures: dict[str, float] = field(default_factory=dict)  # what the worker measured of itself, see runner/gauge.py
    adopted: bool = False  # another attempt had published already
    staged: str = ""  # name of the upload that the driver is to promote to `part`; "" where that is done

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Receipt:
        return cls(**document)


@dataclass(frozen=True, slots=True)
class Failure:
    """What an attempt that published nothing reports."""

    shard: int
    attempt: str
    number: int
    worker: str
    error: RunnerError

    def document(self) -> dict[str, Any]:
        return {
            "shard": self.shard,
            "attempt": self.attempt,
            "number": self.number,
            "worker": self.worker,
            "error": type(self.error).__name__,
            "message": self.error.message,
        }


def attempt(plan: Plan, shard: Shard, number: int, epoch: int, nonce: str) -> Attempt:
    """The `number`-th try of `shard`. nonce: 12 random hex digits, drawn by the caller."""
    inputs = tuple(
        InputSlice(
            file=cut.file,
            url=plan.files[cut.file].url,
            size=plan.files[cut.file].size,
            version=plan.files[cut.file].version,
            first=cut.first,
            rows=tuple(group.rows for group in plan.files[cut.file].row_groups[cut.first : cut.stop]),
        )
        for cut in shard.slices
    )
    return Attempt(f"e{epoch}-a{number}-{nonce}", shard.index, number, epoch, inputs, shard.rows)
