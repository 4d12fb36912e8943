"""The output directory of a job: who may write there, what is published, and the proof that it is everything.

Knows names, documents and the order in which they appear (PROTOCOL in the README); refuses to know what the rows mean.
The invariant: nothing at a final name is ever deleted or overwritten, and a name appears with its whole content.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, Literal

import pyarrow as pa

from connectors import ENCODERS, load_class
from connectors.base import Encoder
from connectors.failpoint import failpoint
from connectors.layout import PART_PREFIX, SUCCESS, Layout, decode, encode, epoch_of_name, plan8_of_part
from connectors.part import OTHER_WAY, Part, Parts
from connectors.status import Status, read_status
from connectors.store import Store, redact
from jobs.attempt import Attempt, Failure, Receipt
from jobs.difference import difference
from jobs.errors import OutputError, StorageError, one_of
from jobs.job import OptionValue, Output, canonical, digest
from jobs.manifest import manifest, totals
from jobs.plan import PROTOCOL_VERSION, Plan, Shard

__all__ = ["Claim", "OutputDirectory", "Part", "Status", "open_dataset", "read_status"]

_THREADS = 16  # receipts and headers are small: reading them is waiting


@dataclass(frozen=True, slots=True)
class Claim:
    """epoch: of this driver; of the driver that finished, where everything is there already."""

    state: Literal["new", "resumed", "finished"]
    epoch: int


class OutputDirectory:
    """One per process; cheap; pickles as its construction arguments.

    raises: OutputError for a store that cannot be written to.
    """

    def __init__(self, output: Output, plan_id: str, shards: int) -> None:
        self.store = Store(output.url, output.options)
        if self.store.scheme in ("http", "https"):
            raise OutputError(f"cannot write to '{redact(output.url)}': there is no writing over {self.store.scheme}")
        # The url as this process understood it: a relative one means another place in another working directory.
        self.output = output.model_copy(update={"url": self.store.url})
        encoder: Encoder = load_class(ENCODERS, output.format)()
        self._names = Layout(plan_id, shards, encoder.suffix)
        self._parts = Parts(self.store, self._names, encoder, output.compression)
        self._started = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputDirectory, (self.output, self._names.plan_id, self._names.shards)

    def part_name(self, shard: int) -> str:
        return self._names.part(shard)

    def url(self, name: str) -> str:
        """The full url of a name in this directory."""
        return self.store.child(name)

    # worker side

    def open_part(self, attempt: Attempt, schema: pa.Schema, model_digest: str, worker: str) -> Part:
        """A part to write in a `with` block; leaving the block without `publish` drops everything."""
        return self._parts.open(attempt, schema, model_digest, worker)

    def adopt(self, shard: int) -> Receipt | None:
        """The receipt of the part that is at the final name of `shard`, None where there is none. See `Parts.find`."""
        return self._parts.find(shard)

    # driver side

    def claim(self, plan: Plan) -> Claim:
        """Take this directory for `plan`: the first time, again, or not at all.

        raises: OutputError where it cannot be written, or holds the output of another job, naming what differs.
        """
        there = set(self.store.names(""))
        self._refuse_other_parts(plan, there)
        if SUCCESS in there:
            return Claim("finished", self._success(plan))
        document = {"plan_id": plan.id, **plan.document()}
        new = self.store.create(self._names.plan, canonical(document).encode())
        if not new:
            self._check_plan(plan)
        failpoint("D3.after")
        self._started = _now()
        return Claim("new" if new else "resumed", self._new_epoch())

    def published(self, plan: Plan) -> dict[int, Receipt]:
        """The shards that are done: receipts of listed parts, from the parts themselves where those are wrong."""
        listed = self.store.sizes("")
        done = [shard for shard in plan.shards if self.part_name(shard.index) in listed]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="receipt") as threads:
            receipts = threads.map(lambda shard: self._receipt(shard, listed[self.part_name(shard.index)]), done)
            return {receipt.shard: receipt for receipt in receipts}

    def record(self, receipt: Receipt, failures: Sequence[Failure]) -> None:
        """Note a receipt, and the attempts that failed before it. A cache: that it cannot be written harms nobody."""
        document = receipt.document() | {"failures": [failure.document() for failure in failures]}
        with suppress(StorageError):
            self.store.replace(self._names.receipt(receipt.shard), encode(document))

    def renew(self, epoch: int, progress: Mapping[str, object]) -> None:
        """Say that this driver lives and how far it is. progress: plain values; its "heartbeat" wins over the clock."""
        with suppress(StorageError):
            self.store.replace(self._names.epoch(epoch), encode(self._epoch_document(epoch) | dict(progress)))

    def finish(self, plan: Plan, receipts: Mapping[int, Receipt] | Iterable[Receipt], epoch: int) -> None:
        """Prove that every row is in exactly one part, list the parts, and say so with `_SUCCESS`.

        raises: OutputError where a part is missing, is of another size or is not ours; InternalError where the receipts
                do not add up. Then there is no `_SUCCESS`.
        """
        given = list(receipts.values() if isinstance(receipts, Mapping) else receipts)
        listed = self.store.sizes("")
        parts = {name: size for name, size in listed.items() if name.startswith(PART_PREFIX)}
        self._check_parts(given, parts)
        document = manifest(plan, given, epoch, parts)
        name = self._names.manifest(epoch)
        failpoint("D9.after")
        content = encode(document)
        if not self.store.create(name, content) and self.store.read(name) != content:
            raise OutputError(f"cannot finish '{self.store.url}': another manifest of epoch {epoch} is there, '{name}'")
        failpoint("D10.after")
        success = {"v": PROTOCOL_VERSION, "plan_id": plan.id, "epoch": epoch, "manifest": name, **totals(given)}
        if not self.store.create(SUCCESS, encode(success)):
            self._success(plan)
        self.store.discard(self._names.staging)  # spools of attempts that were killed

    # details

    def _refuse_other_parts(self, plan: Plan, there: set[str]) -> None:
        ours = {self.part_name(shard.index) for shard in plan.shards}
        for name in sorted(name for name in there if name.startswith(PART_PREFIX) and name not in ours):
            plan8 = plan8_of_part(name)
            if plan8 is None or plan8 == self._names.plan8:
                raise OutputError(
                    f"cannot write into '{self.store.url}': it holds '{name}', which is not of this job and which "
                    "readers would take for a part of it; choose another output url, or move that file away"
                )
            raise self._other(plan, plan8, name)

    def _other(self, plan: Plan, plan8: str, name: str) -> OutputError:
        then = decode(self.store.read(Layout(plan8).plan))
        differs = difference(then, plan.document()) if then else "its plan is not there any more"
        return OutputError(
            f"cannot write into '{self.store.url}': it holds '{name}' of another job: {differs}; {OTHER_WAY}"
        )

    def _success(self, plan: Plan) -> int:
        """The epoch that finished this plan. raises: OutputError where `_SUCCESS` is of another plan."""
        found = decode(self.store.read(SUCCESS)) or {}
        if found.get("plan_id") == plan.id and isinstance(found.get("epoch"), int):
            return int(found["epoch"])
        if isinstance(found.get("plan_id"), str):
            raise self._other(plan, Layout(found["plan_id"]).plan8, SUCCESS)
        raise OutputError(
            f"cannot write into '{self.store.url}': its '{SUCCESS}' was not written by this runner; {OTHER_WAY}"
        )

    def _check_plan(self, plan: Plan) -> None:
        """raises: OutputError where the plan that is there is not `plan`, byte for byte."""
        found = decode(self.store.read(self._names.plan)) or {}
        then = {key: value for key, value in found.items() if key != "plan_id"}
        if found.get("plan_id") != plan.id or digest(then) != plan.id:
            differs = difference(then, plan.document()) if then else "it is torn or empty"
            raise OutputError(
                f"cannot resume in '{self.store.url}': '{self._names.plan}' was changed after it was written: {differs}"
                "; restore it, or choose another output url"
            )

    def _new_epoch(self) -> int:
        last = max((epoch_of_name(name) for name in self.store.names(self._names.epochs)), default=0)
        return next(
            number
            for number in count(last + 1)  # a driver that starts now may be faster: then the next number
            if self.store.create(self._names.epoch(number), encode(self._epoch_document(number)))
        )

    def _epoch_document(self, epoch: int) -> dict[str, object]:
        return {
            "plan_id": self._names.plan_id,
            "epoch": epoch,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "heartbeat": _now(),
        }

    def _receipt(self, shard: Shard, size: int) -> Receipt:
        found = decode(self.store.read(self._names.receipt(shard.index))) or {}
        found.pop("failures", None)
        with suppress(TypeError):  # written by hand, or by another version
            receipt = Receipt.from_document(found)
            named = (receipt.shard, receipt.part, receipt.size) == (shard.index, self.part_name(shard.index), size)
            if named and shard.rows == receipt.rows_in == receipt.rows_out + receipt.rows_rejected:
                return receipt
        rebuilt = self.adopt(shard.index)
        if rebuilt is None:
            raise StorageError(f"cannot read '{self.url(self.part_name(shard.index))}': it was listed and is gone")
        if rebuilt.rows_in != shard.rows:
            raise OutputError(
                f"cannot use '{self.url(rebuilt.part)}': it holds {rebuilt.rows_in} rows, {shard.rows} are planned"
            )
        return rebuilt

    def _check_parts(self, receipts: Sequence[Receipt], listed: Mapping[str, int]) -> None:
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
                    f"cannot finish '{self.store.url}': {len(names)} of {len(listed)} parts are not as they should be: "
                    f"{one_of(sorted(names))} {what}; run the same command again to recompute what is missing"
                )


def open_dataset(urls: Sequence[str], options: Mapping[str, OptionValue] | None = None) -> Any:
    """A pyarrow.dataset.Dataset over exactly these parts, in this order. options: of the output, to reach it."""
    from pyarrow.dataset import dataset  # 0.2 s that no worker and no other command should spend

    files, paths = Store(urls[0], options).arrow(urls)
    return dataset(paths, filesystem=files, format="ipc" if paths[0].endswith(".arrow") else "parquet")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
