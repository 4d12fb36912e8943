"""Columns of every dtype through both engines: what is fed comes back, in the Arrow type that holds it exactly."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.cast.kind import NATURAL
from runner.engine import EngineOptions, load

_VALUES = {"b": [True, False], "u": [0, 3], "i": [-2, 1], "f": [-1.5, 2.0]}


def _column(dtype: str) -> pa.Array:
    kind = NATURAL[dtype]
    if pa.types.is_struct(kind):
        leaves = pa.array([{"re": -1.5, "im": 2.0}, {"re": 0.0, "im": 1.0}] * 3, kind)
    else:
        letter = "b" if pa.types.is_boolean(kind) else "f" if pa.types.is_floating(kind) else "u"
        leaves = pa.array(_VALUES["i" if pa.types.is_signed_integer(kind) else letter] * 3, kind)
    return pa.FixedSizeListArray.from_arrays(leaves, 2)


@pytest.mark.parametrize("engine", ["session", "eager"])
def test_what_is_fed_comes_back(zoo: dict[str, Any], engine: str) -> None:
    model = zoo["every dtype"]
    batch = pa.RecordBatch.from_pydict({name: _column(name) for name in model.signature.inputs})
    columns = Columns.model_validate({"outputs": {f"{name}_same": name for name in model.signature.inputs}})
    binding = bind(columns, batch.schema, model.signature, "list")
    loaded = load(engine, model.path, model.tags, model.signature, EngineOptions(threads=1))
    fetched = binding.fetch(batch, loaded.run(binding.feed(batch), binding.fetches))
    loaded.close()
    for name in model.signature.inputs:
        assert fetched.column(name).type.value_type == NATURAL[name]
        assert fetched.column(name).to_pylist() == batch.column(name).to_pylist(), name
