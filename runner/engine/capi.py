"""The edge of TensorFlow's C API: finds the libraries of the installed wheel, declares what is used, owns every handle.

Knows sessions, graph tensors and memory, not signatures. The invariants: every status is checked, every handle is
freed exactly once, on errors too, and memory lent to TensorFlow stays alive until TensorFlow gives it back.

Nothing here imports the `tensorflow` package. The libraries are opened after NumPy and pyarrow and with local symbol
scope: with global scope NumPy's own symbols are taken over, and it crashes. One of them is shared where libraries of
ops are loaded, see `_share_framework`.

source: tensorflow/c/c_api.h, tf_tensor.h, tf_status.h of TensorFlow 2.21, where these functions are public and stable.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jobs.errors import ModelError
from runner.engine.status import StatusError, library_error
from runner.engine.tstring import RECORD_BYTES, Memory, records, strings
from runner.proto.runtime_pb2 import DeviceStepStats, RunMetadata, RunOptions
from runner.tensor import DTYPE_NAMES, DTYPES, Strings, Tensor

_REFERENCE = 100  # the dtype of a TF1 variable's tensor is that of its value plus this


class _Output(ctypes.Structure):
    """TF_Output: one output of one operation."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    """TF_Buffer: bytes that TensorFlow owns."""

    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("free", ctypes.c_void_p))


_Address, _Text, _Length, _Int = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int
_Deallocator = ctypes.CFUNCTYPE(None, _Address, _Length, _Address)

# Function -> (its result, its arguments). The framework library holds these, the other one the rest.
_FRAMEWORK: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "TF_NewStatus": (_Address, ()),
    "TF_DeleteStatus": (None, (_Address,)),
    "TF_GetCode": (_Int, (_Address,)),
    "TF_Message": (_Text, (_Address,)),
    "TF_NewTensor": (_Address, (_Int, _Address, _Int, _Address, _Length, _Deallocator, _Address)),
    "TF_TensorMaybeMove": (_Address, (_Address,)),
    "TF_DeleteTensor": (None, (_Address,)),
    "TF_TensorType": (_Int, (_Address,)),
    "TF_NumDims": (_Int, (_Address,)),
    "TF_Dim": (ctypes.c_int64, (_Address, _Int)),
    "TF_TensorByteSize": (_Length, (_Address,)),
    "TF_TensorData": (_Address, (_Address,)),
    "TF_NewBuffer": (ctypes.POINTER(_Buffer), ()),
    "TF_NewBufferFromString": (ctypes.POINTER(_Buffer), (_Text, _Length)),
    "TF_DeleteBuffer": (None, (ctypes.POINTER(_Buffer),)),
}
_RUNTIME: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "TF_Version": (_Text, ()),
    "TF_GetAllOpList": (ctypes.POINTER(_Buffer), ()),
    "TF_NewSessionOptions": (_Address, ()),
    "TF_DeleteSessionOptions": (None, (_Address,)),
    "TF_SetConfig": (None, (_Address, _Text, _Length, _Address)),
    "TF_NewSession": (_Address, (_Address, _Address, _Address)),
    "TF_NewGraph": (_Address, ()),
    "TF_DeleteGraph": (None, (_Address,)),
    "TF_LoadSessionFromSavedModel": (
        _Address,
        (_Address, _Address, _Text, ctypes.POINTER(_Text), _Int, _Address, _Address, _Address),
    ),
    "TF_CloseSession": (None, (_Address, _Address)),
    "TF_DeleteSession": (None, (_Address, _Address)),
    "TF_GraphOperationByName": (_Address, (_Address, _Text)),
    "TF_OperationNumOutputs": (_Int, (_Address,)),
    "TF_OperationOutputType": (_Int, (_Output,)),
    "TF_OperationOpType": (_Text, (_Address,)),
    "TF_OperationNumInputs": (_Int, (_Address,)),
    "TF_OperationInput": (_Output, (_Output,)),
    "TF_OperationGetAttrValueProto": (None, (_Address, _Text, ctypes.POINTER(_Buffer), _Address)),
    "TF_NewOperation": (_Address, (_Address, _Text, _Text)),
    "TF_AddInput": (None, (_Address, _Output)),
    "TF_AddInputList": (None, (_Address, ctypes.POINTER(_Output), _Int)),
    "TF_SetAttrValueProto": (None, (_Address, _Text, _Text, _Length, _Address)),
    "TF_SetAttrBool": (None, (_Address, _Text, ctypes.c_ubyte)),
    "TF_FinishOperation": (_Address, (_Address, _Address)),
    "TF_SessionRun": (
        None,
        (
            *(_Address, _Address),  # session, run options
            *(ctypes.POINTER(_Output), ctypes.POINTER(_Address), _Int),  # feeds
            *(ctypes.POINTER(_Output), ctypes.POINTER(_Address), _Int),  # fetches
            *(_Address, _Int),  # targets
            *(_Address, _Address),  # run metadata, status
        ),
    ),
    "TF_SessionListDevices": (_Address, (_Address, _Address)),
    "TF_DeleteDeviceList": (None, (_Address,)),
    "TF_DeviceListCount": (_Int, (_Address,)),
    "TF_DeviceListName": (_Text, (_Address, _Int, _Address)),
    "TF_LoadLibrary": (_Address, (_Text, _Address)),
}


class _Library:
    """The declared functions as attributes. ctypes lets go of the interpreter lock during each call."""

    def __init__(self, folder: Path) -> None:
        suffix = "{}.2.dylib" if sys.platform == "darwin" else "{}.so.2"
        self.framework = folder / suffix.format("libtensorflow_framework")
        for stem, functions in (("libtensorflow_framework", _FRAMEWORK), ("libtensorflow_cc", _RUNTIME)):
            opened = _opened(folder / suffix.format(stem))
            setattr(self, stem, opened)
            for name, (result, arguments) in functions.items():
                function = getattr(opened, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:  # for the type checker: the functions are set by name above
        raise AttributeError(name)


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    except OSError as error:
        raise ModelError(
            f"cannot open TensorFlow's library {str(path)!r}: {error}; "
            "install tensorflow 2.20 or later for this platform, or choose engine 'eager'"
        ) from error


@cache
def library() -> Any:
    """The libraries of the installed TensorFlow, opened once per process (0.25 s). raises: ModelError if there is none.

    TF_CPP_MIN_LOG_LEVEL is read when they open: unless it is set, 2 keeps notes and warnings out of the log of every
    worker, and lets errors through. One note of a machine without CUDA is written too early for it to count.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    spec = find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("cannot load a model: the package 'tensorflow' is not installed; pip install tensorflow")
    return _Library(Path(next(iter(spec.submodule_search_locations))))


