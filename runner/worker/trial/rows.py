"""The trial with rows: a model is called with 1, 2 and 3 that differ, alone, behind others, and in another order.

Knows what each answer says of the model; refuses to know what the job makes of it. The invariant: what is refused here
would have failed or mixed up rows later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from jobs.errors import DataError, ModelCallError, ModelError, PoisonError, RunnerError, one_of
from jobs.words import counted
from runner.batch.answer import DEPENDS, REPEATED, TOLERANCE, Call, answers, differing
from runner.batch.standing import Standing, with_rows
from runner.binding.fetching import OutputTarget
from runner.engine.status import RUN_WITHOUT
from runner.tensor import Outputs, tensor_text
from runner.worker.trial.subject import Subject

ROWS = 3  # that are called together, at most
_BAD_ROWS = 8  # of the sample that are all refused: more would say no more
_PLACES = 16  # of a call of a fixed size, whose answers are compared


Made = tuple[Sequence[int], Outputs]  # rows of the sample, and what the model answered


class RowTrial:
    def __init__(self, subject: Subject) -> None:
        self._subject, self._where = subject, subject.where
        self._engine, self._binding, self._sample = subject.engine, subject.binding, subject.sample
        self._most = min(ROWS, subject.batch_rows)
        # What is made of one tensor each. Of those made of several, only the column shows the rows.
        self._plain = [target.name for target in subject.binding.outputs if isinstance(target, OutputTarget)]
        self.rows: list[int] = []  # that differ, and that the model takes
        self.refused: list[RunnerError] = []

    def calls(self) -> tuple[list[Made], str]:
        """Calls with 1, 2, ... rows, up to the first that proves nothing, and why that one does not."""
        made = self.alone(self._most)
        if not made:
            first = self.refused[0]
            if isinstance(first, ModelCallError) and first.facts.get("compiling"):
                raise ModelError(f"{first.message}; {RUN_WITHOUT}") from first
            return [], f"not proved with 1 row ({self._sample.kind}): {first.message}"
        story = ""
        for rows in _orders(self.rows, self._most):
            answer = self._call(rows)
            if isinstance(answer, RunnerError):  # these rows beside each other, or their number?
                story = story or f"not proved with {counted(len(rows), 'row')} ({self._sample.kind}): {answer.message}"
                rows = [rows[0]] * len(rows)
                answer = self._call(rows)
            if isinstance(answer, ModelCallError):
                self.require_rows(made)
                raise ModelError(
                    f"cannot give {len(rows)} rows a call to {self._where}, although {len(rows) - 1}"
                    f" {'was' if len(rows) == 2 else 'were'} fine: {answer.message}; set"
                    f" `limits: {{batch_rows: {len(rows) - 1}}}` in the job"
                )
            if isinstance(answer, RunnerError):
                return made, story
            made.append((rows, answer))
        return made, story

    def alone(self, most: int) -> list[Made]:
        """Calls with one row each, until as many rows are taken as are called together."""
        made: list[Made] = []
        for row in self._sample.distinct():
            answer = self._call([row])
            if isinstance(answer, RunnerError):
                self.refused.append(answer)
            else:
                made.append(([row], answer))
                self.rows.append(row)
            if len(made) == min(ROWS, most) or len(self.refused) == _BAD_ROWS:
                break
        return made

    def accuse(self, standing: Standing, elsewhere: Callable[[], Sequence[pa.RecordBatch]]) -> None:
        """raises: PoisonError where all rows were refused in the same words, and others are, too."""
        if self._sample.kind == "input":  # rows that are made up may be bad ones
            standing.weigh(self.refused, lambda: refused_alone(self._subject, elsewhere()))

    def doubt(self, story: str) -> str:
        """story: why other rows were not called together; "": all are equal."""
        why = story or "all rows that were tried are equal, or are refused"
        return (
            f"it is not proved that each row of the outputs of {self._where} depends on its own row only: {why}; the"
            " first rows that differ are compared while the job runs"
        )

    def compared(self, calls: Sequence[Made]) -> list[Call]:
        return [self._read(rows, outputs) for rows, outputs in calls]

    def _read(self, rows: Sequence[int], outputs: Outputs) -> Call:
        places = [*rows, *[rows[-1]] * (min(self._binding.batch_rows or 0, _PLACES) - len(rows))]
        return Call(places, answers(self._binding, outputs, range(len(places)), self._sample.batch(rows)))

    def _call(self, rows: Sequence[int]) -> Outputs | RunnerError:
        try:
            return self._engine.run(self._sample.feeds(rows), self._binding.fetches)
        except ModelError:
            raise
        except PoisonError as error:
            raise with_rows(error, len(rows)) from error
        except RunnerError as error:
            return error

    def require_rows(self, calls: Sequence[Made]) -> None:
        """raises: ModelError naming the outputs whose first dimension does not follow the rows."""
        wrong: dict[str, str] = {}
        for rows, outputs in calls:
            fed = self._binding.batch_rows or len(rows)
            for name in self._plain:
                shape = outputs[name].shape
                if shape[:1] != (fed,):
                    wrong[name] = f"{tensor_text('', shape)} for {counted(fed, 'row')}"
        if wrong:
            shapes = ", ".join(f"{name!r} has the shape {shape}" for name, shape in wrong.items())
            sizes = {outputs[name].shape[:1] for _, outputs in calls for name in self._plain}
            fixed = sizes.pop() if len(sizes) == 1 and not self._binding.batch_rows else ()
            raise self._refusal(list(wrong), f"do not follow the rows: {shapes}", *fixed)
        self._require_types(calls[-1])

    def _require_types(self, call: Made) -> None:
        rows, outputs = call
        batch = self._sample.batch(rows)
        if batch is None:
            return
        try:
            self._binding.fetch(batch, outputs)
        except DataError as error:
            if error.facts.get("code") in ("MODEL_OUTPUT", "MODEL_BATCH"):
                raise ModelError(f"cannot use {self._where}: {error.message}") from error

    def require_same(self, calls: Sequence[Made], bits: bool) -> list[str]:
        """A sentence if answers are random. raises: ModelError where a row's answer depends on those beside it.

        bits: raises where they are random, too, and be it in the last bit.
        """
        compared = self.compared(calls)
        differ, drawn = differing(compared, TOLERANCE).keys(), set[str]()
        if bits or len(calls) < 3 or differing(compared, REPEATED):
            for call in [*reversed(calls)] * 2:  # two draws may be equal, and not each call may draw
                drawn |= self._drawn(call, 0 if bits else REPEATED)
                if differ <= drawn:
                    break
        if mixed := [name for name in differ if name not in drawn]:
            raise self._refusal(mixed, DEPENDS)
        if not drawn:
            return []
        if bits:
            raise ModelError(
                f"cannot promise equal bits: outputs {one_of(sorted(drawn))} of {self._where} differ between two equal"
                " calls; leave out `limits.reproducible`"
            )
        return [
            f"outputs {one_of(sorted(drawn))} of {self._where} are other numbers at every call: a retry changes them"
        ]

    def _drawn(self, call: Made, tolerance: float) -> set[str]:
        """The outputs that differ when a call is made again."""
        again = self._call(call[0])
        if isinstance(again, RunnerError):
            return set()
        twice = [Call(range(len(one.rows)), one.answers) for one in self.compared([call, (call[0], again)])]
        return {*differing(twice, tolerance)}

    def _refusal(self, names: Sequence[str], why: str, takes: int = 1) -> ModelError:
        """takes: rows of each call, where the graph seems to want so many."""
        others = [target.name for target in self._binding.outputs if target.name not in names]
        keep = f"`outputs: [{', '.join(others)}]`" if others else "another signature"
        plural = "s" * (len(names) > 1)
        return ModelError(
            f"cannot write output{plural} {one_of(names)} of {self._where}: they {why}; expected one row for each row"
            f" of the input, choose {keep}"
            + (f", or `model: {{batch: {takes}}}` if its graph takes {takes} rows a call" if takes > 1 else "")
        )

    def placed(self, rows: Sequence[int]) -> Mapping[str, Mapping[str, int]]:
        if not any("GPU" in device for device in self._engine.devices):
            return {}
        return self._engine.placed(self._sample.feeds(rows), self._binding.fetches)


def refused_alone(subject: Subject, places: Sequence[pa.RecordBatch]) -> Sequence[RunnerError] | None:
    """What rows of each of these places are refused with, each alone; None where one is taken."""
    refused: list[RunnerError] = []
    for rows in places:
        trial = RowTrial(subject.on_rows(rows))
        if trial.alone(1):
            return None
        refused += trial.refused
    return refused


def _orders(rows: Sequence[int], most: int) -> list[Sequence[int]]:
    """Calls of 2, ... rows, at most `most`: each row in several places, beside and behind others."""
    a, b, c = rows[0], rows[min(1, len(rows) - 1)], rows[-1]
    orders: list[Sequence[int]] = [(b, a), (a, b)] if most == 2 else [(b, a), (c, a, b), (b, a, c)]
    return list(dict.fromkeys(orders)) if most > 1 else []
