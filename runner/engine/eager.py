"""The second engine: `tf.saved_model.load`, in Python. The fallback, and the oracle for the first one.

The only file that imports the `tensorflow` package, which takes seconds: it is imported when a job chooses it. The
invariant: feeds, outputs and errors are those of the session engine. One thing TensorFlow does differently here: a
call computes every output of the signature, whatever the caller wants of them.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.errors import ModelError, one_of
from runner.engine import EngineOptions
from runner.engine.fault import CODES
from runner.engine.feeds import complete_feeds, fetched, supported
from runner.engine.ops.package import libraries
from runner.engine.shaping import computed, ways
from runner.engine.status import (
    StatusError,
    call_error,
    closed_error,
    library_error,
    load_error,
    shorten,
)
from runner.model.signature import Signature, TensorSpec, dense
from runner.tensor import DTYPES, NARROW, Array, Feeds, Outputs, Strings, Tensor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # as in capi.library: read when TensorFlow's library opens

import tensorflow as tf  # after the line above, or it prints its start-up notes


class EagerEngine:
    """A SavedModel as TensorFlow's Python API loads it. `run` may be called from several threads."""

    def __init__(self, path: str, tags: Sequence[str], signature: Signature, options: EngineOptions) -> None:
        """raises: ModelError naming the model and TensorFlow's reason, or an input that cannot be fed."""
        self._path, self._xla = options.name or path, options.model.xla
        self._declare(signature)
        _configure(options)
        for library in libraries(options.model):
            _load_ops(library)
        try:
            model: Any = tf.saved_model.load(path, tags=list(tags))
        except Exception as error:  # the loader raises whatever comes up in it
            reason = getattr(error, "message", None) or str(error) or type(error).__name__
            code = CODES[error.error_code] if isinstance(error, tf.errors.OpError) else ""
            raise load_error(shorten(reason), self._path, tags, code, reason) from error
        self._loaded: Any = model, self._function(model)
        self.devices = tuple(sorted(device.name for device in tf.config.list_logical_devices()))

    def beside(self, signature: Signature) -> EagerEngine:
        """An engine for another signature of the model that this one has loaded. raises: as the constructor."""
        other = copy.copy(self)
        other._declare(signature)
        model, _ = self._loaded
        other._loaded = model, other._function(model)
        return other

    def _declare(self, signature: Signature) -> None:
        self._composite = {name: spec for name, spec in signature.outputs.items() if spec.parts}
        self._signature = signature = dense(signature)
        for spec in signature.inputs.values():
            supported(spec, signature, self._path)

    def _function(self, model: Any) -> Any:
        signature = self._signature
        if signature.name not in model.signatures:
            others = one_of(list(model.signatures), signature.name)
            raise ModelError(
                f"no signature {signature.name!r} in model {self._path!r} as TensorFlow loaded it: it has {others}"
            )
        call = model.signatures[signature.name]
        return tf.function(call, jit_compile=True) if self._xla else call

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        """See `Engine.run`; every output is computed, `fetches` are returned."""
        loaded = self._loaded
        if loaded is None:
            raise closed_error(self._signature, self._path)
        _model, function = loaded  # the model owns the variables: it must live as long as the call
        complete = complete_feeds(self._signature, feeds, self._path)
        wanted = fetched(self._signature, fetches, self._path)
        try:
            feed = {name: _fed(value, self._signature.inputs[name]) for name, value in complete.items()}
            results = dict(function(**feed))
            for name, spec in self._composite.items():
                values = tf.nest.flatten(results[name], expand_composites=True)
                results |= zip((part.name for part in spec.parts), values, strict=False)
            shapes = self._signature.shaped
            for shaped in ways(shapes[spec.name] for spec in wanted if spec.name in shapes):
                results |= computed(_Calls(), results[shaped[0].of], shaped)
            return {spec.name: _taken(results[spec.name], spec) for spec in wanted}
        except tf.errors.OpError as error:
            status = StatusError(error.error_code, error.message)
        except (TypeError, ValueError) as error:  # what Python checks before TensorFlow runs: shapes and names
            status = StatusError(3, str(error))
        raise call_error(status, self._signature, self._path)

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        return {}

    def close(self) -> None:
        """Let go of the model; calls in progress finish."""
        self._loaded = None


class _Calls:
    """See `runner.engine.shaping.Ops`: TensorFlow's ops, called one by one."""

    def op(self, kind: str, inputs: Mapping[str, Any], attributes: Mapping[str, int | str]) -> list[Any]:
        found = getattr(tf.raw_ops, kind)(**inputs, **attributes)
        return list(found) if isinstance(found, tuple) else [found]

    def constant(self, dtype: str, values: Array) -> Any:
        return tf.constant(values, dtype)


def _configure(options: EngineOptions) -> None:
    """Threads and devices belong to the process: the first engine decides, later ones take what they find."""
    with contextlib.suppress(RuntimeError):  # raised once TensorFlow has started
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(2 if options.gpu or options.threads > 1 else 1)
    with contextlib.suppress(RuntimeError):
        if not options.gpu:
            tf.config.set_visible_devices([], "GPU")
        for gpu in tf.config.get_visible_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.set_soft_device_placement(True)
    if (precision := options.model.mixed_precision) is not None:
        float16 = "auto_mixed_precision" if options.gpu else "auto_mixed_precision_cpu"
        rewrite = {"bfloat16": "auto_mixed_precision_onednn_bfloat16", "float16": float16}[precision]
        tf.config.optimizer.set_experimental_options({rewrite: True})


def _load_ops(path: str) -> None:
    try:
        tf.load_op_library(path)
    except (tf.errors.OpError, RuntimeError) as error:
        raise library_error(path, str(error)) from error


def _fed(value: Tensor, spec: TensorSpec) -> Any:
    if isinstance(value, Strings):
        objects = np.array([*value.values.to_pylist(), None], dtype=object)[:-1]  # the None keeps NumPy from guessing
        return tf.constant(objects.reshape(value.shape), dtype=tf.string)
    dtype = tf.as_dtype(spec.dtype)
    if spec.dtype in NARROW:  # no kernel casts their bits
        return tf.constant(value.view(dtype.as_numpy_dtype))
    tensor = tf.constant(value)
    return tensor if tensor.dtype == dtype else tf.bitcast(tensor, dtype)


def _taken(result: Any, spec: TensorSpec) -> Tensor:
    carrier = DTYPES[spec.dtype][1]
    if carrier is None:
        flat = np.asarray(result.numpy(), dtype=object).reshape(-1)
        return Strings(pa.array(flat.tolist(), pa.large_binary()), tuple(result.shape))
    array = np.asarray(result.numpy())
    return np.ascontiguousarray(array if array.dtype == carrier else array.view(carrier)).reshape(tuple(result.shape))