def version() -> str:
    """Of TensorFlow, as the library itself says it."""
    return str(library().TF_Version().decode("ascii", "replace"))


def answer_of(symbol: str) -> bool | None:
    """What a function of TensorFlow without arguments answers that is no part of its C API; None: there is none."""
    function = getattr(library().libtensorflow_framework, symbol, None)
    if function is None:
        return None
    function.restype, function.argtypes = ctypes.c_bool, ()
    return bool(function())


@cache
def _share_framework() -> None:
    """Give libraries that are opened from now on TensorFlow's own code where they carry a copy of it.

    A library of ops holds protobuf and Abseil too, and hands their objects to TensorFlow and back. Their tables hash
    with the address of a variable as the seed: with two copies of it a key that is there is not found, and the process
    ends. The `tensorflow` package opens this one library with global scope for the same reason.
    """
    ctypes.CDLL(str(library().framework), mode=ctypes.RTLD_GLOBAL | os.RTLD_NOLOAD)


@cache
def load_ops(path: str) -> None:
    """Register the ops of a shared library, for the rest of the process. raises: ModelError."""
    _share_framework()
    try:
        with _checked() as status:
            library().TF_LoadLibrary(os.fsencode(path), status)
    except StatusError as error:
        raise library_error(path, error.message) from error


class Handle:
    """One object of TensorFlow's and the function that frees it: on `close`, or when nothing refers to it any more.

    At the end of the process nothing is freed: another thread may be in a call, and the memory goes anyway.
    """

    def __init__(self, address: int, free: Callable[[int], object]) -> None:
        self.address = address
        self._freed = weakref.finalize(self, free, address)  # called once, whatever the threads do
        self._freed.atexit = False

    def close(self) -> None:
        self._freed()

    def release(self) -> int:
        """Give the object away: it is no longer freed here."""
        self._freed.detach()
        return self.address

    def __enter__(self) -> int:
        return self.address

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextmanager
def _checked() -> Iterator[int]:
    """A status for the calls inside. raises: StatusError if it is not OK in the end."""
    tf = library()
    with Handle(tf.TF_NewStatus(), tf.TF_DeleteStatus) as status:
        yield status
        code = tf.TF_GetCode(status)
        if code:
            raise StatusError(code, tf.TF_Message(status).decode("utf-8", "replace"))


