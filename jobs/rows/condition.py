"""What `where` says, as values: conditions on columns, put together by and, or and not.

Pure; refuses to know the types of columns and how a condition is read. The invariant: `text` of a condition, read
again, is the same condition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal as OneOf
from typing import NamedTuple

Comparing = OneOf["=", "!=", "<", "<=", ">", ">="]
MIRRORED: dict[Comparing, Comparing] = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
KEYWORDS = frozenset(("and", "or", "not", "in", "is", "null", "between", "like", "true", "false", "date", "timestamp"))

_BARE = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_EPOCH = datetime(1970, 1, 1)


class Instant(NamedTuple):
    """A point in time. ns: since 1970 began. zoned: by UTC; else by the clock of whoever wrote the column."""

    ns: int
    zoned: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column by the name in it, or a field in a struct. at: the character at which it stands, from 0."""

    parts: tuple[str, ...]
    at: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        return ".".join(self.parts)

    @property
    def text(self) -> str:
        return ".".join(map(_name, self.parts))


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as it is written."""

    value: str | int | Decimal | bool | date | Instant
    at: int = field(default=0, compare=False)

    @property
    def kind(self) -> str:
        match self.value:
            case bool():
                return "true or false"
            case str():
                return "text"
            case int() | Decimal():
                return "a number"
            case Instant():
                return "a timestamp"
            case date():
                return "a date"

    @property
    def text(self) -> str:
        match self.value:
            case bool():
                return str(self.value).lower()
            case str():
                return _quoted(self.value, "'")
            case Instant(ns=ns, zoned=zoned):
                seconds, rest = divmod(ns, 10**9)
                fraction = f".{rest:09d}".rstrip("0") if rest else ""
                moment = (_EPOCH + timedelta(seconds=seconds)).isoformat(sep=" ")
                return f"timestamp '{moment}{fraction}{'Z' if zoned else ''}'"
            case date():
                return f"date '{self.value.isoformat()}'"
            case _:
                return str(self.value)


@dataclass(frozen=True, slots=True)
class Compare:
    column: Column
    op: Comparing
    other: Column | Literal

    @property
    def text(self) -> str:
        return f"{self.column.text} {self.op} {self.other.text}"


@dataclass(frozen=True, slots=True)
class Member:
    """The column is one of the values."""

    column: Column
    values: tuple[Literal, ...]

    @property
    def text(self) -> str:
        return f"{self.column.text} in ({', '.join(value.text for value in self.values)})"


@dataclass(frozen=True, slots=True)
class Like:
    """pattern: with % for any text, and _ for any character."""

    column: Column
    pattern: Literal

    @property
    def text(self) -> str:
        return f"{self.column.text} like {self.pattern.text}"


@dataclass(frozen=True, slots=True)
class IsNull:
    column: Column

    @property
    def text(self) -> str:
        return f"{self.column.text} is null"


@dataclass(frozen=True, slots=True)
class Truth:
    """A column of true and false, by itself."""

    column: Column

    @property
    def text(self) -> str:
        return self.column.text


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition

    @property
    def text(self) -> str:
        match self.condition:
            case Member(column=column):
                return f"{column.text} not{self.condition.text.removeprefix(column.text)}"
            case Like(column=column):
                return f"{column.text} not{self.condition.text.removeprefix(column.text)}"
            case IsNull(column=column):
                return f"{column.text} is not null"
            case Truth() | Not():
                return f"not {self.condition.text}"
            case _:
                return f"not ({self.condition.text})"


@dataclass(frozen=True, slots=True)
class And:
    conditions: tuple[Condition, ...]

    @property
    def text(self) -> str:
        return " and ".join(f"({one.text})" if isinstance(one, Or) else one.text for one in self.conditions)


@dataclass(frozen=True, slots=True)
class Or:
    conditions: tuple[Condition, ...]

    @property
    def text(self) -> str:
        return " or ".join(one.text for one in self.conditions)


Condition = Compare | Member | Like | IsNull | Truth | Not | And | Or


def all_of(conditions: list[Condition]) -> Condition:
    """One after the other with `and`; those within are no level of their own."""
    flat = [inner for one in conditions for inner in (one.conditions if isinstance(one, And) else (one,))]
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def any_of(conditions: list[Condition]) -> Condition:
    flat = [inner for one in conditions for inner in (one.conditions if isinstance(one, Or) else (one,))]
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def columns_of(condition: Condition) -> Iterator[Column]:
    """In the order in which they stand, as often as they do."""
    match condition:
        case And(conditions=conditions) | Or(conditions=conditions):
            for one in conditions:
                yield from columns_of(one)
        case Not(condition=inner):
            yield from columns_of(inner)
        case Compare(column=column, other=Column() as other):
            yield from (column, other)
        case _:
            yield condition.column


def instant(moment: datetime, nanoseconds: int = 0) -> Instant:
    """nanoseconds: of the second, where the moment has none."""
    zoned = moment.tzinfo is not None
    plain = moment.astimezone(UTC).replace(tzinfo=None) if zoned else moment
    since = plain - _EPOCH
    return Instant((since.days * 86_400 + since.seconds) * 10**9 + nanoseconds, zoned)


def _name(part: str) -> str:
    return part if _BARE.fullmatch(part) and part.lower() not in KEYWORDS else _quoted(part, '"')


def _quoted(text: str, quote: str) -> str:
    return f"{quote}{text.replace(quote, 2 * quote)}{quote}"
