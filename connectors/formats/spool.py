"""A part while it is written: record batches gathered into row groups, encoded into a local spool file.

Owns what all output formats share. Refuses to know final names. The invariant: the spool is a whole file with its
commit header, checked by reading it back, or it is not there.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from connectors.formats.buffered import BufferedFile
from connectors.formats.fault import one_line
from connectors.secret import redact
from connectors.store.client_error import no_room
from connectors.store.store import Store
from jobs.errors import DataError, InputError, InternalError, MemoryLimitError, StorageError
from jobs.section.canonical import canonical

HEADER_KEY = "runner.commit"

# Whatever is reached first ends a row group: large enough to scan well, small enough that encoding goes on beside
# the model instead of after it, and that a few fit into memory.
MAX_GROUP_ROWS = 2**18
MAX_GROUP_BYTES = 64 * 2**20


class SpoolWriter(ABC):
    """The Writer of `connectors.formats.base`; a format adds how a row group and the end of the file are encoded."""

    def __init__(self, spool: Path, schema: pa.Schema) -> None:
        self._spool = spool
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = self._rows = 0
        with self._errors():
            self._sink = pa.OSFile(str(spool), "wb")

    def write(self, batch: pa.RecordBatch) -> None:
        """Append `batch`; its memory is kept until its row group is full.

        raises: StorageError where the spool cannot grow; InternalError where the batch has another schema.
        """
        if not batch.schema.equals(self._schema):
            raise InternalError(
                f"cannot write a batch to '{self._spool}': it has columns {_columns(batch.schema)}; "
                f"the part has {_columns(self._schema)}"
            )
        if batch.num_rows == 0:
            return
        rows, size = self._waiting_rows + batch.num_rows, self._waiting_bytes + batch.nbytes
        if rows > MAX_GROUP_ROWS or size > MAX_GROUP_BYTES:
            self._flush()
            rows, size = batch.num_rows, batch.nbytes
        self._waiting.append(batch)
        self._waiting_rows, self._waiting_bytes = rows, size

    def close(self, header: dict[str, object]) -> int:
        """Finish the file with `header` inside it; returns the number of rows, as read back from the file."""
        self._flush()
        with self._errors():
            self._finish(canonical(header))
            self._sink.close()
            rows = self._rows_of(self._spool)
        if rows != self._rows:
            raise InternalError(f"cannot use '{self._spool}': {self._rows} rows were written, {rows} are in it")
        return rows

    def abort(self) -> None:
        """Drop the spool; safe to call at any time, also after `close`."""
        self._waiting = []
        self._spool.unlink(missing_ok=True)  # first: closing may complete the file, which must not be seen then
        with suppress(Exception):
            self._drop()
        with suppress(Exception):
            self._sink.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting, self._schema)
        # A single batch may exceed the limits by far.
        most = max(1, min(MAX_GROUP_ROWS, self._waiting_rows * MAX_GROUP_BYTES // max(1, self._waiting_bytes)))
        for start in range(0, table.num_rows, most):
            group = table.slice(start, most)
            with self._errors():
                self._encode(group)
            self._rows += group.num_rows
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MemoryError as error:
            raise MemoryLimitError(f"cannot write to '{self._spool}': {error}") from error
        except OSError as error:
            if (full := no_room("write to", self._spool, error)) is not None:
                raise full from error
            free = shutil.disk_usage(self._spool.parent).free if self._spool.parent.is_dir() else 0
            message = (
                f"cannot write to '{self._spool}': {error}; {self._waiting_bytes} bytes wait, {free} are free there"
            )
            raise StorageError(message) from error
        except pa.ArrowException as error:
            raise InternalError(f"cannot encode rows into '{self._spool}': {error}") from error

    @abstractmethod
    def _encode(self, group: pa.Table) -> None:
        """Write one row group."""

    @abstractmethod
    def _finish(self, header: str) -> None:
        """Write the end of the file, with the commit header (JSON text) under `runner.commit`."""

    @abstractmethod
    def _drop(self) -> None:
        """Let the encoder go; what it writes then is lost."""

    @staticmethod
    @abstractmethod
    def _rows_of(spool: Path) -> int:
        """The rows that the finished file says it has."""


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    # Not `schema.empty_table()`: pyarrow 26 refuses that for a fixed_shape_tensor that states its permutation.
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def open_part(store: Store, path: str) -> BufferedFile:
    """Open a published part. raises: DataError PART_UNREADABLE if there is none."""
    try:
        file = store.open(path)
    except InputError:
        if store.stat(path) is not None:
            raise
        missing = f"cannot read '{redact(path)}': there is no such file"
        raise DataError(missing, code="PART_UNREADABLE", file=path) from None
    return BufferedFile(file, path, file.seen.size)


@contextmanager
def whole_part(path: str) -> Iterator[None]:
    """What a format finds wrong with a part, as DataError PART_UNREADABLE."""
    try:
        yield
    except (InputError, OSError, ValueError, TypeError, RecursionError, pa.ArrowException) as error:
        message = f"'{redact(path)}' is no whole part: {one_line(error)}"
        raise DataError(message, code="PART_UNREADABLE", file=path) from error


def stated_header(text: bytes | str | None) -> dict[str, object] | None:
    """The commit header of a part; None where it has none. raises: ValueError where it is no JSON object."""
    try:
        header = None if text is None else json.loads(text)
    except RecursionError:
        raise ValueError("its commit header is nested too deep") from None
    if header is not None and not isinstance(header, dict):
        raise ValueError("its commit header is no JSON object")
    return header


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name!r}: {field.type}" for field in schema)
