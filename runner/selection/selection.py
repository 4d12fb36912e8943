"""The part of the rows that a job wants: `where` and `sample`, by the schema of each file.

The invariant: planning and reading ask the same object, so that what a plan counts is what a worker keeps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa

from jobs.plan import Picks
from jobs.section.input import Input
from runner.selection.bound import Bound, bound, fields_of, roots
from runner.selection.keep import kept
from runner.selection.prune import Facts, may_match
from runner.selection.sample import sampled
from runner.tensor import Array


class Selection:
    """where: None: each row. sample: a share; None: all."""

    def __init__(self, where: str | None = None, sample: float | None = None) -> None:
        self.where, self.sample = where, None if sample == 1 else sample
        self._bound = lru_cache(maxsize=64)(lambda schema: bound(where or "", schema))

    @classmethod
    def of(cls, input: Input) -> Selection:
        return cls(input.where, input.sample)

    def __bool__(self) -> bool:
        """Whether rows may be left out."""
        return self.where is not None or self.sample is not None

    def columns(self, schema: pa.Schema) -> list[str]:
        """Those that `where` needs."""
        return [] if self.where is None else roots(self.where, schema)

    def bound(self, schema: pa.Schema) -> Bound:
        """raises: BindingError, see `runner.selection.bound`; only of a selection with a `where`."""
        return self._bound(schema)

    def ways(self, schema: pa.Schema) -> list[tuple[str, ...]]:
        """The columns, and the fields in them, whose statistics tell."""
        return list(dict.fromkeys(field.way for field in fields_of(self.bound(schema))))

    def may_match(self, schema: pa.Schema, facts: Facts) -> bool:
        return self.where is None or may_match(self.bound(schema), facts)

    def sampled(self, url: str, row_group: int, rows: int, picks: Picks | None) -> Array | None:
        """Which rows of a row group are in the sample, of those that are planned; None: all of it.

        rows: of the row group, in its file.
        """
        if self.sample is None:
            return None if picks is None else np.fromiter(picks, np.int64)
        planned = np.arange(rows) if picks is None else np.fromiter(picks, np.int64)
        return sampled(self.sample, url, row_group, planned)

    def kept(self, table: pa.Table) -> Array | None:
        """at: (rows that are kept,), ascending places in the table; None: all of it."""
        if self.where is None:
            return None
        mask = kept(self.bound(table.schema), table)
        return None if mask.all() else np.flatnonzero(mask)


EVERY_ROW = Selection()
