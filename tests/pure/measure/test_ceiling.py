"""What holds a run, and how near it came to its ceilings: made-up situations, each with one right answer."""

from __future__ import annotations

import re

import pytest

from runner.measure.ceiling import Settings, Use, bottleneck, ceilings, together, waits


def use(busy_s: float = 10.0, **changes: object) -> tuple[Use, float]:
    """A worker of 4 cores that did 1 M rows in 10 s; what is not given took no time."""
    facts = {
        "rows": 1_000_000,
        "shards": 10,
        "bytes": 10 * 2**30,
        "cpu_s": 8.0,  # of 40
        "cpus": 4.0,
        "batch_rows": 4096,
        "ceiling": 1_000_000.0,
    }
    return Use(**(facts | changes)), busy_s  # type: ignore[arg-type]


def sentence(seconds: dict[str, float], settings: Settings | None = None, **changes: object) -> tuple[str, str, str]:
    worker, busy_s = use(seconds=seconds, **changes)
    found = bottleneck(worker, ceilings(worker, busy_s), settings or Settings(readers=2))
    return found.culprit, found.sentence, found.suggestion


def test_a_slow_store_is_named_and_more_readers_suggested() -> None:
    culprit, story, advice = sentence({"wait_read": 8.0, "run": 1.5, "read": 15.0, "decode": 1.0, "feed": 0.5})
    assert culprit == "source"
    assert story == "the source is the bottleneck: the model waits 80% of the time, mostly for bytes to arrive"
    assert "'workers: {readers: 4}' instead of 2" in advice


def test_slow_decoding_is_named_and_more_readers_suggested_while_there_are_cores_for_them() -> None:
    seconds = {"wait_read": 8.0, "run": 2.0, "read": 0.2, "decode": 9.0}
    culprit, story, advice = sentence(seconds)
    assert (culprit, "to be decoded" in story, "{readers: 4}" in advice) == ("source", True, True)
    _, _, advice = sentence(seconds, Settings(readers=4))
    assert "more cores" in advice


def test_a_slow_model_is_named_with_its_share_of_what_it_reaches_alone() -> None:
    culprit, story, advice = sentence({"run": 9.5, "wait_read": 0.3, "feed": 0.2}, ceiling=110_000.0)
    assert culprit == "model"
    assert story == ("the model is the bottleneck: it takes 95% of the workers' time, at 91% of what it reaches alone")
    assert "more cores" in advice


def test_a_model_that_is_compiled_for_each_value_is_told_from_one_that_is_slow() -> None:
    compiled = {"compilations": 125, "compiled_shapes": 1, "compile_s": 8.5}
    seconds = {"compile": 8.5, "run": 1.0, "wait_read": 0.5}
    culprit, story, advice = sentence(seconds, ceiling=1_100_000.0, **compiled)
    assert culprit == "compile"
    assert story == "compiling is the bottleneck: it takes 85% of the workers' time, because values decide shapes"
    assert advice == "run it without 'model: {xla: true}'; `runner plan` names the inputs"
    slow = {"compile": 1.0, "run": 8.5, "wait_read": 0.5}
    assert "the model is the bottleneck" in sentence(slow, ceiling=130_000.0, **compiled)[1]


@pytest.mark.parametrize(
    ("compiled", "story", "advice"),
    [
        ({"compilations": 1, "compiled_shapes": 1}, ", once in each worker", "use fewer workers"),
        ({"compilations": 40, "compiled_shapes": 40}, ", for 40 shapes", "give the rows fewer shapes"),
        ({"compilations": 40, "compiled_shapes": 40, "pad_places": 9}, ", for 40 shapes", "pad to fewer widths"),
    ],
)
def test_what_compiles_is_said_with_what_would_compile_less(compiled: dict[str, int], story: str, advice: str) -> None:
    culprit, found, suggested = sentence({"compile": 6.0, "run": 4.0}, ceiling=1e6, compile_s=6.0, **compiled)
    assert (culprit, found) == ("compile", f"compiling is the bottleneck: it takes 60% of the workers' time{story}")
    assert suggested.startswith(advice)


@pytest.mark.parametrize("compile_s", [2.0, 40.0])
@pytest.mark.parametrize("compilations", [1, 40])
def test_nobody_else_is_blamed_for_the_time_that_compiling_takes(compile_s: float, compilations: int) -> None:
    """The model ran at its own pace all the time that it ran."""
    for waited in (0.0, 3.0):
        seconds = {"compile": compile_s, "run": 1.0, "wait_read": waited}
        compiled = {"compilations": compilations, "compiled_shapes": compilations, "compile_s": compile_s}
        said = sentence(seconds, ceiling=1e6, **compiled)
        assert not re.search(r"others|own pace|else runs|share", " ".join(said)), said


def test_nobody_else_is_blamed_for_rows_that_fill_batches_up() -> None:
    seconds = {"run": 9.5}
    assert "others take its cores" in sentence(seconds, ceiling=1_000_000.0)[1]
    assert "others take its cores" not in sentence(seconds, ceiling=1_000_000.0, filled_rows=9_000_000)[1]


def test_what_compiled_before_the_first_row_is_in_the_stage_and_holds_no_run() -> None:
    worker, busy_s = use(seconds={"run": 9.5}, ceiling=110_000.0, compilations=1, compiled_shapes=1, compile_s=3.0)
    assert worker.stages == {"run": 9.5, "compile": 3.0}
    assert bottleneck(worker, ceilings(worker, busy_s), Settings()).culprit == "model"
    assert use(seconds={"run": 9.5})[0].stages == {"run": 9.5}, "what never compiles has no such stage"


