"""Arrow IPC files as parts: written, and their commit header read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from connectors.formats.arrow.footer import read_places
from connectors.formats.arrow.message import Block, read_blocks
from connectors.formats.base import Unread
from connectors.formats.buffered import BufferedFile
from connectors.formats.spool import HEADER_KEY, SpoolWriter, empty_batch, open_part, stated_header, whole_part
from connectors.store.store import Store


class ArrowEncoder:
    """Writes Arrow IPC files; the commit header is the metadata of a last, empty record batch.

    The footer would be the better place, but its metadata must be given when the file is opened.
    """

    suffix = ".arrow"
    packed: Mapping[str, str] = MappingProxyType({})
    carries_header = True
    unread: tuple[Unread, ...] = ()

    def encoded(self, table: pa.Table) -> pa.Buffer:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    def decoded(self, content: pa.Buffer, schema: pa.Schema) -> pa.Table:
        return pa.ipc.open_file(content).read_all()

    def open(self, spool: Path, schema: pa.Schema, compression: str) -> ArrowWriter:
        return ArrowWriter(spool, schema, compression)

    def dataset(self, url: str) -> str:
        return "ipc"

    def unstated(self, schema: pa.Schema) -> pa.Schema | None:
        return None

    def read_header(self, store: Store, path: str) -> tuple[dict[str, object] | None, int]:
        with open_part(store, path) as held, whole_part(path):
            places, _ = read_places(held)
            blocks = read_blocks(held, places)
            return _header(blocks), sum(block.rows for block in blocks)


def _header(blocks: Sequence[Block]) -> dict[str, object] | None:
    if not blocks or blocks[-1].rows:
        return None
    return stated_header(blocks[-1].said.get(HEADER_KEY))


class ArrowWriter(SpoolWriter):
    def __init__(self, spool: Path, schema: pa.Schema, compression: str) -> None:
        super().__init__(spool, schema)
        codec = None if compression == "none" else compression
        # use_threads: threads are the business of the engine.
        options = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)
        with self._errors():
            self._writer = pa.ipc.new_file(self._sink, schema, options=options)

    def _encode(self, group: pa.Table) -> None:
        for batch in group.combine_chunks().to_batches():
            self._writer.write_batch(batch)

    def _finish(self, header: str) -> None:
        self._writer.write_batch(empty_batch(self._schema), custom_metadata={HEADER_KEY: header})
        self._writer.close()

    def _drop(self) -> None:
        self._writer.close()

    @staticmethod
    def _rows_of(spool: Path) -> int:
        with BufferedFile(spool.open("rb"), str(spool), spool.stat().st_size) as file:
            return sum(block.rows for block in read_blocks(file, read_places(file)[0]))
