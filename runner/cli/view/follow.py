"""A run of another process: drawn from its output directory until it ends."""

from __future__ import annotations

import json
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from jobs.errors import RunnerError
from runner.cli.view.output import render_status
from runner.driver.watch import Watch

_LOG_EVERY_S = 10.0  # without a terminal


def follow(watch: Watch, stream: TextIO, as_json: bool = False) -> int:
    """Show a run until it ends: a live screen in a terminal, else a line every 10 s. Returns the exit code."""
    console = Console(file=stream)
    if as_json:
        for status in watch:
            print(json.dumps(status.document(), ensure_ascii=False), file=stream, flush=True)
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for status in watch:
                live.update(Group(render_status(status), Text(f"\n{watch.line}")), refresh=True)
    else:
        _log(watch, stream)
    if not as_json:
        print(watch.end, file=stream, flush=True)
    return 0 if watch.status.state == "finished" else RunnerError.exit_code


def _log(watch: Watch, stream: TextIO) -> None:
    said = float("-inf")
    for _ in watch:
        if watch.ended or watch._clock() - said >= _LOG_EVERY_S:
            said = watch._clock()
            print(watch.line, file=stream, flush=True)
