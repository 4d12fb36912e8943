"""`runner init`: a job file to begin with, of what a model and an input tell.

Owns how a draft is written down; what fits is found in `runner.preflight.draft`. The invariants: a file that is there
is replaced only where that is asked for, and what is written is a job, but for the lines that say TODO.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.errors import JobError, OutputError
from jobs.load import job_from
from runner.cli.cache import cache_settings
from runner.cli.options import ModelPlace
from runner.cli.terminal import console

if TYPE_CHECKING:
    from runner.preflight.draft import Draft, Fed

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./=-]*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off"}  # which YAML takes for something else


def init(
    model: ModelPlace,
    input_: Annotated[str, typer.Argument(metavar="INPUT", help="File, folder or glob.")],
    output: Annotated[str, typer.Argument(metavar="[OUTPUT]", help="Folder to write to.")] = "scores",
    signature: Annotated[str | None, typer.Option(help="Signature to call.")] = None,
    file: Annotated[Path, typer.Option("--file", metavar="JOB.yaml", help="The file to write; '-': print it.")] = Path(
        "job.yaml"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Although the file is there.")] = False,
) -> None:
    """Write a job file: which columns feed which tensors, as far as names, types and shapes tell. Runs nothing."""
    from runner.preflight.draft import draft

    if str(file) != "-" and file.exists() and not overwrite:
        raise OutputError(f"cannot write '{file}': it is there; choose another name by --file, or --overwrite")
    job = job_from(model, [input_], output, signature)
    made = draft(job, cache_settings())
    text = job_text(made)
    if str(file) == "-":
        print(text, end="")  # noqa: T201
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise JobError(f"cannot write '{file}': {error.strerror or error}; choose another name by --file") from error
    missing = [fed.spec.name for fed in made.fed if fed.rule is None]
    rest = f"complete the lines that say TODO ({', '.join(map(repr, missing))}), then " if missing else ""
    console().print(f"wrote {file}: {rest}runner plan {file}", highlight=False, soft_wrap=True, markup=False)


def job_text(made: Draft) -> str:
    """The job file, with comments."""
    others = f"  # others: {', '.join(made.others)}" if made.others else ""
    examples = f", format: {made.format}, examples: infer" if made.job.input.examples else ""
    packages = f", op_packages: [{', '.join(made.packages)}]" if made.packages else ""
    files = f"{made.files:,} file{'s' * (made.files != 1)}"
    lines = [
        f"model: {{url: {_scalar(made.model_url)}, signature: {_scalar(made.signature.name)}{packages}}}{others}",
        f"input: {{url: {_scalar(made.job.input.url[0])}{examples}}}  # {made.format}, {files}",
        "columns:",
        *_inputs(made),
        "  outputs:  # those that are computed; leave some out where they are not needed",
        *(_output(name, str(made.signature.outputs[name]), written) for name, written in made.outputs.items()),
        f"  # keep: [{', '.join(map(_scalar, made.free[:8]))}]  # columns to write beside the outputs",
        f"output: {{url: {_scalar(made.job.output.url)}}}",
        "# workers: {count: 2}  # gpus: 1 gives each worker a GPU",
        "# limits: {on_bad_row: reject, max_rejected_rows: 0.1%}  # else the first bad row ends the job",
    ]
    return "\n".join(lines) + "\n"


def _output(name: str, spec: str, written: bool) -> str:
    if not written:
        return f"    # {_scalar(name)}: {spec} cannot be written"
    return f"    {_scalar(name)}: {_scalar(name)}  # {spec}"


def _inputs(made: Draft) -> list[str]:
    if not made.fed:
        return []
    body = [line for fed in made.fed for line in _lines(fed, made)]
    head = "  inputs:  # tensor: column"
    return [head if any(fed.rule for fed in made.fed) else f"  # {head.strip()}", *body]


def _lines(fed: Fed, made: Draft) -> list[str]:
    name, spec = _scalar(fed.spec.name), str(fed.spec)
    if fed.rule is not None:
        if fed.rule.column is not None:
            given = _scalar(fed.rule.column)
        else:
            given = f"{{stack: {_scalar(str(fed.rule.stack))}}}"
        return [f"    {name}: {given}  # {spec}" + (f"; a guess: {fed.why}" if fed.why else "")]
    if fed.candidates:
        return [f"    # TODO {name}: COLUMN  # {spec}; these fit: {', '.join(map(_scalar, fed.candidates))}"]
    return [f"    # TODO {name}: ...  # {spec}; no column fits{_hint(fed, made)}"]


def _hint(fed: Fed, made: Draft) -> str:
    spec = fed.spec
    if spec.shape == ():
        return ": the same for all rows, `{constant: VALUE}`"
    if spec.dtype == "string" and spec.encoding == "dense":
        columns = ", ".join(map(_scalar, made.free[:8]))
        return f"; serialized tf.Examples are made by `{{example: {{columns: [{columns}]}}}}`"
    if spec.shape and len(spec.shape) == 2 and (spec.shape[1] or 0) > 1:
        return f"; {spec.shape[1]} columns become one by `{{stack: [a, b, ...]}}`"
    kinds = ", ".join(f"{field.name}: {field.type}" for field in list(made.schema)[:8])
    return f"; the input has {kinds}"


def _scalar(text: str) -> str:
    """A text as YAML reads it back, also inside of braces."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
