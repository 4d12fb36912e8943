"""Programs that are compiled for a shape, in ops `XlaCallModule`: what jax2tf, Keras on JAX and orbax-export write.

Reads from the node what it was compiled for, and from its StableHLO what it calls. StableHLO computes and does no more,
but for calls of what is outside of it. The invariant: what is not known to compute only is a reason to refuse; a module
that cannot be read is one too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from jobs.errors import ModelError
from runner.proto.saved_model_pb2 import AttrValue, NodeDef
from runner.scan.flow import Flow
from runner.scan.program import Place, Program
from runner.scan.xla.bytecode import MAGIC, Bytecode, BytecodeError, Operation, Reader

OP = "XlaCallModule"

# Platforms as the op names them.
_CPU, _GPUS = frozenset(["CPU"]), frozenset(["CUDA", "ROCM"])

# What a custom call may name: kernels that compute, and notes to the compiler. From what `jax.export` (jax 0.10.2,
# `_CUSTOM_CALL_TARGETS_GUARANTEED_STABLE`) promises to keep, without kernels that are programs in a form of their own
# (of Triton and Mosaic), and without `AllocateBuffer`, which answers whatever lay in the memory before. The function
# that `tf.call_tf_function` calls is one of the model, and looked at itself.
_LAPACK = ("potrf", "geqrf", "orgqr", "ungqr", "syevd", "heevd", "geev", "gesdd", "getrf", "sytrd", "hetrd", "gehrd")
_HARMLESS = frozenset(
    [
        *(f"lapack_{kind}{name}_ffi" for kind in "sdcz" for name in (*_LAPACK, "gees", "trsm", "gtsv")),
        *("cu_lu_pivots_to_permutation", "cusolver_getrf_ffi", "cusolver_geqrf_ffi", "cusolver_orgqr_ffi"),
        *("cusolver_potrf_ffi", "cusolver_syevd_ffi", "cusolver_gesvd_ffi", "cusolver_gesvdj_ffi"),
        *("cusolver_sytrd_ffi", "cusparse_gtsv2_ffi", "cu_threefry2x32_ffi"),
        *("hip_lu_pivots_to_permutation", "hipsolver_getrf_ffi", "hipsolver_geqrf_ffi", "hipsolver_orgqr_ffi"),
        *("hipsolver_potrf_ffi", "hipsolver_syevd_ffi", "hipsolver_gesvd_ffi", "hipsolver_gesvdj_ffi"),
        *("hipsolver_gesdd_ffi", "hipsolver_sytrd_ffi", "hip_threefry2x32_ffi"),
        *("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "annotate_device_placement"),
        *("Eigh", "Qr", "ProductOfElementaryHouseholderReflectors", "LuDecomposition"),
        *("ApproxTopK", "stablehlo.dynamic_approx_top_k", "stablehlo.dynamic_reduce_window"),
        *("stablehlo.dynamic_rng_bit_generator", "stablehlo.dynamic_top_k", "shape_assertion", "tf.call_tf_function"),
    ]
)

# The operations of StableHLO that compute, as `VhloOps.td` of StableHLO 1.20 has them, without their versions. What
# sends to other devices or to the host, or receives from there, is not among them.
_COMPUTES = """
    abs add after_all and atan2 batch_norm_grad batch_norm_inference batch_norm_training bitcast_convert
    broadcast_in_dim broadcast call case cbrt ceil cholesky clamp compare complex composite concatenate
    constant convert convolution cosine count_leading_zeros create_token divide dot_general dot
    dynamic_broadcast_in_dim dynamic_conv dynamic_gather dynamic_iota dynamic_pad dynamic_reshape
    dynamic_slice dynamic_update_slice einsum exponential exponential_minus_one fft floor func gather
    get_dimension_size get_tuple_element if imag iota is_finite log log_plus_one logistic map maximum minimum
    multiply negate not optimization_barrier or pad partition_id popcnt power real real_dynamic_slice reduce
    reduce_precision reduce_window remainder replica_id reshape return reverse rng rng_bit_generator
    round_nearest_afz round_nearest_even rsqrt scatter select select_and_scatter set_dimension_size shift_left
    shift_right_arithmetic shift_right_logical sign sine slice sort sqrt subtract tan tanh torch_index_select
    transpose triangular_solve tuple unary_einsum uniform_dequantize uniform_quantize while xor
