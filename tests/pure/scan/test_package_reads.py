"""What an op of a package reads: the forest of ydf lies in the model's assets, and is led nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.proto.saved_model_pb2 import (
    AttrEntry,
    AttrValue,
    GraphDef,
    MetaGraphDef,
    NodeDef,
    SignatureDef,
    TensorInfo,
)
from runner.scan.ops import registry
from runner.scan.packages import packages
from runner.scan.program import Program
from runner.scan.trust import Trust, require_trust

READ, CREATE = "SimpleMLLoadModelFromPathWithHandle", "SimpleMLCreateModelResource"
NAMED = Trust(packaged=packages()["ydf_tf"].ops)
FOREIGN = "reads files that are not the model's assets"


def node(op: str, name: str, *inputs: str, **attributes: bytes) -> NodeDef:
    made = NodeDef(name=name, op=op, input=inputs)
    made.attr.extend(AttrEntry(key=key, value=AttrValue(s=value)) for key, value in attributes.items())
    return made


def forest(
    pattern: bytes = b"ab12_done", rewrite: bytes = b"", prefix: bytes = b"ab12_", path: str = "folder", call: str = ""
) -> Program:
    """As ydf exports it: the name of a file is taken off the path of that asset, and the folder is read at load.

    call: the operation that signature 'f' runs.
    """
    nodes = [
        node("Const", "asset"),
        node("Const", "elsewhere"),
        node("StaticRegexReplace", "folder", "asset", pattern=pattern, rewrite=rewrite),
        node("StaticRegexReplace", "foreign", "elsewhere", pattern=pattern, rewrite=rewrite),
        node("Identity", "copied", "folder"),
        node("Identity", "circle", "circle"),
        node(CREATE, "forest"),
        node(READ, "read", "forest", path, file_prefix=prefix),
    ]
    proto = MetaGraphDef(graph_def=GraphDef(node=nodes))
    asset = proto.asset_file_def.add()
    asset.filename = "ab12_done"
    asset.tensor_info.CopyFrom(TensorInfo(name="asset:0"))
    for name, operation in (("__saved_model_init_op", "read"), ("f", call)):
        if operation:
            proto.signature_def[name].CopyFrom(SignatureDef(outputs={"y": TensorInfo(name=operation)}))
    return Program(proto.graph_def, proto)


def refused(program: Program, trust: Trust = NAMED) -> list[str]:
    return [f"{finding.op} {finding.why}" for finding in trust.findings([program])]


def test_a_forest_in_the_models_assets_is_let_through_where_its_package_is_named() -> None:
    assert refused(forest()) == []
    assert refused(forest(path="copied:0")) == []
    assert require_trust([forest()], "m", NAMED) == ()
    assert [line.partition(" ")[0] for line in refused(forest(), Trust())] == [CREATE, READ]


@pytest.mark.parametrize(
    "program",
    [
        forest(path="elsewhere"),
        forest(path="foreign"),
        forest(pattern=b".*"),
        forest(pattern=b"assets"),
        forest(rewrite=b"../../etc/"),
        forest(prefix=b"../../etc/"),
        forest(prefix=b"..\\"),
        forest(call="read"),
        forest(path="circle"),
    ],
    ids=["constant", "other path", "pattern", "other part", "rewrite", "prefix", "backslash", "signature", "circle"],
)
def test_a_forest_that_is_read_from_elsewhere_is_refused_although_its_package_is_named(program: Program) -> None:
    assert refused(program) == [f"{READ} {FOREIGN}"]


def test_an_op_beside_the_package_is_refused() -> None:
    graph = GraphDef(node=[node(CREATE, "forest"), node("WriteFile", "w"), node("SimpleMLTrain", "t")])
    assert [line.split()[0] for line in refused(Program(graph))] == ["WriteFile", "SimpleMLTrain"]


def test_a_package_is_named_and_not_its_ops_one_by_one() -> None:
    assert refused(forest(), replace(NAMED, packaged={}))[0] == f"{CREATE} is no op of {registry()} but of ydf_tf"
