"""A constant of a job file as a tensor."""

from __future__ import annotations

import pytest

from jobs.errors import BindingError
from runner.binding.constant import constant
from runner.tensor import Strings


@pytest.mark.parametrize(
    ("written", "dtype", "value"), [("1e-3", "float32", 1e-3), ("1e3", "int64", 1000), ("2E+0", "int8", 2)]
)
def test_text_in_the_form_of_a_number_is_one_where_a_number_is_wanted(written: str, dtype: str, value: float) -> None:
    tensor = constant([written, 1], dtype, [None])
    assert not isinstance(tensor, Strings)
    assert tensor.tolist() == pytest.approx([value, 1])
    text = constant(written, "string", [])
    assert isinstance(text, Strings)
    assert text.values.to_pylist() == [written.encode()]


@pytest.mark.parametrize("written", ["1", "1.5", "1e-3", "e3", "abc"])
def test_other_text_is_no_number(written: str) -> None:
    with pytest.raises(BindingError, match="expected"):
        constant(written, "int32", [])
