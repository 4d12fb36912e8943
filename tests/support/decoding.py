"""What a damaged file decodes to, told in one word; runs in a child process, because a decoder may die of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.formats.registry import make_source
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.errors import RunnerError

ROWS = 200


def sample() -> pa.Table:
    """Numbers, text, lists and nulls; small pages of every kind."""
    rows = range(ROWS)
    return pa.table(
        {
            "id": pa.array(rows, pa.int64()),
            "x": pa.array([row / 7 for row in rows], pa.float64()),
            "text": pa.array([None if row % 9 == 0 else f"word {row % 13}" for row in rows]),
            "list": pa.array([[row] * (row % 4) for row in rows], pa.list_(pa.int32())),
        }
    )


def content(kind: str, compression: str) -> bytes:
    sink = pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(sample(), sink, row_group_size=70, compression=compression, write_page_checksum=True)
    else:
        options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
        with pa.ipc.new_file(sink, sample().schema, options=options) as writer:
            writer.write_table(sample(), max_chunksize=70)
    return bytes(sink.getvalue())


def decoder(kind: str) -> Callable[[list[bytes]], list[str]]:
    """Of each file: 'equal', 'other schema', 'other values', 'other rows' (fewer, or more), a code, or what was raised
    that is not ours."""
    folder = Path(tempfile.mkdtemp())
    whole = sample()

    def outcome(data: bytes) -> str:
        path = folder / f"damaged.{'parquet' if kind == 'parquet' else 'arrow'}"
        path.write_bytes(data)
        store, source = Store(str(folder)), make_source(kind)
        stat: Any = store.stat(path.name)
        try:
            file, schema = source.inspect(store, stat, whole.schema.names)
            if schema != whole.schema:
                return "other schema"
            rows = tuple(group.rows for group in file.row_groups)
            inputs = InputSlice(0, stat.url, stat.size, stat.version, 0, rows)
            with source.open(store, inputs, whole.schema.names) as reader:
                read = pa.concat_tables([reader.read(index) for index in range(len(rows))] or [whole.slice(0, 0)])
        except RunnerError as error:
            return str(error.facts.get("code", type(error).__name__))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if len(read) != len(whole):
            return "other rows"
        return "equal" if read.equals(whole) else "other values"

    return lambda files: [outcome(data) for data in files]
