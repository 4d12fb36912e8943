"""Dates of Java's old calendar: each keeps its name, counted day by day."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

from connectors.formats.typed.calendar import gregorian

FIRST = -719164  # the day on which the Julian calendar counts 0001-01-01
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def test_the_first_and_the_last_day_of_each_julian_month_keep_their_names() -> None:
    days, names, day = list[int](), list[dt.date](), FIRST
    for year in range(1, 1582):
        for month, length in enumerate(LENGTHS, 1):
            last = length + (month == 2 and year % 4 == 0)
            alone = last == 29 and year % 100 == 0 and year % 400  # a day that only this calendar has
            days += [day, day + last - 1]
            names += [dt.date(year, month, 1), dt.date(year, 3, 1) if alone else dt.date(year, month, last)]
            day += last
    assert gregorian(pa.array(days, pa.int32()).cast(pa.date32())).to_pylist() == names
