"""Whose plan an output directory holds, where several plans of one job could have been begun there.

Reads names and two small documents; refuses to know what the plans differ in. The invariant: nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.output.epoch import Epochs
from connectors.output.layout import RUN, SUCCESS, Layout, decode, plan8_of_folder, plan8_of_part
from connectors.store.store import Store


def tenant(store: Store, plan_ids: Sequence[str]) -> str:
    """The one of `plan_ids` that the directory holds: that is finished, or has parts, or else was begun; "" where none
    is. Of several that were begun and published nothing, the first.

    A plan that was removed for another one (`--overwrite`) is not held, although its folder is still there.
    raises: StorageError where the directory cannot be looked into.
    """
    begun = _begun(store)
    if not begun & {plan_id[:8] for plan_id in plan_ids}:
        return ""
    present = store.names("")
    if SUCCESS in present:
        finished = decode(store.read(SUCCESS)) or {}
        return next((plan_id for plan_id in plan_ids if plan_id == finished.get("plan_id")), "")
    parts = {plan8_of_part(name) for name in present}
    held = [plan_id for plan_id in plan_ids if plan_id[:8] in parts]
    held += [plan_id for plan_id in plan_ids if plan_id[:8] in begun and not _removed(store, plan_id)]
    return next(iter(held), "")


def others_begun(store: Store, plan_id: str) -> bool:
    """Whether any other plan was ever begun there. raises: StorageError."""
    return bool(_begun(store) - {plan_id[:8]})


def _begun(store: Store) -> set[str]:
    return {plan8 for name in store.names(RUN) if (plan8 := plan8_of_folder(name))}


def _removed(store: Store, plan_id: str) -> bool:
    """Whether its last driver is the one that made room for another plan."""
    epochs = Epochs(store, Layout(plan_id))
    last = max(epochs.numbers(), default=0)
    return bool(last) and epochs.document(last).get("ended") == "superseded"
