"""What is read without TensorFlow equals what TensorFlow says of the same model."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import any_pb2, text_format
from tensorflow.core.framework import op_def_pb2, types_pb2
from tensorflow.core.protobuf import config_pb2, fingerprint_pb2, meta_graph_pb2, saved_model_pb2

from runner.model.saved_model import read_model
from runner.model.signature import MetaGraph, ModelSpec, TensorSpec, choose_metagraph, choose_signature
from runner.model.tensor_proto import tensor as decode
from runner.proto import saved_model_pb2 as ours
from runner.tensor import DTYPES, NARROW, Strings, bits_of, natural, values_of

v1 = tf.compat.v1


def keras_model(path: Path) -> None:
    x = keras.Input((3,), name="features")
    keras.Model(x, {"score": keras.layers.Dense(1)(x), "twice": x * 2}).export(path, verbose=False)


def module_with_a_table(path: Path) -> None:
    """Two signatures, strings, an asset, unknown dimensions, inputs with defaults."""
    vocabulary = path.with_suffix(".txt")
    vocabulary.write_text("a\nb\n")

    class Words(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            rows = tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            )
            self.table = tf.lookup.StaticHashTable(rows, -1)

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.string)])
        def ids(self, words: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"ids": self.table.lookup(words)}

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32), tf.TensorSpec([], tf.bfloat16)])
        def anything(self, x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"x": x + 1.0, "y": y}

    module = Words()
    tf.saved_model.save(module, path, signatures={"ids": module.ids, "anything": module.anything})


def ragged_and_sparse(path: Path) -> None:
    class Rows(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int64)])
        def ragged(self, r: tf.RaggedTensor) -> dict[str, tf.Tensor]:
            return {"sum": tf.reduce_sum(r, axis=1)}

        @tf.function(input_signature=[tf.SparseTensorSpec([None, 5], tf.float32)])
        def sparse(self, q: tf.SparseTensor) -> dict[str, tf.Tensor]:
            return {"sum": tf.sparse.reduce_sum(q, axis=1)}

    module = Rows()
    tf.saved_model.save(module, path, signatures={"ragged": module.ragged, "sparse": module.sparse})


def of_tensorflow_1(path: Path, as_text: bool = False) -> None:
    """Two metagraphs, a sparse input by its three tensors, a reference to a legacy variable, an init op."""
    builder = v1.saved_model.Builder(str(path))
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        sparse = v1.sparse_placeholder(tf.int64, [None, 7], "sparse")
        weight = v1.get_variable("weight", initializer=[[1.0], [2.0]], use_resource=False)
        y = tf.matmul(x, weight, name="y")
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        reference = meta_graph_pb2.TensorInfo(name="weight:0", dtype=tf.dtypes.as_dtype("float32_ref").as_datatype_enum)
        reference.tensor_shape.CopyFrom(weight.shape.as_proto())
        signature = v1.saved_model.build_signature_def(
            {"x": info(x), "s": info(sparse)}, {"y": info(y), "weight": reference}, "tensorflow/serving/predict"
        )
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"predict": signature}, main_op=tf.group(name="init"), strip_default_attrs=True
        )
        builder.add_meta_graph(["serve", "gpu"], {"predict": signature, "regress": signature})
    builder.save(as_text)


def of_tensorflow_1_as_text(path: Path) -> None:
    of_tensorflow_1(path, as_text=True)


MODELS = [keras_model, module_with_a_table, ragged_and_sparse, of_tensorflow_1, of_tensorflow_1_as_text]


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("model") / request.param.__name__
    make: Callable[[Path], None] = request.param
    make(path)
    return path


def theirs(path: Path) -> saved_model_pb2.SavedModel:
    if (path / "saved_model.pb").exists():
        return saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return text_format.Parse((path / "saved_model.pbtxt").read_text(), saved_model_pb2.SavedModel())


def components(info: Any) -> tuple[str, ...]:
    if info.WhichOneof("encoding") == "coo_sparse":
        coo = info.coo_sparse
        return coo.indices_tensor_name, coo.values_tensor_name, coo.dense_shape_tensor_name
    return tuple(part.name for part in info.composite_tensor.components)


def assert_same_tensors(read: dict[str, TensorSpec], expected: Any) -> None:
    assert set(read) == set(expected)
    for name, info in expected.items():
        assert (read[name].tensor, read[name].components) == (info.name, components(info))
        if read[name].encoding == "ragged":  # TensorFlow tells dtype and shape of the parts alone
            assert_same_tensors(
                {part.tensor: part for part in read[name].parts},
                {part.name: part for part in info.composite_tensor.components},
            )
            continue
        shape = tf.TensorShape(info.tensor_shape)
        assert read[name].dtype == tf.as_dtype(info.dtype).base_dtype.name
        assert read[name].shape == (None if shape.rank is None else tuple(shape.as_list()))


def assert_same_metagraph(read: MetaGraph, expected: Any) -> None:
    assert read.tags == tuple(sorted(expected.meta_info_def.tags))
    assert read.tensorflow_version == expected.meta_info_def.tensorflow_version == tf.__version__
    public = {name for name in expected.signature_def if not name.startswith("__saved_model_")}
    assert list(read.signatures) == sorted(public)
    for name in public:
        assert read.signatures[name].method == expected.signature_def[name].method_name
        assert_same_tensors(read.signatures[name].inputs, expected.signature_def[name].inputs)
        assert_same_tensors(read.signatures[name].outputs, expected.signature_def[name].outputs)
    graph = expected.graph_def
    ops = Counter(node.op for node in graph.node)
    ops.update(node.op for function in graph.library.function for node in function.node_def)
    assert read.ops == ops


def test_everything_read_is_what_tensorflows_own_messages_say(model: Path) -> None:
    spec, expected = read_model(str(model)), theirs(model)
    assert len(spec.metagraphs) == len(expected.meta_graphs)
    for read, metagraph in zip(spec.metagraphs, expected.meta_graphs, strict=True):
        assert_same_metagraph(read, metagraph)
    files = {path.relative_to(model).as_posix(): path.stat().st_size for path in model.rglob("*") if path.is_file()}
    assert spec.files == files


def test_the_fingerprint_is_tensorflows(model: Path) -> None:
    read = read_model(str(model)).fingerprint
    if not (model / "fingerprint.pb").exists():
        assert read == {}
        return
    expected = tf.saved_model.experimental.read_fingerprint(str(model))
    assert read["singleprint"] == expected.singleprint()
    assert read["saved_model_checksum"] == expected.saved_model_checksum
    own = fingerprint_pb2.FingerprintDef.FromString((model / "fingerprint.pb").read_bytes())
    assert (read["uuid"], read["version"]) == (own.uuid, own.version.producer)


def spec_of(make: Callable[[Path], None], path: Path) -> ModelSpec:
    make(path)
    return read_model(str(path))


def test_signatures_have_the_shapes_of_the_loaded_functions(tmp_path: Path) -> None:
    spec = spec_of(keras_model, tmp_path / "m")
    signature = choose_signature(choose_metagraph(spec, None), None, spec.url)
    loaded = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
    assert list(signature.inputs) == list(loaded.structured_input_signature[1]) == ["features"]
    assert {name: str(output) for name, output in signature.outputs.items()} == {
        "score": "float32[?, 1]",
        "twice": "float32[?, 3]",
    }


def test_assets_are_among_the_files_and_the_digest_follows_them(tmp_path: Path) -> None:
    before = spec_of(module_with_a_table, tmp_path / "words")
    assert before.files["assets/words.txt"] == 4
    (tmp_path / "words" / "assets" / "words.txt").write_text("b\na\n")
    assert read_model(str(tmp_path / "words")).digest != before.digest


def test_several_metagraphs_are_chosen_by_their_tags(tmp_path: Path) -> None:
    spec = spec_of(of_tensorflow_1, tmp_path / "m")
    assert choose_metagraph(spec, None).tags == ("serve",)
    on_gpu = choose_metagraph(spec, ["serve", "gpu"])
    assert list(on_gpu.signatures) == ["predict", "regress"]
    predict = on_gpu.signatures["predict"]
    assert (predict.inputs["s"].encoding, predict.inputs["s"].shape) == ("sparse", (None, 7))
    assert predict.outputs["weight"].dtype == "float32"


def test_defaults_of_a_signature_are_those_that_tensorflow_exports(tmp_path: Path) -> None:
    half, two = tf.constant(0.5), tf.constant(["a", "b"])

    class Scaled(tf.Module):  # type: ignore[misc]
        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.float32, "x"),
                tf.TensorSpec([], tf.float32, "scale"),
                tf.TensorSpec([2], tf.string, "words"),
            ]
        )
        def scaled(self, x: tf.Tensor, scale: tf.Tensor = half, words: tf.Tensor = two) -> dict[str, tf.Tensor]:
            return {"y": x * scale, "joined": tf.strings.reduce_join(words)}

    module = Scaled()
    tf.saved_model.save(module, tmp_path, signatures=module.scaled)
    signature = choose_signature(read_model(str(tmp_path)).metagraphs[0], None, "m")
    assert signature.inputs["x"].default is None
    assert signature.inputs["scale"].default == np.float32(0.5)
    words = signature.inputs["words"].default
    assert isinstance(words, Strings)
    assert (words.values.to_pylist(), words.shape) == ([b"a", b"b"], (2,))


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "string"])
@pytest.mark.parametrize("values", [[0, 1, 0, 1, 1, 1], [1] * 6, [0] * 6])
def test_constants_of_every_dtype_are_decoded_as_tensorflow_does(dtype: str, values: list[int]) -> None:
    array = np.array(values).reshape(2, 3).astype(tf.as_dtype(dtype).as_numpy_dtype)
    packed = tf.make_tensor_proto(array, dtype).SerializeToString()
    without_kernel = "q" in dtype or dtype in NARROW
    messages = [packed] if without_kernel else [packed, tf.io.serialize_tensor(array).numpy()]
    for message in messages:
        read = decode(ours.TensorProto.FromString(message), dtype)
        assert isinstance(read, np.ndarray)
        assert read.shape == (2, 3)
        read = values_of(read, dtype)
        np.testing.assert_array_equal(read.astype(np.complex128), array.astype(np.complex128))


def test_one_process_can_hold_our_messages_and_tensorflows() -> None:
    code = (
        "from runner.proto.saved_model_pb2 import ConfigProto, GPUOptions\n"
        "gpu = GPUOptions(allow_growth=True, per_process_gpu_memory_fraction=0.25)\n"
        "ours = ConfigProto(intra_op_parallelism_threads=3, inter_op_parallelism_threads=2, gpu_options=gpu,\n"
        "    allow_soft_placement=True, device_count={'GPU': 0})\n"
        "import tensorflow as tf\n"
        "theirs = tf.compat.v1.ConfigProto.FromString(ours.SerializeToString())\n"
        "assert (theirs.intra_op_parallelism_threads, theirs.inter_op_parallelism_threads) == (3, 2)\n"
        "assert theirs.allow_soft_placement and theirs.gpu_options.allow_growth\n"
        "assert theirs.gpu_options.per_process_gpu_memory_fraction == 0.25\n"
        "assert dict(theirs.device_count) == {'GPU': 0}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def fields(message: Any, original: Any, at: str, seen: set[str]) -> list[str]:
    """Where a field of ours differs from TensorFlow's in number, type or repetition."""
    if message.full_name in seen:
        return []
    seen.add(message.full_name)
    wrong = []
    for field in message.fields:
        twin = original.fields_by_number.get(field.number)
        path = f"{at}.{field.name}"
        if field.name == "any_entry":  # a message, kept as its bytes
            wrong += [] if twin is not None and twin.message_type.full_name == "google.protobuf.Any" else [path]
        elif twin is None or (twin.name, twin.type, twin.is_repeated) != (field.name, field.type, field.is_repeated):
            wrong.append(path)
        elif field.message_type is not None:
            wrong += fields(field.message_type, twin.message_type, path, seen)
    return wrong


