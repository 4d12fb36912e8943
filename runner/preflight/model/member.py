"""One of the models of a job, before a worker starts: what it declares, what it would do, and how it is called.

Reads a model's protobuf and judges it; refuses to know files and columns of the input. The invariant: of one model
alone nothing has another name than in the model itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from connectors.models.cache import CacheSettings
from jobs.errors import BindingError, JobError, ModelError, RunnerError, offenders, one_of
from jobs.job import Job
from jobs.section.canonical import canonical
from jobs.section.model import Model
from jobs.words import counted
from runner.binding.binding import Binding
from runner.binding.composite import PartsSource
from runner.binding.constant import ConstantSource
from runner.binding.shaping.target import outputs_of, shaped_of
from runner.binding.source import Span
from runner.engine import EngineMember, ModelOptions
from runner.engine.ops.package import Chosen, trusted_ops
from runner.model.saved_model import read_model
from runner.model.signature import MetaGraph, ModelSpec, Signature, choose_metagraph, choose_signature, prefixed
from runner.preflight.model.options import model_options
from runner.scan.batching import Batching, batching
from runner.scan.compiled import Compiled, compiled
from runner.scan.effects import Effects, effects
from runner.scan.flow import Flow
from runner.scan.lookups import lookups
from runner.scan.ops import registry
from runner.scan.program import Program, read_programs
from runner.scan.swallow import swallowing
from runner.scan.trust import Trust, require_trust
from runner.scan.unfed import require_fed
from runner.scan.xla.module import OP as MODULE
from runner.scan.xla.module import Module, modules, require_platform, require_support


@dataclass(frozen=True)
class Scanned:
    """What the graph behind a signature tells before anything is called.

    trusted:    ops that would be refused, and are not because the job trusts the model.
    swallowing: ops in which a NaN may vanish on a CPU.
    batching:   of the model's own.
    spans:      of inputs that are places in a table.
    compiled:   what XLA changes; None where the job does not compile.
    idle:       sentences about trust and packages that let nothing through.
    modules:    programs behind the outputs that are compiled for each shape that they are called with.
    vouched:    ops that need no trust, and that the plan lists with the trusted ones: older versions did.
    """

    trusted: tuple[str, ...]
    effects: Effects
    swallowing: tuple[str, ...]
    batching: Batching | None
    spans: Mapping[str, Span] = field(default_factory=dict)
    compiled: Compiled | None = None
    idle: tuple[str, ...] = ()
    modules: tuple[Module, ...] = ()
    vouched: tuple[str, ...] = ()

    @property
    def compiles(self) -> bool:
        """Whether every other shape of what is fed is compiled anew, be it by the job or by the model."""
        return bool(self.modules) or self.compiled is not None

    @property
    def repeatable(self) -> bool:
        """Whether the same rows may be given to the model twice, be it to try it out."""
        return not (self.effects.writes or self.trusted)


@dataclass(frozen=True)
class Member:
    """name: "" where it is the only one. section: of the job. batch_rows: of each call, where it is one of several and
    takes no other number, or is compiled for one. padded: that number is the job's choice, and not the model's."""

    name: str
    section: Model
    model: ModelSpec
    metagraph: MetaGraph
    signature: Signature
    options: ModelOptions
    scanned: Scanned
    batch_rows: int | None = None
    padded: bool = False

    @property
    def where(self) -> str:
        return f"signature {self.signature.name!r} of model '{self.model.url}'"

    def names(self, tensors: Iterable[str]) -> list[str]:
        """Of tensors of the merged signature its own, under its own names."""
        start = prefixed(self.name, "")
        return [name.removeprefix(start) for name in tensors if name.startswith(start)]

    @property
    def one_size(self) -> bool:
        """Whether each other number of rows a call is compiled anew."""
        return self.scanned.compiles

    @property
    def warnings(self) -> list[str]:
        """Sentences for people: where its answers cannot be repeated, and what XLA makes of it."""
        compiled = self.scanned.compiled.sentences() if self.scanned.compiled else []
        said = [*self.scanned.effects.warnings(self.signature.name), *compiled]
        return [f"model {self.name!r}: {story}" for story in said] if self.name else said

    def sized(self, rows: int, padded: bool) -> Member:
        """The same, one of several, called with so many rows where it is compiled for one number."""
        free = self.one_size and self.batch_rows is None
        return replace(self, batch_rows=rows, padded=padded) if free else self

    def call(self, binding: Binding) -> EngineMember:
        """How an engine of several calls it. binding: of all.

        raises: BindingError where none of its inputs follows the rows; ModelError, see `_require_cuttable`.
        """
        bound = {own: one for one in binding.inputs for own in self.names([one.name])}
        fed = {name: one.source for name, one in bound.items() if one.source is not None}
        self._require_cuttable([name for name, source in fed.items() if isinstance(source, PartsSource)])
        follows = tuple(name for name, source in fed.items() if not isinstance(source, ConstantSource))
        if not follows:
            raise BindingError(
                f"cannot call {self.where} ({self.name}): all of its inputs are constants or defaults; expected at"
                " least one column to be fed",
                code="MODEL_SIGNATURE",
            )
        start = prefixed(self.name, "")
        shaped = [
            replace(one, of=one.of.removeprefix(start))
            for name, one in shaped_of(binding.outputs).items()
            if name.startswith(start)
        ]
        return EngineMember(
            name=self.name,
            engine=self.section.engine,
            path="",
            url=self.model.url,
            tags=self.metagraph.tags,
            signature=replace(self.signature, shaped={one.name: one for one in shaped}),
            options=self.options,
            batch_rows=self.batch_rows,
            padded=self.padded,
            follows=follows,
            deciders=self.scanned.compiled.fed(self.signature) if self.scanned.compiled else (),
            compiles=self.scanned.compiles,
        )

    def _require_cuttable(self, odd: Sequence[str]) -> None:
        """raises: ModelError for a fixed number of rows a call, and inputs that are not cut into such pieces.

        odd: its inputs that are ragged or sparse.
        """
        if (self.batch_rows is not None or self.one_size) and odd:
            size = "one size" if self.batch_rows is None else f"{counted(self.batch_rows, 'row')} each"
            raise ModelError(
                f"cannot call {self.where} beside other models: its calls have {size},"
                f" and {one_of(odd)} {'is' if len(odd) == 1 else 'are'} ragged or sparse, which is not cut into such"
                " pieces; score it in a job of its own"
            )


Read = tuple[Member, Program]


def read_members(job: Job, cache: CacheSettings) -> tuple[list[Read], RunnerError | None]:
    """Every model of a job, with the program behind its signature; and what is wrong with the ops that it is to have,
    for `besides` to tell with whatever else is wrong.

    raises: ModelError, and what else a model cannot be read for; of several all of them at once.
    cost:   a remote model is copied to this machine.
    """
    found: list[Read] = []
    refused: dict[str, RunnerError] = {}
    lacking: dict[str, RunnerError] = {}
    known: dict[str, tuple[ModelSpec, Sequence[Program]]] = {}  # of several signatures the model is read once
    for name, section in job.called.items():
        try:
            place = canonical([section.url, section.version, section.options])
            if place not in known:
                model = read_model(section.url, section.version, section.options, cache)
                known[place] = model, read_programs(model)
            member, program, problem = _chosen(name, section, *known[place])
            if problem:
                lacking[name] = problem
            if job.limits.reproducible:
                _require_repeatable(member)
            found.append((member, program))
        except RunnerError as error:
            refused[name] = lacking.pop(name, error)  # what is not there may be why
    if refused:
        raise _of_models(job, refused | lacking)
    return found, _of_models(job, lacking) if lacking else None


def _of_models(job: Job, refused: Mapping[str, RunnerError]) -> RunnerError:
    """What is wrong with some of the models of a job, as one error; of the only one its own."""
    refused = {name: refused[name] for name in job.called if name in refused}
    first = next(iter(refused.values()))
    if "" in refused:
        return first
    if len(refused) == 1:
        (name,) = refused
        return type(first)(f"model {name!r}: {first.message}", **first.facts | {"model": name})
    told = offenders([f"{name}: {error.message}" for name, error in refused.items()])
    facts = first.facts | {"model": ",".join(refused)}
    return type(first)(f"cannot use {len(refused)} of {len(job.called)} models:\n{told}", **facts)


@contextmanager
def besides(problem: RunnerError | None) -> Iterator[None]:
    """raises: `problem` at the end of what is done within; where that fails as well, both at once."""
    try:
        yield
    except JobError as error:
        if problem is None:
            raise
        raise type(problem)(f"{problem.message}\n{error}", **problem.facts) from error
    if problem is not None:
        raise problem


def _chosen(
    name: str, section: Model, model: ModelSpec, programs: Sequence[Program]
) -> tuple[Member, Program, ModelError | None]:
    """And what is wrong with the ops that the job has for it."""
    metagraph = choose_metagraph(model, section.tags)
    signature = choose_signature(metagraph, section.signature, model.url)
    program = programs[model.metagraphs.index(metagraph)]
    problem: ModelError | None = None
    try:
        options, packages = model_options(section, program)
    except ModelError as error:
        problem, options, packages = error, ModelOptions(), Chosen()
    trust = replace(Trust.of(section.trust), packaged=trusted_ops(section.op_packages))
    try:
        trusted = require_trust(programs, model.url, trust)
    except ModelError as error:
        if problem is None:
            raise
        raise problem from error  # ops that are not there are not known
    compiles = any(node.op == MODULE for each in programs for _, node in each.nodes())
    scanned = Scanned(
        trusted,
        effects(program, signature.name),
        swallowing(program, signature.name),
        batching(program, signature.name),
        idle=(*trust.idle(programs), *packages.notes),
        vouched=(MODULE,) if trust.everything and compiles else (),
    )
    return Member(name, section, model, metagraph, signature, options, scanned), program, problem


def followed(member: Member, program: Program, binding: Binding, job: Job) -> Member:
    """The same, with what the outputs that are written and the columns that feed it tell more.

    binding: of all models. raises: ModelError for an output that no call can compute, or no worker of the job's.
    """
    outputs = member.names(outputs_of(binding.outputs))
    signature = member.signature
    if not outputs:
        raise BindingError(
            f"no output of model {member.name!r} is written: name one under `columns.outputs`, or leave the model out",
            code="MODEL_SIGNATURE",
        )
    require_fed(program, signature, outputs, member.model.url)
    inner = modules(program, signature.name, outputs if member.section.engine == "session" else None)  # eager runs all
    require_platform(inner, job.workers.gpus, signature.name, member.model.url)
    require_support(inner, registry().version, signature.name, member.model.url)
    flow = Flow(program, program.output_tensors(signature.name, outputs))
    spans = {name: Span(found.lowest, found.highest, found.table) for name, found in lookups(flow, signature).items()}
    named = {prefixed(member.name, name): span for name, span in spans.items()}
    changed = compiled(flow, signature, member.names(binding.within(named).spanned)) if member.options.xla else None
    known = replace(member, scanned=replace(member.scanned, spans=spans, compiled=changed, modules=inner))
    if member.name:
        known.call(binding)  # what cannot be called beside others is refused before anything is planned
    return known


def _require_repeatable(member: Member) -> None:
    """raises: ModelError where the same call may give other answers, or nobody knows."""
    scanned = member.scanned
    kinds = {
        "may draw random numbers or read the clock": scanned.effects.draws,
        "may change variables or tables": scanned.effects.writes,
        "has ops of which only `trust` says that they are harmless": scanned.trusted,
    }
    found = [f"{what} ({', '.join(ops)})" for what, ops in kinds.items() if ops]
    if found:
        raise ModelError(
            f"cannot promise equal bits for {member.where}: it {' and '.join(found)};"
            " export it without these, or leave out `limits.reproducible`"
        )
