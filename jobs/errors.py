"""The errors of the project, one tree.

RunnerError                     every error a user meets; carries an exit code and a failure class
├── JobError              2     the job is wrong: nothing was started
│   ├── ModelError              the SavedModel, its tags or its signature
│   ├── InputError              the listing or a file of the input, found at plan time
│   ├── BindingError            schema and signature disagree; lists all offenders
│   └── OutputError             the output cannot be written, or belongs to another job
├── DataError             65    a row or a file is bad, found while running
├── CapacityError         69    no cluster, or not the wanted resources
├── ModelCallError        70    the model refused a batch (the same batch fails again)
├── DeviceError           70    the device or the runtime under the model failed (another process may do better)
├── MemoryLimitError      70    a batch did not fit into memory
├── StorageError          70    a store did not answer as it should (may pass)
│   ├── UnreachableError  69    nobody answered at its address
│   └── FullError               no room is left on a disk or a store, or nothing may be written there
├── WorkerError           70    a worker process or its node was lost
├── PoisonError           70    a shard, or the model's first call, ends every process; or the model is at fault
├── InternalError         70    a check of our own failed
├── BusyError             75    another driver writes into this output; wait for it, or take over
├── SupersededError       75    another driver took over this output
└── StoppedError          130   interrupted by the user (130) or by a signal (143)

The Schedule decides on `failure_class` and on `condemns`, `ends_process`, `replaces_worker` and `breaks_device`, never
on the class or the text of a message. Every class survives pickling.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal

FailureClass = Literal["config", "data", "model", "memory", "transient", "infrastructure", "poison", "full", "stopped"]

_NEVER_RETRIED = (2, 65)  # exit codes: the job is wrong, the data are bad


class RunnerError(Exception):
    """An error a user can act on.

    message: `<what could not be done, to which named thing>: <found>; <expected or the choices>`.
    facts:   small plain values (str, int, float) for logs and scripts: code, file, row_group, row, column, ...
    """

    exit_code: ClassVar[int] = 70
    failure_class: ClassVar[FailureClass] = "infrastructure"
    breaks_device: ClassVar[bool] = False  # the device under the process is in doubt, and its node with it

    def __init__(self, message: str, /, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def __str__(self) -> str:
        """The message as a person reads it: its stable code comes first, unless the message says it already."""
        code = self.facts.get("code")
        if not code or re.search(rf"\b{re.escape(str(code))}\b", self.message):
            return self.message
        return f"{code}: {self.message}"

    @property
    def condemns(self) -> bool:
        """One row alone did not fit into memory: one such death is proof enough against its shard."""
        return self.failure_class == "memory" and self.facts.get("rows") == 1

    @property
    def ends_process(self) -> bool:
        """The process that raised it is of no more use, although it still answers."""
        return self.breaks_device or self.condemns

    @property
    def replaces_worker(self) -> bool:
        """What it allocated, or what broke, does not come back: the next attempt needs a fresh process."""
        return self.breaks_device or self.failure_class == "memory"

    @property
    def ends_with(self) -> int:
        """The exit code of a command that ends with it: a fact may say another one than the class."""
        return int(self.facts.get("exit_code", self.exit_code))

    @property
    def retry(self) -> bool:
        """Whether the same command, run again later, may end otherwise: with other workers, or when a store answers.

        False where the job, its data or its model are at fault: then something has to be changed first.
        """
        return self.ends_with not in _NEVER_RETRIED and self.failure_class not in ("config", "data", "model", "poison")

    def document(self) -> dict[str, Any]:
        """As plain JSON values, for scripts. message: with its code, as a person reads it. code: None without one."""
        facts = {name: _plain(value) for name, value in self.facts.items() if name not in ("code", "exit_code")}
        return {
            "code": self.facts.get("code"),
            "class": type(self).__name__,
            "message": str(self),
            "exit_code": self.ends_with,
            "retry": self.retry,
            "facts": facts,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.facts)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of it."""
        return _in_short(self)


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _rebuild(cls: type[RunnerError], message: str, facts: dict[str, Any]) -> RunnerError:
    return cls(message, **facts)


class JobError(RunnerError):
    exit_code = 2
    failure_class = "config"


class ModelError(JobError):
    pass


class InputError(JobError):
    pass


class BindingError(JobError):
    pass


