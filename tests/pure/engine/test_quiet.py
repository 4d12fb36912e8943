"""What native libraries print: no terminal sees it while all is well, and a process that dies of it says so."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.engine import ModelOptions
from runner.engine.quiet import bound, crash_of, last_words, open_notes, tail
from runner.engine.risk import risks

_NOTES = """WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1767225600.308738   14083 port.cc:153] oneDNN custom operations are on.
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "terminate called after throwing an instance of 'dnnl::error'\n  what():  could not create a primitive\n",
            "terminate called after throwing an instance of 'dnnl::error' what(): could not create a primitive",
        ),
        (
            "F0000 00:00:1767225600.308738   14083 op.cc:12] Check failed: rows == 1 (2 vs. 1)\n"
            "*** Check failure stack trace: ***\n    @     0x7f0ff60a8eec  (unknown)\n",
            "Check failed: rows == 1 (2 vs. 1)",
        ),
        (
            "double free or corruption\n*** SIGABRT received at time=1767225600 on cpu 0 ***\n"
            "PC: @     0x7f0f  (unknown)\n[2026-01-01 00:00:00,938 E 13111 13111] logging.cc:474: PC: @ 0x7f0f\n"
            'Fatal Python error: Aborted\n\nStack (most recent call first):\n  File "a.py", line 8 in die\n',
            "double free or corruption",
        ),
        ("", ""),
    ],
    ids=["exception", "check", "crash-reports", "nothing"],
)
def test_last_words_are_what_a_library_said_before_the_stacks(said: str, words: str) -> None:
    assert last_words(":job_id:01000000\n" + _NOTES + said) == words


def test_a_crash_is_told_apart_from_an_end_from_outside() -> None:
    assert crash_of("free()\n*** SIGSEGV received at time=1 on cpu 0 ***\n") == "SIGSEGV"
    assert crash_of("free()\nFatal Python error: Aborted\n") == "'Aborted'"
    assert crash_of(_NOTES) == ""


def test_notes_are_bounded_and_what_comes_last_is_kept() -> None:
    with open_notes() as notes:
        notes.write(b"x" * (1 << 20) + b"more\n")
        notes.flush()
        bound(notes.fileno())
        notes.write(b"the end\n")
        notes.flush()
        assert tail(notes.fileno()) == "the end\n"


def test_only_what_is_set_is_a_risk() -> None:
    assert risks(ModelOptions(), {"TF_ENABLE_ONEDNN_OPTS": "0", "ONEDNN_MAX_CPU_ISA": ""}) == []
    options = ModelOptions(mixed_precision="float16", op_libraries=(("/ops.so", "00"),))
    assert risks(options, {"ONEDNN_MAX_CPU_ISA": "DEFAULT"}) == [
        "`model: {mixed_precision: float16}`",
        "`model: {op_libraries: ...}`",
        "ONEDNN_MAX_CPU_ISA=DEFAULT in the environment",
    ]


_SCRIPT = """
import os, sys
from runner.engine.quiet import NativeNotes
if sys.argv[1] == "closed":
    os.close(2)
if sys.argv[1] == "full":
    sys.executable = "/not/there"  # no process may be started to look after this one
NativeNotes.as_event = sys.argv[1] == "event"
with NativeNotes("loaded model 'm'"):
    os.write(2, b"a note of a library\\n")
    if sys.argv[1] in ("die", "event"):
        os.abort()
os.write(2, b"heard\\n")
"""


@pytest.mark.parametrize(
    ("how", "code", "heard"),
    [
        (
            "die",
            -signal.SIGABRT,
            "error: this process died while it loaded model 'm'; it said last: a note of a library",
        ),
        ("live", 0, "heard"),
        ("closed", 0, ""),
        ("full", 0, "a note of a library\nheard"),
    ],
)
def test_a_process_that_dies_while_its_notes_are_kept_shows_them(how: str, code: int, heard: str) -> None:
    root = Path(__file__).parents[3]
    # Standard error ends when the keeper does too, which outlives the process that it looks after.
    done = subprocess.run([sys.executable, "-c", _SCRIPT, how], capture_output=True, text=True, cwd=root, check=False)
    assert (done.returncode, done.stderr.strip()) == (code, heard)


def test_last_words_are_an_event_in_a_log_of_events() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, "event"], capture_output=True, text=True, cwd=root, check=False
    )
    event = json.loads(done.stderr)
    assert (event["event"], event["level"], event["run"]) == ("died", "error", "")
    assert event["message"].endswith("while it loaded model 'm'; it said last: a note of a library")
