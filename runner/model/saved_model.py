"""A SavedModel directory -> ModelSpec, without TensorFlow: what the model declares, read from its protobuf.

Refuses to know how a model is run. The invariant: reading is free of side effects, no op of the model runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from jobs import html
from jobs.errors import ModelError, offenders, one_of
from runner.model import folder as model_folder
from runner.model import tensor_proto
from runner.model.folder import Location
from runner.proto.saved_model_pb2 import (
    Any,
    AssetFileDef,
    DataType,
    FingerprintDef,
    GraphDef,
    MetaGraphDef,
    SavedModel,
    SignatureDef,
    TensorInfo,
)
from runner.tensor import DTYPE_NAMES, Tensor, tensor_text

if TYPE_CHECKING:
    from connectors.models.cache import CacheSettings, RemoteModel
    from jobs.job import OptionValue

DEFAULT_SIGNATURE = "serving_default"
HIDDEN_SIGNATURES = ("__saved_model_init_op", "__saved_model_train_op")  # run by loaders, not by callers
_REFERENCE = 100  # DT_FLOAT_REF is DT_FLOAT + 100: tensorflow/core/framework/types.proto
_MAX_MESSAGE_BYTES = (1 << 31) - 1  # a protobuf message cannot be larger
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

# Functions that run when a model is saved or loaded, and never in a call.


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output of a signature.

    shape:      None: unknown rank; a None dimension: unknown size.
    tensor:     its name in the graph, 'serving_default_x:0'; "" where it is made of `parts`.
    encoding:   'dense', or made of several graph tensors: 'sparse', 'ragged', 'composite' (any other).
    parts:      those tensors. Of a sparse one: indices, values, dense shape; of a ragged one: values, then the row
                splits from the outermost on.
    default:    the value fed when the caller gives none (SignatureDef.defaults).
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    tensor: str
    encoding: Literal["dense", "sparse", "ragged", "composite"] = "dense"
    parts: tuple[TensorSpec, ...] = ()
    default: Tensor | None = field(default=None, compare=False)  # arrays have no truth value

    @property
    def components(self) -> tuple[str, ...]:
        """The names of the parts in the graph."""
        return tuple(part.tensor for part in self.parts)

    def __str__(self) -> str:
        prefix = "" if self.encoding == "dense" else f"{self.encoding} "
        return prefix + tensor_text(self.dtype, self.shape)


@dataclass(frozen=True)
class Signature:
    name: str
    method: str  # 'tensorflow/serving/predict', ...
    inputs: dict[str, TensorSpec]  # sorted by name
    outputs: dict[str, TensorSpec]

    def __str__(self) -> str:
        """'embed'('ids': int64[?, 128]) -> 'vector': float32[?, 8]"""
        inputs, outputs = (
            ", ".join(f"{spec.name!r}: {spec}" for spec in specs.values()) for specs in (self.inputs, self.outputs)
        )
        return f"{self.name!r}({inputs}) -> {outputs or 'nothing'}"


def dense(signature: Signature) -> Signature:
    """The signature as engines call it: in the place of a ragged or sparse tensor its parts, under their own names.

    source: the names are those of TensorFlow's Python loader (load_v1_in_v2.py).
    """

    def parts(specs: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
        whole = ((spec,) if spec.encoding in ("dense", "composite") else spec.parts for spec in specs.values())
        return {part.name: part for specs in whole for part in specs}

    return replace(signature, inputs=parts(signature.inputs), outputs=parts(signature.outputs))


@dataclass(frozen=True)
class MetaGraph:
    tags: tuple[str, ...]  # sorted
    signatures: dict[str, Signature]  # sorted by name, the hidden init and train signatures left out
    ops: dict[str, int] = field(default_factory=dict)  # op name -> how often, function library included
    tensorflow_version: str = ""


@dataclass(frozen=True)
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

    def _repr_html_(self) -> str:
        rows = [
            (", ".join(metagraph.tags), name, kind, key, tensor.dtype, "?" if tensor.shape is None else tensor.shape)
            for metagraph in self.metagraphs
            for name, signature in metagraph.signatures.items()
            for kind, tensors in (("input", signature.inputs), ("output", signature.outputs))
            for key, tensor in tensors.items()
        ]
        head = {"url": self.url, "version": self.version, "digest": self.digest, "bytes": sum(self.files.values())}
        return html.facts("Model", head, below=html.table(("tags", "signature", "", "tensor", "dtype", "shape"), rows))


def read_model(
    url: str,
    version: Literal["latest"] | int | None = None,
    options: Mapping[str, OptionValue] | None = None,
    cache: CacheSettings | None = None,
) -> ModelSpec:
    """Read what a SavedModel declares.

    url:     a model folder, or a folder of version folders: a local path, or a URL that fsspec reaches.
    version: of a folder of version folders; None and 'latest': the highest number.
    options: of the store of a remote model, secrets only as references.
    cache:   where remote models are copied to.
    raises:  ModelError with the next step; of a remote model also what its store raises.
    cost:    reads every file of the model once, for the digest; parses the graph, not its weights. A remote model is
             copied to this machine first, unless it is there.
    source:  TensorFlow guide "SavedModel"; TensorFlow Serving for version folders.
    """
    with _located(url, version, options, cache) as model:
        files = model_folder.files(model)
        saved = parse(model)
        return ModelSpec(
            url=url,
            path=str(model.folder),
            version=model.version,
            metagraphs=tuple(_metagraph(metagraph, url) for metagraph in saved.meta_graphs),
            digest=model_folder.digest(model, files),
            fingerprint=_fingerprint(model.folder / "fingerprint.pb"),
            files=files,
            remote=model.remote,
        )


def _located(
    url: str,
    version: Literal["latest"] | int | None,
    options: Mapping[str, OptionValue] | None,
    cache: CacheSettings | None,
) -> AbstractContextManager[Location]:
    if model_folder.is_remote(url):
        from runner.model.planned import staged  # fsspec and its stores: a local model is read without them

        return staged(url, version, options, cache)
    if options:
        raise ModelError(f"cannot use model '{url}' with options {one_of(list(options))}: a local path takes none")
    return nullcontext(model_folder.locate(url, version))


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
    asked = ",".join(sorted(wanted))
    sets = one_of([",".join(metagraph.tags) for metagraph in spec.metagraphs], asked)
    if tags is None:
        raise ModelError(f"cannot choose a metagraph of model '{spec.url}': its tag sets are {sets}; name one, as tags")
    raise ModelError(
        f"no metagraph with tags '{asked}' in model '{spec.url}': it has {sets}; expected all tags of one set"
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


def parse(model: Location) -> SavedModel:
    """The message of a model. raises: ModelError where there is none that can be read."""
    path = next((path for name in model_folder.MODEL_FILES if (path := model.folder / name).is_file()), None)
    if path is None:
        raise ModelError(
            f"cannot read model '{model.name}': '{model_folder.SPLIT_FILE}' is a graph above 2 GB in several messages,"
            " which open-source TensorFlow cannot load; export the model with its weights as variables, not constants"
        )
    try:
        content = path.read_bytes() if path.stat().st_size <= _MAX_MESSAGE_BYTES else None
    except OSError as error:
        raise model_folder.unreadable(model.name, error) from error
    if content is None:
        raise _broken(model, path, "it is larger than 2 GB", "a protobuf message")
    if content.startswith(_LFS_POINTER):
        raise _broken(model, path, "it is a pointer of Git LFS", "the file itself, get it with `git lfs pull`")
    saved = _text_message(model, path, content) if path.suffix == ".pbtxt" else _message(model, path, content)
    if not saved.meta_graphs:
        raise _broken(model, path, f"no metagraph in its {len(content)} bytes", "at least one, export or copy it again")
    return saved


def _message(model: Location, path: Path, content: bytes) -> SavedModel:
    try:
        return SavedModel.FromString(content)
    except DecodeError as error:
        found = f"its {len(content)} bytes are no SavedModel message"
        raise _broken(model, path, found, "a complete file, export or copy it again") from error


def _text_message(model: Location, path: Path, content: bytes) -> SavedModel:
    try:
        return text_format.Parse(content.decode(), SavedModel(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        where = f" (line {error.GetLine()})" if isinstance(error, text_format.ParseError) else ""
        raise _broken(
            model, path, f"no SavedModel in text format{where}", "a complete file, export it again"
        ) from error


def _broken(model: Location, path: Path, found: str, expected: str) -> ModelError:
    return ModelError(f"cannot read '{path.name}' of model '{model.name}': {found}; expected {expected}")


def _metagraph(proto: MetaGraphDef, url: str) -> MetaGraph:
    for asset in assets_of(proto):
        path = PurePosixPath(asset.filename)
        if ".." in path.parts or path.is_absolute():  # a loader joins it to 'assets/' as it is
            raise ModelError(
                f"cannot use model '{url}': asset {asset.filename!r} is outside of its folder;"
                " expected a name in 'assets'"
            )
    signatures = {
        name: _signature(name, proto.signature_def[name], url)
        for name in sorted(proto.signature_def)
        if name not in HIDDEN_SIGNATURES
    }
    info = proto.meta_info_def
    return MetaGraph(tuple(sorted(set(info.tags))), signatures, _ops(proto.graph_def), info.tensorflow_version)


def assets_of(proto: MetaGraphDef) -> list[AssetFileDef]:
    """The assets, where TensorFlow 2 lists them, else where the first TensorFlow 1 did."""
    collection = "saved_model_assets"
    if proto.asset_file_def or collection not in proto.collection_def:
        return list(proto.asset_file_def)
    try:
        entries = proto.collection_def[collection].any_list.any_entry
        return [AssetFileDef.FromString(Any.FromString(entry).value) for entry in entries]
    except DecodeError:
        return []  # then nothing counts as an asset


def _ops(graph: GraphDef) -> dict[str, int]:
    """How often each op is used, by name; calls of the model's own functions are not ops."""
    functions = graph.library.function
    counts = Counter(node.op for node in graph.node)
    for function in functions:
        counts.update(node.op for node in function.node_def)
    for function in functions:
        counts.pop(function.signature.name, None)
    return dict(sorted(counts.items()))


