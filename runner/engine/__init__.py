"""How is a signature called?

The only code that touches TensorFlow: one protocol, two implementations, the same results.
May import: runner.scan, runner.model, runner.tensor, runner.proto, jobs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from jobs.section.columns import Decode
from runner.model.signature import Signature
from runner.tensor import Feeds, Outputs

SEVERAL = "several"  # an engine over those of several models: `EngineOptions.members`
ENGINES = {
    "session": "runner.engine.session:SessionEngine",
    "eager": "runner.engine.eager:EagerEngine",
    SEVERAL: "runner.engine.several:SeveralEngine",
}
_PICTURES = "runner.engine.picture:PicturesEngine"


@dataclass(frozen=True)
class OpPackage:
    """Ops in the libraries of an installed package, which may lie elsewhere on another machine.

    name:      as it is imported; it is not. libraries: (path below site-packages, SHA-256 of it in hex).
    """

    name: str
    version: str
    libraries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ModelOptions:
    """What changes how a model computes, and with it its numbers.

    xla:             compile the signature; every new batch shape is compiled anew.
    mixed_precision: what float32 matrices are multiplied in, where TensorFlow thinks that safe.
    op_libraries:    (path of a shared library that registers ops, SHA-256 of it in hex).
    op_packages:     what holds the model's other ops.
    """

    xla: bool = False
    mixed_precision: Literal["bfloat16", "float16"] | None = None
    op_libraries: tuple[tuple[str, str], ...] = ()
    op_packages: tuple[OpPackage, ...] = ()


@dataclass(frozen=True)
class EngineMember:
    """One of several models that one engine calls.

    name:       what stands before the names of its tensors, with a dot.
    path:       the local folder; "" until a worker has it.
    signature:  its own, without that name. options: its own.
    batch_rows: of each of its calls, where it takes no other number, or is compiled for one; None: any.
    padded:     that number is the job's choice, and not the model's.
    follows:    its inputs that have a row for each row, as they are fed.
    deciders:   see `runner.engine.counted`. compiles: whether each shape of what is fed costs a compilation.
    """

    name: str
    engine: str
    path: str
    url: str
    tags: tuple[str, ...]
    signature: Signature
    options: ModelOptions
    batch_rows: int | None = None
    padded: bool = False
    follows: tuple[str, ...] = ()
    deciders: tuple[str, ...] = ()
    compiles: bool = False

    @property
    def where(self) -> str:
        return f"signature {self.signature.name!r} of model '{self.url}' ({self.name})"


@dataclass(frozen=True)
class EngineOptions:
    """How a session is configured, on the worker that owns it.

    threads: intra-op threads; the worker's cpus. TensorFlow has one such pool per process: the first engine sizes it.
    gpu:     False hides every GPU from TensorFlow, whatever the machine has.
    gpu_memory_fraction: a hard cap where several workers share one GPU, up to which memory grows; None: no cap. The
             eager engine cannot set it: its memory grows.
    model:   of the job; of several models what any of them asks of the process.
    name:    what messages call the model; "": its folder.
    compiles: XLA compiles it when it is called, whatever the job says.
    members: the models, where there are several.
    pictures: input -> how it is decoded, of those that are fed with pictures as they are stored.
    max_row_bytes: that a picture of them may have when it is decoded; None: as many as it says.
    """

    threads: int
    gpu: bool = False
    gpu_memory_fraction: float | None = None
    model: ModelOptions = field(default_factory=ModelOptions)
    name: str = ""
    compiles: bool = False
    members: tuple[EngineMember, ...] = ()
    pictures: Mapping[str, Decode] = field(default_factory=dict)
    max_row_bytes: int | None = None

    @property
    def uncompiled(self) -> EngineOptions:
        """The same, and nothing is compiled by XLA."""

        def plain(model: ModelOptions) -> ModelOptions:
            return replace(model, xla=False)

        members = tuple(replace(one, options=plain(one.options)) for one in self.members)
        return replace(self, model=plain(self.model), members=members)


class Engine(Protocol):
    """A loaded model, ready to be called through one signature, from several threads at once."""

    devices: tuple[str, ...]  # as TensorFlow names them: '/device:CPU:0', '/device:GPU:0'

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        """Call the signature once.

        feeds:   every input of the signature by name (inputs with a default may be left out).
        fetches: output names of the signature; only these are computed (the eager engine computes all).
        raises:  ModelCallError (`code` INVALID_ARGUMENT, ...), DeviceError (`code` INTERNAL, ...) where another process
                 may do better, MemoryLimitError where memory ran out, ModelError for an output that is not dense,
                 InternalError after `close`.
        """
        ...

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """Call the signature once, and tell where its ops ran: kind of device ('CPU', 'GPU') -> op -> how often.

        returns: nothing where the engine cannot tell. raises: as `run`.
        """
        ...

    def close(self) -> None:
        """Free the model, at the latest when the calls in progress have ended; may be called again."""
        ...


_FAST_MIN_MAX = "--xla_cpu_enable_fast_min_max"


def xla_flags(given: str) -> str:
    """XLA_FLAGS with which a maximum or minimum of NaN is NaN on a CPU too, as it is uncompiled.

    XLA reads them once, at its first compilation in a process, and ends the process for a flag that it does not know.

    given: as the environment has them, or the name of a file that holds them. What it says of this flag stays.
    """
    if given and not given.lstrip().startswith("-"):
        with suppress(OSError):
            given = Path(given).read_text(encoding="utf-8")
    return given if _FAST_MIN_MAX in given else f"{given} {_FAST_MIN_MAX}=false".strip()


def load(engine: str, path: str, tags: Sequence[str], signature: Signature, options: EngineOptions) -> Engine:
    """Load the SavedModel in the local folder `path`. raises: ModelError naming the model and TensorFlow's reason.

    Where XLA compiles, XLA_FLAGS of this process is completed first: see `xla_flags`.
    """
    if options.model.xla or options.compiles:
        os.environ["XLA_FLAGS"] = xla_flags(os.environ.get("XLA_FLAGS", ""))
    loaded = cast(Engine, _named(ENGINES[engine])(path, tuple(tags), signature, options))
    _pool_threads.append(options.threads)
    return cast(Engine, _named(_PICTURES)(loaded, options)) if options.pictures else loaded


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


_pool_threads: list[int] = []  # that the engines of this process asked for


def pool_threads(wanted: int) -> int:
    """The intra-op threads that an engine gets here: those of the first engine of this process; else `wanted`."""
    return _pool_threads[0] if _pool_threads else wanted
