"""Blame: the rows of a batch that an input cannot be fed from, and the error that names them.

Owns how places among values become rows, and the sentence about them; refuses to know what is wrong with a value. The
invariant: every row to blame is named once, with the first of its values that is bad.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from jobs.errors import DataError
from jobs.words import counted
from runner.tensor import Array


class RowError(DataError):
    """Rows of one batch that are bad in one way. Raised and caught in one process: pickled, it is a DataError's facts.

    at:      (bad rows,) their indexes in the batch, ascending.
    stories: what is wrong, for each of them; says neither batch nor row, which mean nothing to a later reader.
    """

    at: npt.NDArray[Any] = np.empty(0, np.int64)
    stories: Sequence[str] = ()

    @classmethod
    def of(cls, message: str, at: npt.NDArray[Any], stories: Sequence[str], **facts: Any) -> RowError:
        """message: with the first of them."""
        error = cls(message, **facts, row=int(at[0]), rows=len(at))
        error.at, error.stories = at, stories
        return error


Rows = Callable[[], Array | None]  # (number of items,) the row of each, rising; None: the rows themselves


def _themselves() -> None:
    return None


@dataclass(frozen=True, eq=False)
class Blame:
    """input, column: what is fed, and from where.

    items: how many the values belong to; None: each value is one.
    rows:  the rows of the items; only worked out when something is wrong.
    """

    input: str
    column: str
    items: int | None = None
    rows: Rows = _themselves

    def among(self, items: int) -> Blame:
        return replace(self, items=items)

    def within(self, rows: Rows) -> Blame:
        return replace(self, rows=rows)

    def refuse(
        self, code: str, holds: str | Callable[[int], str], expected: str, failed: Array, rejectable: bool = True
    ) -> NoReturn:
        """raises: the error of the values that `failed` marks, as many for each item.

        holds: what stands there, for all of them, or of the n-th value. rejectable: see `row_error`.
        """
        by_item = failed.reshape(self.items or len(failed), -1)  # by_item: (items, values per item)
        bad, rows = np.flatnonzero(by_item.any(axis=1)), self.rows()  # bad: (items to blame,)
        at, first = (bad, np.arange(len(bad))) if rows is None else np.unique(rows[bad], return_index=True)
        # values: (items to blame,) the first bad one of each
        values = bad * by_item.shape[1] + by_item[bad].argmax(axis=1)
        texts = [holds if isinstance(holds, str) else holds(int(value)) for value in values[first]]
        raise self.row_error(code, texts, expected, at, rejectable)

    def row_error(
        self, code: str, holds: Sequence[str], expected: str, at: Array, rejectable: bool = True
    ) -> DataError:
        """The error of a batch.

        holds:      what each of the rows to blame holds. at: (rows to blame,), rising.
        rejectable: the rows are to blame, and not their batch.
        """
        subject = f"could not feed input {self.input!r} from column {self.column!r}"
        message = (
            f"{subject}: row {at[0]} of the batch holds {holds[0]} "
            f"({counted(len(at), 'such row')} in this batch); {expected}"
        )
        if not rejectable:
            return DataError(message, code=code, column=self.column, row=int(at[0]), rows=len(at))
        stories = [f"{subject}: found {text}; {expected}" for text in holds]
        return RowError.of(message, at, stories, code=code, column=self.column)


class Tally(Blame):
    """For rows that are only counted: nothing is said of each."""

    def row_error(
        self, code: str, holds: Sequence[str], expected: str, at: Array, rejectable: bool = True
    ) -> DataError:
        if not rejectable:
            return super().row_error(code, holds, expected, at, rejectable)
        return RowError.of("", at, (), code=code, column=self.column)
