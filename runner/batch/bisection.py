"""Bisection: a batch goes through the model whole, or in pieces without the rows that cannot go.

Knows nothing of files, engines and threads: feeding, calling and fetching are given to it. The invariants: what comes
out are the rows that went in, in their order, without those that were set aside; a row is set aside only if it is bad
by itself, and not for what is its model's fault; k bad rows of n cost O(k log n) calls more. Where rows keep their
places, what is written of a batch is the answer of one call, which the batch and its bad rows alone decide, and not the
calls that were made to find these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.errors import DataError, MemoryLimitError, ModelCallError, PoisonError
from runner.batch.batches import Where
from runner.batch.headroom import Headroom
from runner.batch.rejects import Rejects, located
from runner.batch.standing import PROBED, Standing, with_rows
from runner.binding.binding import NAN_ANSWER, Marks
from runner.binding.blame import RowError
from runner.tensor import Array, Feeds, Outputs

Rows = npt.NDArray[np.int64]
Compare = Callable[[Where, Rows, pa.RecordBatch, Feeds, Outputs], None]
Scored = tuple[pa.RecordBatch, Rows]  # rows to write, and which of the batch they are

# What an isolated worker says of a call that its child process did not survive; see `runner.worker.isolated`.
FATAL = frozenset({"process_abort", "timeout", "oom"})


@dataclass(frozen=True)
class Steps:
    """What is done with a batch. check: raises RowError for rows that are not to be fed; marks: what is odd about rows;
    call: around `run` with so many rows; compare: see `runner.batch.comparison`; nan: of answers, and what was fetched
    of them, what to say of each row of which they hold a NaN."""

    feed: Callable[[pa.RecordBatch], Feeds]
    run: Callable[[Feeds], Outputs]
    fetch: Callable[[pa.RecordBatch, Outputs], pa.RecordBatch]
    marks: Callable[[pa.RecordBatch, Feeds, Outputs, pa.RecordBatch], Marks | None] = lambda *fed: None
    check: Callable[[pa.RecordBatch], None] = lambda batch: None
    call: Callable[[int], AbstractContextManager[None]] = lambda rows: nullcontext()
    compare: Compare | None = None
    nan: Callable[[Outputs, pa.RecordBatch], Sequence[str]] = lambda _, rows: ["the model answered NaN"] * rows.num_rows


@dataclass(frozen=True)
class _Piece:
    """Some rows of the batch at `where`.

    batch:  what is fed: these rows, or all of `whole` where they keep their places.
    rows:   (rows,) their indexes in it, ascending.
    limits: what was known of memory when the batch came.
    """

    where: Where
    whole: pa.RecordBatch
    batch: pa.RecordBatch
    rows: Rows
    limits: Mapping[str, int]
    in_place: bool

    def cut(self, start: int, stop: int) -> _Piece:
        if self.in_place:
            return self.only(self.rows[start:stop])
        return replace(self, batch=self.batch.slice(start, stop - start), rows=self.rows[start:stop])

    def without(self, at: Rows) -> _Piece:
        left = np.delete(np.arange(len(self.rows)), at)  # left: (rows that stay,)
        if self.in_place:
            return self.only(self.rows[left])
        return replace(self, batch=self.batch.take(pa.array(left)), rows=self.rows[left])

    def only(self, rows: Rows) -> _Piece:
        """Some rows in their places; the first of them stands in the places of the others, too."""
        order = np.full(self.whole.num_rows, rows[0] if len(rows) else 0)  # order: (whole.num_rows,)
        order[rows] = rows
        return replace(self, batch=self.whole.take(pa.array(order)), rows=rows)

    def own(self, values: Any) -> Any:
        """Of one value for each row that was fed, those of the rows of this piece."""
        if len(values) == len(self.rows):
            return values
        return values[self.rows] if isinstance(values, np.ndarray) else values.take(pa.array(self.rows))

    def blamed(self, error: RowError) -> tuple[Rows, Sequence[str]]:
        """Which of `rows` an error is about, and what it says of each; a row that stands in for others is told once."""
        if len(self.batch) == len(self.rows):
            return error.at, error.stories
        mine = np.isin(error.at, self.rows)
        if not mine.any():
            raise error
        stories = [story for story, own in zip(error.stories, mine, strict=True) if own]
        return np.searchsorted(self.rows, error.at[mine]), stories


# A call that went well: its answers, a row for each that was fed; what is odd about them, and what to say of a NaN.
_Called = tuple[_Piece, pa.RecordBatch, Marks | None, Array | None]


class Bisection:
    """May be called from several threads, a batch each.

    nan_rejected: a NaN in an output makes a bad row.
    fixed_rows:   of each call, where the model takes no other number; None: any.
    in_place:     rows keep their places in the batch, whatever becomes of those beside them.
    standing:     of the model; None: it is above doubt.
    """

    def __init__(
        self,
        steps: Steps,
        rejects: Rejects,
        headroom: Headroom,
        *,
        nan_rejected: bool = False,
        fixed_rows: int | None = None,
        in_place: bool = False,
        standing: Standing | None = None,
    ) -> None:
        self._steps, self._rejects, self._headroom = steps, rejects, headroom
        self._nan_rejected, self._fixed_rows, self._in_place = nan_rejected, fixed_rows, in_place
        self._standing = standing

    def __call__(self, where: Where, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The rows to write: as one record batch where nothing is wrong, else as several, or none.

        where:   of the batch, for messages and reject files.
        raises:  PoisonError where the model is at fault, and no row; DataError, with file, row group and row, for a bad
                 row that may not be set aside, and for outputs that are not what was promised; MemoryLimitError (fact
                 `rows`) where not even one row fits; else whatever the model's call raises.
        """
        for rows, _ in self._scored(where, batch):
            yield rows

    def whole(
        self, where: Where, batch: pa.RecordBatch, schema: pa.Schema
    ) -> tuple[pa.RecordBatch, npt.NDArray[np.bool_] | None]:
        """The same in one record batch of `schema`, and (batch.num_rows,) which rows are in it; None: all."""
        scored = list(self._scored(where, batch))
        if len(scored) == 1 and scored[0][0].num_rows == batch.num_rows:
            return scored[0][0], None
        kept = np.zeros(batch.num_rows, np.bool_)
        for _, at in scored:
            kept[at] = True
        table = pa.Table.from_batches([rows for rows, _ in scored], schema).combine_chunks()
        columns = [column.combine_chunks() for column in table.columns]
        return pa.RecordBatch.from_arrays(columns, schema=schema), kept

    def _scored(self, where: Where, batch: pa.RecordBatch) -> Iterator[Scored]:
        piece = _Piece(where, batch, batch, np.arange(batch.num_rows), self._headroom.limits, self._in_place)
        try:
            for call in self._together(piece) if self._in_place else self._calls(piece):
                yield self._without_nan(*call)
        except DataError as error:
            raise located(error, where) from error

    def _together(self, piece: _Piece) -> list[_Called]:
        """One call with all rows that are not bad, whatever it took to find them."""
        calls = list(self._calls(piece))
        if len(calls) > 1:
            rows = np.concatenate([found.rows for found, *_ in calls])
            calls = list(self._calls(piece.only(rows)))
        if len(calls) > 1:
            raise ModelCallError(
                f"{len(rows)} rows of a batch go through the model in parts, but not together; their answers would"
                " depend on the parts, which `limits.reproducible` rules out",
                code="UNKNOWN",
            )
        return calls

    def _calls(self, piece: _Piece) -> Iterator[_Called]:
        """Calls that went well, which have all rows of the piece between them but for those that were set aside."""
        while len(piece.rows):
            try:
                self._steps.check(piece.batch)
                feeds = self._steps.feed(piece.batch)
                safe = self._headroom.rows(feeds) if self._fixed_rows is None else None
                cuts = _cuts(len(piece.rows), safe or len(piece.rows)) or self._call(piece, feeds)
                del feeds  # several levels of cuts would hold theirs
                if isinstance(cuts, tuple):
                    yield cuts
                    return
            except RowError as error:  # of feeding or of fetching
                at, stories = piece.blamed(error)
                self._set_aside(piece, at, stories, **error.facts)
                piece = piece.without(at)
                continue
            for start, stop in cuts:
                yield from self._calls(piece.cut(start, stop))
            return

    def _call(self, piece: _Piece, feeds: Feeds) -> _Called | list[tuple[int, int]]:
        """The answers, or where to cut. raises: RowError for rows that are to be taken out first."""
        rows = len(piece.rows)
        try:
            with self._steps.call(rows):
                outputs = self._steps.run(feeds)
        except MemoryLimitError as error:
            if rows == 1 or self._fixed_rows is not None:
                raise self._too_many(error, rows) from error
            self._headroom.exceeded(feeds, rows)
            return _halves(rows)
        except ModelCallError as error:
            code = str(error.facts.get("code", ""))
            if self._standing is not None and self._standing.doubted and code not in FATAL:
                self._weigh(self._standing, piece, error)
            if rows > 1:
                if code not in FATAL:
                    self._headroom.refused(rows)
                return _halves(rows)
            self._headroom.blamed()
            if code == "oom":  # it alone: the cuts on the way to it say nothing of the others
                self._headroom.restore(piece.limits)
            raise RowError.of(
                error.message,
                piece.rows[:1] if piece.in_place else np.zeros(1, np.int64),
                [error.message],
                code=code if code in FATAL else "MODEL_ROW",
            ) from error
        except PoisonError as error:
            raise with_rows(error, rows) from error
        self._headroom.fits(feeds, rows)
        if self._standing is not None:
            self._standing.note_taken()
        if self._steps.compare is not None:
            fed = piece.rows if len(piece.batch) == len(piece.rows) else np.arange(len(piece.batch))
            self._steps.compare(piece.where, fed, piece.batch, feeds, outputs)
        fetched = self._steps.fetch(piece.batch, outputs)
        marks, stories = self._steps.marks(piece.batch, feeds, outputs, fetched), None
        if self._nan_rejected and marks is not None and (marks & NAN_ANSWER).any():
            stories = np.array(self._steps.nan(outputs, fetched), object)  # stories: (rows fed,)
        return piece, fetched, marks, stories

    def _weigh(self, standing: Standing, piece: _Piece, error: ModelCallError) -> None:
        """Rows from all over a piece that was refused, each alone. raises: PoisonError where the model is at fault."""
        last = len(piece.rows) - 1
        refused = [] if last else [error]
        for at in np.unique(np.linspace(0, last, PROBED).astype(np.int64)).tolist() if last else ():
            try:
                self._steps.run(self._steps.feed(piece.cut(at, at + 1).batch))
            except (RowError, MemoryLimitError):  # the pieces come to that row, too
                return
            except ModelCallError as alone:
                refused.append(alone)
            else:
                standing.note_taken()
                return
        standing.weigh(refused)

    def _too_many(self, error: MemoryLimitError, rows: int) -> MemoryLimitError:
        if not self._in_place:
            return MemoryLimitError(error.message, **error.facts | {"rows": rows})
        story = f"{error.message}; every call has {self._fixed_rows:,} rows, because of `limits.reproducible`: lower"
        advice = "`limits.batch_rows` (which makes another plan), or give each worker more memory"
        return MemoryLimitError(f"{story} {advice}", **error.facts | {"rows": self._fixed_rows})

    def _without_nan(
        self, piece: _Piece, fetched: pa.RecordBatch, marks: Marks | None, stories: Array | None
    ) -> Scored:
        fetched = piece.own(fetched)
        if marks is None:
            return fetched, piece.rows
        marks = piece.own(marks)
        nan = (marks & NAN_ANSWER).astype(np.bool_)
        at = np.flatnonzero(nan)  # at: (rows with a NaN,)
        if stories is None or not len(at):
            self._rejects.note_marks(marks)
            return fetched, piece.rows
        self._rejects.note_marks(marks[~nan])
        self._set_aside(piece, at, piece.own(stories)[at].tolist(), code="MODEL_NAN")
        return fetched.filter(pa.array(~nan)), piece.rows[~nan]

    def _set_aside(self, piece: _Piece, at: Rows, stories: Sequence[str], **facts: Any) -> None:
        named = {name: facts[name] for name in ("code", "column") if name in facts}
        self._rejects.add(piece.where, piece.whole, piece.rows[at].tolist(), stories, **named)


