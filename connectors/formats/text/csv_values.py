"""The values of CSV: bytes of whole rows -> a table of the types that were asked for, and what is wrong with some.

pyarrow.csv reads; where one value is not of its type it refuses them all. Then columns are read as bytes, and each
distinct value is tried. The invariant: a table has each row of the bytes, null where it could not be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from connectors.formats.fault import BadRows, once
from connectors.formats.text.cut import Found, Records, find

# That pyarrow parses and converts at once. Measured with 33 numbers a row: 1.5 times as fast as 16 MiB.
_BLOCK_BYTES = 2**20
_EXCERPT = 80  # characters of a bad line or value in a message
_BLANK = " \t"  # around numbers, dates and booleans
# Integers as other programs write them: with a plus, or as floats that are whole (pandas, where one is missing).
_WHOLE = r"^(?:\+|(-))?([0-9]+)(?:\.0*)?$"
_TIME = r"^[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?$"
_INFINITE = r"^[+-]?(?i:inf|infinity)$"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How rows are written. newlines: whether there may be line ends in values."""

    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    nulls: tuple[str, ...] = ("",)
    newlines: bool = True

    def grammar(self) -> Records:
        return Records(self.delimiter, self.quote, self.escape) if self.newlines else Records(self.delimiter, "")

    def prepared(self, content: pa.Buffer) -> pa.Buffer:
        """Whole rows as `parsing` reads them: pyarrow takes an escape outside of quotes for one, too."""
        if not (self.quote and self.escape and _holds(content, self.escape)):
            return content
        return pa.py_buffer(Records(self.delimiter, self.quote, self.escape).doubled(content))

    def parsing(self, bad: Callable[[Any], str] | None = None) -> pacsv.ParseOptions:
        return pacsv.ParseOptions(
            delimiter=self.delimiter,
            quote_char=self.quote or False,
            escape_char=self.escape or False,
            newlines_in_values=True,
            invalid_row_handler=bad,
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A column that is read. at: which one of the file it is."""

    at: int
    name: str
    kind: pa.DataType


def readable(kind: pa.DataType) -> bool:
    """Whether text in a CSV file can be of this type."""
    types = pa.types
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    return any(holds(kind) for holds in (*numbers, types.is_date, types.is_time, types.is_timestamp, *_TEXTS))


_BYTES = (pa.types.is_binary, pa.types.is_large_binary)
_TEXTS = (*_BYTES, pa.types.is_string, pa.types.is_large_string)


def names_in(content: bytes, dialect: Dialect) -> list[str]:
    """The values of the one row `content`. raises: UnicodeDecodeError, pyarrow.ArrowInvalid."""
    # pyarrow wants no blank line in front, and an end.
    held = dialect.prepared(pa.py_buffer(content.strip(b"\r\n") + b"\n"))
    read = pacsv.ReadOptions(use_threads=False, block_size=held.size + 1)
    names: list[str] = pacsv.read_csv(pa.BufferReader(held), read, dialect.parsing()).column_names
    return names


class Decoder:
    """columns: fields of a row in the files. wanted: those that are read, in the order of the table."""

    def __init__(self, dialect: Dialect, columns: int, wanted: Sequence[Wanted]) -> None:
        self._dialect, self._columns, self._wanted = dialect, columns, wanted
        self.schema = pa.schema([(one.name, one.kind) for one in wanted])

    def table(self, content: pa.Buffer, line: int) -> tuple[pa.Table, list[BadRows]]:
        """All rows, and those that are bad, each once. line: the number of the first one.

        raises: pyarrow.ArrowInvalid where the bytes are no rows at all.
        """
        short: list[tuple[int, int]] = []  # row, fields of it
        try:
            raw = self._read(content, {one.at: _read_as(one.kind) for one in self._wanted}, short)
            arrays = [_narrowed(array, one.kind) for array, one in zip(raw, self._wanted, strict=False)]
            bad = [np.empty(0, np.int64)] * len(arrays)
            for array in arrays:
                if pa.types.is_decimal(array.type):
                    array.validate(full=True)  # pyarrow.csv 26.0 puts 1000000 into decimal(8, 2)
            if any(pa.types.is_floating(array.type) and pc.any(pc.is_inf(array)).as_py() for array in arrays):
                arrays = []  # perhaps a number that is too large
        except pa.ArrowInvalid:
            arrays = []
        if not arrays:
            short.clear()
            raw = self._read(content, {one.at: _bytes_of(one.kind) for one in self._wanted}, short)
            values = [converted(array, one.kind) for array, one in zip(raw, self._wanted, strict=False)]
            arrays, bad = [made for made, _ in values], [places for _, places in values]
        rows = len(raw[0])
        table = (
            pa.table(arrays[: len(self._wanted)], self.schema) if self._wanted else pa.table({"": raw[0]}).select([])
        )
        if not short and not any(len(places) for places in bad):
            return table, []
        all_rows = rows + len(short)
        good = np.delete(np.arange(all_rows), [row for row, _ in short])
        if short:
            place = np.zeros(all_rows, np.int64)
            place[good] = np.arange(rows)
            missing = np.ones(all_rows, np.bool_)
            missing[good] = False
            table = table.take(pa.array(place, mask=missing))
        return table, self._stories(content, line, short, [(good[at], raw[i], at) for i, at in enumerate(bad)])

    def _read(self, content: pa.Buffer, types: dict[int, pa.DataType], short: list[tuple[int, int]]) -> list[pa.Array]:
        """The columns of rows that have all fields; at least one. short: gets those that have not."""

        def skip(row: Any) -> str:
            short.append((row.number - 1, row.actual_columns))
            return "skip"

        types = types or {0: pa.binary()}
        convert = pacsv.ConvertOptions(
            column_types={str(at): kind for at, kind in types.items()},
            include_columns=list(map(str, types)),
            null_values=list(self._dialect.nulls),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        content = self._dialect.prepared(content)
        if self._separable(content):
            try:
                return self._of_blocks(content, _BLOCK_BYTES, self._dialect.parsing(skip), convert)
            except pa.ArrowInvalid as error:
                if "straddling" not in str(error):  # two block borders: a row is larger than a block
                    raise
                short.clear()
        return self._of_blocks(content, content.size + 1, self._dialect.parsing(skip), convert)

    def _of_blocks(
        self, content: pa.Buffer, block_bytes: int, parse: pacsv.ParseOptions, convert: pacsv.ConvertOptions
    ) -> list[pa.Array]:
        read = pacsv.ReadOptions(
            use_threads=False,  # readers are threads, and rows have numbers without alone
            block_size=block_bytes,
            column_names=[str(at) for at in range(self._columns)],  # our own: those of a file may be there twice
        )
        return [_joined(column) for column in pacsv.read_csv(pa.BufferReader(content), read, parse, convert).columns]

    def _separable(self, content: pa.Buffer) -> bool:
        """Whether pyarrow reads the same from blocks: 26.0 loses a line feed of a value that a block begins with."""
        marks = [mark for mark in (self._dialect.quote, self._dialect.escape) if mark]
        return not _holds(content, "\r") or not any(_holds(content, mark) for mark in marks)

    def _stories(
        self, content: pa.Buffer, line: int, short: Sequence[tuple[int, int]], bad: Sequence[tuple[Any, pa.Array, Any]]
    ) -> list[BadRows]:
        """short: (row, fields). bad: of each wanted column the bad rows, its bytes, and where these rows are there."""
        held = content.to_pybytes()
        found = find(held, self._dialect.grammar(), line)
        faults = []
        if short:
            stories = [
                f"{_line(found, row)}: {fields} fields in {_excerpt(held[found.starts[row] : found.stops[row]])};"
                f" expected {self._columns}"
                for row, fields in short
            ]
            faults.append(BadRows("ROW_LINE", None, np.array([row for row, _ in short]), stories))
        for one, (rows, values, places) in zip(self._wanted, bad, strict=False):
            by_code: dict[str, list[tuple[int, str]]] = {}
            for row, value in zip(rows.tolist(), values.take(pa.array(places)).to_pylist(), strict=True):
                code, what = _fault(value, one.kind)
                story = f"{_line(found, row)}: {_excerpt(value)} in column {one.name!r} {what}"
                by_code.setdefault(code, []).append((row, story))
            for code, told in by_code.items():
                at = np.array([row for row, _ in told])
                faults.append(BadRows(code, one.name, at, [story for _, story in told]))
        return sorted(once(faults), key=lambda bad: int(bad.at[0]))  # the first one is what a job ends with


def converted(values: pa.Array, kind: pa.DataType) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The values of type `kind`, null where they are none, and where that is. values: binary, as the file has them."""
    if any(holds(kind) for holds in _BYTES):
        return values, np.empty(0, np.int64)
    text = _as_text(values)
    if any(holds(kind) for holds in _TEXTS):
        bad = _not_utf8(text, values)
        return (_as_text(_without(values, bad)) if len(bad) else text), bad
    encoded = pc.ascii_trim(text, characters=_BLANK).dictionary_encode()
    distinct = encoded.dictionary
    made, wrong = _tried(distinct, kind)
    if pa.types.is_integer(kind) and len(wrong):
        whole = pc.replace_substring_regex(distinct.take(pa.array(wrong)).cast(pa.binary()), _WHOLE, r"\1\2")
        again, still = _tried(_as_text(whole), kind)
        made = pc.replace_with_mask(made, pa.array(np.isin(np.arange(len(made)), wrong)), again)
        wrong = wrong[still]
    is_wrong = np.zeros(len(distinct) + 1, np.bool_)  # the last one: of nulls
    is_wrong[wrong] = True
    indices = pc.fill_null(encoded.indices, len(distinct)).to_numpy(zero_copy_only=False)
    some = pc.fill_null(pc.greater(pc.binary_length(values), 0), False).to_numpy(zero_copy_only=False)
    return made.take(encoded.indices), np.flatnonzero(is_wrong[indices] & some)  # "" is null, with quotes too


def _tried(text: pa.Array, kind: pa.DataType) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The texts as values of `kind`, null where they are none, and where that is."""
    parts, wrong, waiting = list[pa.Array](), list[int](), [(0, len(text))]
    while waiting:
        start, stop = waiting.pop()
        try:
            parts.append(_parsed(text.slice(start, stop - start), kind))
        except pa.ArrowInvalid:
            if stop - start == 1:
                parts.append(pa.nulls(1, kind))
                wrong.append(start)
            else:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
    return pa.concat_arrays(parts), np.array(wrong, np.int64)


def _parsed(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """raises: pyarrow.ArrowInvalid where one is no value."""
    if pa.types.is_time(kind):  # pyarrow has no such cast
        if not pc.all(pc.match_substring_regex(text.cast(pa.binary()), _TIME)).as_py():
            raise pa.ArrowInvalid("no time")
        return pc.binary_join_element_wise("1970-01-01", text, "T").cast(pa.timestamp(kind.unit)).cast(kind)
    made = _narrowed(text.cast(_read_as(kind)), kind)
    if pa.types.is_floating(kind):
        infinite = pc.is_inf(made)
        meant = pc.match_substring_regex(text.cast(pa.binary()), _INFINITE)
        if pc.any(pc.and_not(infinite, meant)).as_py():
            raise pa.ArrowInvalid("too large")
    return made


def _fault(value: bytes, kind: pa.DataType) -> tuple[str, str]:
    """The code of a bad value, and what is wrong with it."""
    if any(holds(kind) for holds in _TEXTS):
        return "ROW_UTF8", "is no UTF-8"
    try:
        float(value)
        number = True
    except ValueError:
        number = False
    if number and pa.types.is_floating(kind):
        return "ROW_OVERFLOW", f"is more than {kind} can hold"
    try:
        if pa.types.is_integer(kind):
            int(value)
            return "ROW_OVERFLOW", f"is more than {kind} can hold"
    except ValueError:
        pass
    return "ROW_VALUE", f"is no {kind}"


def _not_utf8(text: pa.Array, values: pa.Array) -> npt.NDArray[np.int64]:
    """Where the bytes of a text are none."""
    try:
        text.validate(full=True)
        return np.empty(0, np.int64)
    except pa.ArrowInvalid:
        pass
    ascii_only = pc.fill_null(pc.string_is_ascii(text), True).to_numpy(zero_copy_only=False)
    return np.array([at for at in np.flatnonzero(~ascii_only).tolist() if not _is_utf8(values[at].as_py())], np.int64)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without(values: pa.Array, places: npt.NDArray[np.int64]) -> pa.Array:
    """Null at `places`."""
    mask = np.zeros(len(values), np.bool_)
    mask[places] = True
    return pc.if_else(pa.array(mask), pa.scalar(None, values.type), values)


def _as_text(values: pa.Array) -> pa.Array:
    """The same bytes called text, whether they are or not."""
    kind = pa.large_string() if pa.types.is_large_binary(values.type) else pa.string()
    return pa.Array.from_buffers(kind, len(values), values.buffers(), values.null_count, values.offset)


def _read_as(kind: pa.DataType) -> pa.DataType:
    return pa.float32() if pa.types.is_float16(kind) else kind  # pyarrow.csv has no halves


def _bytes_of(kind: pa.DataType) -> pa.DataType:
    large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    return pa.large_binary() if large else pa.binary()


def _narrowed(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else array.cast(kind, safe=False)


def _holds(content: pa.Buffer, mark: str) -> bool:
    return re.search(re.escape(mark.encode()), content) is not None  # copies nothing


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _line(found: Found, row: int) -> str:
    return f"line {found.lines[row]} of the file"


def _excerpt(value: bytes) -> str:
    """At most 80 characters of what stands there, fit for a message."""
    told = repr(value[: 4 * _EXCERPT].rstrip(b"\r\n").decode("utf-8", "backslashreplace"))
    return told if len(told) <= _EXCERPT else f"{told[: _EXCERPT - 3]}..."
