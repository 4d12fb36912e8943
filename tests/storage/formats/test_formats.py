"""What every file format promises: it reads back what it wrote, counts its rows, and leaves no half file behind."""

from __future__ import annotations

import gc
import io
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_file import MemoryFile

from connectors.formats import spool
from connectors.formats.buffered import BufferedFile, coalesced
from connectors.formats.plain import plain_schema, plain_table
from connectors.formats.registry import make_encoder, make_source
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError, InternalError, RunnerError, StorageError
from jobs.plan import InputFile

FORMATS = ["arrow", "parquet"]  # those that hold any table; see test_tfrecord.py for the other
HEADER: dict[str, object] = {"v": 1, "shard": 3, "inputs": [{"i": 0, "rows": 5}], "note": "ünïcode"}


def column_types() -> st.SearchStrategy[pa.DataType]:
    scalar = st.sampled_from(
        [
            pa.int8(),
            pa.int64(),
            pa.uint64(),
            pa.float16(),
            pa.float32(),
            pa.float64(),
            pa.bool_(),
            pa.string(),
            pa.large_string(),
            pa.binary(),
            pa.date32(),
            pa.timestamp("us", "UTC"),
            pa.decimal128(10, 2),
            pa.null(),
        ]
    )
    inner = scalar.filter(lambda kind: kind != pa.null())
    return st.one_of(
        scalar,
        inner.map(pa.list_),
        inner.map(lambda kind: pa.list_(kind, 3)),
        inner.map(lambda kind: pa.struct([("x", kind), ("y", pa.list_(pa.int32()))])),
        inner.map(lambda kind: pa.list_(pa.list_(kind))),
    )


def column(kind: pa.DataType, rows: int, seed: int) -> pa.Array:
    """`rows` values of `kind`, some null, as a slice with an offset."""
    draw = np.random.default_rng(seed)
    return pa.array([value(kind, draw) for _ in range(rows + 2)], kind).slice(1, rows)


def value(kind: pa.DataType, draw: np.random.Generator) -> Any:
    number = int(draw.integers(0, 100))
    if number < 15 or pa.types.is_null(kind):
        return None
    if pa.types.is_struct(kind):
        return {field.name: value(field.type, draw) for field in kind}
    if pa.types.is_fixed_size_list(kind):
        return [value(kind.value_type, draw) for _ in range(kind.list_size)]
    if pa.types.is_list(kind):
        return [value(kind.value_type, draw) for _ in range(number % 4)]
    if pa.types.is_boolean(kind):
        return number % 2 == 0
    if pa.types.is_float16(kind):
        return np.float16(number)
    if pa.types.is_binary(kind):
        return bytes([number, 0, 255])
    return pa.scalar(str(number)).cast(kind).as_py() if pa.types.is_decimal(kind) else plain_value(kind, number)


def plain_value(kind: pa.DataType, number: int) -> Any:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "é" * (number % 5)
    return pa.scalar(number, pa.int32()).cast(kind if pa.types.is_date32(kind) else pa.int64()).cast(kind).as_py()


def tensors(rows: int) -> pa.Array:
    array = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(rows * 6 + 6, dtype=np.float32).reshape(-1, 2, 3))
    return array.slice(1, rows)


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(name: str, path: Path, table: pa.Table, cut: Sequence[int] = (), compression: str = "zstd") -> Path:
    """Encode `table`, cut into batches at the rows `cut`."""
    writer = make_encoder(name).open(path, table.schema, compression)
    edges = [0, *sorted(cut), table.num_rows]
    for start, stop in pairwise(edges):
        for batch in table.slice(start, stop - start).to_batches():
            writer.write(batch)
        writer.write(pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in table.schema], schema=table.schema))
    assert writer.close(HEADER) == table.num_rows
    return path


def planned(name: str, store: Store, path: Path, columns: Sequence[str]) -> tuple[InputFile, InputSlice, pa.Schema]:
    stat = store.stat(str(path))
    assert stat is not None
    file, schema = make_source(name).inspect(store, stat, columns)
    rows = tuple(group.rows for group in file.row_groups)
    return file, InputSlice(0, file.url, file.size, file.version, 0, rows), schema