def _cuts(rows: int, safe: int) -> list[tuple[int, int]]:
    """Where to cut so that no piece has more rows than are safe; empty: nowhere."""
    if rows <= safe:
        return []
    return [(start, min(start + safe, rows)) for start in range(0, rows, safe)]


def _halves(rows: int) -> list[tuple[int, int]]:
    return [(0, rows // 2), (rows // 2, rows)]


def wide_rows(batch: pa.RecordBatch, most: int) -> None:
    """raises: RowError ROW_TOO_BIG for rows of more than `most` bytes, lists and strings included."""
    sizes = sum((row_bytes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    at = np.flatnonzero(sizes > most)
    if len(at):
        stories = [f"the row has {sizes[row]:,} bytes; `limits.max_row_bytes` allows {most:,}" for row in at]
        raise RowError.of(stories[0], at, stories, code="ROW_TOO_BIG")


def row_bytes(values: pa.Array) -> Rows:
    """(len(values),) the bytes of each value: of strings and lists what they hold, of others their width."""
    kind, types = values.type, pa.types
    if isinstance(values, pa.ExtensionArray):
        return row_bytes(values.storage)
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        lengths = pa.compute.fill_null(pa.compute.binary_length(values), 0)
        return np.asarray(lengths, np.int64)
    if types.is_list(kind) or types.is_large_list(kind):
        lengths = np.asarray(pa.compute.fill_null(pa.compute.list_value_length(values), 0), np.int64)
        ends = np.cumsum(lengths)  # ends: (rows,) in the flattened values
        total = np.concatenate([[0], np.cumsum(row_bytes(values.flatten()))])  # total: (values + 1,)
        return np.asarray(total[ends] - total[ends - lengths], np.int64)
    if types.is_struct(kind):
        return sum((row_bytes(part) for part in values.flatten()), np.zeros(len(values), np.int64))
    return np.full(len(values), _width(kind), np.int64)


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 1
