"""The connection to a Ray that starts, where it never comes up."""

from __future__ import annotations

import subprocess
import sys
import threading

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
    never.set()


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
