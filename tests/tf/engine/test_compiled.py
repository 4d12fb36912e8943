"""Compiled by XLA, both engines take the same models and give the same answers as uncompiled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from runner import engine
from runner.engine import Engine, EngineOptions, ModelOptions, xla_flags
from runner.model.signature import Signature

Load = Callable[..., Engine]
X = np.linspace(-0.5, 0.9, 12, dtype=np.float32).reshape(3, 4)  # (rows, 4)


@pytest.fixture(scope="module")
def load(compiled: Path, read_signature: Callable[[Path, str], Signature]) -> Load:
    """load(model, signature, engine="session", xla=True): each is loaded once."""

    @cache
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


@pytest.mark.parametrize("name", ["session", "eager"])
def test_the_largest_and_the_least_beside_a_nan_are_nan(name: str, load: Load) -> None:
    x = np.array([[0, np.nan, 3, 2], [1, 2, 3, 4], [5, 5, 5, 5]], np.float32)
    answer = load("flow", "flow", name).run({"x": x}, ("most", "least"))
    np.testing.assert_array_equal(answer["most"], [np.nan, 4, 5])
    np.testing.assert_array_equal(answer["least"], [np.nan, 1, 5])


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ("", "--xla_cpu_enable_fast_min_max=false"),
        ("--xla_dump_to=d", "--xla_dump_to=d --xla_cpu_enable_fast_min_max=false"),
        ("--xla_cpu_enable_fast_min_max=true", "--xla_cpu_enable_fast_min_max=true"),
    ],
)
def test_flags_of_xla_that_the_user_set_stay(given: str, flags: str) -> None:
    assert xla_flags(given) == flags
    assert xla_flags(flags) == flags


def test_flags_of_xla_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "flags").write_text("--xla_dump_to=d\n")
    assert xla_flags(str(tmp_path / "flags")).split() == ["--xla_dump_to=d", "--xla_cpu_enable_fast_min_max=false"]


def test_a_call_that_is_compiled_whole_is_in_no_cluster_besides(load: Load) -> None:
    feeds = {"x": np.ones((2, 20), np.float32), "n": np.array([3, 5], np.int32)}
    assert set(load("shapes", "masked").placed(feeds, ["y"])["CPU"]) == {"PartitionedCall", "Identity"}


_COUNT = """
import sys
from pathlib import Path
import numpy as np
from runner import engine
from runner.engine import EngineOptions, ModelOptions
from runner.engine.counted import CountedEngine
from runner.model.saved_model import read_model

model, kind, dumped = sys.argv[1:]
signature = read_model(model).metagraphs[0].signatures["masked"]
options = EngineOptions(threads=1, model=ModelOptions(xla=True))
counted = CountedEngine(engine.load(kind, model, ("serve",), signature, options), ["n"])
for n in ([3, 5, 1, 1], [3, 5, 1, 1], [5, 3, 1, 1], [3, 5, 1], [6, 3, 1, 1], [5, 3, 1, 1]):
    counted.run({"x": np.ones((len(n), 20), np.float32), "n": np.array(n, np.int32)}, ["y"])
figures = counted.figures()
print(len(list(Path(dumped).glob("*before_optimizations.txt"))), figures["compilations"], figures["compiled_shapes"])
"""


@pytest.mark.surprises
@pytest.mark.parametrize("name", ["session", "eager"])
def test_xla_compiles_as_often_as_is_counted(
    name: str, compiled: Path, tmp_path: Path, saw: Callable[[str], None]
) -> None:
    command = [sys.executable, "-c", _COUNT, str(compiled / "shapes"), name, str(tmp_path)]
    env = os.environ | {"XLA_FLAGS": f"--xla_dump_to={tmp_path}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    compiled_by_xla, counted, shapes = map(int, done.stdout.split())
    saw(f"{name}: XLA compiled {compiled_by_xla} times in 6 calls of {shapes} shapes; {counted} were counted")
    assert (compiled_by_xla, counted, shapes) == (4, 4, 2), "two orders of the same values are two programs"
