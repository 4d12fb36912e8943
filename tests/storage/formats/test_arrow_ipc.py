"""Arrow IPC files alone: old versions, batches whose offsets lie, rows counted without decoding."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pytest
from memory_file import MemoryFile

from connectors.formats.arrow.encoder import ArrowEncoder
from connectors.formats.arrow.footer import read_places
from connectors.formats.arrow.message import read_blocks
from connectors.formats.arrow.source import ArrowSource, fixed_bits
from connectors.formats.buffered import BufferedFile
from connectors.store.store import FileStat
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError
from jobs.plan import InputFile, RowGroup

TABLE = pa.table({"id": np.arange(10), "text": [f"t{i}" for i in range(10)], "x": np.arange(10, dtype=np.float32)})


class Memory:
    """A store of one file, that counts reads and their bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads: list[int] = []

    def stat(self, path: str) -> FileStat:
        return FileStat(path, len(self.content), "1")

    def open(self, path: str, planned: FileStat | None = None) -> Any:
        reads = self.reads

        class Counted(MemoryFile):
            def readinto(self, buffer: Any) -> int:
                reads.append(count := super().readinto(buffer))
                return count

        return Counted(self.content)


def encoded(table: pa.Table = TABLE, rows: int = 4, **options: Any) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return file.getvalue()


def inspect(content: bytes, columns: Sequence[str] = ()) -> InputFile:
    store: Any = Memory(content)
    return ArrowSource().inspect(store, store.stat("f.arrow"), columns)[0]


def refused(content: bytes) -> InputError:
    with pytest.raises(InputError) as caught:
        inspect(content)
    return caught.value


def read(content: bytes, columns: Sequence[str]) -> pa.Table:
    file = inspect(content, columns)
    inputs = InputSlice(0, "f.arrow", file.size, "1", 0, tuple(group.rows for group in file.row_groups))
    store: Any = Memory(content)
    with ArrowSource().open(store, inputs, columns) as reader:
        return pa.concat_tables([reader.read(index) for index in range(len(inputs.rows))])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd"},
        {"compression": "lz4"},
        {"metadata_version": pa.ipc.MetadataVersion.V4},
        {"metadata_version": pa.ipc.MetadataVersion.V4, "use_legacy_format": True},
    ],
)
def test_every_version_that_pyarrow_writes_is_counted_and_read(options: dict[str, Any]) -> None:
    content = encoded(**options)
    assert [group.rows for group in inspect(content).row_groups] == [4, 4, 2]
    assert read(content, ["x", "id"]).equals(TABLE.select(["x", "id"]))


def test_feather_version_1_is_named(tmp_path: Path) -> None:
    assert "Feather V1" in refused(b"FEA1" + bytes(100)).message


def test_rows_are_counted_without_decoding() -> None:
    content = bytearray(encoded(compression="zstd"))
    with pa.ipc.open_file(pa.BufferReader(bytes(content))) as file:
        assert file.num_record_batches == 3
    place = content.find(b"\x28\xb5\x2f\xfd")  # the first zstd frame
    content[place : place + 8] = bytes(8)
    assert [group.rows for group in inspect(bytes(content)).row_groups] == [4, 4, 2]
    with pytest.raises(DataError) as caught:
        read(bytes(content), ["id"])
    assert caught.value.facts == {"code": "BATCH_INVALID", "file": "f.arrow", "row_group": 0}


def test_offsets_that_lie_are_an_error_and_no_crash() -> None:
    content = encoded(TABLE.select(["text"]), rows=10)
    offsets = struct.pack("<4i", 0, 2, 4, 6)
    assert content.count(offsets) == 1
    with pytest.raises(DataError, match="row group 0") as caught:
        read(content.replace(offsets, struct.pack("<4i", 0, 2, 2**30, 6)), ["text"])
    assert caught.value.facts["code"] == "BATCH_INVALID"


def test_text_that_is_not_utf8_is_an_error_only_where_it_is_read() -> None:
    content = encoded(rows=10).replace(b"t0t1t2", b"t0\xff\xfet2")
    with pytest.raises(DataError, match=r"(?i)utf-?8"):
        read(content, ["text"])
    assert read(content, ["id"]).num_rows == 10


def test_a_future_version_is_refused() -> None:
    content = bytearray(encoded())
    length = int.from_bytes(content[-10:-6], "little")
    start = len(content) - 10 - length
    root = start + struct.unpack_from("<I", content, start)[0]
    fields = root - struct.unpack_from("<i", content, root)[0]
    struct.pack_into("<h", content, root + struct.unpack_from("<H", content, fields + 4)[0], 5)
    error = refused(bytes(content))
    assert (error.facts["code"], "V6" in error.message) == ("FILE_UNSUPPORTED", True)


