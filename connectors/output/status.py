"""How far a job is, read from its output directory alone: no driver, no model, no cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

from connectors.output.epoch import Epochs, Heartbeat
from connectors.output.layout import (
    RUN,
    SUCCESS,
    Layout,
    decode,
    epoch_of_name,
    plan8_of_folder,
    plan8_of_part,
    shard_of_part,
)
from connectors.store.store import Store
from jobs.attempt import LEFT_OUT, ODD
from jobs.errors import OutputError
from jobs.notebook import facts
from jobs.plan import Plan
from jobs.section.output import Output
from jobs.words import counted

_THREADS = 16
_MOST_NAMED = 10
_MOST_RECEIPTS = 10_000  # read for the causes of retries and rejects: a glance must not take minutes

State = Literal["absent", "running", "stopped", "incomplete", "finished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of the rows of the shards that are done, as their receipts tell.

    bad_files:  files that were skipped, with the code, and files of which rows could not be read, with how many.
    """

    codes: dict[str, int] = field(default_factory=dict)
    rows_left_out: int = 0
    nan_rows: int = 0
    nonfinite_rows: int = 0
    unseen_rows: int = 0
    changed_rows: int = 0
    bad_files: dict[str, str] = field(default_factory=dict)

    @property
    def rows_rejected(self) -> int:
        return sum(self.codes.values())


@dataclass(frozen=True, slots=True, repr=False)
class Status(Counts):
    """An output directory at a glance.

    state:      incomplete: all was written, and something of it is not there any more, see `damage`;
                running: a driver was heard of lately, by the store's own times; stopped: none was, or it ended.
    rows_done:  rows of the shards whose parts are there.
    rows_in_hand: rows done of the shards that a living driver works on, when it was last heard.
    bytes:      of the parts that are there.
    rows_per_s: of the last driver, as it said itself.
    host, pid, started, heartbeat:  of the driver that wrote last; times in UTC, by its own clock, "" where none did.
    heartbeat_age_s:  by the clock of the store; None where it does not tell, or where that driver has ended.
    ended:      how that driver ended, "" where it did not say.
    error:      what ended it, where it failed.
    command:    what that driver was started with, and what continues; "" where that is not known.
    waits_for:  what it had no room for in the cluster, when it was last heard.
    variables:  of the texts of its job, as the last driver had them.
    damage:     what is missing after all was written, in words; sizes and names only: `verify` reads the parts.
    mode:       how parts get their names. warning: what this store cannot promise.
    failures:   see `Failure.document`.
    """

    output: str
    state: State
    plan_id: str = ""
    shards: int = 0
    shards_done: int = 0
    rows: int = 0
    rows_done: int = 0
    bytes: int = 0
    rows_per_s: float = 0.0
    epoch: int = 0
    host: str = ""
    pid: int = 0
    started: str = ""
    heartbeat: str = ""
    heartbeat_age_s: float | None = None
    ended: str = ""
    mode: str = ""
    warning: str = ""
    failures: tuple[dict[str, Any], ...] = ()
    command: str = ""
    waits_for: str = ""
    rows_in_hand: int = 0
    error: str = ""
    damage: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def retries(self) -> int:
        """Attempts that failed and were or will be repeated."""
        return len(self.failures)

    @property
    def attempts(self) -> int:
        """Those that published and those that failed."""
        return self.shards_done + self.retries

    @property
    def rows_seen(self) -> int:
        """Those that are done, and those in hand: what grows while a shard is worked on."""
        return self.rows_done + self.rows_in_hand

    @property
    def share(self) -> float:
        """Done and in hand, from 0 to 1; by shards where there are no rows."""
        done, total = (self.rows_seen, self.rows) if self.rows else (self.shards_done, self.shards)
        return done / total if total else 0.0

    @property
    def lost(self) -> bool:
        """Whether the driver went away without a word: killed, or its machine is gone."""
        return self.state == "stopped" and self.epoch > 0 and not self.ended

    def document(self) -> dict[str, Any]:
        return asdict(self) | {
            "rows_rejected": self.rows_rejected,
            "attempts": self.attempts,
            "retries": self.retries,
            "failures": list(self.failures),
        }

    def __repr__(self) -> str:
        told = "".join(f", {name} {value}" for name, value in self._facts().items() if name != "output")
        return f"<Status of '{self.output}':{told[1:]}>"

    def _repr_html_(self) -> str:
        return facts("Status", self._facts(), share=self.share)

    def _facts(self) -> dict[str, str]:
        if self.state == "absent":
            return {"output": self.output, "state": "absent: nothing is written there yet"}
        told = {
            "output": self.output,
            "state": self.state,
            "rows": f"{self.rows_done:,} of {self.rows:,} ({self.share:.0%})",
            "shards": f"{self.shards_done:,} of {self.shards:,}",
            "left out": counted(self.rows_left_out, "row") if self.rows_left_out else "",
            "variables": ", ".join(f"{name} = {value}" for name, value in self.variables.items()),
            "rejected": ", ".join(f"{count:,} {code}" for code, count in self.codes.items()),
            "retried": f"{self.retries:,}" if self.retries else "",
            "driver": f"{self.epoch} on '{self.host}' (pid {self.pid})" if self.epoch else "",
            "waits for": self.waits_for if self.state == "running" else "",
            "ended": self.ended,
            "bad files": ", ".join(f"'{url}' ({why})" for url, why in self.bad_files.items()),
        }
        return {name: value for name, value in told.items() if value}


