"""Iceberg tables: the files of one snapshot, as pyiceberg plans them.

Owns what of the format is applied: positional deletes and deletion vectors, columns by field id, identity partitions;
refuses by name what is not. The invariant: a snapshot that is found again is made of the same files and rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.secret import redact
from connectors.store.connect import absolute
from connectors.store.store import FileStat
from connectors.tables.access import library_errors, properties
from connectors.tables.columns import Mark, TableColumns, marked
from connectors.tables.snapshot import Rows, Snapshot
from connectors.tables.value import text_of
from jobs.errors import InputError, JobError, one_of
from jobs.section.base import OptionValue

_FIELD_ID = b"PARQUET:field_id"
_DELETE_THREADS = 16  # files of deleted rows are small, and wait for a store
_FEW = 5  # snapshots that a message names
_CODES = {"NoSuchTableError": "NO_INPUT", "NoSuchNamespaceError": "NO_INPUT", "FileNotFoundError": "NO_INPUT"}


def snapshot(
    name: str,
    number: int | None,
    schema: int | None,
    options: Mapping[str, OptionValue],
    catalog: Mapping[str, OptionValue],
) -> Snapshot:
    """The table `name`: CATALOG.NAMESPACE.TABLE, or the url of a metadata file.

    number: of the snapshot; None: the current one. schema: its id; None: that of the snapshot, of the current one the
            newest.
    raises: JobError where pyiceberg is missing; InputError NO_INPUT where there is no table, TABLE_GONE where there is
            no such snapshot, TABLE_UNSUPPORTED for what is not applied, TABLE_UNREADABLE for what pyiceberg refuses.
    cost:   metadata and manifests are read, and the files of deleted rows; no data file.
    """
    what = f"the Iceberg table '{redact(name)}'"
    with _loaded(name, options, catalog) as table:
        seen = table.current_snapshot() if number is None else table.snapshot_by_id(number)
        if seen is None:
            raise _gone(what, table, number)
        scan = table.scan(snapshot_id=seen.snapshot_id)
        columns = table.schema() if number is None else scan.projection()
        columns = columns if schema is None else table.schemas()[schema]
        try:
            tasks = list(scan.plan_files())
        except (ValueError, NotImplementedError) as error:
            if "equality deletes" not in str(error):
                raise
            raise _unsupported(
                what, "it has equality deletes, which are not applied: compact the table, or write a copy"
            ) from None
        _refuse_formats(what, tasks)
        identities = {number: list(_identities(spec, columns)) for number, spec in table.specs().items()}
        files = [_file(task.file, identities[task.file.spec_id]) for task in tasks]
        deleted = _deleted(what, table.io, [file for task in tasks for file in task.delete_files])
    if not files:
        raise InputError(f"cannot read {what}: its snapshot {seen.snapshot_id} has no files", code="NO_INPUT")
    url = absolute(_place(str(table.location())))
    return Snapshot(
        "Iceberg",
        url,
        int(seen.snapshot_id),
        _columns(table, columns),
        sorted(files, key=lambda file: file.url),
        {_place(path): rows for path, rows in deleted.items()},
        int(columns.schema_id),
    )


def newest(name: str, options: Mapping[str, OptionValue], catalog: Mapping[str, OptionValue]) -> int:
    """The current snapshot. raises: as `snapshot`."""
    with _loaded(name, options, catalog) as table:
        return int(table.current_snapshot().snapshot_id)


@contextmanager
def _loaded(name: str, options: Mapping[str, OptionValue], catalog: Mapping[str, OptionValue]) -> Iterator[Any]:
    what = f"the Iceberg table '{redact(name)}'"
    told, secrets = properties(name if "/" in name else "", options, catalog)
    try:
        from pyiceberg.catalog import load_catalog
        from pyiceberg.table import StaticTable
    except ImportError:
        raise JobError(
            f"cannot read {what}: the package 'pyiceberg' is missing; pip install 'savedmodel-runner[iceberg]'"
        ) from None
    with library_errors(what, "pyiceberg", secrets, _CODES):
        if "/" in name:
            yield StaticTable.from_metadata(_place(name), told)
            return
        first, _, identifier = name.partition(".")
        if "." not in identifier:
            raise InputError(
                f"cannot find {what}: expected CATALOG.NAMESPACE.TABLE, or the url of a metadata file", code="NO_INPUT"
            )
        yield load_catalog(first, **told).load_table(identifier)


def _place(path: str) -> str:
    """A path of a file as our stores have it: Spark writes 'file:/path'."""
    return "/" + path.removeprefix("file:").lstrip("/") if path.startswith("file:") else path


def _gone(what: str, table: Any, number: int | None) -> InputError:
    if number is None:
        return InputError(f"cannot read {what}: it has no snapshot yet", code="NO_INPUT")
    known = [str(one.snapshot_id) for one in sorted(table.snapshots(), key=lambda one: -one.timestamp_ms)]
    return InputError(
        f"cannot read snapshot {number} of {what}: it has {one_of(known, most=_FEW)}, the newest first; choose one of"
        " these, or 'latest'",
        code="TABLE_GONE",
    )


def _unsupported(what: str, why: str) -> InputError:
    return InputError(f"cannot read {what}: {why}", code="TABLE_UNSUPPORTED")


def _refuse_formats(what: str, tasks: Iterable[Any]) -> None:
    from pyiceberg.manifest import DataFileContent

    for task in tasks:
        if task.file.file_format.name != "PARQUET":
            found = f"'{redact(task.file.file_path)}' is a file of {task.file.file_format.name}"
            raise _unsupported(what, f"{found}; expected Parquet: rewrite its data files")
        for one in task.delete_files:
            if one.content != DataFileContent.POSITION_DELETES or one.file_format.name not in ("PARQUET", "PUFFIN"):
                found = f"'{redact(one.file_path)}' has {one.content.name.lower()} as {one.file_format.name}"
                raise _unsupported(what, f"{found}, which are not applied: compact the table, or write a copy")


def _file(file: Any, identities: Sequence[tuple[int, str, pa.DataType]]) -> FileStat:
    values = tuple((name, _text(file.partition[at], kind)) for at, name, kind in identities)
    return FileStat(_place(file.file_path), int(file.file_size_in_bytes), "", values=values)


def _identities(spec: Any, schema: Any) -> Iterator[tuple[int, str, pa.DataType]]:
    """Columns that are partitioned by as they are, which a file may lack: place in the partition, name, type."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow
    from pyiceberg.transforms import IdentityTransform

    top = {field.field_id: field for field in schema.fields}
    for at, field in enumerate(spec.fields):
        column = top.get(field.source_id)
        if isinstance(field.transform, IdentityTransform) and column is not None and column.field_type.is_primitive:
            yield at, column.name, schema_to_pyarrow(column.field_type)


