"""The rows of an input, read as workers read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from connectors.store.store import Store
from connectors.tables.source import source_of
from jobs.attempt import input_slice
from jobs.plan import InputFile, Slice
from jobs.section.limits import Limits
from runner.preflight.input.files import inspect
from runner.preflight.input.listing import Listed


def planned(found: Listed, *columns: str) -> list[InputFile]:
    """As a plan in an output has them."""
    files, _ = inspect(found.source, _store(found), found.files, columns, Limits())
    return [InputFile.from_document(file.document()) for file, _ in files]


def _store(found: Listed) -> Store:
    return Store(found.job.input.url[0], found.job.input.options)


def rows(found: Listed, *columns: str, files: Sequence[InputFile] | None = None) -> list[dict[str, Any]]:
    """files: of an earlier plan."""
    files = planned(found, *columns) if files is None else files
    store, source = _store(found), source_of(found.job.input)
    made: list[dict[str, Any]] = []
    for index, file in enumerate(files):
        piece = input_slice(files, Slice(index, 0, len(file.row_groups)))
        with source.open(store, piece, columns) as reader:
            for group in range(len(file.row_groups)):
                table, picks = reader.read(group), piece.picked(group)
                assert table.column_names == list(columns)
                made += (table if picks is None else table.take(pa.array(list(picks), pa.int64()))).to_pylist()
    return made