def test_a_model_that_is_fed_crumbs_is_said_to_like_larger_batches() -> None:
    seconds = {"run": 9.5, "wait_read": 0.5}
    assert "batch_rows: auto" in sentence(seconds, Settings(batch_rows=8), ceiling=110_000.0)[2]
    assert "batch_rows" not in sentence(seconds, Settings(batch_rows=8192), ceiling=110_000.0)[2]


def test_a_slow_encoder_is_named_and_another_compression_suggested() -> None:
    seconds = {"wait_write": 7.0, "run": 3.0, "encode": 9.5, "publish": 0.5}
    culprit, story, advice = sentence(seconds, Settings(compression="gzip"))
    assert (culprit, "to be encoded" in story) == ("sink", True)
    assert "compression: lz4}' instead of gzip" in advice
    assert "compression" not in sentence(seconds, Settings(compression="none"))[2]


def test_a_slow_store_of_the_output_is_named_although_nobody_waits_for_it_inside_an_attempt() -> None:
    seconds = {"idle": 8.0, "run": 2.0, "encode": 0.5, "publish": 9.0}
    culprit, story, advice = sentence(seconds, Settings(compression="lz4"))
    assert (culprit, "to be published" in story) == ("sink", True)
    assert "zstd" in advice
    assert "shard_bytes" in sentence(seconds, bytes=1000)[2], "small parts: it is their number"


def test_workers_without_work_are_not_blamed_on_the_sink() -> None:
    culprit, _, advice = sentence({"idle": 8.0, "run": 2.0, "publish": 0.1})
    assert culprit == "work"
    assert "shard_bytes" in advice


def test_pictures_are_the_bottleneck_where_decoding_them_takes_most() -> None:
    culprit, story, advice = sentence({"pictures": 6.0, "feed": 1.0, "run": 3.0})
    assert (culprit, story) == ("pictures", "decoding pictures is the bottleneck: it takes 60% of the workers' time")
    assert "'workers: {cpus: ...}'" in advice


def test_costly_copies_are_named() -> None:
    assert sentence({"feed": 6.0, "fetch": 1.0, "run": 3.0})[0] == "copies"


def test_busy_cores_are_named_before_whoever_waits_for_them() -> None:
    seconds = {"wait_read": 5.0, "run": 4.0, "decode": 30.0, "feed": 1.0}
    culprit, story, _ = sentence(seconds, cpu_s=38.0)
    assert culprit == "cores"
    assert "all 4 are busy (95% of what they can do), most of all with 'decode'" in story
    # A model that takes nearly all of the time is the better name for it.
    assert sentence({"run": 9.9, "wait_read": 0.1}, cpu_s=39.0, ceiling=110_000.0)[0] == "model"


def test_a_model_whose_cores_are_taken_by_others_is_not_blamed() -> None:
    culprit, story, advice = sentence({"run": 6.0, "wait_read": 4.0}, ceiling=1_000_000.0)
    assert culprit == "cores"
    assert "the model runs at 17% of its own pace" in story
    assert "what else runs" in advice


def test_a_run_without_any_work_tells_nothing() -> None:
    assert bottleneck(Use(), ceilings(Use(), 0.0), Settings()).culprit == "start"


def test_the_ceilings_are_what_the_model_and_the_cores_reach() -> None:
    worker, busy_s = use()
    reached = ceilings(worker, busy_s)
    assert reached.rows_per_s == 100_000
    assert (reached.compute, reached.of_compute) == (1_000_000, 0.1)
    assert (reached.machine, reached.of_machine) == (500_000, 0.2)


def test_no_share_of_a_ceiling_exceeds_the_whole() -> None:
    worker, busy_s = use(ceiling=50_000.0, cpu_s=400.0)  # measured in a bad moment
    reached = ceilings(worker, busy_s)
    assert (reached.of_compute, reached.of_machine) == (1.0, 1.0)
    assert ceilings(use(ceiling=0.0)[0], 10.0).of_compute == 0.0, "not measured is not reached"


def test_workers_add_up() -> None:
    one, _ = use(seconds={"run": 1.0, "idle": 0.5}, rss_bytes=10)
    other, _ = use(seconds={"run": 2.0}, rss_bytes=30, rows=500_000)
    both = together([one, other])
    assert (both.rows, both.cpus, both.ceiling, both.rss_bytes) == (1_500_000, 8.0, 2_000_000.0, 30)
    assert both.workers == 2
    assert (both.seconds["run"], both.seconds["idle"]) == (3.0, 0.5)
    assert together([]).rows == 0


def test_two_calls_in_flight_count_once() -> None:
    worker, _ = use(seconds={"run": 8.0, "feed": 2.0, "wait_read": 1.0}, calls=2)
    assert worker.shares["model"] == 4.0
    assert worker.shares["copies"] == 1.0
    assert waits(worker) == {"source": 1.0, "sink": 0.0, "work": pytest.approx(0.0)}


def test_a_model_that_takes_few_rows_a_call_is_not_told_to_take_more() -> None:
    for settings in (Settings(), Settings(batch_rows=256)):
        culprit, story, advice = sentence({"run": 9.0, "wait_read": 1.0}, settings, ceiling=1_000_000.0, most_rows=8)
        assert (culprit, "the model is the bottleneck" in story) == ("model", True)
        assert advice.startswith("it takes at most 8 rows a call: export it without")
        assert "batch_rows" not in advice
