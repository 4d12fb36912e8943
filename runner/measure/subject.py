"""What a run was about: what went in, how it was mapped, what was set aside, and with which versions. A value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Subject:
    """Of the whole plan, all runs of it together.

    files, row_groups, bytes: of the input; inputs: urls of its first files.
    columns:       a row for each input, output and kept column, as `runner plan` shows it.
    rows_rejected: and code -> how many of them; bad_files: url -> why. reject_files: their folder.
    rows_left_out: by `where` or `sample`.
    variables:     of the texts of the job.
    versions:      of what the driver runs with, by name. host, pid: of the driver.
    """

    files: int = 0
    row_groups: int = 0
    bytes: int = 0
    inputs: Sequence[str] = ()
    columns: Sequence[Mapping[str, str]] = ()
    rows_rejected: int = 0
    codes: Mapping[str, int] = field(default_factory=dict)
    bad_files: Mapping[str, str] = field(default_factory=dict)
    reject_files: str = ""
    rows_left_out: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    pid: int = 0

    def document(self) -> dict[str, Any]:
        """The keys of `report.json`."""
        known = asdict(self)
        rejected = ("rows_rejected", "rows_left_out", "codes", "bad_files", "reject_files")
        driver = {name: known.pop(name) for name in ("host", "pid")}
        return {
            "input": {name: known.pop(name) for name in ("files", "row_groups", "bytes", "inputs")},
            "variables": dict(known.pop("variables")),
            "columns": list(known.pop("columns")),
            **{name: known.pop(name) for name in rejected},
            "versions": known.pop("versions"),
            "driver": driver,
        }


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run of the same job before this one. page: the name of its report in `reports/`, "" where it left none."""

    epoch: int
    began: str
    heard: str
    ending: str
    rows_done: int | None
    page: str
