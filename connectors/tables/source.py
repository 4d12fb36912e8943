"""The source of a job's input: files of a format, with what folders and tables say of their rows."""

from __future__ import annotations

from connectors.formats import registry
from connectors.formats.base import Source
from connectors.tables.partitions import PartitionedSource
from connectors.tables.table import TableSource
from jobs.section.input import Input


def source_of(input: Input, max_row_group_bytes: int | None = None, max_row_bytes: int | None = None) -> Source:
    """As that of `connectors.formats.registry`, and with what the files do not say. The bounds: see there."""
    if input.table is not None:
        made = TableSource.of(input)
        made.max_row_group_bytes = max_row_group_bytes or made.max_row_group_bytes
        return made
    plain = registry.source_of(input, max_row_group_bytes, max_row_bytes)
    return plain if input.partitions is None else PartitionedSource(plain, input.types)
