"""Who holds an open file: no thread of Arrow does, once it was closed. Python could not end under one."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from memory_file import MemoryFile

from connectors.formats.arrow import footer
from connectors.formats.registry import ENCODERS, make_encoder, make_source
from connectors.store.store import FileStat
from jobs.attempt import InputSlice

NAMES = ["n", *(f"a long name, of which many make a long footer: {index}" for index in range(2_500))]
TABLE = pa.table({name: [1, 2, 3] for name in NAMES})  # more than is read of a file at once
TABULAR = [name for name in ENCODERS if make_encoder(name).carries_header]


class Memory:
    """A store of one file, that knows the threads which read it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.threads: set[int] = set()

    def stat(self, path: str) -> FileStat:
        return FileStat(path, len(self.content), "1")

    def open(self, path: str, planned: FileStat | None = None) -> Any:
        threads = self.threads

        class Watched(MemoryFile):
            def readinto(self, buffer: Any) -> int:
                threads.add(threading.get_ident())
                return super().readinto(buffer)

        file = Watched(self.content)
        file.seen = self.stat(path)  # type: ignore[attr-defined]
        return file


def stored(name: str, path: Path) -> Any:
    writer = make_encoder(name).open(path / "part", TABLE.schema, "none")
    for batch in TABLE.to_batches():
        writer.write(batch)
    writer.close({"shard": 1})
    return Memory((path / "part").read_bytes())


@pytest.mark.parametrize("name", TABULAR)
@pytest.mark.parametrize("verb", ["schema", "stated", "inspect", "read_header"])
def test_what_is_known_of_a_file_is_read_by_the_thread_that_asks(name: str, verb: str, tmp_path: Path) -> None:
    store = stored(name, tmp_path)
    source, stat = make_source(name), store.stat("f")
    if verb == "read_header":
        assert make_encoder(name).read_header(store, "f")[1] == 3
    elif verb == "inspect":
        assert source.inspect(store, stat, [])[0].row_groups[0].rows == 3
    else:
        getattr(source, verb)(store, stat)
    assert store.threads == {threading.get_ident()}


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_that_was_closed_is_held_by_no_thread(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The I/O thread of Arrow lets go of it late here, so that it is always the last."""
    lent: list[weakref.ref[object]] = []
    opened, made = pa.ipc.open_file, footer._Lent

    def lend(file: Any) -> Any:
        one = made(file)
        lent.append(weakref.ref(one))
        return one

    def open_late(file: pa.PythonFile, **options: Any) -> Any:
        holder = threading.Event()
        threading.Thread(target=lambda held: holder.wait(0.05), args=[file]).start()
        if fails:
            raise pa.ArrowInvalid("a footer that pyarrow does not like")
        return opened(file, **options)

    monkeypatch.setattr(footer, "_Lent", lend)
    store = stored("arrow", tmp_path)
    inputs = InputSlice(0, "f", len(store.content), "1", 0, (3,))
    source: Any = make_source("arrow")
    with pytest.MonkeyPatch.context() as patch, suppress(Exception):
        patch.setattr(
            pa.ipc,
            "open_file",
            lambda file, **options: (open_late if type(file) is pa.PythonFile else opened)(file, **options),
        )
        with source.open(store, inputs, ["n"]) as reader:
            assert reader.read(0).num_rows == 3
    assert [one() for one in lent] == [None]
