"""How a worker finds its batch size: with a made-up model whose times are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.errors import MemoryLimitError
from runner.worker.tuning import Spent, Tuned, tune

MUCH = 10**9


class Model:
    """Takes `fixed_s` a call and `row_s` a row, and ten times as long at its first call."""

    def __init__(self, fixed_s: float, row_s: Callable[[int], float], most: int = MUCH) -> None:
        self.calls: list[int] = []
        self._fixed_s, self._row_s, self._most = fixed_s, row_s, most
        self.spent = 0.0

    def __call__(self, rows: int) -> Spent:
        if rows > self._most:
            raise MemoryLimitError("too many rows")
        seconds = (self._fixed_s + self._row_s(rows) * rows) * (1 if self.calls else 10)
        self.calls.append(rows)
        self.spent += seconds
        return Spent(seconds, seconds)


def test_a_model_with_costly_calls_gets_larger_batches_as_long_as_that_pays() -> None:
    model = Model(0.001, lambda rows: 1e-6)
    tuned = tune(model, 64, 65_536, MUCH, MUCH)
    # 1 ms a call: at 16,384 rows that is 6 % of a call, at 32,768 it is 3 %.
    assert tuned.batch_rows == 16_384
    assert tuned.rows_per_s == pytest.approx(16_384 / (0.001 + 0.016_384))


def test_a_model_that_gains_nothing_keeps_the_batch_it_had() -> None:
    assert tune(Model(0.0, lambda rows: 1e-6), 1024, 65_536, MUCH, MUCH).batch_rows == 1024


def test_a_model_that_gets_slower_keeps_the_batch_it_had() -> None:
    model = Model(0.0, lambda rows: 1e-6 if rows <= 1024 else 2e-6)
    assert tune(model, 1024, 65_536, MUCH, MUCH) == Tuned(1024, pytest.approx(1e6))


def test_a_batch_never_grows_beyond_its_limit_nor_beyond_the_rows_at_hand() -> None:
    assert tune(Model(0.01, lambda rows: 1e-7), 64, 200, MUCH, MUCH).batch_rows == 128
    assert tune(Model(0.01, lambda rows: 1e-7), 64, MUCH, 300, MUCH).batch_rows == 256
    assert tune(Model(0.01, lambda rows: 1e-7), 64, MUCH, 10, MUCH).batch_rows == 64


def test_memory_that_runs_out_ends_the_growth_at_what_fitted() -> None:
    tuned = tune(Model(0.01, lambda rows: 1e-7, most=300), 64, MUCH, MUCH, MUCH)
    assert tuned.batch_rows == 256


def test_a_slow_model_is_not_held_up_for_more_than_a_second() -> None:
    model = Model(0.0, lambda rows: 0.01)  # 0.64 s for a batch
    assert tune(model, 64, 1024, 64, MUCH) == Tuned(64)
    assert model.spent < 1.0
    assert max(model.calls) <= 4


def test_measuring_takes_a_small_share_of_a_small_job() -> None:
    model = Model(0.0, lambda rows: 1e-5)
    tune(model, 65_536, 65_536, 10_000, 10_000)  # 0.1 s of work
    assert model.calls == [625, 625]


def test_without_rows_nothing_is_called() -> None:
    model = Model(0.0, lambda rows: 1.0)
    assert tune(model, 64, 1024, 0, 0) == Tuned(64)
    assert model.calls == []
