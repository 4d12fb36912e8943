"""The section `input`: where the rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, PrivateAttr, field_validator, model_validator

from jobs.format import CSV_FORMAT, EXAMPLES_FORMAT, TABLE_FORMAT, FileFormat
from jobs.rows.where import canonical, parse
from jobs.section.base import Location, OptionValue, Section, Url, as_tuple, without_secrets
from jobs.section.number import Count, Share

_MARK = r"^[\t -~]$"  # one byte: pyarrow takes no other
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


class Csv(Section):
    """How CSV files are written, where not as RFC 4180 says."""

    delimiter: Annotated[str, Field(pattern=_MARK)] | None = None  # None: a tab in files with .tsv, a comma in others
    quote: Annotated[str, Field(pattern=f"{_MARK}|^$")] = '"'  # "": no value is quoted
    # Between quotes alone, or everywhere if no value is quoted. "": a quote in a quoted value is written twice.
    escape: Annotated[str, Field(pattern=f"{_MARK}|^$")] = ""
    header: bool | tuple[str, ...] = True  # the first line names the columns; or these are their names
    nulls: tuple[str, ...] = ("",)  # values without quotes that are null
    newlines_in_values: bool = True  # False promises that each line is a row

    @model_validator(mode="after")
    def _marks_differ(self) -> Csv:
        marks = {name: getattr(self, name) for name in ("delimiter", "quote", "escape") if getattr(self, name)}
        if len(set(marks.values())) < len(marks):
            raise ValueError(
                f"expected different characters, found {', '.join(f'{n}: {m!r}' for n, m in marks.items())}"
            )
        if isinstance(self.header, tuple) and len(set(self.header)) < len(self.header):
            raise ValueError("expected names that differ in 'header'")
        if self.escape and not self.quote and (escaped := [text for text in self.nulls if self.escape in text]):
            read = escaped[0].replace(self.escape, "")
            raise ValueError(
                f"no value is ever read as {escaped[0]!r} of 'nulls', because 'escape' takes {self.escape!r} away:"
                f" expected the text without it, {read!r}, if no value is that, or no 'escape'"
            )
        return self


class Input(Location, populate_by_name=True):
    if TYPE_CHECKING:  # what it reads is more than what it holds

        def __init__(self, **values: Any) -> None: ...

    url: Annotated[tuple[Url, ...], BeforeValidator(as_tuple), Field(min_length=1)] = ()  # of a table: where it lies
    format: FileFormat | None = None  # None: by the suffix of the first file
    # TFRecord: tf.Examples become columns, as found in the first records, or feature -> type. None: column 'record'.
    examples: Literal["infer"] | Annotated[dict[str, FeatureType], Field(min_length=1)] | None = None
    only_rejects: Url | None = None  # the output of a job: of the files above, only the rows that it rejected
    # Column -> Arrow type, where files do not say it, or say another one. Resolved: of all that are read.
    types: dict[str, str] = Field(default_factory=dict, alias="schema")
    csv: Csv | None = None  # how they are written, where not as usual
    partitions: Literal["hive"] | tuple[str, ...] | None = None  # the names of folders are columns
    delta: Url | None = None  # a table, in place of `url`
    version: Annotated[int, Field(ge=0)] | Literal["latest"] = "latest"
    iceberg: Url | None = None  # CATALOG.NAMESPACE.TABLE, or the url of a metadata file, in place of `url`
    snapshot: int | Literal["latest"] = "latest"
    catalog: dict[str, OptionValue] = Field(default_factory=dict)  # properties; secrets only as references
    where: str | None = Field(None, min_length=1)  # of the rows, only those
    limit: Count | None = None  # of these, the first so many
    sample: Share | None = None  # of the rows, about this share
    _held: Held | None = PrivateAttr(default=None)
    _table: Any = PrivateAttr(default=None)

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
    def rows(self) -> dict[str, Any]:
        """What decides which rows there are and what their values mean, as plain JSON; nothing that is at its default.

        But for the places, which are in a plan, and how a store or a catalog is reached.
        """
        names = ("types", "csv", "partitions", "delta", "version", "iceberg", "snapshot", "where", "limit", "sample")
        found = self.model_dump(mode="json", include=set(names), by_alias=True, exclude_defaults=True)
        if self._table is not None and self._table.schema is not None:
            found["table_schema"] = self._table.schema
        return found if self.where is None else {**found, "where": canonical(self.where)}

    @classmethod
    def plain(cls) -> dict[str, Any]:
        """The keys that jobs of older versions did not have, in the words of a document: each at its default."""
        names = ("types", "csv", "partitions", "delta", "version", "iceberg", "snapshot", "where", "limit", "sample")
        defaults = cls.model_construct().model_dump(mode="json", include=set(names), by_alias=True)
        return dict(defaults)

    def of_table(self, table: Any, url: str, **pinned: Any) -> Input:
        """The same with its table found. table: what workers have to know of it, whatever that is. url: where it lies.
        pinned: its version, and where it is told otherwise than in a document of the job."""
        made = self.model_copy(update={"url": (url,), "format": TABLE_FORMAT, "types": {}, **pinned})
        made._table = table
        return made

    @property
    def table(self) -> Any:
        """As of `of_table`; None before it is found, and where there is none."""
        return self._table

    @property
    def is_table(self) -> bool:
        return bool(self.delta or self.iceberg)

    @property
    def places(self) -> tuple[str, ...]:
        """The urls of the input, those of a table too; none of one that only a catalog knows."""
        table = self.delta or (self.iceberg if "/" in (self.iceberg or "") else None)
        return self.url or ((table,) if table else ())

    @property
    def held(self) -> Held | None:
        """The rows themselves, where they lie in no file yet: only in Python."""
        return self._held

    @field_validator("where")
    @classmethod
    def _where_can_be_read(cls, where: str | None) -> str | None:
        if where is not None:
            parse(where)
        return where

    @model_validator(mode="after")
    def _one_place(self) -> Input:
        given = [name for name in ("url", "delta", "iceberg") if getattr(self, name)]
        if len(given) != 1:
            found = "none" if not given else " and ".join(map(repr, given))
            raise ValueError(f"expected one of 'url', 'delta' and 'iceberg', found {found}")
        return self

    @model_validator(mode="after")
    def _of_a_table(self) -> Input:
        said = {
            "version": self.version != "latest",
            "snapshot": self.snapshot != "latest",
            "catalog": bool(self.catalog),
        }
        for name, table in (("version", "delta"), ("snapshot", "iceberg"), ("catalog", "iceberg")):
            if said[name] and getattr(self, table) is None:
                raise ValueError(f"{name!r} is of a table; expected {table!r} beside it")
        if not self.is_table:
            return self
        if self.format not in (None, TABLE_FORMAT):
            raise ValueError(f"a table is of {TABLE_FORMAT} files, and the format is {self.format!r}")
        useless = [name for name in ("csv", "examples", "partitions") if getattr(self, name) is not None]
        if useless:
            raise ValueError(f"{useless[0]!r} is of files, and a table says itself what is in its files")
        return self

    @field_validator("catalog")
    @classmethod
    def _no_literal_secrets_of_a_catalog(cls, catalog: dict[str, OptionValue]) -> dict[str, OptionValue]:
        return without_secrets(catalog, "catalog property")

    @model_validator(mode="after")
    def _keys_of_formats(self) -> Input:
        if self.examples is not None and self.format not in (None, EXAMPLES_FORMAT):
            raise ValueError(f"'examples' is for TFRecord files, and the format is {self.format!r}")
        if self.csv is not None and self.format not in (None, CSV_FORMAT):
            raise ValueError(f"'csv' is for CSV files, and the format is {self.format!r}")
        return self

    @property
    def stated_format(self) -> FileFormat | None:
        """The format as far as the job says it: by name, or by what only one format has."""
        return self.format or (EXAMPLES_FORMAT if self.examples else CSV_FORMAT if self.csv else None)
