"""Secrets: references in options become values here, and whatever looks like one is cut out of messages."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from jobs.errors import JobError
from jobs.section.base import REFERENCE, SECRET_PARAMETER, OptionValue

HIDDEN = "***"

_PASSWORD = re.compile(r"([\w+.-]+(?<!github)://[^\s/:@'\"]*):[^\s/@'\"]*@")
_HTTP_USER = re.compile(r"(https?://)[^\s/@'\"]+@", re.IGNORECASE)
# A query with a parameter that signs or authorizes it.
_SIGNED = re.compile(
    rf"([\w+.-]+://[^\s'\"?]*)\?(?=(?:[^\s'\"]*&)?[^\s'\"=&]*{SECRET_PARAMETER}[^\s'\"=&]*=)[^\s'\"]*",
    re.IGNORECASE,
)
# Parameters whose names say nothing: what is long and mixed may be a capability. A version of an object is none.
_CAPABLE = re.compile(
    r"([\w+.-]+://[^\s'\"?]*\?(?:[^\s'\"]*&)?(?!version)[^\s'\"=&]*=)(?=[^\s'\"&]*\d)(?=[^\s'\"&]*[a-z])[\w.~%+/=-]{20,}",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"\b(authorization|sig|pwd|\w*(?:accountkey|account_key|access_key|api_key|signature|password|passwd|passphrase|secret|token|sas_)\w*)"
    r"(['\"]?\s*[=:]\s*['\"]?)(?:(?:bearer|basic)\s+)?[^\s'\"&,;)}]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """`text` without passwords and tokens in URLs, signed queries, and values of names such as 'AccountKey'."""
    return _NAMED.sub(rf"\1\2{HIDDEN}", _CAPABLE.sub(rf"\1{HIDDEN}", redact_urls(text)))


def redact_urls(text: str) -> str:
    """The part of `redact` that concerns URLs; a URL that this changes holds a secret."""
    text = _SIGNED.sub(rf"\1?{HIDDEN}", text)
    text = _HTTP_USER.sub(rf"\1{HIDDEN}@", text)
    return _PASSWORD.sub(rf"\1:{HIDDEN}@", text)


def resolve(options: Mapping[str, OptionValue], scheme: str) -> tuple[dict[str, OptionValue], list[str]]:
    """Options as a file system takes them, and the secret values among them.

    options: plain values, and references: 'env:NAME', 'file:/path', and for s3 'profile:NAME'.
    raises:  JobError naming the option, never its value.
    """
    resolved: dict[str, OptionValue] = {}
    secrets: list[str] = []
    for name, value in options.items():
        if not isinstance(value, str) or not REFERENCE.match(value):
            resolved[name] = value
            continue
        kind, _, target = value.partition(":")
        if kind == "profile":
            if scheme not in ("s3", "s3a"):
                raise JobError(f"cannot resolve option {name!r}: a profile is known to 's3' only, found '{scheme}'")
            resolved["profile"] = target
            continue
        resolved[name] = _environment(name, target) if kind == "env" else _content(name, target)
        secrets.append(str(resolved[name]))
    return resolved, secrets


def _environment(option: str, variable: str) -> str:
    if variable not in os.environ:
        raise JobError(
            f"cannot resolve option {option!r}: environment variable {variable!r} is not set on this machine"
        )
    return os.environ[variable]


def _content(option: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"cannot resolve option {option!r}: {path!r} cannot be read: {type(error).__name__}") from None
