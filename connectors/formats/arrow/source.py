"""Arrow IPC files and streams as input: a row group is a record batch, validated in full before it is used.

Bytes come from `buffered`. Row counts come from the metadata of the batches, so that a plan decodes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from connectors.formats.arrow.body import Bodies
from connectors.formats.arrow.footer import MAGIC, BatchReader, read_places, stored_schema
from connectors.formats.arrow.message import STREAM, Block, Place, read_blocks
from connectors.formats.arrow.stream import StreamReader, has_dictionaries, is_stream, read_messages, read_schema
from connectors.formats.base import States
from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import (
    DECODE_ERRORS,
    MAX_ROW_GROUP_BYTES,
    bad_row_group,
    check_unchanged,
    decoded,
    planned_file,
    while_running,
    wrong_rows,
)
from connectors.formats.plain import plain_schema, plain_table, plain_type, shares
from connectors.formats.schema import position
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup
from jobs.section.input import Input

_DAMAGE = (*DECODE_ERRORS, struct.error)  # the latter of the metadata of a dictionary, which no plan looks at


class ArrowSource:
    """Reads Arrow IPC files. Remembers the last schema seen, so that files with the same schema share one object."""

    states: States = "all"
    suffixes: tuple[str, ...] = (".arrow", ".feather", ".ipc", ".arrows")
    max_row_group_bytes = MAX_ROW_GROUP_BYTES
    max_row_bytes: int | None = None

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None

    @classmethod
    def of(cls, input: Input) -> Self:
        return cls()

    def begins(self, head: bytes) -> bool:
        return head.startswith((MAGIC, STREAM))

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        return self._known(plain_schema(self.stated(store, file)[0]))

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            if is_stream(held):
                return read_schema(held)[1], {}
            read_places(held)
            return stored_schema(held), {}

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """Row groups and schema; planned bytes are a share of the file where the width of a column is not fixed.

        cost: of a stream, one walk from batch to batch.
        """
        with BufferedFile(store.open(file.url), file.url, file.size) as held:
            streamed = is_stream(held)
            if streamed:
                messages = read_messages(held)
                stored, blocks = messages.schema, list(messages.batches)
            else:
                places, _ = read_places(held)
                stored = stored_schema(held)
                blocks = read_blocks(held, places)
        schema = self._known(plain_schema(stored))
        groups = (_row_group(block, stored, schema, columns) for block in blocks)
        if streamed:
            groups = (replace(group, place=block.place.numbers) for group, block in zip(groups, blocks, strict=True))
        return InputFile(file.url, file.size, file.version, tuple(groups)), schema

    @contextmanager
    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> Iterator[ArrowReader]:
        with planned_file(store, inputs) as held, ExitStack() as opened:
            try:
                find = _found_in_stream if is_stream(held) else _found_in_file
                found = find(held, inputs, columns, opened)
            except InputError as error:
                raise while_running(error) from error
            bodies = Bodies(held, found.schema, found.wanted, found.dictionaries, self.max_row_group_bytes)
            yield ArrowReader(store, bodies, found.reader, found.blocks, inputs, columns)

    def _known(self, schema: pa.Schema) -> pa.Schema:
        if self._schema is None or not self._schema.equals(schema, check_metadata=True):
            self._schema = schema
        return self._schema


@dataclass(frozen=True)
class _Found:
    """What is read of a file. wanted: index -> name of the columns. blocks: index -> the batches that were planned."""

    schema: pa.Schema
    wanted: Mapping[int, str]
    dictionaries: Sequence[Place]
    blocks: Mapping[int, Block]
    reader: BatchReader | StreamReader


def _found_in_file(held: BufferedFile, inputs: InputSlice, columns: Sequence[str], opened: ExitStack) -> _Found:
    places, dictionaries = read_places(held)
    schema = stored_schema(held)
    wanted = {position(schema, name, inputs.url): name for name in columns}
    reader = opened.enter_context(closing(BatchReader(held, sorted(wanted))))  # while the footer is held
    planned = places[inputs.first : inputs.first + len(inputs.rows)]
    blocks = dict(enumerate(read_blocks(held, planned), inputs.first))
    return _Found(schema, wanted, dictionaries, blocks, reader)


def _found_in_stream(held: BufferedFile, inputs: InputSlice, columns: Sequence[str], opened: ExitStack) -> _Found:
    """The plan says where the batches are; a stream with dictionaries is walked through once more, to find them."""
    front, schema = read_schema(held)
    wanted = {position(schema, name, inputs.url): name for name in columns}
    dictionaries = read_messages(held).dictionaries if any(map(has_dictionaries, schema.types)) else ()
    planned = [Place(*inputs.place(index)) for index in range(inputs.first, inputs.first + len(inputs.rows))]
    blocks = dict(enumerate(read_blocks(held, planned), inputs.first))
    reader = opened.enter_context(closing(StreamReader(held, front, schema, blocks, dictionaries, sorted(wanted))))
    return _Found(schema, wanted, dictionaries, blocks, reader)


def _row_group(block: Block, stored: pa.Schema, schema: pa.Schema, columns: Sequence[str]) -> RowGroup:
    """stored: the schema of the file. schema: the same of plain types."""
    wanted, planned = set(columns), _planned_bytes(block, schema, columns)
    decoded, exact = 0, True
    try:
        found = block.of_columns(stored)
    except struct.error:
        return RowGroup(block.rows, planned, exact=False)
    for field, buffers in zip(stored, found, strict=True):
        if field.name in wanted:
            bits, held = fixed_bits(plain_type(field.type)), sum(size for _, size in buffers)
            decoded += held if bits is None else block.rows * bits // 8
            exact = exact and (bits is not None or not (block.compressed or shares(field.type)))
    return RowGroup(block.rows, planned, decoded=decoded, exact=exact)


def _planned_bytes(block: Block, schema: pa.Schema, columns: Sequence[str]) -> int:
    widths = [fixed_bits(field.type) for field in schema]
    wanted = set(columns)
    fixed = sum(width or 0 for width, name in zip(widths, schema.names, strict=True) if name in wanted)
    variable = sum(width is None and name in wanted for width, name in zip(widths, schema.names, strict=True))
    return block.rows * fixed // 8 + block.place.body_bytes * variable // max(1, sum(width is None for width in widths))


def fixed_bits(kind: pa.DataType) -> int | None:
    """Bits of one value; None where values differ in size."""
    if isinstance(kind, pa.BaseExtensionType):
        return fixed_bits(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        inner = fixed_bits(kind.value_type)
        return None if inner is None else inner * kind.list_size
    if pa.types.is_struct(kind):
        inners = [fixed_bits(field.type) for field in kind]
        return None if None in inners else sum(inner or 0 for inner in inners)
    if pa.types.is_null(kind):
        return 0
    try:
        return int(kind.bit_width)
    except ValueError:
        return None


class ArrowReader:
    """An open file; see `connectors.formats.base.RowGroupReader`."""

    def __init__(
        self,
        store: Store,
        bodies: Bodies,
        reader: BatchReader | StreamReader,
        blocks: Mapping[int, Block],
        inputs: InputSlice,
        columns: Sequence[str],
    ) -> None:
        """blocks: index -> the batches that were planned and are there."""
        self._store, self._bodies, self._reader, self._blocks, self._inputs = store, bodies, reader, blocks, inputs
        self._columns = list(columns)

    @property
    def fetch_s(self) -> float:
        return self._bodies.file.fetch_s

    def read(self, row_group: int) -> pa.Table:
        if row_group not in self._blocks:
            raise wrong_rows(self._inputs, row_group, 0)
        return decoded(self._inputs, row_group, "BATCH_INVALID", self._decode, self._decode_again, _DAMAGE)

    def _decode(self, row_group: int) -> pa.Table:
        if not self._columns:
            return pa.table({"": pa.nulls(self._blocks[row_group].rows)}).select([])
        with self._bodies.held(self._blocks[row_group]):
            batch = self._reader.batch(row_group)
        batch.validate(full=True)  # offsets and UTF-8: nothing else protects those who read by address
        return plain_table(pa.Table.from_batches([batch]).select(self._columns), self._bodies.most_bytes)

    def _decode_again(self, row_group: int) -> pa.Table:
        """A second try after bad bytes: they may have been damaged on the way."""
        check_unchanged(self._store, self._inputs)
        try:
            return self._decode(row_group)
        except _DAMAGE as error:
            unsupported = isinstance(error, pa.ArrowNotImplementedError)
            code = "FILE_UNSUPPORTED" if unsupported else "BATCH_INVALID"
            raise bad_row_group(self._inputs, row_group, code, error) from error
