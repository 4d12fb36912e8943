"""`runner cache`: the copies of remote models on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from jobs.errors import JobError
from jobs.section.number import parse_bytes
from jobs.words import counted
from runner.cli.about import alone
from runner.cli.options import AsJson, seconds_of
from runner.cli.terminal import answering, console, print_json

if TYPE_CHECKING:
    from connectors.models.cache import CacheSettings

app = typer.Typer(
    help="Copies of remote models on this machine: look at them, remove them.",
    invoke_without_command=True,
    callback=answering(alone),
)


def cache_settings() -> CacheSettings:
    """RUNNER_MODEL_CACHE and RUNNER_MODEL_CACHE_LIMIT as CacheSettings. raises: JobError for a limit that is none."""
    from connectors.models.cache import DEFAULT_LIMIT_BYTES, CacheSettings

    limit = os.environ.get("RUNNER_MODEL_CACHE_LIMIT")
    try:
        limit_bytes = int(parse_bytes(limit)) if limit else DEFAULT_LIMIT_BYTES
    except ValueError as error:
        raise JobError(f"cannot use RUNNER_MODEL_CACHE_LIMIT: {error}") from None
    return CacheSettings(os.environ.get("RUNNER_MODEL_CACHE") or None, limit_bytes)


@app.command("list")
@answering
def list_(as_json: AsJson = False) -> None:
    """What is kept, the copy used last first."""
    from connectors.models.cache import ModelCache
    from runner.report.text import byte_count

    cache = ModelCache(cache_settings())
    entries = cache.entries()
    if as_json:
        print_json({"folder": str(cache.folder), "models": [entry.document() for entry in entries]})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "size", "last used", "digest"):
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
    for entry in entries:
        facts = entry.document()
        used = "now" if facts["in_use"] else facts["used"]
        table.add_row(Text(entry.url), byte_count(entry.bytes), used, entry.digest[:12])
    total = byte_count(sum(entry.bytes for entry in entries))
    console().print(Text(f"{counted(len(entries), 'model')}, {total}, in {cache.folder}"), soft_wrap=True)
    if entries:
        console().print(table, highlight=False)


@app.command()
def clean(
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Only what was not used for so long: 30m, 12h, 7d."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove the copies that are not in use, and what dead processes left behind."""
    from connectors.models.cache import ModelCache
    from runner.report.text import byte_count

    cache = ModelCache(cache_settings())
    removed, kept = cache.clean(seconds_of("--older-than", older_than) if older_than else 0.0)
    if as_json:
        copies = {"removed": [entry.document() for entry in removed], "in_use": [entry.document() for entry in kept]}
        print_json({"folder": str(cache.folder), **copies})
        return
    freed = byte_count(sum(entry.bytes for entry in removed))
    lines = [f"removed {counted(len(removed), 'model')} ({freed}) from {cache.folder}"]
    lines += [f"  removed {entry.url}" for entry in removed] + [f"  in use  {entry.url}" for entry in kept]
    console().print(Text("\n".join(lines)), soft_wrap=True)
