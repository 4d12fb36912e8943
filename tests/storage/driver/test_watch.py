"""Following a run from its output alone: progress, rate, who writes, and how it ended."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from three_shards import PLAN, finish_all, killed, opened, work

import runner
from connectors.output.directory import OutputDirectory, read_status
from jobs.attempt import Failure, Success
from jobs.errors import OutputError, RunnerError, StorageError
from jobs.section.output import Output
from runner.cli.view.follow import follow
from runner.driver.watch import Watch

COMMAND = "runner run job.yaml"


@pytest.fixture
def out(tmp_path: Path) -> Output:
    return Output(url=str(tmp_path / "out"))


def watch_of(out: Output, steps: list[Callable[[], object]]) -> Watch:
    """A watch for which ten seconds pass between two looks, in which the next of `steps` happens."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += 10
        steps.pop(0)()

    return Watch(out, clock=lambda: now[0], sleep=sleep)


def begun(out: Output) -> OutputDirectory:
    directory = opened(out)
    claim = directory.claim(PLAN)
    directory.renew(claim.epoch, {"command": COMMAND, "rows_per_s": 7.0, "waits_for": "no room yet for 1 x (1 CPU)"})
    return directory


def publish(directory: OutputDirectory, shard: int, failures: int = 0) -> None:
    receipt = work(directory, shard)
    tries = [Failure(shard, f"e1-a{n}-0", n, "w1", StorageError("slow")) for n in range(failures)]
    directory.record(Success(receipt), tries)


def test_nobody_waits_for_ever_for_a_run_that_was_never_begun(out: Output) -> None:
    nothing: list[Callable[[], object]] = [lambda: None] * 100
    with pytest.raises(OutputError, match=r"nothing was written there within 60 s; .* wait longer .* `begin_s`"):
        watch_of(out, [*nothing]).wait()
    with pytest.raises(OutputError, match="within 5 s"):
        watch_of(out, [*nothing]).wait(begin_s=5)
    with pytest.raises(TimeoutError, match="no run has begun after 20 s: nothing is written"):
        watch_of(out, [*nothing]).wait(timeout_s=20)
    assert watch_of(out, [*nothing[:4], lambda: finish_all(opened(out))]).wait().state == "finished"


def test_it_waits_for_the_first_driver_and_sees_the_end(out: Output) -> None:
    def finish() -> None:
        directory = opened(out)
        finish_all(directory)

    watch = watch_of(out, [lambda: None, finish])
    assert watch.line == f"nothing is written in {out.url} yet"
    assert [status.state for status in watch] == ["absent", "absent", "finished"]
    assert watch.end.startswith("finished: 15 rows in 3 parts")


def test_the_rate_is_what_was_seen_and_the_drivers_word_before(out: Output) -> None:
    directory = begun(out)
    watch = watch_of(out, [lambda: publish(directory, 0), lambda: publish(directory, 1, failures=2)])
    assert (watch.rows_per_s, watch.eta_s) == (7.0, None), "it waits for room"
    looks = iter(watch)
    next(looks)
    next(looks)
    assert (watch.rows_per_s, watch.eta_s) == (0.4, 11 / 0.4)
    next(looks)
    assert watch.rows_per_s == 9 / 20
    for fact in (
        "9 of 15 rows",
        "60%",
        "ETA 13.3 s",
        "shards 2 of 3",
        "2 retried",
        "no room yet for 1 x",
        "driver 1 on",
    ):
        assert fact in watch.line


def test_rows_within_a_shard_are_seen_until_it_is_done_or_its_driver_is_gone(out: Output) -> None:
    directory = begun(out)
    publish(directory, 0)

    def say(rows: dict[int, int]) -> None:
        directory.renew(1, {"rows_in_hand": rows})

    watch = watch_of(out, [lambda: say({1: 2, 2: 3}), lambda: publish(directory, 1), lambda: killed(directory)])
    seen = [(status.state, status.rows_done, status.rows_in_hand, status.share) for status in watch]
    assert seen == [
        ("running", 4, 0, 4 / 15),
        ("running", 4, 5, 9 / 15),
        ("running", 9, 3, 12 / 15),
        ("stopped", 9, 0, 9 / 15),
    ]
    assert "9 of 15 rows" in watch.line
    watch = Watch(out)
    say({2: 700})
    assert read_status(out).rows_seen == 15, "never more than there are"


