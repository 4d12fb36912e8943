"""What writers put between the messages of an Arrow IPC file: all of it is read over, and no batch hides there."""

from __future__ import annotations

import io
import struct
from typing import Any

import pyarrow as pa
import pytest
from memory_file import MemoryStore

from connectors.formats.arrow.footer import read_places
from connectors.formats.arrow.gap import FRONT_BYTES
from connectors.formats.arrow.source import ArrowSource
from connectors.formats.buffered import TAIL_BYTES, BufferedFile
from jobs.attempt import InputSlice
from jobs.errors import InputError

V4 = {"metadata_version": pa.ipc.MetadataVersion.V4, "use_legacy_format": True}
PLAIN = pa.table({"n": [1, 2, 3], "text": ["a", None, "longer than twelve bytes"]})
KINDS = PLAIN.set_column(1, "text", PLAIN["text"].dictionary_encode())
NULLS = pa.table({"null": pa.nulls(3)})  # the shortest batches
WIDE = pa.table({f"a column with a long name {index}": [1, 2, 3] for index in range(3_000)})
TABLES = {"plain": PLAIN, "dictionaries": KINDS, "nulls": NULLS, "wide": WIDE}


def encoded(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=1)
    return file.getvalue()


def read(content: bytes) -> pa.Table:
    store: Any = MemoryStore(content)
    source = ArrowSource()
    file, schema = source.inspect(store, store.stat("f"), [])
    inputs = InputSlice(0, "f", file.size, "1", 0, tuple(group.rows for group in file.row_groups))
    with source.open(store, inputs, schema.names) as reader:
        return pa.concat_tables([reader.read(index) for index in range(len(inputs.rows))])


def places(content: bytes) -> tuple[list[Any], list[Any]]:
    with BufferedFile(io.BytesIO(content), "f", len(content)) as file:
        return read_places(file)


def footer_start(content: bytes) -> int:
    return len(content) - 10 - int.from_bytes(content[-10:-6], "little")


def moved(content: bytes, head: bytes) -> bytes:
    """The same messages behind `head` instead of the magic and the schema."""
    found = sorted(place.offset for listed in places(content) for place in listed)
    footer = content[footer_start(content) :]
    for offset in found:
        at = footer.index(struct.pack("<q", offset))
        footer = footer[:at] + struct.pack("<q", offset - found[0] + len(head)) + footer[at + 8 :]
    return head + content[found[0] : footer_start(content)] + footer


def unlisted(content: bytes, index: int, *, dictionary: bool = False) -> bytes:
    """The same file, whose footer leaves out one of its batches."""
    listed = places(content)[dictionary]
    blocks = [struct.pack("<qi4xq", *(place.offset, place.metadata_bytes, place.body_bytes)) for place in listed]
    vector = struct.pack("<i", len(blocks)) + b"".join(blocks)
    start = content.index(vector, footer_start(content))
    del blocks[index]
    shorter = (struct.pack("<i", len(blocks)) + b"".join(blocks)).ljust(len(vector), b"\0")
    return content[:start] + shorter + content[start + len(vector) :]


@pytest.mark.parametrize("options", [{}, V4], ids=["newest", "legacy"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("writer", ["Polars", "arrow-rs", "JavaScript", "nothing but zeros"])
def test_only_what_the_footer_lists_need_be_where_readers_find_it(
    writer: str, table: pa.Table, options: dict[str, Any]
) -> None:
    content = encoded(table, **options)
    first = min(place.offset for listed in places(content) for place in listed)
    schema = content[8:first]
    head = {
        "Polars": b"ARROW1\0\0" + (schema[8:] + bytes(16))[: len(schema)],
        "arrow-rs": b"ARROW1".ljust(64, b"\0") + schema,
        "JavaScript": b"ARROW1\0\0",
        "nothing but zeros": b"ARROW1".ljust(1 + TAIL_BYTES // 8 * 8 + 7, b"\0"),
    }[writer]
    assert len(head) % 8 == 0
    found = read(moved(content, head))
    assert found.to_pydict() == table.to_pydict()


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, V4], ids=["newest", "zstd", "legacy"])
@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_batch_that_no_list_names_is_found(table: pa.Table, index: int, options: dict[str, Any]) -> None:
    content = encoded(table, **options)
    offset = places(content)[0][index].offset
    with pytest.raises(InputError, match=f"the batch at {offset} is in no list of its footer") as caught:
        places(unlisted(content, index))
    assert caught.value.facts["code"] == "FILE_FOOTER"


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(
    "head", [b"ARROW1\0\0", b"ARROW1".ljust(64, b"\0"), b"ARROW1\0\0".ljust(3 * FRONT_BYTES, b"x")]
)
def test_a_batch_hides_behind_no_layout(head: bytes, index: int) -> None:
    with pytest.raises(InputError, match="is in no list of its footer"):
        places(unlisted(moved(encoded(PLAIN), head), index))


def test_a_dictionary_that_no_list_names_is_found() -> None:
    with pytest.raises(InputError, match="is in no list of its footer"):
        places(unlisted(encoded(KINDS), 0, dictionary=True))


def test_a_gap_is_looked_through_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """In windows, of which a message may lie in two."""
    window = 2 * FRONT_BYTES
    monkeypatch.setattr("connectors.formats.arrow.gap._WINDOW_BYTES", window)
    for room in range(window - 400, window + 400, 8):
        content = moved(encoded(PLAIN), b"ARROW1\0\0" + b"\xff\xff\xff\xff\0\0\0\0" * (room // 8))
        assert len(places(content)[0]) == 3
        with pytest.raises(InputError, match="is in no list"):
            places(unlisted(content, 0))


def test_a_batch_that_is_listed_twice_is_refused() -> None:
    content = encoded(PLAIN)
    first, second, _ = (struct.pack("<q", place.offset) for place in places(content)[0])
    start = footer_start(content)
    with pytest.raises(InputError, match="overlaps the one before"):
        places(content[:start] + content[start:].replace(second, first))


def test_a_schema_with_its_frame_is_not_looked_through() -> None:
    """The end of a file and its start are all that is fetched, whatever the schema's size."""
    content = encoded(WIDE)
    reads: list[int] = []

    class Counted(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            reads.append(count := super().readinto(buffer))
            return count

    with BufferedFile(Counted(content), "f", len(content)) as file:
        read_places(file)
    footer = len(content) - footer_start(content)
    assert len(reads) <= 3
    assert sum(reads) <= footer + TAIL_BYTES + 2 * FRONT_BYTES
