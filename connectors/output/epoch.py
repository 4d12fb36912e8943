"""Epochs: which driver may write. A numbered document for each driver that ever drove a plan, the highest one counts.

Knows documents and the store's own times; refuses to know parts. The invariant: a number is given once, numbers have no
gaps, and an age is the difference of two times of one store, never of two machines' clocks.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from connectors.output.layout import Layout, decode, encode, epoch_of_name, is_temporary
from connectors.store.store import Store
from jobs.errors import BusyError, RunnerError, StorageError, SupersededError
from jobs.versions import installed

FRESH_S = 300.0  # a driver renews every 30 s: ten renewals missed are no accident

Ending = Literal["finished", "failed", "interrupted", "superseded"]


@dataclass(frozen=True, slots=True)
class Process:
    """A process, known well enough to tell on its own machine whether it still runs. "": the system does not say."""

    host: str
    pid: int
    boot: str = ""
    namespace: str = ""  # of process ids: two containers of one machine have a pid 7 each
    born: str = ""  # in ticks since the boot: a pid is given again

    @classmethod
    def current(cls) -> Process:
        return cls(socket.gethostname(), os.getpid(), _boot(), _namespace(), _born(os.getpid()))

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Process:
        texts = {name: str(document.get(name, "")) for name in ("host", "boot", "namespace", "born")}
        pid = document.get("pid")
        return cls(pid=pid if isinstance(pid, int) else 0, **texts)

    def gone(self) -> bool:
        """Whether it ran on this very machine, since its last start, and does not any more. False where unknown."""
        here = Process.current()
        if not self.boot or (self.host, self.boot, self.namespace) != (here.host, here.boot, here.namespace):
            return False
        return _born(self.pid) != self.born


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The document of one epoch. age_s: by the store's own times; None where the store tells none."""

    epoch: int
    document: dict[str, Any]
    age_s: float | None

    @property
    def alive(self) -> bool:
        """Whether its driver may still write: it did not say that it ended, is not known dead, and was heard lately."""
        if self.document.get("ended") or Process.of(self.document).gone():
            return False
        return self.age_s is None or self.age_s < FRESH_S

    def writer(self) -> str:
        """ "driver 3 on host 'a' (pid 7, since 2026-01-01T00:00:00+00:00)" """
        document = self.document
        return (
            f"driver {self.epoch} on host '{document.get('host', '?')}' (pid {document.get('pid', '?')}, "
            f"since {document.get('started') or '?'})"
        )

    def heard(self) -> str:
        return "at a time that the store does not tell" if self.age_s is None else f"{max(0.0, self.age_s):.0f} s ago"


