"""The contract of formats that are read: the same rows from each format and store, and what is bad has its place.

What a format is, and how its library writes it, says `support/contract_formats.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from contract_formats import FORMATS, OF_ONE_ROW, Format, Row, picture, rows
from sources import facts, planned, read, sliced, source

from connectors.formats.fault import BadRowsError
from connectors.formats.registry import SOURCES
from connectors.store.store import Store
from jobs.errors import DataError, InputError, RunnerError
from jobs.plan import InputFile

NAMES = ["text", "id", "x"]  # not in the order of the file


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Format:
    """A format, whose row groups are small."""
    found = FORMATS[request.param]
    for module, attribute, value in found.cut:
        monkeypatch.setattr(importlib.import_module(module), attribute, value)
    return found


def put(place: Any, kind: Format, content: bytes, name: str = "f") -> tuple[Store, str]:
    place.put(f"{name}{kind.suffix}", content)
    return place.store(), f"{place.url}/{name}{kind.suffix}"


def ours(kind: Format, found: pa.Table) -> list[Row]:
    return [kind.as_written(row) for row in found.to_pylist()]


@pytest.fixture
def here(tmp_path: Any) -> Any:
    """A local folder, as a `place`."""

    class Here:
        url = str(tmp_path)

        def put(self, name: str, content: bytes) -> None:
            (tmp_path / name).write_bytes(content)

        def store(self) -> Store:
            return Store(self.url)

    return Here()


def group_rows(file: InputFile) -> list[int]:
    return [group.rows for group in file.row_groups]


def test_every_format_that_is_read_is_in_the_contract() -> None:
    assert {made.name for made in FORMATS.values()} | set(OF_ONE_ROW) == set(SOURCES)


def test_the_same_rows_come_out_of_every_format_and_store(kind: Format, place: Any) -> None:
    store, url = put(place, kind, kind.encoded(rows(350)))
    found = read(source(kind.name, **kind.section), store, url, kind.wanted(NAMES))
    assert found.column_names == kind.wanted(NAMES)
    assert ours(kind, found) == [{name: row[name] for name in NAMES} for row in rows(350)]


@pytest.mark.parametrize("names", [["x"], ["x", "text"], []])
def test_columns_come_as_they_are_asked_for(kind: Format, here: Any, names: list[str]) -> None:
    store, url = put(here, kind, kind.encoded(rows(5)))
    found = read(source(kind.name, **kind.section), store, url, kind.wanted(names))
    assert (found.column_names, found.num_rows) == (kind.wanted(names), 5)
    assert ours(kind, found) == [{name: row[name] for name in names} for row in rows(5)]


def test_row_groups_add_up_and_each_is_read_by_itself_in_any_order(kind: Format, here: Any) -> None:
    store, url = put(here, kind, kind.encoded(rows(350)))
    made, columns = source(kind.name, **kind.section), kind.wanted(["id"])
    file, _ = planned(made, store, url, columns)
    counts = group_rows(file)
    assert (sum(counts), len(counts) > 2, min(counts) > 0) == (350, True, True)
    for group, (first, count) in enumerate(zip(accumulated(counts), counts, strict=True)):
        with made.open(store, sliced(file, group, group + 1), columns) as reader:
            assert [row["id"] for row in ours(kind, reader.read(group))] == [row["id"] for row in rows(count, first)]
    again = source(kind.name, **kind.section)  # as another worker: nothing is known but the plan
    with again.open(store, sliced(file), columns) as reader:
        backwards = {group: ours(kind, reader.read(group)) for group in reversed(range(len(counts)))}
    assert [row["id"] for group in sorted(backwards) for row in backwards[group]] == [row["id"] for row in rows(350)]


def accumulated(counts: Sequence[int]) -> Iterator[int]:
    return (sum(counts[:index]) for index in range(len(counts)))


def test_a_plan_survives_its_document(kind: Format, here: Any) -> None:
    store, url = put(here, kind, kind.encoded(rows(350)))
    made, columns = source(kind.name, **kind.section), kind.wanted(["id"])
    file, _ = planned(made, store, url, columns)
    again = InputFile.from_document(file.document())
    assert [(group.rows, group.bytes, group.place) for group in again.row_groups] == [
        (group.rows, group.bytes, group.place) for group in file.row_groups
    ]
    with made.open(store, sliced(again, 1, 2), columns) as reader:
        assert reader.read(1).num_rows == group_rows(file)[1]


def test_a_file_of_zero_bytes_is_refused_or_has_no_rows(kind: Format, here: Any) -> None:
    store, url = put(here, kind, b"")
    made, columns = source(kind.name, **kind.section), kind.wanted(["id"])
    if not kind.nothing:
        assert planned(made, store, url, columns)[0].row_groups == ()
        return
    with pytest.raises(InputError) as caught:
        planned(made, store, url, columns)
    assert facts(caught.value) == {"code": kind.nothing, "file": url}


def test_a_file_without_rows_has_none(kind: Format, here: Any) -> None:
    content = kind.encoded([])
    store, url = put(here, kind, content)
    made, columns = source(kind.name, **kind.section), kind.wanted(["id"])
    file, schema = planned(made, store, url, columns)
    assert sum(group_rows(file)) == 0
    assert columns[0] in schema.names
    with made.open(store, sliced(file), columns) as reader:
        assert [reader.read(group).num_rows for group in range(len(file.row_groups))] == [0] * len(file.row_groups)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.98])
def test_a_truncated_file_is_told_or_is_short_of_whole_rows_alone(kind: Format, here: Any, share: float) -> None:
    whole = kind.encoded(rows(350))
    store, url = put(here, kind, whole[: int(len(whole) * share) - 5])
    made, columns = source(kind.name, **kind.section), kind.wanted(NAMES)
    if kind.cut_off:
        with pytest.raises(InputError) as caught:
            planned(made, store, url, columns)
        assert facts(caught.value)["code"] == kind.cut_off
        return
    file, _ = planned(made, store, url, columns)  # text: its last row is cut, and nothing says that more was to come
    assert 0 < sum(group_rows(file)) <= 350
    with made.open(store, sliced(file), columns) as reader:
        for group in range(len(file.row_groups) - 1):
            assert reader.read(group).num_rows == group_rows(file)[group]


@pytest.mark.parametrize("change", ["size", "version", "gone"])
def test_a_file_that_changed_since_the_plan_is_not_read(kind: Format, here: Any, change: str) -> None:
    store, url = put(here, kind, kind.encoded(rows(350)))
    made, columns = source(kind.name, **kind.section), kind.wanted(["id"])
    file, _ = planned(made, store, url, columns)
    inputs = sliced(file)
    if change == "size":
        inputs = replace(inputs, size=inputs.size + 1)
    elif change == "version":
        inputs = replace(inputs, version="another")
    else:
        store.remove(f"f{kind.suffix}")
    with pytest.raises(DataError, match="changed since plan") as caught, made.open(store, inputs, columns):
        pass
    assert facts(caught.value)["code"] == "FILE_CHANGED"


def test_a_file_that_is_replaced_while_it_is_read_is_an_error(kind: Format, place: Any) -> None:
    first, second = kind.encoded(rows(350)), kind.encoded(rows(350)[::-1])
    assert len(first) == len(second)
    store, url = put(place, kind, first)
    made, columns = source(kind.name, **kind.section), kind.wanted(["id"])
    file, _ = planned(made, store, url, columns)

    def read_both() -> None:
        with made.open(store, sliced(file), columns) as reader:
            reader.read(0)
            place.put(f"f{kind.suffix}", second)
            reader.read(len(file.row_groups) - 1)

    with pytest.raises(DataError, match="changed while it was read") as caught:
        read_both()
    assert facts(caught.value)["code"] == "FILE_CHANGED"


@pytest.mark.parametrize("kind", [name for name, made in FORMATS.items() if made.bad[0]], indirect=True)
def test_a_bad_row_in_the_middle_has_its_place_and_the_others_are_used(kind: Format, here: Any) -> None:
    store, url = put(here, kind, kind.with_bad_row(rows(350), 171))
    made, columns = source(kind.name, **kind.section), kind.wanted(NAMES)
    file, _ = planned(made, store, url, columns)
    before = [*accumulated(group_rows(file))]
    group = max(index for index, first in enumerate(before) if first <= 171)
    with made.open(store, sliced(file), columns) as reader:
        assert reader.read(0).num_rows + reader.read(group + 1).num_rows > 0
        with pytest.raises(BadRowsError) as caught:
            reader.read(group)
    (code, column), row = kind.bad, 171 - before[group]
    assert {"code": code, "file": url, "row_group": group, "row": row}.items() <= facts(caught.value).items()
    assert [(one.column, one.at.tolist()) for one in caught.value.bad] == [(kind.wanted([column])[0], [row])]
    others = [row["id"] for row in rows(group_rows(file)[group], before[group]) if row != rows(1, 171)[0]]
    assert [row["id"] for row in ours(kind, caught.value.rest())] == others


def test_a_column_that_is_not_there_is_missing(kind: Format, here: Any) -> None:
    store, url = put(here, kind, kind.encoded(rows(5)))
    made = source(kind.name, **kind.section)
    file, schema = planned(made, store, url, ["nope"])  # of all files at once that is told, by their schemas
    assert "nope" not in schema.names
    with pytest.raises(DataError) as caught, made.open(store, sliced(file), ["nope"]):
        pass
    assert {"code": "COLUMN_MISSING", "column": "nope"}.items() <= facts(caught.value).items()


def test_a_file_is_known_by_its_suffix_and_by_its_first_bytes_where_it_has_such(kind: Format) -> None:
    made = source(kind.name, **kind.section)
    assert kind.suffix in made.suffixes
    others = {other.name for other in FORMATS.values() if source(other.name).begins(kind.encoded(rows(5))[:4096])}
    assert others <= {kind.name}


def test_each_picture_is_a_row_and_a_broken_one_a_bad_row(place: Any) -> None:
    made, columns = source("images"), ["width", "bytes", "height"]
    for number in range(3):
        place.put(f"{number}.png", picture(number) if number != 1 else b"\x89PNG\r\n\x1a\nbroken")
    for number in (0, 2):
        found = read(made, place.store(), f"{place.url}/{number}.png", columns).to_pylist()
        assert found == [{"width": 5, "bytes": picture(number), "height": 3}]
    with pytest.raises(BadRowsError) as caught:
        read(made, place.store(), f"{place.url}/1.png", columns)
    assert {"row_group": 0, "row": 0}.items() <= facts(caught.value).items()


def test_any_error_of_a_damaged_file_has_a_code(kind: Format, here: Any) -> None:
    whole = kind.encoded(rows(20))
    made, columns, codes = source(kind.name, **kind.section), kind.wanted(NAMES), set[str]()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        store, url = put(here, kind, bytes(damaged))
        codes.update(code_of(partial(read, made, store, url, columns)))
    assert all(codes)


def code_of(attempt: Callable[[], Any]) -> list[str]:
    """Of an error that is one of ours; any other fails the test."""
    try:
        attempt()
    except RunnerError as error:
        return [facts(error)["code"]]
    return []
