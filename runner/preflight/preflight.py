"""What can be known before a worker starts: the model, the files, the binding, the plan.

Reads footers and the model's protobuf; imports neither TensorFlow nor Ray. Everything wrong that schema, signature
and listing can tell is an error here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache as cache_of
from functools import partial

import pyarrow as pa

from connectors.formats.base import Source
from connectors.formats.schema import overview
from connectors.models.cache import CacheSettings
from connectors.output.directory import require_written
from connectors.output.outlook import Outlook
from connectors.output.reject import Rejected
from connectors.secret import HIDDEN, redact
from connectors.store.store import FileStat, Store
from jobs import notebook
from jobs import plan as plans
from jobs.errors import BindingError, RunnerError, one_of
from jobs.job import Job
from jobs.plan import InputFile, Plan
from jobs.section.base import names_secret
from jobs.section.columns import Columns
from jobs.section.number import allowed
from jobs.section.output import Output
from jobs.words import counted
from runner.batch.batches import auto_batch_rows, most_batch_rows, padded_batch_rows, planned_batch_rows
from runner.binding.bind import bind
from runner.binding.binding import Binding, rounded
from runner.binding.fetching import TODAY, Rules
from runner.binding.naming import both_ways, kept_alone
from runner.binding.picture.bound import decoded_bytes_per_row
from runner.binding.shaping.target import outputs_of, shaped_of
from runner.engine import SEVERAL, EngineOptions
from runner.model.planned import PlannedModel, planned_model
from runner.model.signature import (
    MetaGraph,
    ModelSpec,
    Signature,
    corrections,
)
from runner.preflight.begun import older_rules, rules_of, story
from runner.preflight.columns import bound_first, require_agreed, require_headers, varying
from runner.preflight.identity import identity_of
from runner.preflight.input.declared import declared, read_alone
from runner.preflight.input.files import Inspected, first_schema, inspect
from runner.preflight.input.listing import Listed, refuse_own_output, with_advice
from runner.preflight.input.listing import found as found_input
from runner.preflight.input.only_rejects import only_files, only_rows, rejected_before
from runner.preflight.input.part import (
    NOTHING_DROPPED,
    Dropped,
    Limit,
    dropped,
    may_match,
    nothing_matches,
    require_bound,
)
from runner.preflight.model.labels import repeated_labels, with_labels
from runner.preflight.model.member import Member, Read, Scanned, besides, followed, read_members
from runner.preflight.model.several import all_options, all_scanned, together
from runner.preflight.output import narrowed, written
from runner.preflight.place import refuse_mixed_places
from runner.preflight.rank import open_ranks, settled, with_shapes
from runner.preflight.shape import batch_sizes, sample_slice, slices_elsewhere, small_row_groups, uncut
from runner.selection.selection import Selection
from runner.worker.spec import PlannedMember, WorkerSpec

_MOST_VARIABLES, _LONGEST = 100, 200  # characters of a value: they stand in a document that is written every 30 s


@dataclass(frozen=True, repr=False)
class Preflight:
    """A job that is known to fit: what was seen, and what will be done."""

    job: Job  # with the input format resolved
    members: tuple[Member, ...]  # the models; one alone has the name ""
    signature: Signature  # of several models the merged one
    schema: pa.Schema  # of the columns that are read, over all files; see `connectors.formats.widening.mixed`
    binding: Binding
    plan: Plan
    batch_rows: int
    most_batch_rows: int  # up to which a worker may grow it
    cache: CacheSettings
    scanned: Scanned  # of all models
    inputs: Listed
    skipped: tuple[str, ...] = ()  # what is wrong with the files that are left out
    notes: tuple[str, ...] = ()  # what differs from what one may think: columns written as another type, files not cut
    outlook: Outlook | None = None  # what a run would meet in its output, where somebody looked
    rules: Rules = TODAY  # today's, or those of the version that began the output
    begun: str = ""  # by an older version, in words
    dropped: Dropped = NOTHING_DROPPED  # files and rows that need not be read

    @property
    def left_out(self) -> tuple[str, ...]:
        """The outputs of the signature that are not written."""
        written = outputs_of(self.binding.outputs)
        return tuple(name for name in self.signature.outputs if name not in written)

    @property
    def model(self) -> ModelSpec:
        """The model; of several the first one."""
        return self.members[0].model

    @property
    def metagraph(self) -> MetaGraph:
        """That of the model; of several that of the first one."""
        return self.members[0].metagraph

    @property
    def planned(self) -> list[PlannedModel]:
        """Each model, in the order of the job."""
        return [planned_model(member.model, self.cache) for member in self.members]

    @property
    def rounded(self) -> tuple[str, ...]:
        """Inputs whose values may be rounded, in words."""
        return tuple(rounded(self.binding.inputs).values())

    @property
    def warnings(self) -> list[str]:
        """Sentences for people: where the model's answers cannot be repeated or trusted, and what is left out."""
        left_out = [f"a bad file is left out: {story}" for story in self.skipped]
        return [
            *([self.begun] if self.begun else []),
            *(story for member in self.members for story in member.warnings),
            *left_out,
            *self.inputs.warnings,
            *nothing_matches(self.job.input.where, self.plan.rows),
            *small_row_groups(self.plan),
            *self.suspicions,
        ]

    @property
    def suspicions(self) -> list[str]:
        """Of the warnings those that the trial of a worker confirms or clears, where the model may be tried."""
        limits, inputs = self.job.limits, [bound.name for bound in self.binding.odd_inputs]
        swallowing = self.scanned.swallowing
        compiled = all(member.options.xla for member in self.members)
        if not swallowing or not inputs or limits.nonfinite == "pass" or compiled or self.job.workers.gpus:
            return []
        ops = f"{', '.join(swallowing)} may make numbers of NaN on a CPU"
        if self.binding.nan_filled:
            filled = one_of(self.binding.nan_filled)
            return [f"`null: nan` of {filled} may have clean answers: {ops}, and `nan_output` sees nothing of it then"]
        if limits.nan_output == "reject" and limits.nonfinite is None:
            said = "`nonfinite: reject` or `nonfinite: pass`"
            return [f"`nan_output: reject` may miss a NaN in {one_of(inputs)}: {ops}; `run` then asks for {said}"]
        return []

    def __repr__(self) -> str:
        plan = self.plan
        size = (
            f"{counted(plan.rows, 'row')} of {counted(len(plan.files), 'file')} in {counted(len(plan.shards), 'shard')}"
        )
        return f"<Preflight of plan {plan.id[:8]}: {size}, {self.subject}>"

    @property
    def subject(self) -> str:
        """What is called, for messages."""
        named = (
            f"{member.name}: " * bool(member.name) + f"signature {member.signature.name!r} of '{member.model.url}'"
            for member in self.members
        )
        return ", ".join(named)

    def _repr_html_(self) -> str:
        rows = self.binding.describe()
        heads = list(rows[0]) if rows else []
        columns = notebook.table(heads, ([row.get(name, "") for name in heads] for row in rows))
        met = notebook.facts("A run", {"output": self.outlook.story}) if self.outlook is not None else ""
        return met + columns + self.plan._repr_html_()

    def spec(self, output: Output) -> WorkerSpec:
        """What workers know. output: with an absolute url, which means the same place to all of them."""
        own = self.scanned.batching
        first, planned, members = self.members[0], self.planned, tuple[PlannedMember, ...]()
        if first.name:
            calls = (member.call(self.binding) for member in self.members)
            members = tuple(map(PlannedMember, planned, calls))
        return WorkerSpec(
            model=planned[0],
            tags=first.metagraph.tags,
            signature=replace(self.signature, shaped=shaped_of(self.binding.outputs)),
            engine=SEVERAL if members else first.section.engine,
            options=all_options(self.members),
            members=members,
            input=self.job.input,
            input_schema=self.schema,
            binding=self.binding,
            batch_rows=self.batch_rows,
            most_batch_rows=self.most_batch_rows,
            repeatable=self.scanned.repeatable,
            draws=bool(self.scanned.effects.draws),
            readers=None if self.job.workers.readers == "auto" else self.job.workers.readers,
            most_rows=own.most_rows if own else None,
            batch_sizes=batch_sizes(
                self.plan,
                self.batch_rows,
                exact=self.binding.batch_rows is not None
                or own is not None
                or any(member.batch_rows is not None for member in self.members),
            ),
            sample=sample_slice(self.plan.files, self.signature),
            elsewhere=slices_elsewhere(self.plan.files, self.signature),
            rejected=self.job.input.only_rejects is not None,
            output=output,
            plan_id=self.plan.id,
            shards=len(self.plan.shards),
            part_rows=max((shard.rows for shard in self.plan.shards), default=0),
            limits=self.job.limits,
            max_rejected_rows=allowed(self.job.limits.max_rejected_rows, self.plan.rows),
            deciders=self.scanned.compiled.fed(self.signature) if self.scanned.compiled and not members else (),
            compiles=self.scanned.compiles,
        )


