"""A remote file reads exactly what is wanted, and nothing where nothing is left."""

from __future__ import annotations

import os

import pyarrow as pa

from connectors.store.listing import FileStat
from connectors.store.remote import RangeFile

CONTENT = bytes(range(200))


def opened() -> tuple[RangeFile, list[tuple[int, int]]]:
    fetched: list[tuple[int, int]] = []

    def fetch(seen: FileStat, start: int, stop: int) -> bytes:
        fetched.append((start, stop))
        return CONTENT[start:stop]

    return RangeFile(FileStat("s3://b/x", len(CONTENT), "v"), fetch, None), fetched


def test_each_read_fetches_its_range_and_no_more() -> None:
    file, fetched = opened()
    assert file.read(3) == CONTENT[:3]
    file.seek(-10, os.SEEK_END)
    assert (file.read(4), file.tell()) == (CONTENT[190:194], 194)
    file.seek(2, os.SEEK_CUR)
    assert file.readall() == CONTENT[196:]
    assert fetched == [(0, 3), (190, 194), (196, 200)]


def test_nothing_is_fetched_at_the_end_and_beyond() -> None:
    file, fetched = opened()
    assert file.seek(500) == 500
    assert (file.read(), file.read(7), file.seek(-3)) == (b"", b"", 0)
    assert fetched == []


def test_pyarrow_reads_a_range_through_it() -> None:
    file, fetched = opened()
    assert pa.PythonFile(file, mode="r").read_at(5, 100) == CONTENT[100:105]
    assert fetched == [(100, 105)]
