"""Several models of a job as one: one signature, one mapping, and what is known of all their graphs.

Refuses to read a model. The invariant: what of several models stands under one name in their merged signature is told
apart again by that name alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobs.errors import ModelError
from jobs.job import Job
from jobs.section.columns import Columns, InputColumn, OutputColumn
from runner.binding.composite import candidates
from runner.engine import ModelOptions
from runner.model.signature import Signature, TensorSpec, merged, prefixed
from runner.preflight.model.member import Member, Scanned
from runner.scan.batching import Batching
from runner.scan.compiled import Compiled
from runner.scan.effects import Effects


def all_scanned(members: Sequence[Member]) -> Scanned:
    """What is known of the graphs behind all models, under the names of the merged signature."""
    if len(members) == 1 and not members[0].name:
        return members[0].scanned
    scans = [member.scanned for member in members]
    own = [scan.batching for scan in scans if scan.batching is not None]
    most = min((one.most_rows for one in own), default=0)
    changes: dict[str, set[str]] = {}
    deciders: dict[str, tuple[str, ...]] = {}
    for member in members:
        if (found := member.scanned.compiled) is not None:
            for answer, ops in found.changes.items():
                changes.setdefault(answer, set()).update(ops)
            deciders |= {prefixed(member.name, name): ops for name, ops in found.deciders.items()}
    return Scanned(
        trusted=_union(scan.trusted for scan in scans),
        effects=Effects(_union(scan.effects.writes for scan in scans), _union(scan.effects.draws for scan in scans)),
        swallowing=_union(member.scanned.swallowing for member in members if not member.options.xla),
        batching=Batching(most, min(most, max(one.full_rows for one in own)), max(one.wait_s for one in own))
        if own
        else None,
        spans={prefixed(one.name, name): span for one in members for name, span in one.scanned.spans.items()},
        compiled=Compiled({answer: tuple(sorted(ops)) for answer, ops in changes.items()}, deciders)
        if any(scan.compiled for scan in scans)
        else None,
        idle=tuple(f"model {member.name!r}: {story}" for member in members for story in member.scanned.idle),
        modules=tuple(module for scan in scans for module in scan.modules),
    )


def all_options(members: Sequence[Member]) -> ModelOptions:
    """What the models ask of the process that has them all."""
    if len(members) == 1:
        return members[0].options
    options = [member.options for member in members]
    libraries = tuple(dict.fromkeys(library for one in options for library in one.op_libraries))
    precision = next((one.mixed_precision for one in options if one.mixed_precision), None)
    packages = tuple(dict.fromkeys(package for one in options for package in one.op_packages))
    return ModelOptions(any(one.xla for one in options), precision, libraries, packages)


def _union(names: Iterable[Collection[str]]) -> tuple[str, ...]:
    return tuple(sorted({name for some in names for name in some}))


def together(job: Job, members: Sequence[Member], *, tried: bool) -> tuple[Job, list[Member], Signature]:
    """The job with a mapping for the merged signature, the models as they are called beside each other, and that
    signature. One alone stays as it is.

    A fixed number of rows a call is the model's own affair there: in the merged signature it takes any.

    tried: a call will show whether what outputs declare is a number of rows.
    """
    if not members[0].name:
        return job, [*members], members[0].signature
    job = _addressed(job, {member.name: member.signature for member in members})
    sized = [replace(member, batch_rows=_fixed_rows(member, job.columns, tried)) for member in members]
    held: dict[Any, int] = {}
    times = Counter[Any]()
    signatures = {}
    for member in sized:
        session = _session(member)
        times[session, member.signature.name] += 1  # of one signature for the second time the engine has another one
        place = held.setdefault((session, times[session, member.signature.name]), len(held))
        signatures[member.name] = _opened(member, job.columns, place)
    return job, sized, merged(signatures)


def _addressed(job: Job, signatures: Mapping[str, Signature]) -> Job:
    """Each input of each model gets a rule of its own, or none: `x` is that of every model that has one, `champion.x`
    of this model alone. What names no tensor stays as it is, for binding to say so."""
    columns = job.columns
    own = {name for name in columns.inputs if name.partition(".")[0] in signatures and "." in name}
    inputs: dict[str, InputColumn] = {}
    for name, rule in columns.inputs.items():
        if name not in own:
            owners = _owners(name, signatures)
            inputs |= {prefixed(owner, name): rule for owner in owners} or {name: rule}
    inputs |= {name: _from_own_name(name, columns.inputs[name]) for name in columns.inputs if name in own}
    for member, model in (job.models or {}).items():
        inputs |= {prefixed(member, name): rule for name, rule in model.inputs.items()}
    outputs = None
    if columns.outputs is not None:
        outputs = {name: _following(name, rule, signatures) for name, rule in columns.outputs.items()}
    return job.model_copy(update={"columns": columns.model_copy(update={"inputs": inputs, "outputs": outputs})})


def _owners(name: str, signatures: Mapping[str, Signature]) -> list[str]:
    """The models that have an input of this name; else those that have one made of several tensors, by their names."""
    exact = [member for member, signature in signatures.items() if name in signature.inputs]
    return exact or [
        member
        for member, signature in signatures.items()
        if any(tensor.startswith(f"{name}_") for tensor in signature.inputs)
    ]


def _from_own_name(name: str, rule: InputColumn) -> InputColumn:
    """`champion.age: {cast: unsafe}` is fed from the column 'age'."""
    return rule.model_copy(update={"column": name.partition(".")[2]}) if rule.column == name else rule


def _following(name: str, rule: OutputColumn, signatures: Mapping[str, Signature]) -> OutputColumn:
    """The padded input that an output follows is one of its own model, named with or without that."""
    member, dot, _ = (rule.of or name).partition(".")
    if rule.cut is None or not dot or rule.cut.partition(".")[0] in signatures:
        return rule
    return rule.model_copy(update={"cut": prefixed(member, rule.cut)})


def _session(member: Member) -> Any:
    """What those have in common that one session may hold: only there two names may mean one tensor."""
    return (member.model.path, member.metagraph.tags, member.options, member.section.engine, member.batch_rows)


def _fixed_rows(member: Member, columns: Columns, tried: bool) -> int | None:
    """As `runner.binding.bind` finds them for one model alone. raises: ModelError where there are two numbers."""
    fixed, batch = _fixed_inputs(member, columns), member.section.batch
    if len(set(fixed.values())) > 1 or (batch is not None and fixed and batch not in fixed.values()):
        wishes = ", ".join(f"{name!r} wants {rows}" for name, rows in fixed.items())
        said = f", and the job says `batch: {batch}`" if batch is not None else ""
        raise ModelError(
            f"cannot call {member.where} ({member.name}): its inputs have fixed batch dimensions: {wishes}{said};"
            " expected one number of rows for all"
        )
    rows = next(iter(fixed.values()), batch)
    return rows if rows is not None or not tried else _declared_rows(member, columns)


def _declared_rows(member: Member, columns: Columns) -> int | None:
    outputs = member.signature.outputs
    written = columns.written([prefixed(member.name, name) for name in outputs])
    names = member.names(name for name, _ in written)
    specs = [outputs[name] for name in names if name in outputs]
    sizes = {spec.shape[0] if spec.shape and spec.encoding == "dense" else None for spec in specs}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if size is not None and size > 1 else None


def _fixed_inputs(member: Member, columns: Columns) -> dict[str, int]:
    """Inputs of a fixed batch dimension that follow the rows, as far as the job tells: no constants, no part of one
    made of several tensors."""
    parts = {part.name for whole in candidates(member.signature.inputs) for part in whole.parts}
    fixed: dict[str, int] = {}
    for name, spec in member.signature.inputs.items():
        rule = columns.inputs.get(prefixed(member.name, name))
        follows = (rule is None or rule.constant is None) and spec.encoding == "dense" and name not in parts
        if follows and spec.shape and spec.shape[0] is not None:
            fixed[name] = spec.shape[0]
    return fixed


def _opened(member: Member, columns: Columns, place: int) -> Signature:
    """place: of the session in which it lies: names of its tensors are no names of another's."""
    fixed, rows = _fixed_inputs(member, columns), member.batch_rows

    def opened(spec: TensorSpec, follows: bool) -> TensorSpec:
        shape = (None, *spec.shape[1:]) if follows and spec.shape else spec.shape
        return replace(spec, shape=shape, tensor=spec.tensor and f"{place}:{spec.tensor}")

    signature = member.signature
    inputs = {name: opened(spec, name in fixed) for name, spec in signature.inputs.items()}
    outputs = {
        name: opened(spec, rows is not None and spec.shape is not None and spec.shape[:1] == (rows,))
        for name, spec in signature.outputs.items()
    }
    return replace(signature, inputs=inputs, outputs=outputs)
