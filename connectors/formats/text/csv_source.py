"""CSV files: a row group is a run of rows, cut when it is planned; a packed file is one.

Files name their columns and say nothing of types: those come from the job. Owns the first line and where rows lie;
values are `csv_values`. The invariant: a row group has the rows that were planned, bad lines too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from connectors.formats.base import States
from connectors.formats.buffered import BufferedFile
from connectors.formats.declared import types_of
from connectors.formats.fault import (
    MAX_ROW_GROUP_BYTES,
    BadRows,
    BadRowsError,
    bad_row_group,
    one_line,
    planned_file,
    unreadable,
    while_running,
    wrong_magic,
    wrong_rows,
)
from connectors.formats.schema import position
from connectors.formats.text.csv_values import Decoder, Dialect, Wanted, names_in, readable
from connectors.formats.text.cut import Cut, aligned, cuts
from connectors.formats.text.packed import CODECS, blocks, codec_of, is_packed, with_packed
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Csv, Input

_BOM = b"\xef\xbb\xbf"
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")
_OTHER_FORMATS = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1", b"ARROW1\x00", b"BZh9")
_MOST_LINE_BYTES = 2**30  # of one row: a column of text holds 2 GiB
_MOST_HEADER_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Head:
    """What stands in front of the rows. names: of the columns. start, line: where the rows begin."""

    names: tuple[str, ...]
    start: int
    line: int


class CsvSource:
    """csv: how the files are written. types: of columns; all others are text."""

    states: States = "names"
    suffixes = with_packed((".csv", ".tsv"))
    packed = staticmethod(is_packed)
    max_row_group_bytes = MAX_ROW_GROUP_BYTES
    max_row_bytes: int | None = None

    def __init__(self, csv: Csv | None = None, types: Mapping[str, pa.DataType] | None = None) -> None:
        self._csv, self._types = csv or Csv(), types or {}
        self._schemas: dict[tuple[str, ...], pa.Schema] = {}

    @classmethod
    def of(cls, input: Input) -> Self:
        """raises: InputError COLUMN_TYPE where a type is none, or none of CSV files."""
        return cls(input.csv, _types(input.types))

    def begins(self, head: bytes) -> bool:
        return False  # any text may be CSV

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            return self._schema_of(self._head(held).names)

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        return self.schema(store, file), {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """cost: reads the whole file."""
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            head = self._head(held)
            packed = codec_of(file.url) is not None
            grammar, content = self._dialect(file.url).grammar(), blocks(held, head.start)
            check = self._bound(held, MAX_ROW_GROUP_BYTES if packed else _MOST_LINE_BYTES)
            found = [
                one for one in cuts(content, grammar, head.start, head.line, whole=packed, check=check) if one.rows
            ]
        schema = self._schema_of(head.names)
        kinds = [schema.field(name).type for name in columns if len(schema.get_all_field_indices(name)) == 1]
        groups = tuple(RowGroup(one.rows, _bytes(one, kinds), place=(one.start, one.stop, one.line)) for one in found)
        return InputFile(file.url, file.size, file.version, groups), schema

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[CsvReader]:
        with planned_file(store, inputs) as held:
            try:
                names = self._head(held).names
                schema = self._schema_of(names)
                wanted = [
                    Wanted(position(schema, name, inputs.url), name, self._types.get(name, pa.string()))
                    for name in columns
                ]
                dialect = self._dialect(inputs.url)
                check = self._bound(held, _MOST_LINE_BYTES)
                yield CsvReader(held, inputs, dialect, Decoder(dialect, len(names), wanted), check)
            except InputError as error:
                raise while_running(error) from error

    def _bound(self, held: BufferedFile, most: int) -> Check:
        return Check(held, min(most, self.max_row_group_bytes))

    def _dialect(self, url: str) -> Dialect:
        csv = self._csv
        delimiter = csv.delimiter or ("\t" if _plain_name(url).endswith(".tsv") else ",")
        return Dialect(delimiter, csv.quote, csv.escape, csv.nulls, csv.newlines_in_values)

    def _schema_of(self, names: tuple[str, ...]) -> pa.Schema:
        if names not in self._schemas:
            self._schemas[names] = pa.schema([(name, self._types.get(name, pa.string())) for name in names])
        return self._schemas[names]

    def _head(self, held: BufferedFile) -> Head:
        """raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_UNSUPPORTED, FILE_SCHEMA; those of packed files."""
        header = self._csv.header
        named = isinstance(header, tuple)
        first = next(blocks(held), b"") if held.size else b""
        if codec_of(held.url) is None and first.startswith(_OTHER_FORMATS):
            raise wrong_magic(held, "a CSV file")
        if first.startswith(_OTHER_ENCODINGS):
            raise unreadable(held, "FILE_UNSUPPORTED", "it is text in UTF-16; write it as UTF-8")
        start = len(_BOM) if first.startswith(_BOM) else 0
        if isinstance(header, tuple):
            return Head(header, start, 1)
        dialect, content = self._dialect(held.url), b""
        grammar, lines = dialect.grammar(), 0
        for block in aligned(blocks(held, start), grammar):
            found = grammar.rows(block)
            rows = np.flatnonzero(~found.blank)
            if len(rows):
                stop = int(found.stops[rows[0]])
                content += block[:stop]
                lines += int(np.searchsorted(found.line_stops, stop, "right"))
                break
            content, lines = content + block, lines + len(found.line_stops)
            if len(content) > _MOST_HEADER_BYTES:
                raise unreadable(held, "FILE_SCHEMA", f"its first line has no end in {_MOST_HEADER_BYTES:,} bytes")
        if not content.strip(b"\r\n"):
            missing = "" if held.size else "it has zero bytes"
            raise unreadable(held, "FILE_EMPTY", missing or "it has no first line, which names the columns")
        try:
            names = names_in(content, dialect)
        except (UnicodeDecodeError, pa.ArrowInvalid) as error:
            raise unreadable(held, "FILE_SCHEMA", f"its first line cannot be read: {one_line(error)}") from error
        if header and not named:
            return Head(tuple(names), start + len(content), 1 + lines)
        return Head(tuple(f"f{at}" for at in range(len(names))), start, 1)


@dataclass(frozen=True, slots=True)
class Check:
    """Refuses a run of rows that grows beyond `most` bytes, while it is counted."""

    held: BufferedFile
    most: int

    def __call__(self, size: int) -> None:
        if size > self.most:
            packed = codec_of(self.held.url) is not None
            what = "unpacked, it has" if packed else "a row, or a value with a quote that nothing closes, has"
            way = "pack smaller files" if packed else "write shorter rows"
            text = f"{what} more than {self.most:,} bytes; {way}, or raise `limits.max_row_group_bytes`"
            raise unreadable(self.held, "ROWGROUP_TOO_BIG", text)


class CsvReader:
    """An open file; see `base.RowGroupReader`."""

    def __init__(
        self, held: BufferedFile, inputs: InputSlice, dialect: Dialect, decoder: Decoder, check: Check
    ) -> None:
        self._held, self._inputs, self._dialect, self._decoder, self._check = held, inputs, dialect, decoder, check

    @property
    def fetch_s(self) -> float:
        return self._held.fetch_s

    def read(self, row_group: int) -> pa.Table:
        tables, faults, rows = [self._decoder.schema.empty_table()], list[BadRows](), 0
        try:
            for line, content in self._pieces(*self._inputs.place(row_group)):
                table, bad = self._decoder.table(content, line)
                tables.append(table)
                faults += [BadRows(one.code, one.column, one.at + rows, one.stories) for one in bad]
                rows += table.num_rows
        except pa.ArrowInvalid as error:
            raise bad_row_group(self._inputs, row_group, "FILE_CORRUPT", error) from error
        if rows != self._inputs.rows[row_group - self._inputs.first]:
            raise wrong_rows(self._inputs, row_group, rows)
        table = pa.concat_tables(tables) if len(self._decoder.schema) else pa.table({"": pa.nulls(rows)}).select([])
        if faults:
            raise BadRowsError.of(self._inputs, row_group, table, faults)
        return table

    def _pieces(self, start: int, stop: int, line: int) -> Iterator[tuple[int, pa.Buffer]]:
        """The bytes of a row group, a packed one in pieces, and the number of the first line of each."""
        if codec_of(self._held.url) is None:
            yield line, self._held.take(start, stop)
            return
        kept: list[bytes] = []

        def keep() -> Iterator[bytes]:
            for block in blocks(self._held, start, stop):
                kept.append(block)
                yield block

        for one in cuts(keep(), self._dialect.grammar(), start, line, check=self._check):
            content = b"".join(kept)
            kept[:] = [content[one.stop - one.start :]]
            if one.rows:
                yield one.line, pa.py_buffer(content[: one.stop - one.start])


def _types(texts: Mapping[str, str]) -> dict[str, pa.DataType]:
    """raises: InputError COLUMN_TYPE."""
    types = types_of(texts)
    for name, kind in types.items():
        if not readable(kind):
            raise InputError(
                f"cannot read column {name!r} of CSV files as {texts[name]}: they hold texts, numbers, booleans, dates,"
                " times and timestamps; read it as one of these, or several columns by `stack`",
                code="COLUMN_TYPE",
                column=name,
            )
    return types


def _bytes(one: Cut, kinds: Sequence[pa.DataType]) -> int:
    """What a row group takes when it is decoded; of texts no more than all there is."""
    texts = [kind for kind in kinds if not _fixed(kind)]
    fixed = sum(-(-int(kind.bit_width) // 8) for kind in kinds if _fixed(kind))
    return one.rows * (fixed + 4 * len(texts)) + (one.stop - one.start if texts else 0)


def _fixed(kind: pa.DataType) -> bool:
    try:
        return bool(kind.bit_width)
    except ValueError:
        return False


def _plain_name(url: str) -> str:
    """The name of a file without what says how it is packed."""
    name = url.lower()
    return name.removesuffix(next((suffix for suffix in CODECS if name.endswith(suffix)), ""))


SOURCE = CsvSource
