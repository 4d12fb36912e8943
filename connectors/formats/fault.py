"""What can be wrong with an input file, as errors of ours: each with its code, its place and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.formats.buffered import BufferedFile
from connectors.secret import redact
from connectors.store.listing import refuse_changed
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError, MemoryLimitError, RunnerError

# A damaged file of a few kB can claim any size. No row group that one worker can hold comes near this.
MAX_ROW_GROUP_BYTES = 16 * 2**30

# What pyarrow raises for bad bytes; ArrowInvalid is a ValueError, and so is a name that is not UTF-8.
DECODE_ERRORS = (OSError, ValueError, pa.ArrowException)


_KNOWN_STARTS = {
    b"\x1f\x8b": "a gzip file: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"PAR1": "a Parquet file: say 'format: parquet'",
    b"ARROW1": "an Arrow IPC file: say 'format: arrow'",
    b"\xff\xff\xff\xff": "an Arrow IPC stream: say 'format: arrow'",
    b"FEA1": "a Feather V1 file: write it again with pyarrow.feather.write_feather",
    b"ORC": "an ORC file: say 'format: orc'",
    b"Obj\x01": "an Avro file: say 'format: avro'",
    b"\x93NUMPY": "a NumPy array: say 'format: npy'",
    b"<": "HTML or XML, perhaps an error page that was saved as data",
    b"{": "JSON",
    b"[": "JSON",
}


def check_unchanged(store: Store, inputs: InputSlice) -> None:
    """raises: DataError FILE_CHANGED if the file is not the one that was planned."""
    refuse_changed(_planned(inputs), store.stat(inputs.url))


@contextmanager
def planned_file(store: Store, inputs: InputSlice) -> Iterator[BufferedFile]:
    """A file of the plan, open: every byte that is read from it is of the content that was planned.

    raises: DataError FILE_CHANGED where it is another one when it is opened, or while it is read; on leaving, where the
            store does not tell sooner.
    """
    file = store.open(inputs.url, _planned(inputs))
    with BufferedFile(file, inputs.url, inputs.size) as held:
        try:
            yield held
        except (DataError, InputError):
            file.settle()  # what looks like damage may be two contents
            raise
        file.settle()


def _planned(inputs: InputSlice) -> FileStat:
    return FileStat(inputs.url, inputs.size, inputs.version)


def unreadable(file: BufferedFile, code: str, cause: object) -> InputError:
    """The error for a file that cannot be read at all. found: what is wrong, or the exception that says so."""
    return InputError(f"cannot read '{redact(file.url)}': {one_line(cause)}", code=code, file=file.url)


def wrong_magic(file: BufferedFile, wanted: str, hint: str = "") -> InputError:
    """FILE_MAGIC: says the first bytes in hex, and what such bytes mean where that is known."""
    head = bytes(file.take(0, min(8, file.size)))
    known = next((meaning for start, meaning in _KNOWN_STARTS.items() if head.startswith(start)), "")
    start = f"not {wanted}: its first bytes are {head.hex(' ')}" + (f" ({known})" if known else "") + hint
    return unreadable(file, "FILE_MAGIC", start)


def while_running(error: InputError) -> DataError:
    """A file that was readable when the plan was made: now a matter of data, not of the job."""
    return DataError(error.message, **error.facts)


def bad_row_group(
    inputs: InputSlice, row_group: int, code: str, cause: object, column: str | None = None
) -> RunnerError:
    """The error for one row group of a file, and one column of it where that is known."""
    where = f"row group {row_group}" + (f" column {column!r}" if column is not None else "")
    facts = {"code": code, "file": inputs.url, "row_group": row_group}
    return DataError(
        f"cannot read '{redact(inputs.url)}' {where}: {one_line(cause)}",
        **facts | ({"column": column} if column is not None else {}),
    )


@dataclass(frozen=True, eq=False)
class BadRows:
    """Rows that are bad in one way. at: (rows,) of the row group, rising. stories: what is wrong with each of them."""

    code: str
    column: str | None
    at: npt.NDArray[np.int64]
    stories: Sequence[str]


class BadRowsError(DataError):
    """Some rows of a row group are bad; the others can be used. Raised and caught in one process: pickled, it is facts.

    table: all rows, null in them what could not be read. bad: each bad row once.
    """

    table: pa.Table
    bad: Sequence[BadRows]

    @classmethod
    def of(cls, inputs: InputSlice, row_group: int, table: pa.Table, bad: Sequence[BadRows]) -> BadRowsError:
        first = min(bad, key=lambda one: int(one.at[0]))
        more = sum(len(one.at) for one in bad) - 1
        error = cls(
            f"cannot read '{redact(inputs.url)}' row group {row_group}: {first.stories[0]}"
            + (f" ({more} more bad rows in this row group)" if more else ""),
            code=first.code,
            file=inputs.url,
            row_group=row_group,
            row=int(first.at[0]),
        )
        error.table, error.bad = table, bad
        return error

    @property
    def at(self) -> npt.NDArray[np.int64]:
        """(bad rows,) of the row group, rising."""
        return np.sort(np.concatenate([one.at for one in self.bad]))

    def rest(self, picks: Iterable[int] | None = None) -> pa.Table:
        """The rows that are not bad. picks: of these rows; None: of all."""
        rows = np.arange(self.table.num_rows) if picks is None else np.fromiter(picks, np.int64)
        return self.table.take(pa.array(rows[~np.isin(rows, self.at)]))


def once(bad: Iterable[BadRows]) -> list[BadRows]:
    """Each bad row once, with the first of what is wrong with it."""
    seen, kept = set[int](), list[BadRows]()
    for one in bad:
        new = [index for index, row in enumerate(one.at.tolist()) if row not in seen]
        seen.update(one.at.tolist())
        if new:
            kept.append(BadRows(one.code, one.column, one.at[new], [one.stories[index] for index in new]))
    return kept


def wrong_rows(inputs: InputSlice, row_group: int, rows: int, column: str | None = None) -> RunnerError:
    planned = inputs.rows[row_group - inputs.first]
    return bad_row_group(inputs, row_group, "ROWGROUP_ROWS", f"{rows} rows found, {planned} expected", column)


def out_of_memory(inputs: InputSlice, row_group: int, code: str, error: MemoryError) -> RunnerError:
    """Memory ran out, or (DataError with `code`) a damaged length is more than there can be."""
    wanted = re.search(r"size (\d+)", str(error))
    if wanted is not None and int(wanted[1]) > MAX_ROW_GROUP_BYTES:
        return bad_row_group(inputs, row_group, code, error)
    return MemoryLimitError(f"no memory to decode '{redact(inputs.url)}' row group {row_group}: {error}")


class TooLargeError(Exception):
    """What cannot be held when it is decoded."""

    def __init__(self, found: str, column: str = "") -> None:
        """found: how large it is, in words. column: its name."""
        super().__init__(found)
        self.column = column


def decoded(
    inputs: InputSlice,
    row_group: int,
    code: str,
    decode: Callable[[int], pa.Table],
    again: Callable[[int], pa.Table],
    damage: tuple[type[Exception], ...] = DECODE_ERRORS,
) -> pa.Table:
    """What `decode` makes of a row group, with the rows that were planned.

    code:   where a length is damaged. again: a second try after bad bytes, which raises our errors.
    damage: what `decode` raises for bad bytes. Errors of ours, for bytes that cannot be had, pass.
    raises: DataError ROWGROUP_TOO_BIG, ROWGROUP_ROWS; as `out_of_memory`.
    """
    try:
        table = decode(row_group)
    except RunnerError:
        raise
    except TooLargeError as error:
        raise bad_row_group(inputs, row_group, "ROWGROUP_TOO_BIG", error, error.column) from error
    except MemoryError as error:
        raise out_of_memory(inputs, row_group, code, error) from error
    except damage:
        table = again(row_group)
    if table.num_rows != inputs.rows[row_group - inputs.first]:
        raise wrong_rows(inputs, row_group, table.num_rows)
    return table


@contextmanager
def refusing(
    file: BufferedFile, code: str, what: str, errors: tuple[type[Exception], ...] = DECODE_ERRORS
) -> Iterator[None]:
    """Names the file in what is raised of its footer. code, what: of what no other code is for."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise unreadable(file, "FILE_SCHEMA", f"a column name is not UTF-8: {error}") from error
    except pa.ArrowNotImplementedError as error:
        raise unreadable(file, "FILE_UNSUPPORTED", error) from error
    except errors as error:
        raise unreadable(file, code, f"{what}: {one_line(error)}") from error


def one_line(what: object, most: int = 300) -> str:
    """The text of an exception, fit for a message: pyarrow's may hold line breaks and whole schemas."""
    text = " ".join(str(what).split())
    return text if len(text) <= most else text[:most] + "..."
