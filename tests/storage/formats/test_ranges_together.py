"""The ranges of a row group on a store that takes its time: asked for together, each by the rules of any range."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.formats.registry import make_source
from connectors.store import remote
from connectors.together import AT_ONCE
from jobs.attempt import InputSlice
from jobs.errors import DataError, InputError

COLUMNS, ROWS = 40, 40_000  # every second column is wanted: the others are gaps of 320 kB
WANTED = [f"c{number}" for number in range(0, COLUMNS, 2)]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    values = np.random.default_rng(0).integers(0, 2**63, (COLUMNS, ROWS))
    return pa.table({f"c{number}": column for number, column in enumerate(values)})


@pytest.fixture(scope="module")
def content(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("scattered") / "x.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False)
    return path.read_bytes()


@pytest.fixture
def slow(place: Any, s3_server: Any, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store with the file, whose ranges are answered after 30 ms."""
    place.put("x.parquet", content)
    monkeypatch.setattr(s3_server, "pause_s", 0.03)
    yield place
    while s3_server.at_once:  # what went on behind an error
        time.sleep(0.01)


def read(place: Any, act: Any = lambda: None) -> pa.Table:
    """The wanted columns. act: done when the file is open."""
    store = place.store()
    file = store.stat("x.parquet")
    inputs = InputSlice(0, file.url, file.size, file.version, 0, (ROWS,))
    with make_source("parquet").open(store, inputs, WANTED) as reader:
        act()
        return reader.read(0)


def ranges(server: Any) -> int:
    """How many different ones were asked for."""
    return len(set(server.ranges))


pytestmark = pytest.mark.parametrize("place", ["s3"], indirect=True)


def test_scattered_columns_are_asked_for_together_within_the_bound(slow: Any, s3_server: Any, table: pa.Table) -> None:
    assert read(slow).equals(table.select(WANTED))
    assert ranges(s3_server) == len(WANTED) + 1, "the footer, and each column"
    assert 1 < s3_server.most_at_once <= AT_ONCE


def test_ranges_that_fail_are_tried_again_each_by_itself(
    slow: Any, s3_server: Any, s3_faults: Any, fault_kind: Any, table: pa.Table, pauses: list[float]
) -> None:
    assert read(slow, lambda: s3_faults.append(fault_kind("GET", "x.parquet", 7, 409))).equals(table.select(WANTED))
    assert ranges(s3_server) == len(WANTED) + 1
    assert len(s3_server.ranges) >= len(WANTED) + 1 + 7
    assert len(pauses) == 7


def test_a_range_that_is_refused_for_good_ends_the_others(
    slow: Any, s3_server: Any, s3_faults: Any, fault_kind: Any
) -> None:
    with pytest.raises(InputError, match="permission was denied"):
        read(slow, lambda: s3_faults.append(fault_kind("GET", "x.parquet", 1000, 403)))
    assert ranges(s3_server) <= 1 + 2 * 2 * AT_ONCE


def test_no_range_of_a_file_that_is_replaced_passes_for_one_of_the_planned(
    slow: Any, content: bytes, pauses: list[float]
) -> None:
    with pytest.raises(DataError, match="changed while it was read") as caught:
        read(slow, lambda: slow.put("x.parquet", content[::-1]))
    assert caught.value.facts["code"] == "FILE_CHANGED"
    assert pauses == []


def test_a_large_range_is_asked_for_in_parts(
    slow: Any, s3_server: Any, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PART_BYTES", 100_000)
    assert read(slow).equals(table.select(WANTED))
    assert ranges(s3_server) == 1 + 4 * len(WANTED)
    assert s3_server.most_at_once <= AT_ONCE
