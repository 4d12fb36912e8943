"""Where a text file can be cut: the ends of its rows, found in one pass over its bytes.

Owns which line ends are row ends, and how many rows lie between cuts; refuses to know what is in a row. The invariant:
a cut lies behind a row end, and the rows of all cuts are the rows of the file, in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Places = npt.NDArray[np.int64]

# Whatever is reached first ends a row group: it is decoded and fed as a whole.
GROUP_BYTES, GROUP_ROWS = 16 * 2**20, 2**18
_LF, _CR = 10, 13
_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Cut:
    """A run of rows. start, stop: of the unpacked bytes. line: the number of its first line. rows: but blank ones."""

    start: int
    stop: int
    line: int
    rows: int


@dataclass(frozen=True, slots=True)
class Rows:
    """What ends in one block. stops: behind the line end of each row. blank: which rows are none. line_stops: of all
    lines, those inside of a row too. All in bytes of the block; before it begin rows that went on from earlier ones."""

    stops: Places
    blank: npt.NDArray[np.bool_]
    line_stops: Places


class Lines:
    """Each line is a row, but for those of white space. Ends with a line feed alone: JSON lines."""

    def __init__(self) -> None:
        self._begun = False  # whether the row in hand has more than white space

    def known(self, block: bytes) -> int:
        """How many bytes of a block mean the same whatever follows."""
        return len(block)

    def rows(self, block: bytes) -> Rows:
        """The rows that end in the next block."""
        at = np.frombuffer(block, np.uint8)
        stops = np.flatnonzero(at == _LF) + 1
        blank = np.zeros(len(stops), np.bool_)
        if len(stops):
            starts = np.concatenate([[0], stops[:-1]])
            blank[at[starts] <= ord(" ")] = True  # perhaps
            for row in np.flatnonzero(blank).tolist():
                blank[row] = not block[starts[row] : stops[row]].strip(_SPACE)
            blank[0] = not self._begun and not block[: stops[0]].strip(_SPACE)
            self._begun = False
        last = int(stops[-1]) if len(stops) else 0
        self._begun = self._begun or bool(block[last:].strip(_SPACE))
        return Rows(stops, blank, stops)

    @property
    def begun(self) -> bool:
        """Whether the bytes behind the last row end are one more row."""
        return self._begun


class Records:
    """Rows as CSV has them: they end with a line feed, a carriage return or both, where these are not between quotes.

    quote: "": none, so that each line end is a row end. escape: "": none.
    A quote opens a value in front of its first character alone; elsewhere it is a character as others are. So do
    pyarrow and Python's `csv` read. Between quotes an escape takes the meaning of the character behind it away;
    elsewhere it is a character too, as Spark, DuckDB and PostgreSQL write, unless no value is quoted.
    """

    def __init__(self, delimiter: str = ",", quote: str = '"', escape: str = "") -> None:
        self._quote, self._border = quote.encode(), tuple(delimiter.encode()[-1:] + b"\n\r")
        self._escape = escape.encode()
        # Between quotes a line end means nothing anyway, and outside nothing but one does behind an escape.
        after = b"[" + re.escape(self._escape + self._quote) + b"]" if quote else b"."
        self._escaped = re.compile(re.escape(self._escape) + after, re.DOTALL)
        self._begun = False  # whether the row in hand has a byte
        self._inside = False  # between quotes
        self._before = _LF  # the byte before the block: a quote only where it closed a value

    def known(self, block: bytes) -> int:
        size = len(block) - block.endswith(b"\r")  # a line feed may follow
        escapes = size - len(block[:size].rstrip(self._escape)) if self._escape else 0
        return size - escapes % 2

    @property
    def begun(self) -> bool:
        return self._begun

    @property
    def inside(self) -> bool:
        """Whether a value that began with a quote is still open."""
        return self._inside

    def rows(self, block: bytes) -> Rows:
        """The rows that end in the next block."""
        if self._escape and self._escape in block:
            block = self._escaped.sub(b"xx", block)
        at = np.frombuffer(block, np.uint8)
        line_ends = at == _LF
        if b"\r" in block:
            returns = at == _CR
            returns[:-1] &= ~line_ends[1:]  # those before a line feed end nothing by themselves
            line_ends |= returns
        lines = np.flatnonzero(line_ends)
        ends = lines[~self._within(block, at, lines)] if self._quote else lines
        starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
        blank = (ends == starts) | ((ends == starts + 1) & (at[starts] == _CR) & (at[ends] == _LF))
        if len(ends):
            blank[0] &= not self._begun
        behind = int(ends[-1]) + 1 if len(ends) else 0
        self._begun = behind < len(block) or (self._begun and not len(ends))
        return Rows(ends + 1, blank, lines + 1)

    def doubled(self, content: pa.Buffer) -> bytes:
        """Whole rows, with each escape outside of quotes twice: a reader to whom one means something there, too, finds
        one."""
        at = np.frombuffer(content, np.uint8)
        marks = np.flatnonzero(at == self._escape[0])
        masked = self._escaped.sub(b"xx", content)
        outside = marks[~self._within(masked, np.frombuffer(masked, np.uint8), marks)]
        return np.insert(at, outside, self._escape[0]).tobytes()

    def _within(self, block: bytes, at: npt.NDArray[np.uint8], places: Places) -> npt.NDArray[np.bool_]:
        """Which of `places` lie between quotes."""
        inside = self._inside
        if self._quote not in block:
            self._before = block[-1]
            return np.full(len(places), inside)
        quotes = np.flatnonzero(at == self._quote[0])
        before = at[quotes - 1]
        before[0] = self._before if quotes[0] == 0 else before[0]
        opening = slice(inside, None, 2)  # of quotes that open and close in turn
        opens = np.isin(before[opening], (*self._border, self._quote[0]))
        if not opens.all():
            quotes = self._walked(quotes.tolist(), before.tolist())
        self._inside = bool((len(quotes) + inside) % 2)
        closed = len(quotes) and quotes[-1] == len(block) - 1 and not self._inside
        self._before = self._quote[0] if closed else (0 if block.endswith(self._quote) else block[-1])
        within: npt.NDArray[np.bool_] = (np.searchsorted(quotes, places) + inside) % 2 == 1
        return within

    def _walked(self, quotes: list[int], before: list[int]) -> Places:
        """Those that open or close a value, where others stand among them."""
        kept, inside = list[int](), self._inside
        closed = -1 if self._before == self._quote[0] else -2  # where a value was closed last
        for place, byte in zip(quotes, before, strict=True):
            if inside or byte in self._border or closed == place - 1:
                closed = place if inside else closed
                inside = not inside
                kept.append(place)
        return np.array(kept, np.int64)


Grammar = Lines | Records


@dataclass
class _Group:
    start: int
    line: int
    rows: int = 0
    lines: int = 0


def aligned(blocks: Iterable[bytes], grammar: Grammar) -> Iterator[bytes]:
    """The same bytes in blocks that can be looked at without the next one."""
    rest = b""
    for block in blocks:
        block = rest + block if rest else block
        known = grammar.known(block)
        rest = block[known:]
        if known:
            yield block[:known] if rest else block
    if rest:
        yield rest


def cuts(
    blocks: Iterable[bytes],
    grammar: Grammar,
    start: int = 0,
    line: int = 1,
    *,
    whole: bool = False,
    check: Callable[[int], Any] = lambda size: None,
) -> Iterator[Cut]:
    """The row groups of what is in `blocks`; the same for every reader of the same bytes.

    start, line: where the blocks begin.
    whole:       all rows are one group.
    check:       called with the bytes of a group while they are counted: raises where they are too many.
    returns:     blank lines belong to the group that they lie in; one without rows is made of these alone.
    """
    group, at = _Group(start, line), start
    for block in aligned(blocks, grammar):
        found = grammar.rows(block)
        stops = found.stops
        if len(stops):
            last = int(stops[-1])
            ended = int(np.searchsorted(found.line_stops, last, "right"))
            group.rows += len(stops) - int(np.count_nonzero(found.blank))
            stop, lines = at + last, group.lines + ended
            group.lines += len(found.line_stops)
            full = stop - group.start >= GROUP_BYTES or group.rows >= GROUP_ROWS
            if full and not whole:
                yield Cut(group.start, stop, group.line, group.rows)
                group = _Group(stop, group.line + lines, 0, len(found.line_stops) - ended)
        else:
            group.lines += len(found.line_stops)
        at += len(block)
        check(at - group.start)
    rows = group.rows + grammar.begun
    if rows:
        yield Cut(group.start, at, group.line, rows)


@dataclass(frozen=True, slots=True)
class Found:
    """Where each row lies in some bytes, and the number of its first line; blank lines are left out."""

    starts: Places
    stops: Places
    lines: Places


def find(content: bytes, grammar: Grammar, line: int) -> Found:
    """All rows of `content`. grammar: that has seen nothing yet. line: the number of its first line."""
    nothing = np.empty(0, np.int64)
    found = grammar.rows(content) if content else Rows(nothing, np.empty(0, np.bool_), nothing)
    stops, blank = found.stops, found.blank
    if grammar.begun:
        stops, blank = np.append(stops, len(content)), np.append(blank, np.False_)
    starts = np.concatenate([[0], stops[:-1]])[: len(stops)]
    lines = line + np.searchsorted(found.line_stops, starts, "right")
    return Found(starts[~blank], stops[~blank], lines[~blank])
