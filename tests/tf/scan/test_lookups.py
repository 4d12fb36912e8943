"""Look-ups in models as TensorFlow and Keras write them: which inputs go straight into a table, and how far."""

from __future__ import annotations

from pathlib import Path

from runner.model.saved_model import read_model
from runner.scan.flow import Flow
from runner.scan.lookups import Lookup, lookups
from runner.scan.program import read_programs


def found(model: Path, signature: str, *outputs: str) -> dict[str, Lookup]:
    spec = read_model(str(model))
    program, chosen = read_programs(spec)[0], spec.metagraphs[0].signatures[signature]
    return lookups(Flow(program, program.output_tensors(signature, outputs or None)), chosen)


def test_ids_that_go_straight_into_a_table_are_found_through_calls_casts_and_reshapes(compiled: Path) -> None:
    looked = found(compiled / "lookups", "look")
    spans = {name: (each.lowest, each.highest) for name, each in looked.items()}
    assert spans == {"id": (0, 9), "place": (0, 2), "word": (-10, 9), "both": (0, 3), "bag": (0, 9)}
    assert looked["id"].table == "ten"
    assert looked["both"].table == "four", "of two tables that one function reads the smaller one"


def test_keras_reads_negative_ids_from_the_end_and_that_is_said(compiled: Path) -> None:
    word = found(compiled / "lookups", "look")["word"]
    assert str(word).startswith("-10 to 9: rows of 'words/embeddings")
    assert str(word).endswith(", -10 to -1 silently from its end")


def test_ids_that_the_model_takes_care_of_are_not_limited(compiled: Path) -> None:
    assert found(compiled / "lookups", "careful") == {}


def test_only_what_the_wanted_outputs_look_up_counts(compiled: Path) -> None:
    assert set(found(compiled / "lookups", "look", "place")) == {"place"}
    assert set(found(compiled / "lookups", "look", "both", "id")) == {"both", "id"}
