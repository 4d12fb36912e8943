"""Agrees on the column that something computed of an output becomes, or says what does not fit.

Knows specs and rules; refuses to know batches. The invariant: what was agreed on has a type, and what the signature can
tell to be wrong is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from jobs.errors import one_of
from jobs.section.columns import OutputColumn
from jobs.words import counted
from runner.binding.cast.kind import NATURAL
from runner.binding.constant import mismatch
from runner.binding.fetching import OutputTarget, Rules, is_single, nested, output_target
from runner.binding.nesting import Row
from runner.binding.shaping.labels import Labels
from runner.binding.shaping.target import RankedTarget, ShapedTarget, ValueTarget
from runner.model.shaped import Part, Shaped, Shaping
from runner.model.signature import TensorSpec
from runner.tensor import FLOATS

_INTEGERS = tuple(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u"))
_NUMBERS = ("float16", "bfloat16", "float32", "float64", *_INTEGERS, "bool")


def shaped_target(
    spec: TensorSpec, rule: OutputColumn, batch_rows: int | None, tensor_encoding: str, rules: Rules
) -> ShapedTarget:
    """Agree on the column that something computed of an output becomes. Arguments as of `output_target`.

    raises: BindingError saying what was found and expected, without naming the output.
    """
    if spec.shape is None:
        expected = "expected a known number of dimensions, which a model without effects shows when it is tried"
        raise mismatch(f"found unknown rank beside {_keys(rule)}", expected, "MODEL_SIGNATURE")
    if spec.encoding != "dense":
        expected = f"{_keys(rule)} is for tensors whose rows are of one shape"
        raise mismatch(f"found a {spec.encoding} output", expected, "MODEL_SIGNATURE")
    output_target(spec, OutputColumn(), batch_rows, tensor_encoding, rules)  # what is asked of each output
    if spec.dtype not in _NUMBERS and (rule.shapes != ("at",) or spec.dtype != "string"):
        expected = f"{_keys(rule)} is for floats of at least 16 bits, integers of at least 8, and booleans"
        raise mismatch(f"found dtype {spec.dtype}", expected, "MODEL_SIGNATURE")
    make = _ranked if rule.argmax or rule.top_k is not None else _valued
    return make(spec, rule, tensor_encoding, rules)


def _ranked(spec: TensorSpec, rule: OutputColumn, tensor_encoding: str, rules: Rules) -> RankedTarget:
    whole = (spec.shape or ())[1:]
    if not whole:
        raise mismatch("found one value a row", f"{_keys(rule)} wants several in the last dimension")
    *outer, width = whole
    count, largest = rule.top_k or 1, rule.top_k or 0
    if width is not None and count > width:
        found = f"found '{'top_k: ' + str(count) if largest else 'argmax'}' of {counted(width, 'value')}"
        raise mismatch(found, f"expected at most {width}, the last dimension" if width else "expected one at least")
    labels = _labels(rule, width)
    row = (*outer, count)
    dtype = "float32" if spec.dtype == "bfloat16" else spec.dtype
    parts: dict[Part, tuple[str, Row]] = {"index": ("int32", row)}
    parts |= {"value": (dtype, row)} if largest else {}
    parts |= {"nan": ("bool", ())} if spec.dtype in FLOATS else {}
    shaped = _parts(spec, Shaping(largest=count), parts)
    index = OutputTarget(spec.name, "int32", row, pa.field(rule.column or spec.name, pa.int32()))
    if not largest:
        kind, decode = ("int32", None) if labels is None else ("string", "utf-8")
        own = TensorSpec(spec.name, kind, (None, *outer), "")
        shape = OutputColumn.model_validate({"column": rule.column, "decode": decode})
        column = output_target(own, shape, None, tensor_encoding, rules)
        return RankedTarget(spec, shaped, 0, labels, replace(index, field=column.field), None, column)
    kinds = {"index": pa.int32(), "value": NATURAL[dtype]} | ({} if labels is None else {"label": pa.string()})
    struct = pa.struct([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])
    outside = () if rules.single and is_single(tuple(outer)) else tuple(outer)
    field = pa.field(index.field.name, nested(struct, (*outside, largest)), nullable=False)
    index = replace(index, field=field)
    return RankedTarget(spec, shaped, largest, labels, index, replace(index, dtype=dtype), index)


def _labels(rule: OutputColumn, width: int | None) -> pa.Array | None:
    labels = rule.labels
    if labels is None:
        return None
    if isinstance(labels, str) or (isinstance(labels, Labels) and labels.problem):
        problem = f"{labels!r} was not read" if isinstance(labels, str) else labels.problem
        raise mismatch(f"found no labels: {problem}", "expected a text file in UTF-8, with a line for each value")
    if width is not None and len(labels) != width:
        where = f" in {labels.origin}" if isinstance(labels, Labels) else ""
        few = "line" if isinstance(labels, Labels) else "label"
        more = (
            "; one more is often a background class that only one of them has" if abs(len(labels) - width) == 1 else ""
        )
        expected = f"expected {counted(width, few)}, one for each{more}"
        raise mismatch(f"found {counted(len(labels), few)}{where} for {counted(width, 'value')}", expected)
    return pa.array(labels, pa.string())


def _valued(spec: TensorSpec, rule: OutputColumn, tensor_encoding: str, rules: Rules) -> ValueTarget:
    row = spec.shape[1:] if spec.shape else ()
    at = rule.at if isinstance(rule.at, tuple) else () if rule.at is None else (rule.at,)
    _check_places(rule, at, row)
    given, floats = spec.dtype, spec.dtype in FLOATS
    if rule.above is not None and given == "bool":
        raise mismatch("found booleans", "'above' is for numbers")
    if rule.round is not None and not floats:
        raise mismatch(f"found 'round: {rule.round}' of {given}", "expected floats, which have digits to round")
    if floats and rule.cast and rule.cast.startswith("int") and rule.round != 0:
        raise mismatch(f"found 'cast: {rule.cast}' of {given}", "expected 'round: 0' beside it, which makes it whole")
    how = Shaping(at=at, digits=rule.round, cast=rule.cast or "", above=rule.above)
    left = row[: len(row) - len(at)]
    dtype = "bool" if rule.above is not None else rule.cast or ("float32" if given == "bfloat16" else given)
    parts: dict[Part, tuple[str, Row]] = {"value": (dtype, left)}
    if rule.above is not None:
        parts |= {"nan": ("bool", ())} if floats else {}
    elif _may_overflow(given, dtype):
        parts |= {"unfit": ("bool", ())}
    own = TensorSpec(spec.name, dtype, (None, *left), "")
    value = output_target(own, OutputColumn(column=rule.column), None, tensor_encoding, rules)
    return ValueTarget(spec, _parts(spec, how, parts), value)


def _check_places(rule: OutputColumn, at: Sequence[int], row: Row) -> None:
    said = f"found 'at: {list(at) if isinstance(rule.at, tuple) else rule.at}'"
    held = ", ".join("?" if size is None else str(size) for size in row)
    if isinstance(rule.at, tuple) and len(at) != len(row):
        raise mismatch(f"{said} of rows [{held}]", f"expected a place for each of {counted(len(row), 'dimension')}")
    if len(at) > len(row):
        raise mismatch(f"{said} of rows that are one value", "expected several")
    for place, size in zip(at, row[len(row) - len(at) :], strict=True):
        if size is not None and place >= size:
            raise mismatch(f"{said} of rows [{held}]", f"expected less than {size}: places count from 0")


def _may_overflow(given: str, dtype: str) -> bool:
    """Whether a number of one dtype may be none of the other, however it is rounded."""
    if given in ("string", "bool", dtype):
        return False
    source = "float32" if given == "bfloat16" else given
    return (dtype not in ("float32", "float64") and not np.can_cast(source, dtype)) or (given, dtype) == (
        "float64",
        "float32",
    )


def _parts(spec: TensorSpec, how: Shaping, parts: Mapping[Part, tuple[str, Row]]) -> dict[Part, Shaped]:
    rank = len(spec.shape or ())
    return {part: Shaped(spec.name, spec.dtype, rank, how, part, dtype, row) for part, (dtype, row) in parts.items()}


def _keys(rule: OutputColumn) -> str:
    return one_of(list(rule.shapes))
