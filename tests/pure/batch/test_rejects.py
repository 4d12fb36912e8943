"""Rows that are set aside: what of them goes into a reject file."""

from __future__ import annotations

import pyarrow as pa

from connectors.formats.registry import make_encoder
from jobs.attempt import InputSlice
from jobs.errors import DataError
from jobs.section.limits import Limits
from runner.batch.rejects import Rejects

PIECE = InputSlice(0, "in/a.parquet", 10, "", 0, (3,))
STRUCT = pa.struct([pa.field("a", pa.int32(), nullable=False)])


def test_rows_that_could_not_be_read_can_be_written_whatever_is_kept() -> None:
    read = pa.schema([("x", pa.float32()), ("s", STRUCT), ("z", pa.list_(pa.int8(), 0))])
    rejects = Rejects(read, ["s", "z"], Limits(on_bad_file="skip"), 10)

    def fail() -> pa.Table:
        raise DataError("damaged", code="PAGE_CRC")

    assert rejects.readable(PIECE, 0, fail) is None
    losses = rejects.losses()
    assert (losses.rows, losses.codes, losses.bad_files) == (3, {"PAGE_CRC": 3}, {"in/a.parquet": 3})
    parquet = make_encoder("parquet")
    table = parquet.decoded(parquet.encoded(pa.Table.from_batches(losses.batches, losses.schema)), losses.schema)
    assert table["kept"].to_pylist() == [None] * 3
    assert table["kept"].type == pa.struct([("s", STRUCT)]), "'z' cannot be held by Parquet"
