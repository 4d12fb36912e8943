"""Text that others chose reaches a terminal as letters, and never as orders to it."""

from __future__ import annotations

import io
import json

import pytest
from rich.table import Table
from rich.text import Text

from runner.report.console import Console, json_text, printable

PLAIN = "größer 東京 हिन्दी نمی‌خواهم 👩‍🚀 ñ"  # with joiners, which make one letter of several
ORDERS = {  # what a terminal obeys or hides -> what is shown
    "\x1b[2J\x1b]0;title\x9c": "\\x1b[2J\\x1b]0;title\\x9c",
    "\u202egnp.exe": "\\u202egnp.exe",
    "\x9b31m": "\\x9b31m",
    "a\x7fb\0": "a\\x7fb\\x00",
    "\u2028\ufeff": "\\u2028\\ufeff",
    "\U000e0041": "\\U000e0041",
    "\udc80": "\\udc80",
}


@pytest.mark.parametrize(("text", "shown"), ORDERS.items())
def test_what_a_terminal_would_obey_is_shown_in_texts_tables_and_markup(text: str, shown: str) -> None:
    assert printable(text) == shown
    stream = io.StringIO()
    console = Console(file=stream, width=200, force_terminal=True, color_system=None)
    table = Table(box=None)
    table.add_column(text)
    table.add_row(Text(text, style="bold red"))
    console.print(table, Text.assemble((text, "bold"), "!"), text)
    *cells, line = stream.getvalue().splitlines()
    assert line == f"{shown}! {shown}"
    # rich measures a cell before it is escaped, and cuts it.
    assert all(shown.startswith(cell.strip().removesuffix("…")) for cell in cells)
    assert len(cells) == 2


def test_bells_and_returns_are_shown_too() -> None:
    assert printable("a\rb\x08\x07") == "a\\rb\\x08\\x07"


def test_letters_of_all_scripts_and_emoji_stay() -> None:
    stream = io.StringIO()
    Console(file=stream, width=200).print(Text(PLAIN))
    assert (printable(PLAIN), stream.getvalue().strip()) == (PLAIN, PLAIN)


def test_a_style_stays_with_its_letters() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="standard", width=80)
    console.print(Text.assemble("a\x1b", ("b\x1b", "red"), "c"), end="")
    assert stream.getvalue() == "a\\x1b\x1b[31mb\\x1b\x1b[0mc"


def test_line_breaks_stay_where_they_are_wanted() -> None:
    assert printable("a\nb\tc") == "a\\nb\\tc"
    assert printable("a\nb\tc", lines=True) == "a\nb\tc"


@pytest.mark.parametrize("text", [*ORDERS, PLAIN, "a\nb", '"\\'])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_says_the_same_and_orders_nothing(text: str, indent: int | None) -> None:
    said = json_text({text: [text]}, indent)
    assert json.loads(said) == {text: [text]}
    assert printable(said, lines=True) == said
    assert not (set(PLAIN) & set(text)) - set(said), "what can be read is not escaped"
