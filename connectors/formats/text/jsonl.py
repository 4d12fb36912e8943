"""JSON lines: each line is an object, and its keys are columns.

A file says nothing of its types: they are those of the job, or what the first records of the first file show. A row
group is a run of lines, and its place in the file is part of the plan. The invariant: each line that is more than white
space is one row; a line that is no object, or does not fit the types, is a bad row that is told by its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Self

import numpy as np
import pyarrow as pa

from connectors.formats.base import States
from connectors.formats.buffered import BufferedFile
from connectors.formats.declared import text_of, types_of
from connectors.formats.fault import (
    MAX_ROW_GROUP_BYTES,
    BadRows,
    BadRowsError,
    planned_file,
    unreadable,
    while_running,
    wrong_magic,
    wrong_rows,
)
from connectors.formats.schema import position
from connectors.formats.text.cut import Lines, cuts
from connectors.formats.text.kind import columns_of, loaded
from connectors.formats.text.objects import BOM, Fault, decode, lines_of, unreadable_type
from connectors.formats.text.packed import blocks, codec_of, is_packed, with_packed
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Input

_LOOK_ROWS, _LOOK_BYTES = 1000, 4 * 2**20  # whatever is reached first: of the records that show the types


class JsonlSource:
    """types: of columns, as the job says; the others are what the first records of a file show."""

    states: States = "kinds"
    suffixes: tuple[str, ...] = with_packed((".jsonl", ".ndjson"))  # a `.json` is mostly one document
    packed = staticmethod(is_packed)
    max_row_group_bytes = MAX_ROW_GROUP_BYTES
    max_row_bytes: int | None = None

    def __init__(self, types: Mapping[str, pa.DataType] | None = None) -> None:
        self._types = dict(types or {})
        self._declared = pa.schema([*self._types.items()])  # one object for all files

    @classmethod
    def of(cls, input: Input) -> Self:
        types = types_of(input.types)
        for name, kind in types.items():
            if unreadable_type(kind):
                raise InputError(
                    f"cannot read column {name!r} as {text_of(kind)}: JSON has no such values; declare string, int64"
                    " or what else they are there",
                    code="COLUMN_TYPE",
                )
        return cls(types)

    def begins(self, head: bytes) -> bool:
        line, ended, _ = head.removeprefix(BOM).lstrip().partition(b"\n")
        if not ended:  # the end is not seen
            return line.startswith((b'{"', b"{}"))
        return line.startswith(b"{") and _object(line) is not None

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            return self._seen(held)

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        return self.schema(store, file), {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """cost: one pass over the whole file."""
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            start, content = _begun(held)
            found = cuts(content, Lines(), start, whole=codec_of(file.url) is not None, check=self._check(held))
            groups = [
                RowGroup(cut.rows, (cut.stop - cut.start) * bool(columns), place=(cut.start, cut.stop, cut.line))
                for cut in found
            ]
            schema = self._declared if self._types else self._seen(held)
        return InputFile(file.url, file.size, file.version, tuple(groups)), schema

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[JsonlReader]:
        with planned_file(store, inputs) as held:
            try:
                schema = self._declared if set(columns) <= set(self._types) else self._seen(held)
                yield JsonlReader(
                    held, inputs, pa.schema([schema.field(position(schema, name, inputs.url)) for name in columns])
                )
            except InputError as error:
                raise while_running(error) from error

    def _seen(self, held: BufferedFile) -> pa.Schema:
        """All columns that are declared, and what the first records show beside them."""
        lines, rest = list[bytes](), b""
        for block in _begun(held)[1]:
            *whole, rest = (rest + block).split(b"\n")
            lines += [line for line in whole if line.strip()]
            if len(lines) >= _LOOK_ROWS or sum(map(len, lines)) + len(rest) > _LOOK_BYTES:
                break
        else:
            lines += [rest] * bool(rest.strip())
        records = [record for line in lines[:_LOOK_ROWS] if (record := _object(line)) is not None]
        if lines and not records:
            hint = "; a JSON document is written as lines by `jq -c '.[]'`" if lines[0].strip()[:1] in b"[{" else ""
            raise wrong_magic(held, "JSON lines", hint)
        return pa.schema([*(columns_of(records) | self._types).items()])

    def _check(self, held: BufferedFile) -> Any:
        def check(size: int) -> None:
            if size > self.max_row_group_bytes:
                most = f"more than {self.max_row_group_bytes:,} bytes are one row group"
                advice = "write several files, or one that is not packed" if codec_of(held.url) else "is it one line?"
                raise unreadable(held, "ROWGROUP_TOO_BIG", f"{most}: {advice}")

        return check


class JsonlReader:
    """An open file; see `base.RowGroupReader`."""

    def __init__(self, held: BufferedFile, inputs: InputSlice, schema: pa.Schema) -> None:
        self._held, self._inputs, self._schema = held, inputs, schema

    @property
    def fetch_s(self) -> float:
        return self._held.fetch_s

    def read(self, row_group: int) -> pa.Table:
        start, stop, first = self._inputs.place(row_group)
        content = b"".join(blocks(self._held, start, stop))
        table, faults = decode(content, self._schema)
        if table.num_rows != self._inputs.rows[row_group - self._inputs.first]:
            raise wrong_rows(self._inputs, row_group, table.num_rows)
        if faults:
            numbers = first + lines_of(content)[2]
            raise BadRowsError.of(self._inputs, row_group, table, bad_rows(faults, lambda row: f"line {numbers[row]}"))
        return table


def bad_rows(faults: Sequence[Fault], place: Any) -> list[BadRows]:
    """Faults of one code and column together. place: row -> words for where it is in the file."""
    alike = dict[tuple[str, str | None], list[Fault]]()
    for fault in faults:
        alike.setdefault((fault.code, fault.column), []).append(fault)
    return [
        BadRows(code, column, np.array([one.row for one in some]), [f"{place(one.row)}: {one.story}" for one in some])
        for (code, column), some in alike.items()
    ]


def _begun(held: BufferedFile) -> tuple[int, Iterator[bytes]]:
    """Where the text begins, behind a byte order mark, and its blocks.

    raises: InputError FILE_MAGIC where it is no text of this kind.
    """
    content = blocks(held)
    first = next(content, b"")
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise wrong_magic(held, "JSON lines in UTF-8", " (UTF-16)")
    if first.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\x04\x22\x4d\x18")):
        raise wrong_magic(
            held, "JSON lines", f"; its name says how a file is packed: {', '.join(with_packed(('.jsonl',)))}"
        )
    start = len(BOM) if first.startswith(BOM) else 0
    return start, chain([first[start:]] if first[start:] else [], content)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = loaded(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


SOURCE = JsonlSource