def read_status(output: Output, seen: dict[str, dict[str, Any]] | None = None, *, causes: bool = True) -> Status:
    """How far the job in `output` is.

    seen:    receipts by name; given again with the next look, none is read twice.
    causes:  read receipts: what was rejected, and why attempts failed; else a handful of reads tells.
    raises:  OutputError where the directory cannot be read, or its plan is not whole.
    """
    store = Store(output.url, output.options)
    listed = store.sizes("")
    names = current_layout(store, listed)
    if names is None:
        return Status(store.url, "absent")
    plan = _plan(store, names)
    done = {shard_of_part(name): size for name, size in listed.items() if plan8_of_part(name) == names.plan8}
    finished = SUCCESS in listed
    success = decode(store.read(SUCCESS)) or {} if finished else {}
    damage = _damage(len(plan.shards), done, success) if finished else ""
    last = Epochs(store, names).latest() if not finished else None
    beat = last.document if last else _last_document(store, names)
    receipts = _receipts(store, names, {} if seen is None else seen) if causes else []
    failures = tuple({one["attempt"]: one for one in _failures(receipts, beat)}.values())
    lacking = causes and finished and len(receipts) < len(plan.shards) <= _MOST_RECEIPTS
    told = _parts(store, success) if lacking else receipts
    unread = sum((Counter(one.get("bad_files", {})) for one in told), Counter[str]())
    rate = beat.get("rows_per_s")
    state = _state(finished, last) if not damage else "incomplete"
    return Status(
        output=store.url,
        state=state,
        damage=damage,
        plan_id=plan.id,
        shards=len(plan.shards),
        shards_done=len(done),
        rows=plan.rows,
        rows_done=sum(shard.rows for shard in plan.shards if shard.index in done),
        bytes=sum(done.values()),
        rows_per_s=float(rate) if isinstance(rate, int | float) else 0.0,
        epoch=int(beat.get("epoch", 0)),
        host=str(beat.get("host", "")),
        pid=int(beat.get("pid", 0)),
        started=str(beat.get("started", "")),
        heartbeat=str(beat.get("heartbeat", "")),
        heartbeat_age_s=round(max(0.0, last.age_s), 1) if last and last.age_s is not None else None,
        ended=str(beat.get("ended", "")),
        mode=str(beat.get("mode", "")),
        warning=str(beat.get("warning", "")),
        failures=failures,
        command=str(beat.get("command", "")),
        waits_for=str(beat.get("waits_for", "")),
        rows_in_hand=_rows_in_hand(plan, done, beat) if state == "running" else 0,
        error=str(beat.get("error", "")),
        variables={name: str(value) for name, value in dict(beat.get("variables", {})).items()},
        codes=dict(sum((Counter(one.get("codes", {})) for one in told), Counter[str]()).most_common()),
        **{name: sum(one.get(name, 0) for one in told) for name in (*ODD, LEFT_OUT)},
        bad_files=plan.skipped | {file: f"{counted(rows, 'row')} could not be read" for file, rows in unread.items()},
    )


