"""The Plan: every row group of the input, in order, cut into Shards.

Pure and total: the same files and limits give the same Plan whatever the listing order, the cluster or the day.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from jobs import notebook
from jobs.errors import InputError
from jobs.identity import skipped_files
from jobs.rows.runs import Runs
from jobs.section.canonical import digest
from jobs.section.limits import Limits

PROTOCOL_VERSION = 1


Values = tuple[tuple[str, str | None], ...]  # column -> value, see `InputFile`
Picks = tuple[int, ...] | Runs  # rows of a row group, ascending


@dataclass(frozen=True, slots=True)
class RowGroup:
    """The smallest readable part of a file.

    rows:    to score.
    bytes:   of the columns that are read, when decoded, as formats stated them from the first version on: they decide
             the cuts and the id of a plan, and leave out what values of a dictionary share.
    picks:   which rows of the group these are, ascending, where they are not all; None: all.
    whole:   rows of the group in the file, where there are picks.
    place:   where it lies in a file that does not say so, as its format wrote it down; None: the file says it.
    decoded: as `bytes`, with all that is known today; in no document. exact: whether that is all of it.
    """

    rows: int
    bytes: int
    picks: Picks | None = None
    whole: int = 0
    place: tuple[int, ...] | None = None
    decoded: int = field(default=0, compare=False)
    exact: bool = field(default=True, compare=False)

    @property
    def decoded_bytes(self) -> int:
        """What the group takes when it is decoded, at least."""
        return max(self.bytes, self.decoded)

    @property
    def stored(self) -> int:
        """Rows of the group in the file."""
        return self.rows if self.picks is None else self.whole

    def document(self) -> list[Any]:
        if self.picks is None and self.place is None:
            return [self.rows, self.bytes]
        placed = [] if self.place is None else [list(self.place)]
        return [self.rows, self.bytes, _picks_document(self.picks), self.whole, *placed]

    @classmethod
    def from_document(cls, values: Sequence[Any]) -> RowGroup:
        rows, size, *more = values
        if not more:
            return cls(rows, size)
        picks, whole, *placed = more
        return cls(rows, size, _picks_of(picks), whole, tuple(placed[0]) if placed else None)

    def only(self, picks: Picks) -> RowGroup:
        """The group, of which only these of its rows are scored."""
        rows = len(picks)
        size, decoded = (self.bytes, self.decoded) if rows else (0, 0)
        return replace(self, rows=rows, bytes=size, picks=picks, whole=self.stored, decoded=decoded)


def _picks_document(picks: Picks | None) -> Any:
    """One by one as from the first version on, or as runs."""
    if picks is None:
        return None
    return {"runs": picks.document()} if isinstance(picks, Runs) else list(picks)


def _picks_of(document: Any) -> Picks | None:
    if document is None:
        return None
    return Runs.from_document(document["runs"]) if isinstance(document, dict) else tuple(document)


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the input as it was when the plan was made.

    url:     where to read it.
    size:    bytes on the store.
    version: etag, or modification time in ns: what changes when the file does; "" where the store tells neither.
    values:  of columns that are not in the file, as text: of its partition; null: None.
    repeated: as `values`, of columns that are in the file, too: each row has to have that value.
    """

    url: str
    size: int
    version: str
    row_groups: tuple[RowGroup, ...]
    values: Values = ()
    repeated: Values = ()

    def document(self) -> dict[str, Any]:
        groups = [group.document() for group in self.row_groups]
        document = {"url": self.url, "size": self.size, "version": self.version, "row_groups": groups}
        if self.values:
            document["values"] = dict(self.values)
        if self.repeated:
            document["repeated"] = dict(self.repeated)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> InputFile:
        groups = tuple(map(RowGroup.from_document, document["row_groups"]))
        values, repeated = (tuple(document.get(name, {}).items()) for name in ("values", "repeated"))
        return cls(document["url"], document["size"], document["version"], groups, values, repeated)


