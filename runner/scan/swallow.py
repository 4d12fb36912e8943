"""Where a NaN may vanish inside of a model, as far as its graph shows it: ops whose CPU kernels make numbers of it.

TensorFlow fuses a Relu or Relu6 into the matrix product or convolution before it, and oneDNN's kernel gives 0 for NaN;
a pool of the largest takes no NaN for it. Seen with TensorFlow 2.21 on x86-64. Not named: a Softmax, which gives 0 only
beside a NaN that stays in the row, and what a model does on purpose (comparisons, `is_nan`). The graph is no proof,
neither for nor against: the trial of a worker (`runner.worker.trial.nan`) measures.
"""

from __future__ import annotations

from runner.proto.saved_model_pb2 import NodeDef
from runner.scan.program import Place, Program

_ACTIVATIONS = ("Relu", "Relu6")
_POOLS = ("MaxPool", "MaxPoolV2", "MaxPool3D")
_PRODUCTS = ("MatMul", "Conv2D", "Conv3D", "DepthwiseConv2dNative")
_BETWEEN = ("BiasAdd", "Add", "AddV2", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "Identity")
_STEPS = 4  # from an activation back to its product: BiasAdd, a sum with another branch, and Identities


def swallowing(program: Program, signature: str) -> tuple[str, ...]:
    """Kinds of ops behind a signature in which a NaN may vanish on a CPU: 'Relu behind MatMul', 'MaxPool', sorted."""
    reach = program.behind(signature)
    places: dict[Place, dict[str, NodeDef]] = {}
    for place, node in program.nodes():
        if (place, node) in reach:
            places.setdefault(place, {})[node.name] = node
    found = set[str]()
    for nodes in places.values():
        for node in nodes.values():
            if node.op in _POOLS:
                found.add(node.op)
            elif node.op in _ACTIVATIONS:
                found |= {f"{node.op} behind {product}" for product in _products(node, nodes)}
    return tuple(sorted(found))


def _products(node: NodeDef, nodes: dict[str, NodeDef]) -> set[str]:
    """The products that may be fused with an activation."""
    found, before = set[str](), [node]
    for _ in range(_STEPS):
        names = [name.partition(":")[0] for each in before for name in each.input if not name.startswith("^")]
        inputs = [nodes[name] for name in dict.fromkeys(names) if name in nodes]
        found |= {each.op for each in inputs if each.op in _PRODUCTS}
        before = [each for each in inputs if each.op in _BETWEEN]
    return found
