"""What can be known before a worker starts: the model, the files, the binding, the plan.

Reads footers and the model's protobuf; imports neither TensorFlow nor Ray. Everything wrong that schema, signature
and listing can tell is an error here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.formats.base import Source
from connectors.formats.registry import ENCODERS, SOURCES, load_class, source_of
from connectors.formats.schema import unify
from connectors.models.cache import CacheSettings
from connectors.store.listing import Pattern, has_wildcard, hidden
from connectors.store.store import FileStat, Store, redact
from jobs import html
from jobs import plan as plans
from jobs.errors import BindingError, InputError, ModelError, OutputError, offenders
from jobs.job import Job, Limits, Model, Output, allowed
from jobs.plan import Plan
from runner.batch.batches import auto_batch_rows, most_batch_rows
from runner.binding.binding import Binding, bind, wanted_columns
from runner.engine import ModelOptions
from runner.model.planned import PlannedModel, planned_model
from runner.model.saved_model import MetaGraph, ModelSpec, Signature, choose_metagraph, choose_signature, read_model
from runner.preflight.files import first_schema, inspect, only_files, only_rows, rejected_before
from runner.scan.effects import Effects, effects
from runner.scan.program import read_programs
from runner.scan.trust import require_trust
from runner.worker.sample import sample_slice
from runner.worker.warm_up import batch_sizes
from runner.worker.worker import WorkerSpec


@dataclass(frozen=True)
class Preflight:
    """A job that is known to fit: what was found, and what will be done."""

    job: Job  # with the input format resolved
    model: ModelSpec
    metagraph: MetaGraph
    signature: Signature
    schema: pa.Schema  # of the columns that are read
    binding: Binding
    plan: Plan
    batch_rows: int
    most_batch_rows: int  # up to which a worker may grow it
    cache: CacheSettings
    options: ModelOptions
    trusted: tuple[str, ...]  # ops that would be refused, and are not because the job trusts the model
    effects: Effects
    skipped: tuple[str, ...] = ()  # what is wrong with the files that are left out

    @property
    def planned(self) -> PlannedModel:
        return planned_model(self.model, self.cache)

    @property
    def warnings(self) -> list[str]:
        """Sentences for people: where the model's answers cannot be repeated, and what is left out."""
        left_out = [f"a bad file is left out: {story}" for story in self.skipped]
        return [*self.effects.warnings(self.signature.name), *left_out]

    def _repr_html_(self) -> str:
        rows = self.binding.describe()
        heads = list(rows[0]) if rows else []
        columns = html.table(heads, ([row.get(name, "") for name in heads] for row in rows))
        return columns + self.plan._repr_html_()

    def spec(self, output: Output) -> WorkerSpec:
        """What workers are told. output: with an absolute url, which means the same place to all of them."""
        return WorkerSpec(
            model=self.planned,
            tags=self.metagraph.tags,
            signature=self.signature,
            engine=self.job.model.engine,
            options=self.options,
            input=self.job.input,
            input_schema=self.schema,
            binding=self.binding,
            batch_rows=self.batch_rows,
            most_batch_rows=self.most_batch_rows,
            repeatable=not (self.effects.writes or self.trusted),
            draws=bool(self.effects.draws),
            readers=None if self.job.workers.readers == "auto" else self.job.workers.readers,
            batch_sizes=batch_sizes(self.plan, self.batch_rows, exact=self.binding.batch_rows is not None),
            sample=sample_slice(self.plan, self.signature),
            output=output,
            plan_id=self.plan.id,
            shards=len(self.plan.shards),
            limits=self.job.limits,
            max_rejected_rows=allowed(self.job.limits.max_rejected_rows, self.plan.rows),
        )


@dataclass(frozen=True)
class Examined:
    """A job whose model was read and whose first file binds; the other files were only listed."""

    job: Job
    model: ModelSpec
    metagraph: MetaGraph
    signature: Signature
    source: Source
    store: Store
    files: Sequence[FileStat]
    columns: Sequence[str]
    cache: CacheSettings
    options: ModelOptions
    trusted: tuple[str, ...]
    effects: Effects


