"""The Binding: the agreement between the columns of the input and the tensors of a signature.

Compiled once per job from an Arrow schema and a signature, before any worker starts; refuses to know files, engines
and stores. The invariant: a Binding that exists knows its output schema, and whatever schema and signature can
tell to be wrong was one BindingError that lists all of it.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.errors import DataError, InternalError, one_of
from runner.binding.blame import RowError
from runner.binding.cast.cast import as_type, unheld
from runner.binding.cast.view import as_arrow
from runner.binding.composite import PartsSource
from runner.binding.constant import ConstantSource
from runner.binding.example import ExampleSource
from runner.binding.fetching import OutputTarget, Target
from runner.binding.naming import Lead, with_columns
from runner.binding.nesting import peel
from runner.binding.padding import PadSource
from runner.binding.ragged import nan_lists
from runner.binding.shaping.target import ShapedTarget, held_bytes, output_of
from runner.binding.source import (
    ColumnSource,
    InputSource,
    Span,
    checked,
    column_of,
    columns_in,
    fills_nan,
    finite,
    is_within,
    passes_nonfinite,
    within,
)
from runner.tensor import (
    Array,
    Feeds,
    Outputs,
    Strings,
    Tensor,
    any_nonfinite,
    nonfinite,
    padded,
    rows_of,
    tensor_text,
    type_text,
)

Marks = npt.NDArray[np.uint8]  # (rows,) a sum of these:
NAN_ANSWER = 1  # an output holds a NaN
ODD_INPUT = 2  # an input holds NaN or infinity
UNSEEN = 4  # one does, and all outputs are finite
CHANGED = 8  # `cast: unsafe` changed a value of an input


def _reduced(arrow: pa.FixedSizeListType) -> tuple[Any, ...]:
    return pa.list_, (arrow.value_field, arrow.list_size)


# pyarrow (26.0) pickles a fixed-size list without its field: elements that are never null would be nullable on a
# worker, and the types of driver and worker no longer equal.
copyreg.pickle(pa.FixedSizeListType, _reduced)


@dataclass(frozen=True)
class BoundInput:
    """source: None where the signature's own default is fed. twin: another input that is the same tensor."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    source: InputSource | PartsSource | None
    twin: str = ""


