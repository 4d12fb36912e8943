"""A run over the rows that an earlier one rejected: which files and which rows these are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from connectors.output.reject import Rejected, read_rejected
from connectors.secret import redact
from connectors.store.store import FileStat
from jobs.errors import InputError, offenders
from jobs.job import Job
from jobs.plan import InputFile, RowGroup, picked
from jobs.section.output import Output
from jobs.words import counted
from runner.preflight.input.files import Inspected


def rejected_before(job: Job) -> Rejected | None:
    """The rejects of an earlier job, where only these are to be scored. raises: InputError where there are none."""
    if job.input.only_rejects is None:
        return None
    rejected = read_rejected(Output(url=job.input.only_rejects, options=job.output.options))
    if not rejected.rows:
        raise InputError(f"nothing to score: no row was rejected in '{redact(rejected.output)}'", code="NO_INPUT")
    return rejected


def only_files(files: Sequence[FileStat], places: Mapping[str, object], rejected: Rejected) -> list[FileStat]:
    """Those with rejected rows. raises: InputError naming files that are no longer part of the input."""
    if gone := sorted(places.keys() - {file.url for file in files}):
        lines = offenders([f"'{redact(url)}'" for url in gone])
        raise InputError(
            f"cannot score what was rejected in '{redact(rejected.output)}': {len(gone)} of its files are not in the"
            f" input of this job; expected the same input, its rows repaired\n{lines}",
            code="FILE_CHANGED",
        )
    return [file for file in files if file.url in places]


def only_rows(inspected: Inspected, places: Mapping[str, Mapping[int, Sequence[int]]], rejected: Rejected) -> Inspected:
    """The same files, of which only the rejected rows are scored.

    raises: InputError where a file has other row groups than when its rows were rejected, or other rows where a plan
            cuts them: then it is unknown which rows these were.
    """
    then = {file.url: file.row_groups for file in rejected.plan.files}
    found, changed = [(file, _found(places[file.url], then[file.url], file)) for file, _ in inspected], list[str]()
    for file, rows in found:
        if rows is None:
            had, has = (sum(group.stored for group in groups) for groups in (then[file.url], file.row_groups))
            changed.append(f"'{redact(file.url)}'" + f": {had:,} rows then, {has:,} now" * (had != has))
    if changed:
        raise InputError(
            f"cannot score what was rejected in '{redact(rejected.output)}':"
            f" {counted(len(changed), 'file has', 'files have')} other rows or row groups now; repair rows where they"
            f" are, and keep the number of rows of each row group\n{offenders(sorted(changed))}",
            code="FILE_CHANGED",
        )
    return [
        (_picked(file, rows), schema)
        for (file, schema), (_, rows) in zip(inspected, found, strict=True)
        if rows is not None
    ]


def _found(
    places: Mapping[int, Sequence[int]], then: Sequence[RowGroup], file: InputFile
) -> Mapping[int, Sequence[int]] | None:
    """The rows by the row groups of today, None where they cannot be told.

    A plan cuts text by its bytes, which are others once a row is repaired. There a row is known by
    its number in the file, as long as all rows are there.
    """
    ends, now = (list(accumulate(group.stored for group in groups)) for groups in (then, file.row_groups))
    if ends == now:
        return places
    if ends[-1:] != now[-1:] or not all(group.place for group in (*then, *file.row_groups)):
        return None
    found: dict[int, list[int]] = {}
    for group, rows in sorted(places.items()):
        for row in rows:
            number = row + (ends[group - 1] if group else 0)
            at = bisect_right(now, number)
            found.setdefault(at, []).append(number - (now[at - 1] if at else 0))
    return found


def _picked(file: InputFile, places: Mapping[int, Sequence[int]]) -> InputFile:
    """Without rows that a table has lost since then."""
    left = {index: set(group.picks) for index, group in enumerate(file.row_groups) if group.picks is not None}
    rows = {
        index: [row for row in wanted if index not in left or row in left[index]] for index, wanted in places.items()
    }
    return picked(file, rows)