class OutputError(JobError):
    pass


class DataError(RunnerError):
    """facts: `code` (stable; `connectors/README.md` lists them), and as known `file`, `row_group`, `row`, `column`."""

    exit_code = 65
    failure_class = "data"


class CapacityError(RunnerError):
    """facts: `resumable`, where it ended a run that had begun."""

    exit_code = 69


class ModelCallError(RunnerError):
    """facts: `code`, the name of TensorFlow's status code."""

    failure_class = "model"


class DeviceError(RunnerError):
    """facts: `code`, the name of TensorFlow's status code. The process that raised it is not to be trusted again."""

    breaks_device = True


class MemoryLimitError(RunnerError):
    """facts: `rows`, of the smallest batch that did not fit, where that is known."""

    failure_class = "memory"


class StorageError(RunnerError):
    failure_class: ClassVar[FailureClass] = "transient"


class UnreachableError(StorageError):
    """facts: `cause`: 'silent' of a store that has never answered."""

    exit_code = 69


class FullError(StorageError):
    """facts: `code`: DISK_FULL, DISK_QUOTA or DISK_READ_ONLY. Trying again fills nothing but the log."""

    failure_class = "full"


class WorkerError(RunnerError):
    pass


class PoisonError(RunnerError):
    """facts: `shard`, `file` (the first of the shard), `attempts`; none of a model that no process survives.
    Of a model that no row could please: `code` MODEL_FAULT, `status` of TensorFlow, `model`, `signature`, `rows`."""

    failure_class = "poison"


class InternalError(RunnerError):
    failure_class = "model"


class BusyError(RunnerError):
    """facts: `plan_id`, `epoch`, `host`, `pid` of the driver that writes, as its document tells."""

    exit_code = 75
    failure_class = "stopped"


class SupersededError(RunnerError):
    exit_code = 75
    failure_class = "stopped"


class StoppedError(RunnerError):
    """facts: `exit_code` where a signal other than Ctrl-C ended the run."""

    exit_code = 130
    failure_class = "stopped"


class Interrupted(KeyboardInterrupt):
    """A run in a notebook or a script was interrupted; its message says how to continue. No `Exception`, as Ctrl-C."""

    def _render_traceback_(self) -> list[str]:
        return _in_short(self)


_HOME = Path(__file__).resolve().parents[1]


def _in_short(error: BaseException) -> list[str]:
    """The user's own lines that led to `error`, and its message; with RUNNER_TRACEBACK=1 all of it."""
    if os.environ.get("RUNNER_TRACEBACK") == "1":
        return "".join(traceback.format_exception(error)).splitlines()
    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(_HOME) and path.relative_to(_HOME).parts[0] in ("jobs", "connectors", "runner"):
            break
        if not {"IPython", "contextlib.py"} & set(path.parts):
            where = "" if "ipy" in frame.filename else f"{path.name}, "
            lines.append(f"{where}line {frame.lineno}: {frame.line}")
    return [*lines, f"{type(error).__name__}: {error}"]


def out_of_threads(error: BaseException) -> CapacityError | None:
    """`error` where it says that this process may start no more threads, in Python's words or Arrow's; else None."""
    if not any(words in str(error) for words in ("can't start new thread", "Failed to launch worker thread")):
        return None
    return CapacityError(
        f"cannot start another thread: {error}; raise what limits the threads of this process (the pids of its"
        " container, `ulimit -u`, `ulimit -v`), or ask for fewer: `workers: {cpus: 1, readers: 1}`",
        resumable=True,
    )


def one_of(names: Sequence[str], wanted: str | None = None, most: int = 10) -> str:
    """The choices for a message: at most ten, quoted, the nearest names to `wanted` first."""
    near = get_close_matches(wanted, names, n=3, cutoff=0.6) if wanted else []
    ordered = near + [name for name in names if name not in near]
    listed = ", ".join(repr(name) for name in ordered[:most])
    return f"{listed} and {len(ordered) - most} more" if len(ordered) > most else listed or "none"


def offenders(problems: Sequence[str], most: int = 20) -> str:
    """Several problems under one message, a line each."""
    shown = [f"  - {problem}" for problem in problems[:most]]
    if len(problems) > most:
        shown.append(f"  - and {len(problems) - most} more")
    return "\n".join(shown)
