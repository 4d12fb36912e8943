"""The rows of one attempt that are set aside, with their place and reason, until its part names them; and how many are
left out without one.

Owns what becomes a row of a reject file (see `connectors.output.reject`) and the budget of the shard; refuses to
know how rows were found to be bad. The invariant: with `on_bad_row: fail` the first row raises, with its place.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from connectors.output.directory import Losses
from connectors.output.reject import PLACE, reject_schema, unknown
from connectors.secret import redact
from jobs.attempt import InputSlice
from jobs.errors import DataError
from jobs.section.limits import Limits
from jobs.words import counted
from runner.batch.batches import Where
from runner.binding.binding import CHANGED, NAN_ANSWER, ODD_INPUT, UNSEEN, Marks
from runner.binding.cast.cast import unheld
from runner.tensor import Array

T = TypeVar("T")

# Of a file or a row group, where its bytes are at fault. FILE_CHANGED is none: what was planned is not there any more.
_FILE_CODES = ("FILE_", "PAGE_", "ROWGROUP_", "BATCH_INVALID", "RECORD_CRC", "COLUMN_")
_MARKS = (NAN_ANSWER, ODD_INPUT, UNSEEN, CHANGED)  # in the order of `jobs.attempt.ODD`
_UNREAD_ROWS = 2**16  # rows of one record batch that stand for rows that could not be read


class Rejects:
    """One attempt's; several threads may add to it.

    max_rows: of the job; no shard may have more.
    """

    def __init__(self, read: pa.Schema, kept: Sequence[str], limits: Limits, max_rows: int) -> None:
        self._read, self._limits, self._max_rows = read, limits, max_rows
        self._schema = reject_schema(read, kept, limits.reject_input)
        self._batches: list[pa.RecordBatch] = []
        self._codes: Counter[str] = Counter()
        self._bad_files: Counter[str] = Counter()
        self._rows = self._left_out = 0
        self._lock = threading.Lock()
        self._marked = dict.fromkeys(_MARKS, 0)

    def add(self, where: Where, batch: pa.RecordBatch, at: Sequence[int], stories: Sequence[str], **facts: Any) -> None:
        """Set rows of a batch aside.

        where, batch: the whole batch as it was read. at: indexes in it, ascending. stories: of each.
        facts:        `code`, and `column` where one is to blame.
        raises:       DataError with the place of the first row, where the job allows none or no more.
        """
        code, column = str(facts["code"]), facts.get("column")
        places = [where.at(int(row)) for row in at]
        if self._limits.on_bad_row == "fail":
            raise _bad_row(stories[0], places[0], code, column, len(at))
        with self._lock:
            self._rows += len(places)
        if self._rows > self._max_rows:
            allowed = f"`limits.max_rejected_rows: {self._limits.max_rejected_rows}` allows {self._max_rows:,}"
            rejected = counted(self._rows, "row of one shard was", "rows of one shard were")
            story = f"{rejected} rejected, {allowed} in the job; the last: {stories[0]}"
            raise _bad_row(story, places[0], code, column, len(at), of="MAX_REJECTED_ROWS")
        rows = batch.take(pa.array(at, pa.int64()))
        fields = [
            pa.array([place.file for place in places], pa.string()),
            pa.array([place.row_group for place in places], pa.int32()),
            pa.array([place.first_row for place in places], pa.int64()),
            pa.array([column] * len(places), pa.string()),
            pa.array([code] * len(places), pa.string()),
            pa.array(stories, pa.string()),
        ]
        copies = [self._copied(rows, field) for field in list(self._schema)[len(PLACE) :]]
        self._note(pa.RecordBatch.from_arrays([*fields, *copies], schema=self._schema), code)

    def readable(
        self, inputs: InputSlice, row_group: int | None, read: Callable[[], T], picks: Array | None = None
    ) -> T | None:
        """What `read` returns; None where the file is bad and the job skips that: then its rows are set aside.

        row_group: the one that is read; None: the file is opened, and all its row groups are at stake.
        picks:     (rows that are wanted,) of the row group; None: as planned.
        """
        try:
            return read()
        except DataError as error:
            code = str(error.facts.get("code", ""))
            if self._limits.on_bad_file == "fail" or code == "FILE_CHANGED" or not code.startswith(_FILE_CODES):
                raise
            groups = range(inputs.first, inputs.first + len(inputs.rows)) if row_group is None else [row_group]
            for group in groups:
                self._add_unread(inputs, group, error, picks)
            return None

    def leave_out(self, rows: int) -> None:
        """Count rows that the job does not want: nothing is wrong with them."""
        with self._lock:
            self._left_out += rows

    def note_marks(self, marks: Marks) -> None:
        """What is odd about rows that are written."""
        with self._lock:
            for mark in self._marked:
                self._marked[mark] += int(np.count_nonzero(marks & mark))

    @property
    def nan_rows(self) -> int:
        """Of those that are written."""
        return self._marked[NAN_ANSWER]

    def losses(self) -> Losses:
        """For `Part.publish`: sorted by place, which is the order of the input."""
        table = pa.Table.from_batches(self._batches, self._schema)
        ordered = table.sort_by([(name, "ascending") for name in ("file", "row_group", "row")])
        rows = [self._marked[mark] for mark in _MARKS]
        losses = Losses(self._schema, ordered.to_batches(), dict(self._codes), dict(self._bad_files), *rows)
        return replace(losses, rows_left_out=self._left_out)

    def _add_unread(self, inputs: InputSlice, row_group: int, error: DataError, wanted: Array | None) -> None:
        picks = inputs.picked(row_group) if wanted is None else wanted.tolist()
        rows = range(inputs.rows[row_group - inputs.first]) if picks is None else [*picks]
        code, column = str(error.facts["code"]), error.facts.get("column")
        for start in range(0, len(rows), _UNREAD_ROWS):
            some = rows[start : start + _UNREAD_ROWS]
            fields = [
                pa.array([inputs.url] * len(some), pa.string()),
                pa.array([row_group] * len(some), pa.int32()),
                pa.array(some, pa.int64()),
                pa.array([column] * len(some), pa.string()),
                pa.array([code] * len(some), pa.string()),
                pa.array([error.message] * len(some), pa.string()),
            ]
            known = pa.RecordBatch.from_arrays([*fields, *unknown(self._schema, len(some))], schema=self._schema)
            self._note(known, code)
        with self._lock:
            self._bad_files[inputs.url] += len(rows)

    def _copied(self, rows: pa.RecordBatch, field: pa.Field) -> pa.Array:
        read = [_readable(rows.column(rows.schema.get_field_index(inner.name))) for inner in field.type]
        columns = [_held(values, inner.type) for values, inner in zip(read, field.type, strict=True)]
        return pa.StructArray.from_arrays(columns, fields=list(field.type))

    def _note(self, batch: pa.RecordBatch, code: str) -> None:
        with self._lock:
            self._batches.append(batch)
            self._codes[code] += batch.num_rows


def _readable(values: pa.Array) -> pa.Array:
    """Text that is no UTF-8 may be why a row is here: with the bytes as \\xff, or null where it lies in lists."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return pa.nulls(len(values), values.type)
        raw = values.cast(pa.large_binary()).to_pylist()
        texts = [None if value is None else value.decode("utf-8", "backslashreplace") for value in raw]
        return pa.array(texts, values.type)
    return values


