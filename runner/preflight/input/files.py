"""Input files at plan time: those that cannot be read are named all at once, or left out and counted.

Also the one way to score some rows of a file only: those that an earlier job rejected.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pyarrow as pa

from connectors.formats.base import Source
from connectors.formats.fault import one_line
from connectors.secret import redact
from connectors.store.store import FileStat, Store
from jobs.errors import DataError, InputError, offenders
from jobs.plan import InputFile
from jobs.section.limits import Limits
from jobs.section.number import allowed
from jobs.words import counted
from runner.preflight.input.part import Narrow
from runner.selection.selection import EVERY_ROW, Selection

_FOOTER_THREADS = 16  # footers are small reads that wait for a store, not for a core
_FOOTERS_TRIED = 32  # of local files, without threads: where they wait for a core, handing on the GIL triples the time
_FOOTERS_AT_ONCE = 4096  # queued together: a hundred thousand futures would cost more memory than the plan
_OF_A_FILE = ("FILE_", "ROWGROUP_", "RECORD_CRC")  # codes that one file is to blame for, and not the job or the store

Inspected = list[tuple[InputFile, pa.Schema]]


def first_schema(source: Source, store: Store, files: Sequence[FileStat], limits: Limits) -> pa.Schema:
    """Of the first file that can be read and shows a column; where none does, that of the first.

    raises: InputError of the first that cannot, where none may be skipped; DataError MAX_BAD_FILES where all are bad.
    """
    errors: list[InputError] = []
    empty: pa.Schema | None = None  # a file without a row may not show any
    for file in files:
        try:
            schema = source.schema(store, file)
            if len(schema):
                return schema
            empty = schema
        except InputError as error:
            errors.append(error)
            if not _skipped(error, limits):
                raise
    if empty is not None:
        return empty
    raise _too_many(errors, len(files), limits)


def inspect(
    source: Source,
    store: Store,
    files: Sequence[FileStat],
    columns: Sequence[str],
    limits: Limits,
    selection: Selection = EVERY_ROW,
) -> tuple[Inspected, list[InputError]]:
    """All footers. selection: row groups that hold none of it are left without rows.

    returns: files that can be read, and the errors of those that are skipped.
    raises:  InputError for all that cannot be read at once, where they may not be skipped; DataError MAX_BAD_FILES
             where they are more than the job allows, or all.
    """

    narrow = Narrow(selection, source, store)

    def look(file: FileStat) -> tuple[InputFile, pa.Schema] | InputError:
        try:
            file_facts, schema = narrow.inspect(file, columns)
            _refuse_large(file_facts, limits.max_row_group_bytes)
            return file_facts, schema
        except InputError as error:
            return error

    waiting, results = iter(files), list[tuple[InputFile, pa.Schema] | InputError]()
    if files and store.kind.local:
        wall, busy = time.perf_counter(), time.thread_time()
        results += map(look, islice(waiting, _FOOTERS_TRIED))
        if time.thread_time() - busy > 0.5 * (time.perf_counter() - wall):
            results += map(look, waiting)
    with ThreadPoolExecutor(_FOOTER_THREADS, thread_name_prefix="footer") as threads:
        while some := list(islice(waiting, _FOOTERS_AT_ONCE)):
            results += threads.map(look, some)
    errors = [result for result in results if isinstance(result, InputError)]
    if unforgiven := [error for error in errors if not _skipped(error, limits)]:
        raise _told(unforgiven, len(files))
    if len(errors) > allowed(limits.max_bad_files, len(files)) or len(errors) == len(files):
        raise _too_many(errors, len(files), limits)
    return [result for result in results if not isinstance(result, InputError)], errors


def _refuse_large(file: InputFile, most: int) -> None:
    for index, group in enumerate(file.row_groups):
        if group.decoded_bytes > most:
            raise InputError(
                f"cannot read '{redact(file.url)}': row group {index} has {group.decoded_bytes:,} bytes when decoded;"
                f" `limits.max_row_group_bytes` allows {most:,}: write the file again with smaller row groups",
                code="ROWGROUP_TOO_BIG",
                file=file.url,
                row_group=index,
            )


def _skipped(error: InputError, limits: Limits) -> bool:
    return limits.on_bad_file == "skip" and str(error.facts.get("code", "")).startswith(_OF_A_FILE)


def _too_many(errors: Sequence[InputError], files: int, limits: Limits) -> DataError:
    most = allowed(limits.max_bad_files, files)
    budget = f"`limits.max_bad_files: {limits.max_bad_files}` allows {most:,}, and one at least must be good"
    return DataError(f"{_told(errors, files)}\n{budget}", code="MAX_BAD_FILES", files=len(errors))


def _told(errors: Sequence[InputError], files: int) -> InputError:
    if len(errors) == 1:
        return errors[0]
    codes = sorted({str(error.facts.get("code", "")) for error in errors})
    return InputError(
        f"cannot read {len(errors)} of {counted(files, 'input file')} ({', '.join(codes)})"
        f"\n{offenders([one_line(error) for error in errors])}",
        code=codes[0],
    )
