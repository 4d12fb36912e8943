"""CSV files: what a value means, which rows are bad, and where they are."""

from __future__ import annotations

import csv
import datetime
import io
import math
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.fault import BadRowsError
from connectors.formats.registry import source_of
from connectors.formats.text import csv_source, csv_values, cut
from connectors.formats.text.csv_values import converted, readable
from connectors.formats.text.packed import CODECS
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError, RunnerError
from jobs.section.input import Input


def written(folder, content: bytes | str, name: str = "a.csv") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def planned(url: str, columns=None, types=None, **csv_keys):
    """The source, what it plans for the file, and its schema."""
    source = source_of(Input(url=url, format="csv", schema=types or {}, csv=csv_keys or None))
    store = Store(url)
    file = store.stat(url)
    names = source.schema(store, file).names if columns is None else columns
    return source, store, *source.inspect(store, file, names), names


def read(url: str, columns=None, types=None, **csv_keys) -> pa.Table:
    source, store, file, _, names = planned(url, columns, types, **csv_keys)
    groups = file.row_groups
    rows, places = tuple(group.rows for group in groups), tuple(group.place for group in groups)
    inputs = InputSlice(0, url, file.size, file.version, 0, rows, places=places)
    with source.open(store, inputs, names) as reader:
        empty = pa.schema(
            [field for field in source.schema(store, store.stat(url)) if field.name in names]
        ).empty_table()
        return pa.concat_tables([reader.read(index) for index in range(len(groups))] or [empty])


def values(folder, content: bytes | str, kind: str | None = None, **csv_keys) -> list:
    """Of the column `a`."""
    return read(written(folder, content), ["a"], {"a": kind} if kind else {}, **csv_keys).column("a").to_pylist()


def bad(folder, content: bytes | str, kind: str | None = None, **csv_keys) -> BadRowsError:
    with pytest.raises(BadRowsError) as caught:
        values(folder, content, kind, **csv_keys)
    return caught.value


def code_of(folder, content: bytes | str, name: str = "a.csv", **csv_keys) -> tuple[str, str]:
    with pytest.raises(RunnerError) as caught:
        read(written(folder, content, name), **csv_keys)
    return caught.value.facts["code"], caught.value.message


# ---- what a value means


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("001", None, "001"),
        ("001", "int32", 1),
        ("1e5", "float32", 100000.0),
        ("1e5", None, "1e5"),
        ("+1", "int64", 1),
        ("1.0", "int64", 1),
        ("-2.", "int8", -2),
        ("-128", "int8", -128),
        ('"7"', "int8", 7),
        (" 7\t", "int8", 7),
        (" 7 ", None, " 7 "),
        ("", None, None),
        ('""', None, ""),
        ("", "float32", None),
        ('""', "float32", None),
        ("NA", None, "NA"),
        ("null", None, "null"),
        ("true", "bool", True),
        ("FALSE", "bool", False),
        (" 1 ", "bool", True),
        ("0", "bool", False),
        ("2026-11-30", "date32", datetime.date(2026, 11, 30)),
        (" 2026-11-30 ", "timestamp[s]", datetime.datetime(2026, 11, 30)),
        ("2026-11-30T01:02:03.5", "timestamp[ms]", datetime.datetime(2026, 11, 30, 1, 2, 3, 500_000)),
        ("2026-11-30 01:02:03", "timestamp[us]", datetime.datetime(2026, 11, 30, 1, 2, 3)),
        ("12:30:00", "time32[s]", datetime.time(12, 30)),
        ("1.50", "decimal(5, 2)", Decimal("1.50")),
        ("inf", "float32", math.inf),
        ("-Infinity", "float64", -math.inf),
        ("0.1", "float16", float(np.float16(0.1))),
        ('"a,b"', None, "a,b"),
        ('"a""b"', None, 'a"b'),
        ('"a\r\nb"', None, "a\r\nb"),
        ('a"b', None, 'a"b'),
        ("a\x00b", None, "a\x00b"),
        ("ä", None, "ä"),
        ("ä", "binary", "ä".encode()),
        ("x", "large_string", "x"),
    ],
)
def test_a_value_is_read_as_the_type_that_is_asked_for(tmp_path, text, kind, value):
    assert values(tmp_path, f"a,b\n{text},1\n", kind) == [value]
    assert values(tmp_path, f"a,b\r\n{text},1\r\n{text},2", kind) == [value, value]


