"""Which inputs of a signature are places in a table, and how many rows that table has.

An input counts only where its values reach the look-up as they are, whenever the signature is called: then a value
beyond the table is wrong, whatever the model makes of it. TensorFlow refuses the whole call for it on a CPU, gives
zeros on a GPU, and another row's values where XLA compiled it. Refuses to guess: ids that are masked, shifted, clipped
or picked first are not seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from runner.model import tensor_proto
from runner.model.signature import Signature
from runner.proto.saved_model_pb2 import NodeDef, TensorProto
from runner.scan.flow import Flow, Frame, Source, attribute, inputs
from runner.scan.program import shared_name
from runner.tensor import DTYPE_NAMES

GATHERS = ("Gather", "GatherV2", "ResourceGather")
# Ops whose output holds the values of their first input, in their order.
_SAME_VALUES = (
    "Identity",
    "StopGradient",
    "PreventGradient",
    "Snapshot",
    "EnsureShape",
    "Reshape",
    "ExpandDims",
    "Squeeze",
)
_SAME_ROWS = ("Identity", "StopGradient", "PreventGradient", "Snapshot", "ReadVariableOp", "Cast", "GuaranteeConst")
_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
_PLACES = ("int32", "int64")  # what a value is cast to on its way into a table
_FEW = 64  # values of a constant that is looked into


@dataclass(frozen=True)
class Lookup:
    """An input whose values are places in a table, or in several.

    input:   its name; of a ragged or sparse one the name of the whole.
    lowest:  that the model takes: 0, or below it where the model itself counts such ids from the end of the table.
    highest: one less than the rows of the smallest table.
    table:   the variable or constant that is the smallest.
    """

    input: str
    lowest: int
    highest: int
    table: str

    def __and__(self, other: Lookup) -> Lookup:
        least = min(self, other, key=lambda each: each.highest)
        return replace(least, lowest=max(self.lowest, other.lowest))

    def __str__(self) -> str:
        backwards = f", {self.lowest} to -1 silently from its end" if self.lowest < 0 else ""
        return f"{self.lowest} to {self.highest}: rows of '{self.table}'{backwards}"


def lookups(flow: Flow, signature: Signature) -> dict[str, Lookup]:
    """Input -> what all its look-ups together allow. flow: of the signature's outputs that are wanted."""
    found: dict[str, Lookup] = {}
    for frame, node in flow.nodes:
        if (each := lookup(flow, frame, node, signature)) is not None:
            found[each.input] = each & found.get(each.input, each)
    return dict(sorted(found.items()))


def lookup(flow: Flow, frame: Frame, node: NodeDef, signature: Signature) -> Lookup | None:
    """What a node looks up straight from an input; None where it does not, or not whenever the signature is called."""
    given = inputs(node)
    if node.op not in GATHERS or len(given) < 2 or not frame.always or not _by_rows(flow, frame, node, given):
        return None
    table = _table(flow, frame, given[0])
    if table is None:
        return None
    name, rows = table
    at, wraps = _Ids(flow, rows).straight(frame, given[1])
    fed = None if at is None else _fed(at, signature)
    return Lookup(fed, -rows if wraps else 0, rows - 1, name) if fed else None


def straight(flow: Flow, frame: Frame, tensor: str, signature: Signature) -> str | None:
    """The input whose values a tensor holds as they were fed, cast at most."""
    at, _ = _Ids(flow, 0).straight(frame, tensor)
    return None if at is None else _fed(at, signature)


def _by_rows(flow: Flow, frame: Frame, node: NodeDef, given: list[str]) -> bool:
    """Whether ids are places in the first dimension of the table."""
    batch_dims = attribute(node, "batch_dims")
    axis = _integers(flow, frame, given[2]) if node.op == "GatherV2" and len(given) > 2 else [0]
    return axis == [0] and (batch_dims is None or batch_dims.i == 0)


def _table(flow: Flow, frame: Frame, tensor: str) -> tuple[str, int] | None:
    """Name and rows of the table that a tensor is, or reads."""
    at = flow.source(frame, tensor)
    while at is not None and at.node.op in _SAME_ROWS and at.node.input:
        at = flow.source(at.frame, at.node.input[0])
    shape = None if at is None else _shape(at)
    return (shared_name(at.node).decode(), shape[0]) if at is not None and shape and shape[0] else None


def _shape(at: Source) -> tuple[int | None, ...] | None:
    """Of a variable or a constant, as the graph states it."""
    if at.node.op in _VARIABLES and (stated := attribute(at.node, "shape")) is not None:
        return tensor_proto.dimensions(stated.shape)
    if at.node.op == "Const" and (value := attribute(at.node, "value")) is not None:
        return tensor_proto.dimensions(value.tensor.tensor_shape)
    return None


