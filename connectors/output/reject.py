"""Reject files: the rows of a shard that were set aside, where they came from and why. One per attempt, Parquet.

Owns their schema and how they are found again. The invariant: a reject file counts only while the part of its shard
names it, so that what an attempt that lost wrote never counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from connectors.formats.parquet import ParquetEncoder, ParquetSource
from connectors.formats.registry import written_as
from connectors.formats.schema import settled
from connectors.output.directory import OutputDirectory
from connectors.output.rehearsal import nulls, rehearse
from connectors.output.verification import read_plan
from connectors.store.store import Store
from jobs.attempt import InputSlice, Receipt
from jobs.errors import OutputError
from jobs.plan import Plan
from jobs.section.output import Output

# file: url. row_group, row: where in it, both from 0; `row` counts within the row group. column: where one column is to
# blame. kept: the columns that the job keeps. input: the columns that it reads, only with `limits: reject_input`.
PLACE = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("row_group", pa.int32(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("column", pa.string()),
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)


def reject_schema(read: pa.Schema, kept: Sequence[str], whole: bool) -> pa.Schema:
    """The schema of the reject files of a job.

    read:  the columns that it reads. kept: those of them that it keeps. whole: all that was read goes along too.
    """
    read = settled(read)
    fields, unheld = list(PLACE), left_out(read, kept, whole)
    for name, columns in (("kept", kept), ("input", read.names if whole else ())):
        inner = [read.field(column).with_nullable(True) for column in columns if column not in unheld]
        if inner:  # a struct without fields cannot be written as Parquet
            fields.append(pa.field(name, pa.struct(inner)))
    return pa.schema(fields)


def left_out(read: pa.Schema, kept: Sequence[str], whole: bool) -> Sequence[str]:
    """The columns that reject files do without, because Parquet cannot hold them. Arguments: as `reject_schema`."""
    read = settled(read)
    return _unheld(pa.schema([read.field(name).with_nullable(True) for name in (read.names if whole else kept)]))


def unknown(schema: pa.Schema, rows: int) -> list[pa.Array]:
    """What stands behind the places of `rows` that could not be read. schema: of a reject file."""
    return [nulls(field.type, rows) for field in list(schema)[len(PLACE) :]]


@lru_cache(maxsize=8)  # each attempt asks
def _unheld(schema: pa.Schema) -> Sequence[str]:
    return [*rehearse(ParquetEncoder(), schema).refused]


@dataclass(frozen=True)
class Rejected:
    """The rejected rows of one output, by shard."""

    output: str
    plan: Plan
    receipts: Sequence[Receipt]  # of the shards that are done and rejected rows
    store: Store

    @property
    def rows(self) -> int:
        return sum(receipt.rows_rejected for receipt in self.receipts)

    @property
    def skipped(self) -> dict[str, str]:
        """Files that are no part of the plan because they were bad: url -> code."""
        return self.plan.skipped

    def codes(self) -> Counter[str]:
        return sum((Counter(receipt.codes) for receipt in self.receipts), Counter[str]())

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Row groups of the reject files, in the order of the input. columns: None: all."""
        for receipt in self.receipts:
            yield from _row_groups(self.store, receipt.reject_file, columns)

    def table(self) -> pa.Table:
        """All of them at once."""
        return pa.concat_tables([*self.tables()]) if self.receipts else PLACE.empty_table()

    def places(self) -> dict[str, dict[int, list[int]]]:
        """file -> row group -> its rejected rows, ascending."""
        places: dict[str, dict[int, list[int]]] = {}
        for table in self.tables(["file", "row_group", "row"]):
            columns = (table.column(name).to_pylist() for name in ("file", "row_group", "row"))
            for file, row_group, row in zip(*columns, strict=True):
                places.setdefault(file, {}).setdefault(row_group, []).append(row)
        return {file: {group: sorted(rows) for group, rows in groups.items()} for file, groups in places.items()}


def read_rejected(output: Output) -> Rejected:
    """What the job in `output` rejected so far. Only its url and options are used.

    raises:  OutputError where there is no output of a run, or a part that is not as it should be.
    """
    store = Store(output.url, output.options)
    names, plan = read_plan(store, store.sizes(""))
    written = output.model_copy(update=written_as(names.suffix))
    directory = OutputDirectory(written, plan.id, len(plan.shards))
    receipts = directory.published(plan)
    rejecting = [receipts[shard] for shard in sorted(receipts) if receipts[shard].rows_rejected]
    return Rejected(store.url, plan, rejecting, store)


def _row_groups(store: Store, name: str, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    stat = store.stat(name) if name else None
    if stat is None:
        raise OutputError(f"cannot read the reject file '{store.child(name or '?')}': it is gone; see 'runner verify'")
    source = ParquetSource()
    wanted: Any = columns if columns is not None else source.schema(store, stat).names
    file, _ = source.inspect(store, stat, wanted)
    groups = tuple(group.rows for group in file.row_groups)
    with source.open(store, InputSlice(0, stat.url, stat.size, stat.version, 0, groups), wanted) as reader:
        for index in range(len(groups)):
            yield reader.read(index)