def preflight(job: Job, cache: CacheSettings | None = None) -> Preflight:
    """Look at model and input, bind them, and plan. raises: any JobError, with all offenders of its kind at once."""
    return complete(examine(job, cache))


def examine(job: Job, cache: CacheSettings | None = None) -> Examined:
    """The quick half: what a mistake in a job file shows up in, whatever the number of files.

    cost: a remote model is copied to this machine too, because its digest is one of content.
    """
    cache = cache or CacheSettings()
    model = read_model(job.model.url, job.model.version, job.model.options, cache)
    metagraph = choose_metagraph(model, job.model.tags)
    signature = choose_signature(metagraph, job.model.signature, model.url)
    options = _model_options(job.model)
    programs = read_programs(model)
    trusted = require_trust(programs, model.url, job.model.trust)
    program = programs[model.metagraphs.index(metagraph)]
    found = effects(program, signature.name)
    store = Store(job.input.url[0], job.input.options)
    job, source, files = _listed(job, store)
    _refuse_own_output(job, store, source)
    first = first_schema(source, store, files, job.limits)
    bind(job.columns, first, signature, job.output.tensor_encoding)
    columns = wanted_columns(job.columns, signature, first)
    return Examined(job, model, metagraph, signature, source, store, files, columns, cache, options, trusted, found)


def complete(found: Examined) -> Preflight:
    """The rest: every footer, one schema over all files, the plan."""
    job, signature = found.job, found.signature
    rejected = rejected_before(job)
    places = rejected.places() if rejected else {}
    files = only_files(found.files, places, rejected) if rejected else found.files
    inspected, skipped = inspect(found.source, found.store, files, found.columns, job.limits)
    if rejected:
        inspected = only_rows(inspected, places, rejected)
    schema, problems = unify([(file.url, file_schema) for file, file_schema in inspected], found.columns)
    if problems:
        raise BindingError(
            f"input and job do not fit: {len(problems)} problem{'s' * (len(problems) > 1)} in {len(inspected)} files"
            f"\n{offenders(problems)}"
        )
    binding = bind(job.columns, schema, signature, job.output.tensor_encoding)
    load_class(ENCODERS, job.output.format)().check(binding.output_schema)
    if job.limits.nonfinite == "reject":
        binding = binding.finite()
    identity = _identity(job, found.model, found.metagraph, signature, binding, found.options)
    if found.trusted:
        identity["model"]["trusted"] = list(found.trusted)
    identity["input"] |= {"only_rejects": rejected.plan.id} if rejected else {}
    identity["input"] |= {"skipped": {error.facts["file"]: error.facts["code"] for error in skipped}} if skipped else {}
    plan = plans.plan([file for file, _ in inspected], job.limits, identity)
    rows, most = _batch_rows(job, binding, plan)
    if found.options.xla and binding.batch_rows is None:  # every other size of a batch would be compiled anew
        rows = most = min(rows, 1 << max(shard.rows - 1 for shard in plan.shards).bit_length())
        binding = replace(binding, batch_rows=rows)
    return Preflight(
        job,
        found.model,
        found.metagraph,
        signature,
        schema,
        binding,
        plan,
        rows,
        most,
        found.cache,
        found.options,
        found.trusted,
        found.effects,
        tuple(error.message for error in skipped),
    )


def _model_options(model: Model) -> ModelOptions:
    """raises: ModelError for a library of ops that is not here, or two options that exclude each other."""
    libraries = []
    for name in model.op_libraries:
        path = str(Path(name).expanduser().absolute())
        try:
            with Path(path).open("rb") as file:
                libraries.append((path, hashlib.file_digest(file, "sha256").hexdigest()))
        except OSError as error:
            raise ModelError(
                f"cannot read the op library '{name}': {error.strerror or error};"
                " expected a shared library at a path that every worker sees"
            ) from error
    return ModelOptions(model.xla, model.mixed_precision, tuple(libraries))


