"""The Job: the frozen statement of what the user wants.

Owns the names and rules of a job file; refuses to know where models, files or workers are. Unknown keys are
errors, and two jobs with one fingerprint ask for the same result.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from jobs import notebook
from jobs.errors import JobError
from jobs.format import (
    DEFAULT_CODEC,
    DEFAULT_FORMAT,
    EXAMPLES_FORMAT,
    RULES,
    Codec,
    FileFormat,
    StringKind,
    check_codec,
    default_codec,
)

_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

# An option whose name says that it holds a secret; its value must be a reference, never the secret itself.
_SECRET_NAME = re.compile(
    r"key|secret|token|passw|passphrase|pwd|credential|signature|connection_string|authorization|(^|_)sas(_|$)",
    re.IGNORECASE,
)
_PATH_NAME = re.compile(r"(file|filename|path)$", re.IGNORECASE)  # 'key_filename' of SFTP names a file, no secret
_TOKEN_SOURCES = frozenset({"anon", "browser", "cache", "cloud", "google_default"})  # values of gcsfs's `token`
REFERENCE = re.compile(r"^(env|file|profile):.+")

# What is in the name of a query parameter that signs or authorizes: presigned URLs of S3 and GCS, SAS of Azure, JWTs.
SECRET_PARAMETER = r"(?:sig|token|key|secret|passw|passphrase|pwd|credential|auth(?!or(?!iz))|bearer|jwt|hmac)"
# 'scheme://user:password@host' and '?X-Amz-Signature=...'. No '/' inside: '?' is also a wildcard, 'key=1' a folder.
_URL_SECRET = re.compile(rf"://[^/@]*:[^/@]*@|[?&][^=&/]*{SECRET_PARAMETER}[^=&/]*=", re.IGNORECASE)


_WHOLE = re.compile(r"[-+]?\d{1,1000}")  # Python refuses to read more than 4,300 digits
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?")


class Unquoted(str):
    """Text that is a number wherever one is wanted: the value of a variable, or '1e3', which YAML 1.1 takes for text.

    Text wherever text is wanted.
    """

    __slots__ = ()


def _number(value: Any) -> Any:
    if not isinstance(value, Unquoted):
        return value
    if _WHOLE.fullmatch(value):
        return int(value)
    return float(value) if _NUMBER.fullmatch(value) else value


def parse_number(value: Any) -> Any:
    """'1e3' -> 1000, and a number that is whole -> an integer; other values pass through."""
    value = _number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parse_bytes(value: Any) -> Any:
    """'128MiB' -> 134217728, '1e3MB' -> 1000000000; numbers pass through. raises: ValueError naming the units."""
    value = _number(value)
    if not isinstance(value, str):
        return parse_number(value)
    match = re.fullmatch(r"\s*(\d{1,30}(?:\.\d+)?(?:[eE]\+?\d{1,3}(?=\s*[A-Za-z]))?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].upper() not in _BYTES:
        raise ValueError(f"{value!r} is no size; write a number of bytes, or a number with KiB, MiB, GiB or TiB")
    return int(Fraction(match[1]) * _BYTES[match[2].upper()])


def parse_budget(value: Any) -> Any:
    """'0.5%' and whole numbers from 0 pass. raises: ValueError naming both forms."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip()) if isinstance(value, str) else None
    if match is not None and float(match[1]) <= 100:
        return f"{match[1]}%"
    value = parse_number(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return value
    raise ValueError(
        f"{repr(value)[:80]} is no budget; write a whole number from 0, or a share such as '0.5%' ('100%': any)"
    )


def allowed(budget: int | str, total: int) -> int:
    """How many of `total` a budget lets go: the number itself, or its share rounded down."""
    if isinstance(budget, int):
        return budget
    return int(Fraction(budget.rstrip("%")) * total / 100)


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


def _spelled(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, Path) else value


def long_form(value: Any) -> Any:
    """A model, an input or an output as a section: an address stands for `{url: address}`."""
    return {"url": value} if isinstance(value, str | Path | list | tuple) else value


def _without_secret(url: str) -> str:
    if _URL_SECRET.search(url):  # the message must not repeat the URL
        raise ValueError(
            "the URL holds a literal secret; take it out, and write a reference under 'options': 'env:NAME'"
        )
    return url


MOST = 2**63 - 1  # what files, stores and tensors count with

# Strict numbers: `count: yes` is no 1, `cpus: "4"` no 4. Bounded: what is asked for is made, or asked of a cluster.
Count = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=MOST, strict=True)]
Rows = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=2**31 - 1, strict=True)]  # of a batch, in memory
Processes = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=100_000, strict=True)]
Threads = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=1024, strict=True)]
Tries = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=10_000, strict=True)]
Amount = Annotated[float, BeforeValidator(parse_number), Field(gt=0, le=2**53, strict=True)]
Units = Annotated[float, BeforeValidator(parse_number), Field(gt=0, le=100_000, strict=True)]  # of one machine
Seconds = Annotated[float, BeforeValidator(parse_number), Field(gt=0, le=10**9, strict=True)]  # 30 years
Dimension = Annotated[int, BeforeValidator(parse_number), Field(ge=0, le=MOST)]
ByteCount = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0, le=MOST, strict=True)]
Budget = Annotated[int | str, BeforeValidator(parse_budget)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]  # one name may stand alone
Url = Annotated[str, Field(min_length=1), AfterValidator(_without_secret), BeforeValidator(_spelled)]
OptionValue = str | int | float | bool
Change = str | Mapping[str, Any]  # 'limits.shard_rows=1000', or {'limits.shard_rows': 1000}


