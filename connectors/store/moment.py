"""When a store says that a file was written. Only differences of two such times of one store mean anything."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from connectors.store.local import LocalFiles
from connectors.store.store import Store
from jobs.errors import OutputError


def modified(store: Store, path: str) -> float | None:
    """Seconds on the clock of the store, None where it tells no times or has no such file."""
    url = store._locate(path)
    try:
        with store._errors("look at", url, OutputError):
            if isinstance(store._files, LocalFiles):
                return Path(url).stat().st_mtime
            found: Any = store._files.client.modified(store._files.key(url))
    except OutputError:  # not there, not allowed, or not implemented by this client
        return None
    return found.timestamp() if isinstance(found, datetime) else None


def remove(store: Store, path: str) -> None:
    """Delete one file; it need not be there. raises: OutputError where that is not allowed, StorageError."""
    url = store._locate(path)
    with store._errors("remove", url, OutputError):
        try:
            if isinstance(store._files, LocalFiles):
                Path(url).unlink()
            else:
                store._files.client.rm_file(store._files.key(url))
        except FileNotFoundError:
            return


def remove_folder(store: Store, folder: str) -> None:
    """Delete a folder with all that is in it. raises: OutputError where that is not allowed, StorageError."""
    for name in store.names(folder):
        if name.endswith("/"):
            remove_folder(store, f"{folder}/{name[:-1]}")
        else:
            remove(store, f"{folder}/{name}")
    store.discard(folder)  # what is left of it: a folder, where the store has folders
