"""Extension types of Arrow: a name and parameters that stand in the metadata of a field, or are a class of Python.

The invariant: whether a class is registered makes no difference, because which are is an accident of what a process
has imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa

NAME, PARAMETERS = b"ARROW:extension:name", b"ARROW:extension:metadata"  # of a field. source: Columnar.rst


def unregistered(field: pa.Field) -> pa.Field:
    """The field as if no Python had registered its extension type."""
    while isinstance(kind := field.type, pa.ExtensionType):
        said = {NAME: kind.extension_name.encode(), PARAMETERS: kind.__arrow_ext_serialize__()}
        field = pa.field(field.name, kind.storage_type, field.nullable, {**(field.metadata or {}), **said})
    return field


def is_registered(kind: pa.DataType) -> bool:
    """Whether an extension type of Python is in it."""
    if isinstance(kind, pa.BaseExtensionType):
        return isinstance(kind, pa.ExtensionType) or is_registered(kind.storage_type)
    return any(is_registered(kind.field(index).type) for index in range(kind.num_fields))


def extension(field: pa.Field) -> tuple[str, str] | None:
    """The name and the parameters of an extension type that nobody here knows: a part of the type of a field."""
    said = field.metadata or {}
    if NAME not in said:
        return None
    parameters = said.get(PARAMETERS, b"").decode(errors="backslashreplace")
    with suppress(ValueError, RecursionError):  # not JSON, which writers space and order as they like
        parameters = json.dumps(json.loads(parameters), sort_keys=True)
    return said[NAME].decode(errors="backslashreplace"), parameters


def extensions(field: pa.Field, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Where in a field extension types are that nobody here knows, with their names and parameters."""
    own = extension(field)
    if own is not None:
        yield path, *own
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    for index in range(kind.num_fields):
        inner = kind.field(index)
        step = f".{inner.name}" if pa.types.is_struct(kind) else "[]"
        yield from extensions(inner, path + step)
