"""The trial: one worker calls the model with 1, 2 and 3 rows before any shard is given out.

It proves what a signature only promises: that the model can run at all (kernels are removed between versions of
TensorFlow), that it takes any number of rows, and that each output follows the rows, one row for a row, whatever stands
beside it: rows that differ are called alone, behind others, and in another order. A bad row proves nothing: that is for
the attempt that meets it. The invariant: what is refused here would have failed or mixed up rows later.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.errors import DataError, ModelCallError, ModelError, PoisonError, RunnerError, one_of
from jobs.words import counted
from runner.batch.answer import DEPENDS, REPEATED, TOLERANCE, Answer, Call, answers, differing, row_answer
from runner.binding.binding import Binding, BoundInput
from runner.binding.composite import PartsSource
from runner.binding.fetching import OutputTarget
from runner.engine import Engine
from runner.engine.status import RUN_WITHOUT
from runner.model.signature import Signature
from runner.tensor import FLOATS, Array, Feeds, Outputs, Strings, bits_of, natural, nonfinite, tensor_text
from runner.worker.sample import Sample
from runner.worker.spec import WorkerSpec

_PROBES, _PROBE_BYTES = 64, 16 * 2**20  # of a call with rows that hold a NaN
_ROWS = 3  # that are called together, at most
_BAD_ROWS = 8  # of the sample that are all refused: so many are no accident
_PLACES = 16  # of a call of a fixed size, whose answers are compared
_NO_KERNEL = re.compile(r"No OpKernel was registered to support Op '?(\w+)|(?:Could not find|no) kernel.*?'(\w+)'")
_HOPELESS = ("UNIMPLEMENTED", "FAILED_PRECONDITION")  # status codes that no other row would change


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
    engine: Engine,
    binding: Binding,
    signature: Signature,
    sample: Sample,
    batch_rows: int,
    url: str,
    *,
    draws: bool = False,
    bits: bool = False,
    elsewhere: Callable[[], Sequence[pa.RecordBatch]] = tuple,
    rejected: bool = False,
) -> Trial:
    """Prove the model on a few rows.

    batch_rows: of the job; no call has more.
    draws:      random numbers, as `plan` said.
    bits:       a call that is made twice must give the same ones.
    elsewhere:  reads rows of other places of the input, where those of the sample are equal or all refused.
    rejected:   all rows were bad ones before, so that a model that refuses all is not to blame.
    raises:     ModelError where it cannot run here, takes one row a call only, or has an output that does not follow
                the rows; or other bits than were asked for. PoisonError where it refuses all rows in the same words.
    cost:       six calls of at most 3 rows, on a GPU seven; one more where answers differ, twelve before it is refused
                for that.
    """
    began = time.perf_counter()
    if len(list(islice(sample.distinct(), _ROWS))) < _ROWS:
        sample = sample.joined(elsewhere())
    if sample.kind == "none":
        return Trial("none", False, unproved="its inputs cannot be made up")
    trial, most = _Trial(engine, binding, signature, sample, url), min(_ROWS, batch_rows)
    calls, story = trial.calls(most)
    if not calls and not rejected:
        trial.require_taken(elsewhere)
    notes, random = list[str](), list[str]()
    if calls:
        trial.require_rows(calls)
        random = trial.require_same(calls, bits)
        notes += [] if draws else random
        few = len(trial.rows) == 1 and sample.count >= _ROWS  # of fewer rows there is nothing to mix
        if most > 1 and not random and (story or few):
            notes.append(trial.doubt(story))
    placed = trial.placed(calls[-1][0]) if calls else {}
    if placed and not placed.get("GPU"):
        notes.append(f"no op of signature {signature.name!r} runs on the GPU: workers without one would do")
    proved = not (story or notes or random or len(trial.rows) < min(2, most))
    return Trial(sample.kind, proved, tuple(notes), story, placed, seconds=time.perf_counter() - began)


def try_nan(trial: Trial, engine: Engine, spec: WorkerSpec, sample: Sample) -> Trial:
    """The trial, with what becomes of a NaN in each input of floating point.

    raises: ModelError where rows with a NaN in an output are to be rejected and a NaN in an input shows in none, unless
            the job says what is to become of such rows.
    cost:   a call of 2 rows, and of 2 more for each input, in pieces; none where the job lets no NaN through.
    """
    began = time.perf_counter()
    if trial.rows == "none" or not spec.binding.odd_inputs:
        return trial
    found, limits = _NanTrial(engine, spec, sample).unseen(), spec.limits
    stories = {name: f"a NaN in {name!r} does not reach {one_of(outputs)}" for name, (outputs, _) in found.items()}
    hidden = [stories[name] for name, (_, unseen) in found.items() if unseen]
    if hidden and limits.nan_output == "reject" and limits.nonfinite is None:
        raise ModelError(
            f"cannot use `nan_output: reject` with signature {spec.signature.name!r} of model '{spec.model.url}':"
            f" {'; '.join(hidden)} on this machine, so that nothing is seen of it; say in `limits` what becomes of rows"
            " with NaN or infinity in an input: `nonfinite: reject` sets them aside, `nonfinite: pass` scores them"
        )
    notes = [
        f"{story} on this machine: `null: nan` gives a null there a clean answer, and `nan_output` sees nothing; have"
        " such rows rejected (leave out the null rule), give `null: {fill: ...}`, or say `limits: {nonfinite: pass}`"
        for name, story in stories.items()
        if name in spec.binding.nan_filled and limits.nonfinite != "pass"
    ]
    unseen = {name: tuple(outputs) for name, (outputs, _) in found.items()}
    seconds = trial.seconds + time.perf_counter() - began
    return replace(trial, notes=(*trial.notes, *notes), unseen=unseen, seconds=seconds)


_Made = tuple[Sequence[int], Outputs]  # rows of the sample, and what the model answered


class _Trial:
    def __init__(self, engine: Engine, binding: Binding, signature: Signature, sample: Sample, url: str) -> None:
        self._engine, self._binding, self._sample = engine, binding, sample
        # What is made of one tensor each. Of those made of several, only the column shows the rows.
        self._plain = [target.name for target in binding.outputs if isinstance(target, OutputTarget)]
        self._signature, self._url = signature, url
        self._where = f"signature {signature.name!r} of model '{url}'"
        self.rows: list[int] = []  # that differ, and that the model takes
        self._refused: list[RunnerError] = []

    def calls(self, most: int) -> tuple[list[_Made], str]:
        """Calls with 1, 2, ... rows, up to the first that proves nothing, and why that one does not."""
        made = self._alone(most)
        if not made:
            first = self._refused[0]
            if isinstance(first, ModelCallError) and first.facts.get("compiling"):
                raise ModelError(f"{first.message}; {RUN_WITHOUT}") from first
            return [], f"not proved with 1 row ({self._sample.kind}): {first.message}"
        story = ""
        for rows in _orders(self.rows, most):
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

    def _alone(self, most: int) -> list[_Made]:
        """Calls with one row each, until as many rows are taken as are called together."""
        made: list[_Made] = []
        for row in self._sample.distinct():
            answer = self._call([row])
            if isinstance(answer, RunnerError):
                self._refused.append(answer)
            else:
                made.append(([row], answer))
                self.rows.append(row)
            if len(made) == min(_ROWS, most) or len(self._refused) == _BAD_ROWS:
                break
        return made

    def require_taken(self, elsewhere: Callable[[], Sequence[pa.RecordBatch]]) -> None:
        """raises: PoisonError where many rows were refused in the same words, and others are, too."""
        first, refused = self._refused[0], list(self._refused)
        if len(refused) < _BAD_ROWS or not isinstance(first, ModelCallError):
            return
        for rows in elsewhere():
            other = _Trial(
                self._engine, self._binding, self._signature, Sample(self._binding, self._signature, rows), self._url
            )
            if other._alone(1):
                return
            refused += other._refused
        if any(error.message != first.message for error in refused):
            return
        raise PoisonError(
            f"cannot run {self._where}: it refuses every row that was tried, {len(refused)} from all over the input,"
            f" each alone and with the same words, so that it is the model and not the rows: {first.message}"
        ) from first

    def doubt(self, story: str) -> str:
        """story: why other rows were not called together; "": all are equal."""
        why = story or "all rows that were tried are equal, or are refused"
        return (
            f"it is not proved that each row of the outputs of {self._where} depends on its own row only: {why}; the"
            " first rows that differ are compared while the job runs"
        )

    def compared(self, calls: Sequence[_Made]) -> list[Call]:
        return [self._read(rows, outputs) for rows, outputs in calls]

    def _read(self, rows: Sequence[int], outputs: Outputs) -> Call:
        places = [*rows, *[rows[-1]] * (min(self._binding.batch_rows or 0, _PLACES) - len(rows))]
        return Call(places, answers(self._binding, outputs, range(len(places)), self._sample.batch(rows)))

    def _call(self, rows: Sequence[int]) -> Outputs | RunnerError:
        try:
            return self._engine.run(self._sample.feeds(rows), self._binding.fetches)
        except ModelError:
            raise
        except ModelCallError as error:
            kernel = _NO_KERNEL.search(error.message)
            if kernel:
                op = kernel[1] or kernel[2]
                raise ModelError(
                    f"cannot run {self._where}: this TensorFlow has no kernel of its op {op!r} here; export the model"
                    " with the TensorFlow that is installed, or run on workers with the device it wants",
                    op=op,
                ) from error
            if error.facts.get("code") in _HOPELESS:
                raise ModelError(f"cannot run {self._where}: {error.message}") from error
            return error
        except RunnerError as error:
            return error

    def require_rows(self, calls: Sequence[_Made]) -> None:
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

    def _require_types(self, call: _Made) -> None:
        rows, outputs = call
        batch = self._sample.batch(rows)
        if batch is None:
            return
        try:
            self._binding.fetch(batch, outputs)
        except DataError as error:
            if error.facts.get("code") in ("MODEL_OUTPUT", "MODEL_BATCH"):
                raise ModelError(f"cannot use {self._where}: {error.message}") from error

    def require_same(self, calls: Sequence[_Made], bits: bool) -> list[str]:
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

    def _drawn(self, call: _Made, tolerance: float) -> set[str]:
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


def _orders(rows: Sequence[int], most: int) -> list[Sequence[int]]:
    """Calls of 2, ... rows, at most `most`: each row in several places, beside and behind others."""
    a, b, c = rows[0], rows[min(1, len(rows) - 1)], rows[-1]
    orders: list[Sequence[int]] = [(b, a), (a, b)] if most == 2 else [(b, a), (c, a, b), (b, a, c)]
    return list(dict.fromkeys(orders)) if most > 1 else []


@dataclass(frozen=True, slots=True)
class _Probe:
    """A row with a NaN in an input: in all of it, or in its first value only. bound: None: without."""

    bound: BoundInput | None = None
    whole: bool = False


class _NanTrial:
    """The first row of the sample, made finite, again and again: as it is, and with a NaN."""

    def __init__(self, engine: Engine, spec: WorkerSpec, sample: Sample) -> None:
        self._engine, self._binding, self._sample, self._most = engine, spec.binding, sample, spec.batch_rows
        self._plain = [target for target in spec.binding.outputs if isinstance(target, OutputTarget)]

    def unseen(self) -> dict[str, tuple[list[str], bool]]:
        """Input -> the outputs that a NaN in it does not reach, and whether one shows in no output at all.

        An answer that is the same with the NaN says nothing: it may not depend on the input. Where no output is of
        floating point, none can show one.
        """
        inputs = self._binding.odd_inputs
        clean, again = self._answers([_Probe(), _Probe()])
        if clean is None or again is None:
            return {}
        answers = self._answers([_Probe(bound, whole) for bound in inputs for whole in (False, True)])
        floats = [target.name for target in self._plain if target.dtype in FLOATS]
        steady = [name for name in floats if clean[name].finite and clean[name].agrees(again[name], REPEATED)]
        whole = len(self._plain) == len(self._binding.outputs)
        found: dict[str, tuple[list[str], bool]] = {}
        for number, answer in enumerate(answers):
            if answer is None:  # refused, which shows
                continue
            changed = [
                name for name in steady if answer[name].finite and not clean[name].agrees(answer[name], REPEATED)
            ]
            if whole and not floats:
                changed = [target.name for target in self._plain]
            if changed:
                names, hidden = found.get(inputs[number // 2].name, ([], False))
                hidden = hidden or (whole and all(answer[name].finite for name in floats))
                found[inputs[number // 2].name] = list(dict.fromkeys([*names, *changed])), hidden
        return found

    def _answers(self, probes: Sequence[_Probe]) -> list[Mapping[str, Answer] | None]:
        """What the model answers to each, by output; None where it refuses."""
        try:
            row_bytes = sum(getattr(tensor, "nbytes", 0) for tensor in self._feeds(probes[:1]).values())
        except RunnerError:  # the row itself cannot be fed: whoever meets it says so
            return [None] * len(probes)
        most = max(1, min(self._most, _PROBES, max(3, _PROBE_BYTES // max(1, row_bytes))))
        return [answer for at in range(0, len(probes), most) for answer in self._called(probes[at : at + most])]

    def _called(self, probes: Sequence[_Probe]) -> list[Mapping[str, Answer] | None]:
        try:
            outputs = self._engine.run(self._feeds(probes), self._binding.fetches)
        except RunnerError:
            half = len(probes) // 2
            return [*self._called(probes[:half]), *self._called(probes[half:])] if half else [None]
        return [
            {target.name: row_answer(outputs[target.name], place, target.dtype) for target in self._plain}
            for place in range(len(probes))
        ]

    def _feeds(self, probes: Sequence[_Probe]) -> Feeds:
        feeds = dict(self._sample.feeds([0] * len(probes)))
        for bound in self._binding.odd_inputs:
            name = bound.source.values if isinstance(bound.source, PartsSource) else bound.name
            fed = feeds[name]
            assert not isinstance(fed, Strings)  # it has a dtype that holds NaN
            values = fed.copy()
            if (odd := nonfinite(values, bound.dtype)) is not None:
                values[odd] = 0
            for place, probe in enumerate(probes):
                if probe.bound is bound:
                    owned = bound.source.owners(feeds) == place if isinstance(bound.source, PartsSource) else place
                    values[owned] = _with_nan(values[owned], bound.dtype, probe.whole)
            feeds |= {twin: values for twin, tensor in feeds.items() if tensor is fed}  # one tensor may have two names
        return feeds


def _with_nan(values: Array, dtype: str, whole: bool) -> Array:
    flat = values.reshape(-1).copy()
    flat[: None if whole else 1] = bits_of(np.array(np.nan, natural(dtype)), dtype)
    return flat.reshape(values.shape)