@pytest.mark.parametrize("text", ["NaN", "nan", " NaN "])
def test_nan_is_a_number(tmp_path, text):
    assert math.isnan(values(tmp_path, f"a,b\n{text},1\n", "float32")[0])


def test_only_values_of_nulls_are_null(tmp_path):
    assert values(tmp_path, 'a,b\nNA,1\n,1\n"NA",1\n', nulls=["NA"]) == [None, "", "NA"]
    assert values(tmp_path, "a,b\nNA,1\n2,1\n", "int8", nulls=["NA"]) == [None, 2]


def test_columns_are_found_by_name_and_the_others_are_not_read(tmp_path):
    url = written(tmp_path, "b,a,c\nx,1,\xff\n".encode("latin-1"))
    assert read(url, ["a", "b"], {"a": "int8"}).to_pydict() == {"a": [1], "b": ["x"]}
    source, store, file, *_ = planned(url, [])
    inputs = InputSlice(0, url, file.size, file.version, 0, (1,), places=(file.row_groups[0].place,))
    with source.open(store, inputs, []) as reader:
        assert reader.read(0).shape == (1, 0)


def test_a_name_that_is_there_twice_is_refused_only_where_it_is_read(tmp_path):
    url = written(tmp_path, "a,b,a\n1,2,3\n")
    assert read(url, ["b"]).to_pydict() == {"b": ["2"]}
    with pytest.raises(DataError, match="more than once") as caught:
        read(url, ["a"])
    assert caught.value.facts["code"] == "COLUMN_AMBIGUOUS"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("head", ["", "\ufeff"])
def test_byte_order_marks_and_line_ends_of_any_kind_are_no_part_of_values(tmp_path, end, head):
    content = f'{head}"a",b{end}{end}1,2{end}3,4'
    assert read(written(tmp_path, content)).to_pydict() == {"a": ["1", "3"], "b": ["2", "4"]}


def test_columns_that_a_file_lacks_are_no_error_of_the_file(tmp_path):
    _, _, file, schema, _ = planned(written(tmp_path, "a,a\n1,2\n"), ["a", "b"])
    assert (file.row_groups[0].rows, schema.names) == (1, ["a", "a"])


def test_the_job_says_how_a_file_is_written(tmp_path):
    url = written(tmp_path, "1;'x;y'\n2;'it\\'s'\n")
    found = read(url, delimiter=";", quote="'", escape="\\", header=["n", "t"])
    assert found.to_pydict() == {"n": ["1", "2"], "t": ["x;y", "it's"]}
    assert read(written(tmp_path, '1,"x\n'), quote="", header=False).to_pydict() == {"f0": ["1"], "f1": ['"x']}
    tabs = written(tmp_path, "a\tb\n1,5\t2\n", "a.tsv")
    assert read(tabs).to_pydict() == {"a": ["1,5"], "b": ["2"]}


def test_an_escape_outside_of_quotes_is_a_character_as_spark_writes_it(tmp_path):
    lines = [r"a\b", r'"a\\,b"', r'"a\"b"', r'"\\\""', r"a\\b", "\\", r"\N", '"x,\\\\"', '"two\nlines\\\\"', "c:\\"]
    wanted = [r"a\b", r"a\,b", 'a"b', '\\"', r"a\\b", "\\", None, "x,\\", "two\nlines\\", "c:\\"]
    url = written(tmp_path, "n," + '"t\\"\\\\"' + "\n" + "".join(f"{n},{one}\n" for n, one in enumerate(lines)))
    found = read(url, escape="\\", nulls=["", r"\N"])
    assert found.to_pydict() == {"n": [str(n) for n in range(len(lines))], 't"\\': wanted}
    bare = read(written(tmp_path, "n,t\n1,a\\,b\\\nc\n", "bare.csv"), quote="", escape="\\")
    assert bare.to_pydict() == {"n": ["1"], "t": ["a,b\nc"]}


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_a_packed_file_is_one_row_group(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(cut, "GROUP_ROWS", 1000)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, CODECS[suffix]) as stream:
        stream.write(b"a\tb\n" + b"".join(b"%d\t7\n\n" % n for n in range(200_000)))
    url = written(tmp_path, sink.getvalue().to_pybytes(), f"a.tsv{suffix}")
    file = planned(url)[2]
    assert [group.rows for group in file.row_groups] == [200_000]
    assert read(url, types={"a": "int32"}).column("a").to_numpy().tolist() == list(range(200_000))


