"""The commands that look at an output: `status`, `verify`, `rejects` and `sweep`.

Knows flags and answers; what is in an output is read in `connectors.output`. The invariant: only `sweep` changes
anything, and none of them needs a driver or a cluster.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobs.errors import DataError
from runner.cli.options import AsJson, OutputPlace, StoreOption, Var, output_of
from runner.cli.terminal import console, print_json, unread


def status(
    output: OutputPlace,
    option: StoreOption = None,
    var: Var = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends; exit 0 if all is written.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far a job is, from its output folder alone: no driver, no cluster."""
    from connectors.output.status import read_status
    from runner.cli.view.output import render_status

    place = output_of(output, option, var)
    if watch:
        from runner.cli.view.follow import follow
        from runner.driver.watch import Watch

        raise typer.Exit(follow(Watch(place), sys.stdout, as_json, unread))
    written = read_status(place)
    if as_json:
        print_json(written.document())
    else:
        console().print(render_status(written))


def verify(
    output: OutputPlace,
    option: StoreOption = None,
    var: Var = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every part again, and compare its SHA-256 with the manifest.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prove from storage alone that every input row is in exactly one part. Exit 65 if anything is wrong.

    That another run would write the same bits is no part of it: that is for `limits: {reproducible: true}` of the job.
    """
    from connectors.output import verification
    from runner.cli.view.output import render_verification

    verified = verification.verify(output_of(output, option, var), deep=deep)
    if as_json:
        print_json(verified.document())
    else:
        console().print(render_verification(verified), highlight=False, soft_wrap=True)
    if not verified.holds:
        raise typer.Exit(DataError.exit_code)


def rejects(
    output: OutputPlace,
    option: StoreOption = None,
    var: Var = None,
    code: Annotated[str | None, typer.Option(help="Only rows with this code.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Rows to show; 20, or all with --json.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which rows a job rejected, where they are and why; counts by code first."""
    from connectors.output.reject import read_rejected  # pyarrow: only for this command
    from runner.cli.view.rejects import document, plain, render

    rejected = read_rejected(output_of(output, option, var))
    if as_json:
        print_json(document(rejected, code, limit), plain)
    else:
        console(piped_width=None).print(render(rejected, code, limit), highlight=False, soft_wrap=True)


def sweep(
    output: OutputPlace,
    option: StoreOption = None,
    var: Var = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and touch nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what dead attempts left in the output's staging folder, and nothing else."""
    from connectors.output import sweep as sweeping
    from runner.cli.view.output import render_sweep

    swept = sweeping.sweep(output_of(output, option, var), dry_run=dry_run)
    if as_json:
        print_json(swept.document())
    else:
        console().print(render_sweep(swept), highlight=False, soft_wrap=True)
