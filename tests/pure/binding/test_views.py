"""Arrow's numbers as NumPy's: the same types, found without pandas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runner.binding.cast.view import as_arrow, as_numpy, numpy_dtype

RUNNER = Path(__file__).parents[3] / "runner"
KINDS = [
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_views_of_the_same_type_and_come_back(kind: str) -> None:
    values = np.array([0, 1, 1, 0, 1]).astype(kind)
    arrow = as_arrow(values)
    assert numpy_dtype(arrow.type) == values.dtype
    assert as_numpy(arrow.slice(1, 3)).tolist() == values[1:4].tolist()
    assert as_numpy(arrow.slice(5)).dtype == values.dtype


def test_no_module_asks_pyarrow_for_a_type_of_pandas() -> None:
    """Before 26 `to_pandas_dtype` ends with an ImportError where there is no pandas, and no job of ours needs that."""
    modules = [path for folder in ("binding", "worker", "batch", "engine") for path in (RUNNER / folder).rglob("*.py")]
    assert len(modules) > 30
    assert [path.name for path in modules if ".to_pandas_dtype(" in path.read_text(encoding="utf-8")] == []
