"""Parquet alone: footers of every kind, pages that do not match their checksum, and how parts are encoded."""

from __future__ import annotations

import base64
import io
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from memory_file import MemoryFile

from connectors.formats import parquet
from connectors.formats.parquet import ParquetEncoder, ParquetSource, dictionary_columns, variants
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError
from jobs.plan import InputFile

encryption = pytest.importorskip("pyarrow.parquet.encryption")

TABLE = pa.table({"name": [f"n{i}" for i in range(1000)], "id": np.arange(1000)})


class Memory:
    """A store of one file, that counts reads."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads = 0

    def stat(self, path: str) -> FileStat:
        return FileStat(path, len(self.content), "1")

    def open(self, path: str, planned: FileStat | None = None) -> Any:
        store = self

        class Counted(MemoryFile):
            def readinto(self, buffer: Any) -> int:
                store.reads += 1
                return super().readinto(buffer)

        return Counted(self.content)


def encoded(table: pa.Table = TABLE, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **{"write_page_checksum": True, **options})
    return file.getvalue()


def inspect(content: bytes, columns: Sequence[str] = ()) -> tuple[InputFile, pa.Schema]:
    store: Any = Memory(content)
    return ParquetSource().inspect(store, store.stat("f.parquet"), columns)


def refused(content: bytes, columns: Sequence[str] = ()) -> InputError:
    with pytest.raises(InputError) as caught:
        inspect(content, columns)
    return caught.value


def read(content: bytes, columns: Sequence[str]) -> pa.Table:
    file, _ = inspect(content, columns)
    inputs = InputSlice(0, "f.parquet", file.size, "1", 0, tuple(group.rows for group in file.row_groups))
    store: Any = Memory(content)
    with ParquetSource().open(store, inputs, columns) as reader:
        return pa.concat_tables([reader.read(index) for index in range(len(inputs.rows))])


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1
    assert len(old) == len(new)
    return content.replace(old, new)


def test_a_footer_that_claims_more_bytes_than_the_file_has_is_refused() -> None:
    error = refused(encoded()[:-8] + b"\xff\xff\xff\x7f" + b"PAR1")
    assert error.facts["code"] == "FILE_FOOTER"
    assert "2147483647 bytes" in error.message


def test_a_footer_of_garbage_is_refused() -> None:
    content = encoded()
    assert refused(content[:-200] + bytes(192) + content[-8:]).facts["code"] == "FILE_FOOTER"


def test_a_column_name_that_is_not_utf8_is_refused() -> None:
    content = encoded(pa.table({"nnnn": [1]}), store_schema=False).replace(b"nnnn", b"n\xff\xfen")
    error = refused(content)
    assert (error.facts["code"], "UTF-8" in error.message) == ("FILE_SCHEMA", True)


def test_rows_without_row_groups_are_refused() -> None:
    # Thrift compact: field 3 (i64, zigzag) is the count of rows, field 4 the list of row groups.
    file = io.BytesIO()
    pq.ParquetWriter(file, TABLE.schema).close()
    content = patched(file.getvalue(), b"\x16\x00\x19\x0c", b"\x16\x06\x19\x0c")
    error = refused(content)
    assert (error.facts["code"], "claims 3 rows and has no row group" in error.message) == ("FILE_FOOTER", True)


def test_rows_are_counted_by_row_groups_and_not_by_the_file(caplog: pytest.LogCaptureFixture) -> None:
    content = patched(encoded(TABLE.slice(0, 3)), b"\x16\x06\x19\x1c", b"\x16\x08\x19\x1c")
    with caplog.at_level(logging.WARNING):
        file, _ = inspect(content)
    assert [group.rows for group in file.row_groups] == [3]
    assert "claims 4 rows, its row groups 3" in caplog.text


def test_a_codec_that_is_not_known_is_refused_when_its_column_is_wanted() -> None:
    content = encoded(compression="none")
    path_and_codec = b"\x19\x18\x02id\x15"
    content = patched(content, path_and_codec + b"\x00", path_and_codec + b"\x06")  # LZO
    error = refused(content, ["name", "id"])
    assert (error.facts["code"], "'id'" in error.message) == ("FILE_UNSUPPORTED", True)
    assert read(content, ["name"]).num_rows == 1000


class KeysInTheClear(encryption.KmsClient):  # type: ignore[misc]
    def __init__(self, _: Any) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64decode(key)


def encrypted(plaintext_footer: bool) -> bytes:
    factory = encryption.CryptoFactory(KeysInTheClear)
    what = encryption.EncryptionConfiguration("f", column_keys={"c": ["id"]}, plaintext_footer=plaintext_footer)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), what)
    return encoded(encryption_properties=properties)


def test_an_encrypted_file_is_refused() -> None:
    assert refused(encrypted(plaintext_footer=False)).facts["code"] == "FILE_ENCRYPTED"


def test_an_encrypted_column_is_refused_and_its_plain_neighbours_are_read() -> None:
    content = encrypted(plaintext_footer=True)
    error = refused(content, ["name", "id"])
    assert (error.facts["code"], "column 'id'" in error.message) == ("FILE_ENCRYPTED", True)
    assert read(content, ["name"]).equals(TABLE.select(["name"]))


_DAMAGED_FOOTERS = """
import io, random, sys
import pyarrow as pa, pyarrow.parquet as pq
from connectors.formats.parquet import ParquetSource
from connectors.store.listing import FileStat
from jobs.errors import InputError