# ---- cuts


def test_row_groups_of_a_large_file_hold_every_row_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cut, "GROUP_BYTES", 2**17)
    content = "a,b\n" + "".join(f'{n},"line\n{n}"\n' for n in range(60_000))
    url = written(tmp_path, content)
    file = planned(url)[2]
    assert len(file.row_groups) > 3
    assert all(before.place[1] == after.place[0] for before, after in pairwise(file.row_groups))
    assert file.row_groups[1].place[2] == 2 + 2 * file.row_groups[0].rows
    found = read(url, types={"a": "int32"})
    assert found.column("a").to_numpy().tolist() == list(range(60_000))
    assert found.column("b")[59_999].as_py() == "line\n59999"


PARTS = st.lists(st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", "a", " ", '"x"', '"\n"', "1"]), max_size=25)


@settings(deadline=None, max_examples=200)
@given(PARTS)
def test_rows_and_fields_are_those_of_pythons_csv(tmp_path_factory, parts):
    text = "".join(parts)
    folder = tmp_path_factory.mktemp("csv")
    wanted = [row for row in csv.reader(line.decode() for line in text.encode().splitlines(keepends=True)) if row]
    url = written(folder, text)
    names = ["a", "b"]
    try:
        found, places = read(url, header=names, nulls=[]), np.empty(0, np.int64)
    except BadRowsError as error:
        found, places = error.table, error.at
    assert found.num_rows == len(wanted)
    assert places.tolist() == [at for at, row in enumerate(wanted) if len(row) != 2]
    for row, fields in zip(found.to_pylist(), wanted, strict=True):
        assert len(fields) != 2 or list(row.values()) == fields


def test_a_promise_that_does_not_hold_is_no_silent_loss(tmp_path):
    url = written(tmp_path, 'a,b\n1,"x\ny"\n')
    with pytest.raises(DataError) as caught:
        read(url, newlines_in_values=False)
    assert caught.value.facts["code"] == "ROWGROUP_ROWS"
    assert read(url).num_rows == 1


# ---- bad rows


def test_a_line_with_other_fields_is_a_bad_row_with_its_number(tmp_path):
    error = bad(tmp_path, 'a,b\n1,"x\ny"\n\n2\n3,4\n5,6,7\n', "int8")
    assert [(one.code, one.column, one.at.tolist()) for one in error.bad] == [("ROW_LINE", None, [1, 3])]
    assert error.bad[0].stories == [
        "line 5 of the file: 1 fields in '2'; expected 2",
        "line 7 of the file: 3 fields in '5,6,7'; expected 2",
    ]
    assert error.table.to_pydict() == {"a": [1, None, 3, None]}
    assert error.rest().to_pydict() == {"a": [1, 3]}


@pytest.mark.parametrize(
    ("text", "kind", "code", "story"),
    [
        ("x", "int8", "ROW_VALUE", "'x' in column 'a' is no int8"),
        ("1.5", "int8", "ROW_VALUE", "'1.5' in column 'a' is no int8"),
        ("300", "int8", "ROW_OVERFLOW", "'300' in column 'a' is more than int8 can hold"),
        ("1e39", "float32", "ROW_OVERFLOW", "'1e39' in column 'a' is more than float can hold"),
        ("70000", "float16", "ROW_OVERFLOW", "'70000' in column 'a' is more than halffloat can hold"),
        (" ", "float32", "ROW_VALUE", "' ' in column 'a' is no float"),
        ("yes", "bool", "ROW_VALUE", "'yes' in column 'a' is no bool"),
        ("1000000", "decimal(8, 2)", "ROW_VALUE", "'1000000' in column 'a' is no decimal128(8, 2)"),
        ("2026-02-30", "date32", "ROW_VALUE", "'2026-02-30' in column 'a' is no date32[day]"),
        ("\x1b[2J" + "x" * 90, "int8", "ROW_VALUE", "'\\x1b[2J" + "x" * 69 + "... in column 'a' is no int8"),
    ],
)
def test_a_value_of_another_type_is_a_bad_row_with_its_line(tmp_path, text, kind, code, story):
    good = "2026-11-30" if kind == "date32" else "1"
    error = bad(tmp_path, f"a,b\n{good},1\n\n{text},2\n{good},3\n", kind)
    assert [(one.code, one.column, one.at.tolist(), *one.stories) for one in error.bad] == [
        (code, "a", [1], f"line 4 of the file: {story}")
    ]
    assert error.rest().num_rows == 2
    assert None not in error.rest().column("a").to_pylist()


def test_text_that_is_no_utf8_is_a_bad_row(tmp_path):
    error = bad(tmp_path, "a,b\nä,1\n".encode() + b"\xff\xfe,2\nx,3\n")
    assert [(one.code, *one.stories) for one in error.bad] == [
        ("ROW_UTF8", "line 3 of the file: '\\\\xff\\\\xfe' in column 'a' is no UTF-8")
    ]
    assert error.rest().to_pydict() == {"a": ["ä", "x"]}


def test_a_row_that_is_bad_twice_is_told_once(tmp_path):
    url = written(tmp_path, "a,b,c\nx,y,1\n1,y,2\n3\n4,5,6\n")
    with pytest.raises(BadRowsError) as caught:
        read(url, types={"a": "int8", "b": "int8"})
    assert caught.value.at.tolist() == [0, 1, 2]
    assert caught.value.rest().to_pydict() == {"a": [4], "b": [5], "c": ["6"]}


def test_bad_rows_of_all_pieces_of_a_packed_file_have_their_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(cut, "GROUP_ROWS", 1000)
    sink = pa.BufferOutputStream()
    lines = [f"{n},7" for n in range(100_000)]
    lines[70_000], lines[99_999] = "x,7", "1"
    with pa.CompressedOutputStream(sink, "gzip") as stream:
        stream.write("\n".join(["a,b", *lines]).encode())
    url = written(tmp_path, sink.getvalue().to_pybytes(), "a.csv.gz")
    with pytest.raises(BadRowsError) as caught:
        read(url, ["a"], {"a": "int32"})
    assert caught.value.at.tolist() == [70_000, 99_999]
    assert [story.partition(":")[0] for one in caught.value.bad for story in one.stories] == [
        "line 70002 of the file",
        "line 100001 of the file",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("block_bytes", [7, 20, 50])
def test_blocks_of_a_row_group_are_read_as_the_whole_is(tmp_path, monkeypatch, end, block_bytes):
    monkeypatch.setattr(csv_values, "_BLOCK_BYTES", block_bytes)
    rows = ["1,2", "3", "4,x", "", *(f"{at},{at}" for at in range(5, 25)), "25,26,27"]
    url = written(tmp_path, end.join(["a,b", *rows, ""]))
    with pytest.raises(BadRowsError) as caught:
        read(url, types={"a": "int64", "b": "int32"})
    assert [told.at.tolist() for told in caught.value.bad] == [[1, 23], [2]]
    assert [story[:7] for story in caught.value.bad[0].stories] == ["line 3 ", "line 26"]
    assert caught.value.table.column("a").to_pylist() == [1, None, 4, *range(5, 25), None]


def test_line_ends_of_values_are_kept_wherever_a_block_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_values, "_BLOCK_BYTES", 16)
    texts = [f'{"x" * at}\r\n"{at}' for at in range(12)]
    lines = "".join('"{}"\r\n'.format(text.replace('"', '""')) for text in texts)
    assert values(tmp_path, f"a\r\n{lines}") == texts


def test_a_quote_that_nothing_closes_takes_the_rest_and_loses_no_row(tmp_path):
    error = bad(tmp_path, 'a,b\n1,2\n"x\n4,5\n', "int8")
    assert [story for one in error.bad for story in one.stories] == [
        "line 3 of the file: 1 fields in '\"x\\n4,5'; expected 2"
    ]


KINDS = ["int8", "uint16", "int64", "float32", "float64", "bool", "date32", "timestamp[ms]", "timestamp[us, tz=UTC]"]
KINDS += ["decimal(8, 2)", "time32[s]", "time64[us]", "date64"]
TEXTS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str),
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes().map(lambda at: at.isoformat(timespec="seconds") + "Z"),
    st.times().map(str),
    st.sampled_from(["true", "False", "TRUE", "1", "0", "inf", "-inf", "nan", "1e400", "0x10", "1_000", "", "+5", "-"]),
)


