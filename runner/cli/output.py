"""The command `runner rejects`: which rows a job set aside, where they came from, and why."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from jobs.job import Output


def rejects(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The output folder of a job.")],
    code: Annotated[str | None, typer.Option(help="Only rows with this code.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Rows to show; 20, or all with --json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """Which rows a job rejected, where they are and why; counts by code first."""
    from rich.console import Console

    from connectors.output.reject import read_rejected  # pyarrow: only for this command
    from runner.cli.view.rejects import document, plain, render

    found = read_rejected(Output(url=output))
    if as_json:
        text = json.dumps(document(found, code, limit), indent=2, ensure_ascii=False, default=plain)
        print(text)  # noqa: T201  # this is the command's answer
    else:
        Console().print(render(found, code, limit), highlight=False, soft_wrap=True)
