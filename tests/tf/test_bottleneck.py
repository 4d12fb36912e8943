"""Real runs with something slow in them: the summary, `report.json` and the page name it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.formats.parquet import ParquetReader
from connectors.output.directory import Part
from jobs.attempt import Receipt
from jobs.errors import DataError
from jobs.job import Job
from runner import engine
from runner.driver.launch import RunOptions, launch
from runner.driver.result import Result

NAP_S = 0.03

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, half_plus_two: Path, write_numbers: Callable[..., Path]) -> Run:
    """run(limits={...}, ...): 2,000 rows in 10 shards, in this process."""

    def call(**sections: Any) -> Result:
        if not (tmp_path / "in").exists():
            write_numbers(tmp_path / "in")
        job = {
            "model": {"url": str(half_plus_two)},
            "input": {"url": str(tmp_path / "in")},
            "columns": {"keep": ["id"]},
            "output": {"url": str(tmp_path / "out")},
            "limits": {"shard_rows": 200},
            "workers": {"cpus": 1},
        }
        return launch(Job.model_validate(job | sections), RunOptions(in_process=True))

    return call


def told(tmp_path: Path) -> dict[str, Any]:
    (report,) = (tmp_path / "out").glob("_run/*/report.json")
    document: dict[str, Any] = json.loads(report.read_text())
    return document


def slowed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Every call of `owner.name` takes 30 ms more."""
    original = getattr(owner, name)

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(NAP_S)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, slow)


def test_a_slow_model_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = engine.load

    def load_slow(*arguments: Any) -> engine.Engine:
        loaded = load(*arguments)
        slowed(monkeypatch, loaded, "run")
        return loaded

    monkeypatch.setattr(engine, "load", load_slow)
    result = run()
    document = told(tmp_path)
    assert document["bottleneck"]["is"] == "model"
    assert document["speed"]["compute_rows_per_s"] > 0
    assert document["bottleneck"]["sentence"] in result.summary()
    assert document["workers"]["w1"]["rows"] == document["rows_run"] == 2000


def test_a_slow_source_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slowed(monkeypatch, ParquetReader, "read")
    run()
    assert told(tmp_path)["bottleneck"]["is"] == "source"
    assert told(tmp_path)["workers"]["w1"]["waited_for"]["source"] > 0


def test_a_slow_encoder_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slowed(monkeypatch, Part, "write")
    run(limits={"shard_rows": 2000, "batch_rows": 50})
    assert told(tmp_path)["bottleneck"]["is"] == "sink"


def test_a_slow_store_of_the_output_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = Part.publish
    monkeypatch.setattr("runner.measure.account.SHORT_S", 0.0)

    def slow(part: Part, *given: Any) -> Receipt:
        time.sleep(3 * NAP_S)
        return publish(part, *given)

    monkeypatch.setattr(Part, "publish", slow)
    run()
    assert told(tmp_path)["bottleneck"]["is"] == "sink"
    assert "publish" in told(tmp_path)["bottleneck"]["sentence"]


def test_every_run_leaves_its_account_also_one_that_failed_and_one_that_went_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ParquetReader.read

    def bad(reader: ParquetReader, row_group: int) -> Any:
        if row_group == 9:
            raise DataError("this row group is bad", code="PAGE_CORRUPT")
        return read(reader, row_group)

    with monkeypatch.context() as patch:
        patch.setattr(ParquetReader, "read", bad)
        with pytest.raises(DataError):
            run()
    first = told(tmp_path)
    assert "this row group is bad" in first["ending"]
    assert 0 < first["shards_done"] < 10
    result = run()
    second = told(tmp_path)
    assert (second["ending"], second["shards_done"]) == ("finished", 10)
    assert second["rows_before"] + second["rows_run"] == 2000
    assert second["rows_before"] >= first["rows_run"], "what was published when the run ended may not have been told"
    page = Path(result.page)
    assert page.exists()
    assert "The command over time" in page.read_text()


def test_a_report_that_cannot_be_written_harms_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: Any) -> str:
        raise ZeroDivisionError("a mistake in a chart")

    monkeypatch.setattr("runner.driver.ending.page", broken)
    assert run().rows == 2000
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert "could not be written" in caplog.text