@dataclass(frozen=True)
class Binding:
    """How the rows of a record batch become named tensors, and named tensors columns. Picklable.

    columns:       to read, in order; those that are fed, then those that are kept.
    fetches:       outputs to compute.
    output_schema: kept columns first, in the order of the job, then the outputs.
    kept:          name in the output -> the column.
    batch_rows:    the fixed batch dimension of the model, None: any number of rows.
    padded:        that number is the job's choice, and not the model's.
    paths:         of what is fed, what is a field of a struct, or of a type that only its metadata states.
    narrowed:      kept columns that are floats in some files and integers in others -> the type of narrower floats that
                   the format of the output makes of them: integers that it does not hold are bad rows.
    """

    columns: tuple[str, ...]
    fetches: tuple[str, ...]
    output_schema: pa.Schema
    batch_rows: int | None
    inputs: tuple[BoundInput, ...]
    outputs: tuple[Target, ...]
    kept: dict[str, str]
    paths: dict[str, Lead] = field(default_factory=dict)
    narrowed: dict[str, pa.DataType] = field(default_factory=dict)
    padded: bool = False

    @property
    def kept_columns(self) -> list[str]:
        """Those of the input, each once."""
        return list(dict.fromkeys(self.kept.values()))

    @property
    def output_bytes_per_row(self) -> float:
        """An estimate over the outputs, in Arrow, and over what is made less of: open dimensions count as 64 values,
        strings as 64 bytes."""
        return sum(output.bytes_per_row() for output in self.outputs) + held_bytes(self.outputs)

    def feed(self, batch: pa.RecordBatch) -> Feeds:
        """Turn one record batch into the model's named inputs.

        batch:   1 to `batch_rows` rows with at least `self.columns`.
        returns: {input: (rows, *row)}, of pictures (rows,) of bytes; views onto `batch` where the layout allows. With
                 a fixed batch dimension always `batch_rows` rows: a short batch is filled up with its last row.
                 Constants are not cut.
        raises:  RowError ROW_NULL, ROW_SHAPE, ROW_OVERFLOW, ROW_INEXACT, ROW_NONFINITE or ROW_RANGE, and ROW_UTF8 for
                 kept text that is none, naming column and rows within the batch; DataError where no row is to blame.
                 ROW_INEXACT and ROW_OVERFLOW also for a kept value that the type of all files cannot hold.
        cost:    no copy for contiguous fixed-width columns without nulls, one for others and for stacks.
        """
        for name, column in self.kept.items():
            values = column_of(batch, column)
            _refuse_torn_text(column, values)
            _refuse_unheld(column, values, self._kept_as(name, values.type))
        if self.batch_rows is not None and not 0 < batch.num_rows <= self.batch_rows:
            raise InternalError(f"a batch of {batch.num_rows} rows for a model of 1 to {self.batch_rows} rows a call")
        feeds: dict[str, Tensor] = {}
        batch = with_columns(batch, self.paths)
        for bound in self.inputs:
            if bound.source is None:
                continue
            if bound.twin:
                feeds[bound.name] = feeds[bound.twin]
                continue
            if isinstance(bound.source, PartsSource):
                feeds.update(bound.source.feed_parts(batch, self.batch_rows or batch.num_rows))
                continue
            tensor = bound.source.feed(batch)
            short = self.batch_rows not in (None, batch.num_rows) and not isinstance(bound.source, ConstantSource)
            feeds[bound.name] = padded(tensor, self.batch_rows or 0) if short else tensor
        return feeds

    def fetch(self, batch: pa.RecordBatch, outputs: Outputs) -> pa.RecordBatch:
        """The rows to write: the kept columns of `batch` as they are, and the outputs of the model.

        batch:   the very batch that was fed.
        outputs: {output: (rows fed, *row)} with at least `self.fetches`.
        raises:  DataError MODEL_BATCH where rows were lost or added, MODEL_OUTPUT where a tensor is not what the
                 signature promised, ROW_UTF8 where the job wants text.
        cost:    no copy for kept columns and numbers; bool, complex and bfloat16 are copied.
        """
        columns = [
            _written(column_of(batch, column), self.output_schema.field(name).type)
            for name, column in self.kept.items()
        ]
        fed, batch = self.batch_rows or batch.num_rows, with_columns(batch, self.paths)
        for target in self.outputs:
            if not outputs.keys() >= set(target.fetches):
                raise DataError(f"the model returned no output {target.name!r}", code="MODEL_OUTPUT")
            columns.append(target.collect(outputs, fed, batch))
        return pa.RecordBatch.from_arrays(columns, schema=self.output_schema)

    def _kept_as(self, name: str, kind: pa.DataType) -> pa.DataType:
        """What has to hold the values of a kept column that is of `kind` in its file."""
        leaf = peel(kind)[1]
        whole = name in self.narrowed and leaf is not None and pa.types.is_integer(leaf)
        return self.narrowed[name] if whole else self.output_schema.field(name).type

    def nan_rows(self, outputs: Outputs, fetched: pa.RecordBatch, start: str = "") -> npt.NDArray[np.bool_] | None:
        """(rows,) where one of the outputs holds a NaN; None: nowhere. fetched: what `fetch` made of `outputs`.

        start: of the names of those that are looked at.
        """
        masks: list[Array | None] = []
        for target in (target for target in self.outputs if output_of(target).startswith(start)):
            if isinstance(target, OutputTarget):
                masks.append(target.nan_rows(outputs[target.name], fetched.num_rows))
            elif isinstance(target, ShapedTarget):
                masks.append(target.nan_rows(outputs, fetched.num_rows))
            else:
                masks.append(nan_lists(fetched.column(target.field.name)))
        nans = [mask for mask in masks if mask is not None]
        return np.logical_or.reduce(nans) if nans else None

    def marks(self, batch: pa.RecordBatch, feeds: Feeds, outputs: Outputs, fetched: pa.RecordBatch) -> Marks | None:
        """(rows,) what is odd about a row; None: nothing about any. feeds, fetched: what `feed` and `fetch` made of
        `batch`."""
        nan, odd = self.nan_rows(outputs, fetched), self.odd_rows(feeds, fetched.num_rows)
        changed = self.changed_rows(batch)
        if nan is None and odd is None and changed is None:
            return None
        marks = np.zeros(fetched.num_rows, np.uint8)
        if changed is not None:
            marks[changed] = CHANGED
        if nan is not None:
            marks[nan] |= NAN_ANSWER
        if odd is not None:
            marks[odd] |= ODD_INPUT
            at = np.flatnonzero(odd)  # at: (rows that are odd,)
            marks[at[~self._nonfinite(outputs, fetched, at)]] |= UNSEEN
        return marks

    def changed_rows(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_] | None:
        """(rows,) where `cast: unsafe` changed a value of an input; None: nowhere. batch: one that was fed.

        cost: a second look at the values of those inputs, longer than feeding them: twice as long where none changes,
              ten times where all do (1 ms of feeding, 2 and 10 of this for 65,536 rows of 32); none without `unsafe`.
        """
        if not self._checked:
            return None
        batch, changed = with_columns(batch, self.paths), np.zeros(batch.num_rows, np.bool_)
        for source in self._checked:
            rows, left = np.arange(batch.num_rows), batch  # rows: (left.num_rows,)
            while len(rows):  # of two reasons only one is told at a time
                try:
                    if isinstance(source, PartsSource):
                        source.feed_parts(left, len(rows))
                    else:
                        source.feed(left)
                    break
                except RowError as error:
                    changed[rows[error.at]] = True
                    rows = np.delete(rows, error.at)
                    left = batch.take(as_arrow(rows))
        return changed if changed.any() else None

    @cached_property
    def _checked(self) -> list[InputSource | PartsSource]:
        found: list[InputSource | PartsSource] = []
        for bound in self.inputs:
            if isinstance(bound.source, ExampleSource):
                found += filter(None, [bound.source.checked()])
            elif bound.source is not None and not bound.twin:
                found += checked(bound.source)
        return found

    def odd_rows(self, feeds: Feeds, rows: int) -> npt.NDArray[np.bool_] | None:
        """(rows,) where an input that follows the rows holds NaN or infinity; None: nowhere.

        feeds: of which only the first `rows` rows are some of the batch's, the others fill it up.
        cost:  see `nonfinite`; none for inputs that cannot hold any.
        """
        if len(self.odd_inputs) > 1:  # mostly nothing is odd, and there may be thousands
            fed = {dtype: [np.asarray(feeds[name]) for name in names] for dtype, names in self._odd_tensors.items()}
            if not any(any_nonfinite(tensors, dtype) for dtype, tensors in fed.items()):
                return None
        found = None
        for bound in self.odd_inputs:
            if isinstance(bound.source, PartsSource):
                mask = nonfinite(feeds[bound.source.values], bound.dtype)
                owners = None if mask is None else bound.source.owners(feeds)[rows_of(mask)]
                hit = None if owners is None else np.isin(np.arange(rows), owners)
            else:
                tensor = feeds[bound.name]
                assert not isinstance(tensor, Strings)  # it has a dtype that holds NaN
                mask = nonfinite(tensor[:rows], bound.dtype)
                hit = None if mask is None else rows_of(mask)
            if hit is not None:
                found = hit if found is None else found | hit
        return found if found is not None and found.any() else None

    def _nonfinite(self, outputs: Outputs, fetched: pa.RecordBatch, at: Array) -> Array:
        """(len(at),) whether an output of these rows holds NaN or infinity."""
        found = np.zeros(len(at), np.bool_)
        for target in self.outputs:
            if isinstance(target, OutputTarget):
                tensor = outputs[target.name]
                mask = None if isinstance(tensor, Strings) else nonfinite(tensor[at], target.dtype)
                found |= False if mask is None else rows_of(mask)
            elif isinstance(target, ShapedTarget):
                found |= target.odd_rows(outputs, at)
            elif (mask := nan_lists(fetched.column(target.field.name).take(as_arrow(at)), infinite=True)) is not None:
                found |= mask
        return found

    @cached_property
    def odd_inputs(self) -> list[BoundInput]:
        """Those in which NaN or infinity may be fed, each tensor once."""
        return [bound for bound in self.inputs if not bound.twin and passes_nonfinite(bound.source)]

    @cached_property
    def _odd_tensors(self) -> dict[str, list[str]]:
        """The names of what is fed for them, by dtype."""
        names: dict[str, list[str]] = {}
        for bound in self.odd_inputs:
            name = bound.source.values if isinstance(bound.source, PartsSource) else bound.name
            names.setdefault(bound.dtype, []).append(name)
        return names

    @property
    def nan_filled(self) -> list[str]:
        """The inputs in which a null row becomes NaN."""
        return [bound.name for bound in self.inputs if fills_nan(bound.source)]

    def finite(self) -> Binding:
        """The same binding, for which NaN and infinity in an input are bad rows."""
        inputs = tuple(replace(bound, source=bound.source and finite(bound.source)) for bound in self.inputs)
        return replace(self, inputs=inputs)

    def within(self, spans: Mapping[str, Span]) -> Binding:
        """The same binding, for which what lies outside of its input's span is a bad row. Constants and tf.Examples
        are not looked into."""
        inputs = tuple(
            replace(bound, source=within(bound.source, spans[bound.name])) if bound.name in spans else bound
            for bound in self.inputs
        )
        return replace(self, inputs=inputs)

    @property
    def spanned(self) -> list[str]:
        """The inputs that are fed with nothing outside of a span."""
        return [bound.name for bound in self.inputs if is_within(bound.source)]

    def lengths(self, rows: pa.RecordBatch | pa.Table) -> Array | None:
        """(rows,) how many values padding makes of each row alone; None: nothing is padded, or to one width only."""
        sources = [source for source in self._padded if source.widths[0] is None]
        rows = with_columns(rows, self.paths)
        return np.sum([source.alone(source.lengths(rows)) for source in sources], axis=0) if sources else None

    def shapes(self, rows: pa.Table) -> Array | None:
        """(rows, open dimensions) of all inputs: rows that are equal here may share a batch; None: all may."""
        sources = [bound.source for bound in self.inputs if isinstance(bound.source, ColumnSource) and not bound.twin]
        sources = [source for source in sources if None in source.sizes]
        if not sources:
            return None
        rows = with_columns(rows, self.paths)
        found = []
        for source in sources:
            chunks = column_of(rows, source.column).chunks
            none = np.empty((0, source.sizes.count(None)), np.int64)
            found.append(np.concatenate([none, *map(source.shapes, chunks)]))
        return np.concatenate(found, axis=1)

    def alike(self, rows: pa.Table) -> pa.Table:
        """Those rows that may share a batch with the first one that has a shape."""
        shapes = self.shapes(rows)
        if shapes is None or not len(shapes):
            return rows
        first = shapes[(shapes >= 0).all(axis=1).argmax()]
        same = (shapes == first).all(axis=1)
        return rows if same.all() else rows.filter(as_arrow(same))

    @property
    def pads(self) -> bool:
        return bool(self._padded)

    def padding(self, batch: pa.RecordBatch, feeds: Feeds) -> tuple[int, int]:
        """Of the padded inputs of a batch that was fed: places of values, and how many of them the rows filled."""
        batch = with_columns(batch, self.paths)
        widths = [feeds[bound.name].shape[1] for bound in self.inputs if isinstance(bound.source, PadSource)]
        return batch.num_rows * sum(widths), sum(int(source.lengths(batch).sum()) for source in self._padded)

    @property
    def _padded(self) -> list[PadSource]:
        return [bound.source for bound in self.inputs if isinstance(bound.source, PadSource)]

    def describe(self) -> list[dict[str, str]]:
        """For people: a row for each input, output and kept column, all with the same keys."""
        rows = []
        for bound in self.inputs:
            default = {"column": "", "type": "", "note": "the signature's default"}
            described = default if bound.source is None else bound.source.describe()
            rows.append({"role": "input", "tensor": bound.name, **_shape(bound.dtype, bound.shape), **described})
        for target in self.outputs:
            note = target.note if isinstance(target, ShapedTarget) else ""
            described = {"column": target.field.name, "type": type_text(target.field.type), "note": note}
            tensor, shape = output_of(target), _shape(target.dtype, (None, *target.row))
            rows.append({"role": "output", "tensor": tensor, **shape, **described})
        for name, column in self.kept.items():
            note = "" if name == column else f"the column {column!r}"
            described = {"column": name, "type": type_text(self.output_schema.field(name).type), "note": note}
            rows.append({"role": "kept", "tensor": "", "dtype": "", "shape": "", **described})
        return rows

    def identity(self) -> dict[str, Any]:
        """All of the mapping that can change a result, as plain JSON values that are stable across versions."""
        return {
            "inputs": {bound.name: bound.source and bound.source.document() for bound in self.inputs},
            "outputs": {target.name: target.document() for target in self.outputs},
            "keep": [name if name == column else {name: column} for name, column in self.kept.items()],
        }