def _held(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values of one file in the type over all files; null where that cannot hold them."""
    if values.type == kind:
        return values
    held = np.ones(len(values), np.bool_)
    held[unheld(values, kind)] = False
    return values.take(pa.array(np.arange(len(values)), mask=~held)).cast(kind)


def _bad_row(story: str, place: Where, code: str, column: str | None, rows: int, of: str = "") -> DataError:
    facts = {"code": of or code, "file": place.file, "row_group": place.row_group, "row": place.first_row, "rows": rows}
    if column is not None:
        facts["column"] = column
    more = f" and {rows - 1} more of its batch" if rows > 1 else ""
    where = f"'{redact(place.file)}' row group {place.row_group} row {place.first_row}{more}"
    return DataError(f"{code}: {story} [{where}]", **facts)


def located(error: DataError, where: Where) -> DataError:
    """The same error with the file, the row group and the row counted within it, as far as it does not say so."""
    if "file" in error.facts:
        return error
    place = where.at(int(error.facts.get("row", 0)))
    facts = error.facts | {"file": place.file, "row_group": place.row_group}
    text = f"'{redact(place.file)}' row group {place.row_group}"
    if "row" in facts:
        facts["row"] = place.first_row
        text += f" row {place.first_row}"
    return DataError(f"{error.message} [{text}]", **facts)
