"""The connection to a Ray that starts, where it never comes up, or is gone at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.errors import CapacityError
from runner.cluster import connection
from runner.cluster.connection import Connection
from runner.cluster.quiet import ray


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Ray's own time-out tells")
@pytest.mark.parametrize("kind", ["gcs_server", "raylet"])
def test_a_local_ray_that_ends_while_it_starts_is_given_up_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()  # as `ray.init` waits for its head; its core would end this process a minute later
    monkeypatch.setattr(ray, "init", lambda **options: never.wait())
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    script = f"open('/proc/self/comm', 'w').write({kind!r}); raise SystemExit(3)"
    with subprocess.Popen([sys.executable, "-c", script]):
        starting = Connection()
        with pytest.raises(CapacityError, match=rf"its {kind} ended \(exit code 3\)") as gone:
            starting.wait()
        starting.close()
    assert gone.value.facts["resumable"]
    assert "or work without Ray: `--in-process` (in Python `in_process=True`)" in gone.value.message
    never.set()


def test_a_start_that_fails_says_what_to_try_and_where_it_takes_time_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def refuse(**options: object) -> None:
        looked.wait()
        raise RuntimeError("no space for a session")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    starting, told = Connection(), list[tuple[str, float, bool]]()

    def waited(what: str, seconds: float, over: bool) -> None:
        told.append((what, seconds, over))
        looked.set()

    with pytest.raises(
        CapacityError, match="cannot connect to a local Ray: no space for a session; try again, or work"
    ):
        starting.wait(waited)
    starting.close()
    assert [(what, over) for what, _, over in told] == [("starting a local Ray", False)]
    assert told[0][1] > 0


def test_the_end_of_the_wait_is_told_with_what_the_start_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    started, told = Connection(), list[tuple[str, float, bool]]()
    started.begin()
    started._settled.wait()
    took = started._took
    started.wait(lambda *wait: told.append(wait))
    started.close()
    assert told == [("starting a local Ray", took, True)], "not how long others worked meanwhile"


def test_a_ray_that_answers_while_its_processes_are_looked_at_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    monkeypatch.setattr(ray, "init", lambda **options: looked.wait())
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    started = Connection()

    def look() -> str:
        looked.set()
        started._settled.wait()
        return ""

    monkeypatch.setattr(connection, "_ended_child", look)
    started.wait()
    started.close()


_LOST_AT_ONCE = """
import os, signal, time
from soak import command_line, descendants
from jobs.errors import CapacityError
from jobs.section.workers import Workers
from runner.cluster.pool import RayPool

pool = RayPool(Workers())
pool.connect()
assert pool.capacity() > 0
(agent,) = [pid for pid in descendants(os.getpid()) if "RuntimeEnvAgent" in command_line(pid)]
os.kill(agent, signal.SIGKILL)
began = time.monotonic()
try:
    while pool.capacity() and time.monotonic() - began < 5:
        pass
except CapacityError as error:
    print(error.exit_code, error.facts, error.message)
pool.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are found in /proc")
def test_a_local_ray_that_lost_its_node_before_the_first_worker_is_no_fault_of_the_job() -> None:
    """Its head says that the node is gone before its processes have ended."""
    support = Path(__file__).parents[1] / "support"
    path = os.pathsep.join([str(support), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", _LOST_AT_ONCE],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout == (
        "69 {'resumable': True} the local Ray is gone: runtime_env_agent failed and raylet fate-shares with it; run the"
        " same again to continue, or work without Ray: `--in-process` (in Python `in_process=True`)\n"
    )
