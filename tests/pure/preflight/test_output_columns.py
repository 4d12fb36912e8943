"""Whether the output can be written, before any work: each column with its reason and what would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from connectors.formats.plain import plain_field
from connectors.output.reject import reject_schema
from jobs.errors import OutputError
from jobs.job import Job
from runner.binding.bind import bind
from runner.binding.binding import Binding
from runner.model.signature import Signature, TensorSpec
from runner.preflight.output import written

NOTHING = pa.list_(pa.float32(), 0)


def notes(
    outputs: dict[str, Any],
    given: Sequence[tuple[str, pa.DataType]] = (),
    said: Any = None,
    dtype: str = "float32",
    **output: Any,
) -> tuple[str, ...]:
    """outputs: name -> shape of a row, of type `dtype`. given: columns beside 'x', all kept. said: of a file."""
    signature = Signature(
        "s",
        "",
        {"x": TensorSpec("x", "float32", (None,), "x:0")},
        {name: TensorSpec(name, dtype, (None, *shape), f"{name}:0") for name, shape in outputs.items()},
    )
    schema = pa.schema([("x", pa.float32()), *given])
    job = Job.model_validate(
        {
            "model": {"url": "m"},
            "input": {"url": "i"},
            "columns": {"keep": [name for name, _ in given]},
            "output": {"url": "o"} | output,
            "limits": {"on_bad_row": "reject"},
        }
    )

    def bound(encoding: str) -> Binding:
        return bind(job.columns, schema, signature, encoding)

    return written(job, bound(job.output.tensor_encoding), bound, schema, lambda: (schema, said or {}))


def refused(*arguments: Any, **output: Any) -> list[str]:
    with pytest.raises(OutputError) as caught:
        notes(*arguments, **output)
    assert caught.value.exit_code == 2
    assert caught.value.facts["code"] == "COLUMN_TYPE"
    return caught.value.message.split("\n")


def test_an_output_of_width_0_is_refused_with_what_would_do() -> None:
    first, line = refused({"y": (), "z": (0,)})
    assert first == "cannot write parquet files: 1 column cannot be held"
    assert line == (
        "  - column 'z' (fixed_shape_tensor<float>[0]): it could be written, and not be read again: Expected all lists"
        " to be of size=0 but index 1 had size=1; `output: {format: arrow}`, or leave it out of `outputs:`"
    )
    assert notes({"y": (), "z": (0,)}, format="arrow") == ()


@pytest.mark.parametrize("encoding", ["fixed_shape_tensor", "list", "binary"])
@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 2), (None, 0)], ids=str)
def test_no_encoding_of_a_tensor_helps_where_a_dimension_is_0(shape: Any, encoding: str) -> None:
    _, line = refused({"z": shape}, tensor_encoding=encoding)
    assert line.endswith("; `output: {format: arrow}`, or leave it out of `outputs:`")


@pytest.mark.parametrize("encoding", ["fixed_shape_tensor", "list", "binary"])
def test_a_dimension_that_is_not_known_may_turn_out_to_be_0(encoding: str) -> None:
    assert notes({"a": (None,), "b": (None, 3), "c": (3, None), "d": (None, None)}, tensor_encoding=encoding) == ()


def test_another_encoding_is_offered_where_it_helps() -> None:
    _, line = refused({"z": (3, None)}, format="tfrecord")
    others = ", or ".join(f"`output: {{format: {name}}}`" for name in ("parquet", "arrow", "jsonl"))
    assert f"{others}, or `output: {{tensor_encoding: binary}}`" in line


def test_every_column_that_cannot_be_held_is_named_at_once() -> None:
    first, *lines = refused({"y": (), "z": (0,)}, [("i", pa.month_day_nano_interval()), ("e", pa.struct([]))])
    assert first == "cannot write parquet files: 3 columns cannot be held"
    assert [line.split(" (")[0] for line in lines] == ["  - kept column 'i'", "  - kept column 'e'", "  - column 'z'"]
    assert all(line.endswith("or leave it out of `keep:`") for line in lines[:2])


def test_no_other_format_is_offered_that_cannot_hold_it_either() -> None:
    _, line = refused({"y": ()}, [("r", pa.list_(pa.run_end_encoded(pa.int32(), pa.int64())))])
    assert line.endswith("int32); leave it out of `keep:`")


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (pa.float16(), "cast to float32 in the input, or use `spark.read.schema(...)` without the column"),
        (pa.time32("ms"), "cast to int32 in the input, or use `spark.read.schema(...)` without the column"),
        (pa.time64("us"), "cast to int64 in the input, or use `spark.sql.timeType.enabled=true`"),
        (
            pa.timestamp("ns", "UTC"),
            "cast to timestamp[us] in the input, or use `spark.sql.legacy.parquet.nanosAsLong=true`",
        ),
        (pa.decimal256(60, 5), "cast to string in the input, or use `spark.read.schema(...)` without the column"),
        (pa.uuid(), "cast to string in the input, or use `spark.read.schema(...)` without the column"),
    ],
    ids=str,
)
@pytest.mark.parametrize("wrap", [lambda kind: kind, pa.list_, lambda kind: pa.struct([("a", kind)])])
def test_what_spark_refuses_as_a_whole_is_told_with_the_cast_that_helps(wrap: Any, kind: Any, way: str) -> None:
    (note,) = notes({"y": ()}, [("id", pa.int64()), ("c", wrap(kind))])
    assert note.startswith("Spark 4.3 refuses the parts as a whole, because of column 'c' (")
    assert note.endswith(f"): {way}")
    assert notes({"y": ()}, [("c", wrap(kind))], format="arrow") == ()


def test_an_output_that_spark_refuses_is_cast_in_the_model() -> None:
    found = notes({"y": (), "z": (2,)}, [("h", pa.float16())], dtype="float16")
    assert found == (
        "Spark 4.3 refuses the parts as a whole, because of columns 'h', 'y', 'z'"
        " (halffloat, fixed_shape_tensor<halffloat>[2]): cast to float32 in the input and the model, or use"
        " `spark.read.schema(...)` without the column",
    )


@pytest.mark.parametrize(
    "kind", [pa.uint64(), pa.duration("ns"), pa.timestamp("us"), pa.timestamp("s"), pa.decimal256(38, 5)]
)
def test_what_spark_reads_is_not_told(kind: pa.DataType) -> None:
    assert not any("Spark" in note for note in notes({"y": ()}, [("c", kind)]))


def test_what_a_reader_gets_instead_is_told() -> None:
    times = [("t", pa.time32("s")), ("u", pa.time32("s")), ("d", pa.date64())]
    assert notes({"y": ()}, times)[:2] == (
        "kept columns 't', 'u' are written as time32[ms] (was time32[s]; Parquet has no seconds)",
        "kept column 'd' is written as date32[day] (was date64[ms]; Parquet has dates of whole days only)",
    )
    assert notes({"y": ()}, times, format="arrow") == ()
    assert notes({"y": (2,)}, [("w", pa.float64())], format="tfrecord") == (
        "kept column 'w' is written as float (was double; a tf.Example holds float32, int64, bytes, and lists of them)",
        "column 'y' is written as list<float> (was fixed_shape_tensor<float>[2]; a tf.Example holds float32, int64,"
        " bytes, and lists of them)",
    )


def test_what_a_file_says_beside_types_is_told_as_lost() -> None:
    said = {"g": "logical type GEOMETRY", "other": "what nobody keeps"}
    assert notes({"y": ()}, [("g", pa.binary())], said) == (
        "kept column 'g' loses its logical type GEOMETRY: only values are kept",
    )


def test_reject_files_do_without_a_column_that_parquet_cannot_hold() -> None:
    kept = [("id", pa.int64()), ("z", NOTHING)]
    assert notes({"y": ()}, kept, format="arrow") == (
        "column 'z' of rejected rows is not in reject files, which are Parquet",
    )
    read = pa.schema([("x", pa.float32()), *kept])
    assert reject_schema(read, ["id", "z"], False).field("kept").type == pa.struct([("id", pa.int64())])
    assert "kept" not in reject_schema(read, ["z"], False).names
    assert [part.name for part in reject_schema(read, ["id"], True).field("input").type] == ["x", "id"]


def test_a_column_without_a_value_in_any_file_is_a_note() -> None:
    found = notes({"y": ()}, [("n", pa.null()), ("k", pa.int8())])
    assert found == ("column 'n' is of type null in all files: no row has a value",)


LOSSES = {  # type -> what stands in the part, by format; None: the same; "": refused
    pa.timestamp("s"): ("timestamp[ms]", None, ""),
    pa.timestamp("s", "UTC"): ("timestamp[ms, tz=UTC]", None, ""),
    pa.timestamp("ns"): (None, None, ""),
    pa.time32("s"): ("time32[ms]", None, ""),
    pa.date32(): (None, None, ""),
    pa.date64(): ("date32[day]", None, ""),
    pa.duration("s"): (None, None, ""),
    pa.list_(pa.timestamp("s")): ("list<timestamp[ms]>", None, ""),
    pa.dictionary(pa.int8(), pa.string(), ordered=True): ("string", "string", "binary"),
    pa.run_end_encoded(pa.int32(), pa.float32()): ("float", "float", "float"),
    pa.string_view(): ("string", "string", "binary"),
    pa.list_view(pa.int64()): ("list<int64>", "list<int64>", "list<int64>"),
    pa.large_string(): (None, None, "binary"),
    pa.float16(): (None, None, "float"),
    pa.uint8(): (None, None, "int64"),
    pa.bool_(): (None, None, "int64"),
    pa.decimal128(9, 2): (None, None, ""),
    pa.uuid(): (None, None, "binary"),
    pa.json_(): (None, None, "binary"),
    pa.map_(pa.string(), pa.int64()): (None, None, ""),
    pa.struct([("a", pa.binary())]): (None, None, ""),
    pa.month_day_nano_interval(): ("", None, ""),
}


@pytest.mark.parametrize("at", range(3), ids=["parquet", "arrow", "tfrecord"])
@pytest.mark.parametrize("kind", LOSSES, ids=str)
def test_of_every_type_what_comes_out_is_the_same_or_said(kind: pa.DataType, at: int) -> None:
    format, wanted = ("parquet", "arrow", "tfrecord")[at], LOSSES[kind][at]
    plain = plain_field(pa.field("c", kind)).type
    schema = pa.schema([("x", pa.float32()), ("c", plain)])
    stated = pa.schema([("x", pa.float32()), ("c", kind)])
    columns = {"keep": {"k": "c"}}
    job = Job.model_validate(
        {"model": {"url": "m"}, "input": {"url": "i"}, "columns": columns, "output": {"url": "o", "format": format}}
    )
    specs = {name: TensorSpec(name, "float32", (None,), f"{name}:0") for name in ("x", "y")}
    signature = Signature("s", "", {"x": specs["x"]}, {"y": specs["y"]})

    def bound(encoding: str) -> Binding:
        return bind(job.columns, schema, signature, encoding)

    def said() -> list[str]:
        notes = written(job, bound("list"), bound, schema, lambda: (stated, {}))
        return [note for note in notes if note.startswith("kept")]

    if wanted == "":
        with pytest.raises(OutputError, match="kept column 'k'"):
            said()
    elif wanted is None:
        assert said() == []
    else:
        (note,) = said()
        assert note.startswith(f"kept column 'k' is written as {wanted} (was ")
        assert "; " in note, "why"


@pytest.mark.parametrize(
    ("shape", "rule", "told"),
    [
        ([None, None], {"argmax": True}, True),
        ([None, None], {"top_k": 2}, True),
        ([None, None], {"at": 1}, True),
        ([None, None, 3], {"at": [1, 2]}, True),
        ([None, None, 3], {"argmax": True}, False),  # the places of each item
        ([None, None, 3], {"at": 1}, False),
        ([None, None, 3], {"at": [0, 2]}, False),  # the first place of each row
        ([None, None], {"round": 2}, False),
        ([None, 3], {"argmax": True}, False),
    ],
)
def test_places_in_a_dimension_that_may_be_padding_are_told(
    shape: list[int | None], rule: dict[str, Any], told: bool
) -> None:
    inputs = {"ids": TensorSpec("ids", "int32", (None, None), "ids:0")}
    outputs = {"per": TensorSpec("per", "float32", tuple(shape), "per:0")}
    signature, schema = Signature("s", "", inputs, outputs), pa.schema([("ids", pa.list_(pa.int32()))])

    def notes(ids: dict[str, Any]) -> tuple[str, ...]:
        columns = {"inputs": {"ids": {"column": "ids"} | ids}, "outputs": {"c": {"of": "per"} | rule}}
        job = Job.model_validate({"model": "m", "input": "i", "columns": columns, "output": "o"})

        def bound(encoding: str) -> Binding:
            return bind(job.columns, schema, signature, encoding)

        return written(job, bound("list"), bound, schema, lambda: (schema, {}))

    story = (
        "output 'per' has no fixed width, and input 'ids' is padded: if it is as wide, places of padding count in"
        " column 'c' as others do"
    )
    assert notes({"pad": "max"}) == ((story,) if told else ())
    assert notes({}) == ()
