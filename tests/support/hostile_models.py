"""Small models that do what a model should not: write, read, print or run something when they are loaded or called.

`python hostile_models.py FOLDER` writes `FOLDER/NAME/` for each. What a model does leaves a file in
`FOLDER/escaped/` where it can, so that a test sees that it did not.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
warnings.simplefilter("ignore")

import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

v1, raw = tf.compat.v1, tf.raw_ops
FLOATS = tf.TensorSpec([None], tf.float32, name="x")
HOSTILE: dict[str, Callable[[Path, str], None]] = {}


def hostile(write: Callable[[Path, str], None]) -> Callable[[Path, str], None]:
    """Register `write(path, escape)`: escape is a file that the model touches when it runs."""
    HOSTILE[write.__name__] = write
    return write


def save(path: Path, function: Any, module: Any = None) -> None:
    module = module or tf.Module()
    module.f = tf.function(function, input_signature=[FLOATS])
    tf.saved_model.save(module, str(path), {"serving_default": module.f})


def after(x: Any, *operations: Any) -> dict[str, Any]:
    with tf.control_dependencies([each for each in operations if each is not None]):
        return {"y": tf.identity(x)}


def save_v1(path: Path, graph: Callable[[Any], Any], as_text: bool = False, **how: Any) -> None:
    """graph: x -> (y, operation to run at load, or None)"""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        y, at_load = graph(x)
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.build_signature_def({"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict")
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=at_load, **how)
        builder.save(as_text)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change the saved message, where TensorFlow's own exporter would not write it."""
    file = path / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(message)
    file.write_bytes(message.SerializeToString())


def add_node(path: Path, op: str, name: str = "added", **attributes: bytes) -> None:
    def change(message: Any) -> None:
        node = message.meta_graphs[0].graph_def.node.add(name=name, op=op)
        for key, value in attributes.items():
            node.attr[key].s = value

    save(path, lambda x: {"y": x + 1.0})
    edit(path, change)


@hostile
def writes_at_load(path: Path, escape: str) -> None:
    save_v1(path, lambda x: (x + 1.0, tf.io.write_file(escape, "out")))


@hostile
def writes_at_load_as_text(path: Path, escape: str) -> None:
    save_v1(path, lambda x: (x + 1.0, tf.io.write_file(escape, "out")), as_text=True)


@hostile
def writes_at_load_by_a_legacy_init_op(path: Path, escape: str) -> None:
    def graph(x: Any) -> Any:
        tf.io.write_file(escape, "out", name="written")
        return x + 1.0, None

    def change(message: Any) -> None:
        message.meta_graphs[0].collection_def["legacy_init_op"].node_list.value.append("written")

    save_v1(path, graph)
    edit(path, change)


