"""One schema for all files: what is in it, what is refused, and how tables become it."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.formats.plain import plain_table
from connectors.formats.registry import make_encoder, make_source
from connectors.formats.schema import conform, leaf_types, overview, unify
from connectors.formats.widening import wider
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.errors import DataError

TENSOR = pa.fixed_shape_tensor(pa.float32(), [2, 2])


def schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


def problem(*schemas: pa.Schema, column: str = "a") -> str:
    found, problems = unify([(f"s3://b/{i}", one) for i, one in enumerate(schemas)], [column])
    assert len(found) == 0
    (only,) = problems
    return only


@pytest.mark.parametrize(
    "kinds",
    [
        [pa.int8(), pa.uint64(), pa.int64(), pa.float32()],
        [pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ms")],
        [pa.int64(), pa.uint64(), pa.decimal128(10, 2)],
        [pa.string(), pa.large_string(), pa.binary(4)],
    ],
    ids=str,
)
def test_the_order_of_the_files_does_not_matter(kinds: list[pa.DataType]) -> None:
    found = {unify([(str(i), schema(a=one)) for i, one in enumerate(order)], ["a"])[0] for order in permutations(kinds)}
    (one,) = found
    assert len(one) == 1


@pytest.mark.parametrize(
    "order", [*permutations([pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3), pa.list_(pa.int8())])], ids=str
)
def test_a_list_of_any_length_hides_no_clash_of_fixed_sizes(order: tuple[pa.DataType, ...]) -> None:
    assert "COLUMN_TYPE" in problem(*(schema(a=kind) for kind in order))


def test_a_struct_has_the_fields_of_all_files_and_null_where_one_is_not_there() -> None:
    files = [
        pa.table({"s": [{"b": 1, "a": "x"}, None]}),
        pa.table(
            {
                "s": pa.array(
                    [{"a": b"y", "c": [1.5], "b": 2}],
                    pa.struct([("a", pa.binary()), ("c", pa.list_(pa.float32(), 1)), ("b", pa.int8())]),
                )
            }
        ),
    ]
    found, problems = unify([(str(i), file.schema) for i, file in enumerate(files)], ["s"])
    assert problems == []
    rows = pa.concat_tables([conform(file, found, "f") for file in files])["s"].to_pylist()
    assert rows == [{"b": 1, "a": b"x", "c": None}, None, {"b": 2, "a": b"y", "c": [1.5]}]
    assert [list(row) for row in rows if row] == [["b", "a", "c"]] * 2


def test_fields_that_nothing_uses_may_clash() -> None:
    files = [
        pa.table({"s": [{"x": 1, "note": "n", "deep": {"y": 1, "z": 1}}]}),
        pa.table({"s": [{"note": 5, "x": 2, "deep": {"z": "2", "y": 2}}]}),
    ]
    schemas = [(str(i), file.schema) for i, file in enumerate(files)]
    assert unify(schemas, ["s"])[1]
    assert unify(schemas, ["s"], {"s": [("x",), ("note",)]})[1]
    found, problems = unify(schemas, ["s"], {"s": [("x",), ("deep", "y")]})
    assert problems == []
    rows = [conform(file, found, "f")["s"].to_pylist() for file in files]
    assert rows == [[{"x": 1, "deep": {"y": 1}}], [{"x": 2, "deep": {"y": 2}}]]


def test_an_overview_has_all_columns_and_all_fields_whether_they_clash_or_not() -> None:
    one = schema(a=pa.int64(), s=pa.struct([("x", pa.int8()), ("n", pa.int8())]), d=pa.int8())
    two = schema(d=pa.string(), b=pa.int8(), s=pa.struct([("n", pa.string()), ("y", pa.int8())]), a=pa.null())
    found = overview(zip("abc", [one, two, one], strict=True))
    assert found.names == ["a", "s", "d", "b"]
    assert [field.name for field in found.field("s").type] == ["x", "n", "y"]
    assert overview([("a", one)]) is one


def test_the_schema_has_the_wanted_columns_in_their_order() -> None:
    first = schema(a=pa.int32(), b=pa.string(), c=pa.bool_())
    second = schema(c=pa.bool_(), x=pa.null(), b=pa.string(), a=pa.int64())
    found, problems = unify([("1", first), ("2", second)], ["b", "a", "b"])
    assert problems == []
    assert found.equals(schema(b=pa.string(), a=pa.int64()))


def test_nullability_may_drift() -> None:
    strict = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    assert unify([("1", strict), ("2", strict)], ["a"])[0].field("a").nullable is False
    assert unify([("1", strict), ("2", schema(a=pa.int64()))], ["a"])[0].field("a").nullable is True


def test_dictionaries_views_and_runs_unify_with_plain_values() -> None:
    kinds = [
        pa.string(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.string_view(),
        pa.run_end_encoded(pa.int32(), pa.string()),
    ]
    found, problems = unify([(str(i), schema(a=kind)) for i, kind in enumerate(kinds)], ["a"])
    assert (problems, found.field("a").type) == ([], pa.string())


def test_field_numbers_of_parquet_do_not_matter() -> None:
    numbered = [pa.schema([pa.field("a", pa.int64(), metadata={"PARQUET:field_id": str(i)})]) for i in range(2)]
    found, problems = unify([("1", numbered[0]), ("2", numbered[1])], ["a"])
    assert (problems, found.field("a").metadata) == ([], None)


def test_a_missing_column_names_files_and_near_names() -> None:
    with_it, without = schema(score=pa.int64()), schema(scores=pa.int64(), other=pa.int64())
    files = [with_it] * 2 + [without] * 5
    found = problem(*files, column="score")
    assert found == (
        "COLUMN_MISSING: column 'score' is in 2 of 7 files, not in 's3://b/2', 's3://b/3', 's3://b/4' and 2 more: "
        "the columns there are 'scores', 'other'"
    )


@pytest.mark.parametrize(("name", "hint"), [("UserID", "did you mean 'userid'?"), ("tag.name", "'tag' is a column")])
def test_a_missing_column_has_a_hint(name: str, hint: str) -> None:
    one = schema(userid=pa.int64(), tag=pa.struct([("name", pa.string())]))
    found = problem(one, column=name)
    assert "in none of 1 file," in found
    assert hint in found


def test_types_that_clash_name_a_file_of_each() -> None:
    found = problem(schema(a=pa.int64()), schema(a=pa.string()), schema(a=pa.int64()))
    assert found.startswith("COLUMN_TYPE: column 'a'")
    assert "int64 in 's3://b/0', 's3://b/2', string in 's3://b/1'" in found


def test_a_clash_is_found_whatever_lies_between() -> None:
    kinds = [pa.null(), pa.int8(), pa.int64(), pa.decimal128(9, 2), pa.float32()]
    assert "COLUMN_TYPE" in problem(*(schema(a=kind) for kind in kinds))
    assert "COLUMN_TYPE" in problem(*(schema(a=kind) for kind in reversed(kinds)))


def test_a_name_that_is_there_twice_matters_only_if_wanted() -> None:
    twice = pa.schema([("a", pa.int64()), ("a", pa.int64()), ("b", pa.int64())])
    assert problem(twice).startswith("COLUMN_AMBIGUOUS: column 'a' is there more than once in 's3://b/0'")
    assert unify([("1", twice)], ["b"]) == (schema(b=pa.int64()), [])


def test_all_problems_come_at_once() -> None:
    _, problems = unify([("1", schema(a=pa.int64())), ("2", schema(a=pa.string()))], ["a", "b", "c"])
    assert [found.partition(":")[0] for found in problems] == ["COLUMN_TYPE", "COLUMN_MISSING", "COLUMN_MISSING"]


def test_many_files_with_few_schemas_are_compared_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("connectors.formats.widening.wider", lambda a, b: calls.append((a, b)) or wider(a, b))
    kinds = [schema(a=pa.int32()), schema(a=pa.int64())]
    files = [(str(i), pa.schema(list(kinds[i % 2]))) for i in range(5000)]
    found, problems = unify(files, ["a"])
    assert (problems, found.field("a").type, len(calls)) == ([], pa.int64(), 1)


def test_no_files_have_no_schema() -> None:
    assert unify([], []) == (pa.schema([]), [])


def test_a_table_of_that_schema_is_passed_on_as_it_is() -> None:
    table = pa.table({"a": [1], "b": ["x"]})
    assert conform(table, table.schema, "f") is table


def test_columns_that_need_no_cast_are_not_copied() -> None:
    table = pa.table({"b": ["x"], "a": pa.array([1], pa.int32())})
    wanted = schema(a=pa.int64(), b=pa.string())
    found = conform(table, wanted, "f")
    assert found.schema.equals(wanted, check_metadata=True)
    assert found["b"].chunk(0).buffers()[2].address == table["b"].chunk(0).buffers()[2].address


def test_a_table_without_columns_keeps_its_rows() -> None:
    assert conform(pa.table({"a": [1, 2]}), pa.schema([]), "f").num_rows == 2


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        (pa.null(), TENSOR),
        (pa.null(), pa.struct([("x", pa.int8())])),
        (pa.list_(pa.field("item", pa.int32(), False), 2), pa.list_(pa.field("element", pa.int64()), 2)),
        (pa.struct([pa.field("x", pa.int32())]), pa.struct([pa.field("x", pa.int64())])),
    ],
)
def test_nested_columns_are_cast(kind: pa.DataType, to: pa.DataType) -> None:
    found = conform(pa.table({"a": pa.nulls(3, kind)}), pa.schema([("a", to)]), "f")
    assert (found["a"].type, found["a"].null_count) == (to, 3)


def test_a_value_that_does_not_fit_is_a_data_error() -> None:
    with pytest.raises(DataError, match="column 'a' of 'f' as int8: it is int64") as caught:
        conform(pa.table({"a": [300]}), schema(a=pa.int8()), "f")
    assert caught.value.facts == {"code": "COLUMN_TYPE", "file": "f", "column": "a"}


@pytest.mark.parametrize(("name", "code"), [("b", "COLUMN_MISSING"), ("a", "COLUMN_AMBIGUOUS")])
def test_a_table_must_have_the_columns_once(name: str, code: str) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(DataError) as caught:
        conform(table, pa.schema([(name, pa.int64())]), "f")
    assert caught.value.facts["code"] == code


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=3)), max_size=12), st.booleans(), st.data())
def test_list_views_become_the_same_lists(rows: list[list[int] | None], large: bool, data: st.DataObject) -> None:
    kind = pa.large_list_view(pa.int8()) if large else pa.list_view(pa.int8())
    start = data.draw(st.integers(0, len(rows)))
    table = pa.table({"a": pa.array(rows, kind).slice(start)})
    found = plain_table(table)["a"]
    assert found.type == (pa.large_list(pa.int8()) if large else pa.list_(pa.int8()))
    assert found.to_pylist() == rows[start:]


def test_a_dictionary_of_lists_becomes_lists() -> None:
    lists = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), pa.array([[1], [2, 3]]))
    assert plain_table(pa.table({"a": lists}))["a"].to_pylist() == [[2, 3], None, [1]]


@pytest.mark.parametrize(
    ("kind", "leaves"),
    [
        (pa.int8(), 1),
        (TENSOR, 1),
        (pa.map_(pa.string(), pa.list_(pa.int8())), 2),
        (pa.struct([("x", pa.list_(pa.struct([("y", pa.int8()), ("z", pa.int8())]))), ("w", pa.null())]), 3),
        (pa.dictionary(pa.int8(), pa.string()), 1),
    ],
)
def test_leaves_are_counted(kind: pa.DataType, leaves: int) -> None:
    assert len(list(leaf_types(kind))) == leaves


def extended(kind: pa.DataType, name: str, parameters: str | None) -> pa.Field:
    said = {"ARROW:extension:name": name} | ({} if parameters is None else {"ARROW:extension:metadata": parameters})
    return pa.field("a", kind, metadata=said)


PERIOD = extended(pa.int64(), "pandas.period", '{"freq": "M"}')


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (PERIOD, extended(pa.int64(), "pandas.period", '{"freq": "D"}'), 'int64 as pandas.period {"freq": "D"}'),
        (PERIOD, extended(pa.int64(), "my.period", '{"freq": "M"}'), 'int64 as my.period {"freq": "M"}'),
        (PERIOD, extended(pa.int32(), "pandas.period", '{"freq": "D"}'), 'int32 as pandas.period {"freq": "D"}'),
        (PERIOD, pa.field("a", pa.int64()), "int64 in"),
        (
            pa.field("a", pa.list_(PERIOD)),
            pa.field("a", pa.list_(extended(pa.int64(), "pandas.period", '{"freq": "D"}'))),
            'list<a: int64> with [] as pandas.period {"freq": "D"}',
        ),
        (
            pa.field("a", pa.struct([PERIOD, pa.field("b", pa.int8())])),
            pa.field("a", pa.struct([PERIOD.with_metadata(None), pa.field("b", pa.int8())])),
            "struct<a: int64, b: int8> in",
        ),
        (
            pa.field("a", pa.map_(pa.string(), PERIOD)),
            pa.field("a", pa.map_(pa.string(), PERIOD.with_metadata(None))),
            "map<string, int64 ('a')> in",
        ),
    ],
)
def test_the_parameters_of_an_extension_type_are_a_part_of_it(one: pa.Field, other: pa.Field, told: str) -> None:
    for fields in ([one, other], [other, one]):
        only = problem(*(pa.schema([field]) for field in fields))
        assert only.startswith("COLUMN_TYPE: column 'a' has types that do not agree")
        assert (told in only, 'as pandas.period {"freq": "M"} in' in only) == (True, True)
    assert unify([("1", pa.schema([one])), ("2", pa.schema([one]))], ["a"])[0].field("a").metadata == one.metadata


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"freq": "M", "n": 1}', '{"n":1,"freq":"M"}'),
        ("", None),
        ("\\x80pickled", "\\x80pickled"),
    ],
)
def test_parameters_may_be_written_in_several_ways(one: str | None, other: str | None) -> None:
    fields = [extended(pa.int32(), "x", one), extended(pa.int64(), "x", other)]
    found, problems = unify([(str(at), pa.schema([field])) for at, field in enumerate(fields)], ["a"])
    assert (problems, found.field("a").type) == ([], pa.int64())
    assert (found.field("a").metadata or {})[b"ARROW:extension:name"] == b"x"


def test_a_column_of_nulls_takes_the_extension_type_of_other_files() -> None:
    empty = pa.schema([("a", pa.null())])
    for schemas in ([empty, pa.schema([PERIOD])], [pa.schema([PERIOD]), empty]):
        found, problems = unify([(str(at), one) for at, one in enumerate(schemas)], ["a"])
        assert (problems, found.field("a").metadata) == ([], PERIOD.metadata)


def test_pickled_extension_types_are_refused_inside_of_lists_too() -> None:
    pickled = extended(pa.int64(), "arrow.py_extension_type", "cos\nsystem")
    for field in (pickled, pa.field("a", pa.list_(pa.struct([pickled])))):
        assert problem(pa.schema([field])).startswith("EXTENSION_REFUSED: column 'a'")


class Period(pa.ExtensionType):
    """As pandas has it; equal to all of its kind, as Ray's tensors of variable shapes are."""

    def __init__(self, freq: str) -> None:
        self.freq = freq
        super().__init__(pa.int64(), "test.period")

    def __arrow_ext_serialize__(self) -> bytes:
        return json.dumps({"freq": self.freq}).encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Period:
        return cls(json.loads(serialized)["freq"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Period)

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_what_python_has_registered_makes_no_difference(format: str, tmp_path: Path) -> None:
    kinds = {at: pa.field("a", Period(at)) for at in "MD"}
    numbers = pa.array([1, None, 3])
    urls = {}
    for at, field in kinds.items():
        period = pa.ExtensionArray.from_storage(field.type, numbers)
        lists = pa.ListArray.from_arrays(pa.array([0, 1, 1, 3]), period).cast(pa.list_(pa.field("item", field.type)))
        table = pa.table([period, lists], pa.schema([field, pa.field("b", lists.type)]))
        urls[at] = str(tmp_path / at)
        (tmp_path / at).write_bytes(make_encoder(format).encoded(table))

    def read() -> tuple[list[str], list[pa.Table]]:
        store, source, schemas, tables = Store(str(tmp_path)), make_source(format), [], []
        for url in urls.values():
            file, schema = source.inspect(store, store.stat(url), ["a", "b"])
            rows = tuple(group.rows for group in file.row_groups)
            with source.open(store, InputSlice(0, url, file.size, file.version, 0, rows), ["a", "b"]) as reader:
                tables.append(conform(reader.read(0), unify([(url, schema)], ["a", "b"])[0], url))
            schemas.append((url, schema))
        return unify(schemas, ["a", "b"])[1], tables

    without = read()
    pa.register_extension_type(Period("?"))
    try:
        registered = read()
    finally:
        pa.unregister_extension_type("test.period")
    assert registered[0] == without[0]
    assert [one[:26] for one in without[0]] == ["COLUMN_TYPE: column 'a' ha", "COLUMN_TYPE: column 'b' ha"]
    for one, other in zip(registered[1], without[1], strict=True):
        assert one.schema.equals(other.schema, check_metadata=True)
        assert (one, one["b"].to_pylist()) == (other, [[1], [], [None, 3]])
