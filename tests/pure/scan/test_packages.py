"""The table of op packages: what is written is what is read, and an unknown op says what to type."""

from __future__ import annotations

import pytest

from runner.scan import packages as subject
from runner.scan.ops import minor_of, registry
from runner.scan.packages import EXTRAS, PATH, Package, advice, holders, install, normal, packages, parsed, text

TOKENS = "TFText>WhitespaceTokenizeWithOffsetsV2"
ONE = Package("one", ("2.20.0",), {"one/a.so": {"Add>One": False, "Keep": True}, "one/b.so": {"Other": False}})


def test_the_file_in_the_package_is_as_it_would_be_written() -> None:
    assert text(parsed(PATH.read_text()).values()) == PATH.read_text()


def test_what_is_written_is_what_is_read() -> None:
    other = Package("two", ("1.0", "2.0"), {"two/ops.so": {"Keep": False}})
    assert parsed(text([other, ONE])) == {"one": ONE, "two": other}


def test_every_package_has_an_extra_and_no_op_that_tensorflow_has() -> None:
    assert set(packages()) == set(EXTRAS)
    known = registry().stateful
    assert [op for package in packages().values() for op in package.ops if op in known] == []


def test_a_version_with_the_same_ops_comes_beside_the_others_and_one_with_other_ops_replaces_them() -> None:
    assert ONE.seen("2.21.1", ONE.libraries).versions == ("2.20.0", "2.21.1")
    assert ONE.seen("2.20.3", ONE.libraries).versions == ("2.20.3",)
    changed = {"one/a.so": {"Keep": True}}
    assert ONE.seen("2.21.1", changed) == Package("one", ("2.21.1",), changed)


def test_only_the_libraries_that_register_an_op_are_needed() -> None:
    assert ONE.holding({"Keep", "MatMul"}) == ["one/a.so"]
    assert ONE.holding({"MatMul"}) == []
    assert holders("Keep", {"one": ONE, "two": Package("two", (), {"x.so": {"Keep": False}})}) == ["one", "two"]


@pytest.mark.parametrize("name", ["tensorflow-text", "TensorFlow_Text", "tensorflow.text", "tensorflow_text"])
def test_a_package_is_found_as_people_spell_it(name: str) -> None:
    assert normal(name) == "tensorflow_text"


def test_an_unknown_op_says_which_package_has_it_and_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "tensorflow_version", lambda: "2.21.0")
    monkeypatch.setattr(subject, "installed_version", lambda name: "")
    assert advice([TOKENS]) == [
        f"op '{TOKENS}' is in tensorflow_text 2.21: pip install 'savedmodel-runner[text]', and add"
        " `op_packages: [tensorflow_text]` under 'model', or --op-package tensorflow_text"
    ]
    monkeypatch.setattr(subject, "tensorflow_version", lambda: "2.22.0rc0")  # for which none was seen
    assert advice([TOKENS])[0].startswith(f"op '{TOKENS}' is in tensorflow_text: pip install")
    monkeypatch.setattr(subject, "installed_version", lambda name: "2.21.1")
    assert advice(["RougeL", TOKENS, "MatMul"]) == [
        f"ops 'RougeL', '{TOKENS}' are in tensorflow_text 2.21.1, which is installed: add"
        " `op_packages: [tensorflow_text]` under 'model', or --op-package tensorflow_text"
    ]
    assert advice(["MatMul", "ZeroOut"]) == []


def test_what_installs_a_package_is_an_extra_of_this_one() -> None:
    assert [install(name) for name in packages()] == [
        "pip install 'savedmodel-runner[text]'",
        "pip install 'savedmodel-runner[forests]'",
    ]
    assert {minor_of(version) for package in packages().values() for version in package.versions} >= {"2.20", "2.21"}
