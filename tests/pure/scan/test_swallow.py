"""Where a NaN may vanish, on graphs made by hand: kinds of ops behind a signature, named, and no others."""

from __future__ import annotations

import pytest

from runner.proto.saved_model_pb2 import (
    AttrEntry,
    AttrValue,
    FunctionDef,
    FunctionDefLibrary,
    GraphDef,
    MetaGraphDef,
    NameAttrList,
    NodeDef,
    OpDef,
    SignatureDef,
    TensorInfo,
)
from runner.scan.program import Program
from runner.scan.swallow import swallowing


def node(text: str) -> NodeDef:
    """'name Op input input'"""
    name, op, *inputs = text.split()
    return NodeDef(name=name, op=op, input=inputs)


def program(*nodes: NodeDef, output: str = "y", functions: tuple[FunctionDef, ...] = ()) -> Program:
    graph = GraphDef(node=nodes, library=FunctionDefLibrary(function=functions))
    proto = MetaGraphDef(graph_def=graph, signature_def={"f": SignatureDef(outputs={"y": TensorInfo(name=output)})})
    return Program(graph, proto)


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ("m MatMul x w; b BiasAdd m v; y Relu b", ("Relu behind MatMul",)),
        ("m Conv2D x w; n FusedBatchNormV3 m s; i Identity n; y Relu6 i", ("Relu6 behind Conv2D",)),
        ("m Conv2D x w; b BiasAdd m v; a AddV2 x b; y Relu a", ("Relu behind Conv2D",)),
        ("p MaxPool x; m MatMul p w; y Relu m", ("MaxPool", "Relu behind MatMul")),
        ("m MatMul x w; b BiasAdd m v; y Tanh b", ()),
        ("m MatMul x w; b BiasAdd m v; y Softmax b", ()),
        ("m MatMul x w; t Tanh m; b BiasAdd t v; y Relu b", ()),
        ("y Relu x", ()),
        ("m MatMul x w; b BiasAdd m v; r Relu b; y Identity x", ()),  # not behind the signature
    ],
)
def test_kinds_of_ops_are_named(graph: str, found: tuple[str, ...]) -> None:
    nodes = [node(text) for text in graph.split("; ")]
    assert swallowing(program(node("x Placeholder"), *nodes), "f") == found


def test_functions_are_looked_into_and_inputs_are_told_by_their_outputs() -> None:
    nodes = [node("m MatMul x w"), node("b BiasAdd m:product:0 v"), node("r Relu b:output:0 ^m")]
    inner = FunctionDef(signature=OpDef(name="g"), node_def=nodes)
    call = node("y PartitionedCall")
    call.attr.append(AttrEntry(key="f", value=AttrValue(func=NameAttrList(name="g"))))
    assert swallowing(program(call, functions=(inner,)), "f") == ("Relu behind MatMul",)
