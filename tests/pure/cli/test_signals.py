"""A signal reaches the command, also where Python drops what its handler raises."""

from __future__ import annotations

import subprocess
import sys

_DROPPED = """
import signal, sys, time
from runner.cli import main

class Left:
    def __del__(self):  # what is raised here goes to sys.unraisablehook, and nowhere else
        signal.raise_signal(signal.SIGTERM)

def app(**settings):
    Left()
    for _ in range(100):
        time.sleep(0.1)
    print("went on to its end")
    return 0

sys.unraisablehook = lambda dropped: None
main.app = app
main.main()
"""


def test_a_signal_whose_exception_is_dropped_is_raised_again_until_the_command_has_it() -> None:
    done = subprocess.run([sys.executable, "-c", _DROPPED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    assert done.returncode == 143
    assert "error: interrupted; what is finished stays" in done.stderr
