"""The connection to a Ray that starts, where it never comes up."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from jobs.errors import CapacityError
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
        connection = Connection()
        with pytest.raises(CapacityError, match=rf"its {kind} ended \(exit code 3\)") as gone:
            connection.wait()
        connection.close()
    assert gone.value.facts["resumable"]
    never.set()
