"""Files of an input format, planned and read as a worker does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from connectors.formats.registry import source_of
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.plan import InputFile
from jobs.section.input import Input


def source(name: str, **section: Any) -> Any:
    """section: further keys of the job's `input`."""
    return source_of(Input(url="f", format=name, **section))  # type: ignore[arg-type]


def sliced(file: InputFile, first: int = 0, stop: int | None = None) -> InputSlice:
    """Row groups of a file, as a worker gets them."""
    groups = file.row_groups[first:stop]
    places = tuple(group.place for group in groups)
    rows = tuple(group.stored for group in groups)
    return InputSlice(0, file.url, file.size, file.version, first, rows, (), places if any(places) else ())


def planned(made: Any, store: Store, url: str, columns: Sequence[str]) -> tuple[InputFile, pa.Schema]:
    stat = store.stat(url)
    assert stat is not None
    found: tuple[InputFile, pa.Schema] = made.inspect(store, stat, columns)
    return found


def read(made: Any, store: Store, url: str, columns: Sequence[str], first: int = 0) -> pa.Table:
    """All rows from row group `first` on."""
    file, schema = planned(made, store, url, columns)
    inputs = sliced(file, first)
    with made.open(store, inputs, columns) as reader:
        groups = [reader.read(index) for index in range(first, first + len(inputs.rows))]
    assert [group.num_rows for group in groups] == list(inputs.rows)
    if not groups:
        return pa.Table.from_arrays([pa.nulls(0, schema.field(name).type) for name in columns], names=list(columns))
    return pa.concat_tables(groups) if columns else groups[0]


def facts(error: BaseException) -> Mapping[str, Any]:
    found: Mapping[str, Any] = error.facts  # type: ignore[attr-defined]
    return found
