from __future__ import annotations

import pyarrow as pa
import pytest

from connectors.formats.declared import text_of, type_of, types_of
from jobs.errors import InputError

KINDS = [
    *(pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.binary()),
    *(pa.date32(), pa.time32("ms"), pa.time64("ns"), pa.duration("s"), pa.timestamp("ms"), pa.timestamp("us", "UTC")),
    pa.timestamp("ns", "Europe/Berlin"),
    pa.decimal128(10, 2),
    pa.list_(pa.float32()),
    pa.list_(pa.float32(), 4),
    pa.list_(pa.list_(pa.int64())),
    pa.struct([("a", pa.int64()), ("b c", pa.list_(pa.string())), ("d", pa.struct([("e", pa.bool_())]))]),
    pa.struct([]),
    pa.struct([(name, pa.int8()) for name in ("a:b", "<", ", ", 'q"', '"', "\\", "", " x", "é")]),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_type_is_read_as_it_is_written(kind: pa.DataType) -> None:
    assert type_of(text_of(kind)) == kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("float", pa.float32()),
        ("double", pa.float64()),
        ("text", pa.string()),
        ("date", pa.date32()),
        (" list < int32 > ", pa.list_(pa.int32())),
        ("struct<a:int8,b:list<text>>", pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string()))])),
        ("decimal(38,9)", pa.decimal128(38, 9)),
    ],
)
def test_other_words_for_a_type(text: str, kind: pa.DataType) -> None:
    assert type_of(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "int",
        "int33",
        "timestamp",
        "timestamp[h]",
        "list<int>",
        "list<int32",
        "struct<a>",
        "int32 x",
        "decimal(99, 2)",
    ],
)
def test_what_is_no_type_is_told_with_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="is no type: expected"):
        type_of(text)


def test_a_declared_column_is_named_where_its_type_is_none() -> None:
    with pytest.raises(InputError) as caught:
        types_of({"id": "int64", "age": "int33"})
    assert caught.value.message.startswith(
        "cannot read column 'age' as `input.schema` says: 'int33' is no type: expected"
    )
    assert caught.value.facts["code"] == "COLUMN_TYPE"
