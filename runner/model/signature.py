"""What a SavedModel declares, as values: meta graphs, signatures, tensor specs. Knows no protobuf and no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from jobs import notebook
from jobs.errors import ModelError, offenders, one_of
from runner.model.shaped import Shaped
from runner.tensor import Tensor, tensor_text

if TYPE_CHECKING:
    from connectors.models.remote import RemoteModel


DEFAULT_SIGNATURE = "serving_default"


HIDDEN_SIGNATURES = ("__saved_model_init_op", "__saved_model_train_op")  # run by loaders, not by callers


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output of a signature.

    shape:      None: unknown rank; a None dimension: unknown size.
    tensor:     its name in the graph, 'serving_default_x:0'; "" where it is made of `parts`.
    encoding:   'dense', or made of several graph tensors: 'sparse', 'ragged', 'composite' (any other).
    parts:      those tensors. Of a sparse one: indices, values, dense shape; of a ragged one: values, then the row
                splits from the outermost on.
    default:    the value fed when the caller gives none (SignatureDef.defaults).
    corrected:  the signature says a scalar, which it is not; the shape is the graph's, of an output unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    tensor: str
    encoding: Literal["dense", "sparse", "ragged", "composite"] = "dense"
    parts: tuple[TensorSpec, ...] = ()
    default: Tensor | None = field(default=None, compare=False)  # arrays have no truth value
    corrected: bool = False

    @property
    def components(self) -> tuple[str, ...]:
        """The names of the parts in the graph."""
        return tuple(part.tensor for part in self.parts)

    def __str__(self) -> str:
        prefix = "" if self.encoding == "dense" else f"{self.encoding} "
        return prefix + tensor_text(self.dtype, self.shape)


@dataclass(frozen=True)
class Signature:
    """shaped: what engines compute behind it, by the name under which it is fetched; of outputs that are dense."""

    name: str
    method: str  # 'tensorflow/serving/predict', ...
    inputs: dict[str, TensorSpec]  # sorted by name
    outputs: dict[str, TensorSpec]
    shaped: Mapping[str, Shaped] = field(default_factory=dict)
    members: tuple[str, ...] = ()  # whose tensors these are, as `NAME.tensor`; empty: of one model alone

    def own(self, name: str) -> str:
        """A tensor's name as its own model has it."""
        member, dot, rest = name.partition(".")
        return rest if dot and member in self.members else name

    def __str__(self) -> str:
        """'embed'('ids': int64[?, 128]) -> 'vector': float32[?, 8]"""
        inputs, outputs = (
            ", ".join(f"{spec.name!r}: {spec}" for spec in specs.values()) for specs in (self.inputs, self.outputs)
        )
        return f"{self.name!r}({inputs}) -> {outputs or 'nothing'}"


def prefixed(member: str, name: str) -> str:
    """What a tensor of one of several models is called among all of theirs; of one alone it keeps its name."""
    return f"{member}.{name}" if member else name


def merged(signatures: Mapping[str, Signature]) -> Signature:
    """One signature with the tensors of all, each under the name of its model and its own."""
    inputs: dict[str, TensorSpec] = {}
    outputs: dict[str, TensorSpec] = {}
    shaped: list[Shaped] = []
    for member, signature in signatures.items():
        shaped += [replace(one, of=prefixed(member, one.of)) for one in signature.shaped.values()]
        inputs |= {prefixed(member, name): _renamed(member, spec) for name, spec in signature.inputs.items()}
        outputs |= {prefixed(member, name): _renamed(member, spec) for name, spec in signature.outputs.items()}
    name = ", ".join(prefixed(member, signature.name) for member, signature in signatures.items())
    method = next(iter(signatures.values())).method
    return Signature(name, method, inputs, outputs, {one.name: one for one in shaped}, tuple(signatures))


def _renamed(member: str, spec: TensorSpec) -> TensorSpec:
    parts = tuple(_renamed(member, part) for part in spec.parts)
    return replace(spec, name=prefixed(member, spec.name), parts=parts)


def corrections(signature: Signature) -> list[str]:
    """Sentences for people: where the graph is believed, and not the signature."""
    return [
        f"input {spec.name!r} is {spec} in the graph, and a scalar in the signature: the graph is believed"
        for spec in signature.inputs.values()
        if spec.corrected
    ]


