"""Arrow -> tensor: where one input of a signature comes from, and how it is filled from a record batch.

Refuses to know names of jobs, files or engines. The invariant: what comes out has the dtype and shape that were agreed
on, C-contiguous, or a DataError names the first row to blame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.formats.widening import type_in
from jobs.errors import DataError
from jobs.words import counted
from runner.binding.blame import Blame, Tally
from runner.binding.cast.cast import Cast
from runner.binding.cast.kind import NATURAL
from runner.binding.cast.view import as_arrow, as_numpy
from runner.binding.nesting import Row, byte_lists, only_nulls, open_lengths, plain
from runner.binding.shaped import ShapedTensor
from runner.tensor import (
    AS_BITS,
    FLOATS,
    Array,
    Strings,
    Tensor,
    carrier,
    nonfinite,
    tensor_digest,
    type_text,
    values_of,
)

S = TypeVar("S")


class InputSource(Protocol):
    """Where one input comes from."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    def feed(self, batch: pa.RecordBatch) -> Tensor:
        """The tensor of one batch. raises: DataError naming column and row."""
        ...

    def describe(self) -> dict[str, str]:
        """For people: `column`, its `type`, and a `note` of what is done to the values, "" where nothing is."""
        ...

    def document(self) -> dict[str, Any]:
        """For the plan: what decides the values that are fed, as plain JSON values."""
        ...


@dataclass(frozen=True)
class Span:
    """The places in a table that an input may name, both ends included. table: the name of it.

    Below 0 the model counts from the end of the table.
    """

    lowest: int
    highest: int
    table: str

    def __str__(self) -> str:
        backwards = f", {self.lowest} to -1 silently from its end" if self.lowest < 0 else ""
        return f"{self.lowest} to {self.highest}: rows of '{self.table}'{backwards}"

    def outside(self, array: Array) -> Array | None:
        """Where a value is no such place; None: nowhere. Fractions are cut off, as the model does."""
        low, high = self.lowest - 1, self.highest + 1
        if not len(array):
            return None
        if array.dtype.kind == "i" and self.lowest == 0:  # one pass instead of two: what is negative is a huge unsigned
            inside = bool(array.view(f"u{array.itemsize}").max() < high)
        else:
            inside = bool(array.min() > low and array.max() < high)  # a NaN is neither
        if inside:
            return None
        outside: Array = ~((array > low) & (array < high))
        return outside


