"""The footers of many files: in the order of the files, whether threads read them or not."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.formats.parquet import ParquetSource
from connectors.store.store import Store
from jobs.job import Limits
from runner.preflight.files import inspect

_FILES = 100


@pytest.mark.parametrize("waits_for", ["core", "store"])
def test_every_footer_is_read_once_and_in_order(
    waits_for: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(_FILES):
        pq.write_table(pa.table({"x": list(range(at + 1))}), tmp_path / f"{at:03d}.parquet")
    (tmp_path / "050.parquet").write_bytes(b"no parquet at all")
    store = Store(str(tmp_path))
    files = store.list([str(tmp_path)], [".parquet"])
    busy = {"core": time.perf_counter, "store": lambda: 0.0}[waits_for]
    monkeypatch.setattr("runner.preflight.files.time.thread_time", busy)
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
