"""Named places where a test can make a process die, hang or fail. Inert unless two environment variables are set.

`RUNNER_TEST_BUILD=1` and `RUNNER_FAILPOINTS="W6.after=kill@2;W3.fetch=raise"`: at the second passing of `W6.after` the
process kills itself. Effects: kill (SIGKILL), raise (StorageError), abort (SIGABRT), hang (sleeps an hour), sleep:S.
`@N` counts passings in this process, from 1; without it every passing counts. `#FILE` after the number makes the
effect happen once over all processes: whoever creates FILE first.

This is the one place beside the CLI that reads the environment: a worker process gets its faults no other way.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass

from jobs.errors import StorageError

_RULE = re.compile(r"(?P<name>[\w.]+)=(?P<effect>kill|raise|abort|hang|sleep:[\d.]+)(@(?P<nth>\d+))?(#(?P<file>.+))?")


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    effect: str
    nth: int | None
    file: str | None


def parse(text: str) -> tuple[Fault, ...]:
    """raises: ValueError for a rule that is not of the grammar above."""
    faults = []
    for rule in filter(None, text.split(";")):
        match = _RULE.fullmatch(rule)
        if match is None:
            raise ValueError(f"{rule!r} is no failpoint rule; write NAME=EFFECT[@N][#FILE]")
        nth = int(match["nth"]) if match["nth"] else None
        faults.append(Fault(match["name"], match["effect"], nth, match["file"]))
    return tuple(faults)


_ACTIVE = parse(os.environ.get("RUNNER_FAILPOINTS", "")) if os.environ.get("RUNNER_TEST_BUILD") == "1" else ()
_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """A place called `name`, such as 'W6.after': step W6 of the protocol, after its effect."""
    if not _ACTIVE:
        return
    _passed[name] += 1
    for fault in _ACTIVE:
        if fault.name == name and fault.nth in (None, _passed[name]) and _first(fault.file):
            _happen(fault)


def _first(file: str | None) -> bool:
    if file is None:
        return True
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _happen(fault: Fault) -> None:
    if fault.effect == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.effect == "abort":
        os.abort()
    elif fault.effect == "raise":
        raise StorageError(f"failpoint '{fault.name}' was set to fail")
    else:
        time.sleep(3600.0 if fault.effect == "hang" else float(fault.effect.partition(":")[2]))
