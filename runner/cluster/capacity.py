"""Does a worker fit on a node, on which one, and what does a run wait for? Arithmetic over names and amounts.

Owns the comparison of what a worker needs with what nodes have; refuses to know Ray, clocks and workers that run. The
invariant: the same values give the same answer, and a node counts for the whole workers that it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jobs.schedule.event import ClusterSeen
from jobs.section.workers import Workers
from jobs.words import counted

Resources = Mapping[str, float]  # by Ray's names: CPU, GPU, memory in bytes, and those of the user


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for room in a cluster, and what could come.

    waits:    (resources, how many requests), of every job there.
    launched: nodes that are being started.
    kinds:    the resources of each kind of node that an autoscaler may start.
    """

    waits: Sequence[tuple[Resources, int]] = ()
    launched: int = 0
    kinds: Sequence[Resources] = ()


def needs(workers: Workers) -> dict[str, float]:
    """What one worker asks of its node; only amounts above 0."""
    amounts = {"CPU": workers.cpus, "GPU": workers.gpus, "memory": workers.memory or 0} | workers.resources
    return {name: amount for name, amount in amounts.items() if amount > 0}


def fits(need: Resources, node: Resources) -> int:
    """How many workers a node with these resources holds."""
    return min(int(node.get(name, 0) // amount) for name, amount in need.items())


def shortage(need: Resources, nodes: Sequence[Resources]) -> str:
    """Which resource no node has enough of."""
    for name, amount in need.items():
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if most < amount:
            return (
                f"a worker asks for {amount:g} {name}, and the largest node has {most:g}; change `workers` in the job"
            )
    return f"a worker asks for {_listed(need)}, and no single node has all of it; change `workers` in the job"


def roomiest(
    need: Resources, nodes: Mapping[str, Resources], taken: Sequence[str], avoid: Collection[str]
) -> str | None:
    """The node with most room for one more worker, None where there is none.

    nodes: node -> its resources. taken: the node of each worker that lives. avoid: nodes that are out of the question.
    """
    room = {node: fits(need, have) - taken.count(node) for node, have in nodes.items() if node not in avoid}
    best = max(room, key=lambda node: room[node], default=None)
    return best if best is not None and room[best] >= 1 else None


def outlook(
    now: float, need: Resources, nodes: Sequence[Resources], backlog: Backlog, starting: int, death: str = ""
) -> ClusterSeen:
    """Who waits for room, and whether workers of ours will ever have any.

    nodes:    those alive.
    starting: workers of ours that do not live yet; requests of the same shape are theirs.
    death:    why a node died that is not among them.
    """
    alike = sum(count for shape, count in backlog.waits if shape == need)
    ours = min(starting, alike)
    others = sum(count for _, count in backlog.waits) - ours
    kinds = [*nodes, *backlog.kinds]
    if not any(fits(need, kind) for kind in kinds):
        never = shortage(need, kinds)
        if not nodes:
            never = f"no node is alive{f' ({death})' if death else ''}; start Ray, and run the same again to continue"
        return ClusterSeen(now, others, never, alive=bool(nodes))
    if not ours:
        return ClusterSeen(now, others)
    launched = f"; {counted(backlog.launched, 'node is', 'nodes are')} being started" if backlog.launched else ""
    return ClusterSeen(now, others, story=f"no room yet for {ours} x ({_listed(need)}){launched}")


def _listed(need: Resources) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in need.items())