file = io.BytesIO()
pq.write_table(pa.table({"a": [1, 2], "l": [[1.0], [2.0]], "s": ["x", "y"]}), file, store_schema=False)
content = file.getvalue()
footer = int.from_bytes(content[-8:-4], "little")

class Memory:
    def open(self, url):
        return io.BytesIO(damaged)

for seed in range(600):
    draw, damaged = random.Random(seed), bytearray(content)
    damaged[len(content) - 9 - draw.randrange(footer)] ^= 1 << draw.randrange(8)
    try:
        ParquetSource().inspect(Memory(), FileStat("f", len(content), ""), ["a", "l", "s"])
    except InputError:
        pass
print("alive")
"""


def test_a_damaged_footer_never_takes_the_process_down() -> None:
    # In a child: pyarrow's own way to look at column metadata ends the process for some of these.
    root = Path(parquet.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _DAMAGED_FOOTERS], capture_output=True, text=True, cwd=root, timeout=60
    )
    assert (done.stdout, done.returncode) == ("alive\n", 0), done.stderr[-500:]


def test_a_flipped_byte_in_a_page_is_an_error_and_never_another_value() -> None:
    content = encoded(row_group_size=500, compression="none", use_dictionary=False)
    draw = np.random.default_rng(3)
    first = pq.read_metadata(io.BytesIO(content)).row_group(1).column(1)
    codes = set()
    for _ in range(60):
        place = first.data_page_offset + int(draw.integers(first.total_compressed_size))
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        with pytest.raises(DataError) as caught:
            read(bytes(damaged), ["id", "name"])
        assert caught.value.facts | {"code": ""} == {"code": "", "file": "f.parquet", "row_group": 1, "column": "id"}
        codes.add(caught.value.facts["code"])
    assert codes == {"PAGE_CRC", "PAGE_CORRUPT"}  # the latter where the header of the page was hit


def test_row_40_a_byte_that_is_flipped_on_the_way_is_fetched_again() -> None:
    content = encoded(compression="none", use_dictionary=False)
    page = pq.read_metadata(io.BytesIO(content)).row_group(0).column(1).data_page_offset + 100

    class Noisy(Memory):
        flipped = False

        def open(self, path: str, planned: FileStat | None = None) -> Any:
            store = self

            class File(MemoryFile):
                def readinto(self, buffer: Any) -> int:
                    start, count = self.tell(), super().readinto(buffer)
                    # The first read of pages alone: what was read before it brought footers.
                    if start <= page < start + count < len(content) and not store.flipped:
                        store.flipped, buffer[page - start] = True, buffer[page - start] ^ 0xFF
                    return count

            return File(self.content)

    store: Any = Noisy(content)
    inputs = InputSlice(0, "f.parquet", len(content), "1", 0, (1000,))
    with ParquetSource().open(store, inputs, ["id", "name"]) as reader:
        assert reader.read(0) == TABLE.select(["id", "name"])
    assert store.flipped


def test_a_column_with_other_rows_than_its_row_group_is_an_error() -> None:
    content = encoded(compression="none", use_dictionary=False)
    # The header of a data page starts with its count of values: 1000 (d0 0f) becomes 999, which no checksum covers.
    header = b"\x1c\x15\xd0\x0f\x15"
    place = content.rfind(header)
    with pytest.raises(DataError, match="999 rows found, 1000 expected") as caught:
        read(content[:place] + b"\x1c\x15\xce\x0f\x15" + content[place + len(header) :], ["name", "id"])
    assert (caught.value.facts["code"], caught.value.facts["column"]) == ("ROWGROUP_ROWS", "id")


def test_bytes_are_those_of_the_columns_asked_for_nested_ones_included() -> None:
    table = pa.table({"a": np.arange(100), "s": [{"x": 1.0, "y": [1, 2]}] * 100, "s.x": ["t"] * 100})
    content = encoded(table, use_dictionary=False, compression="zstd")
    group = pq.read_metadata(io.BytesIO(content)).row_group(0)
    sizes = [max(group.column(i).total_uncompressed_size, group.column(i).num_values * 8) for i in range(3)]
    assert [group.column(i).path_in_schema for i in range(3)] == ["a", "s.x", "s.y.list.element"]
    assert inspect(content, ["a"])[0].row_groups[0].bytes == sizes[0]
    assert inspect(content, ["s"])[0].row_groups[0].bytes == sizes[1] + sizes[2]
    assert inspect(content, ["nope"])[0].row_groups[0].bytes == 0


def test_runs_count_by_what_they_decode_to() -> None:
    file, _ = inspect(encoded(pa.table({"a": np.zeros(100_000, np.int64)})), ["a"])
    assert file.size < 10_000
    assert file.row_groups[0].bytes == 800_000


def test_a_row_group_beyond_any_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_ROW_GROUP_BYTES", 799_999)
    error = refused(encoded(pa.table({"a": np.zeros(100_000, np.int64)})), ["a"])
    assert error.facts["code"] == "ROWGROUP_TOO_BIG"


def test_empty_row_groups_between_full_ones_are_read() -> None:
    file = io.BytesIO()
    with pq.ParquetWriter(file, TABLE.schema) as writer:
        for rows in (3, 0, 2, 0):
            writer.write_table(TABLE.slice(0, rows))
    found, _ = inspect(file.getvalue(), ["id"])
    assert [group.rows for group in found.row_groups] == [3, 0, 2, 0]
    assert read(file.getvalue(), ["id"])["id"].to_pylist() == [0, 1, 2, 0, 1]


def test_two_of_many_columns_are_found_in_a_long_footer() -> None:
    content = encoded(pa.table({f"c{index}": [index] for index in range(2000)}))
    assert int.from_bytes(content[-8:-4], "little") > 64 * 1024
    assert read(content, ["c1999", "c7"]).to_pydict() == {"c1999": [1999], "c7": [7]}


def test_a_row_group_is_fetched_in_one_read_and_a_footer_in_one() -> None:
    content = encoded(pa.table({f"c{i}": np.arange(60_000) for i in range(6)}), row_group_size=30_000)
    store: Any = Memory(content)
    source = ParquetSource()
    file, _ = source.inspect(store, store.stat("f"), ["c0"])
    assert store.reads == 1
    inputs = InputSlice(0, "f", file.size, "1", 0, (30_000, 30_000))
    with source.open(store, inputs, [f"c{i}" for i in range(6)]) as reader:
        assert store.reads == 2
        reader.read(1)
        assert store.reads == 3


def test_a_file_on_a_store_that_is_not_local_is_read() -> None:
    store = Store("memory://parquet-test")
    assert store.create("a.parquet", encoded())
    (stat,) = store.list(["memory://parquet-test/a.parquet"], ParquetSource.suffixes).files
    file, _ = ParquetSource().inspect(store, stat, ["id"])
    inputs = InputSlice(0, file.url, file.size, file.version, 0, (1000,))
    with ParquetSource().open(store, inputs, ["id"]) as reader:
        assert reader.read(0).equals(TABLE.select(["id"]))


def part(tmp_path: Path, table: pa.Table) -> pq.FileMetaData:
    writer = ParquetEncoder().open(tmp_path / "part", table.schema, "zstd")
    for batch in table.to_batches():
        writer.write(batch)
    writer.close({})
    return pq.read_metadata(tmp_path / "part")


def test_floating_point_has_no_dictionary_and_text_has_one(tmp_path: Path) -> None:
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((9, 2, 2), np.float32))
    half = pa.array(np.ones(9, np.float16))
    table = pa.table({"score": np.ones(9), "tensor": tensor, "half": half, "text": ["same"] * 9, "id": [7] * 9})
    assert dictionary_columns(table.schema) == ["text", "id"]
    group = part(tmp_path, table).row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    assert [chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page] == ["text", "id"]
    assert {chunk.compression for chunk in chunks} == {"ZSTD"}


def test_pages_of_a_part_carry_checksums(tmp_path: Path) -> None:
    part(tmp_path, pa.table({"score": np.random.default_rng(0).random(1000)}))
    damaged = bytearray((tmp_path / "part").read_bytes())
    damaged[1000] ^= 1
    with pytest.raises(DataError) as caught:
        read(bytes(damaged), ["score"])
    assert caught.value.facts["code"] == "PAGE_CRC"


def test_tensors_stay_tensors_for_other_readers(tmp_path: Path) -> None:
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((9, 2, 2), np.float32))
    part(tmp_path, pa.table({"tensor": tensor}))
    assert pq.read_table(tmp_path / "part")["tensor"].combine_chunks().to_numpy_ndarray().shape == (9, 2, 2)


@pytest.mark.parametrize("cut", [lambda content: content[:-1], lambda content: b"PAR1PAR1", lambda content: b"PAR1"])
def test_a_file_without_its_end_is_truncated(cut: Callable[[bytes], bytes]) -> None:
    assert refused(cut(encoded())).facts["code"] == "FILE_TRUNCATED"


def test_a_variant_is_told_from_a_struct_of_the_same_fields() -> None:
    fields = [("metadata", pa.binary()), ("value", pa.binary())]
    raw = pa.schema([("v", pa.struct(fields)), ("s (Variant", pa.struct(fields)), ("id", pa.int64())])
    printed = """
required group field_id=-1 table {
  optional group field_id=2 v (Variant(1)) {
    required binary field_id=-1 metadata;
  }
  optional group field_id=-1 s (Variant {
  }
  required int64 field_id=1 id;
}
"""
    assert variants(raw, lambda: printed) == ["v"]
    assert variants(raw.remove(0).remove(0), lambda: pytest.fail("it is not printed")) == []