def test_a_footer_of_garbage_is_refused() -> None:
    content = encoded()
    length = int.from_bytes(content[-10:-6], "little")
    for garbage in (bytes(length), b"\xff" * length, b"\x10" + bytes(length - 1)):
        assert refused(content[: -10 - length] + garbage + content[-10:]).facts["code"] == "FILE_FOOTER"
    assert refused(content[:-10] + struct.pack("<i", -5) + b"ARROW1").facts["code"] == "FILE_FOOTER"


def test_runs_and_shared_dictionaries_arrive_as_plain_values() -> None:
    text = pa.array(["a", "a", None, "b"])
    table = pa.table({"runs": pc.run_end_encode(text), "dictionary": text.dictionary_encode()})
    found = read(encoded(table, rows=2), ["dictionary", "runs"])
    assert found.to_pydict() == {"dictionary": text.to_pylist(), "runs": text.to_pylist()}
    assert found.schema.types == [pa.string(), pa.string()]


def test_bytes_are_exact_for_fixed_width_and_a_share_of_the_file_for_the_rest() -> None:
    content = encoded(rows=10)
    assert inspect(content, ["id", "x"]).row_groups == (RowGroup(10, 10 * 12),)
    assert 0 < inspect(content, ["text"]).row_groups[0].bytes < len(content)
    assert inspect(content, []).row_groups == (RowGroup(10, 0),)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        (pa.bool_(), 1),
        (pa.list_(pa.float32(), 3), 96),
        (pa.struct([("a", pa.int8()), ("b", pa.list_(pa.int16(), 2))]), 40),
        (pa.fixed_shape_tensor(pa.uint8(), [2, 2]), 32),
        (pa.null(), 0),
        (pa.string(), None),
        (pa.list_(pa.int8()), None),
        (pa.struct([("a", pa.string())]), None),
        (pa.list_(pa.binary(), 2), None),
    ],
)
def test_the_width_of_a_type_is_known(kind: pa.DataType, bits: int | None) -> None:
    assert fixed_bits(kind) == bits


NUMBERS = {f"c{index:03d}": np.random.default_rng(index).random(8_000) for index in range(60)}
WIDE = pa.table({**NUMBERS, "text": ["some text"] * 8_000})


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("left_out", [0, 1, 30, 59])
def test_a_batch_is_fetched_in_one_request_whatever_its_columns(compression: str | None, left_out: int) -> None:
    store: Any = Memory(encoded(WIDE, rows=2_000, compression=compression))
    columns = WIDE.column_names[left_out:]
    source = ArrowSource()
    file, _ = source.inspect(store, store.stat("f"), columns)
    assert len(store.reads) <= 2 + 4  # the end, the start, and what describes each batch
    store.reads.clear()
    inputs = InputSlice(0, "f", file.size, "1", 2, tuple(group.rows for group in file.row_groups[2:]))
    with source.open(store, inputs, columns) as reader:
        assert len(store.reads) <= 2 + 2
        store.reads.clear()
        tables = [reader.read(index) for index in (2, 3)]
    assert pa.concat_tables(tables).equals(WIDE.select(columns)[4_000:])
    assert len(store.reads) == 2
    assert sum(store.reads) < len(store.content) / 2 * (60 - left_out) / 60 + 100_000


def test_two_far_columns_take_two_requests_and_not_what_lies_between() -> None:
    store: Any = Memory(encoded(WIDE, rows=8_000, compression="zstd"))
    with ArrowSource().open(
        store, InputSlice(0, "f", len(store.content), "1", 0, (8_000,)), ["c000", "text"]
    ) as reader:
        store.reads.clear()
        assert reader.read(0).equals(WIDE.select(["c000", "text"]))
    assert (len(store.reads), sum(store.reads) < len(store.content) / 20) == (2, True)


def test_dictionaries_are_fetched_with_the_first_batch() -> None:
    words = pa.array([f"a word, number {row % 5_000}" for row in range(20_000)])
    table = pa.table({f"d{i}": words.dictionary_encode() for i in range(10)})
    store: Any = Memory(encoded(table, rows=5_000, compression="zstd"))
    with ArrowSource().open(
        store, InputSlice(0, "f", len(store.content), "1", 0, (5_000,) * 4), ["d3", "d4"]
    ) as reader:
        store.reads.clear()
        assert reader.read(0)["d4"].to_pylist() == words[:5_000].to_pylist()
        assert len(store.reads) <= 2
        assert reader.read(1).num_rows == 5_000
    assert len(store.reads) <= 3