def _signature(name: str, proto: SignatureDef, url: str) -> Signature:
    inputs = {key: _tensor_spec(key, proto.inputs[key]) for key in sorted(proto.inputs)}
    outputs = {key: _tensor_spec(key, proto.outputs[key]) for key in sorted(proto.outputs)}
    for key in sorted(proto.defaults):
        if key not in inputs:
            continue  # TensorFlow keeps defaults of arguments that the signature bound to a constant
        try:
            default = tensor_proto.tensor(proto.defaults[key], _dtype(proto.defaults[key].dtype))
        except ValueError as error:
            raise ModelError(
                f"cannot read the default of input {key!r}, signature {name!r} of model '{url}': {error};"
                " expected a constant, export the model again"
            ) from error
        inputs[key] = replace(inputs[key], default=default)
    return Signature(name, proto.method_name, inputs, outputs)


def _tensor_spec(name: str, info: TensorInfo) -> TensorSpec:
    dtype, shape = _dtype(info.dtype), tensor_proto.dimensions(info.tensor_shape)
    encoding = info.WhichOneof("encoding")
    if encoding == "coo_sparse":
        coo, rank = info.coo_sparse, None if shape is None else len(shape)
        indices = TensorSpec(f"{name}_indices", "int64", (None, rank), coo.indices_tensor_name)
        values = TensorSpec(f"{name}_values", dtype, (None,), coo.values_tensor_name)
        sizes = TensorSpec(f"{name}_dense_shape", "int64", (rank,), coo.dense_shape_tensor_name)
        return TensorSpec(name, dtype, shape, "", "sparse", (indices, values, sizes))
    if encoding == "composite_tensor":
        return _composite_spec(name, info.composite_tensor, dtype, shape)
    return TensorSpec(name, dtype, shape, info.name)