def _text(value: Any, kind: pa.DataType) -> str | None:
    return text_of(pa.scalar(value, kind))


def _columns(table: Any, schema: Any) -> TableColumns:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    names = dict(_mapped(table.name_mapping()))

    def mark(field: pa.Field) -> Mark:
        number = int((field.metadata or {})[_FIELD_ID])
        default = schema.find_field(number).initial_default
        text = None if default is None else _text(default, field.type)
        return Mark(number, names.get(number, ()), text)

    return TableColumns(pa.schema([marked(field, mark) for field in schema_to_pyarrow(schema)]), by_id=True)


def _mapped(mapping: Any) -> Iterator[tuple[int, Sequence[str]]]:
    """Field id -> the names of it in files without ids. mapping: or None."""
    waiting = list(mapping.root) if mapping is not None else []
    while waiting:
        field = waiting.pop()
        waiting += field.fields
        if field.field_id is not None:
            yield field.field_id, tuple(field.names)


def _deleted(what: str, io: Any, files: Sequence[Any]) -> dict[str, Rows]:
    """Path of a data file -> its deleted rows."""
    once = list({file.file_path: file for file in files}.values())
    with ThreadPoolExecutor(_DELETE_THREADS, thread_name_prefix="deletes") as threads:
        read = list(threads.map(lambda file: _positions(io, file), once))
    parts: dict[str, list[Any]] = {}
    for found in read:
        for path, rows in found:
            parts.setdefault(path, []).append(rows)
    return {path: np.unique(np.concatenate(rows)).astype(np.int64) for path, rows in parts.items()}


def _positions(io: Any, file: Any) -> list[tuple[str, Any]]:
    from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file
    from pyiceberg.table.puffin import PuffinFile

    with io.new_input(file.file_path).open() as opened:
        content = opened.read()
    if file.file_format.name == "PUFFIN":
        vectors = deletion_vectors_from_puffin_file(PuffinFile(content))
        return [(one.referenced_data_file, one.to_vector().to_numpy()) for one in vectors]
    table = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read(["file_path", "pos"])
    return [
        (path, table.filter(pc.equal(table["file_path"], path))["pos"].to_numpy())
        for path in pc.unique(table["file_path"]).to_pylist()
    ]
