"""What the command says of itself: the versions of what works here, and what a job file may say.

Knows no job. The invariant: nothing heavy is imported to tell its version.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from jobs.errors import JobError
from runner import __version__
from runner.cli.terminal import print_json

# Name -> the packages that bring it, of which one is installed.
_PACKAGES = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tensorflow-intel", "tf-nightly"),
    "ray": ("ray",),
    "pyarrow": ("pyarrow",),
}


def front(
    context: typer.Context,
    show: Annotated[
        bool, typer.Option("--version", help="Versions: runner, TensorFlow, Ray, pyarrow, Python.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --version: as JSON.")] = False,
) -> None:
    """What stands before a command, or alone."""
    if show:
        if as_json:
            print_json(versions())
        else:
            for name, found in versions().items():
                print(f"{name} {found or 'is not installed'}")  # noqa: T201
        raise typer.Exit
    alone(context)
    if as_json:
        raise JobError("cannot use '--json' here: it goes behind the command, as in 'runner status OUTPUT --json'")


def alone(context: typer.Context) -> None:
    """What stands before the commands of a group: where none follows, its help is the answer, and no error."""
    if context.invoked_subcommand is None:
        print(context.get_help(), end="")  # noqa: T201
        raise typer.Exit(JobError.exit_code)


def schema() -> None:
    """The JSON Schema of a job file, by which editors complete keys and mark what is misspelt."""
    from jobs.document.schema import job_schema  # makes a model of each key: not for other commands

    print_json(job_schema())


def versions() -> dict[str, str | None]:
    """Of the runner and of what changes how it works; None: not installed."""
    found = {name: _installed(packages) for name, packages in _PACKAGES.items()}
    return {"runner": __version__, **found, "python": platform.python_version()}


def _installed(packages: tuple[str, ...]) -> str | None:
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None
