"""A run over the rows that an earlier one rejected: which files and which rows these are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from connectors.output.reject import Rejected, read_rejected
from connectors.secret import redact
from connectors.store.store import FileStat
from jobs.errors import InputError, offenders
from jobs.job import Job
from jobs.plan import InputFile, picked
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

    raises: InputError where a file has other row groups than when its rows were rejected: then it is unknown which rows
            these were.
    """
    then = {file.url: [group.stored for group in file.row_groups] for file in rejected.plan.files}
    changed = [file.url for file, _ in inspected if [group.stored for group in file.row_groups] != then.get(file.url)]
    if changed:
        lines = offenders([f"'{redact(url)}'" for url in sorted(changed)])
        raise InputError(
            f"cannot score what was rejected in '{redact(rejected.output)}':"
            f" {counted(len(changed), 'file has', 'files have')} other row groups now; repair rows where they are, and"
            f" keep the number of rows of each row group\n{lines}",
            code="FILE_CHANGED",
        )
    return [(_picked(file, places[file.url]), schema) for file, schema in inspected]


def _picked(file: InputFile, places: Mapping[int, Sequence[int]]) -> InputFile:
    """Without rows that a table has lost since then."""
    left = {index: set(group.picks) for index, group in enumerate(file.row_groups) if group.picks is not None}
    rows = {
        index: [row for row in wanted if index not in left or row in left[index]] for index, wanted in places.items()
    }
    return picked(file, rows)
