"""A store in memory with the contract of `connectors.store.store.Store`, each call a step of a simulated history.

Owns content and listings; judges after every change whether the invariants of the protocol still hold (a `judge`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from simulation_world import Killed, World, acting, current

from connectors.store.listing import FileStat
from connectors.store.other import OtherFiles
from connectors.store.retry import READ, Patience
from connectors.store.store import Store
from jobs.errors import DataError, StorageError

ROOT = "memory://out"


@dataclass
class Objects:
    """What is on the store: shared by all processes of a history.

    late:    draws for how many seconds lists leave a new name out.
    hidden:  name -> until when they do.
    exclusive: whether a second object of one name is refused; where not, the code has to stage.
    """

    world: World
    spools: Path
    judge: Callable[[str, bytes | None, bytes | None], None] = lambda name, before, after: None
    late: Callable[[], float] = lambda: 0.0
    content: dict[str, bytes] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    hidden: dict[str, float] = field(default_factory=dict)
    exclusive: bool = True

    def put(self, name: str, content: bytes) -> None:
        before = self.content.get(name)
        if before is None and (seconds := self.late()):
            self.hidden[name] = self.world.now + seconds
        self.content[name] = content
        self.times[name] = self.world.now
        self.judge(name, before, content)

    def drop(self, name: str) -> None:
        before = self.content.pop(name, None)
        if before is not None:
            self.judge(name, before, None)

    def listed(self, folder: str) -> dict[str, int]:
        """Relative path below `folder` -> bytes, without what a stale list leaves out."""
        actor = acting()
        fresh = actor is None or actor.fresh_lists or actor.steady
        start = f"{folder}/" if folder else ""
        return {
            name[len(start) :]: len(content)
            for name, content in self.content.items()
            if name.startswith(start) and (fresh or self.hidden.get(name, -1.0) <= self.world.now)
        }


class SimulatedStore:
    """The part of `Store` that outputs use. Any other place than the root is the real, local store."""

    objects: Objects  # of the history that runs; set by the simulation

    def __new__(cls, url: str, options: Mapping[str, Any] | None = None) -> Any:
        return super().__new__(cls) if url.startswith(ROOT) else Store(url, options)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url, self.scheme, self.kind = url, "sim", OtherFiles
        self._spools: dict[str, Path] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return SimulatedStore, (self.url,)

    def child(self, name: str) -> str:
        return f"{self.url}/{name}"

    # reading

    def stat(self, path: str) -> FileStat | None:
        def look() -> FileStat | None:
            content = self.objects.content.get(path)
            if content is None:
                return None
            return FileStat(self.child(path), len(content), str(self.objects.times[path]))

        return self._ask("stat", path, look)

    def read(self, path: str) -> bytes | None:
        return self._ask("read", path, lambda: self.objects.content.get(path))

    def modified(self, path: str) -> float | None:
        return self._ask("modified", path, lambda: self.objects.times.get(path))

    def names(self, folder: str) -> list[str]:
        def look() -> list[str]:
            found = self.objects.listed(folder)
            return sorted({f"{name.split('/')[0]}/" if "/" in name else name for name in found})

        return self._ask("names", folder, look)

    def sizes(self, folder: str) -> dict[str, int]:
        def look() -> dict[str, int]:
            return {name: size for name, size in sorted(self.objects.listed(folder).items()) if "/" not in name}

        return self._ask("sizes", folder, look)

    # writing

    def create(self, path: str, content: bytes) -> bool:
        return self._new("create", path, lambda: content)

    def publish(self, spool: Path, path: str, staging: str, *, part_bytes: int | None = None) -> bool:
        return self._new("publish", path, spool.read_bytes, overwrites=not self.objects.exclusive)

    def upload(self, spool: Path, path: str, patience: Patience = READ) -> None:
        """What the caller sees after the last try."""
        self._ask("upload", path, lambda: self.objects.put(path, spool.read_bytes()))

    def promote(self, staged: str, path: str) -> bool:
        return self._new("promote", path, lambda: self.objects.content[staged])

    def replace(self, path: str, content: bytes) -> None:
        self._ask("replace", path, lambda: self.objects.put(path, content))

    def remove(self, path: str) -> None:
        self._ask("remove", path, lambda: self.objects.drop(path))

    def remove_folder(self, folder: str) -> None:
        for name in self.names(folder):
            (self.remove_folder if name.endswith("/") else self.remove)(f"{folder}/{name}".rstrip("/"))
        self.discard(folder)

    def spool(self, staging: str) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.objects.spools))
        self._spools[staging] = folder
        return folder

    def release(self, staging: str) -> None:
        if folder := self._spools.pop(staging, None):
            shutil.rmtree(folder, ignore_errors=True)

    def discard(self, staging: str) -> None:
        if current().killed:
            raise Killed
        self.release(staging)
        self.sweep(staging)

    def sweep(self, folder: str) -> None:
        def drop() -> None:
            for name in [name for name in self.objects.content if name.startswith(f"{folder}/")]:
                self.objects.drop(name)

        if any(name.startswith(f"{folder}/") for name in self.objects.content):
            try:
                self._ask("discard", folder, drop)
            except StorageError:
                return

    # steps

    def _new(self, operation: str, path: str, content: Callable[[], bytes], overwrites: bool = False) -> bool:
        """Create-if-absent. A retry inside the client may meet its own success, and say that the name is taken.

        An answer that does not come may mean that it was done, that it was not, or that it will be done `late`.
        """
        made, written = False, content() if operation != "promote" else b""

        def act() -> bool:
            nonlocal made
            made = overwrites or path not in self.objects.content
            if made:
                self.objects.put(path, written or content())
            return made

        def answer(effect: str) -> bool:
            if effect == "taken" and made:
                return False
            if effect == "late":
                self.objects.world.later(f"late {operation}", act)
            certain = "failed" if effect == "fail" else "unclear"
            raise StorageError(f"cannot {operation} '{path}': no answer (may pass)", answer=certain)

        return self._effect(operation, path, act, answer)

    def _ask(self, operation: str, path: str, act: Callable[[], Any]) -> Any:
        def answer(effect: str) -> Any:
            raise StorageError(f"cannot {operation} '{path}': no answer (may pass)")

        return self._effect(operation, path, act, answer)

    def _effect(self, operation: str, path: str, act: Callable[[], Any], answer: Callable[[str], Any]) -> Any:
        if current().killed:
            raise Killed
        return self.objects.world.effect(operation, path, act, answer)


class JsonLinesEncoder:
    """An `Encoder` that costs microseconds: a line of JSON for each row, the commit header in the last line."""

    suffix, packed = ".jsonl", dict[str, str]()
    carries_header = True

    def check(self, schema: pa.Schema) -> None:
        pass

    def open(self, spool: Path, schema: pa.Schema, compression: str) -> JsonLinesWriter:
        return JsonLinesWriter(spool)

    def read_header(self, store: Store, path: str) -> tuple[dict[str, object] | None, int]:
        lines, header = parse(store.read(path) or b"", path)
        return header, len(lines)


def parse(content: bytes, path: str) -> tuple[list[list[Any]], dict[str, Any]]:
    """raises: DataError where `content` is no whole part."""
    try:
        lines = [json.loads(line) for line in content.splitlines()]
        if lines[-1]["rows"] == len(lines) - 1:
            return lines[:-1], lines[-1]["header"]
    except (ValueError, IndexError, TypeError, KeyError):
        pass
    raise DataError(f"'{path}' is no whole part", code="PART_UNREADABLE", file=path)


class JsonLinesWriter:
    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._lines: list[str] = []

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [column.to_pylist() for column in batch.columns]
        self._lines += [json.dumps(row) for row in zip(*columns, strict=True)]

    def close(self, header: dict[str, object]) -> int:
        end = json.dumps({"header": header, "rows": len(self._lines)})
        self._spool.write_text("\n".join([*self._lines, end]) + "\n")
        return len(self._lines)

    def abort(self) -> None:
        self._spool.unlink(missing_ok=True)


ENCODER = JsonLinesEncoder  # as `connectors.formats.registry` looks for it
