"""The section `workers`: what each of them asks of the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from jobs.section.base import Section
from jobs.section.number import Amount, ByteCount, Processes, Threads, Units, parse_number

# Each reader thread may have one row group in the making. More than four only pay where a store is slow to answer.
_MOST_READERS = 4


def reader_threads(cpus: int) -> int:
    """How many threads of a worker read and decode, where the job leaves it open."""
    return max(1, min(cpus, _MOST_READERS))


class Workers(Section):
    """What each worker asks of the cluster. `count: auto`: one per GPU, or as many as the CPUs hold.

    Instead of `count`, `max` (and `min`, 1 if omitted): as many as there is work and room for: `jobs.schedule.elastic`.
    """

    if TYPE_CHECKING:  # what it reads is more than what it holds

        def __init__(self, **values: Any) -> None: ...

    count: Literal["auto"] | Processes = "auto"
    min: Processes | None = None
    max: Processes | None = None
    gpus: Annotated[float, BeforeValidator(parse_number), Field(ge=0, le=100_000, strict=True)] = 0
    cpus: Units = 1
    readers: Literal["auto"] | Threads = "auto"  # threads of a worker that fetch and decode; auto: by its cpus
    memory: ByteCount | None = None
    resources: dict[str, Amount] = Field(default_factory=dict)

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"{gpus} GPUs cannot be assigned: a share must be below 1, or a whole number")
        return gpus

    @model_validator(mode="after")
    def _one_way_to_count(self) -> Workers:
        if self.min is None and self.max is None:
            return self
        if self.count != "auto":
            raise ValueError("give 'count', or 'min' and 'max'; found both")
        if self.max is None or self.max < (self.min or 1):
            raise ValueError(f"'max' must be at least 'min'; found min {self.min or 1}, max {self.max or 'missing'}")
        return self

    @property
    def least(self) -> int | None:
        """Of an elastic run, how many there should be at least; None where the number is fixed."""
        return None if self.max is None else self.min or 1
