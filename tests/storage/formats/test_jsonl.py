"""JSON lines: each line is one row or one bad row by its number, whatever is in it, and other programs agree."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.fault import BadRowsError
from connectors.formats.text import cut, packed
from connectors.formats.text.jsonl import JsonlSource
from connectors.store.store import FileStat, Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError
from jobs.section.input import Input

Types = Mapping[str, pa.DataType]
INTEGER: Types = {"a": pa.int64()}


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def stat_of(path: Path) -> tuple[Store, FileStat]:
    store = Store(str(path.parent))
    stat = store.stat(path.name)
    assert stat is not None
    return store, stat


def seen(path: Path) -> dict[str, pa.DataType]:
    schema = JsonlSource().schema(*stat_of(path))
    return dict(zip(schema.names, schema.types, strict=True))


def planned(path: Path, source: JsonlSource, columns: Sequence[str]) -> tuple[Store, InputSlice]:
    store, stat = stat_of(path)
    file, _ = source.inspect(store, stat, columns)
    groups = file.row_groups
    rows, places = tuple(group.rows for group in groups), tuple(group.place for group in groups)
    return store, InputSlice(0, file.url, file.size, file.version, 0, rows, places=places)


def read(path: Path, types: Types | None = None) -> tuple[list[dict[str, Any]], list[tuple[str, str | None, str]]]:
    """All rows, null where they are bad, and what is said of those: code, column, story."""
    types = seen(path) if types is None else types
    source = JsonlSource(types)
    store, inputs = planned(path, source, [*types])
    rows, bad = list[dict[str, Any]](), list[tuple[str, str | None, str]]()
    with source.open(store, inputs, [*types]) as reader:
        for group, count in enumerate(inputs.rows):
            error: BadRowsError | None = None
            try:
                found = reader.read(group)
            except BadRowsError as raised:
                error, found = raised, raised.table
            if error is not None:
                said = [zip(one.at.tolist(), one.stories, repeat(one)) for one in error.bad]
                told = sorted((row, story, one.code, one.column) for row, story, one in chain(*said))
                bad += [(code, column, story) for _, story, code, column in told]
                assert error.rest().num_rows == count - len(told)
            found.validate(full=True)
            assert found.num_rows == count
            assert [*zip(found.schema.names, found.schema.types, strict=True)] == [*types.items()]
            rows += found.to_pylist()
    return rows, bad


def codes(bad: Sequence[tuple[str, str | None, str]]) -> list[tuple[str, str, str | None]]:
    """Where, code and column of each."""
    return [(story.partition(":")[0], code, column) for code, column, story in bad]


def test_each_object_is_a_row_and_its_keys_are_columns(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"a": 1, "b": {"c": [1.5, null]}}\n{"b": {"d": "é"}, "e": true}\n{}')
    assert seen(path) == {
        "a": pa.int64(),
        "b": pa.struct([("c", pa.list_(pa.float64())), ("d", pa.string())]),
        "e": pa.bool_(),
    }
    rows, bad = read(path)
    assert not bad
    assert rows == [
        {"a": 1, "b": {"c": [1.5, None], "d": None}, "e": None},
        {"a": None, "b": {"c": None, "d": "é"}, "e": True},
        {"a": None, "b": None, "e": None},
    ]


def test_a_bad_line_is_a_bad_row_by_its_number_and_the_others_are_read(tmp_path: Path) -> None:
    lines = [
        *('{"a": 1}', "", '{"a": "one"}', '{"a": 2', "null", "[1]", '{"a": 1}{"a": 2}', '{"a": 1, "a": 2}'),
        *(
            '{"a": 1.5}',
            '{"a": 9223372036854775808}',
            '{"a": true}',
            "  \t",
            '{"a": 9}  ',
            '{"b": }',
            '{"a": null}',
            "x",
        ),
    ]
    rows, bad = read(put(tmp_path / "a.jsonl", "\r\n".join(lines)), INTEGER)
    assert [row["a"] for row in rows] == [1, *[None] * 9, 9, None, None, None]
    assert codes(bad) == [
        *(("line 3", "ROW_TYPE", "a"), ("line 4", "ROW_JSON", None), ("line 5", "ROW_JSON", None)),
        *(("line 6", "ROW_JSON", None), ("line 7", "ROW_JSON", None), ("line 8", "ROW_JSON", "a")),
        *(("line 9", "ROW_INEXACT", "a"), ("line 10", "ROW_OVERFLOW", "a"), ("line 11", "ROW_TYPE", "a")),
        *(("line 14", "ROW_JSON", None), ("line 16", "ROW_JSON", None)),
    ]
    assert bad[0][2] == 'line 3: found "one"; expected int64'
    assert bad[1][2] == "line 4: no JSON, at column 8: Expecting ',' delimiter: {\"a\": 2"


def test_the_column_that_is_at_fault_is_told_and_not_one_beside_it(tmp_path: Path) -> None:
    types = {"v": pa.list_(pa.float32()), "s": pa.struct([("a", pa.int64()), ("b", pa.string())])}
    _, bad = read(put(tmp_path / "a.jsonl", '{"v": [1, 2], "s": {"a": 1, "b": "\\ud83d"}}'), types)
    assert codes(bad) == [("line 1", "ROW_UTF8", "s")]
    assert "half of a surrogate pair" in bad[0][2]


def test_what_a_message_shows_of_a_line_is_short_and_printable(tmp_path: Path) -> None:
    _, ((_, _, story),) = read(put(tmp_path / "a.jsonl", '{"a": "' + "\\u0007é" * 100 + '"}'), INTEGER)
    assert story == 'line 1: found "' + "\\u0007é" * 11 + "\\u..." + "; expected int64"
    _, ((_, _, story),) = read(put(tmp_path / "a.jsonl", '{"a": 1\0}'), INTEGER)
    assert story.endswith('{"a": 1\\x00}')


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.ndjson.zst", "a.jsonl.bz2"])
def test_a_packed_file_is_one_row_group(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "GROUP_ROWS", 2)
    monkeypatch.setattr(packed, "BLOCK_BYTES", 9)
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }
    content = "".join(f'{{"a": {number}}}\n' for number in range(5)).encode()
    path = put(tmp_path / name, pack.get(name.rpartition(".")[2], bytes)(content))
    _, inputs = planned(path, JsonlSource(INTEGER), ["a"])
    assert inputs.rows == ((5,) if name.count(".") == 2 else (2, 2, 1))
    assert read(path) == ([{"a": number} for number in range(5)], [])


def test_line_numbers_go_on_from_row_group_to_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "GROUP_ROWS", 2)
    monkeypatch.setattr(packed, "BLOCK_BYTES", 9)
    path = put(tmp_path / "a.jsonl", '\n{"a": 1}\n\n{"a": 2}\n\n\nx\n{"a": 3}\n\n{"a": "y"}')
    rows, bad = read(path, INTEGER)
    assert [row["a"] for row in rows] == [1, 2, None, 3, None]
    assert codes(bad) == [("line 7", "ROW_JSON", None), ("line 10", "ROW_TYPE", "a")]


value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.dictionaries(st.sampled_from("abc"), value, max_size=3), max_size=20),
    broken=st.sets(st.integers(0, 19)),
    ascii=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n", " \n \n"]),
    last=st.booleans(),
    group=st.integers(1, 9),
    block=st.integers(1, 50),
)
def test_rows_are_those_that_python_reads(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[dict[str, Any]],
    broken: set[int],
    ascii: bool,
    end: str,
    last: bool,
    group: int,
    block: int,
) -> None:
    """Column `d` is a text in each record; the others are whatever comes, and are not read."""
    texts = [f"{number} é\n" for number in range(len(records))]
    lines = [json.dumps(record | {"d": text}, ensure_ascii=ascii) for record, text in zip(records, texts, strict=True)]
    lines = [line[:-1] if number in broken else line for number, line in enumerate(lines)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "GROUP_ROWS", group)
        patch.setattr(packed, "BLOCK_BYTES", block)
        patch.setattr("connectors.formats.text.objects._PIECE_BYTES", 100)
        path = put(tmp_path_factory.mktemp("rows") / "a.jsonl", end.join(lines) + end * last)
        rows, bad = read(path, {"d": pa.string()})
    assert [row["d"] for row in rows] == [None if number in broken else text for number, text in enumerate(texts)]
    numbers = [1 + number * end.count("\n") for number in sorted(broken) if number < len(lines)]
    assert [story.partition(":")[0] for _, _, story in bad] == [f"line {number}" for number in numbers]


# types


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "null", "2"], pa.int64()),
        (["1", "2.5"], pa.float64()),
        (["1", "18446744073709551615"], pa.uint64()),
        (["1" + "0" * 30, "1" + "0" * 5000], pa.float64()),
        (["null"], pa.null()),
        (["[]", "[null]", "[1, 2.5]"], pa.list_(pa.float64())),
        (['{"x": 1}', '{"y": [true], "x": null}'], pa.struct([("x", pa.int64()), ("y", pa.list_(pa.bool_()))])),
        (['"2020-01-01"', '"2020-01-02T00:00:00Z"'], pa.string()),  # no text is a time because it looks like one
        (["true", "1"], pa.bool_()),  # the first stays
        (['"1"', "2", "null"], pa.string()),
    ],
)
def test_the_first_records_show_the_types(tmp_path: Path, values: list[str], kind: pa.DataType) -> None:
    path = put(tmp_path / "a.jsonl", "no record\n" + "\n".join(f'{{"a": {value}}}' for value in values))
    assert seen(path) == {"a": kind}


def test_records_behind_the_first_do_not_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.formats.text.jsonl._LOOK_ROWS", 2)
    path = put(tmp_path / "a.jsonl", '{"a": 1}\n{}\n{"a": 1.5, "b": 1}\n{"a": 3.0}')
    rows, bad = read(path)
    assert [row["a"] for row in rows] == [1, None, None, 3]
    assert codes(bad) == [("line 3", "ROW_INEXACT", "a")]


READ = [
    (pa.int8(), "-128", -128),
    (pa.int32(), "[3.0, 2]", "ROW_TYPE"),
    (pa.int32(), "3.0", 3),
    (pa.int32(), "3e2", 300),
    (pa.uint8(), "-1", "ROW_OVERFLOW"),
    (pa.int64(), "9007199254740993", 9007199254740993),
    (pa.uint64(), "18446744073709551615", 2**64 - 1),
    (pa.list_(pa.int64()), "[9007199254740993, 3.0]", "ROW_TYPE"),  # a double holds the one, an integer the other
    (pa.struct([("x", pa.int64()), ("y", pa.float64())]), '{"x": 3.0, "y": 1e20}', {"x": 3, "y": 1e20}),
    (pa.int64(), '"1"', "ROW_TYPE"),
    (pa.float32(), "0.1", 0.10000000149011612),
    (pa.float32(), "1e39", "ROW_OVERFLOW"),
    (pa.float32(), "-Infinity", float("-inf")),
    (pa.float64(), "1e400", "ROW_OVERFLOW"),
    (pa.float16(), "1.5", 1.5),
    (pa.float16(), "1e5", "ROW_OVERFLOW"),
    (pa.float64(), "true", "ROW_TYPE"),
    (pa.bool_(), "1", "ROW_TYPE"),
    (pa.string(), "1", "ROW_TYPE"),
    (pa.string(), r'"\u00e9\ud83d\ude00\u0000"', "é😀\0"),
    (pa.string(), r'"\ud83d"', "ROW_UTF8"),
    (pa.binary(), '"é"', "é".encode()),
    (pa.list_(pa.float32(), 2), "[1, 2]", [1.0, 2.0]),
    (pa.list_(pa.float32(), 2), "[1, null]", [1.0, None]),
    (pa.list_(pa.float32(), 2), "[1, 2, 3]", "ROW_SHAPE"),
    (pa.list_(pa.list_(pa.int32())), "[[1], [], null]", [[1], [], None]),
    (pa.large_list(pa.int64()), "[1]", [1]),
    (pa.list_(pa.struct([("x", pa.list_(pa.int8(), 1))])), '[{"x": [1]}, null]', [{"x": [1]}, None]),
    (pa.struct([("x", pa.list_(pa.int8(), 1))]), '{"x": [1, 2]}', "ROW_SHAPE"),
    (pa.struct([("x", pa.int64())]), '{"y": [1, "other"]}', {"x": None}),
    (pa.null(), "1", "ROW_TYPE"),
]


@pytest.mark.parametrize(("kind", "text", "expected"), READ, ids=lambda case: str(case)[:40])
def test_a_value_becomes_what_the_type_says_or_is_told(
    tmp_path: Path, kind: pa.DataType, text: str, expected: object
) -> None:
    """A good row beside it, and nulls, so that the one bad line is found among others."""
    path = put(tmp_path / "a.jsonl", f'{{"a": null}}\n{{"a": {text}}}\n{{"b": [1, "x", {{}}]}}\n')
    rows, bad = read(path, {"a": kind})
    assert [rows[0]["a"], rows[2]["a"]] == [None, None]
    if isinstance(expected, str) and expected.startswith("ROW_"):
        assert [(code, column) for code, column, _ in bad] == [(expected, "a")]
        assert rows[1]["a"] is None
    else:
        assert not bad
        assert rows[1]["a"] == expected


def test_times_and_decimals_are_what_the_job_declares(tmp_path: Path) -> None:
    types = {"t": pa.timestamp("ms", "UTC"), "d": pa.date32(), "m": pa.decimal128(5, 2), "s": pa.duration("s")}
    line = '{"t": "2026-11-01T02:00:00.5+02:00", "d": "2026-11-01", "m": "1.25", "s": 90}'
    rows, bad = read(
        put(tmp_path / "a.jsonl", f'{line}\n{{"t": "soon"}}\n{{"d": "2026-13-01"}}\n{{"m": 1.255}}'), types
    )
    assert {name: str(value) for name, value in rows[0].items()} == {
        "t": "2026-11-01 00:00:00.500000+00:00",
        "d": "2026-11-01",
        "m": "1.25",
        "s": "0:01:30",
    }
    assert codes(bad) == [("line 2", "ROW_TYPE", "t"), ("line 3", "ROW_TYPE", "d"), ("line 4", "ROW_INEXACT", "m")]


@pytest.mark.parametrize("kind", ["time64[us]", "nonsense"])
def test_a_type_that_json_does_not_hold_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match="cannot read column 'a'") as caught:
        JsonlSource.of(Input(url="a.jsonl", format="jsonl", types={"a": kind}))
    assert caught.value.facts["code"] == "COLUMN_TYPE"


def test_columns_that_are_not_read_cost_no_row(tmp_path: Path) -> None:
    lines = [
        b'{"a": 1, "b": {"c": 1}}',
        b'{"a": 2, "b": [1, "x"], "b": 3}',
        b'{"a": 3, "z": "\xff"}',
        b'{"a": 4, "b": 1e999}',
    ]
    rows, bad = read(put(tmp_path / "a.jsonl", b"\n".join([*lines, rb'{"a": 5, "b": "\ud83d"}'])), INTEGER)
    assert [row["a"] for row in rows] == [1, 2, 3, 4, 5]
    assert not bad


def test_bytes_that_are_no_utf8_are_told_where_they_are_read(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", b'{"a": "\xc3\xa9"}\n{"a": "\xff\xfe"}\n{"a": "b"}')
    rows, bad = read(path, {"a": pa.string()})
    assert [row["a"] for row in rows] == ["é", None, "b"]
    assert codes(bad) == [("line 2", "ROW_UTF8", None)]


def test_rows_are_counted_where_no_column_is_read(tmp_path: Path) -> None:
    source = JsonlSource(INTEGER)
    store, inputs = planned(put(tmp_path / "a.jsonl", '{"a": 1}\n{"a": "x"}\n'), source, [])
    with source.open(store, inputs, []) as reader:
        assert reader.read(0).num_rows == 2


# what pyarrow would make of it


@pytest.mark.parametrize("depth", [10_000, 1_000_000])
def test_a_deep_value_that_is_not_read_is_left_alone(tmp_path: Path, depth: int) -> None:
    path = put(tmp_path / "a.jsonl", '{"a": 1, "b": ' + "[" * depth + "]" * depth + '}\n{"a": 2}')
    assert read(path, INTEGER) == ([{"a": 1}, {"a": 2}], [])
    assert seen(path) == {"a": pa.int64()}


def test_lines_that_are_only_rows_together_are_bad_rows(tmp_path: Path) -> None:
    """pyarrow reads on over the end of a line: as many objects as lines are here, and none is the row of its line."""
    rows, bad = read(put(tmp_path / "a.jsonl", '{"a":\n1}\n{"a": 2}{"a": 3}\nnull\n'), INTEGER)
    assert [row["a"] for row in rows] == [None] * 4
    assert len(bad) == 4


def test_a_line_may_be_longer_than_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.formats.text.objects._PIECE_BYTES", 64)
    lines = [json.dumps({"a": number, "b": "x" * number}) for number in (1, 5000, 3, 100_000, 2)]
    rows, _ = read(put(tmp_path / "a.jsonl", "\n".join(lines)))
    assert [(row["a"], len(row["b"])) for row in rows] == [(number, number) for number in (1, 5000, 3, 100_000, 2)]


def test_a_byte_order_mark_is_no_part_of_a_row(tmp_path: Path) -> None:
    for name, pack in (("a.jsonl", bytes), ("b.jsonl.gz", gzip.compress)):
        path = put(tmp_path / name, pack(b'\xef\xbb\xbf{"a": 1}\n{"a": 2}'))
        assert read(path) == ([{"a": 1}, {"a": 2}], [])
        assert read(put(tmp_path / name, pack(b"\xef\xbb\xbf\n")), INTEGER) == ([], [])


# files


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\r\n"])
def test_a_file_without_a_line_has_no_row(tmp_path: Path, content: bytes) -> None:
    path = put(tmp_path / "a.jsonl", content)
    assert seen(path) == {}
    assert read(path, INTEGER) == ([], [])


@pytest.mark.parametrize(
    ("name", "content", "code", "text"),
    [
        ("a.jsonl", b'[\n{"a": 1}\n]'[:2], "FILE_MAGIC", "not JSON lines.*jq -c"),
        ("a.jsonl", b'{\n "a": 1\n}\n', "FILE_MAGIC", "not JSON lines.*jq -c"),
        ("a.jsonl", b"a,b\n1,2\n", "FILE_MAGIC", "not JSON lines: its first bytes are 61 2c 62"),
        ("a.jsonl", gzip.compress(b'{"a": 1}'), "FILE_MAGIC", "its name says how a file is packed"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "FILE_MAGIC", "UTF-16"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9], "FILE_TRUNCATED", "ends in the middle"),
        ("a.jsonl.gz", b'{"a": 1}\n', "FILE_CORRUPT", "gzip stream is damaged"),
    ],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, name: str, content: bytes, code: str, text: str) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(InputError, match=text) as caught:
        JsonlSource().inspect(*stat_of(path), [])
    assert caught.value.facts["code"] == code


def test_a_packed_file_that_unpacks_to_too_much_is_refused_while_it_is_counted(tmp_path: Path) -> None:
    source = JsonlSource(INTEGER)
    source.max_row_group_bytes = 2**20
    path = put(tmp_path / "a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 200_000))
    with pytest.raises(InputError, match="more than 1,048,576 bytes are one row group: write several files") as caught:
        source.inspect(*stat_of(path), ["a"])
    assert caught.value.facts["code"] == "ROWGROUP_TOO_BIG"


def test_a_file_that_changed_since_the_plan_is_not_read(tmp_path: Path) -> None:
    source, path = JsonlSource(INTEGER), put(tmp_path / "a.jsonl", '{"a": 1}\n')
    store, inputs = planned(path, source, ["a"])
    put(path, '{"a": 1}\n{"a": 2}\n')
    with pytest.raises(DataError) as caught, source.open(store, inputs, ["a"]) as reader:
        reader.read(0)
    assert caught.value.facts["code"] == "FILE_CHANGED"


@pytest.mark.parametrize(
    ("head", "is_one"),
    [
        (b'\n {"a": 1}\n{"', True),
        (b"\xef\xbb\xbf{}\n", True),
        (b'{"a": "' + b"x" * 5000, True),
        (b'{\n  "a": 1\n}', False),
        (b'[{"a": 1}]\n', False),
        (b"{a, b}\n", False),
        (b"", False),
    ],
)
def test_a_file_is_known_by_its_first_line(head: bytes, is_one: bool) -> None:
    assert JsonlSource().begins(head[:4096]) is is_one


# other programs


def table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array([1, 2**53 + 1, -(2**63), None]),
            "x": pa.array([0.1, 1e300, -0.0, None]),
            "t": pa.array(['q"\\\n', "é😀", "", None]),
            "l": pa.array([[1, 2], [], None, [None]]),
            "s": pa.array([{"u": 1, "v": [{"w": True}]}, {"u": None, "v": []}, None, {"u": 2, "v": None}]),
        }
    )


def test_what_duckdb_and_polars_write_is_read_as_they_read_it(tmp_path: Path) -> None:
    expected, rows = table().to_pylist(), table()
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        connection.execute(f"COPY rows TO '{tmp_path / 'duckdb.jsonl'}' (FORMAT json)")
        connection.execute(f"COPY rows TO '{tmp_path / 'duckdb.jsonl.gz'}' (FORMAT json, COMPRESSION gzip)")
        frame = pl.from_arrow(rows)
        assert isinstance(frame, pl.DataFrame)
        frame.write_ndjson(tmp_path / "polars.ndjson")
        for path in sorted(tmp_path.iterdir()):
            assert read(path) == (expected, []), path.name
            assert connection.sql(f"SELECT * FROM read_json('{path}')").to_arrow_table().to_pylist() == expected
        assert pl.read_ndjson(tmp_path / "duckdb.jsonl").to_arrow().to_pylist() == expected