def _composite_spec(
    name: str, info: TensorInfo.CompositeTensor, dtype: str, shape: tuple[int | None, ...] | None
) -> TensorSpec:
    """TensorFlow writes dtype and shape of the parts only."""
    parts = tuple(_tensor_spec(f"{name}_component_{index}", part) for index, part in enumerate(info.components))
    kind = info.type_spec.type_spec_class
    if kind == TensorInfo.TypeSpec.RAGGED_TENSOR_SPEC and len(parts) > 1 and parts[0].shape:
        whole = (None,) * len(parts) + parts[0].shape[1:]
        return TensorSpec(name, parts[0].dtype, whole, "", "ragged", parts)
    if kind == TensorInfo.TypeSpec.SPARSE_TENSOR_SPEC and len(parts) == 3:
        rank = (parts[2].shape or (None,))[0]
        return TensorSpec(name, parts[1].dtype, None if rank is None else (None,) * rank, "", "sparse", parts)
    return TensorSpec(name, dtype, shape, "", "composite", parts)


def _dtype(number: int) -> str:
    """TensorFlow's name of a dtype; a reference (legacy variables) is read like what it refers to."""
    base = number - _REFERENCE if number > _REFERENCE else number
    if base in DTYPE_NAMES:
        return DTYPE_NAMES[base]
    return DataType.Name(base)[len("DT_") :].lower() if base in DataType.values() else f"unknown ({base})"


def _fingerprint(path: Path) -> dict[str, int | str]:
    """No error where it cannot be read: no loader depends on it, and the digest covers the file."""
    try:
        proto = FingerprintDef.FromString(path.read_bytes())
    except (OSError, DecodeError):
        return {}
    facts: dict[str, int | str] = {
        each.name: getattr(proto, each.name) for each, _ in proto.ListFields() if each.name != "version"
    }
    hashes = [
        proto.graph_def_program_hash,
        proto.signature_def_hash,
        proto.saved_object_graph_hash,
        proto.checkpoint_hash,
    ]
    if any(hashes):
        facts["singleprint"] = "/".join(str(number) for number in hashes)
    if proto.HasField("version"):
        facts["version"] = proto.version.producer
    return facts