def test_the_rate_counts_rows_within_a_shard(out: Output) -> None:
    directory = begun(out)
    watch = watch_of(out, [lambda: directory.renew(1, {"rows_in_hand": {2: 5}})])
    looks = iter(watch)
    next(looks)
    next(looks)
    assert (watch.rows_per_s, watch.eta_s) == (0.5, 20.0)
    assert watch.line.startswith("5 of 15 rows · 33% · ")


def test_no_receipt_is_read_twice(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    from connectors.store.store import Store

    directory = begun(out)
    publish(directory, 0)
    read: list[str] = []
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, path: (read.append(path), original(self, path))[1])
    watch = Watch(out)
    publish(directory, 1)
    watch.look()
    watch.look()
    receipts = [path for path in read if "/receipts/" in path]
    assert len(receipts) == len(set(receipts)) == 2


def test_a_driver_that_was_lost_is_told_with_the_command_that_continues(out: Output) -> None:
    directory = begun(out)
    publish(directory, 0)
    watch = watch_of(out, [lambda: killed(directory)])
    with pytest.raises(RunnerError, match=rf"was lost, last heard .*4 of 15 rows.*to continue: {COMMAND}"):
        watch.wait()


def test_a_driver_that_ended_without_success_says_how(out: Output) -> None:
    directory = begun(out)
    directory.end(1, "interrupted")
    stream = io.StringIO()
    assert follow(Watch(out), stream) == 4
    assert "ended: interrupted; 0 of 15 rows are written; to continue: runner run job.yaml" in stream.getvalue()


def test_a_log_of_a_watch_is_a_line_every_ten_seconds_and_the_end(out: Output) -> None:
    directory = begun(out)
    steps = [lambda: publish(directory, 0), lambda: finish_all(killed(directory))]
    stream = io.StringIO()
    assert follow(watch_of(out, steps), stream) == 0
    assert [line.split(" · ")[0] for line in stream.getvalue().splitlines()[:3]] == [
        "0 of 15 rows",
        "4 of 15 rows",
        "15 of 15 rows",
    ]
    assert stream.getvalue().splitlines()[-1].startswith("finished: 15 rows")


def test_a_watch_in_json_is_a_status_a_line(out: Output) -> None:
    finish_all(opened(out))
    stream = io.StringIO()
    assert follow(Watch(out), stream, as_json=True) == 0
    assert json.loads(stream.getvalue())["state"] == "finished"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_run_is_followed_no_longer_than_it_is_read(out: Output, as_json: bool) -> None:
    directory = begun(out)
    stream = io.StringIO()
    watch = watch_of(out, [lambda: publish(directory, 0), lambda: finish_all(killed(directory))])
    assert follow(watch, stream, as_json, lambda: len(stream.getvalue().splitlines()) >= 1) == 141
    assert len(stream.getvalue().splitlines()) == 1
    assert not watch.ended


def test_waiting_has_a_bound_of_its_own(out: Output) -> None:
    begun(out)
    with pytest.raises(TimeoutError, match="still runs after 15 s: 0 of 15 rows"):
        watch_of(out, [lambda: None] * 5).wait(timeout_s=15)


def test_attach_shows_itself_in_a_notebook_with_everything_escaped(tmp_path: Path) -> None:
    out = Output(url=str(tmp_path / "<b>out"))
    finish_all(opened(out))
    shown = runner.attach(out.url)
    assert "finished: 15 rows" in shown._repr_html_()
    assert "&lt;b&gt;out" in shown._repr_html_()
    assert "<b>out" not in shown._repr_html_()