@dataclass(frozen=True)
class Examined:
    """A job whose models were read and whose first file binds, or all of them; else they were only listed."""

    job: Job
    members: Sequence[Member]
    signature: Signature  # of several models the merged one
    source: Source
    store: Store
    files: Sequence[FileStat]
    columns: Sequence[str]
    cache: CacheSettings
    scanned: Scanned
    inputs: Listed
    selection: Selection
    first: pa.Schema  # of the first file, where that matters


@dataclass(frozen=True)
class Gathered:
    """What all files together tell.

    signature: with the shapes that calls showed. notes: sentences for people.
    rejected:  id of the plan whose rejected rows are the input; "".
    """

    examined: Examined
    schemas: Sequence[tuple[str, pa.Schema]]
    files: Sequence[InputFile]
    schema: pa.Schema
    signature: Signature
    notes: Sequence[str]
    skipped: Sequence[RunnerError]
    rejected: str
    dropped: Dropped


def preflight(job: Job, cache: CacheSettings | None = None, *, overwrite: bool = False) -> Preflight:
    """Look at model and input, bind them, and plan; overwrite: as of `complete`.

    raises: any JobError, with all offenders of its kind at once.
    """
    return complete(examine(job, cache, overwrite=overwrite), overwrite=overwrite)


def examine(job: Job, cache: CacheSettings | None = None, *, overwrite: bool = False) -> Examined:
    """The quick half: what a mistake in a job file shows up in, whatever the number of files.

    overwrite: what the output holds is removed, and decides nothing.
    cost: a remote model is copied to this machine too, because its digest is one of content.
    """
    cache = cache or CacheSettings()
    refuse_mixed_places(job, cache)
    require_written(Store(job.output.url, job.output.options))
    read, problem = read_members(job, cache)
    with besides(problem):
        return _examined(job, read, cache, overwrite)