class _Ids:
    """Follows ids back to where they come from. rows: of the table that they are places in."""

    def __init__(self, flow: Flow, rows: int) -> None:
        self._flow, self._rows = flow, rows

    def straight(self, frame: Frame, tensor: str) -> tuple[Source | None, bool]:
        """Where ids come from unchanged, and whether negative ones count from the end of the table on the way."""
        at, wraps = self._flow.source(frame, tensor), False
        while at is not None:
            node = at.node
            if node.op in _SAME_VALUES or (node.op == "Cast" and _dtype(node, "DstT") in _PLACES):
                at = self._flow.source(at.frame, node.input[0])
            elif node.op in ("Select", "SelectV2") and not wraps and (before := self._wrapped(at)) is not None:
                at, wraps = before, True
            else:
                break
        return at, wraps

    def _wrapped(self, at: Source) -> Source | None:
        """The ids of `where(ids < 0, ids + rows, ids)`, which Keras puts before each look-up; None: it is none."""
        condition, negative, plain = (self._flow.source(at.frame, name) for name in inputs(at.node)[:3])
        if condition is None or negative is None or plain is None:
            return None
        if condition.node.op != "Less" or negative.node.op not in ("AddV2", "Add"):
            return None
        ids, zero = inputs(condition.node)
        if not plain.same(self._flow.source(condition.frame, ids)) or _integers(self._flow, condition.frame, zero) != [
            0
        ]:
            return None
        one, other = inputs(negative.node)
        if not plain.same(self._flow.source(negative.frame, one)):
            one, other = other, one
        same = plain.same(self._flow.source(negative.frame, one))
        return plain if same and _integers(self._flow, negative.frame, other) == [self._rows] else None


def _integers(flow: Flow, frame: Frame, tensor: str) -> list[int] | None:
    """The values of a small tensor that the graph decides: constants, shapes of tables, and parts of them."""
    at = flow.source(frame, tensor)
    while at is not None and at.node.op in ("Identity", "Cast"):
        at = flow.source(at.frame, at.node.input[0])
    if at is None:
        return None
    if at.node.op == "Const" and (value := attribute(at.node, "value")) is not None:
        return _constant(value.tensor)
    if at.node.op in ("Shape", "VariableShape"):
        return _known(_table_shape(flow, at))
    if at.node.op == "StridedSlice":
        given = inputs(at.node)
        whole, first = (_integers(flow, at.frame, name) for name in given[:2])
        shrunk = attribute(at.node, "shrink_axis_mask")
        if whole is not None and first is not None and len(first) == 1 and shrunk is not None and shrunk.i == 1:
            return whole[first[0] :][:1]
    return None


def _constant(proto: TensorProto) -> list[int] | None:
    sizes = tensor_proto.dimensions(proto.tensor_shape)
    dtype = DTYPE_NAMES.get(proto.dtype, "")
    if dtype not in _PLACES or sizes is None or None in sizes or prod(size or 0 for size in sizes) > _FEW:
        return None
    try:
        values = tensor_proto.tensor(proto, dtype)
    except ValueError:
        return None
    return [int(value) for value in np.ravel(values)]  # type: ignore[arg-type]


def _table_shape(flow: Flow, at: Source) -> tuple[int | None, ...] | None:
    inner = flow.source(at.frame, at.node.input[0])
    while inner is not None and inner.node.op in _SAME_ROWS and inner.node.input:
        inner = flow.source(inner.frame, inner.node.input[0])
    return None if inner is None else _shape(inner)


def _known(shape: tuple[int | None, ...] | None) -> list[int] | None:
    return None if shape is None or None in shape else [size or 0 for size in shape]


def _dtype(node: NodeDef, key: str) -> str:
    value = attribute(node, key)
    return DTYPE_NAMES.get(value.type, "") if value is not None else ""


def signature_input(tensor: str, signature: Signature) -> str | None:
    """The input that a tensor of the graph is, or a part of."""
    full = tensor if ":" in tensor else f"{tensor}:0"
    return next((spec.name for spec in signature.inputs.values() if full in (spec.tensor, *spec.components)), None)


def _fed(at: Source, signature: Signature) -> str | None:
    """The input that a tensor is; of one that is made of several tensors only the one with its values."""
    if at.frame.place is not None or (name := signature_input(at.tensor, signature)) is None:
        return None
    spec = signature.inputs[name]
    values = {"dense": spec.tensor, "ragged": spec.components[:1], "sparse": spec.components[1:2]}.get(spec.encoding)
    return name if values in (at.tensor, (at.tensor,)) else None
