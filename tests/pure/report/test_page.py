"""The page of a run: well-formed, complete, escaped, and without anything to fetch."""

from __future__ import annotations

import dataclasses
import re
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
from jobs.schedule.event import AttemptFailed, AttemptSucceeded, WorkerReady
from runner.measure.account import Heading, account
from runner.measure.course import Course
from runner.measure.history import History, Span
from runner.measure.place import Place
from runner.measure.subject import Earlier, Subject
from runner.report.chart import Axis, clock, curve, rates, short, stacked, steps, timeline
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
    for worker in ("w1", "w2"):
        history.starting(-3.0, worker)
        history.note(WorkerReady(-1.0, worker))
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


SUBJECT = Subject(
    files=2,
    row_groups=4,
    bytes=2048,
    inputs=[f"/in/{EVIL}"],
    columns=[{"role": "input", "tensor": EVIL, "column": "image"}, {"role": "kept", "tensor": "", "column": "id"}],
    rows_rejected=3,
    codes={"ROW_NULL": 2, "ROW_RANGE": 1},
    bad_files={EVIL: "FILE_MAGIC"},
    reject_files="/out/_run/3f9c1a7e/rejects",
    versions={"python": "3.12.1", "runner": "0.1.0", "tensorflow": "2.21.0"},
    host="head",
    pid=4,
)
EARLIER = [
    Earlier(2, "2026-11-25T01:00:00+00:00", "2026-11-25T01:05:00+00:00", "interrupted", 500, "000002.html"),
    Earlier(1, "2026-11-24T01:00:00+00:00", "2026-11-24T01:05:00+00:00", "lost", None, ""),
]


def rendered(history: History, latest: bool = True, course: Course | None = None, **head: Any) -> str:
    places = {"w1": Place(node=EVIL, pid=7)}
    failures = [Failure(3, "a3", 1, "w2", WorkerError(EVIL))]
    made = account(JOB, history, places, course=course)
    return page(dataclasses.replace(HEAD, **head), made, SUBJECT, history, failures, EARLIER, latest)


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
    for word in ("1,500", "The command over time", "Rows per second", "256.0 MiB", "peak memory", "wait_read"):
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
    assert found.text.count(EVIL) >= 9
    assert not any(name.startswith("on") for name, _ in found.attributes)


def test_a_page_fetches_nothing() -> None:
    found = parsed(rendered(told()))
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    links = [value for name, value in found.attributes if name in ("src", "href", "xlink:href")]
    assert links == ["reports/000002.html"], "only what lies beside it, and only when somebody follows it"
    assert "url(" not in rendered(told())


def test_a_run_that_did_nothing_has_a_page_too() -> None:
    found = parsed(rendered(History(), ending="the model is gone", shards_done=0, rows_run=0))
    assert "not finished" in found.text
    assert "the model is gone" in found.text
    assert "Too short" in found.text


def test_a_million_attempts_make_a_page_of_a_reasonable_size() -> None:
    spans = [Span(f"w{n % 8}", n, 1, n / 8, n / 8 + 0.9, n / 8 + 1, 10, "published") for n in range(50_000)]
    drawn = timeline(spans, Axis(0.0, 50_000 / 8 + 1))
    assert len(drawn) < 1_500_000
    assert drawn.count("<g>") <= 3100


def test_the_rates_add_up_to_the_rows() -> None:
    spans = [Span("w1", 0, 1, 0.0, 2.5, 3.0, 1000, "published"), Span("w1", 1, 1, 2.5, 2.5, 2.6, 50, "published")]
    values = rates(spans, Axis(0.0, 10.0), bins=40)
    assert sum(values) * 10 / 40 == pytest.approx(1050)
    assert values[20] == 0.0
    assert sum(rates(spans, Axis(-5.0, 5.0), bins=40)) * 10 / 40 == pytest.approx(1050)
    assert rates([], Axis(0.0, 0.0), bins=3) == [0.0, 0.0, 0.0]


