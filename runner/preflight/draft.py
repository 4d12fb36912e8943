"""A model and an input, and no job yet: which columns feed which tensors, as far as names, types and shapes tell.

Owns what is a find and what a guess; refuses to know how it is written down. The invariant: whatever is proposed binds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import pyarrow as pa

from connectors.formats.base import States
from connectors.models.cache import CacheSettings
from jobs.errors import BindingError
from jobs.format import EXAMPLES_FORMAT
from jobs.job import Job
from jobs.section.columns import Columns, InputColumn
from jobs.section.limits import Limits
from runner.binding.bind import bind
from runner.binding.feeding import feedable
from runner.model.saved_model import read_model
from runner.model.signature import (
    DEFAULT_SIGNATURE,
    MetaGraph,
    Signature,
    TensorSpec,
    choose_metagraph,
    choose_signature,
)
from runner.preflight.input.declared import wanted_types
from runner.preflight.input.files import first_schema
from runner.preflight.input.listing import found as found_input
from runner.scan.packages import wanted
from runner.scan.program import read_programs

_NEAR = 0.6  # of two names, as `difflib` compares them: what is nearer is a guess that is written down
_NOISE = re.compile(r"^(serving_default|input|inputs|feature|features)_|_(input|inputs|tensor|ids?)$")
_MOST = 5  # candidates that are named


@dataclass(frozen=True)
class Fed:
    """What an input gets. rule: None where nothing was found. why: of a guess, '' of a find.

    candidates: columns that fit by type and shape, the nearest names first.
    """

    spec: TensorSpec
    rule: InputColumn | None
    why: str = ""
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """The rest of a job.

    job:     as it was given; with `input.examples` where columns are made of tf.Examples.
    others:  signatures that were not chosen.
    outputs: output -> whether it can be written.
    format:  of the input.
    packages: that have ops of the model.
    """

    job: Job
    signature: Signature
    others: tuple[str, ...]
    fed: tuple[Fed, ...]
    outputs: dict[str, bool]
    schema: pa.Schema
    format: str
    files: int
    packages: tuple[str, ...] = ()

    @property
    def model_url(self) -> str:
        return next(iter(self.job.called.values())).url

    @property
    def complete(self) -> bool:
        return all(fed.rule is not None for fed in self.fed)

    @property
    def free(self) -> list[str]:
        """Columns that feed nothing."""
        used = {name for fed in self.fed if fed.rule for name in _used(fed.rule)}
        return [name for name in self.schema.names if name not in used]


def draft(job: Job, cache: CacheSettings) -> Draft:
    """Look at the model and at the first file. job: with one model, input and signature; its mapping is not looked at.

    raises: ModelError, InputError, as `examine` does.
    """
    (section,) = job.called.values()
    model = read_model(section.url, section.version, section.options, cache)
    metagraph = choose_metagraph(model, section.tags)
    signature = _chosen(metagraph, section.signature, model.url)
    packages = wanted(node.op for program in read_programs(model) for _, node in program.nodes())
    made = replace(_drafted(job, metagraph, signature), packages=tuple(packages))
    if made.format != EXAMPLES_FORMAT or made.complete:
        return made
    # One column of whole records is not what the model wants: perhaps what is in them is.
    inferred = job.model_copy(update={"input": job.input.model_copy(update={"examples": "infer"})})
    return replace(_drafted(inferred, metagraph, signature), packages=made.packages)


def _drafted(job: Job, metagraph: MetaGraph, signature: Signature) -> Draft:
    store, found = found_input(job)
    schema = first_schema(found.source, store, found.files, Limits())
    written = {name: _is_written(signature, name) for name in signature.outputs}
    plain = replace(signature, outputs={name: spec for name, spec in signature.outputs.items() if written[name]})
    return Draft(
        job=job,
        signature=signature,
        others=tuple(name for name in metagraph.signatures if name != signature.name),
        fed=tuple(_fed(plain, _Columns(schema, found.source.states))),
        outputs=written,
        schema=schema,
        format=found.job.input.format or "?",
        files=len(found.files),
    )


def _chosen(metagraph: MetaGraph, name: str | None, url: str) -> Signature:
    """The one that is named, else the default one, else the first."""
    if name is None and metagraph.signatures and DEFAULT_SIGNATURE not in metagraph.signatures:
        name = next(iter(metagraph.signatures))
    return choose_signature(metagraph, name, url)


@dataclass(frozen=True)
class _Columns:
    """The columns of the first file, and what files of the format say of them."""

    schema: pa.Schema
    states: States

    def read_for(self, columns: Columns, signature: Signature) -> pa.Schema:
        """In the types in which they are read, where they are mapped so."""
        if self.states == "all":
            return self.schema
        return wanted_types(self.schema, columns, signature, text=self.states == "names")


def _fed(signature: Signature, found: _Columns) -> Iterator[Fed]:
    leaves = list(_leaves(found.schema))
    by_name = {name for name in signature.inputs if _binds(signature, name, InputColumn(column=name), found)}
    taken = set(by_name)
    for name, spec in signature.inputs.items():
        if name in by_name:
            yield Fed(spec, InputColumn(column=name))
            continue
        if spec.default is not None:
            continue  # the model has a value of its own
        fitting = [leaf for leaf in leaves if _binds(signature, name, InputColumn(column=leaf), found)]
        near = sorted(fitting, key=lambda leaf: -_likeness(name, leaf))
        open_ = [leaf for leaf in near if leaf not in taken]
        guess, why = _guess(signature, name, open_, found)
        if guess is not None:
            taken |= {guess.column} if guess.column else set()
        yield Fed(spec, guess, why, tuple(near[:_MOST]))


def _guess(signature: Signature, name: str, fitting: Sequence[str], found: _Columns) -> tuple[InputColumn | None, str]:
    """What is likely enough to be written down, and why."""
    if fitting and _likeness(name, fitting[0]) >= _NEAR:
        return InputColumn(column=fitting[0]), "a near name, and it fits"
    if len(fitting) == 1 and feedable(signature.inputs[name]):
        return InputColumn(column=fitting[0]), "the only column that fits"
    for pattern in _numbered(found.schema):
        if _binds(signature, name, InputColumn(stack=pattern), found):
            return InputColumn(stack=pattern), "as many columns as the tensor is wide"
    return None, ""


def _is_written(signature: Signature, name: str) -> bool:
    """Whether the output becomes a column, whatever feeds the inputs."""
    first = dict(list(signature.inputs.items())[:1])  # an agreement has inputs
    alone = replace(signature, inputs=first, outputs={name: signature.outputs[name]})
    return f"output {name!r}" not in _refusal(Columns(), alone, pa.schema([]))


def _binds(signature: Signature, name: str, rule: InputColumn, found: _Columns) -> bool:
    """Whether the rule feeds the input, whatever feeds the others."""
    alone, columns = replace(signature, inputs={name: signature.inputs[name]}), Columns(inputs={name: rule})
    return not _refusal(columns, alone, found.read_for(columns, alone))


def _refusal(columns: Columns, signature: Signature, schema: pa.Schema) -> str:
    try:
        bind(columns, schema, signature, "fixed_shape_tensor", tried=True)
    except BindingError as error:
        return error.message
    return ""


def _leaves(schema: pa.Schema) -> Iterator[str]:
    """Columns, and the fields of structs with dots."""

    def below(field: pa.Field, way: str) -> Iterator[str]:
        yield way
        if pa.types.is_struct(field.type):
            for inner in field.type:
                yield from below(inner, f"{way}.{inner.name}")

    for field in schema:
        yield from below(field, field.name)


def _numbered(schema: pa.Schema) -> list[str]:
    """Patterns of columns that differ in a number at their end: 'f*' of f0, f1, f2."""
    stems = [match[1] for name in schema.names if (match := re.fullmatch(r"(.*?)\d+", name)) and match[1]]
    return [f"{stem}*" for stem in dict.fromkeys(stems) if stems.count(stem) > 1]


def _likeness(tensor: str, column: str) -> float:
    """From 0 to 1; what tools put around a name does not count, nor what a field lies in."""
    a, b = (_NOISE.sub("", name.lower().rpartition(".")[2].replace("-", "_")) for name in (tensor, column))
    return float(SequenceMatcher(a=a, b=b).ratio())


def _used(rule: InputColumn) -> list[str]:
    if rule.column is not None:
        return [rule.column.partition(".")[0], rule.column]
    return [rule.stack] if isinstance(rule.stack, str) else list(rule.stack or ())
