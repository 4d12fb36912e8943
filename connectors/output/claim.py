"""Whether a directory may be taken for a plan: what is there already, whose it is, and what makes room for it.

The invariant: nothing is removed but `_SUCCESS`, the parts that an old manifest lists, that have a receipt or that
carry the header of an old plan, and the receipts of those; and only with `--overwrite`, or with `--repair` what is
damaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from connectors.formats.registry import ENCODERS, format_by_suffix, format_of, make_encoder
from connectors.output.epoch import Epochs
from connectors.output.layout import (
    PART_PREFIX,
    RUN,
    SUCCESS,
    Layout,
    decode,
    plan8_of_folder,
    plan8_of_part,
    shard_of_part,
    shard_of_receipt,
)
from connectors.output.part import OTHER_WAY, stated
from connectors.store.listing import hidden
from connectors.store.probe import Mode
from connectors.store.store import Store
from jobs.difference import difference, other_variables
from jobs.errors import DataError, OutputError
from jobs.plan import Plan
from jobs.section.canonical import canonical, digest

OVERWRITE_WAY = f"{OTHER_WAY}, or replace it with --overwrite"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a driver may do now.

    state:    "new" for the first driver of the plan, and for one that removed what was there of it.
    epoch:    of this driver; of the driver that finished, where everything is there already.
    warning:  what this store cannot promise, "" where it can all.
    """

    state: Literal["new", "resumed", "finished"]
    epoch: int
    mode: Mode = field(default="direct", compare=False)
    warning: str = field(default="", compare=False)


def is_read(name: str) -> bool:
    """Whether one who reads the directory as a table takes the file for a part: by its prefix, or its format's suffix.

    Files of formats that no part can have are not meant: such a reader ends at them, and counts no rows of theirs.
    """
    kind = format_of(name) or format_by_suffix(name)
    return name.startswith(PART_PREFIX) or (not hidden((name,)) and kind in ENCODERS)


def refuse_foreign(store: Store, present: Iterable[str]) -> None:
    """raises: OutputError where a table is there that has no name of ours. `clear` leaves it where it is."""
    for name in sorted(present):
        if is_read(name) and plan8_of_part(name) is None:
            raise _foreign(store, name)


def refuse_other_parts(store: Store, names: Layout, plan: Plan, present: Iterable[str]) -> None:
    """raises: OutputError where a table is there that is none of this plan's parts."""
    ours = {names.part(shard.index) for shard in plan.shards}
    for name in sorted(name for name in present if is_read(name) and name not in ours):
        plan8 = plan8_of_part(name)
        if plan8 is None or plan8 == names.plan8:
            raise _foreign(store, name)
        raise _other(store, plan, plan8, name)


def _foreign(store: Store, name: str) -> OutputError:
    return OutputError(
        f"cannot write into '{store.url}': it holds '{name}', which is not of this job and which readers would take "
        "for a part of it; choose another output url, or move that file away"
    )


def _other(store: Store, plan: Plan, plan8: str, name: str) -> OutputError:
    then = decode(store.read(Layout(plan8).plan))
    differs = _difference(then, plan) if then else "its plan is not there any more"
    noted = Epochs(store, Layout(plan8)).noted("variables")
    if changed := other_variables(noted if isinstance(noted, dict) else {}, plan.variables):
        differs += f"; variable {changed}"
    return OutputError(
        f"cannot write into '{store.url}': it holds '{name}' of another job: {differs}; {OVERWRITE_WAY}",
        differs=differs,
    )


def _difference(then: dict[str, Any], plan: Plan) -> str:
    try:
        return difference(then, plan.document())
    except (LookupError, TypeError, ValueError, AttributeError):
        return "it is not whole"


def read_success(store: Store, plan: Plan) -> dict[str, Any]:
    """`_SUCCESS`, where it is of this plan. raises: OutputError where it is not."""
    success = decode(store.read(SUCCESS)) or {}
    if success.get("plan_id") == plan.id and isinstance(success.get("epoch"), int):
        return success
    if isinstance(success.get("plan_id"), str):
        raise _other(store, plan, Layout(success["plan_id"]).plan8, SUCCESS)
    raise OutputError(f"cannot write into '{store.url}': its '{SUCCESS}' was not written by this runner; {OTHER_WAY}")


