"""Every model of the zoo: harmless to the scan, one answer of both engines, whole through Arrow, or a known why not."""

from __future__ import annotations

import warnings

import pytest
import zoo

from runner.scan.effects import Effects

Looked = dict[str, tuple[zoo.ZooModel, zoo.Findings]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Looked:
    """{name: (the model, what came out)}"""
    folder = tmp_path_factory.mktemp("zoo")
    zoo.write(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {model.name: (model, zoo.look(model)) for model in zoo.read(folder)}


def test_there_are_models_of_many_kinds(models: Looked) -> None:
    assert len(models) >= 60
    for kind, least in (("v1_", 15), ("dtype_", 19), ("keras_", 5)):
        assert sum(name.startswith(kind) for name in models) >= least


def test_none_is_refused_by_the_scan(models: Looked) -> None:
    assert {name: found.refused for name, (_, found) in models.items() if found.refused} == {}


def test_each_loads_and_runs_or_says_why_not(models: Looked) -> None:
    expected = {name: model.facts.get("error") for name, (model, _) in models.items()}
    assert {name for name, (_, found) in models.items() if found.error is None} == {
        name for name, error in expected.items() if error is None
    }
    assert [name for name, (_, found) in models.items() if (expected[name] or "") not in (found.error or "")] == []


def test_session_and_eager_agree_or_it_is_known_why_eager_cannot_answer(models: Looked) -> None:
    assert {name: found.parity for name, (_, found) in models.items() if found.parity} == {}
    assert {name for name, (model, _) in models.items() if model.eager is None} == {
        name for name, (model, _) in models.items() if "eager" in model.facts
    }


def test_whether_the_rows_of_an_answer_depend_on_each_other_is_as_the_model_says(models: Looked) -> None:
    found = {name: looked.rows for name, (_, looked) in models.items() if looked.rows is not None}
    assert found == {name: models[name][0].facts.get("rows", True) for name in found}


def test_inputs_and_outputs_are_the_same_after_arrow_or_the_job_would_be_refused(models: Looked) -> None:
    expected = {name: model.facts.get("columns") for name, (model, _) in models.items()}
    assert {name: found.columns for name, (_, found) in models.items() if found.columns and not expected[name]} == {}
    assert [name for name, (_, found) in models.items() if (expected[name] or "") not in (found.columns or "")] == []


def test_what_changes_variables_or_draws_numbers_is_found_and_nothing_else(models: Looked) -> None:
    told = {name: found.effects for name, (_, found) in models.items() if found.effects != Effects()}
    assert told == {
        name: Effects(*(tuple(model.facts["effects"].get(kind, ())) for kind in ("writes", "draws")))
        for name, (model, _) in models.items()
        if "effects" in model.facts
    }


def test_the_method_of_a_signature_is_told(models: Looked) -> None:
    for name in ("v1_classify", "v1_regress"):
        model, _ = models[name]
        assert model.signature.method == model.facts["method"]


def test_the_table_has_a_row_for_each_with_all_columns_filled(models: Looked) -> None:
    rows = [zoo.row(model, found) for model, found in models.values()]
    assert all(len(row) == len(zoo.TITLES) and all(row[:-1]) for row in rows if row[1])