def read(name: str, store: Store, path: Path, columns: Sequence[str]) -> pa.Table:
    _, inputs, schema = planned(name, store, path, columns)
    with make_source(name).open(store, inputs, columns) as reader:
        groups = [reader.read(index) for index in range(len(inputs.rows))]
    assert [group.num_rows for group in groups] == list(inputs.rows)
    if not groups:
        return pa.Table.from_arrays([pa.nulls(0, schema.field(name).type) for name in columns], names=list(columns))
    return pa.concat_tables(groups) if columns else groups[0]  # without columns, pyarrow forgets the rows


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(FORMATS),
    kinds=st.lists(column_types(), min_size=1, max_size=4),
    rows=st.integers(0, 40),
    cut=st.lists(st.integers(0, 40), max_size=4),
    group_rows=st.integers(1, 50),
    compression=st.sampled_from(["zstd", "lz4", "none"]),
    seed=st.integers(0, 2**32),
)
def test_what_was_written_is_read_back(
    name: str,
    kinds: list[pa.DataType],
    rows: int,
    cut: list[int],
    group_rows: int,
    compression: str,
    seed: int,
) -> None:
    columns = {f"c{index}": column(kind, rows, seed + index) for index, kind in enumerate(kinds)}
    table = pa.table(columns | {"tensor": tensors(rows)})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "MAX_GROUP_ROWS", group_rows)
        path = write(name, Path(folder) / "part", table, [edge for edge in cut if edge <= rows], compression)
        order = table.column_names[::-1]
        found = read(name, Store(folder), path, order)
    assert found.equals(table.select(order)), (found.schema, table.schema)
    assert found.schema.equals(table.select(order).schema)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_every_compression_of_a_job_is_written(name: str, tmp_path: Path, compression: str) -> None:
    table = pa.table({"id": np.arange(100), "text": ["same"] * 100})
    assert (
        read(name, Store(str(tmp_path)), write(name, tmp_path / "f", table, (), compression), ["text"]).num_rows == 100
    )


def test_the_commit_header_is_inside_the_file(name: str, tmp_path: Path) -> None:
    path = write(name, tmp_path / "part", pa.table({"id": np.arange(1000)}))
    assert make_encoder(name).read_header(Store(str(tmp_path)), "part") == (HEADER, 1000)
    assert ds.dataset(str(path), format=name).to_table().num_rows == 1000


def test_a_part_without_rows_has_a_header_too(name: str, tmp_path: Path) -> None:
    path = write(name, tmp_path / "part", pa.table({"id": pa.array([], pa.int64()), "t": tensors(0)}))
    assert make_encoder(name).read_header(Store(str(tmp_path)), "part") == (HEADER, 0)
    assert read(name, Store(str(tmp_path)), path, ["t", "id"]).num_rows == 0


def test_small_batches_become_one_row_group(name: str, tmp_path: Path) -> None:
    path = write(name, tmp_path / "part", pa.table({"id": np.arange(1000)}), range(0, 1000, 10))
    file, _, _ = planned(name, Store(str(tmp_path)), path, ["id"])
    assert [group.rows for group in file.row_groups if group.rows] == [1000]


def test_row_groups_end_where_bytes_or_rows_are_enough(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MAX_GROUP_BYTES", 8 * 100)
    path = write(name, tmp_path / "bytes", pa.table({"id": np.arange(1000)}), range(0, 1000, 30))
    file, _, _ = planned(name, Store(str(tmp_path)), path, ["id"])
    assert [group.rows for group in file.row_groups][:3] == [90, 90, 90]
    path = write(name, tmp_path / "one", pa.table({"id": np.arange(1000)}))  # a single batch above the limit
    file, _, _ = planned(name, Store(str(tmp_path)), path, ["id"])
    assert [group.rows for group in file.row_groups if group.rows] == [100] * 10


def test_no_file_is_left_after_abort(name: str, tmp_path: Path) -> None:
    table = pa.table({"id": np.arange(1000)})
    for closed in (False, True):
        writer = make_encoder(name).open(tmp_path / "part", table.schema, "zstd")
        writer.write(table.to_batches()[0])
        if closed:
            writer.close(HEADER)
        writer.abort()
        writer.abort()
        del writer
        gc.collect()
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("closing", [True, False])
def test_abort_after_the_disk_failed_is_quiet(name: str, tmp_path: Path, closing: bool) -> None:
    table = pa.table({"id": np.arange(1000)})
    writer = make_encoder(name).open(tmp_path / "part", table.schema, "zstd")
    writer.write(table.to_batches()[0])
    writer._sink.close()
    if closing:
        with pytest.raises(RunnerError):
            writer.close(HEADER)
    writer.abort()
    del writer
    gc.collect()  # an error in a finalizer would fail this test
    assert not list(tmp_path.iterdir())


def test_a_batch_of_another_schema_is_refused(name: str, tmp_path: Path) -> None:
    writer = make_encoder(name).open(tmp_path / "part", pa.schema([("id", pa.int64())]), "zstd")
    with pytest.raises(InternalError, match="'id': int32"):
        writer.write(pa.record_batch({"id": pa.array([1], pa.int32())}))
    writer.abort()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_a_storage_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"No space left.*free some there"):
        write(name, path, pa.table({"id": np.arange(1000)}))


