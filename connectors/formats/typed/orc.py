"""ORC files as input: a row group is a stripe, decoded by pyarrow.

Rows and places of the stripes are in the file's tail, which pyarrow hands out as it is; nothing is decoded to plan. The
format has no checksums: a flipped bit inside a stripe may be another value, and nothing tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.orc as orc
from google.protobuf.message import DecodeError

from connectors.formats.base import States
from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import (
    DECODE_ERRORS,
    MAX_ROW_GROUP_BYTES,
    bad_row_group,
    check_unchanged,
    decoded,
    planned_file,
    refusing,
    unreadable,
    while_running,
    wrong_magic,
    wrong_rows,
)
from connectors.formats.plain import plain_schema, plain_table, refuse_larger
from connectors.formats.schema import position
from connectors.formats.typed.calendar import gregorian, has_old_dates
from connectors.formats.typed.orc_tail_pb2 import FileTail, Footer
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError, RunnerError
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Input

MAGIC = b"ORC"
_OLD_CALENDAR = 1  # JULIAN_GREGORIAN of orc_proto.proto: what Java counts in, and so Spark and Hive
_OUT_OF_RANGE = "out of range for nanosecond resolution"  # in what pyarrow (26.0) says of a timestamp

# Kinds of orc_proto.proto -> bytes of a value in Arrow; text and binary have offsets, and what statistics add up to.
_WIDTHS = {0: 1 / 8, 1: 1, 2: 2, 3: 4, 4: 8, 5: 4, 6: 8, 9: 8, 10: 4, 11: 4, 12: 0, 13: 1, 14: 16, 15: 4, 18: 8}
_OFFSET_BYTES = 4

# pyarrow fetches each stream of a column by itself: a stripe not much larger than what is read comes as a whole.
_WHOLE_STRIPE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Tail:
    """What the end of a file says: `footer`, and the schema in the types of the file."""

    footer: Footer
    schema: pa.Schema
    reader: orc.ORCFile
    lent: _Lent


class _Lent:
    """A file as pyarrow holds it. In ORC (26.0) an exception of a read becomes damage; here the exception is kept."""

    closed = False

    def __init__(self, file: BufferedFile) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._file, self._failed = file, list[RunnerError]()

    def read(self, size: int = -1) -> pa.Buffer:
        try:
            return self._file.read(size)
        except RunnerError as error:
            self._failed.append(error)
            raise

    @contextmanager
    def telling(self) -> Iterator[None]:
        """raises: what a read raised, in the place of what became of it."""
        try:
            yield
        except DECODE_ERRORS:
            if self._failed:
                raise self._failed.pop() from None
            raise


class ORCSource:
    """Reads ORC files. Remembers the last schema seen, so that files with the same schema share one object."""

    states: States = "all"
    suffixes: tuple[str, ...] = (".orc",)
    max_row_group_bytes = MAX_ROW_GROUP_BYTES
    max_row_bytes: int | None = None

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None

    @classmethod
    def of(cls, input: Input) -> Self:
        return cls()

    def begins(self, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        return self._known(plain_schema(self.stated(store, file)[0]))

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            return read_tail(held).schema, {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """Row groups and schema; text is counted by the statistics of the file, where a writer left them."""
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            tail = read_tail(held)
        groups = tuple(_row_group(tail, index, columns) for index in range(len(tail.footer.stripes)))
        return InputFile(file.url, file.size, file.version, groups), self._known(plain_schema(tail.schema))

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[ORCReader]:
        with planned_file(store, inputs) as held:
            try:
                tail = read_tail(held)
            except InputError as error:
                raise while_running(error) from error
            for name in columns:
                position(tail.schema, name, inputs.url)
            yield ORCReader(store, held, tail, inputs, columns, self.max_row_group_bytes)

    def _known(self, schema: pa.Schema) -> pa.Schema:
        if self._schema is None or not self._schema.equals(schema, check_metadata=True):
            self._schema = schema
        return self._schema


def read_tail(file: BufferedFile) -> Tail:
    """Parse the end of a file. raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_FOOTER, FILE_SCHEMA,
    FILE_UNSUPPORTED, FILE_ENCRYPTED."""
    if file.size == 0:
        raise unreadable(file, "FILE_EMPTY", "it has zero bytes")
    file.hold([(0, min(len(MAGIC), file.size)), (max(0, file.size - 64 * 1024), file.size)])
    if bytes(file.take(0, min(len(MAGIC), file.size))) != MAGIC:
        raise wrong_magic(file, "an ORC file")
    end = bytes(file.take(max(len(MAGIC), file.size - len(MAGIC) - 1), file.size))
    if end[:-1] != MAGIC:
        found = f"it starts as ORC, but its {file.size} bytes do not end with a postscript"
        raise unreadable(file, "FILE_TRUNCATED", found)
    lent = _Lent(file)
    with refusing(file, "FILE_FOOTER", "its footer cannot be parsed", (*DECODE_ERRORS, DecodeError)), lent.telling():
        reader = orc.ORCFile(pa.PythonFile(lent, mode="r"))
        schema = reader.schema
        _ = schema.names  # decodes them
        footer = FileTail.FromString(reader.reader.serialized_file_tail()).footer
    if footer.HasField("encryption"):
        raise unreadable(file, "FILE_ENCRYPTED", "it has encrypted columns, and keys are not supported")
    rows, stop = sum(stripe.number_of_rows for stripe in footer.stripes), 0
    for stripe in footer.stripes:
        stop = max(stop, stripe.offset + stripe.index_length + stripe.data_length + stripe.footer_length)
    if stop > file.size or len(footer.stripes) != reader.nstripes:
        raise unreadable(file, "FILE_FOOTER", f"its stripes end at {stop}, the file at {file.size}")
    if rows != footer.number_of_rows:
        found = f"its stripes have {rows} rows, and the whole of it {footer.number_of_rows}"
        raise unreadable(file, "FILE_FOOTER", found)
    return Tail(footer, schema, reader, lent)


def _row_group(tail: Tail, index: int, columns: Sequence[str]) -> RowGroup:
    rows = tail.footer.stripes[index].number_of_rows
    sizes = decoded_sizes(tail, index, columns)
    exact = all(_fixed(tail.schema.field(name).type) for name in sizes)
    return RowGroup(rows, sum(sizes.values()), exact=exact)


def _fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(kind) or pa.types.is_decimal(kind))


def decoded_sizes(tail: Tail, index: int, columns: Sequence[str]) -> dict[str, int]:
    """Column -> bytes in a stripe, when decoded; of those that the file has, once. Of text and lists their share of
    what the statistics of the file add up to."""
    footer = tail.footer
    stripe, sizes = footer.stripes[index], dict[str, int]()
    share = stripe.number_of_rows / max(1, footer.number_of_rows)
    tops = list(footer.types[0].subtypes) if footer.types else []
    for name in dict.fromkeys(columns):
        at = tail.schema.get_field_index(name)
        if 0 <= at < len(tops):
            stop = tops[at + 1] if at + 1 < len(tops) else len(footer.types)
            own = _WIDTHS.get(footer.types[tops[at]].kind, _OFFSET_BYTES) * stripe.number_of_rows
            inside = sum(_bytes_inside(footer, column, tops[at]) for column in range(tops[at], stop))
            sizes[name] = round(own + share * inside)
    return sizes


def _bytes_inside(footer: Footer, column: int, top: int) -> float:
    """What a type adds to the slots of the column that it is, or is inside: of the whole file."""
    if column >= len(footer.statistics):
        return 0
    said, kind = footer.statistics[column], footer.types[column].kind
    slots = 0 if column == top else said.number_of_values * _WIDTHS.get(kind, _OFFSET_BYTES)
    return slots + max(0, said.string_statistics.sum, said.binary_statistics.sum)


class ORCReader:
    """An open file; see `connectors.formats.base.RowGroupReader`."""

    def __init__(
        self,
        store: Store,
        held: BufferedFile,
        tail: Tail,
        inputs: InputSlice,
        columns: Sequence[str],
        most_bytes: int,
    ) -> None:
        self._store, self._held, self._tail, self._inputs = store, held, tail, inputs
        self._columns, self._most_bytes = list(columns), most_bytes

    @property
    def fetch_s(self) -> float:
        return self._held.fetch_s

    def read(self, row_group: int) -> pa.Table:
        if row_group >= len(self._tail.footer.stripes):
            raise wrong_rows(self._inputs, row_group, 0)
        return decoded(self._inputs, row_group, "PAGE_CORRUPT", self._decode, self._decode_again)

    def _decode(self, row_group: int) -> pa.Table:
        refuse_larger(decoded_sizes(self._tail, row_group, self._columns).items(), self._most_bytes)
        stripe = self._tail.footer.stripes[row_group]
        if not self._columns:
            return pa.table({"": pa.nulls(stripe.number_of_rows)}).select([])
        size = stripe.index_length + stripe.data_length + stripe.footer_length
        whole = size <= _WHOLE_STRIPE_BYTES or 2 * len(self._columns) >= len(self._tail.schema)
        try:
            self._held.hold([(stripe.offset, stripe.offset + size)] if whole else [])
            with self._tail.lent.telling():
                batch = self._tail.reader.read_stripe(row_group, columns=self._columns)
                if not self._chosen(batch.schema):
                    batch = self._tail.reader.read_stripe(row_group)
            batch.validate(full=True)
        finally:
            self._held.hold([])
        table = pa.Table.from_batches([batch]).select(self._columns)
        if self._tail.footer.calendar == _OLD_CALENDAR:  # pyarrow (26.0) takes no notice
            table = self._of_our_calendar(table, row_group)
        return plain_table(table, self._most_bytes)

    def _of_our_calendar(self, table: pa.Table, row_group: int) -> pa.Table:
        """raises: RunnerError FILE_UNSUPPORTED for an old date inside of another value."""
        for at, (field, column) in enumerate(zip(table.schema, table.columns, strict=True)):
            if pa.types.is_date32(field.type):
                table = table.set_column(at, field, pa.chunked_array(map(gregorian, column.chunks), field.type))
            elif any(map(has_old_dates, column.chunks)):
                found = (
                    f"column {field.name!r} has a date before 1582-10-15 inside of another value, counted in the Julian"
                    " calendar: write it as a column of its own, or as text"
                )
                raise bad_row_group(self._inputs, row_group, "FILE_UNSUPPORTED", found, field.name)
        return table

    def _chosen(self, schema: pa.Schema) -> bool:
        """Whether these are the wanted columns: pyarrow (26.0) takes `a.b` for a field of a later column `a`."""
        wanted, names = self._tail.schema, set(schema.names)
        return all(name in names and schema.field(name).type == wanted.field(name).type for name in self._columns)

    def _decode_again(self, row_group: int) -> pa.Table:
        """A second try after bad bytes: they may have been damaged on the way."""
        check_unchanged(self._store, self._inputs)
        try:
            return self._decode(row_group)
        except DECODE_ERRORS as error:
            raise self._undecodable(row_group, error) from error

    def _undecodable(self, row_group: int, error: Exception) -> RunnerError:
        if _OUT_OF_RANGE in str(error):
            found = f"{error}; pyarrow reads timestamps of ORC as nanoseconds, of the years 1678 to 2261: write it anew"
            return bad_row_group(self._inputs, row_group, "FILE_UNSUPPORTED", found)
        unsupported = isinstance(error, pa.ArrowNotImplementedError)
        return bad_row_group(self._inputs, row_group, "FILE_UNSUPPORTED" if unsupported else "PAGE_CORRUPT", error)


SOURCE = ORCSource
