"""The parts of one plan: written by attempts into private spools, published once, known by their commit headers.

Refuses to know drivers, epochs and manifests. The invariant: nothing at a final name is ever deleted or overwritten,
and a part that is there is whole and carries the header of the attempt that won.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, cast

import pyarrow as pa

from connectors.failpoint import failpoint
from connectors.formats.base import Encoder, Writer
from connectors.formats.parquet import ParquetEncoder
from connectors.output.layout import Layout, decode
from connectors.store.probe import Mode
from connectors.store.retry import PUBLISH, Patience
from connectors.store.store import Store
from jobs.attempt import LEFT_OUT, ODD, Attempt, Receipt
from jobs.errors import DataError, InternalError, OutputError, StorageError
from jobs.numerics import UNKNOWN, Numerics
from jobs.plan import PROTOCOL_VERSION
from jobs.versions import Versions, installed

OTHER_WAY = "choose another output url, or run the job that began here"


@dataclass(frozen=True)
class Parts:
    """Where the parts of a plan go, how they are encoded, and who gives them their final names.

    mode:  "direct", "whole": the worker, the store arbitrates; in "whole", where each part comes in one request.
           "staged": the driver, by `promote`.
    """

    store: Store
    names: Layout
    encoder: Encoder
    compression: str
    mode: Mode = "direct"
    patience: Patience = PUBLISH

    def open(self, attempt: Attempt, schema: pa.Schema, model_digest: str, worker: str) -> Part:
        return Part(self, attempt, schema, model_digest, worker)

    def find(self, shard: int, size: int | None = None) -> Receipt | None:
        """The receipt of the part that is at the final name of `shard`, None where there is none.

        size:   its bytes, where a listing told; None: they are asked for.
        raises: OutputError naming the object, where it is not a whole part of this plan.
        """
        name = self.names.part(shard)
        if size is None:
            present = self.store.stat(name)
            if present is None:
                return None
            size = present.size
        try:
            header, rows = self.header(name, shard, size)
        except DataError as error:
            if self.store.stat(name) is None:
                return None
            raise OutputError(
                f"cannot use '{self.store.child(name)}': {error.message}; it stays as it is; compute it again with "
                f"--repair, {OTHER_WAY}"
            ) from error
        receipt = _receipt(cast(Mapping[str, Any], header or {}), self.names, shard, size)
        if receipt is None or receipt.rows_out != rows:
            raise OutputError(
                f"cannot use '{self.store.child(name)}': it is not a part of plan '{self.names.plan_id}' for shard "
                f"{shard}; it stays as it is; {OTHER_WAY}"
            )
        return receipt

    def header(self, name: str, shard: int, size: int) -> tuple[dict[str, object] | None, int]:
        """The commit header of a part and its rows; of a format that carries none, what its receipt says of it.

        raises: DataError PART_UNREADABLE if the file is not whole.
        """
        header, rows = self.encoder.read_header(self.store, name)
        return (header if self.encoder.carries_header else stated(self.store, self.names, shard, size)), rows

    def promote(self, receipt: Receipt, may: Callable[[], None] = lambda: None) -> Receipt:
        """Give a staged part its final name, once however often it is called; only receipts are promoted.

        may:     called before each try; raises where this driver is not to write any more.
        returns: the receipt of the part that is at the final name: this one, or of the attempt that was first.
        raises:  OutputError where something else is there, StorageError where the store does not answer.
        """
        if not receipt.staged:
            return receipt

        def once() -> bool:
            may()
            return self.store.promote(receipt.staged, receipt.part)

        present = self.find(receipt.shard)  # first: where it was promoted before, the upload is gone
        if present is None:
            present = self.settle(receipt.shard, once)
        if present is None or present.attempt == receipt.attempt:
            return replace(receipt, staged="")
        return present

    def settle(self, shard: int, publish: Callable[[], bool]) -> Receipt | None:
        """Publish until it is certain what is at the final name of `shard`: an answer alone is not trusted.

        publish:  True: done. False, or a StorageError that is not certain: the final name is looked at.
        returns:  None where `publish` said that it is done, else the receipt of the part that is there, ours or not.
        raises:   OutputError where something else is there; StorageError after the last try.
        """
        name = self.store.child(self.names.part(shard))

        def once() -> Receipt | None:
            error = StorageError(
                f"cannot publish '{name}': the store says that it exists and does not show it", answer="unclear"
            )
            try:
                if publish():
                    return None
            except StorageError as raised:
                if raised.facts.get("answer") == "failed":
                    raise
                error = raised
            present = self.find(shard)
            if present is None:
                raise error
            return present

        return self.patience.call(once, lambda error: error.facts.get("answer") != "failed")


@dataclass(frozen=True)
class Losses:
    """What of a shard is not in its part, and what is odd about rows that are in it, for `Part.publish`.

    batches:    the rejected rows, of `schema` (see `connectors.output.reject`).
    codes:      code -> rows. bad_files: url -> rows of it that could not be read.
    """

    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    batches: Sequence[pa.RecordBatch] = ()
    codes: Mapping[str, int] = field(default_factory=dict)
    bad_files: Mapping[str, int] = field(default_factory=dict)
    nan_rows: int = 0  # these four: as in a Receipt
    nonfinite_rows: int = 0
    unseen_rows: int = 0
    changed_rows: int = 0
    rows_left_out: int = 0

    @property
    def rows(self) -> int:
        """Rejected."""
        return sum(batch.num_rows for batch in self.batches)


class Part:
    """The part of one attempt while it is written: in a private spool, published as a whole or not at all.

    In staged mode it is uploaded under a name of the attempt, and its receipt says where.
    """

    def __init__(self, parts: Parts, attempt: Attempt, schema: pa.Schema, digest: str, worker: str) -> None:
        self._parts, self._attempt, self._schema = parts, attempt, schema
        self._model_digest, self._worker = digest, worker
        self._staging = parts.names.attempt(attempt.id)
        self._rows = 0
        self._writer: Writer | None = None  # made with the first rows: an attempt that waits leaves no trace
        self._losses, self._numerics = Losses(), UNKNOWN
        self._published = self._staged = False

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None and not (self._published or self._staged):
                self._writer.abort()
        finally:
            if self._staged:
                self._parts.store.release(self._staging)
            elif self._writer is not None:
                self._parts.store.discard(self._staging)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows, in input order."""
        self._open().write(batch)
        self._rows += batch.num_rows

    def _open(self) -> Writer:
        if self._writer is None:
            parts = self._parts
            try:
                self._spool = parts.store.spool(self._staging) / parts.names.spool(self._attempt.shard)
                self._writer = parts.encoder.open(self._spool, self._schema, parts.compression)
            except BaseException:
                parts.store.discard(self._staging)
                raise
        return self._writer

    def publish(self, losses: Losses | None = None, numerics: Numerics = UNKNOWN) -> Receipt:
        """Finish the file, prove it, and give it its final name; or adopt the part that is there already.

        losses:   what of the shard is not in the part; its reject file is there before the part names it.
        numerics: of the process that called the model.
        raises:   InternalError where rows are missing or too many; StorageError where the spool does not read back;
                  OutputError where something else is at the final name.
        """
        attempt, parts = self._attempt, self._parts
        self._losses, self._numerics = losses or self._losses, numerics
        if self._rows + self._losses.rows + self._losses.rows_left_out != attempt.rows:
            found = f"{self._rows} rows written{self._others()}"
            raise InternalError(f"cannot publish shard {attempt.shard}: {found}, {attempt.rows} planned")
        self._open().close(self._header())
        self._read_back()
        size = self._spool.stat().st_size
        with self._spool.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        name = parts.names.part(attempt.shard)
        failpoint("W4.done")
        self._publish_rejects()
        staged = ""
        if parts.mode == "staged":
            staged = f"{self._staging}/{self._spool.name}"
            parts.store.upload(self._spool, staged)
            self._staged = True
        elif (winner := self._publish(name, size)) is not None:
            return winner
        failpoint("W6.after")
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
            rows_rejected=self._losses.rows,
            worker=self._worker,
            staged=staged,
            reject_file=self._reject_file or "",
            codes=dict(self._losses.codes),
            bad_files=dict(self._losses.bad_files),
            nan_rows=self._losses.nan_rows,
            nonfinite_rows=self._losses.nonfinite_rows,
            unseen_rows=self._losses.unseen_rows,
            changed_rows=self._losses.changed_rows,
            numerics=self._numerics,
            versions=installed(),
            rows_left_out=self._losses.rows_left_out,
        )

    def _others(self) -> str:
        """How many rows are not in the part, in words."""
        counts = {"rejected": self._losses.rows, "left out": self._losses.rows_left_out}
        return "".join(f" and {rows} {what}" for what, rows in counts.items() if rows)

    @property
    def _reject_file(self) -> str | None:
        return self._parts.names.reject(self._attempt.shard, self._attempt.id) if self._losses.rows else None

    def _publish_rejects(self) -> None:
        """The rejected rows, under a name of this attempt alone: no other attempt ever writes there."""
        if self._reject_file is None:
            return
        attempt, store = self._attempt, self._parts.store
        spool = self._spool.with_name("rejects.spool")
        writer = ParquetEncoder().open(spool, self._losses.schema, "zstd")
        try:
            for batch in self._losses.batches:
                writer.write(batch)
            written = writer.close({"v": PROTOCOL_VERSION, "plan_id": self._parts.names.plan_id, "attempt": attempt.id})
        except BaseException:
            writer.abort()
            raise
        if written != self._losses.rows:
            raise InternalError(
                f"cannot publish shard {attempt.shard}: {self._losses.rows} rows rejected, {written} in the reject file"
            )
        store.upload(spool, self._reject_file)
        failpoint("W5.after")

    def _publish(self, name: str, size: int) -> Receipt | None:
        """None: the part at the final name is ours; else the receipt of the one that won."""
        attempt, parts = self._attempt, self._parts
        pieces = {"part_bytes": 0} if parts.mode == "whole" else {}
        present = parts.settle(attempt.shard, lambda: parts.store.publish(self._spool, name, self._staging, **pieces))
        if present is None:
            return None
        if present.attempt != attempt.id:
            return present
        if present.size != size:
            raise OutputError(
                f"cannot use '{parts.store.child(name)}': it holds {present.size} bytes of this attempt, {size} were "
                f"written; it stays as it is; {OTHER_WAY}"
            )
        return None

    def _header(self) -> dict[str, object]:
        attempt = self._attempt
        return {
            "v": PROTOCOL_VERSION,
            "plan_id": self._parts.names.plan_id,
            "shard": attempt.shard,
            "attempt": attempt.id,
            "number": attempt.number,
            "epoch": attempt.epoch,
            "rows_in": attempt.rows,
            "rows_out": self._rows,
            "rows_rejected": self._losses.rows,
            **({LEFT_OUT: self._losses.rows_left_out} if self._losses.rows_left_out else {}),
            "inputs": [
                {"i": cut.file, "row_groups": [cut.first, cut.first + len(cut.rows)], "rows": cut.count}
                for cut in attempt.inputs
            ],
            "reject_file": self._reject_file,
            "codes": self._losses.codes,
            "bad_files": self._losses.bad_files,
            "nan_rows": self._losses.nan_rows,
            "nonfinite_rows": self._losses.nonfinite_rows,
            "unseen_rows": self._losses.unseen_rows,
            "changed_rows": self._losses.changed_rows,
            "model_digest": self._model_digest,
            "writer": self._worker,
            "numerics": self._numerics.document(),
            "versions": installed().document(),
        }

    def _read_back(self) -> None:
        """What was written is what a reader will see. raises: StorageError, for another try on another disk."""
        local = Store(str(self._spool.parent))
        try:
            header, rows = self._parts.encoder.read_header(local, self._spool.name)
        except DataError as error:
            raise StorageError(
                f"cannot publish '{self._spool.name}': its spool does not read back: {error.message}"
            ) from error
        expected = self._header() if self._parts.encoder.carries_header else None
        if header != expected or rows != self._rows:
            raise StorageError(
                f"cannot publish '{self._spool.name}': its spool holds {rows} rows, {self._rows} were written"
            )


