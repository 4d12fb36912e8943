"""Programs that are compiled for a shape: what their bytecode says, and which of them may do more than compute."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from stablehlo import OLDER, TODAY, content, node

from jobs.errors import ModelError
from runner.proto.saved_model_pb2 import (
    FunctionDef,
    FunctionDefLibrary,
    GraphDef,
    MetaGraphDef,
    NodeDef,
    OpDef,
    SignatureDef,
    TensorInfo,
)
from runner.scan.effects import effects
from runner.scan.program import Program
from runner.scan.trust import Trust, require_trust, scan
from runner.scan.xla.bytecode import Bytecode, BytecodeError
from runner.scan.xla.module import Content, Module, module, modules, require_platform, require_support, sentence
from runner.scan.xla.passed import passed


def content_of(name: str, version: str = TODAY) -> Content:
    read = module(None, node(content(name, version)))
    assert read.content is not None, read.unread
    return read.content


def compiled_for(*platforms: bytes, device: str = "", checks: tuple[bytes, ...] = ()) -> Module:
    made = node(content("polymorphic"), platforms=list(platforms), disabled_checks=list(checks))
    made.device = device
    return module(None, made)


def program(*nodes: NodeDef, function: NodeDef | None = None) -> Program:
    """A signature 's' of the first node's output; a function 'f' that holds another node."""
    inner = [] if function is None else [function]
    signature = OpDef(name="f", output_arg=[OpDef.ArgDef(name="y")])
    functions = [FunctionDef(signature=signature, node_def=inner, ret={"y": "n:output:0"})] if inner else []
    graph = GraphDef(node=nodes, library=FunctionDefLibrary(function=functions))
    outputs = {"y": TensorInfo(name=f"{nodes[0].name}:0")} if nodes else {}
    return Program(graph, MetaGraphDef(graph_def=graph, signature_def={"s": SignatureDef(outputs=outputs)}))


# What a module says


def test_a_computation_calls_nothing_and_may_run() -> None:
    assert content_of("fixed") == Content()
    assert scan([program(node(content("fixed")))]) == []


@pytest.mark.parametrize("version", [*OLDER, TODAY])
def test_what_a_module_calls_is_read_in_every_version_of_the_encoding(version: str) -> None:
    assert content_of("call", version).calls == ("evil",)
    assert content_of("call_in_a_branch", version).calls == ("evil",)


def test_shapes_are_polymorphic_where_the_module_says_so_or_has_open_ones_and_says_nothing() -> None:
    names = ("polymorphic", "open", "monomorphic", "fixed")
    assert [content_of(name).polymorphic for name in names] == [True, True, False, False]


def test_which_arguments_a_program_hands_back_is_followed_through_its_functions() -> None:
    assert passed(Bytecode(content("handed_back")), 3) == [0, None, None, 1], "sums of arguments are none of them"
    assert passed(Bytecode(content("open")), 1) == [0]
    assert passed(Bytecode(content("call_in_a_branch")), 2) == [None]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("call", "calls 'evil', which is not known to be harmless"),
        ("call_in_a_branch", "calls 'evil', which is not known to be harmless"),
        ("outfeed", "has operations that are not known to compute only (vhlo.outfeed_v1)"),
        ("all_reduce", "has operations that are not known to compute only (vhlo.all_reduce_v2)"),
        ("token", "takes tokens, which order effects beyond its answers"),
    ],
)
def test_what_reaches_out_of_a_module_is_refused_by_name(name: str, why: str) -> None:
    made = program(node(content(name), "bad"))
    (finding,) = scan([made])
    assert str(finding) == f"XlaCallModule {why}: node 'bad' (signature 's')"
    with pytest.raises(ModelError, match=r"'trust: \[XlaCallModule\]' under 'model'"):
        require_trust([made], "m", Trust())
    assert require_trust([made], "m", Trust.of(["XlaCallModule"])) == ("XlaCallModule",)


def test_kernels_that_compute_are_called_without_trust() -> None:
    made = content("call").replace(b"evil\0", b"Eigh\0")
    assert module(None, node(made)).refusal() == ""


def test_checks_that_are_switched_off_are_refused_but_for_those_of_the_export() -> None:
    off = module(None, node(content("fixed"), disabled_checks=[b"custom_call:x", b"platform"]))
    assert off.refusal() == "switches off checks of TensorFlow ('platform')"
    assert module(None, node(content("fixed"), disabled_checks=[b"custom_call:x"])).refusal() == ""


@pytest.mark.parametrize("given", [b"", b"module {}", b"ML\xefR", b"ML\xefR\x01x\0", content("fixed")[:-9]])
def test_a_module_that_cannot_be_read_is_refused_with_the_reason(given: bytes) -> None:
    read = module(None, node(given))
    assert read.refusal().startswith("runs a program that cannot be looked into: it ")
    assert read.polymorphic, "which costs a batch of one size, and no answer"


def test_a_gradient_that_nothing_calls_is_looked_at_too() -> None:
    (finding,) = scan([program(node(content("fixed")), function=node(content("call")))])
    assert (finding.where, finding.runs) == ("function 'f'", ())


