"""The accounts that runs leave beside their plan: one of each epoch, for good, and the latest one by a name of its own.

Owns which of them there are; refuses to know what they say. The invariant: the report of an epoch is written by its
driver only, and no later run takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from connectors.output.epoch import Epochs
from connectors.output.layout import Layout, decode, encode
from connectors.store.retry import BEST_EFFORT
from connectors.store.store import Store
from jobs.errors import RunnerError


@dataclass(frozen=True, slots=True)
class Told:
    """What a run left of itself. document: of its epoch. page: the name of its report in `reports/`, "" if none."""

    epoch: int
    document: Mapping[str, Any]
    page: str


@dataclass
class Reports:
    """Of one plan. What is seen once is not read again: a run tells of itself twice."""

    store: Store
    names: Layout
    epochs: Epochs
    _latest: int | None = None  # the epoch of the latest report; 0 where there is none
    _before: dict[int, list[Told]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the account of the last run is, for people; it names those of earlier runs."""
        return self.store.child(self.names.report("html"))

    def page(self, epoch: int) -> str:
        """The url of the report of a run, "" where it left none. Older versions kept that of the last run only."""
        names = self.names.report("html", epoch), self.names.report("html")
        if self.store.stat(names[0]) is not None:
            return self.store.child(names[0])
        return self.store.child(names[1]) if self._last() == epoch else ""

    def before(self, epoch: int, most: int = 50) -> list[Told]:
        """The runs before `epoch`, the latest first, at most so many."""
        if epoch in self._before:
            return self._before[epoch]
        there = {*self.store.names(self.names.reports), _file(self.names.report("html", self._last()))}
        numbers = [number for number in reversed(self.epochs.numbers()) if number < epoch][:most]
        pages = {number: _file(self.names.report("html", number)) for number in numbers}
        self._before[epoch] = [
            Told(number, self.epochs.document(number), page * (page in there)) for number, page in pages.items()
        ]
        return self._before[epoch]

    def leave(self, epoch: int, document: Mapping[str, Any], page: str, latest: str) -> None:
        """Keep the account of this run, for good and as the latest one. Best effort.

        By way of the staging folder: what a driver that is killed meanwhile leaves there, the next one removes.
        page, latest: the same as HTML, with links from `reports/` and from the folder above.
        """
        staging = f"{self.names.staging}/report"
        with suppress(RunnerError, OSError):
            self.store.discard(staging)
            folder = self.store.spool(staging)
            contents = self._unkept(epoch)
            for number, html in ((epoch, page), (0, latest)):
                contents[self.names.report("json", number)] = encode(dict(document))
                contents[self.names.report("html", number)] = html.encode()
            for name, content in contents.items():
                spool = folder / _file(name)
                spool.write_bytes(content)
                self.store.upload(spool, name, BEST_EFFORT)
            self._latest = epoch
        self.store.discard(staging)

    def _last(self) -> int:
        if self._latest is None:
            epoch = (decode(self.store.read(self.names.report("json"))) or {}).get("epoch", 0)
            self._latest = epoch if isinstance(epoch, int) else 0
        return self._latest

    def _unkept(self, epoch: int) -> dict[str, bytes]:
        """The latest report, where it is of another run and has no name of its own: older versions gave it none."""
        last = self._last()
        if last in (0, epoch) or self.store.stat(self.names.report("json", last)) is not None:
            return {}
        kept = {suffix: self.store.read(self.names.report(suffix)) for suffix in ("json", "html")}
        return {self.names.report(suffix, last): content for suffix, content in kept.items() if content}


def _file(name: str) -> str:
    return name.rpartition("/")[2]
