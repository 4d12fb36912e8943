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
from jobs.section.canonical import digest
from jobs.section.limits import Limits

PROTOCOL_VERSION = 1


@dataclass(frozen=True, slots=True)
class RowGroup:
    """The smallest readable part of a file.

    rows:    to score.
    bytes:   of the columns that are read, when decoded, as formats stated them from the first version on: they decide
             the cuts and the id of a plan, and leave out what values of a dictionary share.
    picks:   which rows of the group these are, ascending, where they are not all; None: all.
    whole:   rows of the group in the file, where there are picks.
    decoded: as `bytes`, with all that is known today; in no document. exact: whether that is all of it.
    """

    rows: int
    bytes: int
    picks: tuple[int, ...] | None = None
    whole: int = 0
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
        return [self.rows, self.bytes] if self.picks is None else [self.rows, self.bytes, list(self.picks), self.whole]

    @classmethod
    def from_document(cls, values: Sequence[Any]) -> RowGroup:
        rows, size, *picked = values
        return cls(rows, size, tuple(picked[0]), picked[1]) if picked else cls(rows, size)


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the input as it was when the plan was made.

    url:     where to read it.
    size:    bytes on the store.
    version: etag, or modification time in ns: what changes when the file does; "" where the store tells neither.
    """

    url: str
    size: int
    version: str
    row_groups: tuple[RowGroup, ...]


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
    """What a job comes to. `identity`: see `jobs.identity`, as its document."""

    files: tuple[InputFile, ...]
    shards: tuple[Shard, ...]
    identity: dict[str, Any] = field(default_factory=dict)

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
            "files": [
                {
                    "url": f.url,
                    "size": f.size,
                    "version": f.version,
                    "row_groups": [group.document() for group in f.row_groups],
                }
                for f in self.files
            ],
            "shards": [[[s.file, s.first, s.stop] for s in shard.slices] for shard in self.shards],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Plan:
        files = tuple(
            InputFile(f["url"], f["size"], f["version"], tuple(map(RowGroup.from_document, f["row_groups"])))
            for f in document["files"]
        )
        shards = tuple(
            _shard(index, [Slice(*cut) for cut in slices], files) for index, slices in enumerate(document["shards"])
        )
        return cls(files, shards, document["identity"])


def picked(file: InputFile, rows: Mapping[int, Sequence[int]]) -> InputFile:
    """`file` with some of its rows only. rows: row group -> its rows, ascending; groups that are left out have none."""
    groups = tuple(
        RowGroup(len(picks), group.bytes if picks else 0, picks, group.rows, group.decoded if picks else 0, group.exact)
        for index, group in enumerate(file.row_groups)
        for picks in [tuple(rows.get(index, ()))]
    )
    return replace(file, row_groups=groups)


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
