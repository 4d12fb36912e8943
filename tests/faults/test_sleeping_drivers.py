"""A driver that sleeps while another one takes over: row 36 of the fault matrix."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from exactly_once import snapshot

Start = Callable[..., subprocess.Popen[str]]
Command = Callable[..., subprocess.CompletedProcess[str]]
RUN = ("run", "job.yaml", "--in-process")


def test_row_36_a_driver_that_sleeps_is_not_overtaken_unasked_and_stops_with_75_when_it_wakes(
    case: Any, start: Start, command: Command, await_that: Callable[..., None]
) -> None:
    old = start("-m", "runner", *RUN, faults="W3.run=sleep:0.2")
    await_that(lambda: len(case.parts) >= 2, "two parts", old)
    os.kill(old.pid, signal.SIGSTOP)
    refused = command(*RUN)
    assert refused.returncode == 75, refused.stderr
    assert "--takeover" in refused.stderr
    assert not (case.output / "_SUCCESS").exists()
    rival = command(*RUN, "--takeover")
    assert rival.returncode == 0, rival.stderr
    before = snapshot(case.output)
    os.kill(old.pid, signal.SIGCONT)
    _, errors = old.communicate(timeout=90)
    assert old.returncode == 75, errors
    assert snapshot(case.output) == before, "byte-identical after `_SUCCESS`"
    case.require_equal()
