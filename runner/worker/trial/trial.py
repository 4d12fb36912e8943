"""The trial: one worker calls the model with 1, 2 and 3 rows before any shard is given out.

It proves what a signature only promises: that the model can run at all (kernels are removed between versions of
TensorFlow), that it takes any number of rows, and that each output follows the rows, one row for a row, whatever stands
beside it: rows that differ are called alone, behind others, and in another order. A bad row proves nothing: that is for
the attempt that meets it. The invariant: what is refused here would have failed or mixed up rows later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from jobs.errors import ModelError, one_of
from jobs.section.limits import Limits
from runner.batch.standing import Standing
from runner.worker.trial.nan import NanTrial
from runner.worker.trial.rows import ROWS, RowTrial
from runner.worker.trial.subject import Subject


@dataclass(frozen=True, slots=True)
class Trial:
    """rows:   that were called with: 'input', 'made up', or 'none' where there was nothing to call with.
    proved: the outputs follow the rows. unproved: why not, where only the rows of the job show it.
    notes:  for people.
    placed: kind of device -> op -> how often it ran there in one call; empty where there is no GPU.
    unseen: input -> the outputs that are finite although it holds a NaN, on this machine."""

    rows: str
    proved: bool
    notes: tuple[str, ...] = ()
    unproved: str = ""
    placed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unseen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        counts = {kind: sum(ops.values()) for kind, ops in self.placed.items()}
        return asdict(self) | {
            "ops": counts,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
            "unseen": dict(self.unseen),
        }


def try_out(
    subject: Subject,
    standing: Standing,
    *,
    draws: bool = False,
    bits: bool = False,
    elsewhere: Callable[[], Sequence[pa.RecordBatch]] = tuple,
) -> Trial:
    """Prove the model on a few rows.

    standing:   of the model, which a row that it takes settles.
    draws:      random numbers, as `plan` said.
    bits:       a call that is made twice must give the same ones.
    elsewhere:  reads rows of other places of the input, where those of the sample are equal or all refused.
    raises:     ModelError where it takes one row a call only, or has an output that does not follow the rows; or other
                bits than were asked for. PoisonError where it cannot run here, or refuses all rows in the same words.
    cost:       six calls of at most 3 rows, on a GPU seven; one more where answers differ, twelve before it is refused
                for that.
    """
    began = time.perf_counter()
    sample = subject.sample
    if len(list(islice(sample.distinct(), ROWS))) < ROWS:
        sample = sample.joined(elsewhere())
    if sample.kind == "none":
        return Trial("none", False, unproved="its inputs cannot be made up")
    trial, most = RowTrial(subject.on(sample)), min(ROWS, subject.batch_rows)
    calls, story = trial.calls()
    if calls:
        standing.note_taken()
    else:
        trial.accuse(standing, elsewhere)
    notes, random = list[str](), list[str]()
    if calls:
        trial.require_rows(calls)
        random = trial.require_same(calls, bits)
        notes += [] if draws else random
        few = len(trial.rows) == 1 and sample.count >= ROWS  # of fewer rows there is nothing to mix
        if most > 1 and not random and (story or few):
            notes.append(trial.doubt(story))
    placed = trial.placed(calls[-1][0]) if calls else {}
    if placed and not placed.get("GPU"):
        notes.append(f"no op of signature {subject.signature.name!r} runs on the GPU: workers without one would do")
    proved = not (story or notes or random or len(trial.rows) < min(2, most))
    return Trial(sample.kind, proved, tuple(notes), story, placed, seconds=time.perf_counter() - began)


def try_nan(trial: Trial, subject: Subject, limits: Limits) -> Trial:
    """The trial, with what becomes of a NaN in each input of floating point.

    raises: ModelError where rows with a NaN in an output are to be rejected and a NaN in an input shows in none, unless
            the job says what is to become of such rows.
    cost:   a call of 2 rows, and of 2 more for each input, in pieces; none where the job lets no NaN through.
    """
    began = time.perf_counter()
    if trial.rows == "none" or not subject.binding.odd_inputs:
        return trial
    found = NanTrial(subject).unseen()
    stories = {name: f"a NaN in {name!r} does not reach {one_of(outputs)}" for name, (outputs, _) in found.items()}
    hidden = [stories[name] for name, (_, unseen) in found.items() if unseen]
    if hidden and limits.nan_output == "reject" and limits.nonfinite is None:
        raise ModelError(
            f"cannot use `nan_output: reject` with {subject.where}:"
            f" {'; '.join(hidden)} on this machine, so that nothing is seen of it; say in `limits` what becomes of rows"
            " with NaN or infinity in an input: `nonfinite: reject` sets them aside, `nonfinite: pass` scores them"
        )
    notes = [
        f"{story} on this machine: `null: nan` gives a null there a clean answer, and `nan_output` sees nothing; have"
        " such rows rejected (leave out the null rule), give `null: {fill: ...}`, or say `limits: {nonfinite: pass}`"
        for name, story in stories.items()
        if name in subject.binding.nan_filled and limits.nonfinite != "pass"
    ]
    unseen = {name: tuple(outputs) for name, (outputs, _) in found.items()}
    seconds = trial.seconds + time.perf_counter() - began
    return replace(trial, notes=(*trial.notes, *notes), unseen=unseen, seconds=seconds)