def test_every_field_has_the_name_number_and_type_of_tensorflows() -> None:
    pairs = [
        (ours.SavedModel, saved_model_pb2.SavedModel),
        (ours.ConfigProto, config_pb2.ConfigProto),
        (ours.FingerprintDef, fingerprint_pb2.FingerprintDef),
        (ours.OpList, op_def_pb2.OpList),
        (ours.Any, any_pb2.Any),
    ]
    seen: set[str] = set()
    for message, original in pairs:
        assert fields(message.DESCRIPTOR, original.DESCRIPTOR, message.__name__, seen) == []
    assert {each.full_name for each in ours.DESCRIPTOR.message_types_by_name.values()} <= seen


@pytest.mark.parametrize("dtype", sorted(NARROW))
def test_numbers_of_a_byte_or_less_are_those_of_tensorflow(dtype: str) -> None:
    theirs = tf.as_dtype(dtype).as_numpy_dtype
    every = np.unique(bits_of(values_of(np.arange(256, dtype=np.uint8), dtype), dtype))
    np.testing.assert_array_equal(values_of(every, dtype), every.view(theirs).astype(natural(dtype)))
    if natural(dtype).kind == "f":
        finite = values_of(every, dtype).astype(np.float64)
        finite = np.sort(finite[np.isfinite(finite)])
        middles = (finite[1:] + finite[:-1]) / 2
        drawn = np.random.default_rng(0).standard_normal(10_000) * finite.max() / 2
        given = np.concatenate([drawn, finite, middles, middles * 1.001, [np.inf, -np.inf]]).astype(np.float32)
        np.testing.assert_array_equal(bits_of(given, dtype), given.astype(theirs).view(np.uint8))


def test_every_dtype_has_the_number_of_tensorflows() -> None:
    assert dict(types_pb2.DataType.items()).items() >= dict(ours.DataType.items()).items()
    assert all(tf.as_dtype(number).name == name for name, (number, _) in DTYPES.items())
