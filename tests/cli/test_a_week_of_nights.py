"""A week of nights: cron calls one job file, and a scheduler acts on exit codes alone, as `jobs/README.md` says.

Two pods are killed, one row is bad, one night comes twice, and one part gets lost. The clock is the list of days.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from connectors.output.epoch import FRESH_S
from connectors.output.reject import read_rejected
from connectors.output.verification import verify
from jobs.section.output import Output

ROWS, SHARD_ROWS = 200, 50
TRIES = 3  # of a night
KILLED = {"RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": "W6.after=kill@2"}  # with two of the four parts published
_CODES = Path(__file__).parents[2] / "jobs" / "README.md"


def cron(first: date) -> Iterator[str]:
    for night in range(7):
        yield (first + timedelta(days=night)).isoformat()


def tries_again() -> Callable[[int], bool]:
    """Whether a scheduler tries again after an exit code, by the table; what a signal ended says nothing, and is."""
    rows = re.findall(r"^\| ([\d, ]+) \|.*?\| (complete|fail|retry) \|", _CODES.read_text(), re.M)
    table = {int(code): word == "retry" for codes, word in rows for code in codes.split(",")}
    assert {0, 2, 65, 69, 70, 75, 130, 143} <= set(table)
    return lambda code: code < 0 or table[code]


@dataclass
class Try:
    """One run of the command: what it ended with, and its log."""

    code: int
    events: list[dict[str, Any]]

    @property
    def rows_run(self) -> int:
        return int(self.events[-1]["rows_run"])

    def heard(self, event: str) -> list[dict[str, Any]]:
        return [said for said in self.events if said["event"] == event]


@dataclass
class Week:
    folder: Path
    again: Callable[[int], bool]

    def output(self, day: str) -> Path:
        return self.folder / "scores" / day

    def parts(self, day: str) -> dict[str, int]:
        return {part.name: part.stat().st_mtime_ns for part in self.output(day).glob("part-*")}

    def epoch(self, day: str) -> Path:
        return max(self.output(day).glob("_run/*/epochs/*.json"))

    def job(self, model: Path, **limits: object) -> None:
        job = {
            "vars": {"dt": "1970-01-01"},
            "model": {"url": str(model), "signature": "picky"},
            "input": {"url": "in/${dt}/*.parquet"},
            "columns": {"keep": ["id"]},
            "output": {"url": "scores/${dt}"},
            "limits": {"shard_rows": SHARD_ROWS} | limits,
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))

    def run(self, day: str, *flags: str, **environment: str) -> Try:
        """The line of the crontab. While another driver is waited for, its silence passes at once."""
        line = ["run", "job.yaml", "--var", f"dt={day}", "--in-process", "--wait-for-driver", "6m"]
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", *line, "--log-format", "json", "--metrics-file", "runner.prom", *flags],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        events = []
        with process:
            assert process.stderr is not None
            for said in process.stderr:
                events.append(json.loads(said))
                if events[-1]["event"] == "waiting_for_driver":
                    then = time.time() - FRESH_S - 1
                    os.utime(self.epoch(day), (then, then))
        done = Try(process.returncode, events)
        if done.code >= 0:
            assert events[-1]["event"] == ("error" if done.code else "done")
            ended = [line for line in self._metrics() if line.startswith("runner_ended_seconds{")]
            assert done.heard("dispatch") == [] or f'exit_code="{done.code}"' in ended[0]
        return done

    def _metrics(self) -> list[str]:
        return (self.folder / "runner.prom").read_text().splitlines()

    def night(self, day: str, *flags: str, killed: Callable[[], None] | None = None) -> list[Try]:
        """What the scheduler makes of it: the same line, until an exit code says that there is no use.

        killed: the first pod is, and this is what happens before the next one.
        """
        tries = [self.run(day, *flags, **(KILLED if killed else {}))]
        while self.again(tries[-1].code) and len(tries) < TRIES:
            if killed is not None and len(tries) == 1:
                killed()
            tries.append(self.run(day, *flags))
        return tries


def write_input(folder: Path, first_id: int, bad: int | None = None) -> None:
    """Two files. bad: the id whose number the model refuses."""
    folder.mkdir(parents=True)
    for ids in np.split(np.arange(first_id, first_id + ROWS), 2):
        x = np.where(ids == bad, -1, ids).astype(np.float32)
        pq.write_table(pa.table({"id": ids, "x": x}), folder / f"{ids[0]:06d}.parquet", row_group_size=25)


def codes(tries: list[Try]) -> list[int]:
    return [one.code for one in tries]


@pytest.mark.timeout(240)  # a dozen processes that load TensorFlow, on a busy machine
def test_seven_nights_with_killed_pods_a_bad_row_and_a_lost_part_leave_every_row_once(
    tmp_path: Path, half_plus_two: Path
) -> None:
    week = Week(tmp_path, tries_again())
    days = list(cron(date(2026, 11, 27)))
    bad = 4 * ROWS + 70
    for night, day in enumerate(days):
        write_input(tmp_path / "in" / day, night * ROWS, bad)
    week.job(half_plus_two)

    for day in days[:2]:
        assert codes(week.night(day)) == [0]
    _killed_and_replaced(week, days[2])
    _killed_while_overwriting(week, days[3])
    assert codes(week.night(days[4])) == [65], "the scheduler gives up, and somebody looks"
    week.job(half_plus_two, on_bad_row="reject", max_rejected_rows=1)
    assert codes(week.night(days[4], "--overwrite")) == [0], "rows that may be set aside are another plan"
    assert codes(week.night(days[5])) == [0]
    before = week.parts(days[5])
    (twice,) = week.night(days[5])
    assert (twice.code, twice.rows_run, week.parts(days[5])) == (0, 0, before)
    _lost_and_repaired(week, days[6])

    for night, day in enumerate(days):
        expected = [row for row in range(night * ROWS, (night + 1) * ROWS) if row != bad]
        table = pq.read_table([*sorted(week.output(day).glob("part-*.parquet"))])
        assert table["id"].to_pylist() == expected
        np.testing.assert_array_equal(table["y"].to_numpy(), np.array(expected, np.float32) / 2 + 2)
        assert verify(Output(url=str(week.output(day))), deep=True).holds
        rejected = read_rejected(Output(url=str(week.output(day)))).tables(["kept"])
        assert [kept["id"] for aside in rejected for kept in aside["kept"].to_pylist()] == [bad] * (
            ROWS - len(expected)
        )
    _listed(week, days)


def _killed_and_replaced(week: Week, day: str) -> None:
    """The next pod has another name: it sees a driver elsewhere, which may be alive, and waits until it was silent."""
    before: dict[str, int] = {}

    def replaced() -> None:
        before.update(week.parts(day))
        document = json.loads(week.epoch(day).read_text())
        week.epoch(day).write_text(json.dumps(document | {"host": "the-pod-that-was-killed"}))

    first, second = week.night(day, killed=replaced)
    assert (first.code, second.code, len(before)) == (-9, 0, 2)
    assert [said["host"] for said in second.heard("waiting_for_driver")] == ["the-pod-that-was-killed"]
    assert len(second.heard("driver_gone")) == 1
    assert second.rows_run == ROWS - len(before) * SHARD_ROWS
    assert before.items() <= week.parts(day).items()


def _killed_while_overwriting(week: Week, day: str) -> None:
    """The line has `--overwrite`, because of a trial by day; what it began goes on, and is not begun anew."""
    assert week.run(day, "--set", "model.signature=serving_default").code == 0
    trial, before = week.parts(day), dict[str, int]()
    first, second = week.night(day, "--overwrite", killed=lambda: before.update(week.parts(day)))
    assert (first.code, second.code, len(before)) == (-9, 0, 2)
    assert second.rows_run == ROWS - len(before) * SHARD_ROWS
    assert before.items() <= week.parts(day).items()
    assert not trial.keys() & week.parts(day).keys()


def _lost_and_repaired(week: Week, day: str) -> None:
    assert codes(week.night(day)) == [0]
    lost, *whole = sorted(week.output(day).glob("part-*"))
    before = week.parts(day)
    lost.unlink()
    (refused,) = week.night(day)
    assert refused.code == 2
    assert "--repair" in refused.events[-1]["message"]
    (repaired,) = week.night(day, "--repair")
    assert (repaired.code, repaired.rows_run) == (0, SHARD_ROWS)
    assert {part.name: before[part.name] for part in whole}.items() <= week.parts(day).items()


def _listed(week: Week, days: list[str]) -> None:
    seen = subprocess.run(
        [sys.executable, "-m", "runner", "status", "scores", "--json"], cwd=week.folder, capture_output=True, text=True
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr
    listed = json.loads(seen.stdout)["jobs"]
    assert [(job["name"], job["state"]) for job in listed] == [(day, "finished") for day in days]
