"""The protocols of this package: what a format must offer to be read from and written to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import pyarrow as pa

from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.plan import InputFile
from jobs.section.input import Input


class RowGroupReader(Protocol):
    """An open file. `read` may be called for any planned row group, one call at a time; it keeps no table alive."""

    @property
    def fetch_s(self) -> float:
        """Seconds spent so far on fetching bytes, the footer's included; what else a `read` takes is decoding."""
        ...

    def read(self, row_group: int) -> pa.Table:
        """One decoded row group with exactly the wanted columns, in the wanted order, of plain types.

        row_group: its index in the file.
        raises: DataError (`code` PAGE_CRC, PAGE_CORRUPT, ROWGROUP_ROWS, BATCH_INVALID, ...) naming file and row
                group where the bytes are bad, ROWGROUP_TOO_BIG where they are good and too many; BadRowsError where
                only some of its rows are bad; StorageError where they could not be fetched.
        """
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """What a file says of the values of a column in some rows, as far as that can be trusted.

    low, high:  bounds, which need not be values that are there; NaN is outside of any. None: unknown.
    nulls:      how many are null, fields of a struct that is null among them. None: unknown.
    only_nulls: nothing else is there.
    """

    low: pa.Scalar | None = None
    high: pa.Scalar | None = None
    nulls: int | None = None
    only_nulls: bool = False


States = Literal["all", "kinds", "names"]


class Source(Protocol):
    """One input format.

    states: what its files say of their columns: types; kinds of values, as JSON does; or their names alone. What they
            leave open, `Input.types` of the resolved job says.
    """

    states: States
    suffixes: tuple[str, ...]  # of its files, in small letters; the first one is that of its parts
    max_row_group_bytes: int  # decoded; a reader refuses more before it has them
    max_row_bytes: int | None  # heeded where a row says that it becomes larger than its bytes, as a picture does

    @classmethod
    def of(cls, input: Input) -> Self:
        """As the job says. input: with the format resolved."""
        ...

    def begins(self, head: bytes) -> bool:
        """Whether a file that begins with these bytes is of this format. head: `registry.HEAD_BYTES`, or the file."""
        ...

    def schema(self, store: Store, file: FileStat) -> pa.Schema:
        """The Arrow schema of all columns, of plain types (no dictionaries, runs, views), without metadata of its own.

        raises: InputError (`code` FILE_EMPTY, FILE_MAGIC, FILE_TRUNCATED, FILE_FOOTER, FILE_SCHEMA, FILE_UNSUPPORTED,
                FILE_ENCRYPTED) where the file is bad; StorageError where it could not be fetched.
        """
        ...

    def stated(self, store: Store, file: FileStat) -> tuple[pa.Schema, Mapping[str, str]]:
        """The schema in the types of the file, and column -> what the file says of it beside its type.

        raises: as `schema`.
        """
        ...

    def inspect(self, store: Store, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        """Row groups (bytes: decoded, of `columns` only) and the full schema, from one read of the footer.

        Columns that the file lacks, or has twice, are no error here: `schema.unify` reports them for all
        files at once. Files with equal schemas get the same schema object. Safe to call from several threads.

        raises: as `schema`; also InputError ROWGROUP_TOO_BIG.
        """
        ...

    def open(self, store: Store, inputs: InputSlice, columns: Sequence[str]) -> AbstractContextManager[RowGroupReader]:
        """Open the file for reading `columns`, top-level fields by their exact names; none: only rows are counted.

        raises: DataError FILE_CHANGED if size or version differ from the plan, then, while reading, or on leaving;
                COLUMN_MISSING, COLUMN_AMBIGUOUS.
        """
        ...


@runtime_checkable
class Measuring(Protocol):
    """A source whose files say, beside their row groups, what lies in them."""

    def measured(
        self,
        store: Store,
        file: FileStat,
        columns: Sequence[str],
        ways: Callable[[pa.Schema], Sequence[tuple[str, ...]]],
    ) -> tuple[InputFile, pa.Schema, Sequence[dict[tuple[str, ...], Span]]]:
        """As `Source.inspect`, and for each row group what is known of columns and of fields in structs.

        ways: those that are asked for, of the schema of the file. What is doubtful is not told.
        """
        ...


@dataclass(frozen=True, slots=True)
class Unread:
    """A type that a program knows not, so that it refuses each whole file that has one, whatever is read of it.

    program: with the version that was tried. holds: whether a type is meant. cast: the type that helps.
    otherwise: what helps in the program.
    """

    program: str
    holds: Callable[[pa.DataType], bool]
    cast: str
    otherwise: str


class Encoder(Protocol):
    """One output format: encodes record batches into a local spool file, in order."""

    suffix: str  # of its parts
    packed: Mapping[str, str]  # compression -> what stands behind the suffix, where parts are packed as a whole
    carries_header: bool  # False: its parts are staged, and their receipts say whose they are
    unread: tuple[Unread, ...]  # by programs that read the format

    def encoded(self, table: pa.Table) -> pa.Buffer:
        """A small file of `table`. raises: what the library raises for a type that the format cannot hold."""
        ...

    def decoded(self, content: pa.Buffer, schema: pa.Schema) -> pa.Table:
        """What a user of the format reads from such a file. raises: what the library raises.

        schema: of the table that was encoded, for a format whose files state no types.
        """
        ...

    def open(self, spool: Path, schema: pa.Schema, compression: str) -> Writer:
        """Create `spool` and write into it."""
        ...

    def dataset(self, url: str) -> Any:
        """The format in pyarrow.dataset, or its name there.

        url:    of a part, for the message.
        raises: OutputError where its parts are no tables, with what reads them.
        """
        ...

    def unstated(self, schema: pa.Schema) -> pa.Schema | None:
        """The types to read parts in that were written as `schema`, where they state none; else None."""
        ...

    def read_header(self, store: Store, path: str) -> tuple[dict[str, object] | None, int]:
        """The commit header inside a file and the file's own count of rows; None where it carries no header.

        raises: DataError PART_UNREADABLE if the file is not whole.
        """
        ...


class Writer(Protocol):
    def write(self, batch: pa.RecordBatch) -> None:
        """Append `batch`, which has the schema given to `open`. Batches are gathered into row groups of a good size."""
        ...

    def close(self, header: dict[str, object]) -> int:
        """Finish the file with `header` inside it; returns the number of rows, read back from the file."""
        ...

    def abort(self) -> None:
        """Drop what was written; safe to call at any time, also after `close`."""
        ...
