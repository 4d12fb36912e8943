"""Pictures as files: each is one row, in a row group of its own.

A plan opens none of them: the listing says all that it needs. The invariant: whatever the bytes of a file are, it is
one row; what is wrong with them is a bad row, and no bad file, as it would be in a column of any other format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import pyarrow as pa

from connectors.formats.base import States
from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import MAX_ROW_GROUP_BYTES, BadRows, BadRowsError, planned_file, wrong_rows
from connectors.formats.media.picture import Picture, PictureError, read_header, require_pillow
from connectors.formats.schema import position
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Input

CONTENT = "bytes"
_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field(CONTENT, pa.binary(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)
_OF_HEADER: dict[str, Callable[[Picture], int]] = {"width": lambda it: it.width, "height": lambda it: it.height}
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")  # the two letters of a BMP may begin anything


class ImagesSource:
    states: States = "all"
    suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")  # what TensorFlow decodes
    max_row_group_bytes = MAX_ROW_GROUP_BYTES
    verbatim = True
    max_row_bytes: int | None = None  # of a picture when it is decoded

    @classmethod
    def of(cls, input: Input) -> Self:
        return cls()

    def begins(self, head: bytes) -> bool:
        return head.startswith(_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        return _SCHEMA

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        return _SCHEMA, {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """cost: none; the file is not opened."""
        if _OF_HEADER.keys() & set(columns):
            require_pillow()
        content = file.size if CONTENT in columns else 0
        group = RowGroup(1, content + sum(_bytes(name, file.url) for name in columns))
        return InputFile(file.url, file.size, file.version, (group,)), _SCHEMA

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[ImagesReader]:
        for name in columns:
            position(_SCHEMA, name, inputs.url)
        with planned_file(store, inputs) as held:
            yield ImagesReader(held, inputs, columns, self.max_row_bytes)


class ImagesReader:
    """An open file; see `base.RowGroupReader`. most: bytes of a picture when it is decoded; None: not looked at."""

    def __init__(self, held: BufferedFile, inputs: InputSlice, columns: Sequence[str], most: int | None) -> None:
        self._held, self._inputs, self._columns, self._most = held, inputs, columns, most

    @property
    def fetch_s(self) -> float:
        return self._held.fetch_s

    def read(self, row_group: int) -> pa.Table:
        if row_group != 0:
            raise wrong_rows(self._inputs, row_group, 0)
        looks = bool(_OF_HEADER.keys() & set(self._columns)) or (self._most is not None and CONTENT in self._columns)
        wanted = looks or CONTENT in self._columns
        content = self._held.take(0, self._inputs.size).to_pybytes() if wanted else b""
        picture: Picture | None = None
        fault: tuple[str, str] | None = None
        if looks:
            try:
                picture = read_header(content)
            except PictureError as error:
                # Who only wants the bytes may well read what is unknown here.
                fault = ("ROW_IMAGE", str(error)) if _OF_HEADER.keys() & set(self._columns) else None
        if picture is not None and self._most is not None and picture.decoded_bytes > self._most:
            fault = "ROW_TOO_BIG", too_large(picture, picture.channels, self._most)
        table = _row({"path": self._inputs.url, CONTENT: content}, self._columns, picture)
        if fault is None:
            return table
        code, story = fault
        bad = BadRows(code, CONTENT, np.zeros(1, np.int64), [story])
        raise BadRowsError.of(self._inputs, row_group, table, [bad])


def too_large(picture: Picture, channels: int, most: int) -> str:
    size = picture.width * picture.height * channels
    return (
        f"the picture has {picture.width} x {picture.height} pixels, {size:,} bytes when decoded;"
        f" `limits.max_row_bytes` allows {most:,}"
    )


def _row(values: Mapping[str, Any], columns: Sequence[str], picture: Picture | None) -> pa.Table:
    """picture: None where its header cannot be read; its size is 0 then, and the row bad."""
    if not columns:
        return pa.table({"path": ["."]}).select([])
    found = dict(values)
    for name, value in _OF_HEADER.items():
        found[name] = value(picture) if picture is not None else 0
    fields = [_SCHEMA.field(name) for name in columns]
    return pa.table([pa.array([found[field.name]], field.type) for field in fields], pa.schema(fields))


def _bytes(name: str, url: str) -> int:
    return {CONTENT: 4, "path": 4 + len(url.encode())}.get(name, 4)


SOURCE = ImagesSource
