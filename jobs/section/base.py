"""What every section of a job is: frozen, without unknown keys, without literal secrets.

Refuses to know which sections there are. The invariant: no message repeats what may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from jobs.errors import JobError
from jobs.section.canonical import canonical
from jobs.section.number import Unquoted, as_number

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
# 'github://owner:repository@branch' holds none.
_URL_SECRET = re.compile(rf"(?<!github)://[^/@]*:[^/@]*@|[?&][^=&/]*{SECRET_PARAMETER}[^=&/]*=", re.IGNORECASE)


def as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


def _spelled(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, Path) else value


def long_form(value: Any) -> Any:
    """A model, an input or an output as a section: an address stands for `{url: address}`."""
    return {"url": value} if isinstance(value, str | Path | list | tuple) else value


def under(key: str) -> str:
    """What stands in a key path for the names that a map has."""
    return ".NAME" if key == "models" else ".TENSOR"


def _without_secret(url: str) -> str:
    if _URL_SECRET.search(url):  # the message must not repeat the URL
        raise ValueError(
            "the URL holds a literal secret; take it out, and write a reference under 'options': 'env:NAME'"
        )
    return url


Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]  # one name may stand alone
Url = Annotated[str, Field(min_length=1), AfterValidator(_without_secret), BeforeValidator(_spelled)]
OptionValue = str | int | float | bool
Change = str | Mapping[str, Any]  # 'limits.shard_rows=1000', or {'limits.shard_rows': 1000}


class Beside(str):
    """A change of a condition that leaves the one which is there: rows pass both."""

    __slots__ = ()

    def joined(self, own: Any) -> Any:
        """own: the condition that is there. What is none stays as it is, for the job to refuse."""
        if not isinstance(own, str | None):
            return own
        return f"({own}) and ({self})" if own and self.strip() else self.strip()


class Missing(ValueError):
    """What a key path begins with is not there, and nothing that could stand for it. key: of the job."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} is missing")
        self.key = key


class Refuse(Protocol):
    """Says what is wrong with a section: `jobs.load`, which this module may not import."""

    def __call__(self, section: type[Section], error: ValidationError, given: Mapping[str, Any]) -> JobError: ...


_refuse: list[Refuse] = []


def refuse_with(refuse: Refuse) -> None:
    """Called once, when what says it is imported."""
    _refuse[:] = [refuse]


class Section(BaseModel):
    # Inputs stay out of pydantic's own messages: they may hold what should have been a reference.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    if not TYPE_CHECKING:

        def __init__(self, /, **values: Any) -> None:
            """raises: JobError listing every problem, in the words in which a job file's are said."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                if not _refuse:
                    raise
                raise _refuse[0](type(self), error, values) from None

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
        return without_secrets(options, "option")


def without_secrets(options: dict[str, OptionValue], what: str) -> dict[str, OptionValue]:
    """The same. what: one of them is called. raises: ValueError naming one that holds a secret, or looks like one."""
    for name, value in options.items():
        in_url = isinstance(value, str) and not REFERENCE.match(value) and _URL_SECRET.search(value)
        if in_url or is_literal_secret(name, value):
            choices = "'env:NAME', 'file:/path' or 'profile:NAME'"
            raise ValueError(f"{what} {name!r} holds a literal secret; write a reference: {choices}")
    return options


def names_secret(name: str) -> bool:
    """Whether what is called `name` is a secret, as far as a name can tell."""
    return _SECRET_NAME.search(name) is not None and _PATH_NAME.search(name) is None


def is_literal_secret(name: str, value: OptionValue) -> bool:
    """Whether an option holds what only a reference to may stand there, as far as its name can tell."""
    return names_secret(name) and not _harmless(value)


def _harmless(value: OptionValue) -> bool:
    if isinstance(value, str):
        return value in _TOKEN_SOURCES or REFERENCE.match(value) is not None
    return isinstance(value, bool)  # 'anon: true' and its kind are switches


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
    value = as_number(value)
    return {"true": True, "false": False}.get(value, str(value)) if isinstance(value, str) else value


Plain = Annotated[Any, AfterValidator(_plain)]
