"""What a person sees while a job runs, and where the time went."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable

import pytest
from rich.console import Console

from runner.measure.snapshot import Snapshot
from runner.measure.stage import StageClock
from runner.report.display import Display, LogDisplay, NoDisplay, NotebookDisplay, Shown, TerminalDisplay, display_for
from runner.report.text import byte_count, duration, progress_line, stage_lines, wrapped


def snapshot(**changes: object) -> Snapshot:
    facts = {
        "rows_total": 4_000_000,
        "rows_done": 1_000_000,
        "rows_before": 0,
        "seconds": 2.0,
        "shards_total": 8,
        "shards_done": 2,
        "shards_running": 2,
        "retries": 1,
        "workers_ready": 1,
        "workers": 2,
    }
    return Snapshot(**(facts | changes))  # type: ignore[arg-type]


def test_the_line_tells_rows_rate_eta_shards_retries_and_workers() -> None:
    line = progress_line(snapshot())
    assert "1,000,000 of 4,000,000 rows" in line
    assert "25%" in line
    assert "500,000 rows/s" in line
    assert "ETA 6.0 s" in line
    assert "shards 2 done, 2 running, 1 retried of 8" in line
    assert "1 of 2 workers ready" in line


def test_the_rate_counts_only_what_this_run_did() -> None:
    assert snapshot(rows_before=800_000).rows_per_s == 100_000
    assert "rows/s" not in progress_line(snapshot(rows_before=1_000_000))


def test_a_finished_run_shows_no_eta() -> None:
    assert "ETA" not in progress_line(snapshot(rows_done=4_000_000, shards_done=8))


def test_while_nobody_works_no_eta_is_shown() -> None:
    line = progress_line(snapshot(workers_ready=0, waits_for="no node is alive"))
    assert "ETA" not in line
    assert "no node is alive" in line


def test_a_job_without_rows_counts_its_shards() -> None:
    assert snapshot(rows_total=0, rows_done=0, shards_total=1, shards_done=1).share == 1.0


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end() -> None:
    now = [0.0]
    stream = io.StringIO()
    display = LogDisplay(stream, clock=lambda: now[0])
    for tick in range(25):
        now[0] = float(tick)
        display.show(snapshot(rows_done=tick))
    assert [line.split(" of ")[0] for line in stream.getvalue().splitlines()] == ["10", "20"]
    display.close()
    display.close()
    assert [line.split(" of ")[0] for line in stream.getvalue().splitlines()] == ["10", "20", "24"]


def test_a_log_has_one_line_of_a_wait_when_it_is_over_and_more_only_where_it_is_long() -> None:
    now, stream = [0.0], io.StringIO()
    display = LogDisplay(stream, clock=lambda: now[0])
    for second in (0.5, 1.0, 2.0, 3.0):
        now[0] = second
        display.wait("starting a local Ray", second, False)
    display.wait("starting a local Ray", 3.4, True)
    assert stream.getvalue() == "starting a local Ray took 3.4 s\n"
    now[0] = 11.0
    display.wait("starting a local Ray", 11.0, False)
    assert stream.getvalue().splitlines()[1:] == ["starting a local Ray ... 11 s"]
    display.wait("connecting to Ray", 0.2, True)
    display.say("a line")
    assert stream.getvalue().splitlines()[2:] == ["a line"], "what took no time is not told"


def test_a_terminal_shows_a_wait_live_and_keeps_what_it_took() -> None:
    stream = io.StringIO()
    display = TerminalDisplay(Console(file=stream, force_terminal=True, width=200))
    display.wait("starting a local Ray", 3.0, False)
    display._live.refresh()
    assert "starting a local Ray ... 3 s" in stream.getvalue()
    display.wait("starting a local Ray", 3.4, True)
    display.say("1 shard")
    display.close()
    assert "starting a local Ray took 3.4 s\n" in stream.getvalue().replace("\r", "")
    assert "1 shard" in stream.getvalue()


def test_a_terminal_keeps_the_last_line_when_the_display_is_closed() -> None:
    stream = io.StringIO()
    display = TerminalDisplay(Console(file=stream, force_terminal=True, width=200))
    display.show(snapshot(rows_done=4_000_000, shards_done=8))
    display.close()
    assert "4,000,000 of 4,000,000 rows · 100%" in stream.getvalue()


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_terminal_cuts_nothing_of_the_progress(width: int) -> None:
    stream = io.StringIO()
    display = TerminalDisplay(Console(file=stream, force_terminal=True, width=width))
    display.show(snapshot(workers_ready=0, waits_for="no room yet for 2 x (1 CPU)"))
    display.close()
    shown = " ".join(stream.getvalue().split())
    for part in ("25%", "1 retried of 8", "0 of 2 workers ready", "no room yet for 2 x (1 CPU)"):
        assert all(word in shown for word in part.split())
    assert "…" not in shown
    last = stream.getvalue().rstrip().splitlines()
    assert len(last) >= 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (0.0004, "0.4 ms"),
        (0.045, "45 ms"),
        (0.3, "0.3 s"),
        (8.14, "8.1 s"),
        (99.9, "99.9 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")])
def test_sizes_read_well(size: int, text: str) -> None:
    assert byte_count(size) == text


def test_the_stage_sentence_ranks_the_compute_thread_and_names_what_ran_beside_it() -> None:
    seconds = {"run": 6.0, "wait_read": 3.0, "feed": 1.0, "read": 4.0, "encode": 2.5}
    told = ["model's threads: run 60%, wait_read 30%, feed 10%", "other threads: read 4.0 s, encode 2.5 s"]
    assert stage_lines(seconds) == told
    assert stage_lines({}) == []


def test_text_is_broken_between_words_and_names_stay_whole() -> None:
    text = (
        "report: /a/very/long/name/that/does/not/fit.html\nheld by: the model, which takes most of the time there was"
    )
    assert wrapped(text, 30).splitlines() == [
        *("report:", "  /a/very/long/name/that/does/not/fit.html"),
        *("held by: the model, which", "  takes most of the time there", "  was"),
    ]


def test_a_stage_clock_counts_the_wait_for_each_item() -> None:
    clock = StageClock()
    assert list(clock.each("wait_read", range(3))) == [0, 1, 2]
    assert clock.seconds["wait_read"] > 0
    assert clock.seconds["run"] == 0


class FakeHandle:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, html: str) -> None:
        self.shown.append(html)


def test_a_notebook_shows_one_bar_that_is_redrawn_and_ends_at_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    handle, displayed = FakeHandle(), []

    def display(html: str, display_id: bool) -> FakeHandle:
        displayed.append(html)
        return handle

    module = types.ModuleType("IPython.display")
    module.HTML, module.display = str, display  # type: ignore[attr-defined]
    shell = types.SimpleNamespace(kernel=object())
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    shown = display_for()
    assert isinstance(shown, NotebookDisplay)
    shown.wait("starting a local Ray", 2.0, False)
    assert "starting a local Ray ... 2 s" in handle.shown[-1]
    shown.wait("starting a local Ray", 3.4, True)
    shown.say("a <line>")
    for rows in range(0, 4_000_001, 1000):
        shown.show(snapshot(rows_done=rows, shards_done=8 if rows == 4_000_000 else 0))
    shown.close()
    assert len(displayed) == 1
    assert len(handle.shown) < 100, "redrawn at most twice a second"
    assert 'value="1.0000"' in handle.shown[-1]
    assert "100%" in handle.shown[-1]
    assert "starting a local Ray took 3.4 s" in handle.shown[-1], "it stays above the bar"
    assert "a &lt;line&gt;" in handle.shown[-1]


def test_ipython_without_a_kernel_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert isinstance(display_for(io.StringIO()), LogDisplay)


class Broken(io.StringIO):
    """The standard error of a process whose terminal is gone."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_terminal_that_is_gone_ends_nothing() -> None:
    display = display_for(Broken())
    assert isinstance(display, TerminalDisplay)
    display.show(snapshot())
    display.close()


def test_without_standard_error_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(display_for(), NoDisplay)


class Failing(NoDisplay):
    """A notebook that does not answer."""

    def say(self, line: str) -> None:
        raise RuntimeError("the kernel is gone")

    def wait(self, what: str, seconds: float, over: bool) -> None:
        raise RuntimeError("the kernel is gone")

    def show(self, at: Snapshot) -> None:
        raise RuntimeError("the kernel is gone")

    def close(self) -> None:
        raise RuntimeError("the kernel is gone")


def _unopened() -> Display:
    raise RuntimeError("the kernel is gone")


@pytest.mark.parametrize("opened", [Failing, _unopened])
def test_a_display_that_fails_ends_nothing_and_is_told_once(
    opened: Callable[[], Display], caplog: pytest.LogCaptureFixture
) -> None:
    display = Shown(opened)
    display.say("a line")
    display.wait("starting a local Ray", 2.0, True)
    display.show(snapshot())
    display.show(snapshot())
    display.close()
    assert caplog.messages == ["the progress cannot be shown: RuntimeError: the kernel is gone; the run goes on"]
