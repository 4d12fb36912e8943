"""Avro files: runs of blocks are row groups, and types are those of the schema in the file."""

from __future__ import annotations

import builtins
import datetime as dt
import decimal
import io
import json
import uuid
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from sources import facts, planned, read, sliced, source

from connectors.formats.typed import avro
from connectors.formats.typed.avro_schema import AvroSchema
from connectors.store.store import Store
from jobs.errors import DataError, InputError, JobError, RunnerError

Rows = list[dict[str, Any]]


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Row", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}


NUMBERS = record(id="long", text=["null", "string"])


def numbers(rows: int) -> Rows:
    return [{"id": i, "text": None if i % 7 == 0 else f"t{i}"} for i in range(rows)]


def encoded(schema: Any, rows: Rows, codec: str = "null", interval: int = 1000) -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, schema, rows, codec, sync_interval=interval, sync_marker=b"0123456789abcdef")
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def put(store: Store, content: bytes) -> str:
    path = Path(store.url) / "f.avro"
    path.write_bytes(content)
    return str(path)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro, "_GROUP_BYTES", 10_000)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "bzip2", "xz"])
def test_runs_of_blocks_are_row_groups_each_read_by_itself(store: Store, codec: str) -> None:
    url, made = put(store, encoded(NUMBERS, numbers(8000), codec)), source("avro")
    file, schema = planned(made, store, url, ["text", "id"])
    assert len(file.row_groups) > 5
    assert schema == pa.schema([pa.field("id", pa.int64(), nullable=False), ("text", pa.string())])
    assert read(made, store, url, ["text", "id"]).to_pylist() == numbers(8000)
    inputs = sliced(file, 3, 4)
    before = sum(group.rows for group in file.row_groups[:3])
    assert file.row_groups[3].place is not None
    assert file.row_groups[3].place[2] == before
    with made.open(store, inputs, ["id"]) as reader:
        assert reader.read(3)["id"].to_pylist() == list(range(before, before + inputs.rows[0]))


@pytest.mark.usefixtures("small_groups")
def test_a_worker_fetches_the_header_and_its_row_groups_alone(store: Store) -> None:
    url, made = put(store, encoded(NUMBERS, numbers(200_000))), source("avro")
    file, _ = planned(made, store, url, ["id"])
    with made.open(store, sliced(file, 50, 51), ["id"]) as reader:
        fetched: list[int] = []
        whole = reader._held._read_into
        reader._held._read_into = lambda start, target: (fetched.append(len(target)), whole(start, target))[1]
        reader.read(50)
    assert sum(fetched) < 20_000


