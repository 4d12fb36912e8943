"""What is fed and fetched, checked against the signature before TensorFlow sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jobs.errors import ModelCallError, ModelError, one_of
from runner.model.signature import Signature, TensorSpec
from runner.tensor import DTYPES, Feeds, Strings, Tensor


def supported(spec: TensorSpec, signature: Signature, path: str) -> TensorSpec:
    """`spec`, if the engines can carry it. raises: ModelError naming what they cannot."""
    if spec.encoding == "dense" and spec.dtype in DTYPES:
        return spec
    kind = f"{spec.encoding} encoding" if spec.encoding != "dense" else f"dtype {spec.dtype}"
    raise ModelError(
        f"cannot feed or fetch {spec.name!r} of signature {signature.name!r} in model {path!r}: "
        f"it has {kind}, which is not supported; export the signature with dense tensors"
    )


def fetched(signature: Signature, fetches: Sequence[str], path: str) -> list[TensorSpec]:
    """The outputs called `fetches`. raises: ModelCallError for an unknown name, ModelError for an unsupported one."""
    for name in fetches:
        if name not in signature.outputs:
            reason = f"it has no output {name!r}; choose from {one_of(list(signature.outputs), name)}"
            raise _refused(signature, path, reason)
    return [supported(signature.outputs[name], signature, path) for name in fetches]


def complete_feeds(signature: Signature, feeds: Feeds, path: str) -> dict[str, Tensor]:
    """Every input of the signature with its value, defaults filled in.

    returns: {input name: C-contiguous carrier array or Strings}, in the order of the signature.
    raises:  ModelCallError (`code` INVALID_ARGUMENT) for a missing or unknown input, another dtype or shape
             than the signature's, or two values for one graph tensor.
    """
    for name in feeds:
        if name not in signature.inputs:
            reason = f"it has no input {name!r}; choose from {one_of(list(signature.inputs), name)}"
            raise _refused(signature, path, reason)
    complete: dict[str, Tensor] = {}
    by_tensor: dict[str, str] = {}
    for name, spec in signature.inputs.items():
        value = feeds.get(name, spec.default)
        if value is None:
            raise _refused(signature, path, f"no value for input {name!r}, which has no default")
        twin = by_tensor.setdefault(spec.tensor, name) if spec.tensor else name
        if twin != name and not _same(complete[twin], value):
            raise _refused(signature, path, f"inputs {twin!r} and {name!r} are one tensor and were given two values")
        complete[name] = _checked(value, spec, signature, path)
    return complete


def _checked(value: Tensor, spec: TensorSpec, signature: Signature, path: str) -> Tensor:
    if not _fits(value.shape, spec):  # TensorFlow itself does not look
        reason = f"input {spec.name!r} has shape {list(spec.shape or ())}, and {list(value.shape)} was given"
        raise _refused(signature, path, reason.replace("None", "?"))
    carrier = DTYPES[spec.dtype][1]
    if isinstance(value, Strings):
        if carrier is not None:
            raise _refused(signature, path, f"input {spec.name!r} is {spec.dtype}, and strings were given")
        if len(value.values) != math.prod(value.shape):
            reason = f"input {spec.name!r} holds {len(value.values)} strings for the shape {list(value.shape)}"
            raise _refused(signature, path, reason)
        return value
    if value.dtype != carrier:
        wanted = f"{spec.dtype}, carried as {carrier or 'strings'}"
        raise _refused(signature, path, f"input {spec.name!r} is {wanted}, and {value.dtype} was given")
    return value if value.flags.c_contiguous else np.ascontiguousarray(value)


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    if spec.shape is None or shape == spec.shape:
        return True
    if len(shape) != len(spec.shape):
        return False
    for declared, given in zip(spec.shape, shape, strict=True):  # a loop: models have thousands of inputs
        if declared is not None and declared != given:
            return False
    return True


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two values are one piece of memory seen the same way."""
    if isinstance(one, Strings) or isinstance(other, Strings):
        return one is other
    return one is other or (one.__array_interface__ == other.__array_interface__)


def _refused(signature: Signature, path: str, reason: str) -> ModelCallError:
    message = f"cannot call signature {signature.name!r} of model {path!r}: {reason}"
    return ModelCallError(message, code="INVALID_ARGUMENT")
