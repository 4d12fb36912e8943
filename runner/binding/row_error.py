"""The error of some rows of a batch: what `DataError` says of the first of them, it knows of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.errors import DataError


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
