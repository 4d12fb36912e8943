"""What `runner show` says, on a model that is only a value."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from jobs.errors import ModelError
from runner.cli.view.model import document, render
from runner.model.signature import MetaGraph, ModelSpec, Signature, TensorSpec
from runner.tensor import Strings, Tensor


def signature(name: str, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Signature:
    return Signature(name, "tensorflow/serving/predict", {x.name: x for x in inputs}, {x.name: x for x in outputs})


def model(*metagraphs: MetaGraph, files: dict[str, int] | None = None) -> ModelSpec:
    fingerprint: dict[str, int | str] = {"singleprint": "1/2/3/4", "saved_model_checksum": 5}
    files = {"saved_model.pb": 1024} if files is None else files
    return ModelSpec("models/churn", "/models/churn/3", 3, metagraphs, "abcdef0123456789" * 4, fingerprint, files)


IDS = TensorSpec("ids", "int64", (None, 128), "serving_default_ids:0")
SCORE = TensorSpec("score", "float32", (None,), "StatefulPartitionedCall:0")
SCORING = signature("serving_default", [IDS], [SCORE])
OPS = {"MatMul": 3, "AddV2": 7, "Const": 20, "Relu": 1, "Cast": 1, "NoOp": 1, "Pack": 1}


def text(spec: ModelSpec, tags: tuple[str, ...] | None = None, name: str | None = None) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as captured:
        console.print(render(spec, tags, name))
    return captured.get()


def lines(spec: ModelSpec) -> list[str]:
    """What is shown, with single spaces."""
    return [" ".join(line.split()) for line in text(spec).splitlines() if line.strip()]


def with_default(value: Tensor, dtype: str) -> ModelSpec:
    spec = TensorSpec("x", dtype, value.shape, "x:0", default=value)
    return model(MetaGraph(("serve",), {"f": signature("f", [spec], [])}))


def default_of(value: Tensor, dtype: str) -> object:
    shown = document(with_default(value, dtype))
    json.dumps(shown, allow_nan=False)
    return shown["metagraphs"][0]["signatures"]["f"]["inputs"]["x"]["default"]


def test_a_model_reads_like_a_page() -> None:
    spec = model(
        MetaGraph(("serve",), {"serving_default": SCORING}, OPS, "2.21.0"),
        files={"assets/vocab.txt": 10, "assets.extra/notes": 3, "saved_model.pb": 1024},
    )
    shown = lines(spec)
    assert shown[:7] == [
        "models/churn version 3",
        "saved by TensorFlow 2.21.0",
        "size 1.0 KiB in 3 files",
        "digest abcdef0123456789",
        "fingerprint 1/2/3/4",
        "assets vocab.txt (10 B)",
        "assets.extra notes (3 B)",
    ]
    assert shown[7] == "tags serve"
    assert shown[8] == "34 ops of 7 kinds: 20 Const, 7 AddV2, 3 MatMul, 1 Cast, 1 NoOp, 1 Pack, ..."
    assert shown[9] == "serving_default tensorflow/serving/predict"
    assert shown[10] == "name tensor Arrow column"
    assert shown[11] == "in ids int64[?, 128] fixed_shape_tensor<int64>[128]"
    assert shown[12] == "out score float32[?] float"


def test_only_the_tags_and_the_signature_asked_for_are_shown() -> None:
    other = signature("embed", [IDS], [SCORE])
    serve = MetaGraph(("serve",), {"embed": other, "serving_default": SCORING})
    spec = model(serve, MetaGraph(("gpu", "serve"), {"on_gpu": signature("on_gpu", [IDS], [SCORE])}))
    everything = text(spec)
    assert all(name in everything for name in ("embed", "serving_default", "on_gpu", "gpu, serve"))
    assert "on_gpu" not in text(spec, None, "embed")
    assert "serving_default" not in text(spec, None, "embed")
    assert "embed" not in text(spec, ("serve", "gpu"))
    with pytest.raises(ModelError, match="no signature 'nope'"):
        text(spec, None, "nope")
    with pytest.raises(ModelError, match="no metagraph with tags 'tpu'"):
        text(spec, ("tpu",))


def test_a_model_without_signatures_is_shown_as_such() -> None:
    assert "no signatures: it cannot be called" in lines(model(MetaGraph(("serve",), {})))


def test_a_tensor_that_no_column_carries_has_no_arrow_form() -> None:
    table = TensorSpec("table", "resource", (), "t:0")
    parts = tuple(TensorSpec(name, "int64", None, f"{name}:0") for name in "ivd")
    sparse = TensorSpec("s", "int64", (None, None), "", "sparse", parts)
    spec = model(MetaGraph(("serve",), {"f": signature("f", [table, sparse], [])}))
    assert "in table resource[] -" in lines(spec)
    assert "in s sparse int64[?, ?] -" in lines(spec)
    inputs = document(spec)["metagraphs"][0]["signatures"]["f"]["inputs"]
    assert inputs["table"]["arrow"] is None
    assert inputs["s"]["components"] == ["i:0", "v:0", "d:0"]


def test_defaults_are_shown_short() -> None:
    assert any(line.endswith(" 0.5") for line in lines(with_default(np.array(0.5, np.float32), "float32")))
    assert any(line.endswith("[0, 1, 2, 3, 4, 5, ...]") for line in lines(with_default(np.arange(9), "int64")))
    words = Strings(pa.array([b"spam", b"x" * 50], pa.large_binary()), (2,))
    assert any(line.endswith(f"[spam, {'x' * 40}]") for line in lines(with_default(words, "string")))


def test_the_document_is_plain_json_and_has_every_fact() -> None:
    spec = model(MetaGraph(("gpu", "serve"), {"serving_default": SCORING}, {"MatMul": 3}, "2.21.0"))
    shown = document(spec)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert (shown["url"], shown["version"], shown["bytes"], shown["digest"]) == ("models/churn", 3, 1024, spec.digest)
    (metagraph,) = shown["metagraphs"]
    assert (metagraph["tags"], metagraph["ops"]) == (["gpu", "serve"], {"MatMul": 3})
    ids = metagraph["signatures"]["serving_default"]["inputs"]["ids"]
    assert (ids["dtype"], ids["shape"], ids["tensor"]) == ("int64", [None, 128], "serving_default_ids:0")
    assert "default" not in ids
    assert "128" in ids["arrow"]


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (np.array(0.5, np.float32), "float32", 0.5),
        (np.array([[1, 2], [3, 4]]), "int64", [[1, 2], [3, 4]]),
        (np.array([np.nan, -np.inf, np.inf]), "float64", ["NaN", "-Infinity", "Infinity"]),
        (np.array([0x3F80, 0xC000], np.uint16), "bfloat16", [1.0, -2.0]),
        (np.array([1 + 2j], np.complex64), "complex64", [{"re": 1.0, "im": 2.0}]),
        (np.array([True, False]), "bool", [True, False]),
        (np.zeros((2, 0, 3), np.int64), "int64", [[], []]),
        (Strings(pa.array([b"a", b"\xff"], pa.large_binary()), (1, 2)), "string", [["a", "\\xff"]]),
        (Strings(pa.array([b"a"], pa.large_binary()), ()), "string", "a"),
    ],
)
def test_defaults_are_json_values_of_their_shape(value: Tensor, dtype: str, expected: object) -> None:
    assert default_of(value, dtype) == expected


def test_control_characters_of_a_name_never_reach_the_terminal() -> None:
    evil = "\x1b]0;owned\x07"
    spec = TensorSpec(evil, "float32", (None,), "x:0", default=Strings(pa.array([evil.encode()]), ()))
    f = Signature(evil, evil, {evil: spec}, {})
    shown = text(model(MetaGraph((evil,), {evil: f}, {evil: 1}, evil), files={f"assets/{evil}": 1}))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b]0;owned\\x07" in shown
