"""The page of a run: well-formed, complete, escaped, and without anything to fetch."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from jobs.attempt import Failure, Measured, Receipt, Success
from jobs.errors import WorkerError
from jobs.job import Job
from jobs.numerics import Numerics
from jobs.schedule.event import AttemptFailed, AttemptSucceeded
from runner.measure.account import Heading, account
from runner.measure.history import History, Span
from runner.measure.place import Place
from runner.report.chart import clock, curve, rates, short, stacked, timeline
from runner.report.page import page

EVIL = "<script>alert('x')</script>&\"'"
HEAD = Heading(
    plan_id="3f9c1a7e" + "0" * 24,
    epoch=1,
    output=f"/out/{EVIL}",
    model=EVIL,
    signature=EVIL,
    ended_at="2026-11-25T12:00:00+00:00",
    ending="finished",
    rows=2000,
    rows_run=1500,
    rows_before=500,
    shards=20,
    shards_done=20,
    seconds=12.5,
    retries=1,
)
KINDS = {"w1": Numerics("2.21.0", True, cpu=EVIL), "w2": Numerics("2.21.0", False, cpu=EVIL)}
JOB = Job.model_validate({"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}})


def told(shards: int = 20) -> History:
    """Two workers take turns; shard 3 fails once."""
    history = History()
    for shard in range(shards):
        worker, began = f"w{shard % 2 + 1}", float(shard // 2)
        history.dispatched(began, worker, f"a{shard}", shard, 1)
        if shard == 3:
            history.note(AttemptFailed(began + 0.5, worker, Failure(3, "a3", 1, worker, WorkerError(EVIL))))
            history.dispatched(began + 0.5, worker, "b3", 3, 2)
        seconds = {"run": 0.6, "wait_read": 0.3, "publish": 0.1, "decode": 0.4, "encode": 0.1}
        figures = {"cpus": 2, "batch_rows": 64, "ceiling_rows_per_s": 150.0, "cpu_s": 1.0, "rss_bytes": 2**28}
        attempt, number = ("b3", 2) if shard == 3 else (f"a{shard}", 1)
        receipt = Receipt(shard, attempt, number, 1, "p", 9, "", 75, 75, worker=worker, numerics=KINDS[worker])
        done = Success(receipt, Measured(seconds, figures))
        history.note(AttemptSucceeded(began + 1.0, worker, done))
    return history


def rendered(history: History, **head: Any) -> str:
    places = {"w1": Place(node=EVIL, pid=7)}
    failures = [Failure(3, "a3", 1, "w2", WorkerError(EVIL))]
    return page(dataclasses.replace(HEAD, **head), account(JOB, history, places), history, failures)


class Strict(HTMLParser):
    """Every element is closed in order; keeps tags, attributes and text."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Strict:
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_a_page_is_well_formed_and_tells_everything_once() -> None:
    found = parsed(rendered(told()))
    assert found.tags.count("svg") >= 3
    assert found.attributes.count(("class", "published")) == 19 + 1  # bars, and the legend
    assert found.attributes.count(("class", "retried")) == 1 + 1
    assert found.attributes.count(("class", "failed")) == 1 + 1
    for word in ("1,500", "Workers over time", "Rows per second", "256.0 MiB", "peak memory", "wait_read"):
        assert word in found.text


def test_a_page_tells_what_changes_numbers_and_in_what_workers_differ() -> None:
    found = parsed(rendered(told()))
    assert "Workers differ in onednn: on (w1), off (w2)." in found.text
    assert "tensorflow2.21.0w1, w2" in found.text
    assert "What changes numbers" not in rendered(History())


def test_a_page_tells_of_inputs_that_nothing_in_the_output_shows() -> None:
    found = parsed(rendered(told(), nonfinite_rows=4, unseen_rows=3))
    assert "NaN or infinity in 4 of the rows written; the outputs of 3 of them are finite" in found.text
    assert "NaN or infinity" not in rendered(told())


def test_text_from_outside_stays_text() -> None:
    text = rendered(told(), ending=EVIL)
    found = parsed(text)
    assert "script" not in found.tags
    assert found.text.count(EVIL) >= 6
    assert not any(name.startswith("on") for name, _ in found.attributes)


def test_a_page_fetches_nothing() -> None:
    found = parsed(rendered(told()))
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not [value for name, value in found.attributes if name in ("src", "href", "xlink:href")]
    assert "url(" not in rendered(told())


def test_a_run_that_did_nothing_has_a_page_too() -> None:
    found = parsed(rendered(History(), ending="the model is gone", shards_done=0, rows_run=0))
    assert "not finished" in found.text
    assert "the model is gone" in found.text
    assert "too short" in found.text


def test_a_million_attempts_make_a_page_of_a_reasonable_size() -> None:
    spans = [Span(f"w{n % 8}", n, 1, n / 8, n / 8 + 0.9, n / 8 + 1, 10, "published") for n in range(50_000)]
    drawn = timeline(spans, 50_000 / 8 + 1)
    assert len(drawn) < 1_500_000
    assert drawn.count("<g>") <= 3100


def test_the_rates_add_up_to_the_rows() -> None:
    spans = [Span("w1", 0, 1, 0.0, 2.5, 3.0, 1000, "published"), Span("w1", 1, 1, 2.5, 2.5, 2.6, 50, "published")]
    values = rates(spans, 10.0, bins=40)
    assert sum(values) * 10 / 40 == pytest.approx(1050)
    assert values[20] == 0.0
    assert rates([], 0.0, bins=3) == [0.0, 0.0, 0.0]


def test_charts_of_nothing_are_charts() -> None:
    for drawn in (timeline([], 0.0), curve([], 0.0, {}), stacked({}), stacked({"w1": {"run": 0.0}})):
        parsed(drawn)


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0.4 s"), (12, "12 s"), (200, "3:20"), (7500, "2:05:00")])
def test_times_on_an_axis_read_well(seconds: float, words: str) -> None:
    assert clock(seconds) == words


@pytest.mark.parametrize(("value", "words"), [(950, "950"), (12_500, "12.5 k"), (3.1e6, "3.1 M"), (0, "0")])
def test_numbers_on_an_axis_read_well(value: float, words: str) -> None:
    assert short(value) == words


CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(rendered(told()))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "report.html").as_uri()], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert "Workers over time" in done.stdout
    assert "Content Security Policy" not in done.stderr, "nothing on the page is refused by its own policy"