def rounded(inputs: Sequence[BoundInput]) -> dict[str, str]:
    """Inputs whose values may be rounded: the first of a kind -> all of it, in words."""
    groups: dict[tuple[str, str], list[str]] = {}
    for bound in inputs:
        kinds = {type_text(peel(part.type)[1]) for part in columns_in(bound.source) if part.cast.rounds}
        if isinstance(bound.source, ExampleSource) and bound.source.rounds:
            groups.setdefault(("double", "the float32 of tf.Examples"), []).append(bound.name)
        elif kinds and not bound.twin:
            groups.setdefault((", ".join(sorted(kinds)), bound.dtype), []).append(bound.name)
    return {names[0]: f"{one_of(names)} ({kinds}) to {dtype}" for (kinds, dtype), names in groups.items()}


def _refuse_torn_text(name: str, values: pa.Array) -> None:
    """raises: RowError ROW_UTF8: readers of the output would stumble over what Parquet readers let through."""
    if not _holds_text(values.type):
        return
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        at = np.array([row for row, value in enumerate(values) if not _readable(value)])
        if not len(at):
            raise
        story = f"could not keep column {name!r}: found text that is no UTF-8; declare the column as binary, or mend it"
        message = f"row {at[0]} of the batch ({len(at)} such in this batch): {story}"
        raise RowError.of(message, at, [story] * len(at), code="ROW_UTF8", column=name) from None


