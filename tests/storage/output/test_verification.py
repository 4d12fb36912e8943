"""The proof from storage alone: it holds for what a job wrote, and names whatever was done to it afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from three_shards import PLAN, finish_all, opened, plan_of, snapshot, work

from connectors.output.directory import OutputDirectory
from connectors.output.verification import verify
from jobs.errors import OutputError
from jobs.section.output import Output


@pytest.fixture(params=["parquet", "arrow"])
def out(request: pytest.FixtureRequest, place: Any) -> Output:
    return Output(url=f"{place.url}/out", options=place.options, format=request.param)


@pytest.fixture
def finished(out: Output) -> OutputDirectory:
    directory = opened(out)
    finish_all(directory)
    return directory


@pytest.mark.parametrize("deep", [False, True])
def test_a_finished_output_holds(out: Output, finished: OutputDirectory, deep: bool) -> None:
    before = snapshot(finished)
    found = verify(Output(url=out.url, options=out.options), deep=deep)
    assert found.problems == ()
    assert (found.holds, found.finished, found.parts_found, found.rows_found, found.unchecked) == (True, True, 3, 15, 0)
    assert json.loads(json.dumps(found.document()))["holds"] is True
    assert snapshot(finished) == before


def test_an_unfinished_output_says_what_is_there(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    work(directory, 1)
    found = verify(out, deep=True)
    assert {problem.kind for problem in found.problems} == {"unfinished", "missing"}
    missing = [problem.name for problem in found.problems if problem.kind == "missing"]
    assert missing == [directory.part_name(0), directory.part_name(2)]
    assert (found.finished, found.parts_found, found.parts, found.rows_found, found.rows) == (False, 1, 3, 5, 15)


def test_nothing_to_verify_is_an_error(out: Output) -> None:
    with pytest.raises(OutputError, match="expected the output of a run"):
        verify(out)


def removed(place: Any, directory: OutputDirectory) -> tuple[str, str, str]:
    name = directory.part_name(1)
    directory.store.remove(name)
    return "missing", name, "5 rows"


def torn(place: Any, directory: OutputDirectory) -> tuple[str, str, str]:
    name = directory.part_name(1)
    place.put(f"out/{name}", (directory.store.read(name) or b"")[:-20])
    return "altered", name, "no whole part"


def swapped(place: Any, directory: OutputDirectory) -> tuple[str, str, str]:
    name = directory.part_name(1)
    place.put(f"out/{name}", directory.store.read(directory.part_name(0)) or b"")
    return "doubled", name, f"the rows of '{directory.part_name(0)}'"


def copied(place: Any, directory: OutputDirectory) -> tuple[str, str, str]:
    name = f"part-copy{directory.part_name(0)[-8:]}"
    place.put(f"out/{name}", directory.store.read(directory.part_name(0)) or b"")
    return "doubled", name, f"the rows of '{directory.part_name(0)}'"


def copied_under_another_name(place: Any, directory: OutputDirectory) -> tuple[str, str, str]:
    name = f"mine{directory.part_name(0)[-8:]}"
    place.put(f"out/{name}", directory.store.read(directory.part_name(0)) or b"")
    return "doubled", name, f"the rows of '{directory.part_name(0)}'"


def foreign(place: Any, directory: OutputDirectory) -> tuple[str, str, str]:
    place.put("out/part-r-00000.snappy", b"junk")
    return "foreign", "part-r-00000.snappy", "no format"


def of_another_plan(place: Any, directory: OutputDirectory) -> tuple[str, str, str]:
    other = plan_of({"model": {"digest": "bb"}})
    stranger = opened(directory.output.model_copy(update={"url": f"{place.url}/elsewhere"}), other)
    work(stranger, 0)
    place.put(f"out/{stranger.part_name(0)}", stranger.store.read(stranger.part_name(0)) or b"")
    return "foreign", stranger.part_name(0), f"of plan {other.id}"


def edited_manifest(place: Any, directory: OutputDirectory) -> tuple[str, str, str]:
    name = f"_run/{PLAN.id[:8]}/manifest-000001.json"
    place.put(f"out/{name}", (directory.store.read(name) or b"").replace(b'"rows_out": 4', b'"rows_out": 5'))
    return "altered", name, "was changed after it was written"


def edited_success(place: Any, directory: OutputDirectory) -> tuple[str, str, str]:
    place.put("out/_SUCCESS", (directory.store.read("_SUCCESS") or b"").replace(b'"rows_out": 15', b'"rows_out": 16'))
    return "altered", "_SUCCESS", "rows_out"


HARMS = [
    removed,
    torn,
    swapped,
    copied,
    copied_under_another_name,
    foreign,
    of_another_plan,
    edited_manifest,
    edited_success,
]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_what_was_done_to_an_output_is_named(
    place: Any, out: Output, finished: OutputDirectory, harm: Callable[..., tuple[str, str, str]]
) -> None:
    kind, name, story = harm(place, finished)
    found = verify(out)
    assert [(one.kind, one.name) for one in found.problems] == [(kind, name)]
    assert story in found.problems[0].story
    assert not found.holds


def test_a_flipped_bit_is_found_by_reading_every_byte(place: Any, out: Output, finished: OutputDirectory) -> None:
    name = finished.part_name(2)
    content = bytearray(finished.store.read(name) or b"")
    content[len(content) // 4] ^= 1
    place.put(f"out/{name}", bytes(content))
    found = verify(out, deep=True)
    assert [(one.kind, one.name) for one in found.problems] == [("altered", name)]
    assert (found.parts_found, found.rows_found) == (2, 9)


def test_an_edited_plan_proves_nothing(place: Any, out: Output, finished: OutputDirectory) -> None:
    name = f"_run/{PLAN.id[:8]}/plan.json"
    place.put(f"out/{name}", (finished.store.read(name) or b"").replace(b'"aa"', b'"bb"'))
    with pytest.raises(OutputError, match=r"plan\.json' was changed after it was written"):
        verify(out)
