"""The zoo of `zoo_models`: each model is read, loaded, called, and sent through Arrow. `python zoo.py` prints it.

The tests assert what is found here; `make zoo` shows the same as a table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.errors import RunnerError
from jobs.section.columns import Columns, InputColumn, OutputColumn
from runner.binding.bind import bind
from runner.binding.binding import Binding
from runner.binding.blame import RowError
from runner.binding.fetching import TODAY, Rules, output_field, output_target
from runner.engine import EngineOptions, load
from runner.model.saved_model import read_model
from runner.model.signature import (
    MetaGraph,
    ModelSpec,
    Signature,
    TensorSpec,
    choose_metagraph,
    choose_signature,
    dense,
)
from runner.scan.effects import Effects, effects
from runner.scan.program import read_programs
from runner.scan.trust import scan
from runner.tensor import Feeds, Outputs, Strings, Tensor


@dataclass(frozen=True)
class ZooModel:
    """A model folder, one call of it, and what is known of it: see `zoo_models.model`."""

    name: str
    spec: ModelSpec
    metagraph: MetaGraph
    signature: Signature
    feeds: Feeds
    eager: Outputs | None  # what `tf.saved_model.load` answered
    facts: Mapping[str, Any]


@dataclass
class Findings:
    """What came out. An error is told by its message; None: as it should be."""

    refused: list[str] = field(default_factory=list)
    effects: Effects = field(default_factory=Effects)
    error: str | None = None  # of loading or calling
    rows: bool | None = None  # whether the answers of a batch are those of its rows, one by one
    parity: str | None = None  # where session and eager differ
    columns: str | None = None  # why it cannot be bound, or where Arrow changed something


def write(folder: Path) -> None:
    """Write all models, in one process of TensorFlow's."""
    script = Path(__file__).with_name("zoo_models.py")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"could not write the zoo: {done.stderr[-3000:]}")


def read(folder: Path) -> list[ZooModel]:
    models = []
    for name, facts in json.loads((folder / "zoo.json").read_text()).items():
        spec = read_model(str(folder / name))
        metagraph = choose_metagraph(spec, facts.get("tags"))
        signature = choose_signature(metagraph, facts.get("signature"), name)
        answer = folder / f"{name}.eager.npz"
        eager = _tensors(answer) if answer.exists() else None
        models.append(ZooModel(name, spec, metagraph, signature, _tensors(folder / f"{name}.npz"), eager, facts))
    return models


def look(model: ZooModel) -> Findings:
    """Try everything. Calls the model a few times in this process, through the session engine."""
    found = Findings()
    programs = read_programs(model.spec)
    found.refused = [str(finding) for finding in scan(programs)]
    found.effects = effects(programs[model.spec.metagraphs.index(model.metagraph)], model.signature.name)
    fetches = list(model.signature.outputs)
    try:
        engine = load("session", model.spec.path, model.metagraph.tags, model.signature, EngineOptions(threads=1))
        try:
            outputs = engine.run(model.feeds, fetches)
            found.rows = _row_wise(model, outputs, lambda feeds: engine.run(feeds, fetches))
        finally:
            engine.close()
    except RunnerError as error:
        found.error, outputs = error.message, None
    if outputs is not None and model.eager is not None:
        found.parity = _difference(outputs, model.eager)
    try:
        found.columns = _through_arrow(model, outputs)
    except RunnerError as error:
        found.columns = error.message
    return found


def _row_wise(model: ZooModel, outputs: Outputs, run: Any) -> bool:
    """Whether each row alone gives its row of the batch's answer."""
    rows = _rows(model)
    if not rows:
        return False
    for row in range(rows):
        one = {name: _cut(value, row) if _follows(model, name) else value for name, value in model.feeds.items()}
        try:
            alone = run(one)
        except RunnerError:
            return False  # a fixed batch
        for name, value in outputs.items():
            if not value.shape or value.shape[0] != rows or not _equal(alone[name], _cut(value, row), exact=False):
                return False
    return True


def _through_arrow(model: ZooModel, outputs: Outputs | None) -> str | None:
    """Tensors -> columns -> tensors, inputs and outputs, with the binding that a job would have: by today's rules, then
    by those of older versions. Strings that are no text are then told by name, and written as bytes.

    returns: where something changed. raises: BindingError where a job would be refused.
    """
    try:
        changed = _there_and_back(model, outputs, TODAY)
    except RowError as error:
        changed = None if error.facts["code"] == "ROW_UTF8" else error.message
    return changed or _there_and_back(model, outputs, Rules(text=False, single=False))


