"""Rows in the memory of a process become an input that every worker can read, and that a resumed run finds again.

Owns the file that they are written to: below the output, named by its content. The invariant: the same rows have the
same file, which is written once, so that a job with them has the same plan each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from connectors.output.layout import RUN
from connectors.store.store import Store
from jobs.errors import InputError
from jobs.section.input import Held
from jobs.section.output import Output

MOST_BYTES = 256 * 2**20  # in Arrow: what is held twice for a moment, and sent in one request
_BATCH_ROWS = 2**16  # of a record batch, whatever the pieces were: the unit that is read at once


def put(held: Held, output: Output) -> str:
    """Write the rows below `output`, unless they are there; the URL of the file.

    raises: InputError where they are too many, or no Arrow table can be made of them.
    cost:   one more copy of them in memory.
    """
    table = _table(held)
    content = _content(table)
    store, name = Store(output.url, output.options), f"{RUN}/input-{hashlib.sha256(content).hexdigest()[:16]}.arrow"
    if not store.create(name, content):
        there = store.stat(name)
        if there is None or there.size != len(content):  # torn
            store.replace(name, content)
    return store.child(name)


def _table(held: Held) -> pa.Table:
    """raises: InputError."""
    found: list[pa.Table] = []
    size = 0
    try:
        for piece in _pieces(held.table):
            size += piece.nbytes
            if size > MOST_BYTES:
                raise InputError(
                    f"cannot take a {held} as input: it has more than {MOST_BYTES // 2**20} MiB; write it as Parquet,"
                    " where all workers can read it, and name that: `input='rows.parquet'`"
                )
            found.append(piece)
        # Without metadata: what pandas says of itself there would make another input of each version of it.
        table = pa.concat_tables(found).replace_schema_metadata(None)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"cannot take a {held} as input: no Arrow table can be made of it: {reason}; expected a table whose columns"
            " hold values of one type each"
        ) from error
    held.table = table  # a reader gives its rows once
    return table


def _pieces(source: Any) -> Iterator[pa.Table]:
    if isinstance(source, pa.Table):
        yield source
    elif hasattr(source, "__arrow_c_stream__"):
        with pa.RecordBatchReader.from_stream(source) as reader:
            yield reader.schema.empty_table()
            yield from (pa.Table.from_batches([batch]) for batch in reader)
    elif hasattr(source, "scanner"):  # pyarrow.dataset.Dataset
        yield from _pieces(source.scanner().to_reader())
    else:  # ray.data.Dataset
        yield from source.iter_batches(batch_size=None, batch_format="pyarrow")


def _content(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS):
            writer.write_batch(batch)
    return bytes(sink.getvalue())
