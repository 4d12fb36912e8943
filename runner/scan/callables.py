"""The functions of a model as Python would call them, which `tf.saved_model.load` gives back beside the signatures."""

from __future__ import annotations

from runner.model.tensor_proto import dimensions
from runner.proto.saved_model_pb2 import SavedObjectGraph, StructuredValue
from runner.scan.program import Program
from runner.tensor import DTYPE_NAMES, tensor_text


def callables(program: Program) -> dict[str, list[str]]:
    """Name of a function of the root object -> the ways to call it: 'x: float32[?], training: False'.

    Empty for models of TensorFlow 1, which have no objects.
    """
    objects = program.objects
    options_of: dict[str, list[str]] = {}
    for child in objects.nodes[0].children if objects.nodes else ():
        node = objects.nodes[child.node_id]
        if node.WhichOneof("kind") == "function":
            names = _argument_names(node.function.function_spec.fullargspec, node.function.function_spec.is_method)
            options = (_arguments(objects, option, names) for option in node.function.concrete_functions)
            options_of[child.local_name] = list(dict.fromkeys(options))
    return dict(sorted(options_of.items()))


def _arguments(objects: SavedObjectGraph, function: str, names: list[str]) -> str:
    signature = objects.concrete_functions[function].canonicalized_input_signature.tuple_value.values
    positional = signature[0].tuple_value.values if signature else ()
    keyword = signature[1].dict_value.fields if len(signature) > 1 else {}
    given = [f"{name}: {_text(value)}" for name, value in zip(names, positional, strict=False)]
    given += [_text(value) for value in positional[len(names) :]]
    return ", ".join([*given, *(f"{name}: {_text(keyword[name])}" for name in sorted(keyword))])


def _argument_names(spec: StructuredValue, is_method: bool) -> list[str]:
    for pair in spec.named_tuple_value.values:
        if pair.key == "args":
            names = [value.string_value for value in pair.value.list_value.values]
            return names[1:] if is_method else names
    return []


def _text(value: StructuredValue) -> str:
    match value.WhichOneof("kind"):
        case "tensor_spec_value" | "bounded_tensor_spec_value":
            spec = value.tensor_spec_value if value.HasField("tensor_spec_value") else value.bounded_tensor_spec_value
            return tensor_text(DTYPE_NAMES.get(spec.dtype, "?"), dimensions(spec.shape))
        case "tensor_shape_value":
            return tensor_text("", dimensions(value.tensor_shape_value))
        case "tensor_dtype_value":
            return DTYPE_NAMES.get(value.tensor_dtype_value, "?")
        case "type_spec_value":
            state = value.type_spec_value.type_state
            return value.type_spec_value.type_spec_class_name.rpartition(".")[2] + _text(state)
        case "list_value":
            return f"[{', '.join(map(_text, value.list_value.values))}]"
        case "tuple_value":
            return f"({', '.join(map(_text, value.tuple_value.values))})"
        case "dict_value":
            fields = value.dict_value.fields
            return f"{{{', '.join(f'{key}: {_text(fields[key])}' for key in sorted(fields))}}}"
        case "named_tuple_value":
            pairs = value.named_tuple_value.values
            return f"{value.named_tuple_value.name}({', '.join(f'{pair.key}={_text(pair.value)}' for pair in pairs)})"
        case "float64_value" | "int64_value" | "string_value" | "bool_value" as kind:
            return repr(getattr(value, kind))
    return "None"
