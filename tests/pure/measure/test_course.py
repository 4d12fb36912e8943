"""What took the time of a whole command."""

from __future__ import annotations

from itertools import pairwise

from runner.measure.course import Course, phase_sentence


def course(**points: float) -> Course:
    made = Course(began=100.0)
    for point, seconds in points.items():
        made.mark(point, 100.0 + seconds)  # type: ignore[arg-type]
    return made


WHOLE = {
    "connecting": 0.5,
    "planned": 1.0,
    "connected": 6.0,
    "first_dispatch": 9.0,
    "last_commit": 12.0,
    "finished": 12.1,
    "closed": 14.0,
}


def test_the_phases_of_a_command_are_all_of_its_time_in_order() -> None:
    phases = course(**WHOLE).phases()
    assert [phase.name for phase in phases] == ["plan", "ray", "load", "work", "finish", "stop"]
    assert all(one.ended == after.began for one, after in pairwise(phases))
    assert (phases[0].began, phases[-1].ended) == (0.0, 14.0)
    assert course(**WHOLE).document() == {
        "plan": 1.0, "ray": 5.0, "load": 3.0, "work": 3.0, "finish": 0.1, "stop": 1.9
    }  # fmt: skip


def test_without_ray_nothing_is_said_of_it() -> None:
    inside = {point: at for point, at in WHOLE.items() if point != "connecting"}
    assert course(**inside).document()["load"] == 8.0
    assert "Ray" not in phase_sentence(course(**inside).document(), "14 s")


def test_a_run_that_ended_early_tells_the_phases_that_it_reached() -> None:
    assert list(course(connecting=0.5, planned=1.0, connected=3.0, finished=4.0).document()) == [
        "plan",
        "ray",
        "finish",
    ]
    assert Course().phases() == []


def test_the_sentence_says_what_took_the_time_of_the_command_and_leaves_out_crumbs() -> None:
    assert phase_sentence(course(**WHOLE).document(), "14.0 s") == (
        "of 14.0 s, 1.0 s were the plan, 5.0 s Ray's start, 3.0 s the model's load, 3.0 s the work, 1.9 s shut-down"
    )
    assert phase_sentence({}, "0 s") == ""