def _there_and_back(model: ZooModel, outputs: Outputs | None, rules: Rules) -> str | None:
    follow = [spec for spec in dense(model.signature).inputs.values() if _follows(model, spec.name)]
    constants = {
        name: InputColumn(constant=value.tolist())
        for name, value in model.feeds.items()
        if not _follows(model, name) and isinstance(value, np.ndarray)
    }
    fields = [output_field(spec, name=spec.name, rules=rules) or pa.field(spec.name, pa.null()) for spec in follow]
    binding = bind(Columns(inputs=constants), pa.schema(fields), model.signature, "fixed_shape_tensor", rules=rules)
    batch = _batch(follow, model.feeds, rules)
    fed = binding.feed(batch)
    if wrong := _difference({name: fed[name] for name in model.feeds}, model.feeds):
        return f"inputs: {wrong}"
    if outputs is None:
        return None
    written = binding.fetch(batch, outputs)
    return (wrong := _difference(_read_again(binding, written), dict(outputs))) and f"outputs: {wrong}"


def _batch(specs: Sequence[TensorSpec], feeds: Feeds, rules: Rules) -> pa.RecordBatch:
    columns = []
    for spec in specs:
        value = feeds[spec.name]
        target = output_target(spec, OutputColumn(), value.shape[0], "fixed_shape_tensor", rules)
        columns.append(target.fetch(value, value.shape[0], value.shape[0]))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([output_field(spec, rules=rules) for spec in specs]))


def _read_again(binding: Binding, written: pa.RecordBatch) -> dict[str, Tensor]:
    """The written outputs, bound as the inputs of a next model."""
    specs = {out.name: TensorSpec(out.name, out.dtype, (None, *out.row), f"{out.name}:0") for out in binding.outputs}
    inputs = {target.name: InputColumn(column=target.field.name) for target in binding.outputs}
    nothing = {"y": TensorSpec("y", "float32", (None,), "y:0")}
    again = bind(Columns(inputs=inputs), written.schema, Signature("again", "", specs, nothing), "list")
    return dict(again.feed(written))


def _rows(model: ZooModel) -> int:
    return next((value.shape[0] for name, value in model.feeds.items() if _follows(model, name)), 0)


def _follows(model: ZooModel, name: str) -> bool:
    """Whether an input has a row for each row of the batch."""
    shape = dense(model.signature).inputs[name].shape
    return shape is None or len(shape) > 0


def _cut(value: Tensor, row: int) -> Tensor:
    if isinstance(value, Strings):
        size = int(np.prod(value.shape[1:]))
        return Strings(value.values.slice(row * size, size), (1, *value.shape[1:]))
    return np.ascontiguousarray(value[row : row + 1])


def _difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    if set(found) != set(expected):
        return f"{sorted(found)} instead of {sorted(expected)}"
    return next((name for name, value in expected.items() if not _equal(found[name], value)), None)


def _equal(one: Tensor, other: Tensor, exact: bool = True) -> bool:
    if isinstance(one, Strings) or isinstance(other, Strings):
        both = isinstance(one, Strings) and isinstance(other, Strings)
        return both and one.shape == other.shape and one.values.to_pylist() == other.values.to_pylist()
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    tolerance = 0.0 if exact and one.dtype.kind not in "fc" else 1e-5
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=one.dtype.kind in "fc"))


def _tensors(path: Path) -> dict[str, Tensor]:
    with np.load(path) as arrays:
        return {name: _tensor(arrays[name]) for name in arrays}


def _tensor(array: Any) -> Tensor:
    if array.dtype.kind != "S":
        return np.asarray(array)
    return Strings(pa.array([bytes(each) for each in array.reshape(-1)], pa.large_binary()), array.shape)


def row(model: ZooModel, found: Findings) -> list[str]:
    """What a reader wants to know of one model, a word or a few for each column of the table."""
    facts = model.facts
    return [
        model.name,
        facts.get("method", model.signature.method).rpartition("/")[2],
        "refused" if found.refused else "harmless",
        "yes" if found.error is None else f"no: {facts.get('error', found.error)}",
        {True: "yes", False: "no", None: "-"}[found.rows],
        "yes" if model.eager is not None and not found.parity else f"no: {found.parity or facts.get('eager')}",
        "equal" if found.columns is None else f"refused: {facts.get('columns', found.columns)}",
        ", ".join([*found.effects.writes, *found.effects.draws]),
    ]


TITLES = ("model", "method", "scan", "loads, runs", "row-wise", "session = eager", "Arrow round trip", "effects")


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*TITLES, box=None, header_style="bold")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        models = read(Path(folder))
        for model in models:
            table.add_row(*row(model, look(model)))
    Console(width=200).print(table, f"{len(models)} models")


if __name__ == "__main__":
    main()
