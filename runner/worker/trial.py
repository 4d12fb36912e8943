"""The trial: one worker calls the model with 1, 2 and 3 rows before any shard is given out.

It proves what a signature only promises: that the model can run at all (kernels are removed between versions of
TensorFlow), that it takes any number of rows, and that each output follows the rows, one row for a row, whatever stands
beside it. A bad row proves nothing: that is for the attempt that meets it. The invariant: what is refused here would
have failed or mixed up rows later.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from jobs.errors import DataError, ModelCallError, ModelError, RunnerError, one_of
from runner.binding.binding import Binding, BoundInput
from runner.binding.composite import PartsSource
from runner.binding.fetching import OutputTarget
from runner.engine import Engine
from runner.engine.status import RUN_WITHOUT
from runner.model.signature import Signature
from runner.tensor import (
    FLOATS,
    Array,
    Feeds,
    Outputs,
    Strings,
    Tensor,
    bits_of,
    natural,
    nonfinite,
    tensor_text,
    values_of,
)
from runner.worker.sample import Sample
from runner.worker.spec import WorkerSpec

# Answers to one row may differ by this share of the largest number in them: other batch sizes take other kernels, and
# dynamic quantisation rounds by the batch. Rows that are mixed differ by much more.
_TOLERANCE = 0.02
_REPEATED = 1e-4  # the same of one call that is made twice: only the order of additions may differ
_PROBES, _PROBE_BYTES = 64, 16 * 2**20  # of a call with rows that hold a NaN
_ROWS_TO_COMPILE = 8  # of the sample: so many bad rows in front of a file are no accident
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
) -> Trial:
    """Prove the model on a few rows.

    batch_rows: of the job; no call has more.
    draws:      random numbers, as `plan` said.
    bits:       a call that is made twice must give the same ones.
    raises:     ModelError where it cannot run here, takes one row a call only, or has an output that does not follow
                the rows; or other bits than were asked for.
    cost:       four calls of at most 3 rows, on a GPU five.
    """
    began = time.perf_counter()
    if sample.kind == "none":
        return Trial("none", False, unproved="its inputs cannot be made up")
    trial = _Trial(engine, binding, signature, sample, url)
    calls, story = trial.calls(min(3, batch_rows))
    notes, random = list[str](), list[str]()
    if calls:
        trial.require_rows(calls)
        random = trial.require_same(calls, bits)
        notes += [] if draws else random
    placed = trial.placed(calls[-1][0]) if calls else {}
    if placed and not placed.get("GPU"):
        notes.append(f"no op of signature {signature.name!r} runs on the GPU: workers without one would do")
    proved = not (story or notes or random)
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


_Call = tuple[Sequence[int], Outputs]  # rows of the sample, and what the model answered


class _Trial:
    def __init__(self, engine: Engine, binding: Binding, signature: Signature, sample: Sample, url: str) -> None:
        self._engine, self._binding, self._sample = engine, binding, sample
        # What is made of one tensor each. Of those made of several, only the column shows the rows.
        self._plain = [target.name for target in binding.outputs if isinstance(target, OutputTarget)]
        self._dtypes = {name: spec.dtype for name, spec in signature.outputs.items()}
        self._where = f"signature {signature.name!r} of model '{url}'"

    def calls(self, most: int) -> tuple[list[_Call], str]:
        """Calls with 1, 2, ... rows, up to the first that proves nothing, and why that one does not."""
        made: list[_Call] = []
        for rows in ([0], [0, 1], [0, 1, 2])[:most]:
            answer = self._call(rows)
            if isinstance(answer, RunnerError) and len(rows) > 1:  # the new row, or the number of rows?
                same = [0] * len(rows)
                other = self._call(same)
                if isinstance(other, ModelCallError):
                    self.require_rows(made)
                    raise ModelError(
                        f"cannot give {len(rows)} rows a call to {self._where}, although {len(rows) - 1}"
                        f" {'was' if len(rows) == 2 else 'were'} fine: {other.message}; set"
                        f" `limits: {{batch_rows: {len(rows) - 1}}}` in the job"
                    )
                rows, answer = same, other
            if not made and isinstance(answer, ModelCallError) and answer.facts.get("compiling"):
                self._require_compiled(answer)
            if isinstance(answer, RunnerError):
                return made, f"not proved with {len(rows)} rows ({self._sample.kind}): {answer.message}"
            made.append((self._places(rows), answer))
        return made, ""

    def _require_compiled(self, first: ModelCallError) -> None:
        """raises: ModelError where XLA refuses all of some rows, each alone: then it is not what they hold."""
        others = (self._call([row]) for row in range(1, _ROWS_TO_COMPILE))
        if all(isinstance(answer, RunnerError) for answer in others):
            raise ModelError(f"{first.message}; {RUN_WITHOUT}") from first

    def _places(self, rows: Sequence[int]) -> Sequence[int]:
        """The row at each of the first places of a call: where it is filled up, its last row again."""
        return [*rows, *[rows[-1]] * (min(self._binding.batch_rows or 0, _PLACES) - len(rows))]

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

    def require_rows(self, calls: Sequence[_Call]) -> None:
        """raises: ModelError naming the outputs whose first dimension does not follow the rows."""
        wrong: dict[str, str] = {}
        for rows, outputs in calls:
            fed = self._binding.batch_rows or len(rows)
            for name in self._plain:
                shape = outputs[name].shape
                if shape[:1] != (fed,):
                    wrong[name] = f"{tensor_text('', shape)} for {fed} row{'s' * (fed > 1)}"
        if wrong:
            shapes = ", ".join(f"{name!r} has the shape {shape}" for name, shape in wrong.items())
            sizes = {outputs[name].shape[:1] for _, outputs in calls for name in self._plain}
            fixed = sizes.pop() if len(sizes) == 1 and not self._binding.batch_rows else ()
            raise self._refusal(list(wrong), f"do not follow the rows: {shapes}", *fixed)
        self._require_types(calls[-1])

    def _require_types(self, call: _Call) -> None:
        rows, outputs = call
        batch = self._sample.batch(rows)
        if batch is None:
            return
        try:
            self._binding.fetch(batch, outputs)
        except DataError as error:
            if error.facts.get("code") in ("MODEL_OUTPUT", "MODEL_BATCH"):
                raise ModelError(f"cannot use {self._where}: {error.message}") from error

    def require_same(self, calls: Sequence[_Call], bits: bool) -> list[str]:
        """A sentence if answers are random. raises: ModelError where a row's answer depends on those beside it.

        bits: raises where they are random, too, and be it in the last bit.
        """
        rows, answer = calls[-1]
        again, places = self._call(rows), range(len(rows))
        twice = [] if isinstance(again, RunnerError) else [(places, answer), (places, again)]
        drawn = self._differing(twice, 0 if bits else _REPEATED)
        if mixed := [name for name in self._differing(calls, _TOLERANCE) if name not in drawn]:
            raise self._refusal(
                mixed,
                "depend on the rows beside a row, or on its place, so that they would change with the size of a batch",
            )
        if not drawn:
            return []
        if bits:
            raise ModelError(
                f"cannot promise equal bits: outputs {one_of(drawn)} of {self._where} differ between two equal calls;"
                " leave out `limits.reproducible`"
            )
        return [f"outputs {one_of(drawn)} of {self._where} are other numbers at every call: a retry changes them"]

    def _differing(self, calls: Sequence[_Call], tolerance: float) -> list[str]:
        """Outputs that differ between calls for one row of the sample."""
        names = []
        for name in self._plain:
            first: dict[int, Tensor] = {}
            for rows, outputs in calls:
                for place, row in enumerate(rows):
                    answer = _row(outputs[name], place, self._dtypes[name])
                    if not _close(first.setdefault(row, answer), answer, tolerance) and name not in names:
                        names.append(name)
        return names

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
        steady = [name for name in floats if _finite(clean[name]) and _close(clean[name], again[name], _REPEATED)]
        whole = len(self._plain) == len(self._binding.outputs)
        found: dict[str, tuple[list[str], bool]] = {}
        for number, answer in enumerate(answers):
            if answer is None:  # refused, which shows
                continue
            changed = [
                name for name in steady if _finite(answer[name]) and not _close(clean[name], answer[name], _REPEATED)
            ]
            if whole and not floats:
                changed = [target.name for target in self._plain]
            if changed:
                names, hidden = found.get(inputs[number // 2].name, ([], False))
                hidden = hidden or (whole and all(_finite(answer[name]) for name in floats))
                found[inputs[number // 2].name] = list(dict.fromkeys([*names, *changed])), hidden
        return found

    def _answers(self, probes: Sequence[_Probe]) -> list[Mapping[str, Tensor] | None]:
        """What the model answers to each, by output; None where it refuses."""
        try:
            row_bytes = sum(getattr(tensor, "nbytes", 0) for tensor in self._feeds(probes[:1]).values())
        except RunnerError:  # the row itself cannot be fed: whoever meets it says so
            return [None] * len(probes)
        most = max(1, min(self._most, _PROBES, max(3, _PROBE_BYTES // max(1, row_bytes))))
        return [answer for at in range(0, len(probes), most) for answer in self._called(probes[at : at + most])]

    def _called(self, probes: Sequence[_Probe]) -> list[Mapping[str, Tensor] | None]:
        try:
            outputs = self._engine.run(self._feeds(probes), self._binding.fetches)
        except RunnerError:
            half = len(probes) // 2
            return [*self._called(probes[:half]), *self._called(probes[half:])] if half else [None]
        return [
            {target.name: _row(outputs[target.name], place, target.dtype) for target in self._plain}
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


def _finite(answer: Tensor) -> bool:
    """Whether it shows no NaN and no infinity."""
    return isinstance(answer, Strings) or answer.dtype.kind not in "fc" or bool(np.isfinite(answer).all())


def _row(tensor: Tensor, place: int, dtype: str) -> Tensor:
    if isinstance(tensor, Strings):
        width = len(tensor.values) // tensor.shape[0]
        return Strings(tensor.values.slice(place * width, width), tensor.shape[1:])
    return values_of(tensor[place], dtype)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two answers to one row agree, to the last bit where no tolerance is given.

    Dimensions that follow the longest row of a batch may differ.
    """
    if one.shape != other.shape:
        return True
    if isinstance(one, Strings) or isinstance(other, Strings):
        assert isinstance(one, Strings)
        assert isinstance(other, Strings)
        return bool(pc.all(pc.equal(one.values, other.values), min_count=0).as_py())
    if not tolerance:
        return one.tobytes() == other.tobytes()
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    largest = np.abs(np.where(np.isfinite(one), one, 0)).max(initial=0.0)
    return bool(np.allclose(one, other, rtol=0, atol=tolerance * float(largest) + 1e-6, equal_nan=True))
