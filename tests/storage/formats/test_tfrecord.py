"""TFRecord files: what is written is read, whatever is damaged is found, and Examples become columns."""

from __future__ import annotations

import gzip
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from example_messages import example
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.fault import BadRowsError
from connectors.formats.tfrecord import record
from connectors.formats.tfrecord.columns import COLUMN_TYPES, decode
from connectors.formats.tfrecord.encoder import TFRecordEncoder
from connectors.formats.tfrecord.example import encode
from connectors.formats.tfrecord.record import framed, masked_crc
from connectors.formats.tfrecord.source import TFRecordSource
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError
from jobs.plan import InputFile

RECORDS = [b"one", b"", b"three" * 100, bytes(range(256))]


def frames(values: list[bytes]) -> bytes:
    return framed(pa.array(values, pa.large_binary())).to_pybytes()


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def planned(path: Path, source: TFRecordSource, columns: Any = ("record",)) -> tuple[Store, InputFile, InputSlice]:
    store = Store(str(path.parent))
    stat = store.stat(path.name)
    assert stat is not None
    assert source.schema(store, stat) is not None
    file, _ = source.inspect(store, stat, columns)
    rows = tuple(group.rows for group in file.row_groups)
    return store, file, InputSlice(0, file.url, file.size, file.version, 0, rows)


def read(path: Path, source: TFRecordSource | None = None, columns: Any = ("record",)) -> pa.Table:
    source = source or TFRecordSource()
    store, _, inputs = planned(path, source, columns)
    with source.open(store, inputs, columns) as reader:
        found = [reader.read(index) for index in range(len(inputs.rows))]
    assert [table.num_rows for table in found] == list(inputs.rows)
    return pa.concat_tables(found) if found else pa.table({"record": pa.array([], pa.binary())})


def test_the_checksum_is_the_one_of_the_format() -> None:
    """123456789 is what CRCs are told by: 0xe3069283 is its CRC32C, turned and added to as record_writer.h says."""
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert frames([b"a"])[:12].hex() == "0100000000000000" + (masked_crc(b"\1" + bytes(7))).to_bytes(4, "little").hex()


@pytest.mark.parametrize("packed", [False, True])
def test_records_are_one_binary_column(tmp_path: Path, packed: bool) -> None:
    content = frames(RECORDS)
    table = read(put(tmp_path / "a.tfrecord", gzip.compress(content) if packed else content))
    assert table["record"].to_pylist() == RECORDS
    assert table.schema.field("record").type == pa.binary()


