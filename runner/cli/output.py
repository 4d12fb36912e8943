"""The commands that look at an output: `status`, `verify`, `rejects`, `diff` and `sweep`.

Knows flags and answers; what is in an output is read in `connectors.output`. The invariant: only `sweep` changes
anything, and none of them needs a driver or a cluster.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.errors import DataError, JobError, one_of
from runner.cli.options import AsJson, OutputFlags, flattened
from runner.cli.terminal import console, print_json, unread

if TYPE_CHECKING:
    from connectors.output.look.below import Below
    from jobs.section.output import Output
_WIDE = 100_000  # letters: no line of a table is broken


@flattened
def status(
    place: OutputFlags,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far a job is, from its output folder alone; or each of the jobs below a folder. No driver, no cluster.

    Exit code: 0 finished, 3 running, 4 stopped, failed or incomplete, 5 nothing there; of several jobs the worst.
    """
    from connectors.output.look.below import Below, outputs_below
    from connectors.output.status import read_status
    from runner.cli.view.output import EXIT_CODES, render_status

    output = place.read()
    written = read_status(output)
    below = outputs_below(output) if written.state == "absent" else Below(())
    if below.names and watch:
        raise JobError(
            f"cannot watch {len(below.names):,} jobs at once: name one of those below: {one_of(below.names)}"
        )
    if below.names:
        raise typer.Exit(_several(output, below, as_json))
    if watch:
        from runner.cli.view.follow import follow
        from runner.driver.watch import Watch

        raise typer.Exit(follow(Watch(output), sys.stdout, as_json, unread))
    if as_json:
        print_json(written.document())
    else:
        console().print(render_status(written))
    raise typer.Exit(EXIT_CODES[written.state])


def _several(parent: Output, below: Below, as_json: bool) -> int:
    from connectors.output.look.below import statuses
    from runner.cli.view.output import exit_code_of, render_statuses, statuses_document

    looks = [*statuses(parent, below.names)]
    if as_json:
        print_json(statuses_document(parent.url, below, looks))
    else:
        console().print(render_statuses(below, looks))
    return exit_code_of(looks)


@flattened
def verify(
    place: OutputFlags,
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

    verified = verification.verify(place.read(), deep=deep)
    if as_json:
        print_json(verified.document())
    else:
        console().print(render_verification(verified), highlight=False, soft_wrap=True)
    if not verified.holds:
        raise typer.Exit(DataError.exit_code)


@flattened
def rejects(
    place: OutputFlags,
    code: Annotated[str | None, typer.Option(help="Only rows with this code.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Rows to show; 20, or all with --json.")] = None,
    wide: Annotated[bool, typer.Option("--wide", help="A line for each row, with its message.")] = False,
    as_json: AsJson = False,
) -> None:
    """Which rows a job rejected, where they are and why: counts by code, then the rows of each message."""
    from connectors.output.reject import read_rejected  # pyarrow: only for this command
    from runner.cli.view.rejects import document, plain, render

    rejected = read_rejected(place.read())
    if as_json:
        print_json(document(rejected, code, limit), plain)
    else:
        screen = console(piped_width=None)
        if wide:
            screen.width = _WIDE
        screen.print(render(rejected, code, limit, wide), highlight=False, soft_wrap=True)


@flattened
def diff(
    place: OutputFlags,
    *,
    left: Annotated[str, typer.Option(metavar="COLUMN", help="The column that is compared.")],
    right: Annotated[str, typer.Option(metavar="COLUMN", help="The one that it is compared with.")],
    rows: Annotated[int, typer.Option(min=0, help="Rows to show, of those that differ most.")] = 10,
    as_json: AsJson = False,
) -> None:
    """In what two columns of an output differ: how many rows agree, by how much the others differ, and which most."""
    from runner.cli.view.diff import render
    from runner.compare.diff import diff as compared  # pyarrow: only for this command

    agreement = compared(place.read(), left, right, rows)
    if as_json:
        print_json(agreement.document())
    else:
        console().print(render(agreement), highlight=False, soft_wrap=True)


@flattened
def sweep(
    place: OutputFlags,
    old_plans: Annotated[
        bool,
        typer.Option(
            "--old-plans", help="Also what is kept of plans that were overwritten: epochs, manifests, reports."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and touch nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what dead attempts left in the output's staging folder, and nothing else; no part ever."""
    from connectors.output.look import sweep as sweeping
    from runner.cli.view.output import render_sweep

    swept = sweeping.sweep(place.read(), old_plans=old_plans, dry_run=dry_run)
    if as_json:
        print_json(swept.document())
    else:
        console().print(render_sweep(swept), highlight=False, soft_wrap=True)
