"""The digest of a folder: one number for all that is in it, the same wherever the folder lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

MAX_FILES = 10_000  # public models have tens of files; without a limit a wrong URL would be read for hours


def folder_digest(folder: Path, paths: Iterable[str]) -> str:
    """SHA-256 over sorted (relative path, content), hex. cost: reads every file once, in pieces.

    The content enters as its own SHA-256, so that no content can pass for another path.

    raises: OSError where a file cannot be read.
    """
    total = hashlib.sha256()
    for path in sorted(paths):
        with (folder / path).open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
        total.update(path.encode("utf-8", "surrogateescape") + b"\0" + content.digest())
    return total.hexdigest()