def test_a_file_without_records_has_no_rows(tmp_path: Path) -> None:
    assert read(put(tmp_path / "a.tfrecord", b"")).num_rows == 0
    assert read(put(tmp_path / "b.tfrecord", gzip.compress(b""))).num_rows == 0


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.binary(max_size=60), max_size=30),
    group=st.integers(1, 12),
    size=st.integers(1, 300),
    block=st.integers(12, 100),
    packed=st.sampled_from(["", "gzip", "two members"]),
)
def test_row_groups_are_cut_by_records_and_bytes_and_can_be_read_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, values: list[bytes], group: int, size: int, block: int, packed: str
) -> None:
    content = frames(values)
    if packed:
        middle = len(content) // 2 if packed == "two members" else 0
        content = gzip.compress(content[:middle]) * bool(middle) + gzip.compress(content[middle:])
    path = put(tmp_path_factory.mktemp("groups") / "a.tfrecord", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("connectors.formats.tfrecord.source._GROUP_RECORDS", group)
        patch.setattr("connectors.formats.tfrecord.source._GROUP_BYTES", size)
        patch.setattr(record, "_BLOCK_BYTES", block)
        patch.setattr(record, "_INFLATED_BYTES", 7)
        store, file, inputs = planned(path, TFRecordSource())
        assert sum(inputs.rows) == len(values)
        assert max(inputs.rows, default=0) <= group
        edges = [0]
        for rows in inputs.rows:
            edges.append(edges[-1] + rows)
        expected = [values[start:stop] for start, stop in pairwise(edges)]
        assert [one.bytes for one in file.row_groups] == [len(frames(one)) for one in expected]
        source = TFRecordSource()
        with source.open(store, inputs, ["record"]) as reader:
            for index in reversed(range(len(expected))):
                assert reader.read(index)["record"].to_pylist() == expected[index]
        with source.open(store, inputs, []) as reader:
            assert [reader.read(index).num_rows for index in range(len(expected))] == list(inputs.rows)


# damage


@pytest.mark.parametrize("packed", [False, True])
def test_no_flipped_bit_changes_a_row_silently(tmp_path: Path, packed: bool) -> None:
    content = frames([*RECORDS[:2], b"the last of them"])
    whole = gzip.compress(content, mtime=0) if packed else content
    codes = set()
    for at in range(len(whole)):
        path = put(tmp_path / "a.tfrecord", whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            found = read(path)["record"].to_pylist()
        except (InputError, DataError) as error:
            codes.add(error.facts["code"])
        else:
            assert packed  # some bits of a gzip file mean nothing, such as its time stamp
            assert found == [*RECORDS[:2], b"the last of them"]
    assert "RECORD_CRC" in codes or packed
    assert codes <= {"RECORD_CRC", "FILE_MAGIC", "FILE_TRUNCATED", "FILE_CORRUPT", "ROWGROUP_TOO_BIG"}


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_cut_is_truncated(tmp_path: Path, packed: bool) -> None:
    content = frames(RECORDS)
    ends = {0, *(len(frames(RECORDS[:count])) for count in range(len(RECORDS) + 1))}
    whole = gzip.compress(content, mtime=0) if packed else content
    for size in range(1, len(whole)):
        path = put(tmp_path / "a.tfrecord", whole[:size])
        if not packed and size in ends:  # a shorter file, and whole: nobody can tell
            assert read(path)["record"].to_pylist() == RECORDS[: sorted(ends).index(size)]
            continue
        with pytest.raises(InputError) as caught:
            read(path)
        assert caught.value.facts["code"] == "FILE_TRUNCATED"


def test_a_damaged_record_is_named_by_its_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.formats.tfrecord.source._GROUP_RECORDS", 2)
    content = bytearray(frames(RECORDS))
    content[len(frames(RECORDS[:3])) + 20] ^= 0x10
    with pytest.raises(DataError, match="row group 1: record 1 does not fit its CRC") as caught:
        read(put(tmp_path / "a.tfrecord", bytes(content)))
    assert caught.value.facts["code"] == "RECORD_CRC"
    assert caught.value.facts["row_group"] == 1


def test_a_bit_that_flipped_on_the_way_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.tfrecord", frames(RECORDS))
    source = TFRecordSource()
    store, _, inputs = planned(path, source)
    with source.open(store, inputs, ["record"]) as reader:
        take = record.Plain.take
        damaged = iter([True])

        def flipped(self: Any, start: int, stop: int) -> bytes:
            content = take(self, start, stop)
            return content[:-6] + b"?" + content[-5:] if next(damaged, False) else content

        monkeypatch.setattr(record.Plain, "take", flipped)
        assert reader.read(0)["record"].to_pylist() == RECORDS


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (b"PAR1" + bytes(20), "FILE_MAGIC", "not a TFRecord file: its first bytes are 50 41 52 31.*a Parquet file"),
        (b"x", "FILE_TRUNCATED", "its 1 bytes are less than the head of a record"),
        (
            gzip.compress(b"no records at all, but text"),
            "RECORD_CRC",
            "the length of record 0, at byte 0, does not fit",
        ),
    ],
)
def test_what_is_no_tfrecord_file_is_told(tmp_path: Path, content: bytes, code: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        read(put(tmp_path / "a.tfrecord", content))
    assert caught.value.facts["code"] == code


def test_a_record_that_claims_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    length = (2**40).to_bytes(8, "little")
    path = put(tmp_path / "a.tfrecord", length + masked_crc(length).to_bytes(4, "little") + bytes(100))
    with pytest.raises(InputError, match="it ends in the middle of record 0"):
        read(path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="record 0 has 1099511627776 bytes; up to 1 GiB are read"):
        read(path)


def test_a_file_that_changed_since_the_plan_is_not_read(tmp_path: Path) -> None:
    path, source = put(tmp_path / "a.tfrecord", frames(RECORDS)), TFRecordSource()
    store, _, inputs = planned(path, source)
    put(path, frames(RECORDS[:2]))
    with pytest.raises(DataError, match="changed since plan"), source.open(store, inputs, ["record"]):
        pass


# Examples


TYPES = {"f": "float", "i": "int64", "b": "bytes", "fs": "list<float>", "is": "list<int64>", "bs": "list<bytes>"}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(width=32, allow_nan=False),
    "int64": st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 200)),
    "bytes": st.one_of(st.binary(max_size=5), st.integers(100, 300).map(bytes)),
}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_examples_become_columns_again(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 6))
    columns = {}
    for name, kind in TYPES.items():
        one = VALUES[kind.removeprefix("list<").removesuffix(">")]
        values = st.lists(one, max_size=3) if kind.startswith("list") else one
        drawn = data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        columns[name] = pa.array(drawn, COLUMN_TYPES[kind])
    order = data.draw(st.permutations(list(columns)))
    made = encode([(name, columns[name]) for name in order], rows)
    wanted = data.draw(st.lists(st.sampled_from(list(TYPES)), unique=True))
    found, faults = decode(made, {name: TYPES[name] for name in wanted})
    assert faults == []
    for name, column in zip(wanted, found, strict=True):
        column.validate(full=True)
        assert column.type == columns[name].type
        assert column.to_pylist() == columns[name].to_pylist()


