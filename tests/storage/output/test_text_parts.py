"""Parts of CSV and JSON lines: what is written is what is read, by our own source and by others."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
import math
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import zstandard

from connectors.formats.declared import text_of
from connectors.formats.registry import format_of, make_encoder, part_suffix, source_of, written_as
from connectors.output.claim import is_read
from connectors.output.directory import open_dataset
from connectors.output.rehearsal import rehearse
from connectors.store.store import Store
from jobs.attempt import input_slice
from jobs.errors import DataError, OutputError
from jobs.plan import Slice
from jobs.section.input import Input
from jobs.section.output import Output

AT = datetime.datetime(2026, 11, 30, 1, 2, 3, 456_000)
COLUMNS = {
    "int8": pa.array([1, None, -128], pa.int8()),
    "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "float16": pa.array([0.1, None, 65504.0], pa.float32()).cast(pa.float16()),
    "float32": pa.array([0.1, None, 3.4e38], pa.float32()),
    "float64": pa.array([1 / 3, None, -0.0]),
    "odd": pa.array([math.inf, None, -math.inf]),
    "bool": pa.array([True, None, False]),
    "decimal": pa.array([Decimal("1.50"), None, Decimal("-0.01")], pa.decimal128(9, 2)),
    "date": pa.array([AT.date(), None, datetime.date(1, 1, 1)]),
    "time": pa.array([datetime.time(1, 2, 3), None, datetime.time(0)], pa.time64("us")),
    "timestamp": pa.array([AT, None, AT], pa.timestamp("ms")),
    "zoned": pa.array([AT, None, AT], pa.timestamp("us", "UTC")),
    "berlin": pa.array([AT, None, AT], pa.timestamp("ms", "Europe/Berlin")),
    "text": pa.array(['ä, "b"\r\n\x00\x1f\\\'', None, ""]),
    "NA": pa.array(["NA", None, "null"], pa.large_string()),
    ' a "name",\n': pa.array([" 1 ", None, "\u2028"]),
}
NESTED = {
    "list": pa.array([[1.5, None], None, []]),
    "lists": pa.array([[["a"], None], None, [[]]]),
    "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
    "large": pa.array([[True], None, []], pa.large_list(pa.bool_())),
    "struct": pa.array([{"a": 1, "b": [{"c": "x"}]}, None, {"a": None, "b": []}]),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), (2, 3)), pa.array([[*range(6)], None, [7] * 6], pa.list_(pa.float32(), 6))
    ),
}


def part(folder: Path, name: str, table: pa.Table, compression: str = "none") -> str:
    encoder = make_encoder(name)
    path = folder / f"part-00000-of-00001-0123abcd{part_suffix(name, compression)}"
    spool = folder / "spool"
    writer = encoder.open(spool, table.schema, compression)
    for batch in table.to_batches(max_chunksize=2):
        writer.write(batch)
    assert writer.close({"shard": 0}) == table.num_rows
    spool.rename(path)
    assert encoder.read_header(Store(str(folder)), str(path)) == (None, table.num_rows)
    return str(path)


def read_back(url: str, name: str, table: pa.Table) -> pa.Table:
    source = source_of(Input(url=url, format=name, schema={field.name: text_of(field.type) for field in table.schema}))
    store = Store(url)
    file, _ = source.inspect(store, store.stat(url), table.column_names)
    groups = len(file.row_groups)
    with source.open(store, input_slice([file], Slice(0, 0, groups)), table.column_names) as reader:
        return pa.concat_tables(reader.read(index) for index in range(groups))


def plain(value):
    """As JSON has it."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return float(value) if isinstance(value, Decimal | np.floating) else value


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_rows_of_csv_are_read_back_as_they_were_by_our_source(tmp_path, compression):
    table = pa.table(COLUMNS)
    assert read_back(part(tmp_path, "csv", table, compression), "csv", table).equals(table)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_rows_of_json_are_read_back_as_they_were_by_our_source(tmp_path, compression):
    columns = COLUMNS | {name: NESTED[name] for name in ("list", "lists", "struct")}
    table = pa.table({name: column for name, column in columns.items() if name != "time"})  # JSON has none
    found = read_back(part(tmp_path, "jsonl", table, compression), "jsonl", table)
    assert found.schema.equals(table.schema)
    for name in table.column_names:
        assert found.column(name).equals(table.column(name)), name


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_packed_part_is_one_stream_that_other_programs_unpack(tmp_path, compression):
    table = pa.table({"a": range(100_000)})
    for name in ("csv", "jsonl"):
        path = Path(part(tmp_path, name, table, compression))
        content = path.read_bytes()
        if compression == "gzip":
            content = gzip.decompress(content)
        if compression == "zstd":
            content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        assert content.count(b"\n") == table.num_rows + (name == "csv")
        assert duckdb.sql(f"select sum(a) from '{path}'").fetchall() == [(sum(range(100_000)),)]