"""
# Which TensorFlow is the first to read what JAX writes; seen with jax 0.10.2: `top_k` and `arccos` are composites.
_SINCE = {"vhlo.composite_v2": "2.22"}
# Kernels of JAX's own libraries, which TensorFlow does not have; seen with 2.21 and 2.22 on a CPU.
_OF_JAX = re.compile(r"lapack_\w+_ffi")
# What holds it all, and where its parts are to lie.
_FRAME = frozenset(["builtin.module", "builtin.unrealized_conversion_cast", "sdy.mesh", "sdy.sharding_constraint"])
_VERSIONED = re.compile(r"vhlo\.(?P<name>.+)_v\d+")
_CALL = "custom_call"
_DRAWS = "rng"  # random numbers that no input decides

_TARGET = 2, "call_target_name"  # of the properties of a call, by name: api_version, backend_config, it, ...
_STRING = 14  # attributes and types of the dialect `vhlo`, as VhloBytecode.cpp numbers them
_TOKEN = 22
_BOOLEAN = 8  # an integer of the dialect `builtin`
_OPEN = b"\0" + b"\xff" * 8  # a dimension of any size, as a type has it

_MOST_NAMED = 5


@dataclass(frozen=True)
class Content:
    """What the StableHLO of a module says.

    polymorphic: it is for more than one shape. calls: what it calls outside of itself, sorted. foreign: operations that
    are not known to compute only. tokens: it takes tokens, which put effects in their order. draws: random numbers.
    newer: operations that not every TensorFlow reads.
    """

    polymorphic: bool = False
    calls: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    tokens: bool = False
    draws: bool = False
    newer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """A node with a program that is compiled for the shapes that it is called with.

    function:  that holds it; '' where it stands in the graph.
    platforms: that it can be compiled for, as it says; none: it does not say.
    device:    that the graph puts it on; ''.
    content:   None where it cannot be read. unread: why.
    """

    node: str
    function: str
    version: int
    platforms: tuple[str, ...]
    disabled_checks: tuple[str, ...]
    tokens: bool
    device: str
    content: Content | None
    unread: str = ""

    @property
    def polymorphic(self) -> bool:
        """Whether it takes more than one shape, as far as is known."""
        return self.content is None or self.content.polymorphic

    @property
    def draws(self) -> bool:
        return self.content is not None and self.content.draws

    @property
    def any_platform(self) -> bool:
        """Whether TensorFlow compiles it for whatever device there is."""
        return not self.platforms or "platform" in self.disabled_checks

    def refusal(self) -> str:
        """Why it may do more than compute, as the end of a sentence; '' where it computes only."""
        # A check of custom calls is one of the export; what is called is judged below.
        switched_off = [check for check in self.disabled_checks if not check.startswith("custom_call:")]
        if self.content is None:
            return f"runs a program that cannot be looked into: it {self.unread}"
        if strange := [target for target in self.content.calls if target not in _HARMLESS]:
            return f"calls {_listed(strange)}, which is not known to be harmless"
        if self.content.foreign:
            return f"has operations that are not known to compute only ({', '.join(self.content.foreign)})"
        if self.tokens or self.content.tokens:
            return "takes tokens, which order effects beyond its answers"
        return f"switches off checks of TensorFlow ({_listed(switched_off)})" if switched_off else ""

    def document(self) -> dict[str, object]:
        """As plain JSON values."""
        read = self.content or Content()
        return {
            "node": self.node,
            "function": self.function or None,
            "version": self.version,
            "platforms": list(self.platforms),
            "polymorphic": self.polymorphic,
            "disabled_checks": list(self.disabled_checks),
            "custom_calls": list(read.calls),
            "unread": self.unread or None,
        }


def modules(program: Program, signature: str, outputs: Collection[str] | None = None) -> tuple[Module, ...]:
    """Those that a signature runs, functions included. outputs: for these alone, by name."""
    flow = Flow(program, program.output_tensors(signature, outputs))
    found = {(frame.place, node.name): node for frame, node in flow.ordered if node.op == OP}
    return tuple(module(place, node) for (place, _), node in found.items())


def module(place: Place, node: NodeDef) -> Module:
    """place: the function that holds the node."""
    given = attributes(node)
    none = AttrValue()
    content, unread = _content(given.get("module", none).s)
    return Module(
        node=node.name,
        function=place or "",
        version=given.get("version", none).i,
        platforms=_texts(given.get("platforms", none)),
        disabled_checks=_texts(given.get("disabled_checks", none)),
        tokens=given.get("has_token_input_output", none).b,
        device=node.device,
        content=content,
        unread=unread,
    )


def sentence(found: Sequence[Module], rows: int | None = None) -> str:
    """What a signature is compiled for: 'compiled for CPU, CUDA; once per batch size'; '' without a module.

    rows: to which every batch is padded, where it is known.
    """
    if not found:
        return ""
    named = list(dict.fromkeys(platform for each in found for platform in each.platforms))
    common = [name for name in named if all(each.any_platform or name in each.platforms for each in found)]
    places = ", ".join(common) or "no platform that all of its programs know"
    if all(each.any_platform for each in found):
        places = f"{', '.join(named)}, and for others unchecked" if named else "any platform"
    if not any(each.polymorphic for each in found):
        return f"compiled for {places}; for fixed shapes, once"
    return f"compiled for {places}; once per batch size" + (f": padded to {rows:,}" if rows is not None else "")


def require_platform(found: Sequence[Module], gpus: float, signature: str, url: str) -> None:
    """gpus: of each worker. raises: ModelError where a program is compiled for other devices than the workers have."""
    wanted, have = (_GPUS, f"GPUs (`workers: {{gpus: {gpus:g}}}`)") if gpus else (_CPU, "CPUs (`workers: {gpus: 0}`)")
    for each in found:
        # What the graph puts on the CPU is compiled for it, whatever else there is.
        here = _CPU if "CPU" in each.device.upper() else wanted
        if not each.any_platform and not here & set(each.platforms):
            other = "workers with GPUs" if here == _CPU else "workers without GPUs, `workers: {gpus: 0}`"
            instead = f", or choose {other}" if (_GPUS if here == _CPU else _CPU) & set(each.platforms) else ""
            lacking = "cpu" if here == _CPU else "cuda"
            listed = ", ".join(repr(name.lower()) for name in (*each.platforms, lacking))
            raise ModelError(
                f"cannot run signature {signature!r} of model '{url}': it is compiled for"
                f" {', '.join(each.platforms)}, and the workers have {have}; export it again for both"
                f" (`native_serialization_platforms=[{listed}]` of jax2tf; Keras and orbax-export take it as one of"
                f" `jax2tf_kwargs`){instead}",
                code="MODEL_PLATFORM",
            )


def require_support(found: Sequence[Module], tensorflow: str, signature: str, url: str) -> None:
    """tensorflow: the version that runs it. raises: ModelError where a program needs what that lacks."""
    lacking = dict[str, str]()
    for content in (each.content for each in found if each.content is not None):
        for name in content.newer:
            if _ordered(tensorflow) < _ordered(_SINCE[name]):
                lacking[name] = f"an operation that TensorFlow {_SINCE[name]} is the first to read"
        lacking |= {name: "a kernel of JAX's own library" for name in content.calls if _OF_JAX.fullmatch(name)}
    if lacking:
        listed = ", ".join(f"{name!r} ({what})" for name, what in list(lacking.items())[:_MOST_NAMED])
        newer = any(name in _SINCE for name in lacking)
        first = "install a newer TensorFlow, export it with an older JAX, or" if newer else "export it"
        raise ModelError(
            f"cannot run signature {signature!r} of model '{url}': TensorFlow {tensorflow} lacks what its program of"
            f" JAX needs: {listed}; {first} without the functions that it stands for",
            code="MODEL_UNSUPPORTED",
        )


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _content(module: bytes) -> tuple[Content | None, str]:
    """What a module says, or why it is not known."""
    if not module.startswith(MAGIC):
        return None, "is no MLIR bytecode"
    try:
        return _read(Bytecode(module)), ""
    except BytecodeError as error:
        return None, str(error)


def _read(code: Bytecode) -> Content:
    calls, foreign, draws = set[str](), set[str](), False
    newer = tuple(name for name in _SINCE if any(operation.name == name for operation in code.operations))
    operations, computes = code.operations, frozenset(_COMPUTES.split())
    for operation in operations:
        found = _VERSIONED.fullmatch(operation.name)
        name = found["name"] if found else ""
        draws = draws or name == _DRAWS
        if name == _CALL:
            calls |= texts(code, operation, *_TARGET)
        elif name not in computes and operation.name not in _FRAME:
            foreign.add(operation.name)
    tokens = any(kind.dialect == "vhlo" and kind.custom and _code(kind.content) == _TOKEN for kind in code.types)
    shown = sorted(foreign)[:_MOST_NAMED]
    return Content(_is_polymorphic(code, operations), tuple(sorted(calls)), tuple(shown), tokens, draws, newer)


def texts(code: Bytecode, operation: Operation, place: int, key: str) -> set[str]:
    """What an operation names: by its properties, and by an attribute, which MLIR puts in the place of a property.

    place: of the property among all of the operation, by name. raises: BytecodeError where it names nothing.
    """
    if not operation.known:
        raise BytecodeError("has a call that its maker did not know")
    indices = list[int]()
    if operation.properties:
        reader = Reader(operation.properties)
        given = []
        while reader.at < reader.end:
            given.append(reader.number())
        if len(given) <= place:
            raise BytecodeError("has a call of nothing")
        indices.append(given[place])
    if operation.attributes is not None:
        named = code.dictionary(operation.attributes)
        indices += [named[key]] if key in named else []
    if not indices:
        raise BytecodeError("has a call of nothing")
    return {_text(code, index) for index in indices}


def _text(code: Bytecode, index: int) -> str:
    entry = code.entry(index)
    reader = Reader(entry.content)
    if entry.dialect != "vhlo" or not entry.custom or reader.number() != _STRING:
        raise BytecodeError("names what it calls in a way that is not read here")
    text = code.string(reader.number())
    reader.finish()
    return text


def _is_polymorphic(code: Bytecode, operations: Sequence[Operation]) -> bool:
    """As the module says, which only newer ones do; TensorFlow fits any other to the shapes that it is called with."""
    named = code.dictionary(operations[0].attributes) if operations and operations[0].attributes is not None else {}
    if "jax.uses_shape_polymorphism" not in named:
        return any(kind.dialect == "vhlo" and _OPEN in kind.content for kind in code.types)
    content = code.entry(named["jax.uses_shape_polymorphism"]).content
    return not (_code(content) == _BOOLEAN and content.endswith(b"\0"))


def _code(content: bytes) -> int:
    return Reader(content).number() if content else -1


def attributes(node: NodeDef) -> dict[str, AttrValue]:
    return {each.key: each.value for each in node.attr}  # of two of one name TensorFlow takes the last


def _texts(given: AttrValue) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "backslashreplace") for text in given.list.s)


def _listed(names: Iterable[str]) -> str:
    every = [repr(name) for name in names]
    more = f" and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return ", ".join(every[:_MOST_NAMED]) + more
