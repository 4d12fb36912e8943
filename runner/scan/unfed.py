"""Placeholders that an output is computed from and that nobody feeds: a call of such an output can never go well.

What only orders nodes, and what is made of a tensor's shape alone, is not followed: TensorFlow's optimiser may leave
it out. The invariant: where nothing is said, a call may work or not; what is said fails for every row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobs.errors import ModelError, offenders
from runner.model.signature import Signature, TensorSpec
from runner.model.tensor_proto import dimensions
from runner.proto.saved_model_pb2 import NodeDef
from runner.scan.flow import Flow, attribute, inputs
from runner.scan.program import Program
from runner.tensor import DTYPE_NAMES, tensor_text

_PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")


def unfed(program: Program, signature: Signature, outputs: Iterable[str]) -> dict[str, list[str]]:
    """Output -> the placeholders that it needs and no input is, as messages name them; outputs without any are left
    out. outputs: by name."""
    fed = {tensor for spec in signature.inputs.values() for tensor in _tensors(spec)}

    def needed(names: Sequence[str]) -> list[str]:
        flow = Flow(program, program.output_tensors(signature.name, names), known=fed, stops=_SHAPES)
        found = (node for frame, node in flow.nodes if frame.place is None and node.op in _PLACEHOLDERS)
        # One within a branch of TensorFlow 1 is ordered behind the choice of it, and may never run.
        return sorted(_text(node) for node in found if inputs(node) == list(node.input))

    wanted = list(outputs)
    if not needed(wanted):  # mostly; then each output is as well
        return {}
    return {name: texts for name in wanted if (texts := needed([name]))}


def require_fed(program: Program, signature: Signature, outputs: Sequence[str], url: str) -> None:
    """raises: ModelError naming outputs that need a placeholder that nobody feeds."""
    if found := unfed(program, signature, outputs):
        lines = offenders([f"output {name!r} needs {', '.join(texts)}" for name, texts in found.items()])
        others = [name for name in outputs if name not in found]
        keep = f"choose `outputs: [{', '.join(others)}]`, or " if others else ""
        raise ModelError(
            f"cannot run signature {signature.name!r} of model '{url}': {len(found)} of its outputs need a placeholder"
            f" that is no input of the signature and has no default; {keep}export the model with it as an input, or as"
            f" a constant\n{lines}"
        )


def _tensors(spec: TensorSpec) -> tuple[str, ...]:
    return (spec.tensor, *spec.components)


def _text(node: NodeDef) -> str:
    dtype, shape = attribute(node, "dtype"), attribute(node, "shape")
    named = DTYPE_NAMES.get(dtype.type, "?") if dtype is not None else "?"
    return f"{node.name!r} {tensor_text(named, dimensions(shape.shape) if shape is not None else None)}"
