"""Files that no one here wrote: what other programs make of one table is read as its rows.

Where a program writes something else than it was given, the assertion says what, in a sentence.
"""

from __future__ import annotations

import datetime as dt
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sources import read, source

from connectors.store.store import Store

NAN = "nan"  # which equals itself
TABLE = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "x": [0.5, None, math.nan],
        "text": ['a,"b"\nc', None, ""],
        "flag": [True, None, False],
        "day": [dt.date(2026, 11, 30), None, dt.date(1, 1, 1)],
        "when": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5, 678901), None, dt.datetime(1999, 1, 1)], pa.timestamp("us")),
        "big": pa.array([2**62, None, -(2**63)], pa.int64()),
        "list": [[1, 2], None, []],
    }
)
FLAT = [name for name in TABLE.column_names if name != "list"]
SCHEMA = {
    "id": "int64",
    "x": "float64",
    "text": "string",
    "flag": "bool",
    "day": "date32",
    "when": "timestamp[us]",
    "big": "int64",
    "list": "list<int64>",
}

POLARS = pl.DataFrame(TABLE)
PANDAS = TABLE.to_pandas(types_mapper=pd.ArrowDtype)


def columns(found: pa.Table) -> dict[str, list[Any]]:
    values = {name: found[name].to_pylist() for name in found.column_names}
    values["x"] = [NAN if value is not None and math.isnan(value) else value for value in values["x"]]
    if "when" in values:
        values["when"] = [None if value is None else pd.Timestamp(value).to_pydatetime() for value in values["when"]]
    return values


def duck(statement: str) -> None:
    with duckdb.connect() as made:
        made.register("t", TABLE)
        made.execute(statement)


def written(path: Path, name: str, write: Callable[[str], Any], wanted: list[str], **section: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a program says of itself
        write(str(path / "f"))
    return columns(read(source(name, **section), Store(str(path)), str(path / "f"), wanted))


WHOLE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "polars.parquet": ("parquet", POLARS.write_parquet),
    "pandas.parquet": ("parquet", PANDAS.to_parquet),
    "duckdb.parquet": ("parquet", lambda path: duck(f"copy t to '{path}' (format parquet)")),
    "polars.arrow": ("arrow", POLARS.write_ipc),
    "polars.arrows": ("arrow", POLARS.write_ipc_stream),
    "pandas.feather": ("arrow", PANDAS.to_feather),
    "pandas.orc": ("orc", lambda path: PANDAS.to_orc(path, index=False)),
    "polars.avro": ("avro", POLARS.write_avro),
    "polars.avro, snappy": ("avro", lambda path: POLARS.write_avro(path, compression="snappy")),
}


@pytest.mark.parametrize("program", WHOLE)
def test_the_rows_of_typed_files_are_those_of_the_table(tmp_path: Path, program: str) -> None:
    name, write = WHOLE[program]
    assert written(tmp_path, name, write, TABLE.column_names) == columns(TABLE)


def test_polars_writes_lists_with_offsets_of_64_bits_and_text_of_parquet_too(tmp_path: Path) -> None:
    POLARS.write_parquet(tmp_path / "f")
    found = read(source("parquet"), Store(str(tmp_path)), str(tmp_path / "f"), ["text", "list"]).schema
    assert (str(found.field("text").type), found.field("list").type.id) == (
        "large_string",
        pa.large_list(pa.int64()).id,
    )


def test_orc_of_pandas_has_nanoseconds_where_microseconds_were_given(tmp_path: Path) -> None:
    PANDAS.to_orc(tmp_path / "f", index=False)
    found = read(source("orc"), Store(str(tmp_path)), str(tmp_path / "f"), ["when"])
    assert found.schema.field("when").type == pa.timestamp("ns")


def test_fastparquet_makes_floats_of_integers_with_nulls_and_null_of_nan(tmp_path: Path) -> None:
    frame = TABLE.select(["id", "x", "text", "big"]).to_pandas()  # where pandas did the former, and says so to nobody
    write = lambda path: frame.to_parquet(path, engine="fastparquet")  # noqa: E731
    found = written(tmp_path, "parquet", write, ["id", "x", "text", "big"])
    assert found == {
        "id": [1, 2, 3],
        "x": [0.5, None, None],
        "text": ['a,"b"\nc', None, ""],
        "big": [float(2**62), None, -float(2**63)],
    }