def _listed(job: Job, store: Store) -> tuple[Job, Source, Sequence[FileStat]]:
    """The input files and their format: the job's, else that of the first URL's suffix, else the first with files."""
    url = job.input.url[0].lower()
    by_suffix = {end: known for known in SOURCES for end in load_class(SOURCES, known).suffixes}
    told = job.input.format or ("tfrecord" if job.input.examples else None)
    named: str | None = told or next((by_suffix[end] for end in by_suffix if url.endswith(end)), None)
    names = [named] if named else list(SOURCES)
    refusal: InputError | None = None
    for name in names:
        source: Source = load_class(SOURCES, name)()
        try:
            files = store.list(job.input.url, source.suffixes)
        except InputError as error:
            if error.facts.get("code") != "NO_INPUT":
                raise
            refusal = refusal or error
            continue
        resolved = job.input.model_copy(update={"format": name})
        if resolved.examples == "infer":
            resolved = resolved.model_copy(update={"examples": load_class(SOURCES, name)().infer(store, files)})
        return job.model_copy(update={"input": resolved}), source_of(resolved), files
    assert refusal is not None  # there is at least one format
    raise refusal


def _refuse_own_output(job: Job, store: Store, source: Source) -> None:
    """raises: OutputError where the parts of this job would be input of the next run of it."""
    output = Store(job.output.url, job.output.options)
    if output.scheme != store.scheme:
        return
    home = output.url.rstrip("/") + "/"
    for given in job.input.url:
        url = Store(given, job.input.options).url
        pattern = Pattern.parse(url) if has_wildcard(url) else Pattern(url)
        folder = pattern.folder.rstrip("/") + "/"
        part = (*filter(None, home.removeprefix(folder).split("/")), f"part{source.suffixes[0]}")
        if home.startswith(folder) and not hidden(part) and pattern.wants(part, source.suffixes):
            raise OutputError(
                f"cannot write into '{redact(output.url)}': it lies in the input '{redact(given)}', so that the next"
                " run of this job would read its own output; choose an output folder beside the input"
            )


def _identity(
    job: Job,
    model: ModelSpec,
    metagraph: MetaGraph,
    signature: Signature,
    binding: Binding,
    options: ModelOptions,
) -> dict[str, Any]:
    """All that can change a result beside files and cuts, in the words of the job file."""
    return {
        "model": {
            "digest": model.digest,
            "version": model.version,
            "tags": list(metagraph.tags),
            "signature": signature.name,
            "engine": job.model.engine,
            "xla": options.xla,
            "mixed_precision": options.mixed_precision,
            "op_libraries": [sha256 for _, sha256 in options.op_libraries],
        },
        "columns": binding.identity(),
        "input": {"format": job.input.format} | ({"examples": job.input.examples} if job.input.examples else {}),
        "output": {
            "format": job.output.format,
            "compression": job.output.compression,
            "tensor_encoding": job.output.tensor_encoding,
        },
        "limits": {
            "shard_bytes": job.limits.shard_bytes,
            "shard_rows": job.limits.shard_rows,
            "on_bad_row": job.limits.on_bad_row,
            **_policies(job.limits),
        },
    }


def _policies(limits: Limits) -> dict[str, Any]:
    """What else decides which rows are rejected; left out at its default, so that older plans stay what they are."""
    usual = Limits()
    names = ("on_bad_file", "nonfinite", "nan_output", "reject_input", "max_row_bytes")
    return {name: value for name in names if (value := getattr(limits, name)) != getattr(usual, name)}


def _batch_rows(job: Job, binding: Binding, plan: Plan) -> tuple[int, int]:
    """The rows of a batch, and up to how many a worker may grow it."""
    fixed = binding.batch_rows or (None if job.limits.batch_rows == "auto" else job.limits.batch_rows)
    if fixed is not None:
        return fixed, fixed
    read = sum(shard.bytes for shard in plan.shards) / max(1, plan.rows)
    row_bytes = read + binding.output_bytes_per_row
    return auto_batch_rows(row_bytes), most_batch_rows(row_bytes)
