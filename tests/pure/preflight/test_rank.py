"""Shapes of outputs whose rank nobody states: what a few calls show, and what is left open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import BindingError, ModelCallError
from jobs.job import Job
from jobs.plan import InputFile, RowGroup
from jobs.section.columns import Columns
from runner.model.signature import Signature, TensorSpec
from runner.preflight import rank
from runner.tensor import Array
from runner.worker.child import ChildEnded

SIGNATURE = Signature(
    "s",
    "",
    {"x": TensorSpec("x", "float32", None, "x:0")},
    {"y": TensorSpec("y", "float32", None, "y:0"), "z": TensorSpec("z", "float32", (None,), "z:0")},
)


class Children:
    """Stands for `Child`: calls `model` here."""

    def __init__(self, model: Callable[[Array], Array]) -> None:
        self.model, self.calls = model, list[int]()

    def __call__(self, target: str, first: Any, start_s: float) -> Children:
        return self

    def ask(self, message: tuple[Mapping[str, Any], tuple[str, ...]], patience_s: float) -> Mapping[str, Any]:
        feeds, names = message
        assert names == ("y",), "the other one is known"
        self.calls.append(len(feeds["x"]))
        return {"y": np.asarray(self.model(feeds["x"]))}

    def close(self) -> None: ...


@pytest.fixture
def settle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """settle(model, **columns): the shape of y, the sentences, and the rows of each call."""

    def settled(model: Callable[[Array], Array], values: Any = (1.0, 2.0, 3.0, 4.0), **columns: Any) -> Any:
        table = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(values, 2), pa.float32()), 2)})
        path = tmp_path / "in.parquet"
        pq.write_table(table, path)
        job = Job.model_validate(
            {
                "model": {"url": "m"},
                "input": {"url": [str(path)], "format": "parquet"},
                "columns": columns,
                "output": {"url": str(tmp_path / "out")},
            }
        )
        children = Children(model)
        monkeypatch.setattr(rank, "Child", children)
        file = InputFile(str(path), path.stat().st_size, "", (RowGroup(len(values), 100),))
        signature, notes = rank.settled(job, SIGNATURE, table.schema, [file], ())
        return signature.outputs["y"].shape, notes, children.calls

    return settled


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda x: x, (None, 2)),
        (lambda x: x[:, 0], (None,)),
        (lambda x: x[:, :, None] * np.ones(3), (None, 2, 3)),
        (lambda x: np.zeros((len(x), int(x[0, 0]))), (None, None)),  # as wide as a value says
        (lambda x: x.sum(), ()),
        (lambda x: x[:1], (1, 2)),  # binding refuses it, and says why
        (lambda x: x if x[0, 0] < 2 else x[:, 0], None),
    ],
    ids=["same", "vector", "matrices", "ragged", "scalar", "one row", "two ranks"],
)
def test_a_few_calls_show_the_shape(settle: Callable[..., Any], model: Any, shape: Any) -> None:
    found, notes, calls = settle(model)
    assert found == shape
    assert calls == [1, 1, 1, 2, 3]
    assert len(notes) == (shape is not None)
    assert all("the rank of output 'y' is unknown; called with a few rows it was [" in note for note in notes)


def test_nothing_is_called_where_the_job_says_it_or_does_not_want_it(settle: Callable[..., Any]) -> None:
    for outputs in ({"y": {"shape": [2]}}, ["z"]):
        assert settle(lambda x: x, outputs=outputs) == (None, (), [])


def test_bad_rows_are_passed_over_and_a_model_that_takes_none_is_refused_with_the_way_out(
    settle: Callable[..., Any],
) -> None:
    def picky(x: Array) -> Array:
        if x[0, 0] < 3:
            raise ModelCallError("below three", code="INVALID_ARGUMENT")
        return x

    assert settle(picky)[0] == (None, 2)
    with pytest.raises(BindingError, match=r"did not show it: below three; .* `outputs: \{y: \{shape: \[...\]\}\}`"):
        settle(picky, (1.0, 2.0))

    def deadly(x: Array) -> Array:
        raise ChildEnded("oom", "held 9 GiB")

    with pytest.raises(BindingError, match="a process that called it held 9 GiB; give the shape"):
        settle(deadly)


@pytest.mark.parametrize(
    ("outputs", "asked"), [(None, ["y"]), (["z"], []), ({"z": "c", "...": True}, ["y"]), ({"y": {"shape": []}}, [])]
)
def test_the_rank_is_asked_of_what_is_written_and_not_said(outputs: Any, asked: list[str]) -> None:
    assert rank.open_ranks(Columns.model_validate({"outputs": outputs}), SIGNATURE) == dict.fromkeys(asked, (None,))


def test_what_is_shaped_is_taken_for_a_tensor_that_could_be() -> None:
    """Until a call shows which."""

    def open_ones(**rules: Any) -> Any:
        outputs = {name: {"of": "y"} | rule for name, rule in rules.items()}
        return rank.open_ranks(Columns.model_validate({"outputs": outputs}), SIGNATURE)

    assert open_ones(a={"argmax": True}) == {"y": (None, None)}
    assert open_ones(a={"argmax": True}, b={"at": [0, 1]}, c={}) == {"y": (None, None, None)}
    assert open_ones(c={"shape": []}) == {}
