"""Sparse tensors <-> lists: indices, values and a dense shape, in TensorFlow's coordinate format.

In: the elements of a list stand at the indices 0, 1, 2, ...; a list of structs {index, value} gives the indices itself.
Out: a list of structs {index, value} for each row, which loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.section.columns import InputColumn, OutputColumn
from runner.binding.constant import fits, mismatch
from runner.binding.feeding import column_source
from runner.binding.fetching import GUESS, MAX_OFFSET, OutputTarget, Rules, output_target
from runner.binding.nesting import Row, peel
from runner.binding.ragged import Lists, lists, note, origin
from runner.binding.source import ColumnSource
from runner.model.signature import TensorSpec
from runner.tensor import Array, Feeds, Outputs, Strings, Tensor, tensor_text, type_text


@dataclass(frozen=True, eq=False)
class SparseSource:
    """One column of lists -> indices, values and dense shape.

    parts: names of these three.
    sizes: of the dimensions after the first; None: the longest list of the batch, or the largest index and one.
    index: how the field 'index' becomes numbers, None: the lists hold values alone.
    """

    lists: Lists
    parts: tuple[str, ...]
    sizes: Row
    index: ColumnSource | None = field(default=None)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.lists.items.columns

    @property
    def values(self) -> str:
        """The tensor that holds them."""
        return self.parts[1]

    def owners(self, feeds: Feeds) -> Array:
        """(values,) the row of each, of what was fed."""
        return np.asarray(feeds[self.parts[0]])[:, 0]

    def describe(self) -> dict[str, str]:
        return {**self.lists.items.describe(), "type": type_text(self.lists.type), **note(self.lists, "sparse")}

    def document(self) -> dict[str, Any]:
        how = {"as": "sparse", "sizes": list(self.sizes), "indexed": self.index is not None, "empty": self.lists.empty}
        return {**self.lists.items.document(), **how}

    def feed_parts(self, batch: pa.RecordBatch, rows: int) -> Feeds:
        lengths, items = self.lists.open(batch, rows)
        if self.index is None:
            values = self.lists.tensor(items, lengths)
            coordinates = _coordinates(lengths)
        else:
            values, coordinates = self._indexed(items, lengths)
        sizes = [len(lengths[0])]
        for level, size in enumerate(self.sizes):
            place = coordinates[1 + level]
            sizes.append(size if size is not None else int(place.max(initial=-1)) + 1)
            outside = (place < 0) | (place >= sizes[-1])
            if outside.any():
                holds = f"something at index {place[int(outside.argmax())]}"
                expected = f"expected indices from 0 to {sizes[-1] - 1}: the row is as wide as that"
                blame = self.lists.items.blame.within(lambda: coordinates[0])
                blame.refuse("ROW_SHAPE", holds, expected, outside)
        indices = np.stack(coordinates, axis=1) if len(values_of(values)) else np.empty((0, len(sizes)), np.int64)
        tensors: tuple[Tensor, ...] = (indices, values, np.array(sizes, np.int64))
        return dict(zip(self.parts, tensors, strict=True))

    def _indexed(self, items: pa.Array, lengths: Sequence[Array]) -> tuple[Tensor, list[Array]]:
        """In the order of the indices, as TensorFlow's ops expect it. items: structs {index, value}, not null."""
        assert self.index is not None
        index_lists = replace(self.lists, items=self.index)
        fields = dict(zip((one.name for one in items.type), items.flatten(), strict=True))  # with the nulls of structs
        place, values = fields["index"], fields["value"]
        where = index_lists.tensor(place, lengths)
        fed = self.lists.tensor(values, lengths)
        assert not isinstance(where, Strings)
        row = origin(lengths)
        assert row is not None
        if (np.diff(where) < 0)[np.diff(row) == 0].any():
            order = np.lexsort((where, row))
            where = where[order]
            fed = Strings(fed.values.take(pa.array(order)), fed.shape) if isinstance(fed, Strings) else fed[order]
        return fed, [row, where]


def values_of(tensor: Tensor) -> Any:
    """What a tensor of one dimension holds."""
    return tensor.values if isinstance(tensor, Strings) else tensor


def _coordinates(lengths: Sequence[Array]) -> list[Array]:
    """For each dimension the place of every item: (number of items,)"""
    places = [np.arange(len(lengths[0]))]
    for level in lengths:
        starts = np.cumsum(level) - level  # starts: (lists,)
        places = [np.repeat(place, level) for place in places]
        places.append(np.arange(int(level.sum())) - np.repeat(starts, level))
    return places