def test_what_types_become(store: Store) -> None:
    moment = dt.datetime(2026, 11, 30, 1, 2, 3, 456000, tzinfo=dt.UTC)
    fixed = {"type": "fixed", "name": "Four", "size": 4}
    cases: dict[str, tuple[Any, Any, pa.DataType]] = {
        "bool": ("boolean", True, pa.bool_()),
        "int": ("int", -5, pa.int32()),
        "long": ("long", 2**62, pa.int64()),
        "float": ("float", 0.5, pa.float32()),
        "double": ("double", 0.1, pa.float64()),
        "bytes": ("bytes", b"\0\xff", pa.binary()),
        "string": ("string", "ü", pa.string()),
        "fixed": (fixed, b"abcd", pa.binary(4)),
        "again": (["null", "Four"], b"efgh", pa.binary(4)),
        "enum": ({"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}, "BLUE", pa.string()),
        "date": ({"type": "int", "logicalType": "date"}, dt.date(1600, 1, 1), pa.date32()),
        "ms": ({"type": "long", "logicalType": "timestamp-millis"}, moment, pa.timestamp("ms", "UTC")),
        "us": ({"type": "long", "logicalType": "timestamp-micros"}, moment, pa.timestamp("us", "UTC")),
        "local": (
            {"type": "long", "logicalType": "local-timestamp-micros"},
            moment.replace(tzinfo=None),
            pa.timestamp("us"),
        ),
        "time": ({"type": "long", "logicalType": "time-micros"}, dt.time(1, 2, 3, 4), pa.time64("us")),
        "cost": (
            {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2},
            decimal.Decimal("-123456789012345678901234567890123456.78"),
            pa.decimal128(38, 2),
        ),
        "wide": (
            {"type": "fixed", "name": "W", "size": 32, "logicalType": "decimal", "precision": 60, "scale": 0},
            decimal.Decimal(-(10**59)),
            pa.decimal256(60, 0),
        ),
        "array": ({"type": "array", "items": ["null", "int"]}, [1, None], pa.list_(pa.int32())),
        "map": (
            {"type": "map", "values": "double"},
            {"a": 1.5},
            pa.map_(pa.string(), pa.field("v", pa.float64(), False)),
        ),
        "record": (
            {**record(a="int", d={"type": "bytes", "logicalType": "decimal", "precision": 4}), "name": "In"},
            {"a": 1, "d": decimal.Decimal(-7)},
            pa.struct([pa.field("a", pa.int32(), False), pa.field("d", pa.decimal128(4, 0), False)]),
        ),
        "null": ("null", None, pa.null()),
        "one": (["string"], "x", pa.string()),
    }
    schema = record(**{name: kind for name, (kind, _, _) in cases.items()})
    url = put(store, encoded(schema, [{name: value for name, (_, value, _) in cases.items()}]))
    found = read(source("avro"), store, url, list(cases))
    assert {field.name: field.type for field in found.schema} == {name: kind for name, (_, _, kind) in cases.items()}
    row = found.to_pylist()[0]
    assert {**row, "map": dict(row["map"])} == {name: value for name, (_, value, _) in cases.items()}
    assert not found.schema.field("string").nullable
    assert found.schema.field("again").nullable


def test_an_instant_that_python_does_not_have_is_read_as_the_number_that_it_is(store: Store) -> None:
    stored = encoded(record(t="long"), [{"t": 2**60}])
    logical = {"type": "long", "logicalType": "timestamp-micros"}
    head = io.BytesIO()
    marker = stored[-16:]
    fastavro.writer(head, record(t=logical), [], sync_marker=marker)
    block = next(iter(fastavro.block_reader(io.BytesIO(stored))))
    content = head.getvalue() + stored[block.offset :]
    with pytest.raises(OverflowError):
        list(fastavro.reader(io.BytesIO(content)))
    found = read(source("avro"), store, put(store, content), ["t"])
    assert (found.schema.field("t").type, found["t"].cast(pa.int64()).to_pylist()) == (
        pa.timestamp("us", "UTC"),
        [2**60],
    )


def test_a_uuid_is_the_text_that_it_is_stored_as(store: Store) -> None:
    value = uuid.uuid4()
    url = put(store, encoded(record(u={"type": "string", "logicalType": "uuid"}), [{"u": value}]))
    assert read(source("avro"), store, url, ["u"])["u"].to_pylist() == [str(value)]


LIST = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (["null", "int", "string"], 5, "a union of int, string"),
        ({"type": "array", "items": ["int", "string"]}, [5, "x"], "a union of int, string"),
        (LIST, {"next": {"next": None}}, "a record 'Node' inside of itself"),
    ],
)
def test_a_column_that_arrow_cannot_hold_is_refused_only_if_it_is_read(
    store: Store, kind: Any, value: Any, says: str
) -> None:
    url, made = put(store, encoded(record(odd=kind, id="long"), [{"odd": value, "id": 7}])), source("avro")
    assert read(made, store, url, ["id"]).to_pydict() == {"id": [7]}
    with pytest.raises(InputError, match=f"column 'odd' is {says}") as caught:
        planned(made, store, url, ["odd"])
    assert facts(caught.value)["code"] == "FILE_UNSUPPORTED"


def test_values_that_are_no_records_are_refused(store: Store) -> None:
    file = io.BytesIO()
    fastavro.writer(file, "string", ["x"])
    with pytest.raises(InputError, match="no records, but of the type string") as caught:
        planned(source("avro"), store, put(store, file.getvalue()), [])
    assert facts(caught.value)["code"] == "FILE_SCHEMA"


def test_a_file_with_a_header_alone_has_no_rows(store: Store) -> None:
    url = put(store, encoded(NUMBERS, []))
    assert planned(source("avro"), store, url, ["id"])[0].row_groups == ()


def test_a_codec_without_its_package_names_it(store: Store) -> None:
    content = io.BytesIO()
    meta = {"avro.schema": json.dumps(NUMBERS).encode(), "avro.codec": b"lz4"}
    header = {"magic": b"Obj\x01", "meta": meta, "sync": b"s" * 16}
    fastavro.schemaless_writer(content, fastavro.read.HEADER_SCHEMA, header)
    with pytest.raises(InputError, match=r"lz4.*install") as caught:
        planned(source("avro"), store, put(store, content.getvalue() + b"\2\2x"), [])
    assert facts(caught.value)["code"] == "FILE_UNSUPPORTED"


