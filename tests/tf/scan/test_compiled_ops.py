"""The ops that answer bad values once they are compiled, each of them run both ways."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled_models import refusals
from rich.console import Console

from runner import engine
from runner.cli.view.model import document, render
from runner.engine import EngineOptions, ModelOptions
from runner.model.saved_model import read_model
from runner.model.signature import Signature
from runner.scan.compiled import CHANGES, CHECKS, Compiled
from runner.scan.compiled import compiled as scan
from runner.scan.flow import Flow
from runner.scan.program import read_programs

FEEDS = {"i": np.array([1, 99, -3], np.int32), "f": np.array([1.5, np.nan, 3e9], np.float32)}  # (3,)


def changed(model: Path, *outputs: str, signature: str = "refuse", checked: tuple[str, ...] = ()) -> Compiled:
    spec = read_model(str(model))
    program, chosen = read_programs(spec)[0], spec.metagraphs[0].signatures[signature]
    return scan(Flow(program, program.output_tensors(signature, outputs or None)), chosen, checked)


def test_each_op_of_the_table_answers_only_when_it_is_compiled(
    compiled: Path, read_signature: Callable[[Path, str], Signature], tensorflow: Any
) -> None:
    model = compiled / "refusals"
    signature = read_signature(model, "refuse")
    options = EngineOptions(1, model=ModelOptions(xla=True))
    answers = engine.load("session", str(model), ("serve",), signature, options).run(FEEDS, list(signature.outputs))
    i, f = (tensorflow.constant(FEEDS[name]) for name in "if")
    ten = tensorflow.Variable(tensorflow.range(10.0))
    seen = set[str]()
    for op, plain in refusals(tensorflow, i, f, ten).items():
        with suppress(tensorflow.errors.InvalidArgumentError):
            assert not np.array_equal(plain().numpy(), answers[op]), f"{op} answers {answers[op]} either way"
        seen |= {text for text, ops in changed(model, op).changes.items() if op in ops}
    assert seen == {change.answer for change in (*CHANGES, CHECKS)}


def test_ops_are_named_with_what_a_bad_row_gets(compiled: Path) -> None:
    (story,) = changed(compiled / "refusals", "FloorDiv", "Assert").sentences()
    assert story == (
        "compiled by XLA, bad values get answers and are not refused: an integer divided by 0 is -1 (FloorDiv); nothing"
        " is checked (Assert, CheckNumerics); `on_bad_row` does not see them"
    )


@pytest.mark.parametrize(("output", "op"), [("id", "ResourceGather"), ("place", "GatherV2"), ("word", "GatherV2")])
def test_a_look_up_that_is_checked_before_the_call_is_not_named(output: str, op: str, compiled: Path) -> None:
    def ops(*checked: str) -> set[str]:
        found = changed(compiled / "lookups", output, signature="look", checked=checked).changes
        return {each for ops in found.values() for each in ops}

    assert op in ops()
    assert ops(output) == set()


def test_the_checks_of_conditions_and_loops_are_named_too(compiled: Path) -> None:
    found = changed(compiled / "flow", signature="flow")
    assert found.changes[CHECKS.answer] == ("Assert",)
    assert found.deciders == {}


def test_show_says_which_ids_there_are_and_what_compiling_changes(compiled: Path) -> None:
    def shown(model: str, signature: str) -> str:
        spec = read_model(str(compiled / model))
        console = Console(width=300, force_terminal=False)
        with console.capture() as captured:
            console.print(render(spec, signature=signature, programs=read_programs(spec)))
        return captured.get()

    assert "    'id': 0 to 9: rows of 'ten'\n" in shown("lookups", "pick")
    assert "    if compiled by XLA, bad values get answers and are not refused: " in shown("flow", "flow")
    spec = read_model(str(compiled / "flow"))
    (metagraph,) = document(spec, read_programs(spec))["metagraphs"]
    assert len(metagraph["if_compiled"]["flow"]) == 1
    assert metagraph["looked_up"] == {"flow": {}}