def test_whatever_protobuf_may_write_is_read() -> None:
    """Entries before keys, features twice, unknown fields of each kind, numbers that are not packed."""

    def sized(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    unpacked = b"\x08\x01\x08\x96\x01" + sized(1, b"\x02\x03")  # int64s one by one, then two packed
    floats = b"\x0d" + bytes(4) + b"\x0d\x00\x00\x80\x3f"
    entry = sized(2, sized(3, unpacked)) + b"\x98\x3f\x05" + sized(1, b"is")  # value, unknown number, key
    twice = sized(1, b"i") + sized(2, sized(3, sized(1, b"\x07")))
    again = sized(1, b"i") + sized(2, sized(1, b"") + sized(3, sized(1, b"\x09")))  # the last list of a feature counts
    other = sized(1, b"fs") + sized(2, sized(2, floats)) + b"\x31" + bytes(8)  # unknown 8 bytes
    empty = sized(1, b"b")  # a key alone
    features = b"".join(sized(1, one) for one in (entry, twice, again, other, empty))
    message = sized(7, b"unknown") + sized(1, features) + b"\x45" + bytes(4)
    found, faults = decode(
        pa.array([b"", message], pa.binary()), {"is": "list<int64>", "i": "int64", "fs": "list<float>", "b": "bytes"}
    )
    assert faults == []
    assert [column.to_pylist() for column in found] == [
        [None, [1, 150, 2, 3]],
        [None, 9],
        [None, [0.0, 1.0]],
        [None, None],
    ]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_examples_are_errors_of_their_rows_or_other_examples(data: st.DataObject) -> None:
    good = example({"i": ("int64_list", [5]), "s": ("bytes_list", [b"word"])})
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 2)) :]
    found, faults = decode(pa.array([good, bad, good], pa.binary()), {"i": "int64", "s": "bytes"})
    assert [column.to_pylist()[::2] for column in found] == [[5, 5], [b"word", b"word"]]
    assert all(fault.at.tolist() == [1] for fault in faults)
    assert {fault.code for fault in faults} <= {"ROW_EXAMPLE", "ROW_TYPE", "ROW_SHAPE"}


def examples_file(path: Path) -> Path:
    messages = [
        example(
            {
                "n": ("int64_list", [index]),
                "x": ("float_list", [index / 2]),
                "tags": ("bytes_list", [b"t"] * (index % 3)),
            }
        )
        for index in range(10)
    ]
    return put(path, frames(messages))