def _examined(job: Job, read: Sequence[Read], cache: CacheSettings, overwrite: bool) -> Examined:
    job = job.model_copy(update={"columns": with_labels(job.columns, {one.name: one.model for one, _ in read})})
    store, inputs = found_input(job, overwrite=overwrite)
    job, source, files = inputs.job, inputs.source, inputs.files
    refuse_own_output(job, source)
    found = [member for member, _ in read]
    tried = all_scanned(found).repeatable
    job, found, signature = together(job, found, tried=tried)
    assumed = with_shapes(signature, open_ranks(job.columns, signature) if tried else {})
    inputs = declared(replace(inputs, job=job), store, assumed)
    job, source = inputs.job, inputs.source
    binding = bound_first(job, assumed, source, store, files, tried)
    members = [followed(member, program, binding, job) for member, (_, program) in zip(found, read, strict=True)]
    scanned = all_scanned(members)
    selection, first = Selection.of(job.input), pa.schema([])
    columns = list(binding.columns)
    if selection.where is not None:
        first = first_schema(source, store, files, job.limits)
        try:
            require_bound(selection, first, len(files))
        except BindingError as error:
            raise with_advice(error, selection.columns(first), first, files, source) from error
        columns = list(dict.fromkeys([*columns, *selection.columns(first)]))
    return Examined(job, members, signature, source, store, files, columns, cache, scanned, inputs, selection, first)


def complete(examined: Examined, *, overwrite: bool = False) -> Preflight:
    """The rest: every footer, one schema over all files, the plan.

    What an older version began in the output goes on by its rules. overwrite: it is removed instead.
    """
    gathered, output = _gathered(examined), examined.job.output
    agreed = cache_of(partial(_agreed, gathered))
    ready = agreed(rules_of(output))
    if overwrite:
        return ready
    older = older_rules(output, ready.binding, ready.plan.id, lambda rules: agreed(rules).plan.id)
    return ready if older is None else replace(agreed(older), begun=story(agreed(older).binding, ready.binding))


