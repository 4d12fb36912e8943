"""What the footer of a Parquet file says: found, parsed, and looked at without harm.

Owns which footers are refused before anything is read; refuses to know pages. The invariant: what it hands out of a
column chunk was opened by the reader first, so that no damaged footer ends the process.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.formats.buffered import BufferedFile
from connectors.formats.chunk import Chunk, Leaf, TextSizes
from connectors.formats.extension import is_registered
from connectors.formats.fault import DECODE_ERRORS, one_line, refusing, unreadable, wrong_magic
from connectors.formats.int96 import USUAL, Unit, unit_of
from connectors.formats.plain import plain_schema
from connectors.formats.schema import leaf_types
from jobs.errors import one_of

_log = logging.getLogger(__name__)

_WIDE_INTEGERS = "Integers with more than 64 bits"  # what pyarrow says of them when it opens a file
_MAGIC, _ENCRYPTED_MAGIC = MAGICS = (b"PAR1", b"PARE")
_SCHEMA_KEY, _HIDDEN_KEY = b"ARROW:schema", b"ARROW:hidden"
_SMALLEST = 12  # bytes: magic, length of the footer, magic

_ERRORS = (*DECODE_ERRORS, MemoryError)


@dataclass(frozen=True)
class FileSchema:
    """A schema as the file has it, as it is delivered, and which leaf columns belong to which top-level field.

    leaves: of each field. columns: the leaf columns. instants: those that are timestamps.
    shared: whether it serves for other files too; extension types of Python say themselves whether they are equal.
    """

    raw: pa.Schema
    plain: pa.Schema
    leaves: tuple[range, ...]
    columns: tuple[Leaf, ...]
    instants: tuple[int, ...]
    shared: bool

    @classmethod
    def of(cls, raw: pa.Schema, stored: pq.ParquetSchema) -> FileSchema:
        leaves, kinds = list[range](), list[pa.DataType]()
        for field in raw:
            start = len(kinds)
            kinds += leaf_types(field.type)
            leaves.append(range(start, len(kinds)))
        columns = tuple(map(Leaf.of, map(stored.column, range(len(stored)))))
        instants = tuple(at for at, kind in enumerate(kinds[: len(columns)]) if pa.types.is_timestamp(kind))
        shared = not any(is_registered(field.type) for field in raw)
        return cls(raw, plain_schema(raw), tuple(leaves), columns, instants, shared)


class Footer:
    """The parsed footer of one file, with column metadata that is safe to look at.

    `metadata.row_group(i).column(j)` aborts the process where that column is encrypted or its metadata damaged:
    the C++ exception passes through a binding that does not catch it. `chunks`, the only one to call it, has the
    same columns opened by the reader first, which does catch, on a file of which only the footer can be read.
    """

    def __init__(
        self,
        file: BufferedFile,
        metadata: pq.FileMetaData | None = None,
        *,
        arrow_schema: bool = True,
        unit: Unit = USUAL,
    ) -> None:
        """file: with its footer held, unless its parsed `metadata` is given. raises: as pyarrow for a bad footer.

        arrow_schema: the stored one is heeded, if there is one; else columns are of the types that Parquet states.
        unit: of what is stored as INT96.
        """
        self.unit = unit
        self.text = self.stated = TextSizes()
        self.file = file
        self._probe = _FooterFile(file, arrow_schema)
        # buffer_size: columns are opened without reading, so all are checked before the first page is read.
        opened = pa.PythonFile(self._probe, mode="r")
        self._parquet = pq.ParquetFile(
            opened, metadata=metadata, buffer_size=4096, pre_buffer=False, coerce_int96_timestamp_unit=unit
        )
        self._probe.seal()
        self.metadata = self._parquet.metadata

    def load_schema(self, known: FileSchema | None) -> None:
        """known: the schema of another file, used again if it is the same. raises: what pyarrow raises."""
        raw = self._parquet.schema_arrow.remove_metadata()
        same = known is not None and known.shared and known.raw.equals(raw, check_metadata=True)
        self.schema = known if known is not None and same else FileSchema.of(raw, self.metadata.schema)

    def stated_unit(self) -> Unit:
        """The unit for what is stored as INT96."""
        stored = self.metadata.schema
        leaves = [leaf for leaf in self.schema.instants if stored.column(leaf).physical_type == "INT96"]
        return unit_of(self.metadata, leaves) if leaves else self.unit

    def leave_out(self, names: Sequence[str]) -> bool:
        """Let the file have no columns of these names; False where its schema is one that has none already."""
        kept = [field for field in self.schema.plain if field.name not in names]
        if len(kept) == len(self.schema.plain):
            return False
        self.schema = replace(self.schema, plain=pa.schema(kept))
        return True

    def chunks(self, row_group: int, columns: Sequence[str]) -> list[Chunk]:
        """The column chunks below `columns`, in the order of the file.

        raises: InputError FILE_ENCRYPTED, FILE_UNSUPPORTED; FILE_FOOTER too where they hold other rows than the group.
        """
        self._rehearse(row_group, columns)
        group, wanted = self.metadata.row_group(row_group), set(columns)
        found: list[Chunk] = []
        for name, leaves in zip(self.schema.raw.names, self.schema.leaves, strict=True):
            if name in wanted:
                for leaf in leaves:
                    found.append(Chunk.of(name, self.schema.columns[leaf], group.column(leaf)))
                    self._check_values(row_group, group.num_rows, found[-1])
        return found

    def _check_values(self, row_group: int, rows: int, chunk: Chunk) -> None:
        """A reader takes the first `rows` rows of a column, and does not look whether there are more."""
        values = chunk.values
        if values != rows and not (chunk.leaf.repeated and 0 < rows < values):  # in a list, each row has one at least
            found = f"{values} values in {chunk.leaf.path!r}" if rows else "values"
            claim = f"row group {row_group} claims {rows or 'no'} rows, and its columns hold {found}"
            raise unreadable(self.file, "FILE_FOOTER", claim)

    def _rehearse(self, row_group: int, columns: Sequence[str]) -> None:
        failure = self._failure(row_group, columns)
        if failure is None:
            return
        # Again one by one, to name the column.
        column = next((name for name in columns if self._failure(row_group, [name]) is not None), None)
        what = f"row group {row_group} column {column!r}: {one_line(failure)}"
        if "decrypt" in str(failure).lower():
            raise unreadable(self.file, "FILE_ENCRYPTED", f"{what}; encrypted columns are not supported") from failure
        raise unreadable(self.file, "FILE_UNSUPPORTED" if unsupported(failure) else "FILE_FOOTER", what) from failure

    def _failure(self, row_group: int, columns: Sequence[str]) -> Exception | None:
        self._probe.reached = False
        try:
            # Batches, because these end at the first column that has no bytes; a whole row group tries each of them.
            batches = self._parquet.iter_batches(1, row_groups=[row_group], columns=list(columns), use_threads=False)
            next(batches, None)
        except MemoryError:  # pyarrow's is an ArrowException too, and says nothing of the file
            raise
        except DECODE_ERRORS as error:
            return None if self._probe.reached else error
        return None


class _FooterFile(BufferedFile):
    """After `seal`, has a size and no bytes, and notes that some were wanted."""

    def __init__(self, file: BufferedFile, arrow_schema: bool) -> None:
        super().__init__(io.BytesIO(), file.url, file.size)
        self._whole: BufferedFile | None = file
        self._arrow_schema = arrow_schema
        self.reached = False

    def seal(self) -> None:
        self._whole = None

    def read(self, size: int | None = -1) -> Any:
        if self._whole is not None:
            return super().read(size)
        self.reached = True  # for each column chunk of a file: nothing more is done
        return b""

    def take(self, start: int, stop: int) -> pa.Buffer:
        if self._whole is not None:
            taken = self._whole.take(start, stop)
            # A key of the same length, that nobody looks for.
            return taken if self._arrow_schema else pa.py_buffer(bytes(taken).replace(_SCHEMA_KEY, _HIDDEN_KEY))
        self.reached = True
        return pa.py_buffer(b"")


def read_footer(file: BufferedFile, known: FileSchema | None = None) -> Footer:
    """Find, fetch and parse the footer.

    known:  the schema of another file, used again if this file has the same.
    raises: InputError FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_ENCRYPTED, FILE_FOOTER, FILE_SCHEMA,
            FILE_UNSUPPORTED.
    """
    footer_bytes = _hold_footer(file)
    with refusing(file, "FILE_FOOTER", "its footer cannot be parsed", _ERRORS):
        try:
            footer = Footer(file)
        except pa.ArrowNotImplementedError as error:
            if _WIDE_INTEGERS not in str(error):
                raise
            footer = Footer(file, arrow_schema=False)
    _check_rows(file, footer.metadata)
    with refusing(file, "FILE_SCHEMA", "its schema cannot be read", _ERRORS):
        footer.load_schema(known)
    leaves = sum(len(leaf) for leaf in footer.schema.leaves)
    if leaves != footer.metadata.num_columns:
        counts = f"its schema has {leaves} leaf columns, its footer {footer.metadata.num_columns}"
        raise unreadable(file, "FILE_SCHEMA", counts)
    if (unit := footer.stated_unit()) != footer.unit:
        footer = Footer(file, unit=unit)
        footer.load_schema(known)
    footer.stated = TextSizes(footer_bytes)
    if any(leaf.kind == "BYTE_ARRAY" for leaf in footer.schema.columns):
        footer.text = TextSizes(footer_bytes)
    if _HIDDEN_KEY in (footer.metadata.metadata or {}):
        _leave_out_wide_integers(file, footer)
    return footer


def _leave_out_wide_integers(file: BufferedFile, footer: Footer) -> None:
    """Polars stores 128-bit integers as 16 bytes that only its Arrow schema calls numbers; pyarrow refuses the file."""
    leaves = footer.metadata.schema
    names = [
        field.name
        for field, columns in zip(footer.schema.raw, footer.schema.leaves, strict=True)
        if any(leaves.column(at).length == 16 and leaves.column(at).logical_type.type == "NONE" for at in columns)
    ]
    if footer.leave_out(names):
        story = (
            "'%s', written by %s, has 128-bit integers, which pyarrow cannot read: columns %s are left out, the others"
            " are of the types that Parquet states"
        )
        _log.warning(story, file.url, footer.metadata.created_by, one_of(names))


Parsed = tuple[pq.FileMetaData, FileSchema, TextSizes, Unit]


class SharedFooters:
    """The parsed footers of the files that a worker opened last: each is fetched, parsed and held in memory once.

    A footer of a hundred thousand row groups takes 65 MB in the file and ten times as much when parsed (pyarrow 26.0),
    and each reader thread opens the file.
    """

    def __init__(self, most: int = 2) -> None:
        """most: files remembered: the one that is read, and the next."""
        self._most, self._lock = most, threading.Lock()
        self._known: dict[str, tuple[threading.Lock, list[Parsed]]] = {}  # the latest last; none until it is parsed

    def open(self, file: BufferedFile, identity: str, known: FileSchema | None) -> Footer:
        """A footer for one thread to read with.

        identity: of the content; "": unknown, and nothing is shared. raises: as `read_footer`.
        """
        if not identity:
            return read_footer(file, known)
        with self._lock:
            parsing, parsed = self._known.pop(identity, (threading.Lock(), []))
            self._known[identity] = parsing, parsed
            while len(self._known) > self._most:
                del self._known[next(iter(self._known))]
        with parsing:
            if not parsed:
                footer = read_footer(file, known)
                parsed.append((footer.metadata, footer.schema, footer.text, footer.unit))
                footer.stated = TextSizes()  # a reader asks for no statistics, and its footer may be large
                return footer
        metadata, schema, text, unit = parsed[0]
        footer = Footer(file, metadata, unit=unit)  # what opens columns is for one thread, what was parsed for all
        footer.schema, footer.text = schema, text
        return footer


def _hold_footer(file: BufferedFile) -> pa.Buffer:
    if file.size == 0:
        raise unreadable(file, "FILE_EMPTY", "it has zero bytes")
    tail = file.tail()
    end = bytes(tail[-8:])
    whole = end[4:] == _MAGIC and file.size >= _SMALLEST
    if end[4:] == _ENCRYPTED_MAGIC:
        raise unreadable(file, "FILE_ENCRYPTED", "its footer is encrypted; decryption keys are not supported")
    if not whole and bytes(file.take(0, min(4, file.size))) in MAGICS:
        raise unreadable(
            file, "FILE_TRUNCATED", f"it starts as Parquet, but its {file.size} bytes do not end with a footer"
        )
    if not whole:
        raise wrong_magic(file, "Parquet")
    length = int.from_bytes(end[:4], "little")
    if length + _SMALLEST > file.size:
        raise unreadable(file, "FILE_FOOTER", f"its footer claims {length} bytes, the file has {file.size}")
    if length + 8 > len(tail):
        file.hold([(file.size - length - 8, file.size)])
    return file.take(file.size - length - 8, file.size - 8)


def _check_rows(file: BufferedFile, metadata: pq.FileMetaData) -> None:
    rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0:
        raise unreadable(file, "FILE_FOOTER", f"a row group claims {min(rows)} rows")
    if metadata.num_rows != sum(rows):
        if not rows:
            raise unreadable(file, "FILE_FOOTER", f"it claims {metadata.num_rows} rows and has no row group")
        # Legitimate files do this too: the row groups are what is read.
        _log.warning("'%s' claims %d rows, its row groups %d: taking these", file.url, metadata.num_rows, sum(rows))


def unsupported(error: Exception) -> bool:
    text = str(error).lower()  # an unknown codec is a plain OSError
    return isinstance(error, pa.ArrowNotImplementedError) or "not supported" in text or "unsupported" in text