def test_the_header_of_a_file_without_one_is_none(name: str, tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2, 3]})
    ds.write_dataset(table, tmp_path / "d", format=name)
    (path,) = (tmp_path / "d").iterdir()
    assert make_encoder(name).read_header(Store(str(tmp_path / "d")), path.name) == (None, 3)


def test_a_part_that_is_not_whole_is_unreadable(name: str, tmp_path: Path) -> None:
    path = write(name, tmp_path / "part", pa.table({"id": np.arange(1000)}))
    path.write_bytes(path.read_bytes()[:-7])
    for missing in ("part", "gone"):
        with pytest.raises(DataError) as caught:
            make_encoder(name).read_header(Store(str(tmp_path)), missing)
        assert caught.value.facts["code"] == "PART_UNREADABLE"


def test_columns_come_as_asked_for(name: str, tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "b": [3, 4], "c": [5, 6]})
    store, path = Store(str(tmp_path)), write(name, tmp_path / "f", table)
    assert read(name, store, path, ["c", "a"]).to_pydict() == {"c": [5, 6], "a": [1, 2]}


def test_rows_are_kept_where_no_column_is_asked_for(name: str, tmp_path: Path) -> None:
    store, path = Store(str(tmp_path)), write(name, tmp_path / "f", pa.table({"a": [1, 2, 3]}))
    found = read(name, store, path, [])
    assert (found.num_rows, found.num_columns) == (3, 0)


@pytest.mark.parametrize(("wanted", "code"), [("nope", "COLUMN_MISSING"), ("twice", "COLUMN_AMBIGUOUS")])
def test_a_column_that_is_missing_or_there_twice_is_refused(name: str, tmp_path: Path, wanted: str, code: str) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["twice", "twice", "once"])
    store, path = Store(str(tmp_path)), write(name, tmp_path / "f", table)
    assert read(name, store, path, ["once"]).to_pydict() == {"once": [3]}
    _, inputs, _ = planned(name, store, path, [wanted])
    with pytest.raises(DataError) as caught, make_source(name).open(store, inputs, [wanted]):
        pass
    assert (caught.value.facts["code"], caught.value.facts["column"]) == (code, wanted)


def test_the_exact_name_wins_over_the_path_of_a_struct(name: str, tmp_path: Path) -> None:
    table = pa.table({"a": [{"b": 1}, {"b": 2}], "a.b": ["x", "y"]})
    store, path = Store(str(tmp_path)), write(name, tmp_path / "f", table)
    assert read(name, store, path, ["a.b"]).to_pydict() == {"a.b": ["x", "y"]}
    assert read(name, store, path, ["a"]).to_pydict() == {"a": [{"b": 1}, {"b": 2}]}


def test_files_with_one_schema_share_the_object(name: str, tmp_path: Path) -> None:
    source, store = make_source(name), Store(str(tmp_path))
    stats = [store.stat(str(write(name, tmp_path / f"{i}", pa.table({"a": [i]})))) for i in range(2)]
    (_, first), (_, second) = [source.inspect(store, stat, ["a"]) for stat in stats]
    assert first is second
    assert source.schema(store, stats[0]) is first


def views(table: pa.Table) -> pa.Table:
    """The same values as dictionaries and views."""
    return table.append_column("dictionary", table["s"].combine_chunks().dictionary_encode()).append_column(
        "view", table["s"].cast(pa.string_view())
    )


def test_dictionaries_and_views_arrive_as_plain_values(name: str, tmp_path: Path) -> None:
    nested = pa.array([["u"], [], None, ["u", "v"]], pa.list_(pa.dictionary(pa.int8(), pa.string())))
    listed = pa.array([[1], [2, 3], None, []], pa.list_view(pa.int64()))
    table = views(pa.table({"s": ["x", None, "y", "x"], "nested": nested, "listed": listed}))
    store, path = Store(str(tmp_path)), tmp_path / "f"
    if name == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    found = read(name, store, path, table.column_names)
    assert found.to_pydict() == table.to_pydict()
    kinds = {field.name: str(field.type).replace("element", "item") for field in found.schema}
    assert kinds["dictionary"] == kinds["view"] == "string"
    assert (kinds["nested"], kinds["listed"]) == ("list<item: string>", "list<item: int64>")
    assert planned(name, store, path, [])[2].types == found.schema.types