def _gathered(examined: Examined) -> Gathered:
    job = examined.job
    rejected = rejected_before(job)
    inspected, skipped, meant, schema, out = _looked_through(examined, rejected)
    schemas = [(file.url, file_schema) for file, file_schema in inspected]
    ambiguous = both_ways(job.columns.keep, overview(schemas))
    inputs = replace(examined.inputs, job=job.model_copy(update={"columns": meant}))
    inputs = read_alone(inputs, schema.names)
    examined = replace(examined, job=inputs.job, source=inputs.source, inputs=inputs)
    found, out = _limited(examined, schema, [file for file, _ in inspected], out)
    signature, shapes = _settled(examined, schema, found)
    notes = (*corrections(signature), *shapes, *ambiguous, *repeated_labels(meant))
    plan_id = rejected.plan.id if rejected else ""
    return Gathered(examined, schemas, found, schema, signature, notes, skipped, plan_id, out)


def _limited(
    examined: Examined, schema: pa.Schema, files: Sequence[InputFile], out: Dropped
) -> tuple[Sequence[InputFile], Dropped]:
    """The files up to the limit of the job, where it has one."""
    job = examined.job
    if job.input.limit is None:
        return files, out
    limit = Limit(job.input.limit, examined.selection, examined.source, examined.store, schema, job.limits)
    left = limit.cut(files)
    rows = [sum(group.rows for file in some for group in file.row_groups) for some in (files, left)]
    return left, replace(out, beyond_files=len(files) - len(left), beyond_rows=rows[0] - rows[1])


def _agreed(gathered: Gathered, rules: Rules) -> Preflight:
    """Bind, and plan."""
    examined, schema, signature, found = gathered.examined, gathered.schema, gathered.signature, gathered.files
    job, tried, batch = examined.job, examined.scanned.repeatable, examined.job.batch

    def bound(encoding: str) -> Binding:
        return bind(job.columns, schema, signature, encoding, batch, tried=tried, rules=rules)

    binding = narrowed(job.output, bound(job.output.tensor_encoding), schema).within(examined.scanned.spans)
    require_headers(job, binding)
    first = found[0]
    notes = written(
        job,
        binding,
        bound,
        schema,
        lambda: examined.source.stated(examined.store, _stat(first)),
        varying(gathered.schemas, binding.kept_columns),
    )
    if job.limits.nonfinite == "reject":
        binding = binding.finite()
    if job.limits.reproducible:  # each bit depends on the size of a batch, which is part of the plan then
        binding = replace(binding, batch_rows=_planned_rows(examined, job, binding, found))
    identity = identity_of(job, examined.members, binding, gathered.rejected, gathered.skipped)
    plan = replace(plans.plan(found, job.limits, identity.document()), variables=_told(job.variables))
    members, binding, rows, most = _batched(examined, job, binding, plan)
    return Preflight(
        job=job,
        members=members,
        signature=signature,
        schema=schema,
        binding=binding,
        plan=plan,
        batch_rows=rows,
        most_batch_rows=most,
        cache=examined.cache,
        scanned=examined.scanned,
        inputs=examined.inputs,
        skipped=tuple(map(str, gathered.skipped)),
        notes=(*gathered.notes, *notes, *uncut(job.input, found), *examined.scanned.idle),
        dropped=gathered.dropped,
        rules=rules,
    )


def _stat(file: InputFile) -> FileStat:
    """As it was listed."""
    return FileStat(file.url, file.size, file.version, values=(*file.values, *file.repeated))


def _looked_through(
    examined: Examined, rejected: Rejected | None
) -> tuple[Inspected, Sequence[RunnerError], Columns, pa.Schema, Dropped]:
    """The files, those that are left out, which columns of all files the job means, their one schema; and what cannot
    hold a row that the job wants."""
    job, selection, places = examined.job, examined.selection, rejected.places() if rejected else {}
    listed_files = only_files(examined.files, places, rejected) if rejected else examined.files
    files = listed_files if selection.where is None else may_match(selection, listed_files, examined.first)
    columns = list(examined.columns)
    while True:
        inspected, skipped = inspect(examined.source, examined.store, files, columns, job.limits, selection)
        row_groups, rows = (0, 0) if selection.where is None else dropped([file for file, _ in inspected])
        if rejected:
            inspected = only_rows(inspected, places, rejected)
        schemas = [(file.url, file_schema) for file, file_schema in inspected]
        meant = kept_alone(job.columns, overview(schemas))
        schema = require_agreed(meant, examined.signature, schemas, selection)
        if schema.names == columns:
            out = Dropped(len(listed_files) - len(files), row_groups, rows)
            return inspected, skipped, meant, schema, out
        columns = schema.names  # the first file lacked some


