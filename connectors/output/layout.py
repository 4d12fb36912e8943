"""The names in an output directory. They come from our counters and hex digests, never from data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.attempt import LEFT_OUT, ODD

RUN = "_run"
SUCCESS = "_SUCCESS"
PART_PREFIX = "part-"

_PART = re.compile(r"part-(\d{5,})-of-\d{5,}-([0-9a-f]{8})\.\w+(?:\.\w+)?")
_EPOCH = re.compile(r"(\d{6,})\.json")
_RECEIPT = re.compile(r"(\d{5,})\.json")
_ATTEMPT = re.compile(r"e(\d+)-a\d+-[0-9a-f]{12}")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}")
_FOLDER = re.compile(r"([0-9a-f]{8})/")


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of one plan. suffix: of its parts, '.parquet'."""

    plan_id: str
    shards: int = 0
    suffix: str = ""

    @property
    def plan8(self) -> str:
        return self.plan_id[:8]

    @property
    def folder(self) -> str:
        return f"{RUN}/{self.plan8}"

    @property
    def plan(self) -> str:
        return f"{self.folder}/plan.json"

    @property
    def epochs(self) -> str:
        return f"{self.folder}/epochs"

    @property
    def clock(self) -> str:
        """A small file whose modification time is the store's now."""
        return f"{self.folder}/clock.json"

    @property
    def numerics(self) -> str:
        """What changes the numbers of the first worker, where all others must be like it."""
        return f"{self.folder}/numerics.json"

    @property
    def receipts(self) -> str:
        return f"{self.folder}/receipts"

    @property
    def rejects(self) -> str:
        return f"{self.folder}/rejects"

    @property
    def staging(self) -> str:
        return f"{self.folder}/staging"

    def part(self, shard: int) -> str:
        return f"{PART_PREFIX}{shard:05d}-of-{self.shards:05d}-{self.plan8}{self.suffix}"

    def receipt(self, shard: int) -> str:
        return f"{self.receipts}/{shard:05d}.json"

    def reject(self, shard: int, attempt_id: str) -> str:
        """Of one attempt alone: which of them counts, the part says, and an older version named it '.parquet'.

        It is Parquet, under a suffix that no reader of the whole folder takes for rows of the table.
        """
        return f"{self.rejects}/{shard:05d}-{attempt_id}.rejects"

    def epoch(self, number: int) -> str:
        return f"{self.epochs}/{number:06d}.json"

    def manifest(self, epoch: int) -> str:
        return f"{self.folder}/manifest-{epoch:06d}.json"

    @property
    def reports(self) -> str:
        return f"{self.folder}/reports"

    def report(self, suffix: str, epoch: int = 0) -> str:
        """What a run came to; epoch 0: the last one. suffix: 'json' or 'html'."""
        return f"{self.reports}/{epoch:06d}.{suffix}" if epoch else f"{self.folder}/report.{suffix}"

    def attempt(self, attempt_id: str) -> str:
        """The folder that belongs to one attempt alone."""
        return f"{self.staging}/{attempt_id}"

    def spool(self, shard: int) -> str:
        """What a part is called in the folder of its attempt: no reader of the whole folder takes it for one."""
        return f"{self.part(shard)}.spool"


def plan8_of_part(name: str) -> str | None:
    """None where `name` is not of our grammar."""
    match = _PART.fullmatch(name)
    return match[2] if match else None


def shard_of_part(name: str) -> int:
    match = _PART.fullmatch(name)
    return int(match[1]) if match else -1


def epoch_of_name(name: str) -> int:
    """0 where `name` is not of our grammar: epochs count from 1."""
    match = _EPOCH.fullmatch(name)
    return int(match[1]) if match else 0


def shard_of_receipt(name: str) -> int:
    match = _RECEIPT.fullmatch(name)
    return int(match[1]) if match else -1


def epoch_of_attempt(name: str) -> int:
    """0 where `name` is not of our grammar."""
    match = _ATTEMPT.fullmatch(name)
    return int(match[1]) if match else 0


def is_temporary(name: str) -> bool:
    """Whether `name` is that of a document while `LocalFiles` writes it: a process that was killed leaves it."""
    return _TEMPORARY.fullmatch(name) is not None


def plan8_of_folder(name: str) -> str | None:
    match = _FOLDER.fullmatch(name)
    return match[1] if match else None


def encode(document: dict[str, Any]) -> bytes:
    """Readable JSON: `_run/` is also for people."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def decode(content: bytes | None) -> dict[str, Any] | None:
    """None where there is no document, or a torn or foreign one: a key of ours holds what it never does."""
    try:
        document = json.loads(content or b"")
    except (ValueError, RecursionError):  # RecursionError: nested a thousand levels deep
        return None
    if not isinstance(document, dict):
        return None
    return document if all(whole(document[key]) for key, whole in _KINDS.items() if key in document) else None


def _counted(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(count, int) for count in value.values())


def _told(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and isinstance(one.get("attempt"), str) for one in value
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int)


# Of keys that mean one thing in all documents.
_KINDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("epoch", "pid", "rows_in", "rows_out", "rows_rejected", LEFT_OUT, *ODD), _whole),
    **dict.fromkeys(("codes", "bad_files", "rows_in_hand"), _counted),
    "failures": _told,
    "identity": lambda value: isinstance(value, dict),
}
