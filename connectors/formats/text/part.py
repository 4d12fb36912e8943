"""Parts of text: rows as bytes, packed as a whole where the job says so. They carry no commit header.

Owns what CSV and JSON lines share of that; refuses to know how a row is written. The invariant: the rows of a part are
counted from its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from connectors.formats.buffered import BufferedFile
from connectors.formats.spool import SpoolWriter, open_part, whole_part
from connectors.formats.text.cut import Grammar, cuts
from connectors.formats.text.packed import blocks, codec_of_head
from connectors.store.store import Store

PACKED: Mapping[str, str] = MappingProxyType({"gzip": ".gz", "zstd": ".zst"})  # by which readers know that they are
_HEAD_BYTES = 4


class TextWriter(SpoolWriter):
    """compression: 'gzip', 'zstd' or 'none'."""

    def __init__(self, spool: Path, schema: pa.Schema, compression: str) -> None:
        super().__init__(spool, schema)
        with self._errors():
            self._packing = None if compression == "none" else pa.CompressedOutputStream(self._sink, compression)
            self._text: pa.NativeFile = self._packing or self._sink

    def _finish(self, header: str) -> None:
        if self._packing is not None:
            self._packing.close()

    def _drop(self) -> None:
        if self._packing is not None:
            self._packing.close()


def rows_in_spool(spool: Path, grammar: Grammar) -> int:
    with BufferedFile(spool.open("rb"), str(spool), spool.stat().st_size) as file:
        return _counted(file, grammar)


def rows_in_part(store: Store, path: str, grammar: Grammar) -> int:
    """raises: DataError PART_UNREADABLE if the part is not whole."""
    with open_part(store, path) as held, whole_part(path):
        return _counted(held, grammar)


def _counted(file: BufferedFile, grammar: Grammar) -> int:
    codec = codec_of_head(bytes(file.take(0, min(_HEAD_BYTES, file.size))))  # a spool has no suffix
    return sum(one.rows for one in cuts(blocks(file, codec=lambda _: codec), grammar))
