"""The output directory of a job: who may write there, what is published, and the proof that it is everything.

Knows names, documents and the order in which they appear (PROTOCOL in the README); refuses to know what the rows mean.
The invariant: nothing at a final name is ever deleted or overwritten, and a name appears with its whole content.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from types import TracebackType
from typing import Any, Literal, cast

import pyarrow as pa

from connectors import ENCODERS, load_class
from connectors.base import Encoder, Writer
from connectors.layout import PART_PREFIX, SUCCESS, Layout, decode, encode, epoch_of_name, plan8_of_part
from connectors.status import Status, read_status
from connectors.store import Store, redact
from jobs.attempt import Attempt, Failure, Receipt
from jobs.difference import difference
from jobs.errors import DataError, InternalError, OutputError, StorageError, one_of
from jobs.job import OptionValue, Output, canonical, digest
from jobs.manifest import manifest, totals
from jobs.plan import PROTOCOL_VERSION, Plan, Shard

__all__ = ["Claim", "OutputDirectory", "Part", "Status", "open_dataset", "read_status"]

_THREADS = 16  # receipts and headers are small: reading them is waiting
_OTHER_WAY = "choose another output url, or run the job that began here"


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
        self._encoder: Encoder = load_class(ENCODERS, output.format)()
        self._names = Layout(plan_id, shards, self._encoder.suffix)
        self._started = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputDirectory, (self.output, self._names.plan_id, self._names.shards)

    def part_name(self, shard: int) -> str:
        return self._names.part(shard)

    def url(self, name: str) -> str:
        """The full url of a name in this directory."""
        return f"{self.store.url.removesuffix('/')}/{name}"

    # worker side

    def open_part(self, attempt: Attempt, schema: pa.Schema, model_digest: str, worker: str) -> Part:
        """A part to write in a `with` block; leaving the block without `publish` drops everything."""
        return Part(self, attempt, schema, model_digest, worker)

    def adopt(self, shard: int) -> Receipt | None:
        """The receipt of the part that is at the final name of `shard`, None where there is none.

        raises: OutputError naming the object, where it is not a whole part of this plan.
        """
        name = self.part_name(shard)
        found = self.store.stat(name)
        if found is None:
            return None
        try:
            header, rows = self._encoder.read_header(self.store, name)
        except DataError as error:
            raise OutputError(
                f"cannot use '{self.url(name)}': {error.message}; it stays as it is; {_OTHER_WAY}"
            ) from error
        receipt = _receipt(cast(Mapping[str, Any], header or {}), self._names, shard, found.size)
        if receipt is None or receipt.rows_out != rows:
            raise OutputError(
                f"cannot use '{self.url(name)}': it is not a part of plan '{self._names.plan_id}' for shard {shard}; "
                f"it stays as it is; {_OTHER_WAY}"
            )
        return receipt

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
        content = encode(document)
        if not self.store.create(name, content) and self.store.read(name) != content:
            raise OutputError(f"cannot finish '{self.store.url}': another manifest of epoch {epoch} is there, '{name}'")
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
            f"cannot write into '{self.store.url}': it holds '{name}' of another job: {differs}; {_OTHER_WAY}"
        )

    def _success(self, plan: Plan) -> int:
        """The epoch that finished this plan. raises: OutputError where `_SUCCESS` is of another plan."""
        found = decode(self.store.read(SUCCESS)) or {}
        if found.get("plan_id") == plan.id and isinstance(found.get("epoch"), int):
            return int(found["epoch"])
        if isinstance(found.get("plan_id"), str):
            raise self._other(plan, Layout(found["plan_id"]).plan8, SUCCESS)
        raise OutputError(
            f"cannot write into '{self.store.url}': its '{SUCCESS}' was not written by this runner; {_OTHER_WAY}"
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


class Part:
    """The part of one attempt while it is written: in a private spool, published as a whole or not at all."""

    def __init__(self, output: OutputDirectory, attempt: Attempt, schema: pa.Schema, digest: str, worker: str) -> None:
        self._output, self._attempt, self._schema = output, attempt, schema
        self._model_digest, self._worker = digest, worker
        self._staging = output._names.attempt(attempt.id)
        self._rows = 0
        self._published = False

    def __enter__(self) -> Part:
        output = self._output
        try:
            self._spool = output.store.spool(self._staging) / output.part_name(self._attempt.shard)
            self._writer: Writer = output._encoder.open(self._spool, self._schema, output.output.compression)
        except BaseException:
            output.store.discard(self._staging)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._published:
                self._writer.abort()
        finally:
            self._output.store.discard(self._staging)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows, in input order."""
        self._writer.write(batch)
        self._rows += batch.num_rows

    def publish(self, seconds: Mapping[str, float]) -> Receipt:
        """Finish the file, prove it, and give it its final name; or adopt the part that is there already.

        seconds:  stage -> seconds so far, for the receipt.
        raises:   InternalError where rows are missing or too many; StorageError where the spool does not read back;
                  OutputError where something else is at the final name.
        """
        attempt, output = self._attempt, self._output
        if self._rows != attempt.rows:
            raise InternalError(
                f"cannot publish shard {attempt.shard}: {self._rows} rows written, {attempt.rows} planned"
            )
        self._writer.close(self._header())
        self._read_back()
        size = self._spool.stat().st_size
        with self._spool.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        name = output.part_name(attempt.shard)
        if not output.store.publish(self._spool, name, self._staging):
            winner = output.adopt(attempt.shard)
            if winner is None:
                raise StorageError(
                    f"cannot publish '{output.url(name)}': the store says that it exists and does not show it"
                )
            if winner.attempt != attempt.id:  # else: our own, its answer was lost
                return winner
        self._published = True
        return Receipt(
            shard=attempt.shard,
            attempt=attempt.id,
            number=attempt.number,
            epoch=attempt.epoch,
            part=name,
            size=size,
            sha256=sha256,
            rows_in=attempt.rows,
            rows_out=self._rows,
            worker=self._worker,
            seconds=dict(seconds),
        )

    def _header(self) -> dict[str, object]:
        attempt = self._attempt
        return {
            "v": PROTOCOL_VERSION,
            "plan_id": self._output._names.plan_id,
            "shard": attempt.shard,
            "attempt": attempt.id,
            "number": attempt.number,
            "epoch": attempt.epoch,
            "rows_in": attempt.rows,
            "rows_out": self._rows,
            "rows_rejected": 0,
            "inputs": [
                {"i": cut.file, "row_groups": [cut.first, cut.first + len(cut.rows)], "rows": sum(cut.rows)}
                for cut in attempt.inputs
            ],
            "reject_file": None,
            "model_digest": self._model_digest,
            "writer": self._worker,
        }

    def _read_back(self) -> None:
        """What was written is what a reader will see. raises: StorageError, for another try on another disk."""
        local = Store(str(self._spool.parent))
        try:
            header, rows = self._output._encoder.read_header(local, self._spool.name)
        except DataError as error:
            raise StorageError(
                f"cannot publish '{self._spool.name}': its spool does not read back: {error.message}"
            ) from error
        if header != self._header() or rows != self._rows:
            raise StorageError(
                f"cannot publish '{self._spool.name}': its spool holds {rows} rows, {self._rows} were written"
            )


