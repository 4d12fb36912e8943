"""What is computed behind a signature is what NumPy computes of its outputs: on both engines, compiled too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import ModelCallError
from jobs.section.columns import OutputColumn
from runner.binding.blame import RowError
from runner.binding.fetching import TODAY
from runner.binding.shaping.agreement import shaped_target
from runner.binding.shaping.target import ShapedTarget
from runner.engine import Engine, EngineOptions, ModelOptions, load
from runner.model.saved_model import read_model
from runner.model.signature import Signature, TensorSpec, choose_metagraph, choose_signature
from runner.tensor import Array, Strings, bits_of, carrier, values_of

INF, NAN = np.inf, np.nan
FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
SHAPES = {"vector": [None, None], "grid": [None, 2, None]}
WAYS = {
    "session": ("session", ModelOptions()),
    "compiled": ("session", ModelOptions(xla=True)),
    "eager": ("eager", ModelOptions()),
    "eager, compiled": ("eager", ModelOptions(xla=True)),
}


@pytest.fixture(scope="module")
def echo(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says what it was told: a signature for each dtype and shape."""
    tf, path = tensorflow, tmp_path_factory.mktemp("echo") / "model"
    module = tf.Module()
    signatures = {}
    for dtype in (*FLOATS, *INTEGERS, "bool", "string"):
        for name, shape in SHAPES.items() if dtype in FLOATS else [("vector", SHAPES["vector"])]:
            function = tf.function(
                lambda x: {"y": tf.identity(x), "other": tf.identity(x)},
                input_signature=[tf.TensorSpec(shape, dtype, name="x")],
            )
            setattr(module, f"{dtype}_{name}", function)
            signatures[f"{dtype}_{name}"] = function
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


class Echo:
    """The engines of one signature, each with what the rules of a job ask of 'y'."""

    def __init__(self, path: Path) -> None:
        self._path, self._engines = str(path), list[Engine]()
        self._metagraph = choose_metagraph(read_model(self._path), ("serve",))

    def columns(
        self, values: Any, dtype: str = "float32", ways: tuple[str, ...] = tuple(WAYS), **rules: Mapping[str, Any]
    ) -> dict[str, tuple[dict[str, Any], Array]]:
        """Way -> the columns by the names of rules, and which rows count as rows with a NaN."""
        signature, targets, tensor = self._agreed(values, dtype, rules)
        return {way: self._answer(WAYS[way], signature, targets, tensor) for way in ways}

    def _agreed(self, values: Any, dtype: str, rules: Any) -> tuple[Signature, list[ShapedTarget], Any]:
        array: Any = values if isinstance(values, Strings) else np.asarray(values)
        kind = {2: "vector", 3: "grid"}[len(array.shape)]
        signature = choose_signature(self._metagraph, f"{dtype}_{kind}", self._path)
        spec = signature.outputs["y"]
        targets = [
            shaped_target(spec, OutputColumn(column=name, **rule), None, "list", TODAY) for name, rule in rules.items()
        ]
        shaped = {one.name: one for target in targets for one in target.shaped.values()}
        if not isinstance(array, Strings):
            array = bits_of(array, dtype) if dtype == "bfloat16" else array.astype(carrier(dtype))
        return replace(signature, shaped=shaped), targets, array

    def _answer(
        self, way: tuple[str, ModelOptions], signature: Signature, targets: list[ShapedTarget], tensor: Any
    ) -> tuple[dict[str, Any], Array]:
        engine, options = way
        loaded = load(engine, self._path, ("serve",), signature, EngineOptions(threads=1, model=options))
        try:
            fetches = list(dict.fromkeys(name for target in targets for name in target.fetches))
            outputs = loaded.run({"x": tensor}, fetches)
        finally:
            loaded.close()
        rows = tensor.shape[0]
        batch = pa.RecordBatch.from_pydict({"x": [0] * rows})
        nan = np.zeros(rows, np.bool_)
        columns = {}
        for target in targets:
            column = target.collect(outputs, rows, batch)
            column.validate(full=True)
            assert column.type == target.field.type
            columns[target.field.name] = column.to_pylist()
            if (found := target.nan_rows(outputs, rows)) is not None:
                nan |= found
        return columns, nan


@pytest.fixture(scope="module")
def models(echo: Path) -> Echo:
    return Echo(echo)


def ranked(values: Array, k: int) -> Array:
    """(..., k) places: a NaN ranks as minus infinity, and of equal values the one in front first."""
    rows = values.reshape(-1, values.shape[-1]).tolist()
    orders = [sorted(range(len(row)), key=lambda at, row=row: INF if row[at] != row[at] else -row[at]) for row in rows]
    return np.array([order[:k] for order in orders], np.int64).reshape(*values.shape[:-1], k)


