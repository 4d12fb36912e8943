"""Listings: which files a folder or a glob means, and what to say where it means none. Touches no file system.

Owns the names that are no input: hidden ones, and folders that belong to a table of a lake, whose files alone do not
tell which rows are still in it. The invariant: each visible file below a folder is meant, or counted as left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from connectors.secret import redact
from jobs.errors import DataError, InputError
from jobs.plan import Values
from jobs.words import counted

Parts = tuple[str, ...]  # the segments of a path below the listed folder

# What programs of this field put beside data, and is data of no format that is read here.
OTHER_SUFFIXES = (
    *(".txt", ".json", ".xml", ".html", ".yaml", ".yml", ".toml", ".md", ".rst", ".pkl", ".h5", ".hdf5", ".db"),
    *(".sql", ".log", ".crc", ".md5", ".sha256", ".py", ".ipynb", ".sh", ".pdf", ".zip", ".tmp"),
)
# What Beam, TFX and TensorFlow Datasets, and programs that compress, put behind a suffix.
_BEHIND_A_SUFFIX = re.compile(r"(-\d+-of-\d+)?(\.(gz|bz2|zst|xz|lz4|snappy))?$")

# The folders, and the file, by which a table of a lake is known.
ICEBERG_FOLDER = "metadata"
_TABLE_FOLDERS = {"_delta_log": "Delta", ".hoodie": "Hudi"}
_HUDI_PARTITION = ".hoodie_partition_metadata"
_ICEBERG_FILE = re.compile(r".+\.metadata\.json(\.gz)?$")


@dataclass(frozen=True, slots=True)
class FileStat:
    """url: full, reads back through `Store.open`. version: etag or mtime in ns as text, "" where unknown.

    pin: what else tells one content from another while the file is read: a generation, the etag as the store wrote it,
         a time; "" where unknown, and in listings. Never stored.
    values: of columns that are not in the file, see `jobs.plan.InputFile`: no store says them.
    """

    url: str
    size: int
    version: str
    pin: str = field(default="", compare=False)
    values: Values = field(default=(), compare=False)


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

    def names(self, parts: Parts) -> bool:
        """Whether the file itself is matched."""
        return _matches(self.segments, parts)

    def holds(self, parts: Parts) -> bool:
        """Whether the file lies in a matched folder."""
        return any(_matches(self.segments, parts[:depth]) for depth in range(len(parts)))

    def wants(self, parts: Parts, suffixes: Sequence[str]) -> bool:
        """Whether the file is matched by name, or lies in a matched folder and has one of the suffixes."""
        return self.names(parts) or (parts[-1].lower().endswith(tuple(suffixes)) and self.holds(parts))


class Mark(NamedTuple):
    """What shows that `folder` holds a table. kind: 'Delta', 'Hudi', 'Iceberg'; "": `seen` has to be looked into."""

    folder: str
    kind: str
    seen: str


@dataclass(frozen=True, slots=True)
class Below:
    """What one url means that is no file.

    left_out: 'hidden', or how names end -> how many names of that kind are there and not meant.
    marks:    of tables, at the folder of the listing or below it.
    """

    folder: str
    files: Sequence[FileStat]
    left_out: Counter[str]
    marks: frozenset[Mark]


@dataclass(frozen=True, slots=True)
class Listing:
    """files: what all urls mean, sorted by url. below: of each url that is no file. named: the urls that are one."""

    files: Sequence[FileStat]
    below: Sequence[Below] = ()
    named: Sequence[str] = ()

    @property
    def left_out(self) -> dict[str, int]:
        """As `Below.left_out`, the most frequent kind first."""
        total: Counter[str] = Counter()
        for one in self.below:
            total.update(one.left_out)
        return dict(total.most_common())


def below(
    url: str,
    pattern: Pattern,
    entries: Iterable[tuple[Parts, FileStat]],
    suffixes: Sequence[str],
    others: Sequence[str] | None = None,
) -> Below:
    """What the entries of a listing mean.

    url:      for messages.
    suffixes: of the files that a folder means.
    others:   where no file has one of these: all visible files are meant, but for those with one of `others`. None:
              then there is no input.
    raises:   InputError NO_INPUT.
    """
    meant: list[FileStat] = []
    bare: list[tuple[Parts, FileStat]] = []
    seen: list[Parts] = []
    left_out: Counter[str] = Counter()
    marks: set[Mark] = set()
    for parts, file in entries:
        if mark := _mark(pattern.folder, parts):
            marks.add(mark)
        if hidden(parts):
            left_out["hidden"] += pattern.names(parts) or pattern.holds(parts)
        elif pattern.wants(parts, suffixes):
            meant.append(file)
            continue
        elif pattern.holds(parts):
            if others is not None and not _without_behind(parts[-1]).endswith(tuple(others)):
                bare.append((parts, file))
            else:
                left_out[_ending(parts[-1])] += 1
        if parts[-1] != ICEBERG_FOLDER:
            seen.append(parts)
    if meant:
        left_out.update(_ending(parts[-1]) for parts, _ in bare)
    else:
        meant = [file for _, file in bare]
    if not meant:
        raise InputError(nothing_found(url, pattern, suffixes, seen), code="NO_INPUT")
    return Below(pattern.folder.rstrip("/"), meant, +left_out, frozenset(marks))


def _mark(folder: str, parts: Parts) -> Mark | None:
    def mark(depth: int, kind: str, seen: Parts) -> Mark:
        return Mark("/".join((folder.rstrip("/"), *parts[:depth])), kind, "/".join((folder.rstrip("/"), *seen)))

    for depth, part in enumerate(parts):
        if part in _TABLE_FOLDERS:
            return mark(depth, _TABLE_FOLDERS[part], parts[: depth + 1])
    if parts[-1] == _HUDI_PARTITION:
        return mark(len(parts) - 1, "Hudi", parts)
    if parts[-2:-1] == (ICEBERG_FOLDER,) and iceberg(parts[-1:]):
        return mark(len(parts) - 2, "Iceberg", parts)
    return mark(len(parts) - 1, "", parts) if parts[-1] == ICEBERG_FOLDER else None


def iceberg(names: Iterable[str]) -> bool:
    """Whether a folder with these names, that is called `ICEBERG_FOLDER`, is one of an Iceberg table."""
    return any(_ICEBERG_FILE.fullmatch(name) for name in names)


def marks_at(folder: str, names: Callable[[str], Sequence[str]]) -> Iterator[Mark]:
    """The marks directly in `folder`, of which nothing was listed. names: those in a folder, by url."""
    for name, kind in _TABLE_FOLDERS.items():
        if names(f"{folder}/{name}"):
            yield Mark(folder, kind, f"{folder}/{name}")
    if iceberg(names(f"{folder}/{ICEBERG_FOLDER}")):
        yield Mark(folder, "Iceberg", f"{folder}/{ICEBERG_FOLDER}")


def _without_behind(name: str) -> str:
    return _BEHIND_A_SUFFIX.sub("", name.lower())


def has_wildcard(text: str) -> bool:
    return re.search(r"[*?\[]", text) is not None


def hidden(parts: Parts) -> bool:
    """Names that start with '.' or '_' are no input: markers, metadata, unfinished files.

    But for a column that is called so and stands in the name of a folder, '_year=2020', as Spark sees it.
    """
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in parts)


def walk(
    pattern: Pattern, children: Callable[[str], Iterable[Child]], above: Parts = ()
) -> Iterator[tuple[Parts, FileStat]]:
    """Files below the pattern's folder, sorted by name, leaving out folders that it does not reach.

    children: the entries of one folder, by url. A hidden folder is yielded like a file and not entered, and so is one
              that may be of a table and is not reached.
    """
    folder = "/".join((pattern.folder.rstrip("/"), *above))
    for child in sorted(children(folder)):
        parts = (*above, child.name)
        reached = child.folder and not hidden(parts) and pattern.reaches(parts)
        if reached:
            yield from walk(pattern, children, parts)
        elif not child.folder or hidden(parts) or child.name == ICEBERG_FOLDER:
            yield parts, FileStat(f"{folder}/{child.name}", child.size, child.version)


def in_folders(name: str, urls: Sequence[str]) -> str:
    """Words where `name` is a column that stands in the names of folders alone, as Hive and Spark store it; ""."""
    for url in urls:
        for folder in url.split("/")[:-1]:
            if folder.startswith(f"{name}="):
                advice = "which are columns with `input: {partitions: hive}`"
                return f"{name!r} stands in folder names ({folder!r}), {advice}"
    return ""


def placeholder(path: str, size: int) -> bool:
    """Empty objects that stand for folders: 'dt=1/' of consoles, 'dt=1_$folder$' of Hadoop."""
    return size == 0 and path.endswith(("/", "_$folder$"))


def nothing_found(url: str, pattern: Pattern, suffixes: Sequence[str], seen: Sequence[Parts]) -> str:
    """Why a url gave no input. seen: the files that are there instead."""
    if pattern.segments:
        wanted = f"no file matches '{url}'"
    else:
        wanted = f"no {' or '.join(repr('*' + suffix) for suffix in suffixes) or 'file'} under '{url}'"
    visible = [parts[-1] for parts in seen if not hidden(parts)]
    if visible:
        endings = Counter(_ending(name) for name in visible).most_common(3)
        return f"{wanted}: " + ", ".join(
            f"{counted(count, 'object there ends', 'objects there end')} in '{ending}'"
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
