"""Bisection: whatever the set of bad rows, exactly these are set aside, and the others come out in their order."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import DataError, DeviceError, MemoryLimitError, ModelCallError, PoisonError, RunnerError
from jobs.section.limits import Limits
from runner.batch.batches import Where
from runner.batch.bisection import Bisection, Steps, row_bytes, wide_rows
from runner.batch.headroom import Headroom
from runner.batch.rejects import Rejects
from runner.batch.standing import PROBED, Standing
from runner.binding.binding import NAN_ANSWER, ODD_INPUT, UNSEEN
from runner.binding.blame import RowError
from runner.tensor import Feeds, Outputs

REJECT = Limits(on_bad_row="reject", max_rejected_rows="100%")
UNTIMED = settings(deadline=None)  # a busy machine is no failure
SCHEMA = pa.schema([("id", pa.int64())])


def batch_of(rows: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(rows), pa.int64())], schema=SCHEMA)


class Model:
    """Answers y = -id. Refuses a call with a poisoned id, or with more than `most` rows; feeding finds `unfit` ids."""

    def __init__(self, poison: Collection[int] = (), unfit: Collection[int] = (), most: int = 10**9) -> None:
        self.poison, self.unfit, self.most = set(poison), set(unfit), most
        self.calls: list[int] = []
        self.nan: set[int] = set()
        self.odd: set[int] = set()  # their inputs are not finite
        self.untellable: set[int] = set()
        self.code = "INVALID_ARGUMENT"
        self.words = "no such word"
        self.takes = 10**9  # rows of a call, whatever they are

    def steps(self) -> Steps:
        return Steps(self.feed, self.run, self.fetch, self.marks)

    def feed(self, batch: pa.RecordBatch) -> Feeds:
        ids = batch.column("id").to_numpy()
        self._refuse(ids, self.unfit, "ROW_SHAPE")
        return {"x": ids}

    def run(self, feeds: Feeds) -> Outputs:
        ids = np.asarray(feeds["x"])
        self.calls.append(len(ids))
        if len(ids) > self.most:
            raise MemoryLimitError("too many", code="RESOURCE_EXHAUSTED")
        if len(ids) > self.takes:
            raise ModelCallError(f"Task size {len(ids)} is larger than {self.takes}", code="INVALID_ARGUMENT")
        if self.poison & set(ids.tolist()):
            raise ModelCallError(self.words.format(ids[0]), code=self.code)
        return {"y": -ids}

    def fetch(self, batch: pa.RecordBatch, outputs: Outputs) -> pa.RecordBatch:
        ids = batch.column("id").to_numpy()
        self._refuse(ids, self.untellable, "ROW_UTF8")
        np.testing.assert_array_equal(-ids, np.asarray(outputs["y"]))
        return batch

    def marks(self, batch: pa.RecordBatch, feeds: Feeds, outputs: Outputs, fetched: pa.RecordBatch) -> Any:
        ids = -np.asarray(outputs["y"])
        nan, odd = (np.isin(ids, list(one)) for one in (self.nan, self.odd))
        marks = NAN_ANSWER * nan + (ODD_INPUT + UNSEEN * ~nan) * odd
        return marks if marks.any() else None

    def _refuse(self, ids: Any, bad: Collection[int], code: str) -> None:
        at = np.flatnonzero(np.isin(ids, list(bad)))
        if len(at):
            raise RowError.of("bad", at, [f"id {ids[row]} is bad" for row in at], code=code, column="id")


Score = Callable[..., tuple[list[int], dict[int, str], Rejects]]


@pytest.fixture(scope="session")
def score() -> Score:
    """score(model, rows): the ids that came out, in order, and id -> code of those set aside."""

    def run(
        model: Model,
        rows: int,
        limits: Limits = REJECT,
        most: int = 10**6,
        headroom: Headroom | None = None,
        **options: Any,
    ) -> tuple[list[int], dict[int, str], Rejects]:
        rejects = Rejects(SCHEMA, ["id"], limits, most)
        bisect = Bisection(model.steps(), rejects, headroom or Headroom(rows), **options)
        kept = [row for batch in bisect(Where("f", 3, 100), batch_of(rows)) for row in batch.column("id").to_pylist()]
        table = pa.Table.from_batches(rejects.losses().batches, rejects.losses().schema)
        ids = [kept_row["id"] for kept_row in table["kept"].to_pylist()]
        assert table["row"].to_pylist() == [100 + row for row in ids] == sorted(100 + row for row in ids)
        return kept, dict(zip(ids, table["code"].to_pylist(), strict=True)), rejects

    return run


@st.composite
def poisoned_batches(draw: st.DrawFn) -> tuple[int, set[int], set[int], set[int]]:
    rows = draw(st.integers(1, 200))
    some = st.sets(st.integers(0, rows - 1))
    return rows, draw(some), draw(some), draw(some)


@UNTIMED
@given(poisoned_batches(), st.integers(1, 300))
def test_exactly_the_bad_rows_are_set_aside_for_any_set_of_them(
    score: Score, case: tuple[int, set[int], set[int], set[int]], most: int
) -> None:
    rows, poison, unfit, untellable = case
    model = Model(poison, unfit, most)
    model.untellable = untellable
    kept, codes, _ = score(model, rows)
    assert kept == [row for row in range(rows) if row not in poison | unfit | untellable]
    assert codes == (
        dict.fromkeys(untellable, "ROW_UTF8") | dict.fromkeys(poison, "MODEL_ROW") | dict.fromkeys(unfit, "ROW_SHAPE")
    )


@UNTIMED
@given(st.integers(1, 4096), st.data())
def test_k_bad_rows_of_n_cost_k_log_n_calls(score: Score, rows: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, rows - 1), max_size=5))
    model = Model(poison)
    score(model, rows)
    assert len(model.calls) <= 1 + 2 * len(poison) * math.ceil(math.log2(max(2, rows)))


def test_a_good_batch_costs_one_call_and_is_passed_on_as_it_is(score: Score) -> None:
    model = Model()
    kept, codes, _ = score(model, 1000)
    assert (kept, codes, model.calls) == (list(range(1000)), {}, [1000])


def test_where_rows_may_not_be_rejected_the_first_bad_one_is_named_with_its_place(score: Score) -> None:
    with pytest.raises(DataError) as caught:
        score(Model({700, 900}), 1000, Limits())
    facts = caught.value.facts
    assert (facts["code"], facts["file"], facts["row_group"], facts["row"]) == ("MODEL_ROW", "f", 3, 800)
    assert "no such word" in caught.value.message
    assert caught.value.exit_code == 65


def test_more_bad_rows_in_one_shard_than_the_job_allows_stop_it(score: Score) -> None:
    limits = Limits(on_bad_row="reject", max_rejected_rows=2)
    assert len(score(Model({1, 5}), 10, limits, 2)[1]) == 2
    with pytest.raises(DataError, match=r"3 rows of one shard were rejected, `limits.max_rejected_rows: 2` allows 2"):
        score(Model({1, 5, 7}), 10, limits, 2)


@pytest.mark.parametrize("error", [DeviceError("INTERNAL"), PoisonError("no kernel", code="MODEL_FAULT")])
def test_what_is_no_fault_of_the_rows_is_passed_on(score: Score, error: Exception) -> None:
    model = Model()

    def run(feeds: Feeds) -> Outputs:
        model.calls.append(1)
        raise error

    model.run = run  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        score(model, 100)
    assert model.calls == [1]


@pytest.mark.parametrize("code", ["process_abort", "timeout", "oom"])
def test_what_a_child_process_did_not_survive_is_the_code_of_the_row(score: Score, code: str) -> None:
    model = Model({3})
    model.code = code
    assert score(model, 8)[1] == {3: code}


def test_outputs_that_are_not_one_row_for_each_stop_the_shard_whatever_the_policy(score: Score) -> None:
    model = Model()

    def fetch(batch: pa.RecordBatch, outputs: Outputs) -> pa.RecordBatch:
        raise DataError("9 rows for 10", code="MODEL_BATCH")

    model.fetch = fetch  # type: ignore[method-assign]
    with pytest.raises(DataError) as caught:
        score(model, 10)
    assert (caught.value.facts["code"], "row" in caught.value.facts) == ("MODEL_BATCH", False)
    assert caught.value.facts["file"] == "f"


def test_a_nan_is_kept_and_counted_or_rejected(score: Score) -> None:
    model = Model()
    model.nan = {2, 3}
    kept, codes, rejects = score(model, 5)
    assert (kept, codes, rejects.nan_rows) == ([0, 1, 2, 3, 4], {}, 2)
    kept, codes, rejects = score(model, 5, nan_rejected=True)
    assert (kept, codes, rejects.nan_rows) == ([0, 1, 4], {2: "MODEL_NAN", 3: "MODEL_NAN"}, 0)
    assert model.calls == [5, 5], "a NaN costs no call"


def test_odd_rows_are_counted_where_they_are_written_however_often_they_were_called(score: Score) -> None:
    model = Model(poison={0}, most=4)
    model.odd, model.nan = {1, 4, 6}, {4, 5}
    kept, codes, rejects = score(model, 8)
    losses = rejects.losses()
    assert (kept, codes) == ([1, 2, 3, 4, 5, 6, 7], {0: "MODEL_ROW"})
    assert (losses.nan_rows, losses.nonfinite_rows, losses.unseen_rows) == (2, 3, 2)
    _, codes, rejects = score(model, 8, nan_rejected=True)
    losses = rejects.losses()
    assert codes == {0: "MODEL_ROW", 4: "MODEL_NAN", 5: "MODEL_NAN"}
    assert (losses.nan_rows, losses.nonfinite_rows, losses.unseen_rows) == (0, 2, 2)


# Memory


def test_a_batch_that_does_not_fit_is_halved_and_the_safe_size_remembered(score: Score) -> None:
    headroom = Headroom(64)
    model = Model(most=20)
    assert score(model, 64, headroom=headroom)[0] == list(range(64))
    assert model.calls == [64, 32, 16, 16, 16, 16]
    assert (headroom.limits, headroom.failures) == ({"x[]": 16}, 2)
    model.calls.clear()
    score(model, 64, headroom=headroom)
    assert model.calls == [16, 16, 16, 16], "no call fails twice"


def test_after_many_calls_that_went_well_a_little_more_is_tried(score: Score) -> None:
    headroom = Headroom(64)
    headroom.learn({"x[]": 16})
    model = Model()
    for _ in range(300):
        score(model, 64, headroom=headroom)
    assert model.calls[:16] == [16] * 16
    assert 18 in model.calls
    assert headroom.limits == {}, "a limit that was outgrown is forgotten"
    assert model.calls[-1] == 64


def test_of_what_two_workers_found_out_the_smaller_number_counts() -> None:
    headroom = Headroom(64)
    headroom.learn({"x[]": 32, "y[4]": 8})
    headroom.learn({"x[]": 48})
    assert headroom.limits == {"x[]": 32, "y[4]": 8}
    for number in range(100):
        headroom.learn({f"z[{number}]": 1})
    assert len(headroom.limits) == 32, "it travels with every attempt"


def test_one_row_that_does_not_fit_is_an_error_that_says_so(score: Score) -> None:
    with pytest.raises(MemoryLimitError) as caught:
        score(Model(most=0), 8)
    assert caught.value.facts["rows"] == 1


def test_one_row_that_fits_nowhere_is_found_without_slowing_down_the_others(score: Score) -> None:
    model, headroom = Model(), Headroom(1024)

    def run(feeds: Feeds) -> Outputs:
        ids = np.asarray(feeds["x"])
        model.calls.append(len(ids))
        if 700 in ids:
            raise MemoryLimitError("no") if len(ids) > 1 else ModelCallError("no", code="oom")
        return {"y": -ids}

    model.run = run  # type: ignore[method-assign]
    kept, codes, _ = score(model, 1024, headroom=headroom)
    assert (len(kept), codes) == (1023, {700: "oom"})
    assert len(model.calls) <= 1 + 2 * 10
    assert headroom.limits == {}


def test_a_model_of_a_fixed_batch_cannot_be_fed_less(score: Score) -> None:
    model = Model(most=4)
    with pytest.raises(MemoryLimitError) as caught:
        score(model, 8, fixed_rows=8)
    assert (caught.value.facts["rows"], model.calls) == (8, [8])


# In place


class PlacedModel(Model):
    """Answers with a digest of all that it was fed: what stands beside a row, and where, shows in its answer.

    crash: the number of the call, from 0, that ends its process although no row is to blame.
    """

    def __init__(self, rows: int, bad: tuple[set[int], set[int], set[int], set[int]], crash: int | None = None) -> None:
        super().__init__(bad[0], bad[1])
        self.untellable, self.nan = bad[2], bad[3]
        self.rows, self.crash = rows, crash
        self.fed: list[list[int]] = []

    def run(self, feeds: Feeds) -> Outputs:
        ids = np.asarray(feeds["x"])
        self.fed.append(ids.tolist())
        assert len(ids) == self.rows, "every call has as many rows"
        if len(set(ids.tolist())) > 1 and len(self.fed) - 1 == self.crash:
            raise ModelCallError("killed by chance", code="process_abort")
        return super().run(feeds) | {"seen": np.full(len(ids), zlib.crc32(ids.tobytes()))}

    def fetch(self, batch: pa.RecordBatch, outputs: Outputs) -> pa.RecordBatch:
        return super().fetch(batch, outputs).append_column("seen", pa.array(np.asarray(outputs["seen"])))


def placed(model: PlacedModel) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
    """What comes out of a batch, and the places and codes of its bad rows."""
    rejects = Rejects(SCHEMA, ["id"], REJECT, 10**6)
    bisect = Bisection(
        model.steps(), rejects, Headroom(model.rows), nan_rejected=True, fixed_rows=model.rows, in_place=True
    )
    schema = SCHEMA.append(pa.field("seen", pa.int64()))
    answers, _ = bisect.whole(Where("f", 0), batch_of(model.rows), schema)
    losses = rejects.losses()
    table = pa.Table.from_batches(losses.batches, losses.schema)
    return answers, list(zip(table["row"].to_pylist(), table["code"].to_pylist(), strict=True))


@st.composite
def bad_rows(draw: st.DrawFn) -> tuple[int, tuple[set[int], set[int], set[int], set[int]]]:
    rows = draw(st.integers(1, 60))
    kinds = draw(st.lists(st.sampled_from([*[None] * 6, 0, 1, 2, 3]), min_size=rows, max_size=rows))
    return rows, tuple({row for row in range(rows) if kinds[row] == kind} for kind in range(4))  # type: ignore[return-value]


@UNTIMED
@given(bad_rows(), st.none() | st.integers(0, 8))
def test_rows_that_keep_their_places_are_answered_by_one_call_whatever_failed_before(
    case: tuple[int, tuple[set[int], set[int], set[int], set[int]]], crash: int | None
) -> None:
    rows, bad = case
    model = PlacedModel(rows, bad)
    answers, rejected = placed(model)
    fed = [row for row in range(rows) if row not in bad[0] | bad[1] | bad[2]]
    assert answers.column("id").to_pylist() == [row for row in fed if row not in bad[3]]
    codes = ("MODEL_ROW", "ROW_SHAPE", "ROW_UTF8", "MODEL_NAN")
    assert rejected == sorted((row, code) for kind, code in zip(bad, codes, strict=True) for row in kind)
    if not len(answers):
        return
    call = [row if row in fed else fed[0] for row in range(rows)]
    assert set(answers.column("seen").to_pylist()) == {zlib.crc32(np.array(call).tobytes())}
    try:
        again, rejected_again = placed(PlacedModel(rows, bad, crash))
    except ModelCallError as error:
        if "not together" not in error.message:
            raise
        return  # the process did not survive the last call: the shard is tried again
    assert (again, rejected_again) == (answers, rejected)


def test_a_row_that_stands_in_for_others_is_counted_once() -> None:
    model, rejects = PlacedModel(4, ({1, 2}, set(), set(), {0})), Rejects(SCHEMA, ["id"], REJECT, 10**6)
    bisect = Bisection(model.steps(), rejects, Headroom(4), fixed_rows=4, in_place=True)
    answers, _ = bisect.whole(Where("f", 0), batch_of(4), SCHEMA.append(pa.field("seen", pa.int64())))
    assert (model.fed[-1], answers.column("id").to_pylist(), rejects.nan_rows) == ([0, 0, 0, 3], [0, 3], 1)


def test_a_batch_that_keeps_its_size_and_does_not_fit_names_the_key_to_lower(score: Score) -> None:
    model = Model(most=4)
    with pytest.raises(MemoryLimitError, match=r"every call has 8 rows.*lower `limits.batch_rows`") as caught:
        score(model, 8, fixed_rows=8, in_place=True)
    assert (caught.value.facts["rows"], model.calls) == (8, [8])


# Sizes


NESTED = pa.array([[["a", "bcd"], []], None, [["", "é"]]], pa.list_(pa.list_(pa.string())))


@pytest.mark.parametrize(
    ("values", "sizes"),
    [
        (pa.array(["a", None, "é" * 3]), [1, 0, 6]),
        (pa.array([[1.0, 2.0], [], None], pa.list_(pa.float32())), [8, 0, 0]),
        (NESTED, [4, 0, 2]),
        (NESTED.slice(2), [2]),
        (pa.array([[1, 2]], pa.list_(pa.int16(), 2)), [4]),
        (pa.array([{"a": 1, "b": "xyz"}], pa.struct([("a", pa.int32()), ("b", pa.string())])), [7]),
        (pa.array([True]), [1]),
    ],
)
def test_the_bytes_of_a_row_are_those_of_what_it_holds(values: pa.Array, sizes: list[int]) -> None:
    assert row_bytes(values).tolist() == sizes


def test_rows_beyond_max_row_bytes_are_told_with_their_size() -> None:
    batch = pa.record_batch({"text": ["x" * 10, "y" * 3000, "z"], "n": pa.array([1, 2, 3], pa.int64())})
    with pytest.raises(RowError) as caught:
        wide_rows(batch, 100)
    assert (caught.value.facts["code"], caught.value.at.tolist()) == ("ROW_TOO_BIG", [1])
    assert caught.value.stories == ["the row has 3,008 bytes; `limits.max_row_bytes` allows 100"]
    wide_rows(batch, 3008)


def test_a_number_of_rows_that_the_model_refuses_is_learned_once(score: Score) -> None:
    model, headroom = Model(), Headroom(256)
    model.takes = 8
    for _ in range(2):
        model.calls.clear()
        kept, codes, _ = score(model, 256, headroom=headroom)
        assert (kept, codes) == (list(range(256)), {})
    assert headroom.most_rows == 8
    refused = [rows for rows in model.calls if rows > 8]
    assert refused == [9], "a little more is tried once, and never again"
    model.calls.clear()
    score(model, 256, headroom=headroom)
    assert model.calls == [8] * 32
    elsewhere = Headroom(256)
    elsewhere.learn(headroom.limits)
    assert elsewhere.most_rows == 8


def test_a_bad_row_teaches_nothing_of_numbers(score: Score) -> None:
    headroom = Headroom(256)
    assert score(Model(poison={3, 77}), 256, headroom=headroom)[1].keys() == {3, 77}
    assert headroom.most_rows is None


def test_bad_rows_do_not_hide_that_a_number_is_refused(score: Score) -> None:
    model, headroom = Model(poison={3}), Headroom(256)
    model.takes = 8
    for _ in range(2):
        kept, codes, _ = score(model, 256, headroom=headroom)
        assert (len(kept), codes) == (255, {3: "MODEL_ROW"})
    assert headroom.most_rows == 8


def test_rows_that_do_not_go_together_are_no_number_that_is_refused(score: Score) -> None:
    class Quarrel(Model):
        def run(self, feeds: Feeds) -> Outputs:
            if {3, 77} <= set(np.asarray(feeds["x"]).tolist()) and len(np.asarray(feeds["x"])) < 256:
                raise ModelCallError("not both", code="INVALID_ARGUMENT")
            return super().run(feeds)

    model, headroom = Quarrel(), Headroom(256)
    score(model, 256, headroom=headroom)
    kept, codes, _ = score(model, 100, headroom=headroom)
    assert (len(kept), codes, headroom.most_rows) == (100, {}, None)


# A model that is at fault itself


class Doubt(Standing):
    """Counts how often rows of other places were asked for."""

    def __init__(self, others: list[RunnerError] | None) -> None:
        super().__init__("signature 's' of model 'm'", self._asked, model="m", signature="s")
        self.asked, self._others = 0, others

    def _asked(self) -> list[RunnerError] | None:
        self.asked += 1
        return self._others


REFUSED: list[RunnerError] = [ModelCallError("no such word", code="INVALID_ARGUMENT")]


@pytest.mark.parametrize("limits", [REJECT, Limits()], ids=["reject", "fail"])
@pytest.mark.parametrize("others", [[], REFUSED * 8], ids=["alone", "with others"])
@pytest.mark.parametrize("options", [{}, {"in_place": True}], ids=["apart", "in place"])
def test_a_model_that_refuses_rows_from_all_over_a_batch_in_the_same_words_is_accused_after_a_few_calls(
    score: Score, limits: Limits, others: list[RunnerError], options: Any
) -> None:
    model, doubt = Model(range(20_000)), Doubt(others)
    with pytest.raises(PoisonError, match=r"signature 's' of .* not the rows: no such word; call it") as caught:
        score(model, 20_000, limits, standing=doubt, **options)
    assert len(model.calls) == 1 + PROBED
    tried = {"code": "MODEL_FAULT", "status": "INVALID_ARGUMENT", "rows": PROBED + len(others)}
    assert caught.value.facts == tried | {"model": "m", "signature": "s"}
    assert (caught.value.exit_code, caught.value.retry) == (70, False)


@pytest.mark.parametrize(
    ("words", "others", "asked"),
    [
        ("no such word", None, 1),  # a row of another place was taken
        ("no such word", [ModelCallError("another", code="INVALID_ARGUMENT")], 1),
        ("no such word: {}", REFUSED, 0),  # it has read what it was given
        ("at {:#x}", None, 1),  # where in memory says nothing
    ],
)
def test_rows_are_at_fault_where_something_speaks_for_the_model(
    score: Score, words: str, others: list[RunnerError] | None, asked: int
) -> None:
    model, doubt = Model(range(100)), Doubt(others)
    model.words = words
    kept, codes, _ = score(model, 100, standing=doubt)
    assert (kept, codes, doubt.asked) == ([], dict.fromkeys(range(100), "MODEL_ROW"), asked)


def test_a_model_that_took_a_row_is_never_accused(score: Score) -> None:
    model, doubt = Model({0, 99, *range(200, 300)}), Doubt(REFUSED)
    assert len(score(model, 100, standing=doubt)[0]) == 98
    assert (doubt.doubted, doubt.asked) == (False, 0)
    model.poison = set(range(300))
    assert len(score(model, 300, standing=doubt)[1]) == 300


def test_two_rows_that_are_refused_say_nothing_against_the_model(score: Score) -> None:
    doubt = Doubt(REFUSED * 2)
    assert score(Model({0, 1}), 2, standing=doubt)[1] == dict.fromkeys(range(2), "MODEL_ROW")
    assert score(Model({0}), 1, standing=doubt)[1] == {0: "MODEL_ROW"}
    assert doubt.doubted
    with pytest.raises(PoisonError, match="every row that was tried, 9 rows"):
        score(Model({0}), 1, standing=Doubt(REFUSED * 8))


def test_a_few_bad_rows_of_a_model_in_doubt_cost_no_more_than_the_rows_that_are_tried_first(score: Score) -> None:
    model = Model({1000})
    assert len(score(model, 4096, standing=Doubt(REFUSED))[0]) == 4095
    assert len(model.calls) <= 1 + 2 * 12 + PROBED


def test_what_a_process_did_not_survive_is_no_word_of_the_model(score: Score) -> None:
    model, doubt = Model(range(4)), Doubt(REFUSED)
    model.code = "process_abort"
    assert score(model, 4, standing=doubt)[1] == dict.fromkeys(range(4), "process_abort")
