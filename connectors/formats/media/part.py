"""The bytes of members as columns: JSON, text and arrays of numbers by their extension and the type that is wanted.

Knows values, not files. The invariant: nothing is unpickled; a value that does not fit is told by its row, and null.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from connectors.formats.declared import text_of
from connectors.formats.media.sample import KEY, npy_header
from connectors.formats.text.kind import kind_of, loaded, merged
from connectors.formats.text.objects import Fault, decode, excerpt, unreadable_type

Parts = Sequence[bytes | None]  # of one extension: of each row
_STATED = {"cls": pa.int64(), "txt": pa.string(), KEY: pa.string()}
_VALUE = "v"
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def seen_type(extension: str, parts: Parts) -> pa.DataType:
    """The type of a column, where a job does not say it. parts: its first ones."""
    kind, given = extension.rpartition(".")[2], [part for part in parts if part is not None]
    if extension in _STATED:
        return _STATED[extension]
    if kind == "json":
        return _json_type(given)
    return _npy_type(given) if kind == "npy" else pa.binary()


def is_looked_at(extension: str) -> bool:
    """Whether values decide the type of a column."""
    return extension.rpartition(".")[2] in ("json", "npy")


def _json_type(parts: Sequence[bytes]) -> pa.DataType:
    kind, read = pa.null(), False
    for part in parts:
        try:
            kind, read = merged(kind, kind_of(loaded(part))), True
        except ValueError:
            continue
    return kind if read else pa.binary()


def _npy_type(parts: Sequence[bytes]) -> pa.DataType:
    """Lists of one length where all arrays have one shape."""
    headers = [npy_header(part) for part in parts]
    if not headers or any(header is None for header in headers):
        return pa.binary()
    types = {dtype.newbyteorder("=") for header in headers if header for dtype in header[1:]}
    sizes = {math.prod(header[0]) for header in headers if header}
    scalars = all(header is not None and not header[0] for header in headers)
    (dtype, *others), (size, *sizes_too) = types, sizes
    if others or dtype.kind not in "biuf" or dtype.itemsize > 8:
        return pa.binary()
    kind = pa.from_numpy_dtype(dtype)
    if scalars:
        return kind
    return pa.list_(kind) if sizes_too or not size else pa.list_(kind, size)


def unreadable(extension: str, kind: pa.DataType) -> bool:
    """Whether no member of this extension is read as values of this type."""
    if _is_bytes(kind) or _is_text(kind):
        return False
    if extension.rpartition(".")[2] == "npy":
        value = kind.value_type if _is_list(kind) else kind
        return not (pa.types.is_integer(value) or pa.types.is_floating(value) or pa.types.is_boolean(value))
    return unreadable_type(kind) or pa.types.is_duration(kind)


def column(extension: str, kind: pa.DataType, parts: Parts) -> tuple[pa.Array | pa.ChunkedArray, list[Fault]]:
    """The values, null where there is no part, or a fault."""
    last = extension.rpartition(".")[2]
    if _is_bytes(kind):
        return pa.array(parts, kind), []
    if _is_text(kind):
        return _each(parts, kind, extension, _utf8)
    if last == "npy":
        return _arrays(parts, kind, extension)
    if last == "json" or pa.types.is_nested(kind):
        return _documents(parts, kind, extension)
    return _numbers(parts, kind, extension)


def _each(
    parts: Parts, kind: pa.DataType, extension: str, read: Callable[[bytes], object]
) -> tuple[pa.Array, list[Fault]]:
    """Values one by one. read: raises _FaultError."""
    values, faults = list[object](), list[Fault]()
    for row, part in enumerate(parts):
        try:
            values.append(None if part is None else read(part))
        except _FaultError as error:
            values.append(None)
            faults.append(Fault(row, error.code, extension, str(error)))
    return pa.array(values, kind), faults


class _FaultError(Exception):
    def __init__(self, code: str, story: str) -> None:
        super().__init__(story)
        self.code = code


def _utf8(part: bytes) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError as error:
        raise _FaultError("ROW_UTF8", f"byte {error.start + 1} is no UTF-8: {_shown(part)}") from error


def _numbers(parts: Parts, kind: pa.DataType, extension: str) -> tuple[pa.Array, list[Fault]]:
    """Text as it stands in a file of its own: one value, with white space around it."""

    def read(part: bytes) -> object:
        text = _utf8(part).strip()
        try:
            given = pa.scalar(text if "x" not in text.lower() else "")  # Arrow takes 0x1F for 31
            if not pa.types.is_floating(kind):
                return given.cast(kind).as_py()
            wide = given.cast(pa.float64())
            value = (wide if kind == pa.float16() else given).cast(kind).as_py()
            if math.isinf(value) and not math.isinf(wide.as_py()):
                raise OverflowError
        except (pa.ArrowException, OverflowError) as error:
            large = isinstance(error, OverflowError) or (pa.types.is_integer(kind) and _is_integer(text))
            story = f"found {_shown(part)}; expected {text_of(kind)}"
            raise _FaultError("ROW_OVERFLOW" if large else "ROW_TYPE", story) from error
        return value

    return _each(parts, kind, extension, read)


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _documents(parts: Parts, kind: pa.DataType, extension: str) -> tuple[pa.Array | pa.ChunkedArray, list[Fault]]:
    """JSON of any value: each document becomes one line first, so that none reaches into the next."""
    lines, faults = list[bytes](), list[Fault]()
    for row, part in enumerate(parts):
        try:
            if part is not None:
                loaded(part)
        except UnicodeDecodeError as error:
            faults.append(Fault(row, "ROW_UTF8", extension, f"byte {error.start + 1} is no UTF-8: {_shown(part)}"))
            part = None
        except ValueError as error:
            faults.append(Fault(row, "ROW_JSON", extension, f"no JSON: {error}: {_shown(part)}"))
            part = None
        # A line feed of a document lies between its values alone: in a text it would have been an error.
        flat = b"null" if part is None else part.translate(None, b"\r\n").removeprefix(b"\xef\xbb\xbf")
        lines.append(b'{"%s":%s}' % (_VALUE.encode(), flat))
    table, misfits = decode(b"\n".join(lines), pa.schema([(_VALUE, kind)]))
    faults += [Fault(one.row, one.code, extension, one.story) for one in misfits]
    return table[_VALUE], faults


def _arrays(parts: Parts, kind: pa.DataType, extension: str) -> tuple[pa.Array, list[Fault]]:
    """Arrays as lists of their values, the last dimension first; of one value also without a list."""
    value_type = kind.value_type if _is_list(kind) else kind
    size = kind.list_size if pa.types.is_fixed_size_list(kind) else None if _is_list(kind) else 1

    def read(part: bytes) -> pa.Array:
        try:
            values = np.lib.format.read_array(io.BytesIO(part), allow_pickle=False)
            flat = pa.array(np.ascontiguousarray(values.reshape(-1)).astype(values.dtype.newbyteorder("="), copy=False))
        except (ValueError, SyntaxError, TypeError, EOFError, pa.ArrowException) as error:
            raise _FaultError("ROW_TYPE", f"no array of numbers: {excerpt(str(error))}") from error
        if size is not None and len(flat) != size:
            raise _FaultError("ROW_SHAPE", f"found {values.shape}; expected {text_of(kind)}")
        try:
            return flat.cast(value_type)
        except pa.ArrowException as error:
            code = "ROW_OVERFLOW" if pa.types.is_integer(flat.type) else "ROW_TYPE"
            raise _FaultError(code, f"found {flat.type}; expected {text_of(kind)}: {excerpt(str(error))}") from error

    found, faults = list[pa.Array | None](), list[Fault]()
    for row, part in enumerate(parts):
        try:
            found.append(None if part is None else read(part))
        except _FaultError as error:
            found.append(None)
            faults.append(Fault(row, error.code, extension, str(error)))
    lengths = np.array([0 if one is None else len(one) for one in found], np.int64)
    missing = np.array([one is None for one in found], np.bool_)
    whole = pa.concat_arrays([one for one in found if one is not None] or [pa.array([], value_type)])
    if size is not None:  # nulls take their place in lists of one length
        rows = np.repeat(missing, size)
        places = np.cumsum(~rows) - 1
        whole = whole.take(pa.array(places, mask=rows))
    if not _is_list(kind):
        return whole, faults
    if size is not None:
        return pa.FixedSizeListArray.from_arrays(whole, type=kind, mask=pa.array(missing)), faults
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    large = pa.types.is_large_list(kind)
    made = (pa.LargeListArray if large else pa.ListArray).from_arrays(
        pa.array(offsets, pa.int64() if large else pa.int32(), mask=np.append(missing, False)), whole, type=kind
    )
    return made, faults


def _shown(part: bytes | None) -> str:
    return excerpt((part or b"")[:400].decode(errors="replace"))


def _is_list(kind: pa.DataType) -> bool:
    return any(check(kind) for check in _LISTS)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
