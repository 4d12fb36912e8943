"""What dead attempts left behind, and on request what old plans did: listed and removed.

The invariant: nothing is touched but `_run/<plan>/staging/<attempt>`, documents that were never finished (they have no
name of their own yet) and, where that is asked for, `_run/<plan>` of a plan that was overwritten; no part ever, nothing
of a driver that may still write, and nothing that a receipt without its part stands for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from connectors.output.epoch import Epochs
from connectors.output.layout import (
    RUN,
    SUCCESS,
    Layout,
    decode,
    epoch_of_attempt,
    is_temporary,
    plan8_of_folder,
    plan8_of_part,
    shard_of_receipt,
)
from connectors.output.status import current_layout
from connectors.store.store import Store
from jobs.section.output import Output
from jobs.words import counted

# A driver that never said that it ended may have been stopped with its machine. What tells it that another one took
# over lies in the folder of its plan, and must be there when it wakes up.
_SILENT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """One folder, or one unfinished document. kept: why it stays, "" where it goes. of: what left it."""

    name: str  # below the output
    files: int
    bytes: int
    kept: str = ""
    of: Literal["attempt", "plan"] = "attempt"


@dataclass(frozen=True, slots=True, repr=False)
class Sweep:
    output: str
    dry_run: bool
    leftovers: tuple[Leftover, ...]

    @property
    def removed(self) -> tuple[Leftover, ...]:
        return tuple(one for one in self.leftovers if not one.kept)

    def document(self) -> dict[str, Any]:
        return asdict(self) | {"leftovers": [asdict(one) for one in self.leftovers]}

    def __repr__(self) -> str:
        what = "would be removed" if self.dry_run else "removed"
        return f"<Sweep of '{self.output}': {len(self.removed):,} of {len(self.leftovers):,} leftovers {what}>"


def sweep(output: Output, *, old_plans: bool = False, dry_run: bool = False) -> Sweep:
    """Remove the staging of dead attempts of every plan in this directory.

    output:    only its url and options are used.
    old_plans: also all that is kept of plans whose parts were overwritten: their epochs, manifests and reports.
    dry_run:   say what would go, and touch nothing.
    raises:    OutputError where that is not allowed; StorageError where the store does not answer.
    """
    store = Store(output.url, output.options)
    old = _old_plans(store, dry_run) if old_plans else {}
    going = [plan8 for plan8, one in old.items() if not one.kept]
    leftovers = [*old.values()]
    for names in _plans(store):
        if names.plan8 not in going:
            epochs = Epochs(store, names, looks=dry_run)
            unfinished = (Leftover(name, 1, size) for name, size in epochs.unfinished().items())
            leftovers += [*_leftovers(store, epochs), *unfinished]
    if not dry_run:
        for one in leftovers:
            if not one.kept:
                (store.remove if is_temporary(one.name.rpartition("/")[2]) else store.remove_folder)(one.name)
    return Sweep(store.url, dry_run, tuple(leftovers))


def _plans(store: Store) -> list[Layout]:
    return [Layout(plan8) for name in store.names(RUN) if (plan8 := plan8_of_folder(name))]


def _old_plans(store: Store, looks: bool) -> dict[str, Leftover]:
    """First digits of a plan that is not the current one -> its folder, and why it stays."""
    listed = store.sizes("")
    parts = Counter(filter(None, map(plan8_of_part, listed)))
    current = current_layout(store, listed)
    if current is None:
        return {}
    published = SUCCESS in listed or current.plan8 in parts  # else nobody knows which plan is the one to be continued
    found = {}
    for names in _plans(store):
        if names.plan8 != current.plan8:
            kept = "" if published else "nothing is published in this output: the plan may be the current one"
            kept = kept or _reason(store, Epochs(store, names, looks=looks), parts[names.plan8])
            found[names.plan8] = Leftover(names.folder, *_extent(store, names.folder), kept, "plan")
    return found


def _reason(store: Store, epochs: Epochs, parts: int) -> str:
    """Why the folder of a plan stays, "" where it may go."""
    if parts:
        return f"{counted(parts, 'part')} of this plan {'is' if parts == 1 else 'are'} published"
    for epoch in epochs.numbers():
        beat = epochs.heartbeat(epoch)
        if beat.alive:
            return f"{beat.writer()} may still write"
        if beat.age_s is not None and beat.age_s < _SILENT_S:
            return f"{beat.writer()} never said that it ended, and may wake up: it is swept a day after it was heard"
    if any(shard_of_receipt(name) >= 0 for name in store.names(epochs.names.receipts)):
        return "it has receipts: nobody overwrote it, and a run of its job goes on with them"
    return ""


def _leftovers(store: Store, epochs: Epochs) -> Iterator[Leftover]:
    names = epochs.names
    staged = [name[:-1] for name in store.names(names.staging) if name.endswith("/") and epoch_of_attempt(name[:-1])]
    if not staged:
        return
    # The epoch first, then the receipts: a driver that starts in between finds what its receipts stand for.
    living = epochs.living()
    awaited = _awaited(store, names)
    for attempt in staged:
        folder = names.attempt(attempt)
        kept = ""
        if epoch_of_attempt(attempt) in living:
            kept = f"driver {epoch_of_attempt(attempt)} may still write"
        elif attempt in awaited:
            kept = "its receipt is there and its part is not: the next run promotes it"
        yield Leftover(folder, *_extent(store, folder), kept)


def _awaited(store: Store, names: Layout) -> set[str]:
    """Attempts whose receipts are there although their parts are not."""
    listed = store.sizes("")
    awaited = set()
    for name in store.names(names.receipts):
        if shard_of_receipt(name) >= 0:
            receipt = decode(store.read(f"{names.receipts}/{name}")) or {}
            if receipt.get("part") not in listed:
                awaited.add(str(receipt.get("attempt")))
    return awaited


def _extent(store: Store, folder: str) -> tuple[int, int]:
    files = total = 0
    for name, size in store.sizes(folder).items():
        files, total = files + bool(name), total + size
    for name in store.names(folder):
        if name.endswith("/"):
            below = _extent(store, f"{folder}/{name[:-1]}")
            files, total = files + below[0], total + below[1]
    return files, total
