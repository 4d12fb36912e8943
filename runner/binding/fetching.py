"""Tensor -> Arrow: what column an output of a signature becomes, and the conversion itself.

Refuses to know names of jobs, files or engines. The invariant: the type of the column is fixed before the first
batch, and a tensor that does not fit it is an error, never a guess.

A row of exactly one value ([?], [?, 1], [?, 1, 1]) becomes that value. How a tensor of more becomes a column
(`tensor_encoding` of the job):

fixed_shape_tensor  the Arrow extension type, for numbers whose shape is known; otherwise as `list`.
list                fixed-size lists, one level per dimension; a dimension of unknown size is a variable list.
binary              per row the values, little-endian and row-major, fixed-size where the shape is known; dtype and
                    shape stand in the metadata of the field. For numbers and booleans (one byte each) with at most
                    one unknown dimension, which the length then tells (not beside a 0); otherwise as `list`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from jobs.errors import DataError
from jobs.section.columns import OutputColumn
from jobs.words import counted
from runner.binding.blame import RowError
from runner.binding.cast.kind import NATURAL
from runner.binding.cast.view import as_arrow, numpy_dtype
from runner.binding.constant import fits, mismatch
from runner.binding.nesting import Row
from runner.model.signature import TensorSpec
from runner.tensor import FLOATS, Array, Outputs, Strings, Tensor, carrier, tensor_text, values_of

MAX_OFFSET = 2**31 - 1  # of Arrow's string, binary and list types
GUESS = 64  # bytes of a string, and values in a dimension of unknown size


@dataclass(frozen=True, slots=True)
class Rules:
    """What becomes of outputs of which the job says nothing by name.

    text:   strings become text; bytes otherwise.
    single: a row of exactly one value becomes that value; a tensor that holds it otherwise.
    """

    text: bool = True
    single: bool = True


TODAY = Rules()


def output_field(
    spec: TensorSpec,
    tensor_encoding: str = "fixed_shape_tensor",
    row_shape: Row | None = None,
    name: str | None = None,
    decode: str | None = None,
    rules: Rules = TODAY,
) -> pa.Field | None:
    """The column that the output `spec` becomes; None where it cannot become one.

    row_shape: of one row, as the column is to hold it; without it the declared shape without its first dimension, as
               the rules have it.
    name:      of the column; without it that of the tensor.
    decode:    'utf-8' makes text of strings whatever the rules.
    returns:   a field that is not nullable: a tensor has no nulls. None for resources and variants, sparse and
               composite tensors, scalars, and unknown rank without `row_shape`.
    """
    if row_shape is None:
        row_shape = spec.shape[1:] if spec.shape else None
        row_shape = () if row_shape is not None and rules.single and is_single(row_shape) else row_shape
    if row_shape is None or spec.dtype not in NATURAL or spec.encoding != "dense":
        return None
    value = pa.string() if (decode or rules.text) and spec.dtype == "string" else NATURAL[spec.dtype]
    arrow, metadata = nested(value, row_shape), None
    if row_shape and pa.types.is_primitive(value):
        # Beside a dimension of 0 the length of the bytes would not tell an unknown one.
        if tensor_encoding == "binary" and row_shape.count(None) <= (0 not in row_shape):
            arrow = pa.binary() if None in row_shape else pa.binary(_row_bytes(spec.dtype, row_shape))
            metadata = {"tensor.dtype": numpy_dtype(value).name, "tensor.shape": json.dumps(row_shape)}
        elif tensor_encoding == "fixed_shape_tensor" and None not in row_shape and not pa.types.is_boolean(value):
            arrow = pa.fixed_shape_tensor(value, row_shape)
    return pa.field(name or spec.name, arrow, nullable=False, metadata=metadata)


def output_target(
    spec: TensorSpec, rule: OutputColumn, batch_rows: int | None, tensor_encoding: str, rules: Rules
) -> OutputTarget:
    """Agree on the column that the output `spec` becomes.

    batch_rows: the fixed batch dimension of the inputs, None: any.
    raises:     BindingError saying what was found and expected, without naming the output.
    """
    if spec.encoding != "dense":
        raise mismatch(
            f"found a {spec.encoding} output", "dense, ragged and sparse ones can be written", "MODEL_SIGNATURE"
        )
    if spec.dtype not in NATURAL:
        raise mismatch(f"found dtype {spec.dtype}", "expected numbers, booleans or strings", "MODEL_SIGNATURE")
    if spec.shape == ():
        raise mismatch("found a scalar", "expected one row for each row of the input", "MODEL_SIGNATURE")
    if spec.shape is not None and spec.shape[0] not in (None, batch_rows):
        fed = "any number of rows" if batch_rows is None else f"{batch_rows} rows"
        shape = f"found a first dimension of {spec.shape[0]} where {fed} are fed"
        way = f"; a graph that takes {spec.shape[0]} rows a call wants `model: {{batch: {spec.shape[0]}}}`"
        expected = "expected one row for each row of the input" + (way if batch_rows is None and spec.shape[0] else "")
        raise mismatch(shape, expected, "MODEL_SIGNATURE")
    if rule.decode is not None and spec.dtype != "string":
        raise mismatch(f"found 'decode: {rule.decode}'", f"only strings can be decoded, not {spec.dtype}")
    row, single = _row(spec, rule, rules)
    field = output_field(spec, tensor_encoding, () if single else row, rule.column, rule.decode, rules)
    return OutputTarget(spec.name, spec.dtype, row, field, single)


def _row(spec: TensorSpec, rule: OutputColumn, rules: Rules) -> tuple[Row, bool]:
    """Of the tensor; and whether the one value in it is written, without the dimensions around it."""
    declared = spec.shape and spec.shape[1:]
    if rule.shape is None:
        if declared is None:
            expected = f"give the shape of one row in the job: `outputs: {{{spec.name}: {{shape: [...]}}}}`"
            raise mismatch("found unknown rank", expected, "MODEL_SIGNATURE")
        return declared, rules.single and is_single(declared)
    if rule.shape == () and rules.single and (declared is None or (declared and fits((1,) * len(declared), declared))):
        return declared or (), True
    if declared is not None and not fits(rule.shape, declared):
        expected = f"the signature says {tensor_text(spec.dtype, spec.shape)}"
        raise mismatch(f"found 'shape: {list(rule.shape)}' in the job", expected, "MODEL_SIGNATURE")
    return rule.shape, False


def is_single(row: Row) -> bool:
    """Whether a row has dimensions, and exactly one value in them."""
    return set(row) == {1}


class Target(Protocol):
    """One output that was agreed on, made of one tensor or of several, and the column it becomes."""

    @property
    def name(self) -> str: ...

    @property
    def field(self) -> pa.Field: ...

    @property
    def dtype(self) -> str: ...

    @property
    def row(self) -> Row: ...

    @property
    def fetches(self) -> tuple[str, ...]:
        """The tensors to ask the engine for."""
        ...

    def collect(self, outputs: Outputs, fed: int, batch: pa.RecordBatch) -> pa.Array:
        """The column of one batch, from `outputs` that hold at least `fetches`. Otherwise as `OutputTarget.fetch`.

        batch: what was fed, its first rows where the model was given more.
        """
        ...

    def document(self) -> dict[str, Any]: ...

    def bytes_per_row(self) -> int: ...


@dataclass(frozen=True)
class OutputTarget:
    """One output that was agreed on, and the column it becomes."""

    name: str  # of the output
    dtype: str
    row: Row
    field: pa.Field
    single: bool = False  # whether the one value of a row is written, whatever the dimensions around it

    @property
    def fetches(self) -> tuple[str, ...]:
        return (self.name,)

    def collect(self, outputs: Outputs, fed: int, batch: pa.RecordBatch) -> pa.Array:
        return self.fetch(outputs[self.name], fed, batch.num_rows)

    def fetch(self, tensor: Tensor, fed: int, rows: int) -> pa.Array:
        """The column of one batch.

        tensor:  (fed, *row), as the engine gave it.
        fed:     rows that the model was given; the column holds the first `rows` of them.
        raises:  DataError MODEL_BATCH, MODEL_OUTPUT or ROW_UTF8.
        cost:    none for numbers; bool, complex, bfloat16 and numbers of less than 8 bits are copied, float8 too.
        """
        self.check(tensor, fed)
        shape = (rows,) if self.single else (rows, *tensor.shape[1:])
        if isinstance(tensor, Strings):
            return self.wrapped(self._text(tensor.values.slice(0, math.prod(shape)), rows), self.field.type, shape)
        kept = np.ascontiguousarray(tensor[:rows])  # kept: (rows, *tensor.shape[1:])
        if pa.types.is_binary(self.field.type) or pa.types.is_fixed_size_binary(self.field.type):
            return self._binary(kept)
        return self.wrapped(_leaves(kept.reshape(-1), self.dtype), self.field.type, shape)

    def nan_rows(self, tensor: Tensor, rows: int) -> Array | None:
        """(rows,) where the first `rows` rows hold a NaN; None: nowhere. cost: one pass where there is none."""
        if isinstance(tensor, Strings) or self.dtype not in FLOATS or not tensor[:rows].size:
            return None
        kept: Array = tensor[:rows]
        values = values_of(kept, self.dtype)
        with np.errstate(invalid="ignore"):
            if not np.isnan(values.min()):  # a NaN comes through; half the time of looking at each value
                return None
        return np.asarray(np.isnan(values).reshape(rows, -1).any(axis=1))

    def document(self) -> dict[str, Any]:
        """For the plan: what decides the column, as plain JSON values."""
        decoded = self.dtype == "string" and pa.types.is_string(_innermost(self.field.type))
        row = [] if self.single else list(self.row)
        return {"column": self.field.name, "dtype": self.dtype, "row": row, "decoded": decoded}

    def bytes_per_row(self) -> int:
        """An estimate: open dimensions and strings count as 64."""
        return _row_bytes(self.dtype, tuple(GUESS if size is None else size for size in self.row))

    def leaves(self, tensor: Tensor, fed: int, rows: int) -> pa.Array:
        """The numbers of the first `rows` rows, one after another, of their Arrow type. Otherwise as `fetch`."""
        self.check(tensor, fed)
        assert not isinstance(tensor, Strings)
        return _leaves(np.ascontiguousarray(tensor[:rows]).reshape(-1), self.dtype)

    def check(self, tensor: Tensor, fed: int) -> None:
        """raises: DataError MODEL_BATCH or MODEL_OUTPUT where it is not (fed, *row)."""
        expected = tensor_text(self.dtype, (None, *self.row))
        if isinstance(tensor, Strings) != (self.dtype == "string"):
            raise self.refusal("MODEL_OUTPUT", f"it is {_dtype_text(tensor)}; the signature promised {expected}")
        if not isinstance(tensor, Strings) and tensor.dtype != carrier(self.dtype):
            raise self.refusal("MODEL_OUTPUT", f"it is {_dtype_text(tensor)}; the signature promised {expected}")
        if tensor.shape[:1] != (fed,):
            rows_text = f"it has {counted(tensor.shape[0], 'row')}" if tensor.shape else "it is a scalar"
            raise self.refusal(
                "MODEL_BATCH", f"{rows_text} for {counted(fed, 'row')} fed; expected one row of it for each"
            )
        if not (math.prod(tensor.shape[1:]) == 1 if self.single else fits(tensor.shape[1:], self.row)):
            held = tensor_text(self.dtype, tensor.shape)
            raise self.refusal("MODEL_OUTPUT", f"it is {held}; the signature promised {expected}")

    def _text(self, values: pa.Array, rows: int) -> pa.Array:
        wanted = _innermost(self.field.type)
        if values.type == wanted:
            return values
        try:
            if pa.types.is_large_binary(values.type):
                values = values.cast(pa.binary())
        except pa.ArrowInvalid as error:
            raise self.too_large() from error
        try:
            return values.cast(wanted)
        except pa.ArrowInvalid as error:
            per_row = max(1, len(values) // max(1, rows))
            # One Python object per value, but only on the way out with an error.
            bad = sorted({at // per_row for at, value in enumerate(values.to_pylist()) if not _is_utf8(value)})
            subject = f"could not write output {self.name!r} to column {self.field.name!r}"
            expected = "expected text, or `output: {strings: binary}` (and no 'decode' for it) to write bytes"
            count = f"{counted(len(bad), 'such row')} in this batch"
            raise RowError.of(
                f"{subject}: row {bad[0]} of the batch is no UTF-8 ({count}); {expected}",
                np.array(bad),
                [f"{subject}: found bytes that are no UTF-8; {expected}"] * len(bad),
                code="ROW_UTF8",
                column=self.field.name,
            ) from error

    def _binary(self, kept: Array) -> pa.Array:
        values = values_of(kept, self.dtype)
        data = pa.py_buffer(values)
        if pa.types.is_fixed_size_binary(self.field.type):
            return pa.Array.from_buffers(self.field.type, len(kept), [None, data])
        return pa.Array.from_buffers(
            self.field.type, len(kept), [None, self._offsets(len(kept), values[:1].nbytes), data]
        )

    def wrapped(self, values: pa.Array, arrow: pa.DataType, shape: tuple[int, ...]) -> pa.Array:
        """The flat `values` under the list levels of `arrow`. shape: (lists, their dimensions...)

        raises: DataError where they are too many for a column.
        """
        if isinstance(arrow, pa.BaseExtensionType):
            flat = (shape[0], math.prod(shape[1:]))
            return pa.ExtensionArray.from_storage(arrow, self.wrapped(values, arrow.storage_type, flat))
        if len(shape) == 1:
            return values
        inner = self.wrapped(values, arrow.value_type, (shape[0] * shape[1], *shape[2:]))
        buffers = [None] if pa.types.is_fixed_size_list(arrow) else [None, self._offsets(shape[0], shape[1])]
        return pa.Array.from_buffers(arrow, shape[0], buffers, children=[inner])

    def _offsets(self, count: int, size: int) -> pa.Buffer:
        if count * size > MAX_OFFSET:
            raise self.too_large()
        return pa.py_buffer(np.arange(count + 1, dtype=np.int32) * np.int32(size))  # (count + 1,)

    def too_large(self) -> DataError:
        much = "one batch of it passes 2 GiB or 2**31 values"
        return self.refusal("MODEL_OUTPUT", f"{much}; a column holds less: lower 'limits: batch_rows'")

    def refusal(self, code: str, text: str, **facts: Any) -> DataError:
        message = f"could not write output {self.name!r} to column {self.field.name!r}: {text}"
        return DataError(message, code=code, column=self.field.name, **facts)


def nested(value: pa.DataType, row: Row) -> pa.DataType:
    """Lists of values, one level for each dimension of a row."""
    for size in reversed(row):
        element = pa.field("item", value, nullable=False)
        value = pa.list_(element) if size is None else pa.list_(element, size)
    return value


def _innermost(arrow: pa.DataType) -> pa.DataType:
    return arrow if pa.types.is_string(arrow) or pa.types.is_binary(arrow) else _innermost(arrow.value_type)


def _leaves(values: Array, dtype: str) -> pa.Array:
    """values: (n,), contiguous -> n values of the natural Arrow type."""
    arrow = NATURAL[dtype]
    if dtype == "bool":
        return as_arrow(values)
    values = values_of(values, dtype)
    if pa.types.is_struct(arrow):
        part = arrow.field(0).type
        parts = [_primitive(np.ascontiguousarray(half), part) for half in (values.real, values.imag)]
        return pa.Array.from_buffers(arrow, len(values), [None], children=parts)
    return _primitive(values, arrow)


def _primitive(values: Array, arrow: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(arrow, len(values), [None, pa.py_buffer(values)])


def _row_bytes(dtype: str, row: Row) -> int:
    value = NATURAL[dtype]
    if dtype == "string":
        width = GUESS
    elif pa.types.is_struct(value):
        width = carrier(dtype).itemsize
    else:
        width = numpy_dtype(value).itemsize
    return width * math.prod(size for size in row if size is not None)


def _dtype_text(tensor: Tensor) -> str:
    return tensor_text("string" if isinstance(tensor, Strings) else str(tensor.dtype), tensor.shape)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
