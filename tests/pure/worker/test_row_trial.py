"""The trial with rows, on models of NumPy: whose answers follow their own row, and whose do not, wherever it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from connectors.formats.schema import conform, unify
from jobs.errors import ModelCallError, ModelError, PoisonError
from jobs.section.columns import Columns
from runner.batch.standing import Standing
from runner.binding.bind import bind
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Array, Feeds, Outputs, Strings
from runner.worker.trial.sample import Sample
from runner.worker.trial.subject import Subject
from runner.worker.trial.trial import Trial, try_out

Model = Callable[[Mapping[str, Any]], Outputs]
F32 = np.float32


class Engine:
    devices: tuple[str, ...] = ()

    def __init__(self, answer: Model) -> None:
        self._answer = answer
        self.calls: list[int] = []

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        self.calls.append(max(value.shape[0] for value in feeds.values()))
        return self._answer(feeds)

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        return {}

    def close(self) -> None: ...


def tried_out(engine: Engine, binding: Any, signature: Signature, sample: Sample, *others: pa.RecordBatch) -> Trial:
    subject = Subject(engine, binding, signature, sample, 100, "m")
    return try_out(subject, Standing(subject.where, tuple), elsewhere=lambda: others)


def tensor(name: str, dtype: str = "float32", shape: Any = (None,)) -> TensorSpec:
    return TensorSpec(name, dtype, shape, f"{name}:0")


RAGGED = TensorSpec("y", "float32", (None, None), "", "ragged", (tensor("v"), tensor("s", "int64")))


def of(function: Callable[[Array], Any]) -> Model:
    return lambda fed: {"y": np.asarray(function(np.asarray(fed["x"])))}


def tried(
    model: Model | Engine,
    values: Iterable[Any],
    spec: TensorSpec | None = None,
    output: TensorSpec | None = None,
    batch_rows: int = 100,
    bits: bool = False,
    elsewhere: Sequence[Sequence[Any]] = (),
    rejected: bool = False,
) -> Trial:
    spec, output = spec or tensor("x"), output or tensor("y", shape=(spec or tensor("x")).shape)
    signature = Signature("s", "", {spec.name: spec}, {output.name: output})
    kind = pa.string() if spec.dtype == "string" else pa.float32()
    batches = [pa.record_batch({"x": pa.array(each, kind)}) for each in (list(values), *elsewhere)]
    binding = bind(Columns(), batches[0].schema, signature, "list")
    engine = model if isinstance(model, Engine) else Engine(model)
    sample = Sample(binding, signature, batches[0])
    return try_out(
        Subject(engine, binding, signature, sample, batch_rows, "m"),
        Standing("signature 's' of model 'm'", tuple, trusted=rejected),
        bits=bits,
        elsewhere=lambda: batches[1:],
    )


def shifted(x: Array) -> Array:
    return np.concatenate([x[:1] * 0, x[:-1]])


def softmax(x: Array) -> Array:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def running(x: Array) -> Array:
    state, answers = F32(0), []
    for value in x:
        state = F32(0.5) * state + value
        answers.append(state)
    return np.array(answers, F32)


COUPLED: dict[str, Callable[[Array], Array]] = {
    "cumulative sum": np.cumsum,
    "largest so far": np.maximum.accumulate,
    "smallest so far": np.minimum.accumulate,
    "first row": lambda x: x * 0 + x[0],
    "last row": lambda x: x * 0 + x[-1],
    "last row added": lambda x: x + x[-1],
    "reversed": lambda x: x[::-1].copy(),
    "sorted": np.sort,
    "sorted downwards": lambda x: -np.sort(-x),
    "shifted": shifted,
    "rolled": lambda x: np.roll(x, 1),
    "state carried along": running,
    "softmax": softmax,
    "centred": lambda x: x - x.mean(),
    "scaled by the largest": lambda x: x / np.abs(x).max(),
    "rank": lambda x: np.argsort(np.argsort(x)).astype(F32),
    "place": lambda x: x + np.arange(len(x), dtype=F32),
}
ROWS = {
    "random": [3.0, 1.0, 2.0, 5.0],
    "rising": [float(value) for value in range(1, 50)],
    "falling": [float(value) for value in range(50, 1, -1)],
    "padded": [7.0] * 900 + [2.0] + [7.0] * 99,
    "sorted in blocks": [1.0] * 400 + [2.0] * 400 + [3.0] * 200,
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("coupled", COUPLED)
def test_a_model_whose_rows_depend_on_each_other_is_refused_whatever_rows_come_first(coupled: str, rows: str) -> None:
    with pytest.raises(ModelError, match=r"output 'y' of signature 's' .* depend on the rows beside a row, or on its"):
        tried(of(COUPLED[coupled]), ROWS[rows])


@pytest.mark.parametrize("coupled", COUPLED)
def test_the_same_in_calls_of_a_fixed_size_and_of_two_rows(coupled: str) -> None:
    fixed = tensor("x", shape=(8,))
    with pytest.raises(ModelError, match="depend on the rows beside a row"):
        tried(of(COUPLED[coupled]), ROWS["random"], fixed, batch_rows=8)
    with pytest.raises(ModelError, match="depend on the rows beside a row"):
        tried(of(COUPLED[coupled]), ROWS["random"], batch_rows=2)
    assert tried(of(COUPLED[coupled]), ROWS["random"], batch_rows=1).proved, "nothing is beside a row then"


@pytest.mark.parametrize("coupled", COUPLED)
def test_of_equal_rows_some_show_it_and_else_it_is_told_that_nothing_is_proved(coupled: str) -> None:
    """Rows that are made up would not do: a column of the job may hold one number, and the model count on that."""
    if coupled in ("cumulative sum", "shifted", "state carried along", "softmax", "rank", "place"):
        with pytest.raises(ModelError, match="depend on the rows beside a row"):
            tried(of(COUPLED[coupled]), [5.0] * 300)
    else:
        found = tried(of(COUPLED[coupled]), [5.0] * 300)
        assert not found.proved
        assert "all rows that were tried are equal" in found.notes[0]
    with pytest.raises(ModelError, match="depend on the rows beside a row"):
        tried(of(COUPLED[coupled]), [5.0] * 300, elsewhere=[[5.0] * 10, [5.0] * 5 + [2.0, 9.0]])


def test_rows_of_files_that_differ_in_type_are_not_called_together() -> None:
    whole, halves = (pa.record_batch({"x": pa.array([5, 6], kind)}) for kind in (pa.int64(), pa.float64()))
    signature = Signature("s", "", {"x": tensor("x")}, {"y": tensor("y")})
    binding = bind(Columns(), whole.schema, signature, "list")
    for first, others in ((whole, [halves]), (halves, [whole, whole]), (None, [whole, halves])):
        sample = Sample(binding, signature, first)
        joined = sample.joined(others)
        assert joined.count == max(2, sum(each.num_rows for each in others if each.schema == whole.schema))
        model = Engine(of(lambda x: x * 2))
        assert tried_out(model, binding, signature, sample, *others).proved
        with pytest.raises(ModelError, match="depend on the rows beside a row"):
            tried_out(Engine(of(np.cumsum)), binding, signature, sample, *others)


@pytest.mark.parametrize("rows", ROWS)
def test_a_model_that_answers_each_row_by_itself_is_proved(rows: str) -> None:
    noise = np.random.default_rng(0)
    for model in (
        of(lambda x: x * 2),
        of(lambda x: x * 0 + F32(1)),  # the same for all rows
        of(lambda x: x * (1 + F32(5e-3) * len(x))),  # kernels that round by the size of a call
        of(lambda x: x + np.full(len(x), noise.normal(0, 1e-7), F32)),
    ):
        found = tried(model, ROWS[rows])
        assert (found.proved, found.notes, found.unproved) == (True, (), ""), rows


def test_a_model_that_is_what_it_says_takes_six_calls_and_random_one_more() -> None:
    engine = Engine(of(lambda x: x * 2))
    tried(engine, ROWS["random"])
    assert engine.calls == [1, 1, 1, 2, 3, 3]
    fixed = Engine(of(lambda x: x * 2))
    tried(fixed, ROWS["random"], tensor("x", shape=(8,)), batch_rows=8)
    assert fixed.calls == [8] * 6, "XLA would compile each size"
    draw = np.random.default_rng(0)
    noisy = Engine(of(lambda x: x + draw.random(len(x), F32)))
    assert "are other numbers at every call" in tried(noisy, ROWS["random"]).notes[0]
    assert noisy.calls == [1, 1, 1, 2, 3, 3, 3]
    assert tried(of(lambda x: x * 2), ROWS["random"], bits=True).proved
    with pytest.raises(ModelError, match="cannot promise equal bits"):
        tried(of(lambda x: x + F32(1e-6) * draw.random(len(x), F32)), ROWS["random"], bits=True)


DRAWS: dict[str, tuple[Callable[[int, int], float], int]] = {
    "twice the same": (lambda call, rows: 0.1 * min(call, 6) if call < 8 else 0.9, 8),
    "in a call before the last": (lambda call, rows: 0.1 * call * (rows == 2), 9),
}


@pytest.mark.parametrize("draws", DRAWS)
def test_draws_that_are_seen_late_are_no_mix_of_rows(draws: str) -> None:
    """Two draws may be equal, and a branch may draw for some sizes of a call only."""
    draw, calls = DRAWS[draws]
    engine = Engine(of(lambda x: x + F32(draw(len(engine.calls), len(x)))))
    assert "are other numbers at every call" in tried(engine, ROWS["random"]).notes[0]
    assert len(engine.calls) == calls


def test_an_output_that_is_mixed_beside_a_random_one_is_refused() -> None:
    draw = np.random.default_rng(0)
    signature = Signature("s", "", {"x": tensor("x")}, {name: tensor(name) for name in ("noise", "y")})
    batch = pa.record_batch({"x": pa.array(ROWS["random"], pa.float32())})
    binding = bind(Columns(), batch.schema, signature, "list")

    def model(fed: Mapping[str, Any]) -> Outputs:
        return {"noise": draw.random(len(fed["x"]), F32), "y": fed["x"][::-1].copy()}

    with pytest.raises(ModelError, match=r"cannot write output 'y' .* choose `outputs: \[noise\]`"):
        tried_out(Engine(model), binding, signature, Sample(binding, signature, batch))


# Strings and lists


@pytest.mark.parametrize("mixed", [False, True])
def test_texts_are_compared(mixed: bool) -> None:
    def model(fed: Mapping[str, Any]) -> Outputs:
        values = fed["x"].values.to_pylist()
        return {"y": Strings(pa.array(values[:: -1 if mixed else 1], pa.large_binary()), (len(values),))}

    spec, output = tensor("x", "string"), tensor("y", "string")
    if mixed:
        with pytest.raises(ModelError, match="depend on the rows beside a row"):
            tried(model, ["a", "bb", ""], spec, output)
    else:
        assert tried(model, ["a", "bb", ""], spec, output).proved
    equal = tried(model, ["a"] * 50, spec, output)
    assert not equal.proved
    assert "it is not proved that each row of the outputs of signature 's' of model 'm' depends on" in equal.notes[0]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("kind", ["ragged", "sparse"])
def test_outputs_of_several_tensors_are_compared(kind: str, mixed: bool) -> None:
    def model(fed: Mapping[str, Any]) -> Outputs:
        x = fed["x"][::-1] if mixed else fed["x"]
        counts = x.astype(np.int64)  # x: the row 3.0 becomes [3, 3, 3]
        values = np.repeat(x, counts)
        if kind == "ragged":
            return {"v": values, "s": np.concatenate([[0], np.cumsum(counts)])}
        places = np.concatenate([np.arange(count) for count in counts])
        indices = np.stack([np.repeat(np.arange(len(x)), counts), places], 1)
        return {"i": indices, "v": values, "n": np.array([len(x), 9])}

    parts = (tensor("i", "int64", (None, 2)), tensor("v"), tensor("n", "int64", (2,)))
    output = RAGGED if kind == "ragged" else TensorSpec("y", "float32", (None, None), "", "sparse", parts)
    if mixed:
        with pytest.raises(ModelError, match=r"output 'y' .* depend on the rows beside a row"):
            tried(model, ROWS["random"], output=output)
    else:
        assert tried(model, ROWS["random"], output=output).proved


# Rows that are refused


def picky(least: float, reason: str = "too small") -> Model:
    def model(fed: Mapping[str, Any]) -> Outputs:
        if (fed["x"] < least).any():
            raise ModelCallError(reason.format(fed["x"]), code="INVALID_ARGUMENT")
        return {"y": fed["x"] * 2}

    return model


def test_bad_rows_in_front_prove_nothing_and_others_are_tried() -> None:
    assert tried(picky(1), [0.0, 0.5, 0.25, 2.0, 3.0, 4.0]).proved
    alone = tried(picky(1), [0.0] * 100 + [2.0])
    assert (alone.proved, alone.unproved) == (False, "")
    assert "it is not proved that each row" in alone.notes[0]
    none = tried(picky(1), [0.0, 0.5])
    assert (none.proved, none.notes) == (False, ())
    assert "too small" in none.unproved


def test_a_model_that_refuses_every_row_in_the_same_words_is_at_fault_itself() -> None:
    low, high = [value / 100 for value in range(50)], [5.0]
    with pytest.raises(PoisonError, match=r"refuses every row that was tried, 10 .* it is the model .*: too small"):
        tried(picky(1), low, elsewhere=[[0.5], [0.1]])
    for rows, elsewhere, reason in (
        (low, [[0.5], high], "too small"),  # another row group is fine
        (low, [[0.5]], "too small: {}"),  # other words for each row
        (low[:2], [], "too small"),  # too few to tell
        (low + high * 50, [[0.5]], "too small"),
    ):
        assert tried(picky(1, reason), rows, elsewhere=elsewhere).unproved or rows[-1] == 5.0
    assert tried(picky(1), low, elsewhere=[[0.5]], rejected=True).unproved, "rows that were rejected before"


def test_rows_that_do_not_fit_together_are_told() -> None:
    def model(fed: Mapping[str, Any]) -> Outputs:
        if len(np.unique(fed["x"])) > 1:
            raise ModelCallError("shapes differ", code="INVALID_ARGUMENT")
        return {"y": fed["x"] * 2}

    found = tried(model, ROWS["random"])
    assert (found.proved, found.unproved) == (False, "not proved with 2 rows (input): shapes differ")
    assert "shapes differ; the first rows that differ are compared while the job runs" in found.notes[0]


def test_rows_of_other_files_are_tried_with_those_that_may_share_a_call_with_them() -> None:
    signature = Signature("s", "", {"x": tensor("x", shape=(None, None))}, {"y": tensor("y")})
    files = [[[1], [1], [1]], [[0.5], [0.5, 1.5], [2.5], [4.5]]]
    tables = [pa.table({"x": pa.array(rows)}) for rows in files]  # lists of int64, lists of double
    schema, problems = unify([(str(at), table.schema) for at, table in enumerate(tables)], ["x"])
    binding = bind(Columns(), schema, signature, "list")
    first, second = [conform(table, schema, "f").to_batches()[0] for table in tables]
    assert (problems, first.schema.equals(second.schema)) == ([], False)
    for function, proved in ((lambda x: x.sum(axis=1), True), (lambda x: np.cumsum(x.sum(axis=1)), False)):
        engine = Engine(of(function))
        sample = Sample(binding, signature, first)
        if proved:
            assert tried_out(engine, binding, signature, sample, second).proved
            assert max(engine.calls) == 3
        else:
            with pytest.raises(ModelError, match="depend on the rows beside a row"):
                tried_out(engine, binding, signature, sample, second)


def test_a_model_that_takes_one_row_a_call_says_so() -> None:
    def model(fed: Mapping[str, Any]) -> Outputs:
        if len(fed["x"]) > 1:
            raise ModelCallError("one row", code="INVALID_ARGUMENT")
        return {"y": fed["x"]}

    with pytest.raises(ModelError, match=r"cannot give 2 rows a call .*set `limits: \{batch_rows: 1\}`"):
        tried(model, ROWS["random"])