def test_without_fastavro_the_extra_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    url = put(store, encoded(NUMBERS, numbers(1)))
    avro._fastavro.cache_clear()
    found = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name == "fastavro":
            raise ImportError(name)
        return found(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(JobError, match=r"pip install 'savedmodel-runner\[avro\]'"):
        planned(source("avro"), store, url, [])


@pytest.mark.parametrize("keep", [4, 60, -1, -17, -300])
def test_a_file_that_ends_in_the_middle_is_truncated(store: Store, keep: int) -> None:
    url = put(store, encoded(NUMBERS, numbers(1000), "deflate")[:keep])
    with pytest.raises(InputError) as caught:
        planned(source("avro"), store, url, ["id"])
    assert facts(caught.value) == {"code": "FILE_TRUNCATED", "file": url}


def test_a_block_that_is_only_begun_is_a_truncation(store: Store) -> None:
    url = put(store, encoded(NUMBERS, numbers(1000)) + b"\x80")  # the first of several bytes of a count
    with pytest.raises(InputError) as caught:
        planned(source("avro"), store, url, ["id"])
    assert facts(caught.value)["code"] == "FILE_TRUNCATED"


def test_a_damaged_block_is_told_where_it_is(store: Store) -> None:
    content = bytearray(encoded(NUMBERS, numbers(1000), "deflate"))
    block = list(fastavro.block_reader(io.BytesIO(content)))[3]
    content[block.offset + 10 : block.offset + 40] = bytes(30)
    with pytest.raises(InputError, match=f"the block at byte {block.offset} is damaged") as caught:
        planned(source("avro"), store, put(store, bytes(content)), ["id"])
    assert facts(caught.value)["code"] == "FILE_CORRUPT"


@pytest.mark.usefixtures("small_groups")
def test_records_that_cannot_be_decoded_are_told_with_their_row_group(store: Store) -> None:
    content = bytearray(encoded(NUMBERS, numbers(8000)))
    made = source("avro")
    file, _ = planned(made, store, put(store, bytes(content)), ["id", "text"])
    assert file.row_groups[2].place is not None
    start = file.row_groups[2].place[0]
    content[start + 20 : start + 60] = b"\xff" * 40
    url = put(store, bytes(content))
    file, _ = planned(made, store, url, ["id", "text"])
    with made.open(store, sliced(file), ["id", "text"]) as reader:
        assert reader.read(1).num_rows == file.row_groups[1].rows
        with pytest.raises(DataError) as caught:
            reader.read(2)
    assert facts(caught.value) == {"code": "PAGE_CORRUPT", "file": url, "row_group": 2}


def test_any_damage_gives_rows_or_an_error_with_a_code(store: Store) -> None:
    whole, codes = encoded(NUMBERS, numbers(40), "deflate", 300), set()
    for at, bit in ((at, bit) for at in range(len(whole)) for bit in (0x01, 0x80)):
        damaged = bytearray(whole)
        damaged[at] ^= bit
        try:
            read(source("avro"), store, put(store, bytes(damaged)), ["id", "text"])
        except RunnerError as error:
            codes.add(facts(error)["code"])
    expected = {"FILE_MAGIC", "FILE_TRUNCATED", "FILE_SCHEMA", "FILE_UNSUPPORTED", "FILE_CORRUPT"}
    assert expected <= codes <= expected | {"PAGE_CORRUPT", "COLUMN_MISSING", "ROWGROUP_ROWS"}


def test_a_count_of_records_that_cannot_be_there_is_damage(store: Store) -> None:
    schema = record(n="null")
    content = encoded(schema, [{"n": None}] * 3)
    (block,) = fastavro.block_reader(io.BytesIO(content))
    lying = content[: block.offset] + b"\xfe\xff\xff\xff\xff\x01" + content[block.offset + 1 :]
    with pytest.raises(InputError, match="claims 34359738367 records in 0 bytes"):
        planned(source("avro"), store, put(store, lying), [])
    assert read(source("avro"), store, put(store, content), ["n"]).num_rows == 3


def test_names_of_one_space_are_found_and_defined_once() -> None:
    inner = {"type": "record", "name": "In", "namespace": "a.b", "fields": [{"name": "x", "type": "int"}]}
    parsed = fastavro.parse_schema({**record(one=inner, two={"type": "array", "items": "a.b.In"}), "namespace": "a.b"})
    schema = AvroSchema(parsed)
    struct = pa.struct([pa.field("x", pa.int32(), nullable=False)])
    assert schema.arrow.types == [struct, pa.list_(pa.field("item", struct, nullable=False))]
    assert fastavro.parse_schema(schema.stored(["two"]))
