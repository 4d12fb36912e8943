"""tf.Example as protobuf sees it, without TensorFlow: the oracle of those who write and read its bytes."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_REPEATED, _OPTIONAL = 3, 1
_BYTES, _FLOAT, _INT64, _STRING, _MESSAGE = 12, 2, 3, 9, 11


def _messages() -> Any:
    """The messages of tensorflow/core/example; a map is a list of entries, whose order is then kept."""
    file = descriptor_pb2.FileDescriptorProto(name="test/example.proto", package="test_example", syntax="proto3")

    def message(name: str, **fields: tuple[int, int, int, str]) -> None:
        proto = file.message_type.add(name=name)
        for field, (number, label, kind, of) in fields.items():
            one = proto.field.add(name=field, number=number, label=label, type=kind)
            if of:
                one.type_name = f".test_example.{of}"

    message("BytesList", value=(1, _REPEATED, _BYTES, ""))
    message("FloatList", value=(1, _REPEATED, _FLOAT, ""))
    message("Int64List", value=(1, _REPEATED, _INT64, ""))
    lists = {"bytes_list": "BytesList", "float_list": "FloatList", "int64_list": "Int64List"}
    message("Feature", **{name: (n + 1, _OPTIONAL, _MESSAGE, kind) for n, (name, kind) in enumerate(lists.items())})
    message("Entry", key=(1, _OPTIONAL, _STRING, ""), value=(2, _OPTIONAL, _MESSAGE, "Feature"))
    message("Features", feature=(1, _REPEATED, _MESSAGE, "Entry"))
    message("Example", features=(1, _OPTIONAL, _MESSAGE, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test_example.Example"))


Example = _messages()


def example(features: dict[str, tuple[str, list[Any]]]) -> bytes:
    """The bytes of an Example. features: name -> (kind, values)."""
    message = Example()
    message.features.SetInParent()
    for name, (kind, values) in features.items():
        entry = message.features.feature.add(key=name)
        chosen = getattr(entry.value, kind)
        chosen.SetInParent()
        chosen.value.extend(values)
    content: bytes = message.SerializeToString()
    return content


def features(content: bytes) -> dict[str, tuple[str, list[Any]]]:
    """The inverse of `example`."""
    found = {}
    for entry in Example.FromString(content).features.feature:
        kind = next((name for name in ("bytes_list", "float_list", "int64_list") if entry.value.HasField(name)), "")
        found[entry.key] = kind, list(getattr(entry.value, kind).value) if kind else []
    return found
