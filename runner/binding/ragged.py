"""Ragged tensors <-> lists: offsets are row splits, values are values.

Knows one tensor at a time, not which inputs of a signature belong together. The invariant: n lists become n rows, and
n rows n lists, whatever their lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.section.columns import InputColumn, NullFill, OutputColumn
from jobs.words import counted
from runner.binding.blame import Blame
from runner.binding.cast.view import as_numpy
from runner.binding.constant import mismatch
from runner.binding.feeding import column_source
from runner.binding.fetching import MAX_OFFSET, OutputTarget, Rules, output_target
from runner.binding.nesting import Row, peel, plain
from runner.binding.shaped import ShapedTensor
from runner.binding.source import ColumnSource, nulls, typed_column
from runner.model.signature import TensorSpec
from runner.tensor import Array, Feeds, Outputs, Strings, Tensor, carrier, type_text


@dataclass(frozen=True, eq=False)
class Lists:
    """The outer list levels of one column, and what the innermost lists hold.

    type:   of the column.
    levels: that vary in length.
    items:  how one item of the innermost lists becomes values of the tensor.
    empty:  whether a null row is an empty list, not an error.
    """

    type: pa.DataType
    levels: int
    items: ColumnSource
    empty: bool

    def open(self, batch: pa.RecordBatch, rows: int) -> tuple[list[Array], pa.Array]:
        """rows: at least those of `batch`, whose last row stands for those that are missing.

        returns: for each level the lengths of its lists, and the items of the innermost ones, one after another.
        raises:  DataError ROW_NULL.
        """
        values = typed_column(batch, self.items.column, self.type, self.items.name)
        if rows > len(values):
            values = values.take(pa.array(np.minimum(np.arange(rows), len(values) - 1)))
        lengths: list[Array] = []
        for level in range(self.levels):
            values = plain(values)
            missing = None if self.empty and level == 0 else nulls(values)
            if missing is not None:
                holds, expected = "null", "expected a list in every row, or 'null: {fill: []}' in the job"
                if level:
                    holds, expected = "a null list", "expected none inside of a row"
                self.blame(lengths).refuse("ROW_NULL", holds, expected, missing)
            lengths.append(as_numpy(pc.fill_null(pc.list_value_length(values), 0)).astype(np.int64))
            values = values.flatten()
        return lengths, plain(values)

    def tensor(self, items: pa.Array, lengths: Sequence[Array]) -> Tensor:
        """(number of items, *shape of one)"""
        blame, missing = self.blame(lengths), nulls(items)
        if missing is not None:
            expected = "expected none: a 'null:' rule covers whole rows only"
            blame.refuse("ROW_NULL", "a list with a null element", expected, missing)
        return self.items.dense(items, blame)

    def blame(self, lengths: Sequence[Array]) -> Blame:
        """For items of lists of these `lengths`, level by level."""
        return self.items.blame.within(partial(origin, lengths))


def nan_lists(values: pa.Array, *, infinite: bool = False) -> Array | None:
    """(rows,) where a list of numbers holds a NaN, at any depth, or as `value` of a struct; None: nowhere.

    infinite: or infinity.
    """
    lengths: list[Array] = []
    while True:
        values = plain(values)
        if pa.types.is_struct(values.type) and values.type.get_field_index("value") >= 0:
            values = values.field("value")
        elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or _is_fixed(values.type):
            lengths.append(as_numpy(pc.fill_null(pc.list_value_length(values), 0)).astype(np.int64))
            values = values.flatten()
        else:
            break
    if not pa.types.is_floating(values.type):
        return None
    found = pc.invert(pc.is_finite(values)) if infinite else pc.is_nan(values)
    bad = np.flatnonzero(as_numpy(found))  # bad: (values that are NaN,)
    rows = origin(lengths)
    mask = np.zeros(len(lengths[0]) if lengths else len(values), np.bool_)
    mask[bad if rows is None else rows[bad]] = True
    return mask if len(bad) else None


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def origin(lengths: Sequence[Array]) -> Array | None:
    """(number of items,) the row that each item of the innermost lists belongs to; None: the rows themselves."""
    if not lengths:
        return None
    rows = np.arange(len(lengths[0]))
    for level in lengths:
        rows = np.repeat(rows, level)
    return rows


def lists(spec: TensorSpec, rule: InputColumn, field: pa.Field, levels: int, item: Row) -> Lists:
    """Agree on a column of `levels` list levels around items of the shape `item`.

    raises: BindingError saying what was found and expected.
    """
    kind = field.type
    for level in range(levels):
        outer, _ = peel(kind)
        if not outer or len(outer[0]) != 1:
            expected = f"expected lists, {counted(levels, 'level')} of them for {spec}"
            raise mismatch(f"found {type_text(field.type)}", expected + (f", not {level}" if level else ""))
        kind = _inner(kind)
    if rule.null != "error" and not (isinstance(rule.null, NullFill) and rule.null.fill == []):
        raise mismatch("found a 'null:' rule", "expected 'null: {fill: []}', which takes a null row for an empty list")
    parts = TensorSpec(spec.name, spec.dtype, (None, *item), "")
    values = column_source(parts, pa.field(field.name, kind), item, rule.model_copy(update={"null": "error"}))
    return Lists(field.type, levels, values, rule.null != "error")


def _inner(kind: pa.DataType) -> pa.DataType:
    while isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        if isinstance(kind, ShapedTensor):
            kind = kind.nested
        else:
            kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    return kind.value_type


@dataclass(frozen=True, eq=False)
class RaggedSource:
    """One column of lists -> values and row splits. parts: values, then the splits from the outermost on."""

    lists: Lists
    parts: tuple[TensorSpec, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.lists.items.columns

    @property
    def values(self) -> str:
        """The tensor that holds them."""
        return self.parts[0].name

    def owners(self, feeds: Feeds) -> Array:
        """(values,) the row of each, of what was fed."""
        rows = origin([np.diff(np.asarray(feeds[part.name])) for part in self.parts[1:]])
        assert rows is not None  # there is one level at least
        return rows

    def describe(self) -> dict[str, str]:
        return {**self.lists.items.describe(), "type": type_text(self.lists.type), **note(self.lists, "ragged")}

    def document(self) -> dict[str, Any]:
        return {"as": "ragged", "levels": self.lists.levels, "empty": self.lists.empty, **self.lists.items.document()}

    def feed_parts(self, batch: pa.RecordBatch, rows: int) -> Feeds:
        """The tensors of one batch by name; otherwise as `runner.binding.source.InputSource.feed`.

        rows: at least those of `batch`, whose last row stands for those that are missing.
        cost: no copy of plain values.
        """
        lengths, items = self.lists.open(batch, rows)
        feeds: dict[str, Tensor] = {self.parts[0].name: self.lists.tensor(items, lengths)}
        for part, level in zip(self.parts[1:], lengths, strict=True):
            splits = np.zeros(len(level) + 1, carrier(part.dtype))  # splits: (lists + 1,)
            np.cumsum(level, out=splits[1:])
            feeds[part.name] = splits
        return feeds


def note(of: Lists, kind: str) -> dict[str, str]:
    """What `describe` says of it."""
    texts = (kind, of.items.describe()["note"], "null rows are empty lists" if of.empty else "")
    return {"note": "; ".join(filter(None, texts))}


def ragged_source(spec: TensorSpec, rule: InputColumn, field: pa.Field) -> RaggedSource:
    shape = spec.shape or ()
    levels = len(spec.parts) - 1
    return RaggedSource(lists(spec, rule, field, levels, shape[1 + levels :]), spec.parts)


@dataclass(frozen=True)
class RaggedTarget:
    """A ragged output -> a column of lists. parts: names of values, and of the splits from the outermost on."""

    name: str  # of the output
    parts: tuple[str, ...]
    items: OutputTarget
    field: pa.Field

    @property
    def fetches(self) -> tuple[str, ...]:
        return self.parts

    @property
    def dtype(self) -> str:
        return self.items.dtype

    @property
    def row(self) -> Row:
        return (None,) * (len(self.parts) - 1) + self.items.row

    def document(self) -> dict[str, Any]:
        return {**self.items.document(), "ragged": len(self.parts) - 1}

    def bytes_per_row(self) -> int:
        return int(self.items.bytes_per_row() * 64 ** (len(self.parts) - 1))

    def collect(self, outputs: Outputs, fed: int, batch: pa.RecordBatch) -> pa.Array:
        """See `runner.binding.fetching.OutputTarget.fetch`."""
        values, *levels = (outputs[name] for name in self.parts)
        count, kept = fed, batch.num_rows
        offsets: list[Array] = []
        for level, splits in enumerate(levels):
            self._check(splits, count, "MODEL_BATCH" if level == 0 else "MODEL_OUTPUT")
            assert not isinstance(splits, Strings)
            offsets.append(splits[: kept + 1])  # offsets: (lists + 1,)
            count, kept = int(splits[-1]), int(splits[kept])
        array = self.items.fetch(values, count, kept)
        kinds = [self.field.type]
        for _ in offsets[1:]:
            kinds.append(kinds[-1].value_type)
        for kind, level_offsets in zip(reversed(kinds), reversed(offsets), strict=True):
            if level_offsets[-1] > MAX_OFFSET:
                raise self.items.too_large()
            narrow = pa.py_buffer(np.ascontiguousarray(level_offsets, np.int32))
            array = pa.Array.from_buffers(kind, len(level_offsets) - 1, [None, narrow], children=[array])
        return array

    def _check(self, splits: Tensor, count: int, code: str) -> None:
        if isinstance(splits, Strings) or splits.ndim != 1 or not np.issubdtype(splits.dtype, np.integer):
            raise self.items.refusal("MODEL_OUTPUT", "its row splits are no vector of integers")
        if len(splits) != count + 1:
            counted = f"its row splits make {len(splits) - 1} lists of {count}"
            raise self.items.refusal(code, f"{counted}; expected one list for each")
        if splits[0] != 0 or (np.diff(splits) < 0).any():
            raise self.items.refusal("MODEL_OUTPUT", "its row splits do not rise from 0")


def ragged_target(spec: TensorSpec, rule: OutputColumn, rules: Rules) -> RaggedTarget:
    """Agree on the column of lists that a ragged output becomes. raises: BindingError."""
    levels, shape = len(spec.parts) - 1, spec.shape or ()
    item = TensorSpec(spec.name, spec.dtype, (None, *shape[1 + levels :]), "")
    items = output_target(item, rule, None, "list", replace(rules, single=False))
    kind = items.field.type
    for _ in range(levels):
        kind = pa.list_(pa.field("item", kind, nullable=False))
    parts = tuple(part.name for part in spec.parts)
    return RaggedTarget(spec.name, parts, items, pa.field(items.field.name, kind, nullable=False))
