"""A file that is replaced while it is read: its rows are those of one content, or there is an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.formats.registry import make_encoder, make_source
from connectors.store.objects import GcsFiles
from connectors.store.store import Store
from jobs.attempt import InputSlice
from jobs.errors import DataError

ROWS, GROUPS = 22_000, 3  # a row group is more than what is fetched with a footer; a TFRecord file has two


def encoded(name: str, path: Path, value: int) -> bytes:
    """Some row groups, each value `value`: as many bytes as for another value."""
    table = pa.table({"a": pa.array([value] * ROWS * GROUPS, pa.int64())})
    if name == "parquet":
        pq.write_table(table, path, row_group_size=ROWS, compression="none", use_dictionary=False)
    elif name == "arrow":
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=ROWS)
    else:
        writer = make_encoder(name).open(path, table.schema, "none")
        writer.write(table.combine_chunks().to_batches()[0])
        writer.close({})
    return path.read_bytes()


@pytest.fixture(scope="module", params=["parquet", "arrow", "tfrecord"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def both(name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("both")
    first, second = encoded(name, folder / "first", 1), encoded(name, folder / "second", 2)
    assert len(first) == len(second)
    return first, second


def read_two(name: str, place: Any, between: Callable[[], None]) -> None:
    """Read the first and the last row group of the only file there, as planned, `between` in between."""
    store = place.store()
    (file,) = store.list([place.url], [f".{name}"]).files
    source, columns = make_source(name), ["record" if name == "tfrecord" else "a"]
    planned, _ = source.inspect(store, file, columns)
    rows = tuple(group.rows for group in planned.row_groups)
    with source.open(store, InputSlice(0, file.url, file.size, file.version, 0, rows), columns) as reader:
        reader.read(0)
        between()
        reader.read(len(rows) - 1)


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_a_file_that_is_replaced_or_rewritten_while_it_is_read_is_an_error(
    name: str, place: Any, both: tuple[bytes, bytes], change: str
) -> None:
    place.put(f"x.{name}", both[0])

    def act() -> None:
        if change == "replaced":
            place.put(f"x.{name}", both[1])
        else:
            place.store().remove(f"x.{name}")

    if (place.kind, change) == ("local", "gone"):
        read_two(name, place, act)  # what is open stays open
        return
    with pytest.raises(DataError, match=r"changed while it was read.*start a new job") as caught:
        read_two(name, place, act)
    assert (caught.value.facts["code"], caught.value.exit_code) == ("FILE_CHANGED", 65)


def test_an_object_that_is_replaced_by_equal_bytes_or_left_alone_is_read(
    name: str, place: Any, both: tuple[bytes, bytes]
) -> None:
    place.put(f"x.{name}", both[0])
    read_two(name, place, lambda: place.put(f"x.{name}", both[0]) if place.kind == "s3" else None)


def test_a_local_file_whose_name_goes_to_another_is_read_to_its_end(
    name: str, tmp_path: Path, both: tuple[bytes, bytes]
) -> None:
    path = tmp_path / f"x.{name}"
    path.write_bytes(both[0])
    (tmp_path / "second").write_bytes(both[1])
    with Store(str(tmp_path)).open(str(path)) as file:
        head = file.read(1000)
        os.replace(tmp_path / "second", path)  # noqa: PTH105
        assert head + file.read() == both[0]
        file.settle()


def test_what_looks_like_damage_is_the_change_that_caused_it(tmp_path: Path, place: Any) -> None:
    content = encoded("parquet", tmp_path / "first", 1)
    place.put("x.parquet", content)
    with pytest.raises(DataError) as caught:
        read_two("parquet", place, lambda: place.put("x.parquet", bytes(len(content))))
    assert caught.value.facts["code"] == "FILE_CHANGED"


# conditions


@pytest.mark.parametrize("conditions", [True, False], ids=["as S3", "a look-alike that ignores conditions"])
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_each_range_of_an_object_costs_one_request_and_none_is_of_another(
    place: Any, s3_server: Any, conditions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_server, "conditions", conditions)
    place.put("x", b"a" * 100)
    store = place.store()
    assert store.stat("x") is not None
    s3_server.asked.clear()
    with store.open("x") as file:
        assert file.read(10) + file.read(20) == b"a" * 30
        file.settle()
        assert [line.split()[0] for line in s3_server.asked] == ["HEAD", "GET", "GET"]
        place.put("x", b"b" * 100)
        with pytest.raises(DataError, match="changed while it was read"):
            file.read(10)
        assert len(s3_server.asked) == 4, "what has changed is not tried again"


def seen_at_the_end(file: Any) -> None:
    assert file.read(10) == b"b" * 10
    file.settle()


class Gcs:
    """A client of one object. pinned: whether it knows the generation that a range asks for."""

    def __init__(self, pinned: bool) -> None:
        self.pinned, self.generation, self.content = pinned, 7, b"a" * 100

    def _strip_protocol(self, url: str) -> str:
        return url.removeprefix("gs://")

    def info(self, path: str) -> dict[str, Any]:
        etag = f"etag{self.generation}"
        return {"type": "file", "size": 100, "etag": etag, "generation": str(self.generation)}

    def cat_file(self, path: str, start: int, end: int, generation: str = "") -> bytes:
        if self.pinned and generation != str(self.generation):
            raise FileNotFoundError(path)
        return self.content[start:end]


@pytest.mark.parametrize("pinned", [True, False])
def test_ranges_of_gcs_name_the_generation_and_a_client_that_ignores_it_is_seen_at_the_end(pinned: bool) -> None:
    client, store = Gcs(pinned), Store("gs://b")
    store._calls.files = GcsFiles(client)
    with store.open("x") as file:
        assert file.read(10) == b"a" * 10
        client.generation, client.content = 8, b"b" * 100
        with pytest.raises(DataError, match="changed while it was read") as caught:
            seen_at_the_end(file)
    assert caught.value.facts["code"] == "FILE_CHANGED"
