"""A table as it was at one version: which files it is made of, and which of their rows are still in it.

The invariant: what makes rows of it is said here in full; where something cannot be said, there is no snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from connectors.store.store import FileStat
from connectors.tables.columns import TableColumns

Rows = npt.NDArray[np.int64]  # of a file, counted over all of its row groups


@dataclass(frozen=True)
class Snapshot:
    """kind: 'Delta' or 'Iceberg'. url: where it lies, of the store that has its files. version: a number of its own.

    deleted: of a file, by url, the rows that are no longer in the table, rising, each once.
    schema:  the id of what its columns are, where a version alone does not say it.
    """

    kind: str
    url: str
    version: int
    columns: TableColumns
    files: Sequence[FileStat]
    deleted: Mapping[str, Rows] = field(default_factory=dict)
    schema: int | None = None

    @property
    def told(self) -> TableRead:
        """What workers need to read its files."""
        return TableRead(self.kind, self.version, self.columns, self.schema)


@dataclass(frozen=True)
class TableRead:
    """Of a snapshot, what each worker has to know."""

    kind: str
    version: int
    columns: TableColumns
    schema: int | None = None

    @property
    def words(self) -> str:
        return f"{'version' if self.kind == 'Delta' else 'snapshot'} {self.version} of the {self.kind} table"


def kept(deleted: Any, first: int, rows: int) -> Rows:
    """Those of the deleted rows of a file that lie in a row group, counted from its beginning."""
    begin, end = np.searchsorted(deleted, (first, first + rows))
    return np.asarray(deleted[begin:end] - first, np.int64)
