"""The course of a whole command: what came before the work and after it, in seconds since it began.

Fed by whoever starts and ends a run; refuses to know clocks. The invariant: phases follow one another without a gap and
without an overlap, so that together they are all the time there was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Point = Literal["connecting", "planned", "connected", "first_dispatch", "last_commit", "finished", "closed"]

# Phase -> the point that ends it, and what it is in words, in the order of time. A point that never came ends nothing.
PHASES: dict[str, tuple[Point, str]] = {
    "plan": ("planned", "the plan"),
    "ray": ("connected", "Ray's start"),
    "load": ("first_dispatch", "the model's load"),
    "work": ("last_commit", "the work"),
    "finish": ("finished", "the proof"),
    "stop": ("closed", "shut-down"),
}
_NAMED = 0.03  # of the whole: less is not worth a word


@dataclass(frozen=True, slots=True)
class Phase:
    """began, ended: seconds since the command began."""

    name: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Course:
    """began: by the clock of those who mark points."""

    began: float = 0.0
    points: dict[Point, float] = field(default_factory=dict)

    def mark(self, point: Point, now: float) -> None:
        """The last time counts."""
        self.points[point] = now - self.began

    def phases(self) -> list[Phase]:
        """In the order of time; those that took none, or never came, are left out."""
        found, before = list[Phase](), 0.0
        for name, (point, _) in PHASES.items():
            if name == "ray" and "connecting" not in self.points:
                continue
            if (at := self.points.get(point)) is not None and at > before:
                found.append(Phase(name, before, at))
                before = at
        return found

    @property
    def connecting(self) -> tuple[float, float] | None:
        """From when to when Ray started, beside the plan at first; None where nothing did."""
        began, ended = self.points.get("connecting"), self.points.get("connected")
        return None if began is None or ended is None else (began, ended)

    def document(self) -> dict[str, Any]:
        return {phase.name: round(phase.seconds, 3) for phase in self.phases()}


def phase_sentence(seconds: Mapping[str, float], said: str) -> str:
    """`of 14.2 s, 5.0 s were Ray's start, 3.1 s the model's load, 4.9 s the work`; "" where there is nothing to tell.

    seconds: by phase, in the order of time. said: the whole, in words.
    """
    whole = sum(seconds.values())
    told = [f"{spent:.1f} s {{}}{PHASES[name][1]}" for name, spent in seconds.items() if spent >= _NAMED * whole]
    return f"of {said}, " + ", ".join(told).replace("{}", "were ", 1).replace("{}", "") if told else ""
