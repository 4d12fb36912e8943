"""The row groups of one attempt, decoded by the reader threads of a worker.

Knows how a piece of a file becomes tables; refuses to know threads and models. The invariant: every planned row group
is read once, as planned, or an error names it; a row of it that is bad by itself is set aside, one that the job does
not want is counted, and the others go on; no row of another content of its file is ever published.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from connectors.failpoint import failpoint
from connectors.formats.base import RowGroupReader, Source
from connectors.formats.fault import BadRowsError
from connectors.formats.schema import conform
from connectors.store.store import Store
from jobs.attempt import Attempt, InputSlice
from jobs.errors import DataError
from runner.batch.batches import Where
from runner.measure.stage import StageClock
from runner.selection.selection import Selection
from runner.tensor import Array

Unit = tuple[InputSlice, int]  # a row group: the planned piece of its file, and its index there
Located = tuple[Where, pa.Table]
Decoded = tuple[pa.Table, BadRowsError | None]
Readable = Callable[[InputSlice, int, Callable[[], Decoded], Array | None], Decoded | None]
SetAside = Callable[..., None]  # where, batch, at, stories, facts: as `Rejects.add`


def row_groups_ahead(readers: int) -> int:
    """How many row groups are in the making or wait, beside the one in use: one for each reader, at least two."""
    return max(2, readers)


def units(attempt: Attempt) -> Generator[Unit, None, None]:
    """The row groups of an attempt that hold a row to score, in order."""
    for piece in attempt.inputs:
        for row_group in range(piece.first, piece.first + len(piece.rows)):
            picks = piece.picked(row_group)
            if picks is None or len(picks):
                yield piece, row_group


@dataclass(frozen=True)
class Reading:
    """How a worker reads: the source, and the columns of the job with the types that all files agree on.

    columns:   that are read. scored: those of them that go on; the others are for `selection` alone.
    survive: called before a row group is decoded, where that may end a process; raises DataError where it did.
    """

    source: Source
    store: Store
    columns: Sequence[str]
    schema: pa.Schema
    scored: Sequence[str]
    selection: Selection = field(default_factory=Selection)
    survive: Callable[[InputSlice, int], None] | None = None

    @contextmanager
    def reader(
        self, clock: StageClock, readable: Readable, set_aside: SetAside, leave_out: Callable[[int], None]
    ) -> Iterator[Callable[[Unit], Located | None]]:
        """What one thread reads with. The file of the last unit stays open for the next.

        readable:  calls what reads a row group; None where that failed and the job does without: see `Rejects`.
        set_aside: called with rows that are bad by themselves, see `Rejects.add`.
        leave_out: called with how many rows the job does not want.
        """
        with ExitStack() as opened:
            here: tuple[InputSlice, RowGroupReader] | None = None

            def decode(piece: InputSlice, row_group: int) -> Decoded:
                nonlocal here
                bad: BadRowsError | None = None
                if self.survive is not None:
                    self.survive(piece, row_group)
                with clock("decode"):
                    fetched = here[1].fetch_s if here is not None and here[0] is piece else 0.0
                    if here is None or here[0] is not piece:
                        here = None
                        opened.close()
                        here = piece, opened.enter_context(self.source.open(self.store, piece, self.columns))
                    reader = here[1]
                    try:
                        table = reader.read(row_group)
                    except BadRowsError as error:
                        table, bad = error.table, error
                    except DataError:
                        here = None
                        opened.close()  # raises where the file has changed, which looks like damage
                        raise
                    table = conform(table, self.schema, piece.url)
                # Fetching waits for a store, decoding for a core: the report keeps the two apart.
                clock.add("read", reader.fetch_s - fetched)
                clock.add("decode", fetched - reader.fetch_s)
                return table, bad

            def read(unit: Unit) -> Located | None:
                piece, row_group = unit
                failpoint("W3.fetch")
                rows, picks = piece.rows[row_group - piece.first], piece.picked(row_group)
                wanted = self.selection.sampled(piece.url, row_group, rows, picks)
                if wanted is not None:
                    leave_out((rows if picks is None else len(picks)) - len(wanted))
                    if not len(wanted):
                        return None
                decoded = readable(piece, row_group, lambda: decode(piece, row_group), wanted)
                if decoded is None:
                    return None
                table, bad = decoded
                where = Where(piece.url, row_group, 0, wanted)
                if bad is not None:
                    where = without(where, table, bad, set_aside)
                with clock("decode"):
                    return self._chosen(where, table, leave_out)

            yield read

    def _chosen(self, where: Where, table: pa.Table, leave_out: Callable[[int], None]) -> Located | None:
        """The rows of `where` that the job wants; None where it wants none. table: the whole row group."""
        if where.picks is not None:
            table = table.take(pa.array(where.picks))
        kept = self.selection.kept(table)
        if kept is not None:
            leave_out(table.num_rows - len(kept))
            where = replace(where, picks=kept if where.picks is None else where.picks[kept])
            table = table.take(pa.array(kept))
        if where.picks is not None and not len(where.picks):
            return None
        return where, table if len(self.scored) == table.num_columns else table.select(list(self.scored))


def without(where: Where, table: pa.Table, error: BadRowsError, set_aside: SetAside) -> Where:
    """Set the bad rows aside that are to be read; what is left of `where`. table: the whole row group."""
    wanted = np.arange(table.num_rows) if where.picks is None else where.picks
    for bad in error.bad:
        which = np.isin(bad.at, wanted)
        if not which.any():
            continue
        at, stories = bad.at[which], [bad.stories[index] for index in np.flatnonzero(which).tolist()]
        rows = table.take(pa.array(at)).combine_chunks()
        batch = pa.RecordBatch.from_arrays([column.combine_chunks() for column in rows.columns], schema=rows.schema)
        place = replace(where, picks=at)
        set_aside(place, batch, range(len(at)), stories, code=bad.code, column=bad.column)
    return replace(where, picks=wanted[~np.isin(wanted, error.at)])