def read_manifest(store: Store, success: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that `_SUCCESS` names. raises: OutputError where it is not the one that was written."""
    name = str(success.get("manifest", ""))
    content = store.read(name) if name.startswith(f"{RUN}/") else None
    manifest = decode(content) or {}
    expected = success.get("manifest_sha256")
    edited = expected is not None and hashlib.sha256(content or b"").hexdigest() != expected
    if edited or manifest.get("plan_id") != success.get("plan_id") or not isinstance(manifest.get("parts"), list):
        what = "is not there" if content is None else "was changed after it was written"
        raise OutputError(
            f"cannot use the output '{store.url}': its manifest '{name}' {what}; restore it, or write it again with "
            "--repair, which reads all parts"
        )
    return manifest


def require_plan(store: Store, names: Layout, plan: Plan) -> None:
    """See to it that the plan is there: whatever else is read means nothing without it. Written where it is missing.

    raises: as `check_plan`.
    """
    content = canonical({"plan_id": plan.id, **plan.document()}).encode()
    if not store.create(names.plan, content) and not planned(store, names, plan):
        store.create(names.plan, content)  # somebody deleted it in between


def planned(store: Store, names: Layout, plan: Plan) -> bool:
    """Whether the plan is there. raises: as `check_plan`."""
    content = store.read(names.plan)
    if content is None:
        return False
    check_plan(store, names, plan, content)
    return True


def check_plan(store: Store, names: Layout, plan: Plan, content: bytes) -> None:
    """raises: OutputError where the plan that is there is not `plan`, byte for byte."""
    document = decode(content) or {}
    then = {key: value for key, value in document.items() if key != "plan_id"}
    if document.get("plan_id") != plan.id or digest(then) != plan.id:
        differs = _difference(then, plan) if then else "it is torn or empty"
        raise OutputError(
            f"cannot go on in '{store.url}': '{names.plan}' was changed after it was written: {differs}"
            "; restore it, write it again with --repair, or choose another output url"
        )


def write_plan(store: Store, names: Layout, plan: Plan) -> None:
    """See to it that the plan is there as it is, in the place of one that is damaged."""
    content = canonical({"plan_id": plan.id, **plan.document()}).encode()
    if not store.create(names.plan, content) and store.read(names.plan) != content:
        store.replace(names.plan, content)


def own_success(store: Store, present: Collection[str]) -> dict[str, Any]:
    """`_SUCCESS` of whatever plan, {} where there is none. raises: OutputError where it is not ours to remove."""
    success = decode(store.read(SUCCESS)) or {} if SUCCESS in present else {}
    if SUCCESS in present and not isinstance(success.get("plan_id"), str):
        raise OutputError(f"cannot replace '{store.url}': its '{SUCCESS}' was not written by this runner; remove it")
    return success


def own_parts(store: Store, present: Iterable[str], success: Mapping[str, Any]) -> dict[str, str]:
    """The parts that jobs published here: what the manifest lists, what a receipt tells of, or what carries the header
    of its plan.

    returns: name -> first digits of its plan.
    """
    finished = Layout(success.get("plan_id", "")).plan8
    listed = {str(part.get("name")) for part in _listed(store, success)}
    theirs = {name: plan8 for name in present if (plan8 := plan8_of_part(name))}
    noted = {plan8: noted_shards(store, Layout(plan8)) for plan8 in {*theirs.values()}}

    def known(name: str, plan8: str) -> bool:
        if plan8 == finished and listed:
            return name in listed
        return shard_of_part(name) in noted[plan8] or _carries_header(store, name, plan8)

    return {name: plan8 for name, plan8 in theirs.items() if known(name, plan8)}


def noted_shards(store: Store, names: Layout) -> set[int]:
    """The shards that have a receipt."""
    return {shard for name in store.names(names.receipts) if (shard := shard_of_receipt(name)) >= 0}


def clear(store: Store, going: Sequence[str], own: str, may: Callable[[], None], *, keep: bool, takeover: bool) -> None:
    """Make room: remove what earlier jobs published here, `_SUCCESS` first. Files of others stay.

    going:  names of files, in this order.
    own:    first digits of the plan whose driver clears. keep: its receipts stay, as its parts do.
    may:    called before each removal; raises where this driver is not to write any more.
    raises: BusyError where a driver of another plan still writes here.
    """
    others = [plan8 for plan8 in plans(store) if plan8 != own]
    fenced = _fences(store, others, takeover=takeover)
    try:
        for name in going:
            may()
            store.remove(name)
        for plan8 in others if keep else (*others, own):
            may()
            store.remove_folder(Layout(plan8).receipts)  # else they would be believed for parts of another attempt
            store.remove_folder(Layout(plan8).rejects)  # of the parts that are gone
            store.remove(Layout(plan8).numerics)  # of a worker whose parts are gone: the next first one may be another
    finally:
        for end in fenced:
            end()


def _listed(store: Store, success: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The manifest's parts; none where it is not whole: then only headers count."""
    try:
        return list(read_manifest(store, success)["parts"])
    except OutputError:
        return []


def plans(store: Store) -> list[str]:
    return [plan8 for name in store.names(RUN) if (plan8 := plan8_of_folder(name))]


def _fences(store: Store, fenced_off: Sequence[str], *, takeover: bool) -> list[Callable[[], None]]:
    """One for each of these plans. Where one cannot be had, none is kept: it would be in our own way."""
    fenced: list[Callable[[], None]] = []
    try:
        for plan8 in fenced_off:
            fenced.append(_fence(store, plan8, takeover=takeover))
    except BaseException:
        for end in fenced:
            end()
        raise
    return fenced


def _fence(store: Store, plan8: str, *, takeover: bool) -> Callable[[], None]:
    """Take the next epoch of an old plan, so that a driver of it that wakes up stops. Returns how to let go of it."""
    epochs = Epochs(store, Layout(plan8))
    epoch = epochs.begin(takeover=takeover, cleared=False)  # what is left of it is none of its own --overwrite
    return lambda: epochs.end(epoch, "superseded")


def _carries_header(store: Store, name: str, plan8: str) -> bool:
    kind = format_of(name)
    if kind is None:
        return False
    encoder = make_encoder(kind)
    try:
        header, rows = encoder.read_header(store, name)
    except DataError:
        return False
    if not encoder.carries_header and (stat := store.stat(name)) is not None:
        header = stated(store, Layout(plan8), shard_of_part(name), stat.size)
    facts: Mapping[str, Any] = header or {}
    ours = str(facts.get("plan_id", ""))[:8] == plan8 and facts.get("shard") == shard_of_part(name)
    return ours and facts.get("rows_out") == rows