@settings(deadline=None, max_examples=200)
@given(TEXTS, st.sampled_from(KINDS))
def test_a_value_beside_a_bad_one_is_read_as_it_is_without(tmp_path_factory, text, kind):
    folder = tmp_path_factory.mktemp("csv")
    try:
        alone = values(folder, f"a,b\n{text},\n", kind)
    except BadRowsError:
        alone = None
    error = bad(folder, f"a,b\n?,\n{text},\n", kind)
    beside = error.table.column("a").to_pylist()[1:]
    assert error.at.tolist() == ([0, 1] if alone is None else [0])
    assert repr(beside) == repr([None] if alone is None else alone)


def test_a_column_of_nothing_but_other_values_is_told_row_by_row(tmp_path):
    error = bad(tmp_path, "a,b\n" + "".join(f"x{n},1\n" for n in range(20_000)), "float32")
    assert len(error.at) == 20_000
    assert error.rest().num_rows == 0


# ---- files


def test_files_that_cannot_be_read_are_told_by_code(tmp_path):
    assert code_of(tmp_path, b"")[0] == "FILE_EMPTY"
    assert code_of(tmp_path, b"\n\r\n")[0] == "FILE_EMPTY"
    assert code_of(tmp_path, b"\xff\xfea\x00,\x00")[0] == "FILE_UNSUPPORTED"
    assert code_of(tmp_path, b"PAR1....")[0] == "FILE_MAGIC"
    assert code_of(tmp_path, b"\x1f\x8b......")[0] == "FILE_MAGIC"
    assert code_of(tmp_path, b"\xff,b\n1,2\n")[0] == "FILE_SCHEMA"
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "gzip") as stream:
        stream.write(b"a,b\n" * 1000)
    packed = sink.getvalue().to_pybytes()
    assert code_of(tmp_path, packed[:-6], "b.csv.gz")[0] == "FILE_TRUNCATED"
    assert code_of(tmp_path, b"a,b\n1,2\n", "b.csv.gz")[0] == "FILE_CORRUPT"
    assert code_of(tmp_path, b"", "b.csv.gz")[0] == "FILE_EMPTY"


