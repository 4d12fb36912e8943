"""Delta tables: the files of one version, as deltalake reads the log.

Owns what of the protocol is applied: partition values, deletion vectors, column mapping; refuses by name what it does
not know. The invariant: a version that is found again is made of the same files and rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from connectors.secret import redact
from connectors.store.connect import absolute
from connectors.store.store import FileStat, Store
from connectors.tables.access import library_errors, storage_options
from connectors.tables.columns import Mark, TableColumns, marked
from connectors.tables.snapshot import Rows, Snapshot
from connectors.tables.value import text_of
from jobs.errors import InputError, InternalError, JobError, one_of
from jobs.section.base import OptionValue

# Features of a table that a reader has to know. Of the last row, what is in files is read as it is stored.
_KNOWN = {
    *("columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "typeWidening-preview"),
    *("v2Checkpoint", "vacuumProtocolCheck"),
    *("variantType", "variantType-preview"),
}
_LOG = "_delta_log"
_ID, _NAME = b"delta.columnMapping.id", b"delta.columnMapping.physicalName"
_MODE = "delta.columnMapping.mode"


def snapshot(url: str, version: int | None, options: Mapping[str, OptionValue]) -> Snapshot:
    """The table at `url`. version: None: the latest.

    raises: JobError where deltalake is missing; InputError NO_INPUT where there is no table, TABLE_GONE where there is
            no such version, TABLE_UNSUPPORTED for what only other readers know, TABLE_UNREADABLE for what deltalake
            refuses.
    cost:   the log is read, and no data file; vectors of deleted rows are.
    """
    url = absolute(url)
    what = f"the Delta table '{redact(url)}'"
    with _loaded(url, version, options) as table:
        _refuse_features(what, table)
        columns = _columns(table)
        actions = pa.table(table.get_add_actions(flatten=True))
        names = table.metadata().partition_columns
        places = [_place(url, path) for path in actions["path"].to_pylist()]
        values = {name: _texts(actions[f"partition.{name}"]) for name in names} if len(actions) else {}
        files = [
            FileStat(place, size, "", values=tuple((name, values[name][at]) for name in names))
            for at, (place, size) in enumerate(zip(places, actions["size_bytes"].to_pylist(), strict=True))
        ]
        deleted = _deleted(table, dict(zip(actions["path"].to_pylist(), places, strict=True)))
        found = int(table.version())
    if not files:
        raise InputError(f"cannot read {what}: its version {found} has no files", code="NO_INPUT")
    return Snapshot("Delta", url, found, columns, sorted(files, key=lambda file: file.url), deleted)


def newest(url: str, options: Mapping[str, OptionValue]) -> int:
    """The latest version. raises: as `snapshot`."""
    with _loaded(url, None, options) as table:
        return int(table.version())


@contextmanager
def _loaded(url: str, version: int | None, options: Mapping[str, OptionValue]) -> Iterator[Any]:
    told, secrets = storage_options(url, options)
    what = f"the Delta table '{redact(url)}'"
    try:
        from deltalake import DeltaTable
    except ImportError:
        raise JobError(
            f"cannot read {what}: the package 'deltalake' is missing; pip install 'savedmodel-runner[delta]'"
        ) from None
    with library_errors(what, "deltalake", secrets, {"TableNotFoundError": "NO_INPUT"}):
        try:
            table = DeltaTable(_known_to_rust(url), version=version, storage_options=told or None)
        except Exception:
            _refuse_version(Store(url, options), what, version)
            raise
        yield table


def _known_to_rust(url: str) -> str:
    """deltalake knows no 's3a' beside its own, and no 'gcs'."""
    scheme, mark, rest = url.partition("://")
    return {"gcs": "gs"}.get(scheme, scheme) + mark + rest if mark else url


def _place(url: str, path: str) -> str:
    """Of a file: in the log its path is encoded, below the table or a url of its own."""
    path = unquote(path)
    if path.startswith("file:"):
        return "/" + path.removeprefix("file:").lstrip("/")
    return path if "://" in path or path.startswith("/") else f"{url.rstrip('/')}/{path}"


def _texts(values: pa.ChunkedArray) -> list[str | None]:
    return [text_of(value) for value in values]


def _columns(table: Any) -> TableColumns:
    by_id = table.metadata().configuration.get(_MODE) == "id"

    def mark(field: pa.Field) -> Mark:
        said = field.metadata or {}
        number = said.get(_ID)
        return Mark(int(number) if number else None, [said.get(_NAME, field.name.encode()).decode()])

    fields = pa.schema([marked(field, mark) for field in pa.schema(table.schema().to_arrow())])
    return TableColumns(fields, by_id, tuple(table.metadata().partition_columns))


def _deleted(table: Any, places: Mapping[str, str]) -> dict[str, Rows]:
    """places: path in the log -> url."""
    made: dict[str, Rows] = {}
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return made  # and deltalake (1.6.6) refuses to look where types were widened
    for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()):
        for path, kept in zip(batch["filepath"].to_pylist(), batch["selection_vector"], strict=True):
            place = places.get(path) or places.get(path.removeprefix(str(table.table_uri).rstrip("/")).lstrip("/"))
            if place is None:
                raise InternalError(f"deleted rows of '{redact(path)}', which is no file of the table")
            mask = np.asarray(kept.values.to_numpy(zero_copy_only=False), bool)
            made[place] = np.flatnonzero(~mask).astype(np.int64)
    return made


def _refuse_features(what: str, table: Any) -> None:
    protocol = table.protocol()
    unknown = sorted({*(protocol.reader_features or ())} - _KNOWN)
    if unknown or protocol.min_reader_version > 3:
        found = one_of(unknown) if unknown else f"reader version {protocol.min_reader_version}"
        raise InputError(
            f"cannot read {what}: it asks its readers for {found}, which this runner does not know; expected features"
            f" among {one_of(sorted(_KNOWN), most=20)}: drop the feature, or write a copy of the table",
            code="TABLE_UNSUPPORTED",
        )


def _refuse_version(store: Store, what: str, version: int | None) -> None:
    """raises: InputError TABLE_GONE where the log does not reach that version."""
    if version is None:
        return
    names = store.names(_LOG)
    commits = sorted(int(name[:20]) for name in names if name[:20].isdigit() and name.endswith(".json"))
    whole = [int(name[:20]) for name in names if name[:20].isdigit() and ".checkpoint" in name]
    starts = ([0] if 0 in commits else []) + whole
    if not starts:
        return
    first, last = min(starts), max([*commits, *whole])
    if not first <= version <= last:
        raise InputError(
            f"cannot read version {version} of {what}: its log has the versions {first} to {last}; choose one of these,"
            " or 'latest'",
            code="TABLE_GONE",
        )
