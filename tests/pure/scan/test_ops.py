"""The table of ops: one file for several versions of TensorFlow, and the one that is installed is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.scan.ops import PATH, Registry, minor_of, registry, tables, tensorflow_version, text, updated

OPS = st.dictionaries(st.from_regex(r"[A-Z][A-Za-z>0-9]{0,8}", fullmatch=True), st.booleans(), max_size=8)
KNOWN = {"2.9.1": {"Add": False, "Gone": False, "Turned": False}, "2.10.0rc0": {"Add": False, "Turned": True}}


@given(st.fixed_dictionaries({"2.9.1": OPS, "2.10.0rc0": OPS, "2.11.0": OPS}))
def test_what_is_written_is_what_is_read(known: dict[str, dict[str, bool]]) -> None:
    assert tables(text(known)) == known


def test_only_an_op_that_not_all_versions_have_names_those_that_do() -> None:
    lines = ["TensorFlow 2.9.1 2.10.0rc0", "Add", "Gone 2.9", "Turned 2.9", "Turned* 2.10"]
    assert text(KNOWN).splitlines() == lines


def test_the_file_in_the_package_is_as_it_would_be_written() -> None:
    assert text(tables(PATH.read_text())) == PATH.read_text()


def test_the_ops_of_a_version_replace_those_of_its_minor_only() -> None:
    before = tables(PATH.read_text())
    after = tables(updated("2.21.7", {"Add": False}))
    assert after.pop("2.21.7") == {"Add": False}
    assert after == {version: ops for version, ops in before.items() if minor_of(version) != "2.21"}


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ("2.21.0", "TensorFlow 2.21.0"),
        ("2.21.1", "TensorFlow 2.21.0"),
        ("2.22.0rc0", "TensorFlow 2.22.0rc0"),
        ("2.22.0.dev20261101", "TensorFlow 2.22.0rc0"),
        ("3.1.0", "TensorFlow 2.22.0rc0, the nearest known here to 3.1.0, which is installed"),
        ("2.19.1", "TensorFlow 2.20.0, the nearest known here to 2.19.1, which is installed"),
        ("", "TensorFlow 2.22.0rc0"),
    ],
)
def test_the_installed_version_chooses_and_else_the_nearest_lower_one(installed: str, told: str) -> None:
    assert str(registry(installed)) == told


def test_a_minor_has_its_own_ops() -> None:
    assert [("DecodeJxl" in registry(version).stateful) for version in ("2.20.0", "2.21.0")] == [False, True]
    assert isinstance(registry(), Registry)
    assert registry().stateful == registry(tensorflow_version()).stateful
