"""Rows of text files for a call by hand: in the types of the tensors, whatever is wrong with rows beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import DataError
from runner.cli.rows import Rows
from runner.model.signature import Signature, TensorSpec

SIGNATURE = Signature(
    "serve",
    "predict",
    {"x": TensorSpec("x", "float32", (None,), "x:0")},
    {"y": TensorSpec("y", "float32", (None,), "y:0")},
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,x\n1,1\n2,abc\n3,3\n4,4.5\n"),
        ("a.jsonl", '{"x": 1}\n{"x": "abc"}\n{"x": 3}\n{"x": 4.5}\n'),
    ],
)
def test_rows_of_text_are_read_as_the_tensors_want_them(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    assert Rows(f"{file}:2-3", SIGNATURE, [], "m").feeds()["x"].tolist() == [3.0, 4.5]
    with pytest.raises(DataError, match="abc") as bad:
        Rows(f"{file}:0-1", SIGNATURE, [], "m")
    assert "line " in str(bad.value)
