"""The Python functions of a model, read from its objects: every kind of argument as text."""

from __future__ import annotations

from google.protobuf import text_format

from runner.proto.saved_model_pb2 import MetaGraphDef
from runner.scan.callables import callables
from runner.scan.program import Program

OBJECTS = """
    nodes {
      children { node_id: 1 local_name: "score" }
      children { node_id: 2 local_name: "v" }
    }
    nodes {
      function {
        concrete_functions: "one" concrete_functions: "other" concrete_functions: "one"
        function_spec {
          is_method: %s
          fullargspec { named_tuple_value { name: "FullArgSpec" values { key: "args" value { list_value {
            %s values { string_value: "x" } values { string_value: "options" }
          } } } } }
        }
      }
    }
    nodes { user_object { identifier: "trackable" } }
    concrete_functions { key: "one" value { canonicalized_input_signature { tuple_value {
      values { tuple_value {
        values { tensor_spec_value { dtype: DT_FLOAT shape { dim { size: -1 } dim { size: 3 } } } }
        values { list_value { values { int64_value: 1 } values { bool_value: true } values { none_value {} } } }
        values { float64_value: 0.5 }
      } }
      values { dict_value {
        fields { key: "training" value { bool_value: false } }
        fields { key: "mode" value { string_value: "fast" } }
      } }
    } } } }
    concrete_functions { key: "other" value { canonicalized_input_signature { tuple_value {
      values { tuple_value {
        values { type_spec_value {
          type_spec_class_name: "tf.RaggedTensorSpec"
          type_state { tuple_value {
            values { tensor_shape_value { dim { size: -1 } dim { size: -1 } } } values { tensor_dtype_value: DT_INT64 }
          } }
        } }
        values { dict_value { fields { key: "a" value { bounded_tensor_spec_value { dtype: DT_STRING shape {} } } } } }
        values { named_tuple_value { name: "Pair" values { key: "left" value { int64_value: -2 } } } }
      } }
      values { dict_value {} }
    } } } }
"""


def read(is_method: bool) -> dict[str, list[str]]:
    first = 'values { string_value: "self" }' if is_method else ""
    proto = MetaGraphDef()
    text_format.Parse(OBJECTS % (str(is_method).lower(), first), proto.object_graph_def)
    return callables(Program(proto.graph_def, proto))


def test_arguments_of_every_kind_are_written_as_python_writes_them_and_doubles_once() -> None:
    assert read(is_method=False) == {
        "score": [
            "x: float32[?, 3], options: [1, True, None], 0.5, mode: 'fast', training: False",
            "x: RaggedTensorSpec([?, ?], int64), options: {a: string[]}, Pair(left=-2)",
        ]
    }


def test_the_self_of_a_method_is_no_argument() -> None:
    assert read(is_method=True) == read(is_method=False)


def test_a_model_without_objects_has_no_functions() -> None:
    assert callables(Program(MetaGraphDef().graph_def)) == {}