@dataclass
class Epochs:
    """The epochs of one plan.

    process: who drives; tests give another one.
    looks:   only looks, and writes nothing: ages are by the clock of this machine, and say what is likely.
    """

    store: Store
    names: Layout
    process: Process = field(default_factory=Process.current)
    looks: bool = False
    held: int = 0  # the epoch of this driver, once it has one
    _facts: dict[str, Any] = field(default_factory=dict)  # of that epoch

    def numbers(self) -> list[int]:
        return sorted(filter(None, map(epoch_of_name, self.store.names(self.names.epochs))))

    def latest(self, *, at_least: int = 0) -> Heartbeat | None:
        """The highest epoch, None where there is none. at_least: one that exists, whatever a stale listing says."""
        last = max([at_least, *self.numbers()])
        return self.heartbeat(last) if last else None

    def document(self, epoch: int) -> dict[str, Any]:
        """{} where there is none, or a torn one."""
        return decode(self.store.read(self.names.epoch(epoch))) or {}

    def noted(self, fact: str) -> Any:
        """The latest `fact` that a driver kept in its document, None where none did. Writes nothing."""
        for epoch in reversed(self.numbers()):
            document = self.document(epoch)
            if fact in document:
                return document[fact]
        return None

    def heartbeat(self, epoch: int) -> Heartbeat:
        name = self.names.epoch(epoch)
        document = self.document(epoch)
        ended = document.get("ended") or Process.of(document).gone()
        return Heartbeat(epoch, document, None if ended else self.age(name))

    def unfinished(self) -> dict[str, int]:
        """Documents that a process was writing when it was killed, with their bytes. None while a driver lives: it may
        be writing one now."""
        names = self.names
        found = {
            f"{folder}/{name}": size
            for folder in (names.folder, names.epochs, names.receipts, names.reports)
            for name, size in self.store.sizes(folder).items()
            if is_temporary(name)
        }
        return {} if found and self.living() else found

    def living(self) -> set[int]:
        """The epochs whose drivers may still write."""
        return {epoch for epoch in self.numbers() if self.heartbeat(epoch).alive}

    def age(self, name: str) -> float | None:
        """Seconds since `name` was written, by the clock of the store: a small file is written to read it."""
        if self.looks:
            then = self.store.modified(name)
            return None if then is None else time.time() - then
        with suppress(RunnerError):  # not allowed to write here: then it cannot be known
            self.store.replace(self.names.clock, encode({"purpose": "its modification time is the store's clock"}))
            then, now = self.store.modified(name), self.store.modified(self.names.clock)
            return None if then is None or now is None else now - then
        return None

    def refuse_rival(self, *, takeover: bool) -> Heartbeat | None:
        """The latest epoch. raises: as `begin`, which looks once more."""
        last = self.latest()
        if not takeover:
            self._refuse(last)
        return last

    def begin(self, *, takeover: bool, **facts: object) -> int:
        """Take the next epoch. From then on a driver with a lower one stops, and must not finish.

        facts:  kept in its document from the first moment, see `note`.
        raises: BusyError where another driver writes here, and not `takeover`.
        """
        self._facts = {
            "plan_id": self.names.plan_id,
            "driver": secrets.token_hex(6),  # no two documents are equal: the store may ask whose one is
            **asdict(self.process),
            "started": _now(),
            "versions": installed().document(),
            **facts,
        }
        taken = 0
        while True:
            last = self.latest(at_least=taken)
            if not takeover:
                self._refuse(last)
            number = last.epoch + 1 if last else 1
            if self.store.create(self.names.epoch(number), encode(self._document(number))):
                self.held = number
                return number
            taken = number  # a driver that started in the same moment: now look at that one

    def note(self, epoch: int, facts: Mapping[str, object]) -> None:
        """Keep `facts` in the document of our epoch from now on. raises: StorageError; workers decide by them."""
        self._facts |= facts
        self.store.replace(self.names.epoch(epoch), encode(self._document(epoch)))

    def renew(self, epoch: int, progress: Mapping[str, object]) -> None:
        """Say that this driver lives and how far it is. raises: SupersededError where another one took over."""
        with suppress(StorageError):  # a store that does not answer now: the next renewal asks again
            self.require_newest(epoch)
            self.store.replace(self.names.epoch(epoch), encode(self._document(epoch) | dict(progress)))

    def require_newest(self, epoch: int) -> None:
        """raises: SupersededError where there is a higher epoch, or another driver's of this number, which it could
        take because somebody deleted ours; StorageError where that cannot be seen."""
        ours = self._ours(epoch)
        # By its exact name: a listing may be stale, and numbers have no gaps. Last: what was seen is acted on at once.
        if self.store.stat(self.names.epoch(epoch + 1)) is None and ours:
            return
        last = max([epoch + 1 if ours else epoch, *self.numbers()])
        newer = Heartbeat(last, self.document(last), None)
        raise SupersededError(
            f"cannot go on writing to '{self.store.url}' as driver {epoch}: {newer.writer()} took over; what is "
            "finished stays, and this driver stops"
        )

    def end(self, epoch: int, how: Ending, facts: Mapping[str, object] | None = None) -> None:
        """Say that this driver writes no more, so that the next need not wait. Best effort. facts: see `note`."""
        with suppress(RunnerError):
            name = self.names.epoch(epoch)
            document = self.document(epoch) or self._document(epoch)
            if document.get("driver") == self._facts.get("driver"):
                self.store.replace(name, encode(document | dict(facts or {}) | {"ended": how, "heartbeat": _now()}))

    def require_held(self) -> None:
        """As `require_newest` of the epoch that this driver began; nothing where it began none."""
        if self.held:
            self.require_newest(self.held)

    def _ours(self, epoch: int) -> bool:
        """Whether the document of our epoch is ours. One that was deleted is written again, a torn one is ours."""
        driver = self._facts.get("driver")
        found = self.document(epoch).get("driver") if driver else None
        if driver and found is None and not self.store.create(self.names.epoch(epoch), encode(self._document(epoch))):
            found = self.document(epoch).get("driver")
        return found in (None, driver)

    def _refuse(self, rival: Heartbeat | None) -> None:
        if rival is not None and rival.alive:
            raise BusyError(
                f"cannot write into '{self.store.url}': {rival.writer()} writes there, last heard {rival.heard()}; "
                f"wait until it ends, or is silent for {FRESH_S / 60:.0f} minutes (--wait-for-driver 6m does so), or "
                "stop it with --takeover",
                plan_id=self.names.plan_id,
                epoch=rival.epoch,
                host=str(rival.document.get("host", "")),
                pid=Process.of(rival.document).pid,
            )

    def _document(self, epoch: int) -> dict[str, Any]:
        return {**self._facts, "epoch": epoch, "heartbeat": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")  # for people only: no decision is made on it


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _born(pid: int) -> str:
    """When a process started; "" where there is no such process."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # its name may hold anything
        return "" if fields[0] in ("Z", "X") else fields[19]  # a zombie runs no more
    return ""