def finished_epoch(output: Output, plan_id: str) -> int:
    """The epoch of the driver that finished this plan in `output`, 0 where none did.

    cost:   one read.
    raises: as `read_status`.
    """
    success = decode(Store(output.url, output.options).read(SUCCESS)) or {}
    return int(success.get("epoch", 0)) if success.get("plan_id") == plan_id else 0


def current_layout(store: Store, listed: Mapping[str, int]) -> Layout | None:
    """The plan that finished here, else the one with parts, else the one whose driver wrote last."""
    success = decode(store.read(SUCCESS)) if SUCCESS in listed else None
    if finished := str((success or {}).get("plan_id", "")):
        return Layout(finished)
    plans = [Layout(plan8) for name in store.names(RUN) if (plan8 := plan8_of_folder(name))]
    with_parts = {plan8_of_part(name) for name in listed}
    return max(
        plans,
        key=lambda names: (names.plan8 in with_parts, str(_last_document(store, names).get("heartbeat", ""))),
        default=None,
    )


def _damage(shards: int, done: Mapping[int, int], success: Mapping[str, Any]) -> str:
    """What is not there although `_SUCCESS` says so, "" where all seems to be. done: shard -> bytes of its part."""
    missing = [shard for shard in range(shards) if shard not in done]
    if missing:
        few = ", ".join(map(str, missing[:_MOST_NAMED])) + (", ..." if len(missing) > _MOST_NAMED else "")
        return f"{len(missing):,} of {shards:,} parts are missing (of shards {few})"
    found, written = sum(done.values()), success.get("bytes")
    if isinstance(written, int) and written != found:
        return f"its parts have {found:,} bytes, {written:,} were written"
    return ""


def _state(finished: bool, last: Heartbeat | None) -> State:
    if finished:
        return "finished"
    return "running" if last is not None and last.alive else "stopped"


def _rows_in_hand(plan: Plan, done: Mapping[int, int], beat: Mapping[str, Any]) -> int:
    """Of shards that are not done meanwhile."""
    said: Mapping[str, int] = beat.get("rows_in_hand", {})
    return sum(min(shard.rows, said.get(str(shard.index), 0)) for shard in plan.shards if shard.index not in done)


def _plan(store: Store, names: Layout) -> Plan:
    document = decode(store.read(names.plan))
    try:
        return Plan.from_document(document or {})
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise OutputError(f"cannot read the status of '{store.url}': '{names.plan}' is missing or not whole") from None


def _last_document(store: Store, names: Layout) -> dict[str, Any]:
    number = max((epoch_of_name(name) for name in store.names(names.epochs)), default=0)
    return decode(store.read(names.epoch(number))) or {} if number else {}


def _receipts(store: Store, names: Layout, seen: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    listed = list(islice(store.names(names.receipts), _MOST_RECEIPTS))
    new = [name for name in listed if name not in seen]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="status") as threads:
        read = threads.map(lambda name: decode(store.read(f"{names.receipts}/{name}")), new)
        seen |= {name: receipt for name, receipt in zip(new, read, strict=True) if receipt is not None}  # else torn
    return [seen[name] for name in listed if name in seen]


def _parts(store: Store, success: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the manifest says of the parts: a driver that ended at the wrong moment left a receipt out."""
    name = success.get("manifest")
    manifest = (decode(store.read(name)) if isinstance(name, str) else None) or {}
    return [part for part in manifest.get("parts", ()) if isinstance(part, dict)]


def _failures(receipts: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that receipts tell of, and those of shards that have no receipt yet."""
    for receipt in receipts:
        yield from receipt.get("failures", ())
    yield from last.get("failures", ())
