"""The section `model`: which SavedModel is called, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from jobs.section.base import Location, Names, Url
from jobs.section.number import MOST, Rows, parse_number

_OP = re.compile(
    r"[A-Za-z_.][A-Za-z0-9_.>/\\-]*"
)  # as TensorFlow names them, with the package: 'TFText>WordpieceTokenize'
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # of one of several: it stands before the dot of a tensor's
_TRUTHS = ("true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n")  # as pydantic reads them


class Model(Location):
    if TYPE_CHECKING:  # what it reads is more than what it holds

        def __init__(self, **values: Any) -> None: ...

    url: Url
    version: (
        Literal["latest"] | Annotated[int, BeforeValidator(parse_number), Field(ge=0, le=MOST, strict=True)] | None
    ) = None
    tags: Names | None = None
    signature: str | None = None
    signatures: Annotated[Names, Field(min_length=1)] | None = None  # several of it, each called with every row
    engine: Literal["session", "eager"] = "session"
    # These change numbers, and are part of the plan's identity.
    xla: bool = False  # compile the signature, for one batch size
    mixed_precision: Literal["bfloat16", "float16"] | None = None  # what float32 matrices are multiplied in
    op_libraries: Names = ()  # shared libraries that register ops of the model; paths that every worker sees
    op_packages: Names = ()  # installed packages that register ops of the model; those are trusted
    batch: Rows | None = None  # rows of each call, for a graph that takes no other number; None: as its tensors say

    @model_validator(mode="after")
    def _compiled_as_asked(self) -> Model:
        if self.engine == "eager" and self.xla and self.mixed_precision:
            raise ValueError(
                "engine 'eager' does not compile with XLA in mixed precision: leave one out, or choose 'session'"
            )
        return self

    # Load it although its ops may touch files, the network or Python: whatever it holds, or with these ops.
    trust: bool | tuple[str, ...] = False

    @field_validator("trust", mode="before")
    @classmethod
    def _trust_of_one(cls, given: Any) -> Any:
        """An op may stand alone, as other names do; what a text may say of true and false is none."""
        return (given,) if isinstance(given, str) and given.lower() not in _TRUTHS else given

    @field_validator("trust")
    @classmethod
    def _ops_by_name(cls, trust: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        ops: Sequence[str] = () if isinstance(trust, bool) else trust
        if strange := [op for op in ops if not _OP.fullmatch(op)]:
            raise ValueError(f"{', '.join(map(repr, strange))} is no name of an op; expected some as in `runner scan`")
        return trust

    @model_validator(mode="after")
    def _one_or_several_signatures(self) -> Model:
        if self.signature is not None and self.signatures is not None:
            raise ValueError("give 'signature' or 'signatures'; found both")
        for name in self.signatures or ():
            require_name(name)
        if len(set(self.signatures or ())) < len(self.signatures or ()):
            raise ValueError(f"'signatures' names one twice: {', '.join(self.signatures or ())}")
        return self


def require_name(name: str) -> str:
    """raises: ValueError for what cannot stand before the dot of a tensor's name."""
    if _NAME.fullmatch(name):
        return name
    raise ValueError(
        f"{name!r} cannot stand before the names of tensors; expected a letter, and behind it letters, digits, '_', '-'"
    )
