"""Iceberg tables in a catalog on SQLite, with deletes of rows that pyiceberg reads and does not write."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyroaring
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestWriterV2
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record


def properties(home: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{home}/catalog.db", "warehouse": f"file://{home}/warehouse"}


def catalog(home: Path) -> Catalog:
    made = load_catalog("cat", **properties(home))
    made.create_namespace_if_not_exists("ns")
    return made


class _DeleteWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class _Deletes(_FastAppendFiles):
    """A snapshot that adds files of deletes."""

    def new_manifest_writer(self, spec: Any) -> Any:
        metadata = self._transaction.table_metadata
        return _DeleteWriter(spec, metadata.schema(), self.new_manifest_output(), self._snapshot_id, self._compression)


def commit_deletes(table: Table, file: DataFile) -> None:
    with table.transaction() as change, _Deletes(Operation.DELETE, change, table.io) as deletes:
        deletes.append_data_file(file)
    table.refresh()


def delete_file(table: Table, path: Path, rows: int, partition: Record | None, content: DataFileContent) -> DataFile:
    kind = FileFormat.PUFFIN if path.suffix == ".puffin" else FileFormat.PARQUET
    made = DataFile.from_args(
        content=content,
        file_path=path.as_uri(),
        file_format=kind,
        partition=partition or Record(),
        record_count=rows,
        file_size_in_bytes=path.stat().st_size,
        equality_ids=[1] if content == DataFileContent.EQUALITY_DELETES else None,
    )
    made.spec_id = table.metadata.default_spec_id
    return made


def positional(path: Path, rows: Mapping[str, Sequence[int]]) -> int:
    """Write positional deletes: path of a data file -> its rows. Format specification, "Position Delete Files"."""
    pairs = sorted((name, row) for name, places in rows.items() for row in places)
    fields = [
        pa.field("file_path", pa.string(), False, {"PARQUET:field_id": "2147483546"}),
        pa.field("pos", pa.int64(), False, {"PARQUET:field_id": "2147483545"}),
    ]
    names, places = zip(*pairs, strict=True)
    pq.write_table(
        pa.Table.from_arrays([pa.array(names), pa.array(places, pa.int64())], schema=pa.schema(fields)), path
    )
    return len(pairs)


def puffin(path: Path, rows: Mapping[str, Sequence[int]]) -> int:
    """Write deletion vectors: Puffin specification, "deletion-vector-v1"."""
    body, blobs = b"PFA1", []
    for name, places in rows.items():
        vector = b"\xd1\xd3\x39\x64" + pyroaring.BitMap64(places).serialize()
        blob = struct.pack(">I", len(vector)) + vector + struct.pack(">I", zlib.crc32(vector))
        said = {"referenced-data-file": name, "cardinality": str(len(places))}
        place = {"offset": len(body), "length": len(blob)}
        kind = {"type": "deletion-vector-v1", "fields": [], "snapshot-id": -1, "sequence-number": -1}
        blobs.append({**kind, **place, "properties": said})
        body += blob
    footer = json.dumps({"blobs": blobs, "properties": {}}).encode()
    path.write_bytes(body + b"PFA1" + footer + struct.pack("<I", len(footer)) + b"\0\0\0\0" + b"PFA1")
    return sum(map(len, rows.values()))
