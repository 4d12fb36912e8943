"""Columns as the text of JSON values, all rows at a time.

Owns what each Arrow type is in JSON; refuses to know files. The invariant: each value is on one line, and Python's
`json` reads it as what it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ESCAPED = r'["\\\x00-\x1f]'


def holds(kind: pa.DataType) -> bool:
    """Whether values of this type have a text."""
    types = pa.types
    if isinstance(kind, pa.FixedShapeTensorType):
        plain = kind.permutation is None or list(kind.permutation) == sorted(kind.permutation)
        return plain and 0 not in kind.shape and holds(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return holds(kind.storage_type)
    if is_list(kind):
        return holds(kind.value_type) and not (types.is_fixed_size_list(kind) and not kind.list_size)
    if types.is_struct(kind):
        return kind.num_fields > 0 and all(holds(field.type) for field in kind)
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    texts = (types.is_string, types.is_large_string, types.is_date, types.is_time, types.is_timestamp)
    return any(known(kind) for known in (*numbers, *texts))


def is_list(kind: pa.DataType) -> bool:
    return any(known(kind) for known in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def objects(names: Sequence[str], columns: Sequence[pa.Array], end: str = "") -> pa.Array:
    """`{"name": value, ...}` of each row. end: what follows it."""
    parts: list[pa.Array | pa.Scalar] = []
    for index, (name, column) in enumerate(zip(names, columns, strict=True)):
        parts += [pa.scalar(f"{',' if index else '{'}{json.dumps(name, ensure_ascii=False)}:"), text(column)]
    return pc.binary_join_element_wise(*parts, pa.scalar("}" + end), pa.scalar(""))


def text(column: pa.Array) -> pa.Array:
    """The values as JSON; none is null. column: of a type that `holds`."""
    kind, types = column.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return text(_nested(column))
    if is_list(kind):
        made = _lists(column)
    elif types.is_struct(kind):
        made = objects([field.name for field in kind], [column.field(index) for index in range(kind.num_fields)])
    elif types.is_floating(kind):
        made = _floats(column)
    elif types.is_string(kind) or types.is_large_string(kind):
        made = _quoted(column.cast(pa.string()))
    elif types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind):
        said = pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
        made = pc.binary_join_element_wise('"', said, '"', "")
    else:
        made = column.cast(pa.string())
    if column.null_count:
        made = pc.if_else(column.is_valid(), made, pa.scalar("null"))
    return pc.fill_null(made, "null") if made.null_count else made


def _nested(column: pa.Array) -> pa.Array:
    """The storage, of a tensor as lists in lists."""
    storage = column.storage
    if not isinstance(column.type, pa.FixedShapeTensorType) or len(column.type.shape) < 2:
        return storage
    values = storage.flatten()
    for size in reversed(column.type.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, size)
    lengths = np.where(storage.is_valid().to_numpy(zero_copy_only=False), column.type.shape[0], 0)
    return _list_array(values, lengths, storage)


def _lists(column: pa.Array) -> pa.Array:
    values = text(column.flatten())
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    joined = pc.binary_join(_list_array(values, lengths, None), ",")
    return pc.binary_join_element_wise("[", joined, "]", "")


def _list_array(values: pa.Array, lengths: np.ndarray, like: pa.Array | None) -> pa.Array:
    """Lists of `values`, one after another; null where `like` is."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = None if like is None or not like.null_count else like.is_null()
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)


def _floats(column: pa.Array) -> pa.Array:
    """As many digits as tell the value from others; whole ones with `.0`, so that readers see floats."""
    wide = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
    said = wide.cast(pa.string())
    whole = pc.match_substring_regex(said, r"^-?[0-9]+$")
    if pc.any(whole).as_py():
        said = pc.if_else(whole, pc.binary_join_element_wise(said, ".0", ""), said)
    if not pc.all(pc.is_finite(wide)).as_py():
        said = pc.if_else(pc.is_nan(wide), pa.scalar("NaN"), said)
        said = pc.replace_substring_regex(said, r"^(-?)inf$", r"\1Infinity")
    return said


def _quoted(column: pa.Array) -> pa.Array:
    made = pc.binary_join_element_wise('"', column, '"', "")
    odd = pc.fill_null(pc.match_substring_regex(column, _ESCAPED), False)
    if not pc.any(odd).as_py():
        return made
    escaped = [json.dumps(value, ensure_ascii=False) for value in column.filter(odd).to_pylist()]
    return pc.replace_with_mask(made, odd, pa.array(escaped, pa.string()))
