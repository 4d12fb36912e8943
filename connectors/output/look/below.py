"""Which outputs lie below a folder, and how far each is: for those who look at many jobs at once.

Knows names; refuses to know what is in an output. The invariant: a search ends, after so many levels, folders and
outputs, and says where it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from connectors.output.layout import RUN
from connectors.output.status import Status, read_status
from connectors.store.listing import hidden
from connectors.store.store import Store
from jobs.errors import OutputError, RunnerError
from jobs.section.output import Output

MOST_LEVELS, MOST_FOLDERS, MOST_OUTPUTS = 4, 1_000, 200
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Below:
    """names: of the folders that hold an output, below the one that was searched. cut: what was left out, or ""."""

    names: tuple[str, ...]
    cut: str = ""


def outputs_below(parent: Output) -> Below:
    """The outputs below a folder that is none itself; none of them is looked into. raises: as `Store.names`."""
    store = Store(parent.url, parent.options)
    found: list[str] = []
    unread: list[str] = []
    level, looked, cut = [""], 0, ""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="below") as threads:
        for _ in range(MOST_LEVELS + 1):
            if len(level) > MOST_FOLDERS - looked:
                level, cut = level[: MOST_FOLDERS - looked], f"looked into {MOST_FOLDERS:,} folders only"
            looked += len(level)
            deeper: list[str] = []
            for folder, names in zip(level, threads.map(lambda folder: _names(store, folder), level), strict=True):
                if names is None:
                    unread.append(folder)
                elif f"{RUN}/" in names:
                    found.append(folder)
                else:
                    deeper += [f"{folder}/{name}".strip("/") for name in names if _searched(name)]
            level = deeper
    if level and not cut:
        cut = f"looked {MOST_LEVELS} levels deep only"
    if len(found) > MOST_OUTPUTS:
        cut = f"the first {MOST_OUTPUTS:,} of {len(found):,} outputs only"
    if unread:
        cut = "; ".join(filter(None, [cut, f"{len(unread):,} folders cannot be read, such as '{unread[0]}'"]))
    return Below(tuple(sorted(found)[:MOST_OUTPUTS]), cut)


def statuses(parent: Output, names: Sequence[str]) -> Iterator[Status | RunnerError]:
    """How far each of these outputs below `parent` is, or why that cannot be read."""
    store = Store(parent.url, parent.options)

    def look(name: str) -> Status | RunnerError:
        try:
            return read_status(parent.model_copy(update={"url": store.child(name)}))
        except RunnerError as error:
            return error

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="below") as threads:
        yield from threads.map(look, names)


def _names(store: Store, folder: str) -> list[str] | None:
    """None where the folder cannot be read; the error of the one that was asked for is raised."""
    try:
        return store.names(folder)
    except OutputError:
        if not folder:
            raise
        return None


def _searched(name: str) -> bool:
    return name.endswith("/") and name.isprintable() and not hidden((name,))
