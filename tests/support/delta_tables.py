"""Delta tables with what deltalake reads and does not write: deletion vectors, renamed columns, unknown features."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyroaring

# The same digits of base 85, in the order of ZeroMQ.
_Z85 = str.maketrans(
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
)
_ROARING = 1681511377  # the number that a vector begins with


def vector(rows: Sequence[int]) -> dict[str, Any]:
    """A deletion vector inside of the log: protocol, "Deletion Vectors"."""
    data = struct.pack("<I", _ROARING) + pyroaring.BitMap64(rows).serialize()
    padded = data + b"\0" * (-len(data) % 4)
    text = base64.b85encode(padded).decode().translate(_Z85)
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}


def field(name: str, kind: Any, id: int | None = None, physical: str = "") -> dict[str, Any]:
    said = {"delta.columnMapping.id": id, "delta.columnMapping.physicalName": physical} if id is not None else {}
    return {"name": name, "type": kind, "nullable": True, "metadata": said}


def commit(table: Path, *actions: Mapping[str, Any]) -> None:
    """The next version."""
    log = table / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    version = len(list(log.glob("*.json")))
    lines = [{"commitInfo": {"timestamp": version, "operation": "WRITE"}}, *actions]
    (log / f"{version:020}.json").write_text("\n".join(map(json.dumps, lines)))


def created(
    fields: Sequence[Mapping[str, Any]],
    features: Sequence[str] = (),
    partitions: Sequence[str] = (),
    configuration: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The actions of a new table, and of one whose columns are others from now on."""
    own = {"readerFeatures": list(features)}
    return [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **own, "writerFeatures": list(features)}},
        {
            "metaData": {
                "id": "aab874a8-e04c-4299-8208-63d545954149",
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": list(fields)}),
                "partitionColumns": list(partitions),
                "createdTime": 1,
                "configuration": dict(configuration or {}),
            }
        },
    ]


def added(table: Path, name: str, rows: pa.Table, values: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """Write a file of two rows a row group, and the action that adds it."""
    table.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, table / name, row_group_size=2)
    return {
        "add": {
            "path": name,
            "partitionValues": dict(values or {}),
            "size": (table / name).stat().st_size,
            "modificationTime": 1,
            "dataChange": True,
            "stats": json.dumps({"numRecords": rows.num_rows}),
        }
    }


def without(action: Mapping[str, Any], rows: Sequence[int]) -> list[dict[str, Any]]:
    """The actions that delete rows of a file. action: that added it."""
    add = dict(action["add"])
    gone = {"path": add["path"], "dataChange": True, "deletionTimestamp": 1, "partitionValues": add["partitionValues"]}
    return [{"remove": gone}, {"add": {**add, "deletionVector": vector(rows)}}]
