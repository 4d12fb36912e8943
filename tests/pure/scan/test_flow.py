"""Where values come from, on graphs made by hand: through calls, branches and loops, not through what orders."""

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
    TensorProto,
    TensorShapeProto,
)
from runner.scan import flow as flows
from runner.scan.compiled import compiled
from runner.scan.flow import Flow
from runner.scan.lookups import lookups
from runner.scan.program import Program

SIGNATURE = Signature("f", "", {name: TensorSpec(name, "int64", (None,), f"{name}:0") for name in ("a", "b")}, {})


def node(name: str, op: str, *inputs: str, functions: tuple[str, ...] = (), **values: AttrValue) -> NodeDef:
    called = [AttrValue(func=NameAttrList(name=function)) for function in functions]
    attributes = [AttrEntry(key=f"f{index}", value=value) for index, value in enumerate(called)]
    attributes += [AttrEntry(key=key, value=value) for key, value in values.items()]
    return NodeDef(name=name, op=op, input=inputs, attr=attributes)


def table(name: str, rows: int) -> NodeDef:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=rows)])
    return node(name, "Const", value=AttrValue(tensor=TensorProto(dtype=DataType.DT_FLOAT, tensor_shape=shape)))


def function(name: str, arguments: str, *nodes: NodeDef, controls: tuple[str, ...] = (), **results: str) -> FunctionDef:
    """arguments: their names with blanks between. results: name of an output -> its tensor."""
    signature = OpDef(
        name=name,
        input_arg=[OpDef.ArgDef(name=argument) for argument in arguments.split()],
        output_arg=[OpDef.ArgDef(name=result) for result in results],
    )
    return FunctionDef(signature=signature, node_def=nodes, ret=results, control_ret={each: each for each in controls})


def flow(output: str, *nodes: NodeDef, functions: tuple[FunctionDef, ...] = ()) -> Flow:
    inputs = [node(name, "Placeholder") for name in SIGNATURE.inputs]
    graph = GraphDef(node=[*inputs, *nodes], library=FunctionDefLibrary(function=functions))
    return Flow(Program(graph, MetaGraphDef(graph_def=graph)), [output])


FIND = function("find", "rows ids", node("found", "ResourceGather", "rows", "ids"), result="found:output:0")


def spans(of: Flow) -> dict[str, int]:
    return {name: found.highest for name, found in lookups(of, SIGNATURE).items()}


def test_a_function_that_is_called_twice_looks_up_twice() -> None:
    calls = [
        node("one", "PartitionedCall", "ten", "a", functions=("find",)),
        node("two", "find", "four", "b"),
        node("sum", "AddV2", "one", "two"),
    ]
    assert spans(flow("sum", table("ten", 10), table("four", 4), *calls, functions=(FIND,))) == {"a": 9, "b": 3}


def test_only_the_output_that_is_wanted_of_a_call_counts() -> None:
    both = function(
        "both", "rows x y",
        node("left", "ResourceGather", "rows", "x"), node("right", "ResourceGather", "rows", "y", "^left"),
        l="left:output:0", r="right:output:0",
    )  # fmt: skip
    call = node("call", "StatefulPartitionedCall", "ten", "a", "b", functions=("both",))
    made = flow("call:1", table("ten", 10), call, functions=(both,))
    assert spans(made) == {"b": 9}
    assert {each.name for _, each in made.ordered} >= {"left", "right"}, "it is only to run before"


def test_what_a_function_runs_whatever_is_wanted_of_it_is_told_apart() -> None:
    check = function(
        "check",
        "x",
        node("assert", "Assert", "x"),
        node("same", "Identity", "x"),
        controls=("assert",),
        y="same:output:0",
    )
    made = flow("call", node("call", "PartitionedCall", "a", functions=("check",)), functions=(check,))
    assert [each.name for _, each in made.nodes if each.op != "Placeholder"] == ["call", "same"]
    assert "assert" in [each.name for _, each in made.ordered]


@pytest.mark.parametrize("op", ["If", "StatelessCase", "While", "MapDefun"])
def test_a_look_up_in_a_branch_or_a_loop_limits_nothing(op: str) -> None:
    made = flow("way", table("ten", 10), node("way", op, "a", "ten", "b", functions=("find",)), functions=(FIND,))
    assert "ResourceGather" in [each.op for _, each in made.nodes]
    assert spans(made) == {}


def test_a_model_with_more_calls_than_are_followed_is_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = [function(f"f{n}", "rows ids", node("c", f"f{n + 1}", "rows", "ids"), y="c:y:0") for n in range(5)]
    last = function("f5", "rows ids", node("found", "ResourceGather", "rows", "ids"), y="found:output:0")
    nodes = [table("ten", 10), node("call", "f0", "ten", "a")]
    whole = {each.name for _, each in flow("call", *nodes, functions=(*deep, last)).nodes}
    monkeypatch.setattr(flows, "_MOST_FRAMES", 3)
    cut = flow("call", *nodes, functions=(*deep, last))
    assert {each.name for _, each in cut.nodes} == whole
    assert spans(cut) == {}


def test_a_function_that_calls_itself_has_an_end() -> None:
    circle = function("circle", "x", node("again", "PartitionedCall", "x", functions=("circle",)), y="again:output:0")
    made = flow("call", node("call", "PartitionedCall", "a", functions=("circle",)), functions=(circle,))
    assert {each.op for _, each in made.nodes} <= {"PartitionedCall", "Placeholder"}


def deciders(of: Flow) -> dict[str, tuple[str, ...]]:
    return dict(compiled(of, SIGNATURE).deciders)


def test_what_decides_a_shape_is_found_behind_calls_branches_and_loops() -> None:
    same = function("same", "x y", node("one", "Identity", "x"), y="one:output:0")
    assert deciders(flow("y", node("y", "TopKV2", "b", "a"))) == {"a": ("TopKV2",)}
    for op, inputs, found in (
        ("PartitionedCall", ("a", "b"), {"a"}),
        ("If", ("b", "a", "b"), {"a", "b"}),  # the first input chooses
        ("StatelessWhile", ("b", "a"), {"b"}),
    ):
        made = flow("y", node("n", op, *inputs, functions=("same",)), node("y", "Fill", "n", "b"), functions=(same,))
        assert set(deciders(made)) == found, op


def test_a_shape_that_follows_a_shape_is_decided_by_no_value() -> None:
    nodes = [node("s", "Shape", "a"), node("half", "FloorDiv", "s", "s"), node("y", "Reshape", "b", "half")]
    assert deciders(flow("y", *nodes)) == {}
