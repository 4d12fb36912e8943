"""The account of a run: `report.json`, and what the summary and the page are made of.

Owns the keys of the document; they are the same in every run. Refuses to know where it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jobs.job import Job
from jobs.numerics import Difference, Numerics, differences
from jobs.section.workers import reader_threads
from jobs.versions import UNRECORDED, Versions
from runner.measure.ceiling import Bottleneck, Ceilings, Settings, Use, bottleneck, ceilings, together, waits
from runner.measure.course import Course
from runner.measure.history import History
from runner.measure.place import Place
from runner.measure.stage import STAGES

SHORT_S = 5.0  # of work: below it a start weighs more than what holds a run


@dataclass(frozen=True)
class Heading:
    """Which run an account is of. ended_at: ISO time. ending: 'finished', or the error that ended it.

    rows, shards: of the plan. rows_run: that this run worked on itself; rows_before: done by earlier runs.
    nan_rows, nonfinite_rows, unseen_rows, changed_rows: of those that this run wrote, as in a Receipt.
    versions: of the driver.
    """

    plan_id: str
    epoch: int
    output: str
    model: str
    signature: str
    ended_at: str
    ending: str
    rows: int
    rows_run: int
    rows_before: int
    shards: int
    shards_done: int
    seconds: float
    retries: int
    nan_rows: int = 0
    nonfinite_rows: int = 0
    unseen_rows: int = 0
    changed_rows: int = 0
    versions: Versions = UNRECORDED

    def document(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": round(self.seconds, 3), "versions": self.versions.document()}


@dataclass(frozen=True)
class Account:
    """What a run came to, as far as its workers reported. uses, places: by worker; not every worker's place is known.

    busy_s:       from the first dispatch to the last commit, without tuning.
    warm_up_s:    of all workers together, before any row was counted.
    first_part_s: from the start to the first commit; None: nothing was committed.
    numerics:     what changes numbers -> the workers of which that is so. versions: the same of what is installed.
    course:       of the whole command.
    loads:        worker -> from when to when it started and loaded the model, in seconds since the command began.
    """

    uses: Mapping[str, Use]
    places: Mapping[str, Place]
    reached: Ceilings
    bottleneck: Bottleneck
    busy_s: float
    warm_up_s: float = 0.0
    first_part_s: float | None = None
    numerics: Mapping[Numerics, Iterable[str]] = field(default_factory=dict)
    versions: Mapping[Versions, Iterable[str]] = field(default_factory=dict)
    course: Course = field(default_factory=Course)
    loads: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def short(self) -> bool:
        """Whether there was too little work to tell what held it."""
        return self.busy_s < SHORT_S

    @property
    def differences(self) -> list[Difference]:
        """In what the workers differ that changes numbers."""
        return differences(self.numerics)

    @property
    def padding(self) -> float | None:
        """The share of padded inputs that was padding; None: nothing is padded."""
        return together(self.uses.values()).padding

    def _shapes(self) -> dict[str, Any]:
        """Rows that share batches with those of their shape only; nothing where all have one."""
        use = together(self.uses.values())
        return {"shapes": {"rows": use.shape_rows, "batches": use.shape_batches}} if use.shape_batches else {}

    def _compilations(self) -> dict[str, Any]:
        """How often XLA compiled, over all workers; nothing where it did not."""
        use = together(self.uses.values())
        figures = {"count": use.compilations, "shapes": use.compiled_shapes, "seconds": round(use.compile_s, 3)}
        return {"compilations": figures} if use.compilations else {}

    @property
    def seconds(self) -> dict[str, float]:
        """By stage, over all workers."""
        return dict(together(self.uses.values()).stages)

    def document(self) -> dict[str, Any]:
        return {
            "working_s": round(self.busy_s, 3),
            "phases": self.course.document(),
            "speed": self.reached.document(),
            "bottleneck": {
                "is": self.bottleneck.culprit,
                "sentence": self.bottleneck.sentence,
                "suggestion": self.bottleneck.suggestion,
            },
            **({} if self.padding is None else {"padding": round(self.padding, 4)}),
            **self._shapes(),
            **self._compilations(),
            "stage_seconds": _rounded(self.seconds),
            "workers": {name: _worker(use, self.places.get(name)) for name, use in self.uses.items()},
            "warm_up_seconds": round(self.warm_up_s, 3),
            "first_part_s": None if self.first_part_s is None else round(self.first_part_s, 3),
            "numerics": [one.document() | {"workers": list(who)} for one, who in self.numerics.items()],
            "differences": list(map(str, self.differences)),
            "worker_versions": [one.document() | {"workers": list(who)} for one, who in self.versions.items()],
        }


def account(
    job: Job,
    history: History,
    places: Mapping[str, Place],
    warm_up_s: float = 0.0,
    course: Course | None = None,
) -> Account:
    """What the history of a run says of its speed. The rest is as in `Account`."""
    uses = history.uses()
    use = together(uses.values())
    reached = ceilings(use, history.busy_s)
    workers, cpus = job.workers, max((one.cpus for one in uses.values()), default=1.0)
    settings = Settings(
        compression=job.output.compression,
        readers=reader_threads(int(cpus)) if workers.readers == "auto" else workers.readers,
        batch_rows=None if job.limits.batch_rows == "auto" else job.limits.batch_rows,
        gpus=workers.gpus,
    )
    held_by = bottleneck(use, reached, settings)
    made = Account(
        *(uses, places, reached, held_by, history.busy_s, warm_up_s),
        first_part_s=None if history.first_part is None else history.first_part - history.start,
        numerics=history.numerics,
        versions=history.versions,
        course=_worked(course or Course(history.start), history),
        loads=history.loads(),
    )
    if not made.short:
        return made
    return replace(made, bottleneck=replace(held_by, sentence=_too_short(made.busy_s), suggestion=""))


def _worked(course: Course, history: History) -> Course:
    """The course, with the points that only the history of the run knows."""
    points = dict(course.points)
    if history.first_dispatch is not None:
        points["first_dispatch"] = history.first_dispatch - course.began
    if history.last_commit is not None:
        points["last_commit"] = history.last_commit - course.began
    return Course(course.began, points)


def _too_short(work_s: float) -> str:
    return f"too short to tell what held it: {work_s:.1f} s of work, and it takes {SHORT_S:g} s"


def _worker(use: Use, place: Place | None) -> dict[str, Any]:
    lived = {} if place is None else place.document()
    return {
        "rows": use.rows,
        "shards": use.shards,
        "bytes": use.bytes,
        "cpus": use.cpus,
        "batch_rows": use.batch_rows,
        "stage_seconds": _rounded(use.stages),
        "waited_for": _rounded(waits(use)),
        "cpu_seconds": round(use.cpu_s, 3),
        "ceiling_rows_per_s": use.ceiling,
        "peak_rss_bytes": use.rss_bytes,
        **_compiled(use),
        **{key: lived[key] for key in ("pid", "node", "devices") if key in lived},
    }


def _compiled(use: Use) -> dict[str, Any]:
    """What XLA did for a worker; nothing where it did nothing."""
    if not use.compilations:
        return {}
    seconds = round(use.compile_s, 3)
    return {"compilations": use.compilations, "compiled_shapes": use.compiled_shapes, "compile_seconds": seconds}


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    order = [*STAGES, *(name for name in seconds if name not in STAGES)]
    return {name: round(seconds[name], 3) for name in order if name in seconds}
