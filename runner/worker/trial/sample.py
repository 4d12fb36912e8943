"""A few rows to call a model with before its work begins: from the input where that is cheap, else made up.

Knows bindings and sources; refuses to know what the rows are for. The invariant: a sample costs little, and nothing
that is wrong with it matters to the job: the attempt that reads that row for its shard says so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Literal

import numpy as np
import pyarrow as pa

from connectors.formats.fault import BadRowsError
from connectors.formats.schema import conform
from connectors.store.store import Store
from connectors.tables.source import source_of
from jobs.attempt import InputSlice
from jobs.errors import RunnerError
from jobs.section.input import Input
from runner.batch.batches import Where, batches
from runner.batch.distinct import changes, fed_columns
from runner.binding.binding import Binding
from runner.binding.cast.view import as_arrow
from runner.binding.composite import PartsSource
from runner.binding.constant import ConstantSource
from runner.model.signature import Signature, TensorSpec
from runner.tensor import DTYPES, Feeds, Strings, Tensor, bits_of, natural

DISTINCT_ROWS = 3  # of a sample that is made up

# When decoded: what a plan believes to be smaller by half may turn out larger. Then the sample is made up.
_MOST_BYTES = 128 * 2**20
# Of a row group beside its first rows, all over it: the first ones may be equal, or all bad.
_SPREAD_ROWS = 64
_FRONT, _SPREAD, _CHANGES = 3, 8, 64  # rows that are looked at for some that differ


def read_rows(
    source: Input, schema: pa.Schema, binding: Binding, piece: InputSlice, most: int
) -> pa.RecordBatch | None:
    """The first rows of a row group, at most `most`, and some of the others; None where they cannot be read."""
    with suppress(RunnerError, OSError, pa.ArrowException):
        reader = source_of(source, _MOST_BYTES)
        store = Store(source.url[0], source.options)
        with reader.open(store, piece, binding.columns) as file:
            picks = piece.picked(piece.first)
            try:
                table = file.read(piece.first)
                table = table if picks is None else table.take(as_arrow(np.fromiter(picks, np.int64)))
            except BadRowsError as error:
                table = error.rest(picks)
            table = binding.alike(conform(table, schema, piece.url))
        if table.num_rows > most:
            more = np.linspace(most, table.num_rows - 1, min(_SPREAD_ROWS, table.num_rows - most)).astype(np.int64)
            table = table.take(as_arrow(np.concatenate([np.arange(most), more])))
        for _, batch in batches([(Where(piece.url, piece.first), table)], max(1, table.num_rows), join="none"):
            return batch
    return None


class Sample:
    """Feeds for any number of rows, each row one of the sample's."""

    def __init__(self, binding: Binding, signature: Signature, rows: pa.RecordBatch | None) -> None:
        """rows: of the input; None: they are made up."""
        self._binding, self._signature, self._rows = binding, signature, rows
        self.kind: Literal["input", "made up", "none"] = "input" if rows is not None else "made up"
        self._made: dict[str, Tensor] = {}
        if rows is None:
            fed = [bound for bound in binding.inputs if bound.source is not None]
            specs = [signature.inputs[bound.name] for bound in fed]
            if any(spec.encoding != "dense" or spec.dtype not in DTYPES for spec in specs):
                self.kind = "none"
                return
            for bound, spec in zip(fed, specs, strict=True):
                constant = isinstance(bound.source, ConstantSource)
                self._made[bound.name] = bound.source.tensor if constant else _made_up(spec)  # type: ignore[union-attr]

    @property
    def rows(self) -> pa.RecordBatch | None:
        """As they came from the input; None where they are made up."""
        return self._rows

    @property
    def count(self) -> int:
        """How many rows it has."""
        return DISTINCT_ROWS if self._rows is None else int(self._rows.num_rows)

    def batch(self, rows: Sequence[int]) -> pa.RecordBatch | None:
        """The rows as they came from the input; None where they are made up."""
        if self._rows is None:
            return None
        return self._rows.take(as_arrow(np.array(rows, np.int64) % self._rows.num_rows))

    def feeds(self, rows: Sequence[int]) -> Feeds:
        """One call with these rows of the sample, counted from 0 and over again behind its last.

        raises: DataError where a row cannot be fed.
        """
        batch = self.batch(rows)
        if batch is not None:
            return self._binding.feed(batch)
        fixed = self._binding.batch_rows or len(rows)
        order = np.array([*rows, *[rows[-1]] * (fixed - len(rows))]) % DISTINCT_ROWS  # order: (rows fed,)
        sources = {bound.name: bound.source for bound in self._binding.inputs}
        return {
            name: tensor if isinstance(sources[name], ConstantSource) else _taken(tensor, order)
            for name, tensor in self._made.items()
        }

    def joined(self, others: Sequence[pa.RecordBatch]) -> Sample:
        """The same with more rows of the input behind its own; where it is made up, these alone.

        Rows of files whose types differ, or of other shapes, share no call: of those that may, the rows are taken of
        which most differ.
        """
        groups: list[list[pa.RecordBatch]] = []
        for rows in [self._rows, *others] if self._rows is not None else others:
            group = next((group for group in groups if group[0].schema.equals(rows.schema)), [])
            groups += [] if group else [group]
            group.append(rows)
        samples = [self._of(group) for group in groups] or [self]
        return max(samples, key=lambda sample: len(list(islice(sample.distinct(), DISTINCT_ROWS))))

    def _of(self, rows: Sequence[pa.RecordBatch]) -> Sample:
        """A sample of rows of one schema: those that may share a call with the first one."""
        alike = self._binding.alike(pa.Table.from_batches(rows)).combine_chunks().to_batches()
        return Sample(self._binding, self._signature, alike[0] if alike else rows[0])

    def distinct(self) -> Iterator[int]:
        """The first row, and rows that are fed as other values than each one before: from all over the sample, from
        its front, and wherever it changes. Rows that cannot be fed are left out, unless it is the first.

        cost: each row that is looked at is fed alone.
        """
        seen = set[bytes]()
        for row in dict.fromkeys(self._candidates()):
            try:
                key = self._key(row)
            except RunnerError:
                if row == 0:
                    yield row
                continue
            if key not in seen:
                seen.add(key)
                yield row

    def _candidates(self) -> Iterator[int]:
        if self._rows is None:
            return iter(range(DISTINCT_ROWS))
        count = self._rows.num_rows
        spread = np.linspace(0, count - 1, min(_SPREAD, count)).astype(np.int64).tolist()
        changed = islice(changes(fed_columns(self._binding, self._rows)), _CHANGES)
        # Far from the first one first: in sorted rows neighbours are nearly equal.
        return chain([0], reversed(spread), range(min(_FRONT, count)), changed)

    def _key(self, row: int) -> bytes:
        """A digest of what is fed for a row that stands alone."""
        dense = {bound.name for bound in self._binding.inputs if not isinstance(bound.source, PartsSource)}
        digest = hashlib.sha256()
        for name, tensor in self.feeds([row]).items():
            rows = tensor.shape[0] if tensor.shape and name in dense else 1  # the same row, where it fills a call
            if isinstance(tensor, Strings):
                digest.update(repr(tensor.values[: len(tensor.values) // rows].to_pylist()).encode())
            else:
                digest.update(tensor.reshape(-1)[: tensor.size // rows].tobytes())
        return digest.digest()


def _made_up(spec: TensorSpec) -> Tensor:
    """(3, *row): rows that differ where the dtype allows; small numbers, which are valid indexes too, and no text."""
    shape = (DISTINCT_ROWS, *(1 if size is None else size for size in (spec.shape or (None,))[1:]))
    count = math.prod(shape)
    if spec.dtype == "string":
        return Strings(pa.array([b""] * count, pa.large_binary()), shape)
    floats = np.random.default_rng(0).random(count, np.float32).reshape(shape)
    kind = natural(spec.dtype)
    if kind.kind in "fc":
        return bits_of(floats.astype(kind), spec.dtype)
    counted = np.arange(DISTINCT_ROWS).reshape(-1, *[1] * (len(shape) - 1)) % 2
    return bits_of(np.broadcast_to(counted, shape).astype(kind), spec.dtype)


def _taken(tensor: Tensor, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
    if isinstance(tensor, Strings):  # all empty
        shape = (len(order), *tensor.shape[1:])
        return Strings(pa.array([b""] * math.prod(shape), pa.large_binary()), shape)
    return np.ascontiguousarray(tensor[order])
