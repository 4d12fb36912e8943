"""Numbers of less than a byte, and floats of a byte: their bits by the rules of their formats."""

from __future__ import annotations

import numpy as np
import pytest

from runner.tensor import NARROW, bits_of, integer_range, natural, values_of


@pytest.mark.parametrize(
    ("dtype", "bits", "values"),
    [
        ("int4", [0x0, 0x7, 0x8, 0xF, 0xFF], [0, 7, -8, -1, -1]),
        ("uint4", [0x0, 0xF, 0xFF], [0, 15, 15]),
        ("int2", [0, 1, 2, 3], [0, 1, -2, -1]),
        ("uint2", [0, 3], [0, 3]),
        ("float8_e5m2", [0x01, 0x3C, 0x7B, 0x7C, 0xFC, 0x7E], [2.0**-16, 1, 57344, np.inf, -np.inf, np.nan]),
        ("float8_e4m3fn", [0x01, 0x38, 0x7E, 0x7F, 0xFF], [2.0**-9, 1, 448, np.nan, np.nan]),
        ("float8_e4m3fnuz", [0x01, 0x40, 0x7F, 0x80], [2.0**-10, 1, 240, np.nan]),
        ("float8_e4m3b11fnuz", [0x01, 0x58, 0x7F, 0x80], [2.0**-13, 1, 30, np.nan]),
        ("float8_e5m2fnuz", [0x01, 0x40, 0x7F, 0x80], [2.0**-17, 1, 57344, np.nan]),
        ("float4_e2m1fn", [0, 1, 2, 7, 8, 15], [0, 0.5, 1, 6, -0.0, -6]),
    ],
)
def test_bits_are_the_values_of_their_format(dtype: str, bits: list[int], values: list[float]) -> None:
    found = values_of(np.array(bits, np.uint8), dtype)
    assert found.dtype == natural(dtype)
    np.testing.assert_array_equal(found, np.array(values, natural(dtype)))


@pytest.mark.parametrize("dtype", sorted(NARROW))
def test_every_value_comes_back(dtype: str) -> None:
    values = values_of(np.arange(256, dtype=np.uint8), dtype)
    np.testing.assert_array_equal(values_of(bits_of(values, dtype), dtype), values)
    if values.dtype.kind in "iu":
        assert (values.min(), values.max()) == integer_range(dtype)


def test_floats_are_rounded_to_nearest_even_and_end_as_their_format_says() -> None:
    near = bits_of(np.array([1.125, 1.375, -1.125]), "float8_e5m2")  # between 1, 1.25 and 1.5
    assert values_of(near, "float8_e5m2").tolist() == [1.0, 1.5, -1.0]
    over = np.array([1e9])
    ends = {dtype: float(values_of(bits_of(over, dtype), dtype)[0]) for dtype in NARROW if "float" in dtype}
    assert ends.pop("float8_e5m2") == np.inf
    assert ends.pop("float4_e2m1fn") == 6.0
    assert all(np.isnan(end) for end in ends.values())
