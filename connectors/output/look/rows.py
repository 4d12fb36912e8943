"""The rows of an output, from the parts that are there: some of its columns, and where a row came from.

Refuses to know what is made of the rows. The invariants: row groups come one at a time, in the order of the input, and
nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa

from connectors.formats.base import RowGroupReader, Source
from connectors.formats.registry import infer_examples, make_source, source_of, written_as
from connectors.output.directory import OutputDirectory
from connectors.output.layout import SUCCESS
from connectors.output.reject import Rejected
from connectors.output.verification import read_plan
from connectors.store.store import FileStat, Store
from jobs.attempt import Receipt, input_slice
from jobs.errors import OutputError
from jobs.format import EXAMPLES_FORMAT
from jobs.plan import Plan, RowGroup, Slice
from jobs.section.input import Input
from jobs.section.output import Output

_AS = {"bfloat16": "float32"}  # as it is written
_NUMBERS = frozenset(
    [
        "bool",
        "float16",
        "float32",
        "float64",
        *_AS,
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    ]
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row was read from; `row` counts within the row group, all from 0, as in a reject file.

    Where a shard leaves rows out, as `where` and `sample` do, no part says which: file "", and -1.
    """

    file: str
    row_group: int
    row: int


@dataclass(frozen=True)
class Rows:
    """What is written so far. receipts: of the shards that are done, in order. format: of the parts."""

    store: Store
    plan: Plan
    receipts: Sequence[Receipt]
    format: str
    finished: bool

    @property
    def kept(self) -> list[str]:
        """Columns that came along from the input, by their names in the output."""
        named = (self.plan.identity.get("columns") or {}).get("keep") or []
        return [name for one in named for name in ([one] if isinstance(one, str) else one)]

    def schema(self) -> pa.Schema:
        """Of the first part. raises: OutputError where there is none."""
        if not self.receipts:
            raise OutputError(
                f"cannot read the rows of '{self.store.url}': none of its {len(self.plan.shards):,} shards is done yet;"
                " wait for the first one"
            )
        return self._source.schema(self.store, self._part(self.receipts[0].part))

    def tables(self, columns: Sequence[str]) -> Iterator[tuple[int, int, pa.Table]]:
        """The shard, the first row in its part, and the rows: for each row group of each part.

        raises: OutputError where a part is gone; DataError where it cannot be read.
        """
        for receipt in self.receipts:
            with self._opened(receipt.part, columns) as (reader, starts):
                for index, first in enumerate(starts[:-1]):
                    yield receipt.shard, first, reader.read(index)

    def kept_of(self, places: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """The columns that came along of some rows. places: shard, and row in its part. cost: a row group for each."""
        present = set(self.schema().names)
        columns = [name for name in self.kept if name in present]
        found: dict[tuple[int, int], dict[str, Any]] = {place: {} for place in places}
        for receipt in self.receipts if columns else ():
            wanted = sorted({row for shard, row in places if shard == receipt.shard})
            if not wanted:
                continue
            with self._opened(receipt.part, columns) as (reader, starts):
                for index, (first, stop) in enumerate(pairwise(starts)):
                    if inside := [row for row in wanted if first <= row < stop]:
                        rows = reader.read(index).take([row - first for row in inside]).to_pylist()
                        found |= {(receipt.shard, row): values for row, values in zip(inside, rows, strict=True)}
        return [found[place] for place in places]

    def origins(self, places: Sequence[tuple[int, int]]) -> list[Origin]:
        """Where rows of parts were read from: those that were rejected are in no part. places: as for `kept_of`."""
        shards = {shard for shard, _ in places}
        rejecting = [one for one in self.receipts if one.shard in shards and one.rows_rejected]
        rejected = Rejected(self.store.url, self.plan, rejecting, self.store).places()
        return [self._origin(shard, row, rejected) for shard, row in places]

    def _origin(self, shard: int, row: int, rejected: dict[str, dict[int, list[int]]]) -> Origin:
        if any(one.rows_left_out for one in self.receipts if one.shard == shard):
            return Origin("", -1, -1)
        for cut in self.plan.shards[shard].slices:
            file = self.plan.files[cut.file]
            for index in range(cut.first, cut.stop):
                absent = rejected.get(file.url, {}).get(index, [])
                left = file.row_groups[index].rows - len(absent)
                if row < left:
                    return Origin(file.url, index, _nth(row, file.row_groups[index], absent))
                row -= left
        raise OutputError(
            f"cannot tell where a row of shard {shard} of '{self.store.url}' came from: its part has more rows than"
            " the plan; see 'runner verify'"
        )

    @contextmanager
    def _opened(self, name: str, columns: Sequence[str]) -> Iterator[tuple[RowGroupReader, list[int]]]:
        """A part, and at which of its rows each row group begins; behind them how many it has."""
        stat, source = self._part(name), self._source
        file, _ = source.inspect(self.store, stat, columns)
        with source.open(self.store, input_slice([file], Slice(0, 0, len(file.row_groups))), columns) as reader:
            yield reader, [0, *accumulate(group.rows for group in file.row_groups)]

    @cached_property
    def _source(self) -> Source:
        """Where the format has no types, they are those of the plan, or of the first rows."""
        source = make_source(self.format)
        if source.states == "names":
            given = Input(url=self.store.url, format=self.format)
            return source_of(given.model_copy(update={"types": self._planned_types()}))
        filled = [receipt for receipt in self.receipts if receipt.rows_out][:1]
        if self.format != EXAMPLES_FORMAT or not filled:
            return source
        examples = infer_examples(self.format, self.store, [self._part(filled[0].part)])
        return source_of(Input(url=self.store.url, format=EXAMPLES_FORMAT, examples=examples))

    def _planned_types(self) -> dict[str, str]:
        """Column -> its type, of outputs that are numbers, and of columns that came along and were declared."""
        columns = self.plan.identity.get("columns") or {}
        declared = (self.plan.identity.get("input") or {}).get("schema") or {}
        named = [{one: one} if isinstance(one, str) else one for one in columns.get("keep") or []]
        kept = {name: declared[column] for one in named for name, column in one.items() if column in declared}
        outputs = [one for one in (columns.get("outputs") or {}).values() if not one["row"]]
        return kept | {
            one["column"]: _AS.get(one["dtype"], one["dtype"]) for one in outputs if one["dtype"] in _NUMBERS
        }

    def _part(self, name: str) -> FileStat:
        stat = self.store.stat(name)
        if stat is None:
            raise OutputError(f"cannot read the part '{self.store.child(name)}': it is gone; see 'runner verify'")
        return stat


def read_rows(output: Output) -> Rows:
    """The rows that the job in `output` has written so far. Only its url and options are used.

    raises: OutputError where there is no output of a run, or a part that is not as it should be.
    """
    store = Store(output.url, output.options)
    listed = store.sizes("")
    names, plan = read_plan(store, listed)
    written = output.model_copy(update=written_as(names.suffix))
    directory = OutputDirectory(written, plan.id, len(plan.shards))
    receipts = directory.published(plan)
    return Rows(store, plan, [receipts[shard] for shard in sorted(receipts)], written.format, SUCCESS in listed)


def _nth(number: int, group: RowGroup, absent: Sequence[int]) -> int:
    """The row of `group` that is the one of this number among those that are not `absent`, which ascend."""
    if group.picks is not None:
        gone = set(absent)
        return [row for row in group.picks if row not in gone][number]
    for row in absent:
        number += row <= number
    return number
