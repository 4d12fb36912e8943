"""Several models as one engine: what each is fed, what is cut and filled up inside, and whom an error names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import DeviceError, MemoryLimitError, ModelCallError, ModelError, RunnerError
from runner import engine as engines
from runner.engine import EngineMember, EngineOptions, ModelOptions
from runner.engine.several import SeveralEngine, together
from runner.model.signature import Signature, TensorSpec, merged
from runner.tensor import Feeds, Outputs, Strings, Tensor


class Doubling:
    """An engine that answers twice what it is fed, and remembers the rows of each call. refuses: a value, or more rows
    than `most`."""

    devices = ("/device:CPU:0",)

    def __init__(
        self, refuses: float | None = None, error: RunnerError | None = None, whole: bool = True, most: int = 100
    ) -> None:
        self.calls: list[tuple[dict[str, Any], list[str]]] = []
        self.refuses, self.error, self.whole, self.closed, self.most = refuses, error, whole, False, most

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        self.calls.append(({name: _plain(tensor) for name, tensor in feeds.items()}, list(fetches)))
        x: Any = next(tensor for name, tensor in feeds.items() if name.endswith("x"))
        if self.refuses is not None and ((x == self.refuses).any() or len(x) > self.most):
            raise self.error or ModelCallError("cannot call: bad value", code="INVALID_ARGUMENT")
        answers: dict[str, Tensor] = dict.fromkeys(fetches, 2 * x if self.whole else x[:1])
        return answers | {name: feeds[name.replace("echo", "s")] for name in fetches if name.endswith("echo")}

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        return {"CPU": {"Mul": 1}}

    def close(self) -> None:
        self.closed = True


def _plain(tensor: Tensor) -> Any:
    return tensor.values.to_pylist() if isinstance(tensor, Strings) else tensor.tolist()


def _signature(name: str = "serve") -> Signature:
    inputs = {"s": TensorSpec("s", "string", (None,), "s:0"), "x": TensorSpec("x", "float32", (None,), "x:0")}
    outputs = {each: TensorSpec(each, "float32", (None,), f"{each}:0") for each in ("echo", "y")}
    return Signature(name, "", inputs, outputs)


def _member(name: str, batch_rows: int | None = None, path: str = "", **more: Any) -> EngineMember:
    own = {"follows": ("x",), "signature": _signature(name)} | more
    url, options = f"/models/{name}", ModelOptions()
    return EngineMember(name, "session", path or url, url, ("serve",), options=options, batch_rows=batch_rows, **own)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """loaded({path: engine}, *members): the engine over them."""

    def make(own: Mapping[str, Doubling], *members: EngineMember) -> SeveralEngine:
        monkeypatch.setattr("runner.engine.several.load", lambda engine, path, *rest: own[path])
        signature = merged({member.name: member.signature for member in members})
        return SeveralEngine("", (), signature, EngineOptions(threads=1, members=members))

    return make


def _x(*values: float) -> Any:
    return np.array(values, np.float32)


def test_each_model_gets_its_own_feeds_and_answers_for_its_own_fetches(loaded: Any) -> None:
    a, b = Doubling(), Doubling()
    several = loaded({"/models/a": a, "/models/b": b}, _member("a"), _member("b"))
    answers = several.run({"a.x": _x(1, 2), "b.x": _x(3, 4)}, ["b.y", "a.y"])
    assert {name: tensor.tolist() for name, tensor in answers.items()} == {"b.y": [6, 8], "a.y": [2, 4]}
    assert (a.calls, b.calls) == ([({"x": [1, 2]}, ["y"])], [({"x": [3, 4]}, ["y"])])
    several.run({"a.x": _x(1), "b.x": _x(3)}, ["a.y"])
    assert len(b.calls) == 1  # nothing of it was wanted
    several.close()
    assert a.closed
    assert b.closed


def test_a_fixed_number_of_rows_is_cut_and_filled_up_inside_and_nobody_sees_it(loaded: Any) -> None:
    own = Doubling()
    several = loaded({"/models/a": own}, _member("a", 2, follows=("s", "x")))
    words = Strings(pa.array([b"u", b"v", b"w"], pa.large_binary()), (3,))
    answers = several.run({"a.x": _x(1, 2, 3), "a.s": words}, ["a.y", "a.echo"])
    assert answers["a.y"].tolist() == [2, 4, 6]
    assert (answers["a.echo"].values.to_pylist(), answers["a.echo"].shape) == ([b"u", b"v", b"w"], (3,))
    fed = [call for call, _ in own.calls]
    assert fed == [{"x": [1, 2], "s": [b"u", b"v"]}, {"x": [3, 3], "s": [b"w", b"w"]}]


def test_constants_are_neither_cut_nor_filled_up(loaded: Any) -> None:
    own = Doubling()
    several = loaded({"/models/a": own}, _member("a", 2))
    several.run({"a.x": _x(1, 2, 3), "a.weights": _x(7, 8, 9)}, ["a.y"])
    assert [call["weights"] for call, _ in own.calls] == [[7, 8, 9], [7, 8, 9]]


def test_an_output_that_does_not_follow_the_rows_stays_as_it_is_for_the_trial_to_see(loaded: Any) -> None:
    several = loaded({"/models/a": Doubling(whole=False)}, _member("a", 4))
    assert several.run({"a.x": _x(1, 2, 3)}, ["a.y"])["a.y"].shape == (1,)


@pytest.mark.parametrize("padded", [True, False])
def test_calls_of_a_padded_model_are_halved_where_memory_runs_out_and_stay_so(loaded: Any, padded: bool) -> None:
    own = Doubling(99, MemoryLimitError("memory ran out"), most=4)
    several = loaded({"/models/a": own}, _member("a", 8, padded=padded))
    if not padded:  # it takes no other number
        with pytest.raises(MemoryLimitError, match="model 'a': memory ran out"):
            several.run({"a.x": _x(1, 2, 5)}, ["a.y"])
        return
    assert several.run({"a.x": _x(1, 2, 5)}, ["a.y"])["a.y"].tolist() == [2, 4, 10]
    assert [len(call["x"]) for call, _ in own.calls] == [8, 4]
    assert several.run({"a.x": _x(*range(5))}, ["a.y"])["a.y"].shape == (5,)
    assert [len(call["x"]) for call, _ in own.calls] == [8, 4, 4, 4]


def test_one_signature_for_the_second_time_is_loaded_by_itself_for_it_is_fed_with_something_else() -> None:
    signature = _signature("same")
    members = [_member(name, path="/m", signature=signature) for name in ("a", "b")]
    assert [[member.name for member in group] for group in together(members)] == [["a"], ["b"]]


@pytest.mark.parametrize("error", [ModelCallError("no", code="INVALID_ARGUMENT"), DeviceError("no", code="INTERNAL")])
def test_an_error_says_which_model_it_is_of_and_keeps_its_class_and_code(loaded: Any, error: RunnerError) -> None:
    several = loaded({"/models/a": Doubling(), "/models/b": Doubling(3, error)}, _member("a"), _member("b", 2))
    with pytest.raises(type(error), match="model 'b': no") as raised:
        several.run({"a.x": _x(1, 3), "b.x": _x(1, 3)}, ["a.y", "b.y"])
    assert (raised.value.facts["model"], raised.value.facts["code"]) == ("b", error.facts["code"])


def test_signatures_of_one_model_are_one_call_and_the_one_that_fails_is_named(loaded: Any) -> None:
    own = Doubling(3)
    members = (_member("a", path="/m"), _member("b", path="/m"))
    several = loaded({"/m": own}, *members)
    answers = several.run({"a.x": _x(1), "b.x": _x(1)}, ["a.y", "b.y"])
    assert (len(own.calls), sorted(answers)) == (1, ["a.y", "b.y"])
    with pytest.raises(ModelCallError, match="model 'a': cannot call") as raised:
        several.run({"a.x": _x(3), "b.x": _x(1)}, ["a.y", "b.y"])
    assert raised.value.facts["model"] == "a"


def test_what_differs_in_more_than_the_signature_is_loaded_by_itself() -> None:
    one, other = _member("a", path="/m"), _member("b", path="/m")
    sized, compiled = _member("c", 8, path="/m"), _member("d", path="/m")
    eager = EngineMember("e", "eager", "/m", "/m", ("serve",), _signature(), ModelOptions())
    compiled = EngineMember("d", "session", "/m", "/m", ("serve",), _signature(), ModelOptions(xla=True))
    groups = together([one, sized, other, compiled, eager])
    assert [[member.name for member in group] for group in groups] == [["a", "b"], ["c"], ["d"], ["e"]]


def test_python_loads_a_model_once_for_all_of_its_signatures(loaded: Any) -> None:
    own, other = Doubling(), Doubling()
    own.beside = lambda signature: other  # type: ignore[attr-defined]
    eager = [
        EngineMember(name, "eager", "/m", "/m", ("serve",), _signature(name), ModelOptions(), follows=("x",))
        for name in ("a", "b")
    ]
    several = loaded({"/m": own}, *eager)
    assert several.run({"a.x": _x(1), "b.x": _x(2)}, ["a.y", "b.y"])["b.y"].tolist() == [4]
    assert (len(own.calls), len(other.calls)) == (1, 1)


def test_a_model_that_cannot_be_loaded_is_named_and_the_others_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Doubling()

    def load(engine: str, path: str, *rest: Any) -> engines.Engine:
        if path == "/models/b":
            raise ModelError("cannot load model '/models/b': no graph")
        return first

    monkeypatch.setattr("runner.engine.several.load", load)
    members = (_member("a"), _member("b"))
    with pytest.raises(ModelError, match="model 'b': cannot load model '/models/b'"):
        SeveralEngine("", (), _signature(), EngineOptions(threads=1, members=members))
    assert first.closed


def test_calls_that_compile_are_counted_over_all_models_and_their_seconds_are_known_of_the_thread(loaded: Any) -> None:
    own = {"/models/a": Doubling(), "/models/b": Doubling(), "/models/c": Doubling()}
    several = loaded(own, _member("a", compiles=True), _member("b", compiles=True), _member("c"))
    assert several.seconds_here == 0
    for _ in range(2):
        several.run({"a.x": _x(1), "b.x": _x(3), "c.x": _x(3)}, ["a.y", "b.y", "c.y"])
    assert several.figures()["compilations"] == 2
    assert several.seconds_here == pytest.approx(several.figures()["compile_s"], abs=1e-3)
    assert several.seconds_here > 0
