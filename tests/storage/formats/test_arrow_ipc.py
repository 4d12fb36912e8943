"""Arrow IPC alone: streams and old versions, batches whose offsets lie, rows counted without decoding."""

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

from connectors.formats.arrow_ipc import ArrowEncoder, ArrowSource, fixed_bits
from connectors.store.store import FileStat
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError
from jobs.plan import InputFile, RowGroup

TABLE = pa.table({"id": np.arange(10), "text": [f"t{i}" for i in range(10)], "x": np.arange(10, dtype=np.float32)})


class Memory:
    """A store of one file."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def stat(self, path: str) -> FileStat:
        return FileStat(path, len(self.content), "1")

    def open(self, path: str, planned: FileStat | None = None) -> Any:
        return MemoryFile(self.content)


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


def test_a_stream_is_refused_and_says_how_to_make_it_a_file() -> None:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, TABLE.schema) as writer:
        writer.write_table(TABLE)
    error = refused(file.getvalue())
    assert error.facts["code"] == "FILE_MAGIC"
    assert "Arrow IPC stream" in error.message
    assert "write_feather" in error.message


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


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_a_part_reads_as_a_plain_table_elsewhere(tmp_path: Path, compression: str) -> None:
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((10, 2, 2), np.float32))
    table = TABLE.append_column("tensor", tensor)
    writer = ArrowEncoder().open(tmp_path / "part.arrow", table.schema, compression)
    for batch in table.to_batches(3):
        writer.write(batch)
    assert writer.close({"shard": 1}) == 10
    assert feather.read_table(tmp_path / "part.arrow").equals(table)
