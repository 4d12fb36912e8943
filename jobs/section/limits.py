"""The section `limits`: how rows are cut, and how much may go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from jobs.section.base import Section
from jobs.section.number import Budget, ByteCount, Count, Rows, Seconds, Tries


class Limits(Section):
    if TYPE_CHECKING:  # what it reads is more than what it holds

        def __init__(self, **values: Any) -> None: ...

    shard_bytes: ByteCount = 128 * 2**20  # decoded bytes of the columns that are read
    shard_rows: Count = 2**22
    batch_rows: Literal["auto"] | Rows = "auto"
    max_attempts: Tries = 4
    stall_s: Seconds = 600.0  # how long an attempt may make no progress
    on_bad_row: Literal["fail", "reject"] = "fail"
    max_rejected_rows: Budget = 0  # of the job: a number, or a share of its rows
    on_bad_file: Literal["fail", "skip"] = "fail"
    max_bad_files: Budget = 0  # of the job: a number, or a share of its files
    # NaN or infinity in an input: `reject` makes it a bad row. None: it passes, and nobody has thought of it.
    nonfinite: Literal["pass", "reject"] | None = None
    nan_output: Literal["keep", "reject"] = "keep"  # NaN in an output, counted in any case
    reject_input: bool = False  # reject files hold the columns that were read: they may be personal data
    max_row_bytes: ByteCount | None = None  # of one row as it is read, lists and strings included
    max_row_group_bytes: ByteCount = 16 * 2**30  # decoded, of the columns that are read
    reproducible: bool = False  # the same bits in every run on machines of one kind, whatever happens
    compare_uncompiled: Count | None = None  # rows of each worker that are scored without XLA too, and must agree

    @property
    def may_lose(self) -> bool:
        """Whether the job may end well without all of its rows."""
        return self.on_bad_row == "reject" or self.on_bad_file == "skip"
