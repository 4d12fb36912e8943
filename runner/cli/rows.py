"""Rows of a file as the inputs of one call by hand: bound to the signature as a job would bind them.

Knows neither flags nor what is printed. The invariant: the rows that are fed are exactly those that were named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from connectors.formats.base import RowGroupReader, Source
from connectors.formats.fault import BadRowsError
from connectors.store.store import Store
from jobs.attempt import input_slice
from jobs.errors import DataError, JobError
from jobs.load import job_from
from jobs.plan import InputFile, Slice
from runner.binding.bind import bind, wanted_columns
from runner.model.signature import Signature
from runner.preflight.input.declared import declared
from runner.preflight.input.files import first_schema
from runner.preflight.input.listing import listed
from runner.tensor import Feeds, Outputs, Strings, Tensor

_ROWS = re.compile(r"(?P<url>.+):(?P<first>\d{1,18})(-(?P<last>\d{1,18}))?")


class Rows:
    """The rows 'FILE:FIRST-LAST', both from 0 and the last one included; 'FILE:ROW' is one row.

    raises: JobError for a text of another form, or rows beyond the file; as `bind` where the columns do not fit.
    """

    def __init__(self, text: str, signature: Signature, maps: Sequence[str], model: str) -> None:
        match = _ROWS.fullmatch(text)
        if match is None:
            raise JobError(
                f"cannot use the rows {text!r}: expected FILE:FIRST-LAST, counted from 0, as 'a.parquet:0-3'"
            )
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if last < first:
            raise JobError(f"cannot use the rows {text!r}: the last one, {last}, comes before the first one, {first}")
        job = job_from(model, [match["url"]], "-", signature.name, maps)
        store = Store(job.input.url[0])
        found = listed(job, store)
        if len(found.files) != 1:
            raise JobError(f"cannot use the rows {text!r}: {len(found.files):,} files are there; name one of them")
        found = declared(found, store, signature)
        job = found.job
        schema = first_schema(found.source, store, found.files, job.limits)
        columns = wanted_columns(job.columns, signature, schema)
        file, _ = found.source.inspect(store, found.files[0], columns)
        total = sum(group.rows for group in file.row_groups)
        if last >= total:
            raise JobError(f"cannot use the rows {text!r}: the file has {total:,} rows; the last one is {total - 1}")
        self.count = last - first + 1
        self._binding = bind(job.columns, schema, signature, "fixed_shape_tensor")
        most = self._binding.batch_rows
        if most is not None and self.count > most:
            raise JobError(
                f"cannot use the rows {text!r}: {self.count:,} rows; a call of this signature takes {most:,}"
            )
        self._batch = _read(found.source, store, file, columns, first, last + 1)

    def feeds(self) -> Feeds:
        """raises: RowError naming column and row, counted from the first one that was named."""
        return self._binding.feed(self._batch)

    def cut(self, outputs: Outputs) -> dict[str, Tensor]:
        """Without the rows that fill up a batch of one size."""
        filled = self._binding.batch_rows
        return {
            name: tensor if filled is None else _cut(tensor, filled, self.count) for name, tensor in outputs.items()
        }


def _read(
    source: Source, store: Store, file: InputFile, columns: Sequence[str], first: int, end: int
) -> pa.RecordBatch:
    """Rows [first, end) of the file, from the row groups that hold them."""
    starts = [0]
    for group in file.row_groups:
        starts.append(starts[-1] + group.rows)
    wanted = [n for n in range(len(file.row_groups)) if starts[n] < end and starts[n + 1] > first]
    with source.open(store, input_slice([file], Slice(0, wanted[0], wanted[-1] + 1)), columns) as reader:
        tables = [_group(reader, n, first - starts[n], end - starts[n]) for n in wanted]
    table = pa.concat_tables(tables).slice(first - starts[wanted[0]], end - first).combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)


def _group(reader: RowGroupReader, index: int, first: int, end: int) -> pa.Table:
    """All rows of a row group. raises: DataError where one of [first, end) is bad."""
    try:
        return reader.read(index)
    except BadRowsError as error:
        told = [(row, one, story) for one in error.bad for row, story in zip(one.at.tolist(), one.stories, strict=True)]
        for _, one, story in sorted((found for found in told if first <= found[0] < end), key=lambda found: found[0]):
            raise DataError(f"cannot feed the rows: {story}", code=one.code) from error
        return error.table


def _cut(tensor: Tensor, filled: int, rows: int) -> Tensor:
    if not tensor.shape or tensor.shape[0] != filled:
        return tensor
    shape = (rows, *tensor.shape[1:])
    if isinstance(tensor, Strings):
        return Strings(tensor.values.slice(0, len(tensor.values) // filled * rows), shape)
    return tensor[:rows]
