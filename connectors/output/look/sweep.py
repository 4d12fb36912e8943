"""What dead attempts left behind: listed and removed.

The invariant: nothing is touched but `_run/<plan>/staging/<attempt>` and documents that were never finished (they have
no name of their own yet); nothing of a driver that may still write, and nothing that a receipt without its part stands
for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from connectors.output.epoch import Epochs
from connectors.output.layout import (
    RUN,
    Layout,
    decode,
    epoch_of_attempt,
    is_temporary,
    plan8_of_folder,
    shard_of_receipt,
)
from connectors.store.store import Store
from jobs.job import Output


@dataclass(frozen=True, slots=True)
class Leftover:
    """One folder, or one unfinished document. kept: why it stays, "" where it goes."""

    name: str  # below the output
    files: int
    bytes: int
    kept: str = ""


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


def sweep(output: Output, *, dry_run: bool = False) -> Sweep:
    """Remove the staging of dead attempts of every plan in this directory.

    output:   only its url and options are used.
    dry_run:  say what would go, and touch nothing.
    raises:   OutputError where that is not allowed; StorageError where the store does not answer.
    """
    store = Store(output.url, output.options)
    plans = _plans(store)
    leftovers = tuple(one for names in plans for one in (*_leftovers(store, names), *_unfinished(store, names)))
    if not dry_run:
        for one in leftovers:
            if not one.kept:
                (store.remove if is_temporary(one.name.rpartition("/")[2]) else store.remove_folder)(one.name)
    return Sweep(store.url, dry_run, leftovers)


def _plans(store: Store) -> list[Layout]:
    return [Layout(plan8) for name in store.names(RUN) if (plan8 := plan8_of_folder(name))]


def _leftovers(store: Store, names: Layout) -> Iterator[Leftover]:
    staged = [name[:-1] for name in store.names(names.staging) if name.endswith("/") and epoch_of_attempt(name[:-1])]
    if not staged:
        return
    # The epoch first, then the receipts: a driver that starts in between finds what its receipts stand for.
    living = _living(store, names)
    awaited = _awaited(store, names)
    for attempt in staged:
        folder = names.attempt(attempt)
        kept = ""
        if epoch_of_attempt(attempt) in living:
            kept = f"driver {epoch_of_attempt(attempt)} may still write"
        elif attempt in awaited:
            kept = "its receipt is there and its part is not: the next run promotes it"
        yield Leftover(folder, *_extent(store, folder), kept)


def _unfinished(store: Store, names: Layout) -> Iterator[Leftover]:
    """Documents that a killed process was writing. A driver that lives may be writing one now: then all stay."""
    uploads = [
        Leftover(f"{folder}/{name}", 1, size)
        for folder in (names.folder, names.epochs, names.receipts, names.reports)
        for name, size in store.sizes(folder).items()
        if is_temporary(name)
    ]
    if uploads and not _living(store, names):
        yield from uploads


def _living(store: Store, names: Layout) -> set[int]:
    epochs = Epochs(store, names)
    return {epoch for epoch in epochs.numbers() if epochs.heartbeat(epoch).alive}


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