def test_the_columns_are_found_in_the_first_records(tmp_path: Path) -> None:
    path = examples_file(tmp_path / "b.tfrecord")
    put(tmp_path / "a.tfrecord", b"")
    store = Store(str(tmp_path))
    found = TFRecordSource().infer(store, store.list([str(tmp_path)], TFRecordSource.suffixes).files)
    assert found == {"n": "int64", "x": "float", "tags": "list<bytes>"}
    assert list(found) == ["n", "tags", "x"]
    table = read(path, TFRecordSource(found), ["x", "tags"])
    assert table.column_names == ["x", "tags"]
    assert table["x"].to_pylist() == [index / 2 for index in range(10)]
    assert table["tags"].to_pylist() == [[b"t"] * (index % 3) for index in range(10)]


def of_pairs(*features: dict[str, Any]) -> bytes:
    return frames([example(one) for one in features])


BAD = {
    "ROW_SHAPE": example({"a": ("int64_list", [1, 2]), "b": ("int64_list", [9])}),
    "ROW_TYPE": example({"a": ("float_list", [1.0]), "b": ("int64_list", [9])}),
    "ROW_EXAMPLE": b"no example",
}


def test_bad_records_are_named_by_number_and_the_others_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.formats.tfrecord.source._GROUP_RECORDS", 10)
    messages = [example({"a": ("int64_list", [row]), "b": ("int64_list", [row])}) for row in range(20)]
    for row, code in {12: "ROW_SHAPE", 15: "ROW_TYPE", 17: "ROW_EXAMPLE", 18: "ROW_SHAPE"}.items():
        messages[row] = BAD[code]
    source = TFRecordSource({"a": "int64", "b": "int64"})
    store, _, inputs = planned(put(tmp_path / "a.tfrecord", frames(messages)), source, ["a", "b"])
    with source.open(store, inputs, ["a", "b"]) as reader:
        assert reader.read(0)["a"].to_pylist() == list(range(10))
        with pytest.raises(BadRowsError) as caught:
            reader.read(1)
    error = caught.value
    assert error.facts == {"code": "ROW_SHAPE", "file": inputs.url, "row_group": 1, "row": 2}
    assert "row group 1: record 12 of the file: found 2 values of feature 'a'; expected one;" in error.message
    assert error.message.endswith("(3 more bad rows in this row group)")
    assert [(one.code, one.column, one.at.tolist()) for one in error.bad] == [
        ("ROW_EXAMPLE", None, [7]),
        ("ROW_TYPE", "a", [5]),
        ("ROW_SHAPE", "a", [2, 8]),
    ]
    stories = {one.code: list(one.stories) for one in error.bad}
    assert stories["ROW_EXAMPLE"] == [
        "record 17 of the file: found bytes that are no tf.Example; expected a serialized tf.train.Example"
    ]
    assert stories["ROW_TYPE"] == ["record 15 of the file: found feature 'a' as float_list; expected int64_list"]
    assert error.at.tolist() == [2, 5, 7, 8]
    assert error.rest()["a"].to_pylist() == [10, 11, 13, 14, 16, 19]
    assert error.table["b"].to_pylist() == [10, 11, 9, 13, 14, 9, 16, None, 9, 19], "what can be had of a bad row"


