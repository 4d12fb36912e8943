"""What a running Ray says of itself: nodes, those that drain, what waits for room.

Owns the thread that asks, because the head may not answer; refuses to know workers and what follows from the answers.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from runner.cluster.quiet import ray

_WATCH_S = 2.0  # how often the head is asked
_END_S = 2.0  # how long a question may keep its thread


class Watch:
    """Asks the head for the nodes of the cluster, again and again, in a thread of its own: the head may not answer."""

    def __init__(self) -> None:
        self.nodes: Sequence[Mapping[str, Any]] = ()  # those alive
        self.draining: dict[str, float] = {}  # node that drains, or did -> when it ends, in seconds since 1970
        self.demand: Mapping[str, Any] = {}  # see `_demand`
        self.answers = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._live, name="ray-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join(_END_S)

    def _live(self) -> None:
        while not self._end.is_set():
            try:
                self.nodes = [node for node in ray.nodes() if node["Alive"]]
                self.draining = self.draining | _draining_nodes()
                self.answers += 1
            except Exception:  # silence is what counts
                pass
            with suppress(Exception):
                self.demand = _demand()
            self._end.wait(_WATCH_S)


def _draining_nodes() -> dict[str, float]:
    """Node id -> when it will be taken away, in seconds since 1970; infinity where nobody said.

    Ray has no public way to ask. Without this one, nodes that drain are taken for nodes that died, and cost a try.
    """
    try:
        from ray._private.state import state

        found = state.get_draining_nodes()
    except (ImportError, AttributeError):
        return {}
    return {node: at / 1000 if at else float("inf") for node, at in found.items()}


def _demand() -> Mapping[str, Any]:
    """What waits for room in the cluster, and what could come.

    waits:    [(resources, how many requests)], of everybody.
    launched: nodes that are being started. kinds: resources of each kind of node that an autoscaler may start.
    Ray's own autoscaler asks in this way. Where it has changed, nobody is taken to wait.
    """
    try:
        from ray._private.state import state
        from ray.autoscaler.v2.sdk import get_cluster_status

        status = get_cluster_status(ray.get_runtime_context().gcs_address, timeout=5)
        config = state.get_cluster_config()
    except (ImportError, AttributeError):
        return {}
    summary = status.resource_demands
    shapes = [shape for demand in summary.ray_task_actor_demand for shape in demand.bundles_by_count]
    groups = [demand for demand in summary.placement_group_demand for _ in demand.bundles_by_count]
    kinds = [dict(kind.resources) for kind in config.node_group_configs if kind.max_count] if config else []
    launched = sum(request.count for request in status.pending_launches) + len(status.pending_nodes)
    waits = [(dict(shape.bundle), int(shape.count)) for shape in shapes] + [({}, 1) for _ in groups]
    return {"waits": waits, "launched": launched, "kinds": kinds}
