"""All that a worker must know, and what it says of itself while it works. Values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from jobs.attempt import InputSlice
from jobs.section.input import Input
from jobs.section.limits import Limits
from jobs.section.output import Output
from runner.binding.binding import Binding
from runner.engine import EngineMember, ModelOptions
from runner.model.planned import PlannedModel
from runner.model.signature import Signature


@dataclass(frozen=True)
class PlannedMember:
    """One of several models. call: how it is called, but for the folder."""

    model: PlannedModel
    call: EngineMember


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker must know, beside its device. Small and picklable; carries no secrets, only references."""

    model: PlannedModel
    tags: tuple[str, ...]
    signature: Signature
    engine: str
    options: ModelOptions
    input: Input  # format resolved
    input_schema: pa.Schema  # of the columns that are read, over all files
    binding: Binding
    batch_rows: int
    most_batch_rows: int  # up to which a worker may grow it
    repeatable: bool  # the same batch may be run twice: no state of the model changes
    readers: int | None  # threads that read and decode; None: by the cpus
    batch_sizes: tuple[int, ...]  # that the plan comes to, the frequent ones first
    draws: bool  # random numbers; `plan` says so
    most_rows: int | None  # of a call, as the model itself says; then batches are filled, over row groups too
    sample: InputSlice | None  # rows to warm up with; None: make them up
    elsewhere: tuple[InputSlice, ...]  # rows of other places, where those do not differ
    rejected: bool  # all rows are such as an earlier run rejected
    output: Output
    plan_id: str
    shards: int
    part_rows: int = 0  # of the largest part
    limits: Limits = field(default_factory=Limits)
    max_rejected_rows: int = 0  # of the job
    compiles: bool = False  # each shape of what is fed costs a compilation
    deciders: tuple[str, ...] = ()  # of a model that is compiled: fed tensors whose values decide a shape
    members: tuple[PlannedMember, ...] = ()  # the models, where there are several; `model` is the first of them

    @property
    def scored_schema(self) -> pa.Schema:
        """Of the columns that are fed or kept: the others are read to choose rows by."""
        names = set(self.binding.columns)
        return pa.schema([field for field in self.input_schema if field.name in names])

    @property
    def filled(self) -> bool:
        """Batches are filled, over row groups too: a model has calls of a few rows wait, or fills them up itself."""
        return self.most_rows is not None or any(member.call.batch_rows is not None for member in self.members)

    @property
    def url(self) -> str:
        """Of the model; of several all of theirs, for messages."""
        return ", ".join(dict.fromkeys(member.model.url for member in self.members)) or self.model.url

    @property
    def digest(self) -> str:
        """Of the model; of several 'NAME=DIGEST' each, with commas between."""
        digests = [f"{member.call.name}={member.model.digest}" for member in self.members]
        return ",".join(digests) or self.model.digest


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows done in the oldest attempt in hand; attempt "" while there is none. beside: rows done in those behind it.

    calls: of an isolated worker's model, which may take minutes to find one row: it is no stall while they go on.
    waits: for which call on a store it has waited for long; "" for none.
    """

    attempt: str = ""
    rows: int = 0
    beside: int = 0
    calls: int = 0
    waits: str = ""


Observe = Callable[[int, int, int, Mapping[str, float]], None]  # rows, most, padding, seconds by stage so far
