"""Listings: which files a folder or a glob means, and what to say where it means none. Touches no file system."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from connectors.secret import redact
from jobs.errors import DataError

Parts = tuple[str, ...]  # the segments of a path below the listed folder


@dataclass(frozen=True, slots=True)
class FileStat:
    """url: full, reads back through `Store.open`. version: etag or mtime in ns as text, "" where unknown.

    pin: what else tells one content from another while the file is read: a generation, the etag as the store wrote it,
         a time; "" where unknown, and in listings. Never stored.
    """

    url: str
    size: int
    version: str
    pin: str = field(default="", compare=False)


def refuse_changed(was: FileStat, now: FileStat | None, since: str = "since plan") -> None:
    """raises: DataError FILE_CHANGED if `now` is another file. A mark that one of the two lacks is not looked at."""
    if now is None:
        raise changed(was.url, since, "it is gone")
    if now.size != was.size:
        raise changed(was.url, since, f"it has {now.size} bytes now, and had {was.size}")
    for then, here in ((was.version, now.version), (was.pin, now.pin)):
        if then and here and then != here:
            raise changed(was.url, since, f"its version is {here!r} now, and was {then!r}")


def changed(url: str, since: str, found: str) -> DataError:
    return DataError(
        f"cannot read '{redact(url)}': changed {since}, {found}; start a new job for the new content",
        code="FILE_CHANGED",
        file=url,
    )


class Child(NamedTuple):
    """One entry of a folder."""

    name: str
    folder: bool
    size: int = 0
    version: str = ""


class Pattern(NamedTuple):
    """A folder and a glob below it; without segments, the whole folder.

    `*`, `?` and `[...]` match inside one segment, the segment `**` matches any number of them. A match that is
    a folder means the files below it.
    """

    folder: str
    segments: Parts = ()

    @classmethod
    def parse(cls, url: str) -> Pattern:
        """Split at the first segment that holds a wildcard."""
        scheme, mark, path = url.rpartition("://")
        segments = path.split("/")
        first = next((index for index, segment in enumerate(segments) if has_wildcard(segment)), len(segments))
        return cls(
            scheme + mark + "/".join(segments[:first]), tuple(segment for segment in segments[first:] if segment)
        )

    def reaches(self, parts: Parts) -> bool:
        """Whether anything below the folder `parts` can be meant; if not, it need not be listed."""
        for depth, segment in enumerate(self.segments):
            if segment == "**" or depth == len(parts):
                return True
            if not fnmatchcase(parts[depth], segment):
                return False
        return True

    def wants(self, parts: Parts, suffixes: Sequence[str]) -> bool:
        """Whether the file is matched by name, or lies in a matched folder and has one of the suffixes."""
        if _matches(self.segments, parts):
            return True
        suffixed = parts[-1].lower().endswith(tuple(suffixes))
        return suffixed and any(_matches(self.segments, parts[:depth]) for depth in range(len(parts)))


def has_wildcard(text: str) -> bool:
    return re.search(r"[*?\[]", text) is not None


def hidden(parts: Parts) -> bool:
    """Names that start with '_' or '.' are no input: markers, metadata, unfinished files."""
    return any(part.startswith(("_", ".")) for part in parts)


def walk(
    pattern: Pattern, children: Callable[[str], Iterable[Child]], above: Parts = ()
) -> Iterator[tuple[Parts, FileStat]]:
    """Files below the pattern's folder, sorted by name, leaving out folders that it does not reach.

    children: the entries of one folder, by url. A hidden folder is yielded like a file and not entered.
    """
    folder = "/".join((pattern.folder.rstrip("/"), *above))
    for child in sorted(children(folder)):
        parts = (*above, child.name)
        if not child.folder or hidden(parts):
            yield parts, FileStat(f"{folder}/{child.name}", child.size, child.version)
        elif pattern.reaches(parts):
            yield from walk(pattern, children, parts)


def nothing_found(url: str, pattern: Pattern, suffixes: Sequence[str], seen: Sequence[Parts]) -> str:
    """Why a url gave no input. seen: the files that are there instead."""
    if pattern.segments:
        wanted = f"no file matches '{url}'"
    else:
        wanted = f"no {' or '.join(repr('*' + suffix) for suffix in suffixes)} under '{url}'"
    visible = [parts[-1] for parts in seen if not hidden(parts)]
    if visible:
        endings = Counter(_ending(name) for name in visible).most_common(3)
        return f"{wanted}: " + ", ".join(
            f"{count} {'object' if count == 1 else 'objects'} there {'ends' if count == 1 else 'end'} in '{ending}'"
            if ending
            else f"{count} there without a suffix"
            for ending, count in endings
        )
    if seen:
        return (
            f"{wanted}: only hidden names are there, such as {'/'.join(seen[0])!r}; they are used if named one by one"
        )
    return f"{wanted}: there is no such file, and no folder with files in it"


def _matches(segments: Parts, parts: Parts) -> bool:
    if not segments:
        return not parts
    if segments[0] == "**":
        return _matches(segments[1:], parts) or (bool(parts) and _matches(segments, parts[1:]))
    return bool(parts) and fnmatchcase(parts[0], segments[0]) and _matches(segments[1:], parts[1:])


def _ending(name: str) -> str:
    """'.json.gz' of 'a.json.gz': the last suffix, and the one before a compression."""
    match = re.search(r"(\.\w+)?\.(gz|bz2|zst|xz|lz4|snappy|zip)$|\.\w+$", name, re.IGNORECASE)
    return match[0] if match else ""
