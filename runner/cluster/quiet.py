"""Ray without its remarks, and without its ends: whatever needs Ray's core takes it from here, so that these settings
come first.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress

# Ray would otherwise warn, on the user's terminal, about what it will do in a later release. A worker without a
# GPU hides them itself (see actor.py), because Ray leaves all of them visible.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray's core ends a process, with exit code 1 and a line of its log, when the head is silent for so many seconds; a
# minute is less than this project waits for a Ray that starts (see connection.py), and says 69 then.
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "150")
logging.getLogger("ray.widgets").setLevel(logging.WARNING)  # it recommends packages to every notebook that imports it

import ray  # noqa: E402
from ray.exceptions import OutOfMemoryError, RayActorError  # noqa: E402
from ray.util import get_node_ip_address  # noqa: E402
from ray.util.metrics import Counter, Gauge, Histogram  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

__all__ = [
    "Counter",
    "Gauge",
    "Histogram",
    "NodeAffinitySchedulingStrategy",
    "OutOfMemoryError",
    "RayActorError",
    "get_node_ip_address",
    "ray",
    "tell_news",
]


def tell_news(wanted: bool) -> None:
    """Whether Ray prints what it hears of its nodes to this process's standard output, whatever `log_to_driver` says.

    It has no public way to be asked. Without this one, the answer of a command is behind a page on the node that died.
    """
    with suppress(ImportError):
        from ray._private import worker

        worker._worker_logs_enabled = wanted