def dense(signature: Signature) -> Signature:
    """The signature as engines call it: in the place of a ragged or sparse tensor its parts, under their own names; and
    beside the outputs what is computed of them.

    source: the names are those of TensorFlow's Python loader (load_v1_in_v2.py).
    """

    def parts(specs: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
        whole = ((spec,) if spec.encoding in ("dense", "composite") else spec.parts for spec in specs.values())
        return {part.name: part for specs in whole for part in specs}

    shaped = {name: TensorSpec(name, one.dtype, (None, *one.row), "") for name, one in signature.shaped.items()}
    return replace(signature, inputs=parts(signature.inputs), outputs=parts(signature.outputs) | shaped)


@dataclass(frozen=True)
class MetaGraph:
    tags: tuple[str, ...]  # sorted
    signatures: dict[str, Signature]  # sorted by name, the hidden init and train signatures left out
    ops: dict[str, int] = field(default_factory=dict)  # op name -> how often, function library included
    tensorflow_version: str = ""


@dataclass(frozen=True, repr=False)
class ModelSpec:
    """What a SavedModel says of itself.

    path:        the local folder that holds `saved_model.pb`, the version folder resolved; a copy of a remote one.
    version:     number of the version folder, None where the URL named the model itself.
    digest:      SHA-256 over sorted (relative path, content), hex.
    fingerprint: facts of `fingerprint.pb` by field name, and `singleprint`, TensorFlow's own identity of a model;
                 empty where there is no such file.
    files:       relative path -> bytes.
    remote:      what `path` is a copy of; None where the URL is local.
    """

    url: str
    path: str
    version: int | None
    metagraphs: tuple[MetaGraph, ...]
    digest: str
    fingerprint: dict[str, int | str]
    files: dict[str, int]
    remote: RemoteModel | None = None

    def __repr__(self) -> str:
        named = ", ".join(repr(name) for metagraph in self.metagraphs for name in metagraph.signatures)
        return f"<ModelSpec of '{self.url}': signatures {named or 'none'}>"

    def _repr_html_(self) -> str:
        rows = [
            (", ".join(metagraph.tags), name, kind, key, tensor.dtype, "?" if tensor.shape is None else tensor.shape)
            for metagraph in self.metagraphs
            for name, signature in metagraph.signatures.items()
            for kind, tensors in (("input", signature.inputs), ("output", signature.outputs))
            for key, tensor in tensors.items()
        ]
        head = {"url": self.url, "version": self.version, "digest": self.digest, "bytes": sum(self.files.values())}
        return notebook.facts(
            "Model", head, below=notebook.table(("tags", "signature", "", "tensor", "dtype", "shape"), rows)
        )


def choose_metagraph(spec: ModelSpec, tags: Sequence[str] | None) -> MetaGraph:
    """The metagraph with exactly these tags; None: the only one, else the one tagged 'serve' alone.

    raises: ModelError listing all tag sets.
    """
    if tags is None and len(spec.metagraphs) == 1:
        return spec.metagraphs[0]
    wanted = frozenset(tags if tags is not None else ("serve",))
    for metagraph in spec.metagraphs:
        if frozenset(metagraph.tags) == wanted:
            return metagraph
    tagged = ",".join(sorted(wanted))
    sets = one_of([",".join(metagraph.tags) for metagraph in spec.metagraphs], tagged)
    if tags is None:
        raise ModelError(f"cannot choose a metagraph of model '{spec.url}': its tag sets are {sets}; name one, as tags")
    raise ModelError(
        f"no metagraph with tags '{tagged}' in model '{spec.url}': it has {sets}; expected all tags of one set"
    )


def choose_signature(metagraph: MetaGraph, name: str | None, model_url: str) -> Signature:
    """The signature of this name; None: 'serving_default', else the only one. raises: ModelError with the choices."""
    signatures = metagraph.signatures
    if not signatures:
        raise ModelError(
            f"no signature in model '{model_url}' (tags '{','.join(metagraph.tags)}'): it was saved without one;"
            " export it again with\n"
            "  model.export(path)   # a Keras model, or\n"
            "  tf.saved_model.save(module, path, signatures=function.get_concrete_function(tf.TensorSpec([None, 3])))"
        )
    if name is not None:
        if name not in signatures:
            raise ModelError(f"no signature {name!r} in model '{model_url}': it has {one_of(list(signatures), name)}")
        return signatures[name]
    if DEFAULT_SIGNATURE in signatures:
        return signatures[DEFAULT_SIGNATURE]
    if len(signatures) == 1:
        return next(iter(signatures.values()))
    choices = offenders([str(signature) for signature in signatures.values()])
    raise ModelError(
        f"cannot choose a signature of model '{model_url}': it has no '{DEFAULT_SIGNATURE}' but {len(signatures)}"
        f" others; name one of\n{choices}"
    )
