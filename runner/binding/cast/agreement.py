"""Values of one Arrow type -> one TensorFlow dtype: which conversion is allowed, and what helps where none is."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.formats.widening import common_type, is_mixed, members
from jobs.section.columns import CastRule, TimeUnit
from runner.binding.cast.cast import Cast, How
from runner.binding.cast.kind import NATURAL, is_text, is_time
from runner.binding.cast.reading import NANOSECONDS, Decimals, Ticks, WholeDecimals, rule_key, unit_of
from runner.binding.cast.view import numpy_dtype
from runner.tensor import AS_BITS, DTYPES, natural

# Bits of the significand: integers up to 2**bits are exact.
_SIGNIFICAND = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
_FLOATS = ("float16", "float32", "float64")
_PARTS = {"complex64": "float32", "complex128": "float64"}


def agree(source: pa.DataType, dtype: str, rule: CastRule, unit: TimeUnit | None = None) -> Cast | None:
    """How values of the Arrow type `source` become `dtype`; None: not at all, or only by another rule.

    Lossless by type: 'same', 'exact'. Lossless if each value is: 'range' (integers into narrower ones), 'finite'
    (floats into narrower ones: rounding is what such a tensor asks for, a new infinity is not), 'lossless' (exact
    values only: integers in floats, and what becomes bfloat16 or a float of 8 or 4 bits). 'nearest' rounds to a float,
    but to no infinity. 'unsafe' is what NumPy's `astype` does. Times become numbers where there is a `unit`; strings
    never do.
    """
    if dtype == "string":
        return Cast(dtype, "same") if is_text(source) else None
    if dtype not in DTYPES:
        return None
    if is_mixed(source):
        return _agree_mixed(members(source), dtype, rule, unit)
    if pa.types.is_struct(source):
        return _agree_complex(source, dtype, rule)
    if is_time(source):
        return None if unit is None else _agree_time(source, dtype, rule, unit)
    if pa.types.is_decimal(source):
        return _agree_decimal(source, dtype, rule)
    if pa.types.is_boolean(source) or pa.types.is_integer(source) or pa.types.is_floating(source):
        return _agree_numeric(numpy_dtype(source), dtype, rule)
    return None


def _agree_mixed(kinds: Sequence[pa.DataType], dtype: str, rule: CastRule, unit: TimeUnit | None) -> Cast | None:
    """Each file's values in their own way. Beside integers, floats may become some too: whole numbers are meant."""
    whole = any(map(pa.types.is_integer, kinds)) and natural(dtype).kind in "iu"
    casts = dict[pa.DataType, Cast]()
    for kind in kinds:
        cast = agree(kind, dtype, rule, unit)
        if cast is None and whole and pa.types.is_floating(kind):
            cast = Cast(dtype, "lossless")
        if cast is None:
            return None
        casts[kind] = cast
    hows = {cast.how for cast in casts.values()}
    loose: list[How] = [how for how in ("unsafe", "nearest") if how in hows]
    how = hows.pop() if len(hows) == 1 else loose[0] if loose else "lossless"
    return Cast(dtype, how, kinds=tuple(casts.items()))


def _agree_numeric(source: np.dtype[Any], dtype: str, rule: CastRule) -> Cast | None:
    target = natural(dtype)
    if rule == "nearest" and source.kind in "iuf" and target.kind == "f":
        safe = _agree_numeric(source, dtype, "safe")
        return safe if safe is not None and safe.how in ("same", "exact", "finite") else Cast(dtype, "nearest")
    if dtype in AS_BITS and target.kind == "f":
        how: How | None = "lossless" if source.kind == "f" else _integers_fit(source, dtype)
    elif dtype in AS_BITS:
        how = "range" if source.kind in "iu" else None
    elif source == target:
        how = "same"
    elif source.kind in "iu" and target.kind in "iu":
        how = "exact" if np.can_cast(source, target, "safe") else "range"
    elif source.kind in "iu" and dtype in _FLOATS:
        how = _integers_fit(source, dtype)
    elif source.kind == "f" and dtype in _FLOATS:
        how = "exact" if source.itemsize < target.itemsize else "finite"
    else:
        how = None
    if rule == "unsafe" and how != "same":
        return Cast(dtype, "exact" if how == "exact" else "unsafe")
    return Cast(dtype, how) if how else None


