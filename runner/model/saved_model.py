"""A SavedModel directory -> ModelSpec, without TensorFlow: what the model declares, read from its protobuf.

Refuses to know how a model is run. The invariant: reading is free of side effects, no op of the model runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from jobs.errors import ModelError, one_of
from runner.model import folder as model_folder
from runner.model import tensor_proto
from runner.model.folder import Location
from runner.model.signature import HIDDEN_SIGNATURES, MetaGraph, ModelSpec, Signature, TensorSpec
from runner.proto.saved_model_pb2 import (
    Any,
    AssetFileDef,
    DataType,
    FingerprintDef,
    GraphDef,
    MetaGraphDef,
    NodeDef,
    SavedModel,
    SignatureDef,
    TensorInfo,
)
from runner.tensor import DTYPE_NAMES

if TYPE_CHECKING:
    from connectors.models.cache import CacheSettings
    from jobs.section.base import OptionValue

_REFERENCE = 100  # DT_FLOAT_REF is DT_FLOAT + 100: tensorflow/core/framework/types.proto
_MAX_MESSAGE_BYTES = (1 << 31) - 1  # a protobuf message cannot be larger
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


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
        from runner.model.remote import staged  # fsspec and its stores: a local model is read without them

        return staged(url, version, options, cache)
    if options:
        raise ModelError(f"cannot use model '{url}' with options {one_of(list(options))}: a local path takes none")
    return nullcontext(model_folder.locate(url, version))


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
        problem = f"its {len(content)} bytes are no SavedModel message"
        raise _broken(model, path, problem, "a complete file, export or copy it again") from error


def _text_message(model: Location, path: Path, content: bytes) -> SavedModel:
    try:
        return text_format.Parse(content.decode(), SavedModel(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        where = f" (line {error.GetLine()})" if isinstance(error, text_format.ParseError) else ""
        raise _broken(
            model, path, f"no SavedModel in text format{where}", "a complete file, export it again"
        ) from error


def _broken(model: Location, path: Path, problem: str, expected: str) -> ModelError:
    return ModelError(f"cannot read '{path.name}' of model '{model.name}': {problem}; expected {expected}")


def _metagraph(proto: MetaGraphDef, url: str) -> MetaGraph:
    for asset in assets_of(proto):
        path = PurePosixPath(asset.filename)
        if ".." in path.parts or path.is_absolute():  # a loader joins it to 'assets/' as it is
            raise ModelError(
                f"cannot use model '{url}': asset {asset.filename!r} is outside of its folder;"
                " expected a name in 'assets'"
            )
    nodes = {node.name: node for node in proto.graph_def.node}
    signatures = {
        name: _corrected(_signature(name, proto.signature_def[name], url), nodes)
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


def _corrected(signature: Signature, nodes: Mapping[str, NodeDef]) -> Signature:
    """The signature, with the shapes of the graph where it says scalars of placeholders that are none.

    Exporters of TensorFlow 1.0 left the shapes out, of all tensors: nothing is known of such an output then.
    """
    inputs = dict(signature.inputs)
    for name, spec in inputs.items():
        if (
            spec.shape == ()
            and spec.default is None
            and (shape := _placeholder_shape(nodes.get(spec.tensor.removesuffix(":0"))))
        ):
            inputs[name] = replace(spec, shape=shape, corrected=True)
    if inputs == signature.inputs:
        return signature
    outputs = {
        name: replace(spec, shape=None, corrected=True) if spec.shape == () else spec
        for name, spec in signature.outputs.items()
    }
    return replace(signature, inputs=inputs, outputs=outputs)


def _placeholder_shape(node: NodeDef | None) -> tuple[int | None, ...] | None:
    if node is None or node.op not in ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault"):
        return None
    return next((tensor_proto.dimensions(each.value.shape) for each in node.attr if each.key == "shape"), None)


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
