"""The scan on graphs made by hand: what is refused, what is not, and how it is told. Nothing is ever loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import ModelError
from runner.model.saved_model import read_model
from runner.proto.saved_model_pb2 import (
    AssetFileDef,
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
    SavedModel,
    SavedObjectGraph,
    SaverDef,
    SignatureDef,
    TensorInfo,
    TensorProto,
    TensorShapeProto,
)
from runner.report.wording import in_python
from runner.scan.effects import Effects, effects
from runner.scan.ops import registry
from runner.scan.program import Program, read_programs
from runner.scan.trust import Trust, require_trust, scan


def node(op: str, name: str = "n", *inputs: str, calls: str = "", **strings: bytes) -> NodeDef:
    attributes = [AttrEntry(key=key, value=AttrValue(s=value)) for key, value in strings.items()]
    if calls:
        attributes.append(AttrEntry(key="f", value=AttrValue(func=NameAttrList(name=calls))))
    return NodeDef(name=name, op=op, input=inputs, attr=attributes)


def constant(name: str, *values: bytes) -> NodeDef:
    proto = TensorProto(dtype=DataType.DT_STRING, string_val=values)
    return NodeDef(name=name, op="Const", attr=[AttrEntry(key="value", value=AttrValue(tensor=proto))])


def function(name: str, *nodes: NodeDef, arguments: tuple[str, ...] = ()) -> FunctionDef:
    taken = [OpDef.ArgDef(name=argument) for argument in arguments]
    return FunctionDef(signature=OpDef(name=name, input_arg=taken), node_def=nodes)


def graph(*nodes: NodeDef, functions: tuple[FunctionDef, ...] = ()) -> GraphDef:
    return GraphDef(node=nodes, library=FunctionDefLibrary(function=functions))


def program(
    *nodes: NodeDef, functions: tuple[FunctionDef, ...] = (), output: str = "", load: str = "", **more: object
) -> Program:
    """A metagraph tagged 'serve' whose signature 'f' gives the tensor `output`, and whose init op is `load`."""
    proto = MetaGraphDef(graph_def=graph(*nodes, functions=functions), **more)  # type: ignore[arg-type]
    proto.meta_info_def.tags.append("serve")
    for name, tensor in (("f", output), ("__saved_model_init_op", load)):
        if tensor:
            proto.signature_def[name].CopyFrom(SignatureDef(outputs={"y": TensorInfo(name=tensor)}))
    return Program(proto.graph_def, proto)


def found(*programs: Program) -> list[str]:
    return [str(finding) for finding in scan(programs)]


def refused_ops() -> set[str]:
    every = [node(op, op) for op in registry().stateful]
    return {finding.op for finding in scan([program(*every)])}


def test_a_model_of_plain_ops_is_not_refused() -> None:
    ops = (
        "Placeholder",
        "Const",
        "MatMul",
        "VarHandleOp",
        "ReadVariableOp",
        "AssignVariableOp",
        "HashTableV2",
        "Assert",
    )
    assert found(program(*(node(op, op) for op in (*ops, "RandomUniform", "While", "StatefulPartitionedCall")))) == []


@pytest.mark.parametrize(
    "op",
    [
        *("ReadFile", "WriteFile", "MatchingFiles", "WholeFileReaderV2", "TFRecordReaderV2", "LoadAndRemapMatrix"),
        *("PrintV2", "Print", "PyFunc", "PyFuncStateless", "EagerPyFunc", "CreateSummaryFileWriter", "WriteSummary"),
        *("DatasetFromGraph", "TFRecordDatasetV2", "TextLineDataset", "GeneratorDataset", "OneShotIterator"),
        *("RpcClient", "Send", "Recv", "_Send", "_HostRecv", "RemoteCall", "CollectiveReduceV2", "DebugIdentity"),
        *("XlaCallModule", "XlaCustomCallV2", "Abort", "ImmutableConst", "FileSystemSetConfiguration", "FIFOQueueV2"),
        *("DumpTensor", "ImportEvent", "DTensorRestoreV2", "DistributedSave", "Skipgram", "TPUPartitionedCall"),
        *("FixedUnigramCandidateSampler", "GenerateVocabRemapping", "InitializeTableFromDataset", "LMDBReader"),
    ],
)
def test_an_op_that_reaches_out_is_refused_by_name_wherever_it_stands(op: str) -> None:
    (in_graph,) = found(program(node(op, "bad")))
    assert in_graph.startswith(f"{op} ")
    assert in_graph.endswith(": node 'bad'")
    (in_function,) = found(program(functions=(function("g", node(op, "bad")),)))
    assert in_function.endswith("node 'bad' of function 'g'")
    (in_nested,) = found(program(constant("c", b"text", graph(node(op, "bad")).SerializeToString())))
    assert in_nested.endswith("node 'bad' of the graph in 'c'")


@pytest.mark.parametrize(
    ("graph", "named"),
    [
        (graph(node("Relu", "a"), node("ReadFile", "a")), "two nodes are called 'a', and"),
        (graph(functions=(function("g", node("Relu", "a"), node("ReadFile", "a")),)), "'a' in function 'g'"),
        (
            graph(functions=(function("g", node("Relu")), function("g", node("ReadFile")))),
            "two functions are called 'g'",
        ),
    ],
    ids=["nodes", "nodes-of-a-function", "functions"],
)
def test_two_of_one_name_are_refused_because_one_hides_the_other(graph: GraphDef, named: str) -> None:
    with pytest.raises(ModelError, match=named) as refused:
        Program(graph)
    assert (refused.value.facts["code"], refused.value.exit_code) == ("MODEL_GRAPH", 2)


def test_two_equal_functions_hide_nothing() -> None:
    same = function("g", node("Relu"))
    assert list(Program(graph(functions=(same, same))).functions) == ["g"]


STATEFUL_KINDS = """
    Variable VarHandle VarIsInitialized Resource Table BoostedTrees DisableCopyOnRead Restore Save MergeV2 Case If While
    PartitionedCall TensorArray Stack Mutex DeviceIndex GuaranteeConst DeepCopy Empty Cudnn Assert CheckNumerics Random
    Rng Normal Uniform Sampl Multinomial NonDeterministicInts Timestamp
