"""What the exceptions of storage clients mean. Knows every client's by name or number; imports none of them."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

from jobs.errors import FullError, JobError, RunnerError, StorageError, UnreachableError

Cause = Literal["absent", "denied", "full", "permanent", "transient", "unreached"]
Answer = Literal["failed", "unclear"]  # of a publish that neither made nor refused: certainly nothing there, or unknown

_LOGIN_ERRORS = {  # by name, so that no client needs to be importable
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "DefaultCredentialsError",
    "RefreshError",
    "ClientAuthenticationError",
    "AuthenticationException",
    "BadHostKeyException",
}
# No connection was made: the address may be wrong. Whatever a store answered, or did not in time, is no such thing.
_UNREACHED = {
    "ClientConnectorError",
    "ConnectionRefusedError",
    "ConnectionTimeoutError",
    "ConnectTimeout",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "NoValidConnectionsError",
    "ServiceRequestError",
    "gaierror",
}
_DAMAGED = {"BadZipFile", "ReadError"}  # of archives
_PERMANENT = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
# The code of what no second try mends, and what a person can do.
_FULL = {
    errno.ENOSPC: ("DISK_FULL", "no space is left: free some there"),
    errno.EDQUOT: ("DISK_QUOTA", "this user's quota is used up: free some of it, or ask for more"),
    errno.EROFS: ("DISK_READ_ONLY", "nothing may be written there any more: see why it is mounted read-only"),
}


def meaning(error: Exception, wrong: type[JobError]) -> tuple[type[RunnerError], Cause, str]:
    """Our class for a client's exception, its cause, and the text. wrong: for what will not pass by itself."""
    text = f"{type(error).__name__}: {error}"
    cause = _cause(error)
    match cause:
        case "absent":
            return wrong, cause, "there is no such file, folder or bucket"
        case "denied":
            return wrong, cause, f"permission was denied ({text}); check the credentials and what they allow"
        case "full":
            return FullError, cause, f"{_FULL[getattr(error, 'errno', 0)][1]} ({text}); then run the same command again"
        case "permanent":
            return wrong, cause, text
    return UnreachableError if cause == "unreached" else StorageError, cause, f"{text} (may pass)"


def full_code(error: Exception) -> str:
    """DISK_FULL, DISK_QUOTA or DISK_READ_ONLY where `error` says that there is no room; ""."""
    return _FULL.get(getattr(error, "errno", None) or 0, ("", ""))[0]


def no_room(doing: str, path: Path, error: OSError) -> FullError | None:
    """What a person must hear of a full disk of this machine; None where `error` says something else.

    doing: "write to".
    """
    if not (code := full_code(error)):
        return None
    story = _FULL[error.errno or 0][1]
    with suppress(OSError):
        disk = shutil.disk_usage(path.parent)
        story += f" ({disk.free:,} of {disk.total:,} bytes are free, on host '{os.uname().nodename}')"
    return FullError(
        f"cannot {doing} '{path}': {os.strerror(error.errno or 0)}; {story}, then run the same command again", code=code
    )


def denied(error: Exception) -> bool:
    return _cause(error) == "denied"


class ReplacedError(Exception):
    """The store answered with another object than the one that was asked for."""

    status = 412


def replaced(error: Exception) -> bool:
    """Whether a file that was there is gone, or is not the one that was asked for (412)."""
    answers = [error, error.__cause__]
    return _cause(error) == "absent" or any(412 in (_status(answer), _answered(answer)) for answer in answers)


def publish_answer(error: Exception) -> Answer:
    """Whether an upload that ended with `error` may have taken effect.

    A missing upload id is unclear too: a client that completes an upload a second time, because the first answer was
    lost, hears that of its own success.
    """
    lost_upload = isinstance(error, FileNotFoundError) and "upload" in str(error).lower()
    return "unclear" if lost_upload or _cause(error) in ("transient", "unreached") else "failed"


def _cause(error: Exception) -> Cause:
    number, status = getattr(error, "errno", None), _status(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        return "absent"
    if isinstance(error, PermissionError) or status in (401, 403) or type(error).__name__ in _LOGIN_ERRORS:
        return "denied"
    if number in _FULL:
        return "full"
    if number in _PERMANENT or isinstance(error, FileExistsError | TypeError | ValueError | NotImplementedError):
        return "permanent"
    names = {cls.__name__ for cls in type(error).__mro__}
    if not names.isdisjoint(_DAMAGED):
        return "permanent"
    return "transient" if names.isdisjoint(_UNREACHED) else "unreached"


def _status(error: object) -> int:
    """Of HTTP, where the client tells it; 0."""
    return next(
        (s for name in ("status", "status_code", "code") if isinstance(s := getattr(error, name, None), int)), 0
    )


def _answered(error: object) -> int:
    """The status in an answer that botocore keeps; 0."""
    answer = getattr(error, "response", None)
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(answer, dict) else 0