def test_charts_of_nothing_are_charts() -> None:
    for drawn in (
        timeline([], Axis(0.0, 0.0)),
        curve([], Axis(0.0, 0.0), {}),
        stacked({}),
        stacked({"w1": {"run": 0.0}}),
    ):
        parsed(drawn)


@pytest.mark.parametrize("length", [0.003, 0.08, 0.9, 3.7, 8.3, 12.0, 17.0, 55.0, 400.0, 9_000.0, 400_000.0])
@pytest.mark.parametrize("start", [0.0, 1.37, 61.0])
def test_ticks_of_time_are_round_and_few(start: float, length: float) -> None:
    ticks = Axis(start, start + length).ticks()
    assert 2 <= len(ticks) <= 11
    step = ticks[1] - ticks[0]
    digits = f"{step:.0e}"[0] if step <= 0.6 else ""
    assert digits in ("1", "2", "5") or round(step, 6) in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 43200)
    assert all(abs(tick / step - round(tick / step)) < 1e-6 for tick in ticks)


def test_numbers_on_the_axis_of_rates_are_round() -> None:
    assert [steps(value) for value in (0.2, 130, 2_300, 5_100)] == [0.2, 200, 5_000, 10_000]
    drawn = parsed(curve([1234.0, 777.0], Axis(0.0, 2.0), {}))
    assert all(word in drawn.text for word in ("0", "500", "1 k"))


def test_the_course_of_the_command_is_drawn_and_said_first() -> None:
    course = Course(-10.0)
    points = {"connecting": -9.5, "planned": -9.0, "connected": -4.0, "finished": 10.5, "closed": 12.0}
    for point, at in points.items():
        course.mark(point, at)  # type: ignore[arg-type]
    history = told()
    history.start = -10.0
    found = parsed(rendered(history, course=course))
    assert "Of 22.0 s, 1.0 s were the plan, 5.0 s Ray's start, 4.0 s the model's load, 10.0 s the work," in found.text
    for kind in ("p-plan", "p-ray", "p-work", "p-finish", "p-stop"):
        assert found.attributes.count(("class", kind)) == 2, "a bar and its legend"
    assert found.attributes.count(("class", "p-load")) == 1 + 2 + 1, "of the command, and of each worker"


def test_the_numbers_of_shards_stand_on_the_timeline_as_far_as_there_is_room() -> None:
    spans = [Span("w1", n, 1, float(n), n + 0.9, n + 1.0, 10, "published") for n in range(5)]
    assert parsed(timeline(spans, Axis(0.0, 5.0))).attributes.count(("class", "number")) == 5
    crowd = [Span("w1", n, 1, n / 100, n / 100 + 0.009, n / 100 + 0.01, 10, "published") for n in range(1000)]
    assert 20 < parsed(timeline(crowd, Axis(0.0, 10.0))).attributes.count(("class", "number")) < 70


def test_the_lanes_of_workers_stand_in_the_order_of_their_numbers() -> None:
    spans = [Span(worker, n, 1, float(n), n + 0.9, n + 1.0, 10, "published") for n, worker in enumerate(("w2", "w10"))]
    drawn = timeline(spans, Axis(0.0, 5.0), loads={"w2": (0.0, 1.0), "w1": (0.5, 1.0)})
    assert re.findall(r'class="lane"[^>]*>(w\d+)<', drawn) == ["w1", "w2", "w10"]


def test_short_work_is_drawn_apart_from_the_whole_command() -> None:
    course = Course(-100.0)
    course.mark("closed", 12.0)
    history = told()
    history.start = -100.0
    assert "The work, shard by shard" in rendered(history, course=course)
    assert "The work, shard by shard" not in rendered(told())


def test_a_page_names_what_was_set_aside_by_code_and_the_command_that_shows_it() -> None:
    found = parsed(rendered(told()))
    for words in ("Set aside: 3 rows and 1 bad file", "ROW_NULL2", "ROW_RANGE1", "FILE_MAGIC"):
        assert words in found.text
    assert "runner rejects /out/" in found.text
    assert "/out/_run/3f9c1a7e/rejects" in found.text


