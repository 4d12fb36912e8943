"""Calls that wait at the same time: bounded, in turn, with the first error, and in every process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from connectors import together
from connectors.together import AT_ONCE, Threads, call_together


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """At most four, of this test alone."""
    own = Threads(most=4, idle_s=0.01)
    monkeypatch.setattr(together, "_threads", own)
    return own


class Meeting:
    """Calls that wait for each other: as many as are let in. most: that were ever inside."""

    def __init__(self, wanted: int) -> None:
        self.inside = self.most = self.done = 0
        self._wanted, self._changed = wanted, threading.Condition()

    def attend(self) -> None:
        with self._changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= self._wanted, timeout=20)
            self.inside -= 1
            self.done += 1


def test_so_many_calls_wait_together_and_no_more() -> None:
    meeting = Meeting(AT_ONCE)
    call_together([meeting.attend] * 40)
    assert (meeting.most, meeting.done) == (AT_ONCE, 40)


def test_all_callers_of_a_process_share_one_bound_and_take_turns(threads: Threads) -> None:
    meeting, callers = Meeting(4), [threading.Thread(target=lambda: call_together([meeting.attend] * 9))] * 1
    callers += [threading.Thread(target=lambda: call_together([meeting.attend] * 9)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert (meeting.most, meeting.done) == (4, 36)


def test_one_at_once_is_done_where_it_is_asked_for() -> None:
    seen: list[int] = []
    call_together([lambda: seen.append(threading.get_ident())] * 3, at_once=1)
    assert seen == [threading.get_ident()] * 3
    call_together([])


def test_the_first_error_is_raised_and_ends_what_has_not_begun(threads: Threads) -> None:
    begun: list[int] = []
    failed = threading.Event()

    def wait(number: int) -> None:
        begun.append(number)
        if number == 1:
            failed.set()
            raise ZeroDivisionError
        failed.wait(20)

    def call(number: int) -> Callable[[], None]:
        return lambda: wait(number)

    with pytest.raises(ZeroDivisionError):
        call_together([call(number) for number in range(100)], at_once=2)
    assert len(begun) < 10
    done: list[int] = []
    call_together([lambda: done.append(1)] * 5)
    assert len(done) == 5, "the threads go on with what others ask for"


def test_what_ends_a_program_ends_the_caller_too() -> None:
    def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_together([leave, leave])


def test_a_process_that_may_start_no_thread_does_the_calls_itself(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    seen: list[int] = []
    call_together([lambda: seen.append(threading.get_ident())] * 3000)
    assert seen == [threading.get_ident()] * 3000


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_has_threads_of_its_own() -> None:
    call_together([lambda: None] * 5)
    child = os.fork()
    if not child:  # no assertion here: this is a copy of the whole test run
        seen: list[int] = []
        call_together([lambda: seen.append(1)] * 5)
        os._exit(len(seen))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


WAITING = """
import signal
import sys
import threading
from connectors.together import call_together

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us without

def wait():
    sys.stdout.write("waits\\n")  # in one piece
    sys.stdout.flush()
    threading.Event().wait()

try:
    call_together([wait] * 3)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_who_waits_can_be_interrupted_and_no_thread_keeps_the_process_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(3)] == ["waits\n"] * 3
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == "interrupted\n"
            assert process.wait(20) == 0
        finally:
            process.kill()