def test_csv_is_what_pythons_csv_reads(tmp_path):
    table = pa.table({name: COLUMNS[name] for name in ("text", "int8", ' a "name",\n')})
    with Path(part(tmp_path, "csv", table)).open(encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    assert names == table.column_names
    assert rows == [["" if value is None else str(value) for value in row.values()] for row in table.to_pylist()]


def test_json_is_what_pythons_json_reads(tmp_path):
    left_out = ("date", "time", "timestamp", "zoned", "berlin", "float16")
    table = pa.table({name: column for name, column in (COLUMNS | NESTED).items() if name not in left_out})
    rows = [json.loads(line) for line in Path(part(tmp_path, "jsonl", table)).read_text("utf-8").split("\n")[:-1]]
    tensors = [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], None, [[7.0] * 3] * 2]
    wanted = [row | {"tensor": tensor} for row, tensor in zip(table.to_pylist(), tensors, strict=True)]
    for row, values in zip(rows, wanted, strict=True):
        values["float32"] = row["float32"] if np.float32(row["float32"] or 0) == (values["float32"] or 0) else "another"
        assert row == plain(values)


def test_times_of_json_are_iso_8601(tmp_path):
    table = pa.table({name: COLUMNS[name] for name in ("date", "time", "timestamp", "zoned", "berlin")})
    row = json.loads(Path(part(tmp_path, "jsonl", table)).read_text("utf-8").split("\n")[0])
    assert row == {
        "date": "2026-11-30",
        "time": "01:02:03.000000",
        "timestamp": "2026-11-30T01:02:03.456",
        "zoned": "2026-11-30T01:02:03.456000Z",
        "berlin": "2026-11-30T02:02:03.456+0100",
    }


def test_whole_floats_of_json_stay_floats(tmp_path):
    table = pa.table({"a": [1.0, -2.0, 1e20], "h": pa.array([1, 0.5, math.nan], pa.float32()).cast(pa.float16())})
    text = Path(part(tmp_path, "jsonl", table)).read_text("utf-8")
    assert text == '{"a":1.0,"h":1.0}\n{"a":-2.0,"h":0.5}\n{"a":1e+20,"h":NaN}\n'
    found = duckdb.sql(f"select * from '{tmp_path}/*.jsonl'")
    assert [str(kind) for kind in found.types] == ["DOUBLE", "DOUBLE"]


@pytest.mark.parametrize("slice_", [slice(1, 3), slice(2, 3)])
def test_slices_of_nested_columns_are_written_as_what_they_show(tmp_path, slice_):
    table = pa.table(NESTED)
    start, stop = slice_.start, slice_.stop
    url = part(tmp_path, "jsonl", table.slice(start, stop - start))
    sliced = Path(url).read_text("utf-8")
    whole = Path(part(tmp_path, "jsonl", table)).read_text("utf-8")
    assert sliced.splitlines() == whole.splitlines()[start:stop]


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_each_type_passes_the_rehearsal_or_is_refused(name):
    schema = pa.table(COLUMNS | NESTED).schema
    refused = set(rehearse(make_encoder(name), schema).refused)
    assert refused == (set(NESTED) if name == "csv" else set())
    others = pa.schema(
        [("b", pa.binary()), ("m", pa.map_(pa.string(), pa.int8())), ("d", pa.duration("s")), ("e", pa.struct([]))]
    )
    assert set(rehearse(make_encoder(name), others).refused) == set(others.names)