def open_dataset(urls: Sequence[str], options: Mapping[str, OptionValue] | None = None) -> Any:
    """A pyarrow.dataset.Dataset over exactly these parts, in this order. options: of the output, to reach it."""
    from pyarrow.dataset import dataset  # 0.2 s that no worker and no other command should spend

    files, paths = Store(urls[0], options).arrow(urls)
    return dataset(paths, filesystem=files, format="ipc" if paths[0].endswith(".arrow") else "parquet")


def _receipt(header: Mapping[str, Any], names: Layout, shard: int, size: int) -> Receipt | None:
    """The receipt that a commit header stands for; None where it is not of this plan and shard."""
    if header.get("plan_id") != names.plan_id or header.get("shard") != shard:
        return None
    try:
        receipt = Receipt(
            shard=shard,
            attempt=str(header["attempt"]),
            number=int(header["number"]),
            epoch=int(header["epoch"]),
            part=names.part(shard),
            size=size,
            sha256="",
            rows_in=int(header["rows_in"]),
            rows_out=int(header["rows_out"]),
            rows_rejected=int(header["rows_rejected"]),
            worker=str(header["writer"]),
            adopted=True,
        )
    except (KeyError, TypeError, ValueError):
        return None
    return receipt if receipt.rows_in == receipt.rows_out + receipt.rows_rejected else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