def odd_rows(rng: np.random.Generator, *shape: int) -> Array:
    """Few different numbers, so that many are equal; infinities; and NaN in every fourth row."""
    values = rng.integers(-3, 4, shape).astype(np.float64)
    values[rng.random(shape) < 0.1] = INF
    values[rng.random(shape) < 0.1] = -INF
    odd = (rng.random(shape) < 0.3) & (np.arange(shape[0]) % 4 == 0).reshape(-1, *[1] * (len(shape) - 1))
    values[odd] = NAN
    return values


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(np.array(found, np.float64), np.array(expected, np.float64))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(64, 40), (16, 2, 33), (8, 1)])
def test_rankings_of_floats(models: Echo, dtype: str, shape: tuple[int, ...]) -> None:
    values = odd_rows(np.random.default_rng(7), *shape)
    k = min(5, shape[-1])
    rules = {"first": {"argmax": True}, "top": {"top_k": k}, "all": {"top_k": shape[-1]}}
    nan = np.isnan(values).reshape(shape[0], -1).any(axis=1)
    ways = tuple(WAYS) if dtype == "float32" else ("session", "eager")
    for columns, flagged in models.columns(values, dtype, ways, **rules).values():
        assert columns["first"] == ranked(values, 1)[..., 0].tolist()
        for name, count in (("top", k), ("all", shape[-1])):
            places = ranked(values, count)
            found = np.array(columns[name], object)
            assert [[one["index"] for one in row] for row in found.reshape(-1, count)] == places.reshape(
                -1, count
            ).tolist()
            same(
                [[one["value"] for one in row] for row in found.reshape(-1, count)],
                np.take_along_axis(values, places, -1).reshape(-1, count),
            )
        assert flagged.tolist() == nan.tolist()
        assert nan.any() or shape[0] == 8


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_rankings_of_integers_and_booleans(models: Echo, dtype: str) -> None:
    rng = np.random.default_rng(3)
    info = None if dtype == "bool" else np.iinfo(dtype)
    values = rng.integers(0, 2, (32, 20)).astype(dtype)
    if info is not None:
        values[::3, 4], values[1::3, 9], values[:, 2] = info.max, info.max - 1, info.min
    rules = {"first": {"argmax": True}, "top": {"top_k": 3}}
    for columns, flagged in models.columns(values, dtype, ("session", "eager"), **rules).values():
        places = ranked(values, 3)
        assert columns["first"] == places[:, 0].tolist()
        assert [[one["index"] for one in row] for row in columns["top"]] == places.tolist()
        assert [[one["value"] for one in row] for row in columns["top"]] == np.take_along_axis(
            values, places, -1
        ).tolist()
        assert not flagged.any()


def test_labels_stand_for_places(models: Echo) -> None:
    names = ["a", "b", "b", "d"]
    values = np.array([[0, 3, 3, 1], [9, 0, 0, 10]])
    rules = {"label": {"argmax": True, "labels": names}, "top": {"top_k": 2, "labels": names}}
    for columns, _ in models.columns(values, **rules).values():
        assert columns["label"] == ["b", "d"]
        assert columns["top"][0] == [
            {"index": 1, "value": 3, "label": "b"},
            {"index": 2, "value": 3, "label": "b"},
        ]
    grid = np.array([[[0, 3, 3, 1], [9, 0, 0, 10]]])
    for columns, _ in models.columns(grid, **rules).values():
        assert columns["label"] == [["b", "d"]]
        assert columns["top"][0][1][0] == {"index": 3, "value": 10, "label": "d"}


NUMBERS = np.array([[0.125, -0.12345678, 7e-5], [2.5, 65504.0, -1e30], [NAN, INF, -INF], [1e-8, 0.99995, 3.00005]])


@pytest.mark.parametrize("dtype", FLOATS)
def test_values_are_picked_rounded_and_cast(models: Echo, dtype: str) -> None:
    with np.errstate(over="ignore"):  # -1e30 is no float16
        values = values_of(bits_of(NUMBERS, dtype), dtype) if dtype == "bfloat16" else NUMBERS.astype(dtype)
    exact = values.astype(np.float64)
    with np.errstate(all="ignore"):
        rounded = np.where(np.abs(exact) < 2**52, np.rint(exact * 1e4) / 1e4, exact)
        own = np.float32 if dtype == "bfloat16" else np.dtype(dtype)
        rules = {
            "one": {"at": 1},
            "listed": {"at": [2]},
            "rounded": {"round": 4},
            "wide": {"round": 4, "cast": "float64"},
            "half": {"at": 0, "round": 4, "cast": "float16"},
        }
        for columns, flagged in models.columns(values, dtype, ("session", "compiled", "eager"), **rules).values():
            same(columns["one"], exact[:, 1])
            same(columns["listed"], exact[:, 2])
            same(columns["rounded"], rounded.astype(own))
            same(columns["wide"], rounded)
            same(columns["half"], rounded[:, 0].astype(np.float32).astype(np.float16))
            assert flagged.tolist() == [False, False, True, False]


def test_a_value_of_each_of_several_dimensions(models: Echo) -> None:
    grid = np.arange(12).reshape(2, 2, 3)
    rules = {"one": {"at": [1, 2]}, "last": {"at": 2}, "flags": {"above": 4}}
    for columns, _ in models.columns(grid, **rules).values():
        assert columns == {
            "one": [5, 11],
            "last": [[2, 5], [8, 11]],
            "flags": (grid > 4).tolist(),
        }


