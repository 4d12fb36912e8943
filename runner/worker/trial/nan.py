"""The trial with NaN: which outputs stay finite although an input holds one.

Knows one row and its twins; refuses to know what the job does with a row that holds a NaN. The invariant: an answer
says something only where the same call, made again, answers the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.errors import RunnerError
from runner.batch.answer import REPEATED, Answer, row_answer, shaped_answer
from runner.binding.binding import BoundInput
from runner.binding.composite import PartsSource
from runner.binding.fetching import OutputTarget
from runner.binding.shaping.target import ShapedTarget
from runner.tensor import FLOATS, Array, Feeds, Strings, bits_of, natural, nonfinite
from runner.worker.trial.subject import Subject

_PROBES, _PROBE_BYTES = 64, 16 * 2**20  # of a call with rows that hold a NaN


@dataclass(frozen=True, slots=True)
class _Probe:
    """A row with a NaN in an input: in all of it, or in its first value only. bound: None: without."""

    bound: BoundInput | None = None
    whole: bool = False


class NanTrial:
    """The first row of the sample, made finite, again and again: as it is, and with a NaN."""

    def __init__(self, subject: Subject) -> None:
        self._engine, self._binding, self._sample = subject.engine, subject.binding, subject.sample
        self._most = subject.batch_rows
        self._plain = [target for target in subject.binding.outputs if isinstance(target, OutputTarget | ShapedTarget)]

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
            {
                target.name: row_answer(outputs[target.name], place, target.dtype)
                if isinstance(target, OutputTarget)
                else shaped_answer(target, outputs, place)
                for target in self._plain
            }
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
