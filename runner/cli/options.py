"""Flags that several commands share, each defined once, and the output that they name together.

Knows no command. The invariant: an OUTPUT means the same in every command that takes one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.job import Output
from jobs.load import load_job, output_from
from runner import read_text

OutputPlace = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="The output folder of a job, or the job file that names it.")
]
StoreOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="How to reach it, as `output.options` of a job; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


def output_of(given: str, options: list[str] | None) -> Output:
    """Where a command is to look: a job file says how its output is reached, too."""
    if not given.endswith((".yaml", ".yml", ".json")) or not Path(given).is_file():
        return output_from(given, options or [])
    return load_job(read_text(given), given, [f"output.options.{option}" for option in options or []]).output
