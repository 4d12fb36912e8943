"""The section `input`: where the rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from jobs.format import EXAMPLES_FORMAT, FileFormat
from jobs.section.base import Location, Url, as_tuple

FeatureType = Literal["float", "int64", "bytes", "list<float>", "list<int64>", "list<bytes>"]


class SupportsArrow(Protocol):
    """A table of pandas, Polars, pyarrow and others: rows as Arrow's PyCapsule interface hands them on."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class Held:
    """A table in the memory of this process, as an input. `table`: whatever it is; nothing here looks into it."""

    def __init__(self, table: Any) -> None:
        self.table = table

    @staticmethod
    def holds(value: Any) -> bool:
        """Whether `value` is a table, or a dataset of pyarrow or Ray."""
        return any(hasattr(value, name) for name in ("__arrow_c_stream__", "scanner", "iter_batches"))

    def __str__(self) -> str:
        return f"{type(self.table).__module__.partition('.')[0]} {type(self.table).__name__} in memory"


class Input(Location):
    if TYPE_CHECKING:  # what it reads is more than what it holds

        def __init__(self, **values: Any) -> None: ...

    url: Annotated[tuple[Url, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    format: FileFormat | None = None  # None: by the suffix of the first file
    # TFRecord: tf.Examples become columns, as found in the first records, or feature -> type. None: column 'record'.
    examples: Literal["infer"] | Annotated[dict[str, FeatureType], Field(min_length=1)] | None = None
    only_rejects: Url | None = None  # the output of a job: of the files above, only the rows that it rejected
    _held: Held | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _rows_in_memory(cls, value: Any, handler: ModelWrapValidatorHandler[Input]) -> Input:
        if isinstance(value, type | Input) or not Held.holds(value):
            return handler(value)
        held = Held(value)
        made = handler({"url": str(held)})
        made._held = held
        return made

    @property
    def held(self) -> Held | None:
        """The rows themselves, where they lie in no file yet: only in Python."""
        return self._held

    @model_validator(mode="after")
    def _examples_of_tfrecord(self) -> Input:
        if self.examples is not None and self.format not in (None, EXAMPLES_FORMAT):
            raise ValueError(f"'examples' is for TFRecord files, and the format is {self.format!r}")
        return self

    @property
    def stated_format(self) -> FileFormat | None:
        """The format as far as the job says it: by name, or by what only one format has."""
        return self.format or (EXAMPLES_FORMAT if self.examples else None)
