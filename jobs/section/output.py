"""The section `output`: where the rows go, and in which format."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from jobs.format import DEFAULT_CODEC, DEFAULT_FORMAT, RULES, Codec, PartFormat, StringKind, check_codec, default_codec
from jobs.section.base import Location, Url


class Output(Location):
    url: Url
    format: PartFormat = DEFAULT_FORMAT
    compression: Codec = DEFAULT_CODEC
    tensor_encoding: Literal["fixed_shape_tensor", "list", "binary"] = "fixed_shape_tensor"
    # What strings of the model become; text is UTF-8, and a value that is none makes a bad row. None: by the format.
    strings: StringKind | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_of_the_format(cls, value: Any) -> Any:
        if not isinstance(value, dict) or (codec := default_codec(value.get("format"))) == DEFAULT_CODEC:
            return value
        return {"compression": codec, **value}

    @model_validator(mode="after")
    def _codec_of_the_format(self) -> Output:
        check_codec(self.format, self.compression)
        return self

    @property
    def writes_text(self) -> bool:
        """Whether strings of the model become text."""
        return (self.strings or RULES[self.format].strings) == "text"