class Reader(Protocol):
    """Makes jobs of text, and says what is wrong with one: `jobs.load`, which this module may not import."""

    def read(self, source: str | Path, overrides: Sequence[Change], vars: Mapping[str, object]) -> Job: ...

    def changed(self, job: Job, changes: Sequence[Change]) -> Job: ...

    def refusal(self, section: type[Section], error: ValidationError, given: Mapping[str, Any]) -> JobError: ...


_readers: list[Reader] = []


def read_with(reader: Reader) -> None:
    """Called once, when `reader` is imported."""
    _readers[:] = [reader]


class Section(BaseModel):
    # Inputs stay out of pydantic's own messages: they may hold what should have been a reference.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    if not TYPE_CHECKING:

        def __init__(self, /, **values: Any) -> None:
            """raises: JobError listing every problem, in the words in which a job file's are said."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                if not _readers:
                    raise
                raise _readers[0].refusal(type(self), error, values) from None

        # As pydantic marks its own: sections inside of others, and `model_validate`, do not come by here.
        __init__.__pydantic_base_init__ = True


class Location(Section):
    """A place that fsspec reaches. `options` go to the file system; secrets only as references (`env:NAME`, ...)."""

    options: dict[str, OptionValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _address_alone(cls, value: Any) -> Any:
        return long_form(value)

    @field_validator("options")
    @classmethod
    def _no_literal_secrets(cls, options: dict[str, OptionValue]) -> dict[str, OptionValue]:
        for name, value in options.items():
            in_url = isinstance(value, str) and not REFERENCE.match(value) and _URL_SECRET.search(value)
            if in_url or (names_secret(name) and not _harmless(value)):
                choices = "'env:NAME', 'file:/path' or 'profile:NAME'"
                raise ValueError(f"option {name!r} holds a literal secret; write a reference: {choices}")
        return options


def names_secret(name: str) -> bool:
    """Whether what is called `name` is a secret, as far as a name can tell."""
    return _SECRET_NAME.search(name) is not None and _PATH_NAME.search(name) is None


def _harmless(value: OptionValue) -> bool:
    if isinstance(value, str):
        return value in _TOKEN_SOURCES or REFERENCE.match(value) is not None
    return isinstance(value, bool)  # 'anon: true' and its kind are switches


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

    url: Annotated[tuple[Url, ...], BeforeValidator(_listed), Field(min_length=1)]
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


def _plain(value: Any) -> Any:
    value = _unquoted(value)
    try:
        canonical(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"not a value of JSON ({error}); expected numbers, text, true, false, or lists of them"
        ) from None
    return value


def _unquoted(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_unquoted(one) for one in value]
    if isinstance(value, dict):
        return {key: _unquoted(one) for key, one in value.items()}
    if not isinstance(value, Unquoted):
        return value
    value = _number(value)
    return {"true": True, "false": False}.get(value, str(value)) if isinstance(value, str) else value


Plain = Annotated[Any, AfterValidator(_plain)]


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
        return self


REST = "..."  # in a mapping of tensors: all others, as they are where nothing is said of them
_REST_IS = f"'{REST}' stands for all that are not named: write `{REST}: true`"


class OutputColumn(Section):
    """The column one output tensor becomes. Omitted `column`: the name of the tensor."""

    column: str | None = None
    of: str | None = None  # the tensor, where the key names the column; None in a job that was read
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
        """`age: {cast: unsafe}` is fed from the column 'age'."""
        if not isinstance(value, dict):
            return value
        return {
            name: {**rule, "column": name}
            if isinstance(rule, dict) and rule and all(rule.get(key) is None for key in FEEDS)
            else rule
            for name, rule in value.items()
        }

    @field_validator("outputs", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        names = _listed(value)
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
        """Under the names of tensors, also those that stood under the names of columns."""
        if outputs is None:
            return None
        found: dict[str, OutputColumn] = {}
        for key, given in outputs.items():
            name, rule = key, given
            if given.of is not None:
                if given.column is not None:
                    raise ValueError(
                        f"output {key!r} has 'of', with which the key is the column, and 'column'; give one of them"
                    )
                name = given.of
                rule = given.model_copy(update={"of": None, "column": None if key == name else key})
            if name == REST and rule not in (OutputColumn(), OutputColumn(column=REST)):  # `--fetch ...` is the latter
                raise ValueError(_REST_IS)
            if name in found:
                raise ValueError(f"tensor {name!r} is named twice in 'outputs'; it becomes one column")
            found[name] = OutputColumn() if name == REST else rule
        return found

    def written(self, outputs: Iterable[str]) -> dict[str, OutputColumn]:
        """Output -> its rule, of those that become columns, in their order; names that `outputs` lack are included.

        outputs: that the signature has.
        """
        if self.outputs is None:
            return {name: OutputColumn() for name in outputs}
        rules: dict[str, OutputColumn] = {}
        for name, rule in self.outputs.items():
            if name == REST:
                rules |= {other: OutputColumn() for other in outputs if other not in self.outputs}
            else:
                rules[name] = rule
        return rules


class Output(Location):
    url: Url
    format: FileFormat = DEFAULT_FORMAT
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


class Limits(Section):
    if TYPE_CHECKING:  # what it reads is more than what it holds

        def __init__(self, **values: Any) -> None: ...

    shard_bytes: ByteCount = 128 * 2**20  # decoded bytes of the columns that are read
    shard_rows: Count = 2**22
    batch_rows: Literal["auto"] | Rows = "auto"
    max_attempts: Tries = 4
    stall_s: Seconds = 600.0  # how long an attempt may make no progress
    on_bad_row: Literal["fail", "reject"] = "fail"
    max_rejected_rows: Budget = 0  # of the job: a number, or a share of its rows
    on_bad_file: Literal["fail", "skip"] = "fail"
    max_bad_files: Budget = 0  # of the job: a number, or a share of its files
    # NaN or infinity in an input: `reject` makes it a bad row. None: it passes, and nobody has thought of it.
    nonfinite: Literal["pass", "reject"] | None = None
    nan_output: Literal["keep", "reject"] = "keep"  # NaN in an output, counted in any case
    reject_input: bool = False  # reject files hold the columns that were read: they may be personal data
    max_row_bytes: ByteCount | None = None  # of one row as it is read, lists and strings included
    max_row_group_bytes: ByteCount = 16 * 2**30  # decoded, of the columns that are read
    reproducible: bool = False  # the same bits in every run on machines of one kind, whatever happens
    compare_uncompiled: Count | None = None  # rows of each worker that are scored without XLA too, and must agree

    @property
    def may_lose(self) -> bool:
        """Whether the job may end well without all of its rows."""
        return self.on_bad_row == "reject" or self.on_bad_file == "skip"


# Of the limits: what decides whether a job ends well, and not what is in its parts.
_PATIENCE = (
    *("max_attempts", "stall_s", "max_rejected_rows", "max_bad_files", "max_row_group_bytes", "compare_uncompiled"),
)


class Job(Section):
    """What is to be done. Frozen: `with_` makes another one."""

    model: Model
    input: Input
    columns: Columns = Field(default_factory=Columns)
    output: Output
    workers: Workers = Field(default_factory=Workers)
    limits: Limits = Field(default_factory=Limits)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            model: Model | str | Path | Mapping[str, Any],
            input: Input | str | Path | Sequence[str | Path] | Mapping[str, Any] | SupportsArrow,
            output: Output | str | Path | Mapping[str, Any],
            columns: Columns | Mapping[str, Any] = ...,
            workers: Workers | Mapping[str, Any] = ...,
            limits: Limits | Mapping[str, Any] = ...,
        ) -> None: ...

    @classmethod
    def from_yaml(cls, source: str | Path, *overrides: Change, vars: Mapping[str, object] | None = None) -> Job:
        """The job of a job file.

        source:    its path, or its text: what has several lines, or begins with `{`.
        overrides: 'limits.shard_rows=1000' or {'limits.shard_rows': 1000}, and the like.
        vars:      variable -> value, for `${variable}` in the texts of the job.
        raises:    JobError listing every problem.
        """
        return _readers[0].read(source, overrides, vars or {})

    def with_(self, *changes: Change) -> Job:
        """This job with other values: `job.with_("workers.count=2", {"output.url": path})`. It is checked as a whole.

        changes: 'KEY=VALUE' with a dotted key and a YAML value, or {dotted key: value}. The last one wins.
        raises:  JobError listing every problem.
        """
        return _readers[0].changed(self, changes)

    @model_validator(mode="after")
    def _precision_of_the_device(self) -> Job:
        if self.workers.gpus and self.model.mixed_precision == "bfloat16":
            raise ValueError("mixed_precision 'bfloat16' is for workers without a GPU; on a GPU choose 'float16'")
        return self

    @model_validator(mode="after")
    def _compiled_where_compared(self) -> Job:
        if self.limits.compare_uncompiled is not None and not self.model.xla:
            raise ValueError(
                "'limits.compare_uncompiled' compares compiled answers with uncompiled ones, and nothing is compiled:"
                " set 'model: {xla: true}', or leave it out"
            )
        return self

    def _repr_html_(self) -> str:
        given = self.model_dump(mode="json", exclude_defaults=True)
        rows = ((f"{section}.{key}", value) for section, keys in given.items() for key, value in keys.items())
        return notebook.facts("Job", dict(rows))

    @property
    def fingerprint(self) -> str:
        """Hash of what can change the result: without workers, retries, and how a store is reached.

        The size of a batch counts where every bit does.
        """
        document = self.model_dump(mode="json", exclude={"workers": True}, by_alias=True)
        for section in ("model", "input", "output"):
            document[section].pop("options")
        document["model"].pop("trust")
        if self.output.strings in (None, RULES[self.output.format].strings):
            document["output"].pop("strings")
        for rule in (document["columns"]["outputs"] or {}).values():
            rule.pop("of")
        # Keys that older jobs did not have are no part of it at their default.
        if document["model"]["batch"] is None:
            document["model"].pop("batch")
        for rule in document["columns"]["inputs"].values():
            if rule["timestamp"] is None:
                rule.pop("timestamp")
            if not rule["exact"]:
                rule.pop("exact")
            if rule["example"] and rule["example"]["empty"] == "missing":
                rule["example"].pop("empty")
        for name in _PATIENCE:
            document["limits"].pop(name)
        if not self.limits.reproducible:
            del document["limits"]["batch_rows"], document["limits"]["reproducible"]
        document["limits"]["nonfinite"] = self.limits.nonfinite or "pass"  # which scores no row otherwise
        document["order"] = list(self.columns.outputs or ())  # of the columns written; canonical JSON sorts keys
        return digest(document)


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """128 bits of SHA-256 over the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]