CSV = {
    "polars": POLARS.select(FLAT).write_csv,
    "pandas": lambda path: PANDAS[FLAT].to_csv(path, index=False),
    "duckdb": lambda path: duck(f"copy (select * exclude (list) from t) to '{path}' (format csv, header)"),
}


@pytest.mark.parametrize("program", CSV)
def test_the_rows_of_csv_are_those_of_the_table(tmp_path: Path, program: str) -> None:
    found = written(tmp_path, "csv", CSV[program], FLAT, schema={name: SCHEMA[name] for name in FLAT})
    expected = columns(TABLE.select(FLAT))
    if program == "pandas":  # writes an empty text as it writes null: as nothing; the others put it in quotes
        expected["text"] = ['a,"b"\nc', None, None]
    assert found == expected
    head = (tmp_path / "f").read_text()
    assert ("True" in head) == (program == "pandas"), "pandas writes booleans as Python does"
    assert ("T03:04" in head) == (program == "polars"), "Polars puts a T between day and time, the others a space"
    assert ("NaN" in head) == (program == "polars"), "the others write nan"


JSON = {
    "polars": POLARS.write_ndjson,
    "pandas": lambda path: PANDAS.drop(columns=["day"]).to_json(path, orient="records", lines=True, date_format="iso"),
    "duckdb": lambda path: duck(f"copy t to '{path}' (format json)"),
}


@pytest.mark.parametrize("program", JSON)
def test_the_rows_of_json_lines_are_those_of_the_table(tmp_path: Path, program: str) -> None:
    wanted = [name for name in TABLE.column_names if program != "pandas" or name != "day"]  # pandas fails for date32
    found = written(tmp_path, "jsonl", JSON[program], wanted, schema={name: SCHEMA[name] for name in wanted})
    expected = columns(TABLE.select(wanted))
    if program != "duckdb":  # writes NaN, which is no JSON; the others write null, which is no NaN
        expected["x"] = [0.5, None, None]
    if program == "pandas":  # writes milliseconds alone
        expected["when"][0] = dt.datetime(2026, 1, 2, 3, 4, 5, 678000)
    assert found == expected


@pytest.mark.parametrize("program", ["polars", "pandas"])
def test_numbers_of_a_data_frame_are_an_array_in_fortran_order(tmp_path: Path, program: str) -> None:
    numbers = pa.table({"a": [1, 2, 3], "b": [4, 5, 6]})
    array = (pl.DataFrame(numbers) if program == "polars" else numbers.to_pandas()).to_numpy()
    assert array.flags.f_contiguous
    np.save(tmp_path / "f.npy", array)
    found = read(source("npy"), Store(str(tmp_path)), str(tmp_path / "f.npy"), ["data"])
    assert found["data"].to_pylist() == [[1, 4], [2, 5], [3, 6]]


def test_records_of_fastavro_are_read_as_fastavro_reads_them(tmp_path: Path) -> None:
    kinds = [("date", "int"), ("timestamp-millis", "long"), ("time-micros", "long"), ("uuid", "string")]
    fields = [{"name": name, "type": ["null", {"type": kind, "logicalType": name}]} for name, kind in kinds]
    rows = [
        {
            "date": dt.date(1, 1, 1),
            "timestamp-millis": dt.datetime(1960, 1, 1, 0, 0, 0, 1000, tzinfo=dt.UTC),
            "time-micros": dt.time(23, 59, 59, 999999),
            "uuid": "7d444840-9dc0-11d1-b245-5ffdce74fad2",
        },
        dict.fromkeys((name for name, _ in kinds), None),
    ]
    with (tmp_path / "f").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "R", "fields": fields}, rows)
    found = read(source("avro"), Store(str(tmp_path)), str(tmp_path / "f"), [name for name, _ in kinds])
    with (tmp_path / "f").open("rb") as file:
        theirs = [{**row, "uuid": row["uuid"] and str(row["uuid"])} for row in fastavro.reader(file)]
    assert found.to_pylist() == theirs == rows