def _settled(examined: Examined, schema: pa.Schema, files: Sequence[InputFile]) -> tuple[Signature, Sequence[str]]:
    """See `runner.preflight.rank.settled`; not of a model that a call would change."""
    job, signature, members = examined.job, examined.signature, examined.members
    if not examined.scanned.repeatable:
        return signature, ()
    first, options = members[0], EngineOptions(threads=1, model=all_options(members), name=members[0].model.url)
    if not first.name:
        loaded = (first.section.engine, first.model.path, first.metagraph.tags, signature, options.uncompiled)
        return settled(job, signature, schema, files, loaded)
    assumed = with_shapes(signature, open_ranks(job.columns, signature))
    binding = bind(job.columns, schema, assumed, job.output.tensor_encoding)
    calls = tuple(replace(member.call(binding), path=member.model.path) for member in members)
    several = replace(options, members=calls).uncompiled
    return settled(job, signature, schema, files, (SEVERAL, "", (), signature, several))


def _batched(
    examined: Examined, job: Job, binding: Binding, plan: Plan
) -> tuple[tuple[Member, ...], Binding, int, int]:
    """The models, and the binding, with the size of all their calls where they have one; the rows of a batch, and how
    many it grows to."""
    rows, most = _batch_rows(job, binding, plan)
    members, compiled = tuple(examined.members), any(member.one_size for member in examined.members)
    if binding.batch_rows is None and examined.scanned.batching is not None:
        rows = most = examined.scanned.batching.rows(most)
    free = binding.batch_rows is None
    if free and compiled:  # every other size of a batch would be compiled anew
        chosen = job.limits.batch_rows == "auto" and not job.workers.gpus
        rows = most = padded_batch_rows(rows, max(shard.rows for shard in plan.shards), chosen)
    if not members[0].name:
        own = replace(binding, batch_rows=rows, padded=True) if compiled and free else binding
        return members, own, rows, most
    if free:  # batches of whole calls, of the model whose calls are the largest
        size = max((member.batch_rows or 1 for member in members), default=1)
        rows, most = max(size, rows // size * size), max(size, most // size * size)
    return tuple(member.sized(rows, free) for member in members), binding, rows, most


def _told(variables: Mapping[str, str]) -> dict[str, str]:
    """As they may stand beside a plan, where all who read the output see them."""
    return {
        name: HIDDEN if names_secret(name) else redact(text)[:_LONGEST]
        for name, text in list(variables.items())[:_MOST_VARIABLES]
    }


def _planned_rows(examined: Examined, job: Job, binding: Binding, files: Sequence[InputFile]) -> int:
    """The rows of every batch where no measurement may decide them."""
    if binding.batch_rows is not None:
        return binding.batch_rows
    stated = job.limits.batch_rows
    rows = _auto_rows(binding, files) if stated == "auto" else stated
    return examined.scanned.batching.rows(rows) if examined.scanned.batching is not None else rows


def _auto_rows(binding: Binding, files: Sequence[InputFile]) -> int:
    groups = [group for file in files for group in file.row_groups]
    read = sum(group.bytes for group in groups) / max(1, sum(group.rows for group in groups))
    return planned_batch_rows(read + _made_bytes(binding), (group.rows for group in groups))


def _made_bytes(binding: Binding) -> float:
    """What a row becomes on its way, beside its columns."""
    return binding.output_bytes_per_row + decoded_bytes_per_row(binding)


def _batch_rows(job: Job, binding: Binding, plan: Plan) -> tuple[int, int]:
    """The rows of a batch, and up to how many a worker may grow it."""
    fixed = binding.batch_rows or (None if job.limits.batch_rows == "auto" else job.limits.batch_rows)
    if fixed is not None:
        return fixed, fixed
    read = plan.decoded_bytes / max(1, plan.rows)
    row_bytes = read + _made_bytes(binding)
    return auto_batch_rows(row_bytes), most_batch_rows(row_bytes)
