"""What a driver would meet in a directory: what is there of its plan, whose the rest is, and what stands in the way.

Refuses to know how a directory is taken. The invariants: looking writes nothing, and a claim does what was found here,
so that a plan that says what a run would meet and the run itself cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from connectors.output.claim import (
    own_parts,
    own_success,
    planned,
    plans,
    read_success,
    refuse_foreign,
    refuse_other_parts,
)
from connectors.output.epoch import Epochs
from connectors.output.layout import SUCCESS, Layout
from connectors.output.repair import damage
from connectors.store.store import Store
from jobs.errors import OutputError, RunnerError
from jobs.plan import Plan
from jobs.words import counted

State = Literal["new", "resumed", "finished"]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a directory is asked for.

    overwrite: remove what earlier jobs published here, and begin anew; a plan that was begun so, and did not finish,
               goes on.
    takeover:  although another driver writes here; it stops when it next looks.
    repair:    what is missing or damaged of this job is computed again, after `_SUCCESS` too: every part is read, and
               those that are not as they should be go. The other parts stay.
    """

    overwrite: bool = False
    takeover: bool = False
    repair: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """What is there for a plan, and what a driver has to do before it works.

    state:    new: nothing of it is there; resumed: an earlier driver began it; finished: all is done.
    epoch:    of the driver that finished; 0 where none did.
    planned:  its plan is there, whole.
    lost:     of a repair: shards whose parts were there, and are to be computed again. None: it is no repair.
    anew:     all parts of the plan that are there go, too: --overwrite begins it.
    going:    names of the files that are removed first.
    """

    state: State
    epoch: int = 0
    planned: bool = False
    lost: tuple[int, ...] | None = None
    anew: bool = False
    going: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, object]:
        """What the epoch of the driver says from its first moment."""
        return ({"cleared": False} if self.anew else {}) | ({} if self.lost is None else {"repairs": list(self.lost)})


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a run would meet in its output.

    state:   new: nothing of the job is there, or it goes; resumed: what is done stays, and the rest is computed;
             finished: a run would do nothing; refused: it would end with `error`.
    shards_done, rows_done:  what a run would not compute again.
    removed: files that it would remove first. lost: shards that it would repair.
    """

    state: State | Literal["refused"]
    shards: int = 0
    rows: int = 0
    shards_done: int = 0
    rows_done: int = 0
    removed: int = 0
    lost: int = 0
    error: RunnerError | None = None

    @property
    def story(self) -> str:
        """In a sentence, for people."""
        going = counted(self.removed, "file of earlier runs is", "files of earlier runs are")
        first = f"; {going} removed first" if self.removed else ""
        shards = counted(self.shards, "shard")
        done = f"{self.shards_done:,} of {shards} ({self.rows_done:,} of {counted(self.rows, 'row')})"
        match self.state:
            case "new":
                return f"new: nothing of this job is there{first}" if not first else f"new{first}"
            case "resumed" if self.lost:
                return f"repairs {self.lost:,} of {shards}; {done} stay"
            case "resumed":
                return f"continues: {done} are done{first}"
            case "finished":
                return f"already done: {done}; a run would do nothing"
        return f"would be refused: {self.error}"

    def document(self) -> dict[str, Any]:
        facts = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "error"}
        return facts | {"error": self.error.document() if self.error is not None else None}


def survey(store: Store, names: Layout, plan: Plan, epochs: Epochs, terms: Terms) -> Survey:
    """Look at what is there. Writes nothing, but for the clock of `epochs` where these do not only look.

    raises: OutputError where another driver writes here and is not to be taken over, or where there is a table that is
            not of this job, or something of it that was changed. What would be refused after a removal is refused now.
    """
    present = store.names("")
    if terms.overwrite:
        return _overwriting(store, names, plan, epochs, terms, present)
    try:
        refuse_other_parts(store, names, plan, present)
        success = read_success(store, plan) if SUCCESS in present else None
    except OutputError as error:
        if terms.repair and "differs" in error.facts:
            raise _other_plan(store, str(error.facts["differs"])) from None
        raise
    if terms.repair:
        return _repairing(store, names, plan, epochs, terms, success)
    whole = planned(store, names, plan)
    if success is not None:
        return Survey("finished", int(success["epoch"]), whole)
    before = epochs.refuse_rival(takeover=terms.takeover)
    return Survey("resumed" if before else "new", planned=whole)


def _other_plan(store: Store, differs: str) -> OutputError:
    return OutputError(
        f"cannot repair '{store.url}': what is there is of another plan: {differs}; a part is computed again from the "
        "same input, model and mapping only: bring these back, or begin anew with --overwrite",
        differs=differs,
    )


def _repairing(
    store: Store, names: Layout, plan: Plan, epochs: Epochs, terms: Terms, success: Mapping[str, Any] | None
) -> Survey:
    before = epochs.refuse_rival(takeover=terms.takeover)
    found = damage(store, names, plan, success)
    if success is not None and not found.going:
        return Survey("finished", int(success["epoch"]))
    state: State = "resumed" if before or success else "new"
    return Survey(state, lost=found.shards, going=found.going)


def _overwriting(store: Store, names: Layout, plan: Plan, epochs: Epochs, terms: Terms, present: list[str]) -> Survey:
    """A plan that --overwrite began goes on until it is finished: what is there of it was computed since."""
    refuse_foreign(store, present)
    success = own_success(store, present)
    parts = own_parts(store, present, success)
    goes_on = success.get("plan_id") != plan.id and epochs.noted("cleared") is True
    going = [name for name, plan8 in parts.items() if not (goes_on and plan8 == names.plan8)]
    refuse_other_parts(store, names, plan, [name for name in present if name not in going])
    for plan8 in plans(store):
        rivals = epochs if plan8 == names.plan8 else Epochs(store, Layout(plan8), epochs.process, epochs.looks)
        rivals.refuse_rival(takeover=terms.takeover)
    return Survey(
        "resumed" if goes_on else "new", anew=not goes_on, going=(*([SUCCESS] if success else []), *sorted(going))
    )