def test_a_type_that_json_has_not_is_told(tmp_path):
    changed = rehearse(make_encoder("jsonl"), pa.table(COLUMNS | NESTED).schema).changed
    assert changed["time"] == pa.string()
    assert changed["tensor"] == pa.list_(pa.list_(pa.float32()))
    assert "text" not in changed
    assert "float32" not in changed
    assert rehearse(make_encoder("csv"), pa.table(COLUMNS).schema).changed == {}


def test_a_part_without_rows_is_whole(tmp_path):
    table = pa.table({"a": pa.array([], pa.int8())})
    assert Path(part(tmp_path, "csv", table)).read_bytes() == b'"a"\n'
    assert Path(part(tmp_path, "jsonl", table, "gzip")).stat().st_size > 0


def test_a_part_that_is_cut_is_none(tmp_path):
    table = pa.table({"a": [*range(10_000)]})
    for name in ("csv", "jsonl"):
        path = Path(part(tmp_path, name, table, "gzip"))
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(DataError, match="is no whole part") as caught:
            make_encoder(name).read_header(Store(str(tmp_path)), str(path))
        assert caught.value.facts["code"] == "PART_UNREADABLE"


def test_a_null_in_the_only_column_is_a_row(tmp_path):
    numbers = pa.table({"a": [1, None, 3]})
    url = part(tmp_path, "csv", numbers)
    assert Path(url).read_bytes() == b'"a"\n"1"\n""\n"3"\n'
    assert read_back(url, "csv", numbers).equals(numbers)
    with pytest.raises(DataError, match="an empty line is no row") as caught:
        part(tmp_path, "csv", pa.table({"a": ["x", None]}))
    assert caught.value.facts["code"] == "ROW_NULL"


@pytest.mark.parametrize(
    ("name", "compression"), [("csv", "none"), ("csv", "gzip"), ("jsonl", "none"), ("jsonl", "gzip")]
)
def test_a_dataset_of_the_parts_has_their_rows(tmp_path, name, compression):
    table = pa.table({"a": [1, None, 3], "b": ["x", "y", "z"]})
    opened = open_dataset([part(tmp_path, name, table, compression)])
    assert isinstance(opened, ds.Dataset)
    assert opened.to_table().to_pydict() == table.to_pydict()


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_a_dataset_has_the_types_that_were_written_and_none_that_the_first_part_shows(tmp_path, name):
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12, dtype=np.float32).reshape(3, 2, 2))
    first = pa.table(
        {"id": ["001", "", None], "y": pa.array([0.0, 1.0, None], pa.float32()), "n": pa.nulls(3, pa.int8())}
    )
    second = pa.table(
        {"id": ["x", "a\nb", "2026-11-30"], "y": pa.array([0.5, 2, 3], pa.float32()), "n": pa.array([1] * 3, pa.int8())}
    )
    if name == "jsonl":
        first, second = first.append_column("t", tensor), second.append_column("t", tensor)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    urls = [part(tmp_path / "a", name, first), part(tmp_path / "b", name, second)]
    opened = open_dataset(urls, schema=first.schema).to_table()
    assert opened.schema.types[:3] == first.schema.types[:3]
    assert opened["id"].to_pylist() == [*first["id"].to_pylist(), *second["id"].to_pylist()]
    assert opened["y"].to_pylist() == [0, 1, None, 0.5, 2, 3]
    assert opened["n"].to_pylist() == [None] * 3 + [1] * 3
    if name == "jsonl":
        assert opened["t"].to_pylist()[:3] == tensor.to_numpy_ndarray().tolist()


def test_a_dataset_of_zstd_is_refused_with_a_reason(tmp_path):
    with pytest.raises(OutputError, match=r"pyarrow\.dataset does not unpack '\.zst'"):
        open_dataset([str(tmp_path / "part.csv.zst")])


def test_names_of_parts_say_how_they_are_written():
    for format_, compression in (("csv", "none"), ("csv", "gzip"), ("jsonl", "zstd"), ("parquet", "zstd")):
        suffix = part_suffix(format_, compression)
        assert format_of(f"part-0{suffix}") == format_
        assert Output(url="out").model_copy(update=written_as(suffix)).format == format_
        assert written_as(suffix).get("compression", compression) == compression
    assert Output(url="out", format="csv").compression == "none"
    assert is_read("labels.csv.gz")
    assert not is_read("notes.txt")