@dataclass(frozen=True, slots=True)
class Slice:
    """Row groups `first` to `stop - 1` of the file at index `file` of the plan."""

    file: int
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Shard:
    """The unit of work, retry and commit: an ordered run of row groups, exactly one output part."""

    index: int
    slices: tuple[Slice, ...]
    rows: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What a job comes to.

    identity:  see `jobs.identity`, as its document.
    variables: of the job's texts, as people are shown them; no part of the plan: in no document, and not in its id.
    """

    files: tuple[InputFile, ...]
    shards: tuple[Shard, ...]
    identity: dict[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def decoded_bytes(self) -> int:
        """What all row groups take when they are decoded, at least."""
        return sum(group.decoded_bytes for file in self.files for group in file.row_groups)

    @property
    def skipped(self) -> dict[str, str]:
        """Files that were bad when the plan was made, and are no part of it: url -> code."""
        return skipped_files(self.identity)

    @cached_property
    def id(self) -> str:
        """128 bits in hex over everything that can change the result."""
        return digest(self.document())

    def _repr_html_(self) -> str:
        files = ((file.url, sum(group.rows for group in file.row_groups), file.size) for file in self.files)
        counts = {"id": self.id, "rows": self.rows, "files": len(self.files), "shards": len(self.shards)}
        return notebook.facts("Plan", counts, below=notebook.table(("file", "rows", "bytes"), files))

    def document(self) -> dict[str, Any]:
        """The plan as plain JSON values; `Plan.from_document` is its inverse."""
        return {
            "protocol": PROTOCOL_VERSION,
            "identity": self.identity,
            "files": [file.document() for file in self.files],
            "shards": [[[s.file, s.first, s.stop] for s in shard.slices] for shard in self.shards],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Plan:
        files = tuple(map(InputFile.from_document, document["files"]))
        shards = tuple(
            _shard(index, [Slice(*cut) for cut in slices], files) for index, slices in enumerate(document["shards"])
        )
        return cls(files, shards, document["identity"])


def picked(file: InputFile, rows: Mapping[int, Sequence[int]]) -> InputFile:
    """`file` with some of its rows only. rows: row group -> its rows, ascending; groups that are left out, or had
    none before, have none."""
    groups = (group.only(tuple(rows.get(at, ()))) if group.rows else group for at, group in enumerate(file.row_groups))
    return replace(file, row_groups=tuple(groups))


def plan(files: Iterable[InputFile], limits: Limits, identity: dict[str, Any]) -> Plan:
    """Cut `files` into shards of at most `limits.shard_bytes` and `limits.shard_rows`, never inside a row group.

    files:    in any order; the plan sorts them by URL.
    returns:  at least one shard where there is at least one file, even if it holds no row.
    raises:   InputError if a file is listed twice: its rows would be scored twice.
    """
    ordered = tuple(sorted(files, key=lambda file: file.url))
    for file, following in pairwise(ordered):
        if file.url == following.url:
            raise InputError(f"cannot plan the input: {file.url!r} is listed twice; every file may appear once")
    cuts = _cuts(ordered, limits)
    return Plan(ordered, tuple(_shard(index, slices, ordered) for index, slices in enumerate(cuts)), identity)


def _cuts(files: Sequence[InputFile], limits: Limits) -> Iterator[list[Slice]]:
    slices: list[Slice] = []
    rows = size = 0
    for index, file in enumerate(files):
        first = 0
        for stop, group in enumerate(file.row_groups):
            full = rows + group.rows > limits.shard_rows or size + group.bytes > limits.shard_bytes
            if full and (slices or stop > first):
                if stop > first:
                    slices.append(Slice(index, first, stop))
                yield slices
                slices, rows, size, first = [], 0, 0, stop
            rows, size = rows + group.rows, size + group.bytes
        if len(file.row_groups) > first:
            slices.append(Slice(index, first, len(file.row_groups)))
    if slices or files:
        yield slices


def _shard(index: int, slices: Sequence[Slice], files: Sequence[InputFile]) -> Shard:
    groups = [group for cut in slices for group in files[cut.file].row_groups[cut.first : cut.stop]]
    return Shard(index, tuple(slices), sum(g.rows for g in groups), sum(g.bytes for g in groups))
