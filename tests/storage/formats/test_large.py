"""Files of a few kB that are large when they are decoded: read as they are, or refused before they are in memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from memory_file import MemoryFile

from connectors.formats.registry import make_source
from connectors.store.store import FileStat
from jobs.attempt import InputSlice
from jobs.errors import DataError, RunnerError

MIB = 2**20


class Memory:
    """A store of one file."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def stat(self, path: str) -> FileStat:
        return FileStat(path, len(self.content), "1")

    def open(self, path: str, expected: FileStat | None = None) -> Any:
        return MemoryFile(self.content)


def encoded(kind: str, table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, file, **{"compression": "zstd", "row_group_size": table.num_rows, **options})
    else:
        with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
    return file.getvalue()


def read(kind: str, content: bytes, columns: list[str], most_bytes: int = 16 * 2**30) -> pa.Table:
    """The one row group."""
    store: Any = Memory(content)
    source = make_source(kind)
    source.max_row_group_bytes = most_bytes
    file, _ = source.inspect(store, store.stat("f"), columns)
    inputs = InputSlice(0, "f", file.size, "1", 0, tuple(group.rows for group in file.row_groups))
    with source.open(store, inputs, columns) as reader:
        return reader.read(0)


def too_big(kind: str, content: bytes, columns: list[str], most_bytes: int) -> RunnerError:
    """The refusal of a row group; nothing of the size of the limit was made for it."""
    pool = pa.default_memory_pool()
    peak, now = pool.max_memory(), pool.bytes_allocated()
    with pytest.raises(DataError) as caught:
        read(kind, content, columns, most_bytes)
    assert pool.max_memory() <= max(peak, now + most_bytes)
    assert (caught.value.facts["code"], caught.value.facts["row_group"]) == ("ROWGROUP_TOO_BIG", 0)
    return caught.value


def shared(texts: list[str], rows: int) -> dict[str, pa.Array]:
    """`rows` rows that repeat `texts` in turn, in every type that holds each text once."""
    turn = np.arange(rows, dtype=np.int32) % len(texts)
    some = pa.array(texts, pa.string_view())
    words = np.frombuffer(some.buffers()[1], np.int64).reshape(-1, 2)[turn]
    views = pa.Array.from_buffers(some.type, rows, [None, pa.py_buffer(words.copy()), *some.buffers()[2:]])
    dictionary = pa.DictionaryArray.from_arrays(pa.array(turn), pa.array(texts))
    pairs = pa.array(np.arange(0, rows + 1, 2, np.int32))
    return {
        "views": views,
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([rows - 1, rows]), pa.array(texts[:2])),
        "dictionary": dictionary,
        "lists of views": pa.ListArray.from_arrays(pairs, views),
        "lists of a dictionary": pa.ListArray.from_arrays(pairs, dictionary),
        "structs of views": pa.StructArray.from_arrays([views, views], ["a", "b"]),
        "maps to views": pa.MapArray.from_arrays(pairs, pa.array([f"k{row}" for row in range(rows)]), views),
    }


KINDS = list(shared(["a", "b"], 2))


@pytest.mark.parametrize("kind", KINDS)
def test_an_arrow_batch_is_refused_by_what_it_decodes_to_and_not_by_its_bytes(kind: str) -> None:
    column = shared(["x" * MIB, "y" * MIB], 1000)[kind]
    content = encoded("arrow", pa.table({"n": range(len(column)), "t": column}))
    assert len(content) < 200_000
    error = too_big("arrow", content, ["n", "t"], 20 * MIB)
    assert error.facts["column"] == "t"
    assert "cannot read 'f' row group 0 column 't': " in error.message
    assert "bytes when decoded" in error.message
    assert "`limits.max_row_group_bytes`" in error.message
    assert read("arrow", content, ["n"], 20 * MIB).num_rows == len(column)


def texts_of(column: pa.Array) -> pa.Array:
    """The innermost texts, in order."""
    if pa.types.is_map(column.type):
        return texts_of(column.items)
    if pa.types.is_struct(column.type):
        return texts_of(column.field("a"))
    return texts_of(column.flatten()) if pa.types.is_nested(column.type) else column


@pytest.mark.surprises
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_more_than_2_gib_of_text_is_read_as_it_is(kind: str, saw: Callable[[str], None]) -> None:
    rows = 26 if kind == "structs of views" else 44
    content = encoded("arrow", pa.table({"t": shared([letter * (100 * MIB) for letter in "abc"], rows)[kind]}))
    found = read("arrow", content, ["t"])["t"]
    seen: list[str] = []
    for chunk in found.chunks:
        chunk.validate(full=True)
        texts = texts_of(chunk)
        assert set(pc.binary_length(texts).to_pylist()) == {100 * MIB}
        seen += pc.utf8_slice_codeunits(texts, 0, 1).to_pylist()
    assert seen == [("a" if row < rows - 1 else "b") if kind == "runs" else "abc"[row % 3] for row in range(rows)]
    saw(f"an Arrow file of {len(content):,} bytes: {found.nbytes:,} decoded, in {found.num_chunks} pieces")