@pytest.mark.parametrize("dtype", FLOATS)
def test_above_compares_exactly(models: Echo, dtype: str) -> None:
    """0.7 is no float32, and the nearest one is below it; that of 0.1 is above."""
    values = np.array([[0.7], [0.1], [0.75], [NAN], [INF], [-INF]])
    own = values_of(bits_of(values, dtype), dtype) if dtype == "bfloat16" else values.astype(dtype)
    rules = {"most": {"at": 0, "above": 0.7}, "some": {"at": 0, "above": 0.1}}
    for columns, flagged in models.columns(own, dtype, ("session", "eager"), **rules).values():
        assert columns["most"] == (own.astype(np.float64)[:, 0] > 0.7).tolist()
        assert columns["some"] == (own.astype(np.float64)[:, 0] > 0.1).tolist()
        assert flagged.tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("above", [-1e30, -0.5, 0, 2.5, 127, 1e30])
def test_above_of_integers(models: Echo, dtype: str, above: float) -> None:
    info = np.iinfo(dtype)
    values = np.array([[int(info.min)], [0], [2], [3], [int(info.max)]], dtype)
    for columns, flagged in models.columns(
        values, dtype, ("session", "eager"), flag={"at": 0, "above": above}
    ).values():
        assert columns["flag"] == [int(value) > above for value in values[:, 0].tolist()]
        assert not flagged.any()


@pytest.mark.parametrize(
    ("dtype", "cast", "fits", "not_held"),
    [
        ("float32", "float16", [65504.0, 65519.0, INF, NAN], 65520.0),
        ("float64", "float16", [-65504.0, -INF, NAN], -1e300),
        ("float64", "float32", [3.4e38, INF, NAN], 1e39),
        ("float32", "int8", [127.0, -128.4, 0.5], 127.6),
        ("float32", "int64", [-(2.0**63), 2.0**62], 2.0**63),
        ("float32", "int32", [1.0], NAN),
        ("int64", "int32", [2**31 - 1, -(2**31)], 2**31),
        ("uint64", "int64", [2**63 - 1], 2**63),
        ("uint64", "int32", [5], 2**63),
        ("int32", "float16", [65504], 65520),
        ("int64", "float32", [2**24], None),
        ("uint8", "int8", [127], 128),
        ("bool", "int8", [True, False], None),
    ],
)
def test_a_number_that_a_cast_cannot_hold_is_a_bad_row(
    models: Echo, dtype: str, cast: str, fits: list[Any], not_held: Any
) -> None:
    rule: dict[str, Any] = {"cast": cast}
    if cast.startswith("int") and dtype.startswith("float"):
        rule["round"] = 0
    own = np.array(fits, dtype)
    with np.errstate(all="ignore"):
        expected = (np.rint(own) if "round" in rule else own).astype(cast)
    for columns, _ in models.columns(own.reshape(-1, 1), dtype, ("session", "eager"), one=rule | {"at": 0}).values():
        same(columns["one"], expected)
    if not_held is None:
        return
    values = np.array([[fits[0]], [not_held], [fits[0]], [not_held]], dtype)
    for way in ("session", "eager"):
        with pytest.raises(RowError, match=f"column 'one': found a number that {cast} cannot hold") as caught:
            models.columns(values, dtype, (way,), one=rule)
        assert caught.value.at.tolist() == [1, 3]
        assert caught.value.facts["code"] == "ROW_OVERFLOW"


def test_a_value_of_strings(models: Echo) -> None:
    strings = Strings(pa.array([b"a", b"b", b"c", b"d"], pa.large_binary()), (2, 2))
    for columns, _ in models.columns(strings, "string", ("session", "eager"), one={"at": 1}).values():
        assert columns["one"] == ["b", "d"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("rule", "reason"),
    [({"top_k": 4}, "at least k columns"), ({"at": 3}, "out of bounds")],
)
def test_what_only_a_call_can_tell_is_an_error_of_the_call(models: Echo, way: str, rule: Any, reason: str) -> None:
    with pytest.raises(ModelCallError, match=reason):
        models.columns(np.zeros((2, 3)), "float32", (way,), one=rule)


def test_a_whole_tensor_may_be_fetched_beside_it(models: Echo, echo: Path) -> None:
    signature, targets, tensor = models._agreed(np.array([[1.0, 5.0, 2.0]]), "float32", {"top": {"top_k": 2}})
    for engine in ("session", "eager"):
        loaded = load(engine, str(echo), ("serve",), signature, EngineOptions(threads=1))
        outputs = loaded.run({"x": tensor}, ["y", *targets[0].fetches, "other"])
        loaded.close()
        assert np.asarray(outputs["y"]).tolist() == [[1, 5, 2]]
        assert np.asarray(outputs[targets[0].shaped["index"].name]).tolist() == [[1, 2]]


def test_one_computation_serves_several_columns(models: Echo) -> None:
    _, targets, _ = models._agreed(np.zeros((1, 3)), "float32", {"a": {"top_k": 2}, "b": {"top_k": 2}})
    assert targets[0].fetches == targets[1].fetches
    assert isinstance(targets[0].spec, TensorSpec)
