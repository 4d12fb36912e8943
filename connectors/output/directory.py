"""The output directory of a job: who may write there, what is published, and the proof that it is everything.

Knows names, documents and the order in which they appear (PROTOCOL in the README); refuses to know what the rows mean.
The invariant: nothing at a final name is ever deleted or overwritten, and a name appears with its whole content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from connectors.failpoint import failpoint
from connectors.formats.base import Encoder
from connectors.formats.registry import format_of, make_encoder, part_suffix
from connectors.output.claim import (
    Claim,
    clear,
    is_read,
    read_manifest,
    read_success,
    require_plan,
    write_plan,
)
from connectors.output.epoch import Ending, Epochs
from connectors.output.layout import SUCCESS, Layout, decode, encode
from connectors.output.outlook import Outlook, Survey, Terms, survey
from connectors.output.part import Losses, Part, Parts
from connectors.output.receipts import Receipts
from connectors.output.reports import Reports
from connectors.output.status import Status, read_status
from connectors.secret import redact
from connectors.store.probe import WEAKER, Mode, Probe, mode_of, probe
from connectors.store.store import Store
from jobs.attempt import Attempt, Failure, Receipt, Success
from jobs.errors import OutputError, RunnerError
from jobs.format import DEFAULT_FORMAT
from jobs.manifest import manifest, receipts_of, totals
from jobs.numerics import Numerics
from jobs.plan import PROTOCOL_VERSION, Plan
from jobs.section.base import OptionValue
from jobs.section.output import Output

__all__ = ["Claim", "Losses", "Outlook", "OutputDirectory", "Part", "Status", "Terms", "open_dataset", "read_status"]


def require_written(store: Store) -> Store:
    """The same; nobody is asked. raises: OutputError for one that is only read."""
    if store.kind.read_only:
        raise OutputError(f"cannot write to '{redact(store.url)}': there is no writing over {store.scheme}")
    return store


class OutputDirectory:
    """One per process; cheap; pickles as its construction arguments.

    mode:   how parts get their names; None: as the driver noted it when it claimed the directory.
    raises: OutputError for a store that cannot be written to.
    """

    def __init__(self, output: Output, plan_id: str, shards: int, mode: Mode | None = None) -> None:
        self.store = require_written(Store(output.url, output.options))
        # The url as this process understood it: a relative one means another place in another working directory.
        self.output = output.model_copy(update={"url": self.store.url})
        self._encoder: Encoder = make_encoder(output.format)
        self._names = Layout(plan_id, shards, part_suffix(output.format, output.compression))
        self._mode = mode
        self.epochs = Epochs(self.store, self._names)
        self.reports = Reports(self.store, self._names, self.epochs)

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputDirectory, (self.output, self._names.plan_id, self._names.shards, self._mode)

    @property
    def mode(self) -> Mode:
        return self._mode or "direct"

    def part_name(self, shard: int) -> str:
        return self._names.part(shard)

    def url(self, name: str) -> str:
        """The full url of a name in this directory."""
        return self.store.child(name)

    # worker side

    def open_part(self, attempt: Attempt, schema: pa.Schema, model_digest: str, worker: str) -> Part:
        """A part to write in a `with` block; leaving the block without `publish` drops everything."""
        if self._mode is None:  # in a worker; by the exact name, because a listing may lag
            self._mode = mode_of(self.epochs.document(attempt.epoch).get("mode")) or "direct"
        return self._parts.open(attempt, schema, model_digest, worker)

    def first_numerics(self, own: Numerics) -> Numerics:
        """Of the first worker of this plan, in whatever run that was: `own` where there was none before."""
        name = self._names.numerics
        if self.store.create(name, encode(own.document())):
            return own
        return Numerics.from_document(decode(self.store.read(name)))

    def adopt(self, shard: int) -> Receipt | None:
        """The receipt of the part that is at the final name of `shard`, None where there is none. See `Parts.find`."""
        return self._parts.find(shard)

    # driver side

    def claim(self, plan: Plan, *, overwrite: bool = False, takeover: bool = False, repair: bool = False) -> Claim:
        """Take this directory for `plan`: the first time, again, or not at all.

        overwrite, takeover, repair: see `Terms`.
        raises:     BusyError where another driver writes; OutputError where it cannot be written, or where it holds a
                    table that is not of this job: of another job, naming what differs, or anybody's.
        """
        terms = Terms(overwrite, takeover, repair)
        found = survey(self.store, self._names, plan, self.epochs, terms)
        if not found.planned:
            (write_plan if overwrite or repair else require_plan)(self.store, self._names, plan)
        if found.state == "finished":
            self._tidy(finished=True)
            return Claim("finished", found.epoch)
        self._tidy(finished=False)
        failpoint("D3.after")
        variables = {"variables": dict(plan.variables)} if plan.variables else {}
        epoch = self.epochs.begin(takeover=takeover, **found.facts, **variables)
        failpoint("D4.after")
        try:
            self._make_room(found, epoch, terms)
            warning = self._probe_store(epoch)
        except BaseException:
            self.epochs.end(epoch, "failed")
            raise
        return Claim("new" if epoch == 1 or found.anew else "resumed", epoch, self.mode, warning)

    def outlook(self, plan: Plan, terms: Terms) -> Outlook:
        """What `claim`, and the run that goes on from there, would meet here. Writes nothing.

        raises: nothing: what would refuse a run is part of the answer.
        """
        try:
            found = survey(self.store, self._names, plan, replace(self.epochs, looks=True), terms)
            if found.state == "finished":
                done = self.finished(plan)
            else:
                done = {} if found.anew else self._receipts.done(plan, found.going) | self._promotable(plan)
                done = {shard: receipt for shard, receipt in done.items() if shard not in (found.lost or ())}
        except RunnerError as error:
            return Outlook("refused", len(plan.shards), plan.rows, error=error)
        rows = sum(plan.shards[shard].rows for shard in done)
        return Outlook(
            found.state, len(plan.shards), plan.rows, len(done), rows, len(found.going), len(found.lost or ())
        )

    def done(self, plan: Plan) -> dict[int, Receipt]:
        """The shards that are done, for a schedule. Receipts may be provisional until `finish`; see `Receipts.done`."""
        if self.mode == "staged":
            for receipt in self._promotable(plan).values():
                self._parts.promote(receipt, self.epochs.require_held)
        return self._receipts.done(plan)

    def published(self, plan: Plan) -> dict[int, Receipt]:
        """The shards that are done: receipts of listed parts, from the parts themselves where those are wrong."""
        return self._receipts.published(plan)

    def finished(self, plan: Plan) -> dict[int, Receipt]:
        """The receipts of a finished job, from its manifest alone.

        raises: OutputError where the manifest was changed, or a part that it lists is not there any more.
        """
        receipts = receipts_of(read_manifest(self.store, read_success(self.store, plan)))
        listed = self.store.sizes("")
        parts = {name: size for name, size in listed.items() if is_read(name)}
        advice = "see 'runner verify'; --repair computes again what is missing or damaged, --overwrite begins anew"
        self._receipts.require_parts(receipts, parts, "use the finished", advice)
        return {receipt.shard: receipt for receipt in receipts}

    def record(self, success: Success, failures: Sequence[Failure]) -> Receipt:
        """Note a receipt, and the attempts that failed before it; a staged part gets its final name by it.

        returns:  the receipt that counts: of a staged shard that was recorded before, the first one.
        raises:   StorageError where a staged part could not be recorded and promoted, SupersededError where another
                  driver is to do so; else best effort.
        """
        if self.mode != "staged" or success.receipt.adopted:
            self._receipts.note(success, failures)
            return success.receipt
        counts = self._receipts.commit(success, failures)
        failpoint("D7.receipt")
        return self._parts.promote(counts, self.epochs.require_held)

    def renew(self, epoch: int, progress: Mapping[str, object]) -> None:
        """Say that this driver lives and how far it is. progress: plain values; its "heartbeat" wins over the clock.

        raises: SupersededError where another driver took over.
        """
        self.epochs.renew(epoch, progress)

    @property
    def reject_files(self) -> str:
        """The url of the folder of reject files."""
        return self.store.child(self._names.rejects)

    def died_with(self, epoch: int) -> list[int]:
        """The shards that the driver before `epoch` had in hand, in its own process, when it died; none if it ended."""
        before = self.epochs.document(epoch - 1) if epoch > 1 else {}
        return [] if before.get("ended") else [shard for shard in before.get("in_hand", ()) if isinstance(shard, int)]

    def end(self, epoch: int, how: Ending, facts: Mapping[str, object] | None = None) -> None:
        """Say that this driver writes no more, and why. Best effort: without it, the next one on another host waits."""
        self.epochs.end(epoch, how, facts or {})

    def finish(self, plan: Plan, receipts: Mapping[int, Receipt] | Iterable[Receipt], epoch: int) -> dict[int, Receipt]:
        """Prove that every row is in exactly one part, list the parts, and say so with `_SUCCESS`.

        returns: all receipts, by shard.
        raises:  OutputError where a part or a reject file is missing, where a part is of another size or not ours, or
                 where the plan was changed; InternalError where the receipts do not add up; SupersededError where
                 another driver took over.
        """
        listed = self.store.sizes("")
        parts = {name: size for name, size in listed.items() if is_read(name)}
        given = receipts.values() if isinstance(receipts, Mapping) else receipts
        complete = self._receipts.complete(plan, given, parts)
        again = (
            "move away what is not of this job, and run the same command again to recompute what is missing, with "
            "--repair what is damaged, too"
        )
        self._receipts.require_parts(complete, parts, "finish", again)
        self._receipts.require_rejects(complete)
        require_plan(self.store, self._names, plan)
        document = manifest(plan, complete, epoch, parts)
        name = self._names.manifest(epoch)
        failpoint("D9.after")
        self.epochs.require_newest(epoch)
        content = encode(document)
        if not self.store.create(name, content) and self.store.read(name) != content:
            raise OutputError(f"cannot finish '{self.store.url}': another manifest of epoch {epoch} is there, '{name}'")
        failpoint("D10.after")
        self.epochs.require_newest(epoch)
        sums = {"manifest": name, "manifest_sha256": hashlib.sha256(content).hexdigest(), **totals(complete)}
        success = {"v": PROTOCOL_VERSION, "plan_id": plan.id, "epoch": epoch, **sums}
        if not self.store.create(SUCCESS, encode(success)):
            read_success(self.store, plan)
        failpoint("D11.after")
        self.store.discard(self._names.staging)  # spools of attempts that were killed
        self._receipts.drop_rejects(complete)
        return {receipt.shard: receipt for receipt in complete}

    # details

    @property
    def _parts(self) -> Parts:
        return Parts(self.store, self._names, self._encoder, self.output.compression, self.mode)

    @property
    def _receipts(self) -> Receipts:
        return Receipts(self.store, self._names, self._parts)

    def _make_room(self, found: Survey, epoch: int, terms: Terms) -> None:
        """Remove what was found to go. Until that is noted as done, a plan that begins anew begins anew again."""
        may = partial(self.epochs.require_newest, epoch)
        if terms.repair:
            for name in found.going:
                may()
                self.store.remove(name)
        elif found.anew or found.going:
            clear(self.store, found.going, self._names.plan8, may, keep=not found.anew, takeover=terms.takeover)
        if found.anew:
            may()
            self.epochs.note(epoch, {"cleared": True})

    def _tidy(self, *, finished: bool) -> None:
        """Drop what a driver left that was killed and that nobody can use: documents that have no name yet, and once
        all is done the staging folder, where it was writing its report."""
        if self.store.kind.conditional_put:
            return  # an object is there whole or not at all
        with suppress(RunnerError):  # garbage harms nothing
            epochs = replace(self.epochs, looks=True)
            last = epochs.latest()
            if last is None or last.alive:
                return
            if finished and self.store.names(self._names.staging):
                self.store.discard(self._names.staging)
            if not last.document.get("ended"):
                for name in epochs.unfinished():
                    self.store.remove(name)

    def _probe_store(self, epoch: int) -> str:
        """Ask the store how parts can be published here; returns what it cannot promise."""
        mode, warning = mode_of(self.epochs.noted("mode")), self.epochs.noted("warning")
        probed = Probe(mode, str(warning or "")) if mode else probe(self.store, self._names.staging)
        if probed.mode != "staged" and not self._encoder.carries_header:
            probed = Probe("staged", f"{self.output.format} files carry no commit header: {WEAKER}")
        self._mode = probed.mode
        self.epochs.note(epoch, {"mode": probed.mode, "warning": probed.warning})
        return probed.warning

    def _promotable(self, plan: Plan) -> dict[int, Receipt]:
        """Staged parts that a driver recorded and died before it gave them their names. One that is lost is no more."""
        waiting = self._receipts.uncommitted(plan)
        return {receipt.shard: receipt for receipt in waiting if self.store.stat(receipt.staged) is not None}


def open_dataset(
    urls: Sequence[str], options: Mapping[str, OptionValue] | None = None, schema: pa.Schema | None = None
) -> Any:
    """A pyarrow.dataset.Dataset over exactly these parts, in this order.

    options: of the output, to reach it. schema: of what was written; without, text is guessed.
    """
    encoder = make_encoder(format_of(urls[0]) or DEFAULT_FORMAT)
    kind, types = encoder.dataset(urls[0]), encoder.unstated(schema) if schema is not None else None
    from pyarrow.dataset import dataset  # 0.2 s that no worker and no other command should spend

    files, paths = Store(urls[0], options).arrow(urls)
    return dataset(paths, schema=types, filesystem=files, format=kind)