@dataclass(frozen=True, eq=False)
class ColumnSource:
    """One column, agreed on by `column_source`.

    sizes:  values per list, one for each list level of the column; None: any, constant within a batch.
    row:    shape of one row of the tensor; its None dimensions are taken from the lists.
    """

    name: str  # of the input
    column: str
    type: pa.DataType
    dtype: str
    cast: Cast
    sizes: tuple[int | None, ...]
    row: Row
    fill: Tensor | None  # what a null row becomes; shape () or that of one row; None: nulls are errors
    finite: bool = False  # NaN and infinity are errors; what a null row becomes is none
    span: Span | None = None  # what else is an error, of numbers; what a null row becomes is none
    raw: bool = False  # the innermost level of lists is bytes
    counts: bool = False  # errors are not told to people

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def describe(self) -> dict[str, str]:
        filled = "null rows are filled" if self.fill is not None else ""
        together = "rows of one shape share a batch" if None in self.sizes else ""
        notes = ["raw bytes" if self.raw else "", self.cast.note, filled, str(self.span or ""), together]
        return {"column": self.column, "type": type_text(self.type), "note": "; ".join(filter(None, notes))}

    def document(self) -> dict[str, Any]:
        # No Arrow types: their names may change with pyarrow, and the files that have them are part of the plan.
        return {
            "column": self.column,
            "dtype": self.dtype,
            "row": list(self.row),
            **self.cast.document(),
            "fill": None if self.fill is None else tensor_digest(self.fill),
        } | ({"raw": True} if self.raw else {})

    @cached_property
    def blame(self) -> Blame:
        return (Tally if self.counts else Blame)(self.name, self.column)

    def feed(self, batch: pa.RecordBatch) -> Tensor:
        values = plain(typed_column(batch, self.column, self.type, self.name))
        empty = nulls(values)
        if empty is None:
            return self.dense(values, self.blame)
        if self.fill is None:
            self.blame.refuse("ROW_NULL", "null", "expected a value in every row, or a 'null:' rule in the job", empty)
        return self._filled(values, empty, self.fill)

    def shapes(self, values: pa.Array) -> Array:
        """(rows, open dimensions) of rows of the column: those that are equal may share a batch.

        A null row has the shape of what it becomes, or else that of the other rows, if these have one.
        """
        values = values.cast(self.type) if only_nulls(values.type, self.type) else values
        shapes, empty = open_lengths(values, self.sizes), nulls(plain(values))
        if empty is not None and self.fill is not None:
            others = shapes[~empty]
            if self.fill.shape:
                shapes[empty] = [self.fill.shape[at] for at, size in enumerate(self.row) if size is None]
            elif len(others) and (others == others[0]).all():
                shapes[empty] = others[0]
            else:
                shapes[empty] = -1
        return shapes

    def dense(self, values: pa.Array, blame: Blame) -> Tensor:
        """values: no null row. blame: with their rows in the batch."""
        rows = len(values)
        sizes = []
        for level, size in enumerate(self.sizes, 1):
            if self.raw and level == len(self.sizes):
                values = byte_lists(values, NATURAL[self.dtype])
            sizes.append(self._length(values, size, rows, blame))
            values = plain(values.flatten())
            empty = nulls(values)
            if empty is not None:
                expected = "expected none: a 'null:' rule covers whole rows only"
                blame.among(rows).refuse("ROW_NULL", "a list with a null element", expected, empty)
        shape = (rows, *self._row_shape(sizes))
        if self.dtype == "string":
            return Strings(text(values), shape)
        cast = self.cast.of(values.type)
        array, failed = cast.apply(values)
        if failed is not None:
            wanted = failed.wanted(self.name, exact=cast.exact)
            blame.among(rows).refuse(failed.code, failed.holds, wanted, failed.mask)
        if self.finite and (odd := self._nonfinite(array)) is not None:
            expected = "expected a finite number: the job says 'nonfinite: reject'"
            blame.among(rows).refuse("ROW_NONFINITE", "NaN or infinity", expected, odd)
        if self.span is not None and (outside := self.span.outside(array)) is not None:
            blame.among(rows).refuse("ROW_RANGE", lambda at: str(array[at]), f"expected {self.span}", outside)
        return array.reshape(shape)  # array: (rows * values per row,) -> (rows, *row)

    def _length(self, values: pa.Array, size: int | None, rows: int, blame: Blame) -> int:
        """The length that all lists of this level have."""
        if pa.types.is_fixed_size_list(values.type):
            return int(values.type.list_size)
        lengths = as_numpy(pc.list_value_length(values))  # lengths: (number of lists,)
        wanted = size if size is not None else int(lengths[0]) if len(lengths) else 0
        wrong = lengths != wanted
        if wrong.any():
            raw = self.raw and not pa.types.is_nested(values.type.value_type)
            holds: Callable[[int], str] = partial(_bytes_text if raw else _length_text, lengths)
            expected = f"expected {wanted} bytes" if raw else f"expected lists of {wanted}"
            if size is None:
                by_row = lengths.reshape(rows, -1)  # by_row: (rows, lists of a row)
                uneven = by_row != by_row[:, :1]
                if uneven.any():
                    holds = partial(_lengths_text, lengths, by_row.shape[1])
                    blame.among(rows).refuse("ROW_SHAPE", holds, "expected lists of one length in a row", uneven)
                expected += ", as in the first row: rows of several shapes share no call"
            # Where any length will do, no row is to blame: its batch is.
            blame.among(rows).refuse("ROW_SHAPE", holds, expected, wrong, rejectable=size is not None)
        return wanted

    def _nonfinite(self, array: Array) -> Array | None:
        values = values_of(array, self.dtype)
        if values.dtype.kind not in "fc":
            return None
        failed: Array = ~np.isfinite(values)
        return failed if failed.any() else None

    def _row_shape(self, sizes: list[int]) -> tuple[int, ...]:
        # An open dimension is a list level of its own, and only the innermost level can hold several dimensions
        # (see `runner.binding.nesting.peel`): levels and dimensions pair up as far as one is open.
        return tuple(sizes[index] if size is None else size for index, size in enumerate(self.row))

    def _filled(self, values: pa.Array, empty: Array, fill: Tensor) -> Tensor:
        present = np.flatnonzero(~empty)  # present: (rows that hold a value,)
        if not len(present) and None in self.row and not fill.shape:
            expected = "expected a row that gives the shape, or 'null: {fill: [...]}' in the shape of a row"
            self.blame.refuse("ROW_NULL", "null, as all rows of the batch do", expected, empty)
        dense = self.dense(values.take(as_arrow(present)), self.blame.within(lambda: present))
        row = dense.shape[1:] if len(present) else fill.shape or dense.shape[1:]
        if fill.shape not in ((), row):
            holds, expected = f"null, which becomes a row of {list(fill.shape)}", f"expected {list(row)}, as other rows"
            self.blame.refuse("ROW_SHAPE", holds, expected, empty, rejectable=False)
        shape = (len(values), *row)
        if isinstance(dense, Strings) and isinstance(fill, Strings):
            return _filled_strings(dense, fill, empty, shape)
        filled = np.empty(shape, carrier(self.dtype))
        if len(present):
            filled[present] = dense
        filled[empty] = fill
        return filled


