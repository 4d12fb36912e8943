"""Named places where a test can make a process die, hang or fail. Inert unless two environment variables are set.

`RUNNER_TEST_BUILD=1` and `RUNNER_FAILPOINTS="W6.after=kill@2;W3.fetch=raise"`: at the second passing of `W6.after` the
process kills itself. Effects: kill (SIGKILL), stop (SIGSTOP), raise (StorageError), abort (SIGABRT, behind a line on
standard error), hang (sleeps an hour), sleep:S, note. `@N` counts passings in this process, from 1; without it every
passing counts. `#FILE` after the number makes the effect happen once over all processes: to the one that creates FILE,
which writes its pid there. `note` does nothing but add one byte to its FILE at each passing: how often a step was taken
is the size of a file.

`RUNNER_FAILPOINTS=@FILE` reads the rules from FILE when a process starts: for workers of a cluster that is up already.

This is the one place beside the CLI that reads the environment: a worker process gets its faults no other way.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import StorageError

_EFFECTS = r"kill|stop|raise|abort|hang|sleep:\d+(?:\.\d+)?|note(?=.*#)"
_RULE = re.compile(rf"(?P<name>[\w.]+)=(?P<effect>{_EFFECTS})(@(?P<nth>\d+))?(#(?P<file>.+))?")


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
            raise ValueError(f"{rule!r} is no failpoint rule; write NAME=EFFECT[@N][#FILE], note with #FILE")
        nth = int(match["nth"]) if match["nth"] else None
        faults.append(Fault(match["name"], match["effect"], nth, match["file"]))
    return tuple(faults)


def configured(environment: Mapping[str, str]) -> tuple[Fault, ...]:
    """The faults that `environment` asks for: none, unless both variables are set."""
    if environment.get("RUNNER_TEST_BUILD") != "1":
        return ()
    text = environment.get("RUNNER_FAILPOINTS", "")
    if text.startswith("@"):
        file = Path(text[1:])
        text = file.read_text().strip() if file.exists() else ""
    return parse(text)


_ACTIVE = configured(os.environ)
_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """A place called `name`, such as 'W6.after': step W6 of the protocol, after its effect."""
    if not _ACTIVE:
        return
    _passed[name] += 1
    for fault in _ACTIVE:
        if fault.name == name and fault.nth in (None, _passed[name]):
            if fault.effect == "note":
                _write(fault.file or "", b".", os.O_APPEND)
            elif fault.file is None or _write(fault.file, b"%d" % os.getpid(), os.O_EXCL):
                _happen(fault)


def _write(file: str, content: bytes, how: int) -> bool:
    """False: it was there already, and was not to be. In one call: other processes see nothing half done."""
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | how, 0o600)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    return True


def _happen(fault: Fault) -> None:
    if fault.effect == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.effect == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.effect == "abort":
        os.write(2, f"a library meets failpoint '{fault.name}' and aborts\n".encode())
        os.abort()
    elif fault.effect == "raise":
        raise StorageError(f"failpoint '{fault.name}' was set to fail")
    else:
        time.sleep(3600.0 if fault.effect == "hang" else float(fault.effect.partition(":")[2]))
