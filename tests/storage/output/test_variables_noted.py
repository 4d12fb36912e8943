"""Variables of a job stand beside its plan, and tell why another night's plan is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from three_shards import IDENTITY, PLAN, finish_all, opened, plan_of, work

from connectors.output.directory import read_status
from jobs.errors import OutputError
from jobs.section.output import Output

NIGHT = replace(PLAN, variables={"dt": "2026-11-29", "region": "eu"})
NEXT = replace(
    plan_of({**IDENTITY, "columns": {"keep": []}}), variables={"dt": "2026-11-30", "region": "eu", "new": "1"}
)
SAID = r"of another job: columns.keep: \['id'\] then, \[\] now"


@pytest.fixture
def out(tmp_path: Path) -> Output:
    return Output(url=str(tmp_path / "out"))


def test_a_plan_is_the_same_one_with_other_variables_and_a_driver_notes_its_own(out: Output) -> None:
    assert (NIGHT, NIGHT.id, NIGHT.document()) == (PLAN, PLAN.id, PLAN.document())
    first = opened(out)
    first.claim(NIGHT)
    assert read_status(out).variables == {"dt": "2026-11-29", "region": "eu"}
    assert ", variables dt = 2026-11-29, region = eu, driver" in repr(read_status(out))
    first.end(1, "interrupted")
    again = opened(out)
    assert again.claim(PLAN).state == "resumed"
    assert read_status(out).variables == {}


@pytest.mark.parametrize("finished", [False, True])
def test_a_refused_plan_names_the_variable_that_made_it_another_one(
    out: Output, finished: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = opened(out)
    if finished:
        monkeypatch.setattr("three_shards.PLAN", NIGHT)
        finish_all(directory)
    else:
        directory.claim(NIGHT)
        work(directory, 0)
    named = r"; variable dt: '2026-11-29' then, '2026-11-30' now; choose another output url"
    with pytest.raises(OutputError, match=SAID + named):
        opened(out, NEXT).claim(NEXT)
    with pytest.raises(OutputError, match=SAID + "; choose another"):
        opened(out, NEXT).claim(replace(NEXT, variables={"region": "eu"}))


def test_a_plan_of_an_older_version_that_noted_no_variables_is_refused_as_before(out: Output) -> None:
    directory = opened(out)
    directory.claim(PLAN)
    work(directory, 0)
    with pytest.raises(OutputError, match=SAID + "; choose another"):
        opened(out, NEXT).claim(NEXT)
