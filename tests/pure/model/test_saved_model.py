"""Reading SavedModels that are written with our own subset of the messages: no TensorFlow here."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format

from jobs.errors import BindingError, JobError, ModelError
from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.model import folder as model_folder
from runner.model.saved_model import assets_of, read_model
from runner.model.signature import choose_metagraph, choose_signature, corrections
from runner.model.tensor_proto import MAX_VALUES
from runner.model.tensor_proto import tensor as decode
from runner.proto.saved_model_pb2 import Any as AnyMessage
from runner.proto.saved_model_pb2 import (
    AssetFileDef,
    AttrEntry,
    AttrValue,
    DataType,
    FingerprintDef,
    FunctionDef,
    MetaGraphDef,
    NodeDef,
    OpDef,
    SavedModel,
    SignatureDef,
    TensorInfo,
    TensorProto,
    TensorShapeProto,
    VersionDef,
)
from runner.tensor import DTYPES, Strings


def shape(*sizes: int) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def info(name: str, dtype: int = DataType.DT_FLOAT, *sizes: int) -> TensorInfo:
    return TensorInfo(name=name, dtype=dtype, tensor_shape=shape(*sizes))  # type: ignore[arg-type]


def doubler() -> SignatureDef:
    return SignatureDef(
        inputs={"x": info("serving_default_x:0", DataType.DT_FLOAT, -1, 3)},
        outputs={"y": info("StatefulPartitionedCall:0", DataType.DT_FLOAT, -1, 3)},
        method_name="tensorflow/serving/predict",
    )


def metagraph(tags: tuple[str, ...] = ("serve",), **signatures: SignatureDef) -> MetaGraphDef:
    return MetaGraphDef(
        meta_info_def=MetaGraphDef.MetaInfoDef(tags=tags, tensorflow_version="2.21.0"),
        signature_def=signatures or {"serving_default": doubler()},
    )


def write(folder: Path, *metagraphs: MetaGraphDef) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    saved = SavedModel(saved_model_schema_version=1, meta_graphs=metagraphs or [metagraph()])
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    return folder


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        call()
    assert caught.value.message[0].islower()
    return caught.value.message


def test_a_model_says_its_tags_signatures_and_tensors(tmp_path: Path) -> None:
    spec = read_model(str(write(tmp_path / "m")))
    assert (spec.url, spec.path, spec.version) == (str(tmp_path / "m"), str(tmp_path / "m"), None)
    (only,) = spec.metagraphs
    assert (only.tags, only.tensorflow_version) == (("serve",), "2.21.0")
    signature = only.signatures["serving_default"]
    assert signature.method == "tensorflow/serving/predict"
    x = signature.inputs["x"]
    assert (x.name, x.dtype, x.shape, x.tensor) == ("x", "float32", (None, 3), "serving_default_x:0")
    assert (x.encoding, x.components, x.default) == ("dense", (), None)
    assert signature.outputs["y"].tensor == "StatefulPartitionedCall:0"


def test_a_file_url_and_a_relative_path_name_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a model")
    monkeypatch.chdir(tmp_path)
    expected = read_model(str(folder)).path
    assert read_model(folder.as_uri()).path == expected
    assert read_model("a model").path == expected
    assert read_model("./nowhere/../a model/").path == expected


def test_unknown_rank_and_a_scalar_are_told_apart(tmp_path: Path) -> None:
    unknown = TensorInfo(name="u:0", dtype=DataType.DT_INT64, tensor_shape=TensorShapeProto(unknown_rank=True))
    signature = SignatureDef(inputs={"unknown": unknown, "scalar": info("s:0", DataType.DT_INT64)})
    read = read_model(str(write(tmp_path, metagraph(f=signature)))).metagraphs[0].signatures["f"]
    assert read.inputs["unknown"].shape is None
    assert read.inputs["scalar"].shape == ()


@pytest.mark.parametrize(
    ("op", "stands", "believed"),
    [
        ("Placeholder", shape(-1, 1), (None, 1)),
        ("PlaceholderWithDefault", shape(-1), (None,)),
        ("Placeholder", shape(), ()),
        ("Placeholder", TensorShapeProto(unknown_rank=True), ()),
        ("Reshape", shape(-1, 1), ()),
    ],
)
def test_a_scalar_of_a_placeholder_that_is_none_is_what_the_graph_says(
    tmp_path: Path, op: str, stands: TensorShapeProto, believed: tuple[int | None, ...]
) -> None:
    node = NodeDef(name="x", op=op, attr=[AttrEntry(key="shape", value=AttrValue(shape=stands))])
    signature = SignatureDef(
        inputs={"x": info("x:0"), "n": info("n:0", DataType.DT_INT64, -1)}, outputs={"y": info("y:0")}
    )
    proto = metagraph(f=signature)
    proto.graph_def.node.append(node)
    read = read_model(str(write(tmp_path, proto))).metagraphs[0].signatures["f"]
    assert (read.inputs["x"].shape, read.inputs["n"].shape) == (believed, (None,))
    assert read.outputs["y"].shape == (None if believed else ()), "nothing is known of it then"
    assert len(corrections(read)) == bool(believed)


@pytest.mark.parametrize(
    ("number", "name"),
    [(1, "float32"), (101, "float32"), (120, "resource"), (21, "variant"), (24, "float8_e5m2"), (99, "unknown (99)")],
)
def test_dtypes_have_tensorflows_names_and_references_are_what_they_refer_to(
    tmp_path: Path, number: int, name: str
) -> None:
    signature = SignatureDef(inputs={"x": info("x:0", number)})
    assert (
        read_model(str(write(tmp_path, metagraph(f=signature)))).metagraphs[0].signatures["f"].inputs["x"].dtype == name
    )


def test_sparse_and_composite_tensors_are_represented(tmp_path: Path) -> None:
    sparse = TensorInfo(
        coo_sparse=TensorInfo.CooSparse(
            values_tensor_name="v:0", indices_tensor_name="i:0", dense_shape_tensor_name="s:0"
        ),
        dtype=DataType.DT_INT64,
        tensor_shape=shape(-1, -1),
    )
    ragged = TensorInfo(composite_tensor=TensorInfo.CompositeTensor(components=[info("values:0"), info("splits:0")]))
    signature = SignatureDef(inputs={"s": sparse, "r": ragged})
    inputs = read_model(str(write(tmp_path, metagraph(f=signature)))).metagraphs[0].signatures["f"].inputs
    assert (inputs["s"].encoding, inputs["s"].components, inputs["s"].tensor) == ("sparse", ("i:0", "v:0", "s:0"), "")
    assert (inputs["r"].encoding, inputs["r"].components) == ("composite", ("values:0", "splits:0"))
    assert str(inputs["s"]) == "sparse int64[?, ?]"


def test_signatures_of_loaders_are_hidden(tmp_path: Path) -> None:
    hidden = {"__saved_model_init_op": SignatureDef(), "__saved_model_train_op": SignatureDef()}
    (read,) = read_model(str(write(tmp_path, metagraph(b=doubler(), a=doubler(), **hidden)))).metagraphs
    assert list(read.signatures) == ["a", "b"]


def test_ops_are_counted_in_graph_and_functions_without_the_calls_of_functions(tmp_path: Path) -> None:
    one = metagraph()
    one.graph_def.node.extend([NodeDef(name="a", op="MatMul"), NodeDef(name="f", op="my_function")])
    body = [NodeDef(name="b", op="MatMul"), NodeDef(name="c", op="AddV2")]
    one.graph_def.library.function.append(FunctionDef(signature=OpDef(name="my_function"), node_def=body))
    assert read_model(str(write(tmp_path, one))).metagraphs[0].ops == {"AddV2": 1, "MatMul": 2}


def test_the_fingerprint_is_read_with_its_singleprint(tmp_path: Path) -> None:
    write(tmp_path)
    proto = FingerprintDef(
        saved_model_checksum=9, graph_def_program_hash=1, signature_def_hash=2, version=VersionDef(producer=4), uuid="u"
    )
    (tmp_path / "fingerprint.pb").write_bytes(proto.SerializeToString())
    expected = {"saved_model_checksum": 9, "graph_def_program_hash": 1, "signature_def_hash": 2}
    assert read_model(str(tmp_path)).fingerprint == {**expected, "uuid": "u", "version": 4, "singleprint": "1/2/0/0"}
    (tmp_path / "fingerprint.pb").write_bytes(b"\xff\xff\xff")
    assert read_model(str(tmp_path)).fingerprint == {}


# Files and digest


def test_files_have_sizes_and_the_digest_is_of_paths_and_contents(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "vocab.txt").write_bytes(b"a\nb\n")
    spec = read_model(str(tmp_path))
    graph = (tmp_path / "saved_model.pb").read_bytes()
    assert spec.files == {"assets/vocab.txt": 4, "saved_model.pb": len(graph)}
    expected = hashlib.sha256()
    for path, content in (("assets/vocab.txt", b"a\nb\n"), ("saved_model.pb", graph)):
        expected.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
    assert spec.digest == expected.hexdigest()


def test_the_digest_changes_with_a_name_and_with_a_content_but_not_with_the_place(tmp_path: Path) -> None:
    def digest_of(folder: str, name: str, content: bytes) -> str:
        (write(tmp_path / folder) / name).write_bytes(content)
        return read_model(str(tmp_path / folder)).digest

    assert digest_of("a", "x", b"1") == digest_of("b", "x", b"1")
    assert len({digest_of("c", "x", b"1"), digest_of("d", "y", b"1"), digest_of("e", "x", b"2")}) == 3


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not of the model")
    folder = write(tmp_path / "m")
    (folder / "copy").symlink_to("saved_model.pb")
    assert read_model(str(folder)).files["copy"] == (folder / "saved_model.pb").stat().st_size
    (folder / "assets").symlink_to(tmp_path)
    assert "'assets' is a link out of the folder" in refused(lambda: read_model(str(folder)))
    (folder / "assets").unlink()
    (folder / "vocab").symlink_to("../secret")
    assert "'vocab' is a link out of the folder" in refused(lambda: read_model(str(folder)))
    (folder / "vocab").unlink()
    (folder / "vocab").symlink_to("nowhere")
    assert "'vocab' is a link to nothing" in refused(lambda: read_model(str(folder)))
    (folder / "vocab").unlink()
    (folder / "loop").symlink_to(".")
    assert "'loop' is neither a file nor a real folder" in refused(lambda: read_model(str(folder)))


def test_an_asset_outside_of_its_folder_is_refused(tmp_path: Path) -> None:
    one = metagraph()
    one.asset_file_def.add(filename="vocab.txt")
    assert read_model(str(write(tmp_path, one))).metagraphs
    for outside in ("../../etc/passwd", "/etc/passwd"):
        two = metagraph()
        two.asset_file_def.add(filename=outside)
        assert f"asset '{outside}' is outside of its folder" in refused(
            lambda two=two: read_model(str(write(tmp_path, two)))
        )


def test_an_asset_of_an_old_model_stands_in_a_collection_and_is_looked_at_too(tmp_path: Path) -> None:
    asset = AssetFileDef(tensor_info=info("path:0"), filename="../../etc/passwd")
    old = metagraph()
    packed = old.collection_def["saved_model_assets"].any_list.any_entry
    packed.append(AnyMessage(type_url="tensorflow.AssetFileDef", value=asset.SerializeToString()).SerializeToString())
    assert [each.filename for each in assets_of(old)] == ["../../etc/passwd"]
    assert "outside of its folder" in refused(lambda: read_model(str(write(tmp_path, old))))
    packed[0] = b"no message \xff"
    assert assets_of(old) == []


def test_a_folder_of_more_files_than_any_model_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "MAX_FILES", 3)
    folder = write(tmp_path / "m")
    for number in range(3):
        (folder / f"{number}").touch()
    assert "more than 3 files; expected the folder of one SavedModel" in refused(lambda: read_model(str(folder)))


def test_a_graph_above_two_gigabytes_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "saved_model.pb").open("wb") as file:
        file.truncate(2**31)  # a hole: takes no space
    assert "it is larger than 2 GB; expected a protobuf message" in refused(lambda: read_model(str(tmp_path)))


@pytest.mark.parametrize(("number", "name"), [(20, "resource"), (21, "variant")])
def test_an_input_or_output_that_is_no_data_is_named_where_it_is_bound(tmp_path: Path, number: int, name: str) -> None:
    signature = SignatureDef(
        inputs={"x": info("x:0", DataType.DT_FLOAT, -1), "table": info("t:0", number)},
        outputs={"y": info("y:0", DataType.DT_FLOAT, -1), "state": info("s:0", number)},
    )
    read = read_model(str(write(tmp_path, metagraph(f=signature)))).metagraphs[0].signatures["f"]
    with pytest.raises(BindingError) as caught:
        bind(Columns(), pa.schema([("x", pa.float32())]), read, "list")
    for told in (f"input 'table' {name}[] from column 'table': found dtype {name}", f"output 'state' {name}[]"):
        assert told in caught.value.message
    assert "expected numbers, booleans or strings" in caught.value.message


def test_what_is_no_regular_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(write(tmp_path) / "pipe")
    assert "'pipe' is neither a file" in refused(lambda: read_model(str(tmp_path)))


def test_a_saved_model_that_is_itself_a_link_out_is_not_parsed(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "saved_model.pb").symlink_to(write(tmp_path / "other") / "saved_model.pb")
    assert "link out of the folder" in refused(lambda: read_model(str(folder)))


def test_the_model_folder_may_be_a_link(tmp_path: Path) -> None:
    folder = write(tmp_path / "churn-7")
    (tmp_path / "current").symlink_to(folder)
    spec = read_model(str(tmp_path / "current"))
    assert (spec.url, spec.path) == (str(tmp_path / "current"), str(folder))


# Version folders


def test_the_highest_version_number_is_the_latest(tmp_path: Path) -> None:
    for name in ("2", "00000010", "9", "v11", "12.0", "tmp-13", "-14", " 15", "\u0661\u0666"):
        write(tmp_path / name)
    (tmp_path / "99").write_text("a file, not a folder")
    for version in (None, "latest"):
        spec = read_model(str(tmp_path), version)
        assert (spec.version, spec.path) == (10, str(tmp_path / "00000010"))
    assert read_model(str(tmp_path), 2).path == str(tmp_path / "2")


def test_a_version_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    write(tmp_path / "1")
    write(tmp_path / "10")
    assert refused(lambda: read_model(str(tmp_path), 3)) == (
        f"no version 3 of model '{tmp_path}': it has 10, 1; choose one, or 'latest'"
    )


def test_a_version_folder_that_is_still_being_written_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1")
    (tmp_path / "2" / "variables").mkdir(parents=True)
    message = refused(lambda: read_model(str(tmp_path)))
    assert "version 2 of model" in message
    assert "its folder holds 'variables', not 'saved_model.pb'" in message
    assert "another version (1)" in message


def test_two_folders_of_one_version_number_are_ambiguous(tmp_path: Path) -> None:
    write(tmp_path / "7")
    write(tmp_path / "007")
    assert "'007' and '7' are both version 7" in refused(lambda: read_model(str(tmp_path)))


def test_a_version_of_a_model_without_versions_is_refused_unless_its_folder_says_so(tmp_path: Path) -> None:
    write(tmp_path / "m")
    write(tmp_path / "base" / "004")
    assert "is a model itself" in refused(lambda: read_model(str(tmp_path / "m"), 4))
    assert read_model(str(tmp_path / "m"), "latest").version is None
    assert read_model(str(tmp_path / "base" / "004"), 4).version is None


# What is no SavedModel


def test_a_missing_folder_names_its_near_siblings(tmp_path: Path) -> None:
    write(tmp_path / "zebra")
    write(tmp_path / "churn_model")
    message = refused(lambda: read_model(str(tmp_path / "chrun_model" / "3")))
    assert f"no 'chrun_model' in '{tmp_path}'; that folder has 'churn_model', 'zebra'" in message


@pytest.mark.parametrize("name", ["churn.keras", "churn.h5"])
def test_a_keras_file_shows_how_to_export_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    for url in (tmp_path / name, tmp_path):
        message = refused(lambda url=url: read_model(str(url)))  # type: ignore[misc]
        assert f"'{name}' is a Keras file" in message
        assert f"keras.models.load_model('{name}'); model.export('churn')" in message


@pytest.mark.parametrize(
    ("name", "hint"),
    [("m.tar.gz", "unpack it"), ("m.tflite", "a TensorFlow Lite model"), ("saved_model.pb", "name its folder")],
)
def test_a_file_is_told_from_a_folder(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert hint in refused(lambda: read_model(str(tmp_path / name)))


def test_a_folder_without_a_model_says_what_is_there(tmp_path: Path) -> None:
    assert "it holds nothing; expected 'saved_model.pb'" in refused(lambda: read_model(str(tmp_path)))
    (tmp_path / "notes.txt").write_text("")
    assert "it holds 'notes.txt'" in refused(lambda: read_model(str(tmp_path)))
    (tmp_path / "ckpt-1.index").write_text("")
    assert "a checkpoint has weights but no graph" in refused(lambda: read_model(str(tmp_path)))
    write(tmp_path / "export")
    assert "'export' is a model, name it" in refused(lambda: read_model(str(tmp_path)))


@pytest.mark.parametrize("content", [b"this is no protobuf message", b"\x12\xff\xff\xff\x7f"])
def test_a_broken_protobuf_is_an_error_of_the_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    message = refused(lambda: read_model(str(tmp_path)))
    assert f"its {len(content)} bytes are no SavedModel message; expected a complete file" in message


def test_a_truncated_protobuf_is_never_read_in_silence(tmp_path: Path) -> None:
    path = write(tmp_path) / "saved_model.pb"
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert "cannot read 'saved_model.pb'" in refused(lambda: read_model(str(tmp_path)))


def test_a_git_lfs_pointer_says_how_to_get_the_file(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "`git lfs pull`" in refused(lambda: read_model(str(tmp_path)))


def test_a_split_model_is_explained(tmp_path: Path) -> None:
    (tmp_path / "saved_model.cpb").write_bytes(b"")
    assert "'saved_model.cpb' is a graph above 2 GB" in refused(lambda: read_model(str(tmp_path)))


def test_the_text_format_is_read_with_its_unknown_fields_skipped(tmp_path: Path) -> None:
    text = text_format.MessageToString(SavedModel(meta_graphs=[metagraph()]))
    unknown = """
      meta_graphs {
        meta_info_def { tags: "gpu" any_info { [type.googleapis.com/tensorflow.OpList] { op { name: "A" } } } }
        graph_def { node { name: "c" op: "Const" attr { key: "value" value { tensor { dtype: DT_FLOAT } } } } }
        collection_def { key: "train_op" value { node_list { value: "t" } } }
        signature_def { key: "f" value { inputs { key: "x" value { name: "x:0" dtype: DT_INT64 } } } }
      }
    """
    (tmp_path / "saved_model.pbtxt").write_text(text + unknown)
    first, second = read_model(str(tmp_path)).metagraphs
    assert first.signatures["serving_default"].inputs["x"].shape == (None, 3)
    assert (second.tags, second.ops) == (("gpu",), {"Const": 1})
    assert second.signatures["f"].inputs["x"].dtype == "int64"
    (tmp_path / "saved_model.pbtxt").write_text("meta_graphs {\n  meta_info_def {\n  tags ]")
    assert "(line 3)" in refused(lambda: read_model(str(tmp_path)))


def test_a_url_that_holds_a_secret_is_refused_without_repeating_it() -> None:
    with pytest.raises(JobError, match="the url itself holds a secret") as refusal:
        read_model("s3://KEY:SECRET@bucket/models/churn?sig=SECRET")
    assert "SECRET" not in str(refusal.value)


def test_urls_and_options_that_a_local_model_cannot_have_are_refused(tmp_path: Path) -> None:
    assert "found the host 'elsewhere'" in refused(lambda: read_model("file://elsewhere/m"))
    assert "with options 'anon'" in refused(lambda: read_model(str(tmp_path), options={"anon": True}))


# Choosing


def test_tags_match_by_set_equality(tmp_path: Path) -> None:
    spec = read_model(str(write(tmp_path, metagraph(("serve",)), metagraph(("serve", "gpu")), metagraph(("train",)))))
    assert choose_metagraph(spec, None).tags == ("serve",)
    assert choose_metagraph(spec, ["serve", "gpu"]).tags == ("gpu", "serve")
    assert choose_metagraph(spec, ["gpu", "serve", "gpu"]).tags == ("gpu", "serve")
    message = refused(lambda: choose_metagraph(spec, ["gpu"]))
    assert message.startswith(f"no metagraph with tags 'gpu' in model '{tmp_path}': it has ")
    for each in ("'serve'", "'gpu,serve'", "'train'"):
        assert each in message


def test_the_only_metagraph_needs_no_tags_and_of_several_without_serve_one_must_be_named(tmp_path: Path) -> None:
    only = read_model(str(write(tmp_path / "a", metagraph(("transform",)))))
    assert choose_metagraph(only, None).tags == ("transform",)
    refused(lambda: choose_metagraph(only, ("serve",)))
    refused(lambda: choose_metagraph(only, ()))
    several = read_model(str(write(tmp_path / "b", metagraph(("train",)), metagraph(("eval",)))))
    assert "its tag sets are 'train', 'eval'; name one" in refused(lambda: choose_metagraph(several, None))


def test_a_signature_is_the_named_one_else_the_default_else_the_only_one(tmp_path: Path) -> None:
    (both,) = read_model(str(write(tmp_path / "a", metagraph(serving_default=doubler(), embed=doubler())))).metagraphs
    assert choose_signature(both, None, "m").name == "serving_default"
    assert choose_signature(both, "embed", "m").name == "embed"
    (one,) = read_model(str(write(tmp_path / "b", metagraph(embed=doubler())))).metagraphs
    assert choose_signature(one, None, "m").name == "embed"
    message = refused(lambda: choose_signature(both, "embd", "s3://m/7"))
    assert message == "no signature 'embd' in model 's3://m/7': it has 'embed', 'serving_default'"


def test_several_signatures_without_a_default_are_listed_with_shapes(tmp_path: Path) -> None:
    (two,) = read_model(str(write(tmp_path, metagraph(embed=doubler(), score=doubler())))).metagraphs
    message = refused(lambda: choose_signature(two, None, "m"))
    assert "  - 'embed'('x': float32[?, 3]) -> 'y': float32[?, 3]" in message
    assert "  - 'score'(" in message


def test_a_model_without_signatures_shows_how_to_export_one(tmp_path: Path) -> None:
    (none,) = read_model(str(write(tmp_path, metagraph(__saved_model_init_op=SignatureDef())))).metagraphs
    message = refused(lambda: choose_signature(none, None, "m"))
    assert "model.export(path)" in message
    assert "tf.saved_model.save(module, path, signatures=" in message


# Constants


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("float32", {"float_val": [0.5, 1.5]}, np.array([0.5, 1.5], np.float32)),
        ("float64", {"double_val": [0.1, 0.2]}, np.array([0.1, 0.2])),
        ("int32", {"int_val": [-1, 2]}, np.array([-1, 2], np.int32)),
        ("uint8", {"int_val": [255, 0]}, np.array([255, 0], np.uint8)),
        ("int8", {"int_val": [-128, 7]}, np.array([-128, 7], np.int8)),
        ("quint16", {"int_val": [65535, 1]}, np.array([65535, 1], np.uint16)),
        ("qint32", {"int_val": [-5, 5]}, np.array([-5, 5], np.int32)),
        ("uint32", {"uint32_val": [2**32 - 1, 1]}, np.array([2**32 - 1, 1], np.uint32)),
        ("uint64", {"uint64_val": [2**64 - 1, 1]}, np.array([2**64 - 1, 1], np.uint64)),
        ("int64", {"int64_val": [-(2**63), 1]}, np.array([-(2**63), 1])),
        ("bool", {"bool_val": [True, False]}, np.array([True, False])),
        ("float16", {"half_val": [0x3C00, 0xC000]}, np.array([1, -2], np.float16)),
        ("bfloat16", {"half_val": [0x3F80, 0xC000]}, np.array([0x3F80, 0xC000], np.uint16)),
        ("int4", {"int_val": [-1, 7]}, np.array([0xF, 7], np.uint8)),
        ("float8_e5m2", {"float8_val": b"\x3c\xc0"}, np.array([0x3C, 0xC0], np.uint8)),
        ("complex64", {"scomplex_val": [1, 2, 3, 4]}, np.array([1 + 2j, 3 + 4j], np.complex64)),
        ("complex128", {"dcomplex_val": [1, 2, 3, 4]}, np.array([1 + 2j, 3 + 4j])),
    ],
)
def test_a_constant_is_read_from_its_value_field_and_from_its_bytes(
    dtype: str, values: dict[str, list[float]], expected: np.ndarray
) -> None:
    number = DTYPES[dtype][0]
    listed = decode(TensorProto(dtype=number, tensor_shape=shape(2), **values), dtype)  # type: ignore[arg-type]
    packed = decode(TensorProto(dtype=number, tensor_shape=shape(2), tensor_content=expected.tobytes()), dtype)  # type: ignore[arg-type]
    for read in (listed, packed):
        assert isinstance(read, np.ndarray)
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read, expected)


def test_values_left_out_at_the_end_repeat_the_last_one() -> None:
    read = decode(TensorProto(tensor_shape=shape(2, 2), float_val=[1, 7]), "float32")
    np.testing.assert_array_equal(read, np.array([[1, 7], [7, 7]], np.float32))  # type: ignore[arg-type]
    zeros = decode(TensorProto(tensor_shape=shape(3)), "int64")
    np.testing.assert_array_equal(zeros, np.zeros(3, np.int64))  # type: ignore[arg-type]
    half = decode(TensorProto(tensor_shape=shape(2), scomplex_val=[1, 2]), "complex64")
    np.testing.assert_array_equal(half, np.array([1 + 2j, 1 + 2j], np.complex64))  # type: ignore[arg-type]
    assert decode(TensorProto(tensor_shape=shape(), int_val=[5]), "int32") == np.int32(5)
    words = decode(TensorProto(tensor_shape=shape(3), string_val=[b"a", b"\xff"]), "string")
    assert isinstance(words, Strings)
    assert (words.shape, words.values.to_pylist()) == ((3,), [b"a", b"\xff", b"\xff"])


def test_strings_are_read_from_packed_content() -> None:
    long = b"x" * 300
    content = bytes([1, 0, 0b10101100, 0b10]) + b"a" + long  # lengths 1, 0, 300
    words = decode(TensorProto(tensor_shape=shape(3, 1), tensor_content=content), "string")
    assert isinstance(words, Strings)
    assert (words.shape, words.values.to_pylist()) == ((3, 1), [b"a", b"", long])


@pytest.mark.parametrize(
    ("proto", "dtype", "found"),
    [
        (TensorProto(tensor_shape=shape(-1)), "int32", "not fully known"),
        (TensorProto(tensor_shape=TensorShapeProto(unknown_rank=True)), "int32", "not fully known"),
        (TensorProto(tensor_shape=shape(MAX_VALUES, 2), int_val=[1]), "int32", "more than"),
        (TensorProto(tensor_shape=shape(1), int_val=[1, 2]), "int32", "2 values for 1"),
        (TensorProto(tensor_shape=shape(2), tensor_content=b"1234567"), "int32", "7 bytes for 8"),
        (TensorProto(tensor_shape=shape(1), tensor_content=b"\x05abc"), "string", "do not add up"),
        (TensorProto(tensor_shape=shape(2), tensor_content=b"\x80"), "string", "cut off"),
        (TensorProto(tensor_shape=shape(1)), "resource", "cannot be written down"),
    ],
)
def test_a_constant_that_does_not_fit_says_why(proto: TensorProto, dtype: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        decode(proto, dtype)


def test_a_default_belongs_to_its_input_and_a_broken_one_names_it(tmp_path: Path) -> None:
    signature = doubler()
    signature.inputs["scale"].CopyFrom(info("scale:0"))
    signature.defaults["scale"].CopyFrom(TensorProto(dtype=DataType.DT_FLOAT, float_val=[0.5]))
    read = read_model(str(write(tmp_path / "a", metagraph(f=signature)))).metagraphs[0].signatures["f"]
    assert read.inputs["scale"].default == np.float32(0.5)
    assert read.inputs["x"].default is None
    signature.defaults["scale"].tensor_content = b"1"
    message = refused(lambda: read_model(str(write(tmp_path / "b", metagraph(f=signature)))))
    assert "default of input 'scale', signature 'f'" in message


# Cost


def test_reading_a_model_imports_neither_tensorflow_nor_keras_nor_ray(tmp_path: Path) -> None:
    code = (
        "import sys, runner.cli.view.model; from runner.model.saved_model import read_model; read_model(sys.argv[1])\n"
        "print(sorted({'tensorflow', 'keras', 'ray', 'fsspec'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(write(tmp_path))], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
