"""Files of a few kB that are large when they are decoded: read as they are, or refused before they are in memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from memory_file import MemoryStore

from connectors.formats import parquet
from connectors.formats.chunk import TextSizes
from connectors.formats.parquet import ParquetSource
from connectors.formats.registry import make_source
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError, RunnerError
from jobs.plan import RowGroup
from jobs.section.limits import Limits
from runner.preflight.input.files import inspect

MIB = 2**20


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
    store: Any = MemoryStore(content)
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
    assert pool.max_memory() <= max(peak, now + 3 * most_bytes)
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


def inspected(content: bytes) -> RowGroup:
    store: Any = MemoryStore(content)
    source = ParquetSource()
    names = source.schema(store, store.stat("f")).names
    return source.inspect(store, store.stat("f"), names)[0].row_groups[0]


SENTENCES = ["a text", "another text", "x" * 400, None]
COLUMNS: dict[str, pa.Array] = {
    "text": pa.array(SENTENCES * 500),
    "lists": pa.array([SENTENCES, [], None, ["one"]] * 500),
    "structs": pa.array([{"s": text, "n": 1} for text in SENTENCES] * 500),
    "maps": pa.array([[("key", text)] for text in SENTENCES] * 500, pa.map_(pa.string(), pa.string())),
    "ids": pa.array([b"sixteen bytes..."] * 2000, pa.binary(16)),
    "a dictionary": pa.array(SENTENCES * 500).dictionary_encode(),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("options", [{}, {"data_page_version": "2.0", "write_page_index": True}], ids=["1.0", "2.0"])
def test_a_footer_tells_what_text_takes_when_it_is_decoded(name: str, options: dict[str, Any]) -> None:
    table = pa.table({"first": range(2000), name: COLUMNS[name], "last": pa.array(["é"] * 2000)})
    content = encoded("parquet", table, **options)
    group = inspected(content)
    taken = read("parquet", content, table.column_names).nbytes
    assert group.exact
    assert 0.9 * taken < group.decoded_bytes < 1.1 * taken
    assert group.bytes < taken / 2


def test_where_no_footer_tells_it_a_plan_says_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": COLUMNS["text"]})
    prefixes = encoded("parquet", table, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    assert not inspected(prefixes).exact
    plain = inspected(encoded("parquet", table, use_dictionary=False))
    assert plain.exact
    monkeypatch.setattr(TextSizes, "of", lambda self, chunk: None)
    assert not inspected(encoded("parquet", table)).exact
    assert inspected(encoded("parquet", table)).decoded_bytes < plain.decoded_bytes
    assert inspected(encoded("parquet", table, use_dictionary=False)) == plain


def bomb(delivered_as: str = "text") -> bytes:
    """A Parquet file of a thousand rows, 1 MiB each."""
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 500), pa.array(["x" * MIB, "y" * MIB]))
    stored = delivered_as == "a dictionary"
    table = pa.table({"n": range(1000), "t": dictionary})
    return encoded("parquet", table, dictionary_pagesize_limit=4 * MIB, store_schema=stored)


@pytest.mark.parametrize("known", [True, False], ids=["stated", "not stated"])
@pytest.mark.parametrize("delivered_as", ["a dictionary", "text"])
def test_a_parquet_row_group_is_refused_by_what_it_decodes_to(
    known: bool, delivered_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bomb(delivered_as)
    assert len(content) < 20_000
    if not known:
        monkeypatch.setattr(TextSizes, "of", lambda self, chunk: None)
    error = too_big("parquet", content, ["n", "t"], 20 * MIB)
    assert error.facts["column"] == "t"
    assert "bytes when decoded" in error.message
    assert read("parquet", content, ["n"], 20 * MIB).num_rows == 1000


def test_what_a_plan_refuses_is_what_a_footer_states(tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_bytes(bomb())
    store = Store(str(tmp_path))
    files = store.list([str(tmp_path)], [".parquet"]).files
    with pytest.raises(InputError, match="allows 104,857,600") as caught:
        inspect(ParquetSource(), store, files, ["t"], Limits(max_row_group_bytes="100MiB"))
    assert caught.value.facts["code"] == "ROWGROUP_TOO_BIG"
    inspect(ParquetSource(), store, files, ["t"], Limits(max_row_group_bytes="1GiB"))


def test_a_row_group_whose_size_is_not_known_is_decoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it cannot pass the limit in between; here a hundred times what it could take if all were the longest."""
    table = pa.table(COLUMNS)
    content = encoded("parquet", table)
    whole = read("parquet", content, table.column_names)
    monkeypatch.setattr(TextSizes, "of", lambda self, chunk: None)
    found = read("parquet", content, table.column_names, 2 * whole.nbytes)
    assert found["text"].num_chunks > 1
    assert found.equals(whole)
    assert whole["text"].num_chunks == 1


