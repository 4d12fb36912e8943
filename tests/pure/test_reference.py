"""The table of keys in jobs/README.md: of every key, from the schema, and never behind it."""

from __future__ import annotations

import pytest

from jobs import reference
from jobs.schedule.policy import Policy
from jobs.section.limits import Limits
from jobs.section.number import parse_bytes


def test_the_page_holds_exactly_the_table_that_the_schema_gives() -> None:
    text = reference.PAGE.read_text(encoding="utf-8")
    assert text == reference.page(text), "run `python -m jobs.reference --write`"


def test_a_key_shows_its_choices_its_default_and_its_meaning() -> None:
    line = "| `limits.on_bad_row` | `fail` or `reject` | `fail` | `reject` sets bad rows aside |\n"
    assert line in reference.table()
    assert "| `model.url` | text | required |" in reference.table()


def test_keys_that_lie_deep_are_in_the_table_too() -> None:
    table = reference.table()
    for key in ("example.columns", "null.fill", "pad.buckets"):
        assert f"| `columns.inputs.TENSOR.{key}` |" in table
    assert "| `columns.outputs.TENSOR.decode` |" in table


def test_a_size_is_shown_with_its_unit_and_reads_back_as_the_default() -> None:
    assert "| `limits.shard_bytes` | size | `128MiB` |" in reference.table()
    assert "| `workers.memory` | size | - |" in reference.table()
    assert "| `limits.max_bad_files` | whole number or share | `0` |" in reference.table()
    for count in (0, 1, 1000, 2**10, 3 * 2**20, 2**34, 2**40 + 2**10):
        assert parse_bytes(reference.size(count)) == count


def test_the_table_says_how_often_a_shard_may_lose_its_worker() -> None:
    tries = Policy.of(Limits()).infrastructure
    line = next(line for line in reference.table().splitlines() if line.startswith("| `limits.max_attempts` |"))
    assert f"unless set, {tries} where a worker" in line


def test_a_key_without_a_meaning_and_a_meaning_without_a_key_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reference.MEANINGS, "limits.nothing", "a key that is not there")
    with pytest.raises(KeyError, match=r"limits\.nothing"):
        reference.table()
    monkeypatch.undo()
    monkeypatch.delitem(reference.MEANINGS, "limits.stall_s")
    with pytest.raises(KeyError, match=r"limits\.stall_s"):
        reference.table()
