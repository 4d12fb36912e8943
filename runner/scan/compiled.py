"""What changes when XLA compiles a signature: ops that answer where they refused, and inputs that decide a shape.

Looks at what runs for some outputs, functions included; judges no value. The invariant: the table of ops is data, and
a test runs each of them both ways.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from runner.model.signature import Signature
from runner.proto.saved_model_pb2 import NodeDef
from runner.scan.flow import Flow, Frame, attribute, inputs
from runner.scan.lookups import GATHERS, lookup, signature_input, straight
from runner.tensor import DTYPE_NAMES, DTYPES


@dataclass(frozen=True)
class Change:
    """What ops do with bad values when they are compiled; seen with TensorFlow 2.21 on x86-64.

    ops:    patterns of `fnmatch`. of: only with such values.
    answer: what a bad row gets, as the end of a sentence.
    """

    ops: tuple[str, ...]
    answer: str
    of: Literal["any", "integers", "floats", "float to integer"] = "any"


CHANGES = (
    Change((*GATHERS, "GatherNd", "ResourceGatherNd"), "an index out of range reads the nearest row"),
    Change(
        (
            *("ScatterNd", "TensorScatter*", "ResourceScatter*", "SparseToDense", "DynamicPartition"),
            *("UnsortedSegmentMax", "UnsortedSegmentMin", "UnsortedSegmentProd", "UnsortedSegmentSum"),
        ),
        "what has an index out of range is dropped",
    ),
    Change(("Bincount", "DenseBincount"), "a negative value is dropped"),
    Change(("ReverseSequence",), "a length beyond the width repeats elements"),
    Change(("InvertPermutation",), "what is no permutation gives some numbers"),
    Change(("Div", "FloorDiv", "TruncateDiv"), "an integer divided by 0 is -1", "integers"),
    Change(("Mod", "FloorMod", "TruncateMod"), "an integer modulo 0 is itself", "integers"),
    Change(("Pow",), "an integer to a negative power is 0", "integers"),
    Change(("Cast",), "NaN becomes 0, and what does not fit the nearest number that does", "float to integer"),
    Change(("MatrixInverse", "MatrixSolve"), "a singular matrix gives numbers"),
    Change(("ArgMax", "ArgMin"), "with a NaN it is the best of what follows it", "floats"),
    Change(("TopKV2", "TopK"), "a NaN is the largest", "floats"),
    Change(("Bucketize",), "NaN is in the first bucket, not in the last", "floats"),
    Change(("SparseSoftmaxCrossEntropyWithLogits",), "a label out of range gives NaN"),
)
CHECKS = Change(("Assert", "CheckNumerics*"), "nothing is checked")  # wherever they stand: they only run before

# Which inputs XLA must know when it compiles an op, counted from 0, -1 being the last: sizes, bounds, axes. As the
# registry of TensorFlow 2.21 has it (XlaOpRegistry::CompileTimeConstantInputArgNames), without ops of training.
_DECIDE = {
    (0,): (
        *("Concat", "DynamicStitch", "Empty", "Fill", "ParameterizedTruncatedNormal", "RandomStandardNormal"),
        *("RandomUniform", "RandomUniformInt", "Split", "StatelessParameterizedTruncatedNormal", "TruncatedNormal"),
        *("StatelessRandomNormal", "StatelessRandomUniform", "StatelessRandomUniformFullInt", "TensorArrayV3"),
        *("StatelessRandomUniformInt", "StatelessTruncatedNormal", "Conv2DBackpropInput", "Conv3DBackpropInputV2"),
    ),
    (1,): (
        *("All", "Any", "ArgMax", "ArgMin", "BatchToSpace", "Bincount", "BroadcastTo", "ConjugateTranspose", "Cumprod"),
        *("Cumsum", "CumulativeLogsumexp", "DenseBincount", "ExpandDims", "IRFFT", "IRFFT2D", "IRFFT3D", "Max", "Mean"),
        *("Min", "MirrorPad", "Multinomial", "OneHot", "Pad", "PadV2", "Prod", "RFFT", "RFFT2D", "RFFT3D", "Reshape"),
        *("ResizeBilinear", "ResizeNearestNeighbor", "Reverse", "ReverseV2", "SpaceToBatch", "SparseToDense", "Sum"),
        *("StatelessMultinomial", "TensorListFromTensor", "Tile", "TopKV2", "Transpose", "UniqueV2"),
    ),
    (2,): (
        *("GatherV2", "InTopKV2", "LinSpace", "MatrixSetDiagV2", "MatrixSetDiagV3", "NonMaxSuppressionV3", "Roll"),
        *("NonMaxSuppressionV4", "ScatterNd", "SegmentMaxV2", "SegmentMinV2", "SegmentProdV2", "SegmentSumV2"),
        *("UnsortedSegmentMax", "UnsortedSegmentMin", "UnsortedSegmentProd", "UnsortedSegmentSum"),
    ),
    (0, 1): ("BroadcastArgs", "ConcatOffset", "EmptyTensorList", "ListDiff", "TensorListReserve"),
    (1, 2): (
        "BatchToSpaceND",
        "MatrixDiagPartV2",
        "MatrixDiagPartV3",
        "MaxPoolV2",
        "Slice",
        "SpaceToBatchND",
        "SplitV",
    ),
    (0, 1, 2): ("Range",),
    (1, 2, 3): ("StridedSlice", "TensorStridedSliceUpdate", "ResourceStridedSliceAssign"),
    (1, 2, 3, 4): ("MatrixDiagV2", "MatrixDiagV3"),
    (0, 3): (
        *("StatelessRandomNormalV2", "StatelessRandomUniformFullIntV2", "StatelessRandomUniformIntV2"),
        *("StatelessRandomUniformV2", "StatelessTruncatedNormalV2"),
    ),
    (-1,): ("ConcatV2",),
}
_DECIDED_BY = {op: places for places, ops in _DECIDE.items() for op in ops}
# What these give is decided by the shape of their input, and each new shape is compiled in any case.
_OF_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "VariableShape", "ZerosLike", "OnesLike", "TensorListLength")


@dataclass(frozen=True)
class Compiled:
    """changes: what bad rows get -> the ops that give it, sorted. deciders: input whose values decide a shape -> the
    ops whose shape it is, sorted."""

    changes: Mapping[str, tuple[str, ...]]
    deciders: Mapping[str, tuple[str, ...]]

    def fed(self, signature: Signature) -> tuple[str, ...]:
        """The deciders as they are fed: of what is made of several tensors, their names."""
        specs = [signature.inputs[name] for name in self.deciders]
        return tuple(name for spec in specs for name in ([part.name for part in spec.parts] or [spec.name]))

    def sentences(self) -> list[str]:
        """For people, what compiling means for the rows of a job."""
        said = []
        if self.changes:
            listed = "; ".join(f"{answer} ({', '.join(ops)})" for answer, ops in self.changes.items())
            said.append(
                f"compiled by XLA, bad values get answers and are not refused: {listed}; `on_bad_row` does not see them"
            )
        for name, ops in self.deciders.items():
            said.append(
                f"compiled by XLA, the value of input '{name}' decides a shape ({', '.join(ops)}):"
                " each new value of it is compiled again"
            )
        return said


def compiled(flow: Flow, signature: Signature, checked: Collection[str] = ()) -> Compiled:
    """What compiling changes in a flow.

    checked: inputs whose places in tables are looked at before they are fed; see `runner.scan.lookups`.
    """
    changed: dict[str, set[str]] = {change.answer: set() for change in (*CHANGES, CHECKS)}
    deciders: dict[str, set[str]] = {}
    reached: dict[tuple[Frame, str], set[str]] = {}
    for _, node in flow.ordered:
        if any(fnmatchcase(node.op, pattern) for pattern in CHECKS.ops):
            changed[CHECKS.answer].add(node.op)
    for frame, node in flow.nodes:
        for change in CHANGES:
            if _is(node, change) and not _is_checked(flow, frame, node, signature, checked):
                changed[change.answer].add(node.op)
        given = inputs(node)
        for place in _DECIDED_BY.get(node.op, ()):
            if place < len(given):
                for name in _inputs_behind(flow, frame, given[place], signature, reached):
                    deciders.setdefault(name, set()).add(node.op)
    return Compiled(
        {answer: tuple(sorted(ops)) for answer, ops in changed.items() if ops},
        {name: tuple(sorted(deciders[name])) for name in sorted(deciders)},
    )


def _is(node: NodeDef, change: Change) -> bool:
    if not any(fnmatchcase(node.op, pattern) for pattern in change.ops):
        return False
    if change.of == "float to integer":
        return _kind(node, "SrcT") == "f" and _kind(node, "DstT") in ("i", "u")
    return change.of == "any" or _kind(node, "T") in {"integers": ("i", "u"), "floats": ("f",)}[change.of]


def _is_checked(flow: Flow, frame: Frame, node: NodeDef, signature: Signature, checked: Collection[str]) -> bool:
    """Whether what a look-up, or a cast, is given is known to fit."""
    if not checked:
        return False
    if node.op == "Cast":
        return straight(flow, frame, inputs(node)[0], signature) in checked
    found = lookup(flow, frame, node, signature)
    return found is not None and found.input in checked


def _kind(node: NodeDef, key: str) -> str:
    """NumPy's letter of an attribute's dtype: 'i', 'u', 'f', ...; '' for one that is not known."""
    value = attribute(node, key)
    name = DTYPE_NAMES.get(value.type, "") if value is not None else ""
    if name == "bfloat16":  # carried as its bits
        return "f"
    carrier = DTYPES[name][1] if name in DTYPES else None
    return "" if carrier is None else carrier.kind


def _inputs_behind(
    flow: Flow, frame: Frame, tensor: str, signature: Signature, reached: dict[tuple[Frame, str], set[str]]
) -> set[str]:
    """The inputs of the signature whose values a tensor is made of."""
    if (frame, tensor) in reached:
        return reached[frame, tensor]
    found, seen, left = set[str](), {(frame, tensor)}, [(frame, tensor)]
    while left:
        at = left.pop()
        if at[0].place is None and (name := signature_input(at[1], signature)) is not None:
            found.add(name)
            continue
        node = flow.node(*at)
        if node is not None and node.op in _OF_SHAPES:
            continue
        for before in flow.behind(*at):
            if before not in seen:
                seen.add(before)
                left.append(before)
    reached[frame, tensor] = found
    return found
