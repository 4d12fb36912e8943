"""The section `model`: which SavedModel is called, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from jobs.section.base import Location, Names, Url
from jobs.section.number import MOST, Rows, parse_number


class Model(Location):
    if TYPE_CHECKING:  # what it reads is more than what it holds

        def __init__(self, **values: Any) -> None: ...

    url: Url
    version: (
        Literal["latest"] | Annotated[int, BeforeValidator(parse_number), Field(ge=0, le=MOST, strict=True)] | None
    ) = None
    tags: Names | None = None
    signature: str | None = None
    engine: Literal["session", "eager"] = "session"
    # These change numbers, and are part of the plan's identity.
    xla: bool = False  # compile the signature, for one batch size
    mixed_precision: Literal["bfloat16", "float16"] | None = None  # what float32 matrices are multiplied in
    op_libraries: Names = ()  # shared libraries that register ops of the model; paths that every worker sees
    batch: Rows | None = None  # rows of each call, for a graph that takes no other number; None: as its tensors say

    @model_validator(mode="after")
    def _compiled_as_asked(self) -> Model:
        if self.engine == "eager" and self.xla and self.mixed_precision:
            raise ValueError(
                "engine 'eager' does not compile with XLA in mixed precision: leave one out, or choose 'session'"
            )
        return self

    trust: bool = False  # load it although its ops may touch files, the network or Python
