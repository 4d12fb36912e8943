"""What a store really does when a name is taken: found out by trying, once for each output, never from its scheme."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from connectors.store.client_error import no_room
from connectors.store.local import NO_REFUSING_RENAME
from connectors.store.store import Store
from jobs.errors import OutputError, StorageError

Mode = Literal["direct", "whole", "staged"]  # whole: as direct, each part in one request, however large it is

# S3 wants parts of 5 MiB or more; clients upload in one piece what is below two parts.
_PART_BYTES, _MULTIPART_BYTES = 5 * 2**20, 11 * 2**20
_TRIES = 5
WEAKER = (
    "parts are staged below '_run/' and given their names by the driver: run one driver at a time on this output, "
    "nothing stops a second one from replacing parts"
)


@dataclass(frozen=True, slots=True)
class Probe:
    """mode: how parts are to be published there. warning: what is weaker than promised, "" if nothing."""

    mode: Mode
    warning: str = ""


def mode_of(noted: object) -> Mode | None:
    """The mode that a document notes; None where it notes none."""
    return next((mode for mode in get_args(Mode) if mode == noted), None)


def probe(store: Store, folder: str) -> Probe:
    """Publish an object twice under one fresh name: the second has to be refused. Small, then in several parts; where
    that fails, in one piece.

    folder:  below the root, where this run may leave things: '_run/<plan8>/staging'.
    raises:  OutputError, StorageError where the store cannot be written to at all.
    cost:    a few small requests; on object stores an upload of up to 22 MiB.
    """
    fresh = f"{folder}/{secrets.token_hex(6)}"
    try:
        if not _refuses(store, fresh, "small", 64):
            return Probe("staged", f"'{store.url}' does not refuse a second object of one name: {WEAKER}")
        if store.kind.looks:
            weaker = f"nobody but this program looks whether a name at '{store.url}' is taken: promises that need"
            return Probe("staged", f"{weaker} create-if-absent are weaker here; {WEAKER}")
        if not store.kind.conditional_put or _refuses_in_parts(store, fresh):
            return Probe("direct")
        if store.kind.piece_bytes and _refuses(store, fresh, "whole", 64, 0):
            return Probe("whole")
        return Probe(
            "staged",
            f"'{store.url}' does not refuse a second object of one name where it is uploaded in parts: {WEAKER}",
        )
    except OutputError as error:
        if error.facts.get("code") != NO_REFUSING_RENAME:
            raise
        return Probe("staged", f"'{store.url}' has neither hard links nor a rename that refuses to replace: {WEAKER}")
    finally:
        store.sweep(fresh)  # where it may be deleted; if not, it stays and harms nothing


def _refuses_in_parts(store: Store, folder: str) -> bool:
    """Not where the store has no answer to the condition but an error, as long as something else is left to try."""
    try:
        return _refuses(store, folder, "large", _MULTIPART_BYTES, _PART_BYTES)
    except (OutputError, StorageError):
        if not store.kind.piece_bytes:
            raise
        return False


def _refuses(store: Store, folder: str, name: str, size: int, part_bytes: int | None = None) -> bool:
    first, second = (secrets.token_hex(16).encode().ljust(size, letter) for letter in (b"1", b"2"))
    path = f"{folder}/{name}"
    _offer(store, path, first, part_bytes)
    if store.read(path) != first:
        raise StorageError(f"cannot write to '{store.url}': '{path}' was published and does not read back")
    return not _offer(store, path, second, part_bytes) and store.read(path) == first


def _offer(store: Store, path: str, content: bytes, part_bytes: int | None) -> bool:
    """Whether the store says that `content` was published, or shows it where the answer was unclear."""
    unclear: StorageError | None = None
    for _ in range(_TRIES):
        try:
            return _publish(store, path, content, part_bytes)
        except StorageError as error:
            if error.facts.get("answer") == "failed":
                raise
            unclear = error
        read = store.read(path)
        if read is not None:
            return read == content
    assert unclear is not None
    raise unclear


def _write(spool: Path, content: bytes) -> None:
    try:
        spool.write_bytes(content)
    except OSError as error:
        raise no_room("write to", spool, error) or StorageError(f"cannot write to '{spool}': {error}") from error


def _publish(store: Store, path: str, content: bytes, part_bytes: int | None) -> bool:
    staging = f"{path}-{secrets.token_hex(6)}"
    try:
        spool = store.spool(staging) / "object"
        _write(spool, content)
        if part_bytes is not None:
            return store.publish(spool, path, staging, part_bytes=part_bytes)
        return store.publish(spool, path, staging)
    finally:
        store.discard(staging)
