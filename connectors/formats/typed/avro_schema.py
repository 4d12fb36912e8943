"""The schema of an Avro file in the types of Arrow, and its records as columns of these.

Owns what a type of Avro becomes; refuses to know files. Logical types are read as the numbers that they are stored as,
so that each value is what the file has, also where Python has no such date. The invariant: a column that Arrow cannot
hold is named, and others of the file are read.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

Node = Any  # of a schema: text, a list, or an object. source: Avro 1.12, "Schema Declaration"

_PRIMITIVES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_LOGICAL = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time32("ms"),
    ("long", "time-micros"): pa.time64("us"),
    **{("long", f"timestamp-{name}"): pa.timestamp(unit, "UTC") for name, unit in (("millis", "ms"), ("micros", "us"))},
    **{("long", f"local-timestamp-{name}"): pa.timestamp(unit) for name, unit in (("millis", "ms"), ("micros", "us"))},
    ("long", "timestamp-nanos"): pa.timestamp("ns", "UTC"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
}
_MOST_DIGITS = 76  # of a decimal in Arrow
_DIGITS = decimal.Context(prec=_MOST_DIGITS + 2)


class UnreadableError(Exception):
    """A type that Arrow has not."""


class AvroSchema:
    """writer: of a file, as fastavro parsed it: each name is a full one. raises: ValueError where it is no record."""

    def __init__(self, writer: Node) -> None:
        if not isinstance(writer, dict) or writer.get("type") not in ("record", "error"):
            raise ValueError(f"its values are no records, but of the type {_told(writer)}")
        self._named: dict[str, Node] = {}
        self._collect(writer)
        self._name = writer["name"]
        self._fields: dict[str, Node] = {field["name"]: field["type"] for field in writer["fields"]}
        self.unreadable: dict[str, str] = {}  # column -> why
        self.arrow = pa.schema([self._field(name, node) for name, node in self._fields.items()])

    def stored(self, columns: Sequence[str] | None = None) -> Node:
        """The schema without logical types; of some columns only."""
        names = self._fields if columns is None else [name for name in self._fields if name in set(columns)]
        seen: set[str] = set()
        fields = [{"name": name, "type": self._stored(self._fields[name], seen)} for name in names]
        return {"type": "record", "name": self._name, "fields": fields}

    def column(self, name: str, values: Iterable[Any]) -> pa.Array:
        """Values as `stored` has them. raises: what pyarrow raises."""
        field, convert = self.arrow.field(name), self._converter(self._fields[name])
        return pa.array(values if convert is None else map(convert, values), field.type)

    def _collect(self, node: Node) -> None:
        for child in _children(node):
            self._collect(child)
        if isinstance(node, dict) and "name" in node:
            self._named[node["name"]] = node

    def _field(self, name: str, node: Node) -> pa.Field:
        try:
            kind, nullable = self._type(node, ())
        except UnreadableError as error:
            self.unreadable[name] = str(error)
            kind, nullable = pa.dense_union([pa.field(str(error), pa.null())]), True
        return pa.field(name, kind, nullable)

    def _type(self, node: Node, above: tuple[str, ...]) -> tuple[pa.DataType, bool]:
        """The type of a node, and whether it may be null. above: the names of the records that it is inside of."""
        if isinstance(node, list):
            members = [member for member in node if member != "null"]
            if len(members) > 1:
                raise UnreadableError(f"a union of {', '.join(map(_told, members))}")
            kind = self._type(members[0], above)[0] if members else pa.null()
            return kind, "null" in node
        node = self._resolved(node)
        if isinstance(node, str):
            return _PRIMITIVES[node], node == "null"
        kind, name = node["type"], node.get("name", "")
        if isinstance(kind, list | dict):
            return self._type(kind, above)
        if name in above:
            raise UnreadableError(f"a record {name!r} inside of itself")
        if kind in ("record", "error"):
            inner = [(field["name"], *self._type(field["type"], (*above, name))) for field in node["fields"]]
            return pa.struct([pa.field(*field) for field in inner]), False
        if kind == "array":
            return pa.list_(pa.field("item", *self._type(node["items"], above))), False
        if kind == "map":
            return pa.map_(pa.string(), pa.field("value", *self._type(node["values"], above))), False
        return _scalar(node), kind == "null"

    def _resolved(self, node: Node) -> Node:
        return self._named.get(node, node) if isinstance(node, str) else node

    def _stored(self, node: Node, seen: set[str]) -> Node:
        """seen: names that are defined already; each is, once."""
        if isinstance(node, list):
            return [self._stored(member, seen) for member in node]
        node = self._resolved(node)
        if isinstance(node, str):
            return node
        kind = node["type"]
        if "name" in node:
            if node["name"] in seen:
                return node["name"]
            seen.add(node["name"])
        if kind in ("record", "error"):
            fields = [{"name": field["name"], "type": self._stored(field["type"], seen)} for field in node["fields"]]
            return {"type": "record", "name": node["name"], "fields": fields}
        if kind in ("array", "map"):
            inside = "items" if kind == "array" else "values"
            return {"type": kind, inside: self._stored(node[inside], seen)}
        if kind in ("enum", "fixed"):
            return {key: node[key] for key in ("type", "name", "symbols", "size") if key in node}
        return self._stored(kind, seen)

    def _converter(self, node: Node) -> Callable[[Any], Any] | None:
        """From what is stored to what pyarrow takes; None: it takes that."""
        if isinstance(node, list):
            inner = next((self._converter(member) for member in node if member != "null"), None)
            return None if inner is None else _of_null(inner)
        node = self._resolved(node)
        if isinstance(node, str):
            return None
        kind = node["type"]
        if isinstance(kind, list | dict):
            return self._converter(kind)
        if kind in ("record", "error"):
            inside = {field["name"]: self._converter(field["type"]) for field in node["fields"]}
            changed = {name: convert for name, convert in inside.items() if convert is not None}
            return _of_record(changed) if changed else None
        if kind in ("array", "map"):
            inner = self._converter(node["items" if kind == "array" else "values"])
            return None if inner is None else _of_list(inner) if kind == "array" else _of_map(inner)
        return _of_decimal(node.get("scale", 0)) if _is_decimal(node) else None


def _of_null(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _of_record(changed: Mapping[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    return lambda value: {**value, **{name: convert(value[name]) for name, convert in changed.items()}}


def _of_list(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: [convert(value) for value in values]


def _of_map(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: {key: convert(value) for key, value in values.items()}


def _of_decimal(scale: int) -> Callable[[Any], Any]:
    return lambda value: decimal.Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale, _DIGITS)


def _scalar(node: Mapping[str, Any]) -> pa.DataType:
    kind, logical = str(node["type"]), str(node.get("logicalType"))
    if _is_decimal(node):
        make = pa.decimal128 if node["precision"] <= 38 else pa.decimal256
        return make(node["precision"], node.get("scale", 0))
    if kind == "enum":
        return pa.string()
    if kind == "fixed":
        return pa.binary(node["size"])
    return _LOGICAL.get((kind, logical), _PRIMITIVES[kind])


def _is_decimal(node: Mapping[str, Any]) -> bool:
    """A decimal whose numbers make no sense is its bytes, as Avro says of all such logical types."""
    if node.get("logicalType") != "decimal" or node["type"] not in ("bytes", "fixed"):
        return False
    precision, scale = node.get("precision"), node.get("scale", 0)
    if not isinstance(precision, int) or not isinstance(scale, int):
        return False
    return 1 <= precision <= _MOST_DIGITS and 0 <= scale <= precision


def _children(node: Node) -> Iterable[Node]:
    if isinstance(node, list):
        return node
    if not isinstance(node, dict):
        return ()
    inside = [node[key] for key in ("items", "values") if key in node]
    kinds = [node["type"]] if isinstance(node.get("type"), list | dict) else []
    return [*inside, *kinds, *(field["type"] for field in node.get("fields", ()))]


def _told(node: Node) -> str:
    if isinstance(node, dict):
        return str(node.get("name", node.get("type")))
    return str(node)