def _written(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """A kept column of a mixed type in the type of all files; others as they are."""
    return values if values.type == kind else as_type(values, kind)


def _refuse_unheld(name: str, values: pa.Array, kind: pa.DataType) -> None:
    """raises: RowError: a value of this file is none of the type that the column has over all files."""
    at = np.array([] if values.type == kind else unheld(values, kind), np.int64)
    if not len(at):
        return
    own, whole = type_text(values.type), type_text(kind)
    code = "ROW_OVERFLOW" if _is_temporal_or_whole(peel(kind)[1]) else "ROW_INEXACT"
    found = f"found a value of {own} that {whole} cannot hold{'' if code == 'ROW_OVERFLOW' else ' exactly'}"
    advice = "leave the column out of `keep`, or write the files again with one type"
    story = f"could not keep column {name!r} as {whole}, its type over all files: {found}; {advice}"
    message = f"row {at[0]} of the batch ({len(at)} such in this batch): {story}"
    raise RowError.of(message, at, [story] * len(at), code=code, column=name)


def _is_temporal_or_whole(kind: pa.DataType | None) -> bool:
    return kind is not None and bool(pa.types.is_temporal(kind) or pa.types.is_integer(kind))


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_text(kind.field(index).type) for index in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _readable(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _shape(dtype: str, shape: tuple[int | None, ...] | None) -> dict[str, str]:
    return {"dtype": dtype, "shape": tensor_text("", shape)}