@contextmanager
def _buffer(content: bytes | None = None) -> Iterator[Any]:
    """A buffer for TensorFlow to read `content` from, or to write into."""
    tf = library()
    made = tf.TF_NewBuffer() if content is None else tf.TF_NewBufferFromString(content, len(content))
    try:
        yield made
    finally:
        tf.TF_DeleteBuffer(made)


def _content(buffer: Any) -> bytes:
    return ctypes.string_at(buffer.contents.data, buffer.contents.length) if buffer.contents.length else b""


# Memory that TensorFlow looks at: number of the loan -> what owns it. Single dict operations are atomic.
_loans: dict[int, object] = {}
_loan_numbers = itertools.count(1)


def _returned(_data: int | None, _length: int, number: int | None) -> None:
    """Called by TensorFlow, on any thread of its own, when the last user of a lent buffer is done."""
    _loans.pop(number or 0, None)


_give_back = _Deallocator(_returned)  # lives as long as the module: TensorFlow may call it at any time


def loans() -> int:
    """How many buffers TensorFlow holds at the moment."""
    return len(_loans)


def lend(dtype: str, value: Tensor) -> Handle:
    """A tensor over the memory of `value`; TensorFlow copies it only where its address is no multiple of 64.

    TensorFlow never writes into it (it does not own the memory), and may hold it longer than the handle lives: a
    variable or an output can share it.

    value:  C-contiguous array of the carrier of `dtype`, or Strings.
    raises: StatusError where the memory is smaller than shape and dtype say.
    """
    return Handle(_lent(dtype, value), library().TF_DeleteTensor)


@contextmanager
def _all_lent(feeds: Sequence[tuple[GraphTensor, Tensor]]) -> Iterator[Any]:
    """The addresses of tensors as of `lend`. Models have thousands of inputs: a Handle each would double the cost."""
    addresses = (_Address * len(feeds))()
    try:
        for index, (tensor, value) in enumerate(feeds):
            addresses[index] = _lent(tensor.dtype or "", value)
        yield addresses
    finally:
        delete = library().TF_DeleteTensor
        for address in filter(None, addresses):
            delete(address)


def _lent(dtype: str, value: Tensor) -> int:
    owner: object = value
    if isinstance(value, Strings):
        words = records(value.values)
        owner, address, size = (words, value.values), words.ctypes.data, len(words) * RECORD_BYTES
    else:
        address, size = value.__array_interface__["data"][0], value.nbytes
    tf = library()
    dimensions = (ctypes.c_int64 * len(value.shape))(*value.shape)
    number = next(_loan_numbers)
    _loans[number] = owner
    tensor = tf.TF_NewTensor(DTYPES[dtype][0], dimensions, len(dimensions), address, size, _give_back, number)
    if not tensor:
        raise StatusError(3, f"{size} bytes are too few for {dtype} of shape {list(value.shape)}")
    return int(tensor)


def take(tensor: Handle) -> Tensor:
    """The content of an output tensor, which is consumed.

    Memory that belongs to this tensor alone is not copied: the array owns the tensor, and frees it. Memory that it
    shares with a variable or a fed buffer is copied, or a later call could change a result that was handed out.
    Strings are always copied, into Arrow's layout.
    """
    tf = library()
    address = tensor.address
    shape = tuple(tf.TF_Dim(address, axis) for axis in range(tf.TF_NumDims(address)))
    number = tf.TF_TensorType(address)
    name = DTYPE_NAMES.get(number, f"number {number}")
    if name not in DTYPES:
        raise StatusError(12, f"an output has the dtype {name}, which cannot leave TensorFlow")
    count = int(np.prod(shape, dtype=np.int64))
    carrier = DTYPES[name][1]
    if carrier is None:
        with tensor:
            return Strings(strings(tf.TF_TensorData(address) or 0, count), shape)
    if count == 0:
        tensor.close()
        return np.empty(shape, carrier)
    moved = tf.TF_TensorMaybeMove(address)
    if moved:
        tensor.release()
        owner = Handle(moved, tf.TF_DeleteTensor)
        return np.asarray(Memory(tf.TF_TensorData(moved), shape, carrier, owner))
    with tensor:
        return np.asarray(Memory(tf.TF_TensorData(address), shape, carrier)).copy()


