"""Compiled by XLA, both engines take the same models and give the same answers as uncompiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runner import engine
from runner.engine import Engine, EngineOptions, ModelOptions
from runner.model.signature import Signature

Load = Callable[..., Engine]
X = np.linspace(-0.5, 0.9, 12, dtype=np.float32).reshape(3, 4)  # (rows, 4)


@pytest.fixture
def load(compiled: Path, read_signature: Callable[[Path, str], Signature]) -> Load:
    """load(model, signature, engine="session", xla=True)"""

    def run(model: str, signature: str, name: str = "session", xla: bool = True) -> Engine:
        options = EngineOptions(threads=1, model=ModelOptions(xla=xla))
        path = compiled / model
        return engine.load(name, str(path), ("serve",), read_signature(path, signature), options)

    return run


@pytest.mark.parametrize("name", ["session", "eager"])
def test_loops_conditions_and_assertions_are_compiled(name: str, load: Load) -> None:
    outputs = ("condition", "loop", "mapped", "case", "lstm")
    plain, compiled = load("flow", "flow", xla=False), load("flow", "flow", name)
    expected = plain.run({"x": X}, outputs)
    for output, answer in compiled.run({"x": X}, outputs).items():
        np.testing.assert_allclose(answer, expected[output], rtol=1e-5, atol=1e-6, err_msg=output)