def test_a_row_that_is_bad_in_several_ways_is_named_once(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tfrecord", of_pairs({"a": ("int64_list", []), "b": ("float_list", [1.0])}))
    with pytest.raises(BadRowsError) as caught:
        read(path, TFRecordSource({"a": "int64", "b": "int64"}), ["a", "b"])
    assert [(one.code, one.column, one.at.tolist()) for one in caught.value.bad] == [("ROW_SHAPE", "a", [0])]
    assert caught.value.rest().num_rows == 0


@settings(max_examples=100, deadline=None)
@given(kinds=st.lists(st.sampled_from(["", *BAD]), max_size=40), block=st.integers(1, 12))
def test_whatever_is_bad_the_good_rows_are_decoded(kinds: list[str], block: int) -> None:
    good = example({"a": ("int64_list", [4]), "b": ("int64_list", [5])})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("connectors.formats.tfrecord.columns._BLOCK_ROWS", block)
        records = pa.array([BAD.get(kind, good) for kind in kinds], pa.binary())
        (a, b), faults = decode(records, {"a": "int64", "b": "int64"})
    found = {row: fault.code for fault in faults for row in fault.at.tolist()}
    assert found == {row: kind for row, kind in enumerate(kinds) if kind}
    assert a.to_pylist() == [None if kind else 4 for kind in kinds]
    assert b.to_pylist() == [{"": 5, "ROW_EXAMPLE": None}.get(kind, 9) for kind in kinds]


def test_columns_are_told_by_the_records_that_are_examples(tmp_path: Path) -> None:
    store = Store(str(tmp_path))

    def told(content: bytes) -> dict[str, str]:
        put(tmp_path / "b.tfrecord", content)
        return TFRecordSource().infer(store, [file for file in [store.stat("b.tfrecord")] if file])

    good = example({"a": ("int64_list", [1])})
    assert told(frames([b"no example", good, good])) == {"a": "int64"}
    assert told(frames([example({})])) == {}
    with pytest.raises(InputError, match=r"record 0 holds bytes that are no tf\.Example") as caught:
        told(frames([b"no example"]))
    assert caught.value.facts["code"] == "RECORD_EXAMPLE"
    with pytest.raises(
        InputError, match=r"record 1 holds feature b'a' as .*name the columns: `examples: \{a: "
    ) as caught:
        told(frames([good, BAD["ROW_TYPE"]]))
    assert caught.value.facts["code"] == "COLUMN_TYPE"


# parts


def written(path: Path, table: pa.Table, compression: str = "none") -> Path:
    writer = TFRecordEncoder().open(path, table.schema, compression)
    for batch in table.to_batches(max_chunksize=3):
        writer.write(batch)
    assert writer.close({"v": 1}) == table.num_rows
    return path


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_rows_are_written_as_examples_and_read_back(tmp_path: Path, compression: str) -> None:
    table = pa.table(
        {
            "id": pa.array(range(8)),
            "score": pa.array([index / 4 for index in range(8)], pa.float32()),
            "name": [f"n{index}" if index % 2 else None for index in range(8)],
            "v": pa.FixedShapeTensorArray.from_numpy_ndarray(pa.array(range(16)).to_numpy().reshape(8, 2)),
        }
    )
    path = written(tmp_path / "part.tfrecord", table, compression)
    assert path.read_bytes().startswith(b"\x1f\x8b") is (compression == "gzip")
    assert TFRecordEncoder().read_header(Store(str(tmp_path)), path.name) == (None, 8)
    source = TFRecordSource({"id": "int64", "score": "float", "name": "bytes", "v": "list<int64>"})
    found = read(path, source, ["id", "score", "name", "v"])
    assert found["id"].to_pylist() == list(range(8))
    assert found["score"].to_pylist() == table["score"].to_pylist()
    assert found["name"].to_pylist() == [value and value.encode() for value in table["name"].to_pylist()]
    assert found["v"].to_pylist() == [[2 * index, 2 * index + 1] for index in range(8)]


def test_values_that_no_example_holds_end_the_part(tmp_path: Path) -> None:
    writer = TFRecordEncoder().open(tmp_path / "part", pa.schema([("x", pa.float64())]), "none")
    writer.write(pa.RecordBatch.from_pydict({"x": [1.0, 1e300]}))
    with pytest.raises(DataError, match="row 1 of a row group holds a value that float32 cannot hold"):
        writer.close({})
    writer.abort()
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_torn_part_is_no_whole_part(tmp_path: Path) -> None:
    path = written(tmp_path / "part.tfrecord", pa.table({"id": [1, 2, 3]}))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="no whole part") as caught:
        TFRecordEncoder().read_header(Store(str(tmp_path)), path.name)
    assert caught.value.facts["code"] == "PART_UNREADABLE"
