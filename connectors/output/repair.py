"""What of a job is not as it should be, and may be removed so that it is computed again.

Looks as `verify --deep` does; refuses to know how a shard is computed. The invariant: only what is known to be of this
job goes: a part that the manifest lists or that has a receipt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.output.claim import noted_shards, own_parts
from connectors.output.layout import SUCCESS, Layout
from connectors.output.part import OTHER_WAY
from connectors.output.verification import prove
from connectors.store.store import Store
from jobs.errors import OutputError
from jobs.plan import Plan


@dataclass(frozen=True, slots=True)
class Damage:
    """shards: to compute again. going: names of what is in the way, in the order in which it is to go."""

    shards: tuple[int, ...] = ()
    going: tuple[str, ...] = ()


def damage(store: Store, names: Layout, plan: Plan, success: Mapping[str, object] | None) -> Damage:
    """Read every part, and find those that are missing, or not as plan, manifest, receipt and checksums say.

    success: `_SUCCESS`, None where the job is not finished.
    raises:  OutputError where something is at the name of a part that is not known to be of this job.
    """
    listed = store.sizes("")
    proof = prove(store, names, plan, listed, deep=True)
    wrong = {problem.name: problem for problem in proof.problems if problem.kind != "unfinished"}
    shards = [shard.index for shard in plan.shards if names.part(shard.index) in wrong]
    present = [names.part(shard) for shard in shards if names.part(shard) in listed]
    ours = own_parts(store, present, success or {})
    for name in present:
        if name not in ours:
            raise OutputError(
                f"cannot repair '{store.child(name)}': {wrong[name].story}; nothing tells that it is of this job, and "
                f"it stays as it is; {OTHER_WAY}, or move that file away"
            )
    if success is None:  # what is missing is computed anyway
        shards = [shard for shard in shards if names.part(shard) in listed]
    noted = noted_shards(store, names)
    receipts = [names.receipt(shard) for shard in shards if shard in noted]
    # `_SUCCESS` at last: until then another look finds what is damaged; from then on all that is left is missing.
    return Damage(tuple(shards), (*present, *receipts, *([SUCCESS] if success is not None and wrong else [])))