@dataclass(frozen=True)
class GraphTensor:
    """One tensor of a graph, valid as long as its session. `dtype` is None for what DTYPES does not know."""

    operation: int
    index: int
    dtype: str | None

    @cached_property
    def output(self) -> Any:
        """As the C API names it."""
        return _Output(self.operation, self.index)


class Session:
    """A loaded SavedModel. `run` may be called from several threads; memory goes with the last reference."""

    def __init__(self, path: str | None, tags: Sequence[str], config: bytes) -> None:
        """Load the metagraph whose tags are exactly `tags`; init ops run, tables are filled.

        path:   None: of no model, to be filled with nodes.
        config: a serialized ConfigProto.
        raises: StatusError as TensorFlow gives it.
        """
        tf = library()
        names = (_Text * len(tags))(*(tag.encode() for tag in tags))
        with ExitStack() as opened:
            options = opened.enter_context(Handle(tf.TF_NewSessionOptions(), tf.TF_DeleteSessionOptions))
            with _checked() as status:
                tf.TF_SetConfig(options, config, len(config), status)
            self._graph = Handle(tf.TF_NewGraph(), tf.TF_DeleteGraph)
            with _checked() as status:
                if path is None:
                    session = tf.TF_NewSession(self._graph.address, options, status)
                else:
                    arguments = (os.fsencode(path), names, len(tags), self._graph.address, None)
                    session = tf.TF_LoadSessionFromSavedModel(options, None, *arguments, status)
        self._session = Handle(session, _delete_session)

    def tensor(self, name: str) -> GraphTensor | None:
        """The tensor called 'operation:index', or 'operation' for its first; None where the graph has no such."""
        tf = library()
        operation_name, _, index_text = name.partition(":")
        operation = tf.TF_GraphOperationByName(self._graph.address, operation_name.encode())
        index = int(index_text) if index_text.isdecimal() else 0
        if not operation or index >= tf.TF_OperationNumOutputs(operation):
            return None
        return self._output(operation, index)

    def behind(self, tensor: GraphTensor, name: str) -> GraphTensor:
        """A new tensor in the graph, equal to `tensor`: an Identity called `name`. To be made before the first `run`.

        A TF2 signature is one call of a function. TensorFlow cannot look into a call that is fetched itself, and
        computes all of its outputs; a call that is only needed by what is fetched is inlined, and cut down to that.
        """
        tf = library()
        operation = tf.TF_NewOperation(self._graph.address, b"Identity", name.encode())
        tf.TF_AddInput(operation, tensor.output)
        with _checked() as status:
            operation = tf.TF_FinishOperation(operation, status)
        return GraphTensor(operation, 0, tensor.dtype)

    def node(
        self, kind: str, name: str, inputs: Sequence[GraphTensor], attributes: Mapping[str, bytes]
    ) -> list[GraphTensor]:
        """The outputs of a new operation in the graph. To be made before the first `run`.

        attributes: name -> a serialized AttrValue, of those that do not follow from the inputs.
        raises:     StatusError where TensorFlow has no such operation.
        """
        tf = library()
        operation = tf.TF_NewOperation(self._graph.address, kind.encode(), name.encode())
        for tensor in inputs:
            tf.TF_AddInput(operation, tensor.output)
        for attribute, content in attributes.items():
            with _checked() as status:
                tf.TF_SetAttrValueProto(operation, attribute.encode(), content, len(content), status)
        tf.TF_SetAttrBool(operation, b"_XlaCompile", 0)  # or `global_jit_level` compiles it: NaN and ties would differ
        with _checked() as status:
            operation = tf.TF_FinishOperation(operation, status)
        return [self._output(operation, index) for index in range(tf.TF_OperationNumOutputs(operation))]

    def _output(self, operation: int, index: int) -> GraphTensor:
        number = library().TF_OperationOutputType(_Output(operation, index))
        dtype = DTYPE_NAMES.get(number - _REFERENCE if number > _REFERENCE else number)
        return GraphTensor(operation, index, dtype if dtype in DTYPES else None)

    def compiled(self, tensors: Sequence[GraphTensor]) -> list[GraphTensor]:
        """The same outputs of a twin of their call, which XLA compiles whole, or refuses. Before the first `run`.

        Where they do not come from one call of a function (a model of TensorFlow 1), they are returned as they are:
        then the session compiles what it can (`global_jit_level`), and runs the rest as ever.
        """
        tf = library()
        calls = {tensor.operation for tensor in tensors}
        if len(calls) != 1 or tf.TF_OperationOpType(min(calls)) not in (b"PartitionedCall", b"StatefulPartitionedCall"):
            return list(tensors)
        call = min(calls)
        inputs = [tf.TF_OperationInput(_Output(call, index)) for index in range(tf.TF_OperationNumInputs(call))]
        twin = tf.TF_NewOperation(self._graph.address, tf.TF_OperationOpType(call), b"savedmodel_runner/compiled")
        tf.TF_AddInputList(twin, (_Output * len(inputs))(*inputs), len(inputs))
        for name in (b"Tin", b"Tout", b"f"):
            with _buffer() as value:
                with _checked() as status:
                    tf.TF_OperationGetAttrValueProto(call, name, value, status)
                with _checked() as status:
                    content = _content(value)
                    tf.TF_SetAttrValueProto(twin, name, content, len(content), status)
        tf.TF_SetAttrBool(twin, b"_XlaMustCompile", 1)
        tf.TF_SetAttrBool(twin, b"_XlaCompile", 0)  # or `global_jit_level` compiles each of them a second time
        with _checked() as status:
            twin = tf.TF_FinishOperation(twin, status)
        return [GraphTensor(twin, tensor.index, tensor.dtype) for tensor in tensors]

    def devices(self) -> tuple[str, ...]:
        """Names of the devices, '/device:CPU:0' first."""
        tf = library()
        with _checked() as status:
            listed = tf.TF_SessionListDevices(self._session.address, status)
        with Handle(listed, tf.TF_DeleteDeviceList) as devices, _checked() as status:
            names = [tf.TF_DeviceListName(devices, i, status) for i in range(tf.TF_DeviceListCount(devices))]
        return tuple(sorted("/device:" + name.decode().rpartition("/device:")[2] for name in names))

    def run(
        self,
        feeds: Sequence[tuple[GraphTensor, Tensor]],
        fetches: Sequence[GraphTensor],
        trace: list[DeviceStepStats] | None = None,
    ) -> list[Tensor]:
        """Compute `fetches`, and nothing that they do not need.

        feeds:   each graph tensor at most once.
        fetches: at least one, each at most once, none of them fed.
        trace:   filled with what ran on each device.
        raises:  StatusError as TensorFlow gives it.
        """
        tf = library()
        with ExitStack() as lent:
            addresses = lent.enter_context(_all_lent(feeds))
            results = (_Address * len(fetches))()
            options = metadata = None
            if trace is not None:
                options = lent.enter_context(_buffer(RunOptions(trace_level=1).SerializeToString()))
                metadata = lent.enter_context(_buffer())
            with _checked() as status:
                tf.TF_SessionRun(
                    *(self._session.address, options),
                    *(_outputs([tensor for tensor, _ in feeds]), addresses, len(feeds)),
                    *(_outputs(fetches), results, len(fetches)),
                    *(None, 0, metadata, status),
                )
            if trace is not None:
                trace += RunMetadata.FromString(_content(metadata)).step_stats.dev_stats
        return [take(tensor) for tensor in [Handle(address, tf.TF_DeleteTensor) for address in results if address]]

    def cancel(self) -> None:
        """Let calls in progress end early, with the status CANCELLED, and refuse new ones."""
        with _checked() as status:
            library().TF_CloseSession(self._session.address, status)

    def close(self) -> None:
        """Free everything. No call may be in progress."""
        self._session.close()
        self._graph.close()


def _outputs(tensors: Sequence[GraphTensor]) -> Any:
    return (_Output * len(tensors))(*[tensor.output for tensor in tensors])


def _delete_session(session: int) -> None:
    # What the status says of a session that is gone is of no use to anyone.
    tf = library()
    with Handle(tf.TF_NewStatus(), tf.TF_DeleteStatus) as status:
        tf.TF_DeleteSession(session, status)
