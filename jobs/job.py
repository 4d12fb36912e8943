"""The Job: the frozen statement of what the user wants.

Owns the names and rules of a job file; refuses to know where models, files or workers are. Unknown keys are
errors, and two jobs with one fingerprint ask for the same result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field, model_validator

from jobs import notebook
from jobs.format import RULES
from jobs.section.base import Change, Section
from jobs.section.canonical import digest
from jobs.section.columns import SHAPES, Columns
from jobs.section.input import Input, SupportsArrow
from jobs.section.limits import Limits
from jobs.section.model import Model
from jobs.section.output import Output
from jobs.section.workers import Workers


class Reader(Protocol):
    """Makes jobs of text: `jobs.load`, which this module may not import."""

    def read(self, source: str | Path, overrides: Sequence[Change], vars: Mapping[str, object]) -> Job: ...

    def changed(self, job: Job, changes: Sequence[Change]) -> Job: ...


_readers: list[Reader] = []


def read_with(reader: Reader) -> None:
    """Called once, when `reader` is imported."""
    _readers[:] = [reader]


# Of the limits: what decides whether a job ends well, and not what is in its parts.
_PATIENCE = (
    *("max_attempts", "stall_s", "max_rejected_rows", "max_bad_files", "max_row_group_bytes", "compare_uncompiled"),
)


class Job(Section):
    """What is to be done. Frozen: `with_` makes another one."""

    model: Model
    input: Input
    columns: Columns = Field(default_factory=Columns)
    output: Output
    workers: Workers = Field(default_factory=Workers)
    limits: Limits = Field(default_factory=Limits)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            model: Model | str | Path | Mapping[str, Any],
            input: Input | str | Path | Sequence[str | Path] | Mapping[str, Any] | SupportsArrow,
            output: Output | str | Path | Mapping[str, Any],
            columns: Columns | Mapping[str, Any] = ...,
            workers: Workers | Mapping[str, Any] = ...,
            limits: Limits | Mapping[str, Any] = ...,
        ) -> None: ...

    @classmethod
    def from_yaml(cls, source: str | Path, *overrides: Change, vars: Mapping[str, object] | None = None) -> Job:
        """The job of a job file.

        source:    its path, or its text: what has several lines, or begins with `{`.
        overrides: 'limits.shard_rows=1000' or {'limits.shard_rows': 1000}, and the like.
        vars:      variable -> value, for `${variable}` in the texts of the job.
        raises:    JobError listing every problem.
        """
        return _readers[0].read(source, overrides, vars or {})

    def with_(self, *changes: Change) -> Job:
        """This job with other values: `job.with_("workers.count=2", {"output.url": path})`. It is checked as a whole.

        changes: 'KEY=VALUE' with a dotted key and a YAML value, or {dotted key: value}. The last one wins.
        raises:  JobError listing every problem.
        """
        return _readers[0].changed(self, changes)

    @model_validator(mode="after")
    def _precision_of_the_device(self) -> Job:
        if self.workers.gpus and self.model.mixed_precision == "bfloat16":
            raise ValueError("mixed_precision 'bfloat16' is for workers without a GPU; on a GPU choose 'float16'")
        return self

    @model_validator(mode="after")
    def _compiled_where_compared(self) -> Job:
        if self.limits.compare_uncompiled is not None and not self.model.xla:
            raise ValueError(
                "'limits.compare_uncompiled' compares compiled answers with uncompiled ones, and nothing is compiled:"
                " set 'model: {xla: true}', or leave it out"
            )
        return self

    def _repr_html_(self) -> str:
        given = self.model_dump(mode="json", exclude_defaults=True)
        rows = ((f"{section}.{key}", value) for section, keys in given.items() for key, value in keys.items())
        return notebook.facts("Job", dict(rows))

    @property
    def fingerprint(self) -> str:
        """Hash of what can change the result: without workers, retries, and how a store is reached.

        The size of a batch counts where every bit does.
        """
        document = self.model_dump(mode="json", exclude={"workers": True}, by_alias=True)
        for section in ("model", "input", "output"):
            document[section].pop("options")
        document["model"].pop("trust")
        if self.output.strings in (None, RULES[self.output.format].strings):
            document["output"].pop("strings")
        # Keys that older jobs did not have are no part of it at their default.
        for rule in (document["columns"]["outputs"] or {}).values():
            for name in ("of", "labels", *SHAPES):
                if rule[name] in (None, False):
                    rule.pop(name)
        if document["model"]["batch"] is None:
            document["model"].pop("batch")
        if not document["model"]["op_packages"]:
            document["model"].pop("op_packages")
        for rule in document["columns"]["inputs"].values():
            if rule["timestamp"] is None:
                rule.pop("timestamp")
            if not rule["exact"]:
                rule.pop("exact")
            if rule["example"] and rule["example"]["empty"] == "missing":
                rule["example"].pop("empty")
        for name in _PATIENCE:
            document["limits"].pop(name)
        if not self.limits.reproducible:
            del document["limits"]["batch_rows"], document["limits"]["reproducible"]
        document["limits"]["nonfinite"] = self.limits.nonfinite or "pass"  # which scores no row otherwise
        document["order"] = list(self.columns.outputs or ())  # of the columns written; canonical JSON sorts keys
        return digest(document)