@hostile
def writes_when_a_resource_is_set_up(path: Path, escape: str) -> None:
    class Resource(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            return raw.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

        def _initialize(self) -> None:
            if not tf.executing_eagerly():
                tf.io.write_file(escape, "out")

    module = tf.Module()
    module.resource = Resource()
    save(path, lambda x: {"y": x + 1.0}, module)


@hostile
def writes_in_a_function_of_a_function(path: Path, escape: str) -> None:
    inner = tf.function(lambda x: after(x, tf.io.write_file(escape, "out"))["y"])
    outer = tf.function(lambda x: inner(x) + 1.0)
    save(path, lambda x: {"y": outer(x)})


@hostile
def writes_in_a_branch(path: Path, escape: str) -> None:
    def branch(x: Any) -> Any:
        return {"y": tf.cond(tf.size(x) > 0, lambda: after(x, tf.io.write_file(escape, "out"))["y"], lambda: x)}

    save(path, branch)


@hostile
def writes_in_a_loop(path: Path, escape: str) -> None:
    save(path, lambda x: {"y": tf.map_fn(lambda v: after(v, tf.io.write_file(escape, "out"))["y"], x)})


@hostile
def writes_in_a_gradient(path: Path, escape: str) -> None:
    @tf.custom_gradient
    def sly(x: Any) -> Any:
        return x * 2, lambda upstream: after(upstream, tf.io.write_file(escape, "out"))["y"]

    def slope(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = sly(x)
        return {"y": tape.gradient(y, x)}

    save(path, slope)


@hostile
def writes_in_another_metagraph(path: Path, escape: str) -> None:
    def change(message: Any) -> None:
        second = message.meta_graphs.add()
        second.CopyFrom(message.meta_graphs[0])
        second.meta_info_def.tags.append("gpu")
        second.graph_def.node.add(name="written", op="WriteFile")

    save(path, lambda x: {"y": x + 1.0})
    edit(path, change)


@hostile
def writes_where_nothing_calls_it(path: Path, escape: str) -> None:
    def graph(x: Any) -> Any:
        tf.io.write_file(escape, "out")
        return x + 1.0, None

    save_v1(path, graph)


@hostile
def saves_a_checkpoint(path: Path, escape: str) -> None:
    def function(x: Any) -> Any:
        return after(x, raw.SaveV2(prefix=escape, tensor_names=["x"], shape_and_slices=[""], tensors=[x]))

    save(path, function)


@hostile
def saves_an_old_checkpoint(path: Path, escape: str) -> None:
    save(path, lambda x: after(x, raw.Save(filename=escape, tensor_names=["x"], data=[x])))


@hostile
def calls_the_savers_own_save_at_load(path: Path, escape: str) -> None:
    """The function that writes checkpoints is in every model: here an init op calls it."""
    module = tf.Module()
    module.v = tf.Variable(1.0)
    save(path, lambda x: {"y": x * module.v}, module)

    def change(message: Any) -> None:
        graph = message.meta_graphs[0]
        save_name = graph.saver_def.save_tensor_name.partition(":")[0]
        call = next(node for node in graph.graph_def.node if node.name == save_name)
        prefix = graph.graph_def.node.add(name="prefix", op="Const")
        prefix.attr["dtype"].type = tf.string.as_datatype_enum
        prefix.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(escape))
        call.input[0] = "prefix"
        init = graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"]
        init.name = call.name

    edit(path, change)


@hostile
def merges_checkpoints(path: Path, escape: str) -> None:
    def function(x: Any) -> Any:
        return after(x, raw.MergeV2Checkpoints(checkpoint_prefixes=[escape], destination_prefix=escape))

    save(path, function)


@hostile
def restores_a_foreign_checkpoint(path: Path, escape: str) -> None:
    def function(x: Any) -> Any:
        return {
            "y": x + raw.RestoreV2(prefix=escape, tensor_names=["v"], shape_and_slices=[""], dtypes=[tf.float32])[0]
        }

    save(path, function)


@hostile
def restores_what_a_row_names(path: Path, escape: str) -> None:
    def function(x: Any) -> Any:
        prefix = tf.strings.as_string(x[0])
        return {
            "y": x + raw.RestoreV2(prefix=prefix, tensor_names=["v"], shape_and_slices=[""], dtypes=[tf.float32])[0]
        }

    save(path, function)


@hostile
def runs_python(path: Path, escape: str) -> None:
    save(path, lambda x: {"y": tf.py_function(lambda v: v, [x], tf.float32)})


@hostile
def runs_python_by_numpy(path: Path, escape: str) -> None:
    save(path, lambda x: {"y": tf.numpy_function(lambda v: v, [x], tf.float32)})


@hostile
def runs_python_and_says_it_is_stateless(path: Path, escape: str) -> None:
    save(path, lambda x: {"y": tf.numpy_function(lambda v: v, [x], tf.float32, stateful=False)})


@hostile
def reads_a_file(path: Path, escape: str) -> None:
    save(path, lambda x: {"y": x, "secret": tf.io.read_file("/etc/hostname")})


@hostile
def reads_its_own_asset(path: Path, escape: str) -> None:
    asset = path.with_suffix(".txt")
    asset.write_text("an asset may be a link when the op reads it")
    module = tf.Module()
    module.asset = tf.saved_model.Asset(str(asset))
    save(path, lambda x: {"y": x, "text": tf.io.read_file(module.asset.asset_path)}, module)


@hostile
def lists_files(path: Path, escape: str) -> None:
    save(path, lambda x: {"y": x, "files": tf.io.matching_files("/home/*")})


@hostile
def maps_a_file_into_memory(path: Path, escape: str) -> None:
    def function(x: Any) -> Any:
        return {"y": x + raw.ImmutableConst(dtype=tf.float32, shape=[], memory_region_name="/etc/passwd")}

    save(path, function)


@hostile
def fills_a_table_from_a_foreign_file(path: Path, escape: str) -> None:
    def graph(x: Any) -> Any:
        table = raw.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
        filled = raw.InitializeTableFromTextFileV2(
            table_handle=table, filename=tf.constant("/etc/passwd"), key_index=-2, value_index=-1
        )
        return x + 1.0, filled

    save_v1(path, graph)


@hostile
def prints_into_a_file(path: Path, escape: str) -> None:
    save(path, lambda x: after(x, raw.PrintV2(input=tf.strings.as_string(x[0]), output_stream=f"file://{escape}")))


@hostile
def prints(path: Path, escape: str) -> None:
    save_v1(path, lambda x: (v1.Print(x, [x]), None))


@hostile
def summarises(path: Path, escape: str) -> None:
    def function(x: Any) -> Any:
        writer = raw.SummaryWriter()
        made = raw.CreateSummaryFileWriter(
            writer=writer, logdir=escape, max_queue=1, flush_millis=1, filename_suffix="x"
        )
        return after(x, made)

    save(path, function)


@hostile
def reads_records(path: Path, escape: str) -> None:
    def function(x: Any) -> Any:
        lines = tf.data.TextLineDataset("/etc/passwd").batch(10)
        return {"y": x, "lines": tf.data.experimental.get_single_element(lines.take(1))}

    save(path, function)


def inner_graph(escape: str) -> bytes:
    with v1.Graph().as_default() as graph:
        tf.io.write_file(escape, "out", name="inner_write")
        return bytes(graph.as_graph_def().SerializeToString())


@hostile
def runs_a_graph_that_is_data(path: Path, escape: str) -> None:
    def function(x: Any) -> Any:
        dataset = raw.DatasetFromGraph(graph_def=tf.constant(inner_graph(escape)))
        return {"y": x, "size": raw.DatasetCardinality(input_dataset=dataset)}

    save(path, function)


@hostile
def holds_a_graph_in_a_constant(path: Path, escape: str) -> None:
    save(path, lambda x: {"y": x, "graph": tf.constant([b"harmless", inner_graph(escape)])})


@hostile
def holds_a_graph_in_an_attribute(path: Path, escape: str) -> None:
    add_node(path, "NoOp", _graph=inner_graph(escape))


@hostile
def ends_the_process(path: Path, escape: str) -> None:
    save(path, lambda x: after(x, raw.Abort(error_msg="", exit_without_error=True)))


@hostile
def has_a_schema_in_a_file(path: Path, escape: str) -> None:
    def function(x: Any) -> Any:
        decoded = tf.io.decode_proto(
            tf.strings.as_string(x), "a.Message", ["field"], [tf.float32], descriptor_source="/etc/passwd"
        )
        return {"y": x, "field": decoded.values[0]}

    save(path, function)


@hostile
def has_an_op_that_nobody_knows(path: Path, escape: str) -> None:
    add_node(path, "ZeroOut")


@hostile
def sends(path: Path, escape: str) -> None:
    add_node(path, "_Send")


@hostile
def calls_another_machine(path: Path, escape: str) -> None:
    add_node(path, "RpcClient")


@hostile
def hides_a_program(path: Path, escape: str) -> None:
    add_node(path, "XlaCallModule", module=b"anything")


@hostile
def debugs_to_an_address(path: Path, escape: str) -> None:
    add_node(path, "DebugIdentity", debug_urls=f"file://{escape}".encode())


@hostile
def names_a_function_like_an_op(path: Path, escape: str) -> None:
    def change(message: Any) -> None:
        graph = message.meta_graphs[0].graph_def
        graph.library.function.add().signature.name = "WriteFile"
        graph.node.add(name="written", op="WriteFile")

    save(path, lambda x: {"y": x + 1.0})
    edit(path, change)


def main(root: Path) -> None:
    for name, write in HOSTILE.items():
        write(root / name, str(root / "escaped" / name))
    (root / "escaped").mkdir()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
