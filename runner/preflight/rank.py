"""The shape of outputs whose rank the signature leaves open: seen in a few calls, before a plan is made of it.

The model is loaded in a process of its own, which ends again; this one loads no TensorFlow. Refuses to guess: what the
calls do not show is left open, and binding says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import pyarrow as pa

from jobs.errors import BindingError, ModelCallError, RunnerError, one_of
from jobs.job import Job
from jobs.plan import InputFile
from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.fetching import is_single
from runner.binding.picture.bound import pictures_of
from runner.engine import EngineOptions
from runner.model.signature import Signature
from runner.preflight.shape import sample_slice
from runner.tensor import tensor_text
from runner.worker.child import Child, ChildEnded
from runner.worker.isolated import load_model
from runner.worker.trial.sample import Sample, read_rows

_TRIED, _TAKEN = 8, 3  # rows that are tried, until so many are taken
_LOADER = f"{load_model.__module__}:{load_model.__name__}"
Shape = tuple[int | None, ...]
Loading = tuple[str, str, Sequence[str], Signature, EngineOptions]  # what `runner.worker.isolated.load_model` takes


def open_ranks(columns: Columns, signature: Signature) -> dict[str, Shape]:
    """The outputs that the job wants, of a rank that neither signature nor job say; with one that it could be."""
    found: dict[str, Shape] = {}
    for name, rule in columns.written(signature.outputs):
        spec = signature.outputs.get(name)
        if spec is not None and spec.encoding == "dense" and spec.shape is None and rule.shape is None:
            places = len(rule.at) if isinstance(rule.at, tuple) else int(bool(rule.shapes))
            found[name] = max(found.get(name, ()), (None,) * (1 + places), key=len)
    return {name: found[name] for name in signature.outputs if name in found}


def with_shapes(signature: Signature, shapes: Mapping[str, Shape]) -> Signature:
    """The signature, with these shapes of outputs."""
    found = {name: replace(signature.outputs[name], shape=shape) for name, shape in shapes.items()}
    return replace(signature, outputs=signature.outputs | found)


def settled(
    job: Job, signature: Signature, schema: pa.Schema, files: Sequence[InputFile], model: Loading
) -> tuple[Signature, tuple[str, ...]]:
    """The signature with the shapes that the model's answers have, and a sentence for people.

    model:  without the pictures that it is fed with.
    raises: BindingError where they are not found.
    cost:   where a rank is open, the model is loaded once and called five times.
    """
    open_ones = open_ranks(job.columns, signature)
    names = list(open_ones)
    if not names:
        return signature, ()
    assumed = with_shapes(signature, open_ones)
    binding = bind(job.columns, schema, assumed, job.output.tensor_encoding, job.batch)
    if pictures := pictures_of(binding):
        model = (*model[:-1], replace(model[-1], pictures=pictures))
    piece = sample_slice(files, signature)
    rows = None if piece is None else read_rows(job.input, schema, binding, piece, _TAKEN)
    try:
        if rows is None:
            raise ModelCallError("no row group of the input is small enough to try it on")
        shapes = _seen(model, Sample(binding, signature, rows), binding.batch_rows, names, job.limits.stall_s)
    except (RunnerError, ChildEnded) as error:
        reason = error.message if isinstance(error, RunnerError) else f"a process that called it {error.story}"
        hints = ", ".join(f"{name}: {{shape: [...]}}" for name in names)
        raise BindingError(
            f"could not bind columns to signature {signature.name!r}: outputs {one_of(names)} are of unknown rank, and"
            f" a call with rows of the input did not show it: {reason}; give the shape of one row in the job:"
            f" `outputs: {{{hints}}}`",
            code="MODEL_SIGNATURE",
        ) from error
    return with_shapes(signature, shapes), tuple(_story(name, shapes[name]) for name in names if name in shapes)


def _story(name: str, shape: Shape) -> str:
    written = [] if is_single(shape[1:]) else list(shape[1:])
    row = f"`outputs: {{{name}: {{shape: {written}}}}}` in the job saves that"
    saved = f"; {row}" if None not in shape[1:] else ""
    return (
        f"the rank of output {name!r} is unknown; called with a few rows it was {tensor_text('', shape)}, for which the"
        f" model was loaded once{saved}"
    )


def _seen(
    model: tuple[object, ...], sample: Sample, fixed: int | None, names: Sequence[str], patience_s: float
) -> Mapping[str, Shape]:
    """fixed: rows of each call, where the model takes no other number.

    raises: RunnerError where all rows are refused; ChildEnded where the process did not live to tell.
    """
    calls: list[tuple[int, dict[str, Shape]]] = []
    child = Child(_LOADER, model, start_s=patience_s)

    def call(rows: Sequence[int]) -> None:
        outputs = child.ask((dict(sample.feeds(rows)), tuple(names)), patience_s)
        calls.append((fixed or len(rows), {name: outputs[name].shape for name in names}))

    taken: list[int] = []
    refused: list[RunnerError] = []
    try:
        for row in islice(sample.distinct(), _TRIED):
            try:
                call([row])
                taken.append(row)
            except RunnerError as error:
                refused.append(error)
            if len(taken) == _TAKEN:
                break
        if not taken:
            raise refused[0]
        for rows in (taken[:1] * 2, taken[:1] * 3) if fixed is None else ():
            with suppress(RunnerError):  # the trial of a worker says why
                call(rows)
    finally:
        child.close()
    found = {name: _common([(rows, shapes[name]) for rows, shapes in calls]) for name in names}
    return {name: shape for name, shape in found.items() if shape is not None}


def _common(calls: Sequence[tuple[int, Shape]]) -> Shape | None:
    """A dimension that differs between calls is None, and so is the first one where it follows the rows."""
    if len({len(shape) for _, shape in calls}) > 1:
        return None
    sizes = [set(each) for each in zip(*(shape for _, shape in calls), strict=True)]
    common: Shape = tuple(each.pop() if len(each) == 1 else None for each in sizes)
    follows = bool(common) and all(shape[0] == rows for rows, shape in calls)
    return (None, *common[1:]) if follows else common