def sparse_source(spec: TensorSpec, rule: InputColumn, column: pa.Field) -> SparseSource:
    """Agree on the column that fills a sparse input. raises: BindingError saying what was found and expected."""
    levels = len(peel(column.type)[0])
    declared = (None,) * max(1, levels) if spec.shape is None else spec.shape[1:]
    if rule.shape is not None and not fits(rule.shape, declared):
        expected = f"the signature says {spec}"
        raise mismatch(f"found 'shape: {list(rule.shape)}' in the job", expected, "MODEL_SIGNATURE")
    sizes = declared if rule.shape is None else rule.shape
    parts = tuple(part.name for part in spec.parts)
    leaf = peel(column.type)[1]
    if leaf is None or not pa.types.is_struct(leaf) or {one.name for one in leaf} != {"index", "value"}:
        return SparseSource(lists(spec, rule, column, len(sizes), ()), parts, sizes)
    if len(sizes) != 1 or levels != 1:
        raise mismatch(f"found {type_text(column.type)}", f"expected nested lists of values for {spec}")
    index, value = (pa.field(column.name, pa.list_(leaf.field(name).type)) for name in ("index", "value"))
    items = replace(lists(spec, rule, value, 1, ()), type=column.type)
    place = TensorSpec(spec.name, "int64", (None,), "")
    plain = rule.model_copy(update={"null": "error", "cast": "safe"})
    return SparseSource(items, parts, sizes, column_source(place, index.with_type(index.type.value_type), (), plain))


@dataclass(frozen=True)
class SparseTarget:
    """A sparse output -> a column of lists of {index, value}. parts: names of indices, values and dense shape."""

    name: str  # of the output
    parts: tuple[str, ...]
    row: Row
    items: OutputTarget  # the values
    field: pa.Field

    @property
    def fetches(self) -> tuple[str, ...]:
        return self.parts

    @property
    def dtype(self) -> str:
        return self.items.dtype

    def document(self) -> dict[str, Any]:
        return {**self.items.document(), "sparse": len(self.row) + 1}

    def bytes_per_row(self) -> int:
        return int(GUESS * (self.items.bytes_per_row() + 8 * len(self.row)))

    def collect(self, outputs: Outputs, fed: int, batch: pa.RecordBatch) -> pa.Array:
        """See `runner.binding.fetching.OutputTarget.fetch`."""
        indices, values, sizes = (outputs[name] for name in self.parts)
        assert isinstance(indices, np.ndarray)
        assert isinstance(sizes, np.ndarray)
        rank, count, rows = 1 + len(self.row), len(values_of(values)), batch.num_rows
        if indices.shape != (count, rank) or sizes.shape != (rank,):
            held = f"its indices are {tensor_text('int64', indices.shape)} for {count} values"
            raise self.items.refusal("MODEL_OUTPUT", f"{held}; expected {tensor_text('int64', (count, rank))}")
        if sizes[0] != fed:
            held = f"it has {sizes[0]} rows for {fed} rows fed"
            raise self.items.refusal("MODEL_BATCH", f"{held}; expected one row of it for each")
        line: Array = indices[:, 0]  # line: (values,)
        if count and ((line < 0) | (line >= fed)).any():
            raise self.items.refusal("MODEL_OUTPUT", f"it has a value outside of its {fed} rows")
        array = self.items.fetch(values, count, count)
        if (np.diff(line) < 0).any():
            order = np.argsort(line, kind="stable")
            line, indices, array = line[order], indices[order], array.take(pa.array(order))
        offsets = np.searchsorted(line, np.arange(rows + 1))  # offsets: (rows + 1,)
        if count * max(1, rank - 1) > MAX_OFFSET:
            raise self.items.too_large()
        structs = pa.Array.from_buffers(
            self.field.type.value_type, count, [None], children=[self._places(indices[:, 1:]), array]
        )
        narrow = pa.py_buffer(offsets.astype(np.int32))
        return pa.Array.from_buffers(self.field.type, rows, [None, narrow], children=[structs])

    def _places(self, indices: Array) -> pa.Array:
        """indices: (values, rank - 1)"""
        flat = pa.Array.from_buffers(pa.int64(), indices.size, [None, pa.py_buffer(np.ascontiguousarray(indices))])
        kind = self.field.type.value_type.field("index").type
        return flat if kind == pa.int64() else pa.Array.from_buffers(kind, len(indices), [None], children=[flat])


def sparse_target(spec: TensorSpec, rule: OutputColumn, rules: Rules) -> SparseTarget:
    """Agree on the column that a sparse output becomes. raises: BindingError saying what was found and expected."""
    if spec.shape is None or len(spec.shape) < 2:
        rank = "unknown rank" if spec.shape is None else f"{len(spec.shape)} dimensions"
        raise mismatch(f"found a sparse output of {rank}", "expected rows and at least one more", "MODEL_SIGNATURE")
    items = output_target(TensorSpec(spec.name, spec.dtype, (None,), ""), rule, None, "list", rules)
    row = spec.shape[1:]
    place = pa.int64() if len(row) == 1 else pa.list_(pa.field("item", pa.int64(), nullable=False), len(row))
    pair = [pa.field("index", place, nullable=False), pa.field("value", items.field.type, nullable=False)]
    kind = pa.list_(pa.field("item", pa.struct(pair), nullable=False))
    parts = tuple(part.name for part in spec.parts)
    return SparseTarget(spec.name, parts, row, items, pa.field(items.field.name, kind, nullable=False))
