"""Dictionaries, runs and views become plain values: the same ones, in pieces that can be held, or with a refusal."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.plain import TooLargeError, at_most, plain_table, plain_type, row_bytes

TEXTS = ["", "a", "bb", "twelve chars", "thirteen char", "x" * 100, "é", None]
RUNS = pa.run_end_encoded(pa.int32(), pa.string())


def views(texts: list[str | None], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(texts, kind or pa.string_view())


def dictionary(values: pa.Array) -> pa.Array:
    """Each value once more than once, and nulls both as an index and as a value."""
    indices = [None if row % 5 == 4 else row % len(values) for row in range(2 * len(values))]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), values)


def lists(values: pa.Array) -> pa.Array:
    """Of 0 to 3 values, some null with values behind them."""
    offsets = np.minimum(np.cumsum([0, *[row % 4 for row in range(len(values))]]), len(values)).astype(np.int32)
    nulls = pa.array([row % 7 == 3 for row in range(len(values))])
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=nulls)


def runs(values: pa.Array) -> pa.Array:
    ends = np.cumsum([1 + row % 3 for row in range(len(values))]).astype(np.int32)
    return pa.RunEndEncodedArray.from_arrays(pa.array(ends), values)


def fixed(values: pa.Array) -> pa.Array:
    rows = len(values) // 2
    return pa.FixedSizeListArray.from_arrays(
        values[: 2 * rows], 2, mask=pa.array([row % 3 == 1 for row in range(rows)])
    )


def struct(values: pa.Array) -> pa.Array:
    nulls = pa.array([row % 4 == 2 for row in range(len(values))])
    return pa.StructArray.from_arrays([values, pa.array(range(len(values)))], ["text", "number"], mask=nulls)


def maps(values: pa.Array) -> pa.Array:
    offsets = np.arange(0, len(values) + 1, 2, np.int32)
    return pa.MapArray.from_arrays(offsets, pa.array([f"k{row}" for row in range(len(values))]), values)


TEXT = views(TEXTS * 4)
COLUMNS: dict[str, pa.Array] = {
    "views": TEXT,
    "binary views": views([None if text is None else text.encode() for text in TEXTS], pa.binary_view()),
    "dictionary": dictionary(pa.array(TEXTS)),
    "dictionary of large text": dictionary(pa.array(TEXTS, pa.large_string())),
    "dictionary of views": dictionary(views(TEXTS)),
    "dictionary of nothing": pa.DictionaryArray.from_arrays(pa.nulls(3, pa.int8()), views([])),
    "dictionary of numbers": dictionary(pa.array([1.5, None, 3.0])),
    "dictionary of lists": dictionary(pa.array([["a"], [], None, ["b", None]])),
    "dictionary of lists of views": dictionary(lists(TEXT)),
    "runs": runs(pa.array(TEXTS)),
    "runs of numbers": runs(pa.array([1, None, 3])),
    "runs of views": runs(views(TEXTS)),
    "runs of a dictionary": runs(dictionary(pa.array(TEXTS))),
    "runs of structs": runs(struct(pa.array(TEXTS))),
    "lists of views": lists(TEXT),
    "lists of lists of views": lists(lists(TEXT)),
    "lists of dictionaries": lists(dictionary(pa.array(TEXTS))),
    "large lists of views": lists(TEXT).cast(pa.large_list(pa.string_view())),
    "fixed lists of views": fixed(TEXT),
    "fixed lists of dictionaries": fixed(dictionary(pa.array(TEXTS))),
    "structs of views": struct(TEXT),
    "structs of lists of dictionaries": struct(lists(dictionary(pa.array(TEXTS)))),
    "maps to views": maps(TEXT),
    "maps to lists of dictionaries": maps(lists(dictionary(pa.array(TEXTS)))),
    "list views of views": pa.array([["a", None], [], None, ["x" * 30]], pa.list_view(pa.string_view())),
    "list views beside text": struct(pa.array([["a"], None] * 4, pa.list_view(pa.string())).slice(0, 8)),
}


@pytest.mark.parametrize("name", COLUMNS)
@settings(max_examples=15)
@given(data=st.data())
def test_any_slice_becomes_the_same_values_in_pieces_that_fit(name: str, data: st.DataObject) -> None:
    values = COLUMNS[name]
    start = data.draw(st.integers(0, len(values)))
    values = values.slice(start, data.draw(st.integers(0, len(values) - start)))
    sizes = row_bytes(values)
    piece_bytes = data.draw(st.integers(int(sizes.max(initial=1)), int(sizes.sum()) + 1))
    expected = values.to_pylist()

    found = plain_table(pa.table({"a": values}), 2**31, piece_bytes)["a"]

    assert found.type == plain_type(values.type)
    assert found.to_pylist() == expected
    found.validate(full=True)
    if found.type != values.type:
        assert all(row_bytes(chunk).sum() <= piece_bytes for chunk in found.chunks)
        assert found.num_chunks <= 1 or sizes.sum() > piece_bytes
    assert int(sizes.sum()) <= at_most(values)


def test_what_a_column_takes_is_known_before_it_is_decoded() -> None:
    """Half a terabyte, of a few bytes: were any of it decoded, this would not end."""
    text = "x" * 2**20
    some = pa.array(np.zeros(500_000, np.int32))
    view = pa.array([text], pa.string_view())
    words = np.frombuffer(view.buffers()[1], np.int64)
    many = pa.Array.from_buffers(
        pa.string_view(), 500_000, [None, pa.py_buffer(np.tile(words, 500_000)), *view.buffers()[2:]]
    )
    bombs = {
        "dictionary": pa.DictionaryArray.from_arrays(some, pa.array([text])),
        "views": many,
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2**40]), pa.array([text])).slice(0, 500_000),
        "lists": pa.ListArray.from_arrays(pa.array([0, 500_000], pa.int32()), many),
        "struct": pa.StructArray.from_arrays([pa.DictionaryArray.from_arrays(some, pa.array([text]))], ["text"]),
        "list views": pa.ListViewArray.from_arrays(
            pa.array(np.zeros(500_000, np.int32)), pa.array(np.full(500_000, 2**16, np.int32)), pa.array([0.0] * 2**16)
        ),
    }
    before = pa.total_allocated_bytes()
    for name, values in bombs.items():
        with pytest.raises(TooLargeError, match=r"[\d,]{15} bytes when decoded; the limit is 17,179,869,184") as caught:
            plain_table(pa.table({name: values}))
        assert caught.value.column == name
    assert pa.total_allocated_bytes() - before < 2**20


def test_all_columns_of_a_table_share_its_limit_and_the_largest_is_named() -> None:
    table = pa.table({"n": range(1000), "s": pa.array(["x" * 96] * 1000), "t": pa.array(["y" * 996] * 1000)})
    table = table.set_column(2, "t", table["t"].dictionary_encode())
    size = table.select(["n", "s"]).nbytes + 1_000_000
    assert plain_table(table, size).schema.field("t").type == pa.string()
    found = f"1,000,000 bytes when decoded, {size:,} together with other columns; the limit is {size - 1:,}"
    with pytest.raises(TooLargeError, match=found) as caught:
        plain_table(table, size - 1)
    assert caught.value.column == "t"


def test_one_value_that_no_piece_can_hold_is_refused() -> None:
    table = pa.table({"a": pa.array([["x"] * 5, ["y"] * 100], pa.list_(pa.string_view()))})
    with pytest.raises(TooLargeError, match="a value of 504 bytes; up to 100 are read") as caught:
        plain_table(table, 10_000, piece_bytes=100)
    assert caught.value.column == "a"


def test_a_plain_column_beside_is_not_copied() -> None:
    table = pa.table({"n": [1, 2], "v": pa.array(["a", "b"], pa.string_view())})
    found = plain_table(table)
    assert found["n"].chunk(0).buffers()[1].address == table["n"].chunk(0).buffers()[1].address


def test_sizes_of_rows_are_those_of_their_plain_values() -> None:
    plain = pa.array(TEXTS)
    lengths = [4 + len((text or "").encode()) for text in TEXTS]
    for values in (plain, views(TEXTS), plain.dictionary_encode(), pc.run_end_encode(plain)):
        assert row_bytes(values).tolist()[:-1] == lengths[:-1]  # the last is a null
