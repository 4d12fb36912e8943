"""How one input of a signature is filled: the agreement of its tensor, the rule of the job and the columns.

Compiled once, from types and a tensor spec. The invariant: what can be told to be wrong without a row is a BindingError
that says what was found and expected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from connectors.formats.widening import common_type
from jobs.errors import BindingError
from jobs.section.columns import InputColumn, NullFill
from jobs.words import counted
from runner.binding.cast.agreement import advice, agree
from runner.binding.cast.kind import NATURAL, is_raw, is_time
from runner.binding.constant import ConstantSource, constant, mismatch
from runner.binding.nesting import Row, merge, peel, unfit, wanted
from runner.binding.source import ColumnSource, InputSource, StackSource
from runner.model.signature import TensorSpec
from runner.tensor import Tensor, bits_of, natural, type_text, values_of


def feedable(spec: TensorSpec) -> bool:
    """Whether a column could feed the input at all, whatever its type."""
    return spec.encoding != "composite" and spec.dtype in NATURAL and spec.shape != ()


def input_source(spec: TensorSpec, rule: InputColumn, fields: Sequence[pa.Field]) -> InputSource:
    """Agree on how the input `spec` is filled.

    fields:  of the columns that `rule` names, in its order; none for a constant or an input that is not `feedable`.
    raises:  BindingError saying what was found and expected, without naming the input or its column.
    """
    if spec.encoding != "dense":
        expected = f"only dense, ragged and sparse inputs can be fed, not another one made of {len(spec.parts)} tensors"
        raise mismatch(f"found a {spec.encoding} input", expected, "MODEL_SIGNATURE")
    if spec.dtype not in NATURAL:
        raise mismatch(f"found dtype {spec.dtype}", "expected numbers, booleans or strings", "MODEL_SIGNATURE")
    if rule.column is None and rule.stack is None:
        return ConstantSource(constant(rule.constant, spec.dtype, spec.shape, rule.cast == "unsafe"))
    if spec.shape == ():
        expected = f"one value for all rows, given in the job: `inputs: {{{spec.name}: {{constant: ...}}}}`"
        raise mismatch("found no batch dimension", f"expected {expected}", "MODEL_SIGNATURE")
    declared = None if spec.shape is None else spec.shape[1:]
    if rule.column is None:
        return _stack_source(spec, fields, declared, rule)
    return column_source(spec, fields[0], declared, rule)


def column_source(spec: TensorSpec, field: pa.Field, declared: Row | None, rule: InputColumn) -> ColumnSource:
    """declared: the shape of one row, None: unknown rank."""
    levels, leaf = peel(field.type)
    named = type_text(field.type) if common_type(field.type) != field.type else str(field.type)
    if leaf is None or unfit(field.type, declared):
        raise mismatch(f"found {named}", unfit(field.type, declared))
    raw = is_raw(leaf, spec.dtype)
    if raw:
        levels = (*levels, _of_bytes(field, leaf, declared, sum(map(len, levels)), spec.dtype))
        leaf = NATURAL[spec.dtype]
    if rule.timestamp is not None and not is_time(common_type(leaf)):
        raise mismatch(f"found 'timestamp: {rule.timestamp}' for {named}", "only times have a unit")
    cast = agree(leaf, spec.dtype, rule.cast, rule.timestamp)
    if cast is None:
        raise mismatch(f"found {named}", advice(leaf, spec.dtype, spec.name))
    if rule.exact:
        cast = cast.exactly()
    merged = merge(levels, declared)
    if merged is None:
        raise mismatch(f"found {named}", f"expected {wanted(declared or ())}")
    sizes, row = merged
    fill = _fill(rule, spec.dtype, row)
    return ColumnSource(spec.name, field.name, field.type, spec.dtype, cast, sizes, row, fill, raw=raw)


def _of_bytes(field: pa.Field, leaf: pa.DataType, declared: Row | None, outer: int, dtype: str) -> Row:
    """The dimensions that the bytes of a row fill, those behind `outer` ones. raises: BindingError."""
    if declared is None:
        raise mismatch(f"found {field.type}", "expected lists, whose lengths say the shape: the signature does not")
    inner, found = declared[outer:], f"found {field.type}"
    stored = (field.metadata or {}).get(b"tensor.dtype", dtype.encode()).decode()  # as our own parts say it
    if stored != dtype:
        raise mismatch(f"{found} with values of {stored}", f"expected values of {dtype}")
    if None in inner or not inner:
        raise mismatch(found, f"expected {wanted(declared)}: bytes fill dimensions of fixed size only")
    size = math.prod(size for size in inner if size is not None)
    if pa.types.is_fixed_size_binary(leaf) and leaf.byte_width != size:
        raise mismatch(found, f"expected {counted(size, 'byte')}, or {wanted(declared)}")
    return inner


def _stack_source(spec: TensorSpec, fields: Sequence[pa.Field], declared: Row | None, rule: InputColumn) -> StackSource:
    width = len(fields)
    if declared is not None and (len(declared) != 1 or declared[0] not in (None, width)):
        expected = counted(declared[0] or 0, "column") if len(declared) == 1 else f"one column of {wanted(declared)}"
        raise mismatch(f"found {counted(width, 'column')} to stack", f"expected {expected}")
    parts = []
    for field in fields:
        if peel(field.type)[0]:
            raise mismatch(f"found {field.type} in column {field.name!r} of the stack", "expected one value per row")
        try:
            parts.append(column_source(spec, field, (), rule))
        except BindingError as error:
            raise BindingError(f"in column {field.name!r} of the stack {error.message}", **error.facts) from error
    return StackSource(tuple(parts))


def _fill(rule: InputColumn, dtype: str, row: Row) -> Tensor | None:
    if isinstance(rule.null, NullFill):
        value = rule.null.fill
        try:
            return constant(value, dtype, row if isinstance(value, list | tuple) else (), rule.cast == "unsafe")
        except BindingError as error:
            raise BindingError(f"in 'null: fill' {error.message}", **error.facts) from error
    if rule.null == "error":
        return None
    if dtype != "string" and natural(dtype).kind in "fc":
        nan = bits_of(np.array(np.nan, natural(dtype)), dtype).reshape(())
        if np.isnan(values_of(nan, dtype)):
            return nan
    raise mismatch("found 'null: nan'", f"expected 'null: {{fill: ...}}', as {dtype} has no NaN")