def test_a_page_names_model_and_output_inputs_mapping_and_versions() -> None:
    found = parsed(rendered(told(), model="s3://models/churn/7", output="s3://out/scores/"))
    assert found.text.lstrip().startswith("churn/7 → scores")
    assert "2,000 rows in 4 row groups of 2 files (2.0 KiB), cut into 20 shards." in found.text
    assert f"/in/{EVIL}" in found.text
    assert "and 1 more file" in found.text
    assert f"input{EVIL}image" in found.text
    assert "versions ofpythonrunnertensorflowprocessor" in found.text
    assert "driver head 43.12.10.1.02.21.0" in found.text


def test_a_page_names_the_runs_before_it_also_one_that_left_no_report() -> None:
    latest, kept = (rendered(told(), latest=latest) for latest in (True, False))
    assert 'href="reports/000002.html"' in latest
    assert ('href="000002.html"' in kept, 'href="../report.html"' in kept) == (True, True)
    found = parsed(latest)
    assert "interrupted500report" in found.text
    assert "lostleft none" in found.text


def test_stages_stand_in_the_order_of_time_and_short_ones_in_milliseconds() -> None:
    history = History()
    history.dispatched(0.0, "w1", "a", 0, 1)
    seconds = {"run": 6.0, "wait_read": 0.012, "publish": 0.0004}
    receipt = Receipt(0, "a", 1, 1, "p", 9, "", 75, 75)
    history.note(AttemptSucceeded(7.0, "w1", Success(receipt, Measured(seconds, {"cpus": 1}))))
    text = parsed(rendered(history)).text
    assert "wait_read12 ms0.2%" in text
    assert "publish0.4 msbeside" in text
    assert text.index("wait_read12 ms") < text.index("run6.0 s") < text.index("publish0.4 ms")
    assert "Beside: other threads did it meanwhile" in text


def test_no_advice_is_given_after_too_little_work() -> None:
    history = History()
    history.dispatched(0.0, "w1", "a", 0, 1)
    receipt = Receipt(0, "a", 1, 1, "p", 9, "", 75, 75)
    history.note(AttemptSucceeded(4.9, "w1", Success(receipt, Measured({"run": 4.0}, {"cpus": 1}))))
    text = parsed(rendered(history)).text
    assert "Too short to tell what held it: 4.9 s of work, and it takes 5 s." in text
    assert "more cores" not in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "40 ms"), (0.4, "0.4 s"), (12, "12 s"), (200, "3:20"), (7500, "2:05:00")]
)
def test_times_on_an_axis_read_well(seconds: float, words: str) -> None:
    assert clock(seconds) == words


@pytest.mark.parametrize(("value", "words"), [(950, "950"), (12_500, "12.5 k"), (3.1e6, "3.1 M"), (0, "0")])
def test_numbers_on_an_axis_read_well(value: float, words: str) -> None:
    assert short(value) == words


CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")
@pytest.mark.parametrize("width", [1280, 500])  # a window without a screen is no narrower than 500
def test_a_browser_shows_the_page_and_every_figure_fits_its_card(tmp_path: Path, width: int) -> None:
    history, huge = told(), {"rows_run": 123_456_789_012, "shards": 1_234_567, "shards_done": 1_234_567}
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    shown = rendered(history, seconds=359_999.0, **huge)
    assert policy in shown
    asked = shown.replace(policy, f"{policy}; script-src 'unsafe-inline'").replace("</body>", f"{_ASK}</body>")
    (tmp_path / "report.html").write_text(asked)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},2400", "--dump-dom", (tmp_path / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert "The command over time" in done.stdout
    assert "Content Security Policy" not in done.stderr, "nothing on the page is refused by its own policy"
    assert "<title>wide: </title>" in done.stdout


_ASK = """<script>
const cards = [...document.querySelectorAll(".tile b, .tile span")];
const wide = cards.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent);
if (document.documentElement.scrollWidth > document.documentElement.clientWidth) wide.push("the page");
const stages = [...document.querySelectorAll(".scroll")].find(e => e.textContent.includes("what was done"));
if (stages.scrollWidth > stages.clientWidth + 1) wide.push("the stages");
document.title = "wide: " + wide.join(", ");
</script>"""
