"""The one JSON text of a value, and the digest of it. Refuses to know what the value means."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """128 bits of SHA-256 over the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]
