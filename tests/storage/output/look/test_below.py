"""Outputs below a folder: found on each kind of store, within bounds that are told."""

from __future__ import annotations

from typing import Any

import pytest
from three_shards import PLAN, finish_all, opened

from connectors.output.look import below
from connectors.output.look.below import outputs_below, statuses
from connectors.output.status import Status
from jobs.errors import OutputError
from jobs.section.output import Output


def parent_of(place: Any) -> Output:
    return Output(url=place.url, options=place.options)


def below_of(place: Any, name: str) -> Output:
    return Output(url=f"{place.url}/{name}", options=place.options)


def test_outputs_are_found_some_levels_deep_and_told_how_far_each_is(place: Any) -> None:
    finish_all(opened(below_of(place, "2026/11/30/scores")))
    opened(below_of(place, "night")).claim(PLAN)
    place.put("notes/readme.txt", b"no job")
    place.put("_hidden/_run/x.json", b"{}")
    place.put("broken/_run/0a0a0a0a/plan.json", b"torn")
    found = outputs_below(parent_of(place))
    assert found.names == ("2026/11/30/scores", "broken", "night")
    assert found.cut == ""
    done, broken, night = statuses(parent_of(place), found.names)
    assert isinstance(done, Status)
    assert isinstance(night, Status)
    assert isinstance(broken, OutputError)
    assert (done.state, done.rows_done, night.state) == ("finished", 15, "running")


def test_an_output_is_not_searched_for_more(place: Any) -> None:
    finish_all(opened(below_of(place, "a")))
    finish_all(opened(below_of(place, "a/b")))
    assert outputs_below(parent_of(place)).names == ("a",)


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_search_is_bounded_and_says_so(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        place.put(f"{number}/_run/x.json", b"{}")
    place.put("deep/1/2/3/4/_run/x.json", b"{}")
    assert outputs_below(parent_of(place)).cut == "looked 4 levels deep only"
    monkeypatch.setattr(below, "MOST_OUTPUTS", 3)
    found = outputs_below(parent_of(place))
    assert (found.names, found.cut) == (("0", "1", "2"), "the first 3 of 4 outputs only")
    monkeypatch.setattr(below, "MOST_FOLDERS", 3)
    found = outputs_below(parent_of(place))
    assert (found.names, found.cut) == (("0", "1"), "looked into 3 folders only")


def test_nothing_below_is_no_error(place: Any) -> None:
    assert outputs_below(below_of(place, "nowhere")).names == ()