@dataclass(frozen=True, eq=False)
class StackSource:
    """Several columns of one value per row, side by side in the last dimension: (rows, number of columns)."""

    parts: tuple[ColumnSource, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(part.column for part in self.parts)

    def describe(self) -> dict[str, str]:
        parts = [part.describe() for part in self.parts]
        named = parts[0]["column"] + (f" to {parts[-1]['column']}" if len(parts) > 1 else "")
        first = {key: ", ".join(dict.fromkeys(filter(None, (part[key] for part in parts)))) for key in ("type", "note")}
        return {"column": f"{named} (stack of {len(parts)})", **first}

    def document(self) -> dict[str, Any]:
        return {"stack": [part.document() for part in self.parts]}

    def feed(self, batch: pa.RecordBatch) -> Tensor:
        rows, width = batch.num_rows, len(self.parts)
        if self.parts[0].dtype == "string":
            return self._strings(batch)
        # Column after column: blocks of rows that fit into the cache were measured and gained nothing.
        stacked = np.empty((rows, width), carrier(self.parts[0].dtype))  # stacked: (rows, width)
        for index, part in enumerate(self.parts):
            stacked[:, index] = part.feed(batch)
        return stacked

    def _strings(self, batch: pa.RecordBatch) -> Strings:
        rows, width = batch.num_rows, len(self.parts)
        columns = [tensor.values for part in self.parts if isinstance(tensor := part.feed(batch), Strings)]
        order = np.arange(rows * width).reshape(width, rows).T.ravel()  # order: (rows * width,), row-major
        return Strings(_joined(columns).take(as_arrow(order)), (rows, width))


def finite(source: S) -> S:
    """The same source, for which NaN and infinity are errors."""
    return _each(source, lambda part: replace(part, finite=True))


def within(source: S, span: Span) -> S:
    """The same source, for which numbers outside of a span are errors; unchanged where it has none."""
    return _each(source, lambda part: replace(part, span=span) if _has_numbers(part.dtype) else part)


def columns_in(source: object) -> list[ColumnSource]:
    """The columns in a source; none in one that is made of no column, or of tf.Examples."""
    found = list[ColumnSource]()

    def note(part: ColumnSource) -> ColumnSource:
        found.append(part)
        return part

    _each(source, note)
    return found


def checked(source: S) -> list[S]:
    """Sources that feed the same, and fail for rows in which `cast: unsafe` changes a value; none where none may."""
    if isinstance(source, StackSource):
        return [found for part in source.parts for found in checked(part)]  # type: ignore[misc]
    if not any(part.cast.unsafe for part in columns_in(source)):
        return []
    return [_each(source, lambda part: replace(part, cast=part.cast.checked(), finite=False, span=None, counts=True))]


def is_within(source: object) -> bool:
    """Whether all that a source feeds lies in a span: its values, and what it fills in."""
    parts = columns_in(source)
    fills = [fill for part in parts for fill in (part.fill, getattr(source, "value", None))]
    places = [np.ravel(fill) for fill in fills if fill is not None and not isinstance(fill, Strings)]
    spans = [part.span for part in parts]
    return bool(spans) and all(span and all(span.outside(fill) is None for fill in places) for span in spans)


def _each(source: S, change: Callable[[ColumnSource], ColumnSource]) -> S:
    """The same source, with each column in it changed; what is made of none stays as it is."""
    made: Any = source
    if isinstance(made, ColumnSource):
        made = change(made)
    elif isinstance(made, StackSource):
        made = StackSource(tuple(change(part) for part in made.parts))
    elif (lists := getattr(made, "lists", None)) is not None:
        made = replace(made, lists=replace(lists, items=change(lists.items)))
    return made  # type: ignore[no-any-return]


def fills_nan(source: object) -> bool:
    """Whether a null row becomes NaN."""
    if isinstance(source, StackSource):
        return any(fills_nan(part) for part in source.parts)
    fill = getattr(source, "fill", None)
    return fill is not None and nonfinite(fill, getattr(source, "dtype", "")) is not None


def passes_nonfinite(source: object) -> bool:
    """Whether NaN or infinity may come from the rows of a batch. Serialized tf.Examples are not looked into."""
    if isinstance(source, StackSource):
        return any(passes_nonfinite(part) for part in source.parts)
    source = getattr(getattr(source, "lists", None), "items", source)
    if not isinstance(source, ColumnSource) or source.dtype not in FLOATS:
        return False
    return not source.finite or fills_nan(source)


def _has_numbers(dtype: str) -> bool:
    return dtype != "string" and dtype not in AS_BITS and carrier(dtype).kind in "iuf"


def column_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The column `name`. raises: DataError COLUMN_MISSING where the reader did not bring it."""
    index = batch.schema.get_field_index(name)
    if index < 0:
        raise DataError(f"no column {name!r} in the rows that were read", code="COLUMN_MISSING", column=name)
    return batch.column(index)


def typed_column(batch: pa.RecordBatch, column: str, kind: pa.DataType, name: str) -> pa.Array:
    """The column that feeds input `name`: of `kind`, or of a member of each mixed type in it.

    raises: DataError COLUMN_MISSING; COLUMN_TYPE where it is of another type; ROW_SHAPE where a row contradicts itself.
    """
    values = column_of(batch, column)
    if only_nulls(values.type, kind):
        return values.cast(kind)
    if values.type != kind and type_in(values.type, kind) != values.type:
        raise DataError(
            f"could not feed input {name!r} from column {column!r}: found {values.type}; expected {kind}, as when the"
            " job was planned",
            code="COLUMN_TYPE",
            column=column,
        )
    if isinstance(kind, ShapedTensor) and (wrong := kind.contradicting(values)).any():
        expected = f"expected {kind}, with as many values as the shape says"
        Blame(name, column).refuse("ROW_SHAPE", partial(kind.told, values), expected, wrong)
    return values


def nulls(values: pa.Array) -> Array | None:
    """(len(values),) where a value is missing, or a part of it (complex numbers are structs); None: nowhere."""
    parts = values.flatten() if pa.types.is_struct(values.type) else [values]
    missing: Array | None = None
    for part in parts:
        if part.null_count:
            empty = ~as_numpy(part.is_valid())
            missing = empty if missing is None else missing | empty
    return missing


def _bytes_text(lengths: Array, index: int) -> str:
    return counted(lengths[index], "byte")


def _lengths_text(lengths: Array, lists: int, index: int) -> str:
    return f"lists of {lengths[index - index % lists]} and of {lengths[index]}"


def _length_text(lengths: Array, index: int) -> str:
    return f"a list of {lengths[index]}"


def text(values: pa.Array) -> pa.Array:
    """Strings and bytes in any layout as BinaryArray or LargeBinaryArray; no copy for the four classic layouts."""
    types = pa.types
    if types.is_binary(values.type) or types.is_large_binary(values.type):
        return values
    small = types.is_string(values.type) or types.is_fixed_size_binary(values.type)
    return values.cast(pa.binary() if small else pa.large_binary())


def _joined(parts: list[pa.Array]) -> pa.Array:
    # 64-bit offsets: together they may pass 2 GiB although none does alone.
    return pa.concat_arrays([part.cast(pa.large_binary()) for part in parts])


def _filled_strings(dense: Strings, fill: Strings, empty: Array, shape: tuple[int, ...]) -> Strings:
    rows, width = shape[0], math.prod(shape[1:])
    order = np.empty((rows, width), np.int64)  # order: (rows, values per row), places in present values, then fill
    order[~empty] = np.arange(len(dense.values)).reshape(-1 if width else np.count_nonzero(~empty), width)
    order[empty] = len(dense.values) + (np.arange(width) if fill.shape else 0)
    return Strings(_joined([dense.values, fill.values]).take(as_arrow(order.ravel())), shape)
