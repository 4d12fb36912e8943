"""The receipts of a plan: what is known of its parts. A cache of commit headers; of staged parts, the decision.

Refuses to know drivers and epochs. The invariant: a receipt that counts says what the header of its part says,
and that part is listed; any other is rebuilt from the header.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from connectors.output.layout import Layout, decode, encode, shard_of_receipt
from connectors.output.part import Parts
from connectors.store.store import Store
from jobs.attempt import Failure, Receipt, Success
from jobs.errors import OutputError, RunnerError, StorageError, one_of
from jobs.plan import Plan, Shard
from jobs.words import counted

_THREADS = 16  # receipts and headers are small: reading them is waiting
_AT_ONCE = 4096  # read together: a million futures would cost more memory than the receipts


def provisional(receipt: Receipt) -> bool:
    """Whether it stands for a part that is listed and whose receipt was not read yet, or was staged and promoted."""
    return not receipt.attempt or bool(receipt.staged)


@dataclass(frozen=True)
class Receipts:
    store: Store
    names: Layout
    parts: Parts

    def done(self, plan: Plan, without: Collection[str] = ()) -> dict[int, Receipt]:
        """The shards whose parts are listed: what is left to do, without reading a million documents.

        without:  parts that are there and do not count.
        returns:  receipts; provisional ones, with the rows of the plan, where both part and receipt are listed:
                  `complete` reads them. Parts without a receipt are looked into now: what is not ours is an error.
        cost:     two listings; below 1 kB for each shard.
        """
        listed = {name: size for name, size in self.store.sizes("").items() if name not in without}
        noted = {shard_of_receipt(name) for name in self.store.names(self.names.receipts)}
        known: dict[int, Receipt] = {}
        unread: list[Shard] = []
        for shard in plan.shards:
            name = self.names.part(shard.index)
            size = listed.get(name)
            if size is not None and shard.index in noted:
                known[shard.index] = _provisional(shard, name, size)
            elif size is not None:
                unread.append(shard)
        known |= {receipt.shard: receipt for receipt in self._read(unread, listed)}
        return known

    def published(self, plan: Plan) -> dict[int, Receipt]:
        """As `done`, every receipt read."""
        listed = self.store.sizes("")
        shards = [shard for shard in plan.shards if self.names.part(shard.index) in listed]
        return {receipt.shard: receipt for receipt in self._read(shards, listed)}

    def complete(self, plan: Plan, receipts: Iterable[Receipt], listed: Mapping[str, int]) -> list[Receipt]:
        """`receipts` with the provisional ones read. raises: OutputError where a part is not ours."""
        given = list(receipts)
        present = [plan.shards[r.shard] for r in given if provisional(r) and r.part in listed]
        read = {receipt.shard: receipt for receipt in self._read(present, listed)}
        return [read.get(receipt.shard, receipt) if provisional(receipt) else receipt for receipt in given]

    def require_parts(self, receipts: Sequence[Receipt], listed: Mapping[str, int], doing: str, advice: str) -> None:
        """raises: OutputError where a part of `receipts` is not listed with its size, or another one is."""
        sizes = {receipt.part: receipt.size for receipt in receipts}
        for what, names in (
            ("is missing", sizes.keys() - listed.keys()),
            ("was not written by this job", listed.keys() - sizes.keys()),
            (
                "has another size than its receipt says",
                {n for n in sizes.keys() & listed.keys() if sizes[n] != listed[n]},
            ),
        ):
            if names:
                raise OutputError(
                    f"cannot {doing} '{self.store.url}': {len(names)} of"
                    f" {counted(len(sizes), 'part is', 'parts are')} not as they should be:"
                    f" {one_of(sorted(names))} {what}; {advice}"
                )

    def require_rejects(self, receipts: Iterable[Receipt]) -> None:
        """raises: OutputError where a reject file that is named is gone: a part cannot be published once more."""
        named = {receipt.reject_file: receipt for receipt in receipts if receipt.reject_file}
        listed = self.store.names(self.names.rejects) if named else []
        for name in sorted(named.keys() - {f"{self.names.rejects}/{file}" for file in listed}):
            if self.store.stat(name) is None:  # a list may lag behind
                receipt = named[name]
                raise OutputError(
                    f"cannot finish '{self.store.url}': the reject file '{name}' is gone, which held"
                    f" {counted(receipt.rows_rejected, 'row')}; restore it, or run the same command with --repair,"
                    f" which computes '{receipt.part}' again, too"
                )

    def drop_rejects(self, receipts: Iterable[Receipt]) -> None:
        """Remove the reject files of attempts that failed or lost. Best effort: no right to delete is needed."""
        named = {receipt.reject_file for receipt in receipts}
        with suppress(RunnerError):
            for file in self.store.names(self.names.rejects):
                if (name := f"{self.names.rejects}/{file}") not in named:
                    self.store.remove(name)

    def note(self, success: Success, failures: Sequence[Failure]) -> None:
        """Keep a receipt, and the attempts that failed before it. A cache: a run goes on where it cannot be kept."""
        with suppress(StorageError):
            self.store.replace(self.names.receipt(success.receipt.shard), _content(success, failures))

    def commit(self, success: Success, failures: Sequence[Failure]) -> Receipt:
        """Decide that a staged part counts, before it gets its name. The first receipt of a shard wins.

        returns:  the receipt that counts. raises: StorageError where it could not be written.
        """
        receipt, content = success.receipt, _content(success, failures)
        name = self.names.receipt(receipt.shard)
        if self.store.create(name, content):
            return receipt
        first = self._decoded(receipt.shard)
        if first is None or (first.staged and self.store.stat(first.staged) is None):
            # Torn, or what it stands for is gone: it promises what is not so.
            if self.parts.find(receipt.shard) is None:
                self.store.replace(name, content)
            return receipt
        return first

    def uncommitted(self, plan: Plan) -> Iterator[Receipt]:
        """Receipts whose parts are not at their final names: staged parts of a driver that died before promoting."""
        listed = self.store.sizes("")
        for name in self.store.names(self.names.receipts):
            shard = shard_of_receipt(name)
            if 0 <= shard < len(plan.shards) and self.names.part(shard) not in listed:
                receipt = self._decoded(shard)
                if receipt is not None and receipt.staged and receipt.rows_in == plan.shards[shard].rows:
                    yield receipt

    def _read(self, shards: Iterable[Shard], listed: Mapping[str, int]) -> Iterator[Receipt]:
        waiting = iter(shards)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="receipt") as threads:
            while some := list(islice(waiting, _AT_ONCE)):
                yield from threads.map(lambda shard: self._receipt(shard, listed[self.names.part(shard.index)]), some)

    def _receipt(self, shard: Shard, size: int) -> Receipt:
        """The header of the part decides; what it does not hold, the SHA-256, is taken from a receipt that agrees."""
        name = self.names.part(shard.index)
        receipt = self._decoded(shard.index)
        fits = receipt is not None and (receipt.part, receipt.size, receipt.rows_in) == (name, size, shard.rows)
        if receipt is not None and fits and not (self.parts.encoder.carries_header or receipt.rows_rejected):
            return replace(receipt, staged="")  # it is the header of such a part, which would be read as a whole
        rebuilt = self.parts.find(shard.index, size)
        if rebuilt is None:
            raise StorageError(f"cannot read '{self.store.child(name)}': it was listed and is gone")
        if rebuilt.rows_in != shard.rows:
            raise OutputError(
                f"cannot use '{self.store.child(name)}': it holds {rebuilt.rows_in} rows, {shard.rows} are planned"
            )
        if receipt is not None and replace(receipt, sha256="", staged="", adopted=True) == rebuilt:
            return replace(receipt, staged="")
        return rebuilt

    def _decoded(self, shard: int) -> Receipt | None:
        """None where there is none, or one that was torn, edited, or written by another version."""
        document = decode(self.store.read(self.names.receipt(shard))) or {}
        document.pop("failures", None)
        with suppress(TypeError):
            receipt = Receipt.from_document(document)
            if receipt.shard == shard and receipt.attempt and receipt.accounted:
                return receipt
        return None


def _content(success: Success, failures: Sequence[Failure]) -> bytes:
    return encode(success.document() | {"failures": [failure.document() for failure in failures]})


def _provisional(shard: Shard, name: str, size: int) -> Receipt:
    return Receipt(shard.index, "", 0, 0, name, size, "", shard.rows, shard.rows, adopted=True)
