"""Dates that a program of the JVM counted in its old calendar, which is Julian before 1582-10-15, in Arrow's.

Owns the days between the two. The invariant: year, month and day stay what they were written as.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_CUTOVER = int(np.datetime64("1582-10-15").astype(np.int64))  # the first day that both calendars count alike
_JULIAN_DAY = 2_440_588  # of 1970-01-01


def gregorian(dates: pa.Array) -> pa.Array:
    """The same dates in the calendar that goes on backwards, as Arrow has it. dates: date32, of the old calendar.

    A 29th of February that only the Julian calendar has becomes the first of March, as Spark has it.
    source: E. G. Richards, "Mapping Time", chapter 25: the Julian date of a day.
    """
    days = pc.fill_null(dates.cast(pa.int32()), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    old = days < _CUTOVER
    if not old.any():
        return dates
    days[old] = _renamed(days[old])
    return pa.array(days.astype(np.int32), mask=dates.is_null().to_numpy(zero_copy_only=False)).cast(pa.date32())


def has_old_dates(values: pa.Array) -> bool:
    """Whether a date before the change of calendars stands in `values`, also inside of lists, structs and maps."""
    kind = values.type
    if pa.types.is_date32(kind):
        return bool((pc.min(values.cast(pa.int32())).as_py() or 0) < _CUTOVER)
    if pa.types.is_struct(kind):
        return any(map(has_old_dates, values.flatten()))
    if pa.types.is_map(kind):
        return has_old_dates(values.keys) or has_old_dates(values.items)
    return pa.types.is_list(kind) and has_old_dates(values.flatten())


def _renamed(days: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    counted = days + _JULIAN_DAY + 32_082  # from the first of March 4801 BC
    years = (4 * counted + 3) // 1461
    rest = counted - 1461 * years // 4
    months = (5 * rest + 2) // 153  # from March
    day = rest - (153 * months + 2) // 5
    month = (years - 4800 - 1970) * 12 + months + 2  # from January 1970
    return month.astype("M8[M]").astype("M8[D]").astype(np.int64) + day
