"""Arrow IPC streams: batches are row groups, found by one walk that steps over their bodies."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sources import facts, planned, read, sliced, source

from connectors.store.store import Store
from jobs.errors import DataError, InputError, RunnerError

TABLE = pa.table(
    {
        "id": np.arange(1000),
        "text": [f"é{i}" if i % 5 else None for i in range(1000)],
        "list": [[i] * (i % 3) for i in range(1000)],
        "view": pa.array([f"a view that is not in its twelve bytes {i}" for i in range(1000)], pa.string_view()),
    }
)
PLAIN = TABLE.set_column(3, "view", TABLE["view"].cast(pa.string()))


def encoded(batches: Sequence[pa.RecordBatch], **options: Any) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return file.getvalue()


def cut(rows: int = 100) -> Any:
    return TABLE.to_batches(max_chunksize=rows)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def put(store: Store, content: bytes) -> str:
    path = Path(store.url) / "f.arrows"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_batches_are_row_groups_each_read_by_itself(store: Store, compression: str | None) -> None:
    url, made = put(store, encoded(cut(), compression=compression)), source("arrow")
    file, schema = planned(made, store, url, TABLE.column_names)
    assert [group.rows for group in file.row_groups] == [100] * 10
    assert schema == PLAIN.schema
    order = ["view", "list", "id", "text"]
    assert read(made, store, url, order).equals(PLAIN.select(order))
    assert read(made, store, url, []).num_rows == 100
    with made.open(store, sliced(file, 4, 8), ["text", "view"]) as reader:
        for index in (6, 4, 7):
            assert reader.read(index).equals(PLAIN.slice(index * 100, 100).select(["text", "view"]))


def test_a_plan_steps_over_bodies_and_a_worker_fetches_its_columns_alone(store: Store) -> None:
    wide = pa.table({f"c{i}": np.arange(200_000) for i in range(10)})
    url, made = put(store, encoded(wide.to_batches(max_chunksize=50_000))), source("arrow")
    fetched: list[int] = []

    class Counting(Store):
        def open(self, *args: Any) -> Any:
            file = super().open(*args)
            whole = file.readinto
            file.readinto = lambda target: (fetched.append(len(target)), whole(target))[1]
            return file

    counting = Counting(store.url)
    file, _ = planned(made, counting, url, ["c3"])
    assert sum(fetched) < 0.05 * file.size
    fetched.clear()
    with made.open(counting, sliced(file, 2, 3), ["c3"]) as reader:
        assert reader.read(2).equals(wide.slice(100_000, 50_000).select(["c3"]))
    assert sum(fetched) < 50_000 * 8 + 300_000


def words(*values: str) -> pa.Array:
    return pa.array(values).dictionary_encode()


def batch(values: pa.Array) -> pa.RecordBatch:
    return pa.record_batch({"w": values, "n": np.arange(len(values))})


def test_dictionaries_that_grow_or_are_replaced_are_those_in_front_of_a_batch(store: Store) -> None:
    first, second = ["a", "b"], ["a", "b", "c", "d"]
    batches = [
        batch(pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), pa.array(values)))
        for indices, values in (
            ([1, 0], first),
            ([1, 1], first),
            ([3, 2], second),
            ([0, 0], ["x", "y"]),
            ([1], ["x", "y"]),
        )
    ]
    content = encoded(batches, emit_dictionary_deltas=True)
    with pa.ipc.open_stream(content) as written:
        written.read_all()
        assert (written.stats.num_dictionary_deltas, written.stats.num_replaced_dictionaries) == (1, 1)
    url, made = put(store, content), source("arrow")
    file, schema = planned(made, store, url, ["w"])
    assert schema.field("w").type == pa.string()
    assert read(made, store, url, ["w"])["w"].to_pylist() == ["b", "a", "b", "b", "d", "c", "x", "x", "y"]
    with made.open(store, sliced(file, 1, 5), ["w", "n"]) as reader:
        assert [reader.read(index)["w"].to_pylist() for index in (4, 2, 1, 3)] == [
            ["y"],
            ["d", "c"],
            ["b", "b"],
            ["x", "x"],
        ]


def test_a_stream_without_the_mark_of_its_end_is_whole(store: Store) -> None:
    content = encoded(cut())
    assert content.endswith(b"\xff\xff\xff\xff\0\0\0\0")
    assert read(source("arrow"), store, put(store, content[:-8]), ["id"])["id"].to_pylist() == list(range(1000))


def test_a_stream_without_batches_has_no_row_groups(store: Store) -> None:
    file = io.BytesIO()
    pa.ipc.new_stream(file, TABLE.schema).close()
    found, schema = planned(source("arrow"), store, put(store, file.getvalue()), ["id"])
    assert (found.row_groups, schema) == ((), PLAIN.schema)


def test_two_streams_in_one_file_are_refused_and_not_half_read(store: Store) -> None:
    with pytest.raises(InputError, match="bytes follow the end of its stream, perhaps another one") as caught:
        planned(source("arrow"), store, put(store, encoded(cut()) * 2), ["id"])
    assert facts(caught.value)["code"] == "FILE_UNSUPPORTED"


def test_every_cut_inside_of_a_message_is_a_truncation(store: Store) -> None:
    whole = encoded(cut(500))
    file = io.BytesIO(whole)
    messages, ends = pa.ipc.MessageReader.open_stream(file), set()
    while file.tell() < len(whole):
        with suppress(StopIteration):
            messages.read_next_message()
        ends.add(file.tell())
    codes = set()
    for length in range(8, len(whole), 97):
        if length not in ends:
            with pytest.raises(InputError) as caught:
                planned(source("arrow"), store, put(store, whole[:length]), ["id"])
            codes.add(facts(caught.value)["code"])
    assert codes == {"FILE_TRUNCATED"}


def test_a_damaged_batch_is_told_with_its_row_group(store: Store) -> None:
    content = bytearray(encoded(cut()))
    made = source("arrow")
    file, _ = planned(made, store, put(store, bytes(content)), ["list"])
    assert file.row_groups[3].place is not None
    offset, metadata, size = file.row_groups[3].place
    content[offset + metadata : offset + metadata + size] = b"\x7f" * size
    url = put(store, bytes(content))
    file, _ = planned(made, store, url, ["list"])
    with made.open(store, sliced(file), ["list"]) as reader:
        with pytest.raises(DataError) as caught:
            reader.read(3)
        assert reader.read(4).equals(PLAIN.slice(400, 100).select(["list"]))
    assert facts(caught.value) == {"code": "BATCH_INVALID", "file": url, "row_group": 3}


def test_a_compressed_batch_that_becomes_too_large_is_refused_before_it_is_decoded(store: Store) -> None:
    url = put(store, encoded(cut(1000), compression="zstd"))
    made = source("arrow")
    made.max_row_group_bytes = 5000
    with pytest.raises(DataError, match="8,000 bytes when decoded") as caught:
        read(made, store, url, ["id"])
    assert facts(caught.value)["code"] == "ROWGROUP_TOO_BIG"


def test_any_damage_gives_rows_or_an_error_with_a_code(store: Store) -> None:
    whole, codes = encoded([batch(words("x", "y", "x"))]), set()
    for at in range(0, len(whole), 2):
        damaged = bytearray(whole)
        damaged[at] ^= 0x41
        try:
            read(source("arrow"), store, put(store, bytes(damaged)), ["w", "n"])
        except RunnerError as error:
            codes.add(facts(error)["code"])
    assert {"FILE_FOOTER", "FILE_TRUNCATED", "FILE_MAGIC", "BATCH_INVALID"} <= codes
