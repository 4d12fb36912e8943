"""The agreement of columns and tensors: names, constants, defaults, the batch dimension, and all offenders at once."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import BindingError, InternalError
from jobs.section.canonical import canonical
from jobs.section.columns import Columns
from runner.binding.bind import bind, wanted_columns
from runner.binding.binding import Binding
from runner.binding.fetching import Rules
from runner.model.signature import Signature, TensorSpec
from runner.tensor import AS_BITS, DTYPES, Strings, bits_of, integer_range, natural, values_of


def tensor(name: str, dtype: str = "float32", shape: Any = (None,), **more: Any) -> TensorSpec:
    return TensorSpec(name, dtype, shape, f"{name}:0", **more)


def signature(inputs: list[TensorSpec], outputs: list[TensorSpec] | None = None) -> Signature:
    outputs = [tensor("y")] if outputs is None else outputs
    return Signature("s", "", {spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs})


def bound(model: Signature, schema: Any, **columns: Any) -> Binding:
    return bind(Columns.model_validate(columns), pa.schema(schema), model, "fixed_shape_tensor")


def refused(model: Signature, schema: Any, **columns: Any) -> tuple[str, list[str]]:
    with pytest.raises(BindingError) as caught:
        bound(model, schema, **columns)
    assert caught.value.message.startswith("could not bind columns to signature 's': ")
    codes = caught.value.facts["codes"].split(",")
    assert caught.value.facts["code"] == codes[0]
    lines = caught.value.message.split("\n")[1:]
    assert len(lines) == len(codes)
    return "\n".join(lines), codes


FLOAT = pa.float32()


# -- fetch(feed(x)) ----------------------------------------------------------------------------------------------

NUMBERS = [name for name in DTYPES if name != "string"]


@st.composite
def batch_and_model(draw: st.DrawFn) -> tuple[pa.RecordBatch, Signature, str, Any]:
    """A slice of a batch with an id and a column 'x', a model that gives 'x' back, an encoding, and the values."""
    dtype = draw(st.sampled_from([*NUMBERS, "string"]))
    row = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    rows, offset, extra = draw(st.integers(1, 5)), draw(st.integers(0, 3)), draw(st.integers(0, 2))
    total = offset + rows + extra
    leaves, values = _leaves(draw, dtype, total * int(np.prod(row)))
    column = _nested(draw, leaves, row, total)
    batch = pa.RecordBatch.from_arrays([pa.array(range(total)), column], names=["id", "x"]).slice(offset, rows)
    declared = draw(st.sampled_from(["known", "open", "rank"]))
    shape = {"known": (None, *row), "open": (None, *[None] * len(row)), "rank": None}[declared]
    if isinstance(column, pa.ListArray) and column.type.value_type == leaves.type and len(row) == 2:
        shape = (None, *row)  # a flat list: only a known shape says how it folds
    model = signature([tensor("x", dtype, shape)], [tensor("x", dtype, (None, *row) if shape is None else shape)])
    per_row = int(np.prod(row))
    return batch, model, dtype, values[offset * per_row : (offset + rows) * per_row]


def _leaves(draw: st.DrawFn, dtype: str, count: int) -> tuple[pa.Array, Any]:
    """Values of the natural Arrow type of `dtype`, and the same as the carrier of the tensor."""
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if dtype == "string":
        texts = [seed.bytes(seed.integers(0, 5)) for _ in range(count)]
        arrow = draw(st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view()]))
        return pa.array(texts, arrow), texts
    carrier = DTYPES[dtype][1]
    assert carrier is not None
    if dtype in AS_BITS and natural(dtype).kind == "f":
        bits = bits_of(seed.standard_normal(count), dtype)
        return pa.array(values_of(bits, dtype)), bits
    if dtype in AS_BITS:
        least, most = integer_range(dtype)
        whole = seed.integers(least, most, count, dtype=natural(dtype), endpoint=True)
        return pa.array(whole), bits_of(whole, dtype)
    if carrier.kind == "c":
        numbers = (seed.standard_normal(count) + 1j * seed.standard_normal(count)).astype(carrier)
        return pa.StructArray.from_arrays([numbers.real.copy(), numbers.imag.copy()], ["re", "im"]), numbers
    if carrier.kind == "b":
        flags = seed.integers(0, 2, count).astype(bool)
        return pa.array(flags), flags
    if carrier.kind == "f":
        floats = seed.standard_normal(count).astype(carrier)
        return pa.array(floats), floats
    info = np.iinfo(carrier)
    whole = seed.integers(info.min, info.max, count, dtype=carrier, endpoint=True)
    return pa.array(whole), whole


def _nested(draw: st.DrawFn, leaves: pa.Array, row: tuple[int, ...], total: int) -> pa.Array:
    if row and draw(st.booleans()) and pa.types.is_primitive(leaves.type) and not pa.types.is_boolean(leaves.type):
        storage = pa.FixedSizeListArray.from_arrays(leaves, int(np.prod(row)))
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(leaves.type, row), storage)
    sizes = [int(np.prod(row))] if len(row) == 2 and draw(st.booleans()) else list(row)
    column = leaves
    for size in reversed(sizes):
        offsets = np.arange(len(column) // size + 1) * size
        layout = "list" if len(sizes) < len(row) else draw(st.sampled_from(["list", "large", "fixed"]))
        if layout == "list":
            column = pa.ListArray.from_arrays(offsets.astype(np.int32), column)
        elif layout == "large":
            column = pa.LargeListArray.from_arrays(offsets, column)
        else:
            column = pa.FixedSizeListArray.from_arrays(column, size)
    assert len(column) == total
    return column


@settings(deadline=None, max_examples=300)
@given(
    case=batch_and_model(),
    encoding=st.sampled_from(["fixed_shape_tensor", "list", "binary"]),
    fixed=st.integers(0, 7),
    single=st.booleans(),
)
def test_what_goes_through_a_model_that_changes_nothing_comes_back(
    case: Any, encoding: str, fixed: int, single: bool
) -> None:
    batch, model, dtype, values = case
    rows = batch.num_rows
    if model.inputs["x"].shape is not None and fixed >= rows:  # the same with a fixed batch dimension
        model = signature([_fixed(model.inputs["x"], fixed)], [_fixed(model.outputs["x"], fixed)])
    columns = Columns.model_validate({"keep": "id", "outputs": {"x": "out"}})
    binding = bind(columns, batch.schema, model, encoding, rules=Rules(text=False, single=single))
    assert binding.batch_rows in (None, fixed)

    fed = binding.feed(batch)["x"]
    row = fed.shape[1:]
    assert fed.shape[0] == (binding.batch_rows or rows)
    flat = fed.values.to_pylist() if isinstance(fed, Strings) else fed.ravel()
    if not isinstance(fed, Strings):
        assert fed.dtype == DTYPES[dtype][1]
        assert fed.flags.c_contiguous
    width = int(np.prod(row))
    assert list(flat[: rows * width]) == list(values)
    for padded in range(rows, fed.shape[0]):
        assert list(flat[padded * width : (padded + 1) * width]) == list(values[(rows - 1) * width :])

    result = binding.fetch(batch, {"x": fed})
    result.validate(full=True)
    assert result.schema == binding.output_schema
    assert result.schema.names == ["id", "out"]
    assert result.column("id").equals(batch.column("id"))
    assert result.num_rows == rows
    written = result.column("out").to_pylist()
    if dtype != "string" and isinstance(written[0], bytes):
        written = [np.frombuffer(row, natural(dtype)).tolist() for row in written]
    assert _flat(written) == _flat(batch.column("x").to_pylist())


def _fixed(spec: TensorSpec, rows: int) -> TensorSpec:
    assert spec.shape is not None
    return tensor(spec.name, spec.dtype, (rows, *spec.shape[1:]))


def _flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _flat(part)] if isinstance(value, list) else [value]


# -- names -------------------------------------------------------------------------------------------------------


def test_without_a_mapping_names_bind_and_all_outputs_are_kept() -> None:
    model = signature([tensor("a"), tensor("b", "int32")], [tensor("y"), tensor("z")])
    binding = bound(model, [("other", pa.string()), ("b", pa.int32()), ("a", FLOAT)])
    assert binding.columns == ("a", "b")
    assert binding.fetches == ("y", "z")
    assert binding.output_schema.names == ["y", "z"]
    assert binding.batch_rows is None


def test_kept_columns_come_first_in_the_order_of_the_job_and_are_not_copied() -> None:
    batch = pa.RecordBatch.from_pydict({"x": np.zeros(4, np.float32), "id": range(4), "name": ["a", None, "c", "d"]})
    binding = bound(signature([tensor("x")]), batch.schema, keep=["name", "id", "x"], outputs={"y": "score"})
    assert binding.columns == ("x", "name", "id")
    part = batch.slice(1, 2)
    rows = binding.fetch(part, {"y": np.ones(2, np.float32)})
    assert rows.schema.names == ["name", "id", "x", "score"]
    assert rows.to_pydict() == {"name": [None, "c"], "id": [1, 2], "x": [0, 0], "score": [1, 1]}
    assert rows.column("id").buffers()[1].address == batch.column("id").buffers()[1].address


def test_columns_that_are_not_numbered_are_stacked_in_the_order_of_the_file_pattern_by_pattern() -> None:
    names = ["mean_radius", "worst_area", "mean_area", "age", "worst_radius"]
    model = signature([tensor("x", shape=(None, 5))])
    columns = Columns.model_validate({"inputs": {"x": {"stack": ["worst_*", "age", "mean_*"]}}})
    schema = pa.schema([(name, pa.float32()) for name in names])
    wanted = ["worst_area", "worst_radius", "age", "mean_radius", "mean_area"]
    assert wanted_columns(columns, model, schema) == wanted
    # The worker's schema holds the wanted columns alone, in that order: the stack must come out the same.
    again = pa.schema([(name, pa.float32()) for name in wanted])
    assert bind(columns, again, model, "list").columns == tuple(wanted)


def test_a_pattern_stacks_columns_in_natural_order() -> None:
    names = ["f10", "f2", "g", "f1", "f02"]
    schema = [(name, FLOAT) for name in names]
    columns = Columns.model_validate({"inputs": {"x": {"stack": "f*"}}, "keep": ["g", "f2"]})
    model = signature([tensor("x", shape=(None, 4))])
    assert wanted_columns(columns, model, pa.schema(schema)) == ["f1", "f02", "f2", "f10", "g"]
    batch = pa.RecordBatch.from_arrays([pa.array([value], FLOAT) for value in (10, 2, 0, 1, 2.5)], names=names)
    binding = bind(columns, batch.schema, model, "list")
    assert binding.feed(batch)["x"].tolist() == [[1, 2.5, 2, 10]]


def test_a_column_that_is_named_like_a_pattern_is_itself() -> None:
    schema = pa.schema([("f*", FLOAT), ("f1", FLOAT)])
    columns = Columns.model_validate({"inputs": {"x": {"stack": "f*"}}})
    assert wanted_columns(columns, signature([tensor("x", shape=(None, 1))]), schema) == ["f*"]


def test_wanted_columns_include_what_is_missing() -> None:
    columns = Columns.model_validate({"inputs": {"a": "nope", "b": {"stack": "f*"}}, "keep": ["gone", "nope"]})
    model = signature([tensor("a"), tensor("b"), tensor("c")])
    assert wanted_columns(columns, model, pa.schema([("z", FLOAT)])) == ["nope", "f*", "c", "gone"]


def test_all_offenders_are_listed_at_once() -> None:
    model = signature(
        [tensor("x", shape=(None, 4)), tensor("ids", "int32"), tensor("z")], [tensor("score"), tensor("k")]
    )
    schema = [("f", pa.list_(FLOAT, 3)), ("ids", pa.string()), ("user_id", pa.int64()), ("d", FLOAT), ("d", FLOAT)]
    text, codes = refused(
        model,
        schema,
        inputs={"x": "f", "xx": "f", "z": "d"},
        outputs={"scor": None, "score": "user_id", "k": None},
        keep=["user_id", "User_ID"],
    )
    assert text.split("\n") == [
        "  - MODEL_SIGNATURE: input 'xx': the signature has no such input; it has 'x', 'ids', 'z'",
        "  - COLUMN_TYPE: input 'x' float32[?, 4] from column 'f': found fixed_size_list<item: float>[3];"
        " expected lists of 4",
        "  - COLUMN_TYPE: input 'ids' int32[?] from column 'ids': found string; expected int32",
        "  - COLUMN_AMBIGUOUS: input 'z' float32[?] from column 'd': found 2 columns of this name; expected one",
        "  - MODEL_SIGNATURE: output 'scor': the signature has no such output; it has 'score', 'k'",
        "  - COLUMN_MISSING: kept column 'User_ID': found no such column"
        " (names are case-sensitive: 'user_id' is there);"
        " the input has 'f', 'ids', 'user_id', 'd', 'd'",
        "  - COLUMN_AMBIGUOUS: output column 'user_id': 2 columns would have this name;"
        " rename an output (`outputs: {NAME: other_name}`) or a kept column (`keep: {other_name: user_id}`),"
        " or keep fewer columns",
    ]
    assert codes == [
        *["MODEL_SIGNATURE", "COLUMN_TYPE", "COLUMN_TYPE", "COLUMN_AMBIGUOUS"],
        *["MODEL_SIGNATURE", "COLUMN_MISSING", "COLUMN_AMBIGUOUS"],
    ]


def test_an_input_that_nothing_feeds_is_named_with_the_nearest_columns() -> None:
    text, codes = refused(signature([tensor("feature")]), [("a", FLOAT), ("features", FLOAT)])
    assert (
        "input 'feature' float32[?] from column 'feature': found no such column; the input has 'features', 'a'" in text
    )
    assert codes == ["COLUMN_MISSING"]


def test_a_column_twice_in_the_input_is_no_matter_where_nobody_wants_it() -> None:
    assert bound(signature([tensor("x")]), [("x", FLOAT), ("d", FLOAT), ("d", FLOAT)]).columns == ("x",)


def test_two_outputs_of_one_name_clash() -> None:
    model = signature([tensor("x")], [tensor("y"), tensor("z")])
    assert "output column 'z': 2 columns" in refused(model, [("x", FLOAT)], outputs={"y": "z", "z": None})[0]


def test_a_signature_without_outputs_is_refused() -> None:
    assert "the signature has no output" in refused(signature([tensor("x")], []), [("x", FLOAT)])[0]


# -- stacks ------------------------------------------------------------------------------------------------------


def test_a_stack_casts_each_column() -> None:
    batch = pa.RecordBatch.from_arrays(
        [pa.array([1, 2], pa.int8()), pa.array([0.5, 0.25], pa.float64())], names=["a", "b"]
    )
    binding = bound(signature([tensor("x", shape=(None, None))]), batch.schema, inputs={"x": {"stack": ["a", "b"]}})
    fed = binding.feed(batch)["x"]
    assert (fed.tolist(), fed.dtype) == ([[1, 0.5], [2, 0.25]], np.float32)


def test_a_stack_of_columns_that_are_not_there_and_one_with_their_commas_is_told() -> None:
    text, codes = refused(
        signature([tensor("x", shape=(None, 2))]), {"a,b": FLOAT}, inputs={"x": {"stack": ["a", "b"]}}
    )
    assert codes == ["COLUMN_MISSING"]
    assert "found no columns 'a', 'b' to stack, but one that is called 'a,b'" in text
    assert """--map 'x="a,b"'""" in text


def test_strings_stack_too() -> None:
    batch = pa.RecordBatch.from_pydict({"a": ["a0", "a1", "a2"], "b": ["b0", None, "b2"]}).slice(1)
    rule = {"stack": ["a", "b"], "null": {"fill": "-"}}
    binding = bound(signature([tensor("x", "string", (None, 2))]), batch.schema, inputs={"x": rule})
    fed = binding.feed(batch)["x"]
    assert isinstance(fed, Strings)
    assert (fed.values.to_pylist(), fed.shape) == ([b"a1", b"-", b"a2", b"b2"], (2, 2))


@pytest.mark.parametrize(
    ("shape", "stack", "text"),
    [
        ((None, 3), ["a", "b"], "from columns 'a', 'b': found 2 columns to stack; expected 3 columns"),
        ((None, 2, 1), ["a", "b"], "found 2 columns to stack; expected one column of lists of 2 of lists of 1"),
        ((None, 2), ["a", "l"], "in column 'l' of the stack; expected one value per row"),
        ((None, 2), ["a", "s"], "in column 's' of the stack found string; expected float"),
        ((None, 2), "g*", "from column 'g*': found no such column"),
    ],
)
def test_a_stack_that_does_not_fit_says_why(shape: Any, stack: Any, text: str) -> None:
    schema = [("a", FLOAT), ("b", FLOAT), ("l", pa.list_(FLOAT)), ("s", pa.string())]
    assert text in refused(signature([tensor("x", shape=shape)]), schema, inputs={"x": {"stack": stack}})[0]


# -- constants and defaults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "expected"),
    [
        ("bool", (), True, True),
        ("int32", (), 5, 5),
        ("float32", (), 5, 5.0),
        ("float32", (2, 2), [[1, 2], [3, 4.5]], [[1, 2], [3, 4.5]]),
        ("int64", (None,), [1, 2, 3], [1, 2, 3]),
        ("int64", (None,), [], []),
        ("uint64", None, [2**64 - 1], [2**64 - 1]),
        ("complex64", (), 1.5, 1.5),
        ("bfloat16", (2,), [1.0, 0.1], [0x3F80, 0x3DCD]),
        ("int4", (2,), [-1, 7], [0xF, 7]),
        ("float8_e5m2", (2,), [1.0, -2.0], [0x3C, 0xC0]),
    ],
)
def test_constants_are_fed_whole_to_every_batch(dtype: str, shape: Any, value: Any, expected: Any) -> None:
    batch = pa.RecordBatch.from_pydict({"x": np.zeros(2, np.float32)})
    model = signature([tensor("x", shape=(8,)), tensor("k", dtype, shape)], [tensor("y", shape=(8,))])
    binding = bound(model, batch.schema, inputs={"k": {"constant": value}})
    fed = binding.feed(batch)
    assert fed["k"].tolist() == expected
    assert fed["k"].dtype == DTYPES[dtype][1]
    assert fed["x"].shape == (8,)
    assert binding.columns == ("x",)


def test_string_constants_are_bytes() -> None:
    batch = pa.RecordBatch.from_pydict({"x": np.zeros(2, np.float32)})
    model = signature([tensor("x"), tensor("k", "string", (2, 1))])
    fed = bound(model, batch.schema, inputs={"k": {"constant": [["ä"], ["b"]]}}).feed(batch)["k"]
    assert isinstance(fed, Strings)
    assert (fed.values.to_pylist(), fed.shape) == (["ä".encode(), b"b"], (2, 1))


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "text"),
    [
        ("int32", (), 1.5, "found a constant of float; expected integers"),
        ("int32", (), True, "found a constant of bool; expected integers"),
        ("float32", (), True, "found a constant of bool; expected numbers"),
        ("float32", (), "much", "found a constant of str; expected numbers"),
        ("bool", (), 1, "found a constant of int; expected true or false"),
        ("string", (), 1, "found a constant of int; expected strings"),
        ("int8", (), 128, "found a constant out of range; expected -128 to 127"),
        ("float32", (), 1e300, "found a constant out of range; expected float32"),
        ("float64", (), 10**400, "found a constant out of range; expected float64"),
        ("int32", (2,), 1, "found a constant of shape []; expected int32[2]"),
        ("int32", (None, 2), [[1, 2, 3]], "found a constant of shape [1, 3]; expected int32[?, 2]"),
        ("int32", (None, 2), [[1, 2], [3]], "found a constant whose lists differ in length or depth"),
        ("int32", (None,), [1, [2]], "found a constant whose lists differ in length or depth"),
    ],
)
def test_a_constant_that_is_no_such_tensor_is_refused(dtype: str, shape: Any, value: Any, text: str) -> None:
    model = signature([tensor("x"), tensor("k", dtype, shape)])
    found, codes = refused(model, [("x", FLOAT)], inputs={"k": {"constant": value}})
    assert f"input 'k' {model.inputs['k']}: {text}" in found
    assert codes == ["COLUMN_TYPE"]


def test_an_unsafe_constant_is_what_numpy_makes_of_it() -> None:
    batch = pa.RecordBatch.from_pydict({"x": np.zeros(2, np.float32)})
    model = signature([tensor("x"), tensor("k", "int32", (2,))])
    fed = bound(model, batch.schema, inputs={"k": {"constant": [1.9, True], "cast": "unsafe"}}).feed(batch)
    assert fed["k"].tolist() == [1, 1]


def test_a_default_is_left_to_the_signature_unless_a_column_or_the_job_gives_the_input() -> None:
    model = signature([tensor("x"), tensor("d", default=np.zeros(1, np.float32))])
    batch = pa.RecordBatch.from_pydict({"x": np.zeros(2, np.float32), "d": np.ones(2, np.float32)})
    assert set(bound(model, [("x", FLOAT)]).feed(batch)) == {"x"}
    assert set(bound(model, batch.schema).feed(batch)) == {"x", "d"}
    assert bound(model, [("x", FLOAT)], inputs={"d": {"constant": [3]}}).feed(batch)["d"].tolist() == [3]


def test_a_column_does_not_displace_the_default_of_an_input_without_rows() -> None:
    model = signature([tensor("x"), tensor("training", "bool", (), default=np.array(False))])
    binding = bound(model, [("x", FLOAT), ("training", pa.bool_())])
    assert binding.columns == ("x",)


# -- the batch dimension -----------------------------------------------------------------------------------------


def test_a_fixed_batch_dimension_is_filled_up_and_cut_again() -> None:
    model = signature([tensor("x", shape=(4, 1)), tensor("s", "string", (None, 2))], [tensor("y", shape=(4,))])
    batch = pa.RecordBatch.from_pydict({"x": np.array([1, 2], np.float32), "s": [["a", "b"], ["c", "d"]], "id": [7, 8]})
    binding = bound(model, batch.schema, keep="id")
    assert binding.batch_rows == 4
    fed = binding.feed(batch)
    assert fed["x"].tolist() == [[1], [2], [2], [2]]
    assert isinstance(fed["s"], Strings)
    assert (fed["s"].values.to_pylist(), fed["s"].shape) == ([b"a", b"b", *[b"c", b"d"] * 3], (4, 2))
    rows = binding.fetch(batch, {"y": np.array([1, 2, 3, 4], np.float32)})
    assert rows.to_pydict() == {"id": [7, 8], "y": [1, 2]}


def test_a_full_fixed_batch_is_fed_by_address() -> None:
    batch = pa.RecordBatch.from_pydict({"x": np.arange(4, dtype=np.float32)})
    fed = bound(signature([tensor("x", shape=(4,))], [tensor("y", shape=(4,))]), batch.schema).feed(batch)["x"]
    assert not isinstance(fed, Strings)
    assert fed.__array_interface__["data"][0] == batch.column("x").buffers()[1].address


def test_a_batch_larger_than_the_model_takes_is_our_own_mistake() -> None:
    binding = bound(signature([tensor("x", shape=(2,))], [tensor("y", shape=(2,))]), [("x", FLOAT)])
    with pytest.raises(InternalError, match="a batch of 3 rows for a model of 1 to 2 rows a call"):
        binding.feed(pa.RecordBatch.from_pydict({"x": np.zeros(3, np.float32)}))


def test_fixed_batch_dimensions_must_agree() -> None:
    text, _ = refused(signature([tensor("a", shape=(4,)), tensor("b", shape=(8,))]), [("a", FLOAT), ("b", FLOAT)])
    assert "fixed batch dimensions: 'a' wants 4, 'b' wants 8; expected one number of rows for all inputs" in text


def test_an_input_without_a_batch_dimension_takes_a_constant_only() -> None:
    model = signature([tensor("x"), tensor("k", "int32", ())])
    text, codes = refused(model, [("x", FLOAT), ("c", pa.int32())], inputs={"k": "c"})
    assert "input 'k' int32[] from column 'c': found no batch dimension; expected one value for all rows" in text
    assert "`inputs: {k: {constant: ...}}`" in text
    assert codes == ["MODEL_SIGNATURE"]
    assert wanted_columns(Columns(), model, pa.schema([("x", FLOAT)])) == ["x"]
    assert "found no batch dimension" in refused(model, [("x", FLOAT)])[0]


def test_a_signature_that_no_row_feeds_is_refused() -> None:
    text, _ = refused(signature([tensor("k", "int32", ())]), [("x", FLOAT)], inputs={"k": {"constant": 1}})
    assert "no input follows the rows: its inputs 'k' are constants or defaults; expected at least one column" in text


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            tensor("q", encoding="composite", parts=(tensor("a"), tensor("b"))),
            "found a composite input; only dense, ragged and sparse inputs can be fed, not another one made of 2 te",
        ),
        (tensor("q", "resource"), "input 'q' resource[?]"),
        (tensor("q", "variant"), "found dtype variant; expected numbers, booleans or strings"),
    ],
    ids=str,
)
def test_inputs_that_no_column_can_feed_are_refused_by_name(spec: TensorSpec, text: str) -> None:
    for schema in ([("x", FLOAT)], [("x", FLOAT), ("q", FLOAT)]):
        found, codes = refused(signature([tensor("x"), spec]), schema)
        assert text in found
        assert codes == ["MODEL_SIGNATURE"]


# -- what a plan needs -------------------------------------------------------------------------------------------


def full_binding(**changes: Any) -> Binding:
    model = signature(
        [
            tensor("x", shape=(None, 2)),
            tensor("text", "string"),
            tensor("k", "string", ()),
            tensor("d", default=np.zeros(1, np.float32)),
        ],
        [tensor("y", "string", (None, 3)), tensor("z", shape=(None, None))],
    )
    columns = {
        "inputs": {
            "x": {"stack": "f*", "null": "nan"},
            "text": {"column": "comment", "null": {"fill": ""}},
            "k": {"constant": "secret"},
        },
        "outputs": {"y": {"column": "label", "decode": "utf-8"}, "z": None},
        "keep": ["id"],
    }
    columns["inputs"] |= changes  # type: ignore[operator]
    schema = [("id", pa.int64()), ("f1", pa.float64()), ("f2", FLOAT), ("comment", pa.string())]
    return bound(model, schema, **columns)


def test_a_binding_survives_pickling() -> None:
    binding = pickle.loads(pickle.dumps(full_binding()))  # noqa: S301
    assert binding.identity() == full_binding().identity()
    batch = pa.RecordBatch.from_pydict(
        {"id": [1], "f1": [None], "f2": [2.0], "comment": [None]},
        pa.schema([("id", pa.int64()), ("f1", pa.float64()), ("f2", FLOAT), ("comment", pa.string())]),
    )
    assert binding.output_schema.equals(full_binding().output_schema)
    assert binding.feed(batch)["text"].values.to_pylist() == [b""]
    assert np.isnan(binding.feed(batch)["x"][0, 0])


def test_the_identity_is_plain_json_without_values_and_changes_with_the_mapping() -> None:
    identity = full_binding().identity()
    assert json.loads(canonical(identity)) == identity
    assert "secret" not in canonical(identity)
    assert list(identity) == ["inputs", "outputs", "keep"]
    assert full_binding().identity() == identity
    changed = [
        {"k": {"constant": "other"}},
        {"x": {"stack": ["f2", "f1"], "null": "nan"}},
        {"x": {"stack": "f*"}},
        {"x": {"stack": "f*", "null": {"fill": 0}}},
        {"x": {"stack": "f*", "null": "nan", "cast": "unsafe"}},
        {"text": "comment"},
    ]
    texts = {canonical(full_binding(**change).identity()) for change in changed} | {canonical(identity)}
    assert len(texts) == len(changed) + 1


def test_a_description_says_for_each_tensor_where_it_comes_from_and_goes_to() -> None:
    rows = full_binding().describe()
    assert len({tuple(row) for row in rows}) == 1
    told = {(row["role"], row["tensor"] or row["column"]): row for row in rows}
    x = told["input", "x"]
    assert (x["dtype"], x["shape"], x["column"]) == ("float32", "[?, 2]", "f1 to f2 (stack of 2)")
    assert x["type"] == "double, float"
    assert "rounded" in x["note"]
    assert told["input", "k"]["note"] == "constant"
    assert told["input", "d"]["note"] == "the signature's default"
    assert (told["output", "y"]["column"], told["output", "y"]["shape"]) == ("label", "[?, 3]")
    assert told["kept", "id"]["type"] == "int64"
    assert "secret" not in str(rows)


def test_output_bytes_are_estimated() -> None:
    assert full_binding().output_bytes_per_row == 3 * 64 + 64 * 4


def test_a_key_of_a_tensor_that_stands_where_tensors_do_is_told() -> None:
    text, codes = refused(signature([tensor("x")]), [("x", FLOAT)], inputs={"stack": "f*"}, outputs=["cut"])
    assert codes == ["MODEL_SIGNATURE"] * 2
    assert "input 'stack': the signature has no such input; it has 'x'; 'stack' is a key of a tensor" in text
    assert "whose name goes before it: `outputs: {TENSOR: {cut: ...}}`" in text


def test_the_rows_that_all_outputs_declare_are_those_of_a_call() -> None:
    outputs = [tensor("y", shape=(8,)), tensor("z", shape=(8, 3))]
    model, schema = signature([tensor("x")], outputs), pa.schema([("x", FLOAT)])
    found = bound(model, schema)
    assert found.batch_rows == 8
    rows = pa.RecordBatch.from_pydict({"x": pa.array([1, 2, 3], FLOAT)})
    assert found.feed(rows)["x"].tolist() == [1, 2, 3, 3, 3, 3, 3, 3]
    assert bind(Columns(), schema, model, "list", 8, tried=False).batch_rows == 8
    with pytest.raises(BindingError, match=r"found a first dimension of 8.*wants `model: \{batch: 8\}`"):
        bind(Columns(), schema, model, "list", tried=False)
    assert bound(model, schema, outputs=["y"]).batch_rows == 8


@pytest.mark.parametrize("shapes", [[(8,), (None,)], [(8,), (4,)], [(1,)]], ids=str)
def test_outputs_that_declare_no_one_number_of_rows_are_refused_with_what_to_write(shapes: list[Any]) -> None:
    outputs = [tensor(f"y{number}", shape=shape) for number, shape in enumerate(shapes)]
    model, schema = signature([tensor("x")], outputs), pa.schema([("x", FLOAT)])
    text, _ = refused(model, schema)
    assert f"a graph that takes {shapes[0][0]} rows a call wants `model: {{batch: {shapes[0][0]}}}`" in text
    if shapes != [(8,), (4,)]:
        assert bind(Columns(), schema, model, "list", shapes[0][0]).batch_rows == shapes[0][0]


def test_the_batch_of_a_job_must_be_that_of_its_inputs() -> None:
    model, schema = signature([tensor("x", shape=(16,))]), pa.schema([("x", FLOAT)])
    assert bind(Columns(), schema, model, "list", 16).batch_rows == 16
    with pytest.raises(BindingError, match=r"`model: \{batch: 8\}`: input 'x' wants 16 rows a call"):
        bind(Columns(), schema, model, "list", 8)
