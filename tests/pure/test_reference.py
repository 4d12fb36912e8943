"""The table of keys in jobs/README.md: of every key, from the schema, and never behind it."""

from __future__ import annotations

import pytest

from jobs import reference


def test_the_page_holds_exactly_the_table_that_the_schema_gives() -> None:
    text = reference.PAGE.read_text(encoding="utf-8")
    assert text == reference.page(text), "run `python -m jobs.reference --write`"


def test_a_key_shows_its_choices_its_default_and_its_meaning() -> None:
    line = "| `limits.on_bad_row` | `fail` or `reject` | `fail` | `reject` sets bad rows aside |\n"
    assert line in reference.table()
    assert "| `model.url` | text | required |" in reference.table()


def test_a_key_without_a_meaning_and_a_meaning_without_a_key_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reference.MEANINGS, "limits.nothing", "a key that is not there")
    with pytest.raises(KeyError, match=r"limits\.nothing"):
        reference.table()
    monkeypatch.undo()
    monkeypatch.delitem(reference.MEANINGS, "limits.stall_s")
    with pytest.raises(KeyError, match=r"limits\.stall_s"):
        reference.table()
