"""Object stores: S3, GCS and Azure. An object is visible whole, and a second one of its name is refused on request.

Refuses to believe that refusal for all servers of a kind, which `probe.py` tries out. The invariant: a final name is
only ever written with the condition that it is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from connectors.store.listing import FileStat, Parts, Pattern
from connectors.store.remote import RemoteFiles, placeholder, version


class ObjectFiles(RemoteFiles):
    conditional_put = True

    _part_size: ClassVar[str] = ""  # the option of the client for the size of an upload's parts, where it has one

    @classmethod
    def client_options(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"use_listings_cache": False, **given}  # some clients cache listings for good

    def tree(self, pattern: Pattern) -> Iterator[tuple[Parts, FileStat]]:
        """All objects below a prefix: a thousand names an answer, whatever folders they pretend to be in."""
        folder = pattern.folder.rstrip("/")
        key = self.key(folder)
        listing = self.client.find(key, detail=True)
        folders = _folders(listing)
        for path, info in sorted(listing.items()):
            empty = info["type"] == "directory" or (info["size"] == 0 and path in folders)
            if path.startswith(f"{key}/") and not empty and not placeholder(path, info):
                parts = tuple(path[len(key) + 1 :].split("/"))
                yield parts, FileStat("/".join((folder, *parts)), info["size"], version(info))

    def create(self, url: str, content: bytes) -> bool:
        return _unless_taken(lambda: self.client.pipe_file(self.key(url), content, mode="create"))

    def publish(self, spool: Path, url: str, staged: str, part_bytes: int = 0) -> bool:
        in_parts = {self._part_size: part_bytes} if part_bytes and self._part_size else {}
        return _unless_taken(lambda: self.client.put_file(str(spool), self.key(url), mode="create", **in_parts))

    def promote(self, staged: str, url: str) -> bool:
        source, final = self.key(staged), self.key(url)
        if self.client.exists(final):  # a copy has no such condition: staged mode has one driver at a time
            return False
        self.client.cp_file(source, final)
        return True


class S3Files(ObjectFiles):
    _part_size = "chunksize"


def _unless_taken(write: Callable[[], object]) -> bool:
    try:
        write()
    except FileExistsError:
        return False
    return True


def _folders(paths: Iterable[str]) -> set[str]:
    """Every path that others lie below."""
    folders: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in folders:
            folders.add(path)
    return folders