FIRST = ("flag", "text")
TURNS = pa.array([0, 1] * 3, pa.int8())
PLACES = pa.array([0, 0, 1, 1, 2, 2], pa.int32())
LAYOUTS = pa.table(
    {
        "null": pa.nulls(6),
        "flag": [True, None] * 3,
        "text": ["a", None] * 3,
        "views": pa.array(["a long text of a view", None] * 3, pa.string_view()),
        "lists": [[1], None, [2, 3]] * 2,
        "list views": pa.array([[1], None, [2, 3]] * 2, pa.list_view(pa.int64())),
        "fixed": pa.array([[1, 2], None] * 3, pa.list_(pa.int8(), 2)),
        "structs": [{"a": 1, "b": ["x"]}, None] * 3,
        "maps": pa.array([[("k", "v")], None] * 3, pa.map_(pa.string(), pa.string_view())),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 6], pa.int32()), pa.array(["a", "b"])),
        "dictionary": pa.array(["a", None] * 3).dictionary_encode(),
        "sparse": pa.UnionArray.from_sparse(TURNS, [pa.array(range(6)), pa.array(["u"] * 6)]),
        "dense": pa.UnionArray.from_dense(TURNS, PLACES, [pa.array([1, 2, 3]), pa.nulls(3)]),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((6, 2, 2), np.float32)),
        "decimal": pa.array([None] * 6, pa.decimal128(9, 2)),
        "last": range(6),
    }
)


V4, V5 = pa.ipc.MetadataVersion.V4, pa.ipc.MetadataVersion.V5
V4_HAS_NONE = ("sparse", "dense")  # at least pyarrow writes none


@pytest.mark.parametrize(
    ("name", "version"),
    [(name, V5) for name in LAYOUTS.column_names]
    + [(name, V4) for name in LAYOUTS.column_names if name not in V4_HAS_NONE],
)
def test_the_buffers_of_every_type_are_known(name: str, version: Any) -> None:
    table = LAYOUTS.select(list(dict.fromkeys([*FIRST, name, "last"])))
    content = encoded(table, rows=6, metadata_version=version)
    with BufferedFile(io.BytesIO(content), "f", len(content)) as file:
        places, _ = read_places(file)
        (block,) = read_blocks(file, places)
    found = block.of_columns(table.schema)
    assert sum(map(len, found)) == len(block.buffers)
    assert [size for _, size in found[-1]][-1] == 6 * 8


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.int64()), pa.string_view()], ids=str)
def test_a_compressed_batch_is_refused_by_what_it_claims_before_it_is_decoded(
    compression: str, kind: pa.DataType
) -> None:
    values = pa.array([[0] * 125_000] * 8 if pa.types.is_list(kind) else ["x" * 1_000_000] * 8, kind)
    content = encoded(pa.table({"n": range(8), "t": values}), compression=compression, rows=8)
    assert len(content) < 100_000
    store: Any = Memory(content)
    source = ArrowSource()
    source.max_row_group_bytes = 7_000_000
    pool = pa.default_memory_pool()
    before, peak = pool.bytes_allocated(), pool.max_memory()
    inputs = InputSlice(0, "f", len(content), "1", 0, (8,))
    found = r"column 't': 8,0\d\d,\d\d\d bytes when decoded"
    with source.open(store, inputs, ["n", "t"]) as reader, pytest.raises(DataError, match=found) as caught:
        reader.read(0)
    assert caught.value.facts == {"code": "ROWGROUP_TOO_BIG", "file": "f", "row_group": 0, "column": "t"}
    assert pool.max_memory() <= max(peak, before + 7_000_000)
    source.max_row_group_bytes = 9_000_000
    assert read(content, ["n", "t"]).num_rows == 8


def test_what_a_plan_knows_of_a_batch_it_says() -> None:
    """Whole where nothing is compressed or shared; at least, where it is."""
    (plain,) = inspect(encoded(TABLE, rows=10), ["id", "text"]).row_groups
    assert (plain.exact, 80 + 44 + 20 <= plain.decoded_bytes < 300) == (True, True)  # buffers are filled up
    (packed,) = inspect(encoded(TABLE, rows=10, compression="zstd"), ["id", "text"]).row_groups
    assert (packed.exact, packed.decoded_bytes >= 80) == (False, True)
    assert inspect(encoded(TABLE, rows=10, compression="zstd"), ["id", "x"]).row_groups[0].exact
    views = pa.table({"v": pa.array(["a"] * 10, pa.string_view())})
    assert not inspect(encoded(views, rows=10), ["v"]).row_groups[0].exact


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_a_part_reads_as_a_plain_table_elsewhere(tmp_path: Path, compression: str) -> None:
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((10, 2, 2), np.float32))
    table = TABLE.append_column("tensor", tensor)
    writer = ArrowEncoder().open(tmp_path / "part.arrow", table.schema, compression)
    for batch in table.to_batches(3):
        writer.write(batch)
    assert writer.close({"shard": 1}) == 10
    assert feather.read_table(tmp_path / "part.arrow").equals(table)
