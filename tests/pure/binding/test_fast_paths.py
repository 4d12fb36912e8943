"""Every fast path gives what the slow one gives: odd sizes, offsets, slices of slices, nulls, empty batches.

The slow path is Python: one object per value, from `to_pylist`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.section.columns import Columns
from runner.batch.batches import Where, batches
from runner.binding.bind import bind
from runner.binding.binding import Binding
from runner.binding.cast.view import as_arrow, as_numpy
from runner.binding.fetching import Rules
from runner.engine.tstring import records, strings
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Strings

NUMBERS = {
    name: getattr(pa, name)()
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
}
SIZES = st.integers(0, 40)
FAST = settings(max_examples=60, deadline=None)


def drawn(data: st.DataObject, kind: pa.DataType, rows: int) -> pa.Array:
    """`rows` values of a type, cut out of a longer array at some offset."""
    before, after = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    seed = data.draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    count = before + rows + after
    if pa.types.is_boolean(kind):
        values = pa.array(random.integers(0, 2, count).astype(bool).tolist(), kind)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        lengths = random.choice([0, 1, 21, 22, 23, 60, 300, 5000], count)
        values = pa.array([random.bytes(int(length)) for length in lengths], kind)
    else:
        values = pa.array(random.integers(0, 100, count).tolist(), kind)
    return values.slice(before).slice(0, rows)  # a slice of a slice


def bound(spec: TensorSpec, arrow: pa.DataType, output: TensorSpec, rule: Any = "x") -> Binding:
    columns = Columns.model_validate({"inputs": {spec.name: rule}, "keep": ["id"]})
    signature = Signature("s", "predict", {spec.name: spec}, {output.name: output})
    rules = Rules(text=False, single=False)  # what is fed comes back as it was
    return bind(columns, pa.schema([("id", pa.int64()), ("x", arrow)]), signature, "fixed_shape_tensor", rules=rules)


@FAST
@given(kind=st.sampled_from([*NUMBERS.values(), pa.bool_()]), rows=SIZES, data=st.data())
def test_numbers_seen_as_numpy_and_back_are_the_same(kind: pa.DataType, rows: int, data: st.DataObject) -> None:
    values = drawn(data, kind, rows)
    seen = as_numpy(values)
    assert seen.tolist() == values.to_pylist()
    assert seen.dtype == np.dtype(kind.to_pandas_dtype())
    back = as_arrow(np.ascontiguousarray(seen))
    back.validate(full=True)
    assert back.equals(values)


@FAST
@given(dtype=st.sampled_from(sorted(NUMBERS)), rows=SIZES, width=st.integers(1, 5), data=st.data())
def test_fixed_size_lists_fed_by_address_are_the_lists(dtype: str, rows: int, width: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, 5))
    flat = drawn(data, NUMBERS[dtype], (offset + rows + 2) * width)
    lists = pa.FixedSizeListArray.from_arrays(flat, width).slice(offset, rows)
    spec, out = TensorSpec("x", dtype, (None, width), "x:0"), TensorSpec("y", dtype, (None, width), "y:0")
    binding = bound(spec, lists.type, out)
    batch = pa.record_batch([pa.array(range(rows), pa.int64()), lists], ["id", "x"])
    fed = binding.feed(batch)["x"]
    assert isinstance(fed, np.ndarray)
    assert fed.shape == (rows, width)
    assert fed.tolist() == lists.to_pylist()
    if rows:  # `flat` starts anywhere: what was fed is no copy
        data_buffer = flat.buffers()[1]
        assert data_buffer.address <= fed.ctypes.data < data_buffer.address + data_buffer.size
    written = binding.fetch(batch, {"y": fed})
    written.validate(full=True)
    assert written.column("y").to_pylist() == lists.to_pylist()
    assert written.column("id").to_pylist() == list(range(rows))


@FAST
@given(rows=SIZES, data=st.data())
def test_nulls_are_filled_row_by_row(rows: int, data: st.DataObject) -> None:
    values = drawn(data, pa.float32(), rows).to_pylist()
    empty = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    column = pa.array(
        [None, *(None if gone else value for gone, value in zip(empty, values, strict=True))], pa.float32()
    )
    binding = bound(
        TensorSpec("x", "float32", (None,), "x:0"),
        pa.float32(),
        TensorSpec("y", "bool", (None,), "y:0"),
        {"column": "x", "null": {"fill": -1.5}},
    )
    batch = pa.record_batch([pa.array(range(rows), pa.int64()), column.slice(1)], ["id", "x"])
    fed = binding.feed(batch)["x"]
    assert isinstance(fed, np.ndarray)
    assert fed.tolist() == [-1.5 if gone else value for gone, value in zip(empty, values, strict=True)]
    written = binding.fetch(batch, {"y": np.array(empty, np.bool_)})
    assert written.column("y").to_pylist() == empty


@FAST
@given(kind=st.sampled_from([pa.binary(), pa.large_binary()]), rows=SIZES, data=st.data())
def test_strings_fed_as_records_and_read_back_are_the_same(kind: pa.DataType, rows: int, data: st.DataObject) -> None:
    values = drawn(data, kind, rows)
    words = records(values)
    assert not rows or words.ctypes.data % 64 == 0
    assert strings(words.ctypes.data, rows).to_pylist() == values.to_pylist()


@FAST
@given(rows=SIZES, data=st.data())
def test_strings_fed_from_any_slice_are_fetched_as_they_were(rows: int, data: st.DataObject) -> None:
    values = drawn(data, pa.binary(), rows)
    binding = bound(TensorSpec("x", "string", (None,), "x:0"), pa.binary(), TensorSpec("y", "string", (None,), "y:0"))
    batch = pa.record_batch([pa.array(range(rows), pa.int64()), values], ["id", "x"])
    fed = binding.feed(batch)["x"]
    assert isinstance(fed, Strings)
    words = records(fed.values)
    out = Strings(strings(words.ctypes.data, rows), (rows,))
    assert binding.fetch(batch, {"y": out}).column("y").to_pylist() == values.to_pylist()


@FAST
@given(
    groups=st.lists(st.integers(0, 30), max_size=6),
    batch_rows=st.integers(1, 17),
    join=st.sampled_from(["all", "small", "none"]),
    width=st.integers(1, 3),
)
def test_cut_batches_are_fed_as_the_whole_would_be(groups: list[int], batch_rows: int, join: Any, width: int) -> None:
    """Cutting, slicing and feeding, against the rows of the whole table."""
    spec, out = TensorSpec("x", "float32", (None, width), "x:0"), TensorSpec("y", "float32", (None,), "y:0")
    binding = bound(spec, pa.list_(pa.float32(), width), out)
    total = sum(groups)
    flat = np.arange(total * width, dtype=np.float32)
    whole = pa.table(
        {"id": pa.array(range(total), pa.int64()), "x": pa.FixedSizeListArray.from_arrays(as_arrow(flat), width)}
    )
    bounds = np.cumsum([0, *groups])
    tables = [(Where("f", at), whole.slice(bounds[at], rows)) for at, rows in enumerate(groups)]
    seen, ids = [], []
    for _, batch in batches(iter(tables), batch_rows, join):
        fed = binding.feed(batch)["x"]
        assert isinstance(fed, np.ndarray)
        seen += fed.ravel().tolist()
        ids += binding.fetch(batch, {"y": fed[:, 0]}).column("id").to_pylist()
    assert seen == flat.tolist()
    assert ids == list(range(total))


@pytest.mark.parametrize("kind", [*NUMBERS.values(), pa.bool_()])
def test_an_empty_column_has_no_buffers_and_is_fine(kind: pa.DataType) -> None:
    for empty in (pa.array([], kind), pa.nulls(0, kind), pa.array([1, 2], pa.int8()).cast(kind).slice(2)):
        assert as_numpy(empty).tolist() == []
