"""What a job may lose: rows and files that were set aside, counted over all receipts and held against its budgets.

Pure. The invariant: whatever is over a budget, or would leave nothing, is one DataError that names the largest causes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from jobs.attempt import Receipt
from jobs.errors import DataError
from jobs.plan import Plan
from jobs.section.limits import Limits
from jobs.section.number import allowed
from jobs.words import counted


@dataclass
class Rejections:
    """Counts of one job. Rows of files that cannot be read count against the budget of files, not that of rows.

    max_rows:     where all rows are wanted; see `most`.
    rows, files:  of the plan; files as listed, those included that were skipped when it was made.
    """

    max_rows: int
    max_files: int
    rows: int
    files: int
    bad_files: dict[str, int] = field(default_factory=dict)  # url -> rows that could not be read, as far as planned
    skipped: dict[str, str] = field(default_factory=dict)  # url -> code
    scored: int = 0  # rows that are written
    rejected: int = 0  # rows, of all kinds
    left_out: int = 0  # rows that the job does not want
    unread: int = 0  # of them, rows that could not be read
    codes: Counter[str] = field(default_factory=Counter)
    rows_budget: int | str = 0  # as the job says them, for messages
    files_budget: int | str = 0

    @classmethod
    def of(cls, plan: Plan, limits: Limits) -> Rejections:
        """Nothing but the files that were skipped when the plan was made."""
        skipped = plan.skipped
        files = len(plan.files) + len(skipped)
        return cls(
            max_rows=allowed(limits.max_rejected_rows, plan.rows),
            max_files=allowed(limits.max_bad_files, files),
            rows=plan.rows,
            files=files,
            bad_files=dict.fromkeys(skipped, 0),
            skipped=skipped,
            rows_budget=limits.max_rejected_rows,
            files_budget=limits.max_bad_files,
        )

    def note(self, receipt: Receipt) -> None:
        self.scored += receipt.rows_out
        self.rejected += receipt.rows_rejected
        self.left_out += receipt.rows_left_out
        self.unread += sum(receipt.bad_files.values())
        for url, rows in receipt.bad_files.items():
            self.bad_files[url] = self.bad_files.get(url, 0) + rows
        self.codes.update(receipt.codes)

    @property
    def wanted(self) -> int:
        """Rows that are not left out, as far as is known: it only falls."""
        return self.rows - self.left_out

    @property
    def most(self) -> int:
        """Rows that may be rejected: a share is one of those that are wanted."""
        return self.max_rows if isinstance(self.rows_budget, int) else allowed(self.rows_budget, self.wanted)

    @property
    def named(self) -> dict[str, str]:
        """url -> its code, or how many of its rows could not be read."""
        return {
            url: self.skipped.get(url) or f"{counted(rows, 'row')} not read" for url, rows in self.bad_files.items()
        }

    def excess(self) -> DataError | None:
        """Why the job may not go on."""
        if self.rejected - self.unread > self.most:
            return DataError(
                f"{counted(self.rejected - self.unread, 'row was', 'rows were')} rejected{self._causes()};"
                f" `limits.max_rejected_rows: {self.rows_budget}` allows {self.most:,} of {self.wanted:,}; {_NEXT}",
                code="MAX_REJECTED_ROWS",
                rows=self.rejected - self.unread,
            )
        if len(self.bad_files) > self.max_files:
            named = ", ".join(f"'{url}'" for url in sorted(self.bad_files)[:3])
            more = f" and {len(self.bad_files) - 3} more" if len(self.bad_files) > 3 else ""
            return DataError(
                f"{len(self.bad_files):,} of {counted(self.files, 'input file is', 'input files are')} bad:"
                f" {named}{more}; `limits.max_bad_files: {self.files_budget}` allows {self.max_files:,}; {_NEXT}",
                code="MAX_BAD_FILES",
                files=len(self.bad_files),
            )
        return None

    def nothing_left(self) -> DataError | None:
        """Why a job that is done has failed all the same: none of the rows that it wants was scored."""
        wanted = self.wanted
        if wanted and self.rejected >= wanted:
            rows = f"{'the' if wanted == 1 else 'all'} {counted(wanted, 'row was', 'rows were')} rejected"
            return DataError(
                f"{rows}{self._causes()}: the input does not fit the model, or the model is"
                " broken; see 'runner rejects', and run again with another job",
                code="ALL_REJECTED",
                rows=wanted,
            )
        return None

    def _causes(self) -> str:
        if not self.codes:
            return ""
        return f" ({', '.join(f'{count:,} {code}' for code, count in self.codes.most_common(5))})"


_NEXT = "see 'runner rejects'; repair the input, or raise the budget and run the same again"
