"""A part of the rows, at plan time: files and row groups that hold none of it are not read, and a limit is pinned.

Owns when that is decided, and what is told of it; refuses to know how a condition is evaluated. The invariant: what is
dropped holds no row that a worker would keep, and a limit ends at the same row whenever it is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.formats.base import Measuring, RowGroupReader, Source
from connectors.formats.fault import BadRowsError
from connectors.formats.schema import conform
from connectors.store.store import FileStat, Store
from jobs.attempt import input_slice
from jobs.errors import BindingError, DataError
from jobs.plan import InputFile, RowGroup, Slice
from jobs.rows.runs import Runs
from jobs.section.limits import Limits
from runner.selection.prune import Facts
from runner.selection.selection import Selection
from runner.tensor import Array

_OF_A_FILE = ("FILE_", "PAGE_", "ROWGROUP_", "BATCH_INVALID", "RECORD_CRC")  # codes of bytes that are at fault


@dataclass(frozen=True)
class Dropped:
    """What of the input is not read, and why.

    files:       whose partition cannot match. row_groups, rows: whose statistics cannot.
    beyond_files, beyond_rows: that lie behind the limit, of those that are left.
    """

    files: int = 0
    row_groups: int = 0
    rows: int = 0
    beyond_files: int = 0
    beyond_rows: int = 0

    def document(self) -> dict[str, Any]:
        return {
            "by_partition": {"files": self.files},
            "by_statistics": {"row_groups": self.row_groups, "rows": self.rows},
            "by_limit": {"files": self.beyond_files, "rows": self.beyond_rows},
        }


NOTHING_DROPPED = Dropped()


def require_bound(selection: Selection, first: pa.Schema, files: int) -> None:
    """raises: BindingError where `where` does not fit the first file, and no other one could mend that."""
    if selection.where is None:
        return
    try:
        selection.bound(first)
    except BindingError as error:
        inner = all(name in first.names for name in selection.columns(first))  # a field of a struct may be elsewhere
        if files == 1 or not inner or "COLUMN_TYPE" in str(error.facts.get("codes", error.facts["code"])):
            raise


def nothing_matches(where: str | None, rows: int) -> list[str]:
    """A warning where no row is planned. rows: of the plan."""
    if where is None or rows:
        return []
    return [f"no row is read: by the names of folders and by statistics, none can match `where`: {where}"]


def may_match(selection: Selection, files: Sequence[FileStat], schema: pa.Schema) -> list[FileStat]:
    """The files whose partition may match; one at least, so that there is a plan. schema: of the first file."""
    try:
        found = [
            file
            for file in files
            if not file.values or selection.may_match(schema, Facts.constant(file.values, schema))
        ]
    except BindingError:  # what the first file lacks, others may have
        return list(files)
    return found or list(files[:1])


@dataclass(frozen=True)
class Narrow:
    """Looks at a file as its source does, and drops the row groups that cannot match."""

    selection: Selection
    source: Source
    store: Store

    def inspect(self, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """As `Source.inspect`. cost: none more where there is no `where`."""
        source, store = self.source, self.store
        if self.selection.where is None:
            return source.inspect(store, file, columns)
        if isinstance(source, Measuring):
            found, schema, spans = source.measured(store, file, columns, self._ways)
        else:
            found, schema = source.inspect(store, file, columns)
            spans = [{} for _ in found.row_groups]
        constant = Facts.constant(file.values, schema).spans
        groups = [
            self._narrowed(schema, group, {**span, **constant})
            for group, span in zip(found.row_groups, spans, strict=True)
        ]
        return replace(found, row_groups=tuple(groups)), schema

    def _ways(self, schema: pa.Schema) -> Sequence[tuple[str, ...]]:
        try:
            return self.selection.ways(schema)
        except BindingError:  # told of all files at once
            return ()

    def _narrowed(self, schema: pa.Schema, group: RowGroup, spans: dict[tuple[str, ...], Any]) -> RowGroup:
        try:
            wanted = not group.rows or self.selection.may_match(schema, Facts(spans, group.stored))
        except BindingError:
            wanted = True
        return group if wanted else group.only(())


def dropped(files: Sequence[InputFile]) -> tuple[int, int]:
    """Row groups of which no row is planned, and their rows."""
    groups = [group for file in files for group in file.row_groups if group.stored and not group.rows]
    return len(groups), sum(group.stored for group in groups)


@dataclass(frozen=True)
class Limit:
    """The first rows that the job wants, of those that `where` and `sample` leave."""

    rows: int
    selection: Selection
    source: Source
    store: Store
    schema: pa.Schema
    limits: Limits

    def cut(self, files: Sequence[InputFile]) -> list[InputFile]:
        """The files up to the one in which the limit is reached, of that one the rows up to it.

        raises: DataError where a row group that must be looked into is bad, and the job does not do without.
        cost:   without `where`, none; else the columns of `where` are read up to there, a row group at a time.
        """
        left, made = self.rows, list[InputFile]()
        for file in sorted(files, key=lambda file: file.url):
            if not left and made:
                break
            groups: list[RowGroup] = []
            with ExitStack() as opened:
                read = self._reads(file, opened)
                for index, group in enumerate(file.row_groups):
                    cut, taken = self._cut(file, index, group, left, read) if left else (group.only(()), 0)
                    groups.append(cut)
                    left -= taken
            made.append(replace(file, row_groups=tuple(groups)))
        return made

    def _cut(
        self, file: InputFile, index: int, group: RowGroup, left: int, read: Callable[[int], Array | None]
    ) -> tuple[RowGroup, int]:
        """The group, and how many of its rows are wanted, at most `left`."""
        if not group.rows:
            return group, 0
        wanted = self.selection.sampled(file.url, index, group.stored, group.picks)
        if self.selection.where is not None:
            if wanted is not None and not len(wanted):
                return group, 0
            kept = read(index)  # kept: (rows that where keeps,)
            if kept is not None:
                wanted = kept if wanted is None else np.intersect1d(wanted, kept, assume_unique=True)
        count = group.rows if wanted is None else len(wanted)
        if count < left:
            return group, count
        last = left - 1 if wanted is None else int(wanted[left - 1])
        return _upto(group, last + 1), left

    def _reads(self, file: InputFile, opened: ExitStack) -> Callable[[int], Array | None]:
        """What reads which rows of a row group `where` keeps; None: all of them."""
        reader: RowGroupReader | None = None
        columns = self.selection.columns(self.schema)
        schema = pa.schema([self.schema.field(name) for name in columns])

        def read(index: int) -> Array | None:
            nonlocal reader
            try:
                if reader is None:
                    whole = input_slice([file], Slice(0, 0, len(file.row_groups)))
                    reader = opened.enter_context(self.source.open(self.store, whole, columns))
                bad = np.array([], np.int64)
                try:
                    table = reader.read(index)
                except BadRowsError as error:  # they are rejected, and none of those that are wanted
                    table, bad = error.table, error.at
                kept = self.selection.kept(conform(table, schema, file.url))
                if not len(bad):
                    return kept
                return np.setdiff1d(np.arange(table.num_rows) if kept is None else kept, bad, assume_unique=True)
            except DataError as error:
                code = str(error.facts.get("code", ""))
                if self.limits.on_bad_file == "fail" or code == "FILE_CHANGED" or not code.startswith(_OF_A_FILE):
                    raise
                return np.array([], np.int64)  # none of its rows can be scored

        return read


def _upto(group: RowGroup, stop: int) -> RowGroup:
    """The group without its rows from `stop` on."""
    if group.picks is None:
        return group if stop >= group.rows else group.only(Runs.first(stop))
    if isinstance(group.picks, Runs):
        return group.only(group.picks.meet(Runs.first(stop)))
    return group.only(tuple(row for row in group.picks if row < stop))
