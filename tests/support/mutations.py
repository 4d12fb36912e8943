"""Ways to break the protocol on purpose, and how many seeds the simulator needs to see each.

`python tests/support/mutations.py` prints the table. A mutation replaces a method of the real code, or what a call to
the store does, for as long as its `with` block lasts; it fails loudly where the code has no such place any more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from simulation import first_caught
from simulation_store import SimulatedStore

import jobs.manifest
from connectors.output import claim, outlook, part
from connectors.output.directory import OutputDirectory
from connectors.output.epoch import Epochs
from connectors.output.layout import SUCCESS, decode
from connectors.output.receipts import Receipts
from jobs.attempt import Receipt
from jobs.errors import InternalError, StorageError
from jobs.schedule.event import Dispatch
from runner.driver.driver import Driver

MOST_SEEDS = 500
Mutate = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Mutation:
    """safe: it costs work, and must break nothing."""

    name: str
    apply: Mutate
    safe: bool = False


def _patched(*places: tuple[Any, str, Any]) -> Mutate:
    """Each of `places`: owner, name, what takes the place of it."""

    @contextmanager
    def apply() -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, stand_in in places:
                stack.enter_context(mock.patch.object(owner, name, stand_in))
            yield

    return apply


# at the seam between the protocol and the store

_publish, _create = SimulatedStore.publish, SimulatedStore.create


def _overwrite(self: Any, spool: Any, path: str, staging: str, **_: Any) -> Any:
    if "/staging/" in path:  # the probe
        return _publish(self, spool, path, staging)
    self.replace(path, spool.read_bytes())
    return True


def _delete_on_unknown(self: Any, spool: Any, path: str, staging: str, **_: Any) -> Any:
    try:
        return _publish(self, spool, path, staging)
    except StorageError:
        self.objects.drop(path)
        raise


def _exists_is_failure(self: Any, spool: Any, path: str, staging: str, **_: Any) -> Any:
    if not _publish(self, spool, path, staging) and "/staging/" not in path:
        raise InternalError(f"cannot publish '{path}': it exists")
    return True


def _believed(self: Any, spool: Any, path: str, staging: str, **_: Any) -> Any:
    try:
        return _publish(self, spool, path, staging)
    except StorageError:
        return True


def _half_first(self: Any, spool: Any, path: str, staging: str, **_: Any) -> Any:
    """As an upload that streams to the final name."""
    if path not in self.objects.content and "/staging/" not in path:
        content = spool.read_bytes()
        self.objects.put(path, content[: len(content) // 2])
        self.objects.content[path] = content
    return _publish(self, spool, path, staging)


def _success_first(self: Any, path: str, content: bytes) -> bool:
    """`_SUCCESS` is written where the manifest should be, and the manifest after it."""
    if "/manifest-" in path:
        held = self.__dict__.setdefault("held", {})
        held[path] = content
        return True
    made = _create(self, path, content)
    if path == SUCCESS:
        for name, document in self.__dict__.pop("held", {}).items():
            _create(self, name, document)
    return made


# in the code

_carry_out = Driver._carry_out


def _never_adopt(self: Driver, action: Any) -> None:
    _carry_out(self, replace(action, adopt=False) if isinstance(action, Dispatch) else action)


def _trusting(header: Mapping[str, Any], names: Any, shard: int, size: int) -> Receipt:
    rows = int(header.get("rows_out", 0))
    attempt = str(header.get("attempt", ""))
    return Receipt(shard, attempt, 1, 1, names.part(shard), size, "", rows, rows, adopted=True)


def _receipts_alone(self: OutputDirectory, plan: Any) -> dict[int, Receipt]:
    """What receipts say is done, whether the part is there or not."""
    found = {}
    for shard in plan.shards:
        document = decode(self.store.read(self._names.receipt(shard.index)))
        if document is not None:
            document.pop("failures", None)
            found[shard.index] = Receipt.from_document(document)
    return found


def _nothing(*_: Any, **__: Any) -> None:
    return None


def mutations() -> tuple[Mutation, ...]:
    return (
        Mutation("publish overwrites instead of creating", _patched((SimulatedStore, "publish", _overwrite))),
        Mutation(
            "delete the part when the answer is unknown", _patched((SimulatedStore, "publish", _delete_on_unknown))
        ),
        Mutation("'it exists' is a failure", _patched((SimulatedStore, "publish", _exists_is_failure))),
        Mutation("the part is streamed to its final name", _patched((SimulatedStore, "publish", _half_first))),
        Mutation("_SUCCESS before the manifest", _patched((SimulatedStore, "create", _success_first))),
        Mutation("the header of a part is not checked", _patched((part, "_receipt", _trusting))),
        Mutation("receipts are trusted without their parts", _patched((OutputDirectory, "done", _receipts_alone))),
        Mutation(
            "parts of another plan are not looked for",
            _patched((outlook, "refuse_other_parts", _nothing)),
        ),
        Mutation("the plan that is there is not compared", _patched((claim, "check_plan", _nothing))),
        Mutation(
            "no verification before the manifest",
            _patched((Receipts, "require_parts", _nothing), (jobs.manifest, "_names", lambda *_: ())),
        ),
        Mutation("a superseded driver is not stopped", _patched((Epochs, "require_newest", _nothing))),
        Mutation("an unclear answer is taken for success", _patched((SimulatedStore, "publish", _believed))),
        Mutation(
            "no look at the final name before a new try", _patched((Driver, "_carry_out", _never_adopt)), safe=True
        ),
    )


def seeds_until_caught(mutation: Mutation, most: int = MOST_SEEDS) -> tuple[int, str] | None:
    """How many seeds it took, and what was violated; None where all of them passed."""
    with mutation.apply():
        history = first_caught(0, most)
    return None if history is None else (history.seed + 1, str(history.world.violation))


def main() -> int:
    wrong = 0
    print(f"{'mutation':<48} seeds  found")
    for mutation in mutations():
        caught = seeds_until_caught(mutation, 200 if mutation.safe else MOST_SEEDS)
        seeds, found = caught or (
            "-",
            "nothing, as it should be: it only costs model calls" if mutation.safe else "NOTHING",
        )
        wrong += mutation.safe is (caught is not None)
        print(f"{mutation.name:<48} {seeds:>5}  {found[:110]}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
