"""What native libraries print: kept off the user's terminal while all is well, and shown where the process dies of it.

The invariants: what is kept is bounded, and gone with a good end; a process that ends while its notes are kept does
not end without a word. Run as a script, this file is the keeper: a process that outlives the one it looks after.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import re
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, ClassVar

_MOST_BYTES, _TAIL_BYTES = 1 << 20, 1 << 14  # of notes; and how much of their end is looked through
_LOOK_S = 1.0  # how often the keeper looks at their size
_LINES, _LETTERS = 3, 400  # of last words

# What is printed of a crash by those who did not cause it: signal handlers, of Python, Abseil and Ray.
_CRASH = re.compile(r"\*\*\* (SIG\w+) received|^Fatal Python error: (\w+)", re.MULTILINE)
# Lines that tell no cause: logs below an error that ends the process, stacks, and what Ray writes into its files.
_BESIDE = re.compile(
    r"[IWE]\d{4} |\d{4}-\d\d-\d\d .*: [IWE] |WARNING: All log messages before absl|:\w+:"
    r"|\s+@\s+0x|PC: @|\*\*\* |\[\d{4}-\d\d-\d\d |  File \"|(Current )?[Tt]hread 0x|Stack \("
)
_FATAL = re.compile(r"F\d{4} [\d:.]+\s+\d+ (\S+\] )?")  # F0000 00:00:1767225600.123456 4711 file.cc:12] reason


def last_words(text: str) -> str:
    """Why a process died, of all that it printed: its last lines but for stacks and notes; "" where there are none."""
    before = text[: crash.start()] if (crash := _CRASH.search(text)) else text
    lines = [line for line in before.splitlines() if line.strip() and not _BESIDE.match(line)]
    words = " ".join(" ".join(_FATAL.sub("", line).split()) for line in lines[-_LINES:])
    words = "".join(letter if letter.isprintable() else "?" for letter in words)
    return words.rstrip(".") if len(words) <= _LETTERS else words[: _LETTERS - 3] + "..."


def crash_of(text: str) -> str:
    """The signal that a process reported as it died of it, 'SIGABRT'; "" where it reported none."""
    crash = _CRASH.search(text)
    return "" if crash is None else crash[1] or f"'{crash[2]}'"


def open_notes() -> IO[bytes]:
    """A file without a name for a process to print into. raises: OSError."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # its caller's
    fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)  # after it was cut, the next line is its first
    return file


def bound(notes: int) -> None:
    """Cut a file of notes that has grown too long: what comes last is said after that."""
    if os.fstat(notes).st_size > _MOST_BYTES:
        os.ftruncate(notes, 0)


def _standard_error() -> int:
    """A copy of it. One that is closed is opened on nothing, or what libraries print goes to the next file opened."""
    try:
        return os.dup(2)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != 2:
            os.dup2(nowhere, 2)
            os.close(nowhere)
        return os.dup(2)


def tail(notes: int) -> str:
    start = max(0, os.fstat(notes).st_size - _TAIL_BYTES)
    return os.pread(notes, _TAIL_BYTES, start).decode("utf-8", "replace")


class NativeNotes:
    """A context in which this process prints into a file instead of its standard error.

    TensorFlow writes some notes before it reads its own log level, so only the descriptor helps. Where this process
    dies meanwhile, the keeper shows the end of the file on the standard error that there was before.
    """

    as_event: ClassVar[bool] = False  # last words are an event of a log of JSON lines, see `runner.report.event_log`

    def __init__(self, doing: str) -> None:
        """doing: what this process does in the context, behind 'while it'."""
        self._doing = doing
        self._terminal: int | None = None
        self._life = -1  # the keeper reads the other end
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NativeNotes:
        with suppress(OSError, AttributeError):  # the terminal is gone; there never was one
            sys.stderr.flush()
        self._terminal = _standard_error()
        try:
            with open_notes() as notes:
                self._keep(notes.fileno())
                os.dup2(notes.fileno(), 2)
        except OSError:  # no room for a file, or for a process: then the notes, and last words, go to the terminal
            pass
        atexit.register(self.close)  # for a thread that is left behind in this context
        return self

    def _keep(self, notes: int) -> None:
        theirs, self._life = os.pipe()
        try:
            self._keeper = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    __file__,
                    str(notes),
                    str(theirs),
                    self._doing,
                    *["event"] * self.as_event,
                ],
                pass_fds=(notes, theirs),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the process that it looks after
            )
        finally:
            os.close(theirs)

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give standard error back; may be called again, and by another thread."""
        terminal, self._terminal = self._terminal, None
        if terminal is None:
            return
        atexit.unregister(self.close)
        os.dup2(terminal, 2)
        os.close(terminal)
        if self._life >= 0:
            with suppress(OSError):  # the keeper was ended by someone
                os.write(self._life, b".")
            os.close(self._life)
        if self._keeper is not None:
            self._keeper.wait()


def _look_after(notes: int, life: int, doing: str, form: str = "") -> None:
    """Wait for the good-bye of a process, or for its end: then say what it said last."""
    while not select.select([life], [], [], _LOOK_S)[0]:
        bound(notes)
    if not os.read(life, 1):
        words = last_words(tail(notes))
        said = f"it said last: {words}" if words else "it said nothing"
        story = f"this process died while it {doing}; {said}"
        event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": "error", "event": "died"}
        line = json.dumps(event | {"run": "", "message": story}) if form == "event" else f"error: {story}"
        print(line, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    _look_after(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