def _agree_time(source: pa.DataType, dtype: str, rule: CastRule, unit: TimeUnit) -> Cast | None:
    if natural(dtype).kind not in "iuf":
        return None
    per_unit = Fraction(NANOSECONDS[unit_of(source)], NANOSECONDS[unit])
    parts = rule != "safe" and natural(dtype).kind == "f"
    reading = Ticks(per_unit.numerator, per_unit.denominator, unit, parts, parts or rule == "unsafe")
    cast = _agree_numeric(np.dtype(np.float64 if parts and per_unit < 1 else np.int64), dtype, rule)
    return Cast(dtype, cast.how if cast else "lossless", reading=reading)


def _agree_decimal(source: pa.DataType, dtype: str, rule: CastRule) -> Cast | None:
    target = natural(dtype)
    if target.kind in "iu" and source.scale >= 0:
        wide = np.dtype(np.uint64 if dtype == "uint64" else np.int64)
        cast = _agree_numeric(wide, dtype, rule)
        return cast and Cast(dtype, cast.how, reading=WholeDecimals(wide.name, rule == "unsafe"))
    if target.kind != "f":
        return None
    if source.scale == 0 and 10**source.precision <= 2 ** _SIGNIFICAND.get(dtype, 0):
        return Cast(dtype, "exact", reading=Decimals(exact=True))
    if rule != "safe":
        return Cast(dtype, "nearest" if rule == "nearest" else "unsafe", reading=Decimals())
    cast = _agree_numeric(np.dtype(np.float64), dtype, rule)
    # Whole numbers are checked as integers are; others are rounded as floats are, where these may be.
    whole = source.scale <= 0 or (cast is not None and cast.how == "lossless")
    return cast and Cast(dtype, "lossless" if whole else cast.how, reading=Decimals(exact=whole))


def advice(source: pa.DataType, dtype: str, name: str = "") -> str:
    """What to do about a type that `agree` refused. name: of the input whose rule in the job may help; "": none may."""
    source, types = common_type(source), pa.types
    if types.is_temporal(source) or types.is_decimal(source):
        if name and is_time(source) and agree(source, dtype, "safe", "s"):
            return f"say in which unit they become numbers: `{rule_key(name)}.timestamp: {unit_of(source)}`"
        return f"convert the column to {NATURAL[dtype]} before the job"
    if types.is_struct(source) and dtype not in _PARTS:
        names = [source.field(index).name for index in range(source.num_fields)]
        return f"name the field that is meant, as COLUMN.FIELD (it has {', '.join(map(repr, names[:10]))})"
    rules: tuple[CastRule, ...] = ("nearest", "unsafe")
    helps = [f"`{rule_key(name)}.cast: {rule}`" for rule in rules if name and agree(source, dtype, rule)]
    if helps:
        return f"expected {NATURAL[dtype]}, a type that fits into it without loss, or {' or '.join(helps)}"
    return f"expected {'string or binary' if dtype == 'string' else NATURAL[dtype]}"


def _agree_complex(source: pa.StructType, dtype: str, rule: CastRule) -> Cast | None:
    fields = {source.field(index).name: source.field(index).type for index in range(source.num_fields)}
    if dtype not in _PARTS or set(fields) != {"re", "im"} or source.num_fields != 2:
        return None
    casts = [agree(fields[name], _PARTS[dtype], rule) for name in ("re", "im")]
    parts = tuple(cast for cast in casts if cast is not None)
    how: How = (
        "unsafe" if rule == "unsafe" else "lossless" if any(cast.how == "lossless" for cast in parts) else "finite"
    )
    return Cast(dtype, how, parts) if len(parts) == 2 else None


def _integers_fit(source: np.dtype[Any], dtype: str) -> How | None:
    if source.kind not in "iu":
        return None
    return "exact" if np.iinfo(source).max <= 2 ** _SIGNIFICAND.get(dtype, 0) else "lossless"