def test_nested_text_beyond_what_offsets_reach_is_decoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({name: COLUMNS[name] for name in ("text", "lists", "structs", "maps")})
    content = encoded("parquet", table)
    whole = read("parquet", content, table.column_names)
    monkeypatch.setattr(parquet, "PIECE_BYTES", 20_000)
    found = read("parquet", content, table.column_names)
    assert found["lists"].num_chunks > 8
    assert found.equals(whole)


def test_parts_get_smaller_until_pyarrow_can_decode_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a list may be as uneven as they like."""
    content = encoded("parquet", pa.table({"lists": COLUMNS["lists"]}))
    raw, asked = parquet.ParquetReader._raw, []

    def unable(self: Any, row_group: int, columns: list[str], most_rows: int) -> Any:
        asked.append(most_rows)
        if not 0 < most_rows <= able:
            raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")
        return raw(self, row_group, columns, most_rows)

    monkeypatch.setattr(parquet.ParquetReader, "_raw", unable)
    monkeypatch.setattr(parquet, "PIECE_BYTES", 20_000)
    able = 10
    assert read("parquet", content, ["lists"]).num_rows == 2000
    assert asked == [*sorted(asked, reverse=True)]
    assert asked[-1] <= able
    able = 0
    with pytest.raises(DataError, match="a row of more than 20,000 bytes") as caught:
        read("parquet", content, ["lists"])
    assert caught.value.facts["code"] == "ROWGROUP_TOO_BIG"
    monkeypatch.setattr(parquet, "PIECE_BYTES", 2**31)
    with pytest.raises(DataError, match="Nested data conversions") as caught:
        read("parquet", content, ["lists"])
    assert caught.value.facts["code"] == "FILE_UNSUPPORTED"


@pytest.mark.surprises
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["text", "a dictionary", "lists", "structs", "maps", "lists, not stated"])
def test_more_than_2_gib_of_text_in_parquet_is_read_as_it_is(
    kind: str, saw: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = pa.array([letter * (100 * MIB) for letter in "abc"])
    rows, pair = 24, pa.array([0, 2], pa.int32())
    turns = [texts.take(pa.array([start % 3, (start + 1) % 3])) for start in range(0, rows, 2)]
    keys = pa.array([f"k{row}" for row in range(2)])
    columns: dict[str, Callable[[pa.Array], pa.Array]] = {
        "text": lambda two: two,
        "lists": lambda two: pa.ListArray.from_arrays(pair, two),
        "structs": lambda two: pa.StructArray.from_arrays([two], ["a"]),
        "maps": lambda two: pa.MapArray.from_arrays(pair, keys, two),
    }
    if kind == "a dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows) % 3), texts)
    else:
        column = pa.chunked_array([columns[kind.split(",")[0]](two) for two in turns])
    content = encoded("parquet", pa.table({"t": column}))
    if "not stated" in kind:
        monkeypatch.setattr(TextSizes, "of", lambda self, chunk: None)
    found = read("parquet", content, ["t"])["t"]
    seen: list[str] = []
    for chunk in found.chunks:
        chunk.validate(full=True)
        inner = texts_of(chunk)
        assert set(pc.binary_length(inner).to_pylist()) == {100 * MIB}
        seen += pc.utf8_slice_codeunits(inner, 0, 1).to_pylist()
    assert seen == ["abc"[row % 3] for row in range(rows)]
    saw(f"a Parquet file of {len(content):,} bytes: {found.nbytes:,} decoded, in {found.num_chunks} pieces")


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
