"""What a finished job came to: its figures, its rows, and how they look in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from connectors.output.directory import open_dataset
from connectors.output.reject import read_rejected
from jobs.errors import JobError
from jobs.notebook import Report, facts
from jobs.numerics import Difference
from jobs.section.base import OptionValue
from jobs.section.output import Output
from jobs.words import counted
from runner.measure.account import Account
from runner.report.text import account_lines, byte_count, changed_inputs, differing_line, duration, odd_inputs
from runner.report.wording import in_python, python_words


@dataclass(frozen=True, repr=False)
class Result:
    """A finished job.

    parts:     URLs of the published files, in the order of the input.
    seconds:   of this run, planning and start included; 0 where everything was done before.
    rows:      written; those rejected, or left out by `where` or `sample`, are not among them.
    rows_run:  rows this run worked on itself; the others were there already.
    finished_at: where everything was done before, when; by the clock of the driver that finished, "" if not known.
    codes:     code -> rows rejected with it. bad_files: url -> its code, or how many of its rows could not be read.
    nan_rows, nonfinite_rows, unseen_rows, changed_rows:  of the rows written, as in a Receipt.
    rounded:   inputs whose values were rounded, in words.
    differences: in what the workers differ that changes numbers, over all parts.
    """

    output: str
    plan_id: str
    rows: int
    parts: tuple[str, ...]
    seconds: float
    rows_run: int
    retries: int
    bytes: int
    rows_rejected: int = 0
    rows_left_out: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    bad_files: dict[str, str] = field(default_factory=dict)
    nan_rows: int = 0
    nonfinite_rows: int = 0
    unseen_rows: int = 0
    changed_rows: int = 0
    rounded: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    account: Account | None = field(default=None, repr=False)  # None: nothing was done, or it could not be written
    page: str = ""  # URL of the same for people, as HTML; "" where a run that was done before left none
    finished_at: str = ""
    options: Mapping[str, OptionValue] = field(default_factory=dict, repr=False)  # to reach the output again
    schema: Any = field(default=None, repr=False, compare=False)  # pyarrow's, of the rows that were written

    @property
    def report(self) -> Report:
        """The figures of the run as plain values; a notebook shows them as a table."""
        report: dict[str, Any] = {
            "output": self.output,
            "plan_id": self.plan_id,
            "rows": self.rows,
            "rows_run": self.rows_run,
            "parts": len(self.parts),
            "bytes": self.bytes,
            "rows_rejected": self.rows_rejected,
            "rows_left_out": self.rows_left_out,
            "codes": self.codes,
            "bad_files": self.bad_files,
            "nan_rows": self.nan_rows,
            "nonfinite_rows": self.nonfinite_rows,
            "unseen_rows": self.unseen_rows,
            "changed_rows": self.changed_rows,
            "rounded": list(self.rounded),
            "seconds": round(self.seconds, 3),
            "rows_per_s": round(self.account.reached.rows_per_s, 1) if self.account else 0.0,  # while working
            "retries": self.retries,
            **({} if self.account is None else self.account.document()),
            "differences": list(map(str, self.differences)),
        }
        return Report(report)

    def dataset(self) -> Any:
        """A pyarrow.dataset.Dataset over exactly the parts that the manifest lists, in the types that were written."""
        return open_dataset(self.parts, self.options, self.schema)

    def to_pandas(self) -> Any:
        """All rows as a pandas.DataFrame, in the order of the input: they must fit into memory, see `dataset`.

        raises: RunnerError where pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise JobError(
                "cannot make a DataFrame: pandas is not installed; install it, or use dataset(), which is a"
                " pyarrow.dataset and needs none"
            )
        return self.dataset().to_table().to_pandas()

    @python_words()
    def rejects(self) -> Any:
        """The rejected rows as a pyarrow.Table, in the order of the input; see `connectors.output.reject`."""
        return read_rejected(Output(url=self.output, options=dict(self.options))).table()

    def __repr__(self) -> str:
        return f"<Result of '{self.output}': {self.summary().splitlines()[0]}>"

    @property
    def lines(self) -> dict[str, str]:
        """The summary as what: ..., in the words of Python."""
        return dict(line.partition(": ")[::2] for line in in_python(self.summary()).split("\n"))

    def _repr_html_(self) -> str:
        return facts("Result", self.lines, share=1.0)

    def summary(self) -> str:
        """A few lines for a person, each `what: ...`."""
        rows, parts = counted(self.rows, "row"), f"{counted(len(self.parts), 'part')} ({byte_count(self.bytes)})"
        if not self.rows_run and not self.seconds:
            when = f", finished {self.finished_at}" if self.finished_at else ""
            lines = [f"already done: {rows} in {parts}{when}", *self._losses()]
            if self.page:
                lines.append(f"report: {self.page}")
            lines.append("to run it again: --overwrite, which removes these parts first")
            return "\n".join([*lines, f"output: {self.output}"])
        earlier = self.rows + self.rows_rejected + self.rows_left_out - self.rows_run
        of = " of the input" if self.rows_left_out else ""
        before = f" ({earlier:,}{of} {'was' if earlier == 1 else 'were'} done before)" if earlier else ""
        lines = [f"done: {rows}{before} in {parts}, {duration(self.seconds)}, {self.retries} retried", *self._losses()]
        if self.account is not None:
            lines += account_lines(self.account)
            lines.append(f"report: {self.page}")
        return "\n".join([*lines, f"output: {self.output}"])

    def _losses(self) -> list[str]:
        """What a person must not overlook."""
        lines = []
        if self.rows_left_out:
            lines.append(f"left out: {counted(self.rows_left_out, 'row')}")
        if self.rows_rejected:
            causes = ", ".join(f"{count:,} {code}" for code, count in self.codes.items())
            lines.append(
                f"rejected: {counted(self.rows_rejected, 'row')} ({causes}); see: runner rejects {self.output}"
            )
        if self.bad_files:
            named = ", ".join(f"'{url}' ({why})" for url, why in list(self.bad_files.items())[:10])
            more = f" and {len(self.bad_files) - 10:,} more" if len(self.bad_files) > 10 else ""
            lines.append(f"bad files: {named}{more}")
        if self.nan_rows:
            lines.append(f"NaN: in {self.nan_rows:,} of the rows written")
        if self.nonfinite_rows:
            lines.append(f"inputs: {odd_inputs(self.nonfinite_rows, self.unseen_rows)}")
        if self.changed_rows:
            lines.append(f"changed: {changed_inputs(self.changed_rows)}")
        if self.rounded:
            lines.append(f"rounded: {'; '.join(self.rounded)}")
        if self.differences:
            lines.append(differing_line(self.differences))
        return lines
