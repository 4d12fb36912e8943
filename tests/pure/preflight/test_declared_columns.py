"""What is said of `input.schema` and `input.csv` that do not fit the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.store.store import Store
from jobs.errors import JobError
from jobs.load import job_from
from jobs.section.input import Csv
from runner.model.signature import Signature, TensorSpec
from runner.preflight.input.declared import declared, with_types
from runner.preflight.input.listing import listed

SIGNATURE = Signature("serve", "predict", {"x": TensorSpec("x", "float32", (None,), "x:0")}, {})


@pytest.mark.parametrize(
    ("types", "told"),
    [
        ({"idd": "int32"}, ["`input.schema` declares 'idd', which is no column of the first file: it has 'id', 'x'"]),
        ({"id": "int32"}, []),
        ({}, []),
    ],
)
def test_a_declared_column_that_is_not_there_is_told(tmp_path: Path, types: dict[str, str], told: list[str]) -> None:
    (tmp_path / "a.csv").write_text("x,id\n1,2\n")
    job = job_from("m", [str(tmp_path / "a.csv")], "-", "serve", [])
    store = Store(job.input.url[0])
    assert list(declared(with_types(listed(job, store), types), store, SIGNATURE).warnings) == told


def test_a_null_that_the_escape_would_unmake_is_refused() -> None:
    with pytest.raises(JobError, match=r"expected the text without it, 'N'"):
        Csv(quote="", escape="\\", nulls=("", "\\N"))
    assert Csv(escape="\\", nulls=("\\N",)).nulls == ("\\N",), "outside of quotes it is a character"
    assert Csv(nulls=("\\N",)).nulls == ("\\N",)
    assert Csv(quote="", escape="\\", nulls=("N",)).nulls == ("N",)
