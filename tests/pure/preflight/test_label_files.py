"""Files that name labels: the model's own go first, each is read once, and binding says what is wrong with one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jobs.section.columns import Columns
from runner.binding.shaping import labels as own
from runner.binding.shaping.labels import Labels
from runner.model.signature import ModelSpec
from runner.preflight.model.labels import repeated_labels, with_labels


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """With assets/labels.txt; the same and others.txt lie in the working directory."""
    for folder, text in (("model", "own a\nown b\n"), ("here", "a\nb\na\n")):
        (tmp_path / folder / "assets").mkdir(parents=True)
        (tmp_path / folder / "assets" / "labels.txt").write_text(text)
    (tmp_path / "here" / "others.txt").write_text("c\n")
    monkeypatch.chdir(tmp_path / "here")
    return ModelSpec("m", str(tmp_path / "model"), None, (), "", {}, {"assets/labels.txt": 12})


def read(model: ModelSpec, labels: Any) -> Any:
    columns = with_labels(Columns.model_validate({"outputs": {"c": {"argmax": True, "labels": labels}}}), {"": model})
    assert columns.outputs is not None
    return columns.outputs["c"].labels


def test_the_models_own_file_is_meant_before_one_of_this_machine(model: ModelSpec, tmp_path: Path) -> None:
    assert tuple(read(model, "assets/labels.txt")) == ("own a", "own b")
    assert tuple(read(model, "./assets/labels.txt")) == ("a", "b", "a")
    assert tuple(read(model, str(tmp_path / "here" / "others.txt"))) == ("c",)
    assert read(model, ["x", "y"]) == ("x", "y")


def test_what_cannot_be_read_is_a_problem_that_binding_tells(
    model: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def problem(name: str) -> str:
        labels = read(model, name)
        assert isinstance(labels, Labels)
        return labels.problem

    assert problem("nowhere.txt") == "cannot read 'nowhere.txt': neither the model nor this machine has it"
    assert problem(".") == "cannot read '.': it is no regular file"
    os.mkfifo(tmp_path / "here" / "pipe")
    assert problem("pipe") == "cannot read 'pipe': it is no regular file"
    monkeypatch.setattr("runner.preflight.model.labels.MOST_BYTES", 2**20)
    (tmp_path / "here" / "long.txt").write_bytes(b"x" * (2**20 + 1))
    assert problem("long.txt") == "'long.txt' has more than 1 MiB"
    assert own.MOST_BYTES == 16 * 2**20


def test_a_label_of_several_places_is_said(model: ModelSpec) -> None:
    def notes(**rule: Any) -> list[str]:
        columns = Columns.model_validate({"outputs": {"c": rule}})
        return repeated_labels(with_labels(columns, {"": model}))

    told = "labels of column 'c': 1 label 'a' of several places each; "
    assert notes(top_k=1, labels="./assets/labels.txt") == [told + "'index' beside it tells which"]
    assert notes(argmax=True, labels=["a", "a"]) == [told + "`argmax` without labels tells which"]
    assert notes(argmax=True, labels="assets/labels.txt") == []
    assert with_labels(Columns(), {"": model}) == Columns()


def test_labels_of_one_of_several_models_are_its_own(model: ModelSpec) -> None:
    outputs = {name: {"of": f"{name}.y", "argmax": True, "labels": "assets/labels.txt"} for name in ("new", "old")}
    bare = ModelSpec("m", "nowhere", None, (), "", {}, {})
    columns = with_labels(Columns.model_validate({"outputs": outputs}), {"new": model, "old": bare})
    assert columns.outputs is not None
    assert columns.outputs["new"].labels == ("own a", "own b")
    assert columns.outputs["old"].labels == ("a", "b", "a"), "the file of this machine"