"""
SUSPICIOUS_WORDS = "File Py Rpc Dataset Iterator Print Send Recv Debug TPU Reader Summar Graph Proto"
HARMLESS_SUSPECTS = """
    AudioSummary AudioSummaryV2 HistogramSummary ImageSummary MergeSummary ScalarSummary TensorSummary TensorSummaryV2
    BoostedTreesExampleDebugOutputs BoostedTreesFlushQuantileSummaries BoostedTreesMakeQuantileSummaries
    BoostedTreesMakeStatsSummary BoostedTreesQuantileStreamResourceAddSummaries ShardedFilename ShardedFilespec
    DecodeProtoV2 EncodeProto TpuHandleToProtoKey
"""


def test_what_the_rule_lets_through_can_be_read_here() -> None:
    """Whoever changes the rule, or the table of ops, sees in this test what else gets through."""
    refused = refused_ops()
    stateful = [name for name, is_stateful in registry().stateful.items() if is_stateful and name not in refused]
    assert [name for name in stateful if not any(kind in name for kind in STATEFUL_KINDS.split())] == []
    suspects = {name for name in registry().stateful if any(word in name for word in SUSPICIOUS_WORDS.split())}
    assert suspects - refused == set(HARMLESS_SUSPECTS.split())


def test_an_op_that_tensorflow_does_not_have_is_refused() -> None:
    (told,) = found(program(node("ZeroOut", "z")))
    assert told == f"ZeroOut is no op of {registry()}, and so what it does is unknown: node 'z'"


def test_a_call_of_a_function_is_no_op_but_a_function_named_like_one_hides_nothing() -> None:
    assert found(program(node("g"), functions=(function("g", node("Relu")),))) == []
    assert len(found(program(node("WriteFile"), functions=(function("WriteFile", node("Relu")),)))) == 1


def test_what_runs_at_load_is_told_first_and_with_who_runs_it() -> None:
    inner = function("inner", node("ReadFile", "read"))
    outer = function("outer", node("PartitionedCall", "call", calls="inner"))
    told = found(
        program(
            node("StatefulPartitionedCall", "y", calls="outer"),
            node("NoOp", "init", "^write"),
            node("WriteFile", "write"),
            functions=(inner, outer),
            output="y:0",
            load="init",
        )
    )
    assert told == [
        "WriteFile writes files: node 'write' (at load)",
        "ReadFile reads files: node 'read' of function 'inner' (signature 'f')",
    ]


@pytest.mark.parametrize("collection", ["saved_model_main_op", "legacy_init_op"])
def test_init_ops_of_collections_run_at_load(collection: str) -> None:
    made = program(node("WriteFile", "write"))
    made._proto.collection_def[collection].node_list.value.append("write")
    assert found(made) == ["WriteFile writes files: node 'write' (at load)"]


def test_every_metagraph_is_looked_at_and_named() -> None:
    other = program(node("ReadFile"))
    other.tags = ("gpu", "serve")
    assert found(program(node("Relu")), other) == ["ReadFile reads files: node 'n' of metagraph 'gpu,serve'"]


# Graphs that lie in a graph


def test_graphs_are_found_in_attributes_lists_functions_and_packed_constants() -> None:
    hidden = graph(node("WriteFile", "w")).SerializeToString()
    listed = AttrEntry(key="l", value=AttrValue(list=AttrValue.ListValue(s=[b"x", hidden])))
    within = NameAttrList(name="g", attr=[AttrEntry(key="a", value=AttrValue(s=hidden))])
    packed = TensorProto(
        dtype=DataType.DT_STRING,
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=2)]),
        tensor_content=bytes([3, len(hidden)]) + b"abc" + hidden,
    )
    for attribute in (
        AttrEntry(key="s", value=AttrValue(s=hidden)),
        listed,
        AttrEntry(key="f", value=AttrValue(func=within)),
        AttrEntry(key="t", value=AttrValue(tensor=packed)),
    ):
        assert found(program(NodeDef(name="n", op="NoOp", attr=[attribute]))) == [
            "WriteFile writes files: node 'w' of the graph in 'n'"
        ]


def test_a_graph_within_a_graph_is_looked_at_and_one_without_end_is_refused() -> None:
    inner = graph(node("WriteFile", "w"))
    for _ in range(3):
        inner = graph(constant("c", inner.SerializeToString()))
    assert "WriteFile" in found(program(constant("c", inner.SerializeToString())))[0]
    for _ in range(4):
        inner = graph(constant("c", inner.SerializeToString()))
    assert "holds graphs within graphs" in found(program(constant("c", inner.SerializeToString())))[0]


def test_text_is_not_taken_for_a_graph() -> None:
    words = [b"a\n\x12b", b"\n", b"\n\x03abc", bytes(range(256)), "größer\n\x12".encode(), b"\x12\x00\n\x00"]
    assert found(program(constant("c", *words))) == []


# Checkpoints, assets, schemas

SAVER = SaverDef(filename_tensor_name="path:0", save_tensor_name="save:0", restore_op_name="restore")


def test_the_models_own_checkpoint_may_be_restored_and_its_saver_stand_there() -> None:
    saved = function("saved", node("SaveV2", "save", "prefix"), node("MergeV2Checkpoints", "m"), arguments=("prefix",))
    restored = function("restored", node("RestoreV2", "r", "prefix"), arguments=("prefix",))
    nodes = (
        node("Placeholder", "path"),
        node("StatefulPartitionedCall", "save", "path", calls="saved"),
        node("StatefulPartitionedCall", "restore", "path", calls="restored"),
    )
    assert found(program(*nodes, functions=(saved, restored), saver_def=SAVER)) == []


def test_restoring_what_is_not_the_models_own_is_refused_once_something_runs_it() -> None:
    path, foreign = node("Placeholder", "path"), constant("foreign", b"/data/other")
    restore = node("RestoreV2", "restore", "foreign")
    message = "RestoreV2 reads a checkpoint that is not the model's own: node 'restore'"
    assert found(program(path, foreign, restore, saver_def=SAVER)) == [f"{message} (at restore)"]
    assert found(program(foreign, restore, output="restore:0")) == [f"{message} (signature 'f')"]
    assert found(program(foreign, restore)) == [], "a saver that is left over, and that nothing calls"


def test_a_path_that_only_a_restoring_loader_feeds_is_foreign_to_a_signature_and_to_an_init_op() -> None:
    path = node("PlaceholderWithDefault", "path", "default")
    nodes = (constant("default", b"/data/other"), path, node("RestoreV2", "restore", "path"))
    assert found(program(*nodes, saver_def=SAVER)) == []
    assert "(at load, at restore)" in found(program(*nodes, saver_def=SAVER, load="restore"))[0]
    assert "(at restore, signature 'f')" in found(program(*nodes, saver_def=SAVER, output="restore:0"))[0]


def test_a_function_that_may_take_the_place_of_another_counts_as_one_that_runs() -> None:
    sly = function("sly", node("SaveV2", "save"))
    sly.attr.add(key="api_implements").value.s = b"lstm"
    assert found(program(functions=(function("sly", node("SaveV2", "save")),))) == []
    assert "SaveV2 writes a checkpoint" in found(program(functions=(sly,)))[0]


def test_one_call_with_a_foreign_path_is_enough_to_refuse_a_function_that_restores() -> None:
    restored = function("restored", node("RestoreV2", "r", "prefix"), arguments=("prefix",))
    own = node("StatefulPartitionedCall", "restore", "path", calls="restored")
    foreign = node("StatefulPartitionedCall", "again", "x", calls="restored")
    nodes = (node("Placeholder", "path"), node("Placeholder", "x"), own, foreign)
    assert found(program(*nodes, functions=(restored,), saver_def=SAVER))
    assert found(program(*nodes[:3], functions=(restored,), saver_def=SAVER)) == []


@pytest.mark.parametrize("op", ["SaveV2", "Save", "SaveSlices", "MergeV2Checkpoints"])
def test_saving_is_refused_where_a_signature_an_init_op_or_an_object_reaches_it(op: str) -> None:
    save = node(op, "save")
    assert found(program(save, saver_def=SAVER)) == []
    assert "(at load)" in found(program(save, saver_def=SAVER, load="save"))[0]
    assert "(signature 'f')" in found(program(save, node("Identity", "y", "x", "^save"), output="y:0"))[0]
    objects = SavedObjectGraph()
    objects.concrete_functions["g"].bound_inputs.extend([])
    assert "(by an object)" in found(program(functions=(function("g", save),), object_graph_def=objects))[0]


def asset_table(filename: str, *more: NodeDef, assets: tuple[str, ...] = ("asset:0",)) -> list[str]:
    given = [AssetFileDef(tensor_info=TensorInfo(name=name), filename="words.txt") for name in assets]
    table = node("InitializeTableFromTextFileV2", "fill", "table", filename)
    return found(program(constant("asset", b"words.txt"), table, *more, asset_file_def=given))


def test_a_table_may_be_filled_from_an_asset_and_from_nothing_else() -> None:
    assert asset_table("asset") == []
    assert asset_table("same", node("Identity", "same", "asset:0")) == []
    (told,) = asset_table("foreign", constant("foreign", b"/etc/passwd"))
    assert told.startswith("InitializeTableFromTextFileV2 reads a file that is not one of the model's assets")
    assert asset_table("asset", assets=()) != []
    assert asset_table("joined", node("StringJoin", "joined", "asset")) != []


def test_a_table_that_a_signature_fills_has_no_asset_fed_and_is_refused() -> None:
    assets = [AssetFileDef(tensor_info=TensorInfo(name="asset:0"), filename="words.txt")]
    nodes = (constant("asset", b"/etc/passwd"), node("InitializeTableFromTextFileV2", "fill", "table", "asset"))
    answer = node("Identity", "y", "x", "^fill")
    assert found(program(*nodes, asset_file_def=assets, load="fill")) == []
    assert "(signature 'f')" in found(program(*nodes, answer, asset_file_def=assets, output="y:0"))[0]


def test_an_asset_may_pass_through_a_variable_that_nothing_else_sets() -> None:
    handle, read = node("VarHandleOp", "v"), node("ReadVariableOp", "read", "v", "^assign")
    assign = node("AssignVariableOp", "assign", "v", "asset")
    assert asset_table("read", handle, read, assign) == []
    twin = node("VarHandleOp", "w", shared_name=b"v")
    foreign = constant("foreign", b"/etc/passwd")
    for other in (
        (node("AssignVariableOp", "again", "v", "foreign"), foreign),
        (node("StatefulPartitionedCall", "restore", "v"),),
        (twin, node("AssignVariableOp", "again", "w", "foreign"), foreign),
    ):
        assert asset_table("read", handle, read, assign, *other) != []


def test_an_object_may_not_give_another_file_to_a_function_that_the_graph_gives_an_asset() -> None:
    fill = function("fill", node("InitializeTableFromTextFileV2", "n", "table", "file"), arguments=("table", "file"))
    call = node("StatefulPartitionedCall", "call", "table", "asset", calls="fill")

    def told(kind: str) -> list[str]:
        objects = SavedObjectGraph()
        objects.nodes.add()
        if kind == "asset":
            objects.nodes[0].asset.asset_file_def_index = 0
        objects.concrete_functions["fill"].bound_inputs.append(0)
        assets = [AssetFileDef(tensor_info=TensorInfo(name="asset:0"), filename="words.txt")]
        nodes = (constant("asset", b""), node("HashTableV2", "table"), call)
        return found(program(*nodes, functions=(fill,), object_graph_def=objects, asset_file_def=assets))

    assert told("asset") == []
    assert told("constant") != []


@pytest.mark.parametrize(
    ("source", "refused"), [(b"", False), (b"local://", False), (b"bytes://x", False), (b"/f", True)]
)
def test_a_schema_may_come_from_the_model_but_not_from_a_file(source: bytes, refused: bool) -> None:
    assert bool(found(program(node("DecodeProtoV2", descriptor_source=source)))) is refused


# What is said


def test_the_refusal_lists_twenty_and_says_what_to_do_and_trust_lets_the_ops_through() -> None:
    made = program(*(node("ReadFile", f"n{number}") for number in range(25)), node("WriteFile", "w"))
    with pytest.raises(ModelError) as caught:
        require_trust([made], "models/m", Trust())
    message = caught.value.message
    assert message.startswith(
        "cannot trust model 'models/m': 26 of its nodes may do more than compute; it was not loaded"
    )
    assert message.count("\n  - ReadFile") == 20
    assert "and 6 more" in message
    assert "--trust-model" in message
    assert caught.value.facts["code"] == "UNTRUSTED_MODEL"
    assert require_trust([made], "models/m", Trust(everything=True)) == ("ReadFile", "WriteFile")
    assert require_trust([program(node("Relu"))], "models/m", Trust()) == ()


def test_trust_by_name_lets_these_ops_through_and_names_the_rest_with_what_to_write() -> None:
    made = program(node("ReadFile", "r"), node("WriteFile", "w"), node("Relu", "x"))
    both = Trust.of(["WriteFile", "ReadFile"])
    assert require_trust([made], "models/m", both) == ("ReadFile", "WriteFile")
    with pytest.raises(ModelError) as caught:
        require_trust([made], "models/m", Trust.of(["WriteFile"]))
    message = caught.value.message
    assert "one of its nodes may do more than compute, beside those that the job trusts (WriteFile)" in message
    assert "  - ReadFile reads files: node 'r'" in message
    assert "WriteFile writes" not in message
    assert "'trust: [ReadFile, WriteFile]' under 'model'" in message
    assert "`trust=[...]` of the model" in in_python(message)


def test_names_that_let_nothing_through_are_told() -> None:
    made = program(node("ReadFile", "r"), node("Relu", "x"))
    assert Trust.of(["ReadFile"]).idle([made]) == ()
    assert Trust.of(["ReadFile", "Relu", "Readfile"]).idle([made]) == (
        "`trust` names ops that are not refused anyway: Relu",
        "`trust` names ops that are not in the model: Readfile",
    )
    assert Trust.of(True).idle([made]) == Trust.of(False).idle([made]) == ()


def test_the_ops_of_a_package_that_the_job_names_are_not_refused_and_those_of_tensorflow_stay_so() -> None:
    made = program(node("TFText>Tokenize", "t"), node("ReadFile", "r"))
    packaged = Trust(packaged={"TFText>Tokenize": False, "ReadFile": False})
    assert [finding.op for finding in packaged.findings([made])] == ["ReadFile"]


def test_attributes_of_the_text_format_are_seen_too(tmp_path: Path) -> None:
    hidden = graph(node("WriteFile", "w")).SerializeToString()
    saved = SavedModel(meta_graphs=[MetaGraphDef(graph_def=graph(node("NoOp", "n", a=hidden)))])
    from google.protobuf import text_format

    (tmp_path / "saved_model.pbtxt").write_text(text_format.MessageToString(saved))
    assert "WriteFile" in found(*read_programs(read_model(str(tmp_path))))[0]


# Effects


def test_effects_are_those_behind_the_signature_and_nothing_else() -> None:
    counts = function("counts", node("AssignAddVariableOp", "a"), node("Relu", "r"))
    nodes = (
        node("PartitionedCall", "y", "x", calls="counts"),
        node("RandomUniform", "noise"),
        node("Placeholder", "x"),
    )
    made = program(*nodes, functions=(counts,), output="y:0")
    assert effects(made, "f") == Effects(writes=("AssignAddVariableOp",))
    assert effects(program(*nodes, functions=(counts,), output="noise:0"), "f") == Effects(draws=("RandomUniform",))
    assert effects(program(*nodes, functions=(counts,), output="x:0"), "f") == Effects()


def test_what_the_gradient_of_a_function_does_counts_as_an_effect_of_it() -> None:
    functions = (function("f", node("Relu")), function("f_grad", node("AssignAddVariableOp", "a")))
    made = graph(node("PartitionedCall", "y", calls="f"), functions=functions)
    made.library.gradient.add(function_name="f", gradient_func="f_grad")
    proto = MetaGraphDef(graph_def=made)
    proto.signature_def["f"].outputs["y"].name = "y:0"
    assert effects(Program(made, proto), "f").writes == ("AssignAddVariableOp",)


def test_each_kind_of_effect_is_a_sentence_that_names_the_ops() -> None:
    both = Effects(("AssignAdd",), ("RandomUniform", "Timestamp")).warnings("f")
    assert [("AssignAdd" in said, "RandomUniform, Timestamp" in said) for said in both] == [
        (True, False),
        (False, True),
    ]
    assert Effects().warnings("f") == []