@pytest.mark.parametrize("name", ["call", "call_in_a_branch", "polymorphic", "outfeed"])
def test_damaged_bytes_are_told_as_such_and_nothing_else_happens(name: str) -> None:
    whole, dice = content(name), random.Random(7)
    for end in range(4, len(whole)):
        with pytest.raises(BytecodeError):
            _ = Bytecode(whole[:end]).operations
    for _ in range(600):
        damaged = bytearray(whole)
        damaged[dice.randrange(4, len(whole))] = dice.randrange(256)
        module(None, node(bytes(damaged)))


# Which modules a signature reaches


def test_a_signature_has_the_modules_of_the_functions_that_it_calls_and_no_others() -> None:
    call = NodeDef(name="c", op="f")
    other = node(content("fixed"), "other")
    made = program(call, other, function=node(content("polymorphic")))
    (found,) = modules(made, "s")
    assert (found.node, found.function, found.version, found.platforms) == ("n", "f", 10, ("CPU",))
    assert modules(program(other, call, function=node(content("fixed"))), "s") == (module(None, other),)


def test_what_a_module_may_call_runs_with_it() -> None:
    made = program(node(content("fixed"), "outer", function="f"), function=node(content("open")))
    assert [each.node for each in modules(made, "s")] == ["outer", "n"]


def test_a_module_that_draws_is_told_as_other_random_numbers_are() -> None:
    assert effects(program(node(content("random"))), "s").draws == ("XlaCallModule",)
    assert effects(program(node(content("fixed"))), "s").draws == ()


# What it is compiled for


def test_the_sentence_says_the_platforms_and_how_often_it_is_compiled() -> None:
    both = compiled_for(b"CPU", b"CUDA")
    assert sentence([]) == ""
    assert sentence([both]) == "compiled for CPU, CUDA; once per batch size"
    assert sentence([both], 65536) == "compiled for CPU, CUDA; once per batch size: padded to 65,536"
    assert sentence([both, compiled_for(b"CPU")]) == "compiled for CPU; once per batch size"
    assert sentence([module(None, node(content("fixed")))], 64) == "compiled for CPU; for fixed shapes, once"
    assert sentence([compiled_for(b"CUDA", checks=(b"platform",))]).startswith("compiled for CUDA, and for others unch")


def test_a_program_for_other_devices_than_the_workers_have_is_refused_with_both_named() -> None:
    cuda, cpu, tpu = compiled_for(b"CUDA"), compiled_for(b"CPU"), compiled_for(b"TPU")
    with pytest.raises(ModelError) as refused:
        require_platform([cpu, cuda], 0, "s", "models/m")
    assert (refused.value.facts["code"], refused.value.exit_code) == ("MODEL_PLATFORM", 2)
    assert refused.value.message == (
        "cannot run signature 's' of model 'models/m': it is compiled for CUDA, and the workers have CPUs"
        " (`workers: {gpus: 0}`); export it again for both (`native_serialization_platforms=['cuda', 'cpu']` of jax2tf;"
        " Keras and orbax-export take it as one of `jax2tf_kwargs`), or choose workers with GPUs"
    )
    with pytest.raises(ModelError, match=r"for CPU, and the workers have GPUs \(`workers: \{gpus: 0.5\}`\).*gpus: 0\}"):
        require_platform([cpu], 0.5, "s", "m")
    with pytest.raises(ModelError, match=r"\['tpu', 'cpu'\][^,]*$"):
        require_platform([tpu], 0, "s", "m")


def test_a_program_that_this_tensorflow_does_not_read_is_refused_with_the_one_that_does() -> None:
    newer = module(None, node(content("composite")))
    assert newer.refusal() == "", "it computes"
    with pytest.raises(ModelError) as refused:
        require_support([newer], "2.21.0", "s", "models/m")
    assert refused.value.facts["code"] == "MODEL_UNSUPPORTED"
    assert refused.value.message == (
        "cannot run signature 's' of model 'models/m': TensorFlow 2.21.0 lacks what its program of JAX needs:"
        " 'vhlo.composite_v2' (an operation that TensorFlow 2.22 is the first to read); install a newer TensorFlow,"
        " export it with an older JAX, or without the functions that it stands for"
    )
    for version in ("2.22.0rc0", "2.22.1", "3.0"):
        require_support([newer], version, "s", "m")


def test_a_kernel_of_jax_that_tensorflow_lacks_is_refused_by_name() -> None:
    made = module(None, node(b""))
    kernel = replace(made, content=Content(calls=("lapack_spotrf_ffi", "shape_assertion")))
    assert kernel.refusal() == ""
    with pytest.raises(ModelError, match=r"'lapack_spotrf_ffi' \(a kernel of JAX's own library\); export it without"):
        require_support([kernel], "2.22.0", "s", "m")


@pytest.mark.parametrize(
    ("found", "gpus"),
    [
        (compiled_for(b"CPU", b"CUDA"), 0),
        (compiled_for(b"CPU", b"CUDA"), 1),
        (compiled_for(b"ROCM"), 1),
        (compiled_for(), 0),
        (compiled_for(b"CUDA", checks=(b"platform",)), 0),
        (compiled_for(b"CPU", device="/device:CPU:0"), 1),
    ],
)
def test_a_program_that_tensorflow_would_compile_is_not_refused(found: Module, gpus: float) -> None:
    require_platform([found], gpus, "s", "m")
