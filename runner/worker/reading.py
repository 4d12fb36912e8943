"""The row groups of one attempt, decoded by the reader threads of a worker.

Knows how a piece of a file becomes tables; refuses to know threads and models. The invariant: every planned row group
is read once, as planned, or an error names it; no row of another content of its file is ever published.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pyarrow as pa

from connectors.failpoint import failpoint
from connectors.formats.base import RowGroupReader, Source
from connectors.formats.schema import conform
from connectors.store.store import Store
from jobs.attempt import Attempt, InputSlice
from jobs.errors import DataError
from runner.batch.batches import Where
from runner.measure.stage import StageClock

Unit = tuple[InputSlice, int]  # a row group: the planned piece of its file, and its index there
Located = tuple[Where, pa.Table]
Readable = Callable[[InputSlice, int, Callable[[], pa.Table]], pa.Table | None]


def row_groups_ahead(readers: int) -> int:
    """How many row groups are in the making or wait, beside the one in use: one for each reader, at least two."""
    return max(2, readers)


def units(attempt: Attempt) -> Generator[Unit, None, None]:
    """The row groups of an attempt that hold a row to score, in order."""
    for piece in attempt.inputs:
        for row_group in range(piece.first, piece.first + len(piece.rows)):
            if piece.picked(row_group) != ():
                yield piece, row_group


@dataclass(frozen=True)
class Reading:
    """How a worker reads: the source, and the columns of the job with the types that all files agree on.

    survive: called before a row group is decoded, where that may end a process; raises DataError where it did.
    """

    source: Source
    store: Store
    columns: Sequence[str]
    schema: pa.Schema
    survive: Callable[[InputSlice, int], None] | None = None

    @contextmanager
    def reader(self, clock: StageClock, readable: Readable) -> Iterator[Callable[[Unit], Located | None]]:
        """What one thread reads with. The file of the last unit stays open for the next.

        readable: calls what reads a row group; None where that failed and the job does without: see `Rejects`.
        """
        with ExitStack() as opened:
            here: tuple[InputSlice, RowGroupReader] | None = None

            def decode(piece: InputSlice, row_group: int) -> pa.Table:
                nonlocal here
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
                        table = conform(reader.read(row_group), self.schema, piece.url)
                    except DataError:
                        here = None
                        opened.close()  # raises where the file has changed, which looks like damage
                        raise
                # Fetching waits for a store, decoding for a core: the report keeps the two apart.
                clock.add("read", reader.fetch_s - fetched)
                clock.add("decode", fetched - reader.fetch_s)
                picks = piece.picked(row_group)
                return table if picks is None else table.take(pa.array(picks, pa.int64()))

            def read(unit: Unit) -> Located | None:
                piece, row_group = unit
                failpoint("W3.fetch")
                table = readable(piece, row_group, lambda: decode(piece, row_group))
                return None if table is None else (Where(piece.url, row_group, 0, piece.picked(row_group)), table)

            yield read