def test_a_file_with_a_header_alone_has_no_rows(tmp_path):
    for content in ("a,b", "a,b\n", "\n\na,b\r\n\r\n"):
        _, _, file, schema, _ = planned(written(tmp_path, content))
        assert (file.row_groups, schema.names) == ((), ["a", "b"])
    assert planned(written(tmp_path, ""), header=["a"])[2].row_groups == ()


def test_a_small_file_that_unpacks_far_is_refused_while_it_is_counted(tmp_path):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "gzip") as stream:
        stream.write(b"a,b\n" + b"1,2\n" * 2**20)
    url = written(tmp_path, sink.getvalue().to_pybytes(), "a.csv.gz")
    source = source_of(Input(url=url, format="csv"), 2**20)
    store = Store(url)
    with pytest.raises(InputError, match="more than 1,048,576 bytes") as caught:
        source.inspect(store, store.stat(url), ["a"])
    assert caught.value.facts["code"] == "ROWGROUP_TOO_BIG"


def test_a_row_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_source, "_MOST_LINE_BYTES", 2**20)
    url = written(tmp_path, 'a,b\n1,"' + "x,\n" * 2**20)
    code, message = code_of(tmp_path, (tmp_path / "a.csv").read_bytes())
    assert code == "ROWGROUP_TOO_BIG"
    assert "a quote that nothing closes" in message
    assert url in message


def test_a_type_that_csv_has_not_is_refused_by_the_plan(tmp_path):
    url = written(tmp_path, "a\n1\n")
    with pytest.raises(InputError, match=r"column 'a' of CSV files as list<float>"):
        planned(url, types={"a": "list<float>"})
    with pytest.raises(InputError, match="is no type"):
        planned(url, types={"a": "flaot"})
    assert not readable(pa.duration("s"))


def test_values_are_taken_once_for_each_that_differs():
    texts = pa.array([b"1", None, b"x", b"1", b"x", b""], pa.binary())
    made, bad_at = converted(texts, pa.int8())
    assert made.to_pylist() == [1, None, None, 1, None, None]
    assert bad_at.tolist() == [2, 4]


def test_a_csv_file_of_python_is_read_as_it_was_written(tmp_path):
    sink = io.StringIO(newline="")
    rows = [["a", "b"], ['say "hi"', "x\ny"], ["", "1,5"], ["\ufeff", "é\r\n"]]
    csv.writer(sink, quoting=csv.QUOTE_ALL).writerows(rows)
    found = read(written(tmp_path, sink.getvalue()))
    assert [list(row.values()) for row in found.to_pylist()] == rows[1:]
