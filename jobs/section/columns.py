"""The section `columns`: which column feeds which tensor, and which tensor becomes which column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from jobs.section.base import Names, Plain, Section, as_tuple
from jobs.section.number import Count, Digits, Dimension, Rows, Threshold

CastRule = Literal["safe", "nearest", "unsafe"]
TimeUnit = Literal["d", "s", "ms", "us", "ns"]


class NullFill(Section):
    fill: Plain


class ExampleColumns(Section):
    """The columns that serialized tf.Examples are made of: names or patterns, or feature name -> column."""

    columns: Annotated[dict[str, str], Field(min_length=1)] | Annotated[Names, Field(min_length=1)]
    # What an empty list becomes. TensorFlow's parser refuses a feature without values even where it has a default.
    empty: Literal["missing", "empty"] = "missing"


class Pad(Section):
    """To what width lists are filled up in a batch: the longest one, a multiple of a number, or the next bucket."""

    to: Literal["max"] | None = None
    multiple_of: Rows | None = None
    buckets: Annotated[tuple[Rows, ...], Field(min_length=1)] | None = None
    value: Plain = None  # None: 0, false or ""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"to": value}
        if isinstance(value, dict) and isinstance(value.get("to"), dict):  # `to: {multiple_of: 8}`
            return {name: one for name, one in value.items() if name != "to"} | value["to"]
        return value

    @model_validator(mode="after")
    def _one_rising_policy(self) -> Pad:
        given = [name for name in ("to", "multiple_of", "buckets") if getattr(self, name) is not None]
        if len(given) != 1:
            listed = " and ".join(repr(name) for name in given) or "none of them"
            raise ValueError(f"give exactly one of 'to: max', 'multiple_of', 'buckets'; found {listed}")
        if self.buckets and list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"buckets {list(self.buckets)} do not rise")
        return self

    def __str__(self) -> str:
        if self.buckets:
            return f"buckets of {', '.join(map(str, self.buckets))}"
        return f"a multiple of {self.multiple_of}" if self.multiple_of else "the longest of a batch"


class Decode(Section):
    """How a picture becomes a tensor: by ops of TensorFlow, in the order of the keys; at their defaults as tf.image."""

    # Rows, columns and values of a pixel; None: as the tensor has them.
    to: tuple[Rows, ...] | None = None
    dtype: Literal["uint8", "float32"] | None = None  # None: that of the tensor
    alpha: Literal["drop", "error"] = "drop"
    cmyk: Literal["convert", "error"] = "convert"
    orientation: Literal["exif"] | None = None  # None: as it is stored
    crop: Literal["center"] | None = None  # None: the whole picture is stretched
    resize: Literal["bilinear", "nearest", "bicubic", "area"] = "bilinear"
    antialias: bool = False
    scale: Literal["before", "after"] | None = None  # to 0 to 1, and when; None: 0 to 255

    @model_validator(mode="after")
    def _agreed(self) -> Decode:
        if self.to is not None and (len(self.to) != 3 or self.to[2] not in (1, 3, 4)):
            raise ValueError(f"'to' is [height, width, channels], with 1, 3 or 4 channels; found {list(self.to)}")
        if self.antialias and self.resize not in ("bilinear", "bicubic"):
            raise ValueError(f"'antialias: true' does nothing with 'resize: {self.resize}': leave it out")
        if self.scale is not None and self.dtype == "uint8":
            raise ValueError("'scale' makes numbers from 0 to 1, which uint8 does not hold: choose 'dtype: float32'")
        return self

    @property
    def looks(self) -> bool:
        """Whether the header is looked at before TensorFlow sees a picture."""
        return self.orientation is not None or "error" in (self.alpha, self.cmyk)


FEEDS = ("column", "stack", "example", "constant")  # what an input may come from


class InputColumn(Section, populate_by_name=True):
    """Where one input tensor comes from: exactly one of `column`, `stack`, `example`, `constant`."""

    if TYPE_CHECKING:  # what it reads is more than what it holds

        def __init__(self, **values: Any) -> None: ...

    column: str | None = None
    # Names or patterns such as 'f*': f2 before f10; names that are not numbered keep the order of the file.
    stack: Annotated[tuple[str, ...], Field(min_length=1)] | str | None = None
    example: ExampleColumns | None = None
    constant: Plain = None
    cast: CastRule = "safe"
    exact: bool = False  # a value that is rounded is an error
    timestamp: TimeUnit | None = None  # in which timestamps, dates, times and durations become numbers
    null: Literal["error", "nan"] | NullFill = "error"
    # The input is one of several tensors, filled from lists. None: it is where nothing else can be meant.
    as_: Literal["ragged", "sparse"] | None = Field(default=None, alias="as")
    shape: tuple[Count, ...] | None = None  # of one row of a sparse tensor; None: as the signature or the lists say
    pad: Pad | None = None  # lists of any length in a tensor whose rows have one
    decode: Decode | None = None  # the column holds the bytes of pictures

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> InputColumn:
        given = [name for name in FEEDS if getattr(self, name) is not None]
        if len(given) != 1:
            listed = " and ".join(repr(name) for name in given) or "none of them"
            raise ValueError(f"give exactly one of {', '.join(map(repr, FEEDS))}; found {listed}")
        if self.exact and (self.cast != "safe" or given[0] == "constant"):
            other = "constant" if self.cast == "safe" else f"cast: {self.cast}"
            raise ValueError(f"'exact: true' is for columns whose values may not be rounded; found it beside {other!r}")
        if self.timestamp is not None and given[0] not in ("column", "stack"):
            raise ValueError(f"'timestamp' is for the values of columns; found it beside {given[0]!r}")
        if self.decode is not None:
            self._require_picture(given[0])
        return self

    def _require_picture(self, given: str) -> None:
        """raises: ValueError for what is said beside `decode`. given: what feeds the input."""
        fields = {field.alias or name: (getattr(self, name), field) for name, field in type(self).model_fields.items()}
        besides = ("cast", "exact", "timestamp", "null", "as", "shape", "pad")
        others = [name for name in besides if fields[name][0] != fields[name][1].default]
        if given != "column" or others:
            found = _and(others) if given == "column" else repr(given)
            raise ValueError(f"'decode' is for a column of pictures, and says all of them; found {found} beside it")


REST = "..."  # in a mapping of tensors: all others, as they are where nothing is said of them
_REST_IS = f"'{REST}' stands for all that are not named: write `{REST}: true`"


# What is computed of a tensor behind the signature, so that less of it is written; see `OutputColumn._agreed_shape`.
RANKINGS, SINGLES = ("argmax", "top_k"), ("at", "cast", "round", "above")
SHAPES = (*RANKINGS, *SINGLES)


class OutputColumn(Section):
    """The column one output tensor becomes. Omitted `column`: the name of the tensor.

    With one of `SHAPES` it holds what is computed of the tensor, which may then become several columns.
    """

    column: str | None = None
    of: str | None = None  # the tensor, where the key names the column; in a job that was read, of what is shaped
    argmax: bool = False  # the place of the largest value of the last dimension, or its label
    top_k: Rows | None = None  # so many of the largest values of the last dimension, with their places and labels
    labels: Annotated[str, Field(min_length=1)] | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    # One value of the last dimension; or of each dimension of a row, then a row is one value.
    at: Dimension | Annotated[tuple[Dimension, ...], Field(min_length=1)] | None = None
    cast: Literal["float16", "float32", "float64", "int8", "int16", "int32", "int64"] | None = None
    round: Digits | None = None  # to so many decimal digits, before the cast
    above: Threshold | None = None  # whether it is
    decode: Literal["utf-8"] | None = None  # text, although `output: {strings: binary}`
    # Of one row: where the signature leaves it open, or to keep a tensor of one value. (): the one value of a row.
    shape: tuple[Dimension, ...] | None = None
    cut: str | None = None  # the padded input that its second dimension follows: rows are cut to their own length

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if value is None or value is True:  # `probs: true` writes it as it is
            return {}
        return {"column": value} if isinstance(value, str) else value

    @property
    def shapes(self) -> tuple[str, ...]:
        """The keys of `SHAPES` that are given."""
        return tuple(name for name in SHAPES if getattr(self, name) is not OutputColumn.model_fields[name].default)

    @model_validator(mode="after")
    def _agreed_shape(self) -> OutputColumn:
        given, problems = self.shapes, list[str]()
        values = [name for name in given if name in SINGLES]
        if len(kinds := [*(name for name in given if name in RANKINGS), *values[:1]]) > 1:
            problems.append(f"it is 'argmax', or 'top_k', or values that are picked and changed; found {_and(kinds)}")
        if self.above is not None and (others := [name for name in given if name in ("cast", "round")]):
            problems.append(f"'above' makes true or false, with nothing to change; found {_and(others)} beside it")
        if self.labels is not None and not self.argmax and self.top_k is None:
            problems.append("'labels' names what 'argmax' or 'top_k' found; neither is given")
        if given and (others := [name for name in ("decode", "shape", "cut") if getattr(self, name) is not None]):
            problems.append(f"{_and(others)} is for a tensor as it is; found beside {_and(given)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _and(names: Iterable[str]) -> str:
    return " and ".join(repr(name) for name in names)


def by_own_names(inputs: Any) -> Any:
    """`age: {cast: unsafe}` is fed from the column 'age'. inputs: a mapping as it was written."""
    if not isinstance(inputs, dict):
        return inputs
    return {
        name: {**rule, "column": name}
        if isinstance(rule, dict) and rule and all(rule.get(key) is None for key in FEEDS)
        else rule
        for name, rule in inputs.items()
    }


def misplaced(section: str, name: str) -> str:
    """What to write where `name` is given as a tensor and is a key of one; "" where it is none.

    section: 'inputs' or 'outputs'.
    """
    rules: dict[str, type[Section]] = {"inputs": InputColumn, "outputs": OutputColumn}
    rule = rules.get(section)
    if rule is None or name not in {field.alias or key for key, field in rule.model_fields.items()}:
        return ""
    return f"{name!r} is a key of a tensor, whose name goes before it: `{section}: {{TENSOR: {{{name}: ...}}}}`"


# Of `keep`: a name, a pattern, 'all', '-' and one of these, which takes columns out of patterns; or {new name: column}.
Kept = Annotated[
    Annotated[str, Tag("text")] | Annotated[dict[str, str], Tag("map"), Field(min_length=1)],
    Discriminator(lambda value: "map" if isinstance(value, dict) else "text"),
]


class Columns(Section):
    """The mapping. Omitted `inputs`: columns of the same name. Omitted `outputs`: all, under their own names.

    An input that is not named is fed by the column of its name; an output that is not named is left out. `REST` in
    either stands for those that are not named, and so says nothing new of inputs.
    """

    if TYPE_CHECKING:  # what it reads is more than what it holds

        def __init__(self, **values: Any) -> None: ...

    inputs: dict[str, InputColumn] = Field(default_factory=dict)
    outputs: Annotated[dict[str, OutputColumn], Field(min_length=1)] | None = None
    keep: Annotated[
        tuple[Kept, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str | dict) else value)
    ] = ()

    @field_validator("inputs", mode="before")
    @classmethod
    def _of_their_own_names(cls, value: Any) -> Any:
        return by_own_names(value)

    @field_validator("outputs", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        names = as_tuple(value)
        if not isinstance(names, list | tuple):
            return value
        if not all(isinstance(name, str) for name in names):
            raise ValueError(
                "a list of outputs holds names alone; to rename one, write 'tensor: column' without a dash"
            )
        return {name: {} for name in names}

    @field_validator("inputs", mode="before")
    @classmethod
    def _rest_by_name(cls, value: Any) -> Any:
        if not isinstance(value, dict) or REST not in value:
            return value
        if value[REST] is not True:
            raise ValueError(_REST_IS)
        return {name: rule for name, rule in value.items() if name != REST}

    @field_validator("inputs", "outputs", mode="before")
    @classmethod
    def _python_dots(cls, value: Any) -> Any:
        """In Python `...` may stand without quotes, as in a job file."""
        return (
            {REST if name is ... else name: rule for name, rule in value.items()} if isinstance(value, dict) else value
        )

    @field_validator("outputs")
    @classmethod
    def _by_tensor(cls, outputs: dict[str, OutputColumn] | None) -> dict[str, OutputColumn] | None:
        """Under the names of tensors, also those that stood under the names of columns; shaped ones, of which a tensor
        may have several, under the names of columns."""
        if outputs is None:
            return None
        columns = {given.column or key for key, given in outputs.items() if given.shapes}
        tensors, found = set[str](), dict[str, OutputColumn]()
        for key, given in outputs.items():
            tensor, column = given.of or key, key if given.of is not None else given.column
            if given.of is not None and given.column is not None:
                raise ValueError(
                    f"output {key!r} has 'of', with which the key is the column, and 'column'; give one of them"
                )
            rule = given.model_copy(update={"of": None, "column": None if column == tensor else column})
            if tensor == REST and rule not in (
                OutputColumn(),
                OutputColumn(column=REST),
            ):  # `--fetch ...` is the latter
                raise ValueError(_REST_IS)
            if given.shapes:
                name, rule = column or tensor, rule.model_copy(update={"of": tensor, "column": None})
            elif tensor in tensors:
                raise ValueError(
                    f"tensor {tensor!r} is named twice in 'outputs'; it becomes one column, and others only if they"
                    f" are shaped: {', '.join(SHAPES)}"
                )
            elif tensor in columns:  # what is shaped has the name
                name, rule = column or tensor, rule.model_copy(update={"of": tensor, "column": None})
            else:
                name, rule = tensor, OutputColumn() if tensor == REST else rule
            if name in found:
                raise ValueError(f"column {name!r} is named twice in 'outputs'; each column has a name of its own")
            tensors |= set() if given.shapes else {tensor}
            found[name] = rule
        return found

    def written(self, outputs: Iterable[str]) -> list[tuple[str, OutputColumn]]:
        """(Output, its rule), of what becomes columns, in their order; names that `outputs` lack are included.

        Of one output there may be several, if they are shaped: their rules say `of`, and `column` is the column's.

        outputs: that the signature has.
        """
        if self.outputs is None:
            return [(name, OutputColumn()) for name in outputs]
        named = {rule.of or name for name, rule in self.outputs.items()}
        rules: list[tuple[str, OutputColumn]] = []
        for name, rule in self.outputs.items():
            if name == REST:
                rules += [(other, OutputColumn()) for other in outputs if other not in named]
            elif rule.of is not None:
                rules.append((rule.of, rule.model_copy(update={"column": name})))
            else:
                rules.append((name, rule))
        return rules
