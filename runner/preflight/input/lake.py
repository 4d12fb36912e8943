"""Tables of a lake: a folder that holds one is no input, because its files alone do not tell which rows are in it.

Owns what is said of Delta, Hudi and Iceberg; refuses to read their logs, as `connectors/tables` does. The invariant:
no folder below a table is scored as if all of its files were current.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from connectors.secret import redact
from connectors.store.listing import Below, Listing, Mark, iceberg, marks_at
from connectors.store.store import Store
from jobs.errors import InputError, OutputError

_READ_BY = {  # what reads the rows of the current version
    "Delta": "write `input: {{delta: {url}}}`, whose rows are those of one version",
    "Iceberg": "write `input: {{iceberg: ...}}`, with CATALOG.NAMESPACE.TABLE or the url of its metadata file, whose"
    " rows are those of one snapshot",
    "Hudi": "name the files of its current version one by one (hudi: `HudiTable(url).get_file_slices()`), or write a"
    " copy of the table where rows may have been deleted: {apart}",
}
_ROWS_APART = "deletion vectors and other row-level deletes are not in the files"
_DATA_FOLDER = "data"  # of an Iceberg table, beside its metadata
_FOLDERS_OF_FILES = 16  # looked at, of those that hold files which are named one by one


def refuse_table(store: Store, listing: Listing) -> list[str]:
    """Warnings of files that are named one by one and belong to a table.

    raises: InputError INPUT_TABLE where a folder or a glob means files of one.
    cost:   three looks at each folder above those that are given which may hold them as partitions: none, as a rule.
    """
    if not store.kind.listed:  # such as a web server: each file is named, and nothing can be looked at
        return []
    seen = _Looked(store)
    for one in listing.below:
        if mark := next(seen.above(one.folder), None) or _first_below(one, seen):
            raise _refusal(mark)
    folders = dict.fromkeys(url.rpartition("/")[0] for url in listing.named)
    found = {
        mark.folder: mark
        for folder in list(folders)[:_FOLDERS_OF_FILES]
        for mark in (*seen.at(folder), *seen.above(folder))
    }
    return [
        f"'{redact(mark.folder)}' is {_article(mark.kind)} table: all rows of the files that the job names are scored;"
        f" {_ROWS_APART}"
        for mark in found.values()
    ]


class _Looked:
    """What lies directly in folders, each looked at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks: dict[str, list[Mark]] = {}

    def above(self, folder: str) -> Iterator[Mark]:
        """The marks in the folders above `folder`, as far as it may be a partition of theirs."""
        while True:
            folder, _, name = folder.rpartition("/")
            if not ("=" in name or name == _DATA_FOLDER) or folder.endswith(("/", ":")) or not folder:
                return
            yield from self.at(folder)

    def at(self, folder: str) -> Sequence[Mark]:
        """The marks in `folder` itself, of which nothing was listed."""
        if folder not in self._marks:
            self._marks[folder] = [*marks_at(folder, self.names)]
        return self._marks[folder]

    def names(self, folder: str) -> Sequence[str]:
        with suppress(OutputError):  # who may not look there is told nothing of it
            return self._store.names(folder)
        return ()


def _first_below(one: Below, seen: _Looked) -> Mark | None:
    """The mark of a table that one of the files belongs to, by a folder of the listing above it."""
    marks = {mark.folder: mark for mark in sorted(one.marks, key=lambda mark: mark.kind)}  # those that are sure last
    tried: set[str] = set()
    for file in one.files if marks else ():
        folder = file.url
        while (folder := folder.rpartition("/")[0]) and folder not in tried and len(folder) >= len(one.folder):
            tried.add(folder)
            mark = marks.get(folder)
            if mark is not None and (mark.kind or iceberg(seen.names(mark.seen))):
                return mark._replace(kind=mark.kind or "Iceberg")
    return None


def _article(kind: str) -> str:
    return f"an {kind}" if kind.startswith("I") else f"a {kind}"


def _advice(mark: Mark) -> str:
    return _READ_BY[mark.kind].format(url=redact(mark.folder), apart=_ROWS_APART)


def _refusal(mark: Mark) -> InputError:
    return InputError(
        f"cannot read '{redact(mark.folder)}' as a folder: it is {_article(mark.kind)} table ('{redact(mark.seen)}' is"
        f" there), and its files hold deleted and replaced rows, too; {_advice(mark)}",
        code="INPUT_TABLE",
        file=mark.folder,
    )
