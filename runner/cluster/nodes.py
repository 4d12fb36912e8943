"""What a running Ray says of itself: nodes, those that drain, what waits for room.

Owns the thread that asks, because the head may not answer; refuses to know workers and what follows from the answers.
The invariant: a reader waits for nothing, and sees the last answer.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress

from runner.cluster.capacity import Backlog, Resources
from runner.cluster.quiet import ray

_WATCH_S = 2.0  # between two questions to the head
_END_S = 2.0  # how long a question may keep its thread
_HEAD_S = 30.0  # how long it may be silent; after 60 s Ray ends this process itself, without a word of ours


class NodeWatch:
    """Asks the head for the nodes of the cluster, again and again, in a thread of its own: the head may not answer.

    now: by the clock of those who `look`.
    """

    def __init__(self, now: float) -> None:
        self.nodes: Mapping[str, Resources] = {}  # those alive -> what they have
        self.deaths: Mapping[str, str] = {}  # those that are not -> why, in Ray's words
        self.draining: dict[str, float] = {}  # node that drains, or did -> when it ends, in seconds since 1970
        self.backlog = Backlog()
        self.answers = 0
        self._heard, self._silent_s, self._looked = 0, 0.0, now  # answers, and since when there is none
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._live, name="ray-watch", daemon=True)
        self._thread.start()

    @property
    def gone(self) -> str:
        """That the head does not answer any more, "" while it does."""
        silent = self._silent_s > _HEAD_S
        return f"has not answered for {_HEAD_S:.0f} s: its head process or node is gone" if silent else ""

    def look(self, now: float) -> None:
        """Count how long the head is silent. Only time in which this process ran itself counts: it may have been
        stopped for an hour."""
        self._silent_s += min(now - self._looked, 1.0)
        self._looked = now
        if self.answers != self._heard:
            self._heard, self._silent_s = self.answers, 0.0

    def close(self) -> None:
        self._end.set()
        self._thread.join(_END_S)

    def _live(self) -> None:
        while not self._end.is_set():
            try:
                self.nodes, self.deaths = known_nodes()
                self.draining = self.draining | _draining_nodes()
                self.answers += 1
            except Exception:  # silence is what counts
                pass
            with suppress(Exception):
                self.backlog = _backlog()
            self._end.wait(_WATCH_S)


def known_nodes() -> tuple[dict[str, Resources], dict[str, str]]:
    """Node id -> its resources, of those alive; node id -> why it died, of the others.

    cost: an answer of the head, for which it waits.
    """
    nodes = ray.nodes()
    alive = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
    deaths = {node["NodeID"]: str(node.get("DeathReasonMessage", "")) for node in nodes if not node["Alive"]}
    return alive, {node: why.rstrip(". ") or "Ray does not say why" for node, why in deaths.items()}


def _draining_nodes() -> dict[str, float]:
    """Node id -> when it will be taken away, in seconds since 1970; infinity where Ray does not know.

    Ray has no public way to ask. Without this one, nodes that drain are taken for nodes that died, and cost a try.
    """
    try:
        from ray._private.state import state

        draining = state.get_draining_nodes()
    except (ImportError, AttributeError):
        return {}
    return {node: at / 1000 if at else float("inf") for node, at in draining.items()}


def _backlog() -> Backlog:
    """Ray's own autoscaler asks in this way. Where it has changed, nothing is taken to wait."""
    try:
        from ray._private.state import state
        from ray.autoscaler.v2.sdk import get_cluster_status

        status = get_cluster_status(ray.get_runtime_context().gcs_address, timeout=5)
        config = state.get_cluster_config()
    except (ImportError, AttributeError):
        return Backlog()
    summary = status.resource_demands
    shapes = [shape for demand in summary.ray_task_actor_demand for shape in demand.bundles_by_count]
    groups = [demand for demand in summary.placement_group_demand for _ in demand.bundles_by_count]
    kinds = [dict(kind.resources) for kind in config.node_group_configs if kind.max_count] if config else []
    launched = sum(request.count for request in status.pending_launches) + len(status.pending_nodes)
    waits = [(dict(shape.bundle), int(shape.count)) for shape in shapes] + [({}, 1) for _ in groups]
    return Backlog(waits, launched, kinds)
