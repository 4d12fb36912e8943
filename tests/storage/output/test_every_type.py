"""Every type of Arrow, alone and inside of others: what planning lets pass is read, written, and read as it was."""

from __future__ import annotations

import io
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from memory_file import MemoryStore

from connectors.formats.registry import make_encoder, make_source
from connectors.output.rehearsal import rehearse
from jobs.attempt import InputSlice

NUMBERS = [pa.int8(), pa.uint64(), pa.float16(), pa.float64()]
TIMES = [pa.time32("s"), pa.time64("ns"), pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ns", "UTC")]
TIMES.append(pa.duration("ms"))
DECIMALS = [pa.decimal32(5, 2), pa.decimal128(20, 3), pa.decimal256(60, 5)]
TEXTS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(2),
]
TURNS, PLACES = pa.array([0, 1, 0, 1], pa.int8()), pa.array([0, 0, 1, 1], pa.int32())
FIELDS = [pa.array([1, None]), pa.array(["a", "b"])]


def dictionary(values: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 1], pa.int8()), values)


def runs(values: pa.Array) -> pa.Array:
    ends = pa.array(range(1, len(values) + 1), pa.int32())
    return pa.RunEndEncodedArray.from_arrays(ends, values)


LEAVES: dict[str, pa.Array] = {
    **{str(kind): pa.array(np.array([0, 1, 2, 3], kind.to_pandas_dtype()), kind) for kind in NUMBERS},
    **{str(kind): pa.array([0, None, 0, 0], f"int{kind.bit_width}").view(kind) for kind in TIMES},
    **{str(kind): pa.array([Decimal("1.5"), Decimal(-2), None, Decimal(0)], kind) for kind in DECIMALS},
    **{str(kind): pa.array([b"ab", b"cd", None, b"ef"], kind) for kind in TEXTS},
    "null": pa.nulls(4),
    "bool": pa.array([True, None, False, True]),
    "binary(0)": pa.array([b"", b"", None, b""], pa.binary(0)),
    "no fields": pa.array([{}, {}, None, {}], pa.struct([])),
    "interval": pa.array([(1, 2, 3), None, (0, 0, 0), (4, 5, 6)], pa.month_day_nano_interval()),
    "dictionary": dictionary(pa.array(["a", "b"])),
    "dictionary of views": dictionary(pa.array(["a", "longer than twelve bytes"], pa.string_view())),
    "dictionary of lists": dictionary(pa.array([[1], []])),
    "runs": runs(pa.array(["a", None, "b", "b"])),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * 3 + [None], pa.binary(16))),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", "1", None, "[]"])),
    "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8, dtype=np.float32).reshape(4, 2)),
    "dense union": pa.UnionArray.from_dense(TURNS, PLACES, FIELDS),
    "sparse union": pa.UnionArray.from_sparse(TURNS, [column.take(PLACES) for column in FIELDS]),
}


ENDS, SIZES = pa.array([0, 2, 2, 3, 4], pa.int32()), pa.array([2, 0, 1, 1], pa.int32())
LAYOUTS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "alone": lambda values: values,
    "list": lambda values: pa.ListArray.from_arrays(ENDS, values),
    "large list": lambda values: pa.LargeListArray.from_arrays(ENDS.cast(pa.int64()), values),
    "list view": lambda values: pa.ListViewArray.from_arrays(ENDS[:4], SIZES, values),
    "large list view": lambda values: pa.LargeListViewArray.from_arrays(
        ENDS[:4].cast(pa.int64()), SIZES.cast(pa.int64()), values
    ),
    "list of 2": lambda values: pa.FixedSizeListArray.from_arrays(values, 2),
    "struct": lambda values: pa.StructArray.from_arrays([values], ["a"]),
    "map": lambda values: pa.MapArray.from_arrays(ENDS, pa.array(["a", "b", "c", "d"]), values),
    "runs": runs,
    "list of structs": lambda values: pa.ListArray.from_arrays(ENDS, pa.StructArray.from_arrays([values], ["a"])),
}


def delivered(column: pa.Array) -> pa.Table:
    """As a source of Arrow files delivers it."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, pa.schema([("c", column.type)])) as writer:
        writer.write_batch(pa.record_batch([column], ["c"]))
    store: Any = MemoryStore(sink.getvalue())
    inputs = InputSlice(0, "f", len(store.content), "1", 0, (len(column),))
    with make_source("arrow").open(store, inputs, ["c"]) as reader:
        return reader.read(0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_what_planning_lets_pass_is_read_and_written(name: str, layout: str, tmp_path: Path) -> None:
    """Of what does not pass nothing is written here."""
    encoder, passed = make_encoder(name), 0
    for leaf, values in LEAVES.items():
        if "view" in layout and "union" in leaf:
            continue
        table = delivered(LAYOUTS[layout](values))
        found = rehearse(encoder, table.schema)
        if found.refused:
            continue
        passed += 1
        part = tmp_path / f"{passed}"
        writer = encoder.open(part, table.schema, "none")
        pieces = [table.combine_chunks().to_batches()[0], table.take(pa.array([1])).combine_chunks().to_batches()[0]]
        for piece in pieces:
            writer.write(piece)
        assert writer.close({"shard": 1}) == table.num_rows + 1, leaf
        column, wanted = (
            encoder.decoded(pa.py_buffer(part.read_bytes()), table.schema).column("c"),
            pa.Table.from_batches(pieces)["c"],
        )
        assert column.type == found.changed.get("c", wanted.type), leaf
        assert column.cast(wanted.type).equals(wanted) if "c" in found.changed else column.equals(wanted), leaf
    assert passed >= 15
