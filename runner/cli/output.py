"""The command `runner rejects`: which rows a job set aside, where they came from, and why."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from runner.cli.options import AsJson, OutputPlace, StoreOption, output_of


def rejects(
    output: OutputPlace,
    option: StoreOption = None,
    code: Annotated[str | None, typer.Option(help="Only rows with this code.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Rows to show; 20, or all with --json.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which rows a job rejected, where they are and why; counts by code first."""
    from rich.console import Console

    from connectors.output.reject import read_rejected  # pyarrow: only for this command
    from runner.cli.view.rejects import document, plain, render

    found = read_rejected(output_of(output, option))
    if as_json:
        text = json.dumps(document(found, code, limit), indent=2, ensure_ascii=False, default=plain)
        print(text)  # noqa: T201  # this is the command's answer
    else:
        Console().print(render(found, code, limit), highlight=False, soft_wrap=True)
