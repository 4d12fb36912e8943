"""The section `models`: several SavedModels that score the same rows in one pass, each under a name."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from jobs.section.columns import InputColumn, by_own_names
from jobs.section.model import Model, require_name


class NamedModel(Model):
    """One of several. inputs: as under `columns`, where the model's name and a dot would stand before the tensors'."""

    inputs: dict[str, InputColumn] = Field(default_factory=dict)

    @field_validator("inputs", mode="before")
    @classmethod
    def _of_their_own_names(cls, value: Any) -> Any:
        return by_own_names(value)

    @model_validator(mode="after")
    def _one_signature(self) -> NamedModel:
        if self.signatures is not None:
            raise ValueError(
                "'signatures' is for `model`, where it is the only one; under `models` each signature has a name of its"
                " own: `models: {NAME: {url: ..., signature: ...}}`"
            )
        return self


Models = Annotated[dict[Annotated[str, AfterValidator(require_name)], NamedModel], Field(min_length=1)]
