"""What modules log reaches those who look at the terminal, or who collect its log."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.cli.terminal import event_log, hear, printer, say, wants_json

REDIRECTS = {  # of a command that answers -> its exit code
    ">&-": 0,
    "2>&-": 0,
    "<&- >&- 2>&-": 0,
    "2>/dev/full": 0,
    ">/dev/full": 2,  # the answer is all that there is
    "| sleep 0": 0,
}


def _full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _pipe_without_a_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _closed_terminal() -> int:
    terminal, side = pty.openpty()
    os.close(terminal)
    return side


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """As they were, afterwards."""
    ours = [logging.getLogger(name) for name in ("jobs", "connectors", "runner")]
    before = [(logger, list(logger.handlers), logger.propagate) for logger in ours]
    yield
    for logger, handlers, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate


def test_a_warning_of_any_module_is_told_once_and_what_is_less_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    hear()
    hear(told.append)
    logging.getLogger("connectors.store.calls").warning("still waiting after 10 s")
    logging.getLogger("runner.driver.driver").warning("worker %s: token=%s", "w1", "hunter2")
    logging.getLogger("runner.driver.driver").info("not this")
    assert told[0] == "still waiting after 10 s"
    assert told[1].startswith("worker w1: token=")
    assert len(told) == 2
    assert "hunter2" not in told[1]
    hear()
    logging.getLogger("jobs.x").warning("another")
    assert len(told) == 2
    assert capsys.readouterr().err == "warning: another\n"


def test_with_a_log_of_events_whatever_warns_is_an_event(tmp_path: Path) -> None:
    code = (
        "import logging, sys, threading, warnings\n"
        "sys.argv = ['runner', 'run', '--log-format', 'json']\n"
        "from runner.cli.main import _ended\n"
        "from runner.cli.terminal import hear, say\n"
        "hear()\n"
        "threading.excepthook = _ended\n"
        "logging.getLogger('connectors.store.calls').warning('of ours')\n"
        "logging.getLogger('urllib3').warning('of a library')\n"
        "warnings.warn('of Python')\n"
        "say('of a command')\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='odd'); thread.start(); thread.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {event["event"] for event in events} == {"warning"}
    words = ["of ours", "of a library", "of Python", "of a command", "thread 'odd' has ended: ZeroDivisionError"]
    assert [word in event["message"] for word, event in zip(words, events, strict=True)] == [True] * 5


@pytest.mark.parametrize(
    ("typed", "as_json", "as_events"),
    [
        (["plan", "--json"], True, False),
        (["run", "--log-format=json"], False, True),
        (["run", "--log-format", "json", "--json"], True, True),
        (["run", "--log-format", "text"], False, False),
        (["status", "--", "--json"], False, False),
    ],
)
def test_what_was_typed_decides_in_which_form_errors_are_told(
    typed: list[str], as_json: bool, as_events: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["runner", *typed])
    event_log.cache_clear()
    assert (wants_json(), event_log() is not None) == (as_json, as_events)
    event_log.cache_clear()


@pytest.mark.parametrize("opened", [_full_disk, _pipe_without_a_reader, _closed_terminal])
def test_no_error_of_printing_is_raised(opened: Callable[[], int]) -> None:
    with printer(opened(), "ascii", owned=True) as stream:
        for _ in range(10_000):
            print("é" * 10, file=stream)
        stream.flush()


def test_a_reader_that_is_slow_gets_every_line_although_the_pipe_does_not_block() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    script = "import os; n = 0\nwhile (b := os.read(0, 4096)): n += len(b)\nprint(n)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=reader, stdout=subprocess.PIPE) as slow:
        os.close(reader)
        with printer(writer, owned=True) as stream:
            for _ in range(1000):
                print("x" * 999, file=stream)
        assert slow.communicate()[0] == b"1000000\n"


def test_a_stream_that_is_closed_or_full_changes_no_exit_code_but_that_of_an_answer() -> None:
    root = Path(__file__).parents[3]
    shells = {
        redirect: subprocess.Popen(
            ["bash", "-c", f'"$0" -m runner cache list {redirect}; exit ${{PIPESTATUS[0]}}', sys.executable],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=root,
        )
        for redirect in REDIRECTS
    }
    told = {redirect: shell.communicate()[1].decode() for redirect, shell in shells.items()}
    assert {redirect: shell.returncode for redirect, shell in shells.items()} == REDIRECTS, told
    failed = told.pop(">/dev/full")
    assert failed.startswith("error: cannot print the answer: No space left on device")
    assert set(told.values()) == {""}


def test_what_others_wrote_makes_no_line_that_looks_like_one_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    say("cannot read 'a\x1b[1A\nerror: all is lost': it is none:\n  - one\n  - two")
    assert capsys.readouterr().err == (
        "error: cannot read 'a\\x1b[1A\n  error: all is lost': it is none:\n  - one\n  - two\n"
    )


def test_a_name_as_long_as_a_file_does_not_fill_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    say("x" * 10_000)
    said = capsys.readouterr().err
    assert said.endswith("... (2,000 more letters)\n")
    assert len(said) < 8_100
