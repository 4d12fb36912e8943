"""The invariants of the protocol, checked after every change of a simulated store.

I1 at most one object ever at a final name; I2 every part is whole, its header matches plan and shard, and it holds
the rows of its shard in order; I3 no row is in two parts, and with `_SUCCESS` every row is in one; I4 `_SUCCESS` only
after a manifest, a manifest only after all parts; I5 after `_SUCCESS` nothing changes outside `_run/`. I6 (reject
files) comes with reject files. I7 a part or `_SUCCESS` goes only while the newest driver says that it clears.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import Any

from simulation_store import Objects, parse
from simulation_world import Actor, World, acting

from connectors.output.layout import PART_PREFIX, RUN, SUCCESS, Layout, decode, epoch_of_name, shard_of_part
from jobs.errors import DataError
from jobs.plan import Plan

Row = tuple[int, int]


def rows_of_shard(plan: Plan, shard: int) -> list[Row]:
    """(file, row) of every row of a shard, in order; see `simulation_pool.rows_of`."""
    return [
        (cut.file, 100 * group + row)
        for cut in plan.shards[shard].slices
        for group in range(cut.first, cut.stop)
        for row in range(plan.files[cut.file].row_groups[group].rows)
    ]


class Judge:
    def __init__(self, world: World, objects: Objects, plan: Plan, suffix: str) -> None:
        self._world, self._objects, self._plan = world, objects, plan
        self._names = Layout(plan.id, len(plan.shards), suffix)
        # By others: the receipt of a part that was deleted and made again may be that of the first one (seed 543).
        self.deleted: set[str] = set()
        self._superseded: dict[int, dict[Actor, int]] = {}  # epoch -> effects of each actor until the next one began

    def __call__(self, name: str, before: bytes | None, after: bytes | None) -> None:
        """Called after every change."""
        if name.startswith(f"{RUN}/"):
            self._private(name, before, after)
            return
        if before is not None and after is None:
            if not self._clears():
                self._violate(f"I7: '{name}' was deleted")
        elif before is not None:
            self._violate(f"I1: '{name}' was overwritten")
        elif SUCCESS in self._objects.content and name != SUCCESS:
            self._violate(f"I5: '{name}' came after {SUCCESS}")
        elif name == SUCCESS:
            self._success(after or b"")
        elif name.startswith(PART_PREFIX):
            self._part(name, after or b"")
        else:
            self._violate(f"I2: '{name}' is no name of this protocol")

    def _clears(self) -> bool:
        """Whether the newest driver removes what was there before it."""
        epochs = sorted(name for name in self._objects.content if name.startswith(f"{self._names.epochs}/"))
        newest = decode(self._objects.content[epochs[-1]]) if epochs else None
        return (newest or {}).get("cleared") is False

    def rows(self) -> Counter[Row]:
        """What readers of the output see."""
        found: Counter[Row] = Counter()
        for name, content in self._objects.content.items():
            if name.startswith(PART_PREFIX):
                with suppress(DataError):  # put there by somebody else
                    found.update((file, row) for file, row in parse(content, name)[0])
        return found

    def planned(self) -> Counter[Row]:
        return Counter(row for shard in range(len(self._plan.shards)) for row in rows_of_shard(self._plan, shard))

    def at_the_end(self) -> None:
        if SUCCESS not in self._objects.content:
            self._violate(f"no {SUCCESS} after a run that ended well")
        elif self.rows() != self.planned():
            self._violate("the output is not the input")

    def _violate(self, what: str) -> None:
        self._world.violate(what)

    def _private(self, name: str, before: bytes | None, after: bytes | None) -> None:
        folder, _, last = name.rpartition("/")
        if folder == self._names.epochs and before is None:
            effects = {actor: actor.effects for actor in self._world.actors}
            self._superseded.setdefault(epoch_of_name(last) - 1, effects)
        if name == self._names.plan and before is not None:
            self._violate(f"'{name}' was changed")
        if last.startswith("manifest-") and folder == self._names.folder:
            if before is not None:
                self._violate(f"I4: '{name}' was changed")
            else:
                self._manifest(name, after or b"")

    def _part(self, name: str, content: bytes) -> None:
        shard = shard_of_part(name)
        if not 0 <= shard < len(self._plan.shards) or name != self._names.part(shard):
            self._violate(f"I2: '{name}' is no part of this plan")
            return
        try:
            rows, header = parse(content, name)
        except DataError as error:
            self._violate(f"I2: {error.message}")
            return
        expected = rows_of_shard(self._plan, shard)
        if (header.get("plan_id"), header.get("shard")) != (self._plan.id, shard):
            self._violate(f"I2: the header of '{name}' is of another plan or shard")
        elif [tuple(row) for row in rows] != expected:
            self._violate(f"I2: '{name}' holds {rows}, its shard is {expected}")
        elif not header["rows_in"] == len(expected) == _accounted(header):
            self._violate(f"I2: the header of '{name}' counts other rows than it holds")
        if most := [row for row, count in self.rows().items() if count > 1]:
            self._violate(f"I3: {most} are in two parts")

    def _manifest(self, name: str, content: bytes) -> None:
        document = json.loads(content)
        self._fenced(name, int(document["epoch"]))
        listed = {part["name"]: part["size"] for part in document["parts"]}
        found = {name: len(part) for name, part in self._objects.content.items() if name.startswith(PART_PREFIX)}
        if listed != found or len(listed) != len(self._plan.shards):
            self._violate(f"I4: '{name}' lists {listed}, there is {found}")
        for part in document["parts"]:
            header = self._header(part["name"])
            if part["name"] not in self.deleted and header and part["attempt"] != header["attempt"]:
                self._violate(f"I4: '{name}' names attempt {part['attempt']}, the part is of {header['attempt']}")

    def _header(self, name: str) -> dict[str, Any]:
        return parse(self._objects.content[name], name)[1] if name in self._objects.content else {}

    def _fenced(self, name: str, epoch: int) -> None:
        """A driver that was superseded may have sent what it just looked for: one effect, and no more."""
        actor = acting()
        then = self._superseded.get(epoch, {}).get(actor) if actor else None
        if actor is not None and then is not None and actor.effects - then > 2:
            self._violate(
                f"'{name}' was written by driver {epoch}, which was superseded {actor.effects - then} effects ago"
            )

    def _success(self, content: bytes) -> None:
        document = decode(content) or {}
        manifest = str(document.get("manifest"))
        self._fenced(SUCCESS, int(document.get("epoch", 0)))
        for needed in (self._names.plan, manifest):
            if needed not in self._objects.content:
                self._violate(f"I4: {SUCCESS} came, and '{needed}' is not there")
        if self.rows() != self.planned():
            self._violate(f"I3: {SUCCESS}, and the parts do not hold the input")


def _accounted(header: dict[str, Any]) -> int:
    """The rows of a part, those that were rejected, and those that were left out."""
    return sum(header.get(key, 0) for key in ("rows_out", "rows_rejected", "rows_left_out"))
