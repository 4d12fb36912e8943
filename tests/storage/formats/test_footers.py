"""The footers of many files: in the order of the files, whether threads read them or not."""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.formats import footer
from connectors.formats.parquet import ParquetSource
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.section.limits import Limits
from runner.preflight.input.files import inspect

_FILES = 100


@pytest.mark.parametrize("waits_for", ["core", "store"])
def test_every_footer_is_read_once_and_in_order(
    waits_for: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(_FILES):
        pq.write_table(pa.table({"x": list(range(at + 1))}), tmp_path / f"{at:03d}.parquet")
    (tmp_path / "050.parquet").write_bytes(b"no parquet at all")
    store = Store(str(tmp_path))
    files = store.list([str(tmp_path)], [".parquet"]).files
    busy = {"core": time.perf_counter, "store": lambda: 0.0}[waits_for]
    monkeypatch.setattr("runner.preflight.input.files.time.thread_time", busy)
    threads = set[str]()
    look = ParquetSource.inspect

    def seen(*arguments: object) -> object:
        threads.add(threading.current_thread().name.split("_")[0])
        return look(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ParquetSource, "inspect", seen)

    found, errors = inspect(ParquetSource(), store, files, ["x"], Limits(on_bad_file="skip", max_bad_files=1))

    assert [file.row_groups[0].rows for file, _ in found] == [at + 1 for at in range(_FILES) if at != 50]
    assert ["050.parquet" in str(error) for error in errors] == [True]
    assert ("footer" in threads) == (waits_for == "store")


def slice_of(source: ParquetSource, store: Store, path: Path) -> InputSlice:
    file, _ = source.inspect(store, store.list([str(path)], [".parquet"]).files[0], ["x"])
    return InputSlice(0, file.url, file.size, file.version, 0, tuple(group.rows for group in file.row_groups))


def test_the_readers_of_a_worker_parse_a_footer_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": range(40)}), path, row_group_size=10)
    source, store = ParquetSource(), Store(str(tmp_path))
    parsed, parse = list[str](), footer.read_footer

    def counted(file: footer.BufferedFile, known: footer.FileSchema | None = None) -> footer.Footer:
        parsed.append(file.url)
        time.sleep(0.01)  # the others come meanwhile
        return parse(file, known)

    inputs = slice_of(source, store, path)
    monkeypatch.setattr(footer, "read_footer", counted)

    def read(row_group: int) -> list[int]:
        with source.open(store, inputs, ["x"]) as reader:
            return reader.read(row_group)["x"].to_pylist()  # type: ignore[no-any-return]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read, range(4))) == [[*range(at, at + 10)] for at in (0, 10, 20, 30)]
    assert len(parsed) == 1
    pq.write_table(pa.table({"x": range(50)}), path, row_group_size=10)
    inputs = slice_of(source, store, path)
    assert read(4) == [*range(40, 50)]
    assert len(parsed) == 2, "another version of the file has another footer"


def test_a_plan_parses_the_footer_of_the_file_that_it_asks_first_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        pq.write_table(pa.table({"x": range(40), "t": ["t"] * 40}), tmp_path / f"{name}.parquet", row_group_size=10)
    parsed, parse = list[str](), footer.read_footer

    def counted(file: footer.BufferedFile, known: footer.FileSchema | None = None) -> footer.Footer:
        parsed.append(Path(file.url).name)
        return parse(file, known)

    monkeypatch.setattr("connectors.formats.parquet.read_footer", counted)
    source, store = ParquetSource(), Store(str(tmp_path))
    first, second = store.list([str(tmp_path)], [".parquet"]).files
    schema = source.schema(store, first)
    for file in (first, second):
        found, same = source.inspect(store, file, ["x"])
        assert ([group.rows for group in found.row_groups], same) == ([10] * 4, schema)
    assert source.stated(store, first) == (schema, {})
    assert parsed == ["a.parquet", "b.parquet"]
    source.inspect(store, first, ["x"])
    assert parsed[2:] == ["a.parquet"], "what may be large is not kept behind the first look"
    unversioned = replace(first, version="")
    source.schema(store, unversioned)
    source.inspect(store, unversioned, ["x"])
    assert parsed[3:] == ["a.parquet"] * 2, "it may be another file by now"


# What polars 2.1.0 writes: x Float32, big Int128, ubig UInt128; three rows.
_WIDE = """
UEFSMRUAFRwVLiwVBhUAFQYVBhw2AigEAAAgQBgEAADAPwAAACi1L/0gDnEAAAIAAAADAwAAwD8AACBAFQgZJQAGGRgBeBUMFgYWXhZwJgg8NgIoBAAA
IEAYBAAAwD8AABUAFWwVRCwVBhUAFQYVBhw2AAAAACi1L/0gNs0AAIgCAAAABgEBAPD///8AEAAAAAIAwNA24AIVDhklAAYZGANiaWcVDBYGFpYBFm4m
wgE8NgAAABUAFWwVOiwVBhUAFQYVBhw2ACgQAAAAAAAAAAAAAAAAAAAAAxgQAAAAAAAAAAAAAAAAAAAAAQAAACi1L/0gNqUAAGACAAAABgEBAAIAAwAD
FAALGHMBFQ4ZJQAGGRgEdWJpZxUMFgYW3gEWrAEm6gI8NgAoEAAAAAAAAAAAAAAAAAAAAAMYEAAAAAAAAAAAAAAAAAAAAAEAABkRAhkYBAAAwD8ZGAQA
ACBAFQAZFgIAGRECGRgQAAAAAAAAAAAAAAAAAAAAARkYEAAAAAAAAAAAAAAAAAAAAAMVABkWAAAZHBYIFXAWAAAAGRwWwgEVbhYAAAAZHBbqAhWsARYA
AAAVAhlMSARyb290FQYAFQglAhgBeAAVDhUgFQIYA2JpZwAVDhUgFQIYBHViaWcAFgYZHBk8JngcFQgZJQAGGRgBeBUMFgYWXhZwJgg8NgIoBAAAIEAY
BAAAwD8AABaoBhUUFpwFFS4AJrACHBUOGSUABhkYA2JpZxUMFgYWlgEWbibCATw2AAAAFrwGFRYAJpYEHBUOGSUABhkYBHViaWcVDBYGFt4BFqwBJuoC
PDYAKBAAAAAAAAAAAAAAAAAAAAADGBAAAAAAAAAAAAAAAAAAAAABAAAW0gYVGBbKBRVeABbSAxYGJggWigMUAAAZHBgMQVJST1c6c2NoZW1hGLQCLy8v
Ly85NEFBQUFFQUFBQTh2Ly8veFFBQUFBRUFBRUFBQUFLQUFzQUNBQUtBQVFBK1AvLy93d0FBQUFJQUFnQUFBQUVBQU1BQUFCMEFBQUFQQUFBQUFRQUFB
Q0UvLy8vSkFBQUFCQUFBQUFJQUFBQUFRSUFBQUFBQUFEMi8vLy9nQUFBQUFBQUJnQUlBQVFBQkFBQUFIVmlhV2NBQUFBQXVQLy8veWdBQUFBUUFBQUFD
QUFBQUFFQ0FBQUFBQUFBOVAvLy80QUFBQUFCQUFBQUNBQUpBQVFBQ0FBREFBQUFZbWxuQU96Ly8vOHdBQUFBSUFBQUFCZ0FBQUFCQXdBQUVBQVNBQVFB
RUFBUkFBZ0FBQUFNQUFBQUFBRDYvLy8vQVFBR0FBWUFCQUFCQUFBQWVBQT0AGE5Qb2xhcnMgKHB5dGhvbikgdmVyc2lvbiAyLjEuMCAoYnVpbGQgN2Y5
MDJiZDNmZmQyN2ZmODJkMTQyNzhhMDlhMjk1ZmYyZjdhZWQ5MikZPBwAABwAABwAAACRAgAAUEFSMQ==
"""


def test_the_other_columns_of_a_file_with_128_bit_integers_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.parquet").write_bytes(base64.b64decode(_WIDE))
    source, store = ParquetSource(), Store(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        inputs = slice_of(source, store, tmp_path / "a.parquet")
    assert source.schema(store, store.list([str(tmp_path)], [".parquet"]).files[0]).names == ["x"]
    assert "written by Polars" in caplog.text
    assert "columns 'big', 'ubig' are left out" in caplog.text
    with source.open(store, inputs, ["x"]) as reader:
        assert reader.read(0)["x"].to_pylist() == [1.5, 2.5, None]


@pytest.mark.surprises
def test_a_footer_of_100000_row_groups_is_held_once(tmp_path: Path, saw: Callable[[str], None]) -> None:
    table = pa.table({f"c{at}": pa.array([1.0] * 4, pa.float32()) for at in range(8)} | {"x": range(4)})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, use_dictionary=False) as writer:
        for _ in range(100_000):
            writer.write_table(table)
    source, store = ParquetSource(), Store(str(tmp_path))
    inputs = slice_of(source, store, tmp_path / "a.parquet")
    before = _held()
    with ExitStack() as opened:
        opened.enter_context(source.open(store, inputs, ["x"]))
        one = _held() - before
        for _ in range(3):
            opened.enter_context(source.open(store, inputs, ["x"]))
        four = _held() - before
    saw(f"{inputs.size:,} bytes, 100,000 row groups: one reader holds {one} MiB, four hold {four} MiB")
    assert four < 2 * one


def _held() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024