@pytest.mark.parametrize("change", ["size", "version", "gone"])
def test_a_file_that_changed_since_the_plan_is_not_read(name: str, tmp_path: Path, change: str) -> None:
    store, path = Store(str(tmp_path)), write(name, tmp_path / "f", pa.table({"a": [1]}))
    _, inputs, _ = planned(name, store, path, ["a"])
    if change == "size":
        inputs = InputSlice(0, inputs.url, inputs.size + 1, inputs.version, 0, inputs.rows)
    elif change == "version":
        inputs = InputSlice(0, inputs.url, inputs.size, "another", 0, inputs.rows)
    else:
        path.unlink()
    with (
        pytest.raises(DataError, match="changed since plan") as caught,
        make_source(name).open(store, inputs, ["a"]),
    ):
        pass
    assert caught.value.facts["code"] == "FILE_CHANGED"


def test_other_rows_than_planned_are_an_error(name: str, tmp_path: Path) -> None:
    store, path = Store(str(tmp_path)), write(name, tmp_path / "f", pa.table({"a": [1, 2, 3]}))
    _, inputs, _ = planned(name, store, path, ["a"])
    wrong = InputSlice(0, inputs.url, inputs.size, inputs.version, 0, (4, 1, 1))
    with make_source(name).open(store, wrong, ["a"]) as reader:
        with pytest.raises(DataError, match="3 rows found, 4 expected") as caught:
            reader.read(0)
        with pytest.raises(DataError, match="0 rows found, 1 expected"):
            reader.read(2)
    assert (caught.value.facts["code"], caught.value.facts["row_group"]) == ("ROWGROUP_ROWS", 0)


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", "FILE_EMPTY", "zero bytes"),
        (b"\x1f\x8b\x08\x00 and so on", "FILE_MAGIC", "1f 8b 08 00.*gzip"),
        (b"<!DOCTYPE html><html>", "FILE_MAGIC", "HTML"),
        (b'{"rows": []}' * 9, "FILE_MAGIC", "JSON"),
        (b"x", "FILE_MAGIC", "78"),
        (b"a,b\n1,2\n", "FILE_MAGIC", "61 2c 62"),
    ],
)
def test_what_is_no_such_file_is_refused_with_a_code(
    name: str, tmp_path: Path, content: bytes, code: str, says: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        planned(name, Store(str(tmp_path)), path, [])
    assert caught.value.facts == {"code": code, "file": str(path)}


def test_a_file_of_the_other_format_is_named(name: str, tmp_path: Path) -> None:
    (other,) = set(FORMATS) - {name}
    with pytest.raises(InputError, match=f"format: {other}") as caught:
        planned(name, Store(str(tmp_path)), write(other, tmp_path / "f", pa.table({"a": [1]})), [])
    assert caught.value.facts["code"] == "FILE_MAGIC"


def test_every_truncation_is_an_input_error(name: str, tmp_path: Path) -> None:
    whole = write(name, tmp_path / "f", pa.table({"a": [1, 2, 3], "s": ["x", "y", "z"]})).read_bytes()
    path, codes = tmp_path / "cut", set()
    for length in range(8, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            planned(name, Store(str(tmp_path)), path, ["a"])
        codes.add(caught.value.facts["code"])
    assert codes == {"FILE_TRUNCATED"}


class Faulty:
    """A store of one file whose reads fail as told: `faults` are raised, or change the bytes, in turn."""

    def __init__(self, content: bytes, faults: Sequence[Exception | Callable[[bytearray], None] | None]) -> None:
        self.content = content
        self.faults = list(faults)

    def stat(self, path: str) -> FileStat:
        return FileStat(path, len(self.content), "1")

    def open(self, path: str, planned: FileStat | None = None) -> Any:
        store = self

        class Opened(MemoryFile):
            def readinto(self, buffer: Any) -> int:
                count = super().readinto(buffer)
                fault = store.faults.pop(0) if store.faults else None
                if isinstance(fault, Exception):
                    raise fault
                if fault is not None:
                    fault(buffer)
                return count

        return Opened(self.content)


def attempt(name: str, content: bytes, faults: Sequence[Any]) -> pa.Table:
    """Read the one row group of a file whose footer came well; `faults` befall the reads after that."""
    store: Any = Faulty(content, [])
    source = make_source(name)
    file, _ = source.inspect(store, store.stat("f"), ["a"])
    inputs = InputSlice(0, "f", file.size, file.version, 0, tuple(group.rows for group in file.row_groups))
    with source.open(store, inputs, ["a"]) as reader:
        store.faults = list(faults)
        return reader.read(0)


@pytest.mark.parametrize("fault", [StorageError("timed out"), OSError(5, "Input/output error")])
def test_bytes_that_cannot_be_fetched_are_a_storage_error(name: str, tmp_path: Path, fault: Exception) -> None:
    content = write(name, tmp_path / "f", pa.table({"a": np.arange(100_000)})).read_bytes()
    with pytest.raises(StorageError, match=r"timed out|Input/output error"):
        attempt(name, content, [fault])


def test_bytes_damaged_on_the_way_are_fetched_again(name: str, tmp_path: Path) -> None:
    def damage(buffer: bytearray) -> None:
        buffer[:64] = bytes(64)  # what says how the rest is to be read

    table = pa.table({"a": np.random.default_rng(0).integers(0, 2**60, 100_000)})
    content = write(name, tmp_path / "f", table).read_bytes()
    assert attempt(name, content, [damage]).equals(table)
    with pytest.raises(DataError) as caught:
        attempt(name, content, [damage] * 2)
    assert caught.value.facts["code"] in ("PAGE_CRC", "PAGE_CORRUPT", "BATCH_INVALID")
    assert (caught.value.facts["file"], caught.value.facts["row_group"]) == ("f", 0)


def test_fewer_bytes_than_the_file_should_have_are_a_storage_error() -> None:
    with (
        BufferedFile(io.BytesIO(bytes(50)), "s3://b/f", 100) as file,
        pytest.raises(StorageError, match="'s3://b/f': 100 bytes at 0 asked for, 50 came"),
    ):
        file.tail()


def test_near_ranges_are_fetched_together_and_far_ones_apart() -> None:
    far = 10_000_000
    assert coalesced([(far, far + 5), (10, 20), (15, 17), (30, 40)]) == [(10, 40), (far, far + 5)]


def test_no_row_group_stays_in_memory_after_it_was_dropped(name: str, tmp_path: Path) -> None:
    table = pa.table({"a": np.random.default_rng(0).random(500_000)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "MAX_GROUP_ROWS", 50_000)
        path = write(name, tmp_path / "f", table, range(0, 500_000, 50_000))
    store = Store(str(tmp_path))
    _, inputs, _ = planned(name, store, path, ["a"])
    before = pa.total_allocated_bytes()
    with make_source(name).open(store, inputs, ["a"]) as reader:
        for index in range(10):
            assert reader.read(index).num_rows == 50_000
            assert pa.total_allocated_bytes() - before < 200_000, "one row group has 400,000 bytes"


def test_any_flipped_bit_is_an_error_of_ours_or_readable(name: str, tmp_path: Path) -> None:
    whole = write(name, tmp_path / "f", pa.table({"a": [1, 2, 3], "s": ["x", "y", "z"]})).read_bytes()
    draw, codes = np.random.default_rng(7), set()
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draw.integers(len(whole))] ^= 1 << draw.integers(8)
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        try:
            read(name, Store(str(tmp_path)), path, ["a", "s"])
        except RunnerError as error:
            codes.add(error.facts.get("code"))
    assert len(codes) > 3
    assert None not in codes


def test_plain_tables_are_passed_on_without_a_copy() -> None:
    table = pa.table({"a": [1, 2], "s": ["x", "y"]})
    assert plain_table(table) is table
    assert plain_schema(table.schema).equals(table.schema)


@pytest.mark.parametrize("said", [b"no JSON", b"[1]", b"[" * 5000 + b"]" * 5000], ids=["text", "list", "deep"])
def test_a_part_whose_commit_header_is_none_is_unreadable(name: str, said: bytes, tmp_path: Path) -> None:
    table, header = pa.table({"id": [1, 2, 3]}), {spool.HEADER_KEY.encode(): said}
    if name == "parquet":
        pq.write_table(table.replace_schema_metadata(header), tmp_path / "part")
    else:
        with pa.ipc.new_file(str(tmp_path / "part"), table.schema) as file:
            file.write_table(table)
            file.write_batch(spool.empty_batch(table.schema), header)
    with pytest.raises(DataError, match=r"commit header|Expecting value") as caught:
        make_encoder(name).read_header(Store(str(tmp_path)), "part")
    assert caught.value.facts["code"] == "PART_UNREADABLE"
