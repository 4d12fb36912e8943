"""Columns over all files: what is bound, whatever the order of the files, and how many footers a mistake costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from connectors.formats.schema import overview
from connectors.store.store import FileStat
from jobs.errors import BindingError, InputError
from jobs.job import Job
from jobs.plan import InputFile, RowGroup
from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.binding import Binding
from runner.binding.naming import kept_alone
from runner.model.signature import Signature, TensorSpec
from runner.preflight.columns import agreed, bound_first, varying
from runner.tensor import type_text


def tensor(name: str, dtype: str = "float32", shape: Sequence[int | None] = (None,), default: Any = None) -> TensorSpec:
    return TensorSpec(name, dtype, tuple(shape), f"{name}:0", default=default)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature("s", "", {spec.name: spec for spec in inputs}, {"y": tensor("y")})


MANY = 1000  # files, whose footers are not all read for a mistake


class Footers:
    """A source of files that have a schema and no rows; counts the footers that are read."""

    states = "all"

    def __init__(self, *schemas: pa.Schema) -> None:
        self.schemas, self.read = schemas, 0
        self.files = [FileStat(str(at), 1, "") for at in range(len(schemas))]

    def schema(self, store: Any, file: FileStat) -> pa.Schema:
        self.read += 1
        return self.schemas[int(file.url)]

    def inspect(self, store: Any, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
        return InputFile(file.url, 1, "", (RowGroup(1, 1),)), self.schema(store, file)

    def first(self, model: Signature, **columns: Any) -> Binding:
        job = {"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}, "columns": columns}
        store: Any = SimpleNamespace(kind=SimpleNamespace(local=True))
        source: Any = self
        return bound_first(Job.model_validate(job), model, source, store, self.files, True)


def over_all(schemas: Sequence[pa.Schema], model: Signature, **columns: Any) -> tuple[pa.Schema, list[str]]:
    rules = Columns.model_validate(columns)
    schema, problems = agreed(rules, model, [(str(at), one) for at, one in enumerate(schemas)])
    if not problems:
        bind(rules, schema, model, "list")
    return schema, problems


def x(*kinds: pa.DataType) -> list[pa.Schema]:
    return [pa.schema([("x", kind)]) for kind in kinds]


@pytest.mark.parametrize(
    ("model", "kinds", "columns"),
    [
        (tensor("x"), (pa.null(), pa.float32()), {}),
        (tensor("x", shape=(None, 2)), (pa.list_(pa.null()), pa.list_(pa.float32(), 2), pa.null()), {}),
        (tensor("x", "string"), (pa.null(), pa.string(), pa.binary()), {"keep": ["x"]}),
        (tensor("x", "int64"), (pa.float64(), pa.int64(), pa.null()), {}),
        (tensor("x", shape=(None, 2)), (pa.list_(pa.float32(), 2), pa.list_(pa.int8())), {}),
        (tensor("z"), (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.float32())])), {"inputs": {"z": "x.b"}}),
        (
            tensor("x", "complex64"),
            (pa.struct([("re", pa.float32())]), pa.struct([("im", pa.float32())])),
            {"inputs": {"x": {"column": "x"}}},
        ),
    ],
    ids=str,
)
def test_whatever_the_order_of_the_files_they_bind(
    model: TensorSpec, kinds: Sequence[pa.DataType], columns: dict[str, Any]
) -> None:
    seen = set()
    for order in permutations(x(*kinds)):
        Footers(*order[:1] * MANY, *order[1:]).first(signature(model), **columns)
        schema, problems = over_all(order, signature(model), **columns)
        assert problems == []
        seen.add("".join(sorted(type_text(schema.field("x").type))))  # fields come in the order of the files
    assert len(seen) == 1


def test_columns_that_only_a_later_file_has_are_said_to_be_missing_in_the_first() -> None:
    narrow, wide = (pa.schema([(f"f{at}", pa.float32()) for at in range(width)]) for width in (2, 3))
    model = signature(tensor("x", shape=(None, None)))
    for order in ([narrow, wide], [wide, narrow]):
        _, problems = over_all(order, model, inputs={"x": {"stack": "f*"}})
        (problem,) = problems
        assert problem.startswith(f"COLUMN_MISSING: column 'f2' is in 1 of 2 files, not in '{order.index(narrow)}'")
    optional = signature(tensor("f0"), tensor("f2", default=[0.0]))
    assert "'f2' is in 1 of 2 files" in over_all([narrow, wide], optional)[1][0]


def test_what_no_file_has_is_told_once() -> None:
    with pytest.raises(BindingError, match="input 'x' float32") as caught:
        Footers(*x(pa.float32(), pa.float64())).first(signature(tensor("x")), inputs={"x": "ex"}, keep=["x"])
    assert caught.value.message.count("COLUMN_MISSING") == 1


def test_a_mistake_says_which_files_lack_the_column() -> None:
    footers = Footers(*x(pa.float32()), *[pa.schema([("y", pa.float32())])] * 3)
    footers.files = footers.files[1:] + footers.files[:1]
    with pytest.raises(BindingError) as caught:
        footers.first(signature(tensor("x")))
    assert "found no such column" in caught.value.message
    assert "column 'x' is in 1 of 4 files, not in '1', '2', '3'" in caught.value.message
    assert caught.value.facts["code"] == "COLUMN_MISSING"


@pytest.mark.parametrize(
    ("kind", "dtype", "column"),
    [
        (pa.string(), "float32", "x"),
        (pa.float32(), "string", "x"),
        (pa.int64(), "float32", "z"),
        (pa.timestamp("us"), "float32", "x"),
        (pa.list_(pa.float32()), "float32", "x"),
    ],
    ids=str,
)
def test_a_mistake_costs_one_footer_of_many_where_no_other_file_could_mend_it(
    kind: pa.DataType, dtype: str, column: str
) -> None:
    footers = Footers(*x(kind) * MANY)
    with pytest.raises(BindingError, match="the first of 1,000 files"):
        footers.first(signature(tensor("x", dtype)), inputs={"x": column})
    assert footers.read == 1


def test_a_mistake_is_told_before_a_file_that_cannot_be_read() -> None:
    class Broken(Footers):
        def inspect(self, store: Any, file: FileStat, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
            raise InputError("cannot read it", code="FILE_FOOTER", file=file.url)

    with pytest.raises(BindingError, match="found string; expected float"):
        Broken(*x(pa.string(), pa.float32())).first(signature(tensor("x")))


def test_a_signature_that_is_wrong_costs_one_footer() -> None:
    footers = Footers(*x(pa.float32(), pa.null()))
    with pytest.raises(BindingError, match="no such input"):
        footers.first(signature(tensor("x")), inputs={"x": "x", "nope": "x"})
    assert footers.read == 1


def test_what_one_file_of_many_could_mend_is_refused_only_when_it_does_not() -> None:
    floats, whole = x(pa.float64(), pa.int64())
    model = signature(tensor("x", "int64"))
    Footers(*[floats] * MANY, whole).first(model)
    with pytest.raises(BindingError, match="found double; expected int64"):
        Footers(*[floats] * MANY).first(model)


def test_a_first_file_that_binds_costs_one_footer() -> None:
    footers = Footers(*x(pa.null(), *[pa.float32()] * MANY))
    footers.first(signature(tensor("x")))
    assert footers.read == 1


def test_fields_that_nothing_uses_may_clash_unless_the_struct_is_kept() -> None:
    one, two = x(pa.struct([("a", pa.int8()), ("n", pa.int8())]), pa.struct([("n", pa.string()), ("a", pa.int16())]))
    model = signature(tensor("z"))
    schema, problems = over_all([one, two], model, inputs={"z": "x.a"})
    assert (type_text(schema.field("x").type), problems) == ("struct<a: int16>", [])
    assert over_all([one, two], model, inputs={"z": "x.a"}, keep=["x"])[1]


def test_which_kept_columns_change_is_said() -> None:
    kinds = (pa.int64(), pa.float64(), pa.int64())
    schemas = [(str(at), pa.schema([("x", kind), ("w", kind), ("v", pa.int8())])) for at, kind in enumerate(kinds)]
    differ = "int64 in 2 files, double in 1 file"
    assert varying(schemas, ["v", "w", "x"]) == {"w": differ, "x": differ}
    assert varying(schemas[:1], ["x"]) == {}


@pytest.mark.parametrize("files", [2, MANY])
def test_a_column_that_only_other_files_have_may_be_taken_out(files: int) -> None:
    narrow, wide = (pa.schema([(name, pa.float32()) for name in names]) for names in (("x", "id"), ("x", "id", "raw")))
    for first, last in ((narrow, wide), (wide, narrow)):
        footers = Footers(*[first] * (files - 1), last)
        assert list(footers.first(signature(tensor("x")), keep=["all", "-raw"]).kept) == ["x", "id"]
        with pytest.raises(BindingError, match="'-rw': found no column to take out"):
            footers.first(signature(tensor("x")), keep=["all", "-rw"])


def test_all_means_the_columns_of_all_files_in_the_order_of_the_first() -> None:
    schemas = [pa.schema([(name, pa.float32()) for name in names]) for names in (("b", "x", "a"), ("a", "b", "x", "c"))]
    rules = Columns.model_validate({"keep": "all"})
    kept = kept_alone(rules, overview([(str(at), one) for at, one in enumerate(schemas)])).keep
    assert kept == ({"b": "b"}, {"x": "x"}, {"a": "a"}, {"c": "c"})
    _, problems = over_all(schemas, signature(tensor("x")), keep="all")
    assert [problem.partition(", not")[0] for problem in problems] == ["COLUMN_MISSING: column 'c' is in 1 of 2 files"]
