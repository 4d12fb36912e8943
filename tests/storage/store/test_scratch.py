"""Spools on the local disk: private, and removed when their process died without doing so."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.store import scratch

SPOOL_AND_WAIT = """
import sys
from connectors.store.scratch import scratch_folder

folder = scratch_folder("e1-a1")
(folder / "part").write_bytes(bytes(1000))
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def another(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with a spool of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SPOOL_AND_WAIT],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_goes_with_the_next_one_and_what_a_living_one_has_stays(temporary: Path) -> None:
    dead, left = another(temporary)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    living, kept = another(temporary)
    try:
        assert not left.exists(), "the next process removed it"
        mine = scratch.scratch_folder("e1-a2")
        assert (kept / "part").stat().st_size == 1000
        assert mine != scratch.scratch_folder("e1-a2")
        assert stat.S_IMODE(mine.stat().st_mode) == 0o700
        folders = {path.name for path in mine.parents[1].iterdir() if path.is_dir()}
        assert folders == {mine.parent.name, kept.parent.name}
    finally:
        living.communicate("")


def test_a_folder_that_another_user_could_read_is_not_used(temporary: Path) -> None:
    planted = scratch.scratch_home()
    planted.mkdir()
    planted.chmod(0o777)
    mine = scratch.scratch_folder("e1-a1")
    assert planted not in mine.parents
    assert stat.S_IMODE(mine.parent.stat().st_mode) == 0o700
