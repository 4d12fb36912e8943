"""An Attempt at a Shard, and what comes back: a Success or a Failure. Small values; they cross processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from jobs.errors import RunnerError
from jobs.numerics import UNKNOWN, Numerics
from jobs.plan import InputFile, Picks, Plan, Shard, Slice, Values
from jobs.versions import UNRECORDED, Versions

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class InputSlice:
    """Consecutive row groups of one file: all that a worker needs to read them and to see that they are unchanged.

    rows:  rows of each row group as the file has them; `rows[0]` belongs to row group `first`.
    picks: where a job scores some rows only: which of each row group, ascending, or None for all of them; empty: all.
    places, values, repeated: as of a row group, and of a file, of the plan.
    """

    file: int
    url: str
    size: int
    version: str
    first: int
    rows: tuple[int, ...]
    picks: tuple[Picks | None, ...] = ()
    places: tuple[tuple[int, ...] | None, ...] = ()
    values: Values = ()
    repeated: Values = ()

    @property
    def count(self) -> int:
        """Rows to score."""
        if not self.picks:
            return sum(self.rows)
        return sum(rows if picks is None else len(picks) for rows, picks in zip(self.rows, self.picks, strict=True))

    def picked(self, row_group: int) -> Picks | None:
        """Which rows of a row group to score; None: all."""
        return self.picks[row_group - self.first] if self.picks else None

    def place(self, row_group: int) -> tuple[int, ...]:
        """Where a row group lies, of a format that writes it down. raises: ValueError where the plan does not say."""
        place = self.places[row_group - self.first] if self.places else None
        if place is None:
            raise ValueError(f"the plan has no place of row group {row_group} of {self.url!r}")
        return place


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one shard. `id` is never reused, so no two attempts ever write one path.

    isolated:  earlier attempts killed or hung their processes: the model runs in a child process that may die.
    halvings:  earlier attempts ran out of memory so many times: batches are that many times halved.
    safe_rows: shape of a row, '*' for all -> rows a batch may have, as workers found out (see `runner.batch.headroom`).
    works:     rows of this plan are written: the model took them (see `runner.batch.standing`).
    """

    id: str
    shard: int
    number: int  # 1 is the first try
    epoch: int  # of the driver
    inputs: tuple[InputSlice, ...]
    rows: int  # of the shard, as planned
    isolated: bool = False
    halvings: int = 0
    safe_rows: dict[str, int] = field(default_factory=dict)
    works: bool = False


ODD = (
    "nan_rows",
    "nonfinite_rows",
    "unseen_rows",
    "changed_rows",
)  # of a Receipt: counts of rows that are written and yet odd


LEFT_OUT = "rows_left_out"  # of a Receipt: in no document where it is 0, as in those of older versions


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of a published part. rows_in = rows_out + rows_rejected + rows_left_out = rows of the shard in the
    plan.

    rows_left_out: that the job does not want, by `where` or `sample`.
    codes:      code -> rows that were rejected with it.
    bad_files:  url -> rows that could not be read, of those rejected.
    nan_rows:   rows written with a NaN in an output.
    nonfinite_rows: rows written with NaN or infinity in an input.
    unseen_rows: of these, rows whose outputs are all finite: nothing in them shows it.
    changed_rows: rows written of which `cast: unsafe` changed a value of an input.
    numerics:   of the process that called the model. versions: of the process that wrote the part.
    """

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
    adopted: bool = False  # another attempt had published already
    staged: str = ""  # name of the upload that the driver is to promote to `part`; "" where that is done
    reject_file: str = ""  # name of the file with the rejected rows; "" where there are none
    codes: dict[str, int] = field(default_factory=dict)
    bad_files: dict[str, int] = field(default_factory=dict)
    nan_rows: int = 0
    nonfinite_rows: int = 0
    unseen_rows: int = 0
    changed_rows: int = 0
    numerics: Numerics = UNKNOWN
    versions: Versions = UNRECORDED
    rows_left_out: int = 0

    @property
    def accounted(self) -> bool:
        """Whether each row of the shard is in one place."""
        counts = (self.rows_out, self.rows_rejected, self.rows_left_out)
        return min(counts) >= 0 and self.rows_in == sum(counts)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Receipt:
        """The receipt in the document of a Success. raises: TypeError where a key is missing or not known."""
        known = {key: value for key, value in document.items() if key not in _BESIDE}
        values = {
            "numerics": Numerics.from_document(document.get("numerics")),
            "versions": Versions.from_document(document.get("versions")),
        }
        return cls(**known | values)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a worker measured during an attempt.

    seconds: stage -> seconds, see `runner.measure.stage`. figures: see `runner.worker.gauge`.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Advice:
    """What a worker advises for the attempts that follow.

    safe_rows: as in `Attempt`, as this worker knows them now.
    recycle:   why its process wants to be replaced; "" where it does not.
    """

    safe_rows: Mapping[str, int] = field(default_factory=dict)
    recycle: str = ""


_BESIDE = frozenset(value.name for kind in (Measured, Advice) for value in fields(kind))  # the receipt in a document


@dataclass(frozen=True, slots=True)
class Success:
    """What an attempt that published reports, or one that met a published part."""

    receipt: Receipt
    measured: Measured = field(default_factory=Measured)
    advice: Advice = field(default_factory=Advice)

    def document(self) -> dict[str, Any]:
        """As plain JSON values, all on one level; `Receipt.from_document` reads the receipt back."""
        values = {"numerics": self.receipt.numerics.document(), "versions": self.receipt.versions.document()}
        receipt = {name: value for name, value in asdict(self.receipt).items() if value or name != LEFT_OUT}
        return receipt | values | asdict(self.measured) | asdict(self.advice)


@dataclass(frozen=True, slots=True)
class Failure:
    """What an attempt that published nothing reports."""

    shard: int
    attempt: str
    number: int
    worker: str
    error: RunnerError

    def document(self) -> dict[str, Any]:
        """`code` only where the error has one."""
        code = self.error.facts.get("code")
        return {
            "shard": self.shard,
            "attempt": self.attempt,
            "number": self.number,
            "worker": self.worker,
            "error": type(self.error).__name__,
            **({"code": code} if code else {}),
            "message": str(self.error),
        }


def attempt(plan: Plan, shard: Shard, number: int, epoch: int, nonce: str, **options: Any) -> Attempt:
    """The `number`-th try of `shard`. nonce: 12 random hex digits, drawn by the caller. options: of the Attempt."""
    inputs = tuple(input_slice(plan.files, cut) for cut in shard.slices)
    return Attempt(f"e{epoch}-a{number}-{nonce}", shard.index, number, epoch, inputs, shard.rows, **options)


def input_slice(files: Sequence[InputFile], cut: Slice) -> InputSlice:
    """What a worker needs to read a part of one of the `files` of a plan."""
    file = files[cut.file]
    groups = file.row_groups[cut.first : cut.stop]
    return InputSlice(
        file=cut.file,
        url=file.url,
        size=file.size,
        version=file.version,
        first=cut.first,
        rows=tuple(group.stored for group in groups),
        picks=_unless_none(group.picks for group in groups),
        places=_unless_none(group.place for group in groups),
        values=file.values,
        repeated=file.repeated,
    )


def _unless_none(values: Iterable[_Value]) -> tuple[_Value, ...]:
    """The values; nothing where each of them is None."""
    made = tuple(values)
    return made if any(value is not None for value in made) else ()
