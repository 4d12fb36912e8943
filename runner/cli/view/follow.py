"""A run of another process: drawn from its output directory until it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Group
from rich.live import Live
from rich.text import Text

from connectors.output.status import Status
from runner.cli.view.output import EXIT_CODES, render_status
from runner.driver.watch import Watch
from runner.report.console import Console, json_text, printable

UNREAD = 141  # exit code where the reader has gone before what it follows has ended: 128 + SIGPIPE
_LOG_EVERY_S = 10.0  # without a terminal


def follow(watch: Watch, stream: TextIO, as_json: bool = False, unread: Callable[[], bool] = lambda: False) -> int:
    """Show a run until it ends: a live screen in a terminal, else a line every 10 s.

    unread:  whether the stream takes no more; then it is followed no longer.
    returns: the exit code of its state.
    """
    console = Console(file=stream)
    looks = _while_read(watch, unread)
    if as_json:
        for status in looks:
            print(json_text(status.document()), file=stream, flush=True)
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for status in looks:
                live.update(Group(render_status(status), Text(f"\n{printable(watch.line)}")), refresh=True)
    else:
        _log(watch, looks, stream)
    if unread() and not watch.ended:
        return UNREAD
    if not as_json:
        print(printable(watch.end), file=stream, flush=True)
    return EXIT_CODES[watch.status.state]


def _while_read(watch: Watch, unread: Callable[[], bool]) -> Iterator[Status]:
    for status in watch:
        if unread():
            return
        yield status


def _log(watch: Watch, looks: Iterator[Status], stream: TextIO) -> None:
    said = float("-inf")
    for _ in looks:
        if watch.ended or watch._clock() - said >= _LOG_EVERY_S:
            said = watch._clock()
            print(printable(watch.line), file=stream, flush=True)
