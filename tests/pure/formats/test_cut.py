"""Cuts of text files: row ends as Python's `csv` and `json` (with escapes: pyarrow) find them, whatever the blocks."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors.formats.text import cut
from connectors.formats.text.csv_values import Dialect
from connectors.formats.text.cut import Cut, Lines, Records, cuts, find

TEXTS = st.lists(st.sampled_from(['"', '""', ",", "\n", "\r", "\r\n", "a", " ", "\\", ';"', '\n"']), max_size=30)


def blocks(content: bytes, sizes: Sequence[int]) -> list[bytes]:
    made, at = [], 0
    for size in sizes:
        made.append(content[at : at + size])
        at += size
    return [block for block in [*made, content[at:]] if block]


def oracle(text: str) -> list[str]:
    """The rows with a byte, as the text of each, by Python's csv."""
    lines = [line.decode() for line in text.encode().splitlines(keepends=True)]
    taken: list[str] = []

    def feed():
        for line in lines:
            taken.append(line)
            yield line

    rows, done = [], 0
    for row in csv.reader(feed()):
        if row:
            rows.append("".join(taken[done:]))
        done = len(taken)
    return rows


def rows_of_arrow(text: str, quote: str) -> int:
    """How many rows pyarrow reads. Behind a closing quote an escape counts too, not so in Python's `csv`."""
    bad = []

    def skip(row):
        bad.append(row)
        return "skip"

    dialect = Dialect(quote=quote, escape="\\")
    read = pacsv.ReadOptions(use_threads=False, column_names=["a", "b"], block_size=2**20)
    content = dialect.prepared(pa.py_buffer(text.encode()))
    return pacsv.read_csv(pa.BufferReader(content), read, dialect.parsing(skip)).num_rows + len(bad) if text else 0


def whole_rows(content: bytes, found: Sequence[Cut]) -> None:
    """The cuts follow each other, and each begins at the line that it says."""
    at = found[0].start if found else 0
    for one in found:
        assert one.start == at
        assert one.line == 1 + len(content[: one.start].splitlines())
        at = one.stop


@settings(deadline=None)
@given(TEXTS, st.lists(st.integers(1, 5), max_size=10))
@example(['"', "a", '""'], [3])
@example(["a", '"', "\n", '"'], [2, 1])
@example(['"a"', '"b\n"'], [3])
def test_rows_of_csv_end_where_pythons_csv_says(parts, sizes):
    text = "".join(parts)
    content = text.encode()
    grammar, at, ends = Records(), 0, []
    rows = 0
    for block in cut.aligned(blocks(content, sizes), grammar):
        found = grammar.rows(block)
        rows += len(found.stops) - int(found.blank.sum())
        ends += [at + int(stop) for stop, blank in zip(found.stops, found.blank, strict=True) if not blank]
        at += len(block)
    wanted = oracle(text)
    places = find(content, Records(), 1)
    for start, stop, line, row in zip(places.starts, places.stops, places.lines, wanted, strict=True):
        assert content[start:stop].decode() == row
        assert line == 1 + len(content[:start].splitlines())
    assert rows + grammar.begun == len(wanted)
    starts = [0, *ends]
    for index, row in enumerate(wanted[: len(ends)]):
        assert content[starts[index] : ends[index]].decode().endswith(row)


@settings(deadline=None)
@given(TEXTS, st.lists(st.integers(1, 5), max_size=10), st.sampled_from(['"', ""]))
@example(['""', "\\", "\n", '"'], [], '"')
@example(["a", "\\", "\n", "b", "\\", ",", '"', "\n", '"'], [], '"')
def test_escaped_characters_neither_end_a_row_nor_open_a_value(parts, sizes, quote):
    text = "".join(parts)
    if text.endswith("\\") and not quote:
        text += "a"
    grammar = Records(quote=quote, escape="\\")
    rows = sum(one.rows for one in cuts(blocks(text.encode(), sizes), grammar))
    assert rows == rows_of_arrow(text, quote)


@settings(deadline=None)
@given(TEXTS, st.lists(st.integers(1, 5), max_size=10), st.integers(1, 20), st.integers(1, 4))
def test_groups_hold_each_row_once_and_begin_at_the_line_that_they_say(parts, sizes, group_bytes, group_rows):
    content = "".join(parts).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "GROUP_BYTES", group_bytes)
        patch.setattr(cut, "GROUP_ROWS", group_rows)
        found = list(cuts(blocks(content, sizes), Records()))
    whole_rows(content, found)
    for one in found:
        assert one.rows == len(oracle(content[one.start : one.stop].decode()))
    assert sum(one.rows for one in found) == len(oracle(content.decode()))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["{}", " ", "\n", "\r\n", "\t", '"a"']), max_size=30), st.lists(st.integers(1, 4)))
def test_lines_of_json_are_those_with_more_than_white_space(parts, sizes):
    content = "".join(parts).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "GROUP_BYTES", 4)
        found = list(cuts(blocks(content, sizes), Lines()))
    assert sum(one.rows for one in found) == sum(1 for line in io.BytesIO(content) if line.strip())
    for one in found:
        assert one.line == 1 + content[: one.start].count(b"\n")
        assert one.rows == sum(1 for line in io.BytesIO(content[one.start : one.stop]) if line.strip())


def test_all_rows_of_a_packed_file_are_one_group():
    content = b"1\n2\n\n3"
    assert list(cuts([content], Records(), whole=True)) == [Cut(0, 6, 1, 3)]


def test_a_group_that_grows_too_far_is_refused_while_it_is_counted():
    def check(size: int) -> None:
        if size > 10:
            raise OverflowError(size)

    with pytest.raises(OverflowError):
        list(cuts([b"1,2\n"] * 4, Records(), whole=True, check=check))
    assert len(list(cuts([b"1,2\n"] * 2, Records(), whole=True, check=check))) == 1
