"""The default engine: TensorFlow's C API, by way of the loader and the session that TensorFlow Serving uses.

Knows how a signature's names become graph tensors; the memory is `capi`'s. The invariant: one call computes the
outputs of the call and nothing else, and a closed engine answers with an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from jobs.errors import ModelError, RunnerError
from runner.engine import EngineOptions
from runner.engine.capi import GraphTensor, Session, load_ops
from runner.engine.feeds import complete_feeds, fetched, supported
from runner.engine.ops.package import libraries
from runner.engine.shaping import computed, ways
from runner.engine.status import (
    LACKS_STATE,
    RUN_EAGER,
    StatusError,
    call_error,
    closed_error,
    load_error,
)
from runner.model.signature import Signature, TensorSpec, dense
from runner.proto.runtime_pb2 import ConfigProto, DeviceStepStats
from runner.proto.saved_model_pb2 import AttrValue, DataType, TensorProto, TensorShapeProto
from runner.tensor import DTYPES, Array, Feeds, Outputs, Tensor

_ON, _OFF = 1, 2  # RewriterConfig.Toggle
_DEVICE = re.compile(r"/device:(CPU|GPU):\d+$")
_BESIDE = {"NoOp", "Const", "_Arg", "_Retval", "_Send", "_Recv", "_HostSend", "_HostRecv"}  # no work of the model's
# What TensorFlow says of state that a session does not have -> why, and what the other engine does instead.
_LACKS = (
    (
        re.compile("Table not initialized"),
        "the init op that a session runs does not set this table up",
        "sets up the tables that the model's Python objects hold",
    ),
    (
        re.compile("Could not find variable|uninitialized"),
        "the graph asks for this variable by another name than it is restored under, as that of a tf.Module around a"
        " Keras model does, or the export holds no value of it",
        "takes the variables from the model's Python objects",
    ),
)
_LABEL = re.compile(r" = (\w+)\(")


class SessionEngine:
    """A SavedModel in a session of its own. `run` may be called from several threads."""

    def __init__(self, path: str, tags: Sequence[str], signature: Signature, options: EngineOptions) -> None:
        """Load the model and find the tensors of `signature` in its graph.

        raises: ModelError naming the model and TensorFlow's reason, or an input that cannot be fed.
        """
        self._path = options.name or path
        self._signature = signature = dense(signature)
        inputs = [supported(spec, signature, self._path) for spec in signature.inputs.values()]
        outputs = [spec for spec in signature.outputs.values() if spec.encoding == "dense"]
        outputs = [spec for spec in outputs if spec.name not in signature.shaped]
        for library in libraries(options.model):
            load_ops(library)
        try:
            session = Session(path, tags, session_config(options))
            self.devices = session.devices()
        except StatusError as error:
            reason = f"{error.code}: {error.reason}"
            raise load_error(reason, self._path, tags, error.code, error.message) from error
        self._session: Session | None = session
        self._inputs = {spec.name: self._tensor(session, spec) for spec in inputs}
        found = {spec.name: self._found(session, spec) for spec in outputs}
        self._lacking = {name: tensor for name, tensor in found.items() if isinstance(tensor, ModelError)}
        outputs = [spec for spec in outputs if spec.name not in self._lacking]
        tensors = [tensor for tensor in found.values() if isinstance(tensor, GraphTensor)]
        if options.model.xla:
            tensors = session.compiled(tensors)
        self._outputs = {
            spec.name: session.behind(tensor, f"savedmodel_runner/output_{number}")
            for number, (spec, tensor) in enumerate(zip(outputs, tensors, strict=True))
        }
        self._shape(session)

    def _shape(self, session: Session) -> None:
        """Add to the graph what is computed behind the signature."""
        nodes = Nodes(session)
        for shaped in ways(self._signature.shaped.values()):
            of = shaped[0].of
            if of not in self._outputs:
                self._lacking |= {one.name: self._lacking[of] for one in shaped}
                continue
            try:
                self._outputs |= computed(nodes, self._outputs[of], shaped)
            except StatusError as error:
                what = f"cannot compute {shaped[0].how} of output {of!r} of model {self._path!r}"
                raise ModelError(f"{what}: {error.code}: {error.reason}") from error

    def _found(self, session: Session, spec: TensorSpec) -> GraphTensor | ModelError:
        """The tensor of an output, or why there is none: that matters where it is fetched."""
        try:
            return self._tensor(session, spec)
        except ModelError as error:
            return error

    def _tensor(self, session: Session, spec: TensorSpec) -> GraphTensor:
        tensor = session.tensor(spec.tensor)
        if tensor is None or tensor.dtype != spec.dtype:
            problem = "its graph has none of that name" if tensor is None else f"in its graph it is {tensor.dtype}"
            raise ModelError(
                f"cannot find tensor {spec.tensor!r} of {spec.name!r} in model {self._path!r}: {problem}; "
                f"signature {self._signature.name!r} says {spec.dtype}"
            )
        return tensor

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        """See `Engine.run`. Arrays of the result own their memory; fed memory is free again when this returns,
        unless the model keeps it in a variable."""
        values = self._call(feeds, fetches, None)
        return dict(zip(fetches, values, strict=True))

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """See `Engine.placed`."""
        devices: list[DeviceStepStats] = []
        self._call(feeds, fetches, devices)
        placed: dict[str, Counter[str]] = {}
        for each in devices:
            kind = _DEVICE.search(each.device)
            # 'name = Op(inputs)'. A GPU's streams are devices too, and tell the same again.
            ops = [match[1] for node in each.node_stats if (match := _LABEL.search(node.timeline_label))]
            if kind is not None and ops:
                placed.setdefault(kind[1], Counter()).update(op for op in ops if op not in _BESIDE)
        return placed

    def _call(self, feeds: Feeds, fetches: Sequence[str], trace: list[DeviceStepStats] | None) -> list[Tensor]:
        session = self._session  # keeps it alive for this call, whatever `close` does meanwhile
        if session is None:
            raise closed_error(self._signature, self._path)
        complete = complete_feeds(self._signature, feeds, self._path)
        fed = {self._inputs[name]: value for name, value in complete.items()}
        specs = fetched(self._signature, fetches, self._path)
        if self._lacking and (lacking := [spec.name for spec in specs if spec.name in self._lacking]):
            raise self._lacking[lacking[0]]
        wanted = [self._outputs[spec.name] for spec in specs]
        if not wanted:
            return []
        try:
            return session.run(list(fed.items()), wanted, trace)
        except StatusError as error:
            raise self._error(error) from error

    def _error(self, error: StatusError) -> RunnerError:
        closed = error.code == "CANCELLED" and self._session is None
        if closed:
            return closed_error(self._signature, self._path)
        for words, why, instead in _LACKS:  # no row would change that, and the job may
            if error.code == "FAILED_PRECONDITION" and words.search(error.message):
                where = f"{self._signature.name!r} of model {self._path!r}"
                found = f"cannot call signature {where}: {error.code}: {error.reason}"
                return ModelError(f"{found}; {why}; {RUN_EAGER}, which {instead}", code=LACKS_STATE)
        return call_error(error, self._signature, self._path)

    def close(self) -> None:
        """End calls in progress and let go of the session: it is freed here, or by the last of those calls."""
        session, self._session = self._session, None
        if session is not None:
            session.cancel()


class Nodes:
    """See `runner.engine.shaping.Ops`: new nodes of a graph."""

    def __init__(self, session: Session) -> None:
        self._session, self._count = session, 0

    def op(
        self, kind: str, inputs: Mapping[str, GraphTensor], attributes: Mapping[str, int | str | bool | bytes]
    ) -> list[GraphTensor]:
        """attributes: numbers, dtypes by name, and beside what `Ops` knows switches, and words in bytes."""
        values = {name: _attribute(value) for name, value in attributes.items()}
        return self._added(kind, list(inputs.values()), values)

    def constant(self, dtype: str, values: Array) -> GraphTensor:
        number, shape = _data_type(dtype), TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in values.shape])
        content = TensorProto(dtype=number, tensor_shape=shape, tensor_content=values.tobytes())
        return self._added("Const", [], {"dtype": AttrValue(type=number), "value": AttrValue(tensor=content)})[0]

    def _added(self, kind: str, inputs: Sequence[GraphTensor], values: Mapping[str, AttrValue]) -> list[GraphTensor]:
        self._count += 1
        attributes = {name: value.SerializeToString() for name, value in values.items()}
        return self._session.node(kind, f"savedmodel_runner/shaped_{self._count}", inputs, attributes)


def _attribute(value: int | str | bool | bytes) -> AttrValue:
    if isinstance(value, bool):
        return AttrValue(b=value)
    if isinstance(value, bytes):
        return AttrValue(s=value)
    return AttrValue(type=_data_type(value)) if isinstance(value, str) else AttrValue(i=value)


def _data_type(dtype: str) -> DataType:
    return cast(DataType, DTYPES[dtype][0])


def session_config(options: EngineOptions) -> bytes:
    """The serialized ConfigProto of a session.

    The intra-op pool belongs to the process: the first session of a process decides its size. Inter-op threads are
    this session's own: one where the worker has one core, else two, so that two calls overlap copies and kernels.
    """
    config = ConfigProto(
        intra_op_parallelism_threads=options.threads,
        inter_op_parallelism_threads=2 if options.gpu or options.threads > 1 else 1,
        use_per_session_threads=True,
        allow_soft_placement=True,  # a graph pinned to a GPU runs on a CPU
    )
    if options.gpu:
        config.gpu_options.allow_growth = True
        if options.gpu_memory_fraction is not None:
            config.gpu_options.per_process_gpu_memory_fraction = options.gpu_memory_fraction
    else:
        config.device_count["GPU"] = 0
    if options.model.xla:  # for graphs that are no function; see `Session.compiled`
        config.graph_options.optimizer_options.global_jit_level = 1
        config.graph_options.optimizer_options.cpu_global_jit = True
    rewrites = config.graph_options.rewrite_options
    if options.model.xla:  # it lowers loops and conditions to ops that XLA does not know, before XLA sees them
        rewrites.function_optimization = _OFF
    if options.model.mixed_precision == "bfloat16":
        rewrites.auto_mixed_precision_onednn_bfloat16 = _ON
    elif options.model.mixed_precision == "float16" and options.gpu:
        rewrites.auto_mixed_precision = _ON
    elif options.model.mixed_precision == "float16":
        rewrites.auto_mixed_precision_cpu = _ON
    return config.SerializeToString()