def stated(store: Store, names: Layout, shard: int, size: int) -> dict[str, object] | None:
    """What the receipt of a part of `size` bytes says in the place of its commit header; None where there is none.

    Only what was recorded is ever promoted, so that a part without its receipt is another run's.
    """
    receipt = decode(store.read(names.receipt(shard))) or {}
    if receipt.get("size") != size or receipt.get("shard") != shard:
        return None
    counts = ("rows_in", "rows_out", "rows_rejected", "reject_file", "codes", "bad_files", *ODD, "numerics", "versions")
    kept = ("shard", "attempt", "number", "epoch", *counts)
    left_out = {LEFT_OUT: receipt[LEFT_OUT]} if LEFT_OUT in receipt else {}
    known = {key: receipt.get(key) for key in kept}
    return {"plan_id": names.plan_id, "writer": receipt.get("worker", ""), **known, **left_out}


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
            reject_file=str(header.get("reject_file") or ""),
            codes=dict(header.get("codes") or {}),
            bad_files=dict(header.get("bad_files") or {}),
            nan_rows=int(header.get("nan_rows") or 0),
            nonfinite_rows=int(header.get("nonfinite_rows") or 0),
            unseen_rows=int(header.get("unseen_rows") or 0),
            changed_rows=int(header.get("changed_rows") or 0),
            numerics=Numerics.from_document(header.get("numerics")),
            versions=Versions.from_document(header.get("versions")),
            rows_left_out=int(header.get(LEFT_OUT) or 0),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return receipt if receipt.accounted else None
