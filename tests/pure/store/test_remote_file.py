"""A remote file reads exactly what is wanted, and nothing where nothing is left; its client is renewed once."""

from __future__ import annotations

import os
import threading
from typing import Any

import pyarrow as pa

from connectors.store.listing import FileStat
from connectors.store.objects import GcsFiles
from connectors.store.remote import RangeFile
from connectors.together import call_together

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


def test_ranges_are_put_where_they_are_wanted() -> None:
    file, fetched = opened()
    targets = [(start, memoryview(bytearray(10))) for start in (150, 0, 20)]
    file.fill(targets)
    assert [bytes(target) for _, target in targets] == [CONTENT[start : start + 10] for start, _ in targets]
    assert (sorted(fetched), file.tell()) == ([(0, 10), (20, 30), (150, 160)], 0)


def test_a_client_whose_credentials_expired_under_many_calls_is_renewed_once() -> None:
    made: list[str] = []
    begun = threading.Barrier(4)

    def renewed() -> Any:
        made.append("new")
        return "new"

    files = GcsFiles("old", renewed)

    def call() -> None:
        if files.client == "old":
            begun.wait(20)
            raise PermissionError

    call_together([lambda: files.using(call)] * 4)
    assert made == ["new"]
