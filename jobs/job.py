"""The Job: the frozen statement of what the user wants.

Owns the names and rules of a job file; refuses to know where models, files or workers are. Unknown keys are
errors, and two jobs with one fingerprint ask for the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from jobs import notebook
from jobs.format import RULES
from jobs.section.base import Change, Missing, Section
from jobs.section.canonical import digest
from jobs.section.columns import SHAPES, Columns, OutputColumn
from jobs.section.input import Input, SupportsArrow
from jobs.section.limits import Limits
from jobs.section.model import Model
from jobs.section.models import Models
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


@dataclass(frozen=True, slots=True)
class Named:
    """The variables that a job was read with: name -> value. Two jobs that say the same are equal without them.

    told:  of all texts but those that say how a place is reached.
    found: `env:NAME` and dates, in whatever text: what another process would find otherwise.
    dated: with a default that holds a date, and no value that was given: what another day finds otherwise.
    """

    told: Mapping[str, str] = field(default_factory=dict, compare=False)
    found: Mapping[str, str] = field(default_factory=dict, compare=False)
    dated: Mapping[str, str] = field(default_factory=dict, compare=False)


class Job(Section):
    """What is to be done. Frozen: `with_` makes another one."""

    model: Model | None = None  # or `models`: exactly one of the two
    models: Models | None = Field(default=None, validate_default=True)
    input: Input
    columns: Columns = Field(default_factory=Columns)
    output: Output
    workers: Workers = Field(default_factory=Workers)
    limits: Limits = Field(default_factory=Limits)
    _named: Named = PrivateAttr(default_factory=Named)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            input: Input | str | Path | Sequence[str | Path] | Mapping[str, Any] | SupportsArrow,
            output: Output | str | Path | Mapping[str, Any],
            model: Model | str | Path | Mapping[str, Any] | None = ...,
            models: Mapping[str, Model | str | Path | Mapping[str, Any]] | None = ...,
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

    @field_validator("models")
    @classmethod
    def _model_or_models(cls, models: Models | None, info: ValidationInfo) -> Models | None:
        if "model" not in info.data:  # what is wrong with it is said already
            return models
        if info.data["model"] is None and models is None:
            raise Missing("model")
        if info.data["model"] is not None and models is not None:
            raise ValueError("give 'model' or 'models'; found both")
        return models

    @model_validator(mode="after")
    def _inputs_named_once(self) -> Job:
        for name, model in (self.models or {}).items():
            for tensor in model.inputs:
                if f"{name}.{tensor}" in self.columns.inputs:
                    raise ValueError(
                        f"input {name}.{tensor} is mapped twice: under 'columns.inputs', and as 'models.{name}.inputs'"
                    )
        return self

    @model_validator(mode="after")
    def _one_precision_in_python(self) -> Job:
        eager = [model for model in self.called.values() if model.engine == "eager"]
        if len({model.mixed_precision for model in eager}) > 1:
            raise ValueError(
                "engine 'eager' has one 'mixed_precision' for all models of a process: give all of that engine the"
                " same, or choose 'session'"
            )
        return self

    @model_validator(mode="after")
    def _precision_of_the_device(self) -> Job:
        if self.workers.gpus and any(model.mixed_precision == "bfloat16" for model in self.called.values()):
            raise ValueError("mixed_precision 'bfloat16' is for workers without a GPU; on a GPU choose 'float16'")
        return self

    @model_validator(mode="after")
    def _compiled_where_compared(self) -> Job:
        if self.limits.compare_uncompiled is not None and not any(model.xla for model in self.called.values()):
            raise ValueError(
                "'limits.compare_uncompiled' compares compiled answers with uncompiled ones, and nothing is compiled:"
                " set 'model: {xla: true}', or leave it out"
            )
        return self

    @property
    def named(self) -> Named:
        """The variables that stood in the texts of the job. No part of it."""
        return self._named

    @property
    def variables(self) -> Mapping[str, str]:
        """Variable -> value, as people are told: 'dt' -> '2026-11-29'."""
        return self._named.told

    def naming(self, named: Named) -> Job:
        """The job, whose texts held these variables."""
        made = self.model_copy()
        made._named = named
        return made

    def _repr_html_(self) -> str:
        given = self.model_dump(mode="json", exclude_defaults=True)
        rows = ((f"{section}.{key}", value) for section, keys in given.items() for key, value in keys.items())
        return notebook.facts("Job", dict(rows))

    @property
    def called(self) -> dict[str, Model]:
        """Name -> what is called with every row; one alone has the name "". Of several signatures each is one."""
        if self.models is not None:
            return dict(self.models)
        assert self.model is not None  # one of the two is there
        if self.model.signatures is None:
            return {"": self.model}
        alone = {"signatures": None}
        return {name: self.model.model_copy(update={"signature": name, **alone}) for name in self.model.signatures}

    def of_models(self, changed: Callable[[Model], Mapping[str, Any]]) -> Job:
        """This job with other values in each of its models: those that `changed` returns, by key."""
        if self.models is not None:
            models = {name: model.model_copy(update=changed(model)) for name, model in self.models.items()}
            return self.model_copy(update={"models": models})
        assert self.model is not None
        return self.model_copy(update={"model": self.model.model_copy(update=changed(self.model))})

    @property
    def batch(self) -> int | None:
        """Rows of each call, as the job says for the only model; of several each has its own."""
        called = self.called
        return called[""].batch if "" in called else None

    @property
    def fingerprint(self) -> str:
        """Hash of what can change the result: without workers, retries, and how a store is reached.

        The size of a batch counts where every bit does.
        """
        document = self.model_dump(mode="json", exclude={"workers": True}, by_alias=True)
        models = [document["model"], *(document["models"] or {}).values()]
        for section in (*filter(None, models), document["input"], document["output"]):
            section.pop("options")
        for name, value in Input.plain().items():  # and how a catalog is reached, which `plain` leaves out
            if document["input"][name] == value:
                document["input"].pop(name)
        document["input"].pop("catalog")
        if self.output.strings in (None, RULES[self.output.format].strings):
            document["output"].pop("strings")
        # Keys that older jobs did not have are no part of it at their default.
        for rule in (document["columns"]["outputs"] or {}).values():
            for name in ("of", "labels", *SHAPES):
                if rule[name] is OutputColumn.model_fields[name].default:
                    rule.pop(name)
        for name in ("model", "models"):
            if document[name] is None:
                document.pop(name)
        for model in filter(None, models):
            model.pop("trust")
            for name in ("batch", "signatures", "op_packages"):
                if not model[name]:
                    model.pop(name)
        own = [rule for model in filter(None, models) for rule in model.get("inputs", {}).values()]
        for rule in [*document["columns"]["inputs"].values(), *own]:
            if rule["timestamp"] is None:
                rule.pop("timestamp")
            if rule["decode"] is None:
                rule.pop("decode")
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
