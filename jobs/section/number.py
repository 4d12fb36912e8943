"""Numbers of a job file: how they are written, and within which bounds they make sense.

Refuses to know which key a number is of.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_WHOLE = re.compile(r"[-+]?\d{1,1000}")  # Python refuses to read more than 4,300 digits
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?")


class Unquoted(str):
    """Text that is a number wherever one is wanted: the value of a variable, or '1e3', which YAML 1.1 takes for text.

    Text wherever text is wanted.
    """

    __slots__ = ()


def as_number(value: Any) -> Any:
    if not isinstance(value, Unquoted):
        return value
    if _WHOLE.fullmatch(value):
        return int(value)
    return float(value) if _NUMBER.fullmatch(value) else value


def parse_number(value: Any) -> Any:
    """'1e3' -> 1000, and a number that is whole -> an integer; other values pass through."""
    value = as_number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parse_bytes(value: Any) -> Any:
    """'128MiB' -> 134217728, '1e3MB' -> 1000000000; numbers pass through. raises: ValueError naming the units."""
    value = as_number(value)
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


MOST = 2**63 - 1  # what files, stores and tensors count with
# Strict numbers: `count: yes` is no 1, `cpus: "4"` no 4. Bounded: what is asked for is made, or asked of a cluster.
Count = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=MOST, strict=True)]
Rows = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=2**31 - 1, strict=True)]  # of a batch, in memory
Processes = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=100_000, strict=True)]
Threads = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=1024, strict=True)]
Tries = Annotated[int, BeforeValidator(parse_number), Field(ge=1, le=10_000, strict=True)]
Amount = Annotated[float, BeforeValidator(parse_number), Field(gt=0, le=2**53, strict=True)]
Units = Annotated[float, BeforeValidator(parse_number), Field(gt=0, le=100_000, strict=True)]  # of one machine
Share = Annotated[float, BeforeValidator(parse_number), Field(gt=0, le=1, strict=True)]
Seconds = Annotated[float, BeforeValidator(parse_number), Field(gt=0, le=10**9, strict=True)]  # 30 years
Dimension = Annotated[int, BeforeValidator(parse_number), Field(ge=0, le=MOST)]
Digits = Annotated[int, BeforeValidator(parse_number), Field(ge=0, le=15, strict=True)]  # more than a float64 has
Threshold = Annotated[float, BeforeValidator(parse_number), Field(strict=True)]
ByteCount = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0, le=MOST, strict=True)]
Budget = Annotated[int | str, BeforeValidator(parse_budget)]
