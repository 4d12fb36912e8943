"""Models and data that the worker, the cluster and the command are tested with: answers one computes in the head."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# Marker -> what it marks. Such tests run only where `-m` names them.
_ON_DEMAND = {
    "faults": "slow rows of the fault matrix, for `make faults`",
    "surprises": "large arrays, wide files, many row groups: what needs memory or minutes, for `make surprises`",
}
_SEEN = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SEEN] = []
    for name, what in _ON_DEMAND.items():
        config.addinivalue_line("markers", f"{name}: {what}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow rows run only where `-m` names them."""
    unasked = [name for name in _ON_DEMAND if name not in (config.option.markexpr or "")]
    slow = [item for item in items if any(item.get_closest_marker(name) for name in unasked)]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


@pytest.fixture
def saw(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Note what was seen, in a sentence with figures: it is printed at the end of the run."""
    seen = request.config.stash[_SEEN]
    return lambda sentence: seen.append(f"{request.node.name}: {sentence}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if seen := config.stash[_SEEN]:
        terminalreporter.section("what was seen")
        for sentence in seen:
            terminalreporter.write_line(sentence)


# Written by TensorFlow in a process of its own, so that the tests' process stays free of it.
_MODELS = """
import sys, time, tensorflow as tf

def work(start, rounds):
    _, a = tf.while_loop(lambda i, a: i < rounds, lambda i, a: (i + 1, tf.matmul(a, a) / 160), [0, start])
    return a

def seconds(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began

# So many that they take 60 ms, however fast this machine is.
timed = tf.function(lambda: work(tf.ones([160, 160]), 150))
timed()
ROUNDS = max(150, int(150 * 0.06 / min(seconds(timed) for _ in range(5))))

W1, W2 = (tf.random.stateless_normal(shape, (1, 2)) / 3 for shape in ([37, 24], [24, 5]))

class Half(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half_plus_two(self, x):
        return {"y": x / 2 + 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def slow(self, x):
        # The same answer, after about 60 ms of work that cannot be optimised away.
        a = work(tf.ones([160, 160]) * (1 + 0 * tf.reduce_sum(x)), ROUNDS)
        return {"y": x / 2 + 2 + 0 * tf.reduce_sum(a)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def picky(self, x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x >= 0), ["negative"])]):
            return {"y": tf.identity(x / 2 + 2)}

    @tf.function(input_signature=[tf.TensorSpec([16], tf.float32, name="x")])
    def sixteen(self, x):
        return {"y": x / 2 + 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def label(self, x):
        return {"positive": x > 0}

    @tf.function(input_signature=[tf.TensorSpec([None, 37], tf.float32, name="f")])
    def delicate(self, f):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(f[:, 0] > -90), ["out of its domain"])]):
            hidden = tf.math.log1p(tf.exp(tf.matmul(f, W1)))
        return {"p": tf.sigmoid(tf.matmul(hidden, W2)), "s": tf.sigmoid(f[:, 1])}

half = Half()
tf.saved_model.save(half, sys.argv[1], signatures={
    "serving_default": half.half_plus_two, "slow": half.slow, "picky": half.picky,
    "sixteen": half.sixteen, "label": half.label, "delicate": half.delicate})
"""


@pytest.fixture(scope="session")
def half_plus_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = x / 2 + 2 as `serving_default`; `slow`; `picky`, which refuses negative numbers; `sixteen`, a fixed batch;
    `label`, whether x is positive.

    `delicate`: f (rows, 37) -> p (rows, 5), s (rows,), whose last bits depend on a batch's size and on a row's place in
    it; refuses f[0] <= -90.
    """
    folder = tmp_path_factory.mktemp("models") / "half_plus_two"
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", _MODELS, str(folder)], check=True, env=quiet, stderr=subprocess.DEVNULL)
    return folder


WriteNumbers = Callable[..., Path]


@pytest.fixture(scope="session")
def write_numbers() -> WriteNumbers:
    """write_numbers(folder, files=2, rows=1000, row_group=100): ids from 0, and x = id as float32."""

    def write(folder: Path, files: int = 2, rows: int = 1000, row_group: int = 100) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(files):
            ids = np.arange(number * rows, (number + 1) * rows, dtype=np.int64)
            table = pa.table({"id": ids, "x": ids.astype(np.float32)})
            pq.write_table(table, folder / f"numbers-{number:03d}.parquet", row_group_size=row_group)
        return folder

    return write


@pytest.fixture(scope="session")
def require_half_plus_two() -> Callable[[Path, int], None]:
    """require_half_plus_two(output, rows): every id once, in order, each with its answer."""

    def require(output: Path, rows: int) -> None:
        parts = sorted(output.glob("part-*.parquet"))
        table = pa.concat_tables(pq.read_table(part) for part in parts)
        assert table["id"].to_pylist() == list(range(rows))
        np.testing.assert_array_equal(table["y"].to_numpy(), np.arange(rows, dtype=np.float32) / 2 + 2)

    return require


@pytest.fixture(scope="session")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that one row can break in every way, and that leaks where it is asked to; see `moody_model`."""
    folder = tmp_path_factory.mktemp("models") / "moody"
    script = Path(__file__).parent / "support" / "moody_model.py"
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, str(script), str(folder)], check=True, env=quiet, stderr=subprocess.DEVNULL)
    return folder
