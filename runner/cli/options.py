"""Flags that several commands share, each defined once, and the job or the output that they name together.

Knows no command. The invariant: a flag means the same in every command that takes it, and no command has a parameter
for each of its flags: those that belong together are a dataclass, which `flattened` lists for typer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from connectors.secret import redact
from jobs.document.origin import Origin
from jobs.document.variables import variables_of
from jobs.errors import JobError
from jobs.job import Job
from jobs.load import job_from, load_job, output_from
from jobs.rows.where import parse
from jobs.section.base import Beside, Change
from jobs.section.number import Unquoted, parse_number
from jobs.section.output import Output
from runner import read_text

ModelPlace = Annotated[str, typer.Argument(help="SavedModel folder, or a folder of version folders.")]
Version = Annotated[int | None, typer.Option(help="Version folder; the newest if omitted.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the job.")]
Var = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="What `${NAME}` stands for in the job; repeatable."),
]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="TEXT", help="Of the rows, only those: `dt = '2026-11-01' and age >= 18`."),
]
Limit = Annotated[str | None, typer.Option("--limit", metavar="N", help="Of these, the first N.")]
Sample = Annotated[str | None, typer.Option("--sample", metavar="SHARE", help="Of the rows, about this share: 0.01.")]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Remove what earlier jobs published in this output, and begin anew; until that is finished, the same"
        " command continues it.",
    ),
]
Takeover = Annotated[
    bool, typer.Option("--takeover", help="Although another driver writes there; it stops when it next looks.")
]
WaitForDriver = Annotated[
    str | None,
    typer.Option("--wait-for-driver", metavar="30s|6m|1h", help="At most, where another driver writes there."),
]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
TrustOp = Annotated[
    list[str] | None,
    typer.Option("--trust-op", metavar="OP", help="Load the model with this op, and no other of its kind; repeatable."),
]
OpPackages = Annotated[
    list[str] | None,
    typer.Option("--op-package", metavar="NAME", help="Load the model's ops of this installed package; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer wants it: each parameter that is a dataclass of flags is replaced by the fields of it.

    raises: ValueError where two flags have one name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    flags: list[Parameter] = []
    for parameter in _parameters(command):
        flags += _parameters(groups[parameter.name]) if parameter.name in groups else [parameter]

    @wraps(command)
    def call(*arguments: Any, **values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group) if field.name in values})
            for name, group in groups.items()
        }
        command(*arguments, **made, **values)

    call.__signature__ = Signature(flags)  # type: ignore[attr-defined]  # typer reads what `inspect.signature` gives
    return call


def _parameters(of: Callable[..., Any]) -> list[Parameter]:
    """With the types that the annotations name."""
    hints = get_type_hints(of, include_extras=True)
    return [parameter.replace(annotation=hints[name]) for name, parameter in signature(of).parameters.items()]


@dataclass(frozen=True)
class JobFlags:
    """The job that a command is about: a job file and changes of it, or flags alone."""

    job: Annotated[Path | None, typer.Argument(metavar="[JOB.yaml]", help="The job file; or give the flags below.")] = (
        None
    )
    set_: Set = None
    var: Var = None
    model: Annotated[
        str | None, typer.Option("--model", metavar="URL", help="SavedModel folder, or its base folder.")
    ] = None
    input_: Annotated[
        list[str] | None, typer.Option("--input", metavar="URL", help="File, folder or glob; repeatable.")
    ] = None
    output: Annotated[str | None, typer.Option("--output", metavar="URL", help="Folder to write to.")] = None
    signature: Annotated[str | None, typer.Option("--signature", help="Signature to call.")] = None
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="TENSOR=COLUMN[,COLUMN]", help="Feed a tensor; several are stacked, as in CSV."),
    ] = None
    fetch: Annotated[
        list[str] | None, typer.Option("--fetch", metavar="TENSOR[=COLUMN]", help="Keep only these outputs.")
    ] = None
    where: Where = None
    limit: Limit = None
    sample: Sample = None
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="COLUMN[,COLUMN]",
            help="Pass input columns through: names, patterns, `all`, `-COLUMN` but for one, `NEW=COLUMN`; repeatable.",
        ),
    ] = None
    trust_model: Annotated[
        bool,
        typer.Option("--trust-model", help="Load the model although its ops may touch files, the network or Python."),
    ] = False
    trust_op: TrustOp = None
    op_package: OpPackages = None

    def read(self, *more: Change) -> Job:
        """The job. more: changes beside those of --set. raises: JobError where the flags make no job, or two."""
        job = self._read([*(self.set_ or []), *more, some_rows(self.where, self.limit, self.sample)])
        more_of: dict[str, object] = {}
        for key, model in {f"models.{name}" if name else "model": one for name, one in job.called.items()}.items():
            if self.trust_model:
                more_of[f"{key}.trust"] = True
            elif self.trust_op and model.trust is not True:
                more_of[f"{key}.trust"] = [*(model.trust or ()), *self.trust_op]
            if self.op_package:
                more_of[f"{key}.op_packages"] = [*model.op_packages, *self.op_package]
        return job.with_(more_of) if more_of else job

    def _read(self, changes: Sequence[Change]) -> Job:
        values = variables_of(self.var or [])
        needed = {"--model": self.model, "--input": self.input_, "--output": self.output}
        if self.job is not None:
            flags = {"--signature": self.signature, "--map": self.map_, "--fetch": self.fetch, "--keep": self.keep}
            if doubled := [name for name, value in (needed | flags).items() if value]:
                raise JobError(
                    f"cannot combine job file '{self.job}' with {', '.join(doubled)}: "
                    "give a job file (and --set KEY=VALUE), or flags alone"
                )
            return load_job(read_text(self.job), str(self.job), changes, vars=values, origin=submitted())
        if missing := [name for name, value in needed.items() if not value]:
            raise JobError(
                f"no job: give a job file, or the flags --model, --input and --output; missing {', '.join(missing)}"
            )
        return job_from(
            self.model or "",
            self.input_ or [],
            self.output or "",
            self.signature,
            self.map_ or [],
            self.fetch or [],
            self.keep or [],
            changes,
            values,
        )


def submitted() -> Origin:
    """What `${env:NAME}` and `${date:FORMAT}` are made of; RUNNER_VARIABLES has what `runner submit` made of them."""
    try:
        settled, told = json.loads(os.environ.get("RUNNER_VARIABLES", ""))
        return Origin.current(dict(settled), dict(told))
    except (ValueError, TypeError):  # none, or set by somebody else
        return Origin.current()


def some_rows(where: str | None, limit: str | None, sample: str | None) -> dict[str, Any]:
    """The changes that --where, --limit and --sample are. A condition stands beside the job's own: it never widens.

    raises: JobError for a condition that makes no sense by itself, whatever it would make of the two.
    """
    if where is not None and "${" not in where:
        try:
            parse(where)
        except ValueError as error:
            raise JobError(f"cannot use --where: {error}") from None
    given = {"where": None if where is None else Beside(where), "limit": _number(limit), "sample": _number(sample)}
    return {f"input.{name}": value for name, value in given.items() if value is not None}


def _number(given: str | None) -> Any:
    """As a job file has it; what is none stays text, for the job to refuse."""
    return None if given is None else parse_number(Unquoted(given))


def seconds_of(flag: str, given: str) -> float:
    """A duration as it is typed. raises: JobError, which names the flag."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhdw])", given.strip(), re.ASCII)
    if match is None:
        raise JobError(f"cannot use {flag} {given!r}: expected a number and a unit, such as 30s, 6m, 12h, 7d or 2w")
    return float(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True)
class OutputFlags:
    """The output that a command looks at: its folder, or the job file that names it."""

    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The output folder of a job, or the job file that names it.")
    ]
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="NAME=VALUE", help="How to reach it, as `output.options` of a job; repeatable."
        ),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As the job was run with; only with a job file."),
    ] = None
    var: Var = None

    def read(self) -> Output:
        """Where to look; a job file says how its output is reached, too. raises: JobError."""
        given = self.output
        if given.endswith((".yaml", ".yml", ".json")) and "://" not in given and not Path(given).is_dir():
            options = [f"output.options.{option}" for option in self.option or []]
            changes, variables = [*(self.set_ or []), *options], variables_of(self.var or [])
            return load_job(read_text(given), given, changes, vars=variables).output
        for flag, given_values in (("--set", self.set_), ("--var", self.var)):
            if given_values:
                raise JobError(
                    f"cannot use {flag} with '{redact(given)}': that is no job file; expected JOB.yaml, or no {flag}"
                )
        return output_from(given, self.option or [])
