"""Placeholders that nobody feeds, on graphs made by hand: found where every call would fail, and nowhere else."""

from __future__ import annotations

import pytest

from runner.model.signature import Signature, TensorSpec
from runner.proto.saved_model_pb2 import (
    AttrEntry,
    AttrValue,
    DataType,
    FunctionDef,
    FunctionDefLibrary,
    GraphDef,
    MetaGraphDef,
    NameAttrList,
    NodeDef,
    OpDef,
    SignatureDef,
    TensorInfo,
    TensorShapeProto,
)
from runner.scan.program import Program
from runner.scan.unfed import unfed


def node(name: str, op: str, *inputs: str, call: str = "") -> NodeDef:
    attributes = [AttrEntry(key="f", value=AttrValue(func=NameAttrList(name=call)))] if call else []
    return NodeDef(name=name, op=op, input=inputs, attr=attributes)


def placeholder(name: str, *inputs: str) -> NodeDef:
    attributes = [
        AttrEntry(key="dtype", value=AttrValue(type=DataType.DT_FLOAT)),
        AttrEntry(key="shape", value=AttrValue(shape=TensorShapeProto())),
    ]
    return NodeDef(name=name, op="Placeholder", input=inputs, attr=attributes)


FUNCTION = FunctionDef(
    signature=OpDef(
        name="first",
        input_arg=[OpDef.ArgDef(name=name) for name in ("a", "b")],
        output_arg=[OpDef.ArgDef(name="y")],
    ),
    node_def=[node("same", "Identity", "a")],
    ret={"y": "same:output:0"},
)


def found(*nodes: NodeDef, fed: str = "x:0", outputs: tuple[str, ...] = ("y",)) -> dict[str, list[str]]:
    graph = GraphDef(node=[placeholder("x"), *nodes], library=FunctionDefLibrary(function=[FUNCTION]))
    signature = SignatureDef(outputs={name: TensorInfo(name=f"{name}:0") for name in outputs})
    proto = MetaGraphDef(graph_def=graph, signature_def={"s": signature})
    spec = TensorSpec("x", "float32", (None,), fed)
    return unfed(Program(graph, proto), Signature("s", "", {"x": spec}, {}), outputs)


KEEP = placeholder("keep_prob")


def test_a_placeholder_behind_an_output_is_named_with_the_outputs_that_need_it() -> None:
    nodes = [KEEP, node("half", "Mul", "x", "keep_prob"), node("y", "Identity", "half"), node("z", "Identity", "x")]
    assert found(*nodes, outputs=("y", "z")) == {"y": ["'keep_prob' float32[]"]}
    assert found(*nodes, outputs=("z",)) == {}
    assert found(KEEP, node("y", "PartitionedCall", "keep_prob", "x", call="first")) == {"y": ["'keep_prob' float32[]"]}


@pytest.mark.parametrize(
    "nodes",
    [
        [node("keep_prob", "PlaceholderWithDefault", "x"), node("y", "Mul", "x", "keep_prob")],
        [KEEP, node("y", "Identity", "x", "^keep_prob")],  # which the optimiser may leave out
        [KEEP, node("size", "Shape", "keep_prob"), node("y", "Reshape", "x", "size")],
        [placeholder("keep_prob", "^choice"), node("y", "Merge", "x", "keep_prob")],  # of a branch
        [KEEP, node("y", "PartitionedCall", "x", "keep_prob", call="first")],  # an argument that is not used
    ],
    ids=["default", "order", "shape", "branch", "argument"],
)
def test_what_may_never_run_is_not_named(nodes: list[NodeDef]) -> None:
    assert found(*nodes) == {}


def test_what_lies_behind_a_tensor_that_is_fed_does_not_run() -> None:
    nodes = [KEEP, node("inner", "Mul", "x", "keep_prob"), node("y", "Identity", "inner")]
    assert found(*nodes, fed="inner:0") == {}
