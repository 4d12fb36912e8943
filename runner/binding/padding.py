"""Lists of any length -> one rectangular tensor, filled up by a policy; and an output of that width -> lists again.

Refuses to cut input: a list that is too long is an error of its row. The invariant: the values of a row stand at the
front of its row of the tensor, in their order, and everything behind them is the value of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import BindingError
from jobs.section.columns import InputColumn, OutputColumn, Pad
from runner.binding.cast.view import as_numpy
from runner.binding.constant import constant, mismatch
from runner.binding.fetching import MAX_OFFSET, OutputTarget, Rules, output_target
from runner.binding.nesting import Row, peel, plain
from runner.binding.ragged import Lists, lists
from runner.model.signature import TensorSpec
from runner.tensor import Array, Outputs, Strings, Tensor, carrier, tensor_digest, type_text


@dataclass(frozen=True, eq=False)
class PadSource:
    """One column of lists -> (rows, *widths, *shape of an item).

    widths: of the dimensions that the list levels become; None: as the policy says.
    value:  shape (), what is filled in.
    """

    lists: Lists
    widths: Row
    policy: Pad
    value: Tensor

    @property
    def columns(self) -> tuple[str, ...]:
        return self.lists.items.columns

    def describe(self) -> dict[str, str]:
        described = self.lists.items.describe()
        notes = (f"padded to {self.policy}", described["note"], "null rows are empty lists" if self.lists.empty else "")
        return {**described, "type": type_text(self.lists.type), "note": "; ".join(filter(None, notes))}

    def document(self) -> dict[str, Any]:
        policy = self.policy.model_dump(mode="json", exclude={"value"})
        pad = {"pad": policy, "value": tensor_digest(self.value), "empty": self.lists.empty}
        return {**self.lists.items.document(), "widths": list(self.widths), **pad}

    def feed(self, batch: pa.RecordBatch) -> Tensor:
        """raises: DataError naming column and row; ROW_SHAPE where a list is longer than the widest bucket."""
        lengths, items = self.lists.open(batch, 0)
        values = self.lists.tensor(items, lengths)  # values: (number of items, *shape of one)
        filled = np.ones(batch.num_rows, np.bool_)  # where there is something: (rows, *widths so far)
        for level, sizes in enumerate(lengths):
            most = self.width(sizes, level, lengths[:level])
            full = np.zeros(filled.shape, np.int64)  # full: the lengths, 0 for a list that is not there
            full[filled] = sizes
            filled = np.arange(most) < full[..., None]
        if isinstance(values, Strings):
            return self._strings(values, filled)
        padded = np.full((*filled.shape, *values.shape[1:]), self.value, values.dtype)
        padded[filled] = values
        return padded

    def lengths(self, batch: pa.RecordBatch | pa.Table) -> Array:
        """(rows,) how long the outermost list of each row is; 0 for null."""
        column = batch.column(batch.schema.get_field_index(self.columns[0]))
        if pa.types.is_null(column.type):
            return np.zeros(len(column), np.int64)
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        sizes = [as_numpy(pc.fill_null(pc.list_value_length(plain(chunk)), 0)) for chunk in chunks]
        return np.concatenate([np.empty(0, np.int64), *sizes])

    def alone(self, lengths: Array) -> Array:
        """How wide each row would be fed by itself. Never raises."""
        lengths = np.maximum(lengths, 1)
        if self.widths[0] is not None:
            return np.full(len(lengths), self.widths[0])
        if self.policy.multiple_of:
            return -(-lengths // self.policy.multiple_of) * self.policy.multiple_of
        if self.policy.buckets:
            buckets = np.array(self.policy.buckets)
            return buckets[np.minimum(np.searchsorted(buckets, lengths), len(buckets) - 1)]
        return lengths

    def width(self, sizes: Array, level: int, outer: Sequence[Array] = ()) -> int:
        """How wide a list level becomes. sizes: of its lists; outer: of the lists around them, for messages."""
        width = self.widths[level]
        most = int(sizes.max(initial=1))  # not 0: hardly a model is made for that
        limit = width if width is not None else self.policy.buckets[-1] if self.policy.buckets else most
        if most > limit:
            holds = f"a list of {sizes[int((sizes > limit).argmax())]}"
            expected = (
                f"expected at most {limit}, the {'width of the tensor' if width is not None else 'largest bucket'}"
            )
            self.lists.blame(outer).refuse("ROW_SHAPE", holds, expected, sizes > limit)
        if width is not None:
            return width
        if self.policy.buckets:
            return next(bucket for bucket in self.policy.buckets if bucket >= most)
        return -(-most // (self.policy.multiple_of or 1)) * (self.policy.multiple_of or 1)

    def _strings(self, values: Strings, filled: Array) -> Strings:
        assert isinstance(self.value, Strings)
        shape, width = (*filled.shape, *values.shape[1:]), int(np.prod(values.shape[1:]))
        order = np.full((*filled.shape, width), len(values.values))  # order: places in the values, then the filler
        order[filled] = np.arange(len(values.values)).reshape(-1, width)
        both = pa.concat_arrays([values.values.cast(pa.large_binary()), self.value.values.cast(pa.large_binary())])
        return Strings(both.take(pa.array(order.ravel())), shape)


def pad_source(spec: TensorSpec, rule: InputColumn, field: pa.Field) -> PadSource:
    """Agree on a column of lists that is filled up. raises: BindingError saying what was found and expected."""
    assert rule.pad is not None
    widths = [size for level in peel(field.type)[0] for size in level]
    shape = tuple(widths) if spec.shape is None else spec.shape[1:]
    levels = 1 + max((at for at, size in enumerate(shape) if size is None), default=0)
    if not shape:
        raise mismatch("found 'pad'", f"expected a tensor of more than one dimension, not {spec}")
    try:
        value = constant(_zero(spec.dtype) if rule.pad.value is None else rule.pad.value, spec.dtype, ())
    except BindingError as error:
        raise BindingError(f"in 'pad: value' {error.message}", **error.facts) from error
    if not isinstance(value, Strings):
        value = value.astype(carrier(spec.dtype))
    return PadSource(lists(spec, rule, field, levels, shape[levels:]), shape[:levels], rule.pad, value)


def _zero(dtype: str) -> Any:
    if dtype == "string":
        return ""
    return False if dtype == "bool" else 0


@dataclass(frozen=True)
class CutTarget:
    """An output whose second dimension follows a padded input -> lists as long as the row was.

    source: of that input.
    """

    source: PadSource
    items: OutputTarget
    field: pa.Field

    @property
    def name(self) -> str:
        return self.items.name

    @property
    def fetches(self) -> tuple[str, ...]:
        return (self.items.name,)

    @property
    def dtype(self) -> str:
        return self.items.dtype

    @property
    def row(self) -> Row:
        return (None, *self.items.row)

    def document(self) -> dict[str, Any]:
        return {**self.items.document(), "cut": self.source.columns[0]}

    def bytes_per_row(self) -> int:
        return 64 * self.items.bytes_per_row()

    def collect(self, outputs: Outputs, fed: int, batch: pa.RecordBatch) -> pa.Array:
        """See `runner.binding.fetching.OutputTarget.fetch`."""
        tensor, lengths = outputs[self.name], self.source.lengths(batch)
        width = self.source.width(lengths, 0)
        if tensor.shape[:2] != (fed, width):
            code = "MODEL_BATCH" if tensor.shape[:1] != (fed,) else "MODEL_OUTPUT"
            problem = f"it is {list(tensor.shape)} for {fed} rows padded to {width}"
            raise self.items.refusal(code, f"{problem}; leave out 'cut' where its length is another")
        kept = np.arange(width) < lengths[:, None]  # kept: (rows, width)
        count = int(lengths.sum())
        if isinstance(tensor, Strings):
            inner = int(np.prod(tensor.shape[2:]))
            order = np.arange(kept.size * inner).reshape(*kept.shape, inner)[kept]
            tensor = Strings(tensor.values.take(pa.array(order.ravel())), (count, *tensor.shape[2:]))
        else:
            tensor = tensor[: len(lengths)][kept]
        if count > MAX_OFFSET:
            raise self.items.too_large()
        offsets = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        children = [self.items.fetch(tensor, count, count)]
        return pa.Array.from_buffers(self.field.type, len(lengths), [None, pa.py_buffer(offsets)], children=children)


def cut_target(spec: TensorSpec, rule: OutputColumn, source: PadSource, rules: Rules) -> CutTarget:
    """Agree on the lists that an output becomes, each as long as the row of `source`. raises: BindingError."""
    if spec.encoding != "dense" or spec.shape is None or len(spec.shape) < 2:
        raise mismatch(f"found 'cut: {rule.cut}'", "expected an output of at least two known dimensions")
    if spec.shape[1] not in (None, source.widths[0]):
        raise mismatch(f"found 'cut: {rule.cut}'", f"its second dimension is always {spec.shape[1]}")
    item = TensorSpec(spec.name, spec.dtype, (None, *spec.shape[2:]), "")
    items = output_target(item, rule, None, "list", replace(rules, single=False))
    kind = pa.list_(pa.field("item", items.field.type, nullable=False))
    return CutTarget(source, items, pa.field(items.field.name, kind, nullable=False))
